//! Addresses as users write them: URLs with Docker's names for schemes. Addresses of listeners (`listen`) and of targets
//! (`forward`) are two closed sets. Nothing here opens a socket or asks a name server.

mod forward;
mod host;
mod listen;
mod reached;

use std::path::PathBuf;

pub use forward::{Destination, ForwardAddress};
pub use host::{Host, HostPort};
pub use listen::{ListenAddress, ListenTransport};
pub use reached::ReachedListener;

use crate::protocol::session::Protocol;
use host::host_port;

/// Syslog's port for `udp://` (RFC 5426) and, by custom, for `tcp://`.
pub const SYSLOG_PORT: u16 = 514;
/// Syslog over TLS (RFC 5425).
pub const SYSLOG_TLS_PORT: u16 = 6514;
/// RELP, plain or over TLS. It has no registered port; its documentation uses this one.
pub const RELP_PORT: u16 = 2514;

/// Fluentd's Forward protocol, as in Docker's `fluentd` driver.
pub const FLUENT_PORT: u16 = 24224;

/// GELF, as in Graylog and in Docker's `gelf` driver.
pub const GELF_PORT: u16 = 12201;

/// Splunk's HTTP Event Collector.
pub const SPLUNK_PORT: u16 = 8088;

/// systemd's journal over HTTP, as in `systemd-journal-upload`.
pub const JOURNAL_PORT: u16 = 19532;

/// NATS.
pub const NATS_PORT: u16 = 4222;

/// The protocol that a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardProtocol {
    /// Syslog. The collector sends no answers.
    Syslog,
    Relp,
    /// An API of a log store.
    Http,
    /// JetStream of NATS.
    Nats,
    /// Fluentd's Forward protocol.
    Fluent,
    /// GELF. The collector sends no answers.
    Gelf,
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
    /// The protocol of a listener; `None`: there are no listeners with this scheme.
    listen: Option<Protocol>,
    /// The protocol of a target; `None`: there are no targets with this scheme.
    forward: Option<ForwardProtocol>,
    transport: Transport,
    /// The default port.
    port: u16,
    /// The default service in SRV records. IANA registers `syslog` for UDP (RFC 5426) and `syslog-tls` (RFC 5425); the other
    /// names follow their example. Only targets have one.
    service: &'static str,
}

/// The schemes of listeners and targets.
#[rustfmt::skip]
const NETWORK_SCHEMES: [Scheme; 18] = [
    Scheme { name: "udp", listen: Some(Protocol::Syslog), forward: Some(ForwardProtocol::Syslog), transport: Transport::Udp, port: SYSLOG_PORT, service: "_syslog._udp" },
    Scheme { name: "tcp", listen: Some(Protocol::Syslog), forward: Some(ForwardProtocol::Syslog), transport: Transport::Tcp, port: SYSLOG_PORT, service: "_syslog._tcp" },
    Scheme { name: "tcp+tls", listen: Some(Protocol::Syslog), forward: Some(ForwardProtocol::Syslog), transport: Transport::Tls, port: SYSLOG_TLS_PORT, service: "_syslog-tls._tcp" },
    Scheme { name: "relp", listen: Some(Protocol::Relp), forward: Some(ForwardProtocol::Relp), transport: Transport::Tcp, port: RELP_PORT, service: "_relp._tcp" },
    Scheme { name: "relp+tls", listen: Some(Protocol::Relp), forward: Some(ForwardProtocol::Relp), transport: Transport::Tls, port: RELP_PORT, service: "_relp-tls._tcp" },
    Scheme { name: "fluent", listen: Some(Protocol::Fluent), forward: Some(ForwardProtocol::Fluent), transport: Transport::Tcp, port: FLUENT_PORT, service: "_fluent._tcp" },
    Scheme { name: "fluent+tls", listen: Some(Protocol::Fluent), forward: Some(ForwardProtocol::Fluent), transport: Transport::Tls, port: FLUENT_PORT, service: "_fluent-tls._tcp" },
    Scheme { name: "gelf+udp", listen: Some(Protocol::Gelf), forward: Some(ForwardProtocol::Gelf), transport: Transport::Udp, port: GELF_PORT, service: "_gelf._udp" },
    Scheme { name: "gelf+tcp", listen: Some(Protocol::Gelf), forward: Some(ForwardProtocol::Gelf), transport: Transport::Tcp, port: GELF_PORT, service: "_gelf._tcp" },
    Scheme { name: "gelf+tls", listen: Some(Protocol::Gelf), forward: Some(ForwardProtocol::Gelf), transport: Transport::Tls, port: GELF_PORT, service: "_gelf-tls._tcp" },
    Scheme { name: "splunk+http", listen: Some(Protocol::Splunk), forward: None, transport: Transport::Tcp, port: SPLUNK_PORT, service: "" },
    Scheme { name: "splunk+https", listen: Some(Protocol::Splunk), forward: None, transport: Transport::Tls, port: SPLUNK_PORT, service: "" },
    Scheme { name: "journal+http", listen: Some(Protocol::Journal), forward: None, transport: Transport::Tcp, port: JOURNAL_PORT, service: "" },
    Scheme { name: "http", listen: None, forward: Some(ForwardProtocol::Http), transport: Transport::Tcp, port: 80, service: "_http._tcp" },
    Scheme { name: "https", listen: None, forward: Some(ForwardProtocol::Http), transport: Transport::Tls, port: 443, service: "_https._tcp" },
    Scheme { name: "nats", listen: None, forward: Some(ForwardProtocol::Nats), transport: Transport::Tcp, port: NATS_PORT, service: "_nats._tcp" },
    Scheme { name: "nats+tls", listen: None, forward: Some(ForwardProtocol::Nats), transport: Transport::Tls, port: NATS_PORT, service: "_nats-tls._tcp" },
    Scheme { name: "journal+https", listen: Some(Protocol::Journal), forward: None, transport: Transport::Tls, port: JOURNAL_PORT, service: "" },
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

    /// The names of schemes for error messages: `udp://, tcp://`.
    fn names(is_meant: impl Fn(&Self) -> bool) -> String {
        let names =
            NETWORK_SCHEMES.iter().filter(|scheme| is_meant(scheme)).map(|scheme| format!("{}://", scheme.name));
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Splits off the scheme, in lower case (RFC 3986 3.1: the case does not matter).
fn split_scheme(text: &str, schemes: impl Fn() -> String) -> Result<(String, &str), String> {
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| format!("`{text}` is no address; write {}", schemes()))?;
    Ok((scheme.to_ascii_lowercase(), rest))
}

fn bad_scheme(text: &str, scheme: &str, schemes: impl Fn() -> String) -> String {
    match scheme {
        "tls" | "ssl" | "tcp+ssl" => format!("`{text}`: write tcp+tls:// for TLS, as Docker does"),
        _ => format!("`{text}`: unknown scheme `{scheme}`; use {}", schemes()),
    }
}

/// Reads the host and port of a target.
fn target(text: &str, rest: &str, default_port: u16) -> Result<Destination, String> {
    match host_port(text, rest, default_port)? {
        HostPort { port: 0, .. } => Err(format!("`{text}`: port 0 is not an address that one can connect to")),
        target => Ok(Destination::Host(target)),
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
