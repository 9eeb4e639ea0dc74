//! Messages pass through unchanged: every input, every format, every output, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::corpus::{self, Row};
use crate::support::docker::{DOCKERD, HOST, RELAY, hard_texts};
use crate::support::http::get;
use crate::support::line::{lines_of, made_visible};
use crate::support::sender::counted;
use crate::support::{
    Certs, Collector, Docker, Door, Format, Framing, Line, Setup, TlsClient, Wire, eventually, has_ipv6, says, shown,
};

const TLS_1_2: TlsClient = TlsClient { version: &rustls::version::TLS12, identified: false };
const TLS_1_3: TlsClient = TlsClient { version: &rustls::version::TLS13, identified: false };

/// An input by name, and how to connect to it.
type Way<'w> = (&'w str, Box<dyn Fn() -> Wire + 'w>);

/// Sends all hard texts in all of Docker's formats to each input, and checks the lines at the collector.
#[track_caller]
fn docker_is_carried(setup: Setup, ways: impl for<'d> Fn(&'d [Door]) -> Vec<Way<'d>>) {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let (texts, mut containers) = (hard_texts(), Vec::new());
    for (way, connect) in ways(relay.doors()) {
        for format in Format::ALL {
            let container = Docker::new(format, &format!("{way}-{format:?}"));
            let mut wire = connect();
            texts.iter().for_each(|text| wire.says(&container, text));
            wire.close();
            containers.push(container);
            // The kernel drops datagrams when the relay's receive buffer is full.
            relay.counts("listen_received_total", (containers.len() * texts.len()) as u64);
        }
    }
    let mut lines: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in collector.lines(texts.len() * containers.len()) {
        lines.entry(line.app.clone()).or_default().push(line);
    }
    for container in &containers {
        let lines = lines.get(&container.name).unwrap_or_else(|| panic!("nothing of {}", container.name));
        assert_eq!(lines.len(), texts.len(), "{}", container.name);
        texts.iter().zip(lines).for_each(|(text, line)| container.said(text, line));
    }
    relay.has_delivered(texts.len() * containers.len(), 0);
    assert_eq!(relay.metrics().with("syslog_messages_total", "docker"), (texts.len() * containers.len()) as i64);
    relay.stops();
}

#[test]
fn docker_by_udp_and_tcp() {
    let setup = Setup::new().listen("udp://127.0.0.1:0").listen("tcp://127.0.0.1:0");
    docker_is_carried(setup, |doors| {
        vec![("udp", Box::new(|| doors[0].connect())), ("tcp", Box::new(|| doors[1].connect()))]
    });
}

#[test]
fn docker_by_unix_sockets() {
    let setup = Setup::new().listen("unix://{dir}/stream.sock").listen("unixgram://{dir}/datagram.sock");
    docker_is_carried(setup, |doors| {
        vec![("unix", Box::new(|| doors[0].connect())), ("unixgram", Box::new(|| doors[1].connect()))]
    });
}

#[test]
fn docker_by_ipv6() {
    if !has_ipv6() {
        return;
    }
    let setup = Setup::new().listen("udp://[::1]:0").listen("tcp://[::1]:0");
    docker_is_carried(setup, |doors| {
        vec![("udp6", Box::new(|| doors[0].connect())), ("tcp6", Box::new(|| doors[1].connect()))]
    });
}

#[test]
fn docker_by_tls_of_both_versions() {
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &Certs::get().listen());
    docker_is_carried(setup, |doors| {
        vec![
            ("tls12", Box::new(|| doors[0].connect_tls(TLS_1_2))),
            ("tls13", Box::new(|| doors[0].connect_tls(TLS_1_3))),
        ]
    });
}

#[test]
fn tls_and_plain_text_share_a_port() {
    let setup = Setup::new().listen_with("tcp://127.0.0.1:0", &Certs::get().listen());
    docker_is_carried(setup, |doors| {
        vec![
            ("plain", Box::new(|| doors[0].connect())),
            ("tls12", Box::new(|| doors[0].connect_tls(TLS_1_2))),
            ("tls13", Box::new(|| doors[0].connect_tls(TLS_1_3))),
        ]
    });
}

