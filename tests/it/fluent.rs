//! The Forward protocol: messages of Docker's `fluentd` driver, Fluentd, Fluent Bit and their libraries, and the relay's answers.
//! `fluent_corpus` has all recordings.

use std::net::TcpStream;
use std::process::Command;
use std::thread;

use serde_json::json;

use crate::support::collector::LOCAL;
use crate::support::docker::{RELAY, hard_texts};
use crate::support::fluent::{ID, TAG, Value, forward, line, map, message, packed, said, zipped};
use crate::support::http::{get, status};
use crate::support::program::{SIGCONT, SIGHUP, SIGSTOP, SIGTERM};
use crate::support::python::python_with;
use crate::support::{
    Certs, Collector, Docker, Door, FluentPeer, Format, Framing, Held, Line, Relay, Setup, TlsClient, all_arrived_once,
    eventually, texts,
};

const COUNTED: &str = "framing = \"octet-counting\"";
/// A small spool that does not drop less severe lines early.
const SMALL: &str = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"off\"";

fn listens() -> Setup {
    Setup::new().listen("fluent://127.0.0.1:0")
}

fn to(collector: &Collector) -> Setup {
    listens().forward_with(&collector.url(), COUNTED)
}

/// A relay with a `fluent://` listener; its output is discarded.
fn taker(keys: &str) -> Relay {
    Setup::new().listen_with("fluent://127.0.0.1:0", keys).forward("file:///dev/null").start()
}

// --- arrival

#[test]
fn what_a_container_prints_arrives_byte_for_byte() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let mut texts = hard_texts();
    texts.extend([Vec::new(), b"two\nlines\n".to_vec(), (0..=255).collect()]);
    let mut peer = FluentPeer::connects(relay.door());
    texts.iter().for_each(|text| peer.sends(&line(text, None)));
    let lines = collector.lines(texts.len());
    assert!(lines.iter().map(|line| &line.message).eq(&texts));
    for line in &lines {
        assert_eq!(line.container(), ["registry.local:5000/team/app:1.25", "web", ID], "{line:?}");
        let header = (line.pri, &*line.stamp, &*line.host, &*line.app);
        assert_eq!(header, (30, "2026-11-28T21:37:21.250000Z", RELAY, "web"), "{line:?}");
        let own = ["driver", "source", "tag", "nanoseconds"].map(|name| line.param("logferry@32473", name));
        assert_eq!(own, ["fluent", "stdout", TAG, "7"]);
    }
    relay.has_delivered(texts.len(), 0);
    relay.stops();
}

/// Labels and variables are strings; Fluent Bit and libraries also send numbers and nested values.
#[test]
fn what_else_is_said_are_fields_with_their_types() {
    let [lines, typed] = std::array::from_fn(|_| Collector::tcp(Framing::OctetCounting));
    let relay = listens()
        .forward_with(&lines.url(), &format!("name = \"lines\"\n{COUNTED}"))
        .forward_with(&typed.url(), &format!("name = \"typed\"\nformat = \"json\"\n{COUNTED}"))
        .start();
    let nested = Value::Map(vec![
        ("a".into(), Value::Array(vec![Value::Int(-1), Value::Float(2.5), Value::Nil])),
        (Value::Int(7), map([("deep", Value::Bool(false))])),
    ]);
    let record = Value::Map(vec![
        ("log".into(), "hello".into()),
        ("com.docker.compose.service".into(), "web".into()),
        ("LANG".into(), "quoted \" ] \\ grüße".into()),
        ("empty".into(), "".into()),
        ("two lines".into(), "a\nb".into()),
        ("retries".into(), Value::Int(3)),
        ("ratio".into(), Value::Float(0.5)),
        ("ok".into(), Value::Bool(true)),
        ("none".into(), Value::Nil),
        ("nested".into(), nested),
    ]);
    let mut peer = FluentPeer::connects(relay.door());
    peer.sends(&forward("app.web", [record], None));
    let all = json!({
        "com.docker.compose.service": "web", "LANG": "quoted \" ] \\ grüße", "empty": "", "two lines": "a\nb",
        "retries": 3, "ratio": 0.5, "ok": true, "none": null, "nested": {"a": [-1, 2.5, null], "7": {"deep": false}},
    });
    let frames = typed.frames(1);
    let found: serde_json::Value = serde_json::from_slice(&frames[0]).expect("JSON");
    assert_eq!((&found["fields"], &found["message"]), (&all, &"hello".into()));
    let [line] = &lines.lines(1)[..] else { panic!() };
    let param = |name: &str| line.param("fields@32473", name);
    assert_eq!(param("com.docker.compose.service"), "web");
    assert_eq!((param("LANG"), param("retries")), ("quoted \" ] \\ grüße".to_owned(), String::new()));
    let rest: serde_json::Value = serde_json::from_str(&line.param("json@32473", "fields")).expect("JSON");
    for name in ["two lines", "retries", "ratio", "ok", "none", "nested"] {
        assert_eq!(rest[name], all[name], "{name}");
    }
    // Without a container, only the tag identifies the sender.
    assert_eq!((&*line.app, &*line.message), ("app.web", &b"hello"[..]));
    relay.stops();
}

