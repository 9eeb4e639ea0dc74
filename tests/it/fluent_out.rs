//! The Forward protocol as an output: entries and chunks, and retries when a receiver does not acknowledge.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::elasticsearch::rejected;
use crate::support::collector::LOCAL;
use crate::support::fluent::{Value, digest};
use crate::support::http::{get, status};
use crate::support::program::Program;
use crate::support::python::python_with;
use crate::support::{
    Certs, Collector, Docker, Flow, FluentReceiver, Format, Framing, Held, ReceiverPeer, Setup, eventually, says,
};

const COUNTED: &str = "framing = \"octet-counting\"";

fn to(receiver: &FluentReceiver, keys: &str) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(&receiver.url(), keys)
}

fn each_once(mut numbers: Vec<usize>, count: usize) {
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..count), "{numbers:?}");
}

#[test]
fn lines_are_what_docker_s_driver_would_send() {
    let receiver = FluentReceiver::new();
    let relay = to(&receiver, "tag = \"docker.{name}\"").start();
    relay.door().connect().send(
        b"<27>1 2026-11-29T12:00:00.123456+01:00 host1 proj-web-1 0123456789ab - \
          [docker@32473 image=\"registry:5000/team/web:1.2\" name=\"proj-web-1\" id=\"0123456789ab\"]\
          [fields@32473 com.example.team=\"shop\" log=\"x\"][json@32473 fields=\"{\\\"took\\\":12}\"]\
          [logferry@32473 source=\"stderr\" nanoseconds=\"789\"] it\x1b broke\n\
          <165>1 2026-11-29T11:00:00Z host2 cron 812 ID7 [other@1 a=\"b\"] run\n",
    );
    let mut peer = receiver.accepts();
    let (mut chunks, mut count) = (Vec::new(), 0);
    while count < 2 {
        let chunk = peer.hears();
        count += chunk.entries.len();
        chunks.push(chunk);
    }
    let [first, second] = &chunks[..] else { panic!("{chunks:?}") };
    let record = |pairs: &[(&str, Value)]| -> Vec<(String, Value)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
    };
    assert_eq!(first.tag, "docker.proj-web-1");
    assert_eq!(
        first.entries,
        [(
            Value::Time(1_795_950_000, 123_456_789),
            record(&[
                ("log", "it\u{1b} broke".into()),
                ("container_name", "/proj-web-1".into()),
                ("container_id", "0123456789ab".into()),
                ("source", "stderr".into()),
                ("image_name", "registry:5000/team/web:1.2".into()),
                ("host", "host1".into()),
                ("com.example.team", "shop".into()),
                ("log_", "x".into()),
                ("took", Value::Int(12)),
            ])
        )]
    );
    assert_eq!(second.tag, "docker.cron");
    assert_eq!(
        second.entries,
        [(
            Value::Time(1_795_950_000, 0),
            record(&[
                ("log", "run".into()),
                ("host", "host2".into()),
                ("facility", "local4".into()),
                ("severity", "notice".into()),
                ("app_name", "cron".into()),
                ("proc_id", "812".into()),
                ("msg_id", "ID7".into()),
                ("structured_data", "[other@1 a=\"b\"]".into()),
            ])
        )]
    );
    // A chunk counts as delivered only after its acknowledgement. Acknowledgements may come in any order.
    assert_eq!(relay.metrics().sum("forward_delivered_total"), 0);
    peer.acknowledges(second);
    peer.acknowledges(first);
    relay.has_delivered(2, 0);
    relay.stops();
}

/// Unacknowledged chunks are sent again unchanged, although new lines have come.
#[test]
fn what_has_no_answer_comes_again_under_its_name() {
    let receiver = FluentReceiver::new();
    let relay = to(&receiver, "").start();
    says(&relay, 0..20);
    relay.has_spooled(20);
    let mut peer = receiver.accepts();
    let (mut chunks, mut heard, mut acknowledged) = (Vec::<crate::support::Chunk>::new(), 0, 0);
    while heard < 20 {
        let chunk = peer.hears();
        heard += chunk.entries.len();
        // Acknowledge the oldest chunk, because the window may be full.
        if chunks.len() >= 2 {
            let first = chunks.remove(0);
            peer.acknowledges(&first);
            acknowledged += first.entries.len() as u64;
        }
        chunks.push(chunk);
    }
    relay.counts("forward_delivered_total", acknowledged);
    drop(peer);
    says(&relay, 20..40);
    relay.has_spooled(40);
    let mut peer = receiver.accepts();
    let again: Vec<_> = chunks.iter().map(|_| peer.hears()).collect();
    assert_eq!(again, chunks);
    again.iter().for_each(|chunk| peer.acknowledges(chunk));
    peer.takes(20);
    relay.has_delivered(40, 0);
    relay.stops();
}

