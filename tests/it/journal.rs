//! systemd's journal: entries from `systemd-journal-upload`, and the relay's answers.

use std::process::Command;

use crate::support::collector::LOCAL;
use crate::support::corpus::unescape;
use crate::support::http::{HttpPeer, head};
use crate::support::program::{Program, SIGTERM};
use crate::support::{Collector, Framing, Held, Line, Setup, eventually, installed};

const COUNTED: &str = "framing = \"octet-counting\"";
const HTTP: &str = "journal+http://127.0.0.1:0";
const KIND: (&str, &str) = ("Content-Type", "application/vnd.fdo.journal");
const UPLOAD: &str = "POST /upload";
const FIELDS: &str = "fields@32473";

fn to(collector: &Collector) -> Setup {
    Setup::new().listen(HTTP).forward_with(&collector.url(), COUNTED)
}

/// A journal entry whose position and text are this number.
fn entry(number: usize) -> String {
    let (family, boot) = ("a".repeat(32), "b".repeat(32));
    format!(
        "__CURSOR=s={family};i={number:x};b={boot};m=1;t={:x};x=1\n__REALTIME_TIMESTAMP={}\nPRIORITY=5\n_HOSTNAME=n7\n\
         SYSLOG_IDENTIFIER=shop\n_PID=7\n_SYSTEMD_UNIT=shop.service\nMESSAGE={number}\n\n",
        1_795_898_357_000_000 + number,
        1_795_898_357_000_000 + number,
    )
}

fn entries(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.map(entry).collect::<String>().into_bytes()
}

/// `count` entries from the first, each text with `zeros` leading zeros.
fn long_entries(count: usize, zeros: usize) -> Vec<u8> {
    let zeros = format!("MESSAGE={:0zeros$}", 0);
    (0..count).map(|number| entry(number).replace("MESSAGE=", &zeros)).collect::<String>().into_bytes()
}

/// A field's value in an entry of the index; empty if the entry lacks it.
fn said(entry: &serde_json::Value, name: &str) -> Vec<u8> {
    let fields = entry["fields"].as_array().expect("fields");
    let value = fields.iter().find_map(|field| (field[0] == name).then(|| field[1].as_str().expect("a text")));
    value.map(|value| unescape(value.as_bytes())).unwrap_or_default()
}

/// All recordings of the real uploader: each connection byte for byte, and each entry as in the index.
#[test]
fn what_the_uploader_sends_is_answered_and_arrives() {
    let expected = std::fs::read_to_string("tests/corpus-journal/expected.jsonl").expect("the index");
    let expected: Vec<serde_json::Value> =
        expected.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut seen = 0;
    for name in ["system.http", "docker.http", "merged.http", "follow.http", "again-1-answered.http"] {
        let collector = Collector::tcp(Framing::OctetCounting);
        let relay = to(&collector).start();
        let file = std::fs::read(format!("tests/corpus-journal/{name}")).expect("a recording");
        let requests = memchr::memmem::find_iter(&file, b"POST /upload HTTP/1.1\r\n").count();
        let mut peer = HttpPeer::connects(relay.door());
        peer.sends(&file);
        for _ in 0..requests {
            let answer = peer.hears().expect("an answer");
            assert_eq!((answer.status, &*answer.body), (202, "OK.\n"), "{name}");
        }
        // One entry has only its timestamps and cursor, and no message.
        let says_something = |entry: &&serde_json::Value| entry["fields"].as_array().is_some_and(|all| all.len() > 3);
        let of_file = expected.iter().filter(|entry| entry["file"] == name).filter(says_something);
        let of_file: Vec<_> = of_file.collect();
        let lines = collector.lines(of_file.len());
        for (line, entry) in lines.iter().zip(&of_file) {
            assert!(line.message == said(entry, "MESSAGE"), "{name}: {line:?}");
            assert_eq!(line.host.as_bytes(), said(entry, "_HOSTNAME"), "{name}: {line:?}");
            let severity = [&said(entry, "PRIORITY")[..], b"6"].concat()[0] - b'0';
            assert_eq!(line.pri % 8, severity, "{name}: {line:?}");
            let container = ["IMAGE_NAME", "CONTAINER_NAME", "CONTAINER_ID_FULL"].map(|field| said(entry, field));
            assert_eq!(line.container().map(String::into_bytes), container, "{name}: {line:?}");
        }
        seen += of_file.len();
        relay.has_delivered(of_file.len(), 0);
        relay.stops();
    }
    assert!(seen >= 40, "{seen}");
}