/// The driver splits lines at 16 KiB and marks the pieces. A line of that length without the marks is no piece, not even for a listener
/// that joins the syslog driver's pieces.
#[test]
fn long_lines_are_whole() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).section("[syslog]\nrejoin = \"64KiB\"").start();
    let mut peer = FluentPeer::connects(relay.door());
    let piece = |id: &'static str, ordinal: &'static str, last: &'static str, source: &'static str, text: &[u8]| {
        let Value::Map(mut pairs) = said(source, text) else { unreachable!() };
        let about = [("partial_message", "true"), ("partial_id", id), ("partial_ordinal", ordinal)];
        pairs.extend(about.map(|(key, value)| (key.into(), value.into())));
        pairs.push(("partial_last".into(), last.into()));
        message(TAG, Value::Map(pairs), None)
    };
    let full = [b'x'; 16_384];
    let sent = [
        piece("a", "1", "false", "stdout", &full),
        // A line of another stream in between, exactly as long as a piece.
        line("between", None),
        piece("b", "1", "false", "stderr", b"to stderr, "),
        piece("a", "2", "true", "stdout", b""),
        line("next", None),
        piece("c", "1", "false", "stdout", &full),
        piece("c", "2", "false", "stdout", &full),
        piece("b", "2", "true", "stderr", b"whole"),
        piece("c", "3", "true", "stdout", &[b'x'; 7232]),
        // The last line of a container without LF: its last piece never comes.
        piece("d", "1", "false", "stdout", b"prompt$ "),
    ];
    sent.iter().for_each(|array| peer.sends(array));
    let lengths = |lines: &[Line]| lines.iter().map(|line| line.message.len()).collect::<Vec<_>>();
    assert_eq!(lengths(&collector.lines(5)), [7, 16_384, 4, 16, 40_000]);
    peer.leaves();
    let lines = collector.lines(6);
    assert_eq!(texts(&lines)[5], "prompt$ ");
    assert!(lines.iter().all(|line| !shown_fields(line).contains("partial")), "{lines:?}");
    relay.has_delivered(6, 0);
    relay.stops();
}

fn shown_fields(line: &Line) -> String {
    line.params.keys().map(|(id, name)| format!("{id} {name} ")).collect()
}

/// The container's next piece goes to another relay, which cannot join it.
#[test]
fn a_line_that_a_stop_cuts_in_two_is_marked() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let Value::Map(mut pairs) = said("stdout", b"begun") else { unreachable!() };
    let about = [("partial_message", "true"), ("partial_id", "a"), ("partial_ordinal", "1"), ("partial_last", "false")];
    pairs.extend(about.map(|(key, value)| (key.into(), value.into())));
    let mut peer = FluentPeer::connects(relay.door());
    peer.sends(&message(TAG, Value::Map(pairs), None));
    peer.sends(&line("whole", None));
    assert_eq!(texts(&collector.lines(1)), ["whole"]);
    relay.stops();
    let lines = collector.lines(2);
    assert_eq!(
        (&*lines[1].message, lines[1].param("fields@32473", "partial_ordinal")),
        (&b"begun"[..], "1".to_owned())
    );
}

/// Over a unix socket, and over TLS.
#[test]
fn each_door_takes_and_answers_all_modes() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = to(&collector).listen("fluent+unix://{dir}/fluent.sock");
    let relay = setup.listen_with("fluent+tls://127.0.0.1:0", &Certs::get().listen()).start();
    let record = |text: &str| map([("log", text)]);
    for (at, door) in relay.doors().iter().enumerate() {
        let mut peer = match door {
            Door::Tls(_) => FluentPeer::on(door.connect_tls(TlsClient::ANONYMOUS)),
            door => FluentPeer::connects(door),
        };
        let said = [
            message("t", record("a"), Some("1")),
            forward("t", [record("b"), record("c")], Some("2")),
            packed("t", [record("d")], false, "3"),
            packed("t", [record("e"), record("f")], true, "4\n"),
        ];
        // With heartbeats in between.
        for (array, chunk) in said.iter().zip(["1", "2", "3", "4\n"]) {
            peer.sends(b"\xc0");
            assert!(peer.asks(array, chunk), "{door:?}");
        }
        peer.leaves();
        assert_eq!(texts(&collector.lines(6 * (at + 1)))[6 * at..], ["a", "b", "c", "d", "e", "f"]);
    }
    relay.has_delivered(18, 0);
    relay.stops();
}