#[test]
fn mutual_tls() {
    let certs = Certs::get();
    let keys = format!("{}client-ca = \"{}\"", certs.listen(), certs.path("ca.pem"));
    let setup = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys);
    docker_is_carried(setup, |doors| {
        vec![
            ("mutual12", Box::new(|| doors[0].connect_tls(TlsClient { identified: true, ..TLS_1_2 }))),
            ("mutual13", Box::new(|| doors[0].connect_tls(TlsClient { identified: true, ..TLS_1_3 }))),
        ]
    });
}

#[test]
fn a_sender_without_a_certificate_is_refused_where_one_is_asked_for() {
    let certs = Certs::get();
    let keys = format!("{}client-ca = \"{}\"", certs.listen(), certs.path("ca.pem"));
    let relay = Setup::new().listen_with("tcp+tls://127.0.0.1:0", &keys).forward("stdout:").start();
    let Wire::Tls(mut stream) = relay.door().connect_tls(TLS_1_3) else { unreachable!() };
    // In TLS 1.3 the client's handshake completes before the server rejects its certificate.
    let container = Docker::new(Format::Default, "nobody");
    let _ = std::io::Write::write_all(&mut stream, &container.says(b"hello"));
    Wire::Tls(stream).is_closed();
    relay.counts("listen_handshake_failures_total", 1);
    relay.has_delivered(0, 0);
    relay.stops();
}

#[test]
fn plain_text_is_refused_where_it_is_not_allowed() {
    let certs = Certs::get();
    let setup = Setup::new()
        .listen_with("tcp+tls://127.0.0.1:0", &certs.listen())
        .listen_with("tcp://127.0.0.1:0", &format!("{}plaintext = false", certs.listen()));
    let relay = setup.forward("stdout:").start();
    for door in relay.doors() {
        let mut wire = door.connect();
        wire.says(&Docker::new(Format::Default, "plain"), b"hello");
        wire.is_closed();
    }
    relay.counts("listen_refused_total", 2);
    relay.has_delivered(0, 0);
    relay.stops();
}

/// Every stream listener accepts octet counts, and detects the framing of each frame separately.
#[test]
fn both_framings_on_one_connection() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").listen("unix://{dir}/in.sock");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let container = Docker::new(Format::Rfc5424Micro, "web");
    for door in relay.doors() {
        let mut wire = door.connect();
        wire.send(&container.says(b"ends in LF"));
        wire.send_counted(&container.says(b"counted, with a\nnewline inside"));
        wire.send(&container.says(b"ends in LF again"));
        // Some senders add a LF after a counted frame.
        wire.send_counted(container.says(b"counted, and LF behind").strip_suffix(b"\n").unwrap());
        wire.send(b"\n\n");
        // In pieces of one byte.
        counted(&container.says(b"byte by byte")).iter().for_each(|byte| wire.send(&[*byte]));
        wire.close();
    }
    let lines = collector.lines(10);
    let expected: [&[u8]; 5] = [
        b"ends in LF",
        b"counted, with a\nnewline inside",
        b"ends in LF again",
        b"counted, and LF behind",
        b"byte by byte",
    ];
    for (at, text) in expected.iter().enumerate() {
        assert_eq!(lines.iter().filter(|line| line.message == *text).count(), 2, "{at}: {lines:?}");
    }
    lines.iter().for_each(|line| container.said(&line.message, line));
    relay.has_delivered(10, 0);
    relay.stops();
}

