//! The forward's side of a handshake. The connector remembers the certificate that the server has shown, so that the error of a
//! failed handshake can say what is wrong with it and what to write into the config.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use chrono::SecondsFormat;
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, PeerIncompatible,
    SignatureScheme, StreamOwned,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::peers::{KnownCollector, UnknownPeer};
use crate::certificate::{self, Facts};
use crate::config::{ClientTls, Fingerprint};

/// Makes the TLS connections of a forward.
#[derive(Clone)]
pub struct Connector {
    pub(super) config: Arc<ClientConfig>,
    pub(super) verifier: Arc<KnownCollector>,
}

/// A client over a blocking socket.
pub type BlockingStream = StreamOwned<ClientConnection, TcpStream>;

/// The reader of an error message, which decides the advice in it: settings or flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Settings of a forward to a collector.
    OfForward,
    /// Flags of a command that sends to a relay.
    OfFlags,
}

/// A handshake that failed.
pub struct HandshakeError {
    error: io::Error,
    /// The certificate of the server, if the handshake got that far and the certificate can be read.
    shown: Option<Box<Facts>>,
}

impl Connector {
    /// Shakes hands with a server, whose certificate must be for `name`.
    pub async fn connect<S>(&self, name: ServerName<'static>, stream: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (config, witness) = self.witnessed();
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| witness.testifies(error))
    }

    /// [`connect`](Self::connect) over a blocking socket, for the commands that send.
    pub fn connect_blocking(
        &self,
        name: ServerName<'static>,
        mut socket: TcpStream,
    ) -> Result<BlockingStream, HandshakeError> {
        let (config, witness) = self.witnessed();
        let connected = ClientConnection::new(config, name).map_err(io::Error::other).and_then(|mut connection| {
            while connection.is_handshaking() {
                connection.complete_io(&mut socket)?;
            }
            Ok(connection)
        });
        match connected {
            Ok(connection) => Ok(StreamOwned::new(connection, socket)),
            Err(error) => Err(witness.testifies(error)),
        }
    }

    fn witnessed(&self) -> (Arc<ClientConfig>, Arc<Witness>) {
        let witness = Arc::new(Witness { verifier: self.verifier.clone(), shown: Mutex::default() });
        let mut config = ClientConfig::clone(&self.config);
        config.dangerous().set_certificate_verifier(witness.clone());
        (Arc::new(config), witness)
    }
}

impl HandshakeError {
    /// The error, with advice if the usual cause is known. `expected`: the name that was asked for.
    pub fn explained(&self, expected: &str, files: &ClientTls, to: Reader) -> String {
        let Self { error, shown } = self;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match (inner, shown) {
            (Some(Error::InvalidCertificate(why)), Some(shown)) => unusable(why, shown, (expected, files), to),
            (Some(Error::InvalidMessage(_)), _) => {
                "it does not answer in TLS; is that a TLS port? Plain syslog is tcp://, plain RELP relp://".to_owned()
            }
            (Some(Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)), _)
            | (Some(Error::AlertReceived(AlertDescription::ProtocolVersion)), _) => {
                "it speaks no TLS 1.2 or 1.3, and older versions are not safe; update it".to_owned()
            }
            // A logferry listener without TLS closes the connection like this.
            (None, None) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                "it hung up in the middle of the handshake; is that a TLS port?".to_owned()
            }
            // The read timeout of a blocking socket.
            (None, None) if error.kind() == io::ErrorKind::WouldBlock => {
                "it does not answer in time; is that a TLS port?".to_owned()
            }
            _ => explained_alert(error, to),
        }
    }
}

impl Reader {
    /// The owner that the certificate should have.
    fn whose(self) -> &'static str {
        match self {
            Self::OfForward => "the collector's",
            Self::OfFlags => "the relay's",
        }
    }
}

