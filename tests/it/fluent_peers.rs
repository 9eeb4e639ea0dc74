//! The Forward protocol: heartbeats, and the handshake between sender and listener.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::collector::LOCAL;
use crate::support::fluent::{Value, line, packed, said};
use crate::support::http::get;
use crate::support::program::SIGHUP;
use crate::support::{Certs, Collector, Door, FluentPeer, Framing, Held, Relay, Setup, TlsClient, eventually};

fn taker(keys: &str) -> Relay {
    Setup::new().listen_with("fluent://127.0.0.1:0", keys).forward("file:///dev/null").start()
}

fn address(relay: &Relay) -> SocketAddr {
    let Door::Tcp(address) = *relay.door() else { panic!("{:?}", relay.doors()) };
    address
}

// --- heartbeats by UDP

/// A socket that sends heartbeats to the relay's port.
fn asker(from: &str, relay: &Relay) -> UdpSocket {
    let socket = UdpSocket::bind(from).expect("a socket");
    socket.connect(address(relay)).expect("an address");
    socket.set_nonblocking(true).expect("a socket option");
    socket
}

fn answer(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut bytes = [7; 100];
    socket.recv(&mut bytes).ok().map(|len| bytes[..len].to_vec())
}

/// Sends heartbeats until one is answered, as Fluentd does. By then the relay has handled all earlier datagrams.
fn is_answered(relay: &Relay) {
    let socket = asker("127.0.0.1:0", relay);
    let answered = eventually("a heartbeat's answer", || {
        let _ = socket.send(b"\0");
        answer(&socket)
    });
    assert_eq!(answered, b"\0");
}

/// With `heartbeat_type udp`, Fluentd sends a byte every second, and considers a silent receiver dead.
#[test]
fn heartbeats_by_udp_are_answered() {
    let relay = taker("");
    is_answered(&relay);
    let socket = asker("127.0.0.1:0", &relay);
    // Only a datagram of one byte is answered, so an answer is never longer than the request.
    for bytes in [&b""[..], b"ab", &[0; 1400], b"x", b"abc"] {
        socket.send(bytes).expect("a datagram");
    }
    is_answered(&relay);
    assert_eq!((answer(&socket), answer(&socket)), (Some(b"\0".to_vec()), None));
    // A datagram from the listener's own port number gets no answer: two receivers could answer each other for ever.
    let other = asker(&format!("127.0.0.2:{}", address(&relay).port()), &relay);
    other.send(b"\0").expect("a datagram");
    is_answered(&relay);
    assert_eq!(answer(&other), None);
    relay.stops();
}

/// The number of answers per second is limited; later heartbeats are answered again.
#[test]
fn many_heartbeats_stop_no_later_ones() {
    let relay = taker("");
    let socket = asker("127.0.0.1:0", &relay);
    for _ in 0..60 {
        (0..50).for_each(|_| drop(socket.send(b"\0")));
        is_answered(&relay);
    }
    relay.stops();
}

#[test]
fn heartbeats_of_strangers_are_not_answered() {
    let relay = taker("allow = \"127.0.0.1\"");
    is_answered(&relay);
    let stranger = asker("127.0.0.3:0", &relay);
    stranger.send(b"\0").expect("a datagram");
    eventually("it is refused", || (relay.refused("allow") == 1).then_some(()));
    assert_eq!(answer(&stranger), None);
    is_answered(&relay);
    relay.stops();
}

/// The listener holds the UDP port only while its protocol is Forward.
#[test]
fn heartbeats_end_with_the_protocol() {
    let at = SocketAddr::new(LOCAL, Held::new(true, &[LOCAL]).port());
    let speaks = |protocol: &str| Setup::new().listen(&format!("{protocol}://{at}")).forward("file:///dev/null");
    let first = speaks("fluent");
    let relay = first.start();
    is_answered(&relay);
    speaks("tcp").replaces(&first);
    relay.signal(SIGHUP);
    drop(eventually("the port is free", || UdpSocket::bind(at).ok()));
    speaks("fluent").replaces(&first);
    relay.signal(SIGHUP);
    is_answered(&relay);
    relay.stops();
}

/// Without the UDP port the listener works, except for heartbeats.
#[test]
fn a_listener_works_without_heartbeats() {
    // A separate loopback address, so that no other test takes the TCP port of that number.
    let taken = UdpSocket::bind("127.16.2.2:0").expect("a socket");
    let at = taken.local_addr().expect("bound");
    let relay = Setup::new().listen(&format!("fluent://{at}")).forward("file:///dev/null").start();
    relay.says("heartbeats by UDP are not answered, all else is: listen: cannot bind udp://127.16.2.2:");
    let mut peer = FluentPeer::connects(relay.door());
    assert!(peer.asks(&line("x", Some("c")), "c"));
    relay.has_delivered(1, 0);
    relay.stops();
}

// --- a shared key

const KEY: &str = "hunter2 with blanks";
const MISMATCH: &str = "shared_key mismatch";

/// Files with a shared key and users.
struct Keys {
    dir: TempDir,
}

