//! GELF by UDP, TCP and TLS: messages of Docker's driver and of other senders arrive with every field, and go out by every output. Invalid
//! messages are counted and affect nothing else.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::collector::LOCAL;
use crate::support::drivers::{self, Sent};
use crate::support::fluent::zipped;
use crate::support::http::{get, status};
use crate::support::program::{SIGCONT, SIGHUP, SIGSTOP, SIGTERM};
use crate::support::python::python_with;
use crate::support::{
    Certs, Collector, Docker, Format, Framing, Held, Line, Relay, Setup, TlsClient, Wire, eventually, shown, texts,
};

const COUNTED: &str = "framing = \"octet-counting\"";
const UDP: &str = "gelf+udp://127.0.0.1:0";
const TCP: &str = "gelf+tcp://127.0.0.1:0";
const ID: &str = "2a9052a5c36e2a9052a5c36e2a9052a5c36e2a9052a5c36e2a9052a5c36e2a90";
/// The size of the driver's datagrams in bytes, for messages in chunks.
const CHUNK: usize = 1408;
const OWN: &str = "logferry@32473";

/// A container's message as Docker's driver writes it, with additional members.
fn docker_s(name: &str, level: u8, text: &str, more: &str) -> Vec<u8> {
    let text = Value::from(text);
    format!(
        r#"{{"version":"1.1","host":"n7","short_message":{text},"timestamp":1795898357.357,"level":{level},"_container_id":"{ID}","_container_name":"{name}","_image_name":"nginx:1.25","_tag":"t"{more}}}"#
    )
    .into_bytes()
}

fn says(name: &str, text: &str) -> Vec<u8> {
    docker_s(name, 6, text, "")
}

/// A message with the driver's delimiter for streams.
fn with_nul(message: Vec<u8>) -> Vec<u8> {
    [message, vec![0]].concat()
}

/// The driver's chunks of a payload.
fn chunks(id: u64, payload: &[u8]) -> Vec<Vec<u8>> {
    let count = payload.len() / CHUNK + 1;
    let chunk = |number: usize| {
        let data = &payload[number * CHUNK..payload.len().min((number + 1) * CHUNK)];
        [b"\x1e\x0f", &id.to_be_bytes()[..], &[number as u8, count as u8], data].concat()
    };
    (0..count).map(chunk).collect()
}

fn dropped(relay: &Relay, reason: &str) -> i64 {
    relay.metrics().with("spool_dropped_total", reason)
}

/// A relay with a UDP and a TCP listener, and its collector.
fn relay(setup: Setup) -> (Relay, Collector) {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup.listen(UDP).listen(TCP).forward_with(&collector.url(), COUNTED).start();
    (relay, collector)
}

/// The fields in both structured data elements of a line.
fn fields(line: &Line) -> BTreeMap<String, Value> {
    let params = line.params.iter().filter(|((id, _), _)| id == "fields@32473");
    let texts = params.map(|((_, name), value)| (name.clone(), String::from_utf8_lossy(value).into_owned().into()));
    let mut fields: BTreeMap<_, _> = texts.collect();
    if let Some(object) = line.params.get(&("json@32473".to_owned(), "fields".to_owned())) {
        let object: BTreeMap<String, Value> = serde_json::from_slice(object).expect("JSON");
        fields.extend(object);
    }
    fields
}

/// A relay that forwards everything as RFC 5424, as JSON, and to four other relays.
struct Chain {
    relay: Relay,
    others: [Relay; 4],
    lines: Collector,
    json: Collector,
    /// The collectors of the other relays.
    by_relp: Collector,
    by_tcp: Collector,
    by_fluent: Collector,
    by_gelf: Collector,
}

impl Chain {
    fn start() -> Self {
        let [lines, by_relp, by_tcp, by_fluent, by_gelf] = [(); 5].map(|()| Collector::tcp(Framing::OctetCounting));
        let json = Collector::tcp(Framing::Newline);
        let other = |listen: &str, keys: &str, collector: &Collector| {
            Setup::new().listen_with(listen, keys).forward_with(&collector.url(), COUNTED).start()
        };
        let others = [
            other("relp://127.0.0.1:0", "", &by_relp),
            other("tcp://127.0.0.1:0", "marks = \"keep\"", &by_tcp),
            other("fluent://127.0.0.1:0", "", &by_fluent),
            other(TCP, "", &by_gelf),
        ];
        let to = |scheme: &str, relay: &Relay| format!("{scheme}://127.0.0.1:{}", relay.door().port());
        let relay = Setup::new()
            .listen(UDP)
            .listen(TCP)
            .forward_with(&lines.url(), &format!("name = \"lines\"\n{COUNTED}"))
            .forward_with(&json.url(), "name = \"json\"\nformat = \"json\"")
            .forward_with(&to("relp", &others[0]), "name = \"relp\"")
            .forward_with(&to("tcp", &others[1]), &format!("name = \"tcp\"\n{COUNTED}"))
            .forward_with(&to("fluent", &others[2]), "name = \"fluent\"")
            .forward_with(&to("gelf+tcp", &others[3]), "name = \"gelf\"")
            .start();
        Self { relay, others, lines, json, by_relp, by_tcp, by_fluent, by_gelf }
    }