/// Why a certificate is refused. `expected`: the name that was asked for.
fn unusable(why: &CertificateError, shown: &Facts, (expected, files): (&str, &ClientTls), to: Reader) -> String {
    use CertificateError::*;
    let (fingerprint, whose) = (Fingerprint::of(shown), to.whose());
    match why {
        Other(ours) if ours.0.is::<UnknownPeer>() => {
            format!("{ours}; if it is {whose}, add it to `server-fingerprint`")
        }
        // rustls reports "other" for a CA's certificate. Most programs mark a self-signed certificate as a CA's.
        UnknownIssuer | BadSignature | Other(_) if shown.is_self_issued() => match to {
            Reader::OfForward => {
                let instead = if files.ca.is_some() { " in place of `ca`" } else { "" };
                format!(
                    "its certificate is signed by itself; use server-fingerprint = [\"{fingerprint}\"]{instead}, if it is {whose}"
                )
            }
            Reader::OfFlags => format!(
                "its certificate ({fingerprint}) is signed by itself; name the file that has it with --ca, if it is {whose}"
            ),
        },
        UnknownIssuer | BadSignature => {
            let roots =
                files.ca.as_ref().map_or_else(|| "the system's roots".to_owned(), |ca| ca.display().to_string());
            let set = match to {
                Reader::OfForward => "set `ca` (--ca, LOGFERRY_CA) to the CA that has",
                Reader::OfFlags => "name the CA that has with --ca",
            };
            format!(
                "invalid peer certificate: no CA of {roots} has signed its certificate (`{}` has); {set}",
                shown.issuer
            )
        }
        Other(_) if shown.is_ca => {
            let pin = match to {
                Reader::OfForward => format!(", or use server-fingerprint = [\"{fingerprint}\"] without `ca`"),
                Reader::OfFlags => String::new(),
            };
            format!("it shows the certificate of a CA; have it show one of its own{pin}")
        }
        NotValidForName | NotValidForNameContext { .. } => not_for(expected, shown, files, to),
        Expired | ExpiredContext { .. } => format!(
            "its certificate has ended at {}; it needs a new one",
            shown.not_after.to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
        NotValidYet | NotValidYetContext { .. } => format!(
            "its certificate is valid from {} on; is this machine's clock right?",
            shown.not_before.to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
        other => format!("invalid peer certificate: {other}"),
    }
}

/// The message for a certificate with other names.
fn not_for(expected: &str, shown: &Facts, files: &ClientTls, to: Reader) -> String {
    const SHOWN_NAMES: usize = 8;
    let names: Vec<String> = shown.names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        let pin = match to {
            Reader::OfForward => {
                format!(
                    "use server-fingerprint = [\"{}\"] without `ca`, or make one with names",
                    Fingerprint::of(shown)
                )
            }
            Reader::OfFlags => "make one with names".to_owned(),
        };
        return format!("its certificate is for no name (subjectAltName), and so not for `{expected}`; {pin}");
    }
    let more = if names.len() > SHOWN_NAMES { " and others" } else { "" };
    let listed = names.iter().take(SHOWN_NAMES).cloned().collect::<Vec<_>>().join(", ");
    // A wildcard is not a host name.
    let example = names.iter().find(|name| !name.contains('*')).map(|name| name.trim_matches('`'));
    let set = match (to, files.server_name.is_some()) {
        (Reader::OfForward, true) => "change `server-name`",
        (Reader::OfForward, false) => "set `server-name`",
        (Reader::OfFlags, true) => "change --server-name",
        (Reader::OfFlags, false) => "set --server-name",
    };
    let example = example.map_or_else(String::new, |name| match to {
        Reader::OfForward => format!(", as in server-name = \"{name}\""),
        Reader::OfFlags => format!(", as in --server-name {name}"),
    });
    let whose = to.whose();
    format!(
        "its certificate is for {listed}{more} and not for `{expected}`; {set} to one of its names{example}, if it is {whose}"
    )
}

/// The text of an error on a TLS connection, with advice if the peer has refused our certificate.
pub fn explained_alert(error: &io::Error, to: Reader) -> String {
    use AlertDescription::*;
    let alert = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => alert,
        _ => return error.to_string(),
    };
    let settings = match to {
        Reader::OfForward => ["`cert` and `key`", "`cert`, `key`"],
        Reader::OfFlags => ["--cert and --key", "--cert, --key"],
    };
    match alert {
        CertificateRequired => {
            format!("{error}: it asks for a certificate of ours; set {}", settings[0])
        }
        UnknownCA
        | BadCertificate
        | UnsupportedCertificate
        | CertificateRevoked
        | CertificateExpired
        | CertificateUnknown
        | AccessDenied => {
            format!("{error}: it has refused our certificate; show it one of a CA that it knows ({})", settings[1])
        }
        _ => error.to_string(),
    }
}

/// Delegates to another verifier, and remembers the certificate.
#[derive(Debug)]
struct Witness {
    verifier: Arc<KnownCollector>,
    shown: Mutex<Option<CertificateDer<'static>>>,
}

impl Witness {
    /// Adds the remembered certificate to an error.
    fn testifies(&self, error: io::Error) -> HandshakeError {
        let shown = self.shown.lock().take().and_then(|shown| certificate::read(&shown).ok()).map(Box::new);
        HandshakeError { error, shown }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.shown.lock() = Some(certificate.clone().into_owned());
        self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
