//! Collectors record every frame that arrives. A test can stop one and start it again on the same address.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Certs, Line, eventually, own_port, shown};

/// How messages are separated on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Newline,
    OctetCounting,
}

/// Stops when dropped.
pub struct Collector {
    address: SocketAddr,
    kind: Kind,
    heard: Arc<Mutex<Heard>>,
    manners: Arc<Manners>,
    state: State,
}

#[derive(Clone)]
enum Kind {
    Udp,
    Tcp(Framing),
    Tls(Framing, Arc<ServerConfig>),
}

enum State {
    /// The address stays bound, so that no other process gets it, and connections are refused.
    Away(Socket),
    Here {
        listener: Socket,
        threads: Vec<JoinHandle<()>>,
    },
    /// A placeholder while the state changes.
    Nowhere,
}

/// The collector's behaviour.
struct Manners {
    /// Bytes per read; 0: the collector hangs.
    reads: AtomicUsize,
    /// The collector does not close a connection that the relay has closed.
    stays: AtomicBool,
    /// The collector stops reading and resets its connections.
    is_dead: AtomicBool,
}

impl Default for Manners {
    fn default() -> Self {
        Self { reads: AtomicUsize::new(READ), stays: AtomicBool::default(), is_dead: AtomicBool::default() }
    }
}

/// Bytes per read, unless a test sets another number.
const READ: usize = 64 * 1024;
/// The pause of a slow collector after each read.
const SLOWLY: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Heard {
    frames: Vec<Vec<u8>>,
    /// Protocol errors that the collector has found.
    faults: Vec<String>,
    connections: Vec<TcpStream>,
    accepted: usize,
}