    /// Waits until every output has `count` lines, and checks that they agree; returns each as RFC 5424 and as JSON.
    #[track_caller]
    fn ends(self, count: usize) -> Vec<(Line, Value)> {
        let lines = self.lines.lines(count);
        for (way, collector) in [("RELP", &self.by_relp), ("TCP", &self.by_tcp)] {
            for (line, other) in lines.iter().zip(collector.lines(count)) {
                let (mut params, mut others) = (line.params.clone(), other.params.clone());
                // Each relay adds its own hop.
                for params in [&mut params, &mut others] {
                    params.remove(&(OWN.to_owned(), "hop".to_owned()));
                }
                assert!(line.message == other.message, "by {way}: {line:?} became {other:?}");
                assert_eq!(params, others, "by {way}");
                let header = |line: &Line| {
                    (line.pri, [&line.stamp, &line.host, &line.app, &line.proc_id, &line.msg_id].map(String::clone))
                };
                assert_eq!(header(line), header(&other), "by {way}");
            }
        }
        // The order of lines with different tags is not preserved.
        let mut by_fluent = self.by_fluent.lines(count);
        for line in &lines {
            let at = by_fluent.iter().position(|other| came_by_fluent(other, line));
            let at = at.unwrap_or_else(|| panic!("by the Forward protocol: {line:?} is none of {by_fluent:?}"));
            by_fluent.remove(at);
        }
        for (line, other) in lines.iter().zip(self.by_gelf.lines(count)) {
            came_by_gelf(&other, line);
        }
        let json = self.json.frames(count);
        assert_eq!(json.len(), count);
        let json = json.iter().map(|text| serde_json::from_slice(text).expect("JSON"));
        let all = lines.into_iter().zip(json).collect();
        self.relay.has_delivered(count, 0);
        self.relay.stops();
        self.others.into_iter().for_each(|relay| drop(relay.stops()));
        all
    }
}

/// Compares the parts that the Forward protocol can represent, and all fields with their types.
fn came_by_fluent(other: &Line, line: &Line) -> bool {
    let instant = |line: &Line| chrono::DateTime::parse_from_rfc3339(&line.stamp).expect("RFC 3339");
    let more = fields(other);
    let is_there = |(name, value): (&String, &Value)| {
        let found = more.get(&format!("{name}_")).or(more.get(name));
        // An integer beyond 64 bits becomes a float.
        found.is_some_and(|found| found == value || (found.as_f64().is_some() && found.as_f64() == value.as_f64()))
    };
    other.message == line.message
        && instant(other) == instant(line)
        && other.container()[1..] == line.container()[1..]
        && fields(line).iter().all(is_there)
}

/// A field `a.b` for each member of an object.
fn flattened((name, value): (String, Value)) -> Vec<(String, Value)> {
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.into_iter().flat_map(|(member, value)| flattened((format!("{name}.{member}"), value))).collect()
        }
        value => vec![(name, value)],
    }
}

/// Compares all parts of a GELF message. Members of objects are separate fields, and other values that are neither string nor number are
/// JSON text.
#[track_caller]
fn came_by_gelf(other: &Line, line: &Line) {
    let instant = |line: &Line| chrono::DateTime::parse_from_rfc3339(&line.stamp).expect("RFC 3339");
    let text = if line.message.trim_ascii().is_empty() { b"-" } else { &line.message[..] };
    assert!(other.message == text, "{line:?} became {other:?}");
    let header = |line: &Line| (line.pri, [&line.host, &line.app, &line.proc_id].map(String::clone), instant(line));
    assert_eq!(header(other), header(line));
    assert_eq!(other.container(), line.container());
    let own = |line: &Line| ["driver", "tag", "source"].map(|name| line.param(OWN, name));
    assert_eq!(own(other), own(line));
    let legal = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c), "_");
    let said = |(name, value): (String, Value)| {
        let value = if value.is_string() || value.is_number() { value } else { value.to_string().into() };
        (if name == "id" { "id_".to_owned() } else { legal(&name) }, value)
    };
    let expected: BTreeMap<String, Value> = fields(line).into_iter().flat_map(flattened).map(said).collect();
    assert_eq!(fields(other), expected, "{line:?}");
}

