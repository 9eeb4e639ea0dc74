//! The keys of a `[[forward]]` to NATS.

use std::path::PathBuf;

use super::error::ConfigError;
use super::http::{self, HttpSettings, WrittenHttp};
use super::kinds::{Optional, Path, Special};
use super::secret::Secret;
use super::settings::{OnlyFor, Place, defaults, settings};
use super::written::Entry;
use crate::record::template::unknown_field;

const DEFAULT_SUBJECT: &str = "logs.{host}.{name}";
/// The maximum length of a template, in bytes.
const MAX_SUBJECT: usize = 256;

pub const NATS: OnlyFor = OnlyFor { schemes: "nats:// or nats+tls://", uses: super::ForwardAddress::is_nats };

settings! {
    pub struct NatsSettings, written as WrittenNats {
        /// The subject of a line, a template with fields of the line.
        subject: String = DEFAULT_SUBJECT.to_owned(), as Special { read: subject, display: String::clone }, key "subject".only_for(NATS);
        /// The file with the seed of an NKEY.
        nkey_file: Option<PathBuf> = None, as Optional(Path), key "nkey-file".only_for(NATS);
        /// The file with a JWT and the seed of its NKEY, as `nsc` writes it.
        creds_file: Option<PathBuf> = None, as Optional(Path), key "creds-file".only_for(NATS);
    }
}

impl Default for NatsSettings {
    fn default() -> Self {
        defaults()
    }
}

impl NatsSettings {
    pub fn nkey(&self) -> Option<Secret> {
        Secret::of(&None, &self.nkey_file)
    }

    pub fn creds(&self) -> Option<Secret> {
        Secret::of(&None, &self.creds_file)
    }
}

/// The settings of a NATS target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsTarget {
    pub subject: String,
    pub login: NatsLogin,
    /// The maximum number of unanswered messages. At the limit nothing is taken from the spool. `None`: as many as the link
    /// has proved to carry.
    pub window: Option<usize>,
}

/// The credentials for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsLogin {
    Nobody,
    Token(Secret),
    User(String, Secret),
    /// The seed of an NKEY.
    Nkey(Secret),
    /// A JWT and the seed of its NKEY.
    Creds(Secret),
}

impl NatsLogin {
    /// The secret of the credentials.
    pub fn secret(&self) -> Option<Secret> {
        match self {
            Self::Nobody => None,
            Self::Token(secret) | Self::User(_, secret) | Self::Nkey(secret) | Self::Creds(secret) => {
                Some(secret.clone())
            }
        }
    }
}

impl NatsTarget {
    pub fn new(nats: &NatsSettings, http: &HttpSettings, window: Option<usize>) -> Self {
        let login = match (nats.creds(), nats.nkey(), http.token(), &http.user, http.password()) {
            (Some(creds), ..) => NatsLogin::Creds(creds),
            (None, Some(nkey), ..) => NatsLogin::Nkey(nkey),
            (None, None, Some(token), ..) => NatsLogin::Token(token),
            (None, None, None, Some(user), Some(password)) => NatsLogin::User(user.clone(), password),
            _ => NatsLogin::Nobody,
        };
        Self { subject: nats.subject.clone(), login, window }
    }
}

/// Notes contradictions. `addresses`: the targets of the section.
pub fn check(nats: &WrittenNats, http: &WrittenHttp, addresses: &Entry, place: &Place<'_>) -> Result<(), ConfigError> {
    let source = place.source;
    let read = |leaf| Some((leaf, source.text("forward.to", leaf).ok()?.parse::<super::ForwardAddress>().ok()?));
    let to: Vec<_> = addresses.leaves().iter().filter_map(read).collect();
    if !to.iter().any(|(_, to)| to.is_nats()) {
        return Ok(());
    }
    http::check_login(http, place)?;
    let (nkey, creds) = (nats.nkey_file.first(), nats.creds_file.first());
    let other = http.user.first().or(http.token.first()).or(http.token_file.first());
    let (key, leaf) = match (nkey, creds, other) {
        (Some(leaf), Some(_), _) | (Some(leaf), _, Some(_)) => ("nkey-file", leaf),
        (None, Some(leaf), Some(_)) => ("creds-file", leaf),
        _ => return Ok(()),
    };
    let says = "a server knows us by `user`, by a token, by `nkey-file` or by `creds-file`; write one of them";
    source.note(source.bad(&place.key(key), leaf, says), ())
}

/// Reads a template for a subject that a stream can have.
fn subject(text: &str) -> Result<String, String> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
    match text.chars().find(|c| is_bad(*c)) {
        Some(bad) => {
            Err(format!("a subject has no {bad:?}; write tokens with dots between them, as in {DEFAULT_SUBJECT}"))
        }
        None if text.len() > MAX_SUBJECT => Err(format!("a subject has at most {MAX_SUBJECT} bytes here")),
        None if text.split('.').any(str::is_empty) => {
            Err(format!("a subject has no empty token; write one as in {DEFAULT_SUBJECT}"))
        }
        None if text.starts_with('$') => Err("subjects that begin with $ are the server's own".to_owned()),
        None => unknown_field(text).map_or_else(|| Ok(text.to_owned()), Err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_that_can_be_published_to() {
        for good in ["logs", "logs.{host}.{name}", "a.{id}-x", "{app}"] {
            assert_eq!(subject(good).as_deref(), Ok(good));
        }
        for bad in
            ["", ".", "a..b", "a.", ".a", "a b", "a.*", "a.>", "a\n", "$JS.API", "logs.{hostname}", &"a".repeat(257)]
        {
            assert!(subject(bad).is_err(), "{bad}");
        }
    }
}
