//! `_bulk` requests: the documents that arrive, and the handling of lines that a server rejects.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::dns::NAME;
use crate::support::http::status;
use crate::support::program::{SIGHUP, SIGKILL};
use crate::support::{Certs, NameServer, Osmem, Relay, Setup, Store, StorePeer, StoreRequest, eventually, run, says};

const KEYS: &str = "api = \"elasticsearch\"\nbatch-wait = \"50ms\"";

fn to(store: &Store) -> Setup {
    to_with(store, "")
}

fn to_with(store: &Store, keys: &str) -> Setup {
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    setup.forward_with(&store.url(), &format!("{KEYS}\n{keys}"))
}

/// An answer that accepts all lines.
fn taken(request: &StoreRequest) -> String {
    each(request, |_| json!({"status": 201}))
}

/// An answer with a result for each line, by its number.
fn each(request: &StoreRequest, said: impl Fn(usize) -> Value) -> String {
    let items: Vec<_> = request.numbers().into_iter().map(|number| json!({"create": said(number)})).collect();
    let errors = items.iter().any(|item| item["create"]["error"].is_object());
    json!({"errors": errors, "items": items}).to_string()
}

/// Accepts requests until `count` lines have come; returns their numbers in the order of arrival.
fn takes(peer: &mut StorePeer, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let request = peer.hears();
        numbers.extend(request.numbers());
        peer.answers(200, &taken(&request));
    }
    numbers
}

pub fn rejected(relay: &Relay, setup: &Setup) -> Vec<(u64, String)> {
    let letters = fs::read_to_string(setup.path("spool/dead-letter/central.jsonl")).unwrap_or_default();
    assert_eq!(relay.metrics().sum("forward_rejected_total"), letters.lines().count() as u64);
    let letter = |text: &str| {
        let letter: Value = serde_json::from_str(text).expect("JSON");
        (letter["number"].as_u64().expect("a number"), letter["why"].as_str().expect("why").to_owned())
    };
    letters.lines().map(letter).collect()
}

#[test]
fn lines_are_documents_as_ecs_has_them() {
    let store = Store::new();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("ES_PASSWORD", "secret");
    let keys = "index = \"logs-web-prod\"\nfields = [\"env=prod\"]\nheaders = [\"X-Scope: team a\"]\nuser = \"relay\"\n\
                password = \"${ES_PASSWORD}\"";
    let relay = setup.forward_with(&format!("{}/es/", store.url()), &format!("{KEYS}\n{keys}")).start();
    relay.door().connect().send(
        b"<27>1 2026-11-29T12:00:00.123456+01:00 host1 proj-web-1 0123456789ab - \
          [docker@32473 image=\"registry:5000/team/web:1.2\" name=\"proj-web-1\" id=\"0123456789ab\"]\
          [fields@32473 com.example.team=\"shop\"][other@1 a=\"b\"] it\x1b broke\n",
    );
    let mut peer = store.accepts();
    let request = peer.hears();
    assert_eq!(
        request.target,
        "POST /es/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.failure_store"
    );
    // relay:secret
    assert_eq!(request.header("authorization"), Some("Basic cmVsYXk6c2VjcmV0"));
    assert_eq!(request.header("x-scope"), Some("team a"));
    assert_eq!(request.header("host"), Some(&*store.address().to_string()));
    assert_eq!(request.ndjson()[0]["create"]["_index"], "logs-web-prod");
    let (id, document) = request.bulk().swap_remove(0);
    let spool = status(&relay)["spool"]["id"].clone();
    assert!(spool.as_str().is_none_or(|spool| id.starts_with(spool)) && id.ends_with("-0"), "{id} {spool}");
    assert_eq!(
        document,
        json!({
            "@timestamp": "2026-11-29T11:00:00.123456Z",
            "message": "it\u{1b} broke",
            "ecs": {"version": "8.11.0"},
            "log": {"level": "err", "syslog": {
                "priority": 27, "facility": {"code": 3, "name": "daemon"}, "severity": {"code": 3, "name": "err"},
                "hostname": "host1", "appname": "proj-web-1", "procid": "0123456789ab",
                "structured_data": {"other@1": {"a": "b"}},
            }},
            "host": {"name": "host1"},
            "container": {"id": "0123456789ab", "name": "proj-web-1",
                "image": {"name": "registry:5000/team/web", "tag": "1.2"}},
            "service": {"name": "proj-web-1"},
            "labels": {"com_example_team": "shop", "env": "prod"},
        })
    );
    peer.answers(200, "{\"errors\":false}");
    relay.has_delivered(1, 0);
    relay.stops();
}

