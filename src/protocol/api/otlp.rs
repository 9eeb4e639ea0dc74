//! OTLP/HTTP logs in protobuf (<https://opentelemetry.io/docs/specs/otlp/>), which an OpenTelemetry Collector accepts, and many stores
//! without one: Loki, Grafana Cloud, Elastic, Datadog, New Relic, CloudWatch, VictoriaLogs, OpenObserve. JSON is not sent, because some of
//! them read only protobuf.
//!
//! ```text
//! ResourceLogs of each container, or of each app of a host
//!   Resource    host.name, service.name, container.id, container.name, container.image.name, container.image.tags
//!   LogRecord   Timestamp, SeverityNumber, SeverityText, Body, and as attributes: log.record.uid, log.iostream, network.peer.address,
//!               syslog.facility, syslog.procid, syslog.msgid, syslog.structured_data, and the line's fields
//! ```
//!
//! The names are those of the semantic conventions (<https://opentelemetry.io/docs/specs/semconv/>) and of the log data model's mapping of
//! RFC 5424 (<https://opentelemetry.io/docs/specs/otel/logs/data-model-appendix/>). A text that is not UTF-8 is sent as bytes: protobuf has
//! both types.
//!
//! A server may accept 64 MiB in one request. It answers 413 beyond its own limit. A server loses what it has only in memory when it
//! crashes after its answer. A line that is sent twice is stored twice, unless the store uses `log.record.uid`.

use serde::Deserialize;

use super::grouped::grouped;
use super::names::with_own_names;
use super::protobuf::{Message, Value as Received, each_field};
use super::{Answer, Head, Line, ORIGINAL_TIME, TRUNCATED, Verdict, foreign_params, image_and_tag, service};
use crate::record::structured_data::unescape;
use crate::record::{Record, SEVERITIES, UnixMicros, Value};

/// The numbers of fields, by message
/// (<https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto>).
const REQUEST_RESOURCE_LOGS: u32 = 1;
const RESOURCE_LOGS_RESOURCE: u32 = 1;
const RESOURCE_LOGS_SCOPE_LOGS: u32 = 2;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_LOGS_LOG_RECORDS: u32 = 2;
const RECORD_TIME: u32 = 1;
const RECORD_SEVERITY_NUMBER: u32 = 2;
const RECORD_SEVERITY_TEXT: u32 = 3;
const RECORD_BODY: u32 = 5;
const RECORD_ATTRIBUTES: u32 = 6;
const RECORD_DROPPED_ATTRIBUTES: u32 = 7;
const RECORD_OBSERVED_TIME: u32 = 11;
const PAIR_KEY: u32 = 1;
const PAIR_VALUE: u32 = 2;
const ANY_STRING: u32 = 1;
const ANY_BOOL: u32 = 2;
const ANY_INT: u32 = 3;
const ANY_DOUBLE: u32 = 4;
const ANY_ARRAY: u32 = 5;
const ANY_PAIRS: u32 = 6;
const ANY_BYTES: u32 = 7;
const ARRAY_VALUES: u32 = 1;
const PAIRS_PAIRS: u32 = 1;
const RESPONSE_PARTIAL_SUCCESS: u64 = 1;
const PARTIAL_REJECTED: u64 = 1;
const PARTIAL_MESSAGE: u64 = 2;
/// A field of `google.rpc.Status`, the body of an error.
const STATUS_MESSAGE: u64 = 2;

/// SeverityNumber of the severities 0 to 7 (Appendix B of the log data model).
const SEVERITY_NUMBERS: [u64; 8] = [21, 19, 18, 17, 13, 10, 9, 5];

const UID: &str = "log.record.uid";
const STREAM: &str = "log.iostream";
const PEER: &str = "network.peer.address";
const FACILITY: &str = "syslog.facility";
const PROC_ID: &str = "syslog.procid";
const MSG_ID: &str = "syslog.msgid";
const STRUCTURED_DATA: &str = "syslog.structured_data";
/// The attributes of a record that are not the line's fields.
const OURS: [&str; 9] = [UID, STREAM, PEER, FACILITY, PROC_ID, MSG_ID, STRUCTURED_DATA, ORIGINAL_TIME, TRUNCATED];

pub struct Otlp {
    /// The spool's ID, which makes the lines' numbers unique.
    pub spool: String,
    /// The SD-ID of the element with image, name and ID.
    pub sd_id: String,
    /// Attributes of each resource.
    pub attributes: Vec<(String, String)>,
}

/// The resource that a line comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Origin<'a> {
    host: Option<&'a [u8]>,
    service: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    image: Option<&'a [u8]>,
}

/// How many records were rejected, and why.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    /// In JSON a 64-bit integer is a string.
    rejected_log_records: serde_json::Value,
    error_message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    partial_success: Option<Partial>,
}

