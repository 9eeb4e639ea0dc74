//! Does the collector's program read? Its kernel acknowledges bytes that the program may never see: they lie in a
//! receive buffer, and when a program that hangs is killed they are gone.
//!
//! A peer's kernel does tell how much more it would take, the window. Acknowledged bytes plus window, the right edge,
//! moves on as the program reads and stands still when it does not (RFC 9293 3.8.6), though not exactly: a buffer holds
//! more than was announced, and a young one grows before anybody reads. docs/design/replay.md has the measurements behind the
//! figures here.

use std::time::{Duration, Instant};

use super::silence::SignsOfLife;

/// Bytes that a buffer may take in without a sign of it in the window. Measured: up to 180,000.
const UNSEEN: u64 = 256 * 1024;
/// How long after we had to wait for the window it must have been neither in our way nor growing: a program that catches
/// up opens it bit by bit, and one that has caught up leaves it alone.
const SETTLE: Duration = Duration::from_secs(1);

/// What a connection looks like from our side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSample {
    /// Bytes the peer's kernel has acknowledged since the connection was made.
    pub acknowledged: u64,
    /// `None`: this kernel does not tell.
    pub window: Option<Window>,
    pub signs: Option<SignsOfLife>,
}

/// The peer's receive window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Bytes that the peer would take beyond those acknowledged, as last announced.
    pub bytes: u64,
    /// For how long, in all, sending has waited for the window.
    pub limited: Duration,
}

impl TcpSample {
    /// Where the peer's window ends, counted from the first byte of the connection.
    fn edge(&self) -> Option<u64> {
        self.window.map(|window| self.acknowledged + window.bytes)
    }

    /// Whether what was acknowledged at `self` has been read by `later`. `slack`: bytes that may lie between.
    pub fn was_read_by(&self, later: &TcpSample, slack: u64) -> bool {
        let (Some(then), Some(now)) = (self.window, later.window) else { return false };
        let since = later.acknowledged.saturating_sub(self.acknowledged);
        let edge = (later.acknowledged + now.bytes).saturating_sub(self.acknowledged + then.bytes);
        since >= UNSEEN && edge >= slack + then.bytes / 2
    }
}

/// Watches one connection for pressure: while the window is in our way nobody can tell how much lies unread behind it.
#[derive(Debug, Default)]
pub struct ReadEstimator {
    last: TcpSample,
    /// When the window was last in our way, or still growing after it was; and how large it was then.
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
        // Whatever it was between the two, it ended no further than now, and began no earlier than what was acknowledged then.
        let between = sample.edge().map_or(0, |edge| edge.saturating_sub(self.last.acknowledged));
        self.largest = self.largest.max(between);
        self.last = *sample;
    }

    /// Bytes that may be acknowledged and unread, whatever the program does: what its kernel has ever announced to take, and
    /// what it takes unseen. `None`: this kernel does not tell.
    pub fn capacity(&self) -> Option<u64> {
        self.last.window.map(|_| self.largest + UNSEEN)
    }

    pub fn last(&self) -> TcpSample {
        self.last
    }

    pub fn is_calm(&self, now: Instant) -> bool {
        self.calm_in(now).is_zero()
    }

    /// How long until it is calm, if nothing else happens.
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

    /// Sending has waited for the window for so many milliseconds.
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
        // It grew to a megabyte, of which most is full.
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
