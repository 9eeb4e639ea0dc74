//! TLS for both directions: PEM files in, an acceptor or a connector out. The only folder that builds rustls types.
//!
//! - `pem`     files in; certificates, keys and CAs out
//! - `error`   what can be wrong with them
//! - `peers`   certificates that are known by fingerprint, senders that are known by name
//! - `expiry`  when a certificate ends, and how soon that is worth a log line
//! - `watch`   which files have changed, and reading them again
//!
//! TLS 1.2 and 1.3 (RFC 9325, RFC 9662) with ring. No session tickets across restarts, no 0-RTT: a replayed syslog
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
use tokio_rustls::{TlsAcceptor, TlsConnector};

mod error;
mod expiry;
mod peers;
mod pem;
mod watch;

use crate::config::{ClientTls, ServerTls};
pub use error::{FileProblem, TlsError};
use peers::{KnownCollector, KnownSender};
pub use pem::{chain, facts};
use pem::{private_key, roots, system_roots};
pub use watch::{Renewed, Watch};

/// The listener's side. With a client CA, senders without a certificate of it are refused; with names and fingerprints,
/// those with another one.
pub fn acceptor(files: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = if files.is_mutual() {
        builder.with_client_cert_verifier(Arc::new(KnownSender {
            signed: files.client_ca.as_deref().map(senders_of).transpose()?,
            names: files.client_names.clone(),
            fingerprints: files.client_fingerprints.clone(),
            algorithms: provider().signature_verification_algorithms,
        }))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(chain(&files.cert)?, private_key(&files.key)?)
        .map_err(TlsError::pair(&files.cert, &files.key))?;
    // Docker's driver never reads: tickets would lie unread in its socket, and closing that resets the connection, with
    // what its kernel had not sent yet.
    config.send_tls13_tickets = 0;
    // Who resumes a session of TLS 1.2 is taken for who he was then: his certificate is not looked at again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The forward's side. The collector's certificate is always verified: against `ca`, its fingerprint or both, or against
/// the system's roots.
pub fn connector(files: &ClientTls) -> Result<TlsConnector, TlsError> {
    let roots = match &files.ca {
        Some(ca) => Some(roots(ca)?),
        None if files.server_fingerprints.is_empty() => Some(system_roots()?),
        None => None,
    };
    let signed = roots.map(collectors_of).transpose()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match signed {
        Some(signed) if files.server_fingerprints.is_empty() => builder.with_webpki_verifier(signed),
        signed => builder.dangerous().with_custom_certificate_verifier(Arc::new(KnownCollector {
            signed,
            fingerprints: files.server_fingerprints.clone(),
            algorithms: provider().signature_verification_algorithms,
        })),
    };
    let config = match files.identity() {
        Some((cert, key)) => {
            builder.with_client_auth_cert(chain(cert)?, private_key(key)?).map_err(TlsError::pair(cert, key))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
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

/// Whether somebody who has the CAs of `ca` would take our `chain`; `name` is one of a server's own.
pub fn leads_to(chain: &[CertificateDer<'_>], ca: &Path, role: Role, name: Option<&str>) -> Result<(), TlsError> {
    let (own, others) = chain.split_first().ok_or(TlsError::EmptyChain)?;
    let (roots, now) = (Arc::new(roots(ca)?), UnixTime::now());
    let verified = match role {
        Role::Client => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            verifier.map_err(TlsError::of(ca))?.verify_client_cert(own, others, now).map(drop)
        }
        Role::Server => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
            // A name is asked for; one for a wildcard is any.
            let name = server_name(&name.unwrap_or("localhost").replace('*', "any"))?;
            verifier.map_err(TlsError::of(ca))?.verify_server_cert(own, others, &name, &[], now).map(drop)
        }
    };
    verified.map_err(TlsError::Refused)
}

/// Explains an error of a handshake with a server, with advice where the usual reason is known.
pub fn explained(error: &std::io::Error, files: &ClientTls) -> String {
    use rustls::CertificateError::{BadSignature, Other, UnknownIssuer};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(Other(ours))) = inner {
        return ours.to_string();
    }
    if !matches!(inner, Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature))) {
        return error.to_string();
    }
    let roots = files.ca.as_ref().map_or_else(|| "the system's roots".to_owned(), |ca| ca.display().to_string());
    format!("{error}: no CA of {roots} has signed its certificate; set `ca` (--ca, LOGFERRY_CA)")
}

/// Whether who trusts the CA of a file takes this certificate (PEM): from a server called so, or else from a client.
pub fn would_accept(ca: &Path, certificate: &[u8], server: Option<&str>) -> Result<(), TlsError> {
    let certificate =
        CertificateDer::from_pem_slice(certificate).map_err(|error| TlsError::of(ca)(FileProblem::Unjudged(error)))?;
    let accepted = match server {
        Some(name) => {
            let verifier = collectors_of(roots(ca)?)?;
            verifier.verify_server_cert(&certificate, &[], &server_name(name)?, &[], UnixTime::now()).map(drop)
        }
        None => senders_of(ca)?.verify_client_cert(&certificate, &[], UnixTime::now()).map(drop),
    };
    accepted.map_err(TlsError::of(ca))
}

fn senders_of(ca: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider()).build().map_err(TlsError::of(ca))
}

fn collectors_of(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(TlsError::NoUsableCa)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client over a blocking socket, for the commands that send.
pub fn blocking_client(
    files: &ClientTls,
    name: &str,
    socket: std::net::TcpStream,
) -> Result<rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>, TlsError> {
    let config = connector(files)?.config().clone();
    let connection = rustls::ClientConnection::new(config, server_name(name)?)
        .map_err(|source| TlsError::Client { name: name.to_owned(), source })?;
    Ok(rustls::StreamOwned::new(connection, socket))
}
