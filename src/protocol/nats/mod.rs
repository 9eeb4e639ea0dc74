//! NATS and JetStream: what a server says, and what is published to it, as bytes. Pure: no socket, no clock, no async.
//!
//! ```text
//! ← INFO {"max_payload":…,"nonce":…}                      the server speaks first
//! → CONNECT {…}, SUB inbox.* 1, PING                      what has no sense to it is answered with -ERR
//! ← PONG
//! → HPUB subject inbox.7 …, with the header Nats-Msg-Id   one message; many may be on their way
//! ← MSG inbox.7 … {"stream":"LOGS","seq":12}              it is stored; an object `error`: it is not
//! ← HMSG inbox.7 … NATS/1.0 503                           nobody takes that subject
//! → PUB $JS.API.CONSUMER.MSG.NEXT.LOGS.c inbox.0 …         `logferry probe` alone: what is stored
//! ← HMSG logs.web 1 $JS.ACK.LOGS.c.1.12.… …               one message of it
//! ```
//!
//! Source: docs.nats.io, *Client Protocol*; ADR-4 (headers) and ADR-1 (JetStream's answers) of nats-architecture-and-design; `errors.json` of nats-server.
//!
//! - here: [`Decoder`], and what is written
//! - `info`: what a server says of itself
//! - `answer`: what the answer to a message means
//! - `consumer`: how a stream is read
//! - `nkey`: keys and signatures
//! - `subject`: the subject of a line
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

/// Bytes of a line that are never exceeded, INFO's with the addresses of a large cluster.
const MAX_LINE: usize = 64 << 10;
/// Bytes of a message that are never exceeded, where no other limit is set: answers have a hundred or two.
const MAX_MESSAGE: usize = 64 << 10;
/// How much of a server's own words is shown, in bytes.
const MAX_WORDS: usize = 300;

/// What a server says at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// JSON.
    Info(&'a [u8]),
    Message(Message<'a>),
    Ping,
    Pong,
    Ok,
    /// Its words, without their quotes.
    Err(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub subject: &'a [u8],
    /// Where an answer to it goes; empty: nowhere.
    pub reply: &'a [u8],
    /// From `NATS/1.0` on; empty: there are none.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

/// What is no NATS. There is no way to find what comes next: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no NATS: {0}")]
pub struct BadOp(&'static str);

/// Finds what a server says in the bytes of a connection. What it finds does not depend on where the bytes were cut.
#[derive(Debug)]
pub struct Decoder {
    /// The start of what has not ended. `held.len() < MAX_LINE + max_message + 2`
    held: Vec<u8>,
    /// Bytes of a message that are never exceeded.
    max_message: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_limit(MAX_MESSAGE)
    }
}

/// What a server knows a client by.
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
    /// For messages of so many bytes at most.
    pub fn with_limit(max_message: usize) -> Self {
        Self { held: Vec::new(), max_message }
    }

    /// Takes the next bytes and hands on what ends in them. An error, ours or of `on_op`, is the end.
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
        // What is held is the start of one op, which has a limit.
        if !rest.is_empty() {
            self.held = rest.to_vec();
        }
        Ok(())
    }

    /// Nothing has begun that has not ended.
    pub fn is_between(&self) -> bool {
        self.held.is_empty()
    }
}

/// What some bytes begin with, and what is behind it. `None`: it has not ended.
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

/// `subject sid [reply] [header length] length`, and what is behind that line.
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

/// A server's words in one line, for a person.
pub fn words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(&said[..said.len().min(MAX_WORDS)]);
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Appends what opens a session: CONNECT, and a subscription to the answers below `inbox`. PONG says that it is open.
pub fn append_opening(login: &Login, is_tls: bool, inbox: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"name\":\"logferry\",\"version\":\"",
    );
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    // 1: what a server says of itself later is understood.
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

/// A message that is published, and by which it is known.
pub struct Publication<'a> {
    pub subject: &'a [u8],
    pub inbox: &'a str,
    /// The answer comes to `inbox.number`.
    pub number: u64,
    /// `Nats-Msg-Id`, by which a stream knows what it has already.
    pub id: &'a [u8],
    pub payload: &'a [u8],
}

const BEFORE_ID: &[u8] = b"NATS/1.0\r\nNats-Msg-Id: ";
const BEHIND_ID: &[u8] = b"\r\n\r\n";

impl Publication<'_> {
    fn headers_len(&self) -> usize {
        BEFORE_ID.len() + self.id.len() + BEHIND_ID.len()
    }

    /// Bytes as `max_payload` counts them.
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

/// The number of the message to which an answer came to this subject.
pub fn answered(subject: &[u8], inbox: &str) -> Option<u64> {
    let digits = subject.strip_prefix(inbox.as_bytes())?.strip_prefix(b".")?;
    let is_number = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// It has secrets.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
