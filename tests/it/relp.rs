//! RELP: every message is acknowledged, and between two logferries every line is numbered.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::docker::hard_texts;
use crate::support::http::status;
use crate::support::program::{SIGCONT, SIGHUP, SIGSTOP, SIGTERM};
use crate::support::relp::frame;
use crate::support::{
    Certs, Collector, Docker, Door, Flow, Format, Framing, Held, Line, Program, Relay, RelpCollector, RelpFrame,
    RelpPeer, Setup, eventually, rsyslog, says, within,
};

/// A relay with a RELP listener that forwards to the collector.
fn receiver(collector: &Collector) -> Setup {
    let setup = Setup::new().listen("relp://127.0.0.1:0");
    setup.forward_with(&collector.url(), "framing = \"octet-counting\"")
}

fn url(relay: &Relay) -> String {
    match relay.door() {
        Door::Relp(at) => format!("relp://{at}"),
        Door::RelpTls(at) => format!("relp+tls://{at}"),
        door => panic!("{door:?} is not for RELP"),
    }
}

fn sender(to: &str) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward(to)
}

/// The messages of `syslog` frames, as numbers.
fn sent(frames: &[RelpFrame]) -> Vec<usize> {
    let number = |frame: &RelpFrame| {
        assert_eq!(frame.command, "syslog");
        String::from_utf8_lossy(&Line::read(&frame.data).message).parse().expect("a number")
    };
    frames.iter().map(number).collect()
}

#[test]
fn lines_go_from_relay_to_relay_with_their_numbers() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let receiver = receiver(&collector).start();
    let sender = sender(&url(&receiver)).start();
    says(&sender, 0..500);
    collector.frames(500);
    assert!(collector.numbers().into_iter().eq(0..500));
    sender.has_delivered(500, 0);
    receiver.has_delivered(500, 0);
    sender.stops();
    receiver.stops();
}

/// A host that is restored from a snapshot, or cloned from another host's image: its spool has a known name, but its new lines are not
/// known.
#[test]
fn a_spool_that_was_copied_is_not_taken_for_its_original() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let receiver = receiver(&collector).start();
    let [host, other] = [(); 2].map(|()| sender(&url(&receiver)));
    let says_and_stops = |host: &Setup, numbers: std::ops::Range<usize>| {
        let relay = host.start();
        let count = numbers.len();
        says(&relay, numbers);
        relay.has_delivered(count, 0);
        relay.stops();
    };
    says_and_stops(&host, 0..10);
    let snapshot = tempfile::TempDir::new().expect("a directory");
    copy(&host.path("spool"), snapshot.path());
    says_and_stops(&host, 10..20);
    for (numbers, host) in [(20..30, &host), (30..40, &other), (40..50, &host)] {
        let spool = host.path("spool");
        let _ = std::fs::remove_dir_all(&spool);
        std::fs::create_dir(&spool).expect("a directory");
        copy(snapshot.path(), &spool);
        says_and_stops(host, numbers);
    }
    collector.frames(50);
    assert!(collector.numbers().into_iter().eq(0..50), "{:?}", collector.numbers());
    assert_eq!(receiver.metrics().sum("spool_dropped_total"), 0);
    receiver.stops();
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// The receiver adds its listener's name to each line. Lines that only this makes too long are accepted.
#[test]
fn short_lines_pass_a_listener_with_a_long_name() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let name = format!("name = \"{}\"", "x".repeat(64));
    let setup = Setup::new().listen_with("relp://127.0.0.1:0", &name);
    let receiver = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward(&url(&receiver));
    let relay = setup.start();
    let mut wire = relay.door().connect();
    let lines: Vec<u8> = (0..20_000).flat_map(|n| format!("<13>1 - - - - - - {n:018}\n").into_bytes()).collect();
    // The receiver stops until all lines are spooled, so that it gets them in large batches.
    receiver.signal(SIGSTOP);
    wire.send(&lines);
    relay.has_spooled(20_000);
    receiver.signal(SIGCONT);
    receiver.has_delivered(20_000, 0);
    relay.has_delivered(20_000, 0);
    assert_eq!(receiver.metrics().refused(), 0);
    relay.stops();
    receiver.stops();
}

/// One frame with as many lines as a batch of another relay has.
#[test]
fn a_batch_of_short_lines_may_grow() {
    let name = format!("name = \"{}\"", "x".repeat(64));
    let relay = Setup::new().listen_with("relp://127.0.0.1:0", &name).forward("file:///dev/null").start();
    let mut peer = RelpPeer::connects(relay.door());
    peer.says(1, "open", b"relp_version=0\ncommands=syslog,numbered\nstream=somebody/else");
    assert!(peer.frame().expect("an answer").is_ok());
    let lines: String = (0..1500).map(|n| format!("36 <13>1 - - - - - - {n:018}")).collect();
    peer.says(2, "numbered", format!("7 1\n{lines}").as_bytes());
    assert!(peer.frame().expect("an answer").is_ok());
    relay.has_delivered(1500, 0);
    relay.stops();
}

