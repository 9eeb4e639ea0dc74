//! The pending answers of a session: batches on their way into the spool, and answers on their way to the sender.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::accepted::Connection;
use crate::protocol::session::{Ack, AnySession, Refusal, Session};
use crate::spool::{Batch, NotSpooled, Origin, Receipt};

/// Batches that may wait for the spool before reading pauses.
const MAX_UNANSWERED: usize = 16;
/// Bytes of answers that the sender may leave unread before reading pauses.
const MAX_UNREAD: usize = 64 * 1024;
/// How often the driver checks whether a waiting sender is still connected.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The pending batches and answers of one connection.
pub struct Replies {
    /// Batches that are read and not handed over yet, in order.
    pub tickets: VecDeque<Ticket>,
    /// Batches that are handed over and not in the spool yet, in order.
    receipts: VecDeque<(Receipt, Ack)>,
    /// Bytes for the sender. The first `sent` of them are sent.
    pub answers: Vec<u8>,
    sent: usize,
    /// Times at which to check whether the sender is still connected, while nothing is read from it.
    looks: Interval,
    /// When the sender began to wait for an answer.
    waits_since: Option<Instant>,
}

/// A batch that is to be acknowledged.
pub struct Ticket {
    pub batch: Batch,
    pub origin: Option<Origin>,
    pub ack: Ack,
    pub count: Count,
}

/// Why the relay waits no longer for a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The sender has disconnected.
    Left,
    /// The sender has waited as long as it may.
    Overdue,
}

/// A number of messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub messages: u64,
    /// How many of these messages were cut.
    pub cut: u64,
}

impl Count {
    pub fn add(&mut self, cut: bool) {
        self.messages += 1;
        self.cut += u64::from(cut);
    }

    pub fn and(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, cut: self.cut + other.cut }
    }
}

impl Replies {
    pub fn new() -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            tickets: VecDeque::new(),
            receipts: VecDeque::new(),
            answers: Vec::new(),
            sent: 0,
            looks,
            waits_since: None,
        }
    }

    /// Notes that the sender waits from now on, unless it waits already.
    pub fn begin_to_wait(&mut self) {
        self.waits_since.get_or_insert_with(Instant::now);
    }

    /// Notes a batch that was handed over.
    pub fn expect(&mut self, receipt: Receipt, ack: Ack) {
        self.receipts.push_back((receipt, ack));
    }

    /// Whether so many answers are pending that reading must pause.
    pub fn are_many(&self, session: &AnySession) -> bool {
        self.receipts.len() >= MAX_UNANSWERED || self.answers.len() + session.owed() >= MAX_UNREAD
    }

    /// Whether no answer is pending.
    pub fn are_none(&self, session: &AnySession) -> bool {
        self.receipts.is_empty() && self.answers.is_empty() && session.owed() == 0
    }

    /// Bytes of memory that answers take.
    pub fn memory(&self) -> usize {
        self.answers.capacity()
    }

    /// Lets the session answer batches that are in the spool.
    pub fn poll_receipts(&mut self, session: &mut AnySession, cx: &mut Context<'_>) {
        while let Some((receipt, ack)) = self.receipts.front_mut() {
            match Pin::new(receipt).poll(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => session.committed(*ack, &mut self.answers),
                Poll::Ready(Err(NotSpooled)) => {
                    session.refused(*ack, Refusal::NotSpooled);
                    self.receipts.clear();
                    break;
                }
            }
            self.receipts.pop_front();
        }
        if self.receipts.is_empty() && self.tickets.is_empty() {
            self.waits_since = None;
        }
        // An idle session has no such memory.
        self.receipts.shrink_to_fit();
    }

    /// Writes as many bytes of answers as the connection takes.
    pub fn poll_write(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> io::Result<()> {
        while self.sent < self.answers.len() {
            match connection.poll_write(cx, &self.answers[self.sent..])? {
                Poll::Ready(written) => self.sent += written,
                Poll::Pending => return Ok(()),
            }
        }
        if !self.answers.is_empty() && connection.poll_flush(cx)?.is_ready() {
            self.answers = Vec::new(); // An idle session holds no memory.
            self.sent = 0;
        }
        Ok(())
    }

    /// Ready when the sender has waited for an answer as long as it may; `None`: it may wait without limit.
    pub fn poll_overdue(&mut self, max_wait: Option<Duration>, cx: &mut Context<'_>) -> Poll<()> {
        let Some((since, max_wait)) = self.waits_since.zip(max_wait) else { return Poll::Pending };
        while since.elapsed() < max_wait {
            ready!(self.looks.poll_tick(cx));
        }
        Poll::Ready(())
    }

    /// Ready when the sender has disconnected or may not wait any longer. While nothing is read from a sender, only this detects
    /// that it has gone, so that it does not keep its place.
    pub fn poll_lost(
        &mut self,
        connection: &mut Connection,
        max_wait: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<Lost> {
        loop {
            ready!(self.looks.poll_tick(cx));
            if connection.socket().peer_has_left() {
                return Poll::Ready(Lost::Left);
            }
            if self.waits_since.zip(max_wait).is_some_and(|(since, max_wait)| since.elapsed() >= max_wait) {
                return Poll::Ready(Lost::Overdue);
            }
        }
    }
}
