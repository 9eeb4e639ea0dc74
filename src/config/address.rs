//! Addresses as users write them: URLs with Docker's own scheme words. What may be listened on and what may be
//! forwarded to are two closed sets; nothing here opens a socket or asks a name server.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Syslog's port for `udp://` (RFC 5426) and, by custom, for `tcp://`.
pub const SYSLOG_PORT: u16 = 514;
/// Syslog over TLS (RFC 5425).
pub const SYSLOG_TLS_PORT: u16 = 6514;
/// RELP, plain or over TLS: it has no registered port, and this is the one its documentation uses.
pub const RELP_PORT: u16 = 2514;

const LISTEN_SCHEMES: &str = "udp://, tcp://, tcp+tls://, relp://, relp+tls://, unix:// or unixgram://";
const FORWARD_SCHEMES: &str =
    "tcp://, tcp+tls://, relp://, relp+tls://, udp://, these with srv+ in front, file:///path or stdout:";

/// What the bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 5424, RFC 3164 and Docker's shapes of it: nothing is answered.
    Syslog,
    /// Syslog messages that are answered, each by its number.
    Relp,
}

/// What carries the bytes over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// What carries the bytes to a listener, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenTransport {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    /// TLS over TCP, from the first byte on.
    Tls(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// Where a listener waits for messages. Only what has a scheme can be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    protocol: Protocol,
    transport: ListenTransport,
}

/// Where a forward sends messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardAddress {
    Network(NetworkAddress),
    /// A path in which `{host}`, `{name}`, `{image}`, `{id}` and `{app}` stand for a message's fields.
    File(PathBuf),
    Stdout,
}

/// A collector on the network and what it is spoken to. Only what has a scheme can be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkAddress {
    protocol: Protocol,
    transport: Transport,
    destination: Destination,
}

/// What a scheme stands for.
struct Scheme {
    name: &'static str,
    protocol: Protocol,
    transport: Transport,
    /// Of an address that names none.
    port: u16,
    /// The service of a domain that names none. IANA's registry has `syslog` for UDP (RFC 5426) and `syslog-tls`
    /// (RFC 5425); the others are built like them.
    service: &'static str,
}

/// The schemes of both directions.
#[rustfmt::skip]
const NETWORK_SCHEMES: [Scheme; 5] = [
    Scheme { name: "udp", protocol: Protocol::Syslog, transport: Transport::Udp, port: SYSLOG_PORT, service: "_syslog._udp" },
    Scheme { name: "tcp", protocol: Protocol::Syslog, transport: Transport::Tcp, port: SYSLOG_PORT, service: "_syslog._tcp" },
    Scheme { name: "tcp+tls", protocol: Protocol::Syslog, transport: Transport::Tls, port: SYSLOG_TLS_PORT, service: "_syslog-tls._tcp" },
    Scheme { name: "relp", protocol: Protocol::Relp, transport: Transport::Tcp, port: RELP_PORT, service: "_relp._tcp" },
    Scheme { name: "relp+tls", protocol: Protocol::Relp, transport: Transport::Tls, port: RELP_PORT, service: "_relp-tls._tcp" },
];

impl Scheme {
    fn named(name: &str) -> Option<&'static Self> {
        NETWORK_SCHEMES.iter().find(|scheme| scheme.name == name)
    }

    fn of(protocol: Protocol, transport: Transport) -> &'static str {
        let is_it = |scheme: &&Self| (scheme.protocol, scheme.transport) == (protocol, transport);
        NETWORK_SCHEMES.iter().find(is_it).expect("an address is only made from a scheme").name
    }
}

/// Which way to a collector on the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    Host(HostPort),
    /// The full name of SRV records, `_syslog._tcp.example.com`: they say the hosts and the ports (RFC 2782).
    Service(String),
}

/// A host by name or literal address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(String),
    Address(IpAddr),
}

impl ListenAddress {
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub fn transport(&self) -> &ListenTransport {
        &self.transport
    }