/// Both ends log the reason for the end of a session.
#[test]
fn why_a_session_is_ended_is_said() {
    let relay = taker();
    let mut peer = RelpPeer::opened(relay.door());
    for _ in 0..3 {
        peer.sends(b"2 syslog 5 <13>a\nno RELP\n");
        let heard: Vec<_> = std::iter::from_fn(|| peer.frame()).collect();
        let [answer, goodbye] = &heard[..] else { panic!("{heard:?}") };
        assert!(answer.is_ok());
        assert_eq!((goodbye.command.as_str(), &*goodbye.data), ("serverclose", &b"a transaction number"[..]));
        peer = RelpPeer::opened(relay.door());
    }
    drop(peer);
    relay.counts("listen_refused_total", 3);
    relay.has_delivered(3, 0);
    let said =
        relay.stderr().matches("127.0.0.1 was refused: its RELP session was ended: a transaction number").count();
    assert_eq!(said, 1, "a stranger fills no log");
    relay.stops();
}

/// A receiver remembers only a few sessions of a sender, so few may be in flight at once.
#[test]
fn lines_of_another_session_wait_for_the_answers_of_the_one_before() {
    const SESSIONS: usize = 12;
    let collector = RelpCollector::new();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), "dead-after = \"500ms\"");
    for session in 0..SESSIONS {
        let relay = setup.start();
        says(&relay, session * 5..session * 5 + 5);
        relay.has_spooled(5);
        relay.kill();
    }
    let relay = setup.start();
    // The killed relays' connections come first, and are closed already.
    let mut peer = eventually("a connection that lives", || {
        let mut peer = collector.accepts();
        let open = peer.frame()?;
        peer.answers(1, &format!("200 OK\n{}", String::from_utf8_lossy(&open.data)));
        peer.frame().map(|_| peer)
    });
    relay.fails_because("the collector has not answered for 500ms");
    peer.is_over();
    let mut peer = collector.opens_numbered();
    for _ in 0..SESSIONS {
        let asked = peer.frame().expect("a frame");
        assert_eq!(asked.command, "numbered");
        peer.answers(asked.txnr, "200 OK");
    }
    relay.has_delivered(0, SESSIONS * 5);
}

/// The receiver's collector is away and its spool is full: senders connect, wait, give up and try again.
#[test]
fn senders_that_gave_up_waiting_are_let_go() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let receiver = receiver(&collector).spool("max-size = \"1MiB\"\nwhen-full = \"drop-newest\"").start();
    let senders: Vec<_> = (0..4).map(|_| flood(receiver.door())).collect();
    let held = || receiver.metrics().sum("spool_held");
    eventually("they are made to wait", || (held() > 0).then_some(()));
    receiver.counts("listen_connections", 4);
    for (peer, talks) in senders {
        socket2::SockRef::from(peer.stream()).set_linger(Some(std::time::Duration::ZERO)).expect("a socket option");
        peer.stream().shutdown(std::net::Shutdown::Both).expect("it was connected");
        talks.join().expect("a thread");
    }
    receiver.counts("listen_connections", 0);
    collector.comes();
    eventually("all that was taken is delivered", || {
        let metrics = receiver.metrics();
        let settled = metrics.sum("spool_held") == 0 && metrics.sum("forward_waiting") == 0;
        settled.then_some(())
    });
    receiver.balances(0);
    receiver.stops();
}

const TEXT: [u8; 1000] = [b'x'; 1000];

/// A sender that sends more than the buffers hold, and reads no answer.
fn flood(door: &Door) -> (RelpPeer, std::thread::JoinHandle<()>) {
    let peer = RelpPeer::opened(door);
    let mut talks = peer.stream().try_clone().expect("a descriptor");
    let talks = std::thread::spawn(move || {
        let _ = (2..100_000).try_for_each(|txnr| talks.write_all(&frame(txnr, "syslog", &TEXT)));
    });
    (peer, talks)
}

/// The relay must report losses, but its spool has no room for the report.
#[test]
fn a_full_relay_can_be_given_more_room() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let listens = || receiver(&collector).listen("tcp://127.0.0.1:0");
    let full = listens().spool("max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"off\"");
    let relay = full.start();
    let _senders: Vec<_> = (0..4).map(|_| flood(relay.door())).collect();
    let dropped = || relay.metrics().with("spool_dropped_total", "full");
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.doors()[1].connect();
    eventually("lines are lost", || {
        wire.says(&container, &TEXT);
        (dropped() > 0).then_some(())
    });
    listens().spool("max-size = \"64MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"off\"").replaces(&full);
    relay.signal(SIGHUP);
    eventually("it is read again", || (relay.metrics().with("config_reloads_total", "applied") == 1).then_some(()));
    relay.stops();
}

#[test]
fn what_ends_in_line_feeds_keeps_them() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let last = receiver(&collector).start();
    let middle = Setup::new().listen("relp://127.0.0.1:0").forward(&url(&last)).start();
    let first = sender(&url(&middle)).start();
    first.door().connect().send_counted(b"<13>1 - h a - - - text\n\n\n");
    // On input one LF belongs to the framing; after that the message does not change.
    assert_eq!(collector.lines(1)[0].message, b"text\n\n");
}

