//! Addresses as users write them: URLs with Docker's own scheme words. The addresses to listen on (`listen`) and the addresses
//! to forward to (`forward`) are two closed sets. Nothing here opens a socket or asks a name server.

mod forward;
mod host;
mod listen;

use std::path::PathBuf;

pub use forward::{Destination, ForwardAddress};
pub use host::{Host, HostPort};
pub use listen::{ListenAddress, ListenTransport};

use crate::protocol::session::Protocol;

/// Syslog's port for `udp://` (RFC 5426) and, by custom, for `tcp://`.
pub const SYSLOG_PORT: u16 = 514;
/// Syslog over TLS (RFC 5425).
pub const SYSLOG_TLS_PORT: u16 = 6514;
/// RELP, plain or over TLS: it has no registered port, and this is the one its documentation uses.
pub const RELP_PORT: u16 = 2514;

/// The protocol that a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardProtocol {
    /// Syslog, of which nothing is answered.
    Syslog,
    Relp,
}

/// The transport that carries a protocol over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// A scheme of addresses on the network, and its meaning.
struct Scheme {
    name: &'static str,
    /// The protocol of a listener; `None`: nobody can listen on it.
    listen: Option<Protocol>,
    /// The protocol of a target; `None`: nothing can be forwarded to it.
    forward: Option<ForwardProtocol>,
    transport: Transport,
    /// The port of an address that names none.
    port: u16,
    /// The service of a domain that names none. IANA's registry has `syslog` for UDP (RFC 5426) and `syslog-tls`
    /// (RFC 5425); the others are built like them.
    service: &'static str,
}

/// The schemes of both directions.
#[rustfmt::skip]
const NETWORK_SCHEMES: [Scheme; 5] = [
    Scheme { name: "udp", listen: Some(Protocol::Syslog), forward: Some(ForwardProtocol::Syslog), transport: Transport::Udp, port: SYSLOG_PORT, service: "_syslog._udp" },
    Scheme { name: "tcp", listen: Some(Protocol::Syslog), forward: Some(ForwardProtocol::Syslog), transport: Transport::Tcp, port: SYSLOG_PORT, service: "_syslog._tcp" },
    Scheme { name: "tcp+tls", listen: Some(Protocol::Syslog), forward: Some(ForwardProtocol::Syslog), transport: Transport::Tls, port: SYSLOG_TLS_PORT, service: "_syslog-tls._tcp" },
    Scheme { name: "relp", listen: Some(Protocol::Relp), forward: Some(ForwardProtocol::Relp), transport: Transport::Tcp, port: RELP_PORT, service: "_relp._tcp" },
    Scheme { name: "relp+tls", listen: Some(Protocol::Relp), forward: Some(ForwardProtocol::Relp), transport: Transport::Tls, port: RELP_PORT, service: "_relp-tls._tcp" },
];

impl Scheme {
    fn named(name: &str) -> Option<&'static Self> {
        NETWORK_SCHEMES.iter().find(|scheme| scheme.name == name)
    }

    fn of_listener(protocol: Protocol, transport: Transport) -> &'static str {
        Self::name_of(|scheme| (scheme.listen, scheme.transport) == (Some(protocol), transport))
    }

    fn of_target(protocol: ForwardProtocol, transport: Transport) -> &'static str {
        Self::name_of(|scheme| (scheme.forward, scheme.transport) == (Some(protocol), transport))
    }

    fn name_of(is_it: impl Fn(&Self) -> bool) -> &'static str {
        NETWORK_SCHEMES.iter().find(|scheme| is_it(scheme)).expect("an address is only made from a scheme").name
    }

    /// The names of the schemes, for a person: `udp://, tcp://`.
    fn names(is_meant: impl Fn(&Self) -> bool) -> String {
        let names =
            NETWORK_SCHEMES.iter().filter(|scheme| is_meant(scheme)).map(|scheme| format!("{}://", scheme.name));
        names.collect::<Vec<_>>().join(", ")
    }
}

fn split_scheme(text: &str, schemes: impl Fn() -> String) -> Result<(&str, &str), String> {
    text.split_once("://").ok_or_else(|| format!("`{text}` is no address; write {}", schemes()))
}

fn bad_scheme(text: &str, scheme: &str, schemes: impl Fn() -> String) -> String {
    match scheme {
        "tls" | "ssl" | "tcp+ssl" => format!("`{text}`: write tcp+tls:// for TLS, as Docker does"),
        _ => format!("`{text}`: unknown scheme `{scheme}`; use {}", schemes()),
    }
}

fn absolute_path(text: &str, rest: &str) -> Result<PathBuf, String> {
    if rest.len() > 1 && rest.starts_with('/') && !rest.ends_with('/') {
        Ok(PathBuf::from(rest))
    } else {
        Err(format!("`{text}`: needs the absolute path of a file, with three slashes: unix:///run/logferry.sock"))
    }
}

#[cfg(test)]
mod tests;