// --- acknowledgements

/// Nothing is dropped for a sender that waits, and no container blocks for longer than `max-wait`.
#[test]
fn a_full_spool_makes_a_sender_wait_and_then_come_again() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    // A sender that cannot wait would lose less severe lines here.
    let full = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"50%\"\nmax-wait = \"300ms\"";
    let relay = to(&collector).spool(full).start();
    let array = |number: usize| line(format!("{number:01000}"), Some(&number.to_string()));
    let mut peer = FluentPeer::connects(relay.door());
    let held = (0..10_000).find(|number| !peer.asks(&array(*number), &number.to_string())).expect("it is full");
    assert!(held > 100, "{held}");
    assert_eq!(relay.refused("max-wait"), 1);
    relay.says("it had waited for an answer as long as `[spool] max-wait` allows");
    // The sender retries at once, like Docker's driver, for as long as necessary.
    for _ in 0..2 {
        assert!(!FluentPeer::connects(relay.door()).asks(&array(held), &held.to_string()));
    }
    assert_eq!(relay.refused("max-wait"), 3);
    collector.comes();
    let came = || FluentPeer::connects(relay.door()).asks(&array(held), &held.to_string()).then_some(());
    eventually("there is room", came);
    collector.frames(held + 1);
    eventually("all is delivered", || (relay.metrics().sum("forward_waiting") == 0).then_some(()));
    assert!(collector.numbers().into_iter().eq(0..=held), "each once, in order");
    relay.balances(0);
    relay.stops();
}

/// A sender that does not request acknowledgements is never blocked: lines without room are dropped, and counted.
#[test]
fn a_full_spool_holds_no_sender_that_asks_for_no_answer() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = to(&collector).spool(SMALL).start();
    let mut peer = FluentPeer::connects(relay.door());
    for number in 0..5000 {
        peer.sends(&line(format!("{number:01000}"), None));
    }
    relay.counts("listen_received_total", 5000);
    eventually("some found no room", || (relay.metrics().with("spool_dropped_total", "full") > 1000).then_some(()));
    assert_eq!(relay.metrics().refused(), 0);
    relay.balances(0);
    relay.stops();
}

/// An acknowledged message survives a crash of the relay.
#[test]
fn what_is_answered_is_there_after_a_kill() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = to(&collector);
    let relay = setup.start();
    let mut peer = FluentPeer::connects(relay.door());
    for number in 0..100 {
        assert!(peer.asks(&line(number.to_string(), Some("c")), "c"));
    }
    relay.kill();
    assert!(!peer.asks(&line("100", Some("d")), "d"));
    let relay = setup.start();
    collector.comes();
    collector.frames(100);
    assert!(collector.numbers().into_iter().eq(0..100));
    relay.has_delivered(0, 100);
    relay.stops();
}

/// A sender that missed an acknowledgement sends the chunk again, and the relay drops the duplicate. A message that only looks like a
/// duplicate is kept.
#[test]
fn a_chunk_whose_answer_was_lost_is_not_taken_twice() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let mut sent = 0;
    let mut takes = |peer: &mut FluentPeer, text: &str, chunk: &str| {
        peer.sends(&line(text, Some(chunk)));
        sent += 1;
        relay.has_spooled(sent);
    };
    let mut peer = FluentPeer::connects(relay.door());
    takes(&mut peer, "lost", "1");
    // The connection breaks before the sender has read the acknowledgement.
    peer.wire().breaks();
    relay.counts("listen_connections", 0);
    let mut peer = FluentPeer::connects(relay.door());
    assert!(peer.asks(&line("lost", Some("1")), "1"));
    assert_eq!(relay.metrics().sum("listen_repeated_total"), 1);
    // On the same connection, and after a connection that was closed in good order, it is a new message.
    takes(&mut peer, "lost", "1");
    assert!(peer.hears("1"));
    peer.leaves();
    let mut peer = FluentPeer::connects(relay.door());
    takes(&mut peer, "lost", "1");
    assert!(peer.hears("1"));
    // The relay recognizes a chunk once.
    peer.wire().breaks();
    relay.counts("listen_connections", 0);
    let mut peer = FluentPeer::connects(relay.door());
    assert!(peer.asks(&line("lost", Some("1")), "1"));
    peer.leaves();
    let mut peer = FluentPeer::connects(relay.door());
    takes(&mut peer, "lost", "1");
    assert!(peer.hears("1"));
    assert_eq!(relay.metrics().sum("listen_repeated_total"), 2);
    relay.has_delivered(4, 0);
    assert_eq!(collector.count(), 4);
    relay.stops();
}

