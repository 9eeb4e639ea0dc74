//! Message boundaries: delimiters of senders other than Docker, wrong octet counts, and forgery by containers.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::Value;

use crate::support::collector::LOCAL;
use crate::support::docker::{Docker, Format};
use crate::support::http::status;
use crate::support::program::Program;
use crate::support::relay::{Relay, Setup};
use crate::support::{Collector, Door, Framing, TlsClient, eventually, installed};

/// A relay with a listener of each kind, and its collector.
fn relay(keys: &str) -> (Relay, Collector) {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup =
        Setup::new().listen_with("tcp://127.0.0.1:0", keys).listen("unix://{dir}/in.sock").listen("udp://127.0.0.1:0");
    (setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start(), collector)
}

/// Fails unless the collector has exactly these messages; messages of one sender keep their order.
#[track_caller]
fn are(collector: &Collector, expected: &[&str]) {
    let lines = collector.lines(expected.len());
    let found: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()).collect();
    assert_eq!(found, expected);
}

/// A stream of some sender, its messages with their framings, and the text of the same bytes as one datagram.
type Example = (&'static [u8], &'static [(&'static str, &'static str)], &'static str);

const EXAMPLES: [Example; 11] = [
    (b"<14>jobs[7]: one\0<14>jobs[7]: two\0", &[("one", "nul"), ("two", "nul")], "one\0<14>jobs[7]: two"),
    (b"<14>a\0b\0\0\0<14>c\0", &[("a\0b", "nul"), ("c", "nul")], "a\0b\0\0\0<14>c"),
    (
        b"<14>the job is done\n12 rows\n<14>next\n",
        &[("the job is done", "newline"), ("12 rows", "newline"), ("next", "newline")],
        "the job is done\n12 rows\n<14>next",
    ),
    (
        b"70000 rows in set\n<14>after 70000\n",
        &[("70000 rows in set", "newline"), ("after 70000", "newline")],
        "70000 rows in set\n<14>after 70000",
    ),
    (
        b"200001 rows\n<14>after 200001\n",
        &[("200001 rows", "newline"), ("after 200001", "newline")],
        "200001 rows\n<14>after 200001",
    ),
    (b"123 apples\n", &[("123 apples", "newline")], "123 apples"),
    (
        b"10 my message8 is whole",
        &[("my message", "octet-counting"), ("is whole", "octet-counting")],
        "10 my message8 is whole",
    ),
    (
        b"10 <6>hello!10 <6>world!8 <6>again!9 <6>hello!",
        &[
            ("hello!1", "octet-counting"),
            ("world!", "newline"),
            ("again", "octet-counting"),
            ("!", "newline"),
            ("hello!", "octet-counting"),
        ],
        "10 <6>hello!10 <6>world!8 <6>again!9 <6>hello!",
    ),
    (b"<14>crlf\r\n\r\n<14>again\r\n", &[("crlf", "newline"), ("again", "newline")], "crlf\r\n\r\n<14>again\r"),
    (b"\xef\xbb\xbf<14>behind a mark\n", &[("behind a mark", "newline")], "behind a mark"),
    (b"\0\n<14>no frame of NULs\n\0", &[("no frame of NULs", "newline")], "\0\n<14>no frame of NULs"),
];

/// Each stream by a separate connection and by a unix socket; both stay open, and the messages arrive before they close.
#[test]
fn messages_end_where_their_senders_end_them() {
    let (relay, collector) = relay("");
    let mut expected = Vec::new();
    let mut open = Vec::new();
    for (stream, messages, _) in EXAMPLES {
        for door in &relay.doors()[..2] {
            let mut wire = door.connect();
            wire.send(stream);
            open.push(wire);
            expected.extend(messages.iter().map(|(message, _)| *message));
            are(&collector, &expected);
        }
    }
    // A datagram is one message, although senders append delimiters.
    let mut datagrams = relay.doors()[2].connect();
    for datagram in [&b"<14>by datagram\0"[..], b"<14>and another\n\0\0", b"\0\0", b"\xef\xbb\xbf<14>behind a mark"] {
        datagrams.send(datagram);
    }
    expected.extend(["by datagram", "and another", "behind a mark"]);
    are(&collector, &expected);
    assert_eq!(relay.stderr().matches("octet counts from 127.0.0.1 are wrong").count(), 1, "{}", relay.stderr());
    relay.has_delivered(expected.len(), 0);
    assert_eq!(relay.metrics().sum("listen_cut_total") + relay.metrics().sum("listen_skipped_bytes_total"), 0);
    relay.stops();
}

/// The same messages, wherever the stream is divided into reads; a datagram is always one message.
#[test]
fn messages_end_there_wherever_the_stream_is_cut() {
    let (relay, collector) = relay("");
    let mut expected = Vec::new();
    for (stream, messages, as_datagram) in EXAMPLES {
        for cut in 0..=stream.len() {
            let mut tcp = TcpStream::connect((LOCAL, relay.door().port())).expect("the relay accepts");
            tcp.set_nodelay(true).expect("a socket option");
            let Door::Unix(path) = &relay.doors()[1] else { panic!("a socket in the file system") };
            let mut unix = UnixStream::connect(path).expect("the relay accepts");
            for half in [&stream[..cut], &stream[cut..]] {
                tcp.write_all(half).expect("the relay reads");
                unix.write_all(half).expect("the relay reads");
            }
            expected.extend(messages.iter().chain(messages).map(|(message, _)| (*message).to_owned()));
        }
        relay.doors()[2].connect().send(stream);
        expected.push(as_datagram.to_owned());
    }
    let arrived = collector.lines(expected.len());
    let mut arrived: Vec<_> = arrived.iter().map(|line| String::from_utf8_lossy(&line.message).into_owned()).collect();
    arrived.sort();
    expected.sort();
    assert_eq!(arrived, expected);
    relay.has_delivered(expected.len(), 0);
    assert_eq!(relay.metrics().sum("listen_cut_total") + relay.metrics().sum("listen_skipped_bytes_total"), 0);
    relay.stops();
}

/// `explain` finds the same messages, and shows the framing of each.
#[test]
fn explain_says_where_messages_end() {
    let explained = |keys: &str, stream: &[u8]| {
        let setup = Setup::new().listen_with("tcp://127.0.0.1:0", keys).forward("tcp://127.0.0.1:1");
        std::fs::write(setup.path("sent"), stream).expect("written");
        let sent = std::fs::File::open(setup.path("sent")).expect("a file");
        let output = setup.command().args(["explain", "--json"]).stdin(sent).output().expect("logferry starts");
        let text = String::from_utf8(output.stdout).expect("text");
        let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
        let said = |object: &Value, key: &str| object[key].as_str().expect("text").to_owned();
        let found = objects.map(|it| (said(&it, "message"), said(&it, "framing"), it["cut"] == true));
        found.collect::<Vec<_>>()
    };
    for (stream, messages, _) in EXAMPLES {
        let messages: Vec<_> =
            messages.iter().map(|(message, framing)| ((*message).to_owned(), (*framing).to_owned(), false)).collect();
        assert_eq!(explained("", stream), messages, "{}", stream.escape_ascii());
    }
    // The text inside a message that is too long never becomes a message.
    let long = format!("<13>{}\n9 <13>forged\n<13>forged", "x".repeat(600));
    let whole = ("next".to_owned(), "newline".to_owned(), false);
    let counted = format!("{} {long}<13>next\n", long.len());
    let cut = ("x".repeat(476), "octet-counting".to_owned(), true);
    assert_eq!(explained("max-frame = \"480B\"", counted.as_bytes()), [cut, whole.clone()]);
    let line = format!("<13>{} 9 <13>forged\n<13>next\n", "x".repeat(600));
    let cut = ("x".repeat(476), "newline".to_owned(), true);
    assert_eq!(explained("max-frame = \"480B\"", line.as_bytes()), [cut, whole]);
    // On a listener with `from = "docker"`, a NUL is no delimiter.
    let forged = ("one\0<14>two\0".to_owned(), "newline".to_owned(), false);
    assert_eq!(explained("from = \"docker\"", b"<14>one\0<14>two\0\n"), [forged]);
}

/// A container's output is text, with any content, any tag format and after any number of messages.
#[test]
fn a_container_forges_nothing_with_nul() {
    let (relay, collector) = relay("");
    let forged = b"a\0<14>Nov 20 17:28:47 db[1]: forged\0\0<14>forged\r";
    let mut said = 0;
    let container = Docker::new(Format::Default, "web");
    for format in [Format::Default, Format::Rfc3164, Format::Rfc5424] {
        let container = Docker::new(format, "web");
        let mut wire = relay.door().connect();
        wire.says(&container, forged);
        wire.says(&container, forged);
        collector.lines(said + 2).iter().skip(said).for_each(|line| container.said(forged, line));
        said += 2;
    }
    // A tag that names no container: only its format shows that it is Docker's.
    let mut wire = relay.door().connect();
    let bare = container.says(forged);
    let bare =
        [b"<14>", &bare[4..20], b"web", &bare[bare.iter().position(|byte| *byte == b'[').expect("a pid")..]].concat();
    wire.send(&bare);
    let lines = collector.lines(said + 1);
    assert!(lines[said].message.starts_with(b"a\0<14>Nov"), "{:?}", lines[said]);
    relay.has_delivered(said + 1, 0);
    relay.stops();
}

/// The bytes that are discarded after a truncated message are counted, and the next message is complete.
#[test]
fn what_is_skipped_is_counted_and_said() {
    let (relay, collector) = relay("frame-timeout = \"100ms\"\nmax-frame = \"480B\"");
    let (mut resumes, mut goes_on) = (relay.door().connect(), relay.door().connect());
    resumes.send(b"<14>slow");
    are(&collector, &["slow"]);
    resumes.send(b"<14>the next one\n");
    are(&collector, &["slow", "the next one"]);
    goes_on.send(b"<14>slower");
    are(&collector, &["slow", "the next one", "slower"]);
    goes_on.send(b" than that\n<14>whole\n");
    are(&collector, &["slow", "the next one", "slower", "whole"]);
    let long = "x".repeat(1000);
    goes_on.send(format!("<14>{long}\n<14>behind it\n").as_bytes());
    are(&collector, &["slow", "the next one", "slower", "whole", &long[..476], "behind it"]);
    let skipped = |reason| relay.metrics().with("listen_skipped_bytes_total", reason);
    assert_eq!([skipped("frame-timeout"), skipped("max-frame"), skipped("max-unfinished")], [10, 524, 0]);
    let losses = status(&relay)["losses"].clone();
    let mut losses = losses.as_array().expect("a list").iter();
    assert!(losses.any(|loss| loss["reason"] == "frame-timeout" && loss["unit"] == "bytes" && loss["count"] == 10));
    relay.says("the rest of a message from 127.0.0.1 is thrown away: its end did not come within frame-timeout");
    relay.has_delivered(6, 0);
    relay.stops();
}

/// Another protocol on this port is rejected by name, and nothing of it is spooled.
#[test]
fn another_protocol_is_refused_by_its_name() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let listens = |setup: Setup, scheme: &&str| setup.listen(&format!("{scheme}://127.0.0.1:0"));
    let setup = ["tcp", "relp", "fluent", "gelf+tcp"].iter().fold(Setup::new(), listens);
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let hello = TlsClient::ANONYMOUS.hello();
    for (door, first, name, says) in [
        (0, &hello[..], "tls", "give it one (`cert` and `key`)"),
        (0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http", "it speaks HTTP"),
        (0, b"1 open 85 relp_version=0\n", "relp", "give it a listener with relp://"),
        (0, b"\x93\xa6docker\xce\x00\x00\x00\x00\x80", "forward", "give it a listener with fluent://"),
        (0, b"PROXY TCP4 192.0.2.7 192.0.2.1 1 514\r\n<14>x\n", "proxy-protocol", "no send-proxy"),
        (1, b"<14>syslog\n", "syslog", "give it a listener with tcp://"),
        (1, &hello[..], "tls", "give it one (`cert` and `key`)"),
        (2, &hello[..], "tls", "give it one (`cert` and `key`)"),
        (2, b"<14>syslog\n", "syslog", "plain syslog, and the Forward protocol is spoken here"),
        (2, b"12 <14>x", "syslog", "give it a listener with tcp://"),
        (2, b"1 open 85 relp_version=0\n", "relp", "give it a listener with relp://"),
        (2, b"POST /logs HTTP/1.1\r\n", "http", "it speaks HTTP, and the Forward protocol is spoken here"),
        (2, b"{\"log\":1}", "json", "set the sender to msgpack"),
        (2, b"\x93\xa1t\xc1", "no-msgpack", "the byte 0xc1 is no msgpack"),
        (3, &hello[..], "tls", "give it one (`cert` and `key`)"),
        (3, b"<14>syslog\n", "syslog", "plain syslog, and GELF is spoken here"),
        (3, b"\x93\xa6docker\xce\x00\x00\x00\x00\x80", "forward", "Forward protocol, and GELF is spoken here"),
        (3, b"what is this\n", "not-json", "it does not speak GELF"),
    ] {
        let before = relay.metrics().with("listen_refused_total", name);
        let mut wire = relay.doors()[door].connect();
        // The relay may reject the connection before the rest has arrived.
        wire.send(first);
        wire.is_closed();
        eventually(name, || (relay.metrics().with("listen_refused_total", name) == before + 1).then_some(()));
        relay.says(says);
        let last = status(&relay)["listeners"][door]["last_refused"].clone();
        assert_eq!((&last["reason"], &last["address"]), (&name.into(), &"127.0.0.1".into()), "{last}");
    }
    // JSON may be intended: it is accepted, and the log gives advice once.
    for _ in 0..2 {
        relay.door().connect().send(b"{\"version\":\"1.1\"}\n");
    }
    are(&collector, &["{\"version\":\"1.1\"}"; 2]);
    assert_eq!(relay.stderr().matches("JSON without a syslog priority comes from 127.0.0.1").count(), 1);
    relay.has_delivered(2, 0);
    assert_eq!(relay.metrics().sum("listen_unfinished_total"), 0);
    relay.stops();
}

/// Python's own handler, over TCP: each message arrives although the connection stays open and silent.
#[test]
fn python_s_handler_by_tcp() {
    let Some(python) = installed("python3", "python3") else { return };
    let (relay, collector) = relay("");
    let script = "import logging, logging.handlers, socket, sys, time\n\
                  handler = logging.handlers.SysLogHandler(('127.0.0.1', int(sys.argv[1])), socktype=socket.SOCK_STREAM)\n\
                  handler.ident = 'jobs[7]: '\n\
                  log = logging.getLogger(); log.addHandler(handler)\n\
                  log.warning('first'); log.warning('second'); log.warning('caf\\u00e9')\n\
                  time.sleep(600)\n";
    let port = relay.door().port().to_string();
    let _python = Program::start(Command::new(python).args(["-c", script, &port]));
    are(&collector, &["first", "second", "café"]);
    eventually("it is still there", || (relay.metrics().sum("listen_connections") == 1).then_some(()));
    relay.has_delivered(3, 0);
    relay.stops();
}
