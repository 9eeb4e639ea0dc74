//! How long to wait before the next attempt: doubling, capped, and with a random part, so that a thousand relays do not
//! come back to a restarted collector in the same millisecond. This module decides only; the caller sleeps.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    /// `first <= next <= max`, before the random part.
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.min(max);
        Self { first, next: first, max }
    }

    /// The wait before the next attempt: from half of the step to all of it. The step doubles each time.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (self.next * 2).min(self.max);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// After a success the next failure starts from the first step again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_cap_and_starts_again() {
        let first = Duration::from_millis(100);
        let mut backoff = Backoff::new(first, Duration::from_secs(1));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait();
            let step = Duration::from_millis(step);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} is not within {step:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= first);
    }
}
