//! Compares the expectation for a line with the result. Pure.

use serde_json::Value as Json;

use crate::cli::explain::{Destiny, StepsExplanation};
use crate::config::{Expect, ExpectedLine, Outcome, Part};
use crate::record::{FACILITIES, HeaderField, Record, SEVERITIES, UnixMicros, Value, escape};

/// A difference between the expectation and the result.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The forward and the part of its line, if the difference is in a line.
    pub what: String,
    pub expected: String,
    pub got: String,
}

impl Difference {
    /// A difference in the result of a whole test.
    pub fn of_all(expect: &Expect, got: String) -> Self {
        Self::new("message", word(expect).to_owned(), got)
    }

    fn new(what: impl Into<String>, expected: String, got: String) -> Self {
        Self { what: what.into(), expected, got }
    }
}

fn word(expect: &Expect) -> &'static str {
    match expect {
        Expect::Refused => "refused",
        Expect::Dropped => "dropped",
        Expect::Forwards(_) => "one line for the forwards",
    }
}

pub fn all(expect: &Expect, destiny: &Destiny, sd_id: &str) -> Vec<Difference> {
    let Destiny { dropped_by, steps, .. } = destiny;
    let forwards = match (expect, dropped_by) {
        (Expect::Dropped, Some(_)) => return Vec::new(),
        (Expect::Forwards(forwards), None) => forwards,
        (_, Some(rule)) => return vec![Difference::of_all(expect, format!("dropped by [[drop]] {rule}"))],
        (_, None) => return vec![Difference::of_all(expect, format!("taken, and {}", destinations(steps)))],
    };
    let mut differences = Vec::new();
    for (name, outcome) in forwards {
        let Some(steps) = steps.iter().find(|steps| steps.forward == *name) else { continue };
        match (outcome, &steps.line) {
            (Outcome::Filtered, None) => {}
            (Outcome::Filtered, Some(_)) => {
                let matched = match (steps.match_rule, &steps.matched_by) {
                    (Some(number), Some(rule)) => format!("sent: rule {number} of `match` matches, {rule}"),
                    _ => "sent: the forward has no `match`".to_owned(),
                };
                differences.push(Difference::new(name, "filtered".to_owned(), matched));
            }
            (Outcome::Sent(_), None) => {
                let got = "filtered: no rule of `match` matches".to_owned();
                differences.push(Difference::new(name, "sent".to_owned(), got));
            }
            (Outcome::Sent(expected), Some(line)) => {
                let output = destiny.forwards.iter().find(|output| output.forward == *name);
                let output = output.map(|output| output.output.0.as_slice()).unwrap_or_default();
                compare_line(name, expected, &Record::from_line(line, sd_id), output, &mut differences);
            }
        }
    }
    differences
}

fn destinations(steps: &[StepsExplanation]) -> String {
    let sent: Vec<&str> = steps.iter().filter(|steps| !steps.filtered).map(|steps| steps.forward.as_str()).collect();
    if sent.is_empty() { "filtered by each forward".to_owned() } else { format!("sent by {}", sent.join(", ")) }
}

fn compare_line(
    forward: &str,
    expected: &ExpectedLine,
    record: &Record<'_>,
    output: &[u8],
    differences: &mut Vec<Difference>,
) {
    for (part, expected) in &expected.parts {
        let got = got(*part, record, output);
        let is_same = match part {
            Part::Time => record.time() == UnixMicros::from_rfc3339(expected.as_bytes()),
            _ => got == *expected,
        };
        if !is_same {
            differences.push(Difference::new(format!("{forward}.{}", part.word()), expected.clone(), got));
        }
    }
    for (name, expected) in &expected.fields {
        let what = format!("{forward}.fields.{name}");
        match record.fields.get(name).map(|field| json(&field.value)) {
            Some(got) if are_equal(&got, expected) => {}
            Some(got) => differences.push(Difference::new(what, expected.to_string(), got.to_string())),
            None => differences.push(Difference::new(what, expected.to_string(), missing(record))),
        }
    }
    for name in &expected.no_fields {
        if let Some(field) = record.fields.get(name) {
            let got = json(&field.value).to_string();
            differences.push(Difference::new(format!("{forward}.fields.{name}"), "no such field".to_owned(), got));
        }
    }
}

fn got(part: Part, record: &Record<'_>, output: &[u8]) -> String {
    let header = |field| text(&HeaderField::or_nil(field));
    let word = |words: &[&str], number: u8| words.get(usize::from(number)).copied().unwrap_or_default().to_owned();
    match part {
        Part::Time => record.stamp_text(),
        Part::Facility => word(&FACILITIES, record.facility),
        Part::Severity => word(&SEVERITIES, record.severity),
        Part::Host => header(record.hostname),
        Part::App => header(record.app_name),
        Part::Message => text(record.message.unwrap_or_default()),
        Part::Output => text(output),
    }
}

/// The result for a missing field.
fn missing(record: &Record<'_>) -> String {
    let names: Vec<&str> = record.fields.iter().map(|field| &*field.name).collect();
    match names.is_empty() {
        true => "no such field; the line has none".to_owned(),
        false => format!("no such field; the line has {}", names.join(", ")),
    }
}

/// The text, with `\xHH` for bytes that are not UTF-8, as in the JSON of `explain`.
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| escape(bytes))
}

fn json(value: &Value<'_>) -> Json {
    match value {
        Value::Text(bytes) => Json::String(text(bytes)),
        Value::Json(json) => serde_json::from_str(json.as_str()).unwrap_or_default(),
    }
}

/// Compares numbers by value: 1.50 equals 1.5, and 7 equals 7.0.
fn are_equal(got: &Json, expected: &Json) -> bool {
    match (got, expected) {
        (Json::Number(got), Json::Number(expected)) => got == expected || got.as_f64() == expected.as_f64(),
        (Json::Array(got), Json::Array(expected)) => {
            got.len() == expected.len() && got.iter().zip(expected).all(|(got, expected)| are_equal(got, expected))
        }
        (Json::Object(got), Json::Object(expected)) => {
            got.len() == expected.len()
                && expected.iter().all(|(key, expected)| got.get(key).is_some_and(|got| are_equal(got, expected)))
        }
        _ => got == expected,
    }
}
