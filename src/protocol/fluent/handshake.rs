//! The handshake of a listener with a shared key: HELO, PING, PONG. Each side proves with a digest that it has the key, so that the key is
//! not on the wire. If the listener asks for users, a sender proves a user's password in the same way.
//!
//! ```text
//! → ["HELO", {"nonce": bytes, "auth": salt | "", "keepalive": true}]
//! ← ["PING", host, salt, hex(salt host nonce key), user | "", hex(auth user password) | ""]
//! → ["PONG", true, "", host, hex(salt host nonce key)]        or ["PONG", false, reason, "", ""], and the connection ends
//! ```
//!
//! Source: Forward-Protocol-Specification-v1 of Fluentd. Each digest is SHA-512.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use ring::digest::{Context, SHA512};
use subtle::{Choice, ConstantTimeEq};

use super::write::{append_bin, append_str};
use super::{BadFrame, Framer, Items, Value};
use crate::hex;
use crate::protocol::session::Violation;

/// Must be new for each handshake. Fluentd's nonces are as long.
pub type Nonce = [u8; 16];

/// This side's host name in a handshake. It is not a real host name, because Fluentd refuses a receiver with its own host name.
pub(super) const NAME: &str = "logferry";
/// The longest PING, in bytes. Its digests have 128 bytes each.
const MAX_PING: usize = 4096;

/// The secrets that senders have to know. `Debug` does not print them.
pub struct SharedKey {
    key: String,
    /// `None`: senders need no user.
    users: Option<Users>,
}

/// Users and their passwords.
#[derive(Default)]
pub struct Users(BTreeMap<String, String>);

/// Why a list of users is refused. It does not show the text of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUsers {
    #[error("line {0} is no `name:password`")]
    Line(usize),
    #[error("line {0} names a user for the second time")]
    Twice(usize),
    #[error("no user is in it")]
    Nobody,
}

/// Why a sender is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    NoPing,
    SharedKey,
    User,
}

/// An unfinished handshake.
#[derive(Debug)]
pub struct Opening {
    handshake: Handshake,
    framer: Framer,
    /// The deadline; `None` until the handshake begins.
    pub until: Option<Instant>,
}

/// This side of a handshake.
#[derive(Debug)]
pub struct Handshake {
    secret: Arc<SharedKey>,
    nonce: Nonce,
    /// The salt of the digests of passwords.
    auth: Nonce,
}

/// The sender's PING.
struct Ping<'a> {
    host: &'a [u8],
    salt: &'a [u8],
    digest: &'a [u8],
    user: &'a [u8],
    password_digest: &'a [u8],
}

impl SharedKey {
    pub fn new(key: String, users: Option<Users>) -> Self {
        Self { key, users }
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Users {
    /// Reads lines `name:password`. Empty lines are skipped. A password may contain colons.
    pub fn read(text: &str) -> Result<Self, BadUsers> {
        let mut users = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            let (name, password) = line.split_once(':').ok_or(BadUsers::Line(number))?;
            if name.is_empty() || password.is_empty() {
                return Err(BadUsers::Line(number));
            }
            if users.insert(name.to_owned(), password.to_owned()).is_some() {
                return Err(BadUsers::Twice(number));
            }
        }
        if users.is_empty() { Err(BadUsers::Nobody) } else { Ok(Self(users)) }
    }

    /// Whether this user exists and the digest is of the user's password. The time it takes tells nothing about either.
    fn has(&self, auth: &Nonce, user: &[u8], digest: &[u8]) -> bool {
        let password = str::from_utf8(user).ok().and_then(|user| self.0.get(user));
        let expected = hex_digest([auth, user, password.map_or(b"", |password| password.as_bytes())]);
        let is_known = Choice::from(u8::from(password.is_some()));
        (is_known & expected.as_bytes().ct_eq(digest)).into()
    }
}

impl Denied {
    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPing => "ping",
            Self::SharedKey => "shared-key",
            Self::User => "user",
        }
    }

    /// The reason in Fluentd's words.
    fn reason(self) -> &'static str {
        match self {
            Self::NoPing => "invalid ping message",
            Self::SharedKey => "shared_key mismatch",
            Self::User => "username/password mismatch",
        }
    }

    /// For the operator.
    fn why(self) -> &'static str {
        match self {
            Self::NoPing => {
                "it did not begin with PING, and this listener asks for `shared-key`; let the sender have that key, or give it a \
                 listener without one (Docker's driver knows no keys)"
            }
            Self::SharedKey => {
                "its shared key is another one than `shared-key` of this listener; let both have the same one"
            }
            Self::User => {
                "its user and password are not in `users-file`; write them there, or mend what the sender has"
            }
        }
    }
}

impl From<Denied> for Violation {
    fn from(denied: Denied) -> Self {
        Self { name: denied.name(), why: denied.why().into() }
    }
}

