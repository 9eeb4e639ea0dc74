//! A connection that speaks syslog: messages in sequence (RFC 6587), without answers.

use std::time::{Duration, Instant};

use super::Senders;
use crate::protocol::foreign::{self, FirstBytes, Foreign};
use crate::protocol::framing::{Found, Framer};
use crate::protocol::session::{Ack, Closed, Conduct, MessageDeadline, Phase, Refusal, Session, Sink, Violation};

const CONDUCT: Conduct = Conduct { answers: false, pipelines: false, turn_bytes: 256 * 1024, holds_briefly: false };

/// How long the sender must be silent after a possible end of a message until it counts as the end. A possible end is a NUL, or a number of
/// octets without a priority.
const PAUSE: Duration = Duration::from_secs(1);

/// A session without answers: a message that is too long or too slow is truncated, and the next message is complete again.
#[derive(Debug)]
pub struct SyslogSession {
    framer: Framer,
    deadline: MessageDeadline,
    /// When the last byte counts as the end of a message, if no more bytes come; `None`: it cannot be the end.
    pause: Option<Instant>,
    /// The first bytes. They may show that the client speaks another protocol.
    first: FirstBytes,
}

impl SyslogSession {
    /// `max_frame`: maximum bytes of a message. `timeout`: how long the session waits for its end.
    pub fn new(max_frame: usize, timeout: Duration, senders: Senders) -> Self {
        let framer = match senders {
            Senders::Anybody => Framer::new(max_frame),
            Senders::Docker => Framer::of_docker(max_frame),
        };
        Self { framer, deadline: MessageDeadline::new(timeout), pause: None, first: FirstBytes::default() }
    }

    /// The foreign protocol that the client speaks, if it is a known one.
    pub fn foreign(&self) -> Option<Foreign> {
        self.first.foreign()
    }

    /// Stops waiting for bytes that identify the protocol, and feeds the held ones to the framer.
    fn release(&mut self, to: &mut impl Sink) {
        let first = std::mem::replace(&mut self.first, FirstBytes::Expected);
        self.call(to, |framer, on_frame| framer.feed(first.held(), on_frame));
    }

    /// Calls the framer and passes its frames to the sink. Returns whether there was a frame.
    fn call(&mut self, to: &mut impl Sink, call: impl FnOnce(&mut Framer, &mut dyn FnMut(Found<'_>))) -> bool {
        let mut another = false;
        call(&mut self.framer, &mut |found| {
            another = true;
            to.frame(found.bytes, found.cut);
        });
        if let Some(notes) = self.framer.take_notes() {
            to.notes(notes);
        }
        another
    }
}

impl Session for SyslogSession {
    fn conduct(&self) -> &'static Conduct {
        &CONDUCT
    }

    fn phase(&self) -> Phase {
        Phase::Open
    }

    fn opened(&mut self, _now: Instant, _answers: &mut Vec<u8>) {}

    fn feed(
        &mut self,
        bytes: &[u8],
        now: Instant,
        to: &mut impl Sink,
        _answers: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let mut another = false;
        if !self.first.are_expected() {
            let before = self.first.take(bytes, foreign::at_syslog).map_err(|()| Violation::new("no syslog"))?;
            let Some(before) = before else {
                self.deadline.after_feed(self.first.are_held(), false, now);
                return Ok(());
            };
            if before.held().first().or(bytes.first()) == Some(&b'{') {
                to.json();
            }
            another = self.call(to, |framer, on_frame| framer.feed(before.held(), on_frame));
        }
        self.framer.feed(bytes, |found| {
            another = true;
            to.frame(found.bytes, found.cut);
        });
        if let Some(notes) = self.framer.take_notes() {
            to.notes(notes);
        }
        self.deadline.after_feed(self.framer.unfinished(), another, now);
        self.pause = if self.framer.may_have_ended() { now.checked_add(PAUSE) } else { None };
        Ok(())
    }

    fn committed(&mut self, _ack: Ack, _answers: &mut Vec<u8>) {}

    fn refused(&mut self, _ack: Ack, _why: Refusal) {}

    fn timer(&mut self, now: Instant, to: &mut impl Sink) -> Result<Option<Instant>, Violation> {
        if self.pause.is_some_and(|pause| pause <= now) {
            self.pause = None;
            self.call(to, |framer, on_frame| framer.pause(on_frame));
            if !self.framer.unfinished() {
                self.deadline.clear();
            }
        }
        if self.deadline.is_over(now) {
            self.pause = None;
            self.deadline.clear();
            self.release(to);
            self.call(to, |framer, on_frame| framer.time_out(on_frame));
        }
        Ok([self.pause, self.deadline.at()].into_iter().flatten().min())
    }

    fn give_up(&mut self, to: &mut impl Sink) -> Result<(), Violation> {
        self.deadline.clear();
        self.call(to, |framer, on_frame| framer.give_up(on_frame));
        if !self.framer.may_have_ended() {
            self.pause = None;
        }
        Ok(())
    }

    fn stopping(&mut self, _answers: &mut Vec<u8>) {}

    /// A connection that is closed in good order ends its last message (people pipe `printf` into `nc`). If the connection broke, the
    /// sender sends the whole message again.
    fn closed(&mut self, how: Closed, to: &mut impl Sink) {
        if how == Closed::Clean && self.foreign().is_none() {
            self.release(to);
            self.call(to, |framer, on_frame| framer.finish(on_frame));
        }
    }

    fn unfinished(&self) -> bool {
        self.framer.unfinished() || self.first.are_held()
    }

    fn memory(&self) -> usize {
        self.framer.held()
    }

    fn owed(&self) -> usize {
        0
    }
}
