//! Docker's log drivers, as `demo` and `probe` imitate them: a connection to a relay over blocking sockets, messages of the
//! syslog driver in Docker's format and framing, and a steady rate.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Datelike, Timelike, Utc};

use crate::config::{ClientTls, ListenAddress, ListenTransport, Protocol};
use crate::tls::{self, BlockingStream, Reader};

/// Containers print in small bursts, and so do the senders.
const BURST_INTERVAL: Duration = Duration::from_millis(5);

/// The size at which a connection writes its buffer, in bytes.
const MAX_UNWRITTEN: usize = 16 * 1024;

/// The timeout of a connect, a read and a write.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The address of one listener of a relay, by its transport.
#[derive(Clone)]
pub enum RelayAddress {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Tls(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

impl RelayAddress {
    /// Converts the address of a listener. `None`: the syslog driver does not speak its protocol.
    pub fn from_address(address: &ListenAddress) -> Option<Self> {
        (address.protocol() == Protocol::Syslog).then(|| Self::of(address.transport()))
    }

    /// The address, for any protocol.
    pub fn of(transport: &ListenTransport) -> Self {
        match transport {
            ListenTransport::Udp(socket) => Self::Udp(*socket),
            ListenTransport::Tcp(socket) => Self::Tcp(*socket),
            ListenTransport::Tls(socket) => Self::Tls(*socket),
            ListenTransport::Unix(path) => Self::Unix(path.clone()),
            ListenTransport::Unixgram(path) => Self::Unixgram(path.clone()),
        }
    }
}

impl std::fmt::Display for RelayAddress {
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

/// A connection to a relay, and a buffer of unwritten messages: a burst is sent in one write, as a container's is.
pub struct Connection {
    socket: Socket,
    unwritten: Vec<u8>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<BlockingStream>),
    Unix(UnixStream),
    Unixgram(UnixDatagram),
}

impl Connection {
    /// Connects. TLS uses `files`; without a server name in them, the relay's certificate must have the IP address of `to`.
    pub fn connect(to: &RelayAddress, files: &ClientTls) -> io::Result<Self> {
        let socket = match to {
            RelayAddress::Udp(to) => {
                let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(to)?;
                Socket::Udp(socket)
            }
            RelayAddress::Tcp(to) => Socket::Tcp(tcp(to)?),
            RelayAddress::Tls(to) => {
                let address = to.ip().to_string();
                let name = files.server_name.as_deref().unwrap_or(&address);
                let connector = tls::connector(files).map_err(io::Error::other)?;
                let of_name = tls::server_name(name).map_err(io::Error::other)?;
                let stream = connector.connect_blocking(of_name, tcp(to)?).map_err(|error| {
                    io::Error::other(format!("TLS with {name}: {}", error.explained(name, files, Reader::OfFlags)))
                })?;
                Socket::Tls(Box::new(stream))
            }
            RelayAddress::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Socket::Unix(stream)
            }
            RelayAddress::Unixgram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Socket::Unixgram(socket)
            }
        };
        Ok(Self { socket, unwritten: Vec::new() })
    }

    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match &self.socket {
            Socket::Udp(socket) => return socket.send(message).map(drop),
            Socket::Unixgram(socket) => return socket.send(message).map(drop),
            Socket::Tcp(_) | Socket::Tls(_) | Socket::Unix(_) => self.unwritten.extend_from_slice(message),
        }
        if self.unwritten.len() < MAX_UNWRITTEN { Ok(()) } else { self.flush() }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(_) | Socket::Unixgram(_) => {}
            Socket::Tcp(stream) => stream.write_all(&self.unwritten)?,
            Socket::Tls(stream) => {
                stream.write_all(&self.unwritten)?;
                // `write_all` only buffers in rustls: `flush` reports whether the socket took the bytes.
                stream.flush()?;
            }
            Socket::Unix(stream) => stream.write_all(&self.unwritten)?,
        }
        self.unwritten.clear();
        Ok(())
    }

    /// The relay's reason for ending a connection, if it sent one. With TLS 1.3 a sender learns late that its certificate was
    /// refused. Docker's driver never reads, so it never learns it.
    pub fn refusal(&mut self) -> Option<String> {
        let Socket::Tls(stream) = &mut self.socket else { return None };
        stream.sock.set_nonblocking(true).ok()?;
        heard(stream).err().flatten()
    }

    /// Ends the connection, waits until the relay has ended it too, and returns the relay's reason if it sent one.
    pub fn finish_and_hear(mut self) -> Option<String> {
        let _ = self.end();
        let Socket::Tls(stream) = &mut self.socket else { return None };
        // If this fails, the connection has ended already, perhaps with a reason.
        let _ = stream.sock.shutdown(Shutdown::Write);
        loop {
            match heard(stream) {
                Ok(1..) => {}
                Ok(0) => return None,
                Err(why) => return why,
            }
        }
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Socket::Tls(stream) = &mut self.socket {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(())
    }
}