/// Both sides show a certificate, and any container output arrives unchanged.
#[test]
fn relay_to_relay_over_mutual_tls() {
    let certs = Certs::get();
    let collector = Collector::tcp(Framing::OctetCounting);
    let [ca, cert, key] = ["ca.pem", "server.pem", "server-key.pem"].map(|name| certs.path(name));
    let [client, client_key] = ["client.pem", "client-key.pem"].map(|name| certs.path(name));
    let keys = format!("cert = \"{cert}\"\nkey = \"{key}\"\nclient-ca = \"{ca}\"");
    let receiver = Setup::new()
        .listen_with("relp+tls://127.0.0.1:0", &keys)
        .forward_with(&collector.url(), "framing = \"octet-counting\"")
        .start();
    let to = |keys: &str| {
        let setup = Setup::new().listen("tcp://127.0.0.1:0");
        setup.forward_with(&url(&receiver), &format!("ca = \"{ca}\"\n{keys}")).start()
    };
    let stranger = to("");
    says(&stranger, 0..1);
    eventually("it is refused", || (receiver.metrics().sum("listen_handshake_failures_total") > 0).then_some(()));
    let sender = to(&format!("cert = \"{client}\"\nkey = \"{client_key}\""));
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let texts: Vec<Vec<u8>> = hard_texts().into_iter().filter(|text| !text.contains(&b'\n')).collect();
    let mut wire = sender.door().connect();
    texts.iter().for_each(|text| wire.says(&container, text));
    let messages: Vec<Vec<u8>> = collector.lines(texts.len()).into_iter().map(|line| line.message).collect();
    assert_eq!(messages, texts);
    sender.has_delivered(texts.len(), 0);
    receiver.has_delivered(texts.len(), 0);
    sender.stops();
    receiver.stops();
}

/// No line is dropped when the spool is full. The policy applies only to senders that cannot wait.
#[test]
fn a_full_spool_makes_its_sender_wait() {
    for policy in ["drop-oldest", "drop-newest"] {
        const MESSAGES: usize = 20_000;
        let mut collector = Collector::tcp_away(Framing::OctetCounting);
        let full = format!("max-size = \"1MiB\"\nwhen-full = \"{policy}\"");
        let receiver = receiver(&collector).spool(&full).start();
        let sender = sender(&url(&receiver)).start();
        says(&sender, 0..MESSAGES);
        eventually("it is full", || (receiver.metrics().sum("spool_held") > 0).then_some(()));
        receiver.says("spool: full: senders that can be made to wait do so");
        sender.has_spooled(MESSAGES);
        collector.comes();
        collector.frames(MESSAGES);
        assert!(collector.numbers().into_iter().eq(0..MESSAGES), "{policy}");
        sender.has_delivered(MESSAGES, 0);
        receiver.has_delivered(MESSAGES, 0);
        sender.stops();
        receiver.stops();
    }
}

/// With `sync = "always"` an acknowledged line survives a power failure, and one sync serves many messages.
#[test]
fn an_answer_after_a_sync_does_not_take_a_sync_each() {
    const MESSAGES: usize = 20_000;
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let receiver =
        Setup::new().spool("sync = \"always\"").listen("relp://127.0.0.1:0").forward(&collector.url()).start();
    let sender = sender(&url(&receiver)).start();
    let start = std::time::Instant::now();
    says(&sender, 0..MESSAGES);
    sender.has_delivered(MESSAGES, 0);
    let syncs = receiver.metrics().sum("spool_syncs_total");
    println!("{MESSAGES} messages, {syncs} syncs, {:?}", start.elapsed());
    assert!((1..=MESSAGES as u64 / 10).contains(&syncs), "{syncs} syncs for {MESSAGES} messages");
    sender.stops();
    receiver.stops();
}

/// As a stopping rsyslog ends a session: answers, `serverclose` and the end of the connection in one write.
#[test]
fn answers_before_a_goodbye_count() {
    let collector = RelpCollector::new();
    let relay = sender(&collector.url()).start();
    says(&relay, 0..10);
    let mut peer = collector.opens();
    let frames = peer.frames(10);
    assert_eq!(sent(&frames), Vec::from_iter(0..10));
    let answers = frames[..6].iter().map(|asked| frame(asked.txnr, "rsp", b"200 OK"));
    let goodbye: Vec<u8> = answers.chain([frame(0, "serverclose", b"")]).flatten().collect();
    peer.sends(&goodbye);
    drop(peer);
    relay.fails_because("the collector ended the session");
    let mut peer = collector.opens();
    let frames = peer.frames(4);
    assert_eq!(sent(&frames), Vec::from_iter(6..10));
    frames.iter().for_each(|asked| peer.answers(asked.txnr, "200 OK"));
    relay.has_delivered(10, 0);
    assert_eq!(relay.metrics().sum("forward_resent_total"), 4);
    // The relay's own `close` conforms to RELP.
    let ends = std::thread::spawn(move || drop(relay.stops()));
    let close = peer.frame().expect("a goodbye");
    assert_eq!(close.command, "close");
    peer.answers(close.txnr, "200 OK");
    peer.is_over();
    ends.join().expect("a good end");
}

