//! When a connection is stalled (something is in flight and nothing is acknowledged), and when it is given up. This module decides
//! only.
//!
//! Several causes look like this: the collector's machine is gone, its packets are dropped on the way, its program is stopped, or
//! its program reads slowly. A stall does not break the connection, but it is a reason to look the name up again. The connection
//! is given up when nothing was acknowledged for `dead-after` and the peer's kernel does not answer either. While the kernel
//! answers, the program may be slow: a closed window opens only when the program has read a good part of its buffer.

use std::time::{Duration, Instant};

/// The part of `dead-after` without an acknowledgement that is a stall: 2 s of 10.
pub const PART_OF_DEAD: u32 = 5;

/// How long a connection may be without progress before it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// While the peer's kernel is silent.
    pub silent: Duration,
    /// While the peer's kernel answers, and only its program reads nothing.
    pub answering: Duration,
}

#[derive(Debug)]
pub struct Stall {
    after: Duration,
    /// The acknowledged amount while more is awaited; `None` while nothing is in flight.
    waits_at: Option<u64>,
    /// Since when this amount has not grown.
    begun: Instant,
    /// Since when this amount has not grown, or when the stall was last reported.
    since: Instant,
    is_stalled: bool,
}

impl Stall {
    pub fn new(dead_after: Duration, now: Instant) -> Self {
        Self { after: dead_after / PART_OF_DEAD, waits_at: None, begun: now, since: now, is_stalled: false }
    }

    /// Takes note of how much is acknowledged while more is awaited, counted in anything that only grows. Returns true when the
    /// amount has not grown for long enough, and again after each further period of that length.
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

    /// How long nothing has been acknowledged, while something is in flight.
    pub fn lasts(&self, now: Instant) -> Duration {
        self.waits_at.map_or(Duration::ZERO, |_| now.duration_since(self.begun))
    }

    /// When to look again, if nothing else happens; `None` while nothing is in flight.
    pub fn due(&self) -> Option<Instant> {
        self.waits_at.map(|_| self.since + self.after)
    }

    /// Whether nothing has been acknowledged since the stall was reported.
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
        // An hour later the first bytes are in flight: the wait begins now.
        let later = start + Duration::from_secs(3600);
        assert!(!stall.look(Some(0), later));
        assert!(!stall.look(None, later + AFTER * 2));
        assert!(!stall.look(Some(0), later + AFTER * 4));
        assert!(stall.look(Some(0), later + AFTER * 5));
    }
}
