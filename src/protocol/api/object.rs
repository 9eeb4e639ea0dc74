//! Writes JSON objects: a key, then its value. A text that is not UTF-8 has `\xHH` for each invalid byte and `\\` for each backslash. Its
//! key is remembered, so that a last key `escaped` can name it, as in the format `json`.

use super::LineId;
use crate::record::json::{self, push};
use crate::record::time::StampWriter;
use crate::record::{Stamp, UnixMicros, Value, escape, escape_json};

/// An object that is being written.
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    escaped: Vec<&'static str>,
}

impl<'o> Object<'o> {
    /// Begins an object at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, escaped: Vec::new() }
    }

    /// Ends the object.
    pub fn end(mut self) {
        self.tell_escaped();
        self.out.push(b'}');
    }

    /// Writes the key `escaped` here instead of at the end, if any value was escaped.
    pub fn tell_escaped(&mut self) {
        let escaped = self.take_escaped();
        if !escaped.is_empty() {
            self.key("escaped");
            push(&escaped, self.out);
        }
    }

    /// Writes arbitrary bytes. `None` writes nothing.
    pub fn bytes(&mut self, key: &'static str, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        self.key(key);
        match std::str::from_utf8(value) {
            Ok(text) => self.push_text(text),
            Err(_) => {
                self.escaped.push(key);
                self.push_text(&escape(value));
            }
        }
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.push_text(value);
    }

    pub fn number(&mut self, key: &str, value: impl itoa::Integer) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Writes a value that is already JSON.
    pub fn json(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.out.extend_from_slice(value);
    }

    /// An object in this one.
    pub fn object(&mut self, key: &str, inside: impl FnOnce(&mut Self)) {
        self.key(key);
        self.out.push(b'{');
        inside(self);
        self.out.push(b'}');
    }

    /// An array, see [`push_array`].
    pub fn array<T>(&mut self, key: &str, items: impl IntoIterator<Item = T>, push: impl FnMut(T, &mut Vec<u8>)) {
        self.key(key);
        push_array(items, self.out, push);
    }

    /// A text, or an array of several.
    pub fn texts(&mut self, key: &str, values: &[String]) {
        match values {
            [value] => self.text(key, value),
            values => {
                self.key(key);
                push(values, self.out);
            }
        }
    }

    /// Writes the value of a field. `keeps_types`: numbers, booleans and the like are not turned into text.
    pub fn value(&mut self, key: &str, value: &Value<'_>, keeps_types: bool) {
        match value {
            Value::Json(json) if keeps_types => self.json(key, json.as_str().as_bytes()),
            Value::Json(json) => self.text(key, json.as_str()),
            Value::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => self.text(key, text),
                Err(_) => self.text(key, &escape(text)),
            },
        }
    }

    /// A time in UTC, as RFC 3339.
    pub fn stamp(&mut self, key: &str, time: UnixMicros, stamps: &mut StampWriter) {
        self.key(key);
        self.out.push(b'"');
        stamps.write(&Stamp::Received(time), self.out);
        self.out.push(b'"');
    }

    /// The identity of a line. `spool`: the spool's ID in hexadecimal digits.
    pub fn id(&mut self, key: &str, id: LineId, spool: &str) {
        self.key(key);
        self.out.push(b'"');
        id.append(spool, self.out);
        self.out.push(b'"');
    }

    /// Returns the keys of escaped values, for a caller that reports them in another way. [`end`](Self::end) does not write them any more.
    pub fn take_escaped(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.escaped)
    }

    fn push_text(&mut self, text: &str) {
        push_text(text, self.out);
    }

    fn key(&mut self, key: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        json::push_text(key, self.out);
        self.out.push(b':');
    }
}

/// Appends an array. `push` appends one of its values.
pub fn push_array<T>(items: impl IntoIterator<Item = T>, out: &mut Vec<u8>, mut push: impl FnMut(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push(item, out);
    }
    out.push(b']');
}

/// Appends a text with its quotes, without control characters.
pub fn push_text(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    json::push_text(text, out);
    escape_json(out, start);
}
