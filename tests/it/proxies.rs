//! The PROXY protocol: the address in the proxy's header is the sender's. A real HAProxy, with both versions of the protocol and with TLS
//! through it; datagrams as a proxy would forward them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::collector::LOCAL;
use crate::support::{Certs, Collector, Door, Framing, Held, Program, Setup, TlsClient, Wire, eventually, installed};

const COUNTED: &str = "framing = \"octet-counting\"";
const PROXIED: &str = "proxy-protocol = true\nallow = \"127.0.0.1\"\npeer = true\n";
/// Senders, on other addresses of this machine.
const SENDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);
/// The signature of version 2; command, family, length and addresses follow.
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// HAProxy in front of a relay: a port for each pair of listener and `server` options.
struct Proxy {
    program: Program,
    ports: Vec<Held>,
    _dir: TempDir,
}

impl Proxy {
    /// `None`: HAProxy is not installed.
    fn start(to: &[(&Door, &str)]) -> Option<Self> {
        let haproxy = installed("haproxy", "haproxy")?;
        let dir = TempDir::new().expect("a directory");
        let mut config = "global\n  maxconn 64\ndefaults\n  mode tcp\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n".to_owned();
        let ports: Vec<Held> = to.iter().map(|_| Held::on(&[LOCAL])).collect();
        for (port, (door, words)) in ports.iter().zip(to) {
            let (port, relay) = (port.port(), door.port());
            config += &format!("listen p{port}\n  bind 127.0.0.1:{port}\n  server relay 127.0.0.1:{relay} {words}\n");
        }
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config).expect("the config is written");
        let mut program = Program::start(Command::new(haproxy).arg("-db").arg("-f").arg(&file));
        for port in &ports {
            eventually("HAProxy listens", || {
                assert!(program.has_ended().is_none(), "{}", program.stderr());
                TcpStream::connect((LOCAL, port.port())).is_ok().then_some(())
            });
        }
        Some(Self { program, ports, _dir: dir })
    }

    fn port(&self, number: usize) -> u16 {
        assert!(self.program.id() > 0);
        self.ports[number].port()
    }
}

/// A connection from this loopback address.
fn connect(from: Ipv4Addr, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this machine");
    socket.connect(&SocketAddr::new(LOCAL, port).into()).expect("somebody listens");
    socket.into()
}

/// Waits until the relay has closed the connection.
fn is_hung_up(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a socket option");
    let read = stream.read(&mut [0]);
    assert!(!read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "it stays");
}

#[test]
fn the_sender_behind_haproxy_is_who_it_is() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let client_allow = format!("{PROXIED}client-allow = [\"127.0.0.7\", \"127.0.0.1\"]\n");
    let tls = format!("{PROXIED}{}", Certs::get().listen());
    let setup = Setup::new()
        .listen_with("tcp://127.0.0.1:0", &client_allow)
        .listen_with("tcp+tls://127.0.0.1:0", &tls)
        .forward_with(&collector.url(), COUNTED);
    let relay = setup.start();
    let [plain, secure] = relay.doors() else { panic!("two listeners") };
    // With the last options HAProxy also sends health checks, in its own name.
    let checked = "send-proxy-v2 check-send-proxy check inter 100ms";
    let to = [(plain, "send-proxy"), (plain, "send-proxy-v2"), (secure, "send-proxy-v2"), (plain, checked)];
    let Some(proxy) = Proxy::start(&to) else { return };
    let mut streams = Vec::new();
    for (number, text) in [(0, "by version 1"), (1, "by version 2"), (3, "by one that is looked at")] {
        let mut stream = connect(SENDER, proxy.port(number));
        stream.write_all(format!("<13>1 - h app - - - {text}\n").as_bytes()).expect("sent");
        streams.push(stream);
    }
    let config = TlsClient::ANONYMOUS.config(Certs::get(), None);
    let name = ServerName::from(LOCAL);
    let connection = ClientConnection::new(std::sync::Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(connection, connect(OTHER, proxy.port(2)));
    stream.write_all(b"<13>1 - h app - - - by TLS\n").expect("sent");
    let mut sent: Vec<(String, String)> = collector
        .lines(4)
        .iter()
        .map(|line| (String::from_utf8_lossy(&line.message).into_owned(), line.param("logferry@32473", "peer")))
        .collect();
    sent.sort();
    let of = |text: &str, peer: Ipv4Addr| (text.to_owned(), peer.to_string());
    let expected = [
        of("by TLS", OTHER),
        of("by one that is looked at", SENDER),
        of("by version 1", SENDER),
        of("by version 2", SENDER),
    ];
    assert_eq!(sent, expected);
    // The address in the header must be in `client-allow`, and the log names it.
    let mut other = connect(OTHER, proxy.port(1));
    is_hung_up(&mut other);
    eventually("it is counted", || (relay.refused("client-allow") == 1).then_some(()));
    relay.says("127.0.0.8 was refused: its address, as the proxy reports it, is not in `client-allow`");
    assert_eq!((relay.refused("no-proxy-header"), relay.refused("allow")), (0, 0));
    drop((streams, stream));
    relay.stops();
}

