//! Senders for every input of a relay.

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

/// A relay's listener.
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

/// A TLS client's options.
#[derive(Clone, Copy)]
pub struct TlsClient {
    pub version: &'static SupportedProtocolVersion,
    /// Whether the client shows its certificate of [`Certs`].
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
    /// A client without a certificate.
    pub const ANONYMOUS: Self = Self { version: &TLS13, identified: false };

    /// A client config that trusts certificates of `trusted`, and optionally has a certificate: its file, and its owner.
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

    /// The ClientHello.
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

    /// Connects without TLS.
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

    /// Connects with TLS, trusts certificates of `trusted`, and optionally shows a certificate: its file, and its owner.
    pub fn connect_tls_as(&self, tls: TlsClient, trusted: &Certs, identity: Option<(&str, &Certs)>) -> Wire {
        self.secure(tls.config(trusted, identity))
    }

    /// Starts a handshake; the relay need not answer.
    pub fn knock(&self, tls: TlsClient, trusted: &Certs, identity: Option<(&str, &Certs)>) {
        let Wire::Tls(mut stream) = self.connect_tls_as(tls, trusted, identity) else { unreachable!("it is TLS") };
        let _ = stream.get_ref().set_read_timeout(Some(super::PATIENCE));
        let _ = stream.read(&mut [0]);
    }

    /// Like [`knock`](Self::knock), with any certificate.
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
    /// Sets a read timeout of [`PATIENCE`].
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

    /// Reads the next bytes; 0: the connection has ended.
    #[track_caller]
    pub fn hears(&mut self, into: &mut [u8]) -> usize {
        match self.read(into) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came for {PATIENCE:?}"),
            Err(_) => 0,
        }
    }

    /// Sends bytes as they are: a datagram, or a part of a stream.
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

    /// Sends a message with an octet count.
    #[track_caller]
    pub fn send_counted(&mut self, message: &[u8]) {
        self.send(&counted(message));
    }

    /// Sends a container's line, framed as Docker's driver frames it: octet-counted only in RFC 5424 over TLS.
    #[track_caller]
    pub fn says(&mut self, container: &Docker, text: &[u8]) {
        let message = container.says(text);
        match self {
            Self::Tls(_) if container.format.is_5424() => self.send_counted(&message),
            _ => self.send(&message),
        }
    }

    /// Resets a TCP connection.
    pub fn breaks(self) {
        let Self::Tcp(stream) = self else { panic!("only TCP can be reset") };
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("a socket option");
    }

    /// Closes the connection in good order, like a container that stops.
    pub fn close(self) {
        if let Self::Tls(mut stream) = self {
            stream.conn.send_close_notify();
            stream.flush().expect("the relay reads");
        }
    }

    /// Waits until the relay has closed the connection.
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

/// Sends these numbers at once, one message each, to the relay's first listener.
pub fn says(relay: &Relay, numbers: Range<usize>) {
    says_at_length(relay, numbers, 1);
}

/// Sends each number with leading zeros: a few hundred messages of 8192 digits exceed the kernel's buffers.
pub fn says_at_length(relay: &Relay, numbers: Range<usize>, digits: usize) {
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    numbers.for_each(|number| wire.says(&container, format!("{number:0digits$}").as_bytes()));
}

pub fn counted(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}
