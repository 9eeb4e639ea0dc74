//! A session with everything that it needs except for the socket: the ingest for its messages, counters, and memory.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::super::Notices;
use super::super::ingest::Ingest;
use super::super::refusal::{RefusalLog, RefusalReason};
use super::budget::Reservation;
use super::replies::{Count, Replies, Ticket};
use crate::config::Limits;
use crate::metrics::{ListenMetrics, SkippedBytes};
use crate::protocol::fluent::UnconfirmedChunks;
use crate::protocol::foreign::at_relp;
use crate::protocol::framing::Notes;
use crate::protocol::outline::Outline;
use crate::protocol::session::{Ack, AnySession, Closed, Numbers, Phase, Protocol, Session, Sink, ToRecord, Violation};
use crate::spool::Origin;

pub struct Conversation<'a> {
    pub session: AnySession,
    /// The pending answers. Boxed, because sessions without answers should not take its memory.
    pub replies: Option<Box<Replies>>,
    pub ingest: Box<Ingest>,
    /// The bytes that the session and its answers hold.
    pub reservation: Reservation,
    pub limits: &'a Limits,
    pub metrics: &'a ListenMetrics,
    pub refusals: &'a RefusalLog,
    pub notices: &'a Notices,
    pub chunks: &'a SenderChunks,
}

/// Chunks of the Forward protocol that may come again, by their senders' addresses.
pub type SenderChunks = Mutex<UnconfirmedChunks<Option<IpAddr>>>;

impl Conversation<'_> {
    pub fn opened(&mut self, now: Instant) {
        self.call(&self.metrics.cut.max_frame, |session, _, answers| session.opened(now, answers));
    }

    /// Feeds the next bytes to the session. The caller hands the resulting messages over. An error: the connection has to end.
    pub fn feed(&mut self, bytes: &[u8], now: Instant) -> Result<(), Violation> {
        self.metrics.bytes.inc_by(bytes.len() as u64);
        self.ingest.begin(bytes.len());
        let is_opening = self.session.phase() == Phase::Opening;
        let fed =
            self.call(&self.metrics.cut.max_frame, |session, sink, answers| session.feed(bytes, now, sink, answers));
        if let Err(violation) = &fed {
            let spoken = self.session.protocol();
            let is_first = is_opening && spoken == Protocol::Relp;
            let foreign = self.session.foreign().or_else(|| is_first.then(|| at_relp(bytes))?);
            self.refuse(&match foreign {
                Some(foreign) => RefusalReason::Foreign(foreign, spoken),
                None if self.session.has_begun() => RefusalReason::Broken(spoken, violation.clone()),
                None => RefusalReason::NotSpoken(spoken, violation.clone()),
            });
            // The session sends its pending answers before the connection ends.
            if self.session.phase() == Phase::Closing {
                return self.reserve();
            }
        }
        fed.and_then(|()| self.reserve())
    }

    /// Calls the session's timer, and returns the time of the next call. An error: the connection has to end.
    pub fn timer(&mut self, now: Instant) -> Result<Option<Instant>, Violation> {
        let was_opening = self.session.phase() == Phase::Opening;
        let next = self.call(&self.metrics.cut.frame_timeout, |session, sink, _| session.timer(now, sink));
        match next {
            Ok(_) => {}
            Err(_) if was_opening => self.refuse(&RefusalReason::HandshakeTimeout),
            Err(_) => self.refuse(&RefusalReason::FrameTimeout),
        }
        next
    }

    /// Reserves the memory that the session holds. If there is none, the session gives up what it can. An error: the connection has
    /// to end.
    pub fn reserve(&mut self) -> Result<(), Violation> {
        let memory = self.session.memory() + self.replies.as_ref().map_or(0, |replies| replies.memory());
        if self.reservation.resize(memory, self.limits.max_unfinished) {
            return Ok(());
        }
        let given_up = self.call(&self.metrics.cut.max_unfinished, |session, sink, _| session.give_up(sink));
        match given_up {
            Ok(()) => self.reservation.release(),
            Err(_) => self.refuse(&RefusalReason::MaxUnfinished),
        }
        given_up
    }

    /// Tells the session that the relay stops and reads nothing more.
    pub fn stopping(&mut self) {
        self.call(&self.metrics.cut.max_frame, |session, _, answers| session.stopping(answers));
    }

    /// Tells the session that the connection has ended. The caller hands the resulting messages over.
    pub fn closed(&mut self, how: Closed) {
        if how == Closed::Clean {
            self.ingest.begin(0);
        }
        self.call(&self.metrics.cut.connection_end, |session, sink, _| session.closed(how, sink));
        if self.session.unfinished() {
            self.metrics.unfinished.inc();
        }
    }

    /// How long the sender may wait for an answer; `None`: without limit.
    pub fn max_wait(&self) -> Option<Duration> {
        self.ingest.max_wait().filter(|_| self.session.conduct().holds_briefly)
    }

    fn refuse(&self, reason: &RefusalReason) {
        self.refusals.refuse(self.ingest.peer(), reason);
    }

    /// Calls the session, and counts its messages, and those that are cut at `cut`.
    fn call<T>(&mut self, cut: &Counter, call: impl FnOnce(&mut AnySession, &mut Counted<'_>, &mut Vec<u8>) -> T) -> T {
        let mut nobody = Vec::new();
        let (tickets, answers) = match &mut self.replies {
            Some(replies) => (Some(&mut replies.tickets), &mut replies.answers),
            None => (None, &mut nobody),
        };
        let mut sink = Counted {
            ingest: &mut self.ingest,
            tickets,
            batch: Count::default(),
            done: Count::default(),
            noted: (self.notices, &self.metrics.skipped),
            chunks: (self.chunks, &self.metrics.repeated),
            refusals: (self.refusals, self.session.protocol()),
            last_refused: None,
        };
        let called = call(&mut self.session, &mut sink, answers);
        // A batch without a ticket remains only if the session has come to its end. It is dropped.
        let Counted { batch, done, last_refused, .. } = sink;
        // Reports only the last one of a read: a flood of data that is no message must not cost more than counting it.
        if let Some(reason) = last_refused {
            self.refusals.report(self.ingest.peer(), &reason);
        }
        let count = if self.session.conduct().answers { done } else { done.and(batch) };
        if count.messages > 0 {
            self.metrics.received.inc_by(count.messages);
            cut.inc_by(count.cut);
        }
        called
    }
}

