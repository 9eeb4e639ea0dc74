//! APIs of log stores: URLs and tokens of requests, how requests are divided, and which lines are rejected.

use std::fs;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::elasticsearch::rejected;
use crate::support::http::{get, status};
use crate::support::{Relay, Setup, Store, StoreRequest, eventually, says};

fn to(url: &str, api: &str, keys: &str) -> Setup {
    let token = if keys.contains("token = ") { "" } else { "token = \"${TOKEN}\"" };
    let wait = if keys.contains("batch-wait") { "" } else { "batch-wait = \"50ms\"" };
    let keys = format!("api = \"{api}\"\n{wait}\n{token}\n{keys}");
    let setup = Setup::new().listen_with("tcp://127.0.0.1:0", "max-frame = \"512KiB\"").variable("TOKEN", "secret");
    setup.forward_with(url, &keys)
}

/// Sends a message for each of these ages, with the age as its text; returns the timestamps.
fn says_of_ages(relay: &Relay, ages: &[i64]) -> Vec<String> {
    let now = Utc::now();
    let stamp = |minutes: &i64| (now - Duration::minutes(*minutes)).to_rfc3339_opts(SecondsFormat::Micros, true);
    let stamps: Vec<_> = ages.iter().map(stamp).collect();
    let lines = stamps.iter().zip(ages).map(|(stamp, age)| format!("<13>1 {stamp} - app - - - {age}\n"));
    relay.door().connect().send(lines.collect::<String>().as_bytes());
    stamps
}

/// The values of this key in these objects.
fn each<'v>(objects: &'v [Value], key: &str) -> Vec<&'v str> {
    objects.iter().map(|object| object[key].as_str().expect("a text")).collect()
}

fn array(request: &StoreRequest) -> Vec<Value> {
    assert_eq!(request.header("content-type"), Some("application/json"));
    serde_json::from_slice(&request.body).expect("an array")
}

