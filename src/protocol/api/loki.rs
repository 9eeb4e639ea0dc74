//! Loki's push API (<https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs>), which VictoriaLogs accepts too.
//!
//! ```text
//! {"streams":[
//!   {"stream":{"job":"logferry","host":"…","service_name":"…","level":"info"},
//!    "values":[["1795898247123456042","the line",{"container_id":"…","image":"…","facility":"daemon"}],…]},…]}
//! ```
//!
//! Loki creates a stream for each set of labels and performs badly with many streams. So labels have few values, and everything else is
//! structured metadata, which Loki accepts since 3.0 as it is configured there. Names have only the characters that Loki allows: letters,
//! digits and `_`. A text that is not UTF-8 has `\xHH` for each invalid byte and `\\` for each backslash, and `escaped` names it, as in the
//! format `json`.
//!
//! Lines that are sent with the time of sending have streams of their own, with the label `restamped`. Otherwise they would make a stream
//! so new that Loki refuses the following lines with their own, older times.
//!
//! Loki stores two lines of a stream that are equal in time, text and metadata only once. So a line that is sent again is stored once, as
//! long as Loki has its chunk in memory. To keep two lines of one microsecond apart, the last three digits of a line's number replace its
//! nanoseconds. The metadata has the nanoseconds if they are known.
//!
//! Loki's default limits:
//!
//! - 4 MB a second from a tenant, 6 MB at once (`ingestion_rate_mb`, `ingestion_burst_size_mb`). It answers 429 beyond.
//! - 256 KB a line (`max_line_size`). It truncates or refuses longer lines, as it is configured.
//! - No line older than a week (`reject_old_samples_max_age`), and none an hour older than the newest line of its stream.
//!
//! It refuses such lines with 400 and has stored the other lines of the request. Sending halves of the request finds the refused line.

use std::borrow::Cow;

use super::grouped::grouped;
use super::names::with_own_names;
use super::object::{Object, push_text};
use super::{Answer, Head, Line, ORIGINAL_TIME, TRUNCATED, Verdict, foreign_text, service};
use crate::record::{FACILITIES, Record, SEVERITIES, Value, escape};

/// The maximum number of labels that the config may name: Loki's limit (`max_label_names_per_series`) minus one for [`RESTAMPED`].
pub const MAX_LABELS: usize = 14;
/// The label of lines that are sent with the time of sending.
const RESTAMPED: &str = "restamped";
/// The maximum length of a label's value in bytes (`max_label_value_length`). A longer value is truncated, because Loki refuses its lines.
const MAX_LABEL_VALUE: usize = 2048;
/// The default value of `job`.
const JOB: &str = "logferry";
/// The keys of metadata that are not the line's fields, besides the labels' names.
const OURS: [&str; 11] = [
    "container_id",
    "image",
    "procid",
    "msgid",
    "peer",
    "structured_data",
    "nanoseconds",
    ORIGINAL_TIME,
    TRUNCATED,
    "escaped",
    RESTAMPED,
];

pub struct Loki {
    /// The labels. All other data is metadata.
    pub labels: Vec<Label>,
    /// Fixed labels of each stream.
    pub fields: Vec<(String, String)>,
    /// The SD-ID of the element with image, name and ID.
    pub sd_id: String,
}

/// The data that can be a label, because it has few values with any sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    Job,
    Host,
    ServiceName,
    Level,
    Facility,
    Source,
}

/// The values of the labels of a stream, in their order.
type Labels<'a> = [Option<&'a [u8]>; Label::ALL.len()];

impl Label {
    pub const ALL: [Self; 6] = [Self::Job, Self::Host, Self::ServiceName, Self::Level, Self::Facility, Self::Source];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Host => "host",
            Self::ServiceName => "service_name",
            Self::Level => "level",
            Self::Facility => "facility",
            Self::Source => "source",
        }
    }

    fn value<'r>(self, record: &'r Record<'_>) -> Option<&'r [u8]> {
        match self {
            Self::Job => Some(JOB.as_bytes()),
            Self::Host => record.hostname.map(|host| host.said()),
            Self::ServiceName => service(record),
            Self::Level => Some(SEVERITIES[usize::from(record.severity)].as_bytes()),
            Self::Facility => Some(FACILITIES[usize::from(record.facility)].as_bytes()),
            Self::Source => Some(record.source?.as_str().as_bytes()),
        }
    }
}

/// Whether a label can have this name (<https://grafana.com/docs/loki/latest/get-started/labels/#label-format>).
pub fn is_label_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit()) && !name.is_empty() && name.bytes().all(is_name_byte)
}

impl Loki {
    pub fn head(&self) -> Head {
        Head { path: "/loki/api/v1/push", content_type: "application/json" }
    }