/// The line and the JSON must match the row of the corpus.
#[track_caller]
fn is(line: &Line, json: &Value, sent: &Sent) {
    let what = format!("{}: {line:?}", sent.file);
    let is_docker_s = sent.of("driver") == "gelf";
    let mut extra = sent.extra();
    let host = extra.remove("host").unwrap_or("docker-host-1".into());
    let severity = if sent.of("exp_source") == "stdout" { 6 } else { 3 };
    let level = extra.remove("level").unwrap_or(severity.into());
    let facility = if is_docker_s { 3 } else { 1 };
    assert_eq!(
        (u64::from(line.pri), &*line.host),
        (facility << 3 | level.as_u64().expect("a number"), host.as_str().expect("a text")),
        "{what}"
    );
    let message = sent.expected("exp_message");
    assert!(line.message == message, "{what}: {} was sent", shown(&message));
    assert_eq!(json["message"].as_str().map(str::as_bytes), Some(&message[..]), "{what}");
    let stamp = chrono::DateTime::parse_from_rfc3339(&line.stamp).expect("RFC 3339");
    let (seconds, fraction) = sent.of("exp_time").split_once('.').unwrap_or((sent.of("exp_time"), ""));
    let micros: i64 = format!("{seconds}{fraction:0<6}").parse().expect("a number");
    assert_eq!(stamp.timestamp_micros(), micros, "{what}");
    let name = sent.text("exp_name");
    let container = ["exp_image", "exp_name", "exp_id"].map(|column| sent.text(column));
    assert_eq!(line.container(), container, "{what}");
    if is_docker_s {
        assert_eq!((&*line.app, &line.proc_id), (&name[..name.len().min(48)], &container[2]), "{what}");
        let own = ["tag", "source", "driver"].map(|name| line.param(OWN, name));
        assert_eq!(own, [sent.text("exp_tag"), sent.text("exp_source"), "gelf".to_owned()], "{what}");
        let of_json =
            ["image_name", "container_name", "container_id"].map(|key| json[key].as_str().unwrap_or_default());
        assert_eq!(of_json, container.each_ref().map(String::as_str), "{what}");
    }
    let mut expected: BTreeMap<String, Value> =
        extra.into_iter().map(|(name, value)| (name.trim_start_matches('_').to_owned(), value)).collect();
    // A label of 70,000 bytes exceeds the limit for all fields of a record.
    let cut = expected.remove("long70000").is_some();
    assert_eq!(line.param(OWN, "fields-cut"), if cut { "1" } else { "" }, "{what}");
    assert_eq!(fields(line), expected, "{what}");
    let expected: Value = expected.into_iter().collect::<serde_json::Map<_, _>>().into();
    assert_eq!(json.get("fields").unwrap_or(&json!({})), &expected, "{what}");
}

#[test]
fn the_corpus_arrives_with_every_field_by_every_way_on() {
    let mut recordings = drivers::recordings("gelf-", 55);
    recordings.extend(drivers::recordings("fluentbit-gelf-", 1));
    let chain = Chain::start();
    let (mut sent, mut by_udp) = (Vec::new(), 0);
    for recording in recordings {
        if recording.is_udp() {
            let mut wire = chain.relay.doors()[0].connect();
            recording.messages.iter().flat_map(Sent::datagrams).for_each(|datagram| wire.send(datagram));
            by_udp += recording.messages.len();
        } else {
            let mut wire = chain.relay.doors()[1].connect();
            wire.send(&recording.stream());
            wire.close();
        }
        sent.extend(recording.messages);
        // One at a time, so that each line is identified by its position.
        chain.lines.frames(sent.len());
    }
    assert!(by_udp > 60 && sent.len() - by_udp > 60, "{by_udp} of {}", sent.len());
    for ((line, json), sent) in chain.ends(sent.len()).iter().zip(&sent) {
        is(line, json, sent);
    }
}

#[test]
fn fields_keep_their_types() {
    let chain = Chain::start();
    let more = concat!(
        r#","full_message":"a\nb","line":12,"_float":1.50,"_large":123456789012345678901234567890,"_exp":1e3,"_true":true,"#,
        r#""_null":null,"_nested":{"a" : [1,"x"]},"_text":"plain","_a b":"no PARAM-NAME","__two":"2""#
    );
    let message = docker_s("web", 6, "typed", more);
    chain.relay.doors()[0].connect().send(&zipped(&message));
    chain.lines.frames(1);
    chain.relay.doors()[1].connect().send(&with_nul(message));
    for (line, json) in chain.ends(2) {
        assert_eq!(line.param("fields@32473", "text"), "plain");
        assert_eq!(line.param("fields@32473", "_two"), "2");
        let written = line.param("json@32473", "fields");
        let expected = concat!(
            r#"{"full_message":"a\nb","line":12,"float":1.50,"large":123456789012345678901234567890,"exp":1e3,"true":true,"null":null,"#,
            r#""nested":{"a":[1,"x"]},"a b":"no PARAM-NAME"}"#
        );
        assert_eq!(written, expected);
        let fields = &json["fields"];
        assert_eq!((&fields["line"], &fields["true"], &fields["null"]), (&json!(12), &json!(true), &Value::Null));
        assert_eq!((&fields["nested"], &fields["full_message"]), (&json!({"a": [1, "x"]}), &json!("a\nb")));
        assert_eq!((&fields["text"], &fields["a b"]), (&json!("plain"), &json!("no PARAM-NAME")));
    }
}

