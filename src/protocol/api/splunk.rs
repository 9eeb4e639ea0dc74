//! Splunk's HTTP Event Collector, HEC: events, one JSON object behind the other
//! (<https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/format-events-for-http-event-collector>).
//!
//! ```text
//! {"time":1795898247.123456,"host":"…","source":"web-1","event":"…","fields":{"container_name":"web-1",…,"logferry_id":"SPOOL-SESSION-NUMBER"}}
//! ```
//!
//! Without `index` or `sourcetype` the token's own values apply. `logferry_id` identifies duplicates: Splunk stores every line that is sent
//! again. Code 0 in an answer means that Splunk has read the events; they may still be in its queues.
//!
//! If the token has indexer acknowledgement, the answer has an `ackId`. `/services/collector/ack` reports whether an indexer has stored the
//! request: `{"acks":{"0":true}}`. It reports `true` only once. Requests and acknowledgements belong to a channel, a GUID
//! (<https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/about-http-event-collector-indexer-acknowledgment>).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::names::with_own_names;
use super::object::Object;
use super::{Answer, Head, Limits, Line, ORIGINAL_TIME, TRUNCATED, Verdict, service};
use crate::record::time::StampWriter;
use crate::record::{FACILITIES, SEVERITIES, UnixMicros};

/// Splunk Cloud accepts 1 MB in a request ("HEC and ... limits", Splunk Cloud Platform Service Details). Splunk Enterprise accepts more
/// (`max_content_length` in limits.conf, 800 MB). So a single line is always sent, and the server reports whether it is too long.
pub const LIMITS: Limits = Limits { lines: usize::MAX, bytes: 1_000_000, line: usize::MAX };

/// The fields that are not the line's own. A field of a line with one of these names is renamed.
const OURS: [&str; 17] = [
    "image",
    "container_name",
    "container_id",
    "severity",
    "facility",
    "app",
    "procid",
    "msgid",
    "logferry_id",
    ORIGINAL_TIME,
    TRUNCATED,
    "escaped",
    // Splunk's own fields.
    "time",
    "host",
    "source",
    "sourcetype",
    "index",
];

/// The header with the channel.
pub const CHANNEL: &str = "x-splunk-request-channel";

/// Whether indexers acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// If the token has indexer acknowledgement.
    Auto,
    /// Required: without an acknowledgement no line counts as delivered.
    On,
    Off,
}

#[derive(Clone)]
pub struct Splunk {
    /// `None`: the token's.
    pub index: Option<String>,
    /// `None`: the token's.
    pub sourcetype: Option<String>,
    /// The spool's ID, which makes the lines' numbers unique.
    pub spool: String,
    /// Fields of each line.
    pub fields: Vec<(String, String)>,
    pub ack: Ack,
}

/// HEC's answer to a query for acknowledgements.
#[derive(Deserialize)]
struct Acks {
    acks: BTreeMap<u64, bool>,
}

/// HEC's answer to a request.
#[derive(Deserialize)]
struct Said {
    code: u16,
    #[serde(rename = "invalid-event-number")]
    event: Option<usize>,
    #[serde(rename = "ackId")]
    ack: Option<u64>,
}

impl Splunk {
    pub fn head(&self) -> Head {
        Head { path: "/services/collector/event", content_type: "application/json" }
    }