/// Reads once from the relay, which sends nothing but the end of the connection. Returns the number of bytes, or the reason
/// of a refusal.
fn heard(stream: &mut BlockingStream) -> Result<usize, Option<String>> {
    let read = stream.conn.read_tls(&mut stream.sock).map_err(|_| None)?;
    match stream.conn.process_new_packets() {
        Ok(_) => Ok(read),
        Err(error) => Err(Some(tls::explained_alert(&io::Error::other(error), Reader::OfFlags))),
    }
}

fn tcp(to: &SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Keeps a sender to a rate, in messages a second, from its creation on.
pub struct Pacer {
    start: Instant,
    rate: f64,
}

impl Pacer {
    pub fn new(rate: f64) -> Self {
        Self { start: Instant::now(), rate }
    }

    /// Is a sender ahead of its rate after `done` messages?
    pub fn is_ahead(&self, done: u32) -> bool {
        let due = self.start + Duration::from_secs_f64(f64::from(done) / self.rate);
        due.saturating_duration_since(Instant::now()) > BURST_INTERVAL
    }

    pub fn pause(&self) {
        std::thread::sleep(BURST_INTERVAL);
    }
}

/// A message in Docker's format `rfc5424micro`. The driver uses octet counting over TLS, and newlines elsewhere.
pub fn rfc5424micro(to: &RelayAddress, now: DateTime<Utc>, host: &str, tag: &str, text: &str) -> Vec<u8> {
    let (year, month, day, micros) = (now.year(), now.month(), now.day(), now.timestamp_subsec_micros());
    let (hour, minute, second) = (now.hour(), now.minute(), now.second());
    let stamp = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    let message = format!("<30>1 {stamp} {host} {tag} {DOCKERD_PID} {tag} - {text}\n");
    match to {
        RelayAddress::Tls(_) => format!("{} {message}", message.len()).into_bytes(),
        RelayAddress::Udp(_) | RelayAddress::Tcp(_) | RelayAddress::Unix(_) | RelayAddress::Unixgram(_) => {
            message.into_bytes()
        }
    }
}

/// The process ID of dockerd, which is in each message of the driver.
pub const DOCKERD_PID: u32 = 4711;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;
    use crate::cli::certs;
    use crate::config::ServerTls;

    /// A relay reads one message over TLS, then resets the connection. The next write must fail.
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
        let to = RelayAddress::Tls(listener.local_addr().expect("an address"));
        let relay = std::thread::spawn(move || {
            let socket = listener.accept().expect("a connection").0;
            let connection = rustls::ServerConnection::new(config).expect("a connection");
            let mut stream = rustls::StreamOwned::new(connection, socket);
            stream.read_exact(&mut [0; 5]).expect("a message");
            // A linger time of zero makes the close a reset.
            socket2::SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO)).expect("a socket");
        });
        let files = ClientTls { ca: Some(dir.path().join("ca.pem")), ..ClientTls::default() };
        let mut connection = Connection::connect(&to, &files).expect("connected");
        let Socket::Tls(stream) = &connection.socket else { panic!("TLS") };
        let mut reset = stream.sock.try_clone().expect("a descriptor");
        let mut send = |message: &[u8]| connection.send(message).and_then(|()| connection.flush());
        send(b"first").expect("taken");
        relay.join().expect("it took it");
        // Waits for the reset.
        while matches!(reset.read(&mut [0; 1024]), Ok(1..)) {}
        send(b"second").expect_err("nobody took it");
    }
}