/// One relay, one spool, eleven forwards: each delivers everything.
#[test]
fn every_way_out_and_every_format() {
    let certs = Certs::get();
    let newline = [Collector::tcp(Framing::Newline), Collector::tls(Framing::Newline, false)];
    let counting = [
        Collector::tcp(Framing::OctetCounting),
        Collector::tls(Framing::OctetCounting, false),
        Collector::tls(Framing::OctetCounting, true),
    ];
    let (datagrams, json, bsd) =
        (Collector::udp(), Collector::tcp(Framing::OctetCounting), Collector::tcp(Framing::OctetCounting));
    let json_lines = Collector::tcp(Framing::Newline);
    let (count, ca) = ("framing = \"octet-counting\"", format!("ca = \"{}\"", certs.path("ca.pem")));
    let identity = format!("cert = \"{}\"\nkey = \"{}\"", certs.path("client.pem"), certs.path("client-key.pem"));
    let setup = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_with(&newline[0].url(), "name = \"tcp\"")
        .forward_with(&newline[1].url(), &format!("name = \"tls-newline\"\nframing = \"newline\"\n{ca}"))
        .forward_with(&counting[0].url(), &format!("name = \"tcp-counting\"\n{count}"))
        .forward_with(&counting[1].url_as("localhost"), &format!("name = \"tls\"\n{ca}"))
        .forward_with(
            &counting[2].url(),
            &format!("name = \"mutual\"\nserver-name = \"collector.test\"\n{ca}\n{identity}"),
        )
        .forward_with(&datagrams.url(), "name = \"udp\"")
        .forward_with(&json.url(), &format!("name = \"json\"\nformat = \"json\"\n{count}"))
        .forward_with(&json_lines.url(), "name = \"json-lines\"\nformat = \"json\"")
        .forward_with(&bsd.url(), &format!("name = \"bsd\"\nformat = \"rfc3164\"\n{count}"))
        .forward_with("file://{dir}/logs/{host}/{name}.log", "name = \"file\"")
        .forward_with("stdout:", "name = \"stdout\"");
    let relay = setup.start();

    let container = Docker::new(Format::Default, "proj-web-1");
    let mut texts = hard_texts();
    texts.push(b"two\nlines\n\nand more".to_vec());
    let mut wire = relay.door().connect();
    texts.iter().for_each(|text| wire.send_counted(&container.says(text)));
    relay.has_delivered(texts.len(), 0);

    let escaped: Vec<_> = texts.iter().map(|text| with_newlines_escaped(text)).collect();
    let said = |lines: Vec<Line>, texts: &[Vec<u8>]| {
        assert_eq!(lines.len(), texts.len());
        texts.iter().zip(&lines).for_each(|(text, line)| container.said(text, line));
    };
    newline.iter().for_each(|collector| said(collector.lines(texts.len()), &escaped));
    counting.iter().for_each(|collector| said(collector.lines(texts.len()), &texts));
    said(datagrams.lines(texts.len()), &texts);
    for (frame, text) in json.frames(texts.len()).iter().zip(&texts) {
        is_json(frame, &container, text);
    }
    for (frame, text) in json_lines.frames(texts.len()).iter().zip(&texts) {
        is_json(frame, &container, text);
    }
    for (frame, text) in bsd.frames(texts.len()).iter().zip(&texts) {
        let header = format!("<30>{} {RELAY} proj-web-1[{}]: ", container.bsd_stamp(), container.id);
        assert_eq!(shown(frame), shown(&[header.as_bytes(), text].concat()));
    }
    let file = fs::read(setup.path("logs").join(RELAY).join("proj-web-1.log")).expect("a file for each container");
    let visible: Vec<_> = texts.iter().map(|text| made_visible(text)).collect();
    said(lines_of(&file), &visible);
    said(lines_of(&relay.stops().stdout), &visible);
}

/// In newline framing, a newline inside a message is escaped like rsyslog does.
fn with_newlines_escaped(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"#012"[..])
}

#[track_caller]
fn is_json(frame: &[u8], container: &Docker, text: &[u8]) {
    let json: serde_json::Value =
        serde_json::from_slice(frame).unwrap_or_else(|error| panic!("{error}: {}", shown(frame)));
    let acts = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    assert!(
        !frame.iter().any(acts) && !String::from_utf8_lossy(frame).contains(['\u{85}', '\u{2028}']),
        "{}",
        shown(frame)
    );
    let keys: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    let field = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("no {key}: {json}"));
    assert_eq!(field("timestamp"), container.stamp());
    assert_eq!(field("host"), container.host());
    assert_eq!((field("facility"), field("severity")), ("daemon", "info"));
    assert_eq!(field("app_name"), container.name);
    assert_eq!(field("image_name"), container.image);
    assert_eq!(field("container_name"), container.name);
    assert_eq!(field("container_id"), container.id);
    let mut bytes = field("message").as_bytes().to_vec();
    let is_escaped = keys.contains(&"escaped");
    assert_eq!(is_escaped, std::str::from_utf8(text).is_err(), "{json}");
    if is_escaped {
        assert_eq!(json["escaped"], serde_json::json!(["message"]));
        bytes = corpus::unescape(&bytes);
    }
    assert_eq!(shown(&bytes), shown(text));
}