/// Splunk's index of the rejected event counts from 0 with some codes, and from 1 with others.
#[test]
fn a_line_that_splunk_names_is_given_up_and_no_other() {
    for (code, counted_from) in [(6, 0), (13, 1)] {
        let store = Store::new();
        let setup = to(&store.url(), "splunk", "");
        let relay = setup.start();
        says(&relay, 0..10);
        let mut peer = store.accepts();
        let (mut there, mut was_alone) = (Vec::new(), false);
        while there.len() < 9 || !was_alone {
            let request = peer.hears();
            assert_eq!(request.target, "POST /services/collector/event");
            assert_eq!(request.header("authorization"), Some("Splunk secret"));
            let events =
                serde_json::Deserializer::from_slice(&request.body).into_iter().map(|event| event.expect("JSON"));
            let events: Vec<Value> = events.collect();
            match events.iter().position(|event| event["event"] == "4") {
                None => {
                    there.extend(each(&events, "event").into_iter().map(str::to_owned));
                    peer.answers(200, r#"{"text":"Success","code":0}"#);
                }
                Some(at) => {
                    was_alone |= events.len() == 1;
                    let number = at + counted_from;
                    let answer = json!({"text": "no", "code": code, "invalid-event-number": number});
                    peer.answers(400, &answer.to_string());
                }
            }
        }
        assert_eq!(there, ["0", "1", "2", "3", "5", "6", "7", "8", "9"]);
        relay.counts("forward_pending", 0);
        let given_up = rejected(&relay, &setup);
        assert!(matches!(&given_up[..], [(4, why)] if why.starts_with("HTTP 400: ")), "{given_up:?}");
        relay.stops();
    }
}

#[test]
fn datadog_gets_no_more_entries_than_it_takes() {
    let store = Store::new();
    let relay = to(&store.url(), "datadog", "").start();
    says(&relay, 0..2500);
    relay.has_spooled(2500);
    let mut peer = store.accepts();
    let mut there = Vec::new();
    while there.len() < 2500 {
        let request = peer.hears();
        assert_eq!(request.target, "POST /api/v2/logs");
        assert_eq!((request.header("dd-api-key"), request.header("authorization")), (Some("secret"), None));
        let entries = array(&request);
        assert!(entries.len() <= 1000, "{} entries", entries.len());
        there.extend(each(&entries, "message").into_iter().map(|message| message.parse::<usize>().expect("a number")));
        peer.answers(202, "{}");
    }
    assert!(there.into_iter().eq(0..2500));
    relay.has_delivered(2500, 0);
    relay.stops();
}

/// A proxy in front of a store often has a smaller limit than the store.
#[test]
fn what_is_too_large_for_a_server_is_remembered_and_said_once() {
    let (store, all) = (Store::new(), 12_000);
    let relay = to(&store.url(), "json", "batch = \"64KiB\"").start();
    says(&relay, 0..all);
    relay.has_spooled(all);
    let mut peer = store.accepts();
    // The lines that arrive first make a small request. The first full request sets this server's limit.
    let (mut there, mut most, mut requests, mut refused) = (0, None, 0, 0);
    while there < all {
        let lines = peer.hears().ndjson().len();
        if lines > 200 {
            most.get_or_insert(lines * 3 / 8);
        }
        requests += 1;
        if most.is_some_and(|most| lines > most) {
            refused += 1;
            peer.answers(413, "try less");
        } else {
            there += lines;
            peer.answers(200, "");
        }
    }
    assert!(requests > 20 && (2..=4).contains(&refused), "{refused} of {requests}");
    relay.has_delivered(all, 0);
    relay.fails_because("bytes of lines are too large a request (HTTP 413: try less); from now on it has ");
    let said = relay.stops().stderr;
    assert_eq!(said.matches("too large a request").count(), 1, "{said}");
}

/// JSON escapes make such a line six times as long.
#[test]
fn a_line_that_no_request_can_carry_is_given_up_unsent() {
    let store = Store::new();
    let setup = to(&store.url(), "newrelic", "");
    let relay = setup.start();
    let mut wire = relay.door().connect();
    wire.send(b"<13>1 - - app - - - before\n");
    wire.send(&[b"<13>1 - - app - - - ", &[1; 300 << 10][..], b"\n<13>1 - - app - - - after\n"].concat());
    let mut peer = store.accepts();
    let mut there = Vec::new();
    while there.len() < 2 {
        let request = peer.hears();
        assert_eq!(request.target, "POST /log/v1");
        assert_eq!(request.header("api-key"), Some("secret"));
        assert!(request.body.len() <= 1_000_000, "{} bytes", request.body.len());
        let logs = array(&request)[0]["logs"].as_array().expect("logs").clone();
        there.extend(each(&logs, "message").into_iter().map(str::to_owned));
        peer.answers(202, "{}");
    }
    assert_eq!(there, ["before", "after"]);
    relay.counts("forward_pending", 0);
    let given_up = rejected(&relay, &setup);
    let [(1, why)] = &given_up[..] else { panic!("{given_up:?}") };
    assert!(why.starts_with("the line takes 1843") && why.ends_with(", and the API takes 1000000"), "{why}");
    relay.stops();
}

#[test]
fn json_goes_to_the_url_as_it_is_written() {
    let store = Store::new();
    let url = format!("{}/hook/?query=INSERT%20INTO%20logs", store.url());
    let setup = to(&url, "json", "fields = [\"env=prod\"]");
    let relay = setup.start();
    says(&relay, 0..1);
    let mut peer = store.accepts();
    let request = peer.hears();
    assert_eq!(request.target, "POST /hook/?query=INSERT%20INTO%20logs");
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    let [object] = &request.ndjson()[..] else { panic!("one line") };
    assert_eq!((&object["message"], &object["fields"]["env"]), (&json!("0"), &json!("prod")));
    peer.answers(204, "");
    relay.has_delivered(1, 0);
    relay.stops();

    let relay = to(&store.url(), "json", "body = \"array\"").start();
    says(&relay, 0..1);
    let mut peer = store.accepts();
    let request = peer.hears();
    assert_eq!(request.target, "POST /");
    assert_eq!(each(&array(&request), "message"), ["0"]);
    peer.answers(200, "thanks");
    relay.has_delivered(1, 0);
    relay.stops();
    assert!(fs::read_dir(setup.path("spool/dead-letter")).is_err());
}

/// Some servers repeat the request in their answer. The relay hides the token in it.
#[test]
fn the_last_answer_is_shown_and_the_token_is_not() {
    let store = Store::new();
    let relay = to(&store.url(), "json", "token = \"${LONG}\"").variable("LONG", "hunter2").start();
    says(&relay, 0..1);
    let mut peer = store.accepts();
    let shown = |what: &str, text: &str| {
        let now = eventually(what, || {
            let now = status(&relay)["forwards"][0].clone();
            (now["last_answer"]["text"] == text).then_some(now)
        });
        let page = get(&relay, "/").body;
        assert!(page.contains("Last answer, ") && !page.contains("hunter2") && !relay.stderr().contains("hunter2"));
        now["requests"].clone()
    };
    assert_eq!(status(&relay)["forwards"][0]["last_answer"], Value::Null);
    peer.hears();
    peer.answers(503, "busy\u{1b}[2J with\nBearer hunter2");
    let requests = shown("busy", "HTTP 503: busy [2J with Bearer ***");
    assert_eq!(requests, json!({"again": 1}));
    peer.hears();
    peer.answers(401, "hunter2");
    assert_eq!(shown("refused", "HTTP 401: ***"), json!({"again": 1, "stop": 1}));
    relay.says("stopped: the collector refuses every line: ");
    // No answer to a request.
    let mut peer = store.accepts();
    peer.hears();
    drop(peer);
    let mut peer = store.accepts();
    peer.hears();
    peer.answers(413, "too much");
    assert_eq!(shown("poison", "HTTP 413: too much"), json!({"again": 1, "stop": 1, "unanswered": 1, "poison": 1}));
    relay.counts("forward_rejected_total", 1);
    let now = status(&relay)["forwards"][0].clone();
    assert_eq!(now["dead_letters"], json!({"too-large": 1}));
    assert!(now["last_rejected"]["text"].as_str().is_some_and(|why| why.contains("too much")), "{now}");
    let (page, letters) = (get(&relay, "/").body, get(&relay, "/status/dead-letters").body);
    assert!(page.contains("1 with refused lines") && page.contains("href=\"status/dead-letters#1\""), "{page}");
    assert!(letters.contains("too much") && letters.contains(">web<") && letters.contains(">0</span>"), "{letters}");
    says(&relay, 1..2);
    peer.hears();
    peer.answers(200, "");
    relay.counts("forward_delivered_total", 1);
    let metrics = get(&relay, "/metrics").body;
    for (metric, label) in [("requests", "verdict=\"delivered\""), ("dead_letters", "reason=\"too-large\"")] {
        let sample = format!("logferry_forward_{metric}_total{{forward=\"central\",{label}}} 1");
        assert!(metrics.contains(&sample), "{sample}: {metrics}");
    }
    relay.stops();
}

/// Datadog would accept a line of last week with 202, and drop it.
#[test]
fn what_is_too_old_is_sent_with_the_time_of_sending_and_its_own_in_a_field() {
    let store = Store::new();
    let relay = to(&store.url(), "datadog", "batch-wait = \"1s\"").start();
    let before = Utc::now().timestamp_millis();
    // 18 h less 15 minutes are 1065 minutes. The last age is in the future.
    let ages = [7 * 1440, 1440, 1067, 1063, 5, -600];
    let stamps = says_of_ages(&relay, &ages);
    relay.door().connect().send(b"<13>1 - - app - - - none\n");
    relay.has_spooled(7);
    let mut peer = store.accepts();
    let mut there = Vec::new();
    while there.len() < 7 {
        there.extend(array(&peer.hears()));
        peer.answers(202, "{}");
    }
    let after = Utc::now().timestamp_millis();
    let is_now = |entry: &Value| (before..=after).contains(&entry["timestamp"].as_i64().expect("a time"));
    for (entry, stamp) in there.iter().zip(&stamps) {
        let age: i64 = entry["message"].as_str().expect("a text").parse().expect("an age");
        let made = DateTime::parse_from_rfc3339(stamp).expect("a stamp").timestamp_millis();
        if age > 1065 {
            assert!(is_now(entry), "{entry}");
            assert_eq!(entry["original_timestamp"], *stamp);
        } else {
            assert_eq!((&entry["timestamp"], &entry["original_timestamp"]), (&json!(made), &Value::Null));
        }
    }
    assert!(is_now(&there[6]) && there[6]["original_timestamp"].is_null(), "{}", there[6]);
    relay.has_delivered(7, 0);
    relay.counts("forward_restamped_total", 3);
    relay.says("lines are older than `max-age`: they are sent with the time of sending");
    relay.stops();
}

/// Loki rejects a line that is an hour older than the last line of its stream. Halves of a divided request keep the timestamps of the whole
/// request, so that Loki recognizes duplicates.
#[test]
fn loki_has_them_in_a_stream_of_their_own_with_one_time() {
    let store = Store::new();
    let setup = to(&store.url(), "loki", "batch-wait = \"1s\"");
    let relay = setup.start();
    says_of_ages(&relay, &[30 * 1440, 20 * 1440, 3 * 1440, 11]);
    relay.has_spooled(4);
    let mut peer = store.accepts();
    let entries = |request: &StoreRequest| -> Vec<(bool, Value)> {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let streams = body["streams"].as_array().expect("streams").clone();
        let of = |stream: &Value| -> Vec<(bool, Value)> {
            let is_restamped = stream["stream"]["restamped"] == "true";
            stream["values"].as_array().expect("values").iter().map(|entry| (is_restamped, entry.clone())).collect()
        };
        streams.iter().flat_map(of).collect()
    };
    let first = entries(&peer.hears());
    assert!(first.iter().all(|(is_restamped, entry)| *is_restamped == entry[2]["original_timestamp"].is_string()));
    peer.answers(400, "entry too far behind");
    let mut again = Vec::new();
    while again.len() < 3 {
        let found = entries(&peer.hears());
        if found.iter().any(|(_, entry)| entry[1] == "4320") {
            peer.answers(400, "entry too far behind");
            if found.len() == 1 {
                continue;
            }
        } else {
            again.extend(found);
            peer.answers(204, "");
        }
    }
    let rest: Vec<_> = first.into_iter().filter(|(_, entry)| entry[1] != "4320").collect();
    again.sort_by_key(|(_, entry)| entry[1].to_string());
    let mut rest = [rest].concat();
    rest.sort_by_key(|(_, entry)| entry[1].to_string());
    assert_eq!(again, rest);
    relay.counts("forward_rejected_total", 1);
    relay.counts("forward_delivered_total", 3);
    relay.counts("forward_restamped_total", 2);
    relay.stops();
}

/// Old lines do not count as rejections in a row, which would stop the forward: they prove nothing about the server.
#[test]
fn what_is_too_old_is_a_dead_letter_where_that_is_wanted_and_stops_nothing() {
    let store = Store::new();
    let setup = to(&store.url(), "elasticsearch", "max-age = \"2h\"\ntoo-old = \"dead-letter\"");
    let relay = setup.start();
    let ages: Vec<_> = (0..150).map(|line| if line % 50 == 7 { 30 } else { 200 }).collect();
    says_of_ages(&relay, &ages);
    let mut peer = store.accepts();
    let mut there = 0;
    while there < 3 {
        let request = peer.hears();
        assert!(request.numbers().iter().all(|age| *age == 30), "{:?}", request.numbers());
        there += request.numbers().len();
        peer.answers(200, "{\"errors\":false}");
    }
    relay.counts("forward_delivered_total", 3);
    relay.counts("forward_rejected_total", 147);
    let given_up = rejected(&relay, &setup);
    assert!(given_up[0].1.starts_with("the line is 3h 20m") && given_up[0].1.ends_with(" old, and `max-age` is 2h"));
    assert_eq!(status(&relay)["forwards"][0]["dead_letters"], json!({"too-old": 147}));
    relay.says("`too-old` refuses a line for good");
    relay.stops();
}

#[test]
fn what_is_too_old_is_sent_as_it_is_where_that_is_wanted() {
    let store = Store::new();
    let relay = to(&store.url(), "newrelic", "too-old = \"send\"").start();
    let stamps = says_of_ages(&relay, &[100 * 1440]);
    let mut peer = store.accepts();
    let made = DateTime::parse_from_rfc3339(&stamps[0]).expect("a stamp").timestamp_millis();
    assert_eq!(array(&peer.hears())[0]["logs"][0]["timestamp"], made);
    peer.answers(202, "{}");
    relay.has_delivered(1, 0);
    relay.counts("forward_restamped_total", 0);
    relay.stops();
}

/// Requests to Splunk with a token for indexer acknowledgement.
fn events(request: &StoreRequest) -> Vec<String> {
    assert_eq!(request.target, "POST /services/collector/event");
    let events = serde_json::Deserializer::from_slice(&request.body).into_iter::<Value>();
    events.map(|event| event.expect("JSON")["fields"]["logferry_id"].as_str().expect("an id").to_owned()).collect()
}

/// The acknowledgement IDs of a query, which uses the channel of the requests.
fn asked(request: &StoreRequest) -> Vec<u64> {
    let channel = request.header("x-splunk-request-channel").expect("a channel");
    let parts: Vec<_> = channel.split('-').map(str::len).collect();
    assert_eq!(
        (&*parts, &*request.target),
        (&[8, 4, 4, 4, 12][..], &*format!("POST /services/collector/ack?channel={channel}"))
    );
    assert_eq!(request.header("authorization"), Some("Splunk secret"));
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    body["acks"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("a number")).collect()
}

fn read(ack: u64) -> String {
    json!({"text": "Success", "code": 0, "ackId": ack}).to_string()
}

#[test]
fn what_splunk_has_read_is_delivered_when_an_indexer_has_it() {
    let store = Store::new();
    let relay = to(&store.url(), "splunk", "").start();
    says(&relay, 0..1);
    let mut peer = store.accepts();
    let first = events(&peer.hears());
    peer.answers(200, &read(0));
    assert_eq!(asked(&peer.hears()), [0]);
    peer.answers(200, "{\"acks\":{\"0\":false}}");
    // Meanwhile the relay sends the next request, and queries both acknowledgements.
    says(&relay, 1..2);
    let (mut ids, mut second) = (Vec::new(), Vec::new());
    while ids != [0, 1] {
        let request = peer.hears();
        if request.target.ends_with("/event") {
            second = events(&request);
            peer.answers(200, &read(1));
        } else {
            ids = asked(&request);
            peer.answers(200, "{\"acks\":{\"0\":false,\"1\":false}}");
        }
    }
    assert_ne!(first, second);
    // The second request is acknowledged first, and waits for the first one. The relay asks a busy server again.
    assert_eq!(asked(&peer.hears()), [0, 1]);
    peer.answers(200, "{\"acks\":{\"0\":false,\"1\":true}}");
    assert_eq!(asked(&peer.hears()), [0]);
    assert_eq!(relay.metrics().sum("forward_delivered_total"), 0);
    peer.answers(503, "busy");
    assert_eq!(asked(&peer.hears()), [0]);
    peer.answers(200, "{\"acks\":{\"0\":true}}");
    relay.has_delivered(2, 0);
    relay.stops();
}

/// After an indexer was killed, or has forgotten a channel, the answer is `false` for ever.
#[test]
fn what_no_indexer_acknowledges_is_sent_again() {
    let store = Store::new();
    let relay = to(&store.url(), "splunk", "ack = \"on\"\nanswer-timeout = \"1s\"").start();
    says(&relay, 0..1);
    let mut peer = store.accepts();
    let first = events(&peer.hears());
    peer.answers(200, &read(0));
    while let Some(request) = peer.next() {
        let acks: serde_json::Map<_, _> = asked(&request).iter().map(|id| (id.to_string(), json!(false))).collect();
        peer.answers(200, &json!({ "acks": acks }).to_string());
    }
    relay.fails_because("no indexer has acknowledged a request within 1s");
    let mut peer = store.accepts();
    assert_eq!(events(&peer.hears()), first);
    peer.answers(200, &read(0));
    asked(&peer.hears());
    peer.answers(200, "{\"acks\":{\"0\":true}}");
    relay.has_delivered(1, 0);
    relay.stops();
}

#[test]
fn a_token_without_acknowledgement_is_taken_as_it_is_but_where_it_is_wanted() {
    let plain = r#"{"text":"Success","code":0}"#;
    for (keys, has_channel) in [("", true), ("ack = \"off\"", false)] {
        let store = Store::new();
        let relay = to(&store.url(), "splunk", keys).start();
        says(&relay, 0..1);
        let mut peer = store.accepts();
        assert_eq!(peer.hears().header("x-splunk-request-channel").is_some(), has_channel);
        peer.answers(200, plain);
        relay.has_delivered(1, 0);
        relay.stops();
    }
    for (keys, status, answer, says_so) in [
        ("ack = \"on\"", 200, plain, "the token has no indexer acknowledgement"),
        ("ack = \"off\"", 400, r#"{"text":"Data channel is missing","code":10}"#, "write ack = \"auto\""),
    ] {
        let store = Store::new();
        let relay = to(&store.url(), "splunk", keys).start();
        says(&relay, 0..1);
        let mut peer = store.accepts();
        peer.hears();
        peer.answers(status, answer);
        relay.fails_because(says_so);
        relay.counts("forward_stopped", 1);
        assert_eq!(relay.metrics().sum("forward_delivered_total"), 0);
    }
}
