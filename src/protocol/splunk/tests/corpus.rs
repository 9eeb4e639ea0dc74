//! Every row of `tests/corpus-drivers` from Docker's `splunk` driver, and the requests with these rows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value as Json};

use super::*;
use crate::protocol::tests::{self as corpus, Row, unescape};

fn rows() -> Vec<Row> {
    corpus::rows(58, |row| row["driver"] == "splunk")
}

/// A recorded request.
struct Sent {
    head: String,
    body: Vec<u8>,
}

impl Sent {
    /// Splits a request off the front.
    fn split(bytes: &[u8]) -> (Self, &[u8]) {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let mut sent = Self { head, body: Vec::new() };
        let length = sent.header("Content-Length").map_or(0, |length| length.parse().expect("a number"));
        sent.body = bytes[end..][..length].to_vec();
        (sent, &bytes[end + length..])
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn read(&self) -> Request {
        let mut words = self.head.split(' ');
        let head = Head {
            method: words.next().expect("a method"),
            path: words.next().expect("a path"),
            authorization: self.header("Authorization").map(str::as_bytes),
            encoding: self.header("Content-Encoding").map(str::as_bytes),
            ..Head::default()
        };
        let tokens = Tokens::list(vec!["another".to_owned(), "00000000-0000-0000-0000-000000000001".to_owned()]);
        Request::read(&head, &tokens).expect("a request")
    }
}

#[test]
fn every_row_is_read_as_it_says() {
    let mut places: BTreeMap<(String, String), u64> = BTreeMap::new();
    for row in rows() {
        let file = corpus::file(&row["file"]);
        let (sent, behind) = Sent::split(corpus::sent(&row, &file));
        assert_eq!(behind.len(), 0, "{row:?}");
        let Request::Post(post) = sent.read() else { panic!("no events: {row:?}") };
        assert_eq!(post.is_gzip, row["framing"].ends_with(" gzip"));
        let place: u64 = row["framing"].split([' ', ',']).nth(4).expect("a place").parse().expect("a number");
        let mut at = 0;
        let read = records(post, &sent.body, Senders::Anybody, |record| {
            at += 1;
            if at == place {
                compare(&row, record);
            }
        });
        let known = places.entry((row["file"].clone(), row["offset"].clone())).or_default();
        *known += 1;
        assert_eq!((*known, read.is_ok_and(|count| place <= count)), (place, true), "{row:?}");
    }
    assert_eq!(places.values().sum::<u64>(), 58);
}

fn compare(row: &Row, record: &Record<'_>) {
    let expected = |name: &str| unescape(&row[name]);
    assert_eq!(record.message, expected("exp_message").as_deref(), "{row:?}");
    assert_eq!(record.message.unwrap_or_default().len().to_string(), row["exp_message_len"], "{row:?}");
    assert_eq!(record.tag.as_deref(), expected("exp_tag").as_deref(), "{row:?}");
    assert_eq!(record.source.map_or("-", Source::as_str), row["exp_source"], "{row:?}");
    let pri = if row["exp_source"] == "stderr" { 27 } else { 30 };
    assert_eq!(record.facility * 8 + record.severity, pri, "{row:?}");
    // The index has only the facts beside the tag, and there are none here. So the expected container comes from the tag.
    let parts: Vec<_> = row["exp_tag"].split('/').collect();
    let container = [record.image_name(), record.container_name(), record.container_id()].map(text);
    match parts[..] {
        [image, name, id] => assert_eq!(container, [image, name, id], "{row:?}"),
        _ => assert_eq!(container, ["-", "-", &row["exp_tag"]], "{row:?}"),
    }
    let (seconds, fraction) = row["exp_time"].split_once('.').expect("a fraction");
    let said = chrono::DateTime::parse_from_rfc3339(&stamp(record)).expect("a stamp");
    assert_eq!(
        (said.timestamp().to_string().as_str(), format!("{:06}", said.timestamp_subsec_micros()).as_str()),
        (seconds, fraction)
    );

    let mut extra: Map<String, Json> = serde_json::from_str(&row["exp_extra"]).expect("JSON");
    let host = extra.remove("host").expect("a host");
    assert_eq!(record.hostname.map(|host| host.said()), host.as_str().map(str::as_bytes), "{row:?}");
    let event = extra.remove("event").expect("an event");
    let attrs = event.get("attrs").and_then(Json::as_object).cloned().unwrap_or_default();
    let expected: Map<_, _> = extra.into_iter().chain(attrs).collect();
    let value = |value: &Value<'_>| match value {
        Value::Text(text) => String::from_utf8_lossy(text).into(),
        Value::Json(json) => serde_json::from_str(json.as_str()).expect("JSON"),
    };
    let fields: Map<_, _> = record.fields.iter().map(|field| (field.name.to_string(), value(&field.value))).collect();
    assert_eq!(fields, expected, "{row:?}");
}

