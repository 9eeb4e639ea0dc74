//! Splunk's HEC: requests of Docker's `splunk` driver and of other clients, and the relay's answers.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::json;

use crate::support::collector::LOCAL;
use crate::support::drivers::recordings;
use crate::support::fluent::zipped;
use crate::support::http::{Answer, HttpPeer, head, status};
use crate::support::program::{SIGHUP, SIGTERM};
use crate::support::python::python_with;
use crate::support::{Certs, Collector, Door, Framing, Held, Setup, TlsClient, eventually, texts};

const COUNTED: &str = "framing = \"octet-counting\"";
const HTTP: &str = "splunk+http://127.0.0.1:0";
const EVENT: &str = "POST /services/collector/event/1.0";
const CHANNEL: (&str, &str) = ("X-Splunk-Request-Channel", "11111111-2222-3333-4444-555555555555");
const OK: &str = r#"{"text":"Success","code":0}"#;
const OWN: &str = "logferry@32473";

fn to(collector: &Collector) -> Setup {
    Setup::new().listen(HTTP).forward_with(&collector.url(), COUNTED)
}

/// An event in the driver's format `inline`.
fn docker_s(text: &str) -> String {
    json!({"event": {"line": text, "source": "stdout", "tag": "nginx/web/0123456789ab", "attrs": {"shop": "berlin"}},
        "time": "1795898357.357000", "host": "n7"})
    .to_string()
}

#[track_caller]
fn is(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, &*answer.body), (status, body), "{}", answer.head);
}

/// The corpus's requests, byte for byte, on the same connections; and each line as its row expects.
#[test]
fn what_docker_s_driver_sends_is_answered_and_arrives() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let mut expected = 0;
    for recording in recordings("splunk-", 7) {
        let mut peer = HttpPeer::connects(relay.door());
        let file = std::fs::read(format!("tests/corpus-drivers/{}", recording.file)).expect("a recording");
        peer.sends(&file);
        let asked = peer.hears().expect("an answer to OPTIONS");
        assert_eq!((asked.status, &*asked.body), (200, ""), "{}", recording.file);
        let posts = memchr::memmem::find_iter(&file, b"POST /services/collector/event/1.0 HTTP/1.1\r\n").count();
        assert!(posts > 0, "{}", recording.file);
        for _ in 0..posts {
            is(&peer.hears().expect("an answer"), 200, OK);
        }
        let lines = collector.lines(expected + recording.messages.len());
        for (line, sent) in lines[expected..].iter().zip(&recording.messages) {
            let message = if sent.of("exp_message") == "(empty)" { Vec::new() } else { sent.expected("exp_message") };
            assert!(line.message == message, "{}: {line:?}", sent.file);
            // Only the tag identifies the container.
            let tag = sent.text("exp_tag");
            let mut container: Vec<_> = tag.split('/').collect();
            container.splice(0..0, vec![""; 3 - container.len()]);
            assert_eq!(line.container().to_vec(), container, "{}: {line:?}", sent.file);
            assert_eq!(line.param(OWN, "driver"), "splunk", "{line:?}");
            let severity = if sent.of("exp_source") == "stderr" { 3 } else { 6 };
            assert!(line.pri == 3 << 3 | severity || sent.of("exp_source") == "-", "{line:?}");
            assert_eq!(sent.extra()["host"], line.host, "{line:?}");
            let (_, fraction) = sent.of("exp_time").split_once('.').expect("microseconds");
            assert!(line.stamp.ends_with(&format!(".{fraction}Z")), "{}: {line:?}", sent.of("exp_time"));
        }
        expected += recording.messages.len();
    }
    relay.has_delivered(expected, 0);
    relay.stops();
}