/// A rejection would make the sender repeat the whole array for ever.
#[test]
fn a_bad_entry_costs_only_itself() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let entry = |time: Value, record: Value| Value::Array(vec![time, record]);
    let good = |text: &str| entry(Value::Int(1_795_898_247), map([("log", text)]));
    let bad = [entry("now".into(), map([("log", "x")])), Value::Nil, entry(Value::Int(1), "x".into())];
    let [time, no_pair, no_map] = bad;
    let entries = Value::Array(vec![time, good("a"), no_pair, good("b"), no_map, good("c")]);
    let option = |chunk: &'static str| map([("chunk", chunk)]);
    let mut peer = FluentPeer::connects(relay.door());
    assert!(peer.asks(&Value::Array(vec!["t".into(), entries, option("1")]).bytes(), "1"));
    let alone = Value::Array(vec!["t".into(), Value::Bool(true), map([("log", "x")]), option("2")]);
    assert!(peer.asks(&alone.bytes(), "2"));
    assert!(peer.asks(&line("d", Some("3")), "3"), "the connection stays");
    assert_eq!(texts(&collector.lines(4)), ["a", "b", "c", "d"]);
    assert_eq!(["time", "entry", "record"].map(|reason| relay.refused(reason)), [2, 1, 1]);
    relay.says("a message of the Forward protocol is lost, and its sender may go on: its time is none");
    relay.has_delivered(4, 0);
    relay.stops();
}

/// Messages before a malformed array are spooled, and acknowledged before the connection ends.
#[test]
fn what_is_before_a_bad_array_is_answered() {
    let relay = taker("");
    let mut peer = FluentPeer::connects(relay.door());
    let bad = Value::Array(vec![Value::Bool(true), Value::Int(1), map([("log", "x")])]).bytes();
    peer.sends(&[line("good", Some("1")), bad, line("behind", Some("2"))].concat());
    assert!(peer.hears("1"));
    peer.is_over();
    assert_eq!(relay.refused("tag"), 1);
    relay.has_delivered(1, 0);
    relay.stops();
}

// --- stops

/// The relay reads the kernel's buffers, even with a slow disk, and then resets the connection: Docker's driver sends the next message
/// again.
#[test]
fn a_relay_that_stops_loses_nothing_of_a_sender_that_asks_for_no_answer() {
    const SENDERS: usize = 16;
    const MESSAGES: usize = 150;
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = to(&collector).listen("fluent+unix://{dir}/fluent.sock");
    let mut relay = setup.spool("max-rate = \"8MiB/s\"").start();
    let (tcp, unix) = (&relay.doors()[0], &relay.doors()[1]);
    let mut peers: Vec<_> = (0..SENDERS).map(|_| FluentPeer::connects(tcp)).collect();
    let mut local = FluentPeer::connects(unix);
    relay.counts("listen_connections", SENDERS as u64 + 1);
    relay.signal(SIGSTOP);
    for (at, peer) in peers.iter_mut().enumerate() {
        let numbers = at * MESSAGES..(at + 1) * MESSAGES;
        peer.sends(&numbers.flat_map(|number| line(format!("{number:01000}"), None)).collect::<Vec<_>>());
    }
    local.sends(&line((SENDERS * MESSAGES).to_string(), None));
    relay.signal(SIGTERM);
    relay.signal(SIGCONT);
    assert_eq!(relay.ends().code(), Some(0));
    peers.iter_mut().for_each(FluentPeer::is_reset);
    // On a unix socket the next write fails by itself.
    local.is_over();
    all_arrived_once(&[&collector], SENDERS * MESSAGES + 1);
}