#[test]
fn answers_in_any_order_count() {
    let collector = RelpCollector::new();
    let relay = sender(&collector.url()).start();
    says(&relay, 0..10);
    let mut peer = collector.opens();
    let frames = peer.frames(10);
    // The first message is unacknowledged, so no message counts as delivered.
    frames[1..].iter().rev().for_each(|asked| peer.answers(asked.txnr, "200 OK"));
    peer.says(0, "serverclose", b"");
    let mut peer = collector.opens();
    let again = peer.frames(10);
    assert_eq!(sent(&again), Vec::from_iter(0..10));
    again.iter().rev().for_each(|asked| peer.answers(asked.txnr, "200 OK"));
    relay.has_delivered(10, 0);
    assert_eq!(relay.metrics().sum("forward_connects_total"), 2);
}

/// The collector rejects one line permanently, and all others arrive without an operator.
#[test]
fn a_line_that_is_refused_for_good_is_a_dead_letter_and_the_rest_goes_on() {
    let collector = RelpCollector::new();
    let setup = sender(&collector.url());
    let relay = setup.start();
    says(&relay, 0..10);
    let mut peer = collector.opens();
    let mut taken = Vec::new();
    // Nine messages once, and the rejected one three times.
    for _ in 0..12 {
        let asked = peer.frames(1);
        let number = sent(&asked)[0];
        if number == 4 {
            peer.answers(asked[0].txnr, "500 this is no syslog");
        } else {
            taken.push(number);
            peer.answers(asked[0].txnr, "200 OK");
        }
    }
    assert_eq!(taken, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    relay.says("forward central: the collector refuses a line for good (500 this is no syslog)");
    relay.counts("forward_pending", 0);
    says(&relay, 10..11);
    // The next line, and the relay's notice about the loss, in any order.
    let (mut texts, mut told) = (Vec::new(), 0);
    while texts.len() < 2 {
        let asked = peer.frames(1);
        peer.answers(asked[0].txnr, "200 OK");
        let text = String::from_utf8_lossy(&asked[0].data).into_owned();
        told +=
            usize::from(text.contains("1 messages were rejected here at forward central: the collector refused them"));
        texts.push(text);
    }
    assert!(told == 1 && texts.iter().any(|text| text.ends_with(" 10")), "{texts:?}");
    relay.counts("forward_pending", 0);
    relay.balances(0);
    let metrics = relay.metrics();
    assert_eq!(metrics.sum("forward_rejected_total"), 1);
    let letters = std::fs::read_to_string(setup.path("spool/dead-letter/central.jsonl")).expect("dead letters");
    assert_eq!(metrics.sum("forward_dead_letter_bytes"), letters.len() as u64);
    let shown = status(&relay);
    assert_eq!((&shown["forwards"][0]["rejected"], &shown["forwards"][0]["delivered"]), (&1.into(), &11.into()));
    // `spool` shows the letter with the collector's answer, or only the line.
    let spool = |arguments: &[&str]| {
        let output = setup.command().arg("spool").args(arguments).output().expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(spool(&["cat", "--dead", "central"]), letters);
    let letter: serde_json::Value = serde_json::from_str(&letters).expect("one object");
    assert_eq!((&letter["why"], &letter["number"]), (&"500 this is no syslog".into(), &4.into()));
    let line = spool(&["cat", "--dead", "central", "--format", "rfc5424"]);
    assert!(line.ends_with(" 4\n") && letter["line"] == line.trim_end(), "{line}");
    assert!(spool(&["ls"]).contains("dead letters of central, refused by its collector: "));
    assert_eq!(relay.metrics().sum("forward_resent_total"), 2);
    assert_eq!(relay.metrics().sum("forward_connects_total"), 1);
    // The operator has handled the letters and deleted the file.
    std::fs::remove_file(setup.path("spool/dead-letter/central.jsonl")).expect("dead letters");
    relay.counts("forward_dead_letter_bytes", 0);
    relay.stops();
}

/// A relay that was killed before it saved its cursor sends the line again. It is rejected again, but not written twice.
#[test]
fn a_dead_letter_is_written_once_also_by_a_killed_relay() {
    let collector = RelpCollector::new();
    let setup = sender(&collector.url());
    let dead_letters = || std::fs::read_to_string(setup.path("spool/dead-letter/central.jsonl")).unwrap_or_default();
    let is_refused_for_good = |relay: &Relay| {
        let mut peer = collector.opens();
        for _ in 0..3 {
            let asked = peer.frames(1);
            assert_eq!(sent(&asked), [0]);
            peer.answers(asked[0].txnr, "500 no");
        }
        relay.counts("forward_rejected_total", 1);
        relay.balances(u64::from(relay.metrics().sum("spool_spooled_total") == 0));
    };
    let relay = setup.start();
    says(&relay, 0..1);
    is_refused_for_good(&relay);
    relay.kill();
    std::fs::remove_file(setup.path("spool/cursor.central")).expect("a cursor");
    let relay = setup.start();
    is_refused_for_good(&relay);
    assert_eq!(dead_letters().lines().count(), 1, "{}", dead_letters());
}

/// A misconfigured collector must not empty the spool into the dead letters.
#[test]
fn a_collector_that_refuses_everything_gets_it_when_it_has_come_to_its_senses() {
    const LINES: usize = 150;
    let collector = RelpCollector::new();
    let setup = sender(&collector.url());
    let relay = setup.start();
    says(&relay, 0..LINES);
    // The number of attempts is random.
    for _ in 0..3 {
        let mut peer = collector.opens();
        let asked = peer.frames(LINES);
        assert!(sent(&asked).into_iter().eq(0..LINES));
        asked.iter().for_each(|asked| peer.answers(asked.txnr, "500 disk full"));
        let goodbye = peer.frame().expect("a goodbye");
        assert_eq!(goodbye.command, "close");
        peer.answers(goodbye.txnr, "200 OK");
        peer.is_over();
    }
    relay.counts("forward_stopped", 1);
    let state = || status(&relay)["forwards"][0]["state"].as_str().expect("a word").to_owned();
    assert_eq!(state(), "stopped");
    let mut peer = collector.opens();
    let asked = peer.frames(LINES);
    assert!(sent(&asked).into_iter().eq(0..LINES), "nothing was given up");
    asked.iter().for_each(|asked| peer.answers(asked.txnr, "200 OK"));
    relay.has_delivered(LINES, 0);
    relay.counts("forward_stopped", 0);
    assert_eq!(state(), "connected");
    assert!(!setup.path("spool/dead-letter").exists());
    let said = |text: &str| relay.stderr().matches(text).count();
    assert_eq!(said("stopped: the collector refuses every line"), 1, "{}", relay.stderr());
    assert_eq!(said("forward central: the collector takes lines again"), 1);
    relay.stops();
}

/// Many collectors end the session after a rejection.
#[test]
fn a_session_that_ends_with_a_refusal_does_not_begin_the_count_anew() {
    let collector = RelpCollector::new();
    let setup = sender(&collector.url());
    let relay = setup.start();
    says(&relay, 0..1);
    for _ in 0..3 {
        let mut peer = collector.opens();
        assert_eq!(sent(&peer.frames(1)), [0]);
        peer.sends(&[frame(2, "rsp", b"500 no"), frame(0, "serverclose", b"")].concat());
    }
    relay.counts("forward_pending", 0);
    assert!(setup.path("spool/dead-letter/central.jsonl").exists());
    relay.stops();
}

/// An invalid answer ends the session, and the message is sent again.
#[test]
fn answers_that_are_none() {
    let collector = RelpCollector::new();
    let relay = sender(&collector.url()).start();
    says(&relay, 0..1);
    let wrong: [(&[u8], &str); 5] = [
        (&frame(3, "rsp", b"200 OK"), "the collector answered what nobody asked (number 3)"),
        (&frame(2, "syslog", b"<13>x"), "the collector sends commands instead of answers"),
        (b"HTTP/1.1 400 Bad Request\r\n", "this is no RELP"),
        (b"2 rsp 6 200 OKAY\n", "this is no RELP: no LF where the data ends"),
        (b"", "the collector closed the connection"),
    ];
    for (bytes, says) in wrong {
        let mut peer = collector.opens();
        assert_eq!(sent(&peer.frames(1)), [0]);
        peer.sends(bytes);
        drop(peer);
        relay.says(says);
    }
    let mut peer = collector.opens();
    assert_eq!(sent(&peer.frames(1)), [0]);
    peer.answers(2, "200 OK");
    relay.has_delivered(1, 0);
}

#[test]
fn a_session_that_is_refused_is_asked_for_again() {
    let collector = RelpCollector::new();
    let relay = sender(&collector.url()).start();
    says(&relay, 0..1);
    let mut peer = collector.accepts();
    assert_eq!(peer.frame().expect("a frame").command, "open");
    peer.answers(1, "500 required command not supported");
    relay.fails_because("RELP's open was answered with: 500 required command not supported");
    let mut peer = collector.opens();
    peer.frames(1);
    peer.answers(2, "200 OK");
    relay.has_delivered(1, 0);
}

/// The collector's kernel acknowledges TCP segments, but the collector does not answer.
#[test]
fn a_collector_that_does_not_answer_is_left_for_the_second() {
    let hung = RelpCollector::new();
    let second = Collector::tcp(Framing::OctetCounting);
    let keys = "framing = \"octet-counting\"\ndead-after = \"500ms\"\nmax-backoff = \"100ms\"\nreplay-for = \"1s\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_in_order(&[hung.url(), second.url()], keys).start();
    says(&relay, 0..10);
    let _silent = hung.opens();
    second.frames(10);
    assert!(second.numbers().into_iter().eq(0..10));
    relay.fails_because("the collector has not answered for 500ms");
}

/// A collector that recovers reads everything that was sent on every connection, so there must be few connections.
#[test]
fn a_collector_that_goes_on_not_answering_is_left_alone_for_longer() {
    let collector = RelpCollector::new();
    let relay =
        Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), "dead-after = \"500ms\"").start();
    says(&relay, 0..10);
    let silent = ["500ms", "1s", "2s"].map(|patience| {
        let peer = collector.opens();
        relay.fails_because(&format!("the collector has not answered for {patience}"));
        peer
    });
    let mut peer = collector.opens();
    peer.frames(10).iter().for_each(|asked| peer.answers(asked.txnr, "200 OK"));
    relay.has_delivered(10, 0);
    drop(silent);
}

