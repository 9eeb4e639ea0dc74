//! GELF as an output: messages by each transport, and messages that are too long for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::elasticsearch::rejected;
use crate::support::collector::LOCAL;
use crate::support::{Certs, Collector, Docker, Flow, Format, Framing, Held, Setup, eventually, own_port, says};

/// Only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(60);
const COUNTED: &str = "framing = \"octet-counting\"";
const LINE: &[u8] = b"<27>1 2026-11-29T12:00:00.123456+01:00 host1 proj-web-1 0123456789ab - \
    [docker@32473 image=\"registry:5000/team/web:1.2\" name=\"proj-web-1\" id=\"0123456789ab\"]\
    [fields@32473 com.example.team=\"shop\" id=\"7\"][json@32473 fields=\"{\\\"took\\\":1.50}\"]\
    [logferry@32473 source=\"stderr\" nanoseconds=\"789\"] it\x1b broke\n";

fn expected() -> Value {
    let stamp: Value = serde_json::from_str("1795950000.123456789").expect("a number");
    json!({
        "version": "1.1", "host": "host1", "short_message": "it\u{1b} broke", "timestamp": stamp, "level": 3,
        "_container_id": "0123456789ab", "_container_name": "proj-web-1", "_image_name": "registry:5000/team/web:1.2", "_tag": "",
        "_com.example.team": "shop", "_id_": "7", "_took": 1.5,
    })
}

/// A receiver of datagrams that reassembles messages. Strict: input that Graylog would reject fails the test.
struct Receiver {
    socket: UdpSocket,
    /// By message ID: the chunks by number.
    chunks: BTreeMap<u64, BTreeMap<u8, Vec<u8>>>,
    /// The longest datagram.
    longest: usize,
}

impl Receiver {
    fn new() -> Self {
        let socket = UdpSocket::bind(own_port()).expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Self { socket, chunks: BTreeMap::new(), longest: 0 }
    }

    fn url(&self) -> String {
        format!("gelf+udp://{}", self.socket.local_addr().expect("bound"))
    }

    /// The next message, and whether it was compressed.
    #[track_caller]
    fn hears(&mut self) -> (Value, bool) {
        let payload = loop {
            let mut bytes = [0; 65_536];
            let length = self.socket.recv(&mut bytes).expect("a datagram");
            self.longest = self.longest.max(length);
            match &bytes[..length] {
                [0x1e, 0x0f, rest @ ..] => {
                    let (id, rest) = rest.split_first_chunk().expect("an ID");
                    let [number, count, data @ ..] = rest else { panic!("no chunk") };
                    assert!(number < count && *count <= 128 && *count > 1 && !data.is_empty());
                    let parts = self.chunks.entry(u64::from_be_bytes(*id)).or_default();
                    assert!(parts.insert(*number, data.to_vec()).is_none(), "a chunk comes twice");
                    if parts.len() == usize::from(*count) {
                        let parts = self.chunks.remove(&u64::from_be_bytes(*id)).expect("it is there");
                        break parts.into_values().flatten().collect::<Vec<_>>();
                    }
                }
                whole => break whole.to_vec(),
            }
        };
        let is_compressed = payload.starts_with(&[0x1f, 0x8b]);
        let mut text = payload.clone();
        if is_compressed {
            text.clear();
            GzDecoder::new(&payload[..]).read_to_end(&mut text).expect("gzip");
        }
        (message(&text), is_compressed)
    }
}

/// A message that conforms to the specification.
#[track_caller]
fn message(text: &[u8]) -> Value {
    let message: Value = serde_json::from_slice(text).expect("JSON");
    let object = message.as_object().expect("an object");
    assert!(object["version"] == "1.1" && object["host"].as_str().is_some_and(|host| !host.is_empty()));
    assert!(object["short_message"].as_str().is_some_and(|text| !text.trim().is_empty()), "{message}");
    assert!(object["level"].as_u64().is_some_and(|level| level < 8));
    for (name, value) in object {
        let is_standard = ["version", "host", "short_message", "timestamp", "level"].contains(&name.as_str());
        let rest = name.strip_prefix('_');
        let is_legal = |rest: &str| rest.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        assert!(is_standard || rest.is_some_and(is_legal) && name != "_id", "{name}");
        assert!(value.is_string() || value.is_number(), "{name} is {value}");
    }
    message
}

#[test]
fn lines_are_what_docker_s_driver_would_send() {
    for (keys, is_compressed) in [("", true), ("compress = \"off\"", false)] {
        let mut receiver = Receiver::new();
        let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&receiver.url(), keys).start();
        let mut wire = relay.door().connect();
        wire.send(LINE);
        assert_eq!(receiver.hears(), (expected(), is_compressed));
        wire.send(b"<165>1 - host2 cron 812 ID7 [other@1 a=\"b\"]  \n");
        let (found, _) = receiver.hears();
        assert_eq!(
            found,
            json!({
                "version": "1.1", "host": "host2", "short_message": "-", "level": 5, "_app_name": "cron", "_proc_id": "812",
                "_msg_id": "ID7", "_facility": "local4", "_structured_data": "[other@1 a=\"b\"]", "timestamp": found["timestamp"],
            })
        );
        relay.has_delivered(2, 0);
        relay.stops();
    }
}

