//! Reads the members of a JSON object in order. Values stay as they are written, so that numbers keep their digits. Results
//! borrow from the input where possible.
//!
//! A reader of our own, because all messages of some protocols and all lines that are shaped pass through it. `serde_json`
//! can tell where a value ends only by a visitor for each value, and it decodes every string on the way.

use std::borrow::Cow;

use serde::Deserializer;
use serde::de::{self, IgnoredAny, Visitor};

use super::Value;
use super::json::plain_len;

/// The maximum depth of arrays and objects.
pub const MAX_DEPTH: usize = 32;

/// Why the members of an object were not all read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadObject {
    NotJson,
    NoObject,
    /// The object is nested too deep.
    TooDeep,
    /// `take` returned false.
    Stopped,
}

/// Calls `take` with the name and the value of each member of an object, until it returns false.
pub fn each_member<'a>(object: &'a str, take: impl FnMut(Cow<'a, str>, &'a str) -> bool) -> Result<(), BadObject> {
    each_member_within(MAX_DEPTH, object, take)
}

/// Like [`each_member`], with another maximum depth, up to 128.
pub fn each_member_within<'a>(
    max_depth: usize,
    object: &'a str,
    mut take: impl FnMut(Cow<'a, str>, &'a str) -> bool,
) -> Result<(), BadObject> {
    let text = object.as_bytes();
    let mut at = behind_blanks(text, 0);
    if text.get(at) != Some(&b'{') {
        let is_json = serde_json::from_str::<IgnoredAny>(object).is_ok();
        return Err(if is_json { BadObject::NoObject } else { BadObject::NotJson });
    }
    at = behind_blanks(text, at + 1);
    let mut is_over = text.get(at) == Some(&b'}');
    while !is_over {
        let name_end = text_end(text, at)?;
        let start = behind_blanks(text, behind_colon(text, name_end)?);
        let end = value_end(text, start, max_depth)?;
        let name = name(&object[at..name_end]).ok_or(BadObject::NotJson)?;
        if !take(name, &object[start..end]) {
            return Err(BadObject::Stopped);
        }
        at = behind_blanks(text, end);
        is_over = match text.get(at) {
            Some(b'}') => true,
            Some(b',') => false,
            _ => return Err(BadObject::NotJson),
        };
        if !is_over {
            at = behind_blanks(text, at + 1);
        }
    }
    if behind_blanks(text, at + 1) == text.len() { Ok(()) } else { Err(BadObject::NotJson) }
}

/// Decodes the name of a member. `None`: it is no string, or has half of a surrogate pair.
fn name(value: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', value.as_bytes()).is_none() {
        return text(value);
    }
    serde_json::from_str(value).ok().map(Cow::Owned)
}

/// Decodes a string. Half of a surrogate pair becomes U+FFFD. `None`: the value is no string.
pub fn text(value: &str) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Some(inside.into());
    }
    if let Some(text) = unescaped(inside.as_bytes()) {
        return Some(text.into());
    }
    let read = serde_json::Deserializer::from_str(value).deserialize_bytes(Text);
    read.ok().map(Cow::Owned)
}

/// Decodes the string whose opening quote is just before these bytes, and returns it with the bytes after its closing quote.
/// `None`: the string is invalid or incomplete, or it needs [`text`].
pub fn split_text(bytes: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let plain = plain_len(bytes);
    if bytes.get(plain) == Some(&b'"') {
        return Some((str::from_utf8(&bytes[..plain]).ok()?.into(), &bytes[plain + 1..]));
    }
    let mut end = plain;
    while *bytes.get(end)? != b'"' {
        if bytes[end] != b'\\' {
            return None;
        }
        end += 2;
        end += plain_len(bytes.get(end..)?);
    }
    Some((unescaped(&bytes[..end])?.into(), &bytes[end + 1..]))
}

/// Reads a value of JSON as a field has it. `None`: the value is no JSON.
pub fn field(value: &str) -> Option<Value<'_>> {
    match text(value) {
        Some(text) => Some(Value::text(text)),
        None => Value::from_json(value),
    }
}