/// The container's long lines: only the length shows that a message is a piece.
#[test]
fn pieces_of_a_long_line_become_one_line_again() {
    let (relay, collector) = relay(Setup::new().section("[syslog]\nrejoin = \"256KiB\""));
    let mut whole = Vec::new();
    for recording in drivers::recordings("gelf-long-", 10) {
        let is_piece = |sent: &&Sent| sent.of("partial").starts_with("hidden");
        let text: Vec<u8> =
            recording.messages.iter().filter(is_piece).flat_map(|sent| sent.expected("exp_message")).collect();
        let others = recording.messages.iter().filter(|sent| !is_piece(sent)).map(|sent| sent.expected("exp_message"));
        let before = whole.len();
        whole.extend([text].into_iter().filter(|text| !text.is_empty()).chain(others));
        if recording.is_udp() {
            let mut wire = relay.doors()[0].connect();
            recording.messages.iter().flat_map(Sent::datagrams).for_each(|datagram| wire.send(datagram));
        } else {
            relay.doors()[1].connect().send(&recording.stream());
        }
        let mut found: Vec<_> =
            collector.lines(whole.len()).into_iter().skip(before).map(|line| line.message).collect();
        found.sort();
        whole[before..].sort();
        let lengths = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&found), lengths(&whole[before..]), "{}", recording.file);
        assert!(found == whole[before..], "{}", recording.file);
    }
    // Two lines of 40,000 bytes and one that was cut inside a character, three times each.
    assert_eq!(relay.metrics().sum("syslog_joined_total"), 9);
    relay.balances(0);
    relay.stops();
}

/// A sender like Docker's driver: it only writes, and repeats a failed write on a new connection. It notices nothing but a reset.
#[test]
fn a_stop_reads_what_is_there_and_resets_so_that_nothing_is_lost() {
    let port = Held::on(&[LOCAL]);
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup =
        Setup::new().listen(&format!("gelf+tcp://127.0.0.1:{}", port.port())).forward_with(&collector.url(), COUNTED);
    let mut relay = setup.start();
    let number = |number: usize| with_nul(says("web", &number.to_string()));
    let mut streams: Vec<TcpStream> =
        (0..10).map(|_| TcpStream::connect((LOCAL, port.port())).expect("it accepts")).collect();
    relay.counts("listen_connections", 10);
    // The relay is stopped before it has read any of it.
    relay.signal(SIGSTOP);
    for (at, stream) in streams.iter_mut().enumerate() {
        (0..50).for_each(|nth| stream.write_all(&number(at * 50 + nth)).expect("the kernel takes it"));
    }
    relay.signal(SIGTERM);
    relay.signal(SIGCONT);
    assert_eq!(relay.ends().code(), Some(0), "{}", relay.stderr());
    let relay = setup.start();
    for (at, stream) in streams.iter_mut().enumerate() {
        // A reset, and not an orderly close, which a driver that only writes would not notice.
        let end = stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "of connection {at}");
        let next = number(500 + at);
        assert!(stream.write_all(&next).is_err(), "a write behind the reset fails");
        let mut again = TcpStream::connect((LOCAL, port.port())).expect("it accepts");
        again.write_all(&next).expect("it takes it");
        *stream = again;
    }
    collector.frames(510);
    let mut numbers = collector.numbers();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..510), "{numbers:?}");
    relay.stops();
}

#[test]
fn a_reload_changes_what_a_socket_speaks() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = |listen: &str| Setup::new().listen(listen).forward_with(&collector.url(), COUNTED);
    let at = format!("127.0.0.1:{}", Held::new(true, &[LOCAL]).port());
    let old = setup(&format!("udp://{at}"));
    let relay = old.start();
    let reloads = |times: u64, listen: &str| {
        setup(listen).replaces(&old);
        relay.signal(SIGHUP);
        relay.counts("config_reloads_total", times);
    };
    let mut wire = relay.door().connect();
    let message = says("web", "as it is");
    wire.send(&message);
    assert_eq!(collector.lines(1)[0].message, message);
    reloads(1, &format!("gelf+udp://{at}"));
    wire.send(&message);
    wire.send(&message[..message.len() - 1]);
    assert_eq!(texts(&collector.lines(2))[1], "as it is");
    eventually("it is counted", || (relay.refused("not-json") == 1).then_some(()));
    reloads(2, &format!("udp://{at}"));
    wire.send(&message);
    assert_eq!(collector.lines(3)[2].message, message);
    assert_eq!(status(&relay)["listeners"][0]["address"], format!("udp://{at}"));
    relay.has_delivered(3, 0);
    relay.stops();
}

#[test]
fn who_is_not_allowed_is_not_heard() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let allow = "allow = \"127.0.0.7\"";
    let setup = Setup::new().listen_with(UDP, allow).listen_with(TCP, allow);
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let [udp, tcp] = relay.doors() else { panic!("two listeners") };
    let from = |last: u8| {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).expect("an address of loopback");
        socket.connect((LOCAL, udp.port())).expect("udp always connects");
        socket
    };
    from(1).send(&says("web", "stranger")).expect("sent");
    // A chunk from an address that is not allowed is rejected, too.
    let chunked = chunks(7, &says("web", &"x".repeat(2000)));
    from(1).send(&chunked[0]).expect("sent");
    tcp.connect().is_closed();
    eventually("they are counted", || (relay.refused("allow") == 3).then_some(()));
    from(7).send(&says("web", "friend")).expect("sent");
    assert_eq!(texts(&collector.lines(1)), ["friend"]);
    relay.has_delivered(1, 0);
    relay.stops();
}

