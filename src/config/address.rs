//! Addresses as users write them: URLs with Docker's own scheme words. What may be listened on and what may be
//! forwarded to are two closed sets; nothing here opens a socket or asks a name server.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Syslog's port for `udp://` (RFC 5426) and, by custom, for `tcp://`.
pub const SYSLOG_PORT: u16 = 514;
/// Syslog over TLS (RFC 5425).
pub const SYSLOG_TLS_PORT: u16 = 6514;
/// RELP, plain or over TLS: it has no registered port, and this is the one its documentation uses.
pub const RELP_PORT: u16 = 2514;

/// The service of a domain that names none. IANA's registry has `syslog` for UDP (RFC 5426) and `syslog-tls` (RFC 5425);
/// the others are built like them.
const SYSLOG_UDP_SERVICE: &str = "_syslog._udp";
const SYSLOG_SERVICE: &str = "_syslog._tcp";
const SYSLOG_TLS_SERVICE: &str = "_syslog-tls._tcp";
const RELP_SERVICE: &str = "_relp._tcp";
const RELP_TLS_SERVICE: &str = "_relp-tls._tcp";

const LISTEN_SCHEMES: &str = "udp://, tcp://, tcp+tls://, relp://, relp+tls://, unix:// or unixgram://";
const FORWARD_SCHEMES: &str =
    "tcp://, tcp+tls://, relp://, relp+tls://, udp://, these with srv+ in front, file:///path or stdout:";

/// Where a listener waits for messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Tls(SocketAddr),
    Relp(SocketAddr),
    RelpTls(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// Where a forward sends messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardAddress {
    Udp(Destination),
    Tcp(Destination),
    Tls(Destination),
    Relp(Destination),
    RelpTls(Destination),
    /// A path in which `{host}`, `{name}`, `{image}`, `{id}` and `{app}` stand for a message's fields.
    File(PathBuf),
    Stdout,
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
    /// Whether the system chooses the port, so that there can be several alike.
    pub fn has_any_port(&self) -> bool {
        match self {
            Self::Udp(at) | Self::Tcp(at) | Self::Tls(at) | Self::Relp(at) | Self::RelpTls(at) => at.port() == 0,
            Self::Unix(_) | Self::Unixgram(_) => false,
        }
    }

    /// Whether it takes nothing but TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::RelpTls(_))
    }

    /// Whether other relays speak there, who are answered.
    pub fn is_relp(&self) -> bool {
        matches!(self, Self::Relp(_) | Self::RelpTls(_))
    }

    /// Whether the two are one socket: there can be only one of them.
    pub fn is_the_socket_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Udp(ours), Self::Udp(theirs)) => ours == theirs,
            (Self::Unix(ours) | Self::Unixgram(ours), Self::Unix(theirs) | Self::Unixgram(theirs)) => ours == theirs,
            (
                Self::Tcp(ours) | Self::Tls(ours) | Self::Relp(ours) | Self::RelpTls(ours),
                Self::Tcp(theirs) | Self::Tls(theirs) | Self::Relp(theirs) | Self::RelpTls(theirs),
            ) => ours == theirs,
            _ => false,
        }
    }
}

impl ForwardAddress {
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::RelpTls(_))
    }

    /// What is to be found over the network; `None`: it is on this machine.
    pub fn remote(&self) -> Option<&Destination> {
        match self {
            Self::Udp(to) | Self::Tcp(to) | Self::Tls(to) | Self::Relp(to) | Self::RelpTls(to) => Some(to),
            Self::File(_) | Self::Stdout => None,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text, LISTEN_SCHEMES)?;
        match scheme {
            "udp" => Ok(Self::Udp(listen_socket(text, rest, SYSLOG_PORT)?)),
            "tcp" => Ok(Self::Tcp(listen_socket(text, rest, SYSLOG_PORT)?)),
            "tcp+tls" => Ok(Self::Tls(listen_socket(text, rest, SYSLOG_TLS_PORT)?)),
            "relp" => Ok(Self::Relp(listen_socket(text, rest, RELP_PORT)?)),
            "relp+tls" => Ok(Self::RelpTls(listen_socket(text, rest, RELP_PORT)?)),
            "unix" => Ok(Self::Unix(absolute_path(text, rest)?)),
            "unixgram" => Ok(Self::Unixgram(absolute_path(text, rest)?)),
            other => Err(bad_scheme(text, other, LISTEN_SCHEMES)),
        }
    }
}

impl FromStr for ForwardAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "stdout:" || text == "stdout://" || text == "stdout" {
            return Ok(Self::Stdout);
        }
        let (scheme, rest) = split_scheme(text, FORWARD_SCHEMES)?;
        match scheme {
            "udp" => Ok(Self::Udp(target(text, rest, SYSLOG_PORT)?)),
            "tcp" => Ok(Self::Tcp(target(text, rest, SYSLOG_PORT)?)),
            "tcp+tls" => Ok(Self::Tls(target(text, rest, SYSLOG_TLS_PORT)?)),
            "relp" => Ok(Self::Relp(target(text, rest, RELP_PORT)?)),
            "relp+tls" => Ok(Self::RelpTls(target(text, rest, RELP_PORT)?)),
            "srv+udp" => Ok(Self::Udp(service(text, rest, SYSLOG_UDP_SERVICE)?)),
            "srv+tcp" => Ok(Self::Tcp(service(text, rest, SYSLOG_SERVICE)?)),
            "srv+tcp+tls" => Ok(Self::Tls(service(text, rest, SYSLOG_TLS_SERVICE)?)),
            "srv+relp" => Ok(Self::Relp(service(text, rest, RELP_SERVICE)?)),
            "srv+relp+tls" => Ok(Self::RelpTls(service(text, rest, RELP_TLS_SERVICE)?)),
            "file" => Ok(Self::File(file_template(text, rest)?)),
            other => Err(bad_scheme(text, other, FORWARD_SCHEMES)),
        }
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
        return Err(format!("`{text}`: write srv+tcp://example.com or srv+tcp://{SYSLOG_SERVICE}.example.com"));
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
        match self {
            Self::Udp(socket) => write!(f, "udp://{socket}"),
            Self::Tcp(socket) => write!(f, "tcp://{socket}"),
            Self::Tls(socket) => write!(f, "tcp+tls://{socket}"),
            Self::Relp(socket) => write!(f, "relp://{socket}"),
            Self::RelpTls(socket) => write!(f, "relp+tls://{socket}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Unixgram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}

impl fmt::Display for ForwardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(to) => to.show(f, "udp"),
            Self::Tcp(to) => to.show(f, "tcp"),
            Self::Tls(to) => to.show(f, "tcp+tls"),
            Self::Relp(to) => to.show(f, "relp"),
            Self::RelpTls(to) => to.show(f, "relp+tls"),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Stdout => f.write_str("stdout:"),
        }
    }
}

impl Destination {
    fn show(&self, f: &mut fmt::Formatter<'_>, scheme: &str) -> fmt::Result {
        match self {
            Self::Host(to) => write!(f, "{scheme}://{to}"),
            Self::Service(name) => write!(f, "srv+{scheme}://{name}"),
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