/// A sender that waits for each acknowledgement, while its relay is restarted repeatedly: it sends unacknowledged messages again.
#[test]
fn a_relay_that_stops_answers_what_it_has_and_gets_the_rest_again() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let door = Held::on(&[LOCAL]);
    let at = format!("fluent://127.0.0.1:{}", door.port());
    let setup = Setup::new().listen(&at).forward_with(&collector.url(), COUNTED);
    let mut relay = setup.start();
    let address = relay.door().clone();
    let sender = thread::spawn(move || {
        let mut peer = None;
        for number in 0..3000 {
            // Chunk IDs of Docker are unique.
            let chunk = format!("chunk-{number}");
            let array = line(number.to_string(), Some(&chunk));
            eventually("an answer", || {
                let Door::Tcp(to) = address else { unreachable!() };
                let connected =
                    || TcpStream::connect(to).ok().map(|stream| FluentPeer::on(crate::support::Wire::Tcp(stream)));
                let mut now = peer.take().or_else(connected)?;
                now.asks(&array, &chunk).then(|| peer = Some(now))
            });
        }
    });
    for round in 1..4 {
        collector.frames(round * 500);
        relay.stops();
        relay = setup.start();
    }
    sender.join().expect("a sender");
    all_arrived_once(&[&collector], 3000);
    relay.stops();
}

/// Without an acknowledgement the sender has to send the message again.
#[test]
fn what_is_read_and_not_in_the_spool_is_not_answered_at_a_stop() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let mut relay = to(&collector).spool(&format!("{SMALL}\nmax-wait = \"1h\"")).start();
    let mut peer = FluentPeer::connects(relay.door());
    let text = format!("{:01000}", 0);
    let mut talks = FluentPeer::connects(relay.door());
    // Fills the spool, and counts the acknowledgements.
    let talker =
        thread::spawn(move || std::iter::from_fn(|| talks.asks(&line(&text, Some("c")), "c").then_some(())).count());
    eventually("it is full", || (relay.metrics().sum("spool_held") > 0).then_some(()));
    let spooled = relay.metrics().sum("spool_spooled_total");
    peer.sends(&line("waits", Some("w")));
    relay.signal(SIGTERM);
    peer.is_over();
    assert_eq!(talker.join().expect("it is let go") as u64, spooled);
    assert_eq!(relay.ends().code(), Some(0));
}

// --- limits and rules

#[test]
fn strangers_at_the_wrong_port_are_told_apart() {
    let relay =
        Setup::new().listen("fluent://127.0.0.1:0").listen("tcp://127.0.0.1:0").forward("file:///dev/null").start();
    let cases: [(&[u8], &str, &str); 6] = [
        (b"<30>Nov 20 22:28:47 web[1]: hello\n", "syslog", "it speaks plain syslog"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http", "it speaks HTTP"),
        (b"1 open 85 relp_version=0\n", "relp", "it speaks RELP"),
        (&TlsClient::ANONYMOUS.hello(), "tls", "it began a TLS handshake, and this listener has no certificate"),
        (b"[\"tag\", 1, {\"log\": \"x\"}]", "json", "this is JSON; set the sender to msgpack"),
        (b"hello\n", "no-array", "an array of msgpack was expected"),
    ];
    for (bytes, reason, says) in cases {
        let mut peer = FluentPeer::connects(relay.door());
        peer.sends(bytes);
        peer.is_over();
        assert_eq!(relay.refused(reason), 1, "{reason}");
        relay.says(says);
    }
    let mut peer = FluentPeer::connects(&relay.doors()[1]);
    peer.sends(&line("x", None));
    peer.is_over();
    assert_eq!(relay.refused("forward"), 1);
    relay.says("give it a listener with fluent://");
    assert_eq!(relay.metrics().sum("listen_received_total"), 0);
    relay.stops();
}

/// Fluentd opens a connection every second and closes it without a byte; its older versions send nil.
#[test]
fn heartbeats_are_no_errors() {
    let relay = taker("");
    for _ in 0..20 {
        FluentPeer::connects(relay.door()).leaves();
        let mut peer = FluentPeer::connects(relay.door());
        peer.sends(b"\xc0\xc0");
        peer.leaves();
    }
    relay.counts("listen_accepted_total", 40);
    relay.counts("listen_connections", 0);
    let metrics = relay.metrics();
    for name in ["listen_refused_total", "listen_unfinished_total", "listen_received_total"] {
        assert_eq!(metrics.sum(name), 0, "{name}");
    }
    let stopped = relay.stops().stderr;
    assert!(!stopped.contains("WARN listen: fluent") && !stopped.contains("refused"), "{stopped}");
}

/// A container may be silent for days, but an array must be completed in time.
#[test]
fn an_idle_connection_stays() {
    let relay = taker("frame-timeout = \"1ms\"");
    let mut idle = FluentPeer::connects(relay.door());
    idle.sends(&line("first", None));
    relay.has_spooled(1);
    let half = line("half", None);
    for round in 1..4 {
        let mut peer = FluentPeer::connects(relay.door());
        peer.sends(&half[..20]);
        peer.is_over();
        assert_eq!(relay.refused("frame-timeout"), round);
    }
    idle.sends(&line("second", Some("c")));
    assert!(idle.hears("c"));
    relay.has_delivered(2, 0);
    relay.stops();
}

#[test]
fn who_may_come_can_change_while_it_runs() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let with =
        |keys: &str| Setup::new().listen_with("fluent://127.0.0.1:0", keys).forward_with(&collector.url(), COUNTED);
    let old = with("allow = \"127.0.0.1\"\nmax-frame = \"1KiB\"");
    let relay = old.start();
    let mut stays = FluentPeer::connects(relay.door());
    assert!(stays.asks(&line([b'x'; 2000], Some("c")), "c"));
    let reloads = |keys: &str, count: i64| {
        with(keys).replaces(&old);
        relay.signal(SIGHUP);
        eventually("it is read again", || {
            (relay.metrics().with("config_reloads_total", "applied") == count).then_some(())
        });
    };
    reloads("allow = \"192.0.2.1\"", 1);
    FluentPeer::connects(relay.door()).is_over();
    assert_eq!(relay.refused("allow"), 1);
    // Open connections keep the old settings.
    assert!(stays.asks(&line([b'y'; 2000], Some("c")), "c"));
    reloads("max-frame = \"2KiB\"", 2);
    let mut other = FluentPeer::connects(relay.door());
    assert!(other.asks(&line([b'z'; 2000], Some("c")), "c"));
    let lengths: Vec<_> = collector.lines(3).into_iter().map(|line| line.message.len()).collect();
    assert_eq!((lengths, relay.metrics().sum("listen_cut_total")), (vec![1024, 1024, 2000], 2));
    relay.has_delivered(3, 0);
    relay.stops();
}

