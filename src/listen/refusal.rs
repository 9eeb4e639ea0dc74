//! The reasons for which a listener refuses a peer: a closed set, with a counter and a text for each. A refusal is always counted,
//! shown in the status as the last one, and logged at intervals for a few addresses.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerIncompatible};

use crate::metrics::ListenMetrics;
use crate::protocol::foreign::Foreign;
use crate::protocol::session::{Protocol, Violation};
use crate::status::SharedListenerStatus;
use crate::tls::UnknownPeer;

/// The least time between two log entries with the same address and reason.
const SAY_EVERY: Duration = Duration::from_secs(300);
/// The most refusals that a listener logs in that time. Strangers can cause them from any number of addresses.
const MAX_SAID: usize = 16;

/// Why a connection was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The listener has `max-connections` connections.
    MaxConnections,
    /// The address has `max-connections-per-address` connections.
    MaxConnectionsPerAddress,
    /// `allow` does not contain the address.
    Allow,
    /// `client-allow` does not contain the address in the proxy's header.
    ClientAllow,
    /// The connection or datagram does not begin with a header of the PROXY protocol.
    NoProxyHeader,
    /// The header of the PROXY protocol did not come in time.
    ProxyHeaderTimeout,
    /// Plain text where only TLS is taken.
    Plaintext,
    /// The peer speaks another, known protocol.
    Foreign(Foreign, Protocol),
    /// The peer speaks neither the listener's protocol nor another known one; with the error.
    NotSpoken(Protocol, Violation),
    /// The data is no message. The sender may continue.
    NoMessage(Protocol, Violation),
    /// The request was refused, and its answer says why.
    Request(Protocol, Violation),
    /// The session violated its protocol after it had begun.
    Broken(Protocol, Violation),
    /// A message did not end in time.
    FrameTimeout,
    /// The session would exceed the memory limit of all sessions.
    MaxUnfinished,
    /// The sender has waited for an answer as long as it may.
    MaxWait,
    /// The TLS handshake did not end in time, or the RELP session was not opened in time.
    HandshakeTimeout,
    /// The peer presented no certificate, and the listener requires one.
    NoCertificate,
    /// No CA of `client-ca` has signed the certificate.
    UnknownCa,
    /// The certificate is valid, but its name or fingerprint is not among those configured; with the reason.
    UnknownSender(String),
    /// The certificate is invalid for another reason.
    BadCertificate(String),
    /// The peer supports no TLS version from 1.2 on.
    OldVersion,
    /// The peer refused the listener's certificate; with its alert.
    OwnCertificate(String),
    /// The TLS handshake failed in another way.
    Handshake(String),
}

impl RefusalReason {
    /// Why a TLS handshake with a sender failed.
    pub fn of_handshake(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        match inner {
            Some(TlsError::NoCertificatesPresented) => Self::NoCertificate,
            Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
                Self::UnknownCa
            }
            Some(TlsError::InvalidCertificate(CertificateError::Other(why))) if why.0.is::<UnknownPeer>() => {
                Self::UnknownSender(why.to_string())
            }
            // A certificate that is marked as a CA, like most self-signed ones.
            Some(TlsError::InvalidCertificate(CertificateError::Other(_))) => Self::UnknownCa,
            Some(TlsError::InvalidCertificate(why)) => Self::BadCertificate(why.to_string()),
            Some(TlsError::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // TLS 1.2 has introduced this extension.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
            ))
            | Some(TlsError::AlertReceived(AlertDescription::ProtocolVersion)) => Self::OldVersion,
            Some(TlsError::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::AccessDenied),
            )) => Self::OwnCertificate(format!("{alert:?}")),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Handshake("it hung up in the middle of the TLS handshake".to_owned())
            }
            _ => Self::Handshake(error.to_string()),
        }
    }

    /// The name of the reason in `/status`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::MaxConnections => "max-connections",
            Self::MaxConnectionsPerAddress => "max-connections-per-address",
            Self::Allow => "allow",
            Self::ClientAllow => "client-allow",
            Self::NoProxyHeader | Self::ProxyHeaderTimeout => "no-proxy-header",
            Self::Plaintext => "plaintext",
            Self::Foreign(foreign, _) => foreign.label(),
            Self::NotSpoken(_, violation)
            | Self::NoMessage(_, violation)
            | Self::Request(_, violation)
            | Self::Broken(_, violation) => violation.name,
            Self::FrameTimeout => "frame-timeout",
            Self::MaxUnfinished => "max-unfinished",
            Self::MaxWait => "max-wait",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::NoCertificate => "no-certificate",
            Self::UnknownCa => "unknown-ca",
            Self::UnknownSender(_) => "unknown-sender",
            Self::BadCertificate(_) => "bad-certificate",
            Self::OldVersion => "old-version",
            Self::OwnCertificate(_) => "own-certificate",
            Self::Handshake(_) => "handshake",
        }
    }

    fn counter<'m>(&self, metrics: &'m ListenMetrics) -> Cow<'m, Counter> {
        let refused = &metrics.refused;
        Cow::Borrowed(match self {
            Self::MaxConnections => &refused.max_connections,
            Self::MaxConnectionsPerAddress => &refused.max_connections_per_address,
            Self::Allow => &refused.allow,
            Self::ClientAllow => &refused.client_allow,
            Self::NoProxyHeader | Self::ProxyHeaderTimeout => &refused.proxy_protocol,
            Self::Plaintext => &refused.plaintext,
            Self::Foreign(foreign, _) => &refused.foreign[*foreign as usize],
            Self::NotSpoken(_, violation)
            | Self::NoMessage(_, violation)
            | Self::Request(_, violation)
            | Self::Broken(_, violation) => {
                return Cow::Owned(refused.of_violation(violation));
            }
            Self::FrameTimeout => &refused.frame_timeout,
            Self::MaxUnfinished => &refused.max_unfinished,
            Self::MaxWait => &refused.max_wait,
            Self::HandshakeTimeout
            | Self::NoCertificate
            | Self::UnknownCa
            | Self::UnknownSender(_)
            | Self::BadCertificate(_)
            | Self::OldVersion
            | Self::OwnCertificate(_)
            | Self::Handshake(_) => &metrics.handshake_failures,
        })
    }
}

