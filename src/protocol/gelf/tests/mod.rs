//! `session`: a connection; `datagrams`: the UDP transport. Here: messages of Docker's driver and of Fluent Bit from
//! `tests/corpus-drivers`, and messages that other senders may write.

mod datagrams;
mod session;

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::properties::any_message;
use super::*;
use crate::protocol::tests as corpus;
use crate::record::properties::chosen_line;
use crate::record::{Record, Source, Stamp, UnixMicros, Value};

const RECEIVED: UnixMicros = UnixMicros(1_796_000_000_000_000);
const MAX: usize = 1 << 20;

/// A row of `index.tsv`: its columns by name, and the bytes on the wire.
struct Row {
    columns: corpus::Row,
    bytes: Vec<u8>,
}

impl Row {
    fn of(&self, column: &str) -> &str {
        &self.columns[column]
    }

    /// `None`: the row has no value.
    fn expected(&self, column: &str) -> Option<Vec<u8>> {
        corpus::unescape(self.of(column))
    }
}

/// The rows for GELF.
fn rows() -> Vec<Row> {
    let is_wanted = |row: &corpus::Row| row["file"].starts_with("gelf-") || row["file"].starts_with("fluentbit-gelf-");
    let row = |columns: corpus::Row| {
        let bytes = corpus::sent(&columns, &corpus::file(&columns["file"])).to_vec();
        Row { bytes, columns }
    };
    corpus::rows(163, is_wanted).into_iter().map(row).collect()
}

/// The JSON of a row, without the transport.
fn json(row: &Row) -> Vec<u8> {
    let mut found = Vec::new();
    if row.of("transport") == "tcp" {
        let mut framer = GelfFramer::new(MAX);
        framer.feed(&row.bytes, &mut |message| found.push(message.expect("a message").to_vec()));
        framer.closed(&mut |_| panic!("something behind the message"));
    } else {
        let mut chunks = Chunks::new(ChunkLimits { messages: 8, bytes: MAX });
        let (from, now) = ("192.0.2.7:40000".parse().expect("an address"), Instant::now());
        let mut rest = &row.bytes[..];
        for len in row.of("datagrams").split(',') {
            let (datagram, behind) = rest.split_at(len.parse().expect("a length"));
            rest = behind;
            let whole = match Chunks::is_chunk(datagram) {
                true => chunks.take(from, datagram, now).expect("a chunk"),
                false => Some(datagram.to_vec()),
            };
            found.extend(whole.map(|sent| Payloads::default().read(&sent, MAX).expect("a payload").into_owned()));
        }
        assert_eq!((chunks.bytes(), rest.len()), (0, 0));
    }
    assert_eq!(found.len(), 1, "{}", row.of("file"));
    found.remove(0)
}