impl Otlp {
    pub fn head(&self) -> Head {
        Head { path: "/v1/logs", content_type: "application/x-protobuf" }
    }

    /// Appends an `ExportLogsServiceRequest` for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        let mut request = Message::begin(out);
        for (origin, lines) in grouped(lines, |line| Origin::of(&line.record)) {
            request.message(REQUEST_RESOURCE_LOGS, |logs| {
                logs.message(RESOURCE_LOGS_RESOURCE, |resource| self.resource(&origin, resource));
                logs.message(RESOURCE_LOGS_SCOPE_LOGS, |scope| {
                    for line in lines {
                        scope.message(SCOPE_LOGS_LOG_RECORDS, |record| self.log_record(line, record));
                    }
                });
            });
        }
    }

    fn resource(&self, origin: &Origin<'_>, resource: &mut Message<'_>) {
        let (image, tag) = origin.image.map(image_and_tag).unzip();
        // Attributes from the config have precedence.
        let is_said = |key: &str| self.attributes.iter().any(|(name, _)| name == key);
        for (key, value) in [
            ("host.name", origin.host),
            ("service.name", origin.service),
            ("container.id", origin.id),
            ("container.name", origin.name),
            ("container.image.name", image),
        ] {
            if let Some(value) = value.filter(|_| !is_said(key)) {
                attribute(resource, RESOURCE_ATTRIBUTES, key, |any| text(value, any));
            }
        }
        if let Some(tag) = tag.flatten().filter(|_| !is_said("container.image.tags")) {
            attribute(resource, RESOURCE_ATTRIBUTES, "container.image.tags", |any| {
                any.message(ANY_ARRAY, |tags| tags.message(ARRAY_VALUES, |any| text(tag, any)));
            });
        }
        for (key, value) in &self.attributes {
            attribute(resource, RESOURCE_ATTRIBUTES, key, |any| text(value.as_bytes(), any));
        }
    }

    fn log_record(&self, line: &Line<'_>, out: &mut Message<'_>) {
        let record = &line.record;
        let severity = usize::from(record.severity);
        // Times before 1970 cannot be represented; 0 means unknown.
        if let Some(time) = line.nanos().and_then(|nanos| u64::try_from(nanos).ok()) {
            out.fixed64(RECORD_TIME, time);
        }
        if let Some(time) = record.received.and_then(|UnixMicros(micros)| u64::try_from(micros).ok()) {
            out.fixed64(RECORD_OBSERVED_TIME, time.saturating_mul(1000));
        }
        out.varint(RECORD_SEVERITY_NUMBER, SEVERITY_NUMBERS[severity]);
        out.bytes(RECORD_SEVERITY_TEXT, SEVERITIES[severity].as_bytes());
        out.message(RECORD_BODY, |any| text(record.text(), any));
        attribute(out, RECORD_ATTRIBUTES, UID, |any| any.appended(ANY_STRING, |out| line.id.append(&self.spool, out)));
        attribute(out, RECORD_ATTRIBUTES, FACILITY, |any| any.varint(ANY_INT, record.facility.into()));
        for (key, value) in [(PROC_ID, record.proc_id), (MSG_ID, record.msg_id)] {
            if let Some(value) = value {
                attribute(out, RECORD_ATTRIBUTES, key, |any| text(value.said(), any));
            }
        }
        if let Some(source) = record.source {
            attribute(out, RECORD_ATTRIBUTES, STREAM, |any| text(source.as_str().as_bytes(), any));
        }
        if let Some(peer) = record.peer {
            attribute(out, RECORD_ATTRIBUTES, PEER, |any| text(peer.to_string().as_bytes(), any));
        }
        if line.sent_at.is_some() && record.timestamp.is_some() {
            attribute(out, RECORD_ATTRIBUTES, ORIGINAL_TIME, |any| text(record.stamp_text().as_bytes(), any));
        }
        if record.cut {
            attribute(out, RECORD_ATTRIBUTES, TRUNCATED, |any| any.varint(ANY_BOOL, 1));
        }
        self.structured_data(record, out);
        for (name, field) in with_own_names(&record.fields.flattened(), Into::into, |name| OURS.contains(&name)) {
            attribute(out, RECORD_ATTRIBUTES, &name, |any| value(field, any));
        }
        if record.fields.left_out() > 0 {
            out.varint(RECORD_DROPPED_ATTRIBUTES, record.fields.left_out().into());
        }
    }

    /// Params by SD-ID and name. Several params with one name are an array.
    fn structured_data(&self, record: &Record<'_>, out: &mut Message<'_>) {
        let ids = foreign_params(record, &self.sd_id);
        if ids.is_empty() {
            return;
        }
        // SD-IDs and names are ASCII: an element accepts nothing else.
        let key = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        attribute(out, RECORD_ATTRIBUTES, STRUCTURED_DATA, |any| {
            any.message(ANY_PAIRS, |pairs| {
                for (id, names) in ids {
                    attribute(pairs, PAIRS_PAIRS, &key(id), |any| {
                        any.message(ANY_PAIRS, |pairs| {
                            for (name, values) in names {
                                attribute(pairs, PAIRS_PAIRS, &key(name), |any| params(&values, any));
                            }
                        });
                    });
                }
            });
        });
    }

    /// The verdict on the answer to a request of this many lines.
    pub fn verdict(&self, answer: &Answer<'_>, lines: usize) -> Verdict {
        if !(200..=299).contains(&answer.status) {
            return Answer { body: bytes_of(answer.body, STATUS_MESSAGE).unwrap_or(answer.body), ..*answer }.verdict();
        }
        // Servers answer 2xx with an empty body, with JSON or with a text of their own. An answer that cannot be read reports no rejection.
        let (rejected, message) = partial_success(answer.body).unwrap_or_default();
        match rejected.min(lines as u64) {
            0 => Verdict::Delivered,
            rejected => Verdict::Short { rejected, why: Answer { body: message.as_bytes(), ..*answer }.words() },
        }
    }
}

