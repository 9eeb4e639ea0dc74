//! Multi-line messages, joined by indentation or by a pattern: stack traces of containers with a message per line, and streams of other
//! programs without a priority. Lines of different containers are never joined, and no line is lost or counted twice.

use crate::support::collector::LOCAL;
use crate::support::program::{SIGHUP, SIGTERM};
use crate::support::{Collector, Docker, Format, Framing, Held, Relay, RelpPeer, Setup, eventually, run};

const COUNTED: &str = "framing = \"octet-counting\"";
const INDENTED: &str = "multiline = \"indented\"";
const DATED: &str = r"multiline = '^\d{4}-\d\d-\d\d '";

fn container(name: &str) -> Docker {
    Docker::new(Format::Rfc5424Micro, name)
}

/// The lines that have arrived, sorted by text, each after its container's name.
fn texts(collector: &Collector, count: usize) -> Vec<String> {
    let mut texts: Vec<String> = collector
        .lines(count)
        .iter()
        .map(|line| format!("{}: {}", line.app, String::from_utf8_lossy(&line.message)))
        .collect();
    texts.sort();
    texts
}

fn joined(relay: &Relay) -> u64 {
    relay.metrics().sum("syslog_joined_total")
}

#[test]
fn a_stack_trace_of_a_container_is_one_message() {
    for scheme in ["tcp", "udp"] {
        let collector = Collector::tcp(Framing::OctetCounting);
        let setup = Setup::new().section("[syslog]\nrejoin = \"60KiB\"\n[[drop]]\nname = \"secret\"");
        let setup = setup.listen_with(&format!("{scheme}://127.0.0.1:0"), INDENTED);
        let relay = setup.forward_with(&collector.url(), COUNTED).start();
        let (mut web, mut api, mut secret) = (relay.door().connect(), relay.door().connect(), relay.door().connect());
        web.says(&container("web"), b"Exception: no");
        api.says(&container("api"), b"whole");
        secret.says(&container("secret"), b"Exception: no");
        relay.counts("listen_received_total", 3);
        web.says(&container("web"), b"\tat a.B.c(B.java:1)");
        secret.says(&container("secret"), b"\tat a.B.c(B.java:1)");
        web.says(&container("web"), b"\tat a.B.d(B.java:2)");
        web.says(&container("web"), b"next");
        assert_eq!(
            texts(&collector, 3),
            ["api: whole", "web: Exception: no\n\tat a.B.c(B.java:1)\n\tat a.B.d(B.java:2)", "web: next"]
        );
        relay.counts("syslog_reassembly_pending", 0);
        assert_eq!((joined(&relay), relay.metrics().with("spool_dropped_total", "reason=\"rule\"")), (2, 2));
        // Docker's pieces are joined first, then lines.
        let piece = "x".repeat(16 * 1024);
        for text in [piece.as_str(), "y", "\tat a.B"] {
            web.says(&container("web"), text.as_bytes());
        }
        assert!(texts(&collector, 4).contains(&format!("web: {piece}y\n\tat a.B")));
        relay.counts("syslog_reassembly_pending", 0);
        relay.balances(0);
        relay.stops();
    }
}

/// A line that does not match the pattern continues the message before it, and a message is complete after a timeout. All lines use one
/// connection, as from another relay.
#[test]
fn a_pattern_tells_where_the_messages_of_a_container_begin() {
    for scheme in ["tcp", "udp"] {
        let collector = Collector::tcp(Framing::OctetCounting);
        let setup = Setup::new().listen_with(&format!("{scheme}://127.0.0.1:0"), DATED);
        let relay = setup.forward_with(&collector.url(), COUNTED).start();
        let mut sender = relay.door().connect();
        for (name, text) in [
            ("web", "2026-11-20 ERROR no"),
            ("api", "2026-11-20 INFO whole"),
            ("web", "java.lang.Exception: no"),
            ("old", "no date at all"),
            ("web", "\tat a.B.c(B.java:1)"),
            ("web", "Caused by: 2026-11-20 "),
            ("api", "2026-11-20 INFO next"),
            ("old", "nor here"),
        ] {
            sender.says(&container(name), text.as_bytes());
        }
        assert_eq!(
            texts(&collector, 4),
            [
                "api: 2026-11-20 INFO next",
                "api: 2026-11-20 INFO whole",
                "old: no date at all\nnor here",
                "web: 2026-11-20 ERROR no\njava.lang.Exception: no\n\tat a.B.c(B.java:1)\nCaused by: 2026-11-20 ",
            ]
        );
        relay.counts("syslog_reassembly_pending", 0);
        assert_eq!(joined(&relay), 4);
        relay.balances(0);
        relay.stops();
    }
}