#[test]
fn rules_names_and_limits_are_those_of_the_container_whichever_driver_brings_it() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new()
        .admin("containers = 10")
        .listen_with(UDP, "name = \"gelf\"")
        .listen(TCP)
        .listen("tcp://127.0.0.1:0")
        .section("[syslog]\nrate-limit = \"1/s\"\nrate-burst = 100\n[[drop]]\nname = \"noisy\"\nseverity = \"info or milder\"");
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let mut wires = [0, 1, 2].map(|number: usize| relay.doors()[number].connect());
    wires[0].send(&says("noisy", "dropped"));
    wires[1].send(&with_nul(says("noisy", "dropped")));
    relay.counts("spool_dropped_total", 2);
    wires[0].send(&docker_s("noisy", 3, "an error", ""));
    let line = collector.lines(1).remove(0);
    assert_eq!((line.param(OWN, "listener").as_str(), &*line.message), ("gelf", &b"an error"[..]));
    // Each listener has a limit per container: a flood by UDP affects neither the container's lines by TCP, nor other containers.
    for number in 0..1000 {
        wires[0].send(&says("loud", "me"));
        if number % 25 == 0 {
            wires[0].send(&says("quiet", "hello"));
        }
    }
    wires[1].send(&with_nul(says("loud", "by TCP")));
    wires[2].says(&Docker::new(Format::Rfc5424Micro, "loud"), b"by syslog");
    eventually("all is received", || (relay.metrics().sum("listen_received_total") == 1045).then_some(()));
    let cut = dropped(&relay, "rate");
    assert!((800..=900).contains(&cut), "{cut}");
    let metrics = relay.metrics();
    let named = |name: &str| format!("container=\"{name}\"");
    assert_eq!(metrics.with("container_limited_total", &named("loud")), cut);
    assert_eq!(metrics.with("container_received_total", &named("loud")), 1002, "whichever driver brings it");
    assert_eq!(metrics.with("container_received_total", &named("noisy")), 3);
    assert_eq!((metrics.with("container_received_total", &named("quiet")), dropped(&relay, "rule")), (40, 2));
    eventually("the others are there", || {
        let texts = collector.messages();
        ["by TCP", "by syslog"].iter().all(|text| texts.iter().any(|found| found == text)).then_some(())
    });
    relay.balances(0);
    relay.stops();
}

#[test]
fn the_least_severe_goes_first_when_the_spool_fills() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let spool = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"";
    let relay = Setup::new().spool(spool).listen(TCP).forward_with(&collector.url(), COUNTED).start();
    let mut wire = relay.door().connect();
    let text = "x".repeat(4000);
    let mut said = 0;
    let mut says = |level: u8| {
        wire.send(&with_nul(docker_s("web", level, &text, "")));
        said += 1;
        eventually("it is in the spool, or not", || {
            let metrics = relay.metrics();
            (metrics.sum("spool_spooled_total") + metrics.sum("spool_dropped_total") == said).then_some(())
        });
    };
    while dropped(&relay, "severity") == 0 {
        says(6);
    }
    (0..3).for_each(|_| says(3));
    assert_eq!((dropped(&relay, "severity"), dropped(&relay, "full")), (1, 0), "there is room left for errors");
    relay.stops();
}

/// A PROXY header of version 2 precedes each datagram, also each chunk: the address in the header is the sender's.
#[test]
fn behind_a_proxy_the_sender_is_whom_it_speaks_for() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys = "proxy-protocol = true\nallow = \"127.0.0.1\"\npeer = true\nclient-allow = \"192.0.2.0/24\"";
    let setup = Setup::new().listen_with(UDP, keys).listen_with(TCP, keys);
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let header = |client: [u8; 4]| {
        let addresses = [&client[..], &[192, 0, 2, 1, 0x30, 0x39, 2, 2]].concat();
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c", &addresses[..]].concat()
    };
    let [one, other, stranger] = [[192, 0, 2, 7], [192, 0, 2, 8], [203, 0, 113, 7]].map(header);
    let mut wire = relay.doors()[0].connect();
    let mut send = |header: &[u8], datagram: &[u8]| wire.send(&[header, datagram].concat());
    // Two senders use the same message ID through one proxy socket.
    let [of_one, of_other] = ["1", "2"].map(|text| chunks(7, &says("web", &text.repeat(2000))));
    send(&one, &of_one[1]);
    send(&other, &of_other[0]);
    send(&stranger, &of_one[0]);
    send(&one, &of_one[0]);
    send(&other, &of_other[1]);
    send(b"", &says("web", "no header"));
    send(&one, &zipped(&says("web", "whole")));
    collector.frames(3);
    let mut tcp = relay.doors()[1].connect();
    tcp.send(&[&other[..], &with_nul(says("web", "by TCP"))].concat());
    let lines = collector.lines(4);
    let said: Vec<_> =
        lines.iter().zip(texts(&lines)).map(|(line, text)| (text[..1].to_owned(), line.param(OWN, "peer"))).collect();
    let of = |text: &str, last: u8| (text.to_owned(), format!("192.0.2.{last}"));
    assert_eq!(said, [of("1", 7), of("2", 8), of("w", 7), of("b", 8)]);
    assert!(lines[0].message.len() == 2000 && lines[1].message.len() == 2000);
    assert_eq!(["client-allow", "no-proxy-header"].map(|reason| relay.refused(reason)), [1, 1]);
    relay.has_delivered(4, 0);
    relay.stops();
}