/// All requests in all files.
fn all() -> Vec<Sent> {
    let names: std::collections::BTreeSet<_> = rows().iter().map(|row| row["file"].clone()).collect();
    let mut all = Vec::new();
    for name in names {
        let file = corpus::file(&name);
        let mut rest = &file[..];
        while !rest.is_empty() {
            let (sent, behind) = Sent::split(rest);
            all.push(sent);
            rest = behind;
        }
    }
    all
}

#[test]
fn the_driver_asks_before_it_sends() {
    let (asked, sent): (Vec<_>, Vec<_>) = all().into_iter().partition(|sent| sent.head.starts_with("OPTIONS "));
    assert_eq!((asked.len(), sent.len()), (7, 7));
    assert!(asked.iter().all(|asked| asked.read() == Request::Options("POST, OPTIONS")));
    let answer = Answer::options("POST, OPTIONS");
    assert_eq!((answer.status, answer.header, &*answer.body), (200, Some(("allow", "POST, OPTIONS")), ""));
}

fn bodies() -> Vec<(Post, Vec<u8>)> {
    let posts = all().into_iter().filter_map(|sent| match sent.read() {
        Request::Post(post) => Some((post, sent.body)),
        _ => None,
    });
    posts.collect()
}

/// Cuts an event of each file, with others behind it, at every two places, with a limit that it fits in and one that it exceeds.
#[test]
fn no_two_cuts_change_an_event() {
    let mut small = 0;
    for (post, body) in bodies() {
        let Some(end) = memchr::memmem::find(&body, b"}{") else { continue };
        if end > 130 {
            continue;
        }
        small += 1;
        let body = [&body[..=end], br#"[{"event":"b\\"}, {"event":{}}"#].concat();
        for max_event in [100, 1000] {
            let limits = Limits { max_event, max_message: 10, max_body: 0 };
            any_body(&post, &body, limits, &[]);
            let whole = found(&post, &body, limits, []);
            assert_eq!(whole.1, Err(if max_event > 100 { Refused::EventBlank } else { Refused::TooLong }));
            for first in 0..=body.len() {
                for second in 0..=body.len() - first {
                    assert_eq!(found(&post, &body, limits, [first, second]), whole, "{first} and {second}");
                }
            }
        }
    }
    assert!(small >= 1, "no event is small");
}

#[test]
fn what_is_cut_or_damaged_is_read_or_refused() {
    let bodies = bodies();
    let damage = (
        0..bodies.len(),
        proptest::collection::vec((0_usize..50_000, any::<u8>()), 0..4),
        proptest::collection::vec(0_usize..3000, 0..6),
        (any::<bool>(), 0_usize..10_000),
    );
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let ran = runner.run(&damage, |(at, damage, cuts, (is_raw, max_event))| {
        let (post, mut body) = bodies[at].clone();
        for (place, byte) in damage {
            let place = place % body.len();
            body[place] = byte;
        }
        let post = Post { is_raw, ..post };
        let limits = Limits { max_event: max_event + 16, max_message: max_event / 2 + 1, max_body: 1000 };
        any_body(&post, &body, limits, &cuts);
        Ok(())
    });
    ran.expect("no cut changes anything, and a line says what its event says");
}
