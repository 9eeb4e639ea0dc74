//! Messages by container, and the busiest containers. The table is bounded, because every sender can invent containers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};

use crate::sorted::sort_by;

/// Containers that have counters of their own. All later containers share one.
pub const MAX_CONTAINERS: usize = 1000;
/// Bytes of a name that are kept. Longer names with the same start are counted together.
const MAX_NAME_BYTES: usize = 128;

/// The counters of all containers.
#[derive(Default)]
pub struct Containers {
    by_name: Mutex<HashMap<String, ContainerMetrics>>,
    /// The counters that all later containers share.
    others: ContainerMetrics,
    /// Messages whose tag fits no `tag-template`.
    pub unmatched_tags: Counter,
    /// How many of the busiest containers are exported.
    exported: AtomicUsize,
}

/// The counters of one container.
#[derive(Clone, Default)]
pub struct ContainerMetrics {
    /// Messages received.
    pub received: Counter,
    /// Messages over `rate-limit`.
    pub limited: Counter,
}

/// A container and its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    pub name: String,
    pub received: u64,
    pub limited: u64,
}

impl Containers {
    /// The counters of the container called `name`. A caller takes them once and keeps them.
    pub fn named(&self, name: &str) -> ContainerMetrics {
        let end = (0..=MAX_NAME_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
        let name = &name[..end.unwrap_or(0)];
        let mut by_name = self.table();
        if let Some(metrics) = by_name.get(name) {
            return metrics.clone();
        }
        if by_name.len() >= MAX_CONTAINERS {
            return self.others.clone();
        }
        by_name.entry(name.to_owned()).or_default().clone()
    }

    /// The containers with the most messages, at most `max` of them, the busiest first.
    pub fn busiest(&self, max: usize) -> Vec<Busy> {
        let busy = |(name, metrics): (&String, &ContainerMetrics)| Busy {
            name: name.clone(),
            received: metrics.received.get(),
            limited: metrics.limited.get(),
        };
        let mut all: Vec<_> = self.table().iter().map(busy).collect();
        sort_by(&mut all, |a, b| b.received.cmp(&a.received).then_with(|| a.name.cmp(&b.name)));
        all.truncate(max);
        all
    }

    /// Sets how many of the busiest containers are exported. The set of containers can change from scrape to scrape.
    pub fn export(&self, max: usize) {
        self.exported.store(max.min(MAX_CONTAINERS), Ordering::Relaxed);
    }

    /// Messages of containers without counters of their own.
    pub fn others(&self) -> u64 {
        self.others.received.get()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, ContainerMetrics>> {
        self.by_name.lock()
    }
}

/// Sorts at each scrape, so that counting does not keep an order.
impl Collector for Containers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let max = self.exported.load(Ordering::Relaxed);
        if max == 0 {
            return Ok(());
        }
        let busiest = self.busiest(max);
        type Count = fn(&Busy) -> u64;
        let families: [(_, _, Count); 2] = [
            ("container_received", "Messages received of the busiest containers", |busy| busy.received),
            ("container_limited", "Those of them that were more than `rate-limit` allows", |busy| busy.limited),
        ];
        for (name, help, count) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for busy in &busiest {
                let labels = [("container", busy.name.as_str())];
                ConstCounter::new(count(busy)).encode(family.encode_family(&labels)?)?;
            }
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
        for number in 0..MAX_CONTAINERS + 5 {
            containers.named(&format!("web-{number}")).received.inc();
        }
        containers.named("web-7").received.inc_by(2);
        containers.named("web-3").received.inc_by(2);
        containers.named("web-3").limited.inc();
        containers.named("web-9").received.inc();
        let busy = |(name, received, limited): (&str, u64, u64)| Busy { name: name.to_owned(), received, limited };
        let expected = [("web-3", 3, 1), ("web-7", 3, 0), ("web-9", 2, 0), ("web-0", 1, 0)];
        assert_eq!(containers.busiest(4), expected.map(busy));
        assert_eq!((containers.busiest(usize::MAX).len(), containers.others()), (MAX_CONTAINERS, 5));
    }

    #[test]
    fn a_long_name_takes_no_more_room() {
        let containers = Containers::default();
        let (fits, too_long) = ("x".repeat(MAX_NAME_BYTES), "x".repeat(60_000));
        for name in [&fits, &too_long, &("x".repeat(MAX_NAME_BYTES - 1) + "ñ")] {
            containers.named(name).received.inc();
        }
        let busiest = containers.busiest(usize::MAX);
        let found: Vec<_> = busiest.iter().map(|busy| (busy.name.len(), busy.received)).collect();
        assert_eq!(found, [(MAX_NAME_BYTES, 2), (MAX_NAME_BYTES - 1, 1)]);
    }

    #[test]
    fn nobody_is_exported_unless_asked_for() {
        let metrics = crate::metrics::Metrics::new();
        metrics.containers().named("web").received.inc_by(3);
        metrics.containers().named("a\"b\\c\nd").received.inc();
        assert!(!metrics.encode().contains("logferry_container"));
        metrics.containers().export(1);
        assert!(metrics.encode().contains("\nlogferry_container_received_total{container=\"web\"} 3\n"));
        assert!(!metrics.encode().contains("a\\\"b"));
        metrics.containers().export(usize::MAX);
        assert!(metrics.encode().contains("{container=\"a\\\"b\\\\c\\nd\"} 1\n"), "{}", metrics.encode());
    }
}
