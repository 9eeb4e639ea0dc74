//! Limits the memory of incomplete messages and of unread answers.
//!
//! Each connection may hold a little. More is reserved from a budget that all connections of a listener share, so that many
//! connections with incomplete messages do not hold more than that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a connection may hold without a reservation: most messages that come in two parts are shorter.
const UNCOUNTED: usize = 1024;

/// One peer may have one in so many parts of a budget, so that a single peer does not take all of it.
const SHARE: usize = 2;

/// The reserved bytes of all connections of a listener, or of one peer.
#[derive(Clone, Default)]
pub struct Budget(Arc<AtomicUsize>);

/// The reservation of one connection, until it is dropped.
pub struct Reservation {
    all: Budget,
    /// The reserved bytes of its peer's connections, if senders have an address.
    peer: Option<Budget>,
    /// Bytes.
    bytes: usize,
}

impl Budget {
    /// Makes the reservation of a new connection, which holds nothing yet.
    pub fn reservation(&self, peer: Option<Budget>) -> Reservation {
        Reservation { all: self.clone(), peer, bytes: 0 }
    }

    fn take(&self, bytes: usize, max: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= max;
        if !taken {
            self.give_back(bytes);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Changes the reservation to `bytes`. False: all connections would exceed `max`, or those of the peer would exceed its share.
    /// Then the connection must release all of them.
    #[must_use]
    pub fn resize(&mut self, bytes: usize, max: usize) -> bool {
        let bytes = bytes.saturating_sub(UNCOUNTED);
        let has_room = match bytes.checked_sub(self.bytes) {
            Some(more) => self.take(more, max),
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

    /// Releases all bytes.
    pub fn release(&mut self) {
        self.give_back(self.bytes);
        self.bytes = 0;
    }

    fn take(&self, more: usize, max: usize) -> bool {
        if more == 0 {
            return true;
        }
        if self.peer.as_ref().is_some_and(|peer| !peer.take(more, max / SHARE)) {
            return false;
        }
        let taken = self.all.take(more, max);
        if let Some(peer) = self.peer.as_ref().filter(|_| !taken) {
            peer.give_back(more);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        for budget in self.peer.iter().chain([&self.all]) {
            budget.give_back(bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_in_all_has_an_end() {
        const MAX: usize = 10_000;
        let all = Budget::default();
        let mut one = all.reservation(None);
        assert!(one.resize(UNCOUNTED + MAX, MAX), "exactly so much");
        let mut other = all.reservation(None);
        assert!(other.resize(UNCOUNTED, MAX), "a little is everybody's");
        assert!(!other.resize(UNCOUNTED + 1, MAX));
        assert!(one.resize(UNCOUNTED + MAX - 1, MAX), "one byte is given back");
        assert!(other.resize(UNCOUNTED + 1, MAX));
        drop(one);
        assert!(!other.resize(UNCOUNTED + MAX + 1, MAX) && other.resize(UNCOUNTED + MAX, MAX));
        assert!(other.resize(0, MAX));
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        const MAX: usize = 10_000;
        let (all, here, there) = (Budget::default(), Budget::default(), Budget::default());
        let (mut first, mut second) = (all.reservation(Some(here.clone())), all.reservation(Some(here.clone())));
        assert!(first.resize(UNCOUNTED + MAX / SHARE - 1, MAX) && second.resize(UNCOUNTED + 1, MAX));
        assert!(!second.resize(UNCOUNTED + 2, MAX));
        let mut neighbour = all.reservation(Some(there.clone()));
        assert!(neighbour.resize(UNCOUNTED + MAX / SHARE, MAX));
        let mut third = all.reservation(Some(Budget::default()));
        assert!(!third.resize(UNCOUNTED + 1, MAX), "all is gone");
        drop((first, second, neighbour, third));
        assert_eq!([all, here, there].map(|held| held.0.load(Ordering::Relaxed)), [0; 3]);
    }

    #[test]
    fn a_smaller_limit_holds_for_those_who_want_more() {
        let all = Budget::default();
        let (mut one, mut other) = (all.reservation(None), all.reservation(None));
        assert!(one.resize(UNCOUNTED + 100, 1000));
        assert!(one.resize(UNCOUNTED + 100, 10) && !other.resize(UNCOUNTED + 1, 10));
    }
}