#[test]
fn a_chunk_that_never_comes_is_counted_and_told_once() {
    let (relay, collector) = relay(Setup::new());
    let mut wire = relay.doors()[0].connect();
    let chunked: Vec<_> = (0..3).map(|id| chunks(id, &says("web", &"x".repeat(2000)))).collect();
    chunked.iter().for_each(|chunks| wire.send(&chunks[0]));
    wire.send(&chunked[2][1]);
    wire.send(&says("web", "whole"));
    assert_eq!(collector.lines(2)[1].message, b"whole");
    eventually("they are given up", || (relay.refused("chunk-expired") == 2).then_some(()));
    relay.says(
        "127.0.0.1 was refused: a message of GELF is lost, and its sender may go on: a chunk of a message did not come within 5 s",
    );
    let last = &status(&relay)["listeners"][0]["last_refused"];
    assert_eq!((&last["reason"], &last["address"]), (&json!("chunk-expired"), &json!("127.0.0.1")));
    // Chunks that come too late start a new message.
    chunked[..2].iter().for_each(|chunks| wire.send(&chunks[1]));
    eventually("they are given up", || (relay.refused("chunk-expired") == 4).then_some(()));
    relay.has_delivered(2, 0);
    let said = relay.stops().stderr;
    assert_eq!(said.matches("a chunk of a message did not come within 5 s").count(), 1, "{said}");
}

/// Invalid messages, each with its reason, and whether TCP reports the same reason.
fn rubbish() -> Vec<(Vec<u8>, &'static str, bool)> {
    let deep = format!("{{\"short_message\":\"a\",\"_d\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let keys: String = (0..2000).map(|n| format!(",\"_{n}\":{n}")).collect();
    let chunk = |number: u8, count: u8, id: u8| [b"\x1e\x0f", &[id; 8][..], &[number, count], b"{"].concat();
    vec![
        (b"{\"short_message\":".to_vec(), "not-json", true),
        (b"{]".to_vec(), "not-json", true),
        (b"{\"short_message\":\"\xff\xfe\"}".to_vec(), "not-utf8", true),
        (b"{\"short_message\":\"a\0\"}".to_vec(), "not-json", false),
        (b"[1,2,3]".to_vec(), "no-object", false),
        (b"{}".to_vec(), "no-short-message", true),
        (b"{\"version\":\"1.1\",\"short_message\":{}}".to_vec(), "no-short-message", true),
        (deep.into_bytes(), "too-deep", true),
        (format!("{{\"short_message\":\"a\"{keys}}}").into_bytes(), "too-many-keys", true),
        (zipped(&says("web", "a"))[..40].to_vec(), "bad-gzip", false),
        (b"\x1f\x8b".to_vec(), "bad-gzip", false),
        (b"\x78\x9c\xff\xff\xff".to_vec(), "bad-zlib", false),
        (zipped(&vec![b' '; 1_400_000]), "too-long", false),
        (b"\x1e\x0f1234567".to_vec(), "short-chunk", false),
        (chunk(0, 0, 1), "chunk-count", false),
        (chunk(0, 129, 2), "chunk-count", false),
        (chunk(3, 3, 3), "chunk-number", false),
    ]
}

