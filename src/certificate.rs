//! What a certificate says of itself: whose it is, by whom, from when to when, for which names. Bytes in, facts out; it
//! verifies nothing, that is rustls' part.
//!
//! The walk is our own, for it is short: rustls-webpki keeps the validity to itself, and a parser of all of X.509
//! (x509-parser, x509-cert) is a tenth of a megabyte in the image's binary.

use std::fmt;
use std::net::IpAddr;

use chrono::{DateTime, NaiveDate, Utc};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The common name, or what stands in its place. Free of control characters, as all text here is.
    pub subject: String,
    /// The same of who signed it.
    pub issuer: String,
    pub not_before: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
    /// The DNS names and IP addresses it is for (subjectAltName).
    pub names: Vec<String>,
    /// May it sign others?
    pub is_ca: bool,
    /// In hexadecimal, as `openssl x509 -fingerprint -sha256` has it without the colons.
    pub fingerprint_sha256: String,
    subject_name: Vec<u8>,
    issuer_name: Vec<u8>,
}

impl Facts {
    /// Does it name `other` as who signed it? Whether that is true is in the signature.
    pub fn names_as_issuer(&self, other: &Self) -> bool {
        self.issuer_name == other.subject_name
    }

    pub fn is_self_issued(&self) -> bool {
        self.names_as_issuer(self)
    }
}

/// Bytes that are no X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an X.509 certificate")
    }
}

impl std::error::Error for Malformed {}

/// DER tags (X.690 8.1.2), as the one byte that they are here.
mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OID: u8 = 0x06;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const BMP_STRING: u8 = 0x1e;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    /// `[0]` around the version.
    pub const VERSION: u8 = 0xa0;
    /// `[3]` around the extensions.
    pub const EXTENSIONS: u8 = 0xa3;
    /// GeneralName's `[2]` and `[7]`.
    pub const DNS_NAME: u8 = 0x82;
    pub const IP_ADDRESS: u8 = 0x87;
}

/// 2.5.4.3, 2.5.29.17 and 2.5.29.19.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// Reads a certificate (RFC 5280 4.1).
pub fn read(der: &[u8]) -> Result<Facts, Malformed> {
    let mut body = Der(Der(Der(der).take(tag::SEQUENCE)?).take(tag::SEQUENCE)?);
    body.take_if(tag::VERSION)?;
    body.take(tag::INTEGER)?;
    body.take(tag::SEQUENCE)?;
    let issuer_name = body.take(tag::SEQUENCE)?;
    let mut validity = Der(body.take(tag::SEQUENCE)?);
    let (not_before, not_after) = (validity.time()?, validity.time()?);
    let subject_name = body.take(tag::SEQUENCE)?;
    body.take(tag::SEQUENCE)?;
    let mut facts = Facts {
        subject: common_name(subject_name)?,
        issuer: common_name(issuer_name)?,
        not_before,
        not_after,
        names: Vec::new(),
        is_ca: false,
        fingerprint_sha256: fingerprint(der),
        subject_name: subject_name.to_vec(),
        issuer_name: issuer_name.to_vec(),
    };
    while !body.is_empty() {
        if let (tag::EXTENSIONS, extensions) = body.next()? {
            read_extensions(&mut facts, extensions)?;
        }
    }
    Ok(facts)
}

fn read_extensions(facts: &mut Facts, wrapped: &[u8]) -> Result<(), Malformed> {
    let mut extensions = Der(Der(wrapped).take(tag::SEQUENCE)?);
    while !extensions.is_empty() {
        let mut extension = Der(extensions.take(tag::SEQUENCE)?);
        let id = extension.take(tag::OID)?;
        extension.take_if(tag::BOOLEAN)?;
        let value = extension.take(tag::OCTET_STRING)?;
        match id {
            SUBJECT_ALT_NAME => facts.names = alternative_names(value)?,
            BASIC_CONSTRAINTS => {
                let is_ca = Der(Der(value).take(tag::SEQUENCE)?).take_if(tag::BOOLEAN)?;
                facts.is_ca = is_ca.is_some_and(|flag| flag != [0]);
            }
            _ => {}
        }
    }
    Ok(())
}