/// At most `window` messages, and the rest of the last batch from the spool, are in flight.
#[test]
fn a_window_is_kept() {
    const MESSAGES: usize = 2000;
    let collector = RelpCollector::new();
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), "window = 10").start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    (0..MESSAGES).for_each(|number| wire.says(&container, format!("{number:01024}").as_bytes()));
    relay.has_spooled(MESSAGES);
    let mut peer = collector.opens();
    peer.frames(50);
    peer.says(0, "serverclose", b"");
    let mut peer = collector.opens();
    let again = || Some(relay.metrics().sum("forward_resent_total")).filter(|lines| *lines >= 50);
    let unanswered = eventually("what was not answered is sent again", again);
    assert!(unanswered <= 10 + 64, "{unanswered}");
    for number in 0..MESSAGES {
        let asked = peer.frames(1);
        assert_eq!(sent(&asked), [number]);
        peer.answers(asked[0].txnr, "200 OK");
    }
    relay.has_delivered(MESSAGES, 0);
}

/// A full batch takes the collector longer than `dead-after`, but a smaller frame does not.
#[test]
fn a_collector_that_answers_slowly_gets_smaller_frames() {
    const MESSAGES: usize = 600;
    let collector = RelpCollector::new();
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), "dead-after = \"2s\"").start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    (0..MESSAGES).for_each(|number| wire.says(&container, format!("{number:0120}").as_bytes()));
    relay.has_spooled(MESSAGES);
    let mut peer = collector.opens_numbered();
    let mut lines = 0;
    while lines < MESSAGES {
        let asked = peer.frame().expect("the relay waits");
        // 16 kB per second: a batch of 64 KiB takes four seconds.
        thread::sleep(Duration::from_secs_f64(asked.data.len() as f64 / 16_000.0));
        peer.answers(asked.txnr, "200 OK");
        lines += String::from_utf8_lossy(&asked.data).matches("<30>1 ").count();
    }
    relay.has_delivered(MESSAGES, 0);
    let metrics = relay.metrics();
    assert_eq!((metrics.sum("forward_connects_total"), metrics.sum("forward_resent_total")), (1, 0));
    relay.stops();
}

