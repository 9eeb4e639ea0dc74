//! One thing that was said, and its three forms: a line of text, a line of JSON, a syslog message. Control characters come
//! out escaped in each of them, for a collector's or name server's words may be in it: what is said is one line.

use std::fmt::{Debug, Write};

use serde::Serializer;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::record::{append_escaped, make_json_visible};

/// Facility syslog (5): RFC 5424 6.2.1.
const FACILITY: u8 = 5 << 3;

/// Bytes of a syslog message's text. More is cut off: RFC 5424 6.1 lets receivers do so from 2,048 on.
const MOST_BYTES: usize = 1900;

pub struct Said {
    level: Level,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    pub fn of(event: &Event<'_>) -> Self {
        let mut said = Self { level: *event.metadata().level(), message: String::new(), fields: Vec::new() };
        event.record(&mut said);
        said
    }

    pub fn error(message: &str) -> Self {
        Self { level: Level::ERROR, message: message.to_owned(), fields: Vec::new() }
    }

    /// For people.
    pub fn text(&self, stamp: &str) -> String {
        format!("{stamp} {:>5} {}\n", self.level, self.in_words())
    }

    /// For programs: one object a line.
    pub fn json(&self, stamp: &str) -> String {
        let mut line = Vec::with_capacity(256);
        let head = [("timestamp", stamp), ("level", self.level_word()), ("message", &self.message)];
        let head = head.map(|(key, text)| (key, Value::from(text)));
        let object =
            serde_json::Serializer::new(&mut line).collect_map(head.iter().chain(&self.fields).map(|(k, v)| (k, v)));
        object.expect("writing text into memory cannot fail");
        make_json_visible(&mut line, 0);
        line.push(b'\n');
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    /// For collectors: RFC 5424.
    pub fn syslog(&self, stamp: &str, hostname: &str) -> String {
        let mut text = self.in_words();
        if text.len() > MOST_BYTES {
            let end = (0..=MOST_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        }
        format!("<{}>1 {stamp} {hostname} logferry - log - {text}", FACILITY | self.severity())
    }

    fn in_words(&self) -> String {
        let mut text = String::with_capacity(self.message.len());
        append_escaped(&self.message, &mut text);
        for (key, value) in &self.fields {
            let _ = write!(text, " {key}=");
            match value {
                Value::String(value) => append_escaped(value, &mut text),
                value => drop(write!(text, "{value}")),
            }
        }
        text
    }

    fn severity(&self) -> u8 {
        match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        }
    }

    /// As in `[log] level`.
    fn level_word(&self) -> &'static str {
        match self.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            _ => "trace",
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, Value::from(text));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "2026-11-21T04:05:06.000007Z";

    fn said(message: &str, value: Value) -> Said {
        Said { level: Level::WARN, message: message.to_owned(), fields: vec![("dir", value)] }
    }

    #[test]
    fn each_form_is_one_line_whatever_is_in_it() {
        let said = said("forward x: it said \"\u{1b}[2J\r\n<13>ü\u{9b}\u{2028}\"", Value::from("/a\nb"));
        let words = r#"forward x: it said "\u{1b}[2J\r\n<13>ü\u{9b}\u{2028}" dir=/a\nb"#;
        assert_eq!(said.text(STAMP), format!("{STAMP}  WARN {words}\n"));
        assert_eq!(said.syslog(STAMP, "node-7"), format!("<44>1 {STAMP} node-7 logferry - log - {words}"));
        assert_eq!(
            said.json(STAMP),
            format!(
                "{{\"timestamp\":\"{STAMP}\",\"level\":\"warn\",\
                 \"message\":\"forward x: it said \\\"\\u001b[2J\\r\\n<13>ü\\u009b\\u2028\\\"\",\"dir\":\"/a\\nb\"}}\n"
            )
        );
    }

    #[test]
    fn a_number_stays_one() {
        let said = said("spool: open", Value::from(7));
        assert!(said.text(STAMP).ends_with(" spool: open dir=7\n"));
        assert!(said.json(STAMP).ends_with(",\"dir\":7}\n"));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        for blanks in 0..4 {
            let said = Said::error(&(" ".repeat(blanks) + &"€".repeat(1000)));
            let line = said.syslog(STAMP, "node-7");
            assert!((MOST_BYTES..2048).contains(&(line.len() + 2)) && line.ends_with('€'), "{}", line.len());
        }
    }
}
