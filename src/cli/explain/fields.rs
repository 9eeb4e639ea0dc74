//! Fields with their types.

use serde::Serialize;
use serde_json::value::RawValue;

use super::explanation::ByteString;
use crate::record::{Fields, Value};

/// One field of a message.
#[derive(Serialize)]
pub struct FieldExplanation {
    pub name: String,
    /// The type's name in JSON, or `text`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub value: FieldValue,
    /// Whether the value is escaped, because it is not UTF-8.
    pub escaped: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum FieldValue {
    Text(ByteString),
    Json(Box<RawValue>),
}

pub fn explained(fields: &Fields<'_>) -> Vec<FieldExplanation> {
    fields.iter().map(|field| FieldExplanation::new(&field.name, &field.value)).collect()
}

impl FieldExplanation {
    pub fn new(name: &str, value: &Value<'_>) -> Self {
        let (kind, value, escaped) = match value {
            Value::Text(text) => {
                let text = ByteString(text.to_vec());
                let escaped = !text.is_text();
                ("text", FieldValue::Text(text), escaped)
            }
            Value::Json(json) => {
                let raw = RawValue::from_string(json.as_str().to_owned()).expect("JSON");
                (kind(json.as_str()), FieldValue::Json(raw), false)
            }
        };
        Self { name: name.to_owned(), kind, value, escaped }
    }
}

fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

impl FieldValue {
    /// The value for people.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => &text.0,
            Self::Json(json) => json.get().as_bytes(),
        }
    }
}
