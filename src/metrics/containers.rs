//! Messages by container: which ones are busiest. Bounded, for whoever reaches a listener can invent containers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;

/// Containers that are counted apart; all that come later share one counter.
pub const MOST_CONTAINERS: usize = 1000;

/// One counter for each container.
#[derive(Default)]
pub struct Containers {
    by_name: Mutex<HashMap<String, Counter>>,
    /// Messages of containers that found no room.
    others: Counter,
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

    /// Messages of containers that are not counted apart.
    pub fn others(&self) -> u64 {
        self.others.get()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Counter>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
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
}