#[test]
fn what_is_no_message_is_counted_by_its_reason_and_costs_nothing_else() {
    const TIMES: usize = 20;
    let (relay, collector) = relay(Setup::new());
    let mut udp = relay.doors()[0].connect();
    let mut tcp = relay.doors()[1].connect();
    let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
    let mut good = 0;
    for _ in 0..TIMES {
        for (rubbish, reason, too) in rubbish() {
            udp.send(&rubbish);
            udp.send(&says("web", "by UDP"));
            *expected.entry(reason).or_default() += 1;
            good += 1;
            if too {
                tcp.send(&[with_nul(rubbish), with_nul(says("web", "by TCP"))].concat());
                *expected.entry(reason).or_default() += 1;
                good += 1;
            }
        }
        collector.frames(good);
    }
    // Two contradictory chunks of one message; a message above the limit for streams; an incomplete message at the end of a stream.
    let chunked = chunks(9, &says("web", &"y".repeat(2000)));
    let mut contradicts = chunked[1].clone();
    contradicts[11] = 3;
    [&chunked[0], &contradicts, &chunked[1]].into_iter().for_each(|chunk| udp.send(chunk));
    tcp.send(&with_nul(says("web", &"x".repeat(1 << 20))));
    tcp.send(&with_nul(says("web", "by TCP")));
    tcp.send(b"{\"short_message\":");
    tcp.close();
    expected.insert("contradiction", 1);
    *expected.entry("too-long").or_default() += 1;
    expected.insert("unfinished", 1);
    good += 2;
    collector.lines(good);
    eventually("all is counted", || {
        expected.iter().all(|(reason, count)| relay.refused(reason) == *count).then_some(())
    });
    assert_eq!(relay.metrics().sum("listen_refused_total") as i64, expected.values().sum::<i64>());
    relay.has_delivered(good, 0);
    let said = relay.stops().stderr;
    let named = |reason: &str| {
        let refusal = "127.0.0.1 was refused: a message of GELF is lost, and its sender may go on";
        said.matches(&format!("{refusal}: {reason}")).count()
    };
    assert_eq!(
        ["two chunks of one message disagree", "the connection ended inside a message"].map(named),
        [1, 1],
        "{said}"
    );
    // Each listener logs a reason at most once.
    assert!(["a message is not JSON", "JSON is not UTF-8"].map(named).iter().all(|times| *times <= 2), "{said}");
}

/// As many chunked messages of 180 kB as allowed, which inflate to 180 MB.
#[test]
fn bombs_take_no_memory() {
    let (relay, collector) = relay(Setup::new());
    let member = zipped(&vec![b' '; 1 << 20]);
    let bomb = member.repeat(128 * CHUNK / member.len());
    let inflated = (bomb.len() / member.len()) << 20;
    let chunked = chunks(7, &bomb);
    assert!(bomb.len() > 178_000 && inflated > 170_000_000 && chunked.len() == 128, "{} bytes, {inflated}", bomb.len());
    let mut udp = relay.doors()[0].connect();
    udp.send(&says("web", "before"));
    collector.lines(1);
    let before = relay.process().kib("VmHWM");
    for round in 1..=20 {
        for chunk in &chunked {
            udp.send(chunk);
        }
        eventually("it is refused", || (relay.refused("too-long") == round).then_some(()));
    }
    udp.send(&says("web", "after"));
    assert_eq!(texts(&collector.lines(2)), ["before", "after"]);
    let more = relay.process().kib("VmHWM") - before;
    println!("gelf: bombs: {more} kB more than before");
    assert!(more < 8 << 10, "{more} kB more than before");
    assert_eq!([get(&relay, "/live").status, get(&relay, "/ready").status], [200, 200]);
    relay.has_delivered(2, 0);
    relay.stops();
}

#[test]
fn a_message_that_does_not_end_in_time_is_given_up() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen_with(TCP, "frame-timeout = \"1s\"");
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let mut wire = relay.door().connect();
    let message = says("web", "too late");
    wire.send(&message[..20]);
    eventually("it is given up", || (relay.refused("given-up") == 1).then_some(()));
    wire.send(&message[20..]);
    wire.send(&says("web", "in time"));
    assert_eq!(texts(&collector.lines(1)), ["in time"]);
    relay.has_delivered(1, 0);
    relay.stops();
}

#[test]
fn another_protocol_is_refused_by_its_name() {
    let (relay, _collector) = relay(Setup::new());
    for (first, reason) in [
        (&b"<30>1 2026-11-20T22:27:42Z h a - - - x\n"[..], "syslog"),
        (b"GET /gelf HTTP/1.1\r\n\r\n", "http"),
        (&TlsClient::ANONYMOUS.hello(), "tls"),
        (b"\x94\xacabcdefghijkl\xd2\0\0\0\0", "forward"),
        (b"1 open 46 relp_version=0\nrelp_software=x\ncommands=syslog\n", "relp"),
        (b"something that is none of them", "not-json"),
    ] {
        let mut wire = relay.doors()[1].connect();
        wire.send(first);
        wire.is_closed();
        assert_eq!(relay.refused(reason), 1, "{reason}");
    }
    relay.says("127.0.0.1 was refused: it speaks plain syslog, and GELF is spoken here");
    relay.stops();
}

#[test]
fn by_tls_as_by_tcp() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let certs = Certs::get();
    let mutual = format!("{}client-ca = \"{}\"\n", certs.listen(), certs.path("ca.pem"));
    let setup = Setup::new()
        .listen_with("gelf+tls://127.0.0.1:0", &certs.listen())
        .listen_with("gelf+tls://127.0.0.1:0", &mutual);
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let [anybody, known] = relay.doors() else { panic!("two listeners") };
    let mut wires = [
        anybody.connect_tls(TlsClient::ANONYMOUS),
        known.connect_tls(TlsClient { identified: true, ..TlsClient::ANONYMOUS }),
    ];
    for (at, wire) in wires.iter_mut().enumerate() {
        (0..50).for_each(|number| wire.send(&with_nul(says("web", &(50 * at + number).to_string()))));
        collector.frames(50 * (at + 1));
    }
    assert!(collector.numbers().into_iter().eq(0..100));
    known.knock(TlsClient::ANONYMOUS, certs, None);
    // A connection without TLS is rejected.
    let mut plain = anybody.connect();
    plain.send(&says("web", "plain"));
    plain.is_closed();
    eventually("it is counted", || (relay.refused("plaintext") == 1).then_some(()));
    wires.into_iter().for_each(Wire::close);
    relay.has_delivered(100, 0);
    relay.stops();
}

