//! A text of `key=value` and `key="a value"`, with blanks between them, as Go's, Heroku's and many other libraries write it.

use std::borrow::Cow;

use super::parse::{Found, MAX_FOUND, Unread};
use crate::record::Value;

/// The pairs of a text. All of it has to be pairs: `user=7 has logged in` is a sentence.
pub fn parse(text: &str) -> Result<Found<'_>, Unread> {
    let mut found: Found<'_> = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let (key, behind) = rest.split_at(rest.find(|byte: char| !is_key(byte)).unwrap_or(rest.len()));
        let behind = behind.strip_prefix('=').filter(|_| !key.is_empty()).ok_or(Unread::Form)?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (value, behind) = behind.split_at(behind.find(' ').unwrap_or(behind.len()));
                if value.contains(['"', '=']) {
                    return Err(Unread::Form);
                }
                (bare(value), behind)
            }
        };
        if found.len() == MAX_FOUND {
            return Err(Unread::Limit);
        }
        match found.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value,
            None => found.push((Cow::Borrowed(key), value)),
        }
        rest = match behind.strip_prefix(' ') {
            Some(rest) => rest.trim_ascii_start(),
            None if behind.is_empty() => behind,
            None => return Err(Unread::Form),
        };
    }
    if found.is_empty() { Err(Unread::Form) } else { Ok(found) }
}

fn is_key(byte: char) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, '_' | '-' | '.' | '/' | '@' | '$')
}

/// What stands without quotes: numbers without an exponent, true and false are what they are.
fn bare(text: &str) -> Value<'_> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.')) && !text.is_empty();
    match Value::from_json(text).filter(|_| is_number || matches!(text, "true" | "false")) {
        Some(value) => value,
        None => Value::Text(Cow::Borrowed(text.as_bytes())),
    }
}

/// The text up to the quote that ends it, and what is behind.
fn unquote(text: &str) -> Result<(Value<'_>, &str), Unread> {
    let mut escapes = false;
    let mut bytes = text.bytes().enumerate();
    let end = loop {
        match bytes.next().ok_or(Unread::Form)? {
            (at, b'"') => break at,
            (_, b'\\') => {
                escapes = true;
                bytes.next();
            }
            _ => {}
        }
    };
    let (value, behind) = (&text[..end], &text[end + 1..]);
    let value = match escapes {
        false => Cow::Borrowed(value.as_bytes()),
        true => Cow::Owned(unescaped(value).into_bytes()),
    };
    Ok((Value::Text(value), behind))
}

/// An escape that is none stays as it is.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, if letter == '\\' { letters.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some(escaped @ ('"' | '\\'))) => out.push(escaped),
            (letter, behind) => {
                out.push(letter);
                out.extend(behind);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, Unread> {
        parse(text).map(crate::shape::parse::shown)
    }

    #[test]
    fn pairs_are_found() {
        let kata = "time=\"2026-11-28T17:01:58.4Z\" level=info msg=\"release sandbox\" arch=amd64 pid=14314";
        let expected = r#"time="2026-11-28T17:01:58.4Z" level="info" msg="release sandbox" arch="amd64" pid=14314"#;
        assert_eq!(shown(kata).as_deref(), Ok(expected));
        for (text, expected) in [
            ("a=", r#"a="""#),
            ("a=\"\" b=-1.5", r#"a="" b=-1.5"#),
            ("a=true b=007 c=1e5 d=1.2.3", r#"a=true b="007" c="1e5" d="1.2.3""#),
            (r#"a="x \"y\" \\ \n \d""#, r#"a="x \"y\" \\ \n \\d""#),
            ("  a=1   b=2 ", "a=1 b=2"),
            ("a=1 a=2", "a=2"),
            ("a.b-c/d_e@f=gr\u{fc}n", "a.b-c/d_e@f=\"gr\u{fc}n\""),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_sentence_is_none() {
        for text in [
            "",
            "hello",
            "user=7 has logged in",
            "GET /x a=1",
            "a=\"x",
            "=1",
            "a=b=c",
            "a=\"x\"y",
            "a=x\"y\"",
            "\u{fc}=1",
            "a==",
            "a",
        ] {
            assert_eq!(parse(text), Err(Unread::Form), "{text}");
        }
        let many: String = (0..=MAX_FOUND).map(|n| format!("k{n}={n} ")).collect();
        assert_eq!(parse(&many), Err(Unread::Limit));
    }
}