impl Opening {
    pub fn new(handshake: Handshake) -> Self {
        Self { handshake, framer: Framer::new(MAX_PING), until: None }
    }

    /// Begins the handshake with HELO.
    pub fn begin(&mut self, until: Option<Instant>, out: &mut Vec<u8>) {
        self.until = until;
        self.handshake.hello(out);
    }

    /// Takes the next bytes. `Some`: the sender is accepted, and these are the bytes behind its PING. An error: the sender is rejected.
    pub fn feed<'b>(&mut self, bytes: &'b [u8], out: &mut Vec<u8>) -> Result<Option<&'b [u8]>, NotOpened> {
        let Self { handshake, framer, .. } = self;
        let fed = framer.feed_one(bytes, |ping| Ok(handshake.answer(ping, out)?));
        fed.map_err(|why| match why {
            NotOpened::Bad(BadFrame::TooLarge) => {
                refuse(Denied::NoPing, out);
                Denied::NoPing.into()
            }
            why => why,
        })
    }

    pub fn is_late(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether a PING has begun that is not complete.
    pub fn unfinished(&self) -> bool {
        self.framer.unfinished()
    }

    /// Bytes held of that PING.
    pub fn held(&self) -> usize {
        self.framer.held()
    }
}

/// Why a handshake has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The sender's bytes are not a msgpack array.
    Bad(BadFrame),
    /// The sender has received the reason.
    Denied(Denied),
}

impl From<BadFrame> for NotOpened {
    fn from(bad: BadFrame) -> Self {
        Self::Bad(bad)
    }
}

impl From<Denied> for NotOpened {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl Handshake {
    pub fn new(secret: Arc<SharedKey>, nonce: Nonce, auth: Nonce) -> Self {
        Self { secret, nonce, auth }
    }

    /// Appends HELO.
    fn hello(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\x92\xa4HELO\x83\xa5nonce");
        append_bin(&self.nonce, out);
        out.extend_from_slice(b"\xa4auth");
        match self.secret.users {
            // A salt asks the sender for a user.
            Some(_) => append_bin(&self.auth, out),
            None => append_str(b"", out),
        }
        out.extend_from_slice(b"\xa9keepalive\xc3");
    }

    /// Checks a PING, and appends PONG.
    fn answer(&self, ping: &[u8], out: &mut Vec<u8>) -> Result<(), Denied> {
        let checked = Ping::read(ping).ok_or(Denied::NoPing).and_then(|ping| self.check(&ping).map(|()| ping.salt));
        match checked {
            Ok(salt) => {
                out.extend_from_slice(b"\x95\xa4PONG\xc3\xa0");
                append_str(NAME.as_bytes(), out);
                append_str(self.digest(salt, NAME.as_bytes()).as_bytes(), out);
            }
            Err(denied) => refuse(denied, out),
        }
        checked.map(drop)
    }

    fn check(&self, ping: &Ping<'_>) -> Result<(), Denied> {
        if !bool::from(self.digest(ping.salt, ping.host).as_bytes().ct_eq(ping.digest)) {
            return Err(Denied::SharedKey);
        }
        match &self.secret.users {
            Some(users) if !users.has(&self.auth, ping.user, ping.password_digest) => Err(Denied::User),
            _ => Ok(()),
        }
    }

    /// The digest that proves that a host has the key.
    fn digest(&self, salt: &[u8], host: &[u8]) -> String {
        hex_digest([salt, host, &self.nonce, self.secret.key.as_bytes()])
    }
}

/// Appends the PONG with the reason.
fn refuse(denied: Denied, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\x95\xa4PONG\xc2");
    append_str(denied.reason().as_bytes(), out);
    out.extend_from_slice(b"\xa0\xa0");
}

/// SHA-512 of these parts end to end, in lower-case hexadecimal digits.
pub(super) fn hex_digest<const N: usize>(parts: [&[u8]; N]) -> String {
    hex::encode(&sha512_of(parts))
}

/// SHA-512 of these parts end to end.
pub(super) fn sha512_of<const N: usize>(parts: [&[u8]; N]) -> [u8; 64] {
    let mut context = Context::new(&SHA512);
    parts.into_iter().for_each(|part| context.update(part));
    let mut digest = [0; 64];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl<'a> Ping<'a> {
    /// `None`: the array is not a PING.
    fn read(array: &'a [u8]) -> Option<Self> {
        let mut items = Items::of_array(array).filter(|items| items.left() == 6)?;
        let mut text = || match items.next()? {
            Value::Nil => Some(&b""[..]),
            value => value.text(),
        };
        if text()? != b"PING" {
            return None;
        }
        Some(Self { host: text()?, salt: text()?, digest: text()?, user: text()?, password_digest: text()? })
    }
}
