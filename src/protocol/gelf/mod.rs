//! GELF: JSON objects in datagrams, optionally compressed and in chunks, or one after the other in a stream (Graylog's GELF 1.1; Docker's
//! driver is moby `daemon/logger/gelf/gelf.go` and `github.com/Graylog2/go-gelf`).
//!
//! In reading order:
//!
//! - here: [`Refused`], why bytes are not a message, and [`Payloads`], which may be compressed
//! - `chunks`: a message of several datagrams
//! - `datagrams`: the UDP transport
//! - `framing`: where a message ends in a stream
//! - `session`: a connection
//! - `message`: JSON → record
//! - `write`: record → JSON, and datagrams
//! - `docker`: the parts that all messages of a container share
//! - `properties`: what must hold for all bytes

mod chunks;
mod datagrams;
mod docker;
mod framing;
mod message;
pub mod properties;
mod session;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;

pub use chunks::{ChunkCounts, ChunkLimits, Chunks, MAX_CHUNKS};
pub use datagrams::Datagrams;
pub use docker::outline;
pub use framing::{Found, GelfFramer};
pub use message::{DRIVER, Message};
pub use session::{GelfSession, MAX_JSON};
use write::legal;
pub use write::{append, datagrams};

use crate::protocol::inflate::{BadDeflate, Inflater, is_gzip, is_zlib};

/// The maximum number of names and values in a message.
pub const MAX_KEYS: usize = 1024;
/// The maximum number of arrays and objects that are open at once, including the message.
pub const MAX_DEPTH: usize = crate::record::json_reader::MAX_DEPTH;

/// Why bytes are not a message. Reading a message gives no other error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("a chunk is shorter than its 12-byte header")]
    ShortChunk,
    #[error("a message has no chunks, or more than {MAX_CHUNKS}")]
    ChunkCount,
    #[error("the number of a chunk is not below their count")]
    ChunkNumber,
    #[error("two chunks of one message disagree on their count")]
    Contradiction,
    #[error("a chunk of a message did not come within 5 s")]
    Expired,
    #[error("messages that lack chunks took more memory than `max-unfinished` allows, and the oldest was given up")]
    Evicted,
    #[error("a message is longer than the limit")]
    TooLong,
    #[error("the connection ended inside a message")]
    Unfinished,
    #[error("a message did not end within `frame-timeout`, or there was no memory for it")]
    GivenUp,
    #[error("gzip is damaged")]
    BadGzip,
    #[error("zlib is damaged")]
    BadZlib,
    #[error("JSON is not UTF-8")]
    NotUtf8,
    #[error("a message is not JSON")]
    NotJson,
    #[error("a message is JSON, but no object")]
    NoObject,
    #[error("arrays and objects are more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("a message has more than {MAX_KEYS} names")]
    TooManyKeys,
    #[error("a message has no short_message that is a text")]
    NoShortMessage,
}

/// The payload of a datagram or of joined chunks: JSON, plain or compressed with gzip or zlib. The first bytes tell which.
#[derive(Default)]
pub struct Payloads {
    inflater: Inflater,
}

impl Payloads {
    /// The JSON, up to `max` bytes.
    pub fn read<'a>(&mut self, sent: &'a [u8], max: usize) -> Result<Cow<'a, [u8]>, Refused> {
        let (inflated, damaged) = if is_gzip(sent) {
            (self.inflater.gzip(sent, max), Refused::BadGzip)
        } else if is_zlib(sent) {
            (self.inflater.zlib(sent, max), Refused::BadZlib)
        } else if sent.len() > max {
            return Err(Refused::TooLong);
        } else {
            return Ok(sent.into());
        };
        inflated.map(Cow::Owned).map_err(|why| match why {
            BadDeflate::Damaged => damaged,
            BadDeflate::TooLong => Refused::TooLong,
        })
    }
}

impl Refused {
    /// The name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShortChunk => "short-chunk",
            Self::ChunkCount => "chunk-count",
            Self::ChunkNumber => "chunk-number",
            Self::Contradiction => "contradiction",
            Self::Expired => "chunk-expired",
            Self::Evicted => "chunk-evicted",
            Self::TooLong => "too-long",
            Self::Unfinished => "unfinished",
            Self::GivenUp => "given-up",
            Self::BadGzip => "bad-gzip",
            Self::BadZlib => "bad-zlib",
            Self::NotUtf8 => "not-utf8",
            Self::NotJson => "not-json",
            Self::NoObject => "no-object",
            Self::TooDeep => "too-deep",
            Self::TooManyKeys => "too-many-keys",
            Self::NoShortMessage => "no-short-message",
        }
    }
}
