//! `logferry probe --at NAME`: reading lines back from a forward's destination, and the errors if that fails.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::probe::{has_passed, outcome, url};
use crate::support::{NatsServer, Osmem, Program, Relay, Setup, Store, StorePeer, StoreRequest, run, says};

fn probe(setup: &Setup, relay: &Relay, count: u32, rate: u32) -> Command {
    let mut command = setup.command();
    command.args(["probe", "--json", "--at", "central", "--from", &url(relay.door()), "--count", &count.to_string()]);
    command.args(["--rate", &rate.to_string()]);
    command
}

/// The exit code and the one-line error of a probe that does not start.
#[track_caller]
fn refused(setup: &Setup, at: &str) -> (Option<i32>, String) {
    let mut command = setup.command();
    let output = run(command.args(["probe", "--from", "tcp://127.0.0.1:1", "--at", at]));
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said.lines().count(), 1, "{said}");
    (output.status.code(), said)
}

/// More lines than one answer holds, among other lines.
#[test]
fn lines_are_read_back_from_elasticsearch() {
    let Some(server) = Osmem::start() else { return };
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let setup = setup.forward_with(&server.url, "api = \"elasticsearch\"\nbatch-wait = \"50ms\"");
    let relay = setup.start();
    // The index does not exist before the first line.
    let report = has_passed(&mut Program::start(&mut probe(&setup, &relay, 6000, 4000)), 6000);
    assert_eq!(report["duplicates"], 0, "{report}");
    says(&relay, 0..100);
    let report = has_passed(&mut Program::start(&mut probe(&setup, &relay, 100, 4000)), 100);
    assert_eq!(report["duplicates"], 0, "{report}");
    relay.stops();
}

/// The server is killed while the probe reads lines back.
#[test]
fn lines_are_read_back_from_jetstream() {
    let Some(mut server) = NatsServer::start("authorization { token: \"hunter2-token\" }") else { return };
    let login = |_: &str| json!({"auth_token": "hunter2-token"});
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    fs::write(setup.path("token"), "hunter2-token\n").expect("written");
    let setup = setup.forward_with(&server.url(), "token-file = \"{dir}/token\"\nsubject = \"logs.{host}.app-{app}\"");
    let (code, said) = refused(&setup, "central");
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("no JetStream stream takes the subjects logs.*.*; make one, or correct `subject`"), "{said}");
    server.client_as(login).makes_stream("logs.>", json!({}));
    let relay = setup.start();
    says(&relay, 0..10);
    let mut probing = Program::start(&mut probe(&setup, &relay, 8000, 2000));
    relay.counts_up_to("forward_delivered_total", 3000);
    // Another client's message, longer than any answer.
    server.client_as(login).asks("logs.other", &json!("x".repeat(100_000)));
    server.kill();
    relay.counts_up_to("forward_connect_failures_total", 1);
    server.starts_again();
    let report = has_passed(&mut probing, 8000);
    assert_eq!((&report["duplicates"], &report["out_of_order"]), (&json!(0), &json!(0)), "{report}");
    assert!(!probing.stderr().contains("hunter2"), "{}", probing.stderr());
    relay.stops();
}

/// A user with permission to publish lines, but not to use the API.
#[test]
fn who_may_not_ask_jetstream_is_told() {
    let conf = "authorization { users: [ { user: relay, password: p, permissions: { publish: [\"logs.>\"], subscribe: [\"_INBOX.>\"] } } ] }";
    let Some(server) = NatsServer::start(conf) else { return };
    let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("P", "p");
    let setup = setup.forward_with(&server.url(), "user = \"relay\"\npassword = \"${P}\"");
    let (code, said) = refused(&setup, "central");
    assert!(code == Some(78) && said.contains("allow it to publish to $JS.API.>"), "{said}");
}

