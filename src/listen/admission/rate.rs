//! The rate limit of containers: a token bucket for each container, filled at a steady rate. Pure arithmetic; the caller passes the
//! time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use super::sweeps::Sweeps;
use crate::config::Rate;
use crate::record::UnixMicros;

/// Containers with a bucket of their own. When there are more, full buckets are forgotten first. Containers that still find no room
/// share one bucket, because any sender can invent containers.
const MAX_BUCKETS: usize = 10_000;

/// Buckets count in millionths of a message: a microsecond adds as many millionths as the rate has messages per second.
const MESSAGE: u64 = 1_000_000;

/// The buckets of all containers. A container has one for each listener that it uses.
#[derive(Default)]
pub struct Buckets {
    /// Hashes names with random keys, so that a sender cannot invent colliding names.
    hasher: RandomState,
    table: Mutex<Table>,
    shared: Bucket,
}

#[derive(Default)]
struct Table {
    /// Buckets by the hash of the container's name, so that long names take no more memory.
    by_container: HashMap<u64, Bucket>,
    sweeps: Sweeps,
}

/// The messages that one container may still send.
#[derive(Clone, Default)]
pub struct Bucket(Arc<Mutex<Level>>);

#[derive(Clone, Copy, Default)]
struct Level {
    /// Millionths of a message, at `at`.
    left: u64,
    /// `None`: nothing was taken yet; the bucket is full.
    at: Option<UnixMicros>,
}

impl Buckets {
    /// The bucket of a container. Take it once and keep it.
    pub fn of(&self, container: &[u8], rate: Rate, now: UnixMicros) -> Bucket {
        let container = self.hasher.hash_one(container);
        let mut table = self.table.lock();
        let Table { by_container, sweeps } = &mut *table;
        if let Some(bucket) = by_container.get(&container) {
            return bucket.clone();
        }
        if by_container.len() >= MAX_BUCKETS && sweeps.begin(now) {
            // A full bucket without a holder is equal to a new one.
            by_container.retain(|_, bucket| Arc::strong_count(&bucket.0) > 1 || !bucket.is_full(rate, now));
        }
        if by_container.len() >= MAX_BUCKETS {
            return self.shared.clone();
        }
        by_container.entry(container).or_default().clone()
    }
}

impl Bucket {
    /// Takes one message from the bucket. False: it is empty.
    pub fn take(&self, rate: Rate, now: UnixMicros) -> bool {
        let mut level = self.0.lock();
        let left = level.left_at(rate, now);
        // Two batches may come in the wrong order by less than a second. A larger step back means that the clock was set.
        let at = level.at.filter(|at| (1..1_000_000).contains(&at.0.saturating_sub(now.0))).unwrap_or(now);
        let takes = left >= MESSAGE;
        *level = Level { left: if takes { left - MESSAGE } else { left }, at: Some(at) };
        takes
    }

    fn is_full(&self, rate: Rate, now: UnixMicros) -> bool {
        self.0.lock().left_at(rate, now) >= u64::from(rate.burst) * MESSAGE
    }
}

impl Level {
    fn left_at(self, rate: Rate, now: UnixMicros) -> u64 {
        let full = u64::from(rate.burst) * MESSAGE;
        let Some(at) = self.at else { return full };
        // A clock that was set back adds nothing.
        let elapsed = u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0);
        self.left.saturating_add(elapsed.saturating_mul(rate.per_second.into())).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 30 };

    fn at(millis: i64) -> UnixMicros {
        UnixMicros(1_000_000_000 + millis * 1000)
    }

    fn taken(bucket: &Bucket, tries: usize, millis: i64) -> usize {
        (0..tries).filter(|_| bucket.take(RATE, at(millis))).count()
    }

    #[test]
    fn a_burst_and_then_a_steady_rate() {
        let bucket = Bucket::default();
        assert_eq!(taken(&bucket, 100, 0), 30);
        assert_eq!(taken(&bucket, 100, 99), 0, "a tenth of a second is not over");
        assert_eq!(taken(&bucket, 100, 100), 1);
        assert_eq!(taken(&bucket, 100, 1100), 10);
        assert_eq!(taken(&bucket, 100, 60_000), 30, "never more than a burst");
        assert_eq!(taken(&bucket, 100, 0), 0, "the clock was set back");
        assert_eq!(taken(&bucket, 1, 100), 1);
    }

    #[test]
    fn one_container_takes_nothing_from_another() {
        let buckets = Buckets::default();
        assert_eq!(taken(&buckets.of(b"loud", RATE, at(0)), 100, 0), 30);
        assert_eq!(taken(&buckets.of(b"loud", RATE, at(0)), 100, 0), 0);
        assert_eq!(taken(&buckets.of(b"quiet", RATE, at(0)), 5, 0), 5);
        // The same with long, similar names.
        let long = |last: u8| [&[b'x'; 60_000][..], &[last]].concat();
        assert_eq!(taken(&buckets.of(&long(b'a'), RATE, at(0)), 100, 0), 30);
        assert_eq!(taken(&buckets.of(&long(b'b'), RATE, at(0)), 5, 0), 5);
        assert_eq!(taken(&buckets.of(&long(b'a'), RATE, at(0)), 5, 0), 0);
    }

    #[test]
    fn containers_that_are_invented_share_what_is_left() {
        let buckets = Buckets::default();
        let real = buckets.of(b"real", RATE, at(0));
        assert_eq!(taken(&real, 100, 0), 30);
        for number in 1..MAX_BUCKETS {
            assert!(buckets.of(format!("invented-{number}").as_bytes(), RATE, at(0)).take(RATE, at(0)));
        }
        assert_eq!(buckets.table.lock().by_container.len(), MAX_BUCKETS);
        // Containers that find no room share one bucket.
        let more = |millis| {
            let bucket = |n: &i32| buckets.of(format!("more-{n}").as_bytes(), RATE, at(millis));
            (0..100).filter(|n| bucket(n).take(RATE, at(millis))).count()
        };
        assert_eq!(more(0), 30);
        // A second later the invented containers' buckets are full again, and are forgotten.
        assert_eq!(more(1000), 100);
        assert_eq!(taken(&real, 100, 1000), 10);
    }
}
