//! The addresses that a listener receives messages at.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::host::{Host, HostPort, host_port, port};
use super::{Scheme, Transport, absolute_path, bad_scheme, split_scheme};
use crate::protocol::session::Protocol;

/// The transport of a listener, and its address or path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenTransport {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    /// TLS over TCP, from the first byte.
    Tls(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// The address of a listener. Only parsing creates one, so that it always has a scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    protocol: Protocol,
    transport: ListenTransport,
}

impl ListenAddress {
    /// The schemes of listeners, for error messages and the help.
    pub fn schemes() -> String {
        format!("{}, unix://, unixgram:// or fluent+unix://", Scheme::names(|scheme| scheme.listen.is_some()))
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub fn transport(&self) -> &ListenTransport {
        &self.transport
    }

    /// The IP address and port; `None` for a unix socket.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self.transport {
            ListenTransport::Udp(at) | ListenTransport::Tcp(at) | ListenTransport::Tls(at) => Some(at),
            ListenTransport::Unix(_) | ListenTransport::Unixgram(_) => None,
        }
    }

    /// The path of a unix socket; `None` for an IP address.
    pub fn path(&self) -> Option<&Path> {
        match &self.transport {
            ListenTransport::Unix(path) | ListenTransport::Unixgram(path) => Some(path),
            ListenTransport::Udp(_) | ListenTransport::Tcp(_) | ListenTransport::Tls(_) => None,
        }
    }

    /// Returns this address with the IP address and port that the kernel chose. A unix socket's address stays as it is.
    pub fn with_socket_address(&self, at: SocketAddr) -> Self {
        let transport = match &self.transport {
            ListenTransport::Udp(_) => ListenTransport::Udp(at),
            ListenTransport::Tcp(_) => ListenTransport::Tcp(at),
            ListenTransport::Tls(_) => ListenTransport::Tls(at),
            unix @ (ListenTransport::Unix(_) | ListenTransport::Unixgram(_)) => unix.clone(),
        };
        Self { protocol: self.protocol, transport }
    }

    /// Whether the kernel chooses the port. Then several listeners can have the same address.
    pub fn has_any_port(&self) -> bool {
        self.socket_address().is_some_and(|at| at.port() == 0)
    }

    pub fn is_udp(&self) -> bool {
        matches!(self.transport, ListenTransport::Udp(_))
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self.transport, ListenTransport::Tcp(_) | ListenTransport::Tls(_))
    }

    /// Whether each read returns a whole message.
    pub fn is_datagram(&self) -> bool {
        matches!(self.transport, ListenTransport::Udp(_) | ListenTransport::Unixgram(_))
    }

    /// Whether the listener speaks only TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.transport, ListenTransport::Tls(_))
    }

    /// Whether the listener may speak TLS beside plain text. The first byte tells which one a sender uses.
    pub fn may_be_tls(&self) -> bool {
        self.protocol == Protocol::Syslog && matches!(self.transport, ListenTransport::Tcp(_))
    }

    /// Whether a listener can change its address to `new` and keep its socket.
    pub fn can_become(&self, new: &Self) -> bool {
        match self.has_any_port() {
            true => self == new,
            false => self.shares_socket_with(new) && self.is_datagram() == new.is_datagram(),
        }
    }

    /// Whether both addresses need the same socket. Only one of them can be bound.
    pub fn shares_socket_with(&self, other: &Self) -> bool {
        match (self.path(), other.path()) {
            (None, None) => self.is_udp() == other.is_udp() && self.socket_address() == other.socket_address(),
            (ours, theirs) => ours == theirs,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text, Self::schemes)?;
        let found = Scheme::named(&scheme).and_then(|found| Some((found, found.listen?)));
        let (protocol, transport) = match (found, &*scheme) {
            (Some((found, protocol)), _) => {
                let at = listen_socket(text, rest, found.port)?;
                let transport = match found.transport {
                    Transport::Udp => ListenTransport::Udp(at),
                    Transport::Tcp => ListenTransport::Tcp(at),
                    Transport::Tls => ListenTransport::Tls(at),
                };
                (protocol, transport)
            }
            (None, "unix") => (Protocol::Syslog, ListenTransport::Unix(absolute_path(text, rest)?)),
            (None, "fluent+unix") => (Protocol::Fluent, ListenTransport::Unix(absolute_path(text, rest)?)),
            (None, "unixgram") => (Protocol::Syslog, ListenTransport::Unixgram(absolute_path(text, rest)?)),
            (None, other) => return Err(bad_scheme(text, other, Self::schemes)),
        };
        Ok(Self { protocol, transport })
    }
}

fn listen_socket(text: &str, rest: &str, default_port: u16) -> Result<SocketAddr, String> {
    // `tcp://:514` means every address of the machine, IPv6 and IPv4 on one socket.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.starts_with(':') {
        let port = if rest.is_empty() { default_port } else { port(text, &rest[1..])? };
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    let HostPort { host, port } = host_port(text, rest, default_port)?;
    match host {
        Host::Address(address) => Ok(SocketAddr::new(address, port)),
        Host::Name(name) => Err(format!(
            "`{text}`: a listener needs an IP address, not the name `{name}`; 127.0.0.1 is this machine alone, 0.0.0.0 every IPv4 address, [::] every address"
        )),
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = |transport| Scheme::of_listener(self.protocol, transport);
        match &self.transport {
            ListenTransport::Udp(at) => write!(f, "{}://{at}", scheme(Transport::Udp)),
            ListenTransport::Tcp(at) => write!(f, "{}://{at}", scheme(Transport::Tcp)),
            ListenTransport::Tls(at) => write!(f, "{}://{at}", scheme(Transport::Tls)),
            ListenTransport::Unix(path) if self.protocol == Protocol::Fluent => {
                write!(f, "fluent+unix://{}", path.display())
            }
            ListenTransport::Unix(path) => write!(f, "unix://{}", path.display()),
            ListenTransport::Unixgram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}
