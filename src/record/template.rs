//! A text with fields of a record in braces: the path of a file, a subject. What a value may have there is for who uses it to say.

use std::borrow::Cow;

use super::{HeaderField, Record};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Field(Field),
}

/// What stands between braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Host,
    App,
    Name,
    Image,
    Id,
}

/// Bytes of a value in a [`Name`].
const MAX_FIELD: usize = 128;

/// A name with fields of a record in it.
pub struct Name {
    parts: Vec<Part>,
    /// What a byte of a value is there.
    legal: fn(u8) -> char,
    /// Bytes of a name.
    longest: usize,
}

/// The fields as they are written.
pub const FIELDS: [(&str, Field); 5] = [
    ("{host}", Field::Host),
    ("{name}", Field::Name),
    ("{image}", Field::Image),
    ("{id}", Field::Id),
    ("{app}", Field::App),
];

/// The pieces of a template. What is no field is text.
pub fn parts(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        if let Some((written, field)) = FIELDS.iter().find(|(written, _)| rest.starts_with(written)) {
            parts.push(Part::Field(*field));
            rest = &rest[written.len()..];
        } else {
            let end = rest.char_indices().skip(1).find(|(_, character)| *character == '{');
            let (text, behind) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
            parts.push(Part::Text(text.to_owned()));
            rest = behind;
        }
    }
    parts
}

/// All that the pieces can become: `*` stands for a field.
pub fn pattern(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Field(_) => "*".to_owned(),
    };
    parts.iter().map(part).collect()
}

/// What is wrong with the fields of a template, for a person.
pub fn unknown_field(template: &str) -> Option<String> {
    let mut fields = template.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let (field, _) = fields.find(|(field, _)| !FIELDS.iter().any(|(known, _)| known[1..known.len() - 1] == **field))?;
    Some(format!("{{{field}}} is no field; there are {}", FIELDS.map(|(written, _)| written).join(", ")))
}

impl Name {
    pub fn new(template: &str, legal: fn(u8) -> char, longest: usize) -> Self {
        Self { parts: parts(template), legal, longest }
    }

    /// All names, with `*` for each field.
    pub fn pattern(&self) -> String {
        pattern(&self.parts)
    }

    pub fn of(&self, record: &Record<'_>) -> Cow<'_, str> {
        if let [Part::Text(text)] = &self.parts[..] {
            return Cow::Borrowed(text);
        }
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field(field) => {
                    let value = field.of(record);
                    name.extend(value.iter().take(MAX_FIELD).map(|byte| (self.legal)(*byte)));
                }
            }
        }
        let fits = (0..=self.longest.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
        name.truncate(fits.unwrap_or(0));
        Cow::Owned(name)
    }
}

impl Field {
    pub fn of<'a>(self, record: &'a Record<'_>) -> Cow<'a, [u8]> {
        let container = |value: Option<&'a [u8]>| value.map(Cow::Borrowed);
        match self {
            Self::Host => HeaderField::or_nil(record.hostname),
            Self::App => HeaderField::or_nil(record.app_name),
            Self::Name => container(record.container_name()).unwrap_or_else(|| HeaderField::or_nil(record.app_name)),
            Self::Image => container(record.image_name()).unwrap_or(Cow::Borrowed(b"-")),
            Self::Id => container(record.container_id()).unwrap_or(Cow::Borrowed(b"-")),
        }
    }
}
