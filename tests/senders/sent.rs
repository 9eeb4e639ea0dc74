//! The messages of `tests/senders/*.toml`, and the check of parsed values.

use std::fs;
use std::path::Path;

use chrono::{DateTime, FixedOffset};
use logferry::internals::record::{HeaderField, Record};
use serde::Deserialize;

/// One kind of sender.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    #[serde(skip)]
    pub file: String,
    pub sender: String,
    /// The documentation of its messages.
    #[allow(dead_code, reason = "for readers of the file")]
    pub source: String,
    pub message: Vec<Sent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    pub bytes: String,
    /// Whether each character of `bytes` is one byte.
    #[serde(default)]
    pub latin1: bool,
    /// `None`: the message does not contain the value.
    pub host: Option<String>,
    pub app: Option<String>,
    pub pid: Option<String>,
    /// As much as the message contains, such as `11-20T22:28:47` without year and zone. `None`: the time of receipt.
    pub time: Option<String>,
    #[serde(default)]
    pub message: String,
    /// The aspects that are still parsed wrong.
    #[serde(default)]
    pub wrong: Vec<Aspect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    Host,
    App,
    Pid,
    Time,
    Message,
}

/// The values that a program has parsed.
#[derive(Debug, Default)]
pub struct Read {
    pub host: String,
    /// Empty if there is none.
    pub app: String,
    pub pid: String,
    /// RFC 3339
    pub time: String,
    pub message: Vec<u8>,
}

/// The longest plausible transit time of a message, in microseconds.
const ON_ITS_WAY: i64 = 120_000_000;

/// All kinds, by file name.
pub fn kinds() -> Vec<Kind> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/senders");
    let files = fs::read_dir(dir).expect("tests/senders").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    let read = |path: &Path| {
        let text = fs::read_to_string(path).expect("text");
        let kind: Kind = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Kind { file: path.file_stem().expect("a name").to_string_lossy().into_owned(), ..kind }
    };
    let kinds: Vec<Kind> = files.iter().map(|path| read(path)).collect();
    let count: usize = kinds.iter().map(|kind| kind.message.len()).sum();
    assert!(kinds.len() >= 35 && count >= 160, "only {} files with {count} messages", kinds.len());
    kinds
}

impl Sent {
    /// The bytes that reach a parser: without NULs at the end, which end a message.
    pub fn frame(&self) -> Vec<u8> {
        self.encoded(self.bytes.trim_end_matches('\0'))
    }

    /// The bytes as sent.
    pub fn datagram(&self) -> Vec<u8> {
        self.encoded(&self.bytes)
    }

    pub fn encoded(&self, text: &str) -> Vec<u8> {
        match self.latin1 {
            true => text.chars().map(|char| u8::try_from(char).expect("latin-1")).collect(),
            false => text.as_bytes().to_vec(),
        }
    }

    /// The aspects of `read` that are wrong. `elsewhere`: the host of a message without one; `now`: the time of
    /// receipt, in microseconds.
    pub fn wrong_in(&self, read: &Read, elsewhere: &str, now: i64) -> Vec<Aspect> {
        let right = [
            (Aspect::Host, read.host == self.host.as_deref().unwrap_or(elsewhere)),
            (Aspect::App, read.app == self.app.as_deref().unwrap_or_default()),
            (Aspect::Pid, read.pid == self.pid.as_deref().unwrap_or_default()),
            (Aspect::Time, self.is_time(&read.time, now)),
            (Aspect::Message, read.message == self.encoded(&self.message)),
        ];
        right.into_iter().filter(|(_, is_right)| !is_right).map(|(aspect, _)| aspect).collect()
    }

    fn is_time(&self, read: &str, now: i64) -> bool {
        let Ok(read) = DateTime::parse_from_rfc3339(read) else { return false };
        let Some(said) = &self.time else { return (read.timestamp_micros() - now).abs() < ON_ITS_WAY };
        // Parts that the message does not contain are taken from the parsed time.
        let year = if said.as_bytes()[2] == b'-' { format!("{}-{said}", read.format("%Y")) } else { said.clone() };
        let behind_day = &year[11..];
        let has_zone = behind_day.contains(['Z', '+', '-']);
        let whole = if has_zone { year } else { format!("{year}{}", read.offset()) };
        // Compared to the microsecond, and with the sender's UTC offset.
        let micros = |time: DateTime<FixedOffset>| (time.timestamp_micros(), time.offset().local_minus_utc());
        DateTime::parse_from_rfc3339(&whole).is_ok_and(|said| micros(said) == micros(read))
    }
}

/// Invalid UTF-8 is read as Latin-1.
pub fn text(bytes: &[u8]) -> String {
    let latin1 = || bytes.iter().map(|byte| char::from(*byte)).collect();
    std::str::from_utf8(bytes).map_or_else(|_| latin1(), str::to_owned)
}

impl Aspect {
    pub const ALL: [Self; 5] = [Self::Host, Self::App, Self::Pid, Self::Time, Self::Message];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::App => "app",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::Message => "message",
        }
    }
}

impl Read {
    pub fn of(record: &Record<'_>) -> Self {
        let field = |field: Option<HeaderField<'_>>| field.map_or(String::new(), |field| text(&field.written()));
        let tag = record.tag.as_deref().filter(|_| record.container.is_none());
        let host = record.original_host.as_deref().map(text);
        Self {
            host: host.unwrap_or_else(|| field(record.hostname)),
            app: tag.map_or_else(|| field(record.app_name), text),
            pid: field(record.proc_id),
            time: record.stamp_text(),
            message: record.message.unwrap_or_default().to_vec(),
        }
    }

    pub fn shown(&self) -> String {
        let Self { host, app, pid, time, message } = self;
        format!("host {host:?}, app {app:?}, pid {pid:?}, time {time}, message {:?}", String::from_utf8_lossy(message))
    }

    pub fn of_line(line: &[u8]) -> Self {
        Self::of(&Record::from_line(line, "docker@32473"))
    }
}
