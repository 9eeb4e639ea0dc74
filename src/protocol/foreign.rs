//! What is spoken by those who came to the wrong port, as far as their first bytes tell. Pure.

/// Bytes that are looked at.
pub const FIRST: usize = 16;

/// Another protocol than the one that a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A TLS handshake where there is no certificate.
    Tls,
    Http,
    /// RELP where syslog is spoken.
    Relp,
    /// Fluentd's Forward protocol, as Docker's log driver `fluentd` speaks it.
    Forward,
    /// The header that a proxy puts in front of a connection, of either version.
    ProxyProtocol,
    /// Syslog where RELP is spoken.
    Syslog,
}

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Foreign(Foreign),
    /// Nothing else than what is expected.
    Expected,
    /// Neither what is expected nor anything that is known.
    Unknown,
    /// More bytes are needed.
    Open,
}

const STARTS: [(&[u8], Foreign); 13] = [
    (b"\x16\x03", Foreign::Tls),
    (b"GET /", Foreign::Http),
    (b"POST /", Foreign::Http),
    (b"PUT /", Foreign::Http),
    (b"HEAD /", Foreign::Http),
    (b"PATCH /", Foreign::Http),
    (b"DELETE /", Foreign::Http),
    (b"OPTIONS /", Foreign::Http),
    (b"PRI * HTTP/2", Foreign::Http),
    (b"PROXY TCP4 ", Foreign::ProxyProtocol),
    (b"PROXY TCP6 ", Foreign::ProxyProtocol),
    (b"PROXY UNKNOWN", Foreign::ProxyProtocol),
    (b"\r\n\r\n\0\r\nQUIT\n", Foreign::ProxyProtocol),
];

impl Foreign {
    /// In the order of their declaration.
    pub const ALL: [Self; 6] = [Self::Tls, Self::Http, Self::Relp, Self::Forward, Self::ProxyProtocol, Self::Syslog];

    /// The name of the reason for which such a connection is refused.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Relp => "relp",
            Self::Forward => "forward",
            Self::ProxyProtocol => "proxy-protocol",
            Self::Syslog => "syslog",
        }
    }
}

/// What a connection to a listener for syslog begins with.
pub fn at_syslog(first: &[u8]) -> Spoken {
    let Some(byte) = first.first() else { return Spoken::Open };
    match byte {
        b'<' | b'2'..=b'9' => Spoken::Expected,
        b'1' => relp_open(first),
        _ => anywhere(first),
    }
}

/// What a connection to a listener for RELP, which is no RELP, begins with.
pub fn at_relp(first: &[u8]) -> Option<Foreign> {
    match anywhere(first) {
        Spoken::Foreign(foreign) => Some(foreign),
        _ => (syslog(first) == Spoken::Foreign(Foreign::Syslog)).then_some(Foreign::Syslog),
    }
}

/// What a connection to a listener for HTTP begins with. What is nothing that is known may be a method of HTTP.
pub fn at_http(first: &[u8]) -> Spoken {
    match elsewhere(first) {
        Spoken::Foreign(Foreign::Http) | Spoken::Unknown => Spoken::Expected,
        spoken => spoken,
    }
}

/// The first bytes of a connection, as long as they may tell that something else is spoken than what its listener expects.
#[derive(Clone, Copy, Debug)]
pub enum FirstBytes {
    /// They do not tell yet.
    Held {
        bytes: [u8; FIRST],
        len: usize,
    },
    Expected,
    /// Something else: what, where that is known.
    Other(Option<Foreign>),
}

impl Default for FirstBytes {
    fn default() -> Self {
        Self::Held { bytes: [0; FIRST], len: 0 }
    }
}

impl FirstBytes {
    /// Takes the next bytes, where it is not known yet what is spoken. Returns those before them, if all are what is expected now. An
    /// error: they are something else.
    pub fn take(&mut self, bytes: &[u8], tell: impl Fn(&[u8]) -> Spoken) -> Result<Option<Self>, ()> {
        let Self::Held { bytes: mut held, len } = *self else { return Ok(None) };
        let more = bytes.len().min(FIRST - len);
        held[len..len + more].copy_from_slice(&bytes[..more]);
        let before = *self;
        *self = match tell(&held[..len + more]) {
            Spoken::Open => Self::Held { bytes: held, len: len + more },
            Spoken::Expected => Self::Expected,
            Spoken::Foreign(foreign) => Self::Other(Some(foreign)),
            Spoken::Unknown => Self::Other(None),
        };
        match self {
            Self::Held { .. } => Ok(None),
            Self::Expected => Ok(Some(before)),
            Self::Other(_) => Err(()),
        }
    }

    /// The same, where the first byte alone says that what is expected begins. `is_strange`: whether nothing that is expected begins so. `None`: they are what is
    /// expected, and for the caller. An error: they are something else.
    pub fn take_strange(&mut self, bytes: &[u8], is_strange: impl Fn(u8) -> bool) -> Option<Result<(), ()>> {
        if bytes.is_empty() || !matches!(self, Self::Held { .. }) {
            return None;
        }
        let tell = |first: &[u8]| match first.first() {
            Some(&byte) if !is_strange(byte) => Spoken::Expected,
            _ => elsewhere(first),
        };
        match self.take(bytes, tell) {
            Ok(Some(_)) => None,
            Ok(None) => Some(Ok(())),
            Err(()) => Some(Err(())),
        }
    }

