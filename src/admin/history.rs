//! The last five minutes of the main counters: lines received, delivered and pending, sampled every two seconds into a ring. A request
//! turns the samples into rates.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::Metrics;

/// The time between two samples. A sample reads sixty counters, which takes some microseconds.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Samples that are kept: five minutes, both ends included.
const MAX_SAMPLES: usize = 151;
/// The current rate is the mean of so many last differences.
const RECENT: usize = 5;

/// The ring of samples, oldest first.
#[derive(Default)]
pub struct History(Mutex<VecDeque<Sample>>);

/// The counters at one moment.
pub struct Sample {
    pub at: Instant,
    /// Messages received by all listeners.
    pub received: u64,
    /// Lines pending for the forward that is furthest behind.
    pub pending: u64,
    /// Lines delivered by all forwards.
    pub delivered: u64,
}

/// The differences between samples, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Messages received a second.
    pub received: Vec<f64>,
    /// Lines delivered a second, by all forwards together.
    pub delivered: Vec<f64>,
    /// Lines pending at the later sample of each difference.
    pub pending: Vec<u64>,
}

impl History {
    /// Samples the counters until the future is dropped.
    pub async fn watch(&self, metrics: &Metrics) {
        let mut ticks = interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.push(Sample::of(metrics));
        }
    }

    pub fn push(&self, sample: Sample) {
        let mut samples = self.samples();
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    pub fn series(&self) -> Series {
        let samples = self.samples();
        let mut series = Series::default();
        for (earlier, later) in samples.iter().zip(samples.iter().skip(1)) {
            let seconds = later.at.saturating_duration_since(earlier.at).as_secs_f64();
            let rate = |from: u64, to: u64| if seconds > 0.0 { to.saturating_sub(from) as f64 / seconds } else { 0.0 };
            series.received.push(rate(earlier.received, later.received));
            series.delivered.push(rate(earlier.delivered, later.delivered));
            series.pending.push(later.pending);
        }
        series
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock()
    }
}

impl Sample {
    fn of(metrics: &Metrics) -> Self {
        let (listeners, forwards) = (metrics.listeners(), metrics.forwards());
        Self {
            at: Instant::now(),
            received: listeners.iter().map(|(_, listener)| listener.received.get()).sum(),
            pending: forwards.iter().map(|(_, forward)| forward.pending()).max().unwrap_or(0),
            delivered: forwards.iter().map(|(_, forward)| forward.delivered.get()).sum(),
        }
    }
}

/// The mean of the last few rates.
pub fn recent(rates: &[f64]) -> f64 {
    let last = &rates[rates.len().saturating_sub(RECENT)..];
    if last.is_empty() { 0.0 } else { last.iter().sum::<f64>() / last.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, received: u64, delivered: u64) -> Sample {
        Sample { at, received, pending: received - delivered, delivered }
    }

    #[test]
    fn rates_are_differences_and_the_ring_is_bounded() {
        let (history, start) = (History::default(), Instant::now());
        assert_eq!(history.series(), Series::default());
        for tick in 0..MAX_SAMPLES as u64 + 10 {
            history.push(sample(start + SAMPLE_EVERY * tick as u32, tick * 20, tick * 10));
        }
        let series = history.series();
        assert_eq!((series.received.len(), series.pending.len()), (MAX_SAMPLES - 1, MAX_SAMPLES - 1));
        assert!(series.received.iter().all(|rate| *rate == 10.0) && series.delivered.iter().all(|rate| *rate == 5.0));
        assert_eq!(series.pending.last(), Some(&(160 * 10)));
        assert_eq!((recent(&series.received), recent(&[]), recent(&[8.0, 2.0])), (10.0, 0.0, 5.0));
    }
}
