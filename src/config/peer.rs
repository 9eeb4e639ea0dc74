//! TLS peers, authenticated as in RFC 5425: by the fingerprint of their certificate (4.2.2), or by a name in it (5.2).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::certificate::{Facts, SubjectName};

/// The SHA-256 of a certificate, written `sha-256:E1:2D:…`. RFC 5425 also has SHA-1, but such fingerprints can be forged today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The fingerprint as 64 hexadecimal digits in lower case.
    digits: String,
}

impl Fingerprint {
    pub fn of(facts: &Facts) -> Self {
        Self { digits: facts.fingerprint_sha256.clone() }
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ASK: &str = "`openssl x509 -noout -fingerprint -sha256 -in FILE` tells it";
        let (algorithm, digits) = text.split_once(':').unwrap_or(("", text));
        if algorithm.eq_ignore_ascii_case("sha-1") {
            return Err(format!("`{text}`: a SHA-1 fingerprint can be forged; write \"sha-256:…\"; {ASK}"));
        }
        let digits = digits.replace(':', "").to_ascii_lowercase();
        if algorithm != "sha-256" || digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("`{text}`: a fingerprint is \"sha-256:\" and 32 pairs of digits, E1:2D:…; {ASK}"));
        }
        Ok(Self { digits })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha-256")?;
        self.digits
            .as_bytes()
            .chunks(2)
            .try_for_each(|pair| write!(f, ":{}", String::from_utf8_lossy(pair).to_ascii_uppercase()))
    }
}

/// A name that a certificate must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerName {
    Address(IpAddr),
    /// A DNS name in lower case.
    Name(String),
    /// A domain with any single label in front. It is written with `*.`.
    Under(String),
}

impl PeerName {
    /// Whether a name of a certificate matches. A wildcard on either side stands for exactly one label, the leftmost. Two
    /// wildcards never match: a certificate for all names below a domain is not the certificate of one host there.
    pub fn is(&self, of_certificate: &SubjectName) -> bool {
        let dns = match (self, of_certificate) {
            (Self::Address(configured), SubjectName::Address(address)) => return configured == address,
            (Self::Address(_), SubjectName::Dns(_)) | (_, SubjectName::Address(_)) => return false,
            (_, SubjectName::Dns(name)) => name.to_ascii_lowercase(),
        };
        match (self, dns.strip_prefix("*.")) {
            (Self::Name(name), Some(domain)) => one_below(name, domain),
            (Self::Name(name), None) => dns == *name,
            (Self::Under(domain), None) => one_below(&dns, domain),
            (Self::Under(_), Some(_)) | (Self::Address(_), _) => false,
        }
    }
}

/// Whether `name` is exactly one label in front of `domain`.
fn one_below(name: &str, domain: &str) -> bool {
    name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain)
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let domain = text.strip_prefix("*.");
        let name = domain.unwrap_or(text).to_ascii_lowercase();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(legal);
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(format!(
                "`{text}`: write a DNS name or an IP address of the certificate's subjectAltName; `*.` in front of a domain \
                 stands for one label"
            ));
        }
        Ok(if domain.is_some() { Self::Under(name) } else { Self::Name(name) })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
            Self::Under(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        let pairs = vec!["A1"; 32].join(":");
        let parsed: Fingerprint = format!("sha-256:{pairs}").parse().expect("a fingerprint");
        assert_eq!(parsed.to_string(), format!("sha-256:{pairs}"));
        assert_eq!(Ok(parsed), format!("sha-256:{}", "a1".repeat(32)).parse());
        let refused = |text: &str| text.parse::<Fingerprint>().expect_err(text);
        assert!(refused("sha-1:E1:2D:53:2B:7C:6B:8A:29:A2:76:C8:64:36:0B:08:4B:7A:F1:9E:9D").contains("can be forged"));
        for text in ["", "sha-256:", &pairs, &format!("sha-256:{pairs}:A1"), &format!("sha-256:{}", "g1".repeat(32))] {
            assert!(refused(text).contains("32 pairs"), "{text}");
        }
    }

    #[test]
    fn names() {
        let dns = |name: &str| SubjectName::Dns(name.to_owned());
        let is = |configured: &str, name: &str| {
            let name = name.parse().map_or_else(|_| dns(name), SubjectName::Address);
            configured.parse::<PeerName>().expect(configured).is(&name)
        };
        for (configured, name) in [
            ("node-7", "node-7"),
            ("Node-7.example.com", "node-7.EXAMPLE.com"),
            ("*.hosts.example.com", "node-7.hosts.example.com"),
            ("node-7.hosts.example.com", "*.hosts.example.com"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:DB8::7", "2001:db8::7"),
        ] {
            assert!(is(configured, name), "{configured}: {name}");
        }
        for (configured, name) in [
            ("node-7", "node-77"),
            ("node-7", ""),
            ("node-7", "*"),
            ("*.hosts.example.com", "*.hosts.example.com"),
            ("*.hosts.example.com", "hosts.example.com"),
            ("*.hosts.example.com", ".hosts.example.com"),
            ("*.hosts.example.com", "a.b.hosts.example.com"),
            ("*.hosts.example.com", "a.hosts.example.com.evil.org"),
            ("a.b.example.com", "*.example.com"),
            ("node-7.example.com", "node-*.example.com"),
            ("node-7.example.com", "node-7.*.com"),
            ("192.0.2.7", "*.0.2.7"),
        ] {
            assert!(!is(configured, name), "{configured}: {name}");
        }
        // A DNS name in a certificate must not authenticate the IP address that it looks like.
        for address in ["192.0.2.7", "2001:db8::7"] {
            assert!(!address.parse::<PeerName>().expect(address).is(&dns(address)), "{address}");
        }
        for text in ["", "*", "*.", "a.*.example.com", "node-*.example.com", "a..b", "a b", "[::1]"] {
            assert!(text.parse::<PeerName>().is_err(), "{text}");
        }
    }
}