#[test]
fn each_row_of_the_corpus_is_read_as_it_says() {
    for row in rows() {
        let json = json(&row);
        let shown = format!("{} at {}: {}", row.of("file"), row.of("offset"), json.escape_ascii());
        let message = Message::read(&json).unwrap_or_else(|why| panic!("{why}: {shown}"));
        let record = message.record(RECEIVED);
        let is_docker_s = row.of("driver") == "gelf";
        assert_eq!(record.message, row.expected("exp_message").as_deref(), "{shown}");
        assert_eq!(record.time(), Some(micros(row.of("exp_time"))), "{shown}");
        assert_eq!(record.tag.as_deref(), row.expected("exp_tag").as_deref(), "{shown}");
        let source = record.source.map(|source| source.as_str().as_bytes());
        assert_eq!(source, row.expected("exp_source").as_deref(), "{shown}");
        assert_eq!(record.image_name(), row.expected("exp_image").as_deref(), "{shown}");
        assert_eq!(record.container_name(), row.expected("exp_name").as_deref(), "{shown}");
        assert_eq!(record.container_id(), row.expected("exp_id").as_deref(), "{shown}");
        assert_eq!(record.driver.as_deref(), Some(&b"gelf"[..]));
        let mut extra: BTreeMap<String, Json> = serde_json::from_str(row.of("exp_extra")).expect("JSON");
        let host = extra.remove("host").unwrap_or("docker-host-1".into());
        assert_eq!(record.hostname.map(|host| host.said()), host.as_str().map(str::as_bytes), "{shown}");
        let level = extra.remove("level");
        let severity = if record.source == Some(Source::Stdout) { 6 } else { 3 };
        assert_eq!((record.facility, record.severity), (if is_docker_s { 3 } else { 1 }, severity), "{shown}");
        assert!(level.is_none_or(|level| level == severity));
        let fields: BTreeMap<_, _> =
            record.fields.iter().map(|field| (format!("_{}", field.name), typed(&field.value))).collect();
        let dropped = record.fields.left_out() as usize;
        let expected: BTreeMap<_, _> = extra
            .iter()
            .map(|(name, value)| (format!("_{}", name.strip_prefix('_').unwrap_or(name)), value.clone()))
            .collect();
        assert_eq!(fields.len() + dropped, expected.len(), "{shown}");
        fields.iter().for_each(|(name, value)| assert_eq!(Some(value), expected.get(name), "{name}: {shown}"));
        any_message(&json);
    }
}

fn typed(value: &Value<'_>) -> Json {
    match value {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        Value::Json(json) => serde_json::from_str(json.as_str()).expect("JSON"),
    }
}

fn micros(text: &str) -> UnixMicros {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    UnixMicros(format!("{seconds}{fraction:0<6}").parse().expect("a number"))
}

/// Cuts the shortest connection at every pair of places, and the others at some pairs.
#[test]
fn connections_of_the_corpus_are_the_same_however_they_are_cut() {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for row in rows().iter().filter(|row| row.of("transport") == "tcp") {
        files.entry(row.of("file").to_owned()).or_default().extend(&row.bytes);
    }
    let shortest = files.values().map(Vec::len).min().expect("connections");
    let (mut pairs, mut messages) = (0, 0);
    for (file, stream) in files {
        let whole = properties::found(&stream, &[], MAX);
        messages += whole.iter().flatten().count();
        let step = if stream.len() == shortest { 1 } else { 1 + stream.len() / 12 };
        let places: Vec<_> = (0..=stream.len()).step_by(step).chain([stream.len()]).collect();
        for (nth, first) in places.iter().enumerate() {
            for second in &places[nth..] {
                pairs += 1;
                assert_eq!(properties::found(&stream, &[*first, *second], MAX), whole, "{file} at {first}, {second}");
            }
        }
    }
    assert!(messages > 50 && pairs > shortest * shortest / 2, "{messages} messages, {pairs} pairs");
}

#[track_caller]
fn check<'a>(json: &'a str, expected: impl FnOnce(&Record<'_>)) {
    any_message(json.as_bytes());
    let message: Message<'a> = Message::read(json.as_bytes()).unwrap_or_else(|why| panic!("{why}: {json}"));
    expected(&message.record(RECEIVED));
}

fn fields(record: &Record<'_>) -> String {
    let shown = |value: &Value<'_>| match value {
        Value::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Value::Json(json) => json.as_str().to_owned(),
    };
    record.fields.iter().map(|field| format!("{}={} ", field.name, shown(&field.value))).collect()
}

