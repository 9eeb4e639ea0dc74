//! A text that is a JSON object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::parse::{Found, MAX_FOUND, Unread};
use crate::record::{Value, json_depth};

/// Arrays and objects that are open at once in a text.
const MAX_DEPTH: usize = 32;

/// The members of the object that the text is. A name that is there twice has the last value, as in most readers.
pub fn parse(text: &str) -> Result<Found<'_>, Unread> {
    let text = text.trim_ascii();
    if !text.starts_with('{') || !text.ends_with('}') {
        return Err(Unread::Form);
    }
    if json_depth(text) > MAX_DEPTH {
        return Err(Unread::Limit);
    }
    let Members(members) = serde_json::from_str(text).map_err(|_| Unread::Form)?;
    if members.len() > MAX_FOUND {
        return Err(Unread::Limit);
    }
    let mut found: Found<'_> = Vec::with_capacity(members.len());
    for (name, value) in members {
        let value = value_of(value.get())?;
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => found.push((name, value)),
        }
    }
    Ok(found)
}

/// A text without an escape is borrowed.
fn value_of(json: &str) -> Result<Value<'_>, Unread> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(Value::Text(Cow::Borrowed(text.as_bytes()))),
        Some(_) => Value::from_json(json).ok_or(Unread::Form),
        None => match Value::from_json(json) {
            // A number became a text, because nobody could hold it.
            Some(Value::Text(_)) => Err(Unread::Limit),
            Some(value) => Ok(value),
            None => Err(Unread::Form),
        },
    }
}

/// The members of an object in order, up to one more than are looked at.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A name, borrowed where it has no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    // The rest is read all the same: what is no JSON is told from what has too many members.
                    if members.len() <= MAX_FOUND {
                        members.push((name, value));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, Unread> {
        parse(text).map(crate::shape::parse::shown)
    }

    #[test]
    fn members_keep_their_types() {
        let text = r#" {"level":"info","n":1.10,"big":123456789012345678901234567890,"ok":true,"none":null,"a":[1, 2],"o":{"b" : "c d"},"e":"a\"b\n"} "#;
        let expected = r#"level="info" n=1.10 big=123456789012345678901234567890 ok=true none=null a=[1,2] o={"b":"c d"} e="a\"b\n""#;
        assert_eq!(shown(text).as_deref(), Ok(expected));
        assert_eq!(shown("{}").as_deref(), Ok(""));
        assert_eq!(shown(r#"{"a\u0062":1,"a":2,"ab":3}"#).as_deref(), Ok("ab=3 a=2"));
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
        assert_eq!(parse("{\"n\":1e999}"), Err(Unread::Limit));
    }
}
