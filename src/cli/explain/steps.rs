//! The steps of one message in one forward, as data: what was parsed, matched, masked and added.

use serde::{Serialize, Serializer};

use super::fields::FieldExplanation;
use crate::config;
use crate::shape::{Becomes, Found, Shaped, Tally, Trace};

/// The steps of a forward for a message. The fields' names, in this order, are keys of the JSON.
#[derive(Serialize)]
pub struct StepsExplanation {
    pub forward: String,
    /// The parser that fits the text; `None`: no parser fits, or `parse` names none.
    pub parsed_as: Option<String>,
    pub found: Vec<FoundExplanation>,
    pub severity_guessed: bool,
    pub dropped_fields: Vec<String>,
    /// No rule of `match` matches.
    pub filtered: bool,
    /// The first rule of `match` that matches: its number, from 1, and its text.
    pub match_rule: Option<usize>,
    pub matched_by: Option<String>,
    /// The masks that have hidden something.
    pub masked: Vec<String>,
    pub added: Vec<FieldExplanation>,
    /// Why parts could not be read as the settings say.
    pub misread: Vec<&'static str>,
    /// The line that is sent; `None` for a filtered message.
    #[serde(skip)]
    pub line: Option<Vec<u8>>,
}

/// A field of the text, and its use.
#[derive(Serialize)]
pub struct FoundExplanation {
    #[serde(flatten)]
    pub field: FieldExplanation,
    #[serde(serialize_with = "serialize_becomes")]
    pub becomes: Becomes,
    /// The name of the resulting field.
    pub becomes_field: Option<String>,
    pub is_severity: bool,
}

impl StepsExplanation {
    /// `line`: the line after all steps.
    pub fn new(settings: &config::Forward, trace: Trace, tally: &Tally, (shaped, line): (Shaped, Vec<u8>)) -> Self {
        let rule = trace.matched.and_then(|place| settings.matches.get(place));
        let filtered = shaped == Shaped::Filtered;
        let misread = tally.misread.counts().into_iter().filter(|(_, count)| *count > 0);
        Self {
            forward: settings.name.clone(),
            parsed_as: trace.parsed_as,
            found: trace.found.into_iter().map(FoundExplanation::new).collect(),
            severity_guessed: trace.is_severity_guessed,
            dropped_fields: trace.dropped_fields,
            filtered,
            match_rule: trace.matched.map(|place| place + 1),
            matched_by: rule.map(ToString::to_string),
            masked: trace.masked,
            added: trace.added.iter().map(|(name, value)| FieldExplanation::new(name, value)).collect(),
            misread: misread.map(|(what, _)| what).collect(),
            line: (!filtered).then_some(line),
        }
    }

    /// Are there no steps to show?
    pub fn is_empty(&self) -> bool {
        let Self { parsed_as, found, dropped_fields, masked, added, misread, .. } = self;
        let is_matched = self.filtered || self.match_rule.is_some();
        !is_matched
            && !self.severity_guessed
            && parsed_as.is_none()
            && [found.is_empty(), dropped_fields.is_empty(), masked.is_empty(), added.is_empty(), misread.is_empty()]
                .iter()
                .all(|is_empty| *is_empty)
    }
}

impl FoundExplanation {
    fn new(found: Found) -> Self {
        let becomes_field = match &found.becomes {
            Becomes::Field(name) => Some(name.clone()),
            _ => None,
        };
        let field = FieldExplanation::new(&found.name, &found.value);
        Self { field, becomes: found.becomes, becomes_field, is_severity: found.is_severity }
    }
}

fn serialize_becomes<S: Serializer>(becomes: &Becomes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match becomes {
        Becomes::Time => "time",
        Becomes::Message => "message",
        Becomes::Field(_) => "field",
        Becomes::NotKept => "not-kept",
    })
}