pub const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Collector {
    pub fn tcp(framing: Framing) -> Self {
        Self::tcp_away(framing).here()
    }

    /// A collector that is not up yet.
    pub fn tcp_away(framing: Framing) -> Self {
        Self::away(Kind::Tcp(framing), own_port()).expect("a free port")
    }

    pub fn tcp_on(ip: IpAddr, framing: Framing) -> Self {
        Self::away(Kind::Tcp(framing), SocketAddr::new(ip, 0)).expect("a free port").here()
    }

    pub fn udp() -> Self {
        Self::away(Kind::Udp, own_port()).expect("a free port").here()
    }

    /// With the certificate of [`Certs`]; with `mutual`, the collector requires a client certificate.
    pub fn tls(framing: Framing, mutual: bool) -> Self {
        let kind = Kind::Tls(framing, server_config(Certs::get(), mutual));
        Self::away(kind, SocketAddr::new(LOCAL, 0)).expect("a free port").here()
    }

    /// A collector with a server certificate of this CA. Peers that trust [`Certs::get`] reject the certificate of another CA.
    pub fn tls_of(certs: &Certs) -> Self {
        let kind = Kind::Tls(Framing::OctetCounting, server_config(certs, false));
        Self::away(kind, SocketAddr::new(LOCAL, 0)).expect("a free port").here()
    }

    /// A collector that shows this certificate.
    pub fn tls_as(identity: Arc<dyn ResolvesServerCert>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("ring has them").with_no_client_auth().with_cert_resolver(identity);
        let kind = Kind::Tls(Framing::OctetCounting, Arc::new(config));
        Self::away(kind, SocketAddr::new(LOCAL, 0)).expect("a free port").here()
    }

    /// Several collectors on one port and different addresses, as the records of one name list them; none is up yet.
    pub fn on_one_port<const N: usize>(udp: bool, addresses: [IpAddr; N]) -> [Self; N] {
        let kind = if udp { Kind::Udp } else { Kind::Tcp(Framing::OctetCounting) };
        let found = eventually("a port that is free on all addresses", || {
            let first = Self::away(kind.clone(), SocketAddr::new(addresses[0], 0)).ok()?;
            let port = first.port();
            let mut all = vec![first];
            for address in &addresses[1..] {
                all.push(Self::away(kind.clone(), SocketAddr::new(*address, port)).ok()?);
            }
            Some(all)
        });
        found.try_into().ok().expect("one for each address")
    }

    fn away(kind: Kind, at: SocketAddr) -> io::Result<Self> {
        let held = hold(&kind, at)?;
        let address = held.local_addr()?.as_socket().expect("an IP socket");
        Ok(Self { address, kind, heard: Arc::default(), manners: Arc::default(), state: State::Away(held) })
    }

    fn here(mut self) -> Self {
        self.comes();
        self
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL with the address.
    pub fn url(&self) -> String {
        self.url_as(&match self.address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        })
    }

    /// The URL with a host name.
    pub fn url_as(&self, host: &str) -> String {
        let scheme = match self.kind {
            Kind::Udp => "udp",
            Kind::Tcp(_) => "tcp",
            Kind::Tls(..) => "tcp+tls",
        };
        format!("{scheme}://{host}:{}", self.port())
    }

    /// Starts the collector.
    pub fn comes(&mut self) {
        let State::Away(listener) = std::mem::replace(&mut self.state, State::Nowhere) else { panic!("it is here") };
        let (heard, manners, kind) = (self.heard.clone(), self.manners.clone(), self.kind.clone());
        let socket = listener.try_clone().expect("a descriptor");
        let thread = match kind {
            Kind::Udp => std::thread::spawn(move || receive(&socket.into(), &heard)),
            Kind::Tcp(_) | Kind::Tls(..) => {
                listener.listen(64).expect("an address that is held");
                std::thread::spawn(move || accept(&socket.into(), &kind, &heard, &manners))
            }
        };
        self.state = State::Here { listener, threads: vec![thread] };
    }

    /// Accepts connections but does not read from them, like a collector whose disk is stuck. The kernel still buffers some data.
    pub fn hangs(&self) {
        self.manners.reads.store(0, Ordering::Relaxed);
    }

    /// Resumes reading.
    pub fn goes_on(&self) {
        self.manners.reads.store(READ, Ordering::Relaxed);
    }

    /// Reads `bytes` bytes ten times a second.
    pub fn reads_slowly(&self, bytes: usize) {
        assert!(0 < bytes && bytes < READ);
        self.manners.reads.store(bytes, Ordering::Relaxed);
    }

    /// Leaves a connection open after the relay has closed its end.
    pub fn stays(&self) {
        self.manners.stays.store(true, Ordering::Relaxed);
    }

    /// The collector dies while it hangs: unread data in the kernel's buffers is lost, and connections are reset.
    pub fn goes_unread(&mut self) {
        std::mem::take(&mut self.manners).is_dead.store(true, Ordering::Relaxed);
        for connection in self.heard().connections.drain(..) {
            SockRef::from(&connection).set_linger(Some(Duration::ZERO)).expect("an option of any socket");
            // Wakes the thread that waits in read, without a signal to the relay.
            let _ = connection.shutdown(Shutdown::Read);
        }
        self.goes();
    }

    /// The collector dies: its connections end and new connections are refused.
    pub fn goes(&mut self) {
        self.ends();
        let held = eventually("its address is free again", || hold(&self.kind, self.address).ok());
        self.state = State::Away(held);
    }

    fn ends(&mut self) {
        let State::Here { listener, threads } = std::mem::replace(&mut self.state, State::Nowhere) else {
            panic!("it is away")
        };
        // Wakes the thread that waits in accept or recv. On a datagram socket shutdown returns an error and still wakes the thread.
        let _ = listener.shutdown(Shutdown::Both);
        drop(listener);
        threads.into_iter().for_each(|thread| thread.join().expect("a collector's thread"));
        self.hangs_up();
    }

    /// Ends its connections but accepts new ones.
    pub fn hangs_up(&self) {
        for connection in self.heard().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Waits for at least `least` frames and returns all frames.
    #[track_caller]
    pub fn frames(&self, least: usize) -> Vec<Vec<u8>> {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(&format!("{least} frames at the collector"), || (self.count() >= least).then_some(()));
        }));
        assert!(result.is_ok(), "only {} of {least} frames came; faults: {:?}", self.count(), self.heard().faults);
        let heard = self.heard();
        assert!(heard.faults.is_empty(), "{:?}", heard.faults);
        heard.frames.clone()
    }

    /// Waits for exactly `count` lines of RFC 5424.
    #[track_caller]
    pub fn lines(&self, count: usize) -> Vec<Line> {
        let frames = self.frames(count);
        assert_eq!(
            frames.len(),
            count,
            "the last ones: {:?}",
            frames.iter().rev().take(3).map(|f| shown(f)).collect::<Vec<_>>()
        );
        frames.iter().map(|frame| Line::read(frame)).collect()
    }

    /// The message texts of all frames.
    pub fn messages(&self) -> Vec<String> {
        let text = |frame: &Vec<u8>| String::from_utf8_lossy(&Line::read(frame).message).into_owned();
        self.heard().frames.iter().map(text).collect()
    }

    /// The message texts of all frames, as numbers.
    #[track_caller]
    pub fn numbers(&self) -> Vec<usize> {
        self.messages().iter().map(|text| text.parse().expect("a number")).collect()
    }

    pub fn count(&self) -> usize {
        self.heard().frames.len()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.heard().accepted
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

/// Fails unless each of `0..count` has arrived exactly once, at any of the collectors.
#[track_caller]
pub fn all_arrived_once(collectors: &[&Collector], count: usize) {
    let arrived = || -> Vec<usize> { collectors.iter().flat_map(|collector| collector.numbers()).collect() };
    eventually(&format!("{count} messages at the collectors"), || (arrived().len() >= count).then_some(()));
    let mut numbers = arrived();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..count), "{numbers:?}");
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.goes_on();
        self.manners.stays.store(false, Ordering::Relaxed);
        if let State::Here { .. } = self.state {
            self.ends();
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds an address without listening on it.
fn hold(kind: &Kind, at: SocketAddr) -> io::Result<Socket> {
    let is_udp = matches!(kind, Kind::Udp);
    let socket = Socket::new(Domain::for_address(at), if is_udp { Type::DGRAM } else { Type::STREAM }, None)?;
    if !is_udp {
        socket.set_reuse_address(true)?;
        // A small buffer, so that the relay notices a hanging collector before megabytes are in flight.
        socket.set_recv_buffer_size(128 * 1024)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

/// `mutual`: clients must show a certificate of our CA.
pub fn server_config(certs: &Certs, mutual: bool) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has them");
    let builder = if mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(certs.roots()), provider).build();
        builder.with_client_cert_verifier(verifier.expect("a CA"))
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(certs.chain("server.pem"), certs.key("server-key.pem"));
    Arc::new(config.expect("a pair"))
}

fn receive(socket: &UdpSocket, heard: &Mutex<Heard>) {
    let mut datagram = vec![0; 65_536];
    // A socket that was shut down returns empty datagrams; the relay never sends an empty datagram.
    while let Ok(length @ 1..) = socket.recv(&mut datagram) {
        lock(heard).frames.push(datagram[..length].to_vec());
    }
}

fn accept(listener: &TcpListener, kind: &Kind, heard: &Arc<Mutex<Heard>>, manners: &Arc<Manners>) {
    let mut threads = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        let mut locked = lock(heard);
        locked.accepted += 1;
        locked.connections.push(stream.try_clone().expect("a descriptor"));
        drop(locked);
        let (kind, heard, manners) = (kind.clone(), heard.clone(), manners.clone());
        let own = stream.try_clone().expect("a clone");
        threads.push(std::thread::spawn(move || {
            match kind {
                Kind::Tcp(framing) => read(stream, framing, &heard, &manners),
                Kind::Tls(framing, config) => {
                    let connection = ServerConnection::new(config).expect("a server");
                    read(StreamOwned::new(connection, stream), framing, &heard, &manners);
                }
                Kind::Udp => unreachable!("datagrams are not accepted"),
            }
            if manners.is_dead.load(Ordering::Relaxed) {
                return;
            }
            while manners.stays.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Close the connection after the last byte, as a collector does. Dropping the stream is not enough: `connections` has a clone.
            let _ = own.shutdown(Shutdown::Both);
        }));
    }
    // `ends` closes the connections, so that these threads end.
    drop(threads);
}