    /// The address and port; `None`: it is a unix socket.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self.transport {
            ListenTransport::Udp(at) | ListenTransport::Tcp(at) | ListenTransport::Tls(at) => Some(at),
            ListenTransport::Unix(_) | ListenTransport::Unixgram(_) => None,
        }
    }

    /// The path of a unix socket.
    pub fn path(&self) -> Option<&Path> {
        match &self.transport {
            ListenTransport::Unix(path) | ListenTransport::Unixgram(path) => Some(path),
            ListenTransport::Udp(_) | ListenTransport::Tcp(_) | ListenTransport::Tls(_) => None,
        }
    }

    /// With another address and port, where it has any: those that the kernel chose.
    pub fn with_socket_address(&self, at: SocketAddr) -> Self {
        let transport = match &self.transport {
            ListenTransport::Udp(_) => ListenTransport::Udp(at),
            ListenTransport::Tcp(_) => ListenTransport::Tcp(at),
            ListenTransport::Tls(_) => ListenTransport::Tls(at),
            unix @ (ListenTransport::Unix(_) | ListenTransport::Unixgram(_)) => unix.clone(),
        };
        Self { protocol: self.protocol, transport }
    }

    /// Whether the system chooses the port, so that there can be several alike.
    pub fn has_any_port(&self) -> bool {
        self.socket_address().is_some_and(|at| at.port() == 0)
    }

    pub fn is_udp(&self) -> bool {
        matches!(self.transport, ListenTransport::Udp(_))
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self.transport, ListenTransport::Tcp(_) | ListenTransport::Tls(_))
    }

    /// Whether each read is a whole message.
    pub fn is_datagram(&self) -> bool {
        matches!(self.transport, ListenTransport::Udp(_) | ListenTransport::Unixgram(_))
    }

    /// Whether nothing but TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        matches!(self.transport, ListenTransport::Tls(_))
    }

    /// Whether TLS may be spoken beside plain text, told apart by the first byte.
    pub fn may_be_tls(&self) -> bool {
        self.protocol == Protocol::Syslog && matches!(self.transport, ListenTransport::Tcp(_))
    }

    /// Whether a listener there can go on as `new` with the socket that it has, whatever is spoken on it.
    pub fn can_become(&self, new: &Self) -> bool {
        match self.has_any_port() {
            true => self == new,
            false => self.shares_socket_with(new) && self.is_datagram() == new.is_datagram(),
        }
    }

    /// Whether both are one socket, of which there can be only one.
    pub fn shares_socket_with(&self, other: &Self) -> bool {
        match (self.path(), other.path()) {
            (None, None) => self.is_udp() == other.is_udp() && self.socket_address() == other.socket_address(),
            (ours, theirs) => ours == theirs,
        }
    }
}

impl ForwardAddress {
    /// What is reached over the network; `None`: it is on this machine.
    pub fn network(&self) -> Option<&NetworkAddress> {
        match self {
            Self::Network(address) => Some(address),
            Self::File(_) | Self::Stdout => None,
        }
    }

    /// What is to be found over the network; `None`: it is on this machine.
    pub fn remote(&self) -> Option<&Destination> {
        self.network().map(NetworkAddress::destination)
    }

    /// Syslog over TCP without TLS: nothing is answered, and nothing says whether it was understood.
    pub fn is_plain_syslog(&self) -> bool {
        self.network().is_some_and(|to| (to.protocol, to.transport) == (Protocol::Syslog, Transport::Tcp))
    }

    pub fn is_relp(&self) -> bool {
        self.network().is_some_and(|to| to.protocol == Protocol::Relp)
    }

    pub fn is_udp(&self) -> bool {
        self.network().is_some_and(|address| address.transport == Transport::Udp)
    }

    pub fn is_tls(&self) -> bool {
        self.network().is_some_and(|address| address.transport == Transport::Tls)
    }
}

