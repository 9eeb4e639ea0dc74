//! Invariants of all lines and all answers, as functions, so that a unit test, a property test and a fuzz target are one line each.

use serde_json::{Map, Value, json};

use super::cloudwatch::{self, CloudWatch};
use super::datadog::Datadog;
use super::elasticsearch::{self, Elasticsearch};
use super::loki::{Label, Loki};
use super::ndjson::Ndjson;
use super::newrelic::NewRelic;
use super::otlp::Otlp;
use super::s3::S3;
use super::splunk::{Ack, Splunk, acknowledged};
use super::{Answer, Api, Line, LineId, Verdict};
use crate::record::properties::chosen_line;
use crate::record::{Record, UnixMicros, unescape};

const SD_ID: &str = "docker@32473";
const SPOOL: &str = "5b00";
const SENT_AT: UnixMicros = UnixMicros(1_795_898_247_000_000);

/// Panics unless each API makes a well-formed body of these lines that has their messages. They are in order, except in APIs that group
/// lines.
pub fn any_lines(lines: &[&[u8]]) {
    for sent_at in [None, Some(SENT_AT)] {
        let lines = lines_of(lines, sent_at);
        for api in apis() {
            let mut body = b"before".to_vec();
            api.body(&lines, &mut body);
            let body = body.strip_prefix(b"before").expect("what was there");
            let mut said = match &api {
                Api::Elasticsearch(_) => of_bulk(body),
                Api::Loki(_) => of_loki(body),
                Api::Otlp(_) => of_otlp(body),
                Api::Splunk(_) => events(body),
                Api::NewRelic(_) => logs(body),
                Api::Datadog(_) | Api::Ndjson(Ndjson { is_array: true, .. }) => entries(body),
                Api::CloudWatch(cloud_watch) => of_cloud_watch(cloud_watch, &lines),
                Api::Ndjson(_) | Api::S3(_) => objects(body),
            };
            let mut messages: Vec<_> = lines.iter().map(|line| line.record.text().to_vec()).collect();
            if let Api::Loki(_) | Api::Otlp(_) | Api::CloudWatch(_) = api {
                said.sort();
                messages.sort();
            }
            assert_eq!(said, messages, "{}", String::from_utf8_lossy(body));
        }
    }
}

/// [`any_lines`] for these bytes as lines that a LF separates, and for messages of these bytes.
pub fn any_bytes(data: &[u8]) {
    any_lines(&data.split(|byte| *byte == b'\n').collect::<Vec<_>>());
    let behind = |header: &[u8]| [header, data].concat();
    let headers = [&b"<30>1 2026-11-20T22:27:33.081562Z host app 1 - - "[..], b"<30>1 - - - - - "];
    let lines = headers.map(behind);
    any_lines(&lines.each_ref().map(|line| &line[..]));
    any_lines(&[&chosen_line(data, SD_ID), data]);
}

/// Panics if an answer to a request of this many lines makes an API panic, if a verdict has another number of lines, or if lines count as
/// delivered without a 2xx.
pub fn any_answer(status: u16, body: &[u8], lines: usize) {
    if acknowledged(&Answer { status, retry_after: None, body }).is_ok() {
        assert!((200..=299).contains(&status), "{status}");
    }
    for api in apis() {
        match api.verdict(&Answer { status, retry_after: None, body }, lines) {
            Verdict::Each(fates) => assert_eq!(fates.len(), lines),
            Verdict::RefusedAt { place, .. } => assert!(place < lines),
            verdict @ (Verdict::Delivered | Verdict::Short { .. }) => {
                assert!((200..=299).contains(&status), "{status}: {verdict:?}");
            }
            Verdict::Again { .. }
            | Verdict::Stop(_)
            | Verdict::Missing(_)
            | Verdict::There
            | Verdict::Refused(_)
            | Verdict::TooLarge(_) => {}
        }
    }
}

