//! The sender's identity: its address in a line, the HOSTNAME of messages without one, and rules for it. The senders are on another
//! machine, because messages from this machine get its name.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;

use crate::support::dns::NAME;
use crate::support::docker::RELAY;
use crate::support::network::{HERE, THERE};
use crate::support::{Collector, Door, Framing, Line, NameServer, Network, Relay, Setup, eventually, within};

const COUNTED: &str = "framing = \"octet-counting\"";
const NAMELESS: &[u8] = b"<13>1 2026-11-20T22:28:47Z - app - - - from there";
const NAMED: &[u8] = b"<13>1 2026-11-20T22:28:47Z core-sw app - - - from there";

/// Sends datagrams from this address of the other machine.
fn sends(network: &Network, from: &str, door: &Door, datagrams: &[&[u8]]) {
    let Door::Udp(to) = door else { panic!("{door:?}") };
    network.there(|| {
        let socket = UdpSocket::bind((from, 0)).expect("an address of it");
        for datagram in datagrams {
            socket.send_to(datagram, to).expect("sent");
        }
    });
}

/// A connection from this address of the other machine.
fn connects(network: &Network, from: &str, door: &Door) -> TcpStream {
    let Door::Tcp(to) = door else { panic!("{door:?}") };
    network.there(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let from = SocketAddr::new(from.parse().expect("an address"), 0);
        socket.bind(&from.into()).expect("an address of it");
        socket.connect(&SocketAddr::clone(to).into()).expect("the relay accepts");
        socket.into()
    })
}

fn udp() -> String {
    format!("udp://{HERE}:0")
}

fn start(setup: Setup) -> (Collector, Relay) {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup.forward_with(&collector.url(), COUNTED).start();
    (collector, relay)
}

fn peer_of(line: &Line) -> String {
    line.param("logferry@32473", "peer")
}

#[test]
fn a_device_without_a_name_is_not_the_relay() {
    let Some(network) = Network::new() else { return };
    let setup = Setup::new().listen(&udp()).listen(&format!("tcp://{HERE}:0")).listen("udp://127.0.0.1:0");
    let (collector, relay) = start(setup);
    sends(&network, THERE[0], &relay.doors()[0], &[NAMELESS, NAMED]);
    sends(&network, THERE[1], &relay.doors()[0], &[b"Link is up"]);
    let lines = collector.lines(3);
    let hosts: Vec<(&str, String)> = lines.iter().map(|line| (&*line.host, peer_of(line))).collect();
    let of = |address: &str| address.to_owned();
    assert_eq!(hosts, [(THERE[0], of(THERE[0])), ("core-sw", of("")), (THERE[1], of(THERE[1]))]);
    let mut stream = connects(&network, THERE[1], &relay.doors()[1]);
    stream.write_all(b"<13>Nov 20 22:28:47 busybox: by tcp\n").expect("the relay reads");
    let line = collector.lines(4).remove(3);
    assert_eq!((&*line.host, peer_of(&line)), (THERE[1], of(THERE[1])));
    // A message from this machine gets its name.
    relay.doors()[2].connect().send(NAMELESS);
    assert_eq!(collector.lines(5).remove(4).host, RELAY);
    relay.has_delivered(5, 0);
    relay.stops();
}

#[test]
fn a_name_of_dns_is_used_when_it_is_there_and_never_waited_for() {
    let Some(network) = Network::new() else { return };
    let Some(names) = NameServer::start(&[THERE[0]]) else { return };
    let (collector, relay) = start(Setup::new().section(&names.section()).listen_with(&udp(), "host = \"name\""));
    let mut sent = 0;
    let mut host = |from: &str| {
        sends(&network, from, relay.door(), &[NAMED]);
        sent += 1;
        collector.lines(sent).remove(sent - 1).host
    };
    let first = host(THERE[0]);
    assert_eq!(first, THERE[0], "nobody has asked before");
    eventually("the name is known", || (host(THERE[0]) == NAME).then_some(()));
    assert_eq!(host(THERE[1]), THERE[1]);
    relay.stops();
}

/// A bridge that Docker creates while the relay runs.
#[test]
fn whoever_sends_from_a_bridge_of_docker_s_has_the_relay_s_name() {
    let Some(network) = Network::new() else { return };
    let (collector, relay) = start(Setup::new().listen(&udp()));
    let mut sent = 0;
    let mut host = || {
        sends(&network, THERE[0], relay.door(), &[NAMELESS]);
        sent += 1;
        collector.lines(sent).remove(sent - 1).host
    };
    assert_eq!(host(), THERE[0]);
    for command in ["ip link add br-1a2b3c type veth peer name other", &format!("ip addr add {HERE}/29 dev br-1a2b3c")]
    {
        let mut words = command.split(' ');
        let done = Command::new(words.next().expect("a program")).args(words).status().expect("iproute2");
        assert!(done.success(), "{command}");
    }
    eventually("the relay has noticed", || (host() == RELAY).then_some(()));
    relay.stops();
}

#[test]
fn rules_ask_for_the_sender() {
    let Some(network) = Network::new() else { return };
    let [first, second] = THERE;
    let collector = Collector::tcp(Framing::OctetCounting);
    let some = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new()
        .listen_with(&udp(), "peer = true\nmarks = \"keep\"")
        .section(&format!("[[drop]]\npeer = \"{second}\"\napp = \"noisy\""));
    let setup = setup.forward_with(&collector.url(), &format!("name = \"all\"\n{COUNTED}"));
    let rule = format!("match = {{ peer = [\"10.99.0.0/24\", \"!{first}\"] }}");
    let relay = setup.forward_with(&some.url(), &format!("name = \"some\"\n{COUNTED}\n{rule}")).start();
    let container = |text: &str| {
        format!("<30>1 2026-11-20T22:28:47Z h noisy - - [docker@32473 name=\"noisy\"] {text}").into_bytes()
    };
    // The same header as before, from another sender.
    for _ in 0..3 {
        sends(&network, first, relay.door(), &[&container("a")]);
        sends(&network, second, relay.door(), &[&container("b"), NAMED]);
    }
    let lines = collector.lines(6);
    assert_eq!(lines.iter().filter(|line| line.message == b"a" && peer_of(line) == first).count(), 3);
    assert_eq!(lines.iter().filter(|line| line.host == "core-sw" && peer_of(line) == second).count(), 3);
    assert!(some.lines(3).iter().all(|line| peer_of(line) == second));
    relay.counts("spool_dropped_total", 3);
    let is_more = within(std::time::Duration::ZERO, || (some.count() > 3).then_some(()));
    assert!(is_more.is_none());
    relay.stops();
}
