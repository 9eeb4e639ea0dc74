//! The sender's side of the handshake, see `handshake`: it reads HELO, sends PING, and reads PONG.

use std::fmt;

use super::handshake::{NAME, Nonce, hex_digest};
use super::write::{append_array, append_str};
use super::{BadAnswer, Items, Value};

/// The secrets that a receiver asks for. `Debug` does not print them.
#[derive(Clone)]
pub struct Credentials {
    key: String,
    user: Option<(String, String)>,
}

/// An unfinished handshake.
#[derive(Debug)]
pub struct Greeting {
    credentials: Credentials,
    salt: Nonce,
    /// The receiver's nonce; `None` until HELO has arrived.
    nonce: Option<Vec<u8>>,
}

/// Why a receiver rejects us, or cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLetIn {
    #[error("the collector asks for no shared key; take `shared-key` out")]
    NoHello,
    #[error("the collector refuses our shared key, user or password: {0}")]
    Denied(String),
    #[error("the collector does not know the shared key itself, and gets nothing; let both have the same one")]
    Impostor,
    #[error(transparent)]
    Bad(#[from] BadAnswer),
}

impl Credentials {
    /// `user`: name and password.
    pub fn new(key: String, user: Option<(String, String)>) -> Self {
        Self { key, user }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Greeting {
    /// `salt`: must be new for each handshake.
    pub fn new(credentials: Credentials, salt: Nonce) -> Self {
        Self { credentials, salt, nonce: None }
    }

    /// Takes a value from the receiver, and appends PING when it is due. True: the receiver accepts us.
    pub fn hear(&mut self, value: &[u8], out: &mut Vec<u8>) -> Result<bool, NotLetIn> {
        match &self.nonce {
            None => {
                let (nonce, auth) = read_hello(value).ok_or(NotLetIn::NoHello)?;
                self.say_ping(&nonce, auth, out);
                self.nonce = Some(nonce);
                Ok(false)
            }
            Some(nonce) => self.check_pong(nonce, value).map(|()| true),
        }
    }

    fn say_ping(&self, nonce: &[u8], auth: &[u8], out: &mut Vec<u8>) {
        let Credentials { key, user } = &self.credentials;
        let (user, password) = match user {
            Some((user, password)) if !auth.is_empty() => {
                (user.as_str(), hex_digest([auth, user.as_bytes(), password.as_bytes()]))
            }
            _ => ("", String::new()),
        };
        append_array(6, out);
        append_str(b"PING", out);
        append_str(NAME.as_bytes(), out);
        append_str(&self.salt, out);
        append_str(hex_digest([&self.salt[..], NAME.as_bytes(), nonce, key.as_bytes()]).as_bytes(), out);
        append_str(user.as_bytes(), out);
        append_str(password.as_bytes(), out);
    }

    fn check_pong(&self, nonce: &[u8], value: &[u8]) -> Result<(), NotLetIn> {
        let mut items = Items::of_array(value).filter(|items| items.left() == 5).ok_or(BadAnswer)?;
        let mut next = || items.next().ok_or(BadAnswer);
        let (name, is_in, reason, host, digest) = (next()?, next()?, next()?, next()?, next()?);
        let text = |value: Value<'_>| value.text().map(<[u8]>::to_vec).unwrap_or_default();
        match (name.text(), is_in) {
            (Some(b"PONG"), Value::Bool(true)) => {
                let expected = hex_digest([&self.salt[..], &text(host), nonce, self.credentials.key.as_bytes()]);
                if text(digest) == expected.as_bytes() { Ok(()) } else { Err(NotLetIn::Impostor) }
            }
            (Some(b"PONG"), Value::Bool(false)) => {
                let reason = String::from_utf8_lossy(&text(reason)).replace(char::is_control, " ");
                Err(NotLetIn::Denied(reason))
            }
            _ => Err(BadAnswer.into()),
        }
    }
}

/// The contents of HELO: a nonce, and the salt for passwords, which is empty if the receiver asks for none. `None`: the value is not HELO.
pub fn read_hello(value: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut items = Items::of_array(value).filter(|items| items.left() == 2)?;
    let (name, options) = (items.next()?, items.next()?);
    let Value::Map(mut options) = options else { return None };
    if name.text() != Some(b"HELO") {
        return None;
    }
    let (mut nonce, mut auth) = (None, &b""[..]);
    while let (Some(key), Some(value)) = (options.next(), options.next()) {
        match key.text() {
            Some(b"nonce") => nonce = value.text(),
            Some(b"auth") => auth = value.text().unwrap_or_default(),
            _ => {}
        }
    }
    Some((nonce?.to_vec(), auth))
}
