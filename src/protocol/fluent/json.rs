//! Values as JSON. Fields store every value that is not a text as JSON.

use super::Value;
use crate::record::escape;
use crate::record::json::{push, push_text};

/// Appends a value. Values that JSON cannot express become texts: NaN and the infinities by their names, bytes as [`escape`] writes them.
pub fn append(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Float(number) if number.is_finite() => push(&number, out),
        Value::Float(number) => push_text(&number.to_string(), out),
        Value::Str(text) | Value::Bin(text) | Value::Ext(_, text) => append_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                append(item, out);
            }
            out.push(b']');
        }
        Value::Map(mut items) => {
            let mut between = b'{';
            if items.left() == 0 {
                out.push(between);
            }
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                out.push(between);
                between = b',';
                match key.text() {
                    Some(key) => append_text(key, out),
                    None => {
                        let mut name = Vec::new();
                        append(key, &mut name);
                        append_text(&name, out);
                    }
                }
                out.push(b':');
                append(value, out);
            }
            out.push(b'}');
        }
    }
}

fn append_text(text: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(text) {
        Ok(text) => push_text(text, out),
        Err(_) => push_text(&escape(text), out),
    }
}
