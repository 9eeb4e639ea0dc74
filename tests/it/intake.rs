//! Changes to a line before it is spooled: secrets that must never reach the disk are masked, lines are sampled, and repeated lines are
//! merged.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::program::SIGTERM;
use crate::support::{Collector, Docker, Door, Format, Framing, RelpPeer, Setup};

const PIECE: usize = 16 * 1024;

fn container(name: &str) -> Docker {
    Docker::new(Format::Rfc5424Micro, name)
}

/// How often these bytes occur in the files of a directory.
fn found(dir: &Path, bytes: &[u8]) -> usize {
    let files = fs::read_dir(dir).expect("a spool").flatten().map(|entry| fs::read(entry.path()).expect("a file"));
    files.map(|file| memchr::memmem::find_iter(&file, bytes).count()).sum()
}

/// Sends a secret by each input, and searches the spool's files for it.
#[track_caller]
fn check(at: &str, is_on_disk: bool) {
    let away = Collector::tcp_away(Framing::OctetCounting);
    let masks = format!(
        "[[mask]]\npattern = 'password=\\S+'\nwith = \"password=***\"\nat = \"{at}\"\n\
         [[mask]]\nknown = \"private-key\"\nat = \"{at}\""
    );
    let relay = Setup::new()
        .section(&format!("[syslog]\nrejoin = \"60KiB\"\n{masks}"))
        .listen("udp://127.0.0.1:0")
        .listen("relp://127.0.0.1:0")
        .listen("tcp://127.0.0.1:0")
        .listen_with("tcp://127.0.0.1:0", r"multiline = '^\d{4}-'")
        .listen("gelf+udp://127.0.0.1:0")
        .forward(&away.url());
    let (setup, relay) = (relay.dir().clone(), relay.start());
    let doors = relay.doors();
    doors[0].connect().says(&container("udp"), b"password=hunter2-udp ok");
    let mut peer = RelpPeer::opened(&doors[1]);
    peer.says(2, "syslog", container("relp").says(b"password=hunter2-relp ok").trim_ascii_end());
    assert!(peer.frame().expect("an answer").is_ok());
    // The secret begins in the first piece and ends in the second.
    let start = "password=hunter2-";
    let first = "x".repeat(PIECE - start.len() - 1) + " " + start;
    let mut pieces = doors[2].connect();
    pieces.says(&container("pieces"), first.as_bytes());
    pieces.says(&container("pieces"), b"pieces ok");
    let mut lines = doors[3].connect();
    for text in ["2026-11-20 a key:", "-----BEGIN RSA PRIVATE KEY-----", "hunter2-key", "-----END RSA PRIVATE KEY-----"]
    {
        lines.says(&container("lines"), text.as_bytes());
    }
    let Door::Udp(gelf) = &doors[4] else { panic!("a door for datagrams") };
    let field = br#"{"version":"1.1","host":"h","short_message":"login","_query":"password=hunter2-field","_n":7}"#;
    UdpSocket::bind("127.0.0.1:0").expect("a socket").send_to(field, gelf).expect("it is sent");
    relay.has_spooled(5);
    relay.counts("syslog_reassembly_pending", 0);
    let spool = setup.path().join("spool");
    for secret in ["udp", "relp", "pieces", "key", "field"].map(|what| format!("hunter2-{what}")) {
        assert_eq!(found(&spool, secret.as_bytes()) > 0, is_on_disk, "{at}: {secret}");
    }
    let hidden = [found(&spool, b"password=***"), found(&spool, b"a key:\n***")];
    assert_eq!(hidden, if is_on_disk { [0, 0] } else { [4, 1] }, "{at}");
    assert_eq!(relay.metrics().sum("listen_masked_total"), if is_on_disk { 0 } else { 5 });
    relay.balances(0);
    relay.stops();
}

#[test]
fn secrets_are_hidden_before_they_are_on_the_disk() {
    check("intake", false);
}

/// By default secrets are in the spool, and each forward masks them.
#[test]
fn a_mask_of_all_forwards_changes_nothing_in_the_spool() {
    check("forward", true);
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = Setup::new()
        .section("[[mask]]\npattern = 'password=\\S+'")
        .listen("tcp://127.0.0.1:0")
        .forward_with(&collector.url(), "framing = \"octet-counting\"\nmask = { known = \"email\" }")
        .start();
    relay.door().connect().says(&container("web"), b"password=hunter2 of a@example.com");
    assert_eq!(collector.lines(1)[0].message, b"*** of ***");
    relay.has_delivered(1, 0);
    assert_eq!(relay.metrics().sum("forward_masked_total"), 1);
    relay.stops();
}

/// A rule for the text tests the complete message, and a dropped message counts once. Its further lines count as joined.
#[test]
fn a_rule_asks_a_message_that_is_whole() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = Setup::new()
        .section("[[drop]]\nmessage = \"*of no use*\"")
        .listen_with("tcp://127.0.0.1:0", "multiline = \"indented\"")
        .forward_with(&collector.url(), "framing = \"octet-counting\"")
        .start();
    let mut wire = relay.door().connect();
    for text in ["one", " of no use", " at all", "two", " of use", "three"] {
        wire.says(&container("web"), text.as_bytes());
    }
    let texts: Vec<_> = collector.lines(2).into_iter().map(|line| line.message).collect();
    assert_eq!(texts, [&b"two\n of use"[..], b"three"]);
    let metrics = relay.metrics();
    assert_eq!((metrics.sum("syslog_joined_total"), metrics.with("spool_dropped_total", "reason=\"rule\"")), (3, 1));
    relay.balances(0);
    relay.stops();
}