fn lines_of<'a>(lines: &[&'a [u8]], sent_at: Option<UnixMicros>) -> Vec<Line<'a>> {
    let line = |(number, line): (u64, &&'a [u8])| Line {
        id: LineId { session: 7, number },
        record: Record::from_line(line, SD_ID),
        sent_at,
    };
    (100..).zip(lines).map(line).collect()
}

fn apis() -> [Api; 10] {
    let fields = vec![("env".to_owned(), "a \"b\"".to_owned())];
    let spool = || SPOOL.to_owned();
    let text = |text: &str| Some(text.to_owned());
    let sd_id = SD_ID.to_owned();
    [
        Api::Elasticsearch(Elasticsearch {
            index: elasticsearch::index("logs-{host}{app}{name}-{image}.{id}é"),
            spool: Some(spool()),
            sd_id: sd_id.clone(),
            labels: fields.clone(),
        }),
        Api::Loki(Loki {
            labels: vec![Label::Job, Label::Host, Label::ServiceName, Label::Level],
            fields: fields.clone(),
            sd_id: sd_id.clone(),
        }),
        Api::Otlp(Otlp { spool: spool(), sd_id: sd_id.clone(), attributes: fields.clone() }),
        Api::Splunk(Splunk {
            index: text("main"),
            sourcetype: text("docker"),
            spool: spool(),
            fields: fields.clone(),
            ack: Ack::Auto,
        }),
        Api::Datadog(Datadog { spool: spool(), tags: fields.clone() }),
        Api::NewRelic(NewRelic { spool: spool(), attributes: fields.clone() }),
        Api::CloudWatch(CloudWatch {
            group: cloudwatch::group("/docker/{host}"),
            stream: cloudwatch::stream("{host}/{name}"),
            objects: Some(Ndjson { is_array: false, sd_id: sd_id.clone(), fields: fields.clone() }),
            creates: true,
        }),
        Api::S3(S3 {
            stream: spool(),
            objects: Ndjson { is_array: false, sd_id: sd_id.clone(), fields: fields.clone() },
        }),
        Api::Ndjson(Ndjson { is_array: false, sd_id: sd_id.clone(), fields: fields.clone() }),
        Api::Ndjson(Ndjson { is_array: true, sd_id, fields }),
    ]
}

/// The messages of a body of `_bulk`.
fn of_bulk(body: &[u8]) -> Vec<Vec<u8>> {
    let lines: Vec<_> = body.split_inclusive(|byte| *byte == b'\n').collect();
    let (pairs, rest) = lines.as_chunks::<2>();
    assert!(rest.is_empty() && body.last().is_none_or(|last| *last == b'\n'));
    let document = |[action, document]: &[&[u8]; 2]| {
        let action: Value = serde_json::from_slice(action).expect("an action");
        assert!(action["create"]["_id"].is_string());
        let index = action["create"]["_index"].as_str().expect("a name");
        let is_legal = |c: char| !c.is_uppercase() && !c.is_whitespace() && !r#"\/*?"<>|,#:"#.contains(c);
        assert!(index.starts_with("logs-") && index.len() <= 255 && index.chars().all(is_legal), "{index:?}");
        let document: Value = serde_json::from_slice(document).expect("a document");
        let escaped = document["escaped"].as_array().is_some_and(|keys| keys.contains(&"message".into()));
        message(document["message"].as_str().expect("a message"), escaped)
    };
    pairs.iter().map(document).collect()
}

/// The messages of a push to Loki.
fn of_loki(body: &[u8]) -> Vec<Vec<u8>> {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    let mut seen = Vec::new();
    let mut messages = Vec::new();
    for stream in body["streams"].as_array().expect("streams") {
        let labels = stream["stream"].as_object().expect("labels");
        assert!(labels.values().all(Value::is_string) && !labels.is_empty() && !seen.contains(&labels));
        seen.push(labels);
        let values = stream["values"].as_array().expect("values");
        assert!(!values.is_empty());
        for value in values {
            let [time, text, metadata] = value.as_array().expect("an entry").as_slice() else { panic!("{value}") };
            time.as_str().expect("a time").parse::<i64>().expect("nanoseconds");
            let metadata = metadata.as_object().expect("metadata");
            assert!(metadata.values().all(Value::is_string), "{value}");
            let escaped = metadata.get("escaped").and_then(Value::as_str).unwrap_or_default();
            let escaped = escaped.split(',').any(|key| key == "message");
            messages.push(message(text.as_str().expect("a line"), escaped));
        }
    }
    messages
}