/// A container is the same container with every driver.
#[test]
fn rules_and_limits_go_by_the_container() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = to(&collector).listen("tcp://127.0.0.1:0");
    let rules = "[syslog]\nrate-limit = \"1/s\"\nrate-burst = 5\n[[drop]]\nname = \"noisy\"";
    let relay = setup.section(rules).start();
    let of = |name: &str, text: &str| {
        let Value::Map(mut pairs) = said("stdout", text.as_bytes()) else { unreachable!() };
        pairs[0].1 = format!("/{name}").as_str().into();
        message(&format!("app:1/{name}/2a9052a5c36e"), Value::Map(pairs), None)
    };
    let mut peer = FluentPeer::connects(relay.door());
    let mut wire = relay.doors()[1].connect();
    (0..3).for_each(|_| peer.sends(&of("noisy", "x")));
    (0..3).for_each(|_| wire.says(&Docker::new(Format::Rfc5424Micro, "noisy"), b"x"));
    relay.counts("listen_received_total", 6);
    assert_eq!(relay.metrics().with("spool_dropped_total", "rule"), 6);
    // A burst of one container does not affect another.
    (0..50).for_each(|_| peer.sends(&of("web", "x")));
    peer.sends(&of("api", "y"));
    relay.counts("listen_received_total", 57);
    eventually("the other one's line", || texts(&lines_of(&collector)).contains(&"y".to_owned()).then_some(()));
    let (limited, arrived) = (relay.metrics().with("spool_dropped_total", "rate"), collector.count());
    assert!(limited >= 40 && arrived + limited as usize == 51, "{limited} of 50, {arrived} arrived");
    relay.balances(0);
    relay.stops();
}

fn lines_of(collector: &Collector) -> Vec<Line> {
    collector.frames(0).iter().map(|frame| Line::read(frame)).collect()
}

/// In a nearly full spool, containers' stdout makes room for their stderr.
#[test]
fn what_matters_less_is_refused_first() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = to(&collector).spool("max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"50%\"").start();
    let mut peer = FluentPeer::connects(relay.door());
    let dropped = |why: &str| relay.metrics().with("spool_dropped_total", why);
    eventually("stdout is refused", || {
        peer.sends(&line(format!("{:01000}", 0), None));
        (dropped("severity") > 0).then_some(())
    });
    let before = relay.metrics().sum("spool_spooled_total");
    peer.sends(&message(TAG, said("stderr", b"it matters"), None));
    eventually("stderr is taken", || (relay.metrics().sum("spool_spooled_total") > before).then_some(()));
    assert_eq!(dropped("full"), 0);
    relay.balances(0);
    relay.stops();
}