/// Lines that a busy server has rejected are sent again with the same `_id`, on the same connection.
#[test]
fn a_busy_server_is_asked_again() {
    let store = Store::new();
    let relay = to(&store).start();
    says(&relay, 0..20);
    let mut peer = store.accepts();
    let first = peer.hears();
    for (status, headers) in [(503, ""), (429, "Retry-After: 1\r\n"), (500, "")] {
        peer.answers_with(status, headers, "{\"error\": \"too much\"}");
        let again = peer.hears();
        assert_eq!(again.bulk(), first.bulk());
    }
    relay.says("HTTP 503: {\"error\": \"too much\"}; ");
    peer.answers(200, &taken(&first));
    let numbers = [first.numbers(), takes(&mut peer, 20 - first.numbers().len())].concat();
    assert!(numbers.into_iter().eq(0..20));
    relay.has_delivered(20, 0);
    relay.stops();
}

/// Each line has its own result: a line that already exists is delivered, a line that must wait is retried alone, and a line with a
/// permanent error is a dead letter.
#[test]
fn each_line_has_its_verdict() {
    let store = Store::new();
    let setup = to(&store);
    let relay = setup.start();
    says(&relay, 0..10);
    let mut peer = store.accepts();
    let (mut waited, mut numbers) = (Vec::new(), Vec::new());
    while numbers.len() < 9 {
        let request = peer.hears();
        let answer = each(&request, |number| match number {
            2 => json!({"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "there"}}),
            4 if !waited.contains(&4) => json!({"status": 429, "error": {"type": "es_rejected_execution_exception"}}),
            6 => json!({"status": 400, "error": {"type": "document_parsing_exception", "reason": "no date"}}),
            _ => json!({"status": 201}),
        });
        for number in request.numbers().into_iter().filter(|number| *number != 6) {
            if number == 4 && !waited.contains(&4) {
                waited.push(4);
            } else {
                numbers.push(number);
            }
        }
        peer.answers(200, &answer);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 7, 8, 9]);
    relay.counts("forward_pending", 0);
    assert_eq!(rejected(&relay, &setup), [(6, "400 document_parsing_exception: no date".to_owned())]);
    relay.balances(0);
    relay.stops();
}

/// A request that is rejected as a whole is divided until the bad line is found, and the other lines arrive.
#[test]
fn halves_of_a_request_find_the_line_that_is_refused() {
    let store = Store::new();
    let setup = to(&store);
    let relay = setup.start();
    says(&relay, 0..50);
    let mut peer = store.accepts();
    let mut numbers = Vec::new();
    while numbers.len() < 49 {
        let request = peer.hears();
        match request.numbers() {
            found if found.contains(&17) => peer.answers(400, "{\"error\":\"illegal\"}"),
            found => {
                // Accepted lines are not sent again.
                numbers.extend(found);
                peer.answers(200, &taken(&request));
            }
        }
    }
    assert!(numbers.into_iter().eq((0..50).filter(|number| *number != 17)));
    relay.counts("forward_pending", 0);
    assert_eq!(rejected(&relay, &setup), [(17, "HTTP 400: {\"error\":\"illegal\"}".to_owned())]);
    relay.stops();
}

/// Wrong credentials cause no loss. A new token in the file is used at once.
#[test]
fn credentials_that_are_refused_stop_it_and_cost_nothing() {
    let store = Store::new();
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    fs::write(setup.path("token"), "old\n").expect("written");
    let keys = format!("{KEYS}\ntoken-file = \"{}\"", setup.path("token").display());
    let setup = setup.forward_with(&store.url(), &keys);
    let relay = setup.start();
    says(&relay, 0..10);
    let mut peer = store.accepts();
    let request = peer.hears();
    assert_eq!(request.header("authorization"), Some("ApiKey old"));
    peer.answers(401, "{\"error\":\"unable to authenticate\"}");
    relay.says("stopped: the collector refuses every line: ");
    relay.counts("forward_stopped", 1);
    fs::write(setup.path("token"), "new\n").expect("written");
    // Requests before the reload still use the old token.
    let mut peer = loop {
        let mut peer = store.accepts();
        let request = peer.hears();
        if request.header("authorization") == Some("ApiKey new") {
            assert_eq!(request.numbers()[0], 0);
            peer.answers(200, &taken(&request));
            let rest = takes(&mut peer, 10 - request.numbers().len());
            assert_eq!(rest.last().copied().unwrap_or(9), 9);
            break peer;
        }
        peer.answers(401, "");
    };
    relay.has_delivered(10, 0);
    relay.counts("forward_stopped", 0);
    assert!(!relay.stderr().contains("old") && !relay.stderr().contains("ApiKey"), "{}", relay.stderr());
    assert!(rejected(&relay, &setup).is_empty());
    says(&relay, 10..11);
    takes(&mut peer, 1);
    relay.stops();
}

/// If every line is rejected, the mapping is probably wrong, so the forward does not move the whole spool to the dead letters.
#[test]
fn when_every_line_is_refused_no_more_are_given_up() {
    let store = Store::new();
    let setup = to(&store);
    let relay = setup.start();
    says(&relay, 0..300);
    let mut peer = store.accepts();
    let bad = json!({"status": 400, "error": {"type": "document_parsing_exception", "reason": "no"}});
    while let Some(request) = peer.next() {
        peer.answers(200, &each(&request, |_| bad.clone()));
    }
    relay.counts("forward_stopped", 1);
    relay.says("stopped: the collector refuses every line: ");
    let given_up = rejected(&relay, &setup).len();
    assert!(given_up < 100, "{given_up} lines are given up");
    let mut peer = store.accepts();
    assert!(takes(&mut peer, 300 - given_up).into_iter().eq(given_up..300));
    relay.counts("forward_pending", 0);
    assert_eq!(rejected(&relay, &setup).len(), given_up);
    relay.balances(0);
    relay.stops();
}

/// An answer that breaks off, a missing answer, and a connection that ends while idle.
#[test]
fn what_has_no_answer_is_sent_again_with_its_number() {
    let store = Store::new();
    let relay = to_with(&store, "answer-timeout = \"300ms\"").start();
    says(&relay, 0..10);
    let mut peer = store.accepts();
    let first = peer.hears().bulk();
    peer.breaks_off();
    let mut peer = store.accepts();
    assert_eq!(peer.hears().bulk()[0], first[0]);
    // The server hangs, so the relay closes the connection.
    assert!(peer.next().is_none());
    relay.says("no answer within 300ms");
    let mut peer = store.accepts();
    assert!(takes(&mut peer, 10).into_iter().eq(0..10));
    relay.has_delivered(10, 0);
    let said = relay.stderr().lines().count();
    drop(peer);
    says(&relay, 10..20);
    let mut peer = store.accepts();
    assert!(takes(&mut peer, 10).into_iter().eq(10..20));
    relay.has_delivered(20, 0);
    assert_eq!(relay.stderr().lines().count(), said, "a server may end idle connections: {}", relay.stderr());
    relay.stops();
}

/// A line keeps its `_id` for good: a server that had accepted it before the relay was killed recognizes it.
#[test]
fn a_killed_relay_sends_again_under_the_same_ids() {
    let store = Store::new();
    let setup = to(&store);
    let relay = setup.start();
    says(&relay, 0..10);
    let mut peer = store.accepts();
    let mut first = peer.hears().bulk();
    relay.signal(SIGKILL);
    assert!(peer.next().is_none());
    relay.kill();
    let relay = setup.start();
    let mut peer = store.accepts();
    let mut again = Vec::new();
    while again.len() < 10 {
        let request = peer.hears();
        again.extend(request.bulk());
        peer.answers(200, &taken(&request));
    }
    again.truncate(first.len());
    first.truncate(again.len());
    assert_eq!(again, first);
    relay.counts("forward_pending", 0);
    relay.stops();
}

/// A server by other authors: each line is there once, also after `kill -9`, and a line that the index rejects is a dead letter.
#[test]
fn a_real_server_has_each_line_once() {
    let Some(server) = Osmem::start() else { return };
    server.asks(
        "PUT",
        "/logs-docker-default",
        r#"{"mappings":{"properties":{"labels":{"properties":{"day":{"type":"date"}}}}}}"#,
    );
    let setup =
        Setup::new().listen("tcp://127.0.0.1:0").forward_with(&server.url, &format!("{KEYS}\nbatch = \"8KiB\""));
    let relay = setup.start();
    relay.door().connect().send(
        b"<14>1 2026-11-29T12:00:00Z h a - - [fields@32473 day=\"2026-11-29\"] first\n\
          <14>1 2026-11-29T12:00:00Z h a - - [fields@32473 day=\"never\"] poison\n",
    );
    relay.counts("forward_rejected_total", 1);
    relay.counts("forward_delivered_total", 1);
    let (number, why) = rejected(&relay, &setup).swap_remove(0);
    assert!(number == 1 && why.starts_with("400 mapper_parsing_exception: "), "{number} {why}");
    says(&relay, 0..3000);
    eventually("some are there", || (server.count() > 100).then_some(()));
    relay.kill();
    let relay = setup.start();
    says(&relay, 3000..3100);
    eventually("the last one is there", || (relay.metrics().sum("forward_pending") == 0).then_some(()));
    let spooled = relay.metrics().sum("spool_spooled_total");
    let all = server.search("match_all");
    assert_eq!(server.count(), all.len());
    let numbers: BTreeSet<usize> =
        all.iter().filter_map(|document| document["message"].as_str()?.parse().ok()).collect();
    assert_eq!(numbers.len() + 1, all.len(), "one that is no number, and none twice");
    assert!(numbers.contains(&3099) && spooled >= 100);
    relay.stops();
}

/// A data stream for each host; one request may write to several.
#[test]
fn a_real_server_has_an_index_for_each_host() {
    let Some(server) = Osmem::start() else { return };
    let keys = format!("{KEYS}\nindex = \"logs-{{host}}-prod\"");
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&server.url, &keys).start();
    let line = |number: usize| {
        let host = ["Node-1", "b:?/a"][number % 2];
        format!("<14>1 2026-11-29T12:00:00.{number:06}Z {host} a - - - {number}\n")
    };
    relay.door().connect().send((0..100).map(line).collect::<String>().as_bytes());
    relay.counts("forward_pending", 0);
    relay.has_delivered(100, 0);
    for (index, first) in [("logs-node-1-prod", 0), ("logs-b___a-prod", 1)] {
        let mut there: Vec<usize> = server.search_in(index, "match_all").iter().map(number).collect();
        there.sort_unstable();
        assert!(there.iter().copied().eq((first..100).step_by(2)), "{index}: {there:?}");
    }
    relay.stops();
}