/// The messages of an `ExportLogsServiceRequest`.
fn of_otlp(body: &[u8]) -> Vec<Vec<u8>> {
    let request = otlp_request(body);
    let logs = request.as_array().expect("an array");
    for (at, one) in logs.iter().enumerate() {
        assert!(logs[..at].iter().all(|other| other["resource"] != one["resource"]), "{request}");
    }
    let records = logs.iter().flat_map(|logs| logs["records"].as_array().expect("an array"));
    let body = |record: &Value| match &record["body"] {
        Value::String(text) => text.clone().into_bytes(),
        bytes => {
            bytes["bytes"].as_array().expect("bytes").iter().map(|byte| byte.as_u64().expect("a byte") as u8).collect()
        }
    };
    records.map(body).collect()
}

/// The messages of all PutLogEvents requests of these lines.
fn of_cloud_watch(cloud_watch: &CloudWatch, lines: &[Line<'_>]) -> Vec<Vec<u8>> {
    let requests = cloud_watch.arrange(lines);
    let mut places: Vec<_> = requests.iter().flatten().copied().collect();
    places.sort_unstable();
    assert!(places.into_iter().eq(0..lines.len()), "each line is in one request");
    let mut messages = Vec::new();
    for places in requests {
        let (mut body, mut counted, mut times) = (Vec::new(), 0, Vec::new());
        let lines: Vec<_> = places.iter().map(|place| &lines[*place]).map(copy).collect();
        cloud_watch.body(&lines, &mut body);
        let request: Value = serde_json::from_slice(&body).expect("JSON");
        for name in ["logGroupName", "logStreamName"] {
            let name = request[name].as_str().expect("a name");
            assert!((1..=512).contains(&name.len()) && !name.contains([':', '*']), "{name:?}");
        }
        for event in request["logEvents"].as_array().expect("events") {
            times.push(event["timestamp"].as_u64().expect("milliseconds"));
            let message = event["message"].as_str().expect("a text");
            counted += message.len() + 26;
            messages.extend(objects(format!("{message}\n").as_bytes()));
        }
        assert!(
            times.is_sorted() && times.last().zip(times.first()).is_none_or(|(last, first)| last - first <= 86_400_000)
        );
        assert!(counted <= body.len(), "{counted} bytes are counted, and the body has {}", body.len());
    }
    messages
}

fn copy<'a>(line: &Line<'a>) -> Line<'a> {
    Line { id: line.id, record: line.record.clone(), sent_at: line.sent_at }
}

fn message(said: &str, escaped: bool) -> Vec<u8> {
    if escaped { unescape(said) } else { said.as_bytes().to_vec() }
}

/// The text of a key, with escapes undone.
fn said(object: &Value, key: &str, escaped: &Value) -> Vec<u8> {
    let text = object[key].as_str().expect("a text");
    match escaped.as_array().is_some_and(|keys| keys.iter().any(|escaped| escaped == key)) {
        true => unescape(text),
        false => text.as_bytes().to_vec(),
    }
}

fn events(body: &[u8]) -> Vec<Vec<u8>> {
    let events = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let message = |event: Value| {
        let fields = event["fields"].as_object().expect("fields");
        assert!(fields.iter().all(|(name, value)| value.is_string() || name == "escaped"), "{event}");
        match event["event"].is_object() {
            true => said(&event["event"], "message", &Value::Null),
            false => said(&event, "event", &event["fields"]["escaped"]),
        }
    };
    events.map(|event| message(event.expect("JSON"))).collect()
}

