//! Detects clients that connect to the wrong port: which other protocol do the first bytes of a connection belong to? Pure.

/// How many bytes are examined.
pub const FIRST: usize = 16;

/// A protocol other than the listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A TLS handshake on a listener without a certificate.
    Tls,
    Http,
    /// RELP on a syslog listener.
    Relp,
    /// Fluentd's Forward protocol, as Docker's log driver `fluentd` speaks it.
    Forward,
    /// The PROXY protocol header, version 1 or 2.
    ProxyProtocol,
    /// Syslog on a RELP listener.
    Syslog,
}

/// The result of examining the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Foreign(Foreign),
    /// The listener's own protocol, as far as the first bytes show.
    Expected,
    /// Neither the listener's own protocol nor another known one.
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
    /// All protocols, in the order of their declaration.
    pub const ALL: [Self; 6] = [Self::Tls, Self::Http, Self::Relp, Self::Forward, Self::ProxyProtocol, Self::Syslog];

    /// The label that names this protocol as the reason of a refusal.
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

/// Examines the first bytes of a connection to a syslog listener.
pub fn at_syslog(first: &[u8]) -> Spoken {
    let Some(byte) = first.first() else { return Spoken::Open };
    match byte {
        b'<' | b'2'..=b'9' => Spoken::Expected,
        b'1' => relp_open(first),
        _ => anywhere(first),
    }
}

/// Examines the first bytes of a connection to a RELP listener that are not RELP. `None`: no known protocol.
pub fn at_relp(first: &[u8]) -> Option<Foreign> {
    match anywhere(first) {
        Spoken::Foreign(foreign) => Some(foreign),
        _ => (syslog(first) == Spoken::Foreign(Foreign::Syslog)).then_some(Foreign::Syslog),
    }
}

/// Examines the first bytes of a connection to an HTTP listener. Unknown bytes count as HTTP: they may be a method that is not in the
/// table.
pub fn at_http(first: &[u8]) -> Spoken {
    match elsewhere(first) {
        Spoken::Foreign(Foreign::Http) | Spoken::Unknown => Spoken::Expected,
        spoken => spoken,
    }
}

/// The first bytes of a connection, held until they show whether the client speaks the listener's protocol.
#[derive(Clone, Copy, Debug)]
pub enum FirstBytes {
    /// Not decided yet.
    Held {
        bytes: [u8; FIRST],
        len: usize,
    },
    Expected,
    /// Another protocol; `None`: an unknown one.
    Other(Option<Foreign>),
}

impl Default for FirstBytes {
    fn default() -> Self {
        Self::Held { bytes: [0; FIRST], len: 0 }
    }
}

impl FirstBytes {
    /// Takes the next bytes while the protocol is not decided. `Some`: the protocol is the expected one; the value holds the bytes that
    /// came before. An error: it is another protocol.
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

    /// Like [`take`](Self::take), for protocols that the first byte identifies. `is_strange`: whether no message of the expected protocol
    /// can begin with this byte. `None`: the protocol is the expected one, and the caller handles the bytes. An error: it is another
    /// protocol.
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

    /// The held bytes. They decide nothing yet.
    pub fn held(&self) -> &[u8] {
        match self {
            Self::Held { bytes, len } => &bytes[..*len],
            Self::Expected | Self::Other(_) => &[],
        }
    }

    /// Whether more bytes are needed to decide.
    pub fn are_held(&self) -> bool {
        !self.held().is_empty()
    }

    /// The foreign protocol, if it is a known one.
    pub fn foreign(&self) -> Option<Foreign> {
        match self {
            Self::Other(foreign) => *foreign,
            Self::Held { .. } | Self::Expected => None,
        }
    }
}

/// Examines bytes that the caller's own protocol cannot begin with.
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

/// Syslog: `<`, or an octet count in front of it as in `123 <`.
fn syslog(first: &[u8]) -> Spoken {
    let digits = first.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match first[digits..].strip_prefix(b" ").unwrap_or(&first[digits..]) {
        [b'<', ..] => Spoken::Foreign(Foreign::Syslog),
        [] if digits < FIRST - 2 => Spoken::Open,
        _ => Spoken::Expected,
    }
}

fn anywhere(first: &[u8]) -> Spoken {
    // Forward protocol in MessagePack: an array of two to four elements, the first of them a string (the tag). UTF-8 text cannot begin like
    // this.
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

/// `1 open LENGTH `, where LENGTH has at least two digits: `1 open issue` is text.
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
            // No later byte changes the result, and FIRST bytes are enough for one.
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
