//! Tokens: the authentication of senders.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// The tokens of the listener. `Debug` does not print them.
pub struct Tokens {
    /// `None`: senders need no token, and any token is ignored.
    list: Option<Vec<String>>,
}

impl Tokens {
    pub fn any() -> Self {
        Self { list: None }
    }

    /// An empty list accepts no sender.
    pub fn list(list: Vec<String>) -> Self {
        Self { list: Some(list) }
    }

    /// Whether senders need no token.
    pub(super) fn is_any(&self) -> bool {
        self.list.is_none()
    }

    /// Whether the token is in the list. The time that this takes tells nothing about the bytes of the tokens.
    pub fn has(&self, token: &[u8]) -> bool {
        let Some(list) = &self.list else { return true };
        let equal = |known: &String| known.as_bytes().ct_eq(token);
        list.iter().map(equal).fold(Choice::from(0), |found, equal| found | equal).into()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
