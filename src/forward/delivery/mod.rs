//! A delivery writes a protocol's messages to a collector and interprets the answers. Pure: bytes in, bytes out; no socket, and the
//! caller passes the time. The `driver` owns the connection, its deadlines and its end.
//!
//! Each line gets a verdict of its own:
//!
//! - *delivered*: the collector has it, as far as the protocol can tell;
//! - *again*: it is sent once more, on this connection or on another;
//! - *poison*: the collector refuses it for good. It becomes a dead letter, and the other lines go on;
//! - *stop*: the collector refuses everything. Nothing is given up, and the forward waits.
//!
//! The cursor passes delivered lines and dead letters, and nothing else.

mod fluent;
#[cfg(test)]
mod fluent_tests;
mod kept;
mod nats;
#[cfg(test)]
mod nats_tests;
mod patience;
mod refusals;
mod relp;
mod send_window;
mod suspect;
mod syslog;
#[cfg(test)]
mod tests;
mod unanswered;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::filtered_chunk::FilteredChunk;
use super::tcp::TcpSample;
use crate::protocol::fluent::{BadAnswer, NotLetIn};
use crate::protocol::nats::BadOp;
use crate::protocol::relp::BadFrame;
use crate::spool::Position;

pub use fluent::FluentDelivery;
pub use nats::{NatsDelivery, Publishing};
pub use refusals::Refusals;
pub use relp::RelpDelivery;
pub use syslog::{SAMPLE_EVERY, SyslogDelivery};

/// One connection's delivery.
pub enum Delivery {
    /// Syslog over TCP or TLS: there are no answers, only the acknowledgements of the peer's kernel.
    Syslog(Box<SyslogDelivery>),
    /// Each frame is answered.
    Relp(Box<RelpDelivery>),
    /// Each message is answered.
    Nats(Box<NatsDelivery>),
    /// Each chunk is acknowledged.
    Fluent(Box<FluentDelivery>),
}

/// The outcome of lines since the progress was last taken.
#[derive(Debug, Default)]
pub struct Progress {
    /// The collector has taken a line.
    pub delivered: bool,
    /// The collector has everything before this position, but may lose it. The lines are kept, to be sent again.
    pub acknowledged: Option<Position>,
    /// Everything before this position is with the collector for good, or rejected.
    pub safe: Option<Position>,
    /// Lines before `safe` that the collector refuses for good, in the spool's order.
    pub rejected: VecDeque<Rejected>,
    /// Lines that were sent once more on this connection.
    pub resent: u64,
    /// Why the collector cannot take some lines now, in its own words. They are sent again.
    pub busy: Option<String>,
}

/// A line that the collector refuses for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The session (one opening of the spool) that numbered the line.
    pub session: u32,
    /// The line's number in the spool.
    pub line: u64,
    pub reason: Reason,
    /// The collector's own words, without control characters.
    pub why: String,
    pub bytes: Vec<u8>,
}

/// Why a line is a dead letter, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The collector refuses the line, for a reason of its own.
    Refused,
    /// The line is larger than the collector takes.
    TooLarge,
    /// The line is older than the collector takes, and the config makes such lines dead letters.
    TooOld,
}

impl Reason {
    /// The word in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TooLarge => "too-large",
            Self::TooOld => "too-old",
        }
    }
}

/// Why a delivery cannot go on on this connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The connection can no longer be used. Lines without a verdict are sent on another one.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The collector refuses everything; the text is its own. No line is given up.
    #[error("the collector refuses everything: {0}")]
    Stop(String),
}

/// What is wrong with a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("RELP's open was answered with: {0}")]
    NotOpened(String),
    /// The connection is reset. Otherwise a goodbye would wait behind bytes that the collector does not read.
    #[error("the collector has not answered for {0:?}")]
    Silent(Duration),
    #[error("the collector ended the session{}", .0.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    SessionEnded(Option<String>),
    #[error("the collector sends commands instead of answers")]
    NoAnswer,
    #[error("the collector answered what nobody asked (number {0})")]
    Unasked(u32),
    #[error("{0}")]
    NoRelp(BadFrame),
    #[error("{0}")]
    NoNats(BadOp),
    #[error("the server is about to stop, and asks its clients to go elsewhere")]
    Leaving,
    #[error(transparent)]
    NotLetIn(#[from] NotLetIn),
    #[error("the collector asks for a shared key; write `shared-key-file`")]
    AsksForKey,
    #[error("the collector acknowledged a chunk that nobody sent")]
    UnknownChunk,
}

