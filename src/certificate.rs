//! The facts that a certificate states: its subject, issuer, validity and names. This module verifies nothing: rustls does that, but
//! has no function that returns the facts.
//!
//! x509-cert reads the certificate. A name in it is read here, because a certificate with one odd name among good ones is
//! still good for the others.

use std::fmt;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::{Any, AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Tag, TagNumber, Tagged};
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::hex;
use crate::record::escaped;

/// The facts of one certificate. Its texts are escaped, because a stranger may have written them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The subject's common name. Without one, the last attribute of the subject.
    pub subject: String,
    /// The issuer's common name, by the same rule.
    pub issuer: String,
    pub not_before: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
    /// The DNS names and IP addresses the certificate is for (subjectAltName, RFC 5280 4.2.1.6).
    pub names: Vec<SubjectName>,
    /// May the certificate sign others? (basicConstraints, RFC 5280 4.2.1.9)
    pub is_ca: bool,
    /// The SHA-256 of the certificate in hexadecimal, as `openssl x509 -fingerprint -sha256` has it without the colons.
    pub fingerprint_sha256: String,
    subject_name: Name,
    issuer_name: Name,
}

/// A name that a certificate is for. A DNS name that is written like an address is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    Dns(String),
    Address(IpAddr),
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Facts {
    /// Does the certificate name `other` as its issuer? Only the signature can prove that.
    pub fn names_as_issuer(&self, other: &Self) -> bool {
        self.issuer_name == other.subject_name
    }

    /// Are subject and issuer one name?
    pub fn is_self_issued(&self) -> bool {
        self.names_as_issuer(self)
    }
}

/// Bytes that are no X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate")]
pub struct Malformed;

impl From<x509_cert::der::Error> for Malformed {
    fn from(_: x509_cert::der::Error) -> Self {
        Self
    }
}

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// GeneralName's dNSName and iPAddress.
const DNS_NAME: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber(2) };
const IP_ADDRESS: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber(7) };

/// Reads a certificate (RFC 5280 4.1).
pub fn read(der: &[u8]) -> Result<Facts, Malformed> {
    // `Raw`, not the profile of RFC 5280: a certificate whose serial number is too long is still a certificate.
    let certificate = CertificateInner::<Raw>::from_der(der)?;
    let body = certificate.tbs_certificate();
    let mut names = Vec::new();
    for extension in body.extensions().into_iter().flatten().filter(|extension| extension.extn_id == SUBJECT_ALT_NAME) {
        names = alternative_names(extension.extn_value.as_bytes())?;
    }
    let constraints = body.get_extension::<BasicConstraints>()?;
    Ok(Facts {
        subject: common_name(body.subject()),
        issuer: common_name(body.issuer()),
        not_before: moment(body.validity().not_before),
        not_after: moment(body.validity().not_after),
        names,
        is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
        fingerprint_sha256: fingerprint(der),
        subject_name: body.subject().clone(),
        issuer_name: body.issuer().clone(),
    })
}

