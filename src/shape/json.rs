//! A text that is a JSON object.

use std::borrow::Cow;

use super::parse::{Found, MAX_FOUND, Unread, has_repeated};
use crate::record::Value;
use crate::record::json::{is_too_large, number_len, text_len};
use crate::record::json_reader::{BadObject, each_member, text};

/// Parses a text that is a JSON object into its members. An object with a repeated name has no fields: readers do not agree
/// on which of the two values counts, and log stores refuse such objects.
pub fn parse(object: &str) -> Result<Found<'_>, Unread> {
    let object = object.trim_ascii();
    if !object.starts_with('{') || !object.ends_with('}') {
        return Err(Unread::Form);
    }
    let (mut found, mut count, mut refused) = (Vec::with_capacity(16), 0, None);
    let read = each_member(object, |name, value| {
        count += 1;
        // Reading goes on after a refused member, to tell broken JSON from too many members.
        if count <= MAX_FOUND && refused.is_none() {
            match value_of(value, &mut count) {
                Ok(value) => found.push((name, value)),
                Err(why) => refused = Some(why),
            }
        }
        true
    });
    match (read, refused) {
        (Ok(()), None) if count > MAX_FOUND => Err(Unread::Limit),
        (Ok(()), None) if has_repeated(&found, |(name, _)| name) => Err(Unread::Duplicate),
        (Ok(()), None) => Ok(found),
        (Ok(()), Some(why)) => Err(why),
        (Err(BadObject::TooDeep), _) => Err(Unread::Limit),
        (Err(_), _) => Err(Unread::Form),
    }
}

/// Reads a value that is valid JSON. `count`: the names so far.
fn value_of<'a>(json: &'a str, count: &mut usize) -> Result<Value<'a>, Unread> {
    match json.as_bytes()[0] {
        b'"' => Ok(Value::text(text(json).ok_or(Unread::Form)?)),
        b'{' | b'[' => {
            check_nested(json, count)?;
            Value::of_valid(json).ok_or(Unread::Form)
        }
        _ => Value::scalar(json).ok_or(Unread::Limit),
    }
}

/// Checks nested objects by the rules of the outer one: no repeated name, no number that is too large, not too many names.
fn check_nested(json: &str, count: &mut usize) -> Result<(), Unread> {
    // The names of each open object.
    let (mut open, mut at) = (Vec::new(), 0);
    while let Some(byte) = json.as_bytes().get(at) {
        let start = at;
        at += match byte {
            b'"' => text_len(&json[at..]),
            b'-' | b'0'..=b'9' => number_len(&json[at..]),
            _ => 1,
        };
        match byte {
            b'{' => open.push(Vec::new()),
            b'}' if has_repeated(&open.pop().unwrap_or_default(), |name: &Cow<'_, str>| name) => {
                return Err(Unread::Duplicate);
            }
            b'"' if json[at..].trim_ascii_start().starts_with(':') => {
                *count += 1;
                let name = text(&json[start..at]).ok_or(Unread::Form)?;
                open.last_mut().ok_or(Unread::Form)?.push(name);
            }
            b'-' | b'0'..=b'9' if is_too_large(&json[start..at]) => return Err(Unread::Limit),
            _ => {}
        }
        if *count > MAX_FOUND {
            return Err(Unread::Limit);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json_reader::MAX_DEPTH;

    fn shown(text: &str) -> Result<String, Unread> {
        parse(text).map(crate::shape::parse::shown)
    }

    #[test]
    fn members_keep_their_types() {
        let text = r#" {"level":"info","n":1.10,"big":123456789012345678901234567890,"ok":true,"none":null,"a":[1, 2],"o":{"b" : "c d"},"e":"a\"b\n"} "#;
        let expected = r#"level="info" n=1.10 big=123456789012345678901234567890 ok=true none=null a=[1,2] o={"b":"c d"} e="a\"b\n""#;
        assert_eq!(shown(text).as_deref(), Ok(expected));
        assert_eq!(shown("{}").as_deref(), Ok(""));
        assert_eq!(shown(r#"{"a\u0062":1,"a":"\ud83d\ude00"}"#).as_deref(), Ok("ab=1 a=\"\u{1f600}\""));
    }

    #[test]
    fn a_name_stands_there_once() {
        let many =
            |last: &str| (0..99).fold(String::new(), |all, n| format!("{all}\"{n}\":{n},")) + &format!("\"{last}\":0");
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a\u0062":1,"a":2,"ab":3}"#,
            r#"{"o":{"a":1,"b":{"a":1},"a":1}}"#,
            r#"{"o":[{"a":1},{"a":1,"\u0061" : 2}]}"#,
            &format!("{{{}}}", many("98")),
            &format!("{{\"o\":{{{}}}}}", many("98")),
        ] {
            assert_eq!(parse(text), Err(Unread::Duplicate), "{text}");
        }
        for text in [
            r#"{"a":{"a":{"a":["a","a"]}},"b":{"a":1}}"#,
            r#"{"o":[{"a":"a\":"},{"a":2,"A":"\\"}]}"#,
            &format!("{{{}}}", many("99")),
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        // Text that is broken JSON as a whole has another form.
        assert_eq!(parse(r#"{"a":1,"a":}"#), Err(Unread::Form));
    }

    #[test]
    fn what_is_no_object_is_a_text() {
        for text in [
            "",
            "hello",
            "[1]",
            "{",
            "{\"a\":1",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1} x",
            "{\"a\":1}}",
            "\"{}\"",
            "{\"a\":1,}",
        ] {
            assert_eq!(parse(text), Err(Unread::Form), "{text}");
        }
    }

    #[test]
    fn limits() {
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(parse(&many(MAX_FOUND)).map(|found| found.len()), Ok(MAX_FOUND));
        assert_eq!(parse(&many(10_000)), Err(Unread::Limit));
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(MAX_DEPTH - 1)).is_ok());
        assert_eq!(parse(&deep(MAX_DEPTH)), Err(Unread::Limit));
        let in_arrays = |count: usize| format!("{{\"o\":[{}]}}", vec![many(2); count / 2].join(","));
        assert!(parse(&in_arrays(MAX_FOUND - 2)).is_ok());
        assert_eq!(parse(&in_arrays(MAX_FOUND)), Err(Unread::Limit));
        for text in ["{\"n\":1e999}", "{\"n\":-1e999}", "{\"o\":[{\"n\":1e999}]}"] {
            assert_eq!(parse(text), Err(Unread::Limit), "{text}");
        }
        assert!(parse("{\"n\":1e-999,\"t\":\"1e999\",\"o\":[\"1e999\"]}").is_ok());
    }
}