impl NetworkAddress {
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    pub fn destination(&self) -> &Destination {
        &self.destination
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text, LISTEN_SCHEMES)?;
        let (protocol, transport) = match (Scheme::named(scheme), scheme) {
            (Some(found), _) => {
                let at = listen_socket(text, rest, found.port)?;
                let transport = match found.transport {
                    Transport::Udp => ListenTransport::Udp(at),
                    Transport::Tcp => ListenTransport::Tcp(at),
                    Transport::Tls => ListenTransport::Tls(at),
                };
                (found.protocol, transport)
            }
            (None, "unix") => (Protocol::Syslog, ListenTransport::Unix(absolute_path(text, rest)?)),
            (None, "unixgram") => (Protocol::Syslog, ListenTransport::Unixgram(absolute_path(text, rest)?)),
            (None, other) => return Err(bad_scheme(text, other, LISTEN_SCHEMES)),
        };
        Ok(Self { protocol, transport })
    }
}

impl FromStr for ForwardAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "stdout:" || text == "stdout://" || text == "stdout" {
            return Ok(Self::Stdout);
        }
        let (scheme, rest) = split_scheme(text, FORWARD_SCHEMES)?;
        if scheme == "file" {
            return Ok(Self::File(file_template(text, rest)?));
        }
        let by_service = scheme.strip_prefix("srv+");
        let Some(found) = Scheme::named(by_service.unwrap_or(scheme)) else {
            return Err(bad_scheme(text, scheme, FORWARD_SCHEMES));
        };
        let destination = match by_service {
            Some(_) => service(text, rest, found.service)?,
            None => target(text, rest, found.port)?,
        };
        Ok(Self::Network(NetworkAddress { protocol: found.protocol, transport: found.transport, destination }))
    }
}

fn split_scheme<'a>(text: &'a str, schemes: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once("://").ok_or_else(|| format!("`{text}` is no address; write {schemes}"))
}

fn bad_scheme(text: &str, scheme: &str, schemes: &str) -> String {
    match scheme {
        "tls" | "ssl" | "tcp+ssl" => format!("`{text}`: write tcp+tls:// for TLS, as Docker does"),
        _ => format!("`{text}`: unknown scheme `{scheme}`; use {schemes}"),
    }
}

fn absolute_path(text: &str, rest: &str) -> Result<PathBuf, String> {
    if rest.len() > 1 && rest.starts_with('/') && !rest.ends_with('/') {
        Ok(PathBuf::from(rest))
    } else {
        Err(format!("`{text}`: needs the absolute path of a file, with three slashes: unix:///run/logferry.sock"))
    }
}

/// What may stand between braces in a file's path.
const FILE_FIELDS: [&str; 5] = ["host", "name", "image", "id", "app"];

fn file_template(text: &str, rest: &str) -> Result<PathBuf, String> {
    for field in rest.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(field, _)| field) {
        if !FILE_FIELDS.contains(&field) {
            return Err(format!("`{text}`: {{{field}}} is no field; there are {{{}}}", FILE_FIELDS.join("}, {")));
        }
    }
    absolute_path(text, rest)
}

fn listen_socket(text: &str, rest: &str, default_port: u16) -> Result<SocketAddr, String> {
    // `tcp://:514` is every address of the machine, IPv6 and IPv4 on one socket.
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

fn target(text: &str, rest: &str, default_port: u16) -> Result<Destination, String> {
    match host_port(text, rest, default_port)? {
        HostPort { port: 0, .. } => Err(format!("`{text}`: nobody can be reached at port 0")),
        target => Ok(Destination::Host(target)),
    }
}

/// `_service._proto.domain`, or a domain whose service is `usual`.
fn service(text: &str, rest: &str, usual: &str) -> Result<Destination, String> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(':') {
        return Err(format!("`{text}`: SRV records say the port; write the name alone"));
    }
    let Host::Name(name) = name_or_ipv4(text, rest)? else {
        return Err(format!("`{text}`: an address has no SRV records; write a name"));
    };
    let name = if name.starts_with('_') { name } else { format!("{usual}.{name}") };
    let mut labels = name.split('.');
    let named = labels.by_ref().take(2).filter(|label| label.starts_with('_')).count() == 2;
    if !named || labels.next().is_none_or(str::is_empty) {
        return Err(format!("`{text}`: write srv+tcp://example.com or srv+tcp://_syslog._tcp.example.com"));
    }
    // Longer than a name may be, now that the service stands in front.
    name_or_ipv4(text, &name).map(|_| Destination::Service(name))
}

