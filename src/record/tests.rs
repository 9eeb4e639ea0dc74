//! Records as lines and back, one feature after the other. Properties of all records are in `properties`.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn options() -> LineOptions {
    LineOptions { sd_id: "docker@32473".to_owned(), peer: true }
}

fn line_of(record: &Record<'_>) -> String {
    properties::any_record(record, &options());
    let mut out = Vec::new();
    record.write_line(&options(), &mut out);
    String::from_utf8(out).expect("text")
}

fn text(text: &str) -> Option<Cow<'_, [u8]>> {
    Some(text.as_bytes().into())
}

/// A record with every part. Only a driver of Docker's other than syslog can fill all of them.
fn full() -> Record<'static> {
    let mut record = Record {
        timestamp: Some(Stamp::Text(b"2026-11-20T22:28:47.123456Z"[..].into())),
        nanoseconds: 789,
        hostname: HeaderField::verbatim(b"node-7"),
        app_name: HeaderField::verbatim(b"web"),
        proc_id: HeaderField::verbatim(b"2a9052a5c36e"),
        container: Some(Container { image: text("nginx:1.25"), name: text("web"), id: text("2a9052a5c36e") }),
        tag: text("docker.web"),
        driver: text("fluentd"),
        source: Some(Source::Stderr),
        listener: text("fluent"),
        peer: Some("192.0.2.7".parse().expect("an address")),
        hop: text("node-7/1"),
        original_host: text("nöde-7"),
        msghdr: text("web "),
        message: Some(b"hello"),
        cut: true,
        ..Record::new(27)
    };
    for (name, json) in [("com.docker.compose.project", r#""shop""#), ("retries", "3"), ("user", r#"{"id": 7}"#)] {
        record.fields.push(name, Value::from_json(json).expect("JSON"));
    }
    record.fields.leave_out(2);
    record
}

#[test]
fn a_line_has_all_that_the_record_has() {
    let expected = String::new()
        + "<27>1 2026-11-20T22:28:47.123456Z node-7 web 2a9052a5c36e - "
        + r#"[docker@32473 image="nginx:1.25" name="web" id="2a9052a5c36e"]"#
        + r#"[fields@32473 com.docker.compose.project="shop"]"#
        + r#"[json@32473 fields="{\"retries\":3,\"user\":{\"id\":7}}"]"#
        + r#"[logferry@32473 cut="true" listener="fluent" peer="192.0.2.7" host="nöde-7" driver="fluentd" source="stderr" tag="docker.web""#
        + r#" msghdr="web " nanoseconds="789" hop="node-7/1" fields-cut="2"] hello"#;
    assert_eq!(line_of(&full()), expected);
}

#[test]
fn what_is_the_default_is_not_written() {
    let plain = Record { message: Some(b"hello"), ..Record::new(13) };
    assert_eq!(line_of(&plain), "<13>1 - - - - - - hello");
}

#[test]
fn what_a_sender_sent_stays_as_long_as_it_is_true() {
    let check = |sent: &'static str, change: fn(&mut Record<'_>), expected: &str| {
        let line = format!("<13>1 2026-11-20T22:28:47Z h a - - {sent} x").into_bytes();
        let mut record = Record::from_line(&line, "docker@32473");
        change(&mut record);
        assert_eq!(line_of(&record), format!("<13>1 2026-11-20T22:28:47Z h a - - {expected} x"));
    };
    // The order, the spelling and further params do not matter.
    for sent in [
        "[b][docker@32473 id=\"1\" name=\"w\" more=\"x\"][c d=\"e\"]",
        "[logferry@32473 stream=\"log\" cut=\"yes\" nanoseconds=\"many\"][b]",
        "[json@32473 fields=\"{ \\\"a\\\" : 1.0, \\\"a\\\": 2 }\"][fields@32473 a=\"\n\"]",
        "[json@32473 fields=\"no object\"][docker@32473]",
        "[logferry@32473 listener=\"a\" listener=\"b\"][logferry@32473 listener=\"c\"]",
    ] {
        check(sent, |_| {}, sent);
    }
    check("[docker@32473 name=\"w\"][b]", |record| record.container = None, "[b]");
    check("[docker@32473 name=\"w\"]", |record| record.container = None, "-");
    check("[b]", |record| record.listener = Some(b"dmz"[..].into()), "[b][logferry@32473 listener=\"dmz\"]");
    check(
        "[logferry@32473 listener=\"a\" stream=\"log\" listener=\"b\"][b]",
        |record| record.listener = Some(b"dmz"[..].into()),
        "[b][logferry@32473 stream=\"log\" listener=\"dmz\"]",
    );
    check("[b][fields@32473 a=\"1\"]", |record| record.fields = Fields::default(), "[b]");
    check(
        "[fields@32473 a=\"1\"][b]",
        |record| record.fields.push("n", Value::from_json("2").expect("JSON")),
        "[fields@32473 a=\"1\"][json@32473 fields=\"{\\\"n\\\":2}\"][b]",
    );
}