fn entries(body: &[u8]) -> Vec<Vec<u8>> {
    let entries: Vec<Value> = serde_json::from_slice(body).expect("an array");
    entries.iter().map(|entry| said(entry, "message", &entry["escaped"])).collect()
}

fn logs(body: &[u8]) -> Vec<Vec<u8>> {
    let [all]: [Value; 1] = serde_json::from_slice(body).expect("an array of one");
    let logs = all["logs"].as_array().expect("logs");
    logs.iter().map(|log| said(log, "message", &log["attributes"]["escaped"])).collect()
}

fn objects(body: &[u8]) -> Vec<Vec<u8>> {
    assert!(body.last().is_none_or(|last| *last == b'\n'));
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    let objects = lines.map(|line| serde_json::from_slice::<Value>(line).expect("an object"));
    objects.map(|object| said(&object, "message", &object["escaped"])).collect()
}

/// Decodes an `ExportLogsServiceRequest` into JSON by its schema: `[{"resource":{…},"records":[{…}]}]`. Panics at a duplicate name, and at
/// fields outside the schema. Bytes are `{"bytes":[…]}`. The decoder shares no code with the encoder.
pub fn otlp_request(message: &[u8]) -> Value {
    let each = |(number, value): (u32, Wire<'_>)| match (number, value) {
        (1, Wire::Len(logs)) => resource_logs(logs),
        other => panic!("in a request: {other:?}"),
    };
    wire(message).into_iter().map(each).collect()
}

fn resource_logs(message: &[u8]) -> Value {
    let (mut resource, mut records) = (Map::new(), Vec::new());
    for field in wire(message) {
        match field {
            (1, Wire::Len(message)) => {
                for field in wire(message) {
                    let (1, Wire::Len(attribute)) = field else { panic!("in a resource: {field:?}") };
                    pair(attribute, &mut resource);
                }
            }
            (2, Wire::Len(scope_logs)) => {
                for field in wire(scope_logs) {
                    let (2, Wire::Len(record)) = field else { panic!("in ScopeLogs: {field:?}") };
                    records.push(log_record(record));
                }
            }
            other => panic!("in ResourceLogs: {other:?}"),
        }
    }
    assert!(!records.is_empty());
    json!({ "resource": resource, "records": records })
}

fn log_record(message: &[u8]) -> Value {
    let (mut record, mut attributes) = (Map::new(), Map::new());
    for field in wire(message) {
        let (key, value) = match field {
            (1, Wire::Fixed64(time)) => ("time", time.into()),
            (11, Wire::Fixed64(time)) => ("observed_time", time.into()),
            (2, Wire::Varint(number)) => ("severity_number", number.into()),
            (3, Wire::Len(text)) => ("severity_text", utf8(text).into()),
            (5, Wire::Len(any)) => ("body", any_value(any)),
            (7, Wire::Varint(count)) => ("dropped_attributes_count", count.into()),
            (6, Wire::Len(attribute)) => {
                pair(attribute, &mut attributes);
                continue;
            }
            other => panic!("in a LogRecord: {other:?}"),
        };
        assert_eq!(record.insert(key.to_owned(), value), None, "{key} is there twice");
    }
    record.insert("attributes".to_owned(), attributes.into());
    record.into()
}

fn pair(message: &[u8], into: &mut Map<String, Value>) {
    let [(1, Wire::Len(key)), (2, Wire::Len(value))] = wire(message)[..] else { panic!("in a KeyValue: {message:?}") };
    assert_eq!(into.insert(utf8(key).to_owned(), any_value(value)), None, "{} is there twice", utf8(key));
}