#[test]
fn a_receiver_that_never_answers_is_left() {
    let receiver = FluentReceiver::new();
    let relay = to(&receiver, "dead-after = \"1s\"").start();
    says(&relay, 0..1);
    let mut peer = receiver.accepts();
    let chunk = peer.hears();
    let mut next = receiver.accepts();
    assert_eq!(next.hears(), chunk);
    relay.fails_because("the collector has not answered for");
    assert_eq!(peer.next(), None);
    next.acknowledges(&chunk);
    relay.has_delivered(1, 0);
    relay.stops();
}

/// At most a window of lines is duplicated, and none is lost.
#[test]
fn a_relay_that_is_killed_goes_on_where_it_was() {
    let receiver = FluentReceiver::new();
    let setup = to(&receiver, "batch = \"4KiB\"");
    let relay = setup.start();
    says(&relay, 0..2000);
    relay.has_spooled(2000);
    let mut peer = receiver.accepts();
    let mut numbers = peer.takes(500);
    // Some chunks are in flight without an acknowledgement.
    let unanswered = peer.hears().numbers();
    let delivered = relay.metrics().sum("forward_delivered_total");
    relay.kill();
    while let Some(chunk) = peer.next() {
        numbers.extend(chunk.numbers());
    }
    let before = numbers.len() + unanswered.len();
    numbers.extend(unanswered);
    let relay = setup.start();
    let mut peer = receiver.accepts();
    while numbers.iter().collect::<BTreeSet<_>>().len() < 2000 || !numbers.contains(&1999) {
        let chunk = peer.hears();
        numbers.extend(chunk.numbers());
        peer.acknowledges(&chunk);
    }
    // The cursor on disk may lag by a second.
    assert!(
        numbers.len() - 2000 <= before,
        "{} came twice of {before}; {delivered} were delivered",
        numbers.len() - 2000
    );
    numbers.sort_unstable();
    numbers.dedup();
    each_once(numbers, 2000);
    relay.counts("forward_pending", 0);
    relay.stops();
}

/// A receiver that is killed repeatedly: each line arrives at the collector behind it.
#[test]
fn a_receiver_that_is_killed_costs_nothing() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let port = Held::on(&[LOCAL]);
    let receiver =
        Setup::new().listen(&format!("fluent://127.0.0.1:{}", port.port())).forward_with(&collector.url(), COUNTED);
    let mut running = receiver.start();
    let relay = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_with(&format!("fluent://127.0.0.1:{}", port.port()), "")
        .start();
    let flow = Flow::into(relay.door());
    for _ in 0..4 {
        flow.goes_on(200);
        running.kill();
        flow.goes_on(50);
        running = receiver.start();
    }
    let sent = flow.ends();
    relay.has_delivered(sent, 0);
    let arrived = || collector.numbers().into_iter().collect::<BTreeSet<_>>();
    eventually("all of it is at the collector", || (arrived().len() == sent).then_some(()));
    running.stops();
    relay.stops();
}

/// The other lines arrive, and that line is a dead letter.
#[test]
fn a_line_that_ends_each_connection_is_given_up() {
    let receiver = FluentReceiver::new();
    let setup = to(&receiver, "");
    let relay = setup.start();
    says(&relay, 0..300);
    relay.has_spooled(300);
    let mut numbers = BTreeSet::new();
    let mut peer = receiver.accepts();
    while numbers.len() < 299 || relay.metrics().sum("forward_pending") > 0 {
        match peer.next() {
            Some(chunk) if !chunk.numbers().contains(&177) => {
                numbers.extend(chunk.numbers());
                peer.acknowledges(&chunk);
            }
            _ => {
                drop(peer);
                if numbers.len() == 299 {
                    break;
                }
                peer = receiver.accepts();
            }
        }
    }
    relay.counts("forward_pending", 0);
    assert!(numbers.iter().copied().eq((0..300).filter(|number| *number != 177)));
    let letters = rejected(&relay, &setup);
    assert_eq!(letters, [(177, "the collector ends each connection on which it gets this line".to_owned())]);
    relay.balances(0);
    relay.stops();
}

