//! TLS for both directions: PEM files in, an acceptor or a connector out. The only room that builds rustls types.
//!
//! - `expiry`  when a certificate ends, and how soon that is worth a word
//! - `peers`   certificates that are known by fingerprint, senders that are known by name
//! - `watch`    which files have changed, and reading them again
//!
//! TLS 1.2 and 1.3 (RFC 9325, RFC 9662) with ring. No session tickets across restarts, no 0-RTT: a replayed syslog
//! message is a forged one (RFC 8446 8).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::{TlsAcceptor, TlsConnector};

mod expiry;
mod peers;
mod watch;

use peers::{KnownCollector, KnownSender};

use crate::certificate::{self, Facts};
use crate::config::{ClientTls, ServerTls};
pub use watch::{Renewed, Watch};

/// A certificate, key or CA that cannot be used: which file, and why.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// The listener's side. With a client CA, senders without a certificate of it are refused; with names and fingerprints,
/// those with another one.
pub fn acceptor(files: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(format!("TLS versions: {error}")))?;
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
        .map_err(|error| pair_error(&files.cert, &files.key, &error))?;
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
        Some(ca) => Some(roots_from(ca)?),
        None if files.server_fingerprints.is_empty() => Some(system_roots()?),
        None => None,
    };
    let signed = roots.map(collectors_of).transpose()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(format!("TLS versions: {error}")))?;
    let builder = match signed {
        Some(signed) if files.server_fingerprints.is_empty() => builder.with_webpki_verifier(signed),
        signed => builder.dangerous().with_custom_certificate_verifier(Arc::new(KnownCollector {
            signed,
            fingerprints: files.server_fingerprints.clone(),
            algorithms: provider().signature_verification_algorithms,
        })),
    };
    let config = match &files.identity {
        Some((cert, key)) => builder
            .with_client_auth_cert(chain(cert)?, private_key(key)?)
            .map_err(|error| pair_error(cert, key, &error))?,
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name a collector's certificate must carry: a DNS name or an IP address.
pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(bare.to_owned())
        .map_err(|_| TlsError(format!("`{name}` is no name that a certificate can carry; set `server-name`")))
}

/// Whose side a certificate of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// Whether somebody who has the CAs of `ca` would take our `chain`; `name` is one of a server's own.
pub fn leads_to(chain: &[CertificateDer<'_>], ca: &Path, role: Role, name: Option<&str>) -> Result<(), TlsError> {
    let (own, others) = chain.split_first().ok_or_else(|| TlsError("no certificate".to_owned()))?;
    let (roots, now) = (Arc::new(roots_from(ca)?), UnixTime::now());
    let unusable = |error: &dyn fmt::Display| TlsError(format!("{}: no usable CA: {error}", ca.display()));
    let verified = match role {
        Role::Client => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            verifier.map_err(|error| unusable(&error))?.verify_client_cert(own, others, now).map(drop)
        }
        Role::Server => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
            // A name is asked for; one for a wildcard is any.
            let name = server_name(&name.unwrap_or("localhost").replace('*', "any"))?;
            verifier.map_err(|error| unusable(&error))?.verify_server_cert(own, others, &name, &[], now).map(drop)
        }
    };
    verified.map_err(|error| TlsError(error.to_string()))
}

/// What went wrong in a handshake with a server; with advice where the usual reason is known.
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
    let unusable = |error: &dyn fmt::Display| TlsError(format!("{}: {error}", ca.display()));
    let certificate = CertificateDer::from_pem_slice(certificate).map_err(|error| unusable(&error))?;
    let accepted = match server {
        Some(name) => {
            let verifier = collectors_of(roots_from(ca)?)?;
            verifier.verify_server_cert(&certificate, &[], &server_name(name)?, &[], UnixTime::now()).map(drop)
        }
        None => senders_of(ca)?.verify_client_cert(&certificate, &[], UnixTime::now()).map(drop),
    };
    accepted.map_err(|error| unusable(&error))
}

fn senders_of(ca: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots_from(ca)?), provider())
        .build()
        .map_err(|error| TlsError(format!("{}: no usable CA: {error}", ca.display())))
}

fn collectors_of(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError(format!("no usable CA: {error}")))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM file, in its order; at least one.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error: &dyn fmt::Display| TlsError(format!("{}: {error}", path.display()));
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(|error| unreadable(&pem_problem(&error)))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&pem_problem(&error)))?;
    if chain.is_empty() {
        return Err(unreadable(&"no certificate in it; it needs -----BEGIN CERTIFICATE----- (PEM)"));
    }
    Ok(chain)
}

/// What the certificates of a file say, at least one. The first one of a chain is its owner's.
pub fn facts(path: &Path) -> Result<Vec<Facts>, TlsError> {
    let read = |der: &CertificateDer<'_>| certificate::read(der);
    let facts = chain(path)?.iter().map(read).collect::<Result<_, _>>();
    facts.map_err(|error| TlsError(format!("{}: {error}", path.display())))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => TlsError(format!(
            "{}: no private key in it; it needs -----BEGIN PRIVATE KEY----- (PEM, not encrypted)",
            path.display()
        )),
        error => TlsError(format!("{}: {}", path.display(), pem_problem(&error))),
    })
}

fn pem_problem(error: &rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("cannot read it: {error}; logferry runs as uid {}", nix::unistd::geteuid())
        }
        rustls_pki_types::pem::Error::Io(error) => format!("cannot read it: {error}"),
        other => format!("not a PEM file: {other}"),
    }
}

fn pair_error(cert: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    TlsError(format!("{} and {} do not work together: {error}", cert.display(), key.display()))
}

fn roots_from(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError(format!("{}: not a CA certificate: {error}", path.display())))?;
    }
    Ok(roots)
}

/// The machine's CA bundle, as OpenSSL would find it (`SSL_CERT_FILE`, `SSL_CERT_DIR`, /etc/ssl/certs).
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 {
        let says = "no system roots found (/etc/ssl/certs, SSL_CERT_FILE): set `ca` to the CA that signed the collector's certificate";
        return Err(TlsError(says.to_owned()));
    }
    Ok(roots)
}

/// A client over a blocking socket, for the commands that send.
pub fn blocking_client(
    files: &ClientTls,
    name: &str,
    socket: std::net::TcpStream,
) -> Result<rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>, TlsError> {
    let config = connector(files)?.config().clone();
    let connection = rustls::ClientConnection::new(config, server_name(name)?)
        .map_err(|error| TlsError(format!("TLS with {name}: {error}")))?;
    Ok(rustls::StreamOwned::new(connection, socket))
}