fn number(document: &Value) -> usize {
    document["message"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}

/// The open request is answered first; the next request goes to the name's new address.
#[test]
fn a_name_that_moves_is_followed() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let at = |last: u8, port: u16| SocketAddr::from(([127, 0, 0, last], port));
    let old = Store::on(at(2, 0)).expect("a free port");
    let new = eventually("the same port elsewhere", || Store::on(at(3, old.address().port())));
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&names.section());
    let relay = setup.forward_with(&format!("http://{NAME}:{}", old.address().port()), KEYS).start();
    says(&relay, 0..10);
    let mut peer = old.accepts();
    let request = peer.hears();
    names.moves_to("127.0.0.3");
    let mut moved = new.accepts();
    peer.answers(200, &taken(&request));
    let rest = takes(&mut moved, 10 - request.numbers().len());
    assert!([request.numbers(), rest].concat().into_iter().eq(0..10));
    says(&relay, 10..20);
    assert!(takes(&mut moved, 10).into_iter().eq(10..20));
    relay.has_delivered(20, 0);
    relay.stops();
}

#[test]
fn a_server_with_tls_shows_who_it_is() {
    let certs = Certs::get();
    let store = Store::with_tls(certs);
    let keys = format!("{KEYS}\n{}", Certs::trusted(&store.url()));
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&store.url(), &keys).start();
    says(&relay, 0..10);
    assert!(takes(&mut store.accepts(), 10).into_iter().eq(0..10));
    relay.has_delivered(10, 0);
    relay.stops();
    let stranger = Store::with_tls(certs);
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&stranger.url(), KEYS).start();
    says(&relay, 0..1);
    let mut peer = stranger.accepts();
    assert!(peer.next().is_none(), "whom nobody vouches for gets nothing");
    relay.says("TLS with localhost: ");
    relay.kill();
}