// --- authentication

const KEY: &str = "hunter2";
const PASSWORD: &str = "s3:cret";

/// Files with the shared key, users, and a password, and a wrong key.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        let keys = Self(TempDir::new().expect("a directory"));
        for (name, text) in [("key", KEY), ("users", "alice:s3:cret"), ("password", PASSWORD), ("wrong", "hunter3")] {
            fs::write(keys.path(name), format!("{text}\n")).expect("written");
        }
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        format!("\"{}\"", self.path(name).display())
    }
}

/// By TCP and by TLS.
#[test]
fn it_shows_a_key_and_a_user() {
    let (keys, collector) = (Keys::new(), Collector::tcp(Framing::OctetCounting));
    let asks = format!("shared-key-file = {}\nusers-file = {}\n", keys.file("key"), keys.file("users"));
    let receiver = Setup::new()
        .listen_with("fluent://127.0.0.1:0", &asks)
        .listen_with("fluent+tls://127.0.0.1:0", &(Certs::get().listen() + &asks))
        .forward_with(&collector.url(), COUNTED)
        .start();
    let [plain, tls] = receiver.doors() else { panic!("{:?}", receiver.doors()) };
    let shows = format!("user = \"alice\"\npassword-file = {}\nshared-key", keys.file("password"));
    let relay = Setup::new()
        .variable("FORWARD_KEY", KEY)
        .listen("tcp://127.0.0.1:0")
        .forward_with(
            &format!("fluent://127.0.0.1:{}", plain.port()),
            &format!("name = \"plain\"\n{shows} = \"${{FORWARD_KEY}}\""),
        )
        .forward_with(
            &format!("fluent+tls://localhost:{}", tls.port()),
            &format!("name = \"tls\"\n{shows}-file = {}\nca = \"{}\"", keys.file("key"), Certs::get().path("ca.pem")),
        )
        .start();
    says(&relay, 0..50);
    relay.has_delivered(50, 0);
    eventually("each arrives by both ways", || (collector.count() == 100).then_some(()));
    let shown = [get(&relay, "/status").body, get(&relay, "/metrics").body, relay.stops().stderr].concat();
    assert!(!shown.contains(KEY) && !shown.contains(PASSWORD), "{shown}");
    receiver.stops();
}

/// A wrong key is reported and costs no line; the corrected file is used at once.
#[test]
fn a_wrong_key_is_said() {
    let (keys, collector) = (Keys::new(), Collector::tcp(Framing::OctetCounting));
    let asks = format!("shared-key-file = {}", keys.file("key"));
    let receiver =
        Setup::new().listen_with("fluent://127.0.0.1:0", &asks).forward_with(&collector.url(), COUNTED).start();
    let url = format!("fluent://127.0.0.1:{}", receiver.door().port());
    let forward = |keys: &str| Setup::new().listen("tcp://127.0.0.1:0").forward_with(&url, keys).start();
    let relay = forward(&format!("shared-key-file = {}", keys.file("wrong")));
    says(&relay, 0..5);
    relay.says("the collector refuses our shared key, user or password: shared_key mismatch");
    fs::write(keys.path("wrong"), KEY).expect("written");
    relay.has_delivered(5, 0);
    relay.stops();
    let relay = forward("");
    says(&relay, 5..10);
    relay.says("the collector asks for a shared key; write `shared-key-file`");
    relay.fails_because("the collector asks for a shared key");
    assert_eq!(relay.metrics().sum("forward_delivered_total"), 0);
    relay.stops();
    assert_eq!(collector.count(), 5);
    receiver.stops();
}

