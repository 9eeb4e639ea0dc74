//! What a listener knows its senders by, and shows them: certificates, and secrets that both sides have. They are read from files, when
//! the listener begins, when it is reloaded, and when a file has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::{TlsError, acceptor};
use crate::config::{Listen, Secret, SecretError};
use crate::protocol::fluent::handshake::{BadUsers, SharedKey, Users};
use crate::protocol::splunk::Tokens;

/// What a listener has read. Clones share it.
#[derive(Clone)]
pub struct Credentials {
    /// What a TLS handshake is answered with.
    pub tls: Option<TlsAcceptor>,
    /// What senders of HEC need.
    pub tokens: Arc<Tokens>,
    /// What senders of the Forward protocol need; `None`: nothing.
    pub shared_key: Option<Arc<SharedKey>>,
}

/// Why they cannot be used.
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
    /// Those of a listener that asks for nothing and shows nothing.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { tls: None, tokens: Arc::new(Tokens::any()), shared_key: None }
    }

    /// Reads the files of a listener.
    pub fn read(settings: &Listen) -> Result<Self, CredentialsError> {
        let tls = settings.tls.as_ref().map(acceptor).transpose()?;
        Ok(Self { tls, ..Self::of_secrets(settings)? })
    }

    /// The same without its certificates.
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

/// The words of a secret: a file may have an old token and a new one, each on a line of its own.
fn words(secret: &Secret) -> Result<Vec<String>, CredentialsError> {
    Ok(secret.read()?.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Where it is; nothing where a variable has it.
fn path(secret: &Secret) -> PathBuf {
    secret.file().map(Path::to_owned).unwrap_or_default()
}