    /// Appends a request for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        let (mut stamps, mut seconds) = (StampWriter::default(), Vec::new());
        for line in lines {
            let record = &line.record;
            let mut event = Object::begin(out);
            if let Some(time) = line.time() {
                seconds.clear();
                push_seconds(time, &mut seconds);
                event.json("time", &seconds);
            }
            event.bytes("host", record.hostname.map(|host| host.said()));
            event.bytes("source", service(record));
            for (key, value) in [("sourcetype", &self.sourcetype), ("index", &self.index)] {
                if let Some(value) = value {
                    event.text(key, value);
                }
            }
            match record.text() {
                // HEC refuses a blank text, but accepts an object that contains one.
                text if text.trim_ascii().is_empty() => {
                    event.object("event", |object| object.bytes("message", Some(text)));
                }
                text => event.bytes("event", Some(text)),
            }
            event.object("fields", |fields| self.fields(line, &mut stamps, fields));
            event.end();
        }
    }

    /// All values are texts: HEC refuses objects.
    fn fields(&self, line: &Line<'_>, stamps: &mut StampWriter, fields: &mut Object<'_>) {
        let record = &line.record;
        fields.bytes("image", record.image_name());
        fields.bytes("container_name", record.container_name());
        fields.bytes("container_id", record.container_id());
        fields.text("severity", SEVERITIES[usize::from(record.severity)]);
        fields.text("facility", FACILITIES[usize::from(record.facility)]);
        for (key, value) in [("app", record.app_name), ("procid", record.proc_id), ("msgid", record.msg_id)] {
            fields.bytes(key, value.map(|value| value.said()));
        }
        let is_ours = |name: &str| OURS.contains(&name) || self.fields.iter().any(|(ours, _)| ours == name);
        for (name, value) in with_own_names(&record.fields.flattened(), |name| name.into(), is_ours) {
            fields.value(&name, value, false);
        }
        self.fields.iter().for_each(|(name, value)| fields.text(name, value));
        if let Some(original) = line.original_time() {
            fields.stamp(ORIGINAL_TIME, original, stamps);
        }
        if record.cut {
            fields.text(TRUNCATED, "true");
        }
        fields.id("logferry_id", line.id, &self.spool);
        fields.tell_escaped();
    }
}

impl Splunk {
    /// The ID under which an indexer will acknowledge the request of this answer; `None`: no indexer will.
    pub fn ack_id(&self, answer: &Answer<'_>) -> Option<u64> {
        let said = || serde_json::from_slice::<Said>(answer.body).ok();
        if self.ack == Ack::Off { None } else { said()?.ack }
    }

    /// The verdict on the answer to a request of this many lines.
    pub fn verdict(&self, answer: &Answer<'_>, lines: usize) -> Verdict {
        match verdict(answer, lines) {
            Verdict::Delivered if self.ack == Ack::On && self.ack_id(answer).is_none() => Verdict::Stop(format!(
                "the token has no indexer acknowledgement; turn it on there (useACK), or write ack = \"auto\": {}",
                answer.words()
            )),
            verdict => verdict,
        }
    }
}

/// The body of a query for acknowledgements.
pub fn ask_for(ids: &[u64]) -> Vec<u8> {
    let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
    format!("{{\"acks\":[{}]}}", ids.join(",")).into_bytes()
}

/// The acknowledged IDs. `Err`: the verdict on an answer without acknowledgements.
pub fn acknowledged(answer: &Answer<'_>) -> Result<Vec<u64>, Verdict> {
    match (answer.status, serde_json::from_slice::<Acks>(answer.body)) {
        (200..=299, Ok(Acks { acks })) => {
            Ok(acks.into_iter().filter(|(_, is_there)| *is_there).map(|(id, _)| id).collect())
        }
        (200..=299, Err(_)) => Err(Verdict::Stop(format!("this is no answer of HEC: {}", answer.words()))),
        // 14: the token's acknowledgement was turned off.
        (400, _) => Err(Verdict::Stop(answer.words())),
        _ => Err(answer.verdict()),
    }
}

/// The verdict on an answer, without acknowledgements. The codes are those of
/// <https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/troubleshoot-http-event-collector>.
fn verdict(answer: &Answer<'_>, lines: usize) -> Verdict {
    let said = serde_json::from_slice::<Said>(answer.body).ok();
    match (answer.status, said) {
        (200..=299, Some(Said { code: 0, .. })) => Verdict::Delivered,
        (200..=299, _) => Verdict::Stop(format!("this is no answer of HEC: {}", answer.words())),
        (400, Some(Said { code: 10, .. })) => Verdict::Stop(format!(
            "the token has indexer acknowledgement on; write ack = \"auto\": {}",
            answer.words(),
        )),
        // No data, malformed JSON, no event, a blank event, malformed fields.
        (400, Some(Said { code: 5 | 6 | 12 | 13 | 15, event, .. })) => match event {
            Some(place) if place < lines => Verdict::RefusedAt { place, why: answer.words() },
            _ => Verdict::Refused(answer.words()),
        },
        // The error concerns all lines: 7 is the index, which all of them share; 11 and 14 concern acknowledgement; 16, 21 and 22 the
        // token.
        (400, Some(_)) => Verdict::Stop(answer.words()),
        _ => answer.verdict(),
    }
}

