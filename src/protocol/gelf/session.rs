//! A connection that speaks GELF: a series of messages without answers. A bad message does not affect the next one.

use std::time::Instant;

use super::{Found, GelfFramer, Message, outline};
use crate::protocol::foreign::{FirstBytes, Foreign};
use crate::protocol::session::{
    Ack, Bounds, Closed, Conduct, MessageDeadline, Phase, Refusal, Session, Sink, Violation,
};

/// Docker's driver notices nothing but a reset.
const CONDUCT: Conduct = Conduct { answers: false, pipelines: false, turn_bytes: 256 * 1024, holds_briefly: false };

/// The maximum bytes of the JSON of a message. UDP allows no more: 128 datagrams of 8 KiB.
pub const MAX_JSON: usize = 1 << 20;

#[derive(Debug)]
pub struct GelfSession {
    first: FirstBytes,
    framer: GelfFramer,
    deadline: MessageDeadline,
    /// The maximum bytes of a text that are kept.
    max_message: usize,
}

impl GelfSession {
    pub fn new(Bounds { max_frame, frame_timeout, .. }: Bounds) -> Self {
        Self {
            first: FirstBytes::default(),
            framer: GelfFramer::new(MAX_JSON),
            deadline: MessageDeadline::new(frame_timeout),
            max_message: max_frame,
        }
    }

    /// The other protocol that the sender speaks, where it is recognized.
    pub fn foreign(&self) -> Option<Foreign> {
        self.first.foreign()
    }

    pub fn has_begun(&self) -> bool {
        self.first.are_expected()
    }
}

/// Passes a message to the sink, or the reason why it is refused.
fn take(found: Found<'_>, max_message: usize, to: &mut impl Sink) {
    if let Ok(json) = found
        && let Some(outline) = outline(json, max_message)
        && to.known(&outline).is_some()
    {
        return;
    }
    match found.and_then(Message::read) {
        Ok(message) => {
            to.record(&message.at_most(max_message));
        }
        Err(refused) => to.refused(refused.into()),
    }
}

impl Session for GelfSession {
    fn conduct(&self) -> &'static Conduct {
        &CONDUCT
    }

    fn phase(&self) -> Phase {
        Phase::Open
    }

    fn opened(&mut self, _now: Instant, _answers: &mut Vec<u8>) {}

    fn feed(&mut self, bytes: &[u8], now: Instant, to: &mut impl Sink, _: &mut Vec<u8>) -> Result<(), Violation> {
        let is_strange = |byte| !matches!(byte, b'{' | b'\0' | b'\n' | b'\r' | b'\t' | b' ');
        if let Some(told) = self.first.take_strange(bytes, is_strange) {
            self.deadline.after_feed(true, false, now);
            return told.map_err(|()| super::Refused::NotJson.into());
        }
        let Self { framer, max_message, .. } = self;
        let mut another = false;
        framer.feed(bytes, &mut |found| {
            another = true;
            take(found, *max_message, to);
        });
        self.deadline.after_feed(self.framer.is_inside(), another, now);
        Ok(())
    }

    fn committed(&mut self, _ack: Ack, _answers: &mut Vec<u8>) {}

    fn refused(&mut self, _ack: Ack, _why: Refusal) {}

    fn timer(&mut self, now: Instant, to: &mut impl Sink) -> Result<Option<Instant>, Violation> {
        if self.deadline.is_over(now) {
            self.deadline.clear();
            self.framer.give_up(&mut |found| take(found, self.max_message, to));
        }
        Ok(self.deadline.at())
    }

    fn give_up(&mut self, to: &mut impl Sink) -> Result<(), Violation> {
        self.deadline.clear();
        self.framer.give_up(&mut |found| take(found, self.max_message, to));
        Ok(())
    }

    fn stopping(&mut self, _answers: &mut Vec<u8>) {}

    /// A clean end of the connection completes a message that ends there.
    fn closed(&mut self, how: Closed, to: &mut impl Sink) {
        if how == Closed::Clean {
            self.framer.closed(&mut |found| take(found, self.max_message, to));
        }
    }

    fn unfinished(&self) -> bool {
        self.framer.is_inside() || self.first.are_held()
    }

    fn memory(&self) -> usize {
        self.framer.kept()
    }

    fn owed(&self) -> usize {
        0
    }
}

impl From<super::Refused> for Violation {
    fn from(refused: super::Refused) -> Self {
        Self { name: refused.name(), why: refused.to_string().into() }
    }
}
