//! What messages that have begun and not ended may take: memory and time.
//!
//! Each connection may hold a little memory. What is beyond that is taken out of what all connections of a listener have in
//! common, so that many which never end their messages hold no more than that, and for no longer than the deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Bytes that each connection may hold and that nobody counts: most messages that come in two parts are shorter.
const UNCOUNTED: usize = 1024;

/// Of what there is for all, the part that may be taken from one address: one in so many. Nobody is left without by a single
/// neighbour.
const SHARE: usize = 2;

/// What the connections of a listener, or those from one address, hold in all.
#[derive(Clone, Default)]
pub struct Unfinished(Arc<AtomicUsize>);

/// What one connection holds.
pub struct Held {
    all: Unfinished,
    /// What those from its address hold, where senders have one.
    theirs: Option<Unfinished>,
    /// Bytes that are counted.
    bytes: usize,
}

impl Unfinished {
    pub fn held(&self, theirs: Option<Unfinished>) -> Held {
        Held { all: self.clone(), theirs, bytes: 0 }
    }

    fn take(&self, bytes: usize, most: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= most;
        if !taken {
            self.give_back(bytes);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Held {
    /// The connection holds so many bytes now. False: with them all connections would hold more than `most`, or those from
    /// its address more than their share. Let go of all of them then.
    #[must_use]
    pub fn are(&mut self, bytes: usize, most: usize) -> bool {
        let bytes = bytes.saturating_sub(UNCOUNTED);
        let has_room = match bytes.checked_sub(self.bytes) {
            Some(more) => self.take(more, most),
            None => {
                self.give_back(self.bytes - bytes);
                true
            }
        };
        if has_room {
            self.bytes = bytes;
        }
        has_room
    }

    /// The connection holds nothing any more.
    pub fn are_gone(&mut self) {
        self.give_back(self.bytes);
        self.bytes = 0;
    }

    fn take(&self, more: usize, most: usize) -> bool {
        if more == 0 {
            return true;
        }
        if self.theirs.as_ref().is_some_and(|theirs| !theirs.take(more, most / SHARE)) {
            return false;
        }
        let taken = self.all.take(more, most);
        if let Some(theirs) = self.theirs.as_ref().filter(|_| !taken) {
            theirs.give_back(more);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        for held in self.theirs.iter().chain([&self.all]) {
            held.give_back(bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.are_gone();
    }
}

/// When the end of a message is waited for no longer. A connection between two messages has no timer.
#[derive(Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Something was read. `unfinished`: a message has not ended; `another`: and one before it has.
    pub fn after_read(&mut self, unfinished: bool, another: bool, patience: Duration) {
        match &mut self.0 {
            timer if !unfinished => *timer = None,
            // One that has run out did so while nothing was read, and that was not the sender's fault.
            Some(timer) if another || timer.is_elapsed() => timer.as_mut().reset(Instant::now() + patience),
            Some(_) => {}
            timer @ None => *timer = Some(Box::pin(sleep(patience))),
        }
    }

    /// Ready once when it is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timer) = &mut self.0 else { return Poll::Pending };
        let polled = timer.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_in_all_has_an_end() {
        const MOST: usize = 10_000;
        let all = Unfinished::default();
        let mut one = all.held(None);
        assert!(one.are(UNCOUNTED + MOST, MOST), "exactly so much");
        let mut other = all.held(None);
        assert!(other.are(UNCOUNTED, MOST), "a little is everybody's");
        assert!(!other.are(UNCOUNTED + 1, MOST));
        assert!(one.are(UNCOUNTED + MOST - 1, MOST), "one byte is given back");
        assert!(other.are(UNCOUNTED + 1, MOST));
        drop(one);
        assert!(!other.are(UNCOUNTED + MOST + 1, MOST) && other.are(UNCOUNTED + MOST, MOST));
        assert!(other.are(0, MOST));
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        const MOST: usize = 10_000;
        let (all, here, there) = (Unfinished::default(), Unfinished::default(), Unfinished::default());
        let (mut first, mut second) = (all.held(Some(here.clone())), all.held(Some(here.clone())));
        assert!(first.are(UNCOUNTED + MOST / SHARE - 1, MOST) && second.are(UNCOUNTED + 1, MOST));
        assert!(!second.are(UNCOUNTED + 2, MOST));
        let mut neighbour = all.held(Some(there.clone()));
        assert!(neighbour.are(UNCOUNTED + MOST / SHARE, MOST));
        let mut third = all.held(Some(Unfinished::default()));
        assert!(!third.are(UNCOUNTED + 1, MOST), "all is gone");
        drop((first, second, neighbour, third));
        assert_eq!([all, here, there].map(|held| held.0.load(Ordering::Relaxed)), [0; 3]);
    }

    #[test]
    fn a_smaller_limit_holds_for_those_who_want_more() {
        let all = Unfinished::default();
        let (mut one, mut other) = (all.held(None), all.held(None));
        assert!(one.are(UNCOUNTED + 100, 1000));
        assert!(one.are(UNCOUNTED + 100, 10) && !other.are(UNCOUNTED + 1, 10));
    }
}