/// Appends a time in HEC's form, seconds with a fraction.
fn push_seconds(time: UnixMicros, out: &mut Vec<u8>) {
    if time.0 < 0 {
        out.push(b'-');
    }
    let (seconds, micros) = (time.0.unsigned_abs() / 1_000_000, time.0.unsigned_abs() % 1_000_000);
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(seconds).as_bytes());
    out.push(b'.');
    // Keeps leading zeros.
    out.extend_from_slice(&digits.format(1_000_000 + micros).as_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::super::Api;
    use super::super::properties::{body_of, verdicts};
    use super::*;

    fn api(index: Option<&str>) -> Api {
        let text = |text: &str| text.to_owned();
        Api::Splunk(Splunk {
            index: index.map(text),
            sourcetype: index.map(|_| text("docker")),
            spool: text("5b00"),
            fields: index.iter().map(|_| (text("env"), text("prod"))).collect(),
            ack: Ack::Auto,
        })
    }

    #[test]
    fn acknowledgements_are_asked_for_and_read() {
        let of = |status, body: &'static str| Answer { status, retry_after: None, body: body.as_bytes() };
        assert_eq!(ask_for(&[0, 12]), br#"{"acks":[0,12]}"#);
        assert_eq!(acknowledged(&of(200, r#"{"acks":{"0":true,"1":false,"12":true}}"#)), Ok(vec![0, 12]));
        assert_eq!(acknowledged(&of(200, r#"{"acks":{}}"#)), Ok(vec![]));
        for (status, body) in
            [(200, "<html>"), (200, r#"{"acks":{"x":true}}"#), (400, r#"{"text":"ACK is disabled","code":14}"#)]
        {
            assert!(matches!(acknowledged(&of(status, body)), Err(Verdict::Stop(_))), "{body}");
        }
        assert!(matches!(acknowledged(&of(503, "")), Err(Verdict::Again { .. })));
    }

    #[test]
    fn who_wants_acknowledgements_takes_nothing_else() {
        let Api::Splunk(auto) = api(None) else { unreachable!() };
        let with = |ack| Splunk { ack, ..auto.clone() };
        let of = |body: &'static str| Answer { status: 200, retry_after: None, body: body.as_bytes() };
        let (acked, plain) = (of(r#"{"text":"Success","code":0,"ackId":7}"#), of(r#"{"text":"Success","code":0}"#));
        for (ack, id) in [(Ack::Auto, Some(7)), (Ack::On, Some(7)), (Ack::Off, None)] {
            assert_eq!((with(ack).ack_id(&acked), with(ack).ack_id(&plain)), (id, None));
            assert_eq!(with(ack).verdict(&acked, 1), Verdict::Delivered);
        }
        assert_eq!(with(Ack::Auto).verdict(&plain, 1), Verdict::Delivered);
        assert_eq!(with(Ack::Off).verdict(&plain, 1), Verdict::Delivered);
        assert!(matches!(with(Ack::On).verdict(&plain, 1), Verdict::Stop(why) if why.contains("useACK")));
    }

    #[test]
    fn each_line_is_an_event() {
        let line: &[u8] = b"<30>1 2026-11-20T22:28:47.000456Z node-1 web 123 - [docker@32473 image=\"r:5000/web:1.2\" name=\"web-1\" \
            id=\"0123456789ab\"][fields@32473 app=\"x\" env=\"dev\" user=\"ann\"] GET / 200";
        let bare: &[u8] = b"<13>1 - - - - - - \t";
        assert_eq!(
            body_of(&api(Some("main")), &[line]),
            "{\"time\":1795213727.000456,\"host\":\"node-1\",\"source\":\"web-1\",\"sourcetype\":\"docker\",\"index\":\"main\",\
             \"event\":\"GET / 200\",\"fields\":{\"image\":\"r:5000/web:1.2\",\"container_name\":\"web-1\",\
             \"container_id\":\"0123456789ab\",\"severity\":\"info\",\"facility\":\"daemon\",\"app\":\"web\",\"procid\":\"123\",\
             \"app_\":\"x\",\"env_\":\"dev\",\"user\":\"ann\",\"env\":\"prod\",\"logferry_id\":\"5b00-7-100\"}}"
        );
        assert_eq!(
            body_of(&api(None), &[bare, b"<13>1 - - - - - - caf\xe9"]),
            "{\"event\":{\"message\":\"\\t\"},\"fields\":{\"severity\":\"notice\",\"facility\":\"user\",\"logferry_id\":\"5b00-7-100\"}}\
             {\"event\":\"caf\\\\xe9\",\"fields\":{\"severity\":\"notice\",\"facility\":\"user\",\"logferry_id\":\"5b00-7-101\",\
             \"escaped\":[\"event\"]}}"
        );
    }

    #[test]
    fn the_code_of_an_answer_says_what_to_do() {
        let check = |status: u16, body: &str, expected: &str| verdicts(&api(None), 3, status, body, expected);
        check(200, r#"{"text":"Success","code":0}"#, "Delivered");
        check(200, r#"{"text":"Success","code":0,"ackId":7}"#, "Delivered");
        check(403, r#"{"text":"Token disabled","code":1}"#, "Stop");
        check(401, r#"{"text":"Token is required","code":2}"#, "Stop");
        check(401, r#"{"text":"Invalid authorization","code":3}"#, "Stop");
        check(403, r#"{"text":"Invalid token","code":4}"#, "Stop");
        check(400, r#"{"text":"No data","code":5}"#, "Refused");
        check(400, r#"{"text":"No data","code":5,"invalid-event-number":1}"#, "RefusedAt { place: 1");
        check(400, r#"{"text":"Invalid data format","code":6,"invalid-event-number":2}"#, "RefusedAt { place: 2");
        check(400, r#"{"text":"Invalid data format","code":6,"invalid-event-number":3}"#, "Refused(");
        check(400, r#"{"text":"Incorrect index","code":7,"invalid-event-number":1}"#, "Stop");
        check(500, r#"{"text":"Internal server error","code":8}"#, "Again");
        check(503, r#"{"text":"Server is busy","code":9}"#, "Again");
        check(
            400,
            r#"{"text":"Data channel is missing","code":10}"#,
            "Stop(\"the token has indexer acknowledgement on",
        );
        check(400, r#"{"text":"Invalid data channel","code":11}"#, "Stop");
        check(400, r#"{"text":"Event field is required","code":12,"invalid-event-number":0}"#, "RefusedAt { place: 0");
        check(
            400,
            r#"{"text":"Event field cannot be blank","code":13,"invalid-event-number":0}"#,
            "RefusedAt { place: 0",
        );
        check(400, r#"{"text":"ACK is disabled","code":14}"#, "Stop");
        check(
            400,
            r#"{"text":"Error in handling indexed fields","code":15,"invalid-event-number":0}"#,
            "RefusedAt { place: 0",
        );
        check(400, r#"{"text":"Query string authorization is not enabled","code":16}"#, "Stop");
        check(503, r#"{"text":"HEC is unhealthy, queues are full","code":18}"#, "Again");
        check(503, r#"{"text":"Server is shutting down","code":23}"#, "Again");
        // Answers of proxies, and of servers that are no HEC.
        check(413, "<html>", "TooLarge(");
        check(429, "", "Again");
        check(400, "<html>", "Refused(");
        check(404, r#"{"text":"The requested URL was not found on this server.","code":404}"#, "Stop");
        check(200, "<html>", "Stop(\"this is no answer of HEC");
        check(200, r#"{"text":"HEC is healthy","code":17}"#, "Stop");
    }

    #[test]
    fn times_are_seconds_with_a_fraction() {
        for (micros, expected) in
            [(0, "0.000000"), (1_795_898_247_000_042, "1795898247.000042"), (-1_500_000, "-1.500000")]
        {
            let mut out = Vec::new();
            push_seconds(UnixMicros(micros), &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