#[test]
fn in_a_stream_each_ends_with_nul() {
    let listener = TcpListener::bind(own_port()).expect("a free port");
    let url = format!("gelf+tcp://{}", listener.local_addr().expect("bound"));
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward(&url).start();
    let mut wire = relay.door().connect();
    wire.send(LINE);
    wire.send(LINE);
    let (mut stream, _) = listener.accept().expect("the relay connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut heard = Vec::new();
    while heard.iter().filter(|byte| **byte == 0).count() < 2 {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).expect("more comes");
        heard.extend_from_slice(&bytes[..length]);
    }
    let messages: Vec<_> = heard.strip_suffix(b"\0").expect("an end").split(|byte| *byte == 0).map(message).collect();
    assert_eq!(messages, [expected(), expected()]);
    relay.stops();
}

/// A message that needs more than 128 datagrams is a dead letter, and later lines are sent.
#[test]
fn a_long_message_goes_in_chunks_or_not_at_all() {
    let mut receiver = Receiver::new();
    let setup = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_with(&receiver.url(), "max-datagram = \"512B\"\ncompress = \"off\"");
    let relay = setup.start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    // JSON escapes a quotation mark to two bytes.
    for text in ["x".repeat(40_000), "\"".repeat(60_000), "behind".to_owned()] {
        wire.says(&container, text.as_bytes());
    }
    let (first, _) = receiver.hears();
    assert!(first["short_message"] == "x".repeat(40_000).as_str());
    assert_eq!(receiver.longest, 512);
    assert_eq!(receiver.hears().0["short_message"], "behind");
    relay.counts("forward_pending", 0);
    let letters = rejected(&relay, &setup);
    assert!(letters.len() == 1 && letters[0].0 == 1, "{letters:?}");
    assert!(letters[0].1.contains("more datagrams than a message of GELF may have"), "{letters:?}");
    relay.balances(0);
    relay.stops();
}

/// GELF to another relay, which must have the complete line.
#[test]
fn each_transport_carries_all_of_a_line() {
    let collectors = [(); 3].map(|()| Collector::tcp(Framing::OctetCounting));
    let [udp, tcp, tls] = ["gelf+udp", "gelf+tcp", "gelf+tls"];
    let behind: Vec<_> = [udp, tcp, tls]
        .iter()
        .zip(&collectors)
        .map(|(scheme, collector)| {
            let keys = if *scheme == tls { Certs::get().listen() } else { String::new() };
            Setup::new()
                .listen_with(&format!("{scheme}://127.0.0.1:0"), &keys)
                .forward_with(&collector.url(), COUNTED)
                .start()
        })
        .collect();
    let to = |at: usize, scheme: &str| format!("{scheme}://localhost:{}", behind[at].door().port());
    let ca = format!("name = \"tls\"\nca = \"{}\"", Certs::get().path("ca.pem"));
    let relay = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_with(&to(0, udp).replace("localhost", "127.0.0.1"), "name = \"udp\"")
        .forward_with(&to(1, tcp), "name = \"tcp\"")
        .forward_with(&to(2, tls), &ca)
        .start();
    relay.door().connect().send(LINE);
    for collector in &collectors {
        let line = &collector.lines(1)[0];
        assert_eq!(line.message, b"it\x1b broke");
        assert_eq!((line.pri, &*line.host, &*line.app, &*line.proc_id), (27, "host1", "proj-web-1", "0123456789ab"));
        assert_eq!(line.stamp, "2026-11-29T11:00:00.123456Z");
        assert_eq!(line.container(), ["registry:5000/team/web:1.2", "proj-web-1", "0123456789ab"].map(str::to_owned));
        let own = ["driver", "source", "nanoseconds"].map(|name| line.param("logferry@32473", name));
        assert_eq!(own, ["gelf", "stderr", "789"].map(str::to_owned));
        assert_eq!(line.param("fields@32473", "com.example.team"), "shop");
        assert_eq!(line.param("json@32473", "fields"), "{\"took\":1.50}");
    }
    relay.has_delivered(1, 0);
    relay.stops();
    behind.into_iter().for_each(|relay| drop(relay.stops()));
}

/// A TCP stream has no acknowledgements: when the connection breaks, bytes that only the receiver's kernel has accepted are sent again.
#[test]
fn a_receiver_that_is_killed_costs_nothing_by_tcp() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let port = Held::on(&[LOCAL]);
    let url = format!("gelf+tcp://127.0.0.1:{}", port.port());
    let receiver = Setup::new().listen(&url).forward_with(&collector.url(), COUNTED);
    let mut running = receiver.start();
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward(&url).start();
    let flow = Flow::into(relay.door());
    for _ in 0..3 {
        flow.goes_on(200);
        running.kill();
        flow.goes_on(50);
        running = receiver.start();
    }
    let sent = flow.ends();
    let arrived = || collector.numbers().into_iter().collect::<BTreeSet<_>>();
    eventually("all of it is at the collector", || (arrived().len() == sent).then_some(()));
    relay.has_delivered(sent, 0);
    running.stops();
    relay.stops();
}

/// A datagram counts as delivered when it is sent, and no line is sent again.
#[test]
fn datagrams_are_delivered_when_they_are_sent() {
    let mut receiver = Receiver::new();
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward(&receiver.url()).start();
    says(&relay, 0..100);
    let mut numbers: Vec<usize> = Vec::new();
    while numbers.len() < 100 {
        numbers.push(receiver.hears().0["short_message"].as_str().expect("a text").parse().expect("a number"));
    }
    assert!(numbers.into_iter().eq(0..100));
    relay.has_delivered(100, 0);
    assert_eq!(relay.metrics().sum("forward_resent_total"), 0);
    relay.stops();
}
