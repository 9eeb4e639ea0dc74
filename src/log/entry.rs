//! One log entry, and its three forms: a line of text, a line of JSON, a syslog message. Each form escapes control characters, because
//! the words of a collector or a name server may be in an entry. So an entry is always one line.

use std::fmt::Debug;

use chrono::{SecondsFormat, Utc};
use serde::Serializer;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::record::{escape_json, escaped};

/// Facility syslog (5): RFC 5424 6.2.1.
const FACILITY: u8 = 5 << 3;

/// The longest text of a syslog message, in bytes. RFC 5424 6.1 lets receivers cut messages at 2,048.
const MAX_TEXT_BYTES: usize = 1900;

/// The field in which `tracing` has an event's text.
const MESSAGE: &str = "message";

/// The fields of an event or a span, in the order of its source code.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(&'static str, Value)>);

#[derive(Clone, Debug)]
pub struct Entry {
    /// RFC 3339, UTC, microseconds.
    stamp: String,
    level: Level,
    /// The spans the event is in, outermost first: each one's name and its fields' values, `forward central`.
    context: Vec<String>,
    message: String,
    /// The fields of the event, and behind them those of its spans.
    fields: Fields,
    /// How many of `fields` are the event's own.
    own_fields: usize,
}

impl Entry {
    pub fn of(event: &Event<'_>) -> Self {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut entry = Self::new(*event.metadata().level(), fields.take(MESSAGE).unwrap_or_default());
        entry.own_fields = fields.0.len();
        entry.fields = fields;
        entry
    }

    pub fn error(message: &str) -> Self {
        Self::new(Level::ERROR, message.to_owned())
    }

    fn new(level: Level, message: String) -> Self {
        let stamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        Self { stamp, level, context: Vec::new(), message, fields: Fields::default(), own_fields: 0 }
    }

    /// Adds a span inside the spans added before. In JSON its field `name` has the span's name as its key: `"forward": "central"`.
    pub fn push_span(&mut self, name: &'static str, fields: &Fields) {
        let mut context = name.to_owned();
        for (key, value) in &fields.0 {
            context.push(' ');
            context.push_str(&words(value));
            let key = if *key == "name" { name } else { key };
            if self.fields.0.iter().all(|(known, _)| *known != key) {
                self.fields.0.push((key, value.clone()));
            }
        }
        self.context.push(context);
    }

    /// The entry as a line of text, for people.
    pub fn text(&self) -> String {
        format!("{} {:>5} {}\n", self.stamp, self.level, self.in_words())
    }

    /// The entry as a line of JSON, for programs.
    pub fn json(&self) -> String {
        let mut line = Vec::with_capacity(256);
        let message = self.with_context();
        let head = [("timestamp", self.stamp.as_str()), ("level", self.level_word()), (MESSAGE, &message)];
        let head = head.map(|(key, text)| (key, Value::from(text)));
        let members = head.iter().chain(&self.fields.0).map(|(key, value)| (key, value));
        let object = serde_json::Serializer::new(&mut line).collect_map(members);
        object.expect("writing text into memory cannot fail");
        escape_json(&mut line, 0);
        line.push(b'\n');
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    /// The entry as a message of RFC 5424, for collectors.
    pub fn syslog(&self, hostname: &str) -> String {
        let mut text = self.in_words();
        if text.len() > MAX_TEXT_BYTES {
            let end = (0..=MAX_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        }
        format!("<{}>1 {} {hostname} logferry - log - {text}", FACILITY | self.severity(), self.stamp)
    }

    fn in_words(&self) -> String {
        let mut text = self.with_context();
        for (key, value) in &self.fields.0[..self.own_fields] {
            text.extend([" ", key, "=", &words(value)]);
        }
        escaped(&text)
    }

    /// The message behind its spans: `forward central: connected to …`. A message that begins with its span does not get the span twice.
    fn with_context(&self) -> String {
        let mut text = String::new();
        for span in &self.context {
            let is_named = self.message.strip_prefix(span.as_str()).is_some_and(|rest| rest.starts_with(':'));
            if !is_named {
                text.extend([span, ": "]);
            }
        }
        text + &self.message
    }

    fn severity(&self) -> u8 {
        match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        }
    }

    /// The level as `[log] level` has it.
    fn level_word(&self) -> &'static str {
        match self.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            _ => "trace",
        }
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

impl Fields {
    /// Removes a field and returns its text.
    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| *found == key)?;
        Some(words(&self.0.remove(at).1))
    }

    fn push(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "2026-11-21T04:05:06.000007Z";

    fn entry(message: &str, value: Value) -> Entry {
        let fields = Fields(vec![("dir", value)]);
        Entry { stamp: STAMP.to_owned(), fields, own_fields: 1, ..Entry::new(Level::WARN, message.to_owned()) }
    }

    #[test]
    fn each_form_is_one_line_whatever_is_in_it() {
        let entry = entry("forward x: it said \"\u{1b}[2J\r\n<13>ü\u{9b}\u{2028}\"", Value::from("/a\nb"));
        let words = r#"forward x: it said "\u{1b}[2J\r\n<13>ü\u{9b}\u{2028}" dir=/a\nb"#;
        assert_eq!(entry.text(), format!("{STAMP}  WARN {words}\n"));
        assert_eq!(entry.syslog("node-7"), format!("<44>1 {STAMP} node-7 logferry - log - {words}"));
        assert_eq!(
            entry.json(),
            format!(
                "{{\"timestamp\":\"{STAMP}\",\"level\":\"warn\",\
                 \"message\":\"forward x: it said \\\"\\u001b[2J\\r\\n<13>ü\\u009b\\u2028\\\"\",\"dir\":\"/a\\nb\"}}\n"
            )
        );
    }

    #[test]
    fn a_number_stays_one() {
        let entry = entry("spool: open", Value::from(7));
        assert!(entry.text().ends_with(" spool: open dir=7\n"));
        assert!(entry.json().ends_with(",\"dir\":7}\n"));
    }

    #[test]
    fn a_span_stands_before_the_message_and_is_a_field() {
        let mut entry = entry("connected", Value::from(7));
        entry.push_span("forward", &Fields(vec![("name", Value::from("cen\ntral"))]));
        entry
            .push_span("connection", &Fields(vec![("peer", Value::from("10.0.0.1:514")), ("attempt", Value::from(3))]));
        let words = r" WARN forward cen\ntral: connection 10.0.0.1:514 3: connected dir=7";
        assert_eq!(entry.text(), format!("{STAMP} {words}\n"));
        let json: Value = serde_json::from_str(&entry.json()).expect("JSON");
        assert_eq!((&json["forward"], &json["attempt"], &json["dir"]), (&"cen\ntral".into(), &3.into(), &7.into()));
        assert_eq!(json["message"], "forward cen\ntral: connection 10.0.0.1:514 3: connected");
        let mut named = Entry::error("forward central: away");
        named.push_span("forward", &Fields(vec![("name", Value::from("central"))]));
        assert_eq!(named.with_context(), "forward central: away");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        for blanks in 0..4 {
            let line = Entry::error(&(" ".repeat(blanks) + &"€".repeat(1000))).syslog("node-7");
            let head = line.find(" - log - ").expect("a head") + " - log - ".len();
            assert!((MAX_TEXT_BYTES - 2..=MAX_TEXT_BYTES).contains(&(line.len() - head)), "{}", line.len());
            assert!(line.len() < 2048 && line.ends_with('€'), "{}", line.len());
        }
    }
}