#[test]
fn an_entry_says_who_what_and_when() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let mut peer = HttpPeer::connects(relay.door());
    let answer = peer.asks(UPLOAD, &[KIND], entry(7).as_bytes());
    assert_eq!((answer.status, &*answer.body), (202, "OK.\n"));
    let lines: Vec<Line> = collector.lines(1);
    let line = &lines[0];
    let header = (line.pri, &*line.stamp, &*line.host, &*line.app, &*line.proc_id, &*line.message);
    assert_eq!(header, (13, "2026-11-28T20:39:17.000007Z", "n7", "shop", "7", &b"7"[..]));
    assert_eq!(line.param(FIELDS, "_SYSTEMD_UNIT"), "shop.service");
    assert_eq!(line.param("logferry@32473", "driver"), "journal");
    relay.stops();
}

/// After an interruption the uploader starts again at its saved cursor: each entry is stored once.
#[test]
fn an_entry_that_comes_again_is_not_taken_twice() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let mut peer = HttpPeer::connects(relay.door());
    peer.asks(UPLOAD, &[KIND], &entries(0..10));
    // A restarted uploader repeats the entry of its saved cursor.
    peer.leaves();
    let mut peer = HttpPeer::connects(relay.door());
    let half = entries(9..3000);
    peer.sends(&head(UPLOAD, &[KIND], half.len() + 1));
    peer.sends(&half);
    let read = || (relay.metrics().sum("spool_spooled_total") >= 1000).then_some(());
    eventually("some of it is in the spool", read);
    peer.breaks();
    relay.counts("listen_connections", 0);
    let before = relay.metrics().sum("listen_repeated_total");
    let mut peer = HttpPeer::connects(relay.door());
    assert_eq!(peer.asks(UPLOAD, &[KIND], &entries(9..3000)).status, 202);
    assert!(relay.metrics().sum("listen_repeated_total") >= before + 1000);
    collector.frames(3000);
    assert!(collector.numbers().into_iter().eq(0..3000), "each once, in order");
    // The uploader did not receive this answer, so it repeats the entries.
    peer.breaks();
    relay.counts("listen_connections", 0);
    let mut peer = HttpPeer::connects(relay.door());
    assert_eq!(peer.asks(UPLOAD, &[KIND], &entries(9..3000)).status, 202);
    // Old entries that are sent again on purpose, after an answer that arrived, are accepted.
    assert_eq!(peer.asks(UPLOAD, &[KIND], &entries(3000..3001)).status, 202);
    assert_eq!(peer.asks(UPLOAD, &[KIND], &entries(0..10)).status, 202);
    collector.frames(3011);
    assert_eq!(relay.metrics().sum("listen_received_total"), 3011);
    relay.balances(0);
    relay.stops();
}

/// An answered entry survives a crash, even when the disk is slower than the sender.
#[test]
fn what_is_answered_is_there_after_a_kill() {
    const ENTRIES: usize = 10_000;
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = to(&collector).spool("max-rate = \"8MiB/s\"");
    let relay = setup.start();
    let answer = HttpPeer::connects(relay.door()).asks(UPLOAD, &[KIND], &long_entries(ENTRIES, 900));
    assert_eq!(answer.status, 202);
    relay.kill();
    let relay = setup.start();
    collector.comes();
    collector.frames(ENTRIES);
    assert!(collector.numbers().into_iter().eq(0..ENTRIES));
    relay.has_delivered(0, ENTRIES);
    relay.stops();
}

