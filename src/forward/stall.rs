//! When a connection is stalled: something is on its way and nothing is acknowledged; and when it is given up. Decides only.
//!
//! A collector whose machine is gone, whose packets are dropped on the way, whose program is stopped or reads slowly all look
//! like this. A stall is no reason to break the connection, but one to ask whether the name points elsewhere by now. It is
//! given up when nothing was acknowledged for `dead-after` and the peer's kernel does not even answer. While it does, its
//! program may be slow: a closed window opens only when a good part of its buffer was read.

use std::time::{Duration, Instant};

/// Nothing for so long, as a part of `dead-after`, is a stall: 2 s of 10.
pub const PART_OF_DEAD: u32 = 5;

/// How long a connection may be without progress before it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// While the peer's kernel says nothing.
    pub silent: Duration,
    /// While the peer's kernel answers, and only its program takes nothing.
    pub answering: Duration,
}

#[derive(Debug)]
pub struct Stall {
    after: Duration,
    /// Where acknowledgements stand while more are awaited; `None` while nothing is on its way.
    waits_at: Option<u64>,
    /// Since when they stand there.
    begun: Instant,
    /// Since when they stand there, or when it was last told.
    since: Instant,
    is_stalled: bool,
}

impl Stall {
    pub fn new(dead_after: Duration, now: Instant) -> Self {
        Self { after: dead_after / PART_OF_DEAD, waits_at: None, begun: now, since: now, is_stalled: false }
    }

    /// Takes note of how much is acknowledged, counted in anything that only grows, while more is awaited. True when that
    /// has not grown for long enough, and again each time as long.
    pub fn look(&mut self, waits_at: Option<u64>, now: Instant) -> bool {
        if waits_at.is_none() || waits_at != self.waits_at {
            self.waits_at = waits_at;
            (self.begun, self.since) = (now, now);
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

    /// How long nothing was acknowledged, while something is on its way.
    pub fn lasts(&self, now: Instant) -> Duration {
        self.waits_at.map_or(Duration::ZERO, |_| now.duration_since(self.begun))
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
        assert_eq!(stall.lasts(start + AFTER * 2), AFTER * 2, "however often it was told");
        // One byte is enough.
        assert!(!stall.look(Some(1), start + AFTER * 3) && !stall.is_stalled());
        assert_eq!(stall.lasts(start + AFTER * 3), Duration::ZERO);
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
