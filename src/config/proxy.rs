//! The proxy for requests, from the key `proxy`, or from the variables that all HTTP clients use.

use std::fmt;
use std::str::FromStr;

use super::secret::Secret;
use super::{Destination, ForwardAddress, Host, HostPort};
use crate::hex;
use crate::record::AddressRange;

/// The value of `proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyChoice {
    /// `HTTPS_PROXY` or `HTTP_PROXY`, depending on the server's scheme, unless `NO_PROXY` names the server.
    Variables,
    Off,
    Through(Proxy),
}

/// An HTTP proxy (RFC 9110 3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    address: ForwardAddress,
    /// `user:password`
    credentials: Option<Secret>,
}

impl ProxyChoice {
    /// The proxy for a server. `Err`: the variable is invalid.
    pub fn of(
        &self,
        server: &ForwardAddress,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Proxy>, String> {
        let Some(Destination::Host(host)) = server.remote().filter(|_| server.is_http()) else { return Ok(None) };
        match self {
            Self::Off => Ok(None),
            Self::Through(proxy) => Ok(Some(proxy.clone())),
            Self::Variables => {
                let name = if server.is_tls() { "HTTPS_PROXY" } else { "HTTP_PROXY" };
                let excepted = written("NO_PROXY", variable).unwrap_or_default();
                let text = written(name, variable).filter(|_| !is_excepted(host, &excepted));
                text.map(|text| text.parse().map_err(|why| format!("the variable {name}: {why}"))).transpose()
            }
        }
    }

    /// Reads the value of the key.
    pub fn read(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Variables),
            "off" => Ok(Self::Off),
            url => url.parse().map(Self::Through),
        }
    }
}

impl fmt::Display for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variables => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Through(proxy) => proxy.fmt(f),
        }
    }
}

impl Proxy {
    /// The address of the proxy.
    pub fn destination(&self) -> Option<&Destination> {
        self.address.remote()
    }

    /// The credentials for the proxy: `user:password`.
    pub fn credentials(&self) -> Option<String> {
        self.credentials.as_ref()?.read().ok()
    }
}

/// Writes the proxy without its credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may end with a slash.
        f.write_str(self.address.to_string().trim_end_matches('/'))
    }
}

impl FromStr for Proxy {
    type Err = String;

    /// Errors do not quote the text, because it may contain a password.
    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "write http://proxy.example.com:3128, \"off\" or \"auto\"";
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(format!("no {scheme}:// is spoken with proxies; {RIGHT}")),
        };
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => {
                (Some(unescaped(credentials).ok_or("no user and password stand in front of @")?), host)
            }
            None => (None, rest),
        };
        let address: Result<ForwardAddress, _> = format!("http://{host}").parse();
        let address = address.ok().filter(|address| matches!(address.path(), "" | "/"));
        let address = address.ok_or_else(|| format!("that is no proxy; {RIGHT}"))?;
        Ok(Self { address, credentials: credentials.map(Secret::hidden) })
    }
}

/// The value of a variable. Its name in lower case comes first. An empty variable counts as unset.
fn written(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
    set(&name.to_ascii_lowercase()).or_else(|| set(name))
}

/// Whether `NO_PROXY` names a server: by its name, a domain above it, its address, or a range. A name or address may have a
/// port. Servers on this machine are never reached through a proxy.
fn is_excepted(server: &HostPort, excepted: &str) -> bool {
    let is_local = match &server.host {
        Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Address(address) => address.is_loopback(),
    };
    let mut entries = excepted.split(|separator: char| separator == ',' || separator.is_ascii_whitespace());
    is_local || entries.any(|entry| !entry.is_empty() && names(entry, server))
}

