//! How full the spool is. Shedding decides by it; the gauges in `metrics` show the same numbers to people.

use std::sync::atomic::{AtomicU64, Ordering};

/// Written under the log's lock, read by listeners without it.
#[derive(Default)]
pub(super) struct Fill {
    bytes: AtomicU64,
    max_bytes: AtomicU64,
}

impl Fill {
    /// Bytes of all segments, and the most that they may take.
    pub fn set(&self, bytes: u64, max_bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    pub fn percent(&self) -> u8 {
        let (bytes, max_bytes) = (self.bytes.load(Ordering::Relaxed), self.max_bytes.load(Ordering::Relaxed));
        u8::try_from(bytes.saturating_mul(100).checked_div(max_bytes).unwrap_or(0)).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_nothing_is_none() {
        let fill = Fill::default();
        assert_eq!(fill.percent(), 0);
        for (bytes, max_bytes, percent) in [(0, 10, 0), (99, 100, 99), (30, 20, 150), (u64::MAX, 1, 100)] {
            fill.set(bytes, max_bytes);
            assert_eq!(fill.percent(), percent, "{bytes} of {max_bytes}");
        }
    }
}