#[test]
fn paths_tokens_and_bodies_are_answered_as_splunk_does() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let token = "token = \"${HEC_TOKEN}\"";
    let setup = Setup::new().listen_with(HTTP, token).variable("HEC_TOKEN", "one two");
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let mut peer = HttpPeer::connects(relay.door());
    let good = ("Authorization", "Splunk two");
    let event = docker_s("hello");
    let body = event.as_bytes();
    is(&peer.asks("OPTIONS /services/collector/event/1.0", &[], b""), 200, "");
    is(&peer.asks("GET /services/collector/health", &[], b""), 200, r#"{"text":"HEC is healthy","code":17}"#);
    is(&peer.asks(EVENT, &[good], body), 200, OK);
    is(&peer.asks("POST /services/collector", &[good], body), 200, OK);
    is(&peer.asks("POST /services/collector/raw?host=h", &[good], b"one\ntwo\n"), 200, OK);
    is(&peer.asks(EVENT, &[good, ("Content-Encoding", "gzip")], &zipped(body)), 200, OK);
    let basic = ("Authorization", "Basic eDpvbmU=");
    is(&peer.asks(EVENT, &[basic, CHANNEL], body), 200, r#"{"text":"Success","code":0,"ackId":0}"#);
    let ack = "POST /services/collector/ack";
    is(&peer.asks(ack, &[good, CHANNEL], br#"{"acks":[0,1]}"#), 200, r#"{"acks":{"0":true,"1":false}}"#);
    is(&peer.asks(EVENT, &[], body), 401, r#"{"text":"Token is required","code":2}"#);
    is(
        &HttpPeer::connects(relay.door()).asks(EVENT, &[("Authorization", "Splunk three")], body),
        403,
        r#"{"text":"Invalid token","code":4}"#,
    );
    is(
        &HttpPeer::connects(relay.door()).asks("GET /", &[], b""),
        404,
        r#"{"text":"The requested URL was not found on this server.","code":404}"#,
    );
    // Events before an invalid one are accepted, as by Splunk.
    let bad = [body, br#"{"event":""}"#, body].concat();
    let answer = HttpPeer::connects(relay.door()).asks(EVENT, &[good], &bad);
    is(&answer, 400, r#"{"text":"Event field cannot be blank","code":13,"invalid-event-number":1}"#);
    let lines = collector.lines(7);
    assert_eq!(texts(&lines), ["hello", "hello", "one", "two", "hello", "hello", "hello"]);
    assert_eq!(lines[0].param("fields@32473", "shop"), "berlin");
    assert_eq!(lines[2].host, "h");
    for (reason, times) in [("no-token", 1), ("token", 1), ("path", 1), ("blank-event", 1)] {
        assert_eq!(relay.refused(reason), times, "{reason}");
    }
    relay.says("a request of Splunk's HEC was refused, and its sender told so: the token is none of ours");
    assert!(!relay.stderr().contains("three") && !relay.stderr().contains("two"), "no token is said");
    relay.has_delivered(7, 0);
    relay.stops();
}

/// An answered event survives a crash, even when the disk is slower than the sender.
#[test]
fn what_is_answered_is_there_after_a_kill() {
    const EVENTS: usize = 10_000;
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = to(&collector).spool("max-rate = \"8MiB/s\"");
    let relay = setup.start();
    let body: String = (0..EVENTS).map(|number| docker_s(&format!("{number:01000}"))).collect();
    is(&HttpPeer::connects(relay.door()).asks(EVENT, &[], body.as_bytes()), 200, OK);
    relay.kill();
    let relay = setup.start();
    collector.comes();
    collector.frames(EVENTS);
    assert!(collector.numbers().into_iter().eq(0..EVENTS));
    relay.has_delivered(0, EVENTS);
    relay.stops();
}

/// The sender keeps events that are answered with 503, and no event is duplicated.
#[test]
fn a_full_spool_is_answered_503_until_there_is_room() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let full = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"50%\"\nmax-wait = \"300ms\"";
    let relay = to(&collector).spool(full).start();
    let mut peer = HttpPeer::connects(relay.door());
    let mut send = |number: usize| peer.asks(EVENT, &[], docker_s(&format!("{number:010000}")).as_bytes());
    let held = (0..110).find(|number| send(*number).status != 200).expect("it is full");
    assert!(held > 50, "{held}");
    is(&send(held), 503, r#"{"text":"Server is busy","code":9}"#);
    assert!(relay.refused("max-wait") >= 2);
    let health = HttpPeer::connects(relay.door()).asks("GET /services/collector/health", &[], b"");
    assert_eq!(health.status, 503, "{}", health.body);
    collector.comes();
    eventually("there is room", || (send(held).status == 200).then_some(()));
    collector.frames(held + 1);
    eventually("all is delivered", || (relay.metrics().sum("forward_waiting") == 0).then_some(()));
    assert!(collector.numbers().into_iter().eq(0..=held), "each once, in order");
    relay.balances(0);
    relay.stops();
}

/// A body in chunks of any length; an incomplete body is not accepted.
#[test]
fn a_body_comes_in_pieces_and_counts_when_it_is_whole() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    let events = |numbers: std::ops::Range<usize>| -> Vec<u8> {
        numbers.flat_map(|number| docker_s(&format!("{number:0500}")).into_bytes()).collect()
    };
    let mut peer = HttpPeer::connects(relay.door());
    let mut posts = |header: &str, body: &[u8]| {
        let head =
            format!("POST /services/collector HTTP/1.1\r\nHost: r\r\n{header}Transfer-Encoding: chunked\r\n\r\n");
        peer.sends(head.as_bytes());
        for chunk in body.chunks(10_007) {
            peer.sends(format!("{:x}\r\n", chunk.len()).as_bytes());
            peer.sends(&[chunk, b"\r\n"].concat());
        }
        peer.sends(b"0\r\n\r\n");
        is(&peer.hears().expect("an answer"), 200, OK);
    };
    posts("", &events(0..2000));
    // gzip with two members.
    posts("Content-Encoding: gzip\r\n", &[zipped(&events(2000..3000)), zipped(&events(3000..4000))].concat());
    let before = relay.metrics().sum("listen_bytes_total");
    let mut begun = HttpPeer::connects(relay.door());
    begun.sends(&[head(EVENT, &[], 1000), docker_s("9999").into_bytes()].concat());
    eventually("it is read", || (relay.metrics().sum("listen_bytes_total") > before).then_some(()));
    begun.breaks();
    relay.counts("listen_connections", 1);
    assert_eq!(relay.metrics().sum("listen_unfinished_total"), 1);
    collector.frames(4000);
    assert!(collector.numbers().into_iter().eq(0..4000));
    relay.has_delivered(4000, 0);
    relay.stops();
}

/// During a stop, a request that has begun is answered once it is spooled. Other requests get no answer, and the driver sends them again.
#[test]
fn a_stop_answers_what_it_took() {
    let port = Held::on(&[LOCAL]);
    let collector = Collector::tcp(Framing::OctetCounting);
    let listen = format!("splunk+http://127.0.0.1:{}", port.port());
    let setup = Setup::new().listen(&listen).forward_with(&collector.url(), COUNTED);
    let mut next = 0;
    let mut relay = setup.start();
    for round in 0..3 {
        let mut idle = HttpPeer::connects(relay.door());
        is(&idle.asks("OPTIONS /services/collector", &[], b""), 200, "");
        let until = next + 50;
        let mut stopping = false;
        while next < until {
            let mut peer = HttpPeer::on(match TcpStream::connect((LOCAL, port.port())) {
                Ok(stream) => crate::support::Wire::Tcp(stream),
                // The relay has stopped, so the sender retries.
                Err(_) => {
                    assert_eq!(relay.ends().code(), Some(0), "{}", relay.stderr());
                    relay = setup.start();
                    continue;
                }
            });
            if next + 25 == until && !std::mem::replace(&mut stopping, true) {
                relay.signal(SIGTERM);
            }
            let event = docker_s(&next.to_string());
            let request = [head(EVENT, &[], event.len()), event.into_bytes()].concat();
            if peer.tries(&request) && peer.hears().is_some_and(|answer| answer.status == 200) {
                next += 1;
            }
        }
        assert!(idle.hears().is_none(), "an idle connection ends in round {round}");
    }
    collector.frames(150);
    assert!(collector.numbers().into_iter().eq(0..150), "each once, in order");
    relay.stops();
}

#[test]
fn by_tls_and_with_a_token_that_changes() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new();
    let file = setup.path("tokens");
    std::fs::write(&file, "old\n").expect("a file");
    let keys = format!("{}\ntoken-file = \"{}\"", Certs::get().listen(), file.display());
    let relay = setup.listen_with("splunk+https://127.0.0.1:0", &keys).forward_with(&collector.url(), COUNTED).start();
    let sends = |token: &str| {
        let mut peer = HttpPeer::on(relay.door().connect_tls(TlsClient::ANONYMOUS));
        let token = format!("Splunk {token}");
        peer.asks(EVENT, &[("Authorization", &token)], docker_s("x").as_bytes()).status
    };
    assert_eq!((sends("old"), sends("new")), (200, 403));
    std::fs::write(&file, "old\nnew\n").expect("a file");
    eventually("the new one is known", || (sends("new") == 200).then_some(()));
    assert_eq!(sends("old"), 200);
    // A file without a token: the relay keeps the old tokens.
    std::fs::write(&file, "\n").expect("a file");
    relay.says("there is no secret in it");
    assert_eq!(sends("new"), 200);
    relay.stops();
}

/// Another driver's protocol is rejected by name, and with a reset, which that driver notices.
#[test]
fn other_protocols_are_refused_by_name() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    for (said, reason) in [
        (&b"<30>1 2026-11-29T10:00:00Z h web 1 web - hello\n"[..], "syslog"),
        (b"\x93\xa4docker\xce\x65\x00\x00\x00\x80", "forward"),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", "tls"),
    ] {
        let Door::Tcp(at) = relay.door() else { panic!("it is TCP") };
        let mut stream = TcpStream::connect(at).expect("it accepts");
        stream.write_all(said).expect("it takes it");
        let mut heard = Vec::new();
        let end = stream.read_to_end(&mut heard);
        assert!(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{reason}: {heard:?}");
        eventually("it is counted", || (relay.refused(reason) == 1).then_some(()));
    }
    let mut nothing = HttpPeer::connects(relay.door());
    nothing.sends(b"this is nothing\r\n\r\n");
    assert_eq!(nothing.hears().map(|answer| answer.status), Some(400));
    eventually("it is counted", || (relay.refused("http-request") == 1).then_some(()));
    relay.stops();
}

/// An incomplete head is limited by `handshake-timeout`, and an incomplete body by `frame-timeout`.
#[test]
fn who_never_ends_is_not_waited_for() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys = "handshake-timeout = \"200ms\"\nframe-timeout = \"200ms\"";
    let relay = Setup::new().listen_with(HTTP, keys).forward_with(&collector.url(), COUNTED).start();
    // An idle connection may stay.
    let mut idle = HttpPeer::connects(relay.door());
    let mut late = HttpPeer::connects(relay.door());
    late.sends(b"POST /services/collector HTTP/1.1\r\n");
    assert!(late.hears().is_none());
    assert_eq!(relay.metrics().sum("listen_handshake_failures_total"), 1);
    let mut body = HttpPeer::connects(relay.door());
    body.sends(&[head(EVENT, &[], 10), b"{".to_vec()].concat());
    assert!(body.hears().is_none());
    assert_eq!(relay.refused("frame-timeout"), 1);
    is(&idle.asks(EVENT, &[], docker_s("x").as_bytes()), 200, OK);
    relay.stops();
}

/// The size of a request is limited, and so is the memory for all requests.
#[test]
fn bodies_have_limits() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay =
        Setup::new().listen_with(HTTP, "max-unfinished = \"4MiB\"").forward_with(&collector.url(), COUNTED).start();
    let zip = ("Content-Encoding", "gzip");
    // 16 MiB of spaces in 16 kB.
    let bomb = zipped(&vec![b' '; 16 << 20]);
    let answer = HttpPeer::connects(relay.door()).asks(EVENT, &[zip], &bomb);
    assert_eq!(answer.status, 413, "{}", answer.body);
    let large = [br#"{"event":""#, &vec![b'x'; 3 << 20][..]].concat();
    let answer = HttpPeer::connects(relay.door()).asks(EVENT, &[], &large);
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert_eq!((relay.refused("too-large"), relay.refused("too-long")), (1, 1));
    // Other requests are accepted.
    is(&HttpPeer::connects(relay.door()).asks(EVENT, &[], docker_s("x").as_bytes()), 200, OK);
    relay.stops();
}

/// Rules, limits and names apply to every kind of listener.
#[test]
fn a_container_is_known_whatever_driver_it_uses() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).section("[[drop]]\nname = \"web\"\nseverity = \"info\"").start();
    let mut peer = HttpPeer::connects(relay.door());
    is(&peer.asks(EVENT, &[], docker_s("dropped").as_bytes()), 200, OK);
    is(&peer.asks(EVENT, &[], docker_s("kept").replace("stdout", "stderr").as_bytes()), 200, OK);
    assert_eq!(texts(&collector.lines(1)), ["kept"]);
    assert_eq!(relay.metrics().with("spool_dropped_total", "rule"), 1);
    relay.balances(0);
    relay.stops();
}

/// A reload can give the socket to a listener with another protocol.
#[test]
fn a_reload_changes_tokens_and_protocols() {
    let port = Held::on(&[LOCAL]);
    let collector = Collector::tcp(Framing::OctetCounting);
    let at = format!("127.0.0.1:{}", port.port());
    let setup = |listen: &str, keys: &str| {
        Setup::new()
            .variable("T", "t")
            .listen_with(&format!("{listen}://{at}"), keys)
            .forward_with(&collector.url(), COUNTED)
    };
    let first = setup("splunk+http", "");
    let relay = first.start();
    let mut old = HttpPeer::connects(relay.door());
    let event = docker_s("x");
    is(&old.asks(EVENT, &[], event.as_bytes()), 200, OK);
    setup("splunk+http", "token = \"${T}\"").replaces(&first);
    relay.signal(SIGHUP);
    relay.counts("config_reloads_total", 1);
    // Open connections keep the old settings.
    is(&old.asks(EVENT, &[], event.as_bytes()), 200, OK);
    assert_eq!(HttpPeer::connects(relay.door()).asks(EVENT, &[], event.as_bytes()).status, 401);
    setup("journal+http", "").replaces(&first);
    relay.signal(SIGHUP);
    relay.counts("config_reloads_total", 2);
    is(&old.asks(EVENT, &[], event.as_bytes()), 200, OK);
    let entry = b"__CURSOR=x\nMESSAGE=x\n\n";
    assert_eq!(HttpPeer::connects(relay.door()).asks("POST /upload", &[], entry).status, 202);
    relay.stops();
}

/// The status page shows the last rejected peer, and the reason.
#[test]
fn the_status_says_what_was_refused() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = to(&collector).start();
    HttpPeer::connects(relay.door()).asks("GET /other", &[], b"");
    let last = status(&relay)["listeners"][0]["last_refused"].to_string();
    assert!(last.contains("HEC has no such path"), "{last}");
    relay.stops();
}

/// A client by other authors.
#[test]
fn splunk_s_handler_for_python_is_understood() {
    let Some(python) = python_with("splunk-handler", "splunk_handler") else { return };
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = Setup::new()
        .listen_with(HTTP, "token = \"${T}\"")
        .variable("T", "secret")
        .forward_with(&collector.url(), COUNTED)
        .start();
    let script = format!(
        r#"
import logging
from splunk_handler import SplunkHandler
handler = SplunkHandler(host='127.0.0.1', port={}, token='secret', index='main', protocol='http', flush_interval=0.1)
logging.getLogger().addHandler(handler)
for number in range(100):
    logging.warning('number %d', number)
logging.shutdown()
"#,
        relay.door().port()
    );
    let output = Command::new(python).args(["-c", &script]).output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = collector.lines(100);
    let has = |number: usize| {
        lines
            .iter()
            .filter(|line| {
                let text = String::from_utf8_lossy(&line.message);
                text.contains(&format!("number {number}\"")) || text.ends_with(&format!("number {number}"))
            })
            .count()
    };
    assert!((0..100).all(|number| has(number) == 1), "{:?}", texts(&lines));
    assert_eq!(lines[0].param("fields@32473", "index"), "main", "{:?}", lines[0]);
    relay.stops();
}
