//! The trace of one line through a shape, step by step, for people. The sender makes no trace, and pays only one comparison
//! for each step.

use super::mask::{Mask, hide};
use crate::record::Value;

/// The steps of one line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The parser that fits the text; `None`: no parser was tried, or none fits.
    pub parsed_as: Option<String>,
    /// The fields of the text, in order.
    pub found: Vec<Found>,
    /// Whether the severity was guessed from the beginning of the text.
    pub is_severity_guessed: bool,
    /// The fields that `drop-fields` has taken out.
    pub dropped_fields: Vec<String>,
    /// The index of the first rule of `match` that matches.
    pub matched: Option<usize>,
    /// The patterns and names of the masks that have hidden something, never the secrets.
    pub masked: Vec<String>,
    /// The fields that `fields` has added.
    pub added: Vec<(String, Value<'static>)>,
}

/// A field of the text. Secrets in its value are masked.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub value: Value<'static>,
    pub becomes: Becomes,
    /// Whether the line's severity was taken from this field.
    pub is_severity: bool,
}

/// The use of a parsed field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    Time,
    Message,
    /// A field with this name.
    Field(String),
    /// `keep` does not name it.
    NotKept,
}

/// The trace that notes the steps; `None`: the steps are not noted.
pub(super) type Traced<'t> = Option<&'t mut Trace>;

impl Trace {
    /// Notes a mask that has hidden something.
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

/// Notes the use of a parsed field.
pub(super) fn becomes(noted: Option<&mut Found>, becomes: impl FnOnce() -> Becomes) {
    if let Some(found) = noted {
        found.becomes = becomes();
    }
}
