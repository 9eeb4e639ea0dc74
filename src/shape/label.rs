//! The label by which a container chooses the parser of its lines.

use super::{Parser, Pattern};
use crate::record::{Fields, Value};

/// The label, and its spelling by Docker's `journald` driver.
const LABELS: [&str; 2] = ["logferry.parse", "LOGFERRY_PARSE"];
/// The label's value for lines that must not be parsed.
const NONE: &str = "none";

/// The parsers that a container may choose from.
#[derive(Clone, Debug)]
pub struct Choices(Vec<Parser>);

/// The choice of a container.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The lines are not parsed.
    Nothing,
    Parser(&'a Parser),
    /// The value of the label is no parser.
    Unknown,
}

impl Choices {
    /// `has_pattern`: the forward has a pattern for [`Parser::Regex`].
    pub fn new(has_pattern: bool) -> Self {
        let named = Pattern::names().into_iter().filter_map(Pattern::named).map(Parser::Named);
        let regex = has_pattern.then_some(Parser::Regex);
        Self([Parser::Json, Parser::Logfmt].into_iter().chain(regex).chain(named).collect())
    }

    /// `None`: the container has no such label.
    pub fn choice(&self, fields: &Fields<'_>) -> Option<Choice<'_>> {
        let Value::Text(value) = &LABELS.iter().find_map(|label| fields.get(label))?.value else {
            return Some(Choice::Unknown);
        };
        let value = value.trim_ascii();
        if value.eq_ignore_ascii_case(NONE.as_bytes()) {
            return Some(Choice::Nothing);
        }
        let is_meant = |parser: &&Parser| parser.name().as_bytes().eq_ignore_ascii_case(value);
        Some(self.0.iter().find(is_meant).map_or(Choice::Unknown, Choice::Parser))
    }
}

/// Takes out the label. False: there is none.
pub fn take_out(fields: &mut Fields<'_>) -> bool {
    fields.retain(|name| !LABELS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &'static str, value: &'static str, has_pattern: bool, expected: &str) {
        let mut fields = Fields::default();
        fields.push(name, Value::from_json(value).unwrap_or(Value::Text(value.as_bytes().into())));
        let choices = Choices::new(has_pattern);
        let shown = choices.choice(&fields).map(|choice| match choice {
            Choice::Parser(parser) => parser.name(),
            Choice::Nothing => "nothing",
            Choice::Unknown => "unknown",
        });
        assert_eq!(shown.unwrap_or("no label"), expected, "{name}={value}");
        assert_eq!(take_out(&mut fields), expected != "no label");
    }

    #[test]
    fn a_label_chooses_one_parser() {
        check("logferry.parse", "json", false, "json");
        check("logferry.parse", " NGINX ", false, "nginx");
        check("LOGFERRY_PARSE", "python", false, "python");
        check("logferry.parse", "none", false, "nothing");
        check("logferry.parse", "regex", true, "regex");
        check("logferry.parse", "regex", false, "unknown");
        check("logferry.parse", "label", false, "unknown");
        check("logferry.parse", "", false, "unknown");
        check("logferry.parse", "7", false, "unknown");
        check("parse", "json", false, "no label");
    }
}