/// A scripted Loki: entries with their stream's labels, time and text.
struct Loki {
    entries: Arc<Mutex<Vec<(Value, i64, String)>>>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Loki {
    /// A Loki that has lost one line, and has another line in two streams.
    fn start(store: Store) -> Self {
        let (entries, is_over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (kept, is_done) = (entries.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let mut peers = Vec::new();
            while let Some(mut peer) = store.accepts_unless(&is_done) {
                let kept = kept.clone();
                peers.push(std::thread::spawn(move || {
                    while let Some(request) = peer.next() {
                        answer(&kept, &request, &mut peer);
                    }
                }));
            }
            peers.into_iter().for_each(|peer| peer.join().expect("nothing that Loki would refuse"));
        });
        Self { entries, is_over, thread }
    }

    fn ends(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("nothing that Loki would refuse");
    }
}

fn answer(kept: &Mutex<Vec<(Value, i64, String)>>, request: &StoreRequest, peer: &mut StorePeer) {
    assert_eq!(request.header("authorization"), Some("Bearer hunter2-token"));
    assert_eq!(request.header("x-scope-orgid"), Some("team-a"));
    let mut kept = kept.lock();
    let Some(query) = request.target.strip_prefix("GET /loki/api/v1/query_range?") else {
        assert_eq!(request.target, "POST /loki/api/v1/push");
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        for stream in body["streams"].as_array().expect("streams") {
            for value in stream["values"].as_array().expect("values") {
                let time = value[0].as_str().and_then(|time| time.parse().ok()).expect("a time");
                let text = value[1].as_str().expect("a text");
                if text.contains(":8:") {
                    kept.push((json!({"job": "logferry", "copy": "1"}), time, text.to_owned()));
                }
                if !text.contains(":7:") {
                    kept.push((stream["stream"].clone(), time, text.to_owned()));
                }
            }
        }
        return peer.answers(204, "");
    };
    let of = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.unwrap_or_else(|| panic!("no {name}: {query}")).to_owned()
    };
    let number = |name: &str| of(name).parse::<i64>().expect("a number");
    assert_eq!(of("direction"), "forward");
    // Loki's limits: max_entries_limit_per_query, max_query_length.
    let (start, end, limit) = (number("start"), number("end"), number("limit") as usize);
    assert!(limit <= 5000 && start < end && end - start < 721 * 3600 * 1_000_000_000, "{query}");
    let asked = of("query");
    let mark = asked.strip_prefix("%7Bjob%3D~%22.%2B%22%7D%20%7C%3D%20%22").and_then(|rest| rest.strip_suffix("%22"));
    let mark = mark.unwrap_or_else(|| panic!("{asked}"));
    kept.sort_by_key(|(_, time, _)| *time);
    let found = kept.iter().filter(|(_, time, text)| (start..end).contains(time) && text.contains(mark)).take(limit);
    // The newest stream first, because Loki guarantees no order of streams.
    let mut streams: Vec<Value> = Vec::new();
    for (labels, time, text) in found {
        let value = json!([time.to_string(), text]);
        match streams.iter_mut().find(|stream| stream["stream"] == *labels) {
            Some(stream) => stream["values"].as_array_mut().expect("a list").push(value),
            None => streams.insert(0, json!({"stream": labels, "values": [value]})),
        }
    }
    let answer = json!({"status": "success", "data": {"resultType": "streams", "result": streams}});
    peer.answers(200, &answer.to_string());
}

#[test]
fn lines_are_read_back_from_loki_and_what_is_lost_or_twice_is_told() {
    let store = Store::new();
    let keys = "api = \"loki\"\nbatch-wait = \"50ms\"\ntoken = \"${TOKEN}\"\nheaders = [\"X-Scope-OrgID: team-a\"]";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("TOKEN", "hunter2-token");
    let setup = setup.forward_with(&store.url(), keys);
    let loki = Loki::start(store);
    let relay = setup.start();
    let mut probing = Program::start(probe(&setup, &relay, 6000, 4000).args(["--wait", "3s"]));
    let (code, report) = outcome(&mut probing);
    assert_eq!(code, Some(1), "{report}");
    let found = [&report["arrived"], &report["lost"], &report["duplicates"], &report["missing"]];
    assert_eq!(found, [&json!(5999), &json!(1), &json!(1), &json!([[7, 7]])], "{report}");
    assert_eq!(loki.entries.lock().len(), 6000);
    relay.stops();
    loki.ends();
}

/// The probe reports it before it sends anything, and hides the token that some servers repeat.
#[test]
fn a_store_that_does_not_let_us_look_is_said() {
    for (api, status, body, says_so) in [
        ("loki", 401, "who is hunter2-token?", "HTTP 401: who is ***?"),
        ("elasticsearch", 403, "no hunter2-token", "HTTP 403: no ***"),
        ("elasticsearch", 200, "<html>", "the answer has no lines: HTTP 200: <html>"),
        ("loki", 0, "", "no answer within 1s"),
    ] {
        let store = Store::new();
        let keys = format!("api = \"{api}\"\ntoken = \"${{TOKEN}}\"\nanswer-timeout = \"1s\"");
        let setup = Setup::new().listen("tcp://127.0.0.1:0").variable("TOKEN", "hunter2-token");
        let setup = setup.forward_with(&store.url(), &keys);
        let answering = std::thread::spawn(move || {
            let mut peer = store.accepts();
            peer.hears();
            if status > 0 {
                peer.answers(status, body);
            }
            // Keep the connection until the probe closes it.
            assert!(peer.next().is_none());
        });
        let (code, said) = refused(&setup, "central");
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("probe: --at: the messages cannot be read back: ") && said.contains(says_so), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        answering.join().expect("asked once");
    }
}

#[test]
fn a_name_that_leads_nowhere_is_one_clear_line() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward("tcp://127.0.0.1:1");
    let check = |setup: &Setup, at: &str, expected: Option<i32>, says_so: &str| {
        let (code, said) = refused(setup, at);
        assert_eq!(code, expected, "{said}");
        assert!(said.contains(says_so), "{said}");
    };
    check(
        &setup,
        "centrall",
        Some(64),
        "--at centrall: it is no URL, and no [[forward]] has this `name`; there are: central",
    );
    check(&setup, "central", Some(64), "nothing can be read back from tcp://127.0.0.1:1");
    let away = Store::new().url();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&away, "api = \"loki\"");
    check(&setup, "central", Some(78), "Connection refused");
    let mut command = setup.command();
    let missing = setup.path("missing.toml");
    let output =
        run(command.args(["probe", "--from", "tcp://127.0.0.1:1", "--at", "central", "--config"]).arg(&missing));
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("probe: --at central is no URL and so the name of a forward, but"), "{said}");
    assert!(said.contains("missing.toml"), "{said}");
}
