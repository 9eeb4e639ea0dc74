//! Renders a line in the format of a collector.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

use super::escaped::{escape, escape_json};
use super::json;
use super::structured_data::{elements, unescape};
use super::write::{Which, which};
use super::{BadSetting, HeaderField, OWN_SD_ID, Record, Value as FieldValue, time};

/// The format of messages to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The canonical line as it is.
    Rfc5424,
    /// `<PRI>Mmm _d hh:mm:ss HOST APP[PROCID]: MSG`: no year, no zone, and structured data only if there is no MSG. If the
    /// message came as RFC 3164, the text after HOSTNAME is as it came.
    Rfc3164,
    /// One object, see [`render`].
    Json,
}

/// The names of facilities in JSON, by number.
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
/// The names of severities, by number.
pub const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Appends a line in `format` to `out`, without framing and without a LF at the end. `sd_id` is the SD-ID of the element with
/// image, name and ID.
///
/// JSON is one object with the keys `timestamp`, `host`, `facility`, `severity`, `app_name`, `proc_id`, `msg_id`,
/// `image_name`, `container_name`, `container_id`, `peer`, `structured_data`, `fields` and `message`, in this order. Only
/// facility, severity and message are always there. `truncated` follows if the message was cut. `structured_data` is an
/// object of objects by SD-ID and param name, without the params that have keys of their own. A param with several values has
/// an array. `fields` is an object of texts, and of numbers, true, false, null, arrays and objects where the sender gave
/// those.
///
/// A value that is not UTF-8 has `\xHH` for each invalid byte and `\\` for each backslash, and a last key `escaped` names
/// these values: `"escaped":["message"]`. Values that are UTF-8 are never changed. A byte order mark at the start of the
/// message is left out, unless the message comes from a container. Characters that act on a terminal or end a line are
/// escaped as JSON does, `\u009b`.
pub fn render(line: &[u8], format: Format, sd_id: &str, out: &mut Vec<u8>) {
    match format {
        Format::Rfc5424 => out.extend_from_slice(line),
        Format::Rfc3164 => render_3164(line, sd_id, out),
        Format::Json => render_json(&Record::from_line(line, sd_id), sd_id, out),
    }
}

/// Appends a record as JSON, as [`render`] does.
pub(crate) fn render_json(record: &Record<'_>, sd_id: &str, out: &mut Vec<u8>) {
    let start = out.len();
    render_record(record, sd_id, out);
    escape_json(out, start);
}

/// Appends time, host, container, severity and message, for people. Control characters stay as they are.
pub fn render_text(record: &Record<'_>, out: &mut Vec<u8>) {
    let severity = SEVERITIES.get(usize::from(record.severity)).copied().unwrap_or("-");
    let (stamp, host, who) = (record.stamp_text(), HeaderField::or_nil(record.hostname), record.sender_name());
    for part in [stamp.as_bytes(), &host, &who, severity.as_bytes()] {
        out.extend_from_slice(part);
        out.push(b' ');
    }
    out.extend_from_slice(record.message.unwrap_or_default());
}

fn render_3164(line: &[u8], sd_id: &str, out: &mut Vec<u8>) {
    let record = Record::from_line(line, sd_id);
    let Some(stamp) = record.timestamp.as_ref().and_then(time::to_bsd) else {
        // The line is not one of ours, so there is no header to convert.
        return out.extend_from_slice(line);
    };
    let pri = line.iter().position(|b| *b == b'>').map_or(0, |end| end + 1);
    out.reserve(line.len());
    out.extend_from_slice(&line[..pri]);
    out.extend_from_slice(&stamp);
    out.push(b' ');
    out.extend_from_slice(&HeaderField::or_nil(record.hostname));
    out.push(b' ');
    match &record.msghdr {
        Some(msghdr) => out.extend_from_slice(msghdr),
        None => out.extend(record.usual_msghdr()),
    }
    match record.text() {
        // The content of such a message is in its structured data.
        b"" => {
            let sent = elements(record.structured_data.as_sent());
            sent.filter(|element| which(element.id, sd_id).is_none())
                .for_each(|element| out.extend_from_slice(element.text));
        }
        message => out.extend_from_slice(message),
    }
}

