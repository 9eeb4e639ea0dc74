//! The server's INFO.

use crate::record::json_reader::{each_member, text};

/// The relevant parts of INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The nonce to sign; empty: the server asks for no signature.
    pub nonce: String,
    /// The maximum bytes of a message with its headers; `None`: the server does not say.
    pub max_payload: Option<usize>,
    pub has_headers: bool,
    /// The server requires TLS.
    pub needs_tls: bool,
    /// The server offers TLS.
    pub has_tls: bool,
    /// The server is shutting down (lame duck mode), and asks its clients to connect elsewhere.
    pub is_leaving: bool,
}

impl Info {
    /// `None`: this is not JSON.
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