/// A reload with a new URL: open requests are completed, and the rest goes to the new server.
#[test]
fn a_reload_moves_it() {
    let (one, other) = (Store::new(), Store::new());
    let setup = to(&one);
    let relay = setup.start();
    says(&relay, 0..10);
    let mut peer = one.accepts();
    takes(&mut peer, 10);
    relay.has_delivered(10, 0);
    to(&other).replaces(&setup);
    relay.signal(SIGHUP);
    relay.says("config: read again, and in force");
    says(&relay, 10..20);
    let mut peer = other.accepts();
    assert!(takes(&mut peer, 10).into_iter().eq(10..20));
    relay.stops();
}

/// `check --connect` tests whether the server would accept lines, and stores none.
#[test]
fn check_asks_whether_lines_would_be_taken() {
    let refused = r#"{"error":{"type":"security_exception","reason":"unable to authenticate with provided credentials"},"status":401}"#;
    for (status, body, is_good, says_so) in [
        (
            400,
            r#"{"error":{"type":"parse_exception","reason":"request body is required"},"status":400}"#,
            true,
            "the server knows us",
        ),
        (401, refused, false, "unable to authenticate with provided credentials"),
        (404, "no", false, "HTTP 404: no"),
    ] {
        let store = Store::new();
        let setup = to_with(&store, "token = \"${TOKEN}\"").variable("TOKEN", "hunter2");
        let asked = std::thread::spawn(move || {
            let mut peer = store.accepts();
            let request = peer.hears();
            peer.answers(status, body);
            (request.header("authorization").map(str::to_owned), request.body)
        });
        let output = run(setup.command().args(["check", "--connect"]));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.success(), said.contains(says_so)), (is_good, true), "{said}");
        assert_eq!(asked.join().expect("asked"), (Some("ApiKey hunter2".to_owned()), Vec::new()));
    }
    let Some(server) = Osmem::start() else { return };
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&server.url, KEYS);
    let output = run(setup.command().args(["check", "--connect"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
