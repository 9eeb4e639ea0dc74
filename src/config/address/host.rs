//! `host:port`, as in every address on the network.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::SYSLOG_PORT;

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

/// Reads `host`, `host:port`, `1.2.3.4:port`, `[::1]:port`.
pub(super) fn host_port(text: &str, rest: &str, default_port: u16) -> Result<HostPort, String> {
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

pub(super) fn name_or_ipv4(text: &str, host: &str) -> Result<Host, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    // RFC 1035 2.3.4, and underscores, which names of containers and services have. With a dot at the end the search list is
    // not used.
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(legal) && !label.starts_with('-') && !label.ends_with('-')
    };
    let digits_and_dots = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let labels = host.strip_suffix('.').unwrap_or(host).split('.').all(label);
    if host.is_empty() {
        return Err(format!("`{text}`: there is no host in it"));
    }
    if host.len() > 253 || digits_and_dots || !labels {
        return Err(format!("`{text}`: `{host}` is neither a host name nor an IP address"));
    }
    Ok(Host::Name(host.to_owned()))
}

pub(super) fn port(text: &str, digits: &str) -> Result<u16, String> {
    // `parse` alone would accept a sign.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.ok_or_else(|| format!("`{text}`: `{digits}` is no port (0 to 65535)"))
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