#[test]
fn where_it_came_in_and_for_whom_a_proxy_speaks_is_said() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys =
        "name = \"ecs\"\nproxy-protocol = true\nallow = \"127.0.0.1\"\nclient-allow = \"192.0.2.7\"\npeer = true";
    let relay = Setup::new().listen_with("fluent://127.0.0.1:0", keys).forward_with(&collector.url(), COUNTED).start();
    let mut peer = FluentPeer::connects(relay.door());
    peer.sends(b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 24224\r\n");
    assert!(peer.asks(&line("through it", Some("c")), "c"));
    let [line] = &collector.lines(1)[..] else { panic!() };
    let own = ["listener", "peer"].map(|name| line.param("logferry@32473", name));
    assert_eq!(own, ["ecs", "192.0.2.7"], "{line:?}");
    let mut stranger = FluentPeer::connects(relay.door());
    stranger.sends(b"PROXY TCP4 192.0.2.8 127.0.0.1 1234 24224\r\n");
    stranger.is_over();
    assert_eq!(relay.refused("client-allow"), 1);
    relay.stops();
}

// --- bad input

/// Bad input costs its connection, is counted by reason, and is logged once.
#[test]
fn bad_input_ends_its_connection_and_costs_nothing() {
    /// KiB.
    const MOST: u64 = 48 << 10;
    let relay = taker("");
    let zeros = zipped(&vec![0; 64 << 20]);
    let tiny = zipped(&Value::Array(vec![Value::Int(0), Value::Map(Vec::new())]).bytes().repeat(8 << 20));
    let gzip = |entries: &[u8]| {
        let option = map([("compressed", "gzip")]);
        Value::Array(vec!["t".into(), Value::Bin(entries.to_vec()), option]).bytes()
    };
    let cases: [(Vec<u8>, &str); 14] = [
        (vec![0x91; 100_000], "depth"),
        ([&b"\x93\xa1t\x01"[..], &b"\x81\xa1k".repeat(100)].concat(), "depth"),
        (b"\x93\xa1t\x01\xdb\xff\xff\xff\xff".to_vec(), "size"),
        (b"\xdd\xff\xff\xff\xff".to_vec(), "size"),
        (b"\x93\xa1t\x01\xdf\x7f\xff\xff\xff".to_vec(), "size"),
        (b"\x92\xa1t\xc1".to_vec(), "no-msgpack"),
        (b"\x92\xa1t\xa2\x92\x01".to_vec(), "truncated"),
        (b"\x93\x07\x01\x80".to_vec(), "tag"),
        (b"\x95\xa1t\x01\x80\x80\x80".to_vec(), "elements"),
        (b"\x93\xa1t\xa0\x81\xaacompressed\xa4zstd".to_vec(), "zstd"),
        (b"\x93\xa1t\x90\x81\xadfluent_signal\x01".to_vec(), "signal"),
        (gzip(b"no gzip"), "gzip"),
        (gzip(&zeros), "inflated-size"),
        (gzip(&tiny), "entries"),
    ];
    let before = relay.process().kib("VmHWM");
    for (bytes, reason) in &cases {
        let mut peer = FluentPeer::connects(relay.door());
        let was = relay.refused(reason);
        peer.tries(bytes);
        peer.is_over();
        assert_eq!(relay.refused(reason), was + 1, "{reason}");
    }
    let more = relay.process().kib("VmHWM") - before;
    assert!(more < MOST, "{more} KiB");
    assert_eq!(relay.metrics().sum("listen_received_total"), 0);
    // An incomplete message is dropped with its connection. Text may have any bytes.
    let half = line("half", None);
    let mut peer = FluentPeer::connects(relay.door());
    peer.sends(&half[..half.len() - 1]);
    peer.leaves();
    relay.counts("listen_unfinished_total", 1);
    let mut peer = FluentPeer::connects(relay.door());
    peer.sends(&message(TAG, map([("log", &b"\xff\xfe\x80"[..]), ("label", b"\xc3\x28")]), Some("c")));
    assert!(peer.hears("c"));
    assert_eq!(get(&relay, "/ready").status, 200);
    relay.has_delivered(1, 0);
    let said = relay.stderr().matches("was refused").count();
    assert_eq!(said, 11, "each reason once: {}", relay.stderr());
    relay.stops();
}

/// The error names the setting to change.
#[test]
fn an_array_beyond_the_limits_is_refused_with_a_word() {
    let relay = taker("");
    let long = line(vec![b'x'; 16 << 20], Some("c"));
    let mut peer = FluentPeer::connects(relay.door());
    peer.tries(&long);
    peer.is_over();
    assert_eq!(relay.refused("size"), 1);
    relay.says("an array is larger than half of `max-unfinished`; raise that");
    let now = status(&relay);
    let last = now["listeners"][0]["last_refused"].to_string();
    assert!(last.contains("max-unfinished"), "{last}");
    relay.stops();
    let relay = taker("max-unfinished = \"64MiB\"");
    let mut peer = FluentPeer::connects(relay.door());
    assert!(peer.asks(&long, "c"));
    relay.stops();
}

