//! A connection that speaks syslog: messages one after the other (RFC 6587), which nobody answers.

use std::time::{Duration, Instant};

use crate::protocol::framing::Framer;
use crate::protocol::session::{Ack, Closed, Conduct, MessageDeadline, Phase, Refusal, Session, Sink, Violation};

const CONDUCT: Conduct = Conduct { answers: false, turn_bytes: 256 * 1024 };

/// Nothing is asked of such a sender and nothing told to it: a message that is too long or too slow is cut, and the next one is
/// whole again.
#[derive(Debug)]
pub struct SyslogSession {
    framer: Framer,
    deadline: MessageDeadline,
}

impl SyslogSession {
    /// `max_frame`: bytes of a message that are kept; `timeout`: how long the end of one is waited for.
    pub fn new(max_frame: usize, timeout: Duration) -> Self {
        Self { framer: Framer::new(max_frame), deadline: MessageDeadline::new(timeout) }
    }

    fn cut(&mut self, to: &mut impl Sink) {
        self.framer.cut(|frame, cut| {
            to.frame(frame, cut);
        });
        self.deadline.clear();
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
        self.framer.feed(bytes, |frame, cut| {
            another = true;
            to.frame(frame, cut);
        });
        self.deadline.after_feed(self.framer.unfinished(), another, now);
        Ok(())
    }

    fn committed(&mut self, _ack: Ack, _answers: &mut Vec<u8>) {}

    fn refused(&mut self, _ack: Ack, _why: Refusal) {}

    fn timer(&mut self, now: Instant, to: &mut impl Sink) -> Result<Option<Instant>, Violation> {
        if self.deadline.is_over(now) {
            self.cut(to);
        }
        Ok(self.deadline.at())
    }

    fn give_up(&mut self, to: &mut impl Sink) -> Result<(), Violation> {
        self.cut(to);
        Ok(())
    }

    fn stopping(&mut self, _answers: &mut Vec<u8>) {}

    /// The end of a connection that was closed in good order ends a message (people pipe `printf` into `nc`). A sender that has
    /// noticed that it broke sends the whole message again.
    fn closed(&mut self, how: Closed, to: &mut impl Sink) {
        if how == Closed::Clean {
            self.framer.finish(|frame, cut| {
                to.frame(frame, cut);
            });
        }
    }

    fn unfinished(&self) -> bool {
        self.framer.unfinished()
    }

    fn memory(&self) -> usize {
        self.framer.held()
    }

    fn owed(&self) -> usize {
        0
    }
}
