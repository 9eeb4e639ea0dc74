//! HTTP APIs of log stores: the body of a request, and what its answer means for each line in it. Pure: no socket, no clock, no async.
//! `forward/http` sends the requests.
//!
//! A line has one of four verdicts. *Delivered*: the store has it. *Again*: it is sent once more. *Poison*: the store will never accept
//! this line, so it becomes a dead letter. *Stop*: the store accepts no line at present (wrong credentials, a missing index), and no line
//! is given up. Few answers are that specific: see [`Verdict`].
//!
//! - here: [`Line`], [`Answer`], [`Verdict`], and the meaning of HTTP status codes
//! - `age`: lines that are too old for a store
//! - `object`: writes JSON
//! - `protobuf`: writes and reads Protocol Buffers
//! - `grouped`: groups lines whose common data is written only once
//! - `names`: makes names of fields unique
//! - `elasticsearch`: `_bulk` of Elasticsearch, OpenSearch and compatible stores
//! - `otlp`: OpenTelemetry's logs, which many stores accept
//! - `splunk`: Splunk's HTTP Event Collector
//! - `loki`: Loki's push API
//! - `datadog`: Datadog's Logs API
//! - `newrelic`: New Relic's Log API
//! - `cloudwatch`: CloudWatch Logs' PutLogEvents
//! - `s3`: objects of lines in S3
//! - `ndjson`: the format `json`, for any URL
//! - `search`: queries that find lines again, for `logferry probe`
//! - `properties`: invariants of all lines and all answers

pub mod age;
pub mod cloudwatch;
pub mod datadog;
pub mod elasticsearch;
mod grouped;
pub mod loki;
mod names;
pub mod ndjson;
pub mod newrelic;
mod object;
pub mod otlp;
pub mod properties;
mod protobuf;
pub mod s3;
pub mod search;
pub mod splunk;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use names::with_own_names;
pub(crate) use object::Object;

use cloudwatch::CloudWatch;
use datadog::Datadog;
use elasticsearch::Elasticsearch;
use loki::{Label, Loki};
use ndjson::Ndjson;
use newrelic::NewRelic;
use otlp::Otlp;
use s3::S3;
use splunk::Splunk;

use memchr::memmem;

use crate::record::structured_data::{Element, elements};
use crate::record::write::which;
use crate::record::{Record, UnixMicros};

/// The APIs there are.
pub enum Api {
    Elasticsearch(Elasticsearch),
    Splunk(Splunk),
    Datadog(Datadog),
    NewRelic(NewRelic),
    CloudWatch(CloudWatch),
    S3(S3),
    Ndjson(Ndjson),
    Loki(Loki),
    Otlp(Otlp),
}

/// A line of the spool, as a request carries it.
pub struct Line<'a> {
    pub id: LineId,
    pub record: Record<'a>,
    /// The time of sending. `Some`: the line is too old for the store, or has no time and the store needs one. The store gets this time
    /// instead of the line's own, which is in the field [`ORIGINAL_TIME`].
    pub sent_at: Option<UnixMicros>,
}

/// The permanent identity of a line in a spool. It is the same after `kill -9`, and each time the line is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineId {
    /// The opening of the spool that numbered the line.
    pub session: u32,
    pub number: u64,
}

/// The field with a line's own time, if the store gets another one.
pub const ORIGINAL_TIME: &str = "original_timestamp";

/// The field that marks a truncated line.
pub const TRUNCATED: &str = "truncated";

/// The parts of a request besides its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The path of the API, and its query.
    pub path: &'static str,
    pub content_type: &'static str,
}

/// The limits of a request. More lines are divided before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub lines: usize,
    /// Maximum bytes of the body before compression.
    pub bytes: usize,
    /// Maximum bytes of a body with a single line. A longer line is not sent.
    pub line: usize,
}

/// The answer of a server.
pub struct Answer<'a> {
    pub status: u16,
    /// `Retry-After` (RFC 9110 10.2.3).
    pub retry_after: Option<Duration>,
    /// The part of the body that was read, decompressed.
    pub body: &'a [u8],
}

/// The meaning of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The store has all lines.
    Delivered,
    /// The store has rejected this number of lines, which must not be sent again. It does not say which.
    Short { rejected: u64, why: String },
    /// A result for each line, in the order of the request.
    Each(Vec<Fate>),
    /// The server is temporarily unable. All lines are sent once more, and not before `after`, if the server sets it.
    Again { after: Option<Duration>, why: String },
    /// The server accepts no line at present.
    Stop(String),
    /// The destination of the lines does not exist, and can be created.
    Missing(String),
    /// The store already has the first line, and further lines as far as the store reports.
    There,
    /// At least one line will never be accepted, and the server does not say which. Sending halves of the request finds it.
    Refused(String),
    /// As [`Refused`](Self::Refused), and the server reports the line by its index in the request. The index may be off by one, so a line
    /// is given up only if it is refused alone.
    RefusedAt { place: usize, why: String },
    /// The request is larger than the server accepts.
    TooLarge(String),
}