#[test]
fn anybody_s_message_says_what_it_says() {
    check(r#"{"short_message":"hello"}"#, |record| {
        assert_eq!(record.message, Some(&b"hello"[..]));
        assert_eq!((record.facility, record.severity, record.hostname), (1, 5, None));
        assert_eq!((&record.timestamp, &record.container), (&Some(Stamp::Received(RECEIVED)), &None));
    });
    let text = r#" {"version":"1.1","host":"wéb 1","short_message":"a","full_message":"a\nb","level":"2","facility":"app",
        "line":12,"file":"a.c","timestamp":"1795898357.5","_a":1.10,"_b":true,"_c":null,"_d":{"e" : [1,"\u0041"]},"__f":"g"}"#;
    check(text, |record| {
        assert_eq!((record.severity, record.time()), (2, Some(UnixMicros(1_795_898_357_500_000))));
        assert_eq!(record.hostname.map(|host| host.written().into_owned()), Some(b"w__b_1".to_vec()));
        assert_eq!(record.original_host.as_deref(), Some("wéb 1".as_bytes()));
        let expected = r#"full_message="a\nb" facility="app" line=12 file="a.c" a=1.10 b=true c=null d={"e":[1,"\u0041"]} _f="g" "#;
        assert_eq!(fields(record), expected);
    });
}

#[test]
fn what_is_not_what_it_should_be_is_kept() {
    check(r#"{"short_message":"","level":9,"host":7,"timestamp":"yesterday"}"#, |record| {
        assert_eq!((record.message, record.severity, fields(record).as_str()), (None, 5, "level=9 host=7 "));
        assert_eq!(record.unread_stamp.as_deref(), Some(&b"yesterday"[..]));
    });
    // Of two members, the last one counts, and both of two fields are kept. Half of a surrogate pair is not a character.
    check(r#"{"short_message":"a","_x":1,"level":3,"_x":"2","level":4,"short_message":"\ud800b\ufffd"}"#, |record| {
        assert_eq!(record.message, Some("\u{fffd}\u{fffd}\u{fffd}b\u{fffd}".as_bytes()));
        assert_eq!((record.severity, fields(record).as_str()), (4, "short_message=\"a\" x=1 level=3 x=\"2\" "));
    });
}

#[test]
fn docker_s_driver_is_known_by_its_four_fields() {
    let id = "2a9052a5c36e".repeat(6)[..64].to_owned();
    let text = |id: &str| {
        format!(
            r#"{{"short_message":"a","level":3,"_container_id":"{id}","_container_name":"web","_image_name":"nginx","_tag":"t","_k":"v"}}"#
        )
    };
    check(&text(&id), |record| {
        assert_eq!((record.facility, record.source, fields(record).as_str()), (3, Some(Source::Stderr), "k=\"v\" "));
        assert_eq!((record.container_id(), record.container_name()), (Some(id.as_bytes()), Some(&b"web"[..])));
        assert_eq!(record.app_name.map(|name| name.said()), Some(&b"web"[..]));
        assert_eq!(record.proc_id.map(|id| id.said()), Some(id.as_bytes()));
    });
    // A label may put any text in the place of the ID.
    check(&text("forged"), |record| {
        assert_eq!((record.container_id(), record.container_name()), (None, Some(&b"web"[..])));
    });
    check(&text(&id).replace("_tag", "_tog"), |record| {
        assert_eq!((record.facility, record.source, &record.container), (1, None, &None));
    });
}