fn alternative_names(value: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut names = Der(Der(value).take(tag::SEQUENCE)?);
    let mut found = Vec::new();
    while !names.is_empty() {
        match names.next()? {
            (tag::DNS_NAME, name) => found.push(printable(&String::from_utf8_lossy(name))),
            (tag::IP_ADDRESS, bytes) => found.extend(address(bytes).map(|address| address.to_string())),
            _ => {}
        }
    }
    Ok(found)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The common name; where there is none, the last attribute of the name: the most particular one.
fn common_name(name: &[u8]) -> Result<String, Malformed> {
    let mut sets = Der(name);
    let mut last = String::new();
    while !sets.is_empty() {
        let mut set = Der(sets.take(tag::SET)?);
        while !set.is_empty() {
            let mut attribute = Der(set.take(tag::SEQUENCE)?);
            let id = attribute.take(tag::OID)?;
            let (kind, value) = attribute.next()?;
            last = text(kind, value);
            if id == COMMON_NAME {
                return Ok(last);
            }
        }
    }
    Ok(last)
}

fn text(kind: u8, value: &[u8]) -> String {
    if kind != tag::BMP_STRING {
        return printable(&String::from_utf8_lossy(value));
    }
    let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    printable(&String::from_utf16_lossy(&units))
}

/// A certificate may be a stranger's, and what it says goes to a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// rustls has SHA-256 for its cipher suites.
fn fingerprint(der: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    let hash = suite.common.hash_provider.hash(der);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is left to read of a run of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value: its tag and its content.
    fn next(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let (&tag, rest) = self.0.split_first().ok_or(Malformed)?;
        let (&first, rest) = rest.split_first().ok_or(Malformed)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // So many bytes of length, the highest first. More than three would be a certificate of 16 MiB.
            0x81..=0x83 => {
                let (length, rest) = rest.split_at_checked(usize::from(first - 0x80)).ok_or(Malformed)?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return Err(Malformed),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok((tag, content))
    }

    /// The content of the next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let (found, content) = self.next()?;
        if found == tag { Ok(content) } else { Err(Malformed) }
    }

    /// The same of one that may be left out.
    fn take_if(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    /// `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from then on (RFC 5280 4.1.2.5).
    fn time(&mut self) -> Result<DateTime<Utc>, Malformed> {
        let (kind, text) = self.next()?;
        let (year, rest) = match kind {
            tag::UTC_TIME => {
                let (year, rest) = text.split_at_checked(2).ok_or(Malformed)?;
                let year = number(year)?;
                (year + if year < 50 { 2000 } else { 1900 }, rest)
            }
            tag::GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4).ok_or(Malformed)?;
                (number(year)?, rest)
            }
            _ => return Err(Malformed),
        };
        let [rest @ .., b'Z'] = rest else { return Err(Malformed) };
        let (&[mo, md, d, dd, h, hd, mi, mid, s, sd], []) = rest.split_first_chunk().ok_or(Malformed)? else {
            return Err(Malformed);
        };
        let date = NaiveDate::from_ymd_opt(year as i32, number(&[mo, md])?, number(&[d, dd])?).ok_or(Malformed)?;
        let time = date.and_hms_opt(number(&[h, hd])?, number(&[mi, mid])?, number(&[s, sd])?).ok_or(Malformed)?;
        Ok(time.and_utc())
    }
}

fn number(digits: &[u8]) -> Result<u32, Malformed> {
    digits.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' => Ok(sum * 10 + u32::from(digit - b'0')),
        _ => Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    /// Made by `openssl req -x509 -newkey ec`: what others than rcgen write.
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
        assert_eq!(facts.names, ["logs.example.com", "*.example.net", "192.0.2.1", "2001:db8::1"]);
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

    /// Whatever a byte is changed to, the reader comes back.
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
        let time = |kind, text: &str| {
            let der = [&[kind, text.len() as u8], text.as_bytes()].concat();
            Der(&der).time().map(|time| time.to_rfc3339())
        };
        assert_eq!(time(tag::UTC_TIME, "491231235959Z").as_deref(), Ok("2049-12-31T23:59:59+00:00"));
        assert_eq!(time(tag::UTC_TIME, "500101000000Z").as_deref(), Ok("1950-01-01T00:00:00+00:00"));
        assert_eq!(time(tag::GENERALIZED_TIME, "99991231235959Z").as_deref(), Ok("9999-12-31T23:59:59+00:00"));
        for bad in
            ["", "Z", "20260230000000Z", "20260101240000Z", "2026010100000Z", "20260101000000", "2026é101000000Z"]
        {
            assert_eq!(time(tag::GENERALIZED_TIME, bad), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn text_is_safe_on_a_terminal() {
        assert_eq!(text(0x0c, b"a\x1b[31m\xff"), "a\u{fffd}[31m\u{fffd}");
        assert_eq!(text(tag::BMP_STRING, b"\0a\x20\xac"), "a\u{20ac}");
    }
}