impl From<BadFrame> for DeliveryError {
    fn from(bad: BadFrame) -> Self {
        Self::Broken(Broken::NoRelp(bad))
    }
}

impl From<BadAnswer> for Broken {
    fn from(bad: BadAnswer) -> Self {
        Self::NotLetIn(bad.into())
    }
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        let Self { delivered, acknowledged, safe, rejected, resent, busy } = self;
        let is_nowhere = acknowledged.is_none() && safe.is_none();
        !delivered && is_nowhere && rejected.is_empty() && *resent == 0 && busy.is_none()
    }
}

impl Delivery {
    /// Whether lines may be pushed: the collector has answered all that comes before lines.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Syslog(_) => true,
            Self::Relp(relp) => relp.is_open(),
            Self::Nats(nats) => nats.is_open(),
            Self::Fluent(fluent) => fluent.is_open(),
        }
    }

    /// What the collector has to send before lines may be pushed, and a hint for when it does not.
    pub fn first_word(&self) -> (&'static str, &'static str) {
        match self {
            Self::Syslog(_) => ("answer", ""),
            Self::Relp(_) => ("answer to RELP's open", "is that a RELP port? Plain syslog is tcp://"),
            Self::Nats(_) => ("PONG", "is the server too busy?"),
            Self::Fluent(_) => {
                ("HELO or PONG", "does the collector ask for a shared key? If it does not, take `shared-key` out")
            }
        }
    }

    /// Whether more lines may be taken from the spool.
    pub fn has_capacity(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.has_capacity(),
            Self::Relp(relp) => relp.has_capacity(),
            Self::Nats(nats) => nats.has_capacity(),
            Self::Fluent(fluent) => fluent.has_capacity(),
        }
    }

    /// Bytes to take from the spool at once.
    pub fn batch_bytes(&self) -> usize {
        match self {
            Self::Syslog(syslog) => syslog.batch_bytes(),
            Self::Relp(relp) => relp.batch_bytes(),
            Self::Nats(nats) => nats.batch_bytes(),
            Self::Fluent(fluent) => fluent.batch_bytes(),
        }
    }

    /// Takes the next lines of the spool. Call it only while there is capacity.
    pub fn push(&mut self, lines: FilteredChunk, now: Instant, refusals: &mut Refusals, progress: &mut Progress) {
        match self {
            Self::Syslog(syslog) => syslog.push(&lines, progress),
            Self::Relp(relp) => relp.push(lines, now, refusals, progress),
            Self::Nats(nats) => nats.push(lines, now, refusals, progress),
            Self::Fluent(fluent) => fluent.push(lines, now, refusals, progress),
        }
    }

    /// Bytes for the collector, from the first one that was not [`flushed`](Self::flushed). They only grow until then.
    pub fn output(&self) -> &[u8] {
        match self {
            Self::Syslog(syslog) => syslog.output(),
            Self::Relp(relp) => relp.output(),
            Self::Nats(nats) => nats.output(),
            Self::Fluent(fluent) => fluent.output(),
        }
    }

    /// Notes that the kernel has all of the output. `wire_bytes`: the bytes written on this connection so far.
    pub fn flushed(&mut self, wire_bytes: u64) {
        match self {
            Self::Syslog(syslog) => syslog.flushed(wire_bytes),
            Self::Relp(relp) => relp.flushed(),
            Self::Nats(nats) => nats.flushed(),
            Self::Fluent(fluent) => fluent.flushed(),
        }
    }

    /// Whether the collector's bytes matter.
    pub fn listens(&self) -> bool {
        !matches!(self, Self::Syslog(_))
    }

    /// Reads the collector's bytes, cut anywhere. `progress` also has the outcome of what came before an error.
    pub fn heard(
        &mut self,
        bytes: &[u8],
        now: Instant,
        refusals: &mut Refusals,
        progress: &mut Progress,
    ) -> Result<(), DeliveryError> {
        match self {
            // A collector of plain syslog sends nothing that matters.
            Self::Syslog(_) => Ok(()),
            Self::Relp(relp) => relp.heard(bytes, now, refusals, progress),
            Self::Nats(nats) => nats.heard(bytes, now, refusals, progress),
            Self::Fluent(fluent) => fluent.heard(bytes, now, refusals, progress),
        }
    }

    /// Whether a sample of the connection is of use now, see [`acknowledged`](Self::acknowledged).
    pub fn wants_sample(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.wants_sample(),
            Self::Relp(relp) => relp.wants_sample(),
            Self::Nats(nats) => nats.wants_sample(),
            Self::Fluent(fluent) => fluent.wants_sample(),
        }
    }

    /// Applies a sample of the connection.
    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant, progress: &mut Progress) {
        match self {
            Self::Syslog(syslog) => syslog.acknowledged(sample, now, progress),
            Self::Relp(relp) => relp.acknowledged(sample, now),
            Self::Nats(nats) => nats.acknowledged(sample, now),
            Self::Fluent(fluent) => fluent.acknowledged(sample, now),
        }
    }

    /// Does what is due. Returns when to call again if nothing else happens.
    pub fn timer(&mut self, now: Instant, progress: &mut Progress) -> Result<Option<Instant>, DeliveryError> {
        match self {
            Self::Syslog(syslog) => Ok(syslog.look_again(now)),
            Self::Relp(relp) => relp.timer(now, progress),
            Self::Nats(nats) => nats.timer(now, progress),
            Self::Fluent(fluent) => fluent.timer(now),
        }
    }

    /// How far the collector has got with lines in flight, counted in anything that only grows. `None`: nothing is in flight.
    pub fn awaits(&self) -> Option<u64> {
        match self {
            Self::Syslog(syslog) => syslog.awaits(),
            Self::Relp(relp) => relp.awaits(),
            Self::Nats(nats) => nats.awaits(),
            Self::Fluent(fluent) => fluent.awaits(),
        }
    }

    /// Whether nothing that was pushed has to be sent any more. Where there are answers, everything has its verdict.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.has_capacity(),
            Self::Relp(relp) => relp.is_settled(),
            Self::Nats(nats) => nats.is_settled(),
            Self::Fluent(fluent) => fluent.is_settled(),
        }
    }

    /// Whether everything that was pushed is with the collector, or rejected.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.awaits().is_none(),
            Self::Relp(relp) => relp.is_settled(),
            Self::Nats(nats) => nats.is_settled(),
            Self::Fluent(fluent) => fluent.is_settled(),
        }
    }

    /// Says goodbye, where the protocol has a message for that. Later answers of the collector settle nothing.
    pub fn goodbye(&mut self) {
        if let Self::Relp(relp) = self {
            relp.goodbye();
        }
    }

    /// Whether the goodbye was answered, or needs no answer.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Syslog(_) | Self::Nats(_) | Self::Fluent(_) => true,
            Self::Relp(relp) => relp.is_over(),
        }
    }

    /// Whether the way in which the collector ends the connection after our goodbye tells anything.
    pub fn learns_from_close(&self) -> bool {
        matches!(self, Self::Syslog(_))
    }

    /// The connection has failed, and lines in flight may be the cause.
    pub fn failed(&mut self, now: Instant, refusals: &mut Refusals, progress: &mut Progress) {
        match self {
            Self::Syslog(_) | Self::Nats(_) => {}
            Self::Relp(relp) => relp.failed(refusals),
            Self::Fluent(fluent) => fluent.failed(now, refusals, progress),
        }
    }

    /// The connection carries no more lines, for whatever reason.
    pub fn left(&self, refusals: &mut Refusals) {
        if let Self::Fluent(fluent) = self {
            fluent.left(refusals);
        }
    }

    /// Whether nothing shows that the collector does not keep up.
    pub fn is_calm(&self, now: Instant) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.is_calm(now),
            Self::Relp(_) | Self::Nats(_) | Self::Fluent(_) => true,
        }
    }

    /// The collector has closed its side in good order: by itself, or in answer to our goodbye.
    pub fn closed(&mut self, in_answer: bool, now: Instant, progress: &mut Progress) {
        if let Self::Syslog(syslog) = self {
            syslog.closed(in_answer, now, progress);
        }
    }
}