/// A receiver without the key gets no lines.
#[test]
fn the_receiver_has_to_know_the_key_too() {
    let (keys, receiver) = (Keys::new(), FluentReceiver::new());
    let relay = to(&receiver, &format!("shared-key-file = {}", keys.file("key"))).start();
    says(&relay, 0..1);
    let greets = |peer: &mut ReceiverPeer, key: &str| {
        let options = [("nonce", "0123456789abcdef"), ("auth", "")].map(|(name, text)| (name.into(), text.into()));
        peer.says(&Value::Array(vec!["HELO".into(), Value::Map(options.into())]));
        let Some(Value::Array(ping)) = peer.next_value() else { panic!("no PING") };
        let [name, host, salt, shown, user, password] = &ping[..] else { panic!("{ping:?}") };
        assert_eq!((name.text(), user.text(), password.text()), (&b"PING"[..], &b""[..], &b""[..]));
        let nonce = b"0123456789abcdef";
        assert_eq!(shown.text(), digest(&[salt.text(), host.text(), nonce, KEY.as_bytes()]).as_bytes());
        let ours = digest(&[salt.text(), b"fluentd-1", nonce, key.as_bytes()]);
        let pong = ["PONG".into(), Value::Bool(true), "".into(), "fluentd-1".into(), (&*ours).into()];
        peer.says(&Value::Array(pong.into()));
        salt.clone()
    };
    let mut impostor = receiver.accepts();
    let first = greets(&mut impostor, "hunter3");
    relay.says("the collector does not know the shared key itself, and gets nothing");
    assert_eq!(impostor.next_value(), None);
    let mut peer = receiver.accepts();
    assert_ne!(greets(&mut peer, KEY), first, "a salt is never the same again");
    peer.takes(1);
    relay.has_delivered(1, 0);
    relay.stops();
}

// --- an independent reader

/// Accepts chunks as Fluentd does, and prints tag, seconds, nanoseconds and record of each entry.
const READER: &str = r#"
import json, socket, struct, msgpack
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
stream, _ = listener.accept()
hook = lambda code, data: (code,) + struct.unpack(">II", data)
arrays = msgpack.Unpacker()
while True:
    data = stream.recv(65536)
    if not data:
        break
    arrays.feed(data)
    for tag, entries, option in arrays:
        found = msgpack.Unpacker(ext_hook=hook)
        found.feed(entries)
        found = list(found)
        assert option["size"] == len(found) and isinstance(entries, bytes), option
        for (code, seconds, nanoseconds), record in found:
            assert code == 0
            print(json.dumps([tag, seconds, nanoseconds, record]), flush=True)
        stream.sendall(msgpack.packb({"ack": option["chunk"]}))
"#;

#[test]
fn another_reader_of_msgpack_reads_it() {
    let Some(python) = python_with("fluent-logger", "msgpack") else { return };
    let reader = Program::start(Command::new(python).args(["-c", READER]));
    let said = || String::from_utf8(reader.stdout()).expect("UTF-8");
    let port = eventually("it listens", || said().lines().next()?.parse::<u16>().ok());
    let forward = format!("fluent://127.0.0.1:{port}");
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&forward, "tag = \"docker\"").start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    let texts = ["plain".to_owned(), "\u{e9}\t\"".to_owned(), "x".repeat(300), "y".repeat(60_000)];
    texts.iter().for_each(|text| wire.says(&container, text.as_bytes()));
    relay.has_delivered(texts.len(), 0);
    let read = || said().lines().skip(1).map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Json>>();
    let read = eventually("all are read", || Some(read()).filter(|read| read.len() >= texts.len()));
    for (found, text) in read.iter().zip(&texts) {
        assert!(found[0] == "docker" && found[3]["log"] == text.as_str(), "not {} bytes", text.len());
        assert!(found[1].as_u64().is_some_and(|seconds| seconds > 1_000_000_000));
        assert!(found[3]["container_name"].as_str().is_some_and(|name| name.starts_with('/')), "{found}");
    }
    relay.stops();
}

/// `check --connect` finds problems before any line is sent.
#[test]
fn check_connect_greets() {
    let keys = Keys::new();
    let asks = format!("shared-key-file = {}", keys.file("key"));
    let receiver = Setup::new().listen_with("fluent://127.0.0.1:0", &asks).forward("file:///dev/null").start();
    let url = format!("fluent://127.0.0.1:{}", receiver.door().port());
    for (name, expected) in [("key", "connected; the shared key is known there"), ("wrong", "shared_key mismatch")] {
        let setup = Setup::new()
            .listen("tcp://127.0.0.1:0")
            .forward_with(&url, &format!("shared-key-file = {}", keys.file(name)));
        let output = crate::support::run(setup.command().args(["check", "--connect"]));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(status(&receiver)["forwards"].as_array().map(Vec::len), Some(1));
    receiver.stops();
}