/// Every answer except success ends the uploader, so it waits until the spool has room.
#[test]
fn a_full_spool_makes_the_uploader_wait() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let full = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"50%\"\nmax-wait = \"300ms\"";
    let relay = to(&collector).listen("splunk+http://127.0.0.1:0").spool(full).start();
    let mut peer = HttpPeer::connects(relay.door());
    let all = long_entries(5000, 400);
    peer.sends(&head(UPLOAD, &[KIND], all.len()));
    let sender = std::thread::spawn(move || {
        peer.sends(&all);
        peer.hears().map(|answer| answer.status)
    });
    eventually("some of it waits", || (relay.metrics().sum("spool_held") > 0).then_some(()));
    // Later senders by another protocol time out meanwhile.
    for _ in 0..2 {
        let mut other = HttpPeer::connects(&relay.doors()[1]);
        assert_eq!(other.asks("POST /services/collector", &[], br#"{"event":"x"}"#).status, 503);
    }
    assert!(!sender.is_finished());
    assert_eq!(relay.refused("max-wait"), 2);
    collector.comes();
    assert_eq!(sender.join().expect("it has not failed"), Some(202));
    collector.frames(5000);
    assert!(collector.numbers().into_iter().eq(0..5000), "each once, in order");
    relay.balances(0);
    relay.stops();
}

#[test]
fn what_is_no_journal_is_refused_and_told() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let ask = |request: &str, headers: &[(&str, &str)], body: &[u8]| {
        HttpPeer::connects(relay.door()).asks(request, headers, body).status
    };
    assert_eq!(ask("POST /other", &[KIND], &entries(0..1)), 404);
    assert_eq!(ask("GET /upload", &[KIND], b""), 405);
    assert_eq!(ask(UPLOAD, &[("Content-Type", "text/plain")], &entries(0..1)), 415);
    assert_eq!(ask(UPLOAD, &[KIND, ("Content-Encoding", "zstd")], &entries(0..1)), 415);
    assert_eq!(ask(UPLOAD, &[KIND], b"no field\n\n"), 400);
    // An incomplete entry is rejected, and its request fails.
    assert_eq!(ask(UPLOAD, &[KIND], &entries(0..1)[..40]), 400);
    for reason in ["path", "method", "content-type", "encoding", "bad-name", "unfinished"] {
        assert_eq!(relay.refused(reason), 1, "{reason}");
    }
    relay.says("take ForceCompression= out of journal-upload.conf");
    assert_eq!(ask(UPLOAD, &[KIND], &entries(5..6)), 202);
    collector.frames(1);
    assert_eq!(collector.numbers(), [5]);
    relay.stops();
}

/// The real uploader and a relay that restarts: its unit restarts the uploader, and no entry is lost.
#[test]
fn the_real_uploader_gets_through_a_restart() {
    let Some(upload) = installed("systemd-journal-upload", "systemd-journal-remote") else { return };
    let remote = upload.with_file_name("systemd-journal-remote");
    let port = Held::on(&[LOCAL]);
    let collector = Collector::tcp(Framing::OctetCounting);
    let listen = format!("journal+http://127.0.0.1:{}", port.port());
    let setup = Setup::new().listen(&listen).forward_with(&collector.url(), COUNTED);
    let (export, journal, state) = (setup.path("export"), setup.path("system.journal"), setup.path("state"));
    let mut written = 0;
    let mut write = |count: usize| {
        std::fs::write(&export, entries(written..written + count)).expect("a file");
        written += count;
        let mut command = Command::new(&remote);
        let output = command.arg(format!("--output={}", journal.display())).arg(&export).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let run = || {
        let mut command = Command::new(&upload);
        command.arg(format!("--url=http://127.0.0.1:{}", port.port()));
        command.arg("--follow=no").arg(format!("--save-state={}", state.display()));
        command.arg(format!("--file={}", journal.display()));
        Program::start(&mut command)
    };
    write(500);
    let relay = setup.start();
    assert!(run().ends().success(), "all of it is sent");
    collector.frames(500);
    relay.signal(SIGTERM);
    let mut relay = relay;
    relay.ends();
    write(500);
    assert!(!run().ends().success(), "the relay is away, and it says so");
    let relay = setup.start();
    eventually("it gets through", || run().ends().success().then_some(()));
    collector.frames(1000);
    let mut numbers = collector.numbers();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.into_iter().eq(0..1000));
    relay.stops();
}
