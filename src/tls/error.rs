//! Errors of certificates, keys and CAs: the file, and what is wrong with it.

use std::io;
use std::path::{Path, PathBuf};

use rustls::server::VerifierBuilderError;
use rustls_pki_types::pem;

use crate::certificate::Malformed;

/// TLS that cannot be set up, or a certificate that a peer would refuse.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: FileProblem },
    #[error("{} and {} do not work together: {source}; name the key that belongs to the certificate", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error(
        "no system roots found (/etc/ssl/certs, SSL_CERT_FILE): set `ca` to the CA that signed the collector's certificate"
    )]
    NoSystemRoots,
    /// The roots were valid one by one, and cannot be used together: those of the system or of a file.
    #[error("no usable CA: {0}")]
    NoUsableCa(#[source] VerifierBuilderError),
    #[error("`{0}` is no name that a certificate can carry; set `server-name`")]
    NotAServerName(String),
    #[error("TLS versions: {0}")]
    Versions(#[source] rustls::Error),
    #[error("no certificate")]
    EmptyChain,
    /// A peer that has the CA would refuse the certificate.
    #[error("{0}")]
    Refused(#[source] rustls::Error),
}

/// What is wrong with one PEM file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    #[error("cannot read it: {0}; logferry runs as uid {uid}", uid = nix::unistd::geteuid())]
    Denied(#[source] io::Error),
    #[error("cannot read it: {0}")]
    Unreadable(#[source] io::Error),
    #[error("not a PEM file: {0}")]
    NotPem(#[source] pem::Error),
    #[error("no certificate in it; it needs -----BEGIN CERTIFICATE----- (PEM)")]
    NoCertificate,
    #[error("no private key in it; it needs -----BEGIN PRIVATE KEY----- (PEM, not encrypted)")]
    NoPrivateKey,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("not a CA certificate: {0}")]
    NotACa(#[source] rustls::Error),
    #[error("no usable CA: {0}")]
    NoUsableCa(#[from] VerifierBuilderError),
    /// Peers that trust this CA refuse the certificate in question.
    #[error("{0}")]
    Refuses(#[from] rustls::Error),
    /// The certificate in question cannot be read.
    #[error("{0}")]
    Unjudged(#[source] pem::Error),
}

impl TlsError {
    /// For `map_err`: adds the path to what is wrong with a file.
    pub(super) fn of<P: Into<FileProblem>>(path: &Path) -> impl Fn(P) -> Self {
        move |problem| Self::File { path: path.to_owned(), problem: problem.into() }
    }

    pub(super) fn pair(cert: &Path, key: &Path) -> impl FnOnce(rustls::Error) -> Self {
        move |source| Self::Pair { cert: cert.to_owned(), key: key.to_owned(), source }
    }
}

impl From<pem::Error> for FileProblem {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => error.into(),
            other => Self::NotPem(other),
        }
    }
}

impl From<io::Error> for FileProblem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied(error),
            _ => Self::Unreadable(error),
        }
    }
}
