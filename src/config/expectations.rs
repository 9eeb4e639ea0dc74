//! Files of `logferry test`: messages, and the expected result of each forward. Problems of such a file are reported as those
//! of a config, each on one line, with file and line. Variables are not filled in.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::error::{ConfigError, ConfigErrors, Source, known_names};
use crate::record::{FACILITIES, SEVERITIES, UnixMicros, severity_by_name};

/// One `[[test]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// File and line.
    pub place: String,
    pub name: String,
    /// The messages, each as a sender sends it.
    pub input: Vec<String>,
    /// The protocol of the messages.
    pub read_as: Option<String>,
    /// The `name` of the listener that receives the messages.
    pub listener: Option<String>,
    /// The address of the sender.
    pub peer: Option<IpAddr>,
    /// The time of receipt.
    pub received: Option<UnixMicros>,
    pub expect: Expect,
}

/// The expected result for the messages of a test.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    Refused,
    Dropped,
    /// The expected result for each forward, by its `name`.
    Forwards(Vec<(String, Outcome)>),
}

/// The expected result of a forward for a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Filtered,
    Sent(ExpectedLine),
}

/// The expected line. Only the named parts are compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedLine {
    pub parts: Vec<(Part, String)>,
    pub fields: Vec<(String, Value)>,
    /// Names of fields that must not be there.
    pub no_fields: Vec<String>,
}

/// A part of a line, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Time,
    Facility,
    Severity,
    Host,
    App,
    Message,
    /// The bytes for the first target of the forward.
    Output,
}

impl Part {
    const ALL: [(&'static str, Self); 7] = [
        ("time", Self::Time),
        ("facility", Self::Facility),
        ("severity", Self::Severity),
        ("host", Self::Host),
        ("app", Self::App),
        ("message", Self::Message),
        ("output", Self::Output),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find_map(|(word, part)| (*part == self).then_some(*word)).unwrap_or_default()
    }
}

const TEST_KEYS: [&str; 7] = ["name", "input", "as", "listener", "peer", "received", "expect"];
const LINE_KEYS: [&str; 9] =
    ["time", "facility", "severity", "host", "app", "message", "fields", "no-fields", "output"];

const EXPECT: &str =
    "write \"dropped\", \"refused\", or what each forward makes of it: expect.central = { severity = \"err\" }";
const OUTCOME: &str =
    "write \"sent\", \"filtered\", or what is sent: { severity = \"err\", message = \"…\", fields = { pid = 7 } }";

/// Reads a file of tests. `protocols`: the legal words for `as`.
pub fn parse_tests(
    path: &Path,
    text: &str,
    config: &Config,
    protocols: &[&'static str],
) -> Result<Vec<Test>, ConfigErrors> {
    let source = Source::new(Some(path), text, &|_| None);
    let read = Reader { source: &source, config, protocols }.file();
    source.finish(read).map(|(tests, _)| tests)
}

type Key<'t> = Spanned<Cow<'t, str>>;
type Written<'t> = Spanned<DeValue<'t>>;

struct Reader<'r> {
    source: &'r Source<'r>,
    config: &'r Config,
    protocols: &'r [&'static str],
}

