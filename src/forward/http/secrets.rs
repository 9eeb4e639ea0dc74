//! Our secrets for a server: in the form of headers, and hidden in what is logged and shown.

use std::io;

use data_encoding::BASE64;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use memchr::memmem;
use parking_lot::Mutex;

use super::client::Answered;

/// A shorter secret is not hidden, because it may be an ordinary word in the answer.
const SHORTEST_SECRET: usize = 6;

/// The secrets in the last request.
#[derive(Default)]
pub struct Secrets(Mutex<Vec<String>>);

impl Secrets {
    /// Remembers the secrets in a request.
    pub fn note(&self, secrets: Vec<String>) {
        *self.0.lock() = secrets;
    }

    /// The answer without the secrets. Some servers repeat the request in their answer, and answers are logged and shown.
    pub fn hide(&self, mut answered: Answered) -> Answered {
        for secret in &*self.0.lock() {
            answered.body = without(answered.body, secret.as_bytes());
        }
        answered
    }
}

/// A user and its password in the form of a header (RFC 7617). `credentials`: `user:password`.
pub fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64.encode(credentials.as_bytes()))
}

/// A header value that hyper never shows.
pub fn sensitive(secret: &str) -> io::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(secret).map_err(io::Error::other)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Replaces each occurrence of a secret in a body with `***`.
fn without(body: Bytes, secret: &[u8]) -> Bytes {
    if secret.len() < SHORTEST_SECRET || memmem::find(&body, secret).is_none() {
        return body;
    }
    let (mut out, mut rest) = (Vec::with_capacity(body.len()), &body[..]);
    while let Some(at) = memmem::find(rest, secret) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"***");
        rest = &rest[at + secret.len()..];
    }
    out.extend_from_slice(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_repeat_a_secret() {
        let check = |body: &str, secret: &str, expected: &str| {
            let body = Bytes::from(body.to_owned());
            assert_eq!(without(body, secret.as_bytes()), expected, "{secret}");
        };
        check("no hunter2", "hunter2", "no ***");
        check("hunter2hunter2, hunter", "hunter2", "******, hunter");
        check("{\"errors\":false}", "false", "{\"errors\":false}");
        check("", "hunter2", "");
    }
}
