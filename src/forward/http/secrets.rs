//! What the server knows us by: as headers have it, and kept out of what is logged and shown.

use std::io;

use data_encoding::BASE64;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use memchr::memmem;
use parking_lot::Mutex;

use super::client::Answered;

/// What is shorter than so many bytes is no secret, and may be a word of the answer.
const SHORTEST_SECRET: usize = 6;

/// What the server knew us by when the last request was made.
#[derive(Default)]
pub struct Secrets(Mutex<Vec<String>>);

impl Secrets {
    /// Notes what is in a request.
    pub fn note(&self, secrets: Vec<String>) {
        *self.0.lock() = secrets;
    }

    /// An answer without them: some servers repeat the request in what they answer, and their words are logged and shown.
    pub fn hide(&self, mut answered: Answered) -> Answered {
        for secret in &*self.0.lock() {
            answered.body = without(answered.body, secret.as_bytes());
        }
        answered
    }
}

/// A user and its password as a header has them (RFC 7617). `credentials`: `user:password`.
pub fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64.encode(credentials.as_bytes()))
}

/// A header's value that hyper never shows.
pub fn sensitive(secret: &str) -> io::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(secret).map_err(io::Error::other)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A body with `***` for each place where it has a secret.
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