const JSON: &str = "framing = \"octet-counting\"\nformat = \"json\"";

/// Container, text and fields of the lines that have arrived.
fn arrived(collector: &Collector, count: usize) -> Vec<(String, String, Value)> {
    let read = |frame: &Vec<u8>| serde_json::from_slice::<Value>(frame).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let frames: Vec<Value> = collector.frames(count).iter().map(read).collect();
    frames.iter().map(|line| (text(&line["app_name"]), text(&line["message"]), line["fields"].clone())).collect()
}

/// Each container has a separate count, and its first line is kept. RELP's lines are all kept.
#[test]
fn one_of_so_many_is_kept_and_says_so() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = Setup::new()
        .section("[[drop]]\nmessage = \"GET /never\"\n[[sample]]\none-of = 10\nmessage = \"GET *\"")
        .listen("tcp://127.0.0.1:0")
        .listen("relp://127.0.0.1:0")
        .forward_with(&collector.url(), JSON)
        .start();
    let mut web = relay.doors()[0].connect();
    web.says(&container("web"), b"GET /never");
    (0..25).for_each(|number| web.says(&container("web"), format!("GET /{number}").as_bytes()));
    web.says(&container("api"), b"GET /api");
    web.says(&container("web"), b"POST /");
    relay.counts("listen_received_total", 28);
    let mut peer = RelpPeer::opened(&relay.doors()[1]);
    for number in 2..5 {
        peer.says(number, "syslog", container("relp").says(b"GET /relp").trim_ascii_end());
        assert!(peer.frame().expect("an answer").is_ok());
    }
    let lines: Vec<String> =
        arrived(&collector, 8).into_iter().map(|(app, text, fields)| format!("{app} {text} {fields}")).collect();
    let rate = "{\"sample_rate\":10}";
    let expected = [
        format!("web GET /0 {rate}"),
        format!("web GET /10 {rate}"),
        format!("web GET /20 {rate}"),
        format!("api GET /api {rate}"),
        "web POST / null".to_owned(),
    ];
    assert_eq!(lines[..5], expected);
    assert!(lines[5..].iter().all(|line| line == "relp GET /relp null"), "{lines:?}");
    let metrics = relay.metrics();
    let dropped = ["sample", "rule"].map(|why| metrics.with("spool_dropped_total", &format!("reason=\"{why}\"")));
    assert_eq!(dropped, [22, 1]);
    relay.counts("forward_pending", 0);
    relay.balances(0);
    relay.stops();
}

/// The first line is sent at once. The line that stands for the repeats is written when another text comes, and when the relay stops. The
/// later stages process it like any other line.
#[test]
fn equal_lines_become_one_with_a_count() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let mut relay = Setup::new()
        .section("[[mask]]\npattern = \"hunter2\"\nat = \"intake\"")
        .listen_with("tcp://127.0.0.1:0", "repeat = \"1h\"")
        .forward_with(&collector.url(), JSON)
        .start();
    let mut wire = relay.door().connect();
    for (name, text) in
        [("web", "hunter2"), ("web", "hunter2"), ("api", "hunter2"), ("web", "hunter2"), ("web", "b"), ("web", "b")]
    {
        wire.says(&container(name), text.as_bytes());
    }
    let line = |app: &str, text: &str, fields: Value| (app.to_owned(), text.to_owned(), fields);
    let mut expected = vec![
        line("web", "***", Value::Null),
        line("api", "***", Value::Null),
        line("web", "***", json!({"repeated": 2})),
        line("web", "b", Value::Null),
    ];
    assert_eq!(arrived(&collector, 4), expected);
    relay.counts("listen_repeat_pending", 1);
    relay.balances(0);
    assert_eq!(relay.metrics().with("spool_dropped_total", "reason=\"repeat\""), 1);
    relay.signal(SIGTERM);
    assert!(relay.ends().success());
    // A single repeat is written as a plain line.
    expected.push(line("web", "b", Value::Null));
    assert_eq!(arrived(&collector, 5), expected);
}

#[test]
fn a_run_of_equal_lines_ends_with_its_time() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay =
        Setup::new().listen_with("tcp://127.0.0.1:0", "repeat = \"1s\"").forward_with(&collector.url(), JSON).start();
    // In one write, so that the lines are read at once.
    relay.door().connect().send(&container("web").says(b"a").repeat(5));
    let lines = arrived(&collector, 2);
    assert_eq!([&lines[0].2, &lines[1].2], [&Value::Null, &json!({"repeated": 4})]);
    relay.counts("listen_repeat_pending", 0);
    relay.counts("forward_pending", 0);
    relay.balances(0);
    relay.stops();
}