    pub fn are_expected(&self) -> bool {
        matches!(self, Self::Expected)
    }

    /// Those that are held, and of which more are waited for.
    pub fn held(&self) -> &[u8] {
        match self {
            Self::Held { bytes, len } => &bytes[..*len],
            Self::Expected | Self::Other(_) => &[],
        }
    }

    /// Whether more of them is waited for.
    pub fn are_held(&self) -> bool {
        !self.held().is_empty()
    }

    /// What is spoken instead, where that is known.
    pub fn foreign(&self) -> Option<Foreign> {
        match self {
            Self::Other(foreign) => *foreign,
            Self::Held { .. } | Self::Expected => None,
        }
    }
}

/// What a connection begins with that is not what is expected.
fn elsewhere(first: &[u8]) -> Spoken {
    let spoken = match anywhere(first) {
        Spoken::Expected => match relp_open(first) {
            Spoken::Expected => syslog(first),
            spoken => spoken,
        },
        spoken => spoken,
    };
    if spoken == Spoken::Expected { Spoken::Unknown } else { spoken }
}

/// `<` or, with an octet count in front, `123 <`.
fn syslog(first: &[u8]) -> Spoken {
    let digits = first.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match first[digits..].strip_prefix(b" ").unwrap_or(&first[digits..]) {
        [b'<', ..] => Spoken::Foreign(Foreign::Syslog),
        [] if digits < FIRST - 2 => Spoken::Open,
        _ => Spoken::Expected,
    }
}

fn anywhere(first: &[u8]) -> Spoken {
    // An array of two to four and the text of a tag. No text in UTF-8 begins so.
    if let [0x92..=0x94, behind @ ..] = first {
        return match behind.first() {
            Some(0xa1..=0xbf | 0xd9 | 0xda) => Spoken::Foreign(Foreign::Forward),
            Some(_) => Spoken::Expected,
            None => Spoken::Open,
        };
    }
    let mut spoken = Spoken::Expected;
    for (start, foreign) in STARTS {
        if first.starts_with(start) {
            return Spoken::Foreign(foreign);
        }
        if start.starts_with(first) {
            spoken = Spoken::Open;
        }
    }
    spoken
}

/// `1 open LENGTH `, the length of two digits or more: `1 open issue` is text.
fn relp_open(first: &[u8]) -> Spoken {
    const OPEN: &[u8] = b"1 open ";
    let Some(length) = first.strip_prefix(OPEN) else {
        return if OPEN.starts_with(first) { Spoken::Open } else { Spoken::Expected };
    };
    let digits = length.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match length.get(digits) {
        None if digits < FIRST - OPEN.len() => Spoken::Open,
        Some(b' ') if digits >= 2 => Spoken::Foreign(Foreign::Relp),
        _ => Spoken::Expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        for (first, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Spoken::Foreign(Foreign::Tls)),
            (b"GET / HTTP/1.1\r\n", Spoken::Foreign(Foreign::Http)),
            (b"POST /api/logs HTTP/1.1", Spoken::Foreign(Foreign::Http)),
            (b"PRI * HTTP/2.0\r\n", Spoken::Foreign(Foreign::Http)),
            (b"1 open 85 relp_version=0\n", Spoken::Foreign(Foreign::Relp)),
            (b"\x92\xa6docker\x92", Spoken::Foreign(Foreign::Forward)),
            (b"\x94\xd9\x40tag", Spoken::Foreign(Foreign::Forward)),
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 514\r\n", Spoken::Foreign(Foreign::ProxyProtocol)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Spoken::Foreign(Foreign::ProxyProtocol)),
            (b"<14>GET / HTTP/1.1", Spoken::Expected),
            (b"GET the report", Spoken::Expected),
            (b"GETTING /", Spoken::Expected),
            (b"1 open issue", Spoken::Expected),
            (b"1 open 3 closed", Spoken::Expected),
            (b"12 <13>1 open 85 ", Spoken::Expected),
            (b"\r\n<14>x", Spoken::Expected),
            (b"\x16\x04", Spoken::Expected),
            (b"\x93so\x94", Spoken::Expected),
            (b"{\"version\":\"1.1\"}", Spoken::Expected),
        ] {
            assert_eq!(at_syslog(first), expected, "{}", first.escape_ascii());
            // It is never taken back, and known from so many bytes on.
            let seen: Vec<_> =
                (0..=first.len()).map(|len| at_syslog(&first[..len])).filter(|it| *it != Spoken::Open).collect();
            assert!(seen.iter().all(|it| *it == expected), "{}", first.escape_ascii());
            assert_ne!(at_syslog(&first[..first.len().min(FIRST)]), Spoken::Open);
        }
        assert_eq!(
            [&b"<14>x"[..], b"12 <14>x", b"\x16\x03", b"x", b"1 syslog"].map(at_relp),
            [Some(Foreign::Syslog), Some(Foreign::Syslog), Some(Foreign::Tls), None, None]
        );
    }
}
