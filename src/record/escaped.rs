//! Escapes control characters. A control character drives a terminal, and some of them, with U+2028 and U+2029, end a line
//! for one reader or another. Containers may print any of them. In a line each byte is escaped in octal, `#033`, as rsyslog
//! does; in JSON as `\u001b`.
//!
//! A tab is not escaped: it only moves the text behind it. Marks of direction are not escaped either: they end with their
//! line, and do not affect other text. Bytes that are not UTF-8 stay as they are. Exceptions are 0x80 to 0x9f, which are
//! control characters for a terminal that reads eight bits.

/// Appends `text` with each newline as `#012`. A NUL becomes `#000` where a reader such as syslog-ng or logferry could take
/// it for the end of a message. Everything else stays as it is.
pub fn append_on_one_line(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\n', 0, rest) {
        let (byte, behind) = (rest[at], &rest[at + 1..]);
        out.extend_from_slice(&rest[..at]);
        // What follows may look like the start of a message: another NUL, a priority, or a byte order mark before a priority.
        match byte == b'\n' || matches!(behind.first(), Some(0 | b'<' | 0xef)) {
            true => push_octal(byte, out),
            false => out.push(byte),
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
}

/// Appends `text` with every byte of a control character in octal.
pub fn append_escaped(text: &[u8], out: &mut Vec<u8>) {
    each_part(text, |part, control| match control {
        Some(_) => part.iter().for_each(|byte| push_octal(*byte, out)),
        None => out.extend_from_slice(part),
    });
}

/// Escapes the control characters of the JSON in `out` from `start` on. `serde_json` escapes only what is below U+0020. The
/// value stays the same. Afterwards the only control characters are newlines between values.
pub fn escape_json(out: &mut Vec<u8>, start: usize) {
    if plain_len(&out[start..]) == out.len() - start {
        return;
    }
    let json = out.split_off(start);
    each_part(&json, |part, control| match control {
        Some(character) if character != '\n' => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
        }
        _ => out.extend_from_slice(part),
    });
}

/// `text` with every control character, tabs too, as Rust escapes it: `\u{1b}`, `\n`. It is for the relay's own texts: its
/// log, errors of a command, problems of a config. Escaped text stays as it is.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match is_control(character) || character == '\t' {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}

/// Bytes as text: `\xHH` for each byte that is not UTF-8, `\\` for a backslash.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Undoes [`escape`]. Other backslashes stay as they are.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let digit = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (byte, len) = match (rest.get(at + 1), digit(at + 2), digit(at + 3)) {
            (Some(b'x'), Some(high), Some(low)) => ((high * 16 + low) as u8, 4),
            (Some(b'\\'), ..) => (b'\\', 2),
            _ => (b'\\', 1),
        };
        out.push(byte);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
    out
}

/// Splits `bytes` for a terminal, and calls `part` with each part: printable text (`false`), or the `\xHH` escapes of bytes
/// that must not be printed (`true`). The latter are control characters, tabs too, invisible characters, and bytes that are
/// not UTF-8.
pub fn each_displayable(bytes: &[u8], mut part: impl FnMut(&str, bool)) {
    let escapes = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(|character: char| character.is_control() || is_invisible(character)) {
            let (text, behind) = rest.split_at(at);
            let len = behind.chars().next().map_or(0, char::len_utf8);
            part(text, false);
            part(&escapes(&behind.as_bytes()[..len]), true);
            rest = &behind[len..];
        }
        part(rest, false);
        if !chunk.invalid().is_empty() {
            part(&escapes(chunk.invalid()), true);
        }
    }
}

/// Does the character have no width, or change the direction of text (Unicode's Bidi_Control and similar)?
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Does the text consist of printable ASCII and tabs only?
pub(crate) fn is_plain(text: &[u8]) -> bool {
    plain_len(text) == text.len()
}

/// Does the text contain a control character?
pub(crate) fn has_control(text: &[u8]) -> bool {
    let mut found = false;
    if plain_len(text) < text.len() {
        each_part(text, |_, control| found |= control.is_some());
    }
    found
}

/// Does the character act on a terminal, or end a line?
pub(crate) fn is_control(character: char) -> bool {
    character != '\t' && (character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'))
}

/// Calls `take` for the whole of `text` in order: once for each control character, and once for each part between them.
fn each_part(text: &[u8], mut take: impl FnMut(&[u8], Option<char>)) {
    // `start..at` has no control character, and has not been passed to `take` yet.
    let (mut start, mut at) = (0, 0);
    loop {
        at += plain_len(&text[at..]);
        let Some((character, len)) = first_character(&text[at..]) else { break };
        if is_control(character) {
            take(&text[start..at], None);
            take(&text[at..at + len], Some(character));
            start = at + len;
        }
        at += len;
    }
    take(&text[start..], None);
}

/// The first character and its length. A byte that is not part of UTF-8 counts as the character of its number, as a terminal
/// that reads eight bits sees it.
fn first_character(text: &[u8]) -> Option<(char, usize)> {
    let first = *text.first()?;
    let len = match first {
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
        _ => 1,
    };
    let whole = text.get(..len).and_then(|bytes| str::from_utf8(bytes).ok());
    Some(whole.and_then(|text| text.chars().next()).map_or((char::from(first), 1), |character| (character, len)))
}

/// The number of bytes at the start of `text` that are printable ASCII and tabs, which is nearly always all of them. Eight
/// bytes are checked at a time, so that a line without escapes costs nearly nothing.
fn plain_len(text: &[u8]) -> usize {
    const ALL: u64 = u64::MAX / 0xff;
    // The highest bit of a byte is set if the byte is 0x80 or more. The subtractions set it if the byte is below 0x20 or is
    // 0x7f. A borrow from the next byte can give a wrong result only above a byte that was found correctly.
    let has_other = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        let delete = word ^ (ALL * 0x7f);
        (word | word.wrapping_sub(ALL * 0x20) | delete.wrapping_sub(ALL)) & (ALL * 0x80) != 0
    };
    let words = text.as_chunks::<8>().0;
    let at = 8 * words.iter().position(has_other).unwrap_or(words.len());
    at + text[at..].iter().take_while(|byte| matches!(byte, b'\t' | b' '..=b'~')).count()
}

