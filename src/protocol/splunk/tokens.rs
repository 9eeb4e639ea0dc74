//! Tokens: who may send.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// The tokens that senders may have. They never print.
pub struct Tokens {
    /// `None`: senders need none, and what they have is not looked at.
    list: Option<Vec<String>>,
}

impl Tokens {
    pub fn any() -> Self {
        Self { list: None }
    }

    /// An empty list is nobody.
    pub fn list(list: Vec<String>) -> Self {
        Self { list: Some(list) }
    }

    /// Do senders need none?
    pub(super) fn is_any(&self) -> bool {
        self.list.is_none()
    }

    /// Is it one of them? How long that takes tells nothing of their bytes.
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