impl Keys {
    fn new(users: Option<&str>) -> Self {
        let keys = Self { dir: TempDir::new().expect("a directory") };
        keys.writes("key", KEY);
        if let Some(users) = users {
            keys.writes("users", users);
        }
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a file atomically, as editors and Kubernetes do.
    fn writes(&self, name: &str, text: &str) {
        fs::write(self.path("new"), format!("{text}\n")).expect("written");
        fs::rename(self.path("new"), self.path(name)).expect("renamed");
    }

    /// The config keys of a listener.
    fn section(&self) -> String {
        let users = self.path("users");
        let users = if users.exists() { format!("users-file = \"{}\"\n", users.display()) } else { String::new() };
        format!("shared-key-file = \"{}\"\n{users}", self.path("key").display())
    }
}

/// By TCP and by TLS; one listener requires no key.
#[test]
fn who_has_the_key_may_send() {
    let users = Keys::new(Some("bob:b\nalice:s3:cret"));
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = Setup::new()
        .variable("FORWARD_KEY", KEY)
        .listen_with("fluent://127.0.0.1:0", "shared-key = \"${FORWARD_KEY}\"")
        .listen_with("fluent+tls://127.0.0.1:0", &(Certs::get().listen() + &users.section()))
        .listen("fluent://127.0.0.1:0")
        .forward_with(&collector.url(), "framing = \"octet-counting\"")
        .start();
    let [plain, tls, open] = relay.doors() else { panic!("{:?}", relay.doors()) };
    let mut peers = [
        (FluentPeer::connects(plain), None),
        (FluentPeer::on(tls.connect_tls(TlsClient::ANONYMOUS)), Some(("alice", "s3:cret"))),
    ];
    for (peer, user) in &mut peers {
        assert_eq!(peer.shakes_hands(KEY, *user), Ok(()));
        assert!(peer.asks(&line("a", Some("1")), "1"));
        assert!(peer.asks(&packed("t", [said("stdout", b"b")], true, "2\n"), "2\n"));
        peer.sends(&line("c", None));
    }
    let mut peer = FluentPeer::connects(open);
    assert!(peer.asks(&line("d", Some("3")), "3"));
    relay.has_delivered(7, 0);
    assert_eq!(collector.count(), 7);
    relay.stops();
}

/// Each sender gets the reason, none of its messages counts, and the log has advice for the operator.
#[test]
fn who_has_it_not_may_not() {
    let keys = Keys::new(Some("alice:s3:cret"));
    let relay = taker(&keys.section());
    for (key, user, reason, said) in [
        ("hunter3", ("alice", "s3:cret"), "shared-key", MISMATCH),
        (KEY, ("alice", "s3"), "user", "username/password mismatch"),
        (KEY, ("mallory", "s3:cret"), "user", "username/password mismatch"),
        (KEY, ("mallory", ""), "user", "username/password mismatch"),
    ] {
        let was = relay.refused(reason);
        let mut peer = FluentPeer::connects(relay.door());
        assert_eq!(peer.shakes_hands(key, Some(user)), Err(said.to_owned()));
        peer.is_over();
        assert_eq!(relay.refused(reason), was + 1);
    }
    relay.says("its shared key is another one than `shared-key` of this listener; let both have the same one");
    relay.says("its user and password are not in `users-file`; write them there");
    // Docker's driver does not support keys.
    let mut peer = FluentPeer::connects(relay.door());
    peer.hears_hello();
    peer.sends(&line("x", None));
    assert_eq!(peer.hears_pong(|_| unreachable!()), Err("invalid ping message".to_owned()));
    peer.is_over();
    assert_eq!(relay.refused("ping"), 1);
    relay.says("it did not begin with PING, and this listener asks for `shared-key`");
    assert_eq!(relay.metrics().sum("listen_received_total"), 0);
    let shown = [get(&relay, "/status").body, get(&relay, "/metrics").body, relay.stderr()].concat();
    for secret in ["hunter2", "s3:cret"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
    let said = relay.stops().stderr;
    assert!(!said.contains("hunter2") && !said.contains("s3:cret"), "{said}");
}

/// Fluentd checks every second whether the port is open, and sends nothing. A connection that stays open must complete the handshake.
#[test]
fn a_handshake_does_not_last_for_ever() {
    let keys = Keys::new(None);
    let relay = taker(&keys.section());
    let hello = || {
        let mut peer = FluentPeer::connects(relay.door());
        let hello = peer.hears_hello();
        peer.leaves();
        hello
    };
    let hellos: BTreeSet<_> = (0..5).map(|_| hello()).collect();
    assert_eq!(hellos.len(), 5, "what lets one in lets no other one in");
    relay.counts("listen_accepted_total", 5);
    relay.counts("listen_connections", 0);
    assert_eq!(relay.metrics().sum("listen_handshake_failures_total"), 0);
    relay.stops();
    let relay = taker(&(keys.section() + "handshake-timeout = \"100ms\"\n"));
    let mut peer = FluentPeer::connects(relay.door());
    peer.hears_hello();
    // An incomplete PING, and then silence.
    peer.sends(&Value::Array(vec!["PING".into(); 6]).bytes()[..9]);
    peer.is_over();
    assert_eq!(relay.metrics().sum("listen_handshake_failures_total"), 1);
    relay.says("it did not end its handshake within `handshake-timeout`");
    relay.stops();
}

/// Open connections are not affected.
#[test]
fn a_key_can_be_renewed_while_it_runs() {
    let keys = Keys::new(None);
    let relay = taker(&keys.section());
    let mut before = FluentPeer::connects(relay.door());
    assert_eq!(before.shakes_hands(KEY, None), Ok(()));
    keys.writes("key", "another one");
    eventually("the new key counts", || FluentPeer::connects(relay.door()).shakes_hands("another one", None).ok());
    assert_eq!(FluentPeer::connects(relay.door()).shakes_hands(KEY, None), Err(MISMATCH.to_owned()));
    assert!(before.asks(&line("a", Some("1")), "1"));
    relay.has_delivered(1, 0);
    // An empty file is no valid key: the relay keeps the old key.
    keys.writes("key", "");
    relay.signal(SIGHUP);
    relay.says("there is no secret in it");
    assert_eq!(FluentPeer::connects(relay.door()).shakes_hands("another one", None), Ok(()));
    relay.stops();
}
