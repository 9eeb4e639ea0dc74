//! The credentials of a listener: its certificates, and secrets that it shares with senders. They are read from files when the
//! listener begins, on a reload, and when a file has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::{TlsError, acceptor};
use crate::config::{Listen, Secret, SecretError};
use crate::protocol::fluent::handshake::{BadUsers, SharedKey, Users};
use crate::protocol::splunk::Tokens;

/// The credentials that a listener has read. Clones share them.
#[derive(Clone)]
pub struct Credentials {
    /// Answers TLS handshakes.
    pub tls: Option<TlsAcceptor>,
    /// The tokens of HEC senders.
    pub tokens: Arc<Tokens>,
    /// The key of senders of the Forward protocol; `None`: they need none.
    pub shared_key: Option<Arc<SharedKey>>,
}

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{}: {source}", path.display())]
    Users { path: PathBuf, source: BadUsers },
}

impl Credentials {
    /// The credentials of a listener that requires nothing and shows no certificate.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { tls: None, tokens: Arc::new(Tokens::any()), shared_key: None }
    }

    /// Reads the files of a listener.
    pub fn read(settings: &Listen) -> Result<Self, CredentialsError> {
        let tls = settings.tls.as_ref().map(acceptor).transpose()?;
        Ok(Self { tls, ..Self::of_secrets(settings)? })
    }

    /// Reads the secrets of a listener, without its certificates.
    pub fn of_secrets(settings: &Listen) -> Result<Self, CredentialsError> {
        let tokens = match settings.tokens() {
            Some(secret) => Tokens::list(words(&secret)?),
            None => Tokens::any(),
        };
        let shared_key = settings.shared_key().map(|key| shared_key(&key, settings.users())).transpose()?;
        Ok(Self { tls: None, tokens: Arc::new(tokens), shared_key: shared_key.map(Arc::new) })
    }
}

fn shared_key(key: &Secret, users: Option<Secret>) -> Result<SharedKey, CredentialsError> {
    let read = |users: Secret| {
        Users::read(&users.read()?).map_err(|source| CredentialsError::Users { path: path(&users), source })
    };
    Ok(SharedKey::new(key.read()?, users.map(read).transpose()?))
}

/// The words of a secret: a file may have an old and a new token, each on its own line.
fn words(secret: &Secret) -> Result<Vec<String>, CredentialsError> {
    Ok(secret.read()?.split_ascii_whitespace().map(str::to_owned).collect())
}

/// The path of the secret's file; empty if the secret is in a variable.
fn path(secret: &Secret) -> PathBuf {
    secret.file().map(Path::to_owned).unwrap_or_default()
}
