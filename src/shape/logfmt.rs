//! logfmt: a text of `key=value` and `key="a value"` separated by blanks, as libraries for Go, Heroku and many others write it.

use std::borrow::Cow;
use std::collections::HashSet;

use super::parse::{Found, MAX_FOUND, Unread, has_repeated};
use crate::record::Value;

/// The pairs of a text. The whole text must consist of pairs: `user=7 has logged in` is a sentence. Of a repeated key the
/// last value counts: no reader refuses a repeated key, and libraries that pass a logger down write such lines.
pub fn parse(text: &str) -> Result<Found<'_>, Unread> {
    let mut found: Found<'_> = Vec::with_capacity(16);
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let (key, behind) = rest.split_at(rest.bytes().take_while(|byte| is_key(*byte)).count());
        let behind = behind.strip_prefix('=').filter(|_| !key.is_empty()).ok_or(Unread::Form)?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (value, behind) = behind.split_at(bare_len(behind.as_bytes())?);
                (bare(value), behind)
            }
        };
        if found.len() == MAX_FOUND {
            return Err(Unread::Limit);
        }
        found.push((Cow::Borrowed(key), value));
        rest = match behind.strip_prefix(' ') {
            Some(rest) => rest.trim_ascii_start(),
            None if behind.is_empty() => behind,
            None => return Err(Unread::Form),
        };
    }
    if found.is_empty() {
        return Err(Unread::Form);
    }
    if has_repeated(&found, |(key, _)| key) {
        keep_last(&mut found);
    }
    Ok(found)
}

/// Keeps only the last pair of each key.
fn keep_last(found: &mut Found<'_>) {
    let mut known = HashSet::new();
    found.reverse();
    found.retain(|(key, _)| known.insert(key.clone()));
    found.reverse();
}

fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b'@' | b'$' | b'#' | b':')
}

/// The length of a value without quotes.
fn bare_len(bytes: &[u8]) -> Result<usize, Unread> {
    match bytes.iter().position(|byte| matches!(byte, b' ' | b'"' | b'=')) {
        None => Ok(bytes.len()),
        Some(end) if bytes[end] == b' ' => Ok(end),
        Some(_) => Err(Unread::Form),
    }
}

/// A value without quotes: a number without an exponent, true or false keeps its type, anything else is a text.
fn bare(text: &str) -> Value<'_> {
    let scalar =
        if is_number(text.as_bytes()) || matches!(text, "true" | "false") { Value::scalar(text) } else { None };
    scalar.unwrap_or(Value::Text(Cow::Borrowed(text.as_bytes())))
}

/// Is this a number of JSON without an exponent?
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    match text[whole..].split_first() {
        _ if whole == 0 || whole > 1 && text[0] == b'0' => false,
        None => true,
        Some((point, fraction)) => *point == b'.' && !fraction.is_empty() && digits(fraction) == fraction.len(),
    }
}

/// The text up to its closing quote, and the rest behind the quote.
fn unquote(text: &str) -> Result<(Value<'_>, &str), Unread> {
    let (bytes, mut end, mut escapes) = (text.as_bytes(), 0, false);
    loop {
        end += memchr::memchr2(b'"', b'\\', bytes.get(end..).unwrap_or_default()).ok_or(Unread::Form)?;
        if bytes[end] == b'"' {
            break;
        }
        escapes = true;
        end += 2;
    }
    let (value, behind) = (&text[..end], &text[end + 1..]);
    let value = match escapes {
        false => Cow::Borrowed(value.as_bytes()),
        true => Cow::Owned(unescaped(value).into_bytes()),
    };
    Ok((Value::Text(value), behind))
}

/// An unknown escape stays as it is.
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
            ("a=1 b=3 a=2", "b=3 a=2"),
            ("a=- b=-0 c=1. d=.5 e=0.50 f=00 g=-7", r#"a="-" b=-0 c="1." d=".5" e=0.50 f="00" g=-7"#),
            ("a.b-c/d_e@f#g:h=gr\u{fc}n", "a.b-c/d_e@f#g:h=\"gr\u{fc}n\""),
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
        for text in ["a=\"\\", "a=\"\\\"", "a=\"\u{fc}\\\u{fc}"] {
            assert_eq!(parse(text), Err(Unread::Form), "{text}");
        }
        let many: String = (0..=MAX_FOUND).map(|n| format!("k{n}={n} ")).collect();
        assert_eq!(parse(&many), Err(Unread::Limit));
        let equal = "k=1 ".repeat(99) + "k=2";
        assert_eq!(shown(&equal).as_deref(), Ok("k=2"));
    }
}
