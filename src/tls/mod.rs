//! TLS for both directions: from PEM files to an acceptor or a connector. Only this directory builds rustls types.
//!
//! - `connector` handshakes with a server, and their errors
//! - `pem` files in; certificates, keys and CAs out
//! - `error` errors of certificates, keys and CAs
//! - `peers` verifiers: collectors by fingerprint, senders by name or fingerprint
//! - `expiry` the expiry of certificates, and warnings before it
//! - `credentials` what a listener reads: certificates, and secrets beside them
//! - `watch` notices changed files, and reads them again
//!
//! TLS 1.2 and 1.3 (RFC 9325, RFC 9662) with ring. No session tickets across restarts and no 0-RTT, because a replayed syslog
//! message is a forged one (RFC 8446 8).

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsAcceptor;

mod connector;
mod credentials;
mod error;
mod expiry;
mod peers;
mod pem;
mod watch;

use crate::config::{ClientTls, ServerTls};
pub use connector::{BlockingStream, Connector, Reader, explained_alert};
pub use credentials::{Credentials, CredentialsError};
pub use error::{FileProblem, TlsError};
pub use peers::UnknownPeer;
use peers::{KnownCollector, KnownSender};
pub use pem::{chain, facts};
use pem::{private_key, roots, system_roots};
pub use watch::{Renewed, Watch};

/// The listener's side. With a client CA, senders without a certificate signed by it are refused. With names and fingerprints,
/// senders with other certificates are refused.
pub fn acceptor(files: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = if files.is_mutual() {
        let mut verifier = match &files.client_ca {
            Some(ca) => senders_of(ca)?,
            None => KnownSender::unsigned(),
        };
        verifier.names.clone_from(&files.client_names);
        verifier.fingerprints.clone_from(&files.client_fingerprints);
        builder.with_client_cert_verifier(Arc::new(verifier))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(chain(&files.cert)?, private_key(&files.key)?)
        .map_err(TlsError::pair(&files.cert, &files.key))?;
    // Docker's driver never reads. Session tickets would stay unread in its socket, and closing a socket with unread data resets
    // the connection, which loses data that its kernel has not sent yet.
    config.send_tls13_tickets = 0;
    // A resumed session of TLS 1.2 keeps the identity from its first handshake: the certificate is not verified again. So no
    // session is stored.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The forward's side. The collector's certificate is always verified: against `ca`, its fingerprint or both, or against
/// the system's roots.
pub fn connector(files: &ClientTls) -> Result<Connector, TlsError> {
    let mut verifier = match &files.ca {
        Some(ca) => collectors_of(ca)?,
        None if files.server_fingerprints.is_empty() => KnownCollector::signed(system_roots()?)?,
        None => KnownCollector::unsigned(),
    };
    verifier.fingerprints.clone_from(&files.server_fingerprints);
    let verifier = Arc::new(verifier);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier.clone());
    let config = match files.identity() {
        Some((cert, key)) => {
            builder.with_client_auth_cert(chain(cert)?, private_key(key)?).map_err(TlsError::pair(cert, key))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Connector { config: Arc::new(config), verifier })
}

/// The name a collector's certificate must carry: a DNS name or an IP address.
pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::NotAServerName(name.to_owned()))
}

/// The side of a connection that a certificate of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// Whether a peer that trusts the CAs of `ca` would accept our `chain`. `name` is a name of a server.
pub fn leads_to(chain: &[CertificateDer<'_>], ca: &Path, role: Role, name: Option<&str>) -> Result<(), TlsError> {
    let (own, others) = chain.split_first().ok_or(TlsError::EmptyChain)?;
    let now = UnixTime::now();
    let verified = match role {
        Role::Client => senders_of(ca)?.verify_client_cert(own, others, now).map(drop),
        Role::Server => {
            // The verifier needs a concrete name: any label does for a wildcard.
            let name = server_name(&name.unwrap_or("localhost").replace('*', "any"))?;
            collectors_of(ca)?.verify_server_cert(own, others, &name, &[], now).map(drop)
        }
    };
    verified.map_err(TlsError::Refused)
}

/// Whether a peer that trusts the CAs of a file accepts this certificate (PEM): from the server of this name, or from a client.
pub fn would_accept(ca: &Path, certificate: &[u8], server: Option<&str>) -> Result<(), TlsError> {
    let certificate =
        CertificateDer::from_pem_slice(certificate).map_err(|error| TlsError::of(ca)(FileProblem::Unjudged(error)))?;
    let accepted = match server {
        Some(name) => {
            let verifier = collectors_of(ca)?;
            verifier.verify_server_cert(&certificate, &[], &server_name(name)?, &[], UnixTime::now()).map(drop)
        }
        None => senders_of(ca)?.verify_client_cert(&certificate, &[], UnixTime::now()).map(drop),
    };
    accepted.map_err(TlsError::of(ca))
}

/// Senders that these CAs have signed.
fn senders_of(ca: &Path) -> Result<KnownSender, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider()).build();
    Ok(KnownSender { signed: Some(verifier.map_err(TlsError::of(ca))?), cas: chain(ca)?, ..KnownSender::unsigned() })
}

/// Collectors that these CAs have signed.
fn collectors_of(ca: &Path) -> Result<KnownCollector, TlsError> {
    Ok(KnownCollector { cas: chain(ca)?, ..KnownCollector::signed(roots(ca)?)? })
}

impl KnownSender {
    /// A verifier without CAs, names and fingerprints, which the caller may add.
    fn unsigned() -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { signed: None, cas: Vec::new(), names: Vec::new(), fingerprints: Vec::new(), algorithms }
    }
}

impl KnownCollector {
    /// A verifier without CAs, names and fingerprints, which the caller may add.
    fn unsigned() -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { signed: None, cas: Vec::new(), fingerprints: Vec::new(), algorithms }
    }

    fn signed(roots: RootCertStore) -> Result<Self, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self { signed: Some(verifier.map_err(TlsError::NoUsableCa)?), ..Self::unsigned() })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
