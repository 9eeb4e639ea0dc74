//! What is owed to a sender that is answered: answers in the order of what they answer, each once everything before it is in the
//! spool.

use std::collections::VecDeque;

use super::session::{Ack, Numbers, Sink};

/// The answers of a session that wait, and the batch of messages that they wait for.
#[derive(Debug)]
pub struct Answers<A> {
    /// The ticket of the batch that is gathered. All before it have been handed out.
    ticket: Ack,
    /// Messages of that batch that were taken.
    taken: u64,
    /// Each with the last batch that has to be in the spool before it.
    waiting: VecDeque<(Ack, A)>,
    /// Batches before this one are in the spool.
    committed: Ack,
}

impl<A> Default for Answers<A> {
    fn default() -> Self {
        Self { ticket: Ack(1), taken: 0, waiting: VecDeque::new(), committed: Ack(1) }
    }
}

impl<A> Answers<A> {
    /// Messages were put into the batch that is gathered.
    pub fn add_taken(&mut self, messages: u64) {
        self.taken += messages;
    }

    /// Messages of the batch that is gathered need no ticket.
    pub fn forget_taken(&mut self) {
        self.taken = 0;
    }

    /// Messages of the batch that is gathered.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Owes an answer to a message of the batch that is gathered. `add` is given the last answer, if it waits for the same batch, and adds
    /// to it or returns a further one.
    pub fn owe_for_message(&mut self, add: impl FnOnce(Option<&mut A>) -> Option<A>) {
        self.owe(self.ticket, add);
    }

    /// Owes an answer to what is no message: it waits for everything that was said before. `add`: as above.
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

    /// Ends the batch that is gathered. One of which nothing was taken is none.
    pub fn end_batch(&mut self, numbers: Option<Numbers<'_>>, to: &mut impl Sink) {
        if std::mem::take(&mut self.taken) > 0 {
            to.ticket(self.ticket, numbers);
            self.ticket = Ack(self.ticket.0 + 1);
            return;
        }
        // What would have waited for it waits for the one before.
        let before = Ack(self.ticket.0 - 1);
        self.waiting.iter_mut().rev().take_while(|(after, _)| *after > before).for_each(|(after, _)| *after = before);
    }

    /// This batch and all before it are in the spool.
    pub fn committed(&mut self, ack: Ack) {
        self.committed = Ack(ack.0 + 1);
    }

    /// The next answer that waits for nothing any more.
    pub fn next_due(&mut self) -> Option<A> {
        let is_due = self.waiting.front().is_some_and(|(after, _)| *after < self.committed);
        let due = if is_due { self.waiting.pop_front() } else { None };
        // An idle session holds no memory.
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        due.map(|(_, answer)| answer)
    }

    /// Returns the answers that wait for this batch or a later one: nobody will have them. What is said from now on does not wait for
    /// them.
    pub fn forget_from(&mut self, ack: Ack) -> impl Iterator<Item = A> + '_ {
        self.ticket = self.ticket.min(ack);
        let kept = self.waiting.iter().take_while(|(after, _)| *after < ack).count();
        self.waiting.drain(kept..).map(|(_, answer)| answer)
    }
}
