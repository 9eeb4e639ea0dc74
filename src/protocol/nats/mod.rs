//! NATS and JetStream: decodes the operations of a server, and encodes publications. Pure: no socket, no clock, no async.
//!
//! ```text
//! ← INFO {"max_payload":…,"nonce":…}                      the server speaks first
//! → CONNECT {…}, SUB inbox.* 1, PING                      -ERR answers what the server does not accept
//! ← PONG
//! → HPUB subject inbox.7 …, with the header Nats-Msg-Id   one message; many may be in flight
//! ← MSG inbox.7 … {"stream":"LOGS","seq":12}              the message is stored; with `error` it is not
//! ← HMSG inbox.7 … NATS/1.0 503                           no subscriber takes that subject
//! → PUB $JS.API.CONSUMER.MSG.NEXT.LOGS.c inbox.0 …         only `logferry probe`: reads stored messages
//! ← HMSG logs.web 1 $JS.ACK.LOGS.c.1.12.… …               a stored message
//! ```
//!
//! Source: docs.nats.io, *Client Protocol*; ADR-4 (headers) and ADR-1 (JetStream's answers) of nats-architecture-and-design; `errors.json`
//! of nats-server.
//!
//! - here: [`Decoder`], and the encoding of publications
//! - `info`: the server's INFO
//! - `answer`: the answer to a publication
//! - `consumer`: reading a stream
//! - `nkey`: keys and signatures
//! - `subject`: the subject under which a line is published
//! - `properties`: what must hold for all bytes

mod answer;
pub mod consumer;
mod info;
mod nkey;
pub mod properties;
mod subject;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::record::json::push_text;

pub use answer::Answer;
pub use info::Info;
pub use nkey::{BadKey, Creds, Nkey};
pub use subject::SubjectTemplate;

/// The maximum bytes of a line. The longest line is INFO with the addresses of a large cluster.
const MAX_LINE: usize = 64 << 10;
/// The default for the maximum bytes of a message. Answers have a hundred or two.
const MAX_MESSAGE: usize = 64 << 10;
/// The maximum bytes of a server's text that are shown.
const MAX_WORDS: usize = 300;

/// An operation of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// JSON.
    Info(&'a [u8]),
    Message(Message<'a>),
    Ping,
    Pong,
    Ok,
    /// The error text, without its quotes.
    Err(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub subject: &'a [u8],
    /// The subject for answers; empty: no answer is wanted.
    pub reply: &'a [u8],
    /// The headers, from `NATS/1.0` on; empty: there are none.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

/// The bytes are not NATS. There is no way to find the next operation: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no NATS: {0}")]
pub struct BadOp(&'static str);

/// Finds the operations of a server in the bytes of a connection. The result does not depend on where the bytes are cut.
#[derive(Debug)]
pub struct Decoder {
    /// The start of an unfinished operation. `held.len() < MAX_LINE + max_message + 2`
    held: Vec<u8>,
    /// The maximum bytes of a message.
    max_message: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_limit(MAX_MESSAGE)
    }
}

/// The credentials of a client.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Nobody,
    Token(String),
    User {
        name: String,
        password: String,
    },
    /// A public key, and the signature of the server's nonce.
    Nkey {
        public: String,
        signature: String,
    },
    Jwt {
        jwt: String,
        signature: String,
    },
}

impl Decoder {
    /// `max_message`: the maximum bytes of a message.
    pub fn with_limit(max_message: usize) -> Self {
        Self { held: Vec::new(), max_message }
    }

    /// Takes the next bytes, and passes on each operation that ends in them. After an error, ours or of `on_op`, the connection has to end.
    pub fn feed<E: From<BadOp>>(
        &mut self,
        bytes: &[u8],
        mut on_op: impl FnMut(Op<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut held = std::mem::take(&mut self.held);
        let all = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        let mut rest = all;
        while let Some((op, behind)) = next(rest, self.max_message)? {
            on_op(op)?;
            rest = behind;
        }
        // The start of one operation, which has a limit.
        if !rest.is_empty() {
            self.held = rest.to_vec();
        }
        Ok(())
    }

    /// Whether no operation is unfinished.
    pub fn is_between(&self) -> bool {
        self.held.is_empty()
    }
}

/// The operation at the start of some bytes, and the bytes behind it. `None`: it is incomplete.
fn next(bytes: &[u8], max_message: usize) -> Result<Option<(Op<'_>, &[u8])>, BadOp> {
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(MAX_LINE)]) else {
        return if bytes.len() < MAX_LINE { Ok(None) } else { Err(BadOp("a line is too long")) };
    };
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let word = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (word, behind) = (&line[..word], line[word..].trim_ascii());
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let op = match () {
        () if is("MSG") => return message(behind, rest, false, max_message),
        () if is("HMSG") => return message(behind, rest, true, max_message),
        () if is("PING") => Op::Ping,
        () if is("PONG") => Op::Pong,
        () if is("+OK") => Op::Ok,
        () if is("INFO") => Op::Info(behind),
        () if is("-ERR") => {
            let inside = behind.strip_prefix(b"'").and_then(|words| words.strip_suffix(b"'"));
            Op::Err(inside.unwrap_or(behind))
        }
        () => return Err(BadOp("an operation that no server says")),
    };
    Ok(Some((op, rest)))
}

/// Reads `subject sid [reply] [header length] length`, and the content behind that line.
fn message<'a>(
    line: &'a [u8],
    rest: &'a [u8],
    has_headers: bool,
    max_message: usize,
) -> Result<Option<(Op<'a>, &'a [u8])>, BadOp> {
    const BAD: BadOp = BadOp("the head of a message");
    let mut words = [&b""[..]; 5];
    let mut count = 0;
    for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        *words.get_mut(count).ok_or(BAD)? = word;
        count += 1;
    }
    let lengths = 1 + usize::from(has_headers);
    // With a reply or without.
    if !(lengths + 2..=lengths + 3).contains(&count) {
        return Err(BAD);
    }
    let length = number(words[count - 1]).ok_or(BAD)?;
    let headers = if has_headers { number(words[count - 2]).ok_or(BAD)? } else { 0 };
    if headers > length || length > max_message {
        return Err(BadOp("the length of a message"));
    }
    let Some((content, behind)) = rest.split_at_checked(length) else { return Ok(None) };
    let behind = match behind {
        [b'\r', b'\n', behind @ ..] => behind,
        [] | [b'\r'] => return Ok(None),
        _ => return Err(BadOp("the end of a message")),
    };
    let (headers, payload) = content.split_at(headers);
    let reply = if count == lengths + 3 { words[2] } else { b"" };
    Ok(Some((Op::Message(Message { subject: words[0], reply, headers, payload }), behind)))
}