fn names(entry: &str, server: &HostPort) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(range) = entry.parse::<AddressRange>() {
        return matches!(&server.host, Host::Address(address) if range.contains(*address));
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (entry, None),
    };
    if port.is_some_and(|port| port.parse() != Ok(server.port)) {
        return false;
    }
    let (name, host) = (name.trim_start_matches('*').trim_start_matches('.'), server.host.to_string());
    let (name, host) =
        (name.trim_end_matches('.').to_ascii_lowercase(), host.trim_end_matches('.').to_ascii_lowercase());
    // The match must begin at a label.
    host.strip_suffix(&name).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

/// Decodes `user:password` of a URL (RFC 3986 2.1).
fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        bytes.extend(hex::decode::<1>(piece.as_bytes().get(..2)?)?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    // The value becomes part of a header, which must not contain line ends.
    String::from_utf8(bytes).ok().filter(|text| text.contains(':') && !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ForwardAddress {
        text.parse().expect(text)
    }

    #[test]
    fn variables_say_it_as_every_client_reads_them() {
        let check = |variables: &[(&str, &str)], to: &str, expected: Option<&str>| {
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            let found = ProxyChoice::Variables.of(&server(to), &variable).expect("good");
            assert_eq!(found.map(|proxy| proxy.to_string()).as_deref(), expected, "{variables:?} {to}");
        };
        let both = [("HTTPS_PROXY", "http://a:1"), ("HTTP_PROXY", "b:2")];
        check(&both, "https://es", Some("http://a:1"));
        check(&both, "http://es", Some("http://b:2"));
        check(&both, "tcp://es", None);
        check(&both, "srv+https://es.example.com", None);
        check(&both, "http://localhost", None);
        check(&both, "http://127.0.0.2", None);
        check(&both, "http://[::1]", None);
        check(&[], "https://es", None);
        check(&[("https_proxy", "c"), both[0]], "https://es", Some("http://c:80"));
        check(&[("https_proxy", ""), both[0]], "https://es", Some("http://a:1"));
        let except = |excepted: &str, to: &str, is_excepted: bool| {
            check(&[both[0], ("no_proxy", excepted)], to, (!is_excepted).then_some("http://a:1"));
        };
        except("*", "https://es.example.com", true);
        except("a,example.com", "https://es.example.com", true);
        except("a, .example.com", "https://es.example.com", true);
        except("*.example.com", "https://ES.example.com.", true);
        except("es.example.com:443", "https://es.example.com", true);
        except("es.example.com:9200", "https://es.example.com", false);
        except("ample.com", "https://es.example.com", false);
        except("10.0.0.0/8", "https://10.1.2.3", true);
        except("10.1.2.3", "https://10.1.2.3", true);
        except("10.0.0.0/8", "https://11.1.2.3", false);
        except(",", "https://es.example.com", false);
    }

    #[test]
    fn what_it_knows_us_by_is_sent_and_never_shown() {
        let proxy: Proxy = "http://relay:hunter2%40%3a@proxy.example.com:3128/".parse().expect("good");
        assert_eq!(proxy.credentials().as_deref(), Some("relay:hunter2@:"));
        assert_eq!(proxy.to_string(), "http://proxy.example.com:3128");
        assert!(!format!("{proxy:?}").contains("hunter2"), "{proxy:?}");
        assert_eq!("http://a".parse::<Proxy>().expect("good").credentials(), None);
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_being_shown() {
        for text in [
            "socks5://u:hunter2@a",
            "https://u:hunter2@a",
            "http://u:hunter2@",
            "http://hunter2@a",
            "http://u:hunter2%@a",
            "http://u:hunter2@a/b",
            "http://u:hunter2%0a@a",
        ] {
            let says = text.parse::<Proxy>().expect_err(text);
            assert!(!says.contains("hunter2"), "{text}: {says}");
            let choice = ProxyChoice::Variables.of(&server("https://es"), &|_| Some(text.to_owned()));
            assert_eq!(choice.expect_err(text).split(": ").next(), Some("the variable HTTPS_PROXY"), "{text}");
        }
    }
}