/// The end of the object at the start of these bytes. `None`: the object is incomplete, or it is unusual and must be read
/// byte by byte: it contains a control character such as LF, or is nested too deep.
pub fn object_end(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        match *bytes.get(at)? {
            b'"' => {
                at += 1 + plain_len(&bytes[at + 1..]);
                while *bytes.get(at)? == b'\\' && *bytes.get(at + 1)? >= b' ' {
                    at += 2;
                    at += plain_len(&bytes[at..]);
                }
                if bytes[at] != b'"' {
                    return None;
                }
            }
            b'{' | b'[' if depth == MAX_DEPTH => return None,
            b'{' | b'[' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' | b']' if depth > 1 => depth -= 1,
            b']' | 0..b' ' => return None,
            _ => {}
        }
        at += 1;
    }
}

/// Decodes a string without its quotes. `None`: it is invalid, or has surrogates.
fn unescaped(inside: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let mut len = 2;
        match *rest.get(at + 1)? {
            byte @ (b'"' | b'\\' | b'/') => out.push(byte),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => {
                let character = char::from_u32(hex(rest.get(at + 2..at + 6)?)?)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                len = 6;
            }
            _ => return None,
        }
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
    String::from_utf8(out).ok()
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
}

/// The end of the string at `start`.
#[inline]
fn text_end(text: &[u8], start: usize) -> Result<usize, BadObject> {
    if text.get(start) != Some(&b'"') {
        return Err(BadObject::NotJson);
    }
    let mut at = start + 1;
    loop {
        at += plain_len(&text[at..]);
        at += match text.get(at..).unwrap_or_default() {
            [b'"', ..] => return Ok(at + 1),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', digits @ ..] if digits.get(..4).is_some_and(|digits| hex(digits).is_some()) => 6,
            _ => return Err(BadObject::NotJson),
        };
    }
}

/// The end of the value at `start`.
fn value_end(text: &[u8], start: usize, max_depth: usize) -> Result<usize, BadObject> {
    let mut at = start;
    // One bit for each open array or object, the innermost one last; 1: an object.
    let (mut depth, mut objects) = (0, 0_u128);
    loop {
        at = match text.get(at) {
            Some(b'"') => text_end(text, at)?,
            Some(b'-' | b'0'..=b'9') => number_end(text, at)?,
            Some(open @ (b'{' | b'[')) => {
                // The outer object counts too.
                if depth + 1 == max_depth {
                    return Err(BadObject::TooDeep);
                }
                let inside = behind_blanks(text, at + 1);
                depth += 1;
                objects = objects << 1 | u128::from(*open == b'{');
                match (open, text.get(inside)) {
                    (b'{', Some(b'}')) | (b'[', Some(b']')) => inside,
                    (b'{', _) => {
                        at = behind_blanks(text, behind_colon(text, text_end(text, inside)?)?);
                        continue;
                    }
                    _ => {
                        at = inside;
                        continue;
                    }
                }
            }
            Some(b't') if text[at..].starts_with(b"true") => at + 4,
            Some(b'f') if text[at..].starts_with(b"false") => at + 5,
            Some(b'n') if text[at..].starts_with(b"null") => at + 4,
            _ => return Err(BadObject::NotJson),
        };
        // After a value, or at the end of an empty array or object.
        while depth > 0 {
            at = behind_blanks(text, at);
            match (text.get(at), objects & 1) {
                (Some(b'}'), 1) | (Some(b']'), 0) => {
                    (depth, objects) = (depth - 1, objects >> 1);
                    at += 1;
                }
                (Some(b','), 1) => {
                    at = behind_colon(text, text_end(text, behind_blanks(text, at + 1))?)?;
                    break;
                }
                (Some(b','), _) => {
                    at += 1;
                    break;
                }
                _ => return Err(BadObject::NotJson),
            }
        }
        if depth == 0 {
            return Ok(at);
        }
        at = behind_blanks(text, at);
    }
}

fn number_end(text: &[u8], start: usize) -> Result<usize, BadObject> {
    let digits = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let some_digits = |at: usize| Some(digits(at)).filter(|len| *len > 0).ok_or(BadObject::NotJson);
    let mut at = start + usize::from(text[start] == b'-');
    at += match text.get(at) {
        Some(b'0') => 1,
        _ => some_digits(at)?,
    };
    if text.get(at) == Some(&b'.') {
        at += 1 + some_digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at += some_digits(at)?;
    }
    Ok(at)
}

fn behind_colon(text: &[u8], at: usize) -> Result<usize, BadObject> {
    let at = behind_blanks(text, at);
    if text.get(at) == Some(&b':') { Ok(at + 1) } else { Err(BadObject::NotJson) }
}

