//! Estimates whether the collector's program reads. Its kernel acknowledges bytes that the program may never see: they lie in a
//! receive buffer, and are lost when a hanging program is killed.
//!
//! The peer's kernel announces how much more it would take: the window. The right edge (acknowledged bytes plus window) moves on
//! as the program reads, and stands still when the program does not read (RFC 9293 3.8.6). This is not exact: a buffer holds more
//! than was announced, and a young buffer grows before the program reads. docs/design/replay.md has the measurements behind the
//! figures here.

use std::time::{Duration, Instant};

use super::silence::SignsOfLife;

/// Bytes that a buffer may take in without a change of the window. Measured: up to 180,000.
const UNSEEN: u64 = 256 * 1024;
/// After the window has held us back, it must neither hold us back nor grow for this long. A program that catches up opens the
/// window bit by bit, and leaves it alone when it has caught up.
const SETTLE: Duration = Duration::from_secs(1);

/// A sample of a connection, from our side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSample {
    /// Bytes the peer's kernel has acknowledged since the connection was made.
    pub acknowledged: u64,
    /// `None`: our kernel does not tell.
    pub window: Option<Window>,
    pub signs: Option<SignsOfLife>,
}

/// The peer's receive window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Bytes that the peer would take beyond the acknowledged ones, as last announced.
    pub bytes: u64,
    /// How long sending has waited for the window in total.
    pub limited: Duration,
}

impl TcpSample {
    /// Where the peer's window ends, counted from the first byte of the connection.
    fn edge(&self) -> Option<u64> {
        self.window.map(|window| self.acknowledged + window.bytes)
    }

    /// Whether the program has read by `later` what was acknowledged at `self`. `slack`: bytes that the edge has to move in addition.
    pub fn was_read_by(&self, later: &TcpSample, slack: u64) -> bool {
        let (Some(then), Some(now)) = (self.window, later.window) else { return false };
        let since = later.acknowledged.saturating_sub(self.acknowledged);
        let edge = (later.acknowledged + now.bytes).saturating_sub(self.acknowledged + then.bytes);
        since >= UNSEEN && edge >= slack + then.bytes / 2
    }
}

/// Watches one connection for pressure: while the window holds us back, nothing tells how many bytes lie unread behind it.
#[derive(Debug, Default)]
pub struct ReadEstimator {
    last: TcpSample,
    /// When the window last held us back, or was still growing afterwards; and its size then.
    pressed: Option<(Instant, u64)>,
    /// The largest window there can have been, as far as the samples tell.
    largest: u64,
}

impl ReadEstimator {
    pub fn see(&mut self, sample: &TcpSample, now: Instant) {
        if let Some(Window { bytes, limited }) = sample.window {
            let waited = limited > self.last.window.unwrap_or_default().limited;
            let opens = self.pressed.is_some_and(|(_, window)| bytes > window + window / 8);
            if waited || (opens && !self.is_calm(now)) {
                self.pressed = Some((now, bytes));
            }
        }
        // Between two samples the window ended no further than now, and began no earlier than at the bytes acknowledged before.
        let between = sample.edge().map_or(0, |edge| edge.saturating_sub(self.last.acknowledged));
        self.largest = self.largest.max(between);
        self.last = *sample;
    }

    /// Bytes that may be acknowledged and unread, whatever the program does: the largest window that its kernel can have announced,
    /// and the bytes that a buffer takes without a change of the window. `None`: our kernel does not tell.
    pub fn capacity(&self) -> Option<u64> {
        self.last.window.map(|_| self.largest + UNSEEN)
    }

    pub fn last(&self) -> TcpSample {
        self.last
    }

    pub fn is_calm(&self, now: Instant) -> bool {
        self.calm_in(now).is_zero()
    }

    /// How long until the connection is calm, if nothing else happens.
    pub fn calm_in(&self, now: Instant) -> Duration {
        self.pressed.map_or(Duration::ZERO, |(at, _)| SETTLE.saturating_sub(now.duration_since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    fn look(acknowledged: u64, window: u64) -> TcpSample {
        waited(0, acknowledged, window)
    }

    /// A sample after sending has waited for the window for this many milliseconds.
    fn waited(limited: u64, acknowledged: u64, bytes: u64) -> TcpSample {
        TcpSample { acknowledged, window: Some(Window { bytes, limited: Duration::from_millis(limited) }), signs: None }
    }

    #[test]
    fn what_moves_the_right_edge_was_read() {
        let then = look(1000 * KIB, 100 * KIB);
        assert!(then.was_read_by(&look(1300 * KIB, 100 * KIB), 64 * KIB));
        assert!(!then.was_read_by(&look(1200 * KIB, 100 * KIB), 64 * KIB), "a buffer may hold that much unseen");
        let then = look(1000 * KIB, 1000 * KIB);
        assert!(!then.was_read_by(&look(1900 * KIB, 200 * KIB), 64 * KIB), "the window took it");
        let untold = TcpSample { acknowledged: 9000 * KIB, ..TcpSample::default() };
        assert!(!then.was_read_by(&untold, 0), "this kernel does not tell");
    }

    #[test]
    fn a_program_that_catches_up_is_believed_when_the_window_has_stopped_growing() {
        let mut estimator = ReadEstimator::default();
        let mut now = Instant::now();
        assert!(estimator.is_calm(now));
        estimator.see(&waited(4, 0, 0), now);
        for part in 1..=20 {
            now += SETTLE / 2;
            estimator.see(&waited(4, 0, part * part * KIB), now);
            assert!(!estimator.is_calm(now) || part > 16, "still opening: {estimator:?}");
        }
        now += SETTLE;
        estimator.see(&waited(4, 0, 400 * KIB), now);
        assert!(estimator.is_calm(now));
    }

    /// The window may have been larger between two samples than in any of them.
    #[test]
    fn no_more_is_unread_than_the_window_can_have_been() {
        let (mut estimator, now) = (ReadEstimator::default(), Instant::now());
        assert_eq!(estimator.capacity(), None);
        estimator.see(&look(0, 64 * KIB), now);
        assert_eq!(estimator.capacity(), Some(64 * KIB + UNSEEN));
        // The window grew to a megabyte, and most of it is full.
        estimator.see(&look(900 * KIB, 100 * KIB), now);
        assert_eq!(estimator.capacity(), Some(1000 * KIB + UNSEEN));
        estimator.see(&waited(100, 1000 * KIB, 0), now);
        assert_eq!(estimator.capacity(), Some(1000 * KIB + UNSEEN));
    }

    #[test]
    fn a_slow_program_that_keeps_us_waiting_is_never_believed() {
        let mut estimator = ReadEstimator::default();
        let mut now = Instant::now();
        for round in 1..100 {
            now += Duration::from_millis(50);
            estimator.see(&waited(round * 40, 0, 5 * KIB), now);
            assert!(!estimator.is_calm(now));
        }
    }
}
