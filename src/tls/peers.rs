//! Verifiers of the peer's certificate: collectors by fingerprint, senders by name or fingerprint.
//!
//! If there is a CA, rustls' own verifier comes first, and the checks here are additional. The peer proves that it has the
//! certificate's key by its signature in the handshake, which is always verified.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate;
use crate::config::{Fingerprint, PeerName};

/// A collector, by fingerprint.
#[derive(Debug)]
pub struct KnownCollector {
    /// Verifies the path to the CA and the name, before the fingerprint. `None`: only the fingerprint is verified.
    pub signed: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of `ca`.
    pub cas: Vec<CertificateDer<'static>>,
    pub fingerprints: Vec<Fingerprint>,
    pub algorithms: WebPkiSupportedAlgorithms,
}

/// A sender, by name or by fingerprint, or both.
#[derive(Debug)]
pub struct KnownSender {
    /// Verifies the path to the CA, before names and fingerprints. `None`: only these are verified.
    pub signed: Option<Arc<dyn ClientCertVerifier>>,
    /// The certificates of `client-ca`.
    pub cas: Vec<CertificateDer<'static>>,
    /// Names of which the certificate must carry one, if there are any.
    pub names: Vec<PeerName>,
    /// Fingerprints of which the certificate must have one, if there are any.
    pub fingerprints: Vec<Fingerprint>,
    pub algorithms: WebPkiSupportedAlgorithms,
}

/// Why a peer is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnknownPeer(String);

impl ServerCertVerifier for KnownCollector {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if is_itself_trusted(certificate, &self.cas, now)? {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        } else if let Some(signed) = &self.signed {
            signed.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        }
        known(certificate, &[], &self.fingerprints)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for KnownSender {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.as_ref().map_or(&[], |signed| signed.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !is_itself_trusted(certificate, &self.cas, now)?
            && let Some(signed) = &self.signed
        {
            signed.verify_client_cert(certificate, intermediates, now)?;
        }
        known(certificate, &self.names, &self.fingerprints)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a self-signed certificate is in the CAs' file. It is then trusted, as long as it is valid now. rustls accepts such a
/// certificate only as a CA, and most programs mark a self-signed certificate as a CA's.
fn is_itself_trusted(
    certificate: &CertificateDer<'_>,
    cas: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<bool, Error> {
    if !cas.contains(certificate) {
        return Ok(false);
    }
    let facts = certificate::read(certificate).map_err(|_| CertificateError::BadEncoding)?;
    if !facts.is_self_issued() {
        return Ok(false);
    }
    // Times before 1970 count as 1970.
    let seconds = |time: chrono::DateTime<chrono::Utc>| u64::try_from(time.timestamp()).unwrap_or(0);
    match now.as_secs() {
        now if now > seconds(facts.not_after) => Err(CertificateError::Expired.into()),
        now if now < seconds(facts.not_before) => Err(CertificateError::NotValidYet.into()),
        _ => Ok(true),
    }
}

/// Whether a certificate has one of these names and one of these fingerprints. An empty list requires nothing.
fn known(certificate: &CertificateDer<'_>, names: &[PeerName], fingerprints: &[Fingerprint]) -> Result<(), Error> {
    if names.is_empty() && fingerprints.is_empty() {
        return Ok(());
    }
    let facts = certificate::read(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let fingerprint = Fingerprint::of(&facts);
    if !fingerprints.is_empty() && !fingerprints.contains(&fingerprint) {
        return Err(unknown(format!("its certificate is {fingerprint}, which is not configured")));
    }
    if !names.is_empty() && !names.iter().any(|name| facts.names.iter().any(|carried| name.is(carried))) {
        return Err(unknown("its certificate has none of the names configured".to_owned()));
    }
    Ok(())
}

fn unknown(why: String) -> Error {
    CertificateError::Other(OtherError(Arc::new(UnknownPeer(why)))).into()
}