#[test]
fn without_a_header_nobody_gets_in() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys = format!("{PROXIED}handshake-timeout = \"1s\"\nmax-connections-per-address = 1\n");
    let relay = Setup::new().listen_with("tcp://127.0.0.1:0", &keys).forward_with(&collector.url(), COUNTED).start();
    let port = relay.door().port();
    let local = Ipv4Addr::LOCALHOST;
    // Not from the proxy; without a header; another protocol; an incomplete header until the timeout.
    let mut strangers = [&b""[..], b"<13>hello\n", b"\x16\x03\x01", b"PROXY TCP4 192"].map(|bytes| {
        let mut stream = connect(if bytes.is_empty() { OTHER } else { local }, port);
        let _ = stream.write_all(bytes);
        stream
    });
    strangers.iter_mut().for_each(is_hung_up);
    eventually("they are counted", || (relay.refused("no-proxy-header") == 3).then_some(()));
    assert_eq!(relay.refused("allow"), 1);
    // The limit per address applies to the address in the header, and not to the proxy's.
    let header = |peer: &str| format!("PROXY TCP4 {peer} 192.0.2.1 12345 514\r\n");
    let mut sent = 0;
    let mut says = |peer: &str, cut: usize| {
        let mut stream = connect(local, port);
        stream.set_nodelay(true).expect("a socket option");
        let bytes = format!("{}<13>1 - h app - - - from {peer}\n", header(peer));
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        stream.write_all(first.as_bytes()).expect("sent");
        stream.write_all(second.as_bytes()).expect("sent");
        sent += 1;
        let line = collector.lines(sent).remove(sent - 1);
        assert_eq!(line.param("logferry@32473", "peer"), peer);
        assert_eq!(line.message, format!("from {peer}").as_bytes());
        stream
    };
    let kept = [says("192.0.2.7", 0), says("192.0.2.8", 3)];
    let mut third = connect(local, port);
    third.write_all(header("192.0.2.7").as_bytes()).expect("sent");
    is_hung_up(&mut third);
    assert_eq!(relay.refused("max-connections-per-address"), 1);
    // The header may be divided at any byte.
    (0..60).for_each(|cut| drop(says(&format!("198.51.100.{cut}"), cut)));
    drop(kept);
    relay.balances(0);
    relay.stops();
}

/// A header without an address (HAProxy's health checks, and connections that it opens itself) makes the proxy the sender, and
/// `client-allow` does not apply.
#[test]
fn a_proxy_that_speaks_for_itself_is_the_sender() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys = format!("{PROXIED}client-allow = \"192.0.2.0/24\"\n");
    let relay = Setup::new().listen_with("tcp://127.0.0.1:0", &keys).forward_with(&collector.url(), COUNTED).start();
    let local = [VERSION_2, &[0x20, 0, 0, 0]].concat();
    for (sent, header) in [&local[..], b"PROXY UNKNOWN\r\n"].into_iter().enumerate() {
        let mut stream = connect(Ipv4Addr::LOCALHOST, relay.door().port());
        stream.write_all(&[header, b"<13>1 - h app - - - own\n"].concat()).expect("sent");
        let line = collector.lines(sent + 1).remove(sent);
        assert_eq!(line.param("logferry@32473", "peer"), "127.0.0.1");
    }
    assert_eq!(relay.refused("client-allow"), 0);
    relay.has_delivered(2, 0);
    relay.stops();
}

#[test]
fn each_datagram_says_who_has_sent_it() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys = format!("{PROXIED}client-allow = \"192.0.2.0/24\"\nhost = \"address\"\nmarks = \"keep\"\n");
    let relay = Setup::new().listen_with("udp://127.0.0.1:0", &keys).forward_with(&collector.url(), COUNTED).start();
    let datagram = |peer: Option<[u8; 4]>, text: &str| {
        let addresses = peer.map(|peer| [&peer[..], &[192, 0, 2, 1, 0x30, 0x39, 2, 2]].concat());
        let kind: &[u8] = if peer.is_some() { &[0x21, 0x12, 0, 12] } else { &[0x20, 0, 0, 0] };
        [VERSION_2, kind, &addresses.unwrap_or_default(), text.as_bytes()].concat()
    };
    let Wire::Udp(socket) = relay.door().connect() else { panic!("UDP") };
    for (peer, text) in
        [(Some([192, 0, 2, 7]), "one"), (Some([192, 0, 2, 8]), "two"), (Some([192, 0, 2, 7]), "three"), (None, "own")]
    {
        socket
            .send(&datagram(peer, &format!("<30>1 2026-11-20T22:27:33Z - a - - [docker@32473 name=\"a\"] {text}")))
            .expect("sent");
    }
    // Without a header; an incomplete header; a sender outside `client-allow`; a health check; from another host than the proxy.
    let header = datagram(Some([192, 0, 2, 7]), "");
    for bytes in
        [&b"<13>x"[..], &header[..20], &datagram(Some([203, 0, 113, 7]), "<13>x"), &datagram(None, ""), &header]
    {
        socket.send(bytes).expect("sent");
    }
    let elsewhere = UdpSocket::bind((OTHER, 0)).expect("an address of this machine");
    elsewhere
        .send_to(&datagram(None, "<13>x"), SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), relay.door().port()))
        .expect("sent");
    let lines: Vec<_> = collector
        .lines(4)
        .iter()
        .map(|line| {
            (
                String::from_utf8_lossy(&line.message).into_owned(),
                line.host.clone(),
                line.param("logferry@32473", "peer"),
            )
        })
        .collect();
    let of = |text: &str, host: &str, peer: &str| (text.to_owned(), host.to_owned(), peer.to_owned());
    let relay_s = crate::support::docker::RELAY;
    let expected = [
        of("one", "192.0.2.7", "192.0.2.7"),
        of("two", "192.0.2.8", "192.0.2.8"),
        of("three", "192.0.2.7", "192.0.2.7"),
        of("own", relay_s, "127.0.0.1"),
    ];
    assert_eq!(lines, expected);
    eventually("all are counted", || {
        let counts = ["no-proxy-header", "client-allow", "allow"].map(|reason| relay.refused(reason));
        (counts == [2, 1, 1]).then_some(())
    });
    relay.counts("listen_received_total", 4);
    relay.stops();
}
