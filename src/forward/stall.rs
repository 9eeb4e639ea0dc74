//! When a connection is stalled: something is on its way and nothing is acknowledged. Decides only.
//!
//! A collector whose machine is gone, whose packets are dropped on the way or whose program is stopped all look like
//! this, long before the kernel gives the connection up. It is no reason to break it, but one to ask whether the name
//! points elsewhere by now.

use std::time::{Duration, Instant};

/// Nothing for so long, as a part of `dead-after`, is a stall: 2 s of 10.
const PART_OF_DEAD: u32 = 5;

#[derive(Debug)]
pub struct Stall {
    after: Duration,
    /// Where acknowledgements stand while more are awaited; `None` while nothing is on its way.
    waits_at: Option<u64>,
    /// Since when they stand there, or when it was last told.
    since: Instant,
    is_stalled: bool,
}

impl Stall {
    pub fn new(dead_after: Duration, now: Instant) -> Self {
        Self { after: dead_after / PART_OF_DEAD, waits_at: None, since: now, is_stalled: false }
    }

    /// Takes note of how much is acknowledged, counted in anything that only grows, while more is awaited. True when that
    /// has not grown for long enough, and again each time as long.
    pub fn look(&mut self, waits_at: Option<u64>, now: Instant) -> bool {
        if waits_at.is_none() || waits_at != self.waits_at {
            self.waits_at = waits_at;
            self.since = now;
            self.is_stalled = false;
            return false;
        }
        let again = now >= self.since + self.after;
        if again {
            self.since = now;
            self.is_stalled = true;
        }
        again
    }

    /// When to look again, if nothing else happens; `None` while nothing is on its way.
    pub fn due(&self) -> Option<Instant> {
        self.waits_at.map(|_| self.since + self.after)
    }

    /// Whether nothing was acknowledged since it was told.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Duration = Duration::from_secs(10);
    const AFTER: Duration = Duration::from_secs(2);

    #[test]
    fn nothing_acknowledged_is_a_stall_told_again_and_again() {
        let start = Instant::now();
        let mut stall = Stall::new(DEAD, start);
        assert!(!stall.look(Some(0), start));
        assert_eq!(stall.due(), Some(start + AFTER));
        assert!(!stall.look(Some(0), start + AFTER / 2) && !stall.is_stalled());
        assert!(stall.look(Some(0), start + AFTER) && stall.is_stalled());
        assert!(!stall.look(Some(0), start + AFTER * 3 / 2) && stall.is_stalled());
        assert!(stall.look(Some(0), start + AFTER * 2));
        // One byte is enough.
        assert!(!stall.look(Some(1), start + AFTER * 3) && !stall.is_stalled());
        assert!(stall.look(Some(1), start + AFTER * 4));
    }

    #[test]
    fn a_quiet_connection_is_none() {
        let start = Instant::now();
        let mut stall = Stall::new(DEAD, start);
        assert!(!stall.look(None, start));
        assert_eq!(stall.due(), None);
        // An hour later the first bytes are on their way: it begins now.
        let later = start + Duration::from_secs(3600);
        assert!(!stall.look(Some(0), later));
        assert!(!stall.look(None, later + AFTER * 2));
        assert!(!stall.look(Some(0), later + AFTER * 4));
        assert!(stall.look(Some(0), later + AFTER * 5));
    }
}
