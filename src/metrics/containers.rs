//! Messages by container: which ones are busiest. Bounded, for whoever reaches a listener can invent containers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};

/// Containers that are counted apart; all that come later share one counter.
pub const MOST_CONTAINERS: usize = 1000;

/// One counter for each container.
#[derive(Default)]
pub struct Containers {
    by_name: Mutex<HashMap<String, Counter>>,
    /// Messages of containers that found no room.
    others: Counter,
    /// How many of the busiest are exported.
    exported: AtomicUsize,
}

impl Containers {
    /// The counter of the container called `name`. Take it once and keep it.
    pub fn counter(&self, name: &str) -> Counter {
        let mut by_name = self.table();
        if let Some(counter) = by_name.get(name) {
            return counter.clone();
        }
        if by_name.len() >= MOST_CONTAINERS {
            return self.others.clone();
        }
        by_name.entry(name.to_owned()).or_default().clone()
    }

    /// The containers with the most messages, at most `most` of them, the busiest first.
    pub fn busiest(&self, most: usize) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.table().iter().map(|(name, counter)| (name.clone(), counter.get())).collect();
        all.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        all.truncate(most);
        all
    }

    /// From now on so many of the busiest are exported. Which ones they are can change from scrape to scrape.
    pub fn export(&self, most: usize) {
        self.exported.store(most.min(MOST_CONTAINERS), Ordering::Relaxed);
    }

    /// Messages of containers that are not counted apart.
    pub fn others(&self) -> u64 {
        self.others.get()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Counter>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asked at each scrape, so that nothing is kept in order in between.
impl Collector for Containers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let most = self.exported.load(Ordering::Relaxed);
        if most == 0 {
            return Ok(());
        }
        let help = "Messages received of the busiest containers";
        let mut family = encoder.encode_descriptor("container_received", help, None, MetricType::Counter)?;
        for (name, received) in self.busiest(most) {
            let labels = [("container", name)];
            ConstCounter::new(received).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Containers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Containers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_come_first_and_there_are_never_too_many() {
        let containers = Containers::default();
        for number in 0..MOST_CONTAINERS + 5 {
            containers.counter(&format!("web-{number}")).inc();
        }
        containers.counter("web-7").inc_by(2);
        containers.counter("web-3").inc_by(2);
        containers.counter("web-9").inc();
        let expected = [("web-3", 3), ("web-7", 3), ("web-9", 2), ("web-0", 1)];
        assert_eq!(containers.busiest(4), expected.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!((containers.busiest(usize::MAX).len(), containers.others()), (MOST_CONTAINERS, 5));
    }

    #[test]
    fn nobody_is_exported_unless_asked_for() {
        let metrics = crate::metrics::Metrics::new();
        metrics.containers().counter("web").inc_by(3);
        metrics.containers().counter("a\"b\\c\nd").inc();
        assert!(!metrics.encode().contains("container_received"));
        metrics.containers().export(1);
        assert!(metrics.encode().contains("\nlogferry_container_received_total{container=\"web\"} 3\n"));
        assert!(!metrics.encode().contains("a\\\"b"));
        metrics.containers().export(usize::MAX);
        assert!(metrics.encode().contains("{container=\"a\\\"b\\\\c\\nd\"} 1\n"), "{}", metrics.encode());
    }
}