fn any_value(message: &[u8]) -> Value {
    match wire(message)[..] {
        [] => Value::Null,
        [(1, Wire::Len(text))] => utf8(text).into(),
        [(2, Wire::Varint(value @ 0..=1))] => (value == 1).into(),
        [(3, Wire::Varint(number))] => (number as i64).into(),
        [(4, Wire::Fixed64(bits))] => f64::from_bits(bits).into(),
        [(5, Wire::Len(array))] => {
            let each = |field: (u32, Wire<'_>)| match field {
                (1, Wire::Len(any)) => any_value(any),
                other => panic!("in an ArrayValue: {other:?}"),
            };
            wire(array).into_iter().map(each).collect()
        }
        [(6, Wire::Len(pairs))] => {
            let mut map = Map::new();
            for field in wire(pairs) {
                let (1, Wire::Len(one)) = field else { panic!("in a KeyValueList: {field:?}") };
                pair(one, &mut map);
            }
            map.into()
        }
        [(7, Wire::Len(bytes))] => json!({ "bytes": bytes }),
        ref other => panic!("in an AnyValue: {other:?}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Len(&'a [u8]),
}

fn wire(message: &[u8]) -> Vec<(u32, Wire<'_>)> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let value = match tag & 7 {
            0 => Wire::Varint(varint(&mut rest)),
            1 => {
                let (value, behind) = rest.split_first_chunk().expect("eight bytes");
                rest = behind;
                Wire::Fixed64(u64::from_le_bytes(*value))
            }
            2 => {
                let len = varint(&mut rest) as usize;
                let (value, behind) = rest.split_at(len);
                rest = behind;
                Wire::Len(value)
            }
            other => panic!("encoding {other}"),
        };
        fields.push(((tag >> 3) as u32, value));
    }
    fields
}

/// Reads a varint. Panics unless it has the shortest encoding.
fn varint(rest: &mut &[u8]) -> u64 {
    let len = rest.iter().position(|byte| *byte < 0x80).expect("the end of a varint") + 1;
    let (bytes, behind) = rest.split_at(len);
    *rest = behind;
    assert!(len == 1 || bytes[len - 1] != 0, "a varint with more bytes than it needs");
    bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a string of protobuf is UTF-8")
}

/// The body of a request for these lines.
#[cfg(test)]
pub(super) fn body_of(api: &Api, lines: &[&[u8]]) -> String {
    let mut body = Vec::new();
    api.body(&lines_of(lines, None), &mut body);
    String::from_utf8(body).expect("UTF-8")
}