impl Verdict {
    /// The label for counters. If the lines differ, the worst verdict counts.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Delivered | Self::There => "delivered",
            Self::Short { .. } => "short",
            Self::Each(fates) if fates.iter().any(Fate::is_poison) => "poison",
            Self::Each(fates) if fates.iter().any(|fate| matches!(fate, Fate::Again(_))) => "again",
            Self::Each(_) => "delivered",
            Self::Again { .. } => "again",
            Self::Stop(_) | Self::Missing(_) => "stop",
            Self::Refused(_) | Self::RefusedAt { .. } | Self::TooLarge(_) => "poison",
        }
    }
}

/// The result of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    /// For this reason.
    Again(String),
    /// For this reason.
    Poison(String),
    /// As [`Poison`](Self::Poison), but only for the line's time. Many such lines do not mean that the server refuses all lines.
    TooOld(String),
    /// As [`TooOld`](Self::TooOld).
    TooNew(String),
}

impl Fate {
    fn is_poison(&self) -> bool {
        matches!(self, Self::Poison(_) | Self::TooOld(_) | Self::TooNew(_))
    }
}

/// The texts with which a 400 reports that a request is too large: from Go programs such as the OpenTelemetry Collector, from Loki, and
/// from CloudWatch Logs.
const TOO_LARGE: [&[u8]; 3] = [b"request body too large", b"received message larger than max", b"Upload too large"];
/// The start of a 500 by which a component of Loki reports that an internal request is too large.
const TOO_LARGE_WITHIN: &[u8] = b"rpc error: code = ResourceExhausted desc = grpc: received message larger than max";

/// Maximum bytes of a server's answer that are shown.
const MAX_WORDS: usize = 300;

impl Api {
    pub fn head(&self) -> Head {
        match self {
            Self::Elasticsearch(elasticsearch) => elasticsearch.head(),
            Self::Splunk(splunk) => splunk.head(),
            Self::Datadog(datadog) => datadog.head(),
            Self::NewRelic(new_relic) => new_relic.head(),
            Self::CloudWatch(cloud_watch) => cloud_watch.head(),
            Self::S3(s3) => s3.head(),
            Self::Ndjson(ndjson) => ndjson.head(),
            Self::Loki(loki) => loki.head(),
            Self::Otlp(otlp) => otlp.head(),
        }
    }

    /// The header with the token, and the prefix of the token: an authentication scheme (RFC 9110 11.1), or nothing.
    pub fn token_header(&self) -> (&'static str, &'static str) {
        match self {
            Self::Elasticsearch(_) => ("authorization", "ApiKey "),
            Self::Splunk(_) => ("authorization", "Splunk "),
            Self::Datadog(_) => ("dd-api-key", ""),
            Self::NewRelic(_) => ("api-key", ""),
            // CloudWatch and S3 authenticate by a signature.
            Self::Loki(_) | Self::Otlp(_) | Self::Ndjson(_) | Self::CloudWatch(_) | Self::S3(_) => {
                ("authorization", "Bearer ")
            }
        }
    }

    /// The limits of a request.
    pub fn limits(&self) -> Limits {
        match self {
            Self::Splunk(_) => splunk::LIMITS,
            Self::Datadog(_) => datadog::LIMITS,
            Self::NewRelic(_) => newrelic::LIMITS,
            Self::CloudWatch(_) => cloudwatch::LIMITS,
            Self::Elasticsearch(_) | Self::Loki(_) | Self::Otlp(_) | Self::Ndjson(_) | Self::S3(_) => Limits::NONE,
        }
    }

