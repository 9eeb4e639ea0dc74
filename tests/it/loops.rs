//! A forward that leads back to its own relay: directly, through an address that another program publishes, or around a ring. No line
//! circulates for ever, and the relay reports the loop. A chain of relays is no loop.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::support::collector::LOCAL;
use crate::support::{Certs, Collector, Door, Framing, Held, Relay, Setup, eventually, run, says, splice};

/// A reserved port.
fn port() -> u16 {
    Held::on(&[LOCAL]).port()
}

/// A line as another relay sends it.
const LINE: &[u8] = b"<14>1 2026-11-20T22:27:33.081562Z node-7 web - - [docker@32473 name=\"web\"] hello\n";

fn dropped(relay: &Relay) -> i64 {
    relay.metrics().with("spool_dropped_total", "reason=\"loop\"")
}

fn says_a_line(relay: &Relay, certs: &Certs) {
    match relay.door() {
        Door::Tls(_) => relay.door().connect_tls_as(crate::support::TlsClient::ANONYMOUS, certs, None).send(LINE),
        Door::Relp(_) => {
            let mut peer = crate::support::relp::RelpPeer::opened(relay.door());
            peer.says(2, "syslog", LINE.trim_ascii_end());
            assert!(peer.frame().expect("an answer").is_ok());
        }
        door => door.connect().send(LINE),
    }
}

/// The address is a listener of the same relay: nothing is sent, no line is lost, and the relay reports it. `check` finds it too.
#[test]
fn a_forward_to_its_own_listener() {
    let certs = Certs::get();
    let tls = format!("ca = \"{}\"", certs.path("ca.pem"));
    for (scheme, listens, forwards) in [
        ("tcp", String::new(), ""),
        ("udp", String::new(), "format = \"rfc3164\""),
        ("relp", String::new(), ""),
        ("tcp+tls", certs.listen(), tls.as_str()),
    ] {
        let url = format!("{scheme}://127.0.0.1:{}", port());
        let setup = Setup::new().listen_with(&url, &listens).forward_with(&url, forwards);
        let checked = run(setup.command().arg("check"));
        let said = String::from_utf8_lossy(&checked.stderr);
        let warning = format!("warning: forward central: {url} is this relay's own listener {url}: ");
        assert!(checked.status.success() && said.contains(&warning), "{said}");
        let relay = setup.start();
        says_a_line(&relay, certs);
        relay.fails_because("it is this relay's own listener");
        relay.counts("forward_pending", 1);
        assert_eq!(relay.metrics().sum("listen_received_total"), 1, "{url}");
        relay.stops();
    }
}

/// Accepts connections or datagrams and forwards them, like Docker for a published port. Returns its address.
fn published(is_udp: bool, to: SocketAddr) -> SocketAddr {
    if is_udp {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let at = socket.local_addr().expect("an address");
        thread::spawn(move || {
            let mut datagram = [0; 65_536];
            while let Ok(length) = socket.recv(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], to);
            }
        });
        return at;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let Ok(to) = TcpStream::connect(to) else { continue };
            splice(from, to);
        }
    });
    at
}

/// The relay cannot know that the address leads back. A line that comes back ends there, and so do all later lines.
#[test]
fn a_forward_to_an_address_that_leads_back() {
    let certs = Certs::get();
    let tls = format!("ca = \"{}\"", certs.path("ca.pem"));
    for (scheme, listens, forwards) in [
        ("tcp", String::new(), ""),
        ("tcp", "from = \"docker\"".to_owned(), ""),
        ("udp", String::new(), ""),
        ("relp", String::new(), ""),
        ("tcp+tls", certs.listen(), tls.as_str()),
    ] {
        let own = SocketAddr::new(LOCAL, port());
        let to = published(scheme == "udp", own);
        let setup = Setup::new().listen_with(&format!("{scheme}://{own}"), &listens);
        let relay = setup.forward_with(&format!("{scheme}://{to}"), forwards).start();
        says_a_line(&relay, certs);
        relay.says("forward central: it leads back to this relay: a line that it had sent came in again at ");
        relay.fails_because("it leads back to this relay");
        eventually("it is not let in again", || (dropped(&relay) == 1).then_some(()));
        let rounds = relay.metrics().sum("listen_received_total");
        says_a_line(&relay, certs);
        eventually("nor is the next one", || (dropped(&relay) == 2).then_some(()));
        assert_eq!(relay.metrics().sum("listen_received_total"), rounds + 2, "{scheme}: one line goes round once");
        assert_eq!(relay.stderr().matches("it leads back").count(), 1, "it is said once");
        relay.stops();
    }
}

/// Two relays are each other's collector: the first relay that received a line recognizes it.
#[test]
fn a_ring_of_two_relays() {
    let held = Held::on(&[LOCAL]);
    let own = SocketAddr::new(LOCAL, held.port());
    let second = Setup::new().listen("tcp://127.0.0.1:0").forward(&format!("tcp://{own}")).start();
    let to_second = format!("tcp://127.0.0.1:{}", second.door().port());
    let first = Setup::new().listen(&format!("tcp://{own}")).forward(&to_second).start();
    let rounds = || [&first, &second].map(|relay| relay.metrics().sum("listen_received_total"));
    first.door().connect().send(LINE);
    eventually("it ends where it began", || (dropped(&first) == 1).then_some(()));
    first.fails_because("it leads back to this relay");
    let [by_first, by_second] = rounds();
    first.door().connect().send(LINE);
    eventually("and so does the next one", || (dropped(&first) == 2).then_some(()));
    assert_eq!((rounds(), dropped(&second)), ([by_first + 2, by_second + 1], 0));
    assert!(!second.stderr().contains("leads back"));
    first.stops();
    second.kill();
}

/// Each line arrives once, and few lines have a hop mark.
#[test]
fn a_chain_of_relays_is_no_loop() {
    const LINES: usize = 2000;
    let collector = Collector::tcp(Framing::OctetCounting);
    let octets = "framing = \"octet-counting\"";
    let last = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), octets).start();
    let to = |relay: &Relay| format!("tcp://127.0.0.1:{}", relay.door().port());
    let middle = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&to(&last), octets).start();
    let first = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&to(&middle), octets).start();
    says(&first, 0..LINES);
    let frames = collector.frames(LINES);
    assert_eq!((frames.len(), dropped(&first), dropped(&middle), dropped(&last)), (LINES, 0, 0, 0));
    let marked = frames.iter().filter(|frame| String::from_utf8_lossy(frame).contains(" hop=\"")).count();
    assert!(marked <= LINES / 50, "{marked} of {LINES} lines are marked");
    assert_eq!(collector.numbers(), (0..LINES).collect::<Vec<_>>());
    for relay in [first, middle, last] {
        relay.has_delivered(LINES, 0);
        assert!(!relay.stderr().contains("leads back"));
        relay.stops();
    }
}
