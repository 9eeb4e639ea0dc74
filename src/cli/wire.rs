//! A sender's way into a relay, for `demo` and `probe`: sockets that block, messages as Docker's driver makes and frames
//! them, at a steady rate.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Datelike, Timelike, Utc};

use crate::config::{ClientTls, ListenAddress, ListenTransport, Protocol};
use crate::tls;

/// Messages go out in small bursts, as containers print.
const BURST_EVERY: Duration = Duration::from_millis(5);

/// Bytes that are written at once at the most.
const MOST_PENDING: usize = 16 * 1024;

/// How long a relay may take to accept a connection, and to take what is written.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a relay listens, and how.
#[derive(Clone)]
pub enum Door {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Tls(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

impl Door {
    /// `None` for RELP: senders here speak what containers speak.
    pub fn from_address(address: &ListenAddress) -> Option<Self> {
        if address.protocol() != Protocol::Syslog {
            return None;
        }
        Some(match address.transport() {
            ListenTransport::Udp(socket) => Self::Udp(*socket),
            ListenTransport::Tcp(socket) => Self::Tcp(*socket),
            ListenTransport::Tls(socket) => Self::Tls(*socket),
            ListenTransport::Unix(path) => Self::Unix(path.clone()),
            ListenTransport::Unixgram(path) => Self::Unixgram(path.clone()),
        })
    }
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(socket) => write!(f, "udp://{socket}"),
            Self::Tcp(socket) => write!(f, "tcp://{socket}"),
            Self::Tls(socket) => write!(f, "tcp+tls://{socket}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Unixgram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}

/// A connection to a relay, with what has not been written to it yet: bursts go out in one write, as from a container.
pub struct Wire {
    kind: Kind,
    pending: Vec<u8>,
}

enum Kind {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
    Unix(UnixStream),
    Unixgram(UnixDatagram),
}

impl Wire {
    /// With `files` and, where they have no server name, the address in the relay's certificate.
    pub fn connect(door: &Door, files: &ClientTls) -> io::Result<Self> {
        let kind = match door {
            Door::Udp(to) => {
                let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(to)?;
                Kind::Udp(socket)
            }
            Door::Tcp(to) => Kind::Tcp(tcp(to)?),
            Door::Tls(to) => {
                let address = to.ip().to_string();
                let name = files.server_name.as_deref().unwrap_or(&address);
                let stream = tls::blocking_client(files, name, tcp(to)?).map_err(io::Error::other)?;
                Kind::Tls(Box::new(stream))
            }
            Door::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Kind::Unix(stream)
            }
            Door::Unixgram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Kind::Unixgram(socket)
            }
        };
        Ok(Self { kind, pending: Vec::new() })
    }

    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match &self.kind {
            Kind::Udp(socket) => return socket.send(message).map(drop),
            Kind::Unixgram(socket) => return socket.send(message).map(drop),
            Kind::Tcp(_) | Kind::Tls(_) | Kind::Unix(_) => self.pending.extend_from_slice(message),
        }
        if self.pending.len() < MOST_PENDING { Ok(()) } else { self.flush() }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Udp(_) | Kind::Unixgram(_) => {}
            Kind::Tcp(stream) => stream.write_all(&self.pending)?,
            Kind::Tls(stream) => {
                stream.write_all(&self.pending)?;
                // Writing only takes the bytes: whether the connection took them, flushing says.
                stream.flush()?;
            }
            Kind::Unix(stream) => stream.write_all(&self.pending)?,
        }
        self.pending.clear();
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        if let Kind::Tls(stream) = &mut self.kind {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(())
    }
}

fn tcp(to: &SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// So many a second, from when it was made.
pub struct Pace {
    start: Instant,
    rate: f64,
}

impl Pace {
    pub fn new(rate: f64) -> Self {
        Self { start: Instant::now(), rate }
    }

    /// Whether it is time to rest, when so many are done.
    pub fn is_ahead(&self, done: u32) -> bool {
        let due = self.start + Duration::from_secs_f64(f64::from(done) / self.rate);
        due.saturating_duration_since(Instant::now()) > BURST_EVERY
    }

    pub fn rest(&self) {
        std::thread::sleep(BURST_EVERY);
    }
}

/// Docker's format `rfc5424micro`, framed as the driver does it: counted only over TLS.
pub fn rfc5424micro(door: &Door, now: DateTime<Utc>, host: &str, tag: &str, text: &str) -> Vec<u8> {
    let (year, month, day, micros) = (now.year(), now.month(), now.day(), now.timestamp_subsec_micros());
    let (hour, minute, second) = (now.hour(), now.minute(), now.second());
    let stamp = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    let message = format!("<30>1 {stamp} {host} {tag} {DOCKERD} {tag} - {text}\n");
    match door {
        Door::Tls(_) => format!("{} {message}", message.len()).into_bytes(),
        Door::Udp(_) | Door::Tcp(_) | Door::Unix(_) | Door::Unixgram(_) => message.into_bytes(),
    }
}

/// The process that the driver says it is.
pub const DOCKERD: u32 = 4711;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;
    use crate::cli::certs;
    use crate::config::ServerTls;

    /// A relay that takes one message by TLS and then breaks the connection off. What comes next was not sent.
    #[test]
    fn a_broken_connection_is_noticed_by_the_write_that_meets_it() {
        let dir = tempfile::tempdir().expect("a directory");
        for file in certs::make(&["127.0.0.1".to_owned()]).expect("certificates") {
            std::fs::write(dir.path().join(file.name), file.content).expect("written");
        }
        let files = ServerTls {
            cert: dir.path().join("server.pem"),
            key: dir.path().join("server-key.pem"),
            client_ca: None,
            client_names: Vec::new(),
            client_fingerprints: Vec::new(),
        };
        let config = Arc::clone(tls::acceptor(&files).expect("good files").config());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let door = Door::Tls(listener.local_addr().expect("an address"));
        let relay = std::thread::spawn(move || {
            let socket = listener.accept().expect("a connection").0;
            let connection = rustls::ServerConnection::new(config).expect("a connection");
            let mut stream = rustls::StreamOwned::new(connection, socket);
            stream.read_exact(&mut [0; 5]).expect("a message");
            // Without a linger time it is reset at once.
            socket2::SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO)).expect("a socket");
        });
        let files = ClientTls { ca: Some(dir.path().join("ca.pem")), ..ClientTls::default() };
        let mut wire = Wire::connect(&door, &files).expect("connected");
        let Kind::Tls(stream) = &wire.kind else { panic!("TLS") };
        let mut reset = stream.sock.try_clone().expect("a descriptor");
        let mut send = |message: &[u8]| wire.send(message).and_then(|()| wire.flush());
        send(b"first").expect("taken");
        relay.join().expect("it took it");
        // Until the reset has arrived.
        while matches!(reset.read(&mut [0; 1024]), Ok(1..)) {}
        send(b"second").expect_err("nobody took it");
    }
}