    /// Appends the body of a request for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        match self {
            Self::Elasticsearch(elasticsearch) => elasticsearch.body(lines, out),
            Self::Splunk(splunk) => splunk.body(lines, out),
            Self::Datadog(datadog) => datadog.body(lines, out),
            Self::NewRelic(new_relic) => new_relic.body(lines, out),
            Self::CloudWatch(cloud_watch) => cloud_watch.body(lines, out),
            Self::S3(s3) => s3.body(lines, out),
            Self::Ndjson(ndjson) => ndjson.body(lines, out),
            Self::Loki(loki) => loki.body(lines, out),
            Self::Otlp(otlp) => otlp.body(lines, out),
        }
    }

    /// The body of a request that stores no line, and whose answer shows whether the server would accept lines. `None`: an arbitrary URL
    /// might take the body for a line.
    pub fn body_of_none(&self) -> Option<&'static [u8]> {
        match self {
            // An empty Protocol Buffers message has no bytes. The others refuse an empty request after they have checked the credentials.
            Self::Elasticsearch(_) | Self::Splunk(_) | Self::Otlp(_) => Some(b""),
            Self::Loki(_) => Some(br#"{"streams":[]}"#),
            Self::Datadog(_) | Self::NewRelic(_) => Some(b"[]"),
            // The server checks the credentials before it reports what is wrong with this body.
            Self::CloudWatch(_) => Some(b"{}"),
            Self::Ndjson(_) | Self::S3(_) => None,
        }
    }

    /// The API that restricts which lines a request may have, and their order.
    pub fn arranged(&self) -> Option<&CloudWatch> {
        match self {
            Self::CloudWatch(cloud_watch) => Some(cloud_watch),
            _ => None,
        }
    }

    /// The API whose requests are objects with a name each.
    pub fn objects(&self) -> Option<&S3> {
        match self {
            Self::S3(s3) => Some(s3),
            _ => None,
        }
    }

    /// The verdict on the answer to a request of this many lines.
    pub fn verdict(&self, answer: &Answer<'_>, lines: usize) -> Verdict {
        match self {
            Self::Elasticsearch(elasticsearch) => elasticsearch.verdict(answer, lines),
            Self::Splunk(splunk) => splunk.verdict(answer, lines),
            // Their answers do not report single lines.
            Self::Datadog(_) | Self::NewRelic(_) | Self::Ndjson(_) => answer.verdict(),
            Self::Loki(loki) => loki.verdict(answer),
            Self::Otlp(otlp) => otlp.verdict(answer, lines),
            Self::CloudWatch(cloud_watch) => cloud_watch.verdict(answer, lines),
            Self::S3(s3) => s3.verdict(answer),
        }
    }
}

impl Limits {
    /// No limits: the server reports what is too large for it.
    pub const NONE: Self = Self { lines: usize::MAX, bytes: usize::MAX, line: usize::MAX };
}

impl Line<'_> {
    /// The time that the store gets; `None`: the line has none.
    pub fn time(&self) -> Option<UnixMicros> {
        self.sent_at.or_else(|| self.record.time())
    }

    /// The line's own time, if the store gets another one.
    pub fn original_time(&self) -> Option<UnixMicros> {
        self.sent_at.and(self.record.time())
    }

    /// The time that the store gets, in nanoseconds since 1970; `None`: the line has none.
    pub fn nanos(&self) -> Option<i128> {
        let of = |time: UnixMicros| i128::from(time.0) * 1000;
        match self.sent_at {
            Some(sent) => Some(of(sent)),
            None => Some(of(self.record.time()?) + i128::from(self.record.nanoseconds)),
        }
    }
}

impl LineId {
    /// Appends the ID as globally unique text. `spool`: the spool's ID.
    pub fn append(self, spool: &str, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(spool.as_bytes());
        out.push(b'-');
        out.extend_from_slice(number.format(self.session).as_bytes());
        out.push(b'-');
        out.extend_from_slice(number.format(self.number).as_bytes());
    }
}

impl Answer<'_> {
    /// The verdict by the status code, if the API defines nothing else.
    pub fn verdict(&self) -> Verdict {
        let why = self.words();
        match self.status {
            200..=299 => Verdict::Delivered,
            _ if self.is_too_large() => Verdict::TooLarge(why),
            408 | 425 | 429 | 500 | 502..=599 => Verdict::Again { after: self.retry_after, why },
            400 | 422 => Verdict::Refused(why),
            // Other codes concern the whole request: its path, its credentials, its form.
            _ => Verdict::Stop(why),
        }
    }

    /// Whether the request is larger than the server accepts, or the proxy in front of it, which often sends a 413.
    fn is_too_large(&self) -> bool {
        match self.status {
            413 => true,
            400 => TOO_LARGE.iter().any(|words| memmem::find(self.body, words).is_some()),
            500 => self.body.starts_with(TOO_LARGE_WITHIN),
            _ => false,
        }
    }

    /// The answer in one line, for users.
    pub fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(MAX_WORDS)]);
        let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
        let text = words.collect::<Vec<_>>().join(" ");
        if text.is_empty() { format!("HTTP {}", self.status) } else { format!("HTTP {}: {text}", self.status) }
    }

    /// Whether the server that has answered [`body_of_none`](Api::body_of_none) would accept lines; `Err`: why it would not.
    pub fn would_take(&self) -> Result<(), String> {
        match self.status {
            // 400 and 422: the only fault is that there is no line.
            200..=299 | 400 | 422 => Ok(()),
            _ => Err(self.words()),
        }
    }
}

/// The name of a service: the name of a container, or the APP-NAME of other senders.
fn service<'r>(record: &'r Record<'_>) -> Option<&'r [u8]> {
    record.container_name().or(record.app_name.map(|name| name.said()))
}