/// Checks the verdict on an answer to a request of this many lines. `expected`: the start of the verdict's `Debug` text.
#[cfg(test)]
pub(super) fn verdicts(api: &Api, lines: usize, status: u16, body: &str, expected: &str) {
    let verdict = api.verdict(&Answer { status, retry_after: None, body: body.as_bytes() }, lines);
    assert!(format!("{verdict:?}").starts_with(expected), "{status} {body}: {verdict:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_lines() {
        let fields = [
            r#"[fields@32473 level="x" a.b="1" container_id="2" syslog.facility="3" a_b="4"]"#,
            r#"[json@32473 fields="{\"n\":1,\"a\":[1,{}\],\"a\":null,\"\":true,\"é\":1e300,\"w\":18446744073709551615,\"raw\":\"\\\\\\\\xff\"}" escaped="[\"raw\"\]"]"#,
            r#"[a@1 x="1" x="2"][a@1 y="\]"][docker@32473 id="12" image="r:5/i:1"]"#,
            r#"[logferry@32473 peer="::1" source="stderr" nanoseconds="789" fields-cut="3" cut="true"]"#,
        ];
        let long = "x".repeat(3000);
        let mut lines: Vec<Vec<u8>> = fields
            .iter()
            .map(|sd| format!("<30>1 2026-11-20T22:27:33.081562+05:30 h a p m {sd} \u{feff}text").into_bytes())
            .collect();
        lines.push(b"<30>1 1013-11-20T22:34:15Z h a - - - more nanoseconds ago than 64 bits have".to_vec());
        lines.push(b"<30>1 9999-12-31T23:59:59Z h a - - - and ahead".to_vec());
        lines.push(format!("<191>1 1960-01-01T00:00:00Z {long} {long} - - - ").into_bytes());
        lines.push(b"<0>1 - \xff \xfe \xfd \xfc [a@1 b=\"\xfb\"] \xfa\\".to_vec());
        any_lines(&lines.iter().map(Vec::as_slice).collect::<Vec<_>>());
        any_lines(&[]);
        any_lines(&[b"", b"", b"\0"]);
    }

    /// Parts of lines.
    const PARTS: [&[u8]; 18] = [
        b"<30>1 2026-11-20T22:27:33.081562Z ",
        b"host app 1 - ",
        b"host - - - ",
        b"[docker@32473 image=\"i:1\" name=\"n\" id=\"12\"]",
        b"[docker@32473 name=\"\xff\"]",
        b"[fields@32473 a=\"1\" a=\"2\" a.b=\"\\]\"]",
        b"[json@32473 fields=\"{\\\"n\\\":-1.5,\\\"b\\\":false,\\\"o\\\":{\\\"a\\\":1}}\"]",
        b"[logferry@32473 source=\"stdout\" nanoseconds=\"7\"]",
        b"[a@1 b=\"c\" b=\"\xfe\"]",
        b"- ",
        b" ",
        b"\n",
        b"\xef\xbb\xbf",
        b"\xff\\",
        "é\u{85}\u{2028}\"".as_bytes(),
        b"\0\x1b",
        b"[",
        b"x",
    ];

    /// Parts of answers.
    const ANSWERS: [&[u8]; 11] = [
        b"{\"partialSuccess\":{",
        b"\"rejectedLogRecords\":\"5\"",
        b"}",
        b"{\"items\":[",
        b"{\"create\":{\"status\":429}}",
        b",\"errors\":true",
        b"]",
        b"\x0a\x07\x08\x02\x12\x03",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08",
        b"why",
    ];

    /// The mark has the same name in all APIs, and no field of a line replaces it.
    #[test]
    fn what_was_cut_is_marked() {
        let line = |mark: &str| {
            format!("<14>1 2026-11-29T12:00:00Z h a - - [logferry@32473{mark}][fields@32473 truncated=\"no\"] start")
        };
        for api in apis() {
            let said = |mark: &str| {
                let (text, mut body) = (line(mark), Vec::new());
                api.body(&lines_of(&[text.as_bytes()], None), &mut body);
                let shown = if let Api::Otlp(_) = api {
                    otlp_request(&body).to_string()
                } else {
                    String::from_utf8_lossy(&body).into_owned()
                };
                shown.replace('\\', "")
            };
            let is_marked =
                |said: &str| ["\"truncated\":true", "\"truncated\":\"true\""].iter().any(|mark| said.contains(mark));
            let (cut, whole) = (said(" cut=\"true\""), said(" source=\"stdout\""));
            assert!(is_marked(&cut) && !is_marked(&whole), "{cut}\n{whole}");
        }
    }

    proptest! {
        #[test]
        fn lines(parts in proptest::collection::vec(0..PARTS.len(), 0..16)) {
            any_bytes(&parts.iter().flat_map(|part| PARTS[*part]).copied().collect::<Vec<_>>());
        }

        #[test]
        fn bytes(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            any_bytes(&data);
        }

        #[test]
        fn answers(status in 0..700_u16, body in proptest::collection::vec(any::<u8>(), 0..40)) {
            any_answer(status, &body, 3);
            any_answer(200, &body, 3);
        }

        #[test]
        fn answers_that_are_nearly_right(
            parts in proptest::collection::vec(0..ANSWERS.len(), 0..8),
        ) {
            let body = parts.iter().flat_map(|part| ANSWERS[*part]).copied().collect::<Vec<_>>();
            any_answer(200, &body, 3);
            any_answer(400, &body, 3);
        }

        #[test]
        fn no_number_of_an_event_is_too_large(
            status in prop_oneof![Just(200), Just(400)],
            code in 0u16..16,
            event in -2i64..6,
            lines in 1usize..5,
        ) {
            any_answer(status, format!("{{\"code\":{code},\"invalid-event-number\":{event}}}").as_bytes(), lines);
        }
    }
}
