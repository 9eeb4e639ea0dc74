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
use crate::protocol::relp::BadFrame;
use crate::spool::Position;

pub use refusals::Refusals;
pub use relp::RelpDelivery;
pub use syslog::{SAMPLE_EVERY, SyslogDelivery};

/// One connection's delivery.
pub enum Delivery {
    /// Syslog over TCP or TLS: nothing is answered, and the acknowledgements of the peer's kernel are all there is.
    Syslog(Box<SyslogDelivery>),
    /// Each frame is answered.
    Relp(Box<RelpDelivery>),
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
}

/// A line that the collector refuses for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Which opening of the spool numbered the line.
    pub session: u32,
    /// The line's number in the spool.
    pub line: u64,
    /// The collector's own words, without control characters.
    pub why: String,
    pub bytes: Vec<u8>,
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
}

impl From<BadFrame> for DeliveryError {
    fn from(bad: BadFrame) -> Self {
        Self::Broken(Broken::NoRelp(bad))
    }
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        let Self { delivered, acknowledged, safe, rejected, resent } = self;
        !delivered && acknowledged.is_none() && safe.is_none() && rejected.is_empty() && *resent == 0
    }
}

impl Delivery {
    /// Lines may be pushed: the collector has said all that has to be said before.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Syslog(_) => true,
            Self::Relp(relp) => relp.is_open(),
        }
    }

    /// Whether more may be taken from the spool.
    pub fn has_capacity(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.has_capacity(),
            Self::Relp(relp) => relp.has_capacity(),
        }
    }

    /// Bytes to take from the spool at once.
    pub fn batch_bytes(&self) -> usize {
        match self {
            Self::Syslog(syslog) => syslog.batch_bytes(),
            Self::Relp(relp) => relp.batch_bytes(),
        }
    }

    /// Takes the next lines of the spool. Only while there is capacity.
    pub fn push(&mut self, lines: FilteredChunk, now: Instant, refusals: &Refusals, progress: &mut Progress) {
        match self {
            Self::Syslog(syslog) => syslog.push(&lines, progress),
            Self::Relp(relp) => relp.push(lines, now, refusals, progress),
        }
    }

    /// Bytes for the collector, from the first one that was not [`flushed`](Self::flushed). It only grows until then.
    pub fn output(&self) -> &[u8] {
        match self {
            Self::Syslog(syslog) => syslog.output(),
            Self::Relp(relp) => relp.output(),
        }
    }

    /// All of the output has been handed to the kernel. `wire_bytes`: how much was written on this connection in all.
    pub fn flushed(&mut self, wire_bytes: u64) {
        match self {
            Self::Syslog(syslog) => syslog.flushed(wire_bytes),
            Self::Relp(relp) => relp.flushed(),
        }
    }

    /// Whether it matters what the collector says.
    pub fn listens(&self) -> bool {
        matches!(self, Self::Relp(_))
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
        }
    }

    /// Whether the connection's state is of any use now, see [`acknowledged`](Self::acknowledged).
    pub fn wants_sample(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.wants_sample(),
            Self::Relp(relp) => relp.wants_sample(),
        }
    }

    /// What the connection looks like.
    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant, progress: &mut Progress) {
        match self {
            Self::Syslog(syslog) => syslog.acknowledged(sample, now, progress),
            Self::Relp(relp) => relp.acknowledged(sample, now),
        }
    }

    /// Does what is due, and says when to be called again if nothing else happens.
    pub fn timer(&mut self, now: Instant, progress: &mut Progress) -> Result<Option<Instant>, DeliveryError> {
        match self {
            Self::Syslog(syslog) => Ok(syslog.look_again(now)),
            Self::Relp(relp) => relp.timer(now, progress),
        }
    }

    /// How far the collector is with what is on its way, counted in anything that only grows. `None`: nothing is.
    pub fn awaits(&self) -> Option<u64> {
        match self {
            Self::Syslog(syslog) => syslog.awaits(),
            Self::Relp(relp) => relp.awaits(),
        }
    }

    /// Nothing that was pushed has to be sent any more; for RELP, everything has its verdict.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.has_capacity(),
            Self::Relp(relp) => relp.is_settled(),
        }
    }

    /// Everything that was pushed is with the collector, or rejected.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Syslog(syslog) => syslog.awaits().is_none(),
            Self::Relp(relp) => relp.is_settled(),
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
            Self::Syslog(_) => true,
            Self::Relp(relp) => relp.is_over(),
        }
    }

    /// Whether something can be learned from how the collector ends the connection after our goodbye.
    pub fn learns_from_close(&self) -> bool {
        matches!(self, Self::Syslog(_))
    }

    /// The connection is of no more use: what was on its way may be why.
    pub fn failed(&self, refusals: &mut Refusals) {
        if let Self::Relp(relp) = self {
            relp.failed(refusals);
        }
    }

    /// What is acknowledged and may not have been read, and when it is old.
    pub fn left(&self, now: Instant) -> Option<impl Iterator<Item = (Position, Instant)>> {
        match self {
            Self::Syslog(syslog) => Some(syslog.left(now)),
            Self::Relp(_) => None,
        }
    }

    /// The collector has closed its side in good order: by itself, or in answer to our goodbye.
    pub fn closed(&mut self, in_answer: bool, now: Instant, progress: &mut Progress) {
        if let Self::Syslog(syslog) = self {
            syslog.closed(in_answer, now, progress);
        }
    }
}