#[test]
fn fields_have_their_types_in_json() {
    let line = line_of(&full());
    let mut out = Vec::new();
    render(line.as_bytes(), Format::Json, "docker@32473", &mut out);
    let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    let expected = serde_json::json!({"com.docker.compose.project": "shop", "retries": 3, "user": {"id": 7}});
    assert_eq!(json["fields"], expected);
    let elements: Vec<_> = json["structured_data"].as_object().expect("elements").keys().collect();
    assert_eq!(elements, ["logferry@32473"]);
    let mut record = full();
    record.fields.push("retries", Value::Text(b"\xff"[..].into()));
    out.clear();
    let mut line = Vec::new();
    record.write_line(&options(), &mut line);
    render(&line, Format::Json, "docker@32473", &mut out);
    let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(json["fields"]["retries"], serde_json::json!([3, "\\xff"]));
    assert_eq!(json["escaped"], serde_json::json!(["fields"]));
}

const ELEMENTS: [&[u8]; 8] = [
    b"[docker@32473 name=\"w\"]",
    b"[docker@32473 tag=\"t u\"]",
    b"[fields@32473 a=\"1\" b=\"\n\"]",
    b"[json@32473 fields=\"{\\\"n\\\":1.50,\\\"n\\\":\\\"x\\\"}\"]",
    b"[json@32473 fields=\"{\\\"r\\\":\\\"\\\\\\\\xff\\\"}\" escaped=\"[\\\"r\\\"\\]\"]",
    b"[logferry@32473 cut=\"true\" peer=\"::1\" source=\"stdout\"]",
    b"[logferry@32473 nanoseconds=\"7\" fields-cut=\"x\" hop=\"\" listener=\"l\"]",
    b"[b c=\"d\"]",
];

/// Puts the length in front of the bytes, as a choice of bytes needs it.
fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(255);
    bytes.insert(0, bytes.len() as u8);
    bytes
}

/// Elements and pieces of values in random order, which get further than random bytes.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let bits: [&[u8]; 6] = [b"\n", b"\xff", b"1.5", b"{\"a\":[true,null]}", b"\"text\"", b"a b"];
    let bit = prop_oneof![
        3 => proptest::sample::select(bits.to_vec()).prop_map(|bit| with_length(bit.to_vec())),
        2 => vec(any::<u8>(), 0..6),
        1 => vec(any::<u8>(), 0..60).prop_map(with_length),
    ];
    let pieces = vec(bit, 0..16).prop_map(|bits| bits.concat());
    let sent = vec(proptest::sample::select(ELEMENTS.to_vec()), 0..4).prop_map(|sent| with_length(sent.concat()));
    (any::<u8>(), sent, pieces).prop_map(|(pri, sent, pieces)| [&[pri][..], &sent, &pieces].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn any_record_comes_back_from_its_line(bytes in vec(any::<u8>(), 0..300)) {
        properties::any_bytes(&bytes);
    }

    #[test]
    fn likely_records_come_back_from_their_lines(bytes in likely_bytes()) {
        properties::any_bytes(&bytes);
    }
}

#[test]
fn a_stamp_is_read_back() {
    for text in [
        "2026-11-20T22:28:47Z",
        "2026-11-20T22:28:47.5Z",
        "2026-11-20T22:28:47.123456-05:30",
        "2024-02-29T23:59:59.123456789+14:00",
        "1969-12-31T23:59:59Z",
    ] {
        let micros = chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        assert_eq!(UnixMicros::from_rfc3339(text.as_bytes()), Some(UnixMicros(micros)), "{text}");
    }
    for text in ["", "-", "2026-02-29T00:00:00Z", "2026-11-20T22:28:47", "2026-11-20T24:00:00Z", "2026-11-20"] {
        assert_eq!(UnixMicros::from_rfc3339(text.as_bytes()), None, "{text}");
    }
}
