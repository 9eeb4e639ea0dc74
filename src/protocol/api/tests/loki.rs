//! The body of a push to Loki, and the verdicts on its answers.

use serde_json::{Value, json};

use super::super::loki::{Label, is_label_name};
use super::*;

fn loki() -> Loki {
    let fields = vec![("env".to_owned(), "prod".to_owned())];
    let labels = vec![Label::Job, Label::Host, Label::ServiceName, Label::Level];
    Loki { labels, fields, sd_id: "docker@32473".to_owned() }
}

fn body(loki: &Loki, lines: &[Line<'_>]) -> String {
    let mut body = Vec::new();
    loki.body(lines, &mut body);
    String::from_utf8(body).expect("text")
}

fn push(loki: &Loki, lines: &[Line<'_>]) -> Value {
    serde_json::from_str(&body(loki, lines)).expect("JSON")
}

fn line(number: u64, text: &[u8]) -> Line<'_> {
    let record = Record::from_line(text, "docker@32473");
    Line { id: LineId { session: 3, number }, record, sent_at: None }
}

const WEB: &str = r#"<30>1 2026-11-20T22:27:33.081562Z host-1 web 2a9052a5c36e - [docker@32473 image="nginx:1.25" name="web" id="2a9052a5c36e"]"#;

#[test]
fn streams_have_their_lines_in_order() {
    let web = |text: &str| format!("{WEB} {text}").into_bytes();
    let (one, two, warning) = (web("one"), web("two \"quoted\""), web("late").escape_ascii().to_string());
    let warning = warning.replace("<30>", "<28>").replace("\\\"", "\"").into_bytes();
    assert_eq!(
        body(&loki(), &[line(41, &one), line(1042, &warning), line(7, &two)]),
        concat!(
            r#"{"streams":[{"stream":{"job":"logferry","host":"host-1","service_name":"web","level":"info","env":"prod"},"values":["#,
            r#"["1795213653081562041","one",{"facility":"daemon","container_id":"2a9052a5c36e","image":"nginx:1.25","procid":"2a9052a5c36e"}],"#,
            r#"["1795213653081562007","two \"quoted\"",{"facility":"daemon","container_id":"2a9052a5c36e","image":"nginx:1.25","procid":"2a9052a5c36e"}]]},"#,
            r#"{"stream":{"job":"logferry","host":"host-1","service_name":"web","level":"warning","env":"prod"},"values":["#,
            r#"["1795213653081562042","late",{"facility":"daemon","container_id":"2a9052a5c36e","image":"nginx:1.25","procid":"2a9052a5c36e"}]]}]}"#
        )
    );
    assert_eq!(body(&loki(), &[]), r#"{"streams":[]}"#);
}

/// The only stream's labels and the only entry.
fn only(loki: &Loki, one: Line<'_>) -> (Value, Value) {
    let push = push(loki, &[one]);
    assert_eq!(
        (push["streams"].as_array().map(Vec::len), push["streams"][0]["values"].as_array().map(Vec::len)),
        (Some(1), Some(1))
    );
    (push["streams"][0]["stream"].clone(), push["streams"][0]["values"][0].clone())
}

#[test]
fn the_rest_is_metadata_and_all_of_it_is_text() {
    let text = concat!(
        "<165>1 2026-11-20T22:27:33.081562+01:00 sw-1 sshd 8 ID47 [origin ip=\"1.2.3.4\" ip=\"5.6.7.8\"]",
        "[fields@32473 user=\"anna\" a.b=\"1\" a-b=\"2\" 1st=\"3\" level=\"mine\" env=\"mine\"]",
        r#"[json@32473 fields="{\"n\":-5,\"t\":true,\"z\":null,\"o\":{\"a\":[1\]},\"raw\":\"\\\\xff\"}" escaped="[\"raw\"\]"]"#,
        r#"[logferry@32473 peer="10.0.0.7" source="stderr" nanoseconds="789"] hello"#,
    );
    let (labels, entry) = only(&loki(), line(1, text.as_bytes()));
    assert_eq!(
        labels,
        json!({ "job": "logferry", "host": "sw-1", "service_name": "sshd", "level": "notice", "env": "prod" })
    );
    assert_eq!(
        entry,
        json!(["1795210053081562001", "hello", {
            "facility": "local4",
            "source": "stderr",
            "procid": "8",
            "msgid": "ID47",
            "peer": "10.0.0.7",
            "structured_data": "[origin ip=\"1.2.3.4\" ip=\"5.6.7.8\"]",
            "nanoseconds": "789",
            "user": "anna",
            "a_b": "1",
            "a_b_": "2",
            "_1st": "3",
            "level_": "mine",
            "env_": "mine",
            "n": "-5",
            "t": "true",
            "z": "null",
            "o_a": "[1]",
            "raw": "\\xff",
            "escaped": "raw",
        }])
    );
}

#[test]
fn what_is_no_label_is_metadata() {
    let text = format!("{WEB} x");
    let of = |labels: &[Label], fields: &[(&str, &str)]| {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        only(&Loki { labels: labels.to_vec(), fields, ..loki() }, line(0, text.as_bytes()))
    };
    let (labels, entry) = of(&[Label::Facility], &[]);
    assert_eq!(labels, json!({ "facility": "daemon" }));
    assert_eq!(
        (&entry[2]["host"], &entry[2]["service_name"], &entry[2]["level"]),
        (&json!("host-1"), &json!("web"), &json!("info"))
    );
    assert_eq!(entry[2].get("facility"), None);
    let (labels, entry) = of(&[Label::Job, Label::Host], &[("job", "docker"), ("level", "all")]);
    assert_eq!(labels, json!({ "job": "docker", "host": "host-1", "level": "all" }));
    assert_eq!(entry[2].get("level"), None);
    // A stream has at least one label.
    assert_eq!(of(&[Label::Source], &[]).0, json!({ "job": "logferry" }));
}

#[test]
fn what_is_not_utf8_is_escaped_and_named() {
    let (labels, entry) = only(&loki(), line(0, b"<30>1 - h\xff - p\xfe - [a@1 b=\"\xfd\"] \xfc\\"));
    assert_eq!(labels["host"], "h\\xff");
    assert_eq!(
        entry,
        json!(["0", "\\xfc\\\\", {
            "facility": "daemon",
            "procid": "p\\xfe",
            "structured_data": "[a@1 b=\"\\xfd\"]",
            "escaped": "message,procid,structured_data",
        }])
    );
}

#[test]
fn times_are_distinct_and_the_same_each_time() {
    let text = format!("{WEB} x");
    let time = |number: u64, sent_at| only(&loki(), Line { sent_at, ..line(number, text.as_bytes()) }).1[0].clone();
    assert_eq!(time(1_234_999, None), "1795213653081562999");
    assert_eq!(time(1_235_000, None), "1795213653081562000");
    assert_eq!(time(5, Some(UnixMicros(1_800_000_000_000_001))), "1800000000000001005");
    let (labels, entry) = only(&loki(), Line { sent_at: Some(UnixMicros(0)), ..line(0, text.as_bytes()) });
    assert_eq!((&labels["service_name"], &labels["restamped"]), (&json!("web"), &json!("true")));
    assert_eq!(entry[2]["original_timestamp"], "2026-11-20T22:27:33.081562Z");
    let (_, before) =
        only(&loki(), line(7, b"<30>1 1969-12-31T23:59:59.999999Z - - - - [logferry@32473 nanoseconds=\"5\"] x"));
    assert_eq!(before[0], "-993");
}

#[test]
fn a_label_is_no_longer_than_loki_takes() {
    let host = format!("{}é", "x".repeat(2047));
    let text = format!("<30>1 - {host} - - - - x");
    let (labels, _) = only(&loki(), line(0, text.as_bytes()));
    assert_eq!(labels["host"], "x".repeat(2047));
    for (name, is) in [("env", true), ("_a1", true), ("1a", false), ("a.b", false), ("", false), ("é", false)] {
        assert_eq!(is_label_name(name), is, "{name}");
    }
}

#[test]
fn its_answers() {
    let after = Some(Duration::from_secs(9));
    let verdict = |status| loki().verdict(&Answer { status, retry_after: after, body: b"entry too far behind\n" });
    let why = |status| format!("HTTP {status}: entry too far behind");
    for status in [200, 204] {
        assert_eq!(verdict(status), Verdict::Delivered);
    }
    assert_eq!(verdict(400), Verdict::Refused(why(400)));
    assert_eq!(verdict(413), Verdict::TooLarge(why(413)));
    for status in [429, 500, 502, 503, 504] {
        assert_eq!(verdict(status), Verdict::Again { after, why: why(status) });
    }
    for status in [202, 260, 301, 401, 403, 404, 501] {
        assert_eq!(verdict(status), Verdict::Stop(why(status)));
    }
}

#[test]
fn where_it_goes() {
    let api = Api::Loki(loki());
    let head = Head { path: "/loki/api/v1/push", content_type: "application/json" };
    assert_eq!((api.head(), api.token_header()), (head, ("authorization", "Bearer ")));
}