#[test]
fn what_is_no_message_is_refused_by_name() {
    let check = |json: &[u8], expected: Refused| {
        any_message(json);
        assert_eq!(Message::read(json), Err(expected), "{}", json[..json.len().min(200)].escape_ascii());
    };
    for none in [
        "",
        "hello",
        "{",
        "{\"a\"}",
        "{\"a\":1}}",
        "{\"short_message\":\"a\nb\"}",
        "GET / HTTP/1.1\r",
        "{\"short_message\":\"a\"} {}",
    ] {
        check(none.as_bytes(), Refused::NotJson);
    }
    ["[]", "1", "\"text\"", "null"].into_iter().for_each(|none| check(none.as_bytes(), Refused::NoObject));
    check(b"{\"short_message\":\"\xff\"}", Refused::NotUtf8);
    check(b"{}", Refused::NoShortMessage);
    check(br#"{"short_message":1}"#, Refused::NoShortMessage);
    let deep = |depth: usize| format!("{{\"short_message\":\"a\",\"_d\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    check(deep(MAX_DEPTH).as_bytes(), Refused::TooDeep);
    check(deep(100_000).as_bytes(), Refused::TooDeep);
    assert!(Message::read(deep(MAX_DEPTH - 1).as_bytes()).is_ok());
    let keys = |count: usize| {
        let keys: String = (1..count).map(|n| format!(",\"_{n}\":{n}")).collect();
        format!("{{\"short_message\":\"a\"{keys}}}")
    };
    check(keys(10_000).as_bytes(), Refused::TooManyKeys);
    let most = keys(MAX_KEYS);
    let message = Message::read(most.as_bytes()).expect("as many as may be");
    assert_eq!(message.record(RECEIVED).fields.left_out() as usize, MAX_KEYS - 1 - 64);
}

#[test]
fn a_payload_is_known_by_its_first_bytes() {
    let mut payloads = Payloads::default();
    assert_eq!(payloads.read(b"{}", 2).as_deref(), Ok(&b"{}"[..]));
    assert_eq!(payloads.read(b"{} ", 2), Err(Refused::TooLong));
    assert_eq!(payloads.read(b"\x1f\x8b\x08", MAX), Err(Refused::BadGzip));
    assert_eq!(payloads.read(b"\x78\x9c", MAX), Err(Refused::BadZlib));
    // This is not zlib: the check bits are wrong.
    assert_eq!(payloads.read(b"\x78\x9d", MAX).as_deref(), Ok(&b"\x78\x9d"[..]));
}

#[test]
fn a_bomb_is_refused_within_the_limit() {
    for (zeros, chunked) in [(1_400_000, false), (10_000_000, true)] {
        let mut out = Vec::with_capacity(zeros / 900);
        let mut state = flate2::Compress::new(flate2::Compression::best(), true);
        let status = state.compress_vec(&vec![0; zeros], &mut out, flate2::FlushCompress::Finish);
        assert!(matches!(status, Ok(flate2::Status::StreamEnd)));
        let mut sent = out.clone();
        if chunked {
            let mut chunks = Chunks::new(ChunkLimits { messages: 8, bytes: MAX });
            let count = out.len().div_ceil(1408) as u8;
            let chunk =
                |(number, data): (usize, &[u8])| [b"\x1e\x0f12345678", &[number as u8, count][..], data].concat();
            let from = "192.0.2.7:40000".parse().expect("an address");
            let whole = out.chunks(1408).enumerate().map(chunk);
            sent = whole
                .filter_map(|datagram| chunks.take(from, &datagram, Instant::now()).expect("a chunk"))
                .next()
                .expect("all");
        }
        assert_eq!(Payloads::default().read(&sent, MAX), Err(Refused::TooLong));
    }
}

proptest! {
    #[test]
    fn lines_come_back_as_they_were(chosen in vec(any::<u8>(), 0..400)) {
        properties::any_line(&chosen_line(&chosen, "docker@32473"), Instant::now());
        properties::any_line(&chosen, Instant::now());
    }

    /// The input of the fuzz target, with likely bytes.
    #[test]
    fn whatever_comes_stays_within_the_limits_and_comes_back(
        head in any::<[u8; 4]>(),
        tail in vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]:,\"\\\n\0 _1e.a"[..])], 0..200),
    ) {
        properties::any_bytes(&[&head[..], &tail].concat(), Instant::now());
    }

    #[test]
    fn whatever_a_message_says_comes_back(
        name in "\\PC{0,8}", text in "\\PC{0,20}", number in "-?[1-9][0-9]{0,20}(\\.[0-9]{1,9})?(e[0-9])?", level in 0..10u8,
    ) {
        let [name, text] = [format!("_{name}"), text].map(|text| Json::from(text).to_string());
        let json = format!("{{\"short_message\":{text},\"host\":{text},\"timestamp\":{number},\"level\":{level},{name}:{number}}}");
        prop_assert!(Message::read(json.as_bytes()).is_ok(), "{}", json);
        any_message(json.as_bytes());
    }
}