fn number(digits: &[u8]) -> Option<usize> {
    let is_number = (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// A server's text in one line, for the log.
pub fn words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(&said[..said.len().min(MAX_WORDS)]);
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Appends the start of a session: CONNECT, and a subscription to the answers below `inbox`. The server's PONG confirms it.
pub fn append_opening(login: &Login, is_tls: bool, inbox: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"name\":\"logferry\",\"version\":\"",
    );
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    // Protocol 1: the client understands later INFOs.
    out.extend_from_slice(b"\",\"protocol\":1,\"headers\":true,\"no_responders\":true,\"tls_required\":");
    out.extend_from_slice(if is_tls { b"true" } else { b"false" });
    let mut say = |key: &str, value: &str| {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        push_text(value, out);
    };
    match login {
        Login::Nobody => {}
        Login::Token(token) => say("auth_token", token),
        Login::User { name, password } => {
            say("user", name);
            say("pass", password);
        }
        Login::Nkey { public, signature } => {
            say("nkey", public);
            say("sig", signature);
        }
        Login::Jwt { jwt, signature } => {
            say("jwt", jwt);
            say("sig", signature);
        }
    }
    out.extend_from_slice(b"}\r\nSUB ");
    out.extend_from_slice(inbox.as_bytes());
    out.extend_from_slice(b".* 1\r\nPING\r\n");
}

/// A message to publish, with its identity.
pub struct Publication<'a> {
    pub subject: &'a [u8],
    pub inbox: &'a str,
    /// The server answers to `inbox.number`.
    pub number: u64,
    /// `Nats-Msg-Id`, by which a stream recognizes duplicates.
    pub id: &'a [u8],
    pub payload: &'a [u8],
}

const BEFORE_ID: &[u8] = b"NATS/1.0\r\nNats-Msg-Id: ";
const BEHIND_ID: &[u8] = b"\r\n\r\n";

impl Publication<'_> {
    fn headers_len(&self) -> usize {
        BEFORE_ID.len() + self.id.len() + BEHIND_ID.len()
    }

    /// The length that `max_payload` limits.
    pub fn byte_len(&self) -> usize {
        self.headers_len() + self.payload.len()
    }

    pub fn append(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.reserve(self.subject.len() + self.inbox.len() + self.byte_len() + 64);
        out.extend_from_slice(b"HPUB ");
        out.extend_from_slice(self.subject);
        out.push(b' ');
        out.extend_from_slice(self.inbox.as_bytes());
        out.push(b'.');
        out.extend_from_slice(digits.format(self.number).as_bytes());
        for length in [self.headers_len(), self.byte_len()] {
            out.push(b' ');
            out.extend_from_slice(digits.format(length).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(BEFORE_ID);
        out.extend_from_slice(self.id);
        out.extend_from_slice(BEHIND_ID);
        out.extend_from_slice(self.payload);
        out.extend_from_slice(b"\r\n");
    }
}

/// The number of the publication whose answer came to this subject.
pub fn answered(subject: &[u8], inbox: &str) -> Option<u64> {
    let digits = subject.strip_prefix(inbox.as_bytes())?.strip_prefix(b".")?;
    let is_number = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Hides the secrets.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
