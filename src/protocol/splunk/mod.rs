//! Splunk's HTTP Event Collector (HEC), which Docker's `splunk` driver, Splunk's libraries and other relays send to. It turns requests into
//! records and answers. Pure: no socket, no HTTP, no clock, no async.
//!
//! ```text
//! POST    /services/collector[/event[/1.0]]  {"event": …, "time": …, "host": …, "source": …, "sourcetype": …, "index": …, "fields": {…}}…
//! POST    /services/collector/raw[/1.0]      lines; host, source, sourcetype, index and time in the query
//! POST    /services/collector/ack[/1.0]      {"acks": [0, 1]}
//! GET     /services/collector/health[/1.0]
//! OPTIONS any of them                        Docker's driver asks for 200 before a container starts
//! ```
//!
//! How a server uses this module:
//!
//! 1. It calls [`Request::read`] with the head. If that [refuses](Refused::answer), the body is not read.
//! 2. For a [`Post`], it passes each piece of the body to [`Body::feed`]. Then it calls [`Body::finish`] until there are no more messages.
//!    If one of them refuses, the messages before the error count, as with Splunk, and [`Body::found`] is the number of the bad one.
//! 3. When these messages are in the spool, it calls [`Acks::stored`], and passes the number to [`Answer::success`]. If the spool does not
//!    take them, it answers with [`Refused::Busy`], and the sender keeps them.
//!
//! Splunk's own answers are documented in "Troubleshoot HTTP Event Collector". Where that says nothing, the answers are as others have
//! measured them. Splunk also refuses some events for reasons that do not matter to a relay, such as an invalid time or nested fields. Here
//! such events are accepted.
//!
//! In reading order:
//!
//! - here: [`Refused`], why a request fails
//! - `request`: the head of a request
//! - `tokens`: authentication of senders
//! - `answer`: answers to requests
//! - `acks`: index acknowledgement
//! - `body`: a body, piece by piece
//! - `objects`: where an event ends; `lines`: where a line ends
//! - `event`: the contents of an event; `record`: the record of an event or a line
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

/// The maximum number of arrays and objects that are open at once, including the event.
pub const MAX_DEPTH: usize = crate::record::json_reader::MAX_DEPTH;
/// The maximum number of names in an event that HEC does not know.
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
    /// The name in counters.
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