/// A message with its own host name, and with a container name that attempts path traversal.
#[test]
fn files_stay_below_the_templates_directory() {
    let setup = Setup::new().listen("udp://127.0.0.1:0").forward("file://{dir}/logs/{host}/{name}-{image}.log");
    let relay = setup.start();
    let mut wire = relay.door().connect();
    wire.send(b"<30>1 2026-11-20T22:27:31Z ../../../evil ../../x 1 ../../x - escaped\n");
    wire.says(&Docker::new(Format::Rfc3164, "web"), b"hello");
    relay.has_delivered(2, 0);
    let mut files = Vec::new();
    walk(&setup.path("logs"), &mut files);
    assert_eq!(files.len(), 2, "{files:?}");
    let web = setup.path("logs").join(HOST).join("web-registry.local_5000_team_app_1.25.log");
    assert!(files.contains(&web), "{files:?}");
    assert!(!setup.dir().path().join("evil").exists() && !setup.path("x").exists());
    relay.stops();
}

fn walk(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

#[test]
fn frames_over_the_limit_are_cut_marked_and_counted() {
    const LIMIT: usize = 1024;
    let collector = Collector::tcp(Framing::OctetCounting);
    let max = "max-frame = \"1KiB\"";
    let setup = Setup::new().listen_with("tcp://127.0.0.1:0", max).listen_with("udp://127.0.0.1:0", max);
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let container = Docker::new(Format::Default, "web");
    // The text after the limit looks like messages, but must not become messages.
    let long = [vec![b'x'; LIMIT], container.says(b"forged").repeat(20).replace_newlines()].concat();
    let expected = &container.says(&long)[..LIMIT];

    let (mut tcp, mut udp) = (relay.doors()[0].connect(), relay.doors()[1].connect());
    tcp.send(&container.says(&long));
    tcp.says(&container, b"after a line");
    tcp.send_counted(&container.says(&[long.clone(), b"\n<30>x".repeat(50)].concat()));
    tcp.says(&container, b"after a counted frame");
    udp.send(&container.says(&long));
    udp.says(&container, b"after a datagram");

    let lines = collector.lines(6);
    let (cut, whole): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.param("logferry@32473", "cut") == "true");
    assert_eq!((cut.len(), whole.len()), (3, 3), "{lines:?}");
    for line in cut {
        assert!(expected.ends_with(&line.message) && line.message.starts_with(b"xxx"), "{line:?}");
        assert_eq!(line.container()[1], "web", "{line:?}");
    }
    whole.iter().for_each(|line| container.said(&line.message, line));
    let mut texts: Vec<_> = whole.iter().map(|line| String::from_utf8_lossy(&line.message)).collect();
    texts.sort();
    assert_eq!(texts, ["after a counted frame", "after a datagram", "after a line"]);
    relay.has_delivered(6, 0);
    assert_eq!(relay.metrics().sum("listen_cut_total"), 3);
    relay.stops();
}

trait ReplaceNewlines {
    fn replace_newlines(self) -> Self;
}

impl ReplaceNewlines for Vec<u8> {
    fn replace_newlines(mut self) -> Self {
        self.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b'.');
        self
    }
}

#[test]
fn garbage_is_carried_whole_with_priority_13() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("udp://127.0.0.1:0").listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let garbage: [&[u8]; 7] = [
        b"<999>1 not a priority",
        b"GET / HTTP/1.1\r\x07",
        b"\x01\x00\x02\xff\xfe",
        b"<>",
        b"<",
        b"{\"json\": true}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for (at, door) in relay.doors().iter().enumerate() {
        let mut wire = door.connect();
        for text in garbage {
            wire.send(&[text, b"\n"].concat());
        }
        wire.close();
        relay.counts("listen_received_total", ((at + 1) * garbage.len()) as u64);
    }
    let lines = collector.lines(2 * garbage.len());
    for text in garbage {
        let carried: Vec<_> = lines.iter().filter(|line| line.message == text).collect();
        assert_eq!(carried.len(), 2, "{}: {lines:?}", shown(text));
        for line in carried {
            let header = (line.pri, &*line.host, &*line.app, &*line.proc_id, &*line.msg_id, line.params.len());
            assert_eq!(header, (13, RELAY, "-", "-", "-", 1), "{line:?}");
            assert_eq!(line.param("logferry@32473", "peer"), "127.0.0.1");
        }
    }
    relay.has_delivered(2 * garbage.len(), 0);
    assert_eq!(relay.metrics().with("syslog_messages_total", "unknown"), 2 * garbage.len() as i64);
    relay.stops();
}