/// Describes the event and the remedy.
impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxConnections => f.write_str("there are as many connections as `max-connections` allows"),
            Self::MaxConnectionsPerAddress => {
                f.write_str("it has as many connections as `max-connections-per-address` allows")
            }
            Self::Allow => f.write_str("its address is not in `allow`"),
            Self::ClientAllow => f.write_str("its address, as the proxy reports it, is not in `client-allow`"),
            Self::NoProxyHeader => f.write_str(
                "it did not begin with a header of the PROXY protocol (HAProxy: send-proxy or send-proxy-v2); let senders go \
                 through the proxy, or take `proxy-protocol` out",
            ),
            Self::ProxyHeaderTimeout => {
                f.write_str("its header of the PROXY protocol did not come within `handshake-timeout`")
            }
            Self::Plaintext => f.write_str(
                "it sent plain text, and only TLS is taken here; let it send by TLS (Docker: syslog-address=tcp+tls://…), \
                 or set `plaintext = true`, without `client-ca`",
            ),
            Self::Foreign(foreign, spoken) => match foreign {
                Foreign::Tls => f.write_str(
                    "it began a TLS handshake, and this listener has no certificate; give it one (`cert` and `key`), or let it \
                     send plain text (Docker: syslog-address=tcp://…)",
                ),
                Foreign::Http => {
                    write!(f, "it speaks HTTP, and {spoken} is spoken here; let it speak that, or go to another port")
                }
                Foreign::Relp => write!(
                    f,
                    "it speaks RELP, and {spoken} is spoken here; give it a listener with relp://, or let it speak {spoken}"
                ),
                Foreign::Forward => write!(
                    f,
                    "it speaks Fluentd's Forward protocol, and {spoken} is spoken here; give it a listener with fluent://, or \
                     let it speak {spoken} (Docker: another log-driver than fluentd)"
                ),
                Foreign::ProxyProtocol => f.write_str(
                    "a proxy put the header of the PROXY protocol in front, which this listener does not expect; set `proxy-protocol = true`, or let the proxy send \
                     none (HAProxy: no send-proxy)",
                ),
                Foreign::Syslog => write!(
                    f,
                    "it speaks plain syslog, and {spoken} is spoken here; give it a listener with tcp://, or let it speak {spoken}"
                ),
            },
            Self::NotSpoken(spoken, Violation { why, .. }) => {
                write!(f, "it does not speak {spoken}, which is spoken here: {why}")
            }
            Self::NoMessage(spoken, Violation { why, .. }) => {
                write!(f, "a message of {spoken} is lost, and its sender may go on: {why}")
            }
            Self::Request(spoken, Violation { why, .. }) => {
                write!(f, "a request of {spoken} was refused, and its sender told so: {why}")
            }
            Self::Broken(Protocol::Relp, Violation { why, .. }) => {
                write!(f, "its RELP session was ended: {why}; it was told, and sends again what has no answer")
            }
            Self::Broken(spoken, Violation { why, .. }) => write!(f, "its connection ({spoken}) was ended: {why}"),
            Self::FrameTimeout => f.write_str("its message did not end within `frame-timeout`"),
            Self::MaxUnfinished => {
                f.write_str("what all senders have begun takes as much memory as `max-unfinished` allows")
            }
            Self::MaxWait => f.write_str(
                "it had waited for an answer as long as `[spool] max-wait` allows, and sends again what has none; the spool takes \
                 nothing at present",
            ),
            Self::HandshakeTimeout => f.write_str("it did not end its handshake within `handshake-timeout`"),
            Self::NoCertificate => f.write_str(
                "it showed no certificate, and this listener asks for one; give it a certificate that `client-ca` has \
                 signed, or that `client-fingerprint` has (Docker: syslog-tls-cert and syslog-tls-key)",
            ),
            Self::UnknownCa => f.write_str(
                "no CA of `client-ca` has signed its certificate; give it one of that CA, or add its CA to the file",
            ),
            Self::UnknownSender(why) => write!(
                f,
                "{why}; if it is to be let in, add it to `client-names` or `client-fingerprint`"
            ),
            Self::BadCertificate(why) => write!(f, "its certificate cannot be used: {why}; give it another one"),
            Self::OldVersion => {
                f.write_str("it speaks no TLS 1.2 or 1.3, and older versions are not safe; update its TLS library")
            }
            Self::OwnCertificate(why) => write!(
                f,
                "it refused the certificate of this listener ({why}); give it the CA of `cert` \
                 (Docker: syslog-tls-ca-cert), and let it use a name that the certificate has"
            ),
            Self::Handshake(why) => write!(f, "the TLS handshake failed: {why}"),
        }
    }
}

