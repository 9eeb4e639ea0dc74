//! The structured data of an RFC 5424 message: splits it without changing it, and writes it.

use std::borrow::Cow;

use memchr::memchr;

/// `[id name="value" …]`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    /// The whole element, brackets included.
    pub text: &'a [u8],
    pub id: &'a [u8],
    /// The text between the SD-ID and the `]`.
    params: &'a [u8],
}

/// Splits structured data and message. `None`: malformed.
pub(crate) fn split_sd(rest: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let len = match rest.first()? {
        b'-' => 1,
        _ => elements_len(rest)?,
    };
    match rest[len..].split_first() {
        None => Some((rest, None)),
        Some((b' ', message)) => Some((&rest[..len], Some(message))),
        Some(_) => None,
    }
}

/// The elements of well-formed structured data.
pub(crate) fn elements(structured_data: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut rest = structured_data;
    std::iter::from_fn(move || {
        let (element, behind) = Element::split(rest)?;
        rest = behind;
        Some(element)
    })
}

fn elements_len(text: &[u8]) -> Option<usize> {
    let mut rest = text;
    while rest.first() == Some(&b'[') {
        (_, rest) = Element::split(rest)?;
    }
    let len = text.len() - rest.len();
    (len > 0).then_some(len)
}

impl<'a> Element<'a> {
    /// Splits off the element at the start of `text`.
    fn split(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let inner = text.strip_prefix(b"[")?;
        let id = &inner[..name_len(inner)?];
        let mut rest = &inner[id.len()..];
        let params = rest;
        while let Some((_, _, behind)) = split_param(rest) {
            rest = behind;
        }
        let behind = rest.strip_prefix(b"]")?;
        let text = &text[..text.len() - behind.len()];
        Some((Self { text, id, params: &params[..params.len() - rest.len()] }, behind))
    }

    /// The names and values. The values are still escaped.
    pub fn params(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.params;
        std::iter::from_fn(move || {
            let (name, value, behind) = split_param(rest)?;
            rest = behind;
            Some((name, value))
        })
    }
}

/// Splits off ` name="value"` at the start of `text`: name, escaped value, and the rest.
///
/// A `]` in a value should be escaped. If it is not, the quotes still mark the end of the value.
fn split_param(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let text = text.strip_prefix(b" ")?;
    let (name, rest) = text.split_at(name_len(text)?);
    let rest = rest.strip_prefix(b"=\"")?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', &rest[at..])?;
        if rest[at] == b'"' {
            return Some((name, &rest[..at], &rest[at + 1..]));
        }
        // A byte after a backslash never ends a value.
        at += 2;
        if at > rest.len() {
            return None;
        }
    }
}

/// The length of an SD-NAME: printable ASCII except `=`, blank, `]` and `"`.
fn name_len(text: &[u8]) -> Option<usize> {
    let len = text.iter().take_while(|b| is_name_byte(**b)).count();
    (len > 0).then_some(len)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"')
}

/// Is this an SD-ID (RFC 5424 6.3.2): 1 to 32 printable ASCII characters except `=`, blank, `]` and `"`?
pub fn is_sd_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(is_name_byte)
}

/// Undoes the escapes `\"`, `\\` and `\]`. Any other backslash is literal (RFC 5424 6.3.3).
pub(crate) fn unescape(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', value).is_none() {
        return value.into();
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let escaped = matches!(rest.get(1), Some(b'"' | b'\\' | b']'));
        out.push(rest[usize::from(escaped)]);
        rest = &rest[1 + usize::from(escaped)..];
    }
    out.extend_from_slice(rest);
    out.into()
}

/// Appends ` name="value"` with a value that is already escaped.
pub(crate) fn write_escaped_param(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [b" ", name, b"=\"", value, b"\""] {
        out.extend_from_slice(part);
    }
}

/// ` name="value"`, with the value escaped.
pub fn sd_param(name: &str, value: &str) -> String {
    let mut out = Vec::new();
    write_param(name, value.as_bytes(), &mut out);
    String::from_utf8(out).expect("text with backslashes before ASCII characters is text")
}

/// Appends ` name="value"`, and escapes the value.
pub(crate) fn write_param(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    let mut rest = value;
    while let Some(at) = memchr::memchr3(b'"', b'\\', b']', rest) {
        out.extend_from_slice(&rest[..at]);
        // More of these bytes are likely to be near, as in JSON.
        let near = rest[at..].len().min(NEAR);
        for byte in &rest[at..at + near] {
            if matches!(byte, b'"' | b'\\' | b']') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        rest = &rest[at + near..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// The number of bytes that are copied one by one from an escaped byte on.
const NEAR: usize = 16;