/// A connection breaks in the middle of a frame: a sender that notices sends the whole message again.
#[test]
fn half_a_message_is_no_message() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let container = Docker::new(Format::Rfc5424, "web");
    let mut wire = relay.door().connect();
    let whole = container.says(b"whole");
    let half = &container.says(b"the whole of it")[..60];
    wire.send(&[&whole, half].concat());
    relay.counts("listen_bytes_total", (whole.len() + half.len()) as u64);
    wire.breaks();
    relay.counts("listen_unfinished_total", 1);
    relay.has_delivered(1, 0);
    assert_eq!(collector.lines(1)[0].message, b"whole");
    relay.stops();
}

/// "A relay MUST forward malformed STRUCTURED-DATA without any alteration" (RFC 5424 6.3.1). Well-formed data is not altered either.
#[test]
fn what_others_send_in_rfc_5424_is_not_altered() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let messages: [&[u8]; 12] = [
        b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"App\\\"li\\]cation\" eventID=\"1011\"][examplePriority@32473 class=\"high\"] \xef\xbb\xbfAn application event",
        b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed",
        b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time",
        b"<0>1 2003-10-11T22:14:15Z h a p m [x@1 a=\"1\"]",
        b"<191>1 2003-10-11T22:14:15Z h a p m -",
        b"<13>1 2003-10-11T22:14:15Z h a p m [x@1 a=\"\xc3\xa9\\\\\"] caf\xe9",
        b"<13>1 2003-10-11T22:14:15Z h a p m [docker@32473 image=\"theirs\"] own element",
        // Different kinds of malformed data.
        b"<13>1 2003-10-11T22:14:15Z h a p m [unclosed x=\"1\" message",
        b"<13>1 2003-10-11T22:14:15Z h a p m [x y=1] unquoted",
        b"<13>1 2003-10-11T22:14:15Z h a p m [x y=\"1]\"] unescaped",
        b"<13>1 2003-10-11T22:14:15Z h a p m [] empty",
        b"<13>1 2003-10-11T22:14:15Z h a p m none at all",
    ];
    let mut wire = relay.door().connect();
    messages.iter().for_each(|message| wire.send_counted(message));
    let frames = collector.frames(messages.len());
    for (frame, message) in frames.iter().zip(messages) {
        assert_eq!(shown(frame), shown(message));
    }
    relay.has_delivered(messages.len(), 0);
    relay.stops();
}

/// RFC 3164 from switches and old daemons lacks the year and the zone; the relay adds them.
#[test]
fn what_others_send_in_rfc_3164_becomes_rfc_5424() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("udp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let mut container = Docker::new(Format::Rfc3164, "-");
    let stamp = container.bsd_stamp();
    let mut wire = relay.door().connect();
    wire.send(format!("<34>{stamp} mymachine su[230]:  'su root' failed\n").as_bytes());
    wire.send(format!("<34>{stamp} su: without a host\n").as_bytes());
    let lines = collector.lines(2);
    container.pri = 34;
    let header = |line: &Line| (line.pri, line.host.clone(), line.app.clone(), line.proc_id.clone());
    assert_eq!(header(&lines[0]), (34, "mymachine".into(), "su".into(), "230".into()), "{lines:?}");
    assert_eq!(lines[0].message, b" 'su root' failed", "{lines:?}");
    assert_eq!(header(&lines[1]), (34, RELAY.into(), "su".into(), "-".into()), "{lines:?}");
    assert_eq!(lines[1].message, b"without a host", "{lines:?}");
    assert!(lines.iter().all(|line| line.stamp == container.stamp()), "{lines:?}");
    relay.has_delivered(2, 0);
    relay.stops();
}