/// Counts, shows and logs the refusals of one listener.
pub struct RefusalLog {
    /// The listener's address.
    address: String,
    metrics: ListenMetrics,
    status: SharedListenerStatus,
    said: Arc<Mutex<Said>>,
}

/// Recently logged refusals: address, label, time. This stays when the settings change.
#[derive(Default)]
pub struct Said(Vec<(Option<IpAddr>, &'static str, Instant)>);

impl RefusalLog {
    pub fn new(address: String, metrics: ListenMetrics, status: SharedListenerStatus, said: Arc<Mutex<Said>>) -> Self {
        Self { address, metrics, status, said }
    }

    /// Counts and reports a refusal. `peer` is `None` for a peer without an address, as on a unix socket.
    pub fn refuse(&self, peer: Option<IpAddr>, reason: &RefusalReason) {
        self.count(reason);
        self.report(peer, reason);
    }

    /// Counts a refusal, which may be one of many before a [`report`](Self::report).
    pub fn count(&self, reason: &RefusalReason) {
        self.count_many(reason, 1);
    }

    pub fn count_many(&self, reason: &RefusalReason, times: u64) {
        reason.counter(&self.metrics).inc_by(times);
    }

    /// Shows a refusal in the status, and logs it unless it was logged recently.
    pub fn report(&self, peer: Option<IpAddr>, reason: &RefusalReason) {
        let peer = peer.map(|peer| peer.to_canonical());
        self.status.refused(peer, reason.label(), reason);
        let Some(is_last) = self.said.lock().say(peer, reason.label(), Instant::now()) else { return };
        let peer = peer.map_or_else(|| "a sender".to_owned(), |peer| peer.to_string());
        let minutes = SAY_EVERY.as_secs() / 60;
        let more = if is_last { "; no more refusals are named for a while, `/status` has the last one" } else { "" };
        tracing::warn!(
            "listen: {}: {peer} was refused: {reason} (named once in {minutes} minutes, counted always{more})",
            self.address
        );
    }
}

impl Said {
    /// Whether to log this refusal, and whether it is the last one for which there is room.
    fn say(&mut self, peer: Option<IpAddr>, label: &'static str, now: Instant) -> Option<bool> {
        self.0.retain(|(_, _, said)| now.saturating_duration_since(*said) < SAY_EVERY);
        if self.0.len() >= MAX_SAID || self.0.iter().any(|(known, why, _)| (*known, *why) == (peer, label)) {
            return None;
        }
        self.0.push((peer, label, now));
        Some(self.0.len() == MAX_SAID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_named_once_in_a_while() {
        let (mut said, start) = (Said::default(), Instant::now());
        let peer = Some(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(said.say(peer, "plaintext", start), Some(false));
        assert_eq!(said.say(peer, "plaintext", start), None);
        assert_eq!(said.say(peer, "unknown-ca", start), Some(false), "another reason is news");
        assert_eq!(said.say(None, "plaintext", start), Some(false));
        assert_eq!(said.say(peer, "plaintext", start + SAY_EVERY), Some(false));
    }

    /// Strangers with ever-new addresses cause no more entries, and no larger table.
    #[test]
    fn many_addresses_are_named_for_a_while_only() {
        let (mut said, start) = (Said::default(), Instant::now());
        let mut named = 0;
        for round in 0..3 {
            for number in 0..1000 {
                let peer = Some(IpAddr::V4(number.into()));
                named += usize::from(said.say(peer, "plaintext", start + SAY_EVERY * round).is_some());
            }
        }
        assert_eq!((named, said.0.len()), (3 * MAX_SAID, MAX_SAID));
    }
}
