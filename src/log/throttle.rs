//! Limits log entries that strangers can cause repeatedly to one in an interval. Counters count all of them.

use std::time::{Duration, Instant};

/// Allows a thing once in each interval.
pub struct Throttle {
    interval: Duration,
    /// When the thing was last allowed.
    last: Option<Instant>,
}

impl Throttle {
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// Is the thing allowed now? If so, the interval begins.
    pub fn allows(&mut self, now: Instant) -> bool {
        let allows = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.interval);
        if allows {
            self.last = Some(now);
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_allowed_once_in_an_interval() {
        let (mut throttle, start) = (Throttle::new(Duration::from_secs(10)), Instant::now());
        let allowed: Vec<u64> =
            (0..25).filter(|second| throttle.allows(start + Duration::from_secs(*second))).collect();
        assert_eq!(allowed, [0, 10, 20]);
    }
}
