//! `fields`: fields that are added to the lines of all forwards, of a listener, or of a forward.

use super::effective::Item;
use super::error::ConfigError;
use super::kinds::{Kind, Value};
use crate::record::MAX_FIELDS;
use crate::record::template::AddedField;

/// A list of `name=value`. Names must be unique.
pub struct AddedFields;

impl Kind<Vec<AddedField>> for AddedFields {
    fn read(&self, value: &Value<'_>) -> Result<Vec<AddedField>, ConfigError> {
        let Value { source, key, entry } = value;
        let mut fields: Vec<AddedField> = Vec::new();
        for leaf in entry.leaves() {
            let read = source.text(key, leaf).and_then(|text| {
                let field = field(&text).map_err(|says| source.bad(key, leaf, &says))?;
                match fields.iter().any(|other| other.name == field.name) {
                    true => Err(source.bad(key, leaf, "another field has this name; take one of them out")),
                    false if fields.len() >= MAX_FIELDS => {
                        Err(source.bad(key, leaf, &format!("a line has at most {MAX_FIELDS} fields")))
                    }
                    false => Ok(field),
                }
            });
            match read {
                Ok(field) => fields.push(field),
                Err(problem) => source.note(problem, ())?,
            }
        }
        Ok(fields)
    }

    fn display(&self, fields: &Vec<AddedField>) -> Item {
        Item::List(fields.iter().map(|field| format!("{}={}", field.name, field.written())).collect())
    }
}

pub fn field(text: &str) -> Result<AddedField, String> {
    match text.split_once('=').map(|(name, value)| (name.trim_matches(' '), value.trim())) {
        Some((name, value)) if !value.is_empty() => AddedField::new(name, value),
        _ => Err("write a field as \"env=prod\"".to_owned()),
    }
}