impl<'a> Record<'a> {
    /// The message without its byte order mark, which in RFC 5424 (6.4) only says that the message is UTF-8. In the text of a
    /// container it stays: Docker never writes the mark, so the container wrote it.
    pub(crate) fn text(&self) -> &'a [u8] {
        let message = self.message.unwrap_or_default();
        let marked = message.strip_prefix(b"\xef\xbb\xbf").filter(|_| self.container.is_none());
        marked.unwrap_or(message)
    }

    /// `TAG[PID]: `, the usual text of RFC 3164 between HOSTNAME and the message; nothing without a tag.
    fn usual_msghdr(&self) -> impl Iterator<Item = u8> {
        // For a sender that is no container, the tag as it was written: APP-NAME may have lost some of it.
        let is_others = self.driver.is_none() && self.container.is_none();
        let tag = self.tag.as_deref().filter(|tag| is_others && *tag != b"-");
        let app_name = self.app_name.filter(|_| tag.is_none());
        let is_there = tag.is_some() || app_name.is_some();
        let pid = self.proc_id.filter(|_| is_there);
        let name = tag.into_iter().flatten().copied().chain(app_name.into_iter().flat_map(|name| name.bytes()));
        let pid = pid.into_iter().flat_map(|pid| std::iter::once(b'[').chain(pid.bytes()).chain(std::iter::once(b']')));
        let end: &[u8] = if is_there { b": " } else { b"" };
        name.chain(pid).chain(end.iter().copied())
    }

    /// Keeps the text between HOSTNAME and the message of RFC 3164, unless it is the usual one.
    pub(crate) fn remember_msghdr(&mut self, stood: &'a [u8]) {
        let is_usual = self.usual_msghdr().eq(stood.iter().copied());
        self.msghdr = (!is_usual).then(|| stood.into());
    }
}

fn render_record(record: &Record<'_>, sd_id: &str, out: &mut Vec<u8>) {
    let mut object = Object { out, escaped: Vec::new() };
    let header = |field: &Option<HeaderField<'_>>| field.map(|field| field.written().into_owned());
    object.out.push(b'{');
    object.field("timestamp", record.timestamp.as_ref().map(|_| record.stamp_text()).as_deref().map(str::as_bytes));
    object.field("host", header(&record.hostname).as_deref());
    object.field("facility", FACILITIES.get(usize::from(record.facility)).map(|name| name.as_bytes()));
    object.field("severity", SEVERITIES.get(usize::from(record.severity)).map(|name| name.as_bytes()));
    object.field("app_name", header(&record.app_name).as_deref());
    object.field("proc_id", header(&record.proc_id).as_deref());
    object.field("msg_id", header(&record.msg_id).as_deref());
    object.field("image_name", record.image_name());
    object.field("container_name", record.container_name());
    object.field("container_id", record.container_id());
    object.field("peer", record.peer.map(|peer| peer.to_string()).as_deref().map(str::as_bytes));
    object.structured_data(record, sd_id);
    object.fields(record);
    object.field("message", Some(record.text()));
    if record.cut {
        object.key("truncated");
        object.json(&true);
    }
    if !object.escaped.is_empty() {
        let names = Value::from(std::mem::take(&mut object.escaped));
        object.key("escaped");
        object.json(&names);
    }
    object.out.push(b'}');
}

/// A JSON object that is being written, and the keys whose values are escaped.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    escaped: Vec<&'static str>,
}

