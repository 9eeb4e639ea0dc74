//! `corpus`: recordings of Docker's driver. `heads`: heads of requests and their answers. `hostile`: bodies of hostile senders. Here:
//! events of other senders, and their records.

mod corpus;
mod heads;
mod hostile;

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::properties::{any_body, found};
use super::*;
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::{Senders, Settings};
use crate::record::{Record, Source, Stamp, UnixMicros, Value, stamp_text};

const RECEIVED: UnixMicros = UnixMicros(1_796_000_000_000_000);
const LIMITS: Limits = Limits { max_event: 1 << 20, max_message: 1 << 20, max_body: 16 << 20 };

fn events() -> Post {
    Post { is_raw: false, is_gzip: false, channel: None, given: Given::default() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Passes each record of a body to `take`; returns how the body ends.
fn records(post: Post, body: &[u8], senders: Senders, mut take: impl FnMut(&Record<'_>)) -> Result<u64, Refused> {
    if body.len() < 10_000 {
        any_body(&post, body, LIMITS, &[body.len() / 3, 1]);
    }
    let settings = Settings::default();
    let mut take = |message: &Message<'_>| take(&message.to_record(&settings, RECEIVED));
    let mut read = Body::new(post, LIMITS, senders);
    read.feed(body, &mut take)?;
    while read.finish(&mut take)? {}
    Ok(read.found())
}

/// Checks the record of a body with one event.
#[track_caller]
fn check(body: &str, expected: impl FnMut(&Record<'_>)) {
    assert_eq!(records(events(), body.as_bytes(), Senders::Anybody, expected), Ok(1), "{body}");
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned()
}

fn shown_fields(record: &Record<'_>) -> String {
    let shown = |value: &Value<'_>| match value {
        Value::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Value::Json(json) => json.as_str().to_owned(),
    };
    record.fields.iter().map(|field| format!("{}={} ", field.name, shown(&field.value))).collect()
}

fn stamp(record: &Record<'_>) -> String {
    record.timestamp.as_ref().map(stamp_text).unwrap_or_default()
}

#[test]
fn anybody_s_event_says_what_it_says() {
    check(r#"{"event":"hello"}"#, |record| {
        assert_eq!((record.message, record.facility, record.severity), (Some(&b"hello"[..]), 1, 5));
        assert_eq!((record.hostname, &record.container, &record.tag), (None, &None, &None));
        assert_eq!(record.timestamp, Some(Stamp::Received(RECEIVED)));
        assert_eq!(record.driver.as_deref(), Some(&b"splunk"[..]));
    });
    let event = r#" { "time" : 1433188255.5, "host":"wéb 1","source":"/var/log/a","sourcetype":"access", "index":"main",
        "event":{"b" : [1, 2]}, "fields":{"device":"x","n":1.50,"deep":{"a":[true]}}, "unknown":null} "#;
    check(event, |record| {
        assert_eq!(text(record.message), r#"{"b" : [1, 2]}"#);
        assert_eq!(stamp(record), "2015-06-01T19:50:55.5Z");
        assert_eq!(record.hostname.map(|host| host.written().into_owned()), Some(b"w__b_1".to_vec()));
        assert_eq!(text(record.original_host.as_deref()), "wéb 1");
        let expected =
            r#"source="/var/log/a" sourcetype="access" index="main" device="x" n=1.50 deep={"a":[true]} unknown=null "#;
        assert_eq!(shown_fields(record), expected);
    });
    for (event, message) in
        [("1.50", "1.50"), ("true", "true"), ("[1, {}]", "[1, {}]"), (r#""\u00e9\ud800""#, "é\u{fffd}\u{fffd}\u{fffd}")]
    {
        check(&format!("{{\"event\":{event}}}"), |record| assert_eq!(text(record.message), message));
    }
}

#[test]
fn an_event_without_a_text_has_fields() {
    check(r#"{"time":1,"event":"metric","fields":{"metric_name:cpu":0.5}}"#, |record| {
        assert_eq!((text(record.message).as_str(), shown_fields(record).as_str()), ("metric", "metric_name:cpu=0.5 "));
    });
    check(r#"{"fields":{"a":1}}"#, |record| {
        assert_eq!((record.message, shown_fields(record).as_str()), (None, "a=1 "));
    });
}

#[test]
fn what_is_not_what_it_should_be_is_kept() {
    check(r#"{"event":"a","time":null,"host":null,"source":null,"fields":null}"#, |record| {
        assert_eq!((record.hostname, &record.unread_stamp, shown_fields(record).as_str()), (None, &None, ""));
    });
    check(r#"{"event":"a","event":"b","host":7,"time":"noon","index":[1],"fields":["x"],"a\"b":1}"#, |record| {
        assert_eq!((text(record.message).as_str(), record.hostname), ("b", None));
        assert_eq!(text(record.unread_stamp.as_deref()), "noon");
        assert_eq!(shown_fields(record), r#"index=[1] fields=["x"] event="a" a"b=1 host=7 "#);
    });
    // Half of a surrogate pair in a name, and a number that no float can hold.
    check(r#"{"event":"a","fields":{"\ud800":1e400,"n":-1e400}}"#, |record| {
        assert_eq!(shown_fields(record), r#"fields={"\ufffd":"1e400","n":"-1e400"} "#);
    });
}

#[test]
fn a_time_may_have_any_unit_and_is_read_as_text() {
    for (time, expected, nanoseconds) in [
        ("1795898403", "2026-11-28T20:40:03Z", 0),
        ("\"1795898403.057468\"", "2026-11-28T20:40:03.057468Z", 0),
        ("1795898403.057468123", "2026-11-28T20:40:03.057468Z", 123),
        ("1.795898403057e9", "2026-11-28T20:40:03.057Z", 0),
        ("1795898403057", "2026-11-28T20:40:03.057Z", 0),
        ("1795898403057468", "2026-11-28T20:40:03.057468Z", 0),
        ("1795898403057468123", "2026-11-28T20:40:03.057468Z", 123),
        ("0", "1970-01-01T00:00:00Z", 0),
    ] {
        check(&format!("{{\"event\":\"a\",\"time\":{time}}}"), |record| {
            assert_eq!((stamp(record).as_str(), record.nanoseconds), (expected, nanoseconds), "{time}");
            assert_eq!(record.unread_stamp, None);
        });
    }
    for time in ["-1", "17958984030571", "\"\"", "true", "\"2026-11-28T20:40:03Z\"", "{\"a\":1}"] {
        check(&format!("{{\"event\":\"a\",\"time\":{time}}}"), |record| {
            assert_eq!(record.timestamp, Some(Stamp::Received(RECEIVED)));
            assert_eq!(text(record.unread_stamp.as_deref()), time.trim_matches('"'));
        });
    }
}

#[test]
fn the_query_gives_what_events_do_not_say() {
    let given = Given {
        host: Some("given-1".to_owned()),
        time: Some("1795898403".to_owned()),
        source: Some("s".to_owned()),
        sourcetype: Some("st".to_owned()),
        index: Some("i".to_owned()),
    };
    let mut seen = Vec::new();
    let mut show = |record: &Record<'_>| {
        let host = text(record.hostname.map(|host| host.said()));
        seen.push(format!("{} {host} {} {}", text(record.message), stamp(record), shown_fields(record)));
    };
    let post = Post { given: given.clone(), ..events() };
    let body = br#"{"event":"a"}{"event":"b","host":"h","time":1,"source":"x","sourcetype":null,"index":"y"}"#;
    assert_eq!(records(post.clone(), body, Senders::Anybody, &mut show), Ok(2));
    assert_eq!(records(Post { is_raw: true, ..post }, b"l 1\r\n\n\r\nl 2", Senders::Anybody, &mut show), Ok(2));
    let all = r#"source="s" sourcetype="st" index="i" "#;
    let expected = [
        format!("a given-1 2026-11-28T20:40:03Z {all}"),
        r#"b h 1970-01-01T00:00:01Z source="x" sourcetype="st" index="y" "#.to_owned(),
        format!("l 1 given-1 2026-11-28T20:40:03Z {all}"),
        format!("l 2 given-1 2026-11-28T20:40:03Z {all}"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn docker_s_object_is_known_by_its_names() {
    let id = "2a9052a5c36e";
    check(
        &format!(
            r#"{{"event":{{"line":"x","source":"stderr","tag":"nginx:1/web/{id}","attrs":{{"tag":"forged","a":"b"}}}},"host":"h"}}"#
        ),
        |record| {
            assert_eq!((record.facility, record.severity, record.source), (3, 3, Some(Source::Stderr)));
            assert_eq!(
                [record.image_name(), record.container_name(), record.container_id()].map(text),
                ["nginx:1", "web", id]
            );
            assert_eq!(
                [record.app_name, record.proc_id].map(|field| text(field.map(|field| field.said()))),
                ["web", id]
            );
            assert_eq!(
                (text(record.tag.as_deref()), shown_fields(record)),
                (format!("nginx:1/web/{id}"), r#"tag="forged" a="b" "#.to_owned())
            );
        },
    );
    // Only Docker's driver sends such an event, so a tag without other parts is a container's name.
    check(r#"{"event":{"line":"","source":"stdout","tag":"web"}}"#, |record| {
        assert_eq!((text(record.container_name()).as_str(), record.message), ("web", Some(&b""[..])));
    });
    check(r#"{"event":{"line":"x","source":"stdout"}}"#, |record| {
        assert!(record.has_unknown_container() && record.severity == 6 && record.tag.is_none());
    });
    for other in [
        r#"{"line":"x","source":"stdout","more":1}"#,
        r#"{"line":"x","source":"syslog"}"#,
        r#"{"line":"x","line":"y","source":"stdout"}"#,
        r#"{"line":"x","source":"stdout","tag":7}"#,
        r#"{"line":"x","source":"stdout","attrs":"a"}"#,
        r#"{"line":"x"}"#,
        r#"{"source":"stdout"}"#,
    ] {
        check(&format!("{{\"event\":{other}}}"), |record| {
            assert_eq!((text(record.message).as_str(), &record.container, record.source), (other, &None, None));
        });
    }
}

/// With `splunk-format=raw`, Docker's driver puts the tag in front of the text.
#[test]
fn a_tag_in_front_of_a_text_counts_where_docker_sends() {
    let check = |event: &str, senders, expected: [&str; 3]| {
        let read = records(events(), event.as_bytes(), senders, |record| {
            let found = [record.container_name(), record.container_id(), record.message].map(text);
            assert_eq!(found, expected, "{event}");
            assert_eq!(record.facility, if record.container.is_some() { 3 } else { 1 });
        });
        assert_eq!(read, Ok(1));
    };
    let docker_s = |text: &str| format!(r#"{{"event":"{text}","time":"1795898403.057468","host":"h"}}"#);
    let id = "2a9052a5c36e";
    let tagged = format!("web/{id} a=b hello");
    check(&docker_s(&tagged), Senders::Anybody, ["web", id, "a=b hello"]);
    check(&docker_s("web hello"), Senders::Anybody, ["-", "-", "web hello"]);
    check(&docker_s("web hello"), Senders::Docker, ["web", "-", "hello"]);
    check(&docker_s(id), Senders::Docker, ["-", "-", id]);
    check(&docker_s("?? hello"), Senders::Docker, ["-", "-", "?? hello"]);
    // Other senders write the time in another form, or no host.
    check(
        &format!(r#"{{"event":"{tagged}","time":1795898403.057468,"host":"h"}}"#),
        Senders::Anybody,
        ["-", "-", &tagged],
    );
    check(&format!(r#"{{"event":"{tagged}","time":"1795898403.057468"}}"#), Senders::Anybody, ["-", "-", &tagged]);
    check(
        &format!(r#"{{"event":"{tagged}","time":"1795898403.057","host":"h"}}"#),
        Senders::Anybody,
        ["-", "-", &tagged],
    );
}

#[test]
fn events_stand_one_after_the_other_or_in_arrays() {
    let check = |body: &str, expected: &str| {
        let mut seen = String::new();
        let read = records(events(), body.as_bytes(), Senders::Anybody, |record| seen += &text(record.message));
        assert_eq!((seen.as_str(), read), (expected, Ok(expected.len() as u64)), "{body}");
    };
    let [a, b, c] = ["a", "b", "c"].map(|text| format!(r#"{{"event":"{text}"}}"#));
    check(&format!("{a}{b}"), "ab");
    check(&format!("\r\n{a}\n{b}\t {c}\n"), "abc");
    check(&format!("[{a},{b}]"), "ab");
    check(&format!(" [ {a} , {b} ] {c} [ ] [{a}]"), "abca");
}

#[test]
fn a_compressed_body_is_read_in_turns() {
    let body = r#"{"event":"hello"}"#.repeat(40_000);
    let post = Post { is_gzip: true, ..events() };
    let compressed = [gzip(&body.as_bytes()[..100]), gzip(&body.as_bytes()[100..])].concat();
    let mut read = Body::new(post.clone(), LIMITS, Senders::Anybody);
    for piece in compressed.chunks(1000) {
        read.feed(piece, |_| panic!("nothing before the end")).expect("there is room");
    }
    assert!((compressed.len()..=2 * compressed.len()).contains(&read.held()));
    let (mut turns, mut most, mut before) = (1, 0, 0);
    while read.finish(|_| {}).expect("events") {
        turns += 1;
        most = most.max(read.found() - before);
        before = read.found();
    }
    assert_eq!(read.found(), 40_000);
    assert!(turns == 3 && most < 20_000, "{turns} turns, {most} at once");
    any_body(&post, &compressed, LIMITS, &[7, 500]);
}