/// A relay with a RELP listener; its output is discarded.
fn taker() -> Relay {
    Setup::new().listen_with("relp://127.0.0.1:0", "max-frame = \"1KiB\"").forward("file:///dev/null").start()
}

#[test]
fn messages_are_answered_in_order_and_what_is_not_known_is_refused() {
    let relay = taker();
    let mut peer = RelpPeer::opened(relay.door());
    let asked = [
        frame(2, "syslog", b"<13>one"),
        frame(3, "syslog", b"<13>two\n"),
        frame(4, "oracle", b"what is it?"),
        frame(5, "syslog", &[b"<13>".as_slice(), &[b'x'; 5000]].concat()),
        frame(6, "close", b""),
    ];
    peer.sends(&asked.concat());
    let answers = peer.frames(6);
    let told: Vec<(u32, &str, bool)> =
        answers.iter().map(|answer| (answer.txnr, answer.command.as_str(), answer.is_ok())).collect();
    let ok = |txnr| (txnr, "rsp", true);
    assert_eq!(told, [ok(2), ok(3), (4, "rsp", false), ok(5), ok(6), (0, "serverclose", false)]);
    assert!(answers[2].data.starts_with(b"500 "));
    peer.is_over();
    relay.has_delivered(3, 0);
    assert_eq!(relay.metrics().sum("listen_cut_total"), 1);
    relay.stops();
}

/// The session ends; messages before the error are kept.
#[test]
fn what_is_no_session_is_ended() {
    let relay = taker();
    let numbered = |first_line: u64| frame(2, "numbered", format!("7 {first_line}\n7 <13>abc").as_bytes());
    let open = frame(1, "open", b"relp_version=0\ncommands=syslog,numbered\nstream=somebody/else");
    let cases: [(Vec<u8>, usize, usize); 7] = [
        // Input, number of answers, number of messages.
        (frame(1, "syslog", b"<13>early"), 0, 0),
        (b"<13>not even RELP\n".to_vec(), 0, 0),
        ([frame(1, "open", b""), numbered(1)].concat(), 1, 0),
        ([open.clone(), numbered(u64::MAX - 3)].concat(), 1, 0),
        ([open.clone(), frame(2, "numbered", b"7 1\n9 <13>abc")].concat(), 1, 0),
        ([frame(1, "open", b""), frame(2, "close", b""), frame(3, "syslog", b"<13>late")].concat(), 3, 0),
        ([open, numbered(1), b"no more RELP".to_vec()].concat(), 1, 1),
    ];
    let (mut refused, mut received) = (0, 0);
    for (bytes, answers, messages) in cases {
        let mut peer = RelpPeer::connects(relay.door());
        peer.sends(&bytes);
        let mut heard = Vec::from_iter(std::iter::from_fn(|| peer.frame()));
        // The last answer may be missing, because the connection ends at once.
        heard.truncate(answers);
        assert!(heard.iter().all(|answer| answer.txnr != 2 || answers == 3), "{heard:?}");
        refused += 1;
        received += messages;
        relay.counts("listen_refused_total", refused);
        relay.counts("listen_received_total", received as u64);
    }
    relay.has_delivered(received, 0);
    relay.stops();
}