impl Object<'_> {
    fn field(&mut self, key: &'static str, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        let text = match std::str::from_utf8(value) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                self.escaped.push(key);
                Cow::Owned(escape(value))
            }
        };
        self.key(key);
        self.json(&text);
    }

    fn structured_data(&mut self, record: &Record<'_>, sd_id: &str) {
        let structured_data = record.structured_data.as_sent();
        // Fields have a key of their own.
        let elements = || {
            elements(structured_data)
                .filter(|element| !matches!(which(element.id, sd_id), Some(Which::Fields | Which::Json)))
        };
        let params =
            || elements().flat_map(|element| element.params().map(move |(name, value)| (element.id, name, value)));
        // One invalid value makes all values escaped, so that a reader need not find out which are.
        let is_utf8 = params().all(|(_, _, value)| std::str::from_utf8(&unescape(value)).is_ok());
        let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) if is_utf8 => text.to_owned(),
            _ => escape(bytes),
        };
        // Lossless: `Element` accepts only ASCII for SD-IDs and names.
        let mut ids = Map::new();
        for element in elements() {
            let has_key = |name: &[u8]| match which(element.id, sd_id) {
                Some(Which::Container) => matches!(name, b"image" | b"name" | b"id"),
                Some(Which::Own) => name == b"peer" && record.peer.is_some(),
                _ => false,
            };
            let names = ids.entry(String::from_utf8_lossy(element.id)).or_insert_with(|| Map::new().into());
            for (name, value) in element.params() {
                if !has_key(name) {
                    add(names, String::from_utf8_lossy(name), text(&unescape(value)).into());
                }
            }
        }
        let is_empty = |names: &Value| names.as_object().is_some_and(Map::is_empty);
        ids.retain(|id, names| id != sd_id && id != OWN_SD_ID || !is_empty(names));
        if !ids.is_empty() {
            if !is_utf8 {
                self.escaped.push("structured_data");
            }
            self.key("structured_data");
            self.json(&Value::from(ids));
        }
    }

    /// Writes texts, and other values with their types. A name with several values has an array.
    fn fields(&mut self, record: &Record<'_>) {
        if record.fields.is_empty() {
            return;
        }
        let is_bytes =
            |value: &FieldValue<'_>| matches!(value, FieldValue::Text(text) if std::str::from_utf8(text).is_err());
        // One invalid value makes all values escaped, so that a reader need not find out which are.
        let is_escaped = record.fields.iter().any(|field| is_bytes(&field.value));
        if is_escaped {
            self.escaped.push("fields");
        }
        self.key("fields");
        self.out.push(b'{');
        for (at, field) in record.fields.iter().enumerate() {
            let mut of_name = record.fields.iter().filter(|other| other.name == field.name);
            if record.fields.iter().take(at).any(|before| before.name == field.name) {
                continue;
            }
            if self.out.last() != Some(&b'{') {
                self.out.push(b',');
            }
            self.json(&field.name);
            self.out.push(b':');
            let _ = of_name.next();
            let has_several = of_name.next().is_some();
            if has_several {
                self.out.push(b'[');
            }
            for (number, field) in record.fields.iter().filter(|other| other.name == field.name).enumerate() {
                if number > 0 {
                    self.out.push(b',');
                }
                match &field.value {
                    FieldValue::Json(json) => self.out.extend_from_slice(json.as_str().as_bytes()),
                    FieldValue::Text(text) if is_escaped => self.json(&escape(text)),
                    FieldValue::Text(text) => self.json(&String::from_utf8_lossy(text)),
                }
            }
            if has_several {
                self.out.push(b']');
            }
        }
        self.out.push(b'}');
    }

    fn key(&mut self, key: &'static str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.json(&key);
        self.out.push(b':');
    }

    fn json(&mut self, value: &impl Serialize) {
        json::push(value, self.out);
    }
}

/// Adds a param to an object. A repeated name makes an array.
fn add(names: &mut Value, name: Cow<'_, str>, value: Value) {
    let Value::Object(names) = names else { return };
    match names.get_mut(&*name) {
        None => drop(names.insert(name.into_owned(), value)),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

impl FromStr for Format {
    type Err = BadSetting;

    fn from_str(text: &str) -> Result<Self, BadSetting> {
        match text {
            "rfc5424" => Ok(Self::Rfc5424),
            "rfc3164" => Ok(Self::Rfc3164),
            "json" => Ok(Self::Json),
            _ => Err(BadSetting(format!("{text:?} is no output format: there are rfc5424, rfc3164 and json"))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rfc5424 => "rfc5424",
            Self::Rfc3164 => "rfc3164",
            Self::Json => "json",
        })
    }
}