#[inline]
fn behind_blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = text.get(at) {
        at += 1;
    }
    at
}

struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<String, E> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// The names and values, as `serde_json` reads them.
    struct Members(Vec<(String, String)>);

    impl<'de> de::Deserialize<'de> for Members {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct All;
            impl<'de> Visitor<'de> for All {
                type Value = Members;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                        members.push((name, value.get().to_owned()));
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(All)
        }
    }

    /// Panics unless the reader agrees with `serde_json`, for the text and for its parts.
    fn check(json: &str) {
        let mut members = Vec::new();
        let read = each_member(json, |name, value| {
            members.push((name.into_owned(), value.to_owned()));
            true
        });
        match (serde_json::from_str::<Members>(json), read) {
            (Ok(Members(expected)), Ok(())) => assert_eq!(members, expected, "{json}"),
            (Ok(_), Err(BadObject::TooDeep)) => assert!(json.matches(['[', '{']).count() > MAX_DEPTH, "{json}"),
            (Err(_), Err(_)) => {}
            (expected, read) => {
                panic!("{json:?}: {read:?}, serde_json: {:?}", expected.map(|_| ()).map_err(|why| why.to_string()))
            }
        }
        for (_, value) in members {
            if let Some(read) = text(&value) {
                let expected = serde_json::from_str::<String>(&value);
                assert!(expected.as_ref().map_or(value.contains("\\u"), |expected| *expected == read), "{value}");
                let split = split_text(&value.as_bytes()[1..]);
                assert!(split.is_none_or(|(text, rest)| text == read && rest.is_empty()), "{value}");
            }
        }
    }

    #[test]
    fn it_is_read_as_serde_json_reads_it() {
        let deep = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        for json in [
            "{}",
            " { } ",
            "{\"a\":1}",
            "{\"a\" : [ 1 , { } , [ ] ] , \"b\":{\"c\":null}}\n",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":[1,]}",
            "{\"a\":{\"b\":1,}}",
            "{\"a\":01}",
            "{\"a\":-}",
            "{\"a\":-0.5e+9}",
            "{\"a\":1.}",
            "{\"a\":1e}",
            "{\"a\":.5}",
            "{\"a\":tru}",
            "{\"a\":truefalse}",
            "{\"\\ud83d\\ude00\":\"\\ud83d\\ude00\"}",
            "{\"\\ud83d\":1}",
            "{\"a\":\"\\ud83d\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\t\"}",
            "{\"a\":\"\u{7f}\"}",
            "{\"a\":\"b\"",
            "{\"a\"",
            "{\"a\":",
            "{",
            "",
            "[]",
            "1",
            "nul",
            "{}{}",
            "{} x",
            "{\"a\":]}",
            "{\"a\":[}]}",
            "{\"a\":\"\\u00g0\"}",
            "{\"a\":\"\\u+123\"}",
            &deep(30),
            &deep(31),
            &deep(32),
            &deep(200),
        ] {
            check(json);
        }
        assert_eq!(each_member(&deep(MAX_DEPTH - 1), |_, _| true), Ok(()));
        assert_eq!(each_member(&deep(MAX_DEPTH), |_, _| true), Err(BadObject::TooDeep));
        assert_eq!(each_member("[]", |_, _| true), Err(BadObject::NoObject));
        assert_eq!(each_member("{\"a\":1}", |_, _| false), Err(BadObject::Stopped));
    }

    const PARTS: [&str; 20] = [
        "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "1", "-", "0", ".5", "e9", "true", "\\", "\\u00e9", "é",
        "\n", " ",
    ];

    proptest! {
        #[test]
        fn whatever_it_is(parts in proptest::collection::vec(0..PARTS.len(), 0..14), inside: bool) {
            let text = parts.iter().map(|part| PARTS[*part]).collect::<String>();
            check(&if inside { format!("{{\"a\":{text}}}") } else { text });
        }

        #[test]
        fn whatever_is_in_a_text(text in "[a-c\"\\\\u0d8é\n\t/ ]{0,20}", name: bool) {
            check(&if name { format!("{{\"{text}\":1}}") } else { format!("{{\"a\":\"{text}\"}}") });
            let plain = text.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\');
            prop_assert_eq!(plain_len(text.as_bytes()), plain.unwrap_or(text.len()));
        }
    }
}
