//! The body of an OTLP request, and the verdicts on its answers.

use serde_json::{Value, json};

use super::super::properties::otlp_request;
use super::*;

fn otlp() -> Otlp {
    let attributes = [("deployment.environment.name", "prod")];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Otlp { spool: "s".to_owned(), sd_id: "docker@32473".to_owned(), attributes }
}

fn request(otlp: &Otlp, lines: &[Line<'_>]) -> Value {
    let mut body = Vec::new();
    otlp.body(lines, &mut body);
    otlp_request(&body)
}

fn line(number: u64, text: &str) -> Line<'_> {
    let record = Record::from_line(text.as_bytes(), "docker@32473");
    Line { id: LineId { session: 3, number }, record, sent_at: None }
}

const WEB: &str = r#"<30>1 2026-11-20T22:27:33.081562Z host-1 web 2a9052a5c36e - [docker@32473 image="reg:5000/nginx:1.25" name="web" id="2a9052a5c36e"]"#;

#[test]
fn a_container_and_what_it_says() {
    let text = format!("{WEB} GET / 200");
    assert_eq!(
        request(&otlp(), &[line(12, &text)]),
        json!([{
            "resource": {
                "host.name": "host-1",
                "service.name": "web",
                "container.id": "2a9052a5c36e",
                "container.name": "web",
                "container.image.name": "reg:5000/nginx",
                "container.image.tags": ["1.25"],
                "deployment.environment.name": "prod",
            },
            "records": [{
                "time": 1_795_213_653_081_562_000_u64,
                "severity_number": 9,
                "severity_text": "info",
                "body": "GET / 200",
                "attributes": { "log.record.uid": "s-3-12", "syslog.facility": 3, "syslog.procid": "2a9052a5c36e" },
            }],
        }])
    );
}

#[test]
fn a_program_with_fields_and_structured_data() {
    let text = concat!(
        "<165>1 2026-11-20T22:27:33.081562+01:00 sw-1 sshd - ID47 [origin ip=\"1.2.3.4\" ip=\"5.6.7.8\" enterpriseId=\"9\"]",
        "[fields@32473 user=\"anna\" syslog.msgid=\"mine\"]",
        r#"[json@32473 fields="{\"n\":-5,\"f\":1.10,\"t\":true,\"z\":null,\"big\":18446744073709551615,\"o\":{\"a\":[1\]},\"raw\":\"\\\\xff\"}" escaped="[\"raw\"\]"]"#,
        r#"[logferry@32473 peer="10.0.0.7" source="stderr" nanoseconds="789" fields-cut="2"] hello"#,
    );
    assert_eq!(
        request(&otlp(), &[line(1, text)]),
        json!([{
            "resource": { "host.name": "sw-1", "service.name": "sshd", "deployment.environment.name": "prod" },
            "records": [{
                "time": 1_795_210_053_081_562_789_u64,
                "severity_number": 10,
                "severity_text": "notice",
                "body": "hello",
                "dropped_attributes_count": 2,
                "attributes": {
                    "log.record.uid": "s-3-1",
                    "log.iostream": "stderr",
                    "network.peer.address": "10.0.0.7",
                    "syslog.facility": 20,
                    "syslog.msgid": "ID47",
                    "syslog.structured_data": { "origin": { "ip": ["1.2.3.4", "5.6.7.8"], "enterpriseId": "9" } },
                    "user": "anna",
                    "syslog.msgid_": "mine",
                    "n": -5,
                    "f": 1.1,
                    "t": true,
                    "z": null,
                    "big": "18446744073709551615",
                    "o.a": "[1]",
                    "raw": { "bytes": [255] },
                },
            }],
        }])
    );
}

#[test]
fn each_container_has_its_lines_in_order() {
    let texts: Vec<_> = [("a", "x"), ("b", "x"), ("a", "x"), ("b", "y"), ("a", "x")]
        .iter()
        .map(|(name, host)| format!("<30>1 - {host} {name} - - [docker@32473 name=\"{name}\"] text"))
        .collect();
    let lines: Vec<_> = texts.iter().zip(0..).map(|(text, number)| line(number, text)).collect();
    let request = request(&otlp(), &lines);
    let who = |logs: &Value| {
        let said = |key: &str| logs["resource"][key].as_str().expect("a text").to_owned();
        let uid = |record: &Value| record["attributes"]["log.record.uid"].as_str().expect("a text").to_owned();
        let uids: Vec<_> = logs["records"].as_array().expect("an array").iter().map(uid).collect();
        format!("{} {}: {}", said("service.name"), said("host.name"), uids.join(" "))
    };
    let request: Vec<_> = request.as_array().expect("an array").iter().map(who).collect();
    assert_eq!(request, ["a x: s-3-0 s-3-2 s-3-4", "b x: s-3-1", "b y: s-3-3"]);
}