/// Passes messages to the ingest and counts them: those of a batch with a ticket when it is handed over, others at once.
struct Counted<'a> {
    ingest: &'a mut Ingest,
    /// The answers that the session owes.
    tickets: Option<&'a mut VecDeque<Ticket>>,
    batch: Count,
    done: Count,
    noted: (&'a Notices, &'a SkippedBytes),
    chunks: (&'a SenderChunks, &'a Counter),
    refusals: (&'a RefusalLog, Protocol),
    last_refused: Option<RefusalReason>,
}

impl Counted<'_> {
    /// Counts a message. Returns whether it was taken.
    fn count(&mut self, taken: bool, cut: bool) -> bool {
        let count = if taken { &mut self.batch } else { &mut self.done };
        count.add(cut);
        taken
    }
}

impl Sink for Counted<'_> {
    fn frame(&mut self, bytes: &[u8], cut: bool) -> bool {
        let taken = self.ingest.frame(bytes, cut);
        self.count(taken, cut)
    }

    fn record(&mut self, message: &impl ToRecord) -> bool {
        let taken = self.ingest.record(message);
        self.count(taken, message.is_cut())
    }

    fn known(&mut self, outline: &Outline<'_>) -> Option<bool> {
        let taken = self.ingest.known(outline)?;
        Some(self.count(taken, false))
    }

    fn refused(&mut self, why: Violation) {
        let (_, protocol) = self.refusals;
        let reason = RefusalReason::NoMessage(protocol, why);
        self.refusals.0.count(&reason);
        self.last_refused = Some(reason);
    }

    fn notes(&mut self, notes: Notes) {
        let (notices, skipped) = self.noted;
        notices.notes(notes, self.ingest.peer(), skipped);
    }

    fn json(&mut self) {
        self.noted.0.json(self.ingest.peer());
    }

    fn answers_messages(&mut self) {
        self.ingest.make_senders_wait();
    }

    fn comes_again(&mut self, chunk: &[u8]) -> bool {
        let (chunks, count) = self.chunks;
        let is_known = chunks.lock().take(&self.ingest.peer(), chunk, Instant::now());
        count.inc_by(is_known.into());
        is_known
    }

    fn unconfirmed(&mut self, chunk: &[u8]) {
        self.chunks.0.lock().add(self.ingest.peer(), chunk, Instant::now());
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