/// The end of the connection ends a message without NUL, and newlines are accepted as delimiters, too.
#[test]
fn what_ends_a_message_is_not_always_nul() {
    let (relay, collector) = relay(Setup::new());
    let tcp = &relay.doors()[1];
    let pretty = "{\n  \"short_message\": \"on lines\",\n  \"_a\": [\n 1\n ]\n}\n";
    let stream =
        [&says("web", "newline")[..], b"\r\n", &says("web", "nothing"), pretty.as_bytes(), &says("web", "end")]
            .concat();
    let mut wire = tcp.connect();
    wire.send(&stream);
    wire.close();
    assert_eq!(texts(&collector.lines(4)), ["newline", "nothing", "on lines", "end"]);
    relay.has_delivered(4, 0);
    relay.stops();
}

#[test]
fn graypy_is_understood() {
    let Some(python) = python_with("graypy", "graypy") else { return };
    let (relay, collector) = relay(Setup::new());
    let script = r#"
import logging, sys, graypy
udp, tcp = int(sys.argv[1]), int(sys.argv[2])
for handler in [graypy.GELFUDPHandler("127.0.0.1", udp), graypy.GELFUDPHandler("127.0.0.1", udp, compress=False, gelf_chunker=graypy.handler.GELFWarningChunker(100)),
                graypy.GELFTCPHandler("127.0.0.1", tcp)]:
    log = logging.Logger("jobs"); log.addHandler(handler)
    log.warning("café %s", "x" * 5000, extra={"user": "ann", "tries": 3})
    try: 1 / 0
    except ZeroDivisionError: log.exception("it failed\nin two lines")
    handler.close()
"#;
    sends(Command::new(python).args(["-c", script]).args(relay.doors().iter().map(|door| door.port().to_string())));
    let lines = collector.lines(6);
    let mut texts = texts(&lines);
    texts.sort();
    assert_eq!(
        texts,
        [vec![format!("café {}", "x".repeat(5000)); 3], vec!["it failed\nin two lines".to_owned(); 3]].concat()
    );
    for line in lines {
        let fields = fields(&line);
        let is_error = line.message.starts_with(b"it");
        assert_eq!((line.pri & 7, &fields["facility"]), (if is_error { 3 } else { 4 }, &json!("jobs")), "{line:?}");
        if is_error {
            assert!(fields["full_message"].as_str().expect("a text").contains("ZeroDivisionError"), "{line:?}");
        } else {
            assert_eq!(
                (&fields["user"], &fields["tries"], &fields["line"]),
                (&json!("ann"), &json!(3), &json!(7)),
                "{line:?}"
            );
        }
    }
    relay.has_delivered(6, 0);
    relay.stops();
}

#[test]
fn pygelf_is_understood() {
    let Some(python) = python_with("pygelf", "pygelf") else { return };
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen(UDP).listen(TCP).listen_with("gelf+tls://127.0.0.1:0", &Certs::get().listen());
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    let script = r#"
import logging, sys, pygelf
udp, tcp, tls = map(int, sys.argv[1:])
to = {"host": "127.0.0.1", "debug": True, "include_extra_fields": True, "_app": "shop"}
for handler in [pygelf.GelfUdpHandler(port=udp, compress=True, **to), pygelf.GelfUdpHandler(port=udp, compress=False, chunk_size=100, **to),
                pygelf.GelfTcpHandler(port=tcp, **to), pygelf.GelfTlsHandler(port=tls, **to)]:
    log = logging.Logger("jobs"); log.addHandler(handler)
    log.error("café %s", "x" * 2000, extra={"tries": 3, "ok": True, "list": [1, "two"]})
    log.info("second")
    handler.close()
"#;
    sends(Command::new(python).args(["-c", script]).args(relay.doors().iter().map(|door| door.port().to_string())));
    let lines = collector.lines(8);
    let mut texts = texts(&lines);
    texts.sort();
    assert_eq!(texts, [vec![format!("café {}", "x".repeat(2000)); 4], vec!["second".to_owned(); 4]].concat());
    for line in lines {
        let fields = fields(&line);
        let is_first = line.message.starts_with(b"caf");
        assert_eq!((line.pri & 7, &fields["app"]), (if is_first { 3 } else { 6 }, &json!("shop")), "{line:?}");
        if is_first {
            assert_eq!((&fields["tries"], &fields["ok"]), (&json!(3), &json!(true)), "{line:?}");
        }
    }
    relay.has_delivered(8, 0);
    relay.stops();
}

#[track_caller]
fn sends(command: &mut Command) {
    let output = crate::support::run(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
