//! Between relays: the senders whose line numbers a receiver trusts.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::relp::frame;
use crate::support::{Collector, Framing, Relay, RelpCollector, RelpPeer, Setup, says};

/// A number far beyond all real lines.
const FORGED: u64 = 1 << 40;

fn receiver(collector: &Collector, keys: &str) -> Relay {
    let setup = Setup::new().listen_with("relp://127.0.0.1:0", keys);
    setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start()
}

fn url(relay: &Relay) -> String {
    format!("relp://127.0.0.1:{}", relay.door().port())
}

/// What an eavesdropper learns from a session of the relay: the name of its spool, and the session.
fn overheard(spy: &RelpCollector) -> (String, String) {
    let mut peer = spy.accepts();
    let open = peer.frame().expect("an open");
    let offers = String::from_utf8(open.data).expect("text");
    peer.answers(open.txnr, &format!("200 OK\n{offers}"));
    let stream = offers.lines().find_map(|line| line.strip_prefix("stream=")).expect("a stream");
    let numbered = peer.frame().expect("lines");
    peer.answers(numbered.txnr, "200 OK");
    let text = String::from_utf8(numbered.data).expect("text");
    let session = text.split(' ').next().expect("a session");
    (stream.split('/').next().expect("a spool").to_owned(), session.to_owned())
}

/// Pretends to be the relay, with a number far ahead. Returns whether the receiver accepts it.
fn forges(receiver: &Relay, stream: &str, session: &str) -> bool {
    let mut peer = RelpPeer::connects(receiver.door());
    peer.says(1, "open", format!("relp_version=0\ncommands=syslog,numbered\nstream={stream}").as_bytes());
    assert!(peer.frame().expect("an answer").is_ok());
    let line = "<13>1 - - - - - - forged";
    let data = format!("{session} {FORGED}\n{} {line}", line.len());
    peer.sends(&frame(2, "numbered", data.as_bytes()));
    peer.frame().is_some_and(|answer| answer.is_ok())
}

#[test]
fn nobody_else_says_which_lines_of_a_relay_are_here() {
    for (numbered, is_taken) in [("any", true), ("proven", false)] {
        let (collector, spy) = (Collector::tcp(Framing::OctetCounting), RelpCollector::new());
        let receiver = receiver(&collector, &format!("numbered = \"{numbered}\""));
        let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&url(&receiver), "name = \"central\"");
        let relay = setup.forward_with(&spy.url(), "name = \"spy\"").start();
        says(&relay, 0..10);
        collector.frames(10);
        let (spool, session) = overheard(&spy);
        for stream in [format!("{spool}/central"), format!("{spool}/spy")] {
            assert_eq!(forges(&receiver, &stream, &session), is_taken, "{numbered}");
        }
        // A claim of a proven name without a proof fails.
        assert!(!forges(&receiver, &format!("key:{}/central", "0".repeat(32)), &session));
        says(&relay, 10..20);
        let forged = if is_taken { 2 } else { 0 };
        let lines = collector.lines(20 + forged);
        let numbers: Vec<String> =
            lines.iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()).collect();
        (0..20).for_each(|n| assert_eq!(numbers.iter().filter(|number| **number == n.to_string()).count(), 1, "{n}"));
        assert_eq!(receiver.metrics().sum("spool_dropped_total"), 0, "{numbered}");
        receiver.stops();
    }
}

/// The key is a pipe without a writer, and the relay does not block on it.
#[test]
fn a_pipe_in_the_place_of_the_key_is_said_and_holds_nothing_up() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let receiver = receiver(&collector, "");
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward(&url(&receiver));
    let spool = setup.path("spool");
    fs::create_dir(&spool).expect("made");
    mkfifo(&spool.join("relay.key"), Mode::S_IRWXU).expect("a pipe");
    let relay = setup.start();
    relay.says("relay.key: it is a pipe, and no regular file; lines go by RELP without a proof");
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    receiver.has_delivered(10, 0);
    collector.frames(10);
    assert!(collector.numbers().into_iter().eq(0..10));
    relay.stops();
    receiver.stops();
}

/// A relay that had no key before: the receiver recognizes its delivered lines when they are sent again.
#[test]
fn a_relay_that_gets_a_key_has_delivered_what_it_had() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let receiver = receiver(&collector, "");
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&url(&receiver), "name = \"central\"");
    let key = setup.path("spool/relay.key");
    // A directory in the key's place prevents a key.
    fs::create_dir_all(&key).expect("made");
    let relay = setup.start();
    relay.says("no key to be had");
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    relay.stops();
    fs::remove_dir(&key).expect("it is empty");
    for times in 1..3 {
        // Without the cursor, the relay sends delivered lines again.
        fs::remove_file(setup.path("spool/cursor.central")).expect("a cursor");
        let relay = setup.start();
        says(&relay, 10 * times..10 * times + 10);
        receiver.counts("spool_spooled_total", 10 * (times as u64 + 1));
        relay.stops();
        assert!(key.is_file());
    }
    assert!(receiver.metrics().sum("spool_dropped_total") >= 10);
    assert_eq!(collector.frames(30).len(), 30);
    let mut numbers = collector.numbers();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..30));
    receiver.stops();
}
