//! Batches that a store has read, and that no indexer has acknowledged yet. The cursor passes them in their order. Pure.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, Verdicts};

/// The most batches without an acknowledgement. This many come twice if the first is never acknowledged.
const MAX_AWAITED: usize = 8;

#[derive(Default)]
pub struct Awaited(VecDeque<Outstanding>);

pub struct Outstanding {
    pub batch: Arc<Batch>,
    pub verdicts: Verdicts,
    /// The IDs of its requests that are not acknowledged.
    pub ids: BTreeSet<u64>,
    /// When its last request was sent.
    pub since: Instant,
}

impl Awaited {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing more is sent until a batch is acknowledged.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_AWAITED
    }

    pub fn push(&mut self, outstanding: Outstanding) {
        self.0.push_back(outstanding);
    }

    /// The IDs to ask for.
    pub fn ids(&self) -> Vec<u64> {
        self.0.iter().flat_map(|outstanding| outstanding.ids.iter().copied()).collect()
    }

    /// Notes acknowledged IDs. Returns whether one of them was awaited.
    pub fn acknowledged(&mut self, ids: &[u64]) -> bool {
        let mut is_news = false;
        for outstanding in &mut self.0 {
            ids.iter().for_each(|id| is_news |= outstanding.ids.remove(id));
        }
        is_news
    }

    /// The first batch, if all of it is acknowledged.
    pub fn pop(&mut self) -> Option<Outstanding> {
        if self.0.front()?.ids.is_empty() { self.0.pop_front() } else { None }
    }

    /// Whether a batch has waited for too long.
    pub fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        self.0.iter().any(|outstanding| !outstanding.ids.is_empty() && now - outstanding.since >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding(ids: &[u64], since: Instant) -> Outstanding {
        let batch = Arc::new(Batch::new());
        Outstanding { verdicts: Verdicts::new(&batch), batch, ids: ids.iter().copied().collect(), since }
    }

    #[test]
    fn batches_are_passed_in_their_order() {
        let now = Instant::now();
        let mut awaited = Awaited::default();
        for ids in [&[0, 1][..], &[2], &[], &[3]] {
            awaited.push(outstanding(ids, now));
        }
        assert_eq!(awaited.ids(), [0, 1, 2, 3]);
        assert!(awaited.acknowledged(&[2, 0]) && !awaited.acknowledged(&[2, 7]) && awaited.pop().is_none());
        assert!(awaited.acknowledged(&[1]));
        let passed = std::iter::from_fn(|| awaited.pop()).count();
        assert_eq!((passed, awaited.ids()), (3, vec![3]), "one without any waits for those before it alone");
    }

    #[test]
    fn what_is_not_acknowledged_is_bounded_and_overdue() {
        let (now, patience) = (Instant::now(), Duration::from_secs(60));
        let mut awaited = Awaited::default();
        for number in 0..MAX_AWAITED as u64 {
            assert!(!awaited.is_full());
            awaited.push(outstanding(&[number], now + Duration::from_secs(number)));
        }
        assert!(awaited.is_full());
        assert!(!awaited.is_overdue(now + Duration::from_secs(59), patience));
        assert!(awaited.is_overdue(now + patience, patience));
        awaited.acknowledged(&[0]);
        assert!(!awaited.is_overdue(now + patience, patience));
        assert!(awaited.is_overdue(now + Duration::from_secs(61), patience));
    }
}
