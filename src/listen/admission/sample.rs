//! `[[sample]]`: of the messages that a rule matches, one of N is kept. Each container is counted separately, so that a chatty
//! container does not silence a quiet one. The first message of each container is kept. Pure arithmetic; the caller passes the
//! time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

use super::sweeps::Sweeps;
use crate::record::UnixMicros;

/// Counters, one for each pair of rule and container. When there are more, idle ones are forgotten first. Containers that still
/// find no room share one counter per rule, because any sender can invent containers.
const MAX_COUNTERS: usize = 10_000;
/// A container that has been silent this long starts anew.
const IDLE: Duration = Duration::from_secs(60);

/// The counters of messages that each rule has matched, by container.
#[derive(Default)]
pub struct Samples {
    /// Hashes names with random keys, so that a sender cannot invent colliding names.
    hasher: RandomState,
    counters: Mutex<Counters>,
}

#[derive(Default)]
struct Counters {
    by_container: HashMap<u64, Counter>,
    sweeps: Sweeps,
}

#[derive(Clone, Copy)]
struct Counter {
    /// Messages since the last kept one, including it.
    seen: usize,
    last: UnixMicros,
}

impl Samples {
    /// Whether to keep the next message of a container, which matches the rule with index `rule`.
    pub fn keeps(&self, rule: usize, container: &[&[u8]], one_of: usize, now: UnixMicros) -> bool {
        let mut key = self.hasher.hash_one((rule, container));
        let mut counters = self.counters.lock();
        if !counters.by_container.contains_key(&key) && !counters.has_room(now) {
            key = self.hasher.hash_one(rule);
        }
        let counter = counters.by_container.entry(key).or_insert(Counter { seen: 0, last: now });
        let keeps = counter.seen == 0 || counter.seen >= one_of;
        *counter = Counter { seen: if keeps { 1 } else { counter.seen + 1 }, last: now };
        keeps
    }
}

impl Counters {
    fn has_room(&mut self, now: UnixMicros) -> bool {
        if self.by_container.len() >= MAX_COUNTERS && self.sweeps.begin(now) {
            self.by_container.retain(|_, counter| !counter.last.has_passed(IDLE, now));
        }
        self.by_container.len() < MAX_COUNTERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> UnixMicros {
        UnixMicros(1_000_000_000 + seconds * 1_000_000)
    }

    fn kept(samples: &Samples, container: &str, messages: usize) -> Vec<usize> {
        (0..messages).filter(|_| samples.keeps(0, &[container.as_bytes()], 3, at(0))).collect()
    }

    #[test]
    fn the_first_is_kept_and_then_one_of_so_many_of_each_container() {
        let samples = Samples::default();
        assert_eq!(kept(&samples, "loud", 8), [0, 3, 6]);
        assert_eq!(kept(&samples, "quiet", 1), [0]);
        assert_eq!(kept(&samples, "loud", 2), [1]);
        assert!(samples.keeps(1, &[b"loud"], 3, at(0)), "another rule counts on its own");
        assert!(samples.keeps(2, &[b"all"], 1, at(0)) && samples.keeps(2, &[b"all"], 1, at(0)));
    }

    #[test]
    fn containers_that_are_invented_share_what_is_left() {
        let samples = Samples::default();
        let invent = |from: usize, count: usize, seconds| {
            let keeps = |n: &usize| samples.keeps(0, &[format!("invented-{n}").as_bytes()], 100, at(seconds));
            (from..from + count).filter(keeps).count()
        };
        assert_eq!(invent(0, MAX_COUNTERS, 0), MAX_COUNTERS);
        assert_eq!(invent(MAX_COUNTERS, 200, 1), 2);
        assert!(samples.counters.lock().by_container.len() <= MAX_COUNTERS + 1);
        // The other containers have been silent for a minute.
        assert_eq!(invent(20_000, 200, 61), 200);
        // A clock that is set back does not stop sweeps.
        assert!(samples.keeps(0, &[b"new"], 100, at(-3600)));
    }
}