impl<'a> Origin<'a> {
    fn of(record: &'a Record<'_>) -> Self {
        Self {
            host: record.hostname.map(|host| host.said()),
            service: service(record),
            id: record.container_id(),
            name: record.container_name(),
            image: record.image_name(),
        }
    }
}

/// Writes a `KeyValue` as a field of a message.
fn attribute(message: &mut Message<'_>, field: u32, key: &str, value: impl FnOnce(&mut Message<'_>)) {
    message.message(field, |pair| {
        pair.bytes(PAIR_KEY, key.as_bytes());
        pair.message(PAIR_VALUE, value);
    });
}

fn text(text: &[u8], any: &mut Message<'_>) {
    let is_utf8 = std::str::from_utf8(text).is_ok();
    any.bytes(if is_utf8 { ANY_STRING } else { ANY_BYTES }, text);
}

/// Escaped values of one param.
fn params(values: &[&[u8]], any: &mut Message<'_>) {
    match values {
        [value] => text(&unescape(value), any),
        values => any.message(ANY_ARRAY, |array| {
            for value in values {
                array.message(ARRAY_VALUES, |any| text(&unescape(value), any));
            }
        }),
    }
}

/// A field's value. A nested value is sent as its JSON text, and so is an integer beyond 64 bits: a float would change it. An empty
/// `AnyValue` is null.
fn value(value: &Value<'_>, any: &mut Message<'_>) {
    let json = match value {
        Value::Text(bytes) => return text(bytes, any),
        Value::Json(json) => json.as_str(),
    };
    let is_whole = !json.contains(['.', 'e', 'E']);
    match (json, json.parse::<i64>(), json.parse::<f64>()) {
        ("null", ..) => {}
        ("true" | "false", ..) => any.varint(ANY_BOOL, (json == "true").into()),
        (_, Ok(number), _) => any.varint(ANY_INT, number as u64),
        (_, _, Ok(number)) if !is_whole => any.double(ANY_DOUBLE, number),
        _ => text(json.as_bytes(), any),
    }
}

/// The number of rejected records in an `ExportLogsServiceResponse`, and the reason. `None`: it does not report this.
fn partial_success(body: &[u8]) -> Option<(u64, String)> {
    if body.trim_ascii_start().starts_with(b"{") {
        let Partial { rejected_log_records: number, error_message } =
            serde_json::from_slice::<Response>(body).ok()?.partial_success?;
        let number = number.as_u64().or_else(|| number.as_str()?.parse().ok())?;
        return Some((number, error_message));
    }
    let (mut rejected, mut message) = (0, String::new());
    each_field(bytes_of(body, RESPONSE_PARTIAL_SUCCESS)?, |number, value| match (number, value) {
        (PARTIAL_REJECTED, Received::Varint(number)) => rejected = i64::max(number as i64, 0) as u64,
        (PARTIAL_MESSAGE, Received::Bytes(text)) => message = String::from_utf8_lossy(text).into_owned(),
        _ => {}
    })?;
    Some((rejected, message))
}

/// The value of a field of type string, bytes or message. `None`: the field is missing, or the input is malformed.
fn bytes_of(message: &[u8], field: u64) -> Option<&[u8]> {
    let mut found = None;
    each_field(message, |number, value| {
        if let (true, Received::Bytes(bytes)) = (number == field, value) {
            found = Some(bytes);
        }
    })?;
    found
}