/// An unacknowledged message is sent again, so the relay ends the session and keeps no partial message.
#[test]
fn a_frame_that_does_not_end_ends_its_session() {
    let setup = Setup::new().listen_with("relp://127.0.0.1:0", "frame-timeout = \"1ms\"").forward("file:///dev/null");
    let relay = setup.start();
    let mut peer = RelpPeer::opened(relay.door());
    peer.says(2, "syslog", b"<13>whole");
    assert!(peer.frame().expect("an answer").is_ok());
    peer.sends(b"3 syslog 100 <13>half");
    peer.is_over();
    assert_eq!(relay.metrics().with("listen_refused_total", "frame-timeout"), 1);
    relay.has_delivered(1, 0);
    relay.stops();
}

/// The limit is half of `max-unfinished`, because all senders have the same address.
#[test]
fn sessions_take_so_much_memory_in_all() {
    let limits = "max-unfinished = \"4MiB\"\nmax-frame = \"512KiB\"";
    let relay = Setup::new().listen_with("relp://127.0.0.1:0", limits).forward("file:///dev/null").start();
    let half = [b"2 syslog 500000 <13>".as_slice(), &[b'x'; 499_000]].concat();
    let mut four: Vec<RelpPeer> = (0..4).map(|_| RelpPeer::opened(relay.door())).collect();
    for (number, peer) in four.iter_mut().enumerate() {
        let before = relay.metrics().sum("listen_bytes_total");
        peer.sends(&half);
        relay.counts("listen_bytes_total", before + half.len() as u64);
        assert_eq!(relay.metrics().refused(), 0, "session {number}");
    }
    let mut fifth = RelpPeer::opened(relay.door());
    // The relay may end the session before the write is complete.
    let _ = fifth.stream().write_all(&half);
    fifth.is_over();
    assert_eq!(relay.metrics().with("listen_refused_total", "max-unfinished"), 1);
    // The other sessions keep their memory, and the fifth session's memory is free for the next.
    let rest = [vec![b'x'; 996], b"\n".to_vec()].concat();
    for peer in &mut four {
        peer.sends(&rest);
        assert!(peer.frame().expect("an answer").is_ok());
    }
    let mut sixth = RelpPeer::opened(relay.door());
    sixth.sends(&[&half, &rest].map(|part| &part[..]).concat());
    assert!(sixth.frame().expect("an answer").is_ok());
    relay.has_delivered(5, 0);
    relay.stops();
}

/// Sessions that wait for room do not block a session that is still in its handshake.
#[test]
fn who_comes_to_a_full_spool_is_heard() {
    let full = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"";
    let relay = Setup::new().spool(full).listen("relp://127.0.0.1:0").forward("tcp://127.0.0.1:1").start();
    let waiting: Vec<RelpPeer> = (0..8).map(|_| RelpPeer::opened(relay.door())).collect();
    for peer in &waiting {
        let mut stream = peer.stream().try_clone().expect("a descriptor");
        // Until the relay closes the connection.
        thread::spawn(move || (2..10_000).all(|txnr| stream.write_all(&frame(txnr, "syslog", &[b'x'; 1000])).is_ok()));
    }
    eventually("the spool and the queue are full", || (relay.metrics().sum("spool_held") > 1500).then_some(()));
    for _ in 0..8 {
        drop(RelpPeer::opened(relay.door()));
    }
    assert_eq!(relay.metrics().sum("listen_handshake_failures_total"), 0);
    drop(waiting);
    relay.stops();
}

/// Each line would become a message with a header, twenty times as long.
#[test]
fn numbered_lines_of_a_byte_each_are_refused() {
    let relay = taker();
    let mut peer = RelpPeer::connects(relay.door());
    peer.says(1, "open", b"relp_version=0\ncommands=syslog,numbered\nstream=somebody/else");
    assert!(peer.frame().expect("an answer").is_ok());
    peer.says(2, "numbered", &[b"7 1\n".as_slice(), &b"1 a".repeat(100_000)].concat());
    let goodbye = peer.frame().expect("a goodbye");
    assert_eq!(
        (goodbye.command.as_str(), &*goodbye.data),
        ("serverclose", &b"numbered lines that are too short to be syslog"[..])
    );
    peer.is_over();
    relay.counts("listen_refused_total", 1);
    assert_eq!(relay.metrics().sum("listen_received_total"), 0);
    relay.stops();
}

