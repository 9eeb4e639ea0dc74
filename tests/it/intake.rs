//! What happens to a line before it is spooled: secrets that must never be on the disk are hidden.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use crate::support::{Collector, Docker, Door, Format, Framing, RelpPeer, Setup};

const PIECE: usize = 16 * 1024;

fn container(name: &str) -> Docker {
    Docker::new(Format::Rfc5424Micro, name)
}

/// How often bytes are in the files of a directory.
fn found(dir: &Path, bytes: &[u8]) -> usize {
    let files = fs::read_dir(dir).expect("a spool").flatten().map(|entry| fs::read(entry.path()).expect("a file"));
    files.map(|file| memchr::memmem::find_iter(&file, bytes).count()).sum()
}

/// Sends a secret by each way that a message may come, and looks for it in the files of the spool.
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
    // The secret begins in the first piece and ends in the second one.
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

/// Without `at`, they are in the spool, and each forward hides them.
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

/// A rule for the text asks the whole message, and what it drops counts once. Its further lines count as joined.
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