/// Structured data of other senders. Our own elements have keys of their own.
fn foreign_elements<'a>(record: &Record<'a>, sd_id: &str) -> impl Iterator<Item = Element<'a>> {
    elements(record.structured_data.as_sent()).filter(move |element| which(element.id, sd_id).is_none())
}

/// The text of [`foreign_elements`]; `None`: there are none.
pub fn foreign_text(record: &Record<'_>, sd_id: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = foreign_elements(record, sd_id).flat_map(|element| element.text).copied().collect();
    (!text.is_empty()).then_some(text)
}

/// Escaped values by SD-ID and by the param's name. A name may occur several times, and so may an SD-ID.
type Params<'a> = BTreeMap<&'a [u8], BTreeMap<&'a [u8], Vec<&'a [u8]>>>;

/// The params of [`foreign_elements`], each name once.
fn foreign_params<'a>(record: &Record<'a>, sd_id: &str) -> Params<'a> {
    let mut ids = Params::new();
    for element in foreign_elements(record, sd_id) {
        let names = ids.entry(element.id).or_default();
        element.params().for_each(|(name, value)| names.entry(name).or_default().push(value));
    }
    ids
}

/// An image's name and its tag: `registry:5000/web:1.2` is `registry:5000/web` and `1.2`. A digest is not a tag, and stays with the name.
fn image_and_tag(image: &[u8]) -> (&[u8], Option<&[u8]>) {
    let name = memchr::memrchr(b'/', image).map_or(0, |at| at + 1);
    if image.contains(&b'@') {
        return (image, None);
    }
    match memchr::memchr(b':', &image[name..]) {
        Some(at) => (&image[..name + at], Some(&image[name + at + 1..])),
        None => (image, None),
    }
}

#[cfg(test)]
mod tests {
    mod loki;
    mod otlp;

    use super::*;

    #[test]
    fn the_number_of_an_answer_says_what_to_do() {
        let check = |status: u16, expected: &str| {
            let answer = Answer { status, retry_after: None, body: b"{\n  \"error\": \"no\" }" };
            assert_eq!(format!("{:?}", answer.verdict()).split([' ', '(']).next(), Some(expected), "{status}");
        };
        for (statuses, expected) in [
            (vec![200, 201, 202, 204], "Delivered"),
            (vec![408, 429, 500, 502, 503, 504, 507], "Again"),
            (vec![400, 422], "Refused"),
            (vec![413], "TooLarge"),
            (vec![301, 302, 401, 403, 404, 405, 406, 407, 410, 415, 501], "Stop"),
        ] {
            statuses.into_iter().for_each(|status| check(status, expected));
        }
    }

    #[test]
    fn a_request_is_too_large_also_in_other_words_than_413() {
        let check = |status: u16, body: &str, is_too_large: bool| {
            let verdict = Answer { status, retry_after: None, body: body.as_bytes() }.verdict();
            assert_eq!(matches!(verdict, Verdict::TooLarge(_)), is_too_large, "{status} {body}: {verdict:?}");
        };
        check(400, "http: request body too large", true);
        check(500, "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)", true);
        check(400, "the line is too large", false);
        // A failing server may quote what it was sent. Such an answer does not mean that the request is too large.
        check(500, "cannot write: rpc error: code = ResourceExhausted", false);
        check(503, "http: request body too large", false);
        check(200, "Upload too large", false);
    }

    #[test]
    fn where_lines_differ_the_worst_is_the_word() {
        let check = |fates: &[Fate], expected: &str| assert_eq!(Verdict::Each(fates.to_vec()).word(), expected);
        let (again, poison) = (Fate::Again(String::new()), Fate::Poison(String::new()));
        check(&[Fate::Delivered], "delivered");
        check(&[Fate::Delivered, again.clone()], "again");
        check(&[again, poison, Fate::Delivered], "poison");
    }

    #[test]
    fn a_servers_words_are_one_line() {
        let words = |body: &str| Answer { status: 400, retry_after: None, body: body.as_bytes() }.words();
        assert_eq!(words("{\n  \"error\":\u{1b} \"no\" }\r\n"), "HTTP 400: { \"error\": \"no\" }");
        assert_eq!(words(""), "HTTP 400");
        assert!(words(&"é".repeat(1000)).len() < 2 * MAX_WORDS);
    }

    #[test]
    fn a_tag_is_not_a_port_nor_a_digest() {
        let check = |image: &str, name: &str, tag: Option<&str>| {
            assert_eq!(image_and_tag(image.as_bytes()), (name.as_bytes(), tag.map(str::as_bytes)), "{image}");
        };
        check("web", "web", None);
        check("web:1.2", "web", Some("1.2"));
        check("registry:5000/team/web", "registry:5000/team/web", None);
        check("registry:5000/team/web:1.2", "registry:5000/team/web", Some("1.2"));
        check("web@sha256:ab", "web@sha256:ab", None);
        check("", "", None);
    }
}
