//! Senders: every way into a relay.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::ServerName;

use super::{Certs, Docker, Format, PATIENCE, Relay};

/// Where a relay listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Tls(SocketAddr),
    Relp(SocketAddr),
    RelpTls(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// How to speak TLS.
#[derive(Clone, Copy)]
pub struct TlsClient {
    pub version: &'static SupportedProtocolVersion,
    /// Shows the client certificate of [`Certs`].
    pub identified: bool,
}

/// A connection to a relay.
pub enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
    Unixgram(UnixDatagram),
}

impl TlsClient {
    /// Shows no certificate.
    pub const ANONYMOUS: Self = Self { version: &TLS13, identified: false };

    /// A side that trusts certificates of `trusted`, with one of its own: its file, and whose it is.
    pub fn config(&self, trusted: &Certs, identity: Option<(&str, &Certs)>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[self.version])
            .expect("a version that exists")
            .with_root_certificates(trusted.roots());
        match identity {
            Some((file, certs)) => {
                let key = file.replace(".pem", "-key.pem");
                builder.with_client_auth_cert(certs.chain(file), certs.key(&key)).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        }
    }

    /// What it says first.
    pub fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(self.config(Certs::get(), None)), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("memory");
        hello
    }
}

impl Door {
    pub fn parse(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let socket = || rest.parse().expect("an address and a port");
        match scheme {
            "udp" | "gelf+udp" => Self::Udp(socket()),
            "tcp" | "fluent" | "gelf+tcp" | "splunk+http" | "journal+http" => Self::Tcp(socket()),
            "tcp+tls" | "fluent+tls" | "gelf+tls" | "splunk+https" | "journal+https" => Self::Tls(socket()),
            "relp" => Self::Relp(socket()),
            "relp+tls" => Self::RelpTls(socket()),
            "unix" | "fluent+unix" => Self::Unix(rest.into()),
            "unixgram" => Self::Unixgram(rest.into()),
            _ => panic!("{url}"),
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Udp(at) | Self::Tcp(at) | Self::Tls(at) | Self::Relp(at) | Self::RelpTls(at) => at.port(),
            Self::Unix(_) | Self::Unixgram(_) => panic!("{self:?} has no port"),
        }
    }

    /// Without TLS.
    pub fn connect(&self) -> Wire {
        match self {
            Self::Udp(to) => {
                let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
                let socket = UdpSocket::bind(any).expect("a socket");
                socket.connect(to).expect("udp always connects");
                Wire::Udp(socket)
            }
            Self::Tcp(to) | Self::Tls(to) | Self::Relp(to) | Self::RelpTls(to) => {
                Wire::Tcp(TcpStream::connect(to).expect("the relay accepts"))
            }
            Self::Unix(path) => Wire::Unix(UnixStream::connect(path).expect("the relay accepts")),
            Self::Unixgram(path) => {
                let socket = UnixDatagram::unbound().expect("a socket");
                socket.connect(path).expect("the relay is there");
                Wire::Unixgram(socket)
            }
        }
    }

    pub fn connect_tls(&self, tls: TlsClient) -> Wire {
        let certs = Certs::get();
        self.connect_tls_as(tls, certs, tls.identified.then_some(("client.pem", certs)))
    }

    /// To one whose certificate is of `trusted`, with one of our own: its file, and whose it is.
    pub fn connect_tls_as(&self, tls: TlsClient, trusted: &Certs, identity: Option<(&str, &Certs)>) -> Wire {
        self.secure(tls.config(trusted, identity))
    }

    /// Shakes hands, and takes it that nobody answers.
    pub fn knock(&self, tls: TlsClient, trusted: &Certs, identity: Option<(&str, &Certs)>) {
        let Wire::Tls(mut stream) = self.connect_tls_as(tls, trusted, identity) else { unreachable!("it is TLS") };
        let _ = stream.get_ref().set_read_timeout(Some(super::PATIENCE));
        let _ = stream.read(&mut [0]);
    }

