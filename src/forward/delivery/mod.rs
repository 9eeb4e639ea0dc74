//! A delivery: what a collector is told, and what its words mean. Pure: bytes in, bytes out; no socket, and the time is
//! handed in. The `driver` owns the connection, its deadlines and its end.
//!
//! Each line gets a verdict of its own:
//!
//! - *delivered*: the collector has it, as far as the protocol can tell;
//! - *again*: it is sent once more, on this connection or on another;
//! - *poison*: the collector refuses it for good. It becomes a dead letter, and the rest goes on;
//! - *stop*: the collector refuses everything. Nothing is given up, and the forward waits.
//!
//! The cursor passes what was delivered or is a dead letter, and nothing else.

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
    /// Syslog over TCP or TLS: nothing is answered, and the acknowledgements of the peer's kernel are all there is.
    Syslog(Box<SyslogDelivery>),
    /// Each frame is answered.
    Relp(Box<RelpDelivery>),
    /// Each message is answered.
    Nats(Box<NatsDelivery>),
    /// Each chunk is acknowledged.
    Fluent(Box<FluentDelivery>),
}

/// What became of lines since it was last taken.
#[derive(Debug, Default)]
pub struct Progress {
    /// The collector has taken something.
    pub delivered: bool,
    /// Everything before it is with the collector, which may lose it: it is kept, to be sent again.
    pub acknowledged: Option<Position>,
    /// Everything before it is with the collector for good, or rejected.
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
    /// Which opening of the spool numbered the line.
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
    /// The collector says no, for a reason of its own.
    Refused,
    /// It is more than the collector takes at once.
    TooLarge,
    /// It is older than the collector takes lines, and the config wants it so.
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

/// Why a delivery goes no further on this connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The connection is of no more use. What has no verdict is sent on another one.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The collector refuses everything; the text is its own. Nothing is given up.
    #[error("the collector refuses everything: {0}")]
    Stop(String),
}

/// What is wrong with a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("RELP's open was answered with: {0}")]
    NotOpened(String),
    /// The rest of the connection says nothing to anybody: it is reset, or a goodbye would wait behind what the collector does
    /// not read.
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
    /// Lines may be pushed: the collector has said all that has to be said before.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Syslog(_) => true,
            Self::Relp(relp) => relp.is_open(),
            Self::Nats(nats) => nats.is_open(),
            Self::Fluent(fluent) => fluent.is_open(),
        }
    }

    /// What the collector has to say before lines may be pushed, and what may be wrong where it does not.
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

    /// Whether more may be taken from the spool.
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

    /// Takes the next lines of the spool. Only while there is capacity.
    pub fn push(&mut self, lines: FilteredChunk, now: Instant, refusals: &mut Refusals, progress: &mut Progress) {
        match self {
            Self::Syslog(syslog) => syslog.push(&lines, progress),
            Self::Relp(relp) => relp.push(lines, now, refusals, progress),
            Self::Nats(nats) => nats.push(lines, now, refusals, progress),
            Self::Fluent(fluent) => fluent.push(lines, now, refusals, progress),
        }
    }

    /// Bytes for the collector, from the first one that was not [`flushed`](Self::flushed). It only grows until then.
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

    /// Whether it matters what the collector says.
    pub fn listens(&self) -> bool {
        !matches!(self, Self::Syslog(_))
    }

    /// What the collector said, cut anywhere. What came before an error is in `progress` all the same.
    pub fn heard(
        &mut self,
        bytes: &[u8],
        now: Instant,
        refusals: &mut Refusals,
        progress: &mut Progress,
    ) -> Result<(), DeliveryError> {
        match self {
            // A collector of plain syslog has nothing to say.
            Self::Syslog(_) => Ok(()),
            Self::Relp(relp) => relp.heard(bytes, now, refusals, progress),
            Self::Nats(nats) => nats.heard(bytes, now, refusals, progress),
            Self::Fluent(fluent) => fluent.heard(bytes, now, refusals, progress),
        }
    }

    /// Whether the connection's state is of any use now, see [`acknowledged`](Self::acknowledged).
    pub fn wants_sample(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.wants_sample(),
            Self::Relp(relp) => relp.wants_sample(),
            Self::Nats(nats) => nats.wants_sample(),
            Self::Fluent(fluent) => fluent.wants_sample(),
        }
    }

    /// What the connection looks like.
    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant, progress: &mut Progress) {
        match self {
            Self::Syslog(syslog) => syslog.acknowledged(sample, now, progress),
            Self::Relp(relp) => relp.acknowledged(sample, now),
            Self::Nats(nats) => nats.acknowledged(sample, now),
            Self::Fluent(fluent) => fluent.acknowledged(sample, now),
        }
    }

    /// Does what is due, and says when to be called again if nothing else happens.
    pub fn timer(&mut self, now: Instant, progress: &mut Progress) -> Result<Option<Instant>, DeliveryError> {
        match self {
            Self::Syslog(syslog) => Ok(syslog.look_again(now)),
            Self::Relp(relp) => relp.timer(now, progress),
            Self::Nats(nats) => nats.timer(now, progress),
            Self::Fluent(fluent) => fluent.timer(now),
        }
    }

    /// How far the collector is with what is on its way, counted in anything that only grows. `None`: nothing is.
    pub fn awaits(&self) -> Option<u64> {
        match self {
            Self::Syslog(syslog) => syslog.awaits(),
            Self::Relp(relp) => relp.awaits(),
            Self::Nats(nats) => nats.awaits(),
            Self::Fluent(fluent) => fluent.awaits(),
        }
    }

    /// Nothing that was pushed has to be sent any more; where there are answers, everything has its verdict.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.has_capacity(),
            Self::Relp(relp) => relp.is_settled(),
            Self::Nats(nats) => nats.is_settled(),
            Self::Fluent(fluent) => fluent.is_settled(),
        }
    }

    /// Everything that was pushed is with the collector, or rejected.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.awaits().is_none(),
            Self::Relp(relp) => relp.is_settled(),
            Self::Nats(nats) => nats.is_settled(),
            Self::Fluent(fluent) => fluent.is_settled(),
        }
    }

    /// Says goodbye, where the protocol has a word for it. What the collector says afterwards settles nothing.
    pub fn goodbye(&mut self) {
        if let Self::Relp(relp) = self {
            relp.goodbye();
        }
    }

    /// The goodbye was answered, or needs no answer.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Syslog(_) | Self::Nats(_) | Self::Fluent(_) => true,
            Self::Relp(relp) => relp.is_over(),
        }
    }

    /// Whether something can be learned from how the collector ends the connection after our goodbye.
    pub fn learns_from_close(&self) -> bool {
        matches!(self, Self::Syslog(_))
    }

    /// The connection is of no more use: what was on its way may be why.
    pub fn failed(&mut self, now: Instant, refusals: &mut Refusals, progress: &mut Progress) {
        match self {
            Self::Syslog(_) | Self::Nats(_) => {}
            Self::Relp(relp) => relp.failed(refusals),
            Self::Fluent(fluent) => fluent.failed(now, refusals, progress),
        }
    }

    /// No more is carried on this connection, for whatever reason.
    pub fn left(&self, refusals: &mut Refusals) {
        if let Self::Fluent(fluent) = self {
            fluent.left(refusals);
        }
    }

    /// Whether nothing says that the collector does not keep up.
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
