//! A strict reader of RFC 5424 that shares no code with the relay.

use std::collections::BTreeMap;
use std::fmt;

/// One line as a collector receives it.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    pub raw: Vec<u8>,
    pub pri: u8,
    pub stamp: String,
    pub host: String,
    pub app: String,
    pub proc_id: String,
    pub msg_id: String,
    /// By SD-ID and param name, unescaped. Empty for `-`.
    pub params: BTreeMap<(String, String), Vec<u8>>,
    /// All bytes after the space that follows the structured data.
    pub message: Vec<u8>,
}

/// The lines' texts, in order.
pub fn texts(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()).collect()
}

/// The lines of a file.
#[track_caller]
pub fn lines_of(bytes: &[u8]) -> Vec<Line> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| Line::read(line.strip_suffix(b"\n").expect("every line has an end"))).collect()
}

/// A text as written to a file for terminals: control characters are octal.
pub fn made_visible(text: &[u8]) -> Vec<u8> {
    let octal = |bytes: &[u8]| bytes.iter().flat_map(|byte| format!("#{byte:03o}").into_bytes()).collect::<Vec<_>>();
    let acts = |character: char| character.is_control() && character != '\t' || "\u{2028}\u{2029}".contains(character);
    let mut visible = Vec::new();
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            let bytes = character.to_string().into_bytes();
            visible.extend(if acts(character) { octal(&bytes) } else { bytes });
        }
        // A terminal in 8-bit mode interprets these bytes as control characters.
        let single = |byte: &u8| if (0x80..0xa0).contains(byte) { octal(&[*byte]) } else { vec![*byte] };
        visible.extend(chunk.invalid().iter().flat_map(single));
    }
    visible
}

impl Line {
    /// Panics unless `raw` is RFC 5424.
    #[track_caller]
    pub fn read(raw: &[u8]) -> Self {
        Self::try_read(raw).unwrap_or_else(|| panic!("not RFC 5424: {}", super::shown(raw)))
    }

    fn try_read(raw: &[u8]) -> Option<Self> {
        let end = raw.iter().position(|b| *b == b'>')?;
        let pri = std::str::from_utf8(raw.strip_prefix(b"<")?.get(..end - 1)?).ok()?.parse().ok()?;
        let mut rest = raw[end + 1..].strip_prefix(b"1 ")?;
        let mut field = || {
            let end = rest.iter().position(|b| *b == b' ')?;
            let text = std::str::from_utf8(&rest[..end]).ok().filter(|text| !text.is_empty())?;
            rest = &rest[end + 1..];
            Some(text.to_owned())
        };
        let (stamp, host, app, proc_id, msg_id) = (field()?, field()?, field()?, field()?, field()?);
        let (params, rest) = structured_data(rest)?;
        let message = match rest {
            [] => &[],
            [b' ', message @ ..] => message,
            _ => return None,
        };
        Some(Self { raw: raw.to_vec(), pri, stamp, host, app, proc_id, msg_id, params, message: message.to_vec() })
    }

    /// The relay's fields about the container: image, name, id.
    pub fn container(&self) -> [String; 3] {
        ["image", "name", "id"].map(|name| self.param("docker@32473", name))
    }

    /// Empty if the parameter is missing.
    pub fn param(&self, id: &str, name: &str) -> String {
        let value = self.params.get(&(id.to_owned(), name.to_owned()));
        value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::shown(&self.raw))
    }
}

type Params = BTreeMap<(String, String), Vec<u8>>;

fn structured_data(mut rest: &[u8]) -> Option<(Params, &[u8])> {
    let mut params = Params::new();
    if let Some(rest) = rest.strip_prefix(b"-") {
        return Some((params, rest));
    }
    while let Some(inside) = rest.strip_prefix(b"[") {
        let (id, mut inside) = word(inside)?;
        while let Some(param) = inside.strip_prefix(b" ") {
            let (name, value) = word(param)?;
            let (value, behind) = quoted(value.strip_prefix(b"=\"")?)?;
            params.insert((id.clone(), name), value);
            inside = behind;
        }
        rest = inside.strip_prefix(b"]")?;
    }
    (!params.is_empty()).then_some((params, rest))
}

fn word(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|b| !b.is_ascii_graphic() || b"=]\"".contains(b))?;
    (1..=32).contains(&end).then(|| (String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end..]))
}

fn quoted(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        match bytes {
            [b'\\', escaped @ (b'"' | b'\\' | b']'), rest @ ..] => {
                value.push(*escaped);
                bytes = rest;
            }
            [b'"', rest @ ..] => return Some((value, rest)),
            [b']', ..] | [] => return None,
            [byte, rest @ ..] => {
                value.push(*byte);
                bytes = rest;
            }
        }
    }
}
