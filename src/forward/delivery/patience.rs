//! How long a collector may leave sent lines unanswered. Decides only.

use std::time::{Duration, Instant};

use super::Broken;
use crate::forward::tcp::TcpSample;

/// The time counts only while something waits for an answer.
pub struct Patience {
    limit: Duration,
    /// The last sign of life, or when the first unanswered line was sent.
    since: Instant,
    /// Bytes that the collector's kernel has acknowledged, as last seen.
    acknowledged: u64,
}

impl Patience {
    pub fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, since: now, acknowledged: 0 }
    }

    pub fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// Bytes that the collector's kernel acknowledges are a sign of life, although their answer is still to come.
    pub fn look(&mut self, sample: &TcpSample, now: Instant) {
        if sample.acknowledged > self.acknowledged {
            self.acknowledged = sample.acknowledged;
            self.begin(now);
        }
    }

    /// Bytes that the collector's kernel has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// When the patience ends.
    pub fn until(&self) -> Instant {
        self.since + self.limit
    }

    /// When the patience ends. An error: it has ended.
    pub fn check(&self, now: Instant) -> Result<Instant, Broken> {
        let until = self.until();
        if now >= until { Err(Broken::Silent(self.limit)) } else { Ok(until) }
    }
}