    /// The same, showing what it likes.
    pub fn knock_with(
        &self,
        version: &'static SupportedProtocolVersion,
        trusted: &Certs,
        identity: Arc<dyn ResolvesClientCert>,
    ) {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version that exists")
            .with_root_certificates(trusted.roots());
        let Wire::Tls(mut stream) = self.secure(builder.with_client_cert_resolver(identity)) else {
            unreachable!("it is TLS")
        };
        let _ = stream.get_ref().set_read_timeout(Some(super::PATIENCE));
        let _ = stream.read(&mut [0]);
    }

    pub fn secure(&self, config: ClientConfig) -> Wire {
        let (Self::Tcp(to) | Self::Tls(to)) = self else { panic!("TLS to {self:?}") };
        let name = ServerName::from(to.ip());
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = TcpStream::connect(to).expect("the relay accepts");
        Wire::Tls(Box::new(StreamOwned::new(connection, socket)))
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
            Self::Udp(_) | Self::Unixgram(_) => panic!("nobody answers a datagram"),
        }
    }
}

impl Wire {
    /// One that is read for so long and no longer.
    pub fn with_patience(self) -> Self {
        match &self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(PATIENCE)),
            Self::Tls(stream) => stream.get_ref().set_read_timeout(Some(PATIENCE)),
            Self::Unix(stream) => stream.set_read_timeout(Some(PATIENCE)),
            Self::Udp(_) | Self::Unixgram(_) => panic!("nobody answers a datagram"),
        }
        .expect("a socket option");
        self
    }

    /// Reads what comes next; 0: the connection has ended.
    #[track_caller]
    pub fn hears(&mut self, into: &mut [u8]) -> usize {
        match self.read(into) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came for {PATIENCE:?}"),
            Err(_) => 0,
        }
    }

    /// Bytes as they are: a datagram, or a part of a stream.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = match self {
            Self::Udp(socket) => socket.send(bytes).map(drop),
            Self::Unixgram(socket) => socket.send(bytes).map(drop),
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes),
        };
        sent.expect("the relay takes everything");
    }

    /// A message framed with an octet count.
    #[track_caller]
    pub fn send_counted(&mut self, message: &[u8]) {
        self.send(&counted(message));
    }

    /// What a container says, framed as Docker's driver frames it: counted only in RFC 5424 over TLS.
    #[track_caller]
    pub fn says(&mut self, container: &Docker, text: &[u8]) {
        let message = container.says(text);
        match self {
            Self::Tls(_) if container.format.is_5424() => self.send_counted(&message),
            _ => self.send(&message),
        }
    }

    /// Breaks a TCP connection: the relay is told that it was reset.
    pub fn breaks(self) {
        let Self::Tcp(stream) = self else { panic!("only TCP can be reset") };
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("a socket option");
    }

    /// Says goodbye, as a container does that stops.
    pub fn close(self) {
        if let Self::Tls(mut stream) = self {
            stream.conn.send_close_notify();
            stream.flush().expect("the relay reads");
        }
    }

    /// Waits until the relay has hung up on us.
    #[track_caller]
    pub fn is_closed(&mut self) {
        let mut byte = [0];
        let socket = match self {
            Self::Tcp(stream) => &*stream,
            Self::Tls(stream) => stream.get_ref(),
            _ => panic!("only for TCP"),
        };
        socket.set_read_timeout(Some(super::PATIENCE)).expect("a socket option");
        let read = self.read(&mut byte);
        let is_open = read.as_ref().err().is_some_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!is_open && !matches!(read, Ok(1)), "the relay has not hung up: {read:?}");
    }
}

/// What a container says at once: these numbers, a message each, by the relay's first listener.
pub fn says(relay: &Relay, numbers: Range<usize>) {
    says_at_length(relay, numbers, 1);
}

/// The same with so many digits: 8192 and a few hundred messages are more than kernels hold on their way.
pub fn says_at_length(relay: &Relay, numbers: Range<usize>, digits: usize) {
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    numbers.for_each(|number| wire.says(&container, format!("{number:0digits$}").as_bytes()));
}

pub fn counted(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}