/// Every message of the corpus from a real Docker Engine, through a running relay.
#[test]
fn the_corpus_by_udp() {
    the_corpus(|wire, row| wire.send(row.unframed()), "udp://127.0.0.1:0");
}

#[test]
fn the_corpus_by_tcp() {
    // Recorded streams are sent as they are. A datagram may contain LF, so it is sent with an octet count.
    let send = |wire: &mut Wire, row: &Row| match &*row.framing {
        "datagram" => wire.send_counted(&row.bytes),
        _ => wire.send(&row.bytes),
    };
    the_corpus(send, "tcp://127.0.0.1:0");
}

fn the_corpus(send: impl Fn(&mut Wire, &Row), listen: &str) {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen(listen);
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let rows = corpus::rows();
    let mut wire = relay.door().connect();
    for (at, row) in rows.iter().enumerate() {
        send(&mut wire, row);
        // The kernel drops datagrams when the relay's receive buffer is full.
        if at % 16 == 15 {
            relay.counts("listen_received_total", at as u64 + 1);
        }
    }
    for (row, line) in rows.iter().zip(collector.lines(rows.len())) {
        row.arrived_as(&line);
    }
    relay.has_delivered(rows.len(), 0);
    relay.stops();
}

impl Row {
    #[track_caller]
    fn arrived_as(&self, line: &Line) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(line.pri, self.pri, "{}: {line:?}", self.file);
        // Two tags that are ambiguous: no reader can separate them from the host, or from the text.
        if self.file != "oddtag-bracket-udp-default.raw" {
            assert_eq!(shown(&line.message), shown(&self.message), "{}", self.file);
            assert!(line.message == self.message, "{}", self.file);
        }
        if self.file.starts_with("oddtag-") {
            return;
        }
        assert_eq!(
            line.container(),
            [&self.image, &self.name, &self.id].map(|field| text(field)),
            "{}: {line:?}",
            self.file
        );
        let host = if self.hostname.is_empty() { RELAY.to_owned() } else { text(&self.hostname) };
        assert_eq!(line.host, host, "{}: {line:?}", self.file);
        let (name, id) = (&self.name, &self.id);
        let app = [name, id, &self.tag].into_iter().find(|field| !field.is_empty()).expect("a tag at least");
        assert_eq!(line.app, text(&app[..app.len().min(48)]), "{}: {line:?}", self.file);
        if self.format.starts_with("rfc5424") {
            assert_eq!(line.stamp, self.stamp, "{}: {line:?}", self.file);
        }
    }
}

#[test]
fn two_messages_by_different_daemons_keep_their_process() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("udp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    let mut wire = relay.door().connect();
    // A tag without a container: the process is dockerd, and stays.
    wire.send(format!("<30>1 2026-11-20T22:27:31Z {HOST} my-tag {DOCKERD} my-tag - hello\n").as_bytes());
    let line = collector.lines(1).remove(0);
    assert_eq!((&*line.app, &*line.proc_id, line.params.len()), ("my-tag", DOCKERD, 0), "{line:?}");
    relay.has_delivered(1, 0);
    relay.stops();
}

/// A recreated volume loses the socket's name. Containers could not log until a restart, and the relay did not report it.
#[test]
fn a_unix_socket_whose_directory_is_made_anew_is_found_again() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("unix://{dir}/volume/log.sock");
    let setup = setup.forward_with(&collector.url(), "framing = \"octet-counting\"");
    fs::create_dir(setup.path("volume")).expect("a directory");
    let relay = setup.start();
    says(&relay, 0..10);
    collector.frames(10);
    fs::remove_dir_all(setup.path("volume")).expect("removed");
    let ready = || get(&relay, "/ready");
    let answer = eventually("it is not ready", || Some(ready()).filter(|answer| answer.status == 503));
    assert!(answer.body.contains("volume/log.sock"), "{}", answer.body);
    relay.says("the socket's name was removed, no new sender finds the relay");
    fs::create_dir(setup.path("volume")).expect("a directory");
    eventually("it is ready again", || (ready().status == 200).then_some(()));
    says(&relay, 10..20);
    collector.frames(20);
    assert_eq!(relay.metrics().sum("listen_rebinds_total"), 1);
    relay.stops();
}