/// `host`, `host:port`, `1.2.3.4:port`, `[::1]:port`.
fn host_port(text: &str, rest: &str, default_port: u16) -> Result<HostPort, String> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port_text) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or_else(|| format!("`{text}`: the `[` has no `]`"))?;
            let address = host.parse::<Ipv6Addr>().map_err(|_| format!("`{text}`: `{host}` is no IPv6 address"))?;
            (Host::Address(IpAddr::V6(address)), after)
        }
        None if rest.matches(':').count() > 1 => {
            return Err(format!("`{text}`: write an IPv6 address in brackets, [2001:db8::1]:{SYSLOG_PORT}"));
        }
        None => {
            let (host, _) = rest.split_once(':').unwrap_or((rest, ""));
            (name_or_ipv4(text, host)?, &rest[host.len()..])
        }
    };
    let port = match port_text.strip_prefix(':') {
        Some(digits) => port(text, digits)?,
        None if port_text.is_empty() => default_port,
        None => return Err(format!("`{text}`: needs a port, as in {host}:{SYSLOG_PORT}")),
    };
    Ok(HostPort { host, port })
}

fn name_or_ipv4(text: &str, host: &str) -> Result<Host, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    // RFC 1035 2.3.4, and the underscores of container and service names. A dot at the end: no search list.
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(legal) && !label.starts_with('-') && !label.ends_with('-')
    };
    let digits_and_dots = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let labels = host.strip_suffix('.').unwrap_or(host).split('.').all(label);
    if host.len() > 253 || digits_and_dots || !labels {
        return Err(format!("`{text}`: `{host}` is neither a host name nor an IP address"));
    }
    Ok(Host::Name(host.to_owned()))
}

fn port(text: &str, digits: &str) -> Result<u16, String> {
    // `parse` alone would take a sign.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.ok_or_else(|| format!("`{text}`: `{digits}` is no port (0 to 65535)"))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = |transport| Scheme::of(self.protocol, transport);
        match &self.transport {
            ListenTransport::Udp(at) => write!(f, "{}://{at}", scheme(Transport::Udp)),
            ListenTransport::Tcp(at) => write!(f, "{}://{at}", scheme(Transport::Tcp)),
            ListenTransport::Tls(at) => write!(f, "{}://{at}", scheme(Transport::Tls)),
            ListenTransport::Unix(path) => write!(f, "unix://{}", path.display()),
            ListenTransport::Unixgram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}

impl fmt::Display for ForwardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Stdout => f.write_str("stdout:"),
        }
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = Scheme::of(self.protocol, self.transport);
        match &self.destination {
            Destination::Host(to) => write!(f, "{scheme}://{to}"),
            Destination::Service(name) => write!(f, "srv+{scheme}://{name}"),
        }
    }
}

