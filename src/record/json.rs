//! JSON: writing it, and finding parts that are well-formed but that many readers refuse.

use serde::Serialize;

/// The JSON without blanks between values. A number that no float can hold becomes a text, and half of a surrogate pair
/// becomes U+FFFD.
pub(super) fn readable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    // `kept..at` is still to be copied unchanged.
    let (mut kept, mut at) = (0, 0);
    while let Some(first) = json.as_bytes().get(at) {
        let len = match first {
            b'"' => text_len(&json[at..]),
            b'-' | b'0'..=b'9' => number_len(&json[at..]),
            _ => 1,
        };
        let end = at + len;
        let is_kept = match first {
            b'"' => memchr::memchr(b'\\', &json.as_bytes()[at..end]).is_none(),
            b'-' | b'0'..=b'9' => !is_too_large(&json[at..end]),
            first => !first.is_ascii_whitespace(),
        };
        if !is_kept {
            out.push_str(&json[kept..at]);
            match first {
                b'"' => append_text(&json[at..end], &mut out),
                first if first.is_ascii_whitespace() => {}
                _ => out.extend(["\"", &json[at..end], "\""]),
            }
            kept = end;
        }
        at = end;
    }
    out.push_str(&json[kept..]);
    out
}

/// A number of at most this many characters, without an exponent, fits into a float.
const SURELY_SMALL: usize = 300;

/// Is this a number that no float can hold?
pub(crate) fn is_too_large(json: &str) -> bool {
    json.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
        && (json.len() > SURELY_SMALL || json.contains(['e', 'E']))
        && json.parse().is_ok_and(|number: f64| number.is_infinite())
}

/// The maximum depth of arrays and objects.
pub fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'"' => at += text_len(&json[at..]) - 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
        deepest = deepest.max(depth);
    }
    deepest
}

/// The length of the string at the start, quotes included.
pub(crate) fn text_len(json: &str) -> usize {
    let bytes = json.as_bytes();
    let mut at = 1;
    while let Some(rest) = bytes.get(at..) {
        at += plain_len(rest);
        at += match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => 2,
            _ => 1,
        };
    }
    json.len()
}

pub(crate) fn number_len(json: &str) -> usize {
    let is_in = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    json.bytes().take_while(is_in).count()
}

/// The JSON with the strings that `change` replaces, names included. `None`: `change` replaces none.
pub(super) fn with_texts(json: &str, change: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (mut out, mut kept, mut at) = (Vec::new(), 0, 0);
    while let Some(start) = json[at..].find('"').map(|found| at + found) {
        let end = start + text_len(&json[start..]);
        let inside = json.get(start + 1..end - 1).unwrap_or_default();
        let new = match memchr::memchr(b'\\', inside.as_bytes()) {
            None => change(inside),
            Some(_) => serde_json::from_str::<String>(&json[start..end]).ok().and_then(|text| change(&text)),
        };
        if let Some(new) = new {
            out.extend_from_slice(&json.as_bytes()[kept..start]);
            push_text(&new, &mut out);
            kept = end;
        }
        at = end;
    }
    if kept == 0 {
        return None;
    }
    out.extend_from_slice(&json.as_bytes()[kept..]);
    String::from_utf8(out).ok()
}

/// Appends a string as it is written, with U+FFFD for each half of a surrogate pair.
fn append_text(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (escape, behind) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => escape.split_at(12),
            (Some(0xd800..0xe000), _) => ("\\ufffd", &escape[6..]),
            (Some(_), _) => escape.split_at(6),
            // The backslash and the character behind it. In valid JSON that character is ASCII.
            (None, _) => escape.split_at_checked(2).unwrap_or((escape, "")),
        };
        out.push_str(escape);
        rest = behind;
    }
    out.push_str(rest);
}

/// The number of the `\uHHHH` escape at the start.
fn unit(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// Appends a text as a string, escaped where necessary.
pub(crate) fn push_text(text: &str, out: &mut Vec<u8>) {
    // Nearly no text needs an escape.
    if plain_len(text.as_bytes()) == text.len() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        return out.push(b'"');
    }
    push(text, out);
}

/// Appends a value.
pub(crate) fn push<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing text into memory cannot fail");
}

/// The number of bytes at the start of a string that are no quote, no backslash and no control character.
#[inline]
pub fn plain_len(text: &[u8]) -> usize {
    const ALL: u64 = u64::MAX / 0xff;
    // The highest bit of a byte is set for each of these. A borrow from the next byte can give a wrong result only above a
    // byte that was found correctly.
    let others = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        let is = |byte: u8| (word ^ (ALL * u64::from(byte))).wrapping_sub(ALL) & !(word ^ (ALL * u64::from(byte)));
        (word.wrapping_sub(ALL * 0x20) & !word | is(b'"') | is(b'\\')) & (ALL * 0x80)
    };
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk() {
        let others = others(word);
        if others != 0 {
            return at + others.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|byte| !matches!(byte, 0..b' ' | b'"' | b'\\')).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_many_readers_refuse_is_said_so_that_they_do_not() {
        let check = |json: &str, expected: &str| {
            assert_eq!(readable(json), expected);
            assert!(serde_json::from_str::<serde_json::Value>(expected).is_ok(), "{expected}");
            assert_eq!(readable(expected), expected);
        };
        check(" [ 1.10 , \t\"a b\" , true ] ", "[1.10,\"a b\",true]");
        check(r#"[1e400,-1e400,1e-400,1e308]"#, r#"["1e400","-1e400",1e-400,1e308]"#);
        check(&format!("[{}]", "9".repeat(400)), &format!("[\"{}\"]", "9".repeat(400)));
        check(r#"{"\ud800":"\udc00\ud800\ud83d\ude00\\ud800"}"#, r#"{"\ufffd":"\ufffd\ufffd\ud83d\ude00\\ud800"}"#);
        check(r#"["\" 1e400 [",{"a\\":"é "}]"#, r#"["\" 1e400 [",{"a\\":"é "}]"#);
    }

    #[test]
    fn texts_are_changed_where_they_stand() {
        let change = |text: &str| text.contains('a').then(|| text.replace('a', "\""));
        let json = r#"{"b":["xa","\u0061",1.10,{"a":null}],"c":"\\"}"#;
        assert_eq!(with_texts(json, &change).as_deref(), Some(r#"{"b":["x\"","\"",1.10,{"\"":null}],"c":"\\"}"#));
        assert_eq!(with_texts("[1,true,\"b\"]", &change), None);
    }

    #[test]
    fn texts_open_nothing() {
        for (json, expected) in
            [("1", 0), ("[]", 1), ("[[],{\"a\":[]}]", 3), ("[\"[[\\\"[\"]", 1), ("\"\\\\\"", 0), ("]][", 1)]
        {
            assert_eq!(depth(json), expected, "{json}");
        }
    }

    proptest! {
        #[test]
        fn it_says_the_same(values in proptest::collection::vec((any::<String>(), any::<i64>(), any::<f64>()), 0..8)) {
            let value = serde_json::json!({ "values": values });
            let json = serde_json::to_string_pretty(&value).expect("in memory");
            prop_assert_eq!(readable(&json), value.to_string());
        }

        /// The input need not be JSON.
        #[test]
        fn nothing_panics(json in "[\\\\u\"d89ecé\\[\\]{} ]{0,30}") {
            let _ = (readable(&json), depth(&json), is_too_large(&json));
        }
    }
}
