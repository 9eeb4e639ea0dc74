//! The addresses that a forward sends messages to.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use super::host::{Host, HostPort, name_or_ipv4};
use super::{ForwardProtocol, Scheme, Transport, absolute_path, bad_scheme, split_scheme, target};
use crate::record::template::{Field, Part, parts, unknown_field};

const NO_PASSWORD: &str = "a password does not stand in an address; write `user` and `password-file`";

/// The address of a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardAddress {
    Network(NetworkAddress),
    /// A bucket of S3. Its server is the config's `endpoint`, or AWS'.
    Bucket(Bucket),
    /// A path with fields of the message in it: `{host}`, `{name}`, `{image}`, `{id}`, `{app}` and others.
    File(PathBuf),
    Stdout,
}

/// A collector on the network, with its protocol and transport. Only parsing creates one, so that it always has a scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkAddress {
    protocol: ForwardProtocol,
    transport: Transport,
    destination: Destination,
    /// The path after host and port, with its query. Only HTTP has a path.
    path: String,
}

/// A bucket, and the prefix of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    name: String,
    /// The prefix, with a `/` in front. It may be empty.
    prefix: String,
}

/// The name or address of a collector on the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    Host(HostPort),
    /// The full name of SRV records, `_syslog._tcp.example.com`. The records contain hosts and ports (RFC 2782).
    Service(String),
}

impl ForwardAddress {
    /// The schemes of targets, for error messages and the help.
    pub fn schemes() -> String {
        let schemes = Scheme::names(|scheme| scheme.forward.is_some());
        format!("{schemes}, these with srv+ in front, s3://bucket/prefix, file:///path or stdout:")
    }

    /// The address on the network; `None` for a bucket, a file and stdout.
    pub fn network(&self) -> Option<&NetworkAddress> {
        match self {
            Self::Network(address) => Some(address),
            Self::Bucket(_) | Self::File(_) | Self::Stdout => None,
        }
    }

    /// The destination to look up; `None` for a bucket, a file and stdout.
    pub fn remote(&self) -> Option<&Destination> {
        self.network().map(NetworkAddress::destination)
    }

    /// Whether messages are sent as syslog over TCP without TLS: the collector sends no answer, so it may not have understood
    /// them.
    pub fn is_plain_syslog(&self) -> bool {
        self.network().is_some_and(|to| (to.protocol, to.transport) == (ForwardProtocol::Syslog, Transport::Tcp))
    }

    pub fn is_relp(&self) -> bool {
        self.network().is_some_and(|to| to.protocol == ForwardProtocol::Relp)
    }

    pub fn is_http(&self) -> bool {
        self.network().is_some_and(|to| to.protocol == ForwardProtocol::Http)
    }

    pub fn is_bucket(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    pub fn is_nats(&self) -> bool {
        self.network().is_some_and(|to| to.protocol == ForwardProtocol::Nats)
    }

    pub fn is_fluent(&self) -> bool {
        self.network().is_some_and(|to| to.protocol == ForwardProtocol::Fluent)
    }

    pub fn is_gelf(&self) -> bool {
        self.network().is_some_and(|to| to.protocol == ForwardProtocol::Gelf)
    }

    /// Whether lines arrive with their structured data unchanged.
    pub fn keeps_marks(&self) -> bool {
        self.network().is_some_and(|to| matches!(to.protocol, ForwardProtocol::Syslog | ForwardProtocol::Relp))
    }

    /// The path after host and port, with its query, as it is written.
    pub fn path(&self) -> &str {
        self.network().map_or("", |to| &to.path)
    }

    pub fn is_udp(&self) -> bool {
        self.network().is_some_and(|address| address.transport == Transport::Udp)
    }

    /// Whether the target uses TLS. A bucket counts as TLS, although its `endpoint` may be `http://`.
    pub fn is_tls(&self) -> bool {
        self.is_bucket() || self.network().is_some_and(|address| address.transport == Transport::Tls)
    }
}

impl Bucket {
    /// The URL of the bucket, on the server `endpoint` or on AWS' server of the region. `Err`: the URL is invalid.
    pub fn url(&self, endpoint: Option<&ForwardAddress>, region: &str) -> Result<ForwardAddress, String> {
        let Self { name, prefix } = self;
        let aws = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let url = match endpoint {
            Some(endpoint) => format!("{}/{name}{prefix}", endpoint.to_string().trim_end_matches('/')),
            // AWS' wildcard certificate covers only one label in front of its name.
            None if name.contains('.') => format!("https://s3.{region}.{aws}/{name}{prefix}"),
            None => format!("https://{name}.s3.{region}.{aws}{prefix}"),
        };
        url.parse()
    }
}

impl NetworkAddress {
    pub fn protocol(&self) -> ForwardProtocol {
        self.protocol
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    pub fn destination(&self) -> &Destination {
        &self.destination
    }
}

impl FromStr for ForwardAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "stdout:" || text == "stdout://" || text == "stdout" {
            return Ok(Self::Stdout);
        }
        let (scheme, rest) = split_scheme(text, Self::schemes)?;
        if scheme == "file" {
            return Ok(Self::File(file_template(text, rest)?));
        }
        if scheme == "s3" {
            return Ok(Self::Bucket(bucket(text, rest)?));
        }
        let by_service = scheme.strip_prefix("srv+");
        let found = Scheme::named(by_service.unwrap_or(&scheme)).and_then(|found| Some((found, found.forward?)));
        let Some((found, protocol)) = found else {
            return Err(bad_scheme(text, &scheme, Self::schemes));
        };
        let (rest, path) = match protocol {
            ForwardProtocol::Http => path(text, rest)?,
            ForwardProtocol::Nats if rest.contains('@') => {
                return Err(format!("`{text}`: {NO_PASSWORD}"));
            }
            ForwardProtocol::Syslog
            | ForwardProtocol::Relp
            | ForwardProtocol::Nats
            | ForwardProtocol::Fluent
            | ForwardProtocol::Gelf => (rest, String::new()),
        };
        let destination = match by_service {
            Some(_) => service(text, rest, found.service)?,
            None => target(text, rest, found.port)?,
        };
        Ok(Self::Network(NetworkAddress { protocol, transport: found.transport, destination, path }))
    }
}