/// A program that writes its log to a connection instead of a file.
#[test]
fn a_pattern_tells_where_messages_without_a_priority_begin() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen_with("tcp://127.0.0.1:0", DATED);
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let (mut one, mut two) = (relay.door().connect(), relay.door().connect());
    one.send(b"2026-11-20 ERROR no\nTraceback:\n  File \"x.py\"\n<x>\nValueError\n2026-11-20 INFO next\n");
    two.send(b"of another connection\n2026-11-20 INFO of another, too\nand its end\n");
    let whole = [
        "-: 2026-11-20 ERROR no\nTraceback:\n  File \"x.py\"\n<x>\nValueError",
        "-: 2026-11-20 INFO next",
        "-: 2026-11-20 INFO of another, too\nand its end",
        "-: of another connection",
    ];
    assert_eq!(texts(&collector, 4), whole);
    relay.counts("syslog_reassembly_pending", 0);
    assert_eq!(joined(&relay), 5);
    relay.balances(0);
    relay.stops();
}

/// Lines without a priority are identified only by their connection.
#[test]
fn lines_without_a_priority_go_on_with_what_was_said_before_them() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen_with("tcp://127.0.0.1:0", INDENTED);
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let (mut one, mut two) = (relay.door().connect(), relay.door().connect());
    let header = "<11>1 2026-11-20T22:27:33.081562Z node-7 app - - -";
    one.send(format!("{header} Traceback:\n  File \"x.py\", line 1\n    boom()\n").as_bytes());
    relay.counts("listen_received_total", 3);
    two.send(format!("{header} another\n  File \"y.py\", line 2\nNot indented\n").as_bytes());
    let arrived: Vec<String> =
        collector.lines(3).iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()).collect();
    for text in ["Traceback:\n  File \"x.py\", line 1\n    boom()", "another\n  File \"y.py\", line 2", "Not indented"]
    {
        assert!(arrived.iter().any(|arrived| arrived == text), "{text:?} is not in {arrived:?}");
    }
    relay.counts("syslog_reassembly_pending", 0);
    assert_eq!(joined(&relay), 3);
    relay.balances(0);
    relay.stops();
}

/// Waiting lines are delivered when the relay stops.
#[test]
fn a_relay_that_stops_keeps_what_waits() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen_with("tcp://127.0.0.1:0", INDENTED);
    let mut relay = setup.forward_with(&collector.url(), COUNTED).start();
    eventually("it is connected", || (collector.accepted() > 0).then_some(()));
    let mut web = relay.door().connect();
    web.says(&container("web"), b"Exception: no");
    web.says(&container("web"), b"\tat a.B");
    relay.counts("listen_received_total", 2);
    relay.signal(SIGTERM);
    assert!(relay.ends().success());
    assert_eq!(texts(&collector, 1), ["web: Exception: no\n\tat a.B"]);
}

#[test]
fn numbers_of_relp_stand_for_lines() {
    let setup = Setup::new().listen_with("relp://127.0.0.1:0", INDENTED).forward("stdout:");
    let checked = run(setup.command().arg("check"));
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.code() == Some(78) && said.contains("RELP's numbers stand for lines"), "{said}");
}

/// A RELP session that stays open when its listener starts to join lines: each line has its own acknowledgement, so it stays a separate
/// message.
#[test]
fn who_waits_for_answers_has_each_line_answered() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let of = |setup: Setup| setup.forward_with(&collector.url(), COUNTED);
    let held = Held::on(&[LOCAL]);
    let port = held.port();
    let old = of(Setup::new().listen(&format!("relp://127.0.0.1:{port}")));
    let relay = old.start();
    let mut peer = RelpPeer::opened(relay.door());
    of(Setup::new().listen_with(&format!("tcp://127.0.0.1:{port}"), INDENTED)).replaces(&old);
    relay.signal(SIGHUP);
    relay.counts("config_reloads_total", 1);
    for (number, text) in [(2, "Exception: no"), (3, "\tat a.B")] {
        peer.says(number, "syslog", container("web").says(text.as_bytes()).trim_ascii_end());
        let answer = peer.frame().expect("an answer");
        assert!(answer.txnr == number && answer.is_ok(), "{answer:?}");
    }
    assert_eq!(texts(&collector, 2), ["web: \tat a.B", "web: Exception: no"]);
    assert_eq!(joined(&relay), 0);
    relay.stops();
}