    /// Appends a request for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        let streams = grouped(lines, |line| (self.labels(&line.record), line.sent_at.is_some()));
        let mut push = Object::begin(out);
        push.array("streams", streams, |((labels, is_restamped), lines), out| {
            let mut stream = Object::begin(out);
            stream.object("stream", |stream| self.stream(&labels, is_restamped, stream));
            stream.array("values", lines, |line, out| self.entry(line, out));
            stream.end();
        });
        push.end();
    }

    fn labels<'r>(&self, record: &'r Record<'_>) -> Labels<'r> {
        Label::ALL.map(|label| if self.is_label(label) { label.value(record) } else { None })
    }

    /// Whether this is a label with a value from the line. A fixed label of the same name has precedence.
    fn is_label(&self, label: Label) -> bool {
        self.labels.contains(&label) && !self.is_field(label.name())
    }

    fn is_field(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// The fixed labels of a stream. `restamped` is left out if the stream has its own.
    fn extra(&self, is_restamped: bool) -> impl Iterator<Item = &(String, String)> {
        self.fields.iter().filter(move |(name, _)| !is_restamped || name != RESTAMPED)
    }

    fn stream(&self, labels: &Labels<'_>, is_restamped: bool, stream: &mut Object<'_>) {
        for (label, value) in Label::ALL.iter().zip(labels) {
            if let Some(value) = value {
                stream.text(label.name(), &label_value(value));
            }
        }
        self.extra(is_restamped).for_each(|(name, value)| stream.text(name, &label_value(value.as_bytes())));
        if is_restamped {
            stream.text(RESTAMPED, "true");
        } else if self.fields.is_empty() && labels.iter().all(Option::is_none) {
            // Loki refuses a stream without a label.
            stream.text(Label::Job.name(), JOB);
        }
    }

    fn entry(&self, line: &Line<'_>, out: &mut Vec<u8>) {
        let text = line.record.text();
        out.extend_from_slice(b"[\"");
        out.extend_from_slice(itoa::Buffer::new().format(distinct_nanos(line)).as_bytes());
        out.extend_from_slice(b"\",");
        let escaped = match std::str::from_utf8(text) {
            Ok(text) => {
                push_text(text, out);
                None
            }
            Err(_) => {
                push_text(&escape(text), out);
                Some("message")
            }
        };
        out.push(b',');
        self.metadata(line, escaped, out);
        out.push(b']');
    }

    /// All values are texts: Loki accepts no others.
    fn metadata(&self, line: &Line<'_>, escaped: Option<&'static str>, out: &mut Vec<u8>) {
        let record = &line.record;
        let mut metadata = Object::begin(out);
        for label in Label::ALL.into_iter().filter(|label| *label != Label::Job && !self.is_label(*label)) {
            if !self.is_field(label.name()) {
                metadata.bytes(label.name(), label.value(record));
            }
        }
        metadata.bytes("container_id", record.container_id());
        metadata.bytes("image", record.image_name());
        metadata.bytes("procid", record.proc_id.map(|id| id.said()));
        metadata.bytes("msgid", record.msg_id.map(|id| id.said()));
        if let Some(peer) = record.peer {
            metadata.text("peer", &peer.to_string());
        }
        metadata.bytes("structured_data", foreign_text(record, &self.sd_id).as_deref());
        if record.nanoseconds > 0 {
            metadata.text("nanoseconds", itoa::Buffer::new().format(record.nanoseconds));
        }
        if line.sent_at.is_some() && record.timestamp.is_some() {
            metadata.text(ORIGINAL_TIME, &record.stamp_text());
        }
        if record.cut {
            metadata.text(TRUNCATED, "true");
        }
        let is_ours = |name: &str| {
            OURS.contains(&name) || Label::ALL.iter().any(|label| label.name() == name) || self.is_field(name)
        };
        let mut escaped: Vec<_> = escaped.into_iter().chain(metadata.take_escaped()).map(Cow::Borrowed).collect();
        let fields = record.fields.flattened();
        for (name, value) in with_own_names(&fields, legal_name, is_ours) {
            match value {
                Value::Json(json) => metadata.text(&name, json.as_str()),
                Value::Text(text) => match std::str::from_utf8(text) {
                    Ok(text) => metadata.text(&name, text),
                    Err(_) => {
                        metadata.text(&name, &escape(text));
                        escaped.push(name);
                    }
                },
            }
        }
        if !escaped.is_empty() {
            metadata.text("escaped", &escaped.join(","));
        }
        metadata.end();
    }

    /// The verdict on an answer.
    pub fn verdict(&self, answer: &Answer<'_>) -> Verdict {
        match answer.status {
            200 | 204 => Verdict::Delivered,
            // 260: an administrator has blocked the tenant (`block_ingestion_status_code`).
            201..=299 => Verdict::Stop(answer.words()),
            _ => answer.verdict(),
        }
    }
}

/// The time of a line in nanoseconds since 1970. Its last three digits are those of the line's number, so the time is the same each time
/// the line is sent. A line without a time counts from 1970-01-01.
fn distinct_nanos(line: &Line<'_>) -> i64 {
    let nanos = line.nanos().unwrap_or_default();
    let distinct = nanos - nanos.rem_euclid(1000) + i128::from(line.id.number % 1000);
    // Loki refuses a whole request for a time that it cannot parse. It refuses only this line for the farthest time that it can parse.
    i64::try_from(distinct).unwrap_or(if distinct < 0 { i64::MIN } else { i64::MAX })
}

fn label_value(value: &[u8]) -> Cow<'_, str> {
    let mut value = match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(escape(value)),
    };
    if value.len() > MAX_LABEL_VALUE {
        let end = (0..=MAX_LABEL_VALUE).rev().find(|at| value.is_char_boundary(*at));
        value.to_mut().truncate(end.unwrap_or_default());
    }
    value
}

fn legal_name(name: &str) -> Cow<'_, str> {
    if is_label_name(name) {
        return name.into();
    }
    let legal = name.chars().map(|c| if u8::try_from(c).is_ok_and(is_name_byte) { c } else { '_' });
    let needs_start = name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit());
    needs_start.then_some('_').into_iter().chain(legal).collect::<String>().into()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
