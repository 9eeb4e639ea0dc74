//! The conditions of a rule on a record's fields: `level=error`, `status=>=500`.

use super::rule::MAX_PATTERNS;
use super::{BadSetting, Fields, Patterns};

/// Conditions on some fields. All of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldConditions {
    /// The conditions as they were written, each `name=value`.
    written: Vec<String>,
    conditions: Vec<FieldCondition>,
}

/// The condition on one field. One of its patterns or comparisons must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldCondition {
    name: String,
    /// Patterns for the field's text.
    patterns: Patterns,
    /// Comparisons with the field's number.
    comparisons: Vec<Comparison>,
}

/// A comparison with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    /// The number as it was written. [`number`] reads it.
    than: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// The operators. Longer ones come first, because they are found by prefix.
const OPERATORS: [(&str, Operator); 5] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Less),
    (">", Operator::More),
    ("=", Operator::Equal),
];

impl FieldConditions {
    /// `written`: `name=value` each. Values of the same name are alternatives.
    pub fn new(written: Vec<String>) -> Result<Self, BadSetting> {
        if written.len() > MAX_PATTERNS {
            return Err(BadSetting(format!("{} values; at most {MAX_PATTERNS} are allowed", written.len())));
        }
        let mut asked: Vec<(&str, Vec<&str>)> = Vec::new();
        for text in &written {
            let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(BadSetting(format!("`{text}`: write field = {{ level = \"error\", status = \">=500\" }}")));
            };
            match asked.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => asked.push((name, vec![value])),
            }
        }
        let conditions =
            asked.into_iter().map(|(name, values)| FieldCondition::new(name, &values)).collect::<Result<_, _>>()?;
        Ok(Self { written, conditions })
    }

    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    pub fn match_fields(&self, fields: &Fields<'_>) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.matches(fields.get(&condition.name).map_or(&[], |field| field.value.as_bytes())))
    }

    pub fn written(&self) -> &[String] {
        &self.written
    }
}

impl FieldCondition {
    fn new(name: &str, values: &[&str]) -> Result<Self, BadSetting> {
        let (mut patterns, mut comparisons) = (Vec::new(), Vec::new());
        for value in values {
            match OPERATORS.iter().find_map(|(written, operator)| Some((*operator, value.strip_prefix(written)?))) {
                None => patterns.push((*value).to_owned()),
                Some((operator, than)) if number(than.as_bytes()).is_some() => {
                    comparisons.push(Comparison { operator, than: than.trim().to_owned() });
                }
                Some(_) => return Err(BadSetting(format!("{name}: `{value}` compares with no number"))),
            }
        }
        let patterns = Patterns::new(patterns).map_err(|bad| BadSetting(format!("{name}: {bad}")))?;
        Ok(Self { name: name.to_owned(), patterns, comparisons })
    }

    /// A missing field counts as empty.
    fn matches(&self, value: &[u8]) -> bool {
        let compares = || {
            let value = number(value);
            value.is_some_and(|value| self.comparisons.iter().any(|comparison| comparison.is_true_of(value)))
        };
        // If there are comparisons, they are further alternatives to the patterns.
        match self.comparisons.is_empty() {
            true => self.patterns.match_bytes(value),
            false => compares() && !self.patterns.exclude(value) || self.patterns.include(value),
        }
    }
}

impl Comparison {
    fn is_true_of(&self, value: f64) -> bool {
        let Some(than) = number(self.than.as_bytes()) else { return false };
        match self.operator {
            Operator::Less => value < than,
            Operator::AtMost => value <= than,
            Operator::Equal => value == than,
            Operator::AtLeast => value >= than,
            Operator::More => value > than,
        }
    }
}

/// Reads a decimal number.
fn number(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    // `parse` also accepts `inf` and `nan`, which are no numbers in a log.
    text.bytes().next_back().filter(|last| last.is_ascii_digit() || *last == b'.')?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::*;

    fn fields(of: &[(&'static str, &'static str)]) -> Fields<'static> {
        let mut fields = Fields::default();
        for (name, value) in of {
            fields.push(*name, Value::from_json(value).unwrap_or_else(|| Value::Text(value.as_bytes().into())));
        }
        fields
    }

    #[track_caller]
    fn check(written: &[&str], of: &[(&'static str, &'static str)], expected: bool) {
        let conditions = FieldConditions::new(written.iter().map(|text| (*text).to_owned()).collect()).unwrap();
        assert_eq!(conditions.match_fields(&fields(of)), expected, "{written:?} {of:?}");
    }

    #[test]
    fn texts_and_numbers() {
        check(&[], &[], true);
        check(&["level=error", "level=fatal"], &[("level", "fatal")], true);
        check(&["level=error", "level=fatal"], &[("level", "info")], false);
        check(&["level=error"], &[], false);
        check(&["level=err*", "env=prod"], &[("level", "error"), ("env", "prod")], true);
        check(&["level=err*", "env=prod"], &[("level", "error")], false);
        check(&["level=!debug"], &[], true);
        check(&["level=!debug"], &[("level", "debug")], false);
        for (asked, expected) in [(">=500", true), (">500", false), ("<500", false), ("<=500", true), ("=500.0", true)]
        {
            check(&[&format!("status={asked}")], &[("status", "500")], expected);
            check(&[&format!("status={asked}")], &[("status", "\"500\"")], expected);
            check(&[&format!("status={asked}")], &[("status", "none")], false);
            check(&[&format!("status={asked}")], &[], false);
        }
        check(&["status=>=500", "status=404"], &[("status", "404")], true);
        check(&["status=>=500", "status=!503"], &[("status", "503")], false);
        check(&["status=>=500", "status=!503"], &[("status", "502")], true);
        check(&["ok=true"], &[("ok", "true")], true);
        check(&["n=>1"], &[("n", "1.5e3")], true);
        check(&["n=>1"], &[("n", "inf")], false);
        check(&["path=a=b"], &[("path", "a=b")], true);
    }

    #[test]
    fn what_cannot_be_asked() {
        let says = |text: &str| FieldConditions::new(vec![text.to_owned()]).unwrap_err().to_string();
        assert!(says("level").contains("write field = {"), "{}", says("level"));
        assert!(says("=x").contains("write field = {"));
        assert_eq!(says("status=>=high"), "status: `>=high` compares with no number");
        assert!(says("level=").starts_with("level: a pattern must not be empty"));
    }
}
