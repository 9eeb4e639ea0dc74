//! What a listener's address looks like: a URL with the scheme words of Docker's `syslog-address`. Only text and
//! values; nothing is looked up and nothing is opened.

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The port of `udp://` and `tcp://` when none is given, as in Docker's driver.
pub const PORT: u16 = 514;
/// The port of `tcp+tls://` when none is given: RFC 5425. (Docker's driver assumes 514 here: give it the port.)
pub const TLS_PORT: u16 = 6514;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Udp(SocketAddr),
    /// Plain text, and TLS on the same port when there is a certificate.
    Tcp(SocketAddr),
    /// TLS only.
    Tls(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressError {
    /// No `scheme://`, or none we know.
    Scheme(String),
    /// Ours, but not there yet.
    NotBuilt(String),
    /// A name where an address is needed.
    Name(String),
    /// Neither `[IPv6]` nor IPv4, with or without a port.
    Host(String),
    Port(String),
    /// The path of a unix socket is missing or not absolute.
    Path(String),
}

impl FromStr for Address {
    type Err = AddressError;

    /// `udp://127.0.0.1:514`, `tcp+tls://[::1]`, `unix:///run/logferry.sock`. Without a host, as in `udp://:514`, it
    /// is `[::]`, which takes IPv4 as well; a host without IPv6 binds 0.0.0.0 instead. `0.0.0.0` is IPv4 alone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| AddressError::Scheme(text.into()))?;
        match scheme {
            "udp" => Ok(Self::Udp(socket_address(rest, PORT)?)),
            "tcp" => Ok(Self::Tcp(socket_address(rest, PORT)?)),
            "tcp+tls" => Ok(Self::Tls(socket_address(rest, TLS_PORT)?)),
            "unix" => Ok(Self::Unix(path(rest)?)),
            "unixgram" => Ok(Self::Unixgram(path(rest)?)),
            "relp" | "relp+tls" => Err(AddressError::NotBuilt(scheme.into())),
            _ => Err(AddressError::Scheme(text.into())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(at) => write!(f, "udp://{at}"),
            Self::Tcp(at) => write!(f, "tcp://{at}"),
            Self::Tls(at) => write!(f, "tcp+tls://{at}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Unixgram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(text) => write!(
                f,
                "listen: `{text}` is no address: write udp://, tcp://, tcp+tls://, unix:// or unixgram:// in front"
            ),
            Self::NotBuilt(scheme) => write!(f, "listen: {scheme}:// is not built yet; use tcp:// or tcp+tls://"),
            Self::Name(name) if name == "localhost" => {
                write!(f, "listen: listeners take addresses, not names: write 127.0.0.1 (or [::1]) for `localhost`")
            }
            Self::Name(name) => write!(
                f,
                "listen: listeners take addresses, not names: write the address of `{name}`, or 0.0.0.0 for all"
            ),
            Self::Host(host) => write!(f, "listen: `{host}` is no address: write 192.0.2.1:514 or [2001:db8::1]:514"),
            Self::Port(port) => write!(f, "listen: `{port}` is no port: write a number from 0 to 65535"),
            Self::Path(path) => {
                write!(f, "listen: `{path}` is no path for a socket: write it in full, as in unix:///run/logferry.sock")
            }
        }
    }
}

impl std::error::Error for AddressError {}

fn socket_address(text: &str, default_port: u16) -> Result<SocketAddr, AddressError> {
    let (host, port) = split_port(text)?;
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().map_err(|_| AddressError::Port(port.into()))?
        }
        Some(port) => return Err(AddressError::Port(port.into())),
        None => default_port,
    };
    Ok(SocketAddr::new(ip(host)?, port))
}

fn ip(host: &str) -> Result<IpAddr, AddressError> {
    if host.is_empty() {
        return Ok(Ipv6Addr::UNSPECIFIED.into());
    }
    if let Some(literal) = host.strip_prefix('[') {
        let address: Ipv6Addr =
            literal.trim_end_matches(']').parse().map_err(|_: AddrParseError| AddressError::Host(host.into()))?;
        return Ok(address.into());
    }
    let named = host.bytes().any(|byte| byte.is_ascii_alphabetic())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let wrong = if named { AddressError::Name } else { AddressError::Host };
    host.parse::<std::net::Ipv4Addr>().map(IpAddr::from).map_err(|_| wrong(host.into()))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; the brackets stay.
fn split_port(text: &str) -> Result<(&str, Option<&str>), AddressError> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(|| AddressError::Host(text.into()))? + 1;
        return match text[end..].strip_prefix(':') {
            Some(port) => Ok((&text[..end], Some(port))),
            None if end == text.len() => Ok((text, None)),
            None => Err(AddressError::Host(text.into())),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(AddressError::Host(text.into())),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn path(text: &str) -> Result<PathBuf, AddressError> {
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(AddressError::Path(text.into()));
    }
    Ok(PathBuf::from(text))
}
