//! Splunk's HTTP Event Collector (HEC), which Docker's `splunk` driver, Splunk's libraries and other relays send to: requests in,
//! records and answers out. Pure: no socket, no HTTP, no clock, no async.
//!
//! ```text
//! POST    /services/collector[/event[/1.0]]  {"event": …, "time": …, "host": …, "source": …, "sourcetype": …, "index": …, "fields": {…}}…
//! POST    /services/collector/raw[/1.0]      lines; host, source, sourcetype, index and time in the query
//! POST    /services/collector/ack[/1.0]      {"acks": [0, 1]}
//! GET     /services/collector/health[/1.0]
//! OPTIONS any of them                        Docker's driver asks for 200 before a container starts
//! ```
//!
//! A server does this:
//!
//! 1. [`Request::read`] of the head. Where it is [refused](Refused::answer), nothing of the body is read.
//! 2. Of a [`Post`], each piece of the body goes to [`Body::feed`], and its end to [`Body::finish`], until that has no more. Where one of
//!    them refuses, the messages before it count, as they do for Splunk, and [`Body::found`] is the number of the bad one.
//! 3. When these messages are in the spool, [`Acks::stored`] gives the number of [`Answer::success`]. Where the spool does not take
//!    them, the answer is that of [`Refused::Busy`], and the sender keeps them.
//!
//! Splunk's own answers are in "Troubleshoot HTTP Event Collector"; where that is silent, they are what others have measured. Where
//! Splunk refuses an event for what a relay need not mind, such as a time that is none, or fields in fields, it is taken.
//!
//! In reading order:
//!
//! - here: [`Refused`], why there is no success
//! - `request`: what a head asks for
//! - `tokens`: who may send
//! - `answer`: what is answered
//! - `acks`: index acknowledgement
//! - `body`: a body, piece after piece
//! - `objects`: where an event ends; `lines`: where a line ends
//! - `event`: what an event says; `record`: the record of an event or a line
//! - `properties`: what must hold for all bytes

mod acks;
mod answer;
mod body;
mod event;
mod lines;
mod objects;
pub mod properties;
mod record;
mod request;
#[cfg(test)]
mod tests;
mod tokens;

pub use acks::{Acks, Channel, MAX_ACK_BODY};
pub use answer::Answer;
pub use body::{Body, Limits};
pub use record::{DRIVER, Message};
pub use request::{Given, Head, Post, Request};
pub use tokens::Tokens;

/// The maximum number of arrays and objects that are open at once, the event with them.
pub const MAX_DEPTH: usize = crate::record::json_reader::MAX_DEPTH;
/// The maximum number of names of an event that are none of HEC's.
pub const MAX_KEYS: usize = 1024;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("HEC has no such path")]
    Path,
    #[error("the path has other methods: {0}")]
    Method(&'static str),
    #[error("the body is compressed, and not with gzip")]
    Encoding,
    #[error("there is no token")]
    TokenRequired,
    #[error("Authorization is neither `Splunk TOKEN` nor Basic with the token as password")]
    InvalidAuthorization,
    #[error("the token is none of ours")]
    InvalidToken,
    #[error("the token of a question for health is none of ours")]
    InvalidHealthToken,
    #[error("the token is in the query")]
    QueryToken,
    #[error("there are no acknowledgements")]
    AckDisabled,
    #[error("acknowledgements were asked for without a channel")]
    ChannelMissing,
    #[error("a channel is no GUID")]
    InvalidChannel,
    #[error("there is no event")]
    NoData,
    #[error("gzip is damaged")]
    BadGzip,
    #[error("a body is larger than the limit")]
    TooLarge,
    #[error("an event is longer than the limit")]
    TooLong,
    #[error("JSON is not UTF-8")]
    NotUtf8,
    #[error("an event is not JSON")]
    NotJson,
    #[error("an event is JSON, but no object")]
    NoObject,
    #[error("arrays and objects are more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("an event has more than {MAX_KEYS} names that HEC does not know")]
    TooManyKeys,
    #[error("the body ends inside an event")]
    Unfinished,
    #[error("an event has neither `event` nor `fields`")]
    EventRequired,
    #[error("an event's `event` is empty")]
    EventBlank,
    #[error("the spool does not take it")]
    Busy,
    #[error("the relay stops")]
    Stopping,
}

impl Refused {
    /// As counters call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method(_) => "method",
            Self::Encoding => "encoding",
            Self::TokenRequired => "no-token",
            Self::InvalidAuthorization => "authorization",
            Self::InvalidToken => "token",
            Self::InvalidHealthToken => "health-token",
            Self::QueryToken => "query-token",
            Self::AckDisabled => "ack-disabled",
            Self::ChannelMissing => "no-channel",
            Self::InvalidChannel => "channel",
            Self::NoData => "no-data",
            Self::BadGzip => "bad-gzip",
            Self::TooLarge => "too-large",
            Self::TooLong => "too-long",
            Self::NotUtf8 => "not-utf8",
            Self::NotJson => "not-json",
            Self::NoObject => "no-object",
            Self::TooDeep => "too-deep",
            Self::TooManyKeys => "too-many-keys",
            Self::Unfinished => "unfinished",
            Self::EventRequired => "no-event",
            Self::EventBlank => "blank-event",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }
}