fn alternative_names(value: &[u8]) -> Result<Vec<SubjectName>, Malformed> {
    let name = |name: AnyRef<'_>| match name.tag() {
        DNS_NAME => Some(SubjectName::Dns(escaped(&String::from_utf8_lossy(name.value())))),
        IP_ADDRESS => address(name.value()).map(SubjectName::Address),
        _ => None,
    };
    Ok(Vec::<AnyRef<'_>>::from_der(value)?.into_iter().filter_map(name).collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The common name. Without one, the last attribute of the name, which is the most specific.
fn common_name(name: &Name) -> String {
    let attribute = name.iter().find(|attribute| attribute.oid == COMMON_NAME).or_else(|| name.iter().last());
    attribute.map_or_else(String::new, |attribute| text(&attribute.value))
}

fn text(value: &Any) -> String {
    if value.tag() != Tag::BmpString {
        return escaped(&String::from_utf8_lossy(value.value()));
    }
    let units: Vec<u16> = value.value().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    escaped(&String::from_utf16_lossy(&units))
}

/// Converts a time of X.509, which lies between 1970 and 9999.
fn moment(time: Time) -> DateTime<Utc> {
    time.to_system_time().into()
}

/// The SHA-256 of a certificate. rustls has the function for its cipher suites.
fn fingerprint(der: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    let hash = suite.common.hash_provider.hash(der);
    hex::encode(hash.as_ref())
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use x509_cert::der::Encode;

    use super::*;

    /// Made by `openssl req -x509 -newkey ec`: a certificate that rcgen has not written.
    const PEM: &str = "-----BEGIN CERTIFICATE-----
MIICIDCCAcagAwIBAgIUXXkh+IPhp/VIHpi/RWX3rMNlZ68wCgYIKoZIzj0EAwIw
OjELMAkGA1UEBhMCREUxEDAOBgNVBAoMB0V4YW1wbGUxGTAXBgNVBAMMEGxvZ3Mu
ZXhhbXBsZS5jb20wIBcNMjYxMTIxMTQ1NTUwWhgPMjA1MTA3MTMxNDU1NTBaMDox
CzAJBgNVBAYTAkRFMRAwDgYDVQQKDAdFeGFtcGxlMRkwFwYDVQQDDBBsb2dzLmV4
YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEyRvlRAcoxXCtRRkO
uXZ2NYShcJYp13HT9E0xM5pvnc5qoG/rB/VrAAmgxtqENM5ekEtEOGOot2qKwrwB
j6T6R6OBpzCBpDAdBgNVHQ4EFgQU5cIeacQCITsMaoQCT5Sjp+t7yx4wHwYDVR0j
BBgwFoAU5cIeacQCITsMaoQCT5Sjp+t7yx4wDwYDVR0TAQH/BAUwAwEB/zBRBgNV
HREESjBIghBsb2dzLmV4YW1wbGUuY29tgg0qLmV4YW1wbGUubmV0hwTAAAIBhxAg
AQ24AAAAAAAAAAAAAAABgQ1hQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUC
IHC+pM94eFkO7sShe0n7Cp7//djqGlB9TPnFr35x9TDzAiEA96qXbdAmNXp6BGTL
CanDdvdJf1MCu0PLL6cnBLOTakQ=
-----END CERTIFICATE-----";

    fn der() -> Vec<u8> {
        CertificateDer::from_pem_slice(PEM.as_bytes()).expect("a certificate").to_vec()
    }

    #[test]
    fn a_certificate_tells() {
        let facts = read(&der()).expect("a certificate");
        assert_eq!((facts.subject.as_str(), facts.issuer.as_str()), ("logs.example.com", "logs.example.com"));
        let names: Vec<String> = facts.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["logs.example.com", "*.example.net", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(facts.not_before.to_rfc3339(), "2026-11-21T14:55:50+00:00");
        assert_eq!(facts.not_after.to_rfc3339(), "2051-07-13T14:55:50+00:00");
        assert!(facts.is_ca && facts.is_self_issued());
        assert_eq!(facts.fingerprint_sha256, "add1157deec13f5b31962b648d82bec74f62c1ae10ddde86a97d500a9d241d9b");
    }

    #[test]
    fn nothing_but_a_certificate_is_one() {
        let der = der();
        for end in 0..der.len() {
            assert_eq!(read(&der[..end]), Err(Malformed), "cut at {end}");
        }
        for bytes in
            [&b"\x30\x80"[..], b"\x30\x84\xff\xff\xff\xff", b"\x30\x83\xff\xff\xff", b"\x31\x00", b"\x30\x02\x30\x00"]
        {
            assert_eq!(read(bytes), Err(Malformed), "{bytes:02x?}");
        }
    }

    /// The reader returns whatever value a byte is changed to.
    #[test]
    fn bytes_of_a_stranger_do_not_end_the_process() {
        let good = der();
        let mut told_otherwise = 0;
        for at in 0..good.len() {
            for value in [0x00, 0x01, 0x1f, 0x30, 0x7f, 0x80, 0x81, 0x84, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                told_otherwise += usize::from(read(&bytes) != read(&good));
            }
        }
        assert!(told_otherwise > good.len(), "it looks at few of the bytes");
    }

    #[test]
    fn years() {
        let time = |tag: Tag, text: &str| {
            let der = Any::new(tag, text.as_bytes()).expect("a short value").to_der().expect("DER");
            Time::from_der(&der).map(|time| moment(time).to_rfc3339()).ok()
        };
        assert_eq!(time(Tag::UtcTime, "491231235959Z").as_deref(), Some("2049-12-31T23:59:59+00:00"));
        assert_eq!(time(Tag::UtcTime, "700101000000Z").as_deref(), Some("1970-01-01T00:00:00+00:00"));
        assert_eq!(time(Tag::GeneralizedTime, "99991231235959Z").as_deref(), Some("9999-12-31T23:59:59+00:00"));
        for bad in
            ["", "Z", "20260230000000Z", "20260101240000Z", "2026010100000Z", "20260101000000", "2026é101000000Z"]
        {
            assert_eq!(time(Tag::GeneralizedTime, bad), None, "{bad}");
        }
    }

    /// A name of an unknown kind, or with illegal characters, leaves the other names readable.
    #[test]
    fn an_odd_name_is_one_name() {
        let names = b"\x30\x16\x82\x01a\x82\x02\xc3\xbc\xa3\x02\x05\x00\x87\x03\x01\x02\x03\x87\x04\x0a\x00\x00\x01";
        assert_eq!(
            alternative_names(names),
            Ok(vec![
                SubjectName::Dns("a".to_owned()),
                SubjectName::Dns("ü".to_owned()),
                SubjectName::Address([10, 0, 0, 1].into()),
            ])
        );
        assert_eq!(alternative_names(&names[..20]), Err(Malformed));
    }

    #[test]
    fn text_is_safe_on_a_terminal() {
        let text = |tag, bytes: &[u8]| text(&Any::new(tag, bytes).expect("a short value"));
        assert_eq!(text(Tag::Utf8String, b"a\x1b[31m\xff"), "a\\u{1b}[31m\u{fffd}");
        assert_eq!(text(Tag::BmpString, b"\0a\x20\xac"), "a\u{20ac}");
    }
}