/// Splits host and port from the path with its query (RFC 3986 3.3, 3.4).
fn path<'t>(text: &str, rest: &'t str) -> Result<(&'t str, String), String> {
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@?".contains(&byte);
    if let Some(bad) = path.bytes().find(|byte| !is_legal(*byte)) {
        return Err(format!("`{text}`: {:?} cannot stand in the path of a log store", char::from(bad)));
    }
    if host.contains('@') {
        return Err(format!("`{text}`: {NO_PASSWORD}"));
    }
    Ok((host, path.to_owned()))
}

/// Reads the name and the prefix of a bucket, by AWS' rules for names
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
fn bucket(text: &str, rest: &str) -> Result<Bucket, String> {
    let (name, prefix) = path(text, rest)?;
    let is_end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_legal = |byte: u8| is_end(&byte) || b".-".contains(&byte);
    let ends_well = [name.as_bytes().first(), name.as_bytes().last()].into_iter().flatten().all(is_end);
    let is_address = name.parse::<Ipv4Addr>().is_ok();
    if !(3..=63).contains(&name.len()) || !name.bytes().all(is_legal) || !ends_well || name.contains("..") || is_address
    {
        return Err(format!(
            "`{text}`: the name of a bucket has 3 to 63 small letters, digits, dots and dashes; write s3://my-bucket/prefix, and its \
             server as `endpoint`"
        ));
    }
    if prefix.contains('?') {
        return Err(format!("`{text}`: the prefix of a bucket's keys has no `?`"));
    }
    Ok(Bucket { name: name.to_owned(), prefix })
}

fn file_template(text: &str, rest: &str) -> Result<PathBuf, String> {
    if let Some(wrong) = unknown_field(rest) {
        return Err(format!("`{text}`: {wrong}"));
    }
    let has_slash = |part: &Part| matches!(part, Part::Field(Field::Label(name)) if name.contains('/'));
    if parts(rest).iter().any(has_slash) {
        let says = "a path has no field with / in its name; write {label.x} and fields = { x = \"{label.a/b}\" }";
        return Err(format!("`{text}`: {says}"));
    }
    absolute_path(text, rest)
}

/// Reads `_service._proto.domain`, or a domain, for which the service is `usual`.
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
    // With the service in front, the name may be too long.
    name_or_ipv4(text, &name).map(|_| Destination::Service(name))
}

impl fmt::Display for ForwardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Bucket(Bucket { name, prefix }) => write!(f, "s3://{name}{prefix}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Stdout => f.write_str("stdout:"),
        }
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = Scheme::of_target(self.protocol, self.transport);
        match &self.destination {
            Destination::Host(to) => write!(f, "{scheme}://{to}{}", self.path),
            Destination::Service(name) => write!(f, "srv+{scheme}://{name}{}", self.path),
        }
    }
}

/// Writes the name for the lookup.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(to) => to.host.fmt(f),
            Self::Service(name) => f.write_str(name),
        }
    }
}
