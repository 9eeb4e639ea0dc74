//! What a server says of itself.

use crate::record::json_reader::{each_member, text};

/// INFO, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// What is to be signed; empty: nobody is asked for a signature.
    pub nonce: String,
    /// Bytes of a message with its headers; `None`: it is not said.
    pub max_payload: Option<usize>,
    pub has_headers: bool,
    /// The server speaks TLS, and with nobody who does not.
    pub needs_tls: bool,
    /// The server speaks TLS with those who ask for it.
    pub has_tls: bool,
    /// The server asks its clients to go elsewhere.
    pub is_leaving: bool,
}

impl Info {
    /// `None`: it is no JSON.
    pub fn read(json: &[u8]) -> Option<Self> {
        let mut info = Self::default();
        let is_true = |value: &str| value == "true";
        let read = each_member(std::str::from_utf8(json).ok()?, |name, value| {
            match &*name {
                "nonce" => info.nonce = text(value).unwrap_or_default().into_owned(),
                "max_payload" => info.max_payload = value.parse().ok(),
                "headers" => info.has_headers = is_true(value),
                "tls_required" => info.needs_tls = is_true(value),
                "tls_available" => info.has_tls = is_true(value),
                "ldm" => info.is_leaving = is_true(value),
                _ => {}
            }
            true
        });
        read.ok().map(|()| info)
    }
}