fn read(mut stream: impl Read, framing: Framing, heard: &Mutex<Heard>, manners: &Manners) {
    let (mut held, mut bytes) = (Vec::new(), vec![0; READ]);
    loop {
        let most = loop {
            match manners.reads.load(Ordering::Relaxed) {
                _ if manners.is_dead.load(Ordering::Relaxed) => return,
                0 => std::thread::sleep(Duration::from_millis(1)),
                bytes => break bytes,
            }
        };
        if most < READ {
            std::thread::sleep(SLOWLY);
        }
        let Ok(length @ 1..) = stream.read(&mut bytes[..most]) else { return };
        held.extend_from_slice(&bytes[..length]);
        let mut taken = 0;
        while let Some((start, end, next)) = frame(&held[taken..], framing, heard) {
            lock(heard).frames.push(held[taken + start..taken + end].to_vec());
            taken += next;
        }
        held.drain(..taken);
    }
}

/// The start and the end of the first frame's message, and the start of the next frame. Stricter than RFC 6587, on purpose.
fn frame(held: &[u8], framing: Framing, heard: &Mutex<Heard>) -> Option<(usize, usize, usize)> {
    match framing {
        Framing::Newline => held.iter().position(|byte| *byte == b'\n').map(|end| (0, end, end + 1)),
        Framing::OctetCounting => {
            let blank = held.iter().position(|byte| *byte == b' ')?;
            let count = std::str::from_utf8(&held[..blank]).ok().and_then(|digits| digits.parse::<usize>().ok());
            let Some(count) = count else {
                lock(heard).faults.push(format!("no octet count: {}", shown(held)));
                return None;
            };
            let end = blank + 1 + count;
            (held.len() >= end).then_some((blank + 1, end, end))
        }
    }
}