impl Reader<'_> {
    fn file(&self) -> Result<Vec<Test>, ConfigError> {
        let table = DeTable::parse(self.source.text).map_err(|error| self.source.toml_error(&error))?;
        let mut tests: Vec<Test> = Vec::new();
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("test", DeValue::Array(sections)) if !sections.is_empty() => {
                    for section in sections.iter() {
                        let test = self.test(section)?;
                        if let Some(first) = tests.iter().find(|first| first.name == test.name) {
                            let says = format!("`{}`: the test at {} has this name already", test.name, first.place);
                            self.wrong("test.name", section.span(), &says)?;
                        }
                        tests.push(test);
                    }
                }
                ("test", _) => self.wrong("test", value.span(), "write [[test]] for each test")?,
                _ => self.unknown(key, &["test"])?,
            }
        }
        if table.get_ref().is_empty() {
            self.wrong("test", 0..0, "the file has no [[test]]; write one with `name`, `input` and `expect`")?;
        }
        Ok(tests)
    }

    fn test(&self, section: &Written<'_>) -> Result<Test, ConfigError> {
        let mut test = Test {
            place: self.source.place(section.span().start),
            name: String::new(),
            input: Vec::new(),
            read_as: None,
            listener: None,
            peer: None,
            received: None,
            expect: Expect::Dropped,
        };
        let DeValue::Table(table) = section.get_ref() else {
            self.wrong("test", section.span(), "write [[test]] for each test")?;
            return Ok(test);
        };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => test.name = self.text("test.name", value)?,
                "input" => test.input = self.texts("test.input", value)?,
                "as" => test.read_as = Some(self.one_of("test.as", value, self.protocols)?),
                "listener" => test.listener = Some(self.listener(value)?),
                "peer" => test.peer = self.peer(value)?,
                "received" => test.received = self.received(value)?,
                "expect" => test.expect = self.expect(value)?,
                _ => self.unknown(key, &TEST_KEYS)?,
            }
        }
        for (key, example) in [
            ("name", "name = \"health checks are dropped\""),
            ("input", "input = \"…\", a message as a sender sends it"),
            ("expect", EXPECT),
        ] {
            if !table.contains_key(key) {
                self.source.missing("test", section.span(), key, example)?;
            }
        }
        Ok(test)
    }

    fn listener(&self, value: &Written<'_>) -> Result<String, ConfigError> {
        let names = self.config.listen.iter().filter_map(|listener| listener.name.as_deref());
        self.known("test.listener", value, "[[listen]]", &names.collect::<Vec<_>>())
    }

    fn peer(&self, value: &Written<'_>) -> Result<Option<IpAddr>, ConfigError> {
        let text = self.text("test.peer", value)?;
        match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => self.wrong("test.peer", value.span(), "write an address such as \"192.0.2.7\"").map(|()| None),
        }
    }

    fn received(&self, value: &Written<'_>) -> Result<Option<UnixMicros>, ConfigError> {
        let text = self.time_text("test.received", value)?;
        Ok(text.and_then(|text| UnixMicros::from_rfc3339(text.as_bytes())))
    }

    fn expect(&self, value: &Written<'_>) -> Result<Expect, ConfigError> {
        match value.get_ref() {
            DeValue::String(word) if word == "dropped" => Ok(Expect::Dropped),
            DeValue::String(word) if word == "refused" => Ok(Expect::Refused),
            DeValue::Table(table) if !table.is_empty() => {
                let names: Vec<&str> = self.config.forward.iter().map(|forward| forward.name.as_str()).collect();
                let mut outcomes = Vec::new();
                for (name, value) in table {
                    let name = self.among("test.expect", name.get_ref(), name.span(), "[[forward]]", &names)?;
                    outcomes.push((name.clone(), self.outcome(&format!("test.expect.{name}"), value)?));
                }
                Ok(Expect::Forwards(outcomes))
            }
            _ => self.wrong("test.expect", value.span(), EXPECT).map(|()| Expect::Dropped),
        }
    }

    fn outcome(&self, key: &str, value: &Written<'_>) -> Result<Outcome, ConfigError> {
        match value.get_ref() {
            DeValue::String(word) if word == "filtered" => Ok(Outcome::Filtered),
            DeValue::String(word) if word == "sent" => Ok(Outcome::Sent(ExpectedLine::default())),
            DeValue::Table(table) if !table.is_empty() => self.line(key, table).map(Outcome::Sent),
            _ => self.wrong(key, value.span(), OUTCOME).map(|()| Outcome::Filtered),
        }
    }

    fn line(&self, path: &str, table: &DeTable<'_>) -> Result<ExpectedLine, ConfigError> {
        let mut line = ExpectedLine::default();
        for (written, value) in table {
            let name = written.get_ref().as_ref();
            let key = format!("{path}.{name}");
            match (name, Part::ALL.iter().find(|(word, _)| *word == name)) {
                (_, Some((_, part))) => line.parts.push((*part, self.part(&key, *part, value)?)),
                ("no-fields", _) => line.no_fields = self.texts(&key, value)?,
                ("fields", _) => match value.get_ref() {
                    DeValue::Table(fields) if !fields.is_empty() => {
                        for (name, value) in fields {
                            let key = format!("{key}.{}", name.get_ref());
                            line.fields.push((name.get_ref().to_string(), self.json(&key, value)?));
                        }
                    }
                    _ => self.wrong(&key, value.span(), "write fields = { pid = 7, \"http.method\" = \"GET\" }")?,
                },
                _ => self.unknown(written, &LINE_KEYS)?,
            }
        }
        Ok(line)
    }

    fn part(&self, key: &str, part: Part, value: &Written<'_>) -> Result<String, ConfigError> {
        match part {
            Part::Time => Ok(self.time_text(key, value)?.unwrap_or_default()),
            Part::Facility => self.one_of(key, value, &FACILITIES),
            Part::Severity => match value.get_ref().as_str().and_then(severity_by_name) {
                Some(number) => Ok(SEVERITIES[usize::from(number)].to_owned()),
                None => self.one_of(key, value, &SEVERITIES),
            },
            Part::Message | Part::Output if value.get_ref().as_str() == Some("") => Ok(String::new()),
            Part::Host | Part::App | Part::Message | Part::Output => self.text(key, value),
        }
    }

    /// Reads an RFC 3339 time, with or without quotes.
    fn time_text(&self, key: &str, value: &Written<'_>) -> Result<Option<String>, ConfigError> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            _ => String::new(),
        };
        if UnixMicros::from_rfc3339(text.as_bytes()).is_some() {
            return Ok(Some(text));
        }
        self.wrong(key, value.span(), "write a time with its zone, such as 2026-11-28T17:01:58.4Z").map(|()| None)
    }

    /// Converts a value of TOML to JSON.
    fn json(&self, key: &str, value: &Written<'_>) -> Result<Value, ConfigError> {
        let number = match value.get_ref() {
            DeValue::String(text) => return Ok(Value::from(text.as_ref())),
            DeValue::Datetime(time) => return Ok(Value::from(time.to_string())),
            DeValue::Boolean(flag) => return Ok(Value::from(*flag)),
            DeValue::Array(elements) => return elements.iter().map(|element| self.json(key, element)).collect(),
            DeValue::Table(table) => {
                let member = |(name, value): (&Key<'_>, &Written<'_>)| {
                    Ok((name.get_ref().to_string(), self.json(&format!("{key}.{}", name.get_ref()), value)?))
                };
                return table.iter().map(member).collect::<Result<_, _>>().map(Value::Object);
            }
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from),
        };
        match number {
            Some(number) => Ok(number),
            None => self.wrong(key, value.span(), "no field has this number").map(|()| Value::Null),
        }
    }

    fn text(&self, key: &str, value: &Written<'_>) -> Result<String, ConfigError> {
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Ok(text.to_string()),
            _ => self.wrong(key, value.span(), "write a text that is not empty").map(|()| String::new()),
        }
    }

    /// Reads one text or a list of texts.
    fn texts(&self, key: &str, value: &Written<'_>) -> Result<Vec<String>, ConfigError> {
        match value.get_ref() {
            DeValue::Array(elements) if !elements.is_empty() => {
                elements.iter().map(|element| self.text(key, element)).collect()
            }
            _ => Ok(vec![self.text(key, value)?]),
        }
    }

    fn one_of(&self, key: &str, value: &Written<'_>, words: &[&str]) -> Result<String, ConfigError> {
        let text = self.text(key, value)?;
        if !text.is_empty() && !words.contains(&text.as_str()) {
            self.wrong(key, value.span(), &format!("`{text}`: write one of {}", words.join(", ")))?;
        }
        Ok(text)
    }

    /// Reads the name of a section of the config.
    fn known(&self, key: &str, value: &Written<'_>, section: &str, names: &[&str]) -> Result<String, ConfigError> {
        let text = self.text(key, value)?;
        if text.is_empty() { Ok(text) } else { self.among(key, &text, value.span(), section, names) }
    }

    fn among(
        &self,
        key: &str,
        text: &str,
        at: Range<usize>,
        section: &str,
        names: &[&str],
    ) -> Result<String, ConfigError> {
        if !names.contains(&text) {
            let known = known_names(names);
            self.wrong(key, at, &format!("`{text}`: no {section} of the config has this `name`; there are: {known}"))?;
        }
        Ok(text.to_owned())
    }

    fn unknown(&self, key: &Key<'_>, known: &[&'static str]) -> Result<(), ConfigError> {
        self.source.unknown_key(key.get_ref(), key.span(), known).map(|_| ())
    }

    fn wrong(&self, key: &str, at: Range<usize>, says: &str) -> Result<(), ConfigError> {
        self.source.wrong(key, at, says)
    }
}