/// The name that is looked up.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(to) => to.host.fmt(f),
            Self::Service(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str, shown: &str) {
        assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), shown, "{text}");
    }

    fn forward(text: &str, shown: &str) {
        assert_eq!(text.parse::<ForwardAddress>().unwrap().to_string(), shown, "{text}");
    }

    fn refused<T: FromStr<Err = String> + fmt::Debug>(text: &str, says: &str) {
        let error = text.parse::<T>().unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }

    #[test]
    fn listeners_take_addresses_of_either_family() {
        listen("udp://0.0.0.0:514", "udp://0.0.0.0:514");
        listen("udp://127.0.0.1", "udp://127.0.0.1:514");
        listen("tcp://[::1]:1514", "tcp://[::1]:1514");
        listen("tcp://:5514", "tcp://[::]:5514");
        listen("tcp+tls://0.0.0.0", "tcp+tls://0.0.0.0:6514");
        listen("relp://0.0.0.0", "relp://0.0.0.0:2514");
        listen("relp+tls://[::1]:99", "relp+tls://[::1]:99");
        listen("unix:///run/a.sock", "unix:///run/a.sock");
        listen("unixgram:///dev/log", "unixgram:///dev/log");
    }

    #[test]
    fn forwards_take_names_too() {
        forward("tcp://logs.example.com", "tcp://logs.example.com:514");
        forward("tcp+tls://logs.example.com", "tcp+tls://logs.example.com:6514");
        forward("relp://logs.example.com", "relp://logs.example.com:2514");
        forward("relp+tls://logs.example.com:99", "relp+tls://logs.example.com:99");
        forward("udp://[2001:db8::1]:99", "udp://[2001:db8::1]:99");
        forward("tcp://logs.example.com.:514", "tcp://logs.example.com.:514");
        forward("tcp://rsyslog_1:514", "tcp://rsyslog_1:514");
        forward("file:///var/log/{host}/{name}.log", "file:///var/log/{host}/{name}.log");
        forward("stdout:", "stdout:");
    }

    #[test]
    fn services_have_a_name_and_no_port() {
        forward("srv+tcp://example.com", "srv+tcp://_syslog._tcp.example.com");
        forward("srv+udp://example.com", "srv+udp://_syslog._udp.example.com");
        forward("srv+tcp+tls://example.com.", "srv+tcp+tls://_syslog-tls._tcp.example.com.");
        forward("srv+relp://example.com", "srv+relp://_relp._tcp.example.com");
        forward("srv+relp+tls://example.com", "srv+relp+tls://_relp-tls._tcp.example.com");
        forward("srv+tcp://_logs._tcp.example.com/", "srv+tcp://_logs._tcp.example.com");
        refused::<ForwardAddress>("srv+tcp://example.com:514", "SRV records say the port");
        refused::<ForwardAddress>("srv+tcp://192.0.2.1", "no SRV records");
        refused::<ForwardAddress>("srv+tcp://_syslog.example.com", "_syslog._tcp.example.com");
        refused::<ForwardAddress>("srv+tcp://_syslog._tcp", "_syslog._tcp.example.com");
        refused::<ForwardAddress>("srv+tcp://_syslog._tcp.", "_syslog._tcp.example.com");
        refused::<ForwardAddress>(&format!("srv+tcp://{}", ["a23456789"; 25].join(".")), "neither");
        refused::<ForwardAddress>("srv+file:///x", "unknown scheme");
        refused::<ListenAddress>("srv+tcp://example.com", "unknown scheme");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        refused::<ListenAddress>("tls://0.0.0.0:514", "tcp+tls://");
        refused::<ListenAddress>("relp+ssl://0.0.0.0:2514", "relp+tls://");
        refused::<ListenAddress>("http://0.0.0.0", "unknown scheme `http`");
        refused::<ListenAddress>("udp://localhost:514", "127.0.0.1");
        refused::<ListenAddress>("0.0.0.0:514", "no address");
        refused::<ListenAddress>("udp://0.0.0.0:99999", "no port");
        refused::<ListenAddress>("tcp://127.0.0.1:+1", "`+1` is no port");
        refused::<ListenAddress>("tcp://127.0.0.1:", "is no port");
        refused::<ListenAddress>("tcp://[::1]514", "needs a port");
        refused::<ListenAddress>("tcp://[127.0.0.1]:514", "no IPv6 address");
        refused::<ListenAddress>("unix:///run/", "absolute");
        refused::<ListenAddress>("unix://relative", "absolute");
        refused::<ForwardAddress>("tcp://::1:514", "brackets");
        refused::<ForwardAddress>("tcp://[::1:514", "no `]`");
        refused::<ForwardAddress>("tcp://300.1.2.3:514", "neither");
        refused::<ForwardAddress>("tcp://a b:514", "neither");
        refused::<ForwardAddress>("tcp://a..b:514", "neither");
        refused::<ForwardAddress>("tcp://-", "neither");
        refused::<ForwardAddress>(&format!("tcp://{}:514", "x".repeat(80)), "neither");
        refused::<ForwardAddress>("tcp://logs.example.com:0", "port 0");
        refused::<ForwardAddress>("file:///logs/{hostname}.log", "{hostname} is no field; there are {host}, {name}");
        refused::<ForwardAddress>("unix:///run/x", "unknown scheme `unix`");
        refused::<ForwardAddress>("file:///", "absolute");
    }
}