/// The limit is half of `max-unfinished`, because all senders have the same address.
#[test]
fn arrays_take_so_much_memory_in_all() {
    let relay = taker("max-unfinished = \"4MiB\"");
    let whole = line(vec![b'x'; 500_000], Some("c"));
    let (half, rest) = whole.split_at(499_000);
    let mut four: Vec<_> = (0..4).map(|_| FluentPeer::connects(relay.door())).collect();
    for peer in &mut four {
        let before = relay.metrics().sum("listen_bytes_total");
        peer.sends(half);
        relay.counts("listen_bytes_total", before + half.len() as u64);
    }
    assert_eq!(relay.metrics().refused(), 0);
    let mut fifth = FluentPeer::connects(relay.door());
    fifth.tries(half);
    fifth.is_over();
    assert_eq!(relay.refused("max-unfinished"), 1);
    relay.says("as much memory as `max-unfinished` allows");
    for peer in &mut four {
        assert!(peer.asks(rest, "c"));
    }
    relay.stops();
}

/// The relay stops reading from the sender, other senders are not affected, and a stop does not wait for it.
#[test]
fn a_sender_that_does_not_read_its_answers() {
    let relay = taker("");
    let mut deaf = FluentPeer::connects(relay.door());
    let talks = thread::spawn(move || {
        let long = line("x", Some(&"c".repeat(2000)));
        (0..1_000_000).find(|_| !deaf.tries(&long))
    });
    eventually("its answers fill the way back", || (relay.metrics().sum("listen_received_total") > 1000).then_some(()));
    let mut other = FluentPeer::connects(relay.door());
    let received = || relay.metrics().sum("listen_received_total");
    eventually("only the other one is read", || {
        let before = received();
        (0..50).for_each(|_| assert!(other.asks(&line("y", Some("c")), "c")));
        (received() == before + 50).then_some(())
    });
    assert_eq!(relay.metrics().refused(), 0);
    relay.stops();
    assert!(talks.join().expect("a thread").is_some(), "all was read, though no answer was");
}

// --- other senders

/// The Python library, with whole seconds and with nanoseconds, over TCP and a unix socket; the relay is restarted in between.
#[test]
fn fluent_logger_for_python() {
    const SCRIPT: &str = r#"
import sys, time
from fluent import sender
host, port, first, count, exact = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "exact"
s = sender.FluentSender("app", host=host, port=port, nanosecond_precision=exact)
for number in range(first, first + count):
    ok = s.emit_with_time("web", 1795901841.25 if exact else 1795901841,
        {"message": str(number), "level": 3, "ratio": 0.5, "ok": True, "none": None, "nested": {"a": [1, "b"]}, "grüße": "日本"})
    assert ok, s.last_error
s.close()
"#;
    let Some(python) = python_with("fluent-logger", "fluent") else { return };
    let [lines, typed] = std::array::from_fn(|_| Collector::tcp(Framing::OctetCounting));
    let relay = listens()
        .listen("fluent+unix://{dir}/fluent.sock")
        .forward_with(&lines.url(), &format!("name = \"lines\"\n{COUNTED}"))
        .forward_with(&typed.url(), &format!("name = \"typed\"\nformat = \"json\"\n{COUNTED}"))
        .start();
    let Door::Unix(path) = &relay.doors()[1] else { panic!("{:?}", relay.doors()) };
    let unix = format!("unix://{}", path.display());
    let (tcp, port) = ("127.0.0.1".to_owned(), relay.door().port().to_string());
    for (first, host, time) in [("0", &tcp, "exact"), ("50", &tcp, "whole"), ("100", &unix, "exact")] {
        let output =
            Command::new(&python).args(["-c", SCRIPT, host, &port, first, "50", time]).output().expect("Python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let found = lines.lines(150);
    assert!(lines.numbers().into_iter().eq(0..150));
    for (at, line) in found.iter().enumerate() {
        let stamp = if (50..100).contains(&at) { "2026-11-28T21:37:21Z" } else { "2026-11-28T21:37:21.250000Z" };
        assert_eq!((&*line.stamp, &*line.app), (stamp, "app.web"), "{line:?}");
    }
    let expected = json!({
        "level": 3, "ratio": 0.5, "ok": true, "none": null, "nested": {"a": [1, "b"]}, "grüße": "日本",
    });
    for frame in typed.frames(150) {
        let found: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
        assert_eq!(found["fields"], expected);
    }
    relay.has_delivered(150, 0);
    relay.stops();
}
