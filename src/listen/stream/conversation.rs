//! A session with everything that it needs except for the socket: where its messages go, what they are counted by, what memory
//! they may take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::super::ingest::Ingest;
use super::budget::Reservation;
use super::replies::{Count, Replies, Ticket};
use crate::config::Limits;
use crate::metrics::ListenMetrics;
use crate::protocol::session::{Ack, AnySession, Closed, Numbers, Phase, Session, Sink, Violation};
use crate::spool::Origin;

const SAY_EVERY: Duration = Duration::from_secs(600);

pub struct Conversation<'a> {
    pub session: AnySession,
    /// What is owed to a sender that is answered. Boxed: sessions without answers should not pay for it.
    pub replies: Option<Box<Replies>>,
    pub ingest: Box<Ingest>,
    /// The bytes that the session holds, and those of answers.
    pub reservation: Reservation,
    pub limits: &'a Limits,
    pub metrics: &'a ListenMetrics,
    pub ends: &'a EndedSessions,
}

/// What is said of sessions that a listener has ended. Strangers can bring it about, so it is said now and then.
#[derive(Default)]
pub struct EndedSessions(Mutex<Option<Instant>>);

impl EndedSessions {
    fn say(&self, ingest: &Ingest, why: &str) {
        let mut said = self.0.lock();
        if said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return;
        }
        *said = Some(Instant::now());
        let peer = ingest.peer().map_or_else(String::new, |peer| format!(" with {peer}"));
        tracing::warn!(
            "listen: {}: a session{peer} was ended: {why}; its sender was told, and sends again what has no answer \
             (logferry_listen_refused counts such sessions, this is said every ten minutes at the most)",
            ingest.label()
        );
    }
}

impl Conversation<'_> {
    pub fn opened(&mut self, now: Instant) {
        self.call(&self.metrics.cut.max_frame, |session, _, answers| session.opened(now, answers));
    }

    /// Takes the next bytes. It is up to the caller to hand over what comes of them. An error: the connection has to end.
    pub fn feed(&mut self, bytes: &[u8], now: Instant) -> Result<(), Violation> {
        self.metrics.bytes.inc_by(bytes.len() as u64);
        self.ingest.begin(bytes.len());
        let fed =
            self.call(&self.metrics.cut.max_frame, |session, sink, answers| session.feed(bytes, now, sink, answers));
        if let Err(Violation(why)) = fed {
            self.metrics.refused.protocol.inc();
            // What it owes is answered first, and its sender is told why.
            if self.session.phase() == Phase::Closing {
                self.ends.say(&self.ingest, why);
                return self.reserve();
            }
        }
        fed.and_then(|()| self.reserve())
    }

    /// Does what is due, and returns when the session wants to be called next. An error: the connection has to end.
    pub fn timer(&mut self, now: Instant) -> Result<Option<Instant>, Violation> {
        let was_opening = self.session.phase() == Phase::Opening;
        let next = self.call(&self.metrics.cut.frame_timeout, |session, sink, _| session.timer(now, sink));
        match next {
            Ok(_) => {}
            Err(_) if was_opening => drop(self.metrics.handshake_failures.inc()),
            Err(_) => drop(self.metrics.refused.frame_timeout.inc()),
        }
        next
    }

    /// Reserves the memory that the session holds; without it, the session gives up what it can. An error: the connection has
    /// to end.
    pub fn reserve(&mut self) -> Result<(), Violation> {
        let memory = self.session.memory() + self.replies.as_ref().map_or(0, |replies| replies.memory());
        if self.reservation.resize(memory, self.limits.max_unfinished) {
            return Ok(());
        }
        let given_up = self.call(&self.metrics.cut.max_unfinished, |session, sink, _| session.give_up(sink));
        match given_up {
            Ok(()) => self.reservation.release(),
            Err(_) => drop(self.metrics.refused.max_unfinished.inc()),
        }
        given_up
    }

    /// The relay stops, and nothing more is read.
    pub fn stopping(&mut self) {
        self.call(&self.metrics.cut.max_frame, |session, _, answers| session.stopping(answers));
    }

    /// The connection has ended. It is up to the caller to hand over what comes of that.
    pub fn closed(&mut self, how: Closed) {
        if how == Closed::Clean {
            self.ingest.begin(0);
        }
        self.call(&self.metrics.cut.connection_end, |session, sink, _| session.closed(how, sink));
        if self.session.unfinished() {
            self.metrics.unfinished.inc();
        }
    }

    /// Calls the session, and counts its messages, those that are cut at `cut` too.
    fn call<T>(&mut self, cut: &Counter, call: impl FnOnce(&mut AnySession, &mut Counted<'_>, &mut Vec<u8>) -> T) -> T {
        let mut nobody = Vec::new();
        let (tickets, answers) = match &mut self.replies {
            Some(replies) => (Some(&mut replies.tickets), &mut replies.answers),
            None => (None, &mut nobody),
        };
        let mut sink = Counted { ingest: &mut self.ingest, tickets, batch: Count::default(), done: Count::default() };
        let called = call(&mut self.session, &mut sink, answers);
        // What should have had a ticket has none only where the session has come to its end: nobody has it.
        let Counted { tickets, batch, done, .. } = sink;
        let count = if tickets.is_none() { done.and(batch) } else { done };
        if count.messages > 0 {
            self.metrics.received.inc_by(count.messages);
            cut.inc_by(count.cut);
        }
        called
    }
}

/// Puts messages into the ingest, and counts them: those of a batch that has a ticket when it is handed over, others at once.
struct Counted<'a> {
    ingest: &'a mut Ingest,
    /// The answers that a session owes.
    tickets: Option<&'a mut VecDeque<Ticket>>,
    batch: Count,
    done: Count,
}

impl Sink for Counted<'_> {
    fn frame(&mut self, bytes: &[u8], cut: bool) -> bool {
        let taken = self.ingest.frame(bytes, cut);
        let count = if taken { &mut self.batch } else { &mut self.done };
        count.add(cut);
        taken
    }

    fn ticket(&mut self, ack: Ack, numbers: Option<Numbers<'_>>) {
        let Some(tickets) = &mut self.tickets else { return };
        let origin = numbers.map(|Numbers { stream, session, first_line, was }| Origin {
            stream: stream.to_owned(),
            session,
            first_line,
            was: was.map(str::to_owned),
        });
        let count = std::mem::take(&mut self.batch);
        tickets.push_back(Ticket { batch: self.ingest.take(), origin, ack, count });
    }
}
