//! Delivered batches: they are held until they can be written, in the order of delivery. Their senders wait.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::{Refusal, Writer, is_full};
use crate::spool::Origin;
use crate::spool::batch::Batch;
use crate::spool::inlet::{Delivery, Receipt};
use crate::spool::ledger::{self, Mark};

impl Writer {
    /// Does what [`Inlet::deliver`](crate::spool::Inlet::deliver) does, without a queue.
    pub fn deliver(&mut self, batch: Batch, origin: Option<Origin>) -> Receipt {
        let (delivery, receipt) = Delivery::new(batch, origin, None);
        self.held.push_back(delivery);
        self.write_held();
        receipt
    }

    /// Writes the held batches in order, until one finds no room. The senders of the written batches get their
    /// receipts.
    pub(super) fn write_held(&mut self) {
        while !self.held.is_empty() && self.keep_home().is_ok() {
            match self.write_held_run() {
                Ok(()) => {}
                Err(Refusal::Full) => {
                    self.say_full("senders that can be made to wait do so");
                    break;
                }
                Err(Refusal::Disk(error)) => {
                    self.log.metrics.errors.inc();
                    match is_full(&error) {
                        true => self.recycle(),
                        false => self.leave_segment(),
                    };
                    self.refuse(&error);
                    break;
                }
            }
        }
        // The batches behind the first find no room either. Their senders may have given up meanwhile.
        self.drop_withdrawn();
        let lines: u64 = self.held.iter().map(|delivery| delivery.batch.line_count()).sum();
        self.log.metrics.held.set(lines as i64);
    }

    /// Drops held batches whose senders gave up before they had an answer: they send the lines again, and the copies
    /// would fill the queue while there is no room. Numbered batches stay. They are recognized when they are repeated,
    /// and dropping one would let a later batch of the same stream hide it.
    fn drop_withdrawn(&mut self) {
        let mut withdrawn = 0;
        self.held.retain(|delivery| {
            let stays = delivery.origin.is_some() || !delivery.receipt.is_closed();
            if !stays {
                withdrawn += delivery.batch.line_count();
            }
            stays
        });
        self.log.metrics.dropped_withdrawn.inc_by(withdrawn);
    }

    /// Writes as many of the held batches as fit into one segment: at least the first one, or none.
    fn write_held_run(&mut self) -> Result<(), Refusal> {
        let mut held = std::mem::take(&mut self.held);
        let result = match held.front() {
            // Repeated lines need no room, so the batch must not wait for any.
            Some(first) if self.known(first) == first.batch.line_count() => {
                self.log.metrics.dropped_repeated.inc_by(first.batch.line_count());
                Ok(1)
            }
            Some(first) if self.never_fits(self.cost(first)) => {
                self.log.metrics.dropped_full.inc_by(first.batch.line_count());
                held.pop_front();
                Ok(0)
            }
            _ => self.write_deliveries(&mut held),
        };
        let settled = *result.as_ref().unwrap_or(&0);
        for delivery in held.drain(..settled) {
            // An error: the sender is gone.
            let _ = delivery.receipt.send(());
        }
        self.held = held;
        result.map(drop)
    }

    /// Writes and publishes held batches, as safely as the policy promises. Returns how many.
    fn write_deliveries(&mut self, held: &mut VecDeque<Delivery>) -> Result<usize, Refusal> {
        let count = self.make_space(held.iter().map(|delivery| self.cost(delivery)).collect::<Vec<_>>(), false)?;
        let (mut written, mut repeated, mut records) = (0, 0, Vec::new());
        // The positions of the batches that are written whole. Readers get these from memory.
        let (mut at, mut starts) = (self.end, Vec::new());
        // If the write fails, the ledger is restored.
        let before = self.ledger.clone();
        for delivery in held.iter_mut().take(count) {
            delivery.batch.seal(self.key);
            let lines = delivery.batch.line_count();
            let known = self.known(delivery);
            repeated += known;
            written += lines - known;
            if let Some(origin @ Origin { stream, session, first_line, .. }) = &delivery.origin
                && known < lines
            {
                for (session, first) in self.ledger.inheritance(origin) {
                    let mut mark = Vec::new();
                    Mark { stream, session, first, count: 0 }.write(&mut mark, self.key);
                    at.offset += mark.len() as u64;
                    records.push(Cow::Owned(mark));
                    self.ledger.advance(stream, session, first);
                }
                let (first, next) = (first_line.saturating_add(known), first_line.saturating_add(lines));
                let mut mark = Vec::new();
                Mark { stream, session: *session, first, count: lines - known }.write(&mut mark, self.key);
                at.offset += mark.len() as u64;
                records.push(Cow::Owned(mark));
                self.ledger.advance(stream, *session, next);
            }
            let behind = delivery.batch.behind(known);
            starts.push((known == 0).then_some(at));
            at.offset += behind.len() as u64;
            at.line += lines - known;
            records.push(Cow::Borrowed(behind));
        }
        let records: Vec<&[u8]> = records.iter().map(|records| &**records).collect();
        if let Err(error) = self.write(&records, written, true) {
            self.ledger = before;
            return Err(Refusal::Disk(error));
        }
        self.log.metrics.dropped_repeated.inc_by(repeated);
        self.calm();
        for (delivery, start) in held.iter_mut().zip(starts) {
            if let Some(start) = start {
                self.keep(start, std::slice::from_mut(&mut delivery.batch));
            }
        }
        self.publish();
        Ok(count)
    }

    /// How many lines of a delivered batch the spool has already.
    fn known(&self, delivery: &Delivery) -> u64 {
        delivery.origin.as_ref().map_or(0, |origin| self.ledger.known(origin, delivery.batch.line_count()))
    }

    /// The bytes that a delivered batch needs. Its origin needs its mark twice: before the lines, and in the snapshot
    /// of each later segment.
    fn cost(&self, delivery: &Delivery) -> u64 {
        let marks = delivery.origin.as_ref().map_or(0, |origin| {
            let inherited = self.ledger.inheritance(origin).len() as u64;
            2 * (1 + inherited) * ledger::mark_len(&origin.stream)
        });
        delivery.batch.byte_len() as u64 + marks
    }
}