#[test]
fn severities_are_those_of_appendix_b() {
    let texts: Vec<_> = (0..8).map(|severity| format!("<{severity}>1 - - - - - - x")).collect();
    let lines: Vec<_> = texts.iter().map(|text| line(0, text)).collect();
    let request = request(&otlp(), &lines);
    let number = |record: &Value| record["severity_number"].as_u64().expect("a number");
    let numbers: Vec<_> = request[0]["records"].as_array().expect("an array").iter().map(number).collect();
    assert_eq!(numbers, [21, 19, 18, 17, 13, 10, 9, 5]);
}

#[test]
fn what_is_not_utf8_is_bytes_and_what_is_not_known_is_not_there() {
    let text = b"<30>1 - h\xff - - - - \xfe\\";
    let record = Record::from_line(text, "docker@32473");
    let line = Line { id: LineId { session: 3, number: 0 }, record, sent_at: None };
    let request = request(&Otlp { attributes: Vec::new(), ..otlp() }, &[line]);
    assert_eq!(request[0]["resource"], json!({ "host.name": { "bytes": [b'h', 255] } }));
    assert_eq!(request[0]["records"][0]["body"], json!({ "bytes": [254, b'\\'] }));
    assert_eq!(request[0]["records"][0].get("time"), None);
}

#[test]
fn what_the_config_says_of_a_resource_counts() {
    let attributes = [("service.name", "shop"), ("container.image.tags", "none")];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let request = request(&Otlp { attributes, ..otlp() }, &[line(0, &format!("{WEB} x"))]);
    assert_eq!(request[0]["resource"]["service.name"], "shop");
    assert_eq!(request[0]["resource"]["container.image.tags"], "none");
}

#[test]
fn a_line_that_is_too_old_keeps_its_time_as_a_field() {
    let text = format!("{WEB} x");
    let line = Line { sent_at: Some(UnixMicros(5)), ..line(0, &text) };
    let request = request(&otlp(), &[line]);
    let record = &request[0]["records"][0];
    assert_eq!(record["time"], 5000);
    assert_eq!(record["attributes"]["original_timestamp"], "2026-11-20T22:27:33.081562Z");
}

fn verdict(status: u16, body: &[u8]) -> Verdict {
    otlp().verdict(&Answer { status, retry_after: Some(Duration::from_secs(9)), body }, 3)
}

#[test]
fn rejected_records_are_counted() {
    let short = |rejected, why: &str| Verdict::Short { rejected, why: why.to_owned() };
    let check = |body: &[u8], expected: Verdict| {
        assert_eq!(verdict(200, body), expected, "{}", body.escape_ascii());
        assert_eq!(verdict(202, body) == Verdict::Delivered, expected == Verdict::Delivered);
    };
    check(b"\x0a\x0b\x08\x02\x12\x07too old", short(2, "HTTP 200: too old"));
    check(b"\x0a\x02\x08\x01", short(1, "HTTP 200"));
    check(b"\x0a\x02\x08\x63", short(3, "HTTP 200"));
    check(br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#, short(2, "HTTP 200: too old"));
    check(b" {\"partialSuccess\":{\"rejectedLogRecords\":2}}", short(2, "HTTP 200"));
    for all in [
        &b""[..],
        b"{}",
        b"\x0a\x00",
        // A warning.
        b"\x0a\x09\x12\x07too old",
        br#"{"partialSuccess":{"errorMessage":"slow down"}}"#,
        br#"{"partialSuccess":{"rejectedLogRecords":"0"}}"#,
        br#"{"partialSuccess":null}"#,
        // A negative number.
        b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        br#"{"partialSuccess":{"rejectedLogRecords":"-1"}}"#,
        // Answers that cannot be read.
        b"OK",
        b"<html>",
        b"{",
        b"\x0a\x05\x08\x01",
        br#"{"partialSuccess":5}"#,
    ] {
        check(all, Verdict::Delivered);
    }
}

#[test]
fn a_failure_is_told_in_the_servers_words() {
    // google.rpc.Status: code 3, and a message, whose length is an `&`.
    let status = b"\x08\x03\x12\x26no such thing, whoever may ask for it.";
    assert_eq!(verdict(400, status), Verdict::Refused("HTTP 400: no such thing, whoever may ask for it.".to_owned()));
    assert_eq!(verdict(413, b"<html>too large"), Verdict::TooLarge("HTTP 413: <html>too large".to_owned()));
    let after = Some(Duration::from_secs(9));
    for status in [429, 500, 502, 503, 504] {
        assert_eq!(verdict(status, b""), Verdict::Again { after, why: format!("HTTP {status}") });
    }
    for status in [301, 401, 403, 404, 405, 415, 501] {
        assert_eq!(verdict(status, b"{\"code\":16}"), Verdict::Stop(format!("HTTP {status}: {{\"code\":16}}")));
    }
}

#[test]
fn where_it_goes() {
    let api = Api::Otlp(otlp());
    let head = Head { path: "/v1/logs", content_type: "application/x-protobuf" };
    assert_eq!((api.head(), api.token_header()), (head, ("authorization", "Bearer ")));
}
