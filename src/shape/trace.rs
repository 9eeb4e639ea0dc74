//! What a shape did to one line, step by step, for a person. The sender asks for no trace, and pays a comparison for each step.

use super::mask::{Mask, hide};
use crate::record::Value;

/// The steps that one line has taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The form of the text; `None`: no form was looked for, or none fits.
    pub parsed_as: Option<String>,
    /// The fields of the text, in its order.
    pub found: Vec<Found>,
    /// The beginning of the text said the severity.
    pub is_severity_guessed: bool,
    /// Fields that `drop-fields` took out.
    pub dropped_fields: Vec<String>,
    /// The place of the first rule of `match` that matches, from 0.
    pub matched: Option<usize>,
    /// What was hidden: patterns and names, never the secrets.
    pub masked: Vec<String>,
    /// The fields of `fields`.
    pub added: Vec<(String, Value<'static>)>,
}

/// A field of the text. What a mask hides is hidden in its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub value: Value<'static>,
    pub becomes: Becomes,
    /// The severity of the line was taken from it.
    pub is_severity: bool,
}

/// Where a parsed field went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    Time,
    Message,
    /// A field with this name.
    Field(String),
    /// `keep` does not name it.
    NotKept,
}

/// Who is told the steps: a trace, or nobody.
pub(super) type Traced<'t> = Option<&'t mut Trace>;

impl Trace {
    /// Notes what has hidden something.
    pub(super) fn masked_by(&mut self, mask: &Mask) {
        let name = mask.what.to_string();
        if !self.masked.contains(&name) {
            self.masked.push(name);
        }
    }

    /// Notes a parsed field.
    pub(super) fn found(&mut self, name: &str, value: &Value<'_>, masks: &[Mask]) -> &mut Found {
        let hide = |text: &[u8]| hide(masks, text, &|_| {});
        let value = value.with_texts(&hide).unwrap_or_else(|| value.clone().into_owned());
        self.found.push(Found { name: name.to_owned(), value, becomes: Becomes::NotKept, is_severity: false });
        self.found.last_mut().expect("it was pushed")
    }
}

/// Notes where a parsed field went.
pub(super) fn becomes(noted: Option<&mut Found>, becomes: impl FnOnce() -> Becomes) {
    if let Some(found) = noted {
        found.becomes = becomes();
    }
}