/// A sender that keeps sending gets `serverclose`, so it knows that the rest was not accepted.
#[test]
fn a_relay_that_stops_under_load_says_goodbye() {
    // With `sync = "always"`, every acknowledgement takes a moment.
    let setup = Setup::new().spool("sync = \"always\"").listen("relp://127.0.0.1:0").forward("file:///dev/null");
    let mut relay = setup.start();
    let mut peer = RelpPeer::opened(relay.door());
    let (mut talks, quiet) = (peer.stream().try_clone().expect("a descriptor"), Arc::<AtomicBool>::default());
    let hush = quiet.clone();
    let talker = std::thread::spawn(move || {
        let said = |txnr: &u32| talks.write_all(&frame(*txnr, "syslog", b"<13>x")).is_ok();
        (2..u32::MAX).take_while(|_| !hush.load(Ordering::Relaxed)).take_while(said).count()
    });
    peer.frames(100);
    relay.signal(SIGTERM);
    let mut answered = 101;
    loop {
        let answer = peer.frame().expect("a goodbye");
        if answer.command == "serverclose" {
            break;
        }
        answered += 1;
        assert!(answer.is_ok() && answer.txnr == answered, "{answer:?}");
    }
    quiet.store(true, Ordering::Relaxed);
    assert!(talker.join().expect("a thread") >= answered as usize - 1);
    peer.is_over();
    assert_eq!(relay.ends().code(), Some(0));
}

#[test]
fn half_a_message_is_none() {
    let relay = taker();
    let mut peer = RelpPeer::opened(relay.door());
    peer.says(2, "syslog", b"<13>whole");
    peer.sends(b"3 syslog 20 <13>half");
    assert!(peer.frame().expect("an answer").is_ok());
    drop(peer);
    relay.counts("listen_unfinished_total", 1);
    relay.has_delivered(1, 0);
    relay.stops();
}

/// The relay stops reading from the sender, other senders are not affected, and a stop does not wait for it.
#[test]
fn a_sender_that_does_not_read_its_answers() {
    let relay = taker();
    let peer = RelpPeer::opened(relay.door());
    let mut deaf = peer.stream().try_clone().expect("a descriptor");
    let talks = std::thread::spawn(move || {
        (2..1_000_000).find(|txnr| deaf.write_all(&frame(*txnr, "syslog", b"<13>x")).is_err())
    });
    let received = || relay.metrics().sum("listen_received_total");
    eventually("its answers fill the way back", || (received() > 1000).then_some(()));
    let mut other = RelpPeer::opened(relay.door());
    for txnr in 2..100 {
        other.says(txnr, "syslog", b"<13>y");
        assert!(other.frame().expect("an answer").is_ok());
    }
    relay.stops();
    assert!(talks.join().expect("a thread").is_some(), "all was read, though no answer was");
}

/// rsyslog as the sender, and a relay that is repeatedly stopped and killed.
#[test]
fn omrelp_loses_nothing_whatever_happens_to_the_relay() {
    let Some(program) = rsyslog::find(rsyslog::Input::Relp) else { return };
    let local = [std::net::IpAddr::from([127, 0, 0, 1])];
    let (door, inlet) = (Held::new(false, &local), Held::new(false, &local));
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new()
        .listen(&format!("relp://127.0.0.1:{}", door.port()))
        .forward_with(&collector.url(), "framing = \"octet-counting\"");
    let mut relay = setup.start();
    let dir = tempfile::TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("conf"), omrelp(dir.path(), inlet.port(), door.port())).expect("a config");
    let mut rsyslog = Program::start(&mut rsyslog::command(&program, dir.path()));
    let at = (local[0], inlet.port());
    eventually("rsyslog listens", || TcpStream::connect(at).ok());
    let flow = Flow::into(&Door::Tcp(at.into()));
    let mut seen = 0;
    for round in 0..4 {
        seen = collector.frames(seen + 50).len();
        if round % 2 == 0 {
            relay.stops();
        } else {
            relay.kill();
        }
        flow.goes_on(50);
        relay = setup.start();
    }
    let sent = flow.ends();
    let missing = || {
        let arrived = std::collections::BTreeSet::from_iter(collector.numbers());
        (0..sent).filter(|number| !arrived.contains(number)).collect::<Vec<_>>()
    };
    let all = within(Duration::from_secs(60), || missing().is_empty().then_some(()));
    assert!(all.is_some(), "of {sent} these have not arrived: {:?}", missing());
    rsyslog.signal(SIGTERM);
    rsyslog.ends();
    relay.stops();
}

/// The queue has room for all messages of an outage: at a full queue rsyslog discards a message after a wait of two seconds.
fn omrelp(dir: &Path, from: u16, to: u16) -> String {
    format!(
        "global(workDirectory=\"{}\" maxMessageSize=\"128k\" net.enableDNS=\"off\")\n\
         module(load=\"imptcp\")\nmodule(load=\"omrelp\")\n\
         template(name=\"same\" type=\"string\" string=\"%rawmsg%\")\n\
         action(type=\"omrelp\" target=\"127.0.0.1\" port=\"{to}\" template=\"same\" timeout=\"5\" \
         action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\" queue.type=\"LinkedList\" queue.size=\"100000\")\n\
         input(type=\"imptcp\" address=\"127.0.0.1\" port=\"{from}\")\n",
        dir.display()
    )
}
