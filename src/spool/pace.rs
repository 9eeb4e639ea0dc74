//! Limits the rate of the writer (`max-rate`), so that a flood of messages leaves disk bandwidth to other programs.
//! Pure arithmetic on the time that the caller passes.

use std::time::{Duration, Instant};

/// The most unused time that may be made up for. Older pauses give no credit.
const CREDIT: Duration = Duration::from_secs(1);

pub(super) struct Pace {
    /// Bytes a second.
    rate: u64,
    /// The time at which the written bytes conform to the rate.
    due: Instant,
}

impl Pace {
    pub fn new(rate: u64, now: Instant) -> Self {
        Self { rate, due: now }
    }

    /// Notes written bytes. Returns how long to wait before the next write.
    pub fn wrote(&mut self, bytes: u64, now: Instant) -> Duration {
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        self.due = self.due.max(earliest) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_faster_in_the_long_run_and_a_second_at_once() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(1000, start);
        assert_eq!(pace.wrote(500, after(0)), Duration::from_millis(500));
        assert_eq!(pace.wrote(1000, after(500)), Duration::from_secs(1));
        assert_eq!(pace.wrote(100, after(2000)), Duration::ZERO, "half a second is made up for");
        assert_eq!(pace.wrote(1000, after(60_000)), Duration::ZERO, "a long pause counts as a second");
        assert_eq!(pace.wrote(1000, after(60_000)), Duration::from_secs(1));
    }
}
