//! Samples: of what a `[[sample]]` rule matches, one message of so many is kept. Each container is counted on its own, so that a chatty one
//! does not silence a quiet one, and the first message of each is kept. Plain arithmetic on the time that is handed in.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use crate::record::UnixMicros;

/// Counters of rules and containers. When there are more, those that have been idle are forgotten first, and what still finds no room
/// shares one for each rule: whoever reaches a listener can invent containers.
const MAX_COUNTERS: usize = 10_000;
/// A container that has been silent for so long begins anew, in microseconds.
const IDLE: i64 = 60_000_000;
/// How long is not looked for room again, in microseconds.
const SWEEP_EVERY: i64 = 1_000_000;

/// How many messages of each container a rule has seen.
#[derive(Default)]
pub struct Samples {
    /// Hashes names with random keys: a stranger cannot invent a name that falls together with another.
    hasher: RandomState,
    counters: Mutex<Counters>,
}

#[derive(Default)]
struct Counters {
    by_container: HashMap<u64, Counter>,
    /// When room was last looked for.
    swept: Option<UnixMicros>,
}

#[derive(Clone, Copy)]
struct Counter {
    /// Messages since the last one that was kept, that one included.
    seen: usize,
    last: UnixMicros,
}

impl Samples {
    /// Is the next message of a container, which the rule of this number matches, the one of `one_of` that is kept?
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
        let elapsed = |since: UnixMicros| now.0.saturating_sub(since.0);
        if self.by_container.len() >= MAX_COUNTERS
            && self.swept.is_none_or(|at| !(0..SWEEP_EVERY).contains(&elapsed(at)))
        {
            self.swept = Some(now);
            self.by_container.retain(|_, counter| (0..IDLE).contains(&elapsed(counter.last)));
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
        // The others have been silent for a minute.
        assert_eq!(invent(20_000, 200, 61), 200);
        // The clock is set back: nobody waits for it.
        assert!(samples.keeps(0, &[b"new"], 100, at(-3600)));
    }
}
