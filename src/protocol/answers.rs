//! Answers that a session owes its sender. An answer goes out in order, and only when every message before it is in the spool.

use std::collections::VecDeque;

use super::session::{Ack, Numbers, Sink};

/// The waiting answers of a session, and the batch of messages that is being gathered.
#[derive(Debug)]
pub struct Answers<A> {
    /// The ticket of the batch that is being gathered. All earlier tickets have been handed out.
    ticket: Ack,
    /// The number of messages that this batch has taken.
    taken: u64,
    /// Each answer waits until this batch is in the spool.
    waiting: VecDeque<(Ack, A)>,
    /// All batches before this one are in the spool.
    committed: Ack,
}

impl<A> Default for Answers<A> {
    fn default() -> Self {
        Self { ticket: Ack(1), taken: 0, waiting: VecDeque::new(), committed: Ack(1) }
    }
}

impl<A> Answers<A> {
    /// Counts messages that were put into the current batch.
    pub fn add_taken(&mut self, messages: u64) {
        self.taken += messages;
    }

    /// Messages of the current batch need no ticket.
    pub fn forget_taken(&mut self) {
        self.taken = 0;
    }

    /// The number of messages in the current batch.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Owes an answer to a message of the current batch. `add` receives the last answer if that answer waits for the same batch. `add`
    /// either extends it or returns a new answer.
    pub fn owe_for_message(&mut self, add: impl FnOnce(Option<&mut A>) -> Option<A>) {
        self.owe(self.ticket, add);
    }

    /// Owes an answer to something that is no message. It waits for all earlier batches and for the answers before it. `add`: as above.
    pub fn owe_behind(&mut self, add: impl FnOnce(Option<&mut A>) -> Option<A>) {
        let before = Ack(self.ticket.0 - 1);
        let after = self.waiting.back().map_or(before, |(last, _)| (*last).max(before));
        self.owe(after, add);
    }

    fn owe(&mut self, after: Ack, add: impl FnOnce(Option<&mut A>) -> Option<A>) {
        let last = self.waiting.back_mut().filter(|(last, _)| *last == after).map(|(_, answer)| answer);
        let answer = add(last).map(|answer| (after, answer));
        self.waiting.extend(answer);
    }

    /// Ends the current batch and hands out its ticket. A batch that took no message gets no ticket.
    pub fn end_batch(&mut self, numbers: Option<Numbers<'_>>, to: &mut impl Sink) {
        if std::mem::take(&mut self.taken) > 0 {
            to.ticket(self.ticket, numbers);
            self.ticket = Ack(self.ticket.0 + 1);
            return;
        }
        // Answers to this batch wait for the previous batch instead.
        let before = Ack(self.ticket.0 - 1);
        self.waiting.iter_mut().rev().take_while(|(after, _)| *after > before).for_each(|(after, _)| *after = before);
    }

    /// This batch and all before it are in the spool.
    pub fn committed(&mut self, ack: Ack) {
        self.committed = Ack(ack.0 + 1);
    }

    /// The next answer that can be sent.
    pub fn next_due(&mut self) -> Option<A> {
        let is_due = self.waiting.front().is_some_and(|(after, _)| *after < self.committed);
        let due = if is_due { self.waiting.pop_front() } else { None };
        // An idle session holds no memory.
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        due.map(|(_, answer)| answer)
    }

    /// Removes and returns the answers that wait for this batch or a later one: they are never sent. Later answers do not wait for them.
    pub fn forget_from(&mut self, ack: Ack) -> impl Iterator<Item = A> + '_ {
        self.ticket = self.ticket.min(ack);
        let kept = self.waiting.iter().take_while(|(after, _)| *after < ack).count();
        self.waiting.drain(kept..).map(|(_, answer)| answer)
    }
}