fn push_octal(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'#', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn visible(text: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        append_escaped(text, &mut out);
        assert_eq!(&out[..6], b"before");
        out.split_off(6)
    }

    #[track_caller]
    fn check(text: &[u8], expected: &[u8]) {
        assert_eq!(visible(text).escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn a_control_character_is_written_in_octal() {
        for byte in (0..0x20).filter(|byte| *byte != b'\t').chain([0x7f]).chain(0x80..0xa0) {
            check(&[b'a', byte, b'b'], format!("a#{byte:03o}b").as_bytes());
        }
        for second in 0x80..0xa0 {
            check(&[b'a', 0xc2, second, b'b'], format!("a#302#{second:03o}b").as_bytes());
        }
        check("a\u{2028}b\u{2029}".as_bytes(), b"a#342#200#250b#342#200#251");
        check(b"\x1b]0;title\x07\x1b[2J\r\0", b"#033]0;title#007#033[2J#015#000");
        // An overlong encoding of U+009B, and half a character.
        check(b"\xe0\x82\x9b2J \xe2\x82", b"\xe0#202#2332J \xe2#202");
    }

    #[test]
    fn text_stays_as_it_is() {
        let cyrillic_and_bytes = "\u{a0}ñ \u{402}\u{41b} \u{202e}\u{2069}\u{2027}\u{202a} 日本 🦀".as_bytes();
        for text in [b"", &b"\ttab #033"[..], cyrillic_and_bytes, b"caf\xe9 \xff\xfe \xa0\xf0"] {
            check(text, text);
        }
    }

    #[test]
    fn displayable_text_stays_and_the_rest_is_escaped() {
        let parts = |bytes: &[u8]| {
            let mut parts = Vec::new();
            each_displayable(bytes, |text, is_escape| parts.push((text.to_owned(), is_escape)));
            parts.retain(|(text, _)| !text.is_empty());
            parts
        };
        let part = |text: &str, is_escape| (text.to_owned(), is_escape);
        let expected = [part("aü", false), part("\\x1b", true), part("[2J", false), part("\\xff", true)];
        assert_eq!(parts(b"a\xc3\xbc\x1b[2J\xff"), expected);
        assert_eq!(parts("\u{202e}\t".as_bytes()), [part("\\xe2\\x80\\xae", true), part("\\x09", true)]);
        assert_eq!(parts(b""), []);
    }

    #[test]
    fn newlines_alone_where_a_program_reads() {
        let mut out = Vec::new();
        append_on_one_line(b"a\n\nb\r\x1b\x9b\n\0\0c\0<\0", &mut out);
        assert_eq!(out, b"a#012#012b\r\x1b\x9b#012#000\0c#000<\0");
    }

    #[test]
    fn json_keeps_its_value() {
        let mut json = "\u{7f}{\n \"a\u{7f}\": \"b\u{9b}\u{2028}\u{2029}ñ\\u001b\"\n}".into();
        escape_json(&mut json, 1);
        let expected = "\u{7f}{\n \"a\\u007f\": \"b\\u009b\\u2028\\u2029ñ\\u001b\"\n}";
        assert_eq!(String::from_utf8_lossy(&json), expected);
    }

    proptest! {
        /// The same byte by byte, without the eight-byte steps.
        #[test]
        fn plain_is_plain(text in proptest::collection::vec(prop_oneof![20 => b' '..=b'~', 1 => any::<u8>()], 0..40)) {
            let expected = text.iter().position(|byte| *byte != 9 && !(0x20..=0x7e).contains(byte));
            prop_assert_eq!(plain_len(&text), expected.unwrap_or(text.len()));
        }

        #[test]
        fn no_control_character_is_left(text in proptest::collection::vec(prop_oneof![Just(0xc2), Just(0xe2), 0x78..=0xa8_u8, any::<u8>()], 0..40)) {
            let out = visible(&text);
            for chunk in out.utf8_chunks() {
                prop_assert!(!chunk.valid().chars().any(is_control), "{}", out.escape_ascii());
                prop_assert!(!chunk.invalid().iter().any(|byte| (0x80..0xa0).contains(byte)), "{}", out.escape_ascii());
            }
        }

        #[test]
        fn json_says_the_same(text: String) {
            let value = serde_json::Value::from(text + "\u{7f}\u{85}\u{2028}");
            let mut json = serde_json::to_vec(&value).unwrap();
            escape_json(&mut json, 0);
            prop_assert!(!String::from_utf8(json.clone()).unwrap().chars().any(is_control));
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), value);
        }
    }
}
