//! PEM files in; certificates, keys and CAs out.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::pem::{Error, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{FileProblem, TlsError};
use crate::certificate::{self, Facts};
use crate::files;

/// The certificates of a PEM file, in its order; at least one. The first one of a chain is the end entity's.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = files::read(path, files::MAX_BYTES).map_err(TlsError::of(path))?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, Error>>().map_err(TlsError::of(path))?;
    if chain.is_empty() {
        return Err(TlsError::of(path)(FileProblem::NoCertificate));
    }
    Ok(chain)
}

/// Reads the facts of the certificates of a PEM file, in its order; at least one.
pub fn facts(path: &Path) -> Result<Vec<Facts>, TlsError> {
    let facts = chain(path)?.iter().map(|der| certificate::read(der)).collect::<Result<_, _>>();
    facts.map_err(TlsError::of(path))
}

pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = files::read(path, files::MAX_BYTES).map_err(TlsError::of(path))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        Error::NoItemsFound => TlsError::of(path)(FileProblem::NoPrivateKey),
        error => TlsError::of(path)(error),
    })
}

/// The CAs of a PEM file.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| TlsError::of(path)(FileProblem::NotACa(error)))?;
    }
    Ok(roots)
}

/// The machine's CA bundle, as OpenSSL would find it (`SSL_CERT_FILE`, `SSL_CERT_DIR`, /etc/ssl/certs).
pub fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}
