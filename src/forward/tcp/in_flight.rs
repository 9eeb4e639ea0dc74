//! Batches that were sent on a TCP connection and may be needed again, in bytes on the wire and in positions of the spool. Pure.
//!
//! The peer's kernel acknowledges bytes that the program may not have read. So the last acknowledged bytes are kept for a
//! while, and more of them when the program seems not to read (`read_estimator`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::read_estimator::{ReadEstimator, TcpSample};
use crate::spool::Position;

/// How many acknowledged bytes are kept, so that they can be sent again when the connection breaks.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// At least this many of the last bytes on the wire.
    pub bytes: u64,
    /// How long acknowledged bytes are kept, while nothing says that the collector does not keep up.
    pub time: Duration,
    /// At most this many bytes on the wire while the collector does not keep up: more than a peer's kernel buffers.
    pub limit: u64,
}

/// How long a connection has to live before anything on it counts as read. A proxy without a backend accepts a buffer full and
/// closes the connection, again and again.
const YOUNG: Duration = Duration::from_secs(2);

/// Batches that were sent on a connection and may be needed again.
#[derive(Debug)]
pub struct InFlight {
    /// Ascending in every field.
    marks: VecDeque<Mark>,
    replay: Replay,
    estimator: ReadEstimator,
    born: Instant,
}

/// The end of a batch.
#[derive(Debug)]
struct Mark {
    /// The wire's byte count after the batch was flushed.
    wire_bytes: u64,
    /// Where in the spool the batch ends.
    position: Position,
    /// When its acknowledgement was seen, and the sample at that time; `None`: not acknowledged yet.
    acknowledged: Option<(Instant, TcpSample)>,
}

impl InFlight {
    pub fn new(replay: Replay, born: Instant) -> Self {
        Self { marks: VecDeque::new(), replay, estimator: ReadEstimator::default(), born }
    }

    /// A batch was flushed. `wire_bytes`: the wire's byte count now; `position`: where in the spool the batch ends.
    pub fn push(&mut self, wire_bytes: u64, position: Position) {
        self.marks.push_back(Mark { wire_bytes, position, acknowledged: None });
    }

    /// The lines behind the last batch up to `position` are filtered, and are settled with that batch. False: no batch is kept.
    pub fn extend(&mut self, position: Position) -> bool {
        self.marks.back_mut().map(|last| last.position = position).is_some()
    }

    /// Whether no batch is kept, for whatever reason.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether everything is acknowledged. Some of it may still be kept.
    pub fn is_acknowledged(&self) -> bool {
        self.marks.back().is_none_or(|mark| mark.acknowledged.is_some())
    }

    /// Applies a sample of the connection. Returns the furthest safe position, and forgets the batches up to it.
    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant) -> Option<Position> {
        self.estimator.see(sample, now);
        let unseen = self.marks.partition_point(|mark| mark.acknowledged.is_some());
        for mark in self.marks.range_mut(unseen..).take_while(|mark| mark.wire_bytes <= sample.acknowledged) {
            mark.acknowledged = Some((now, *sample));
        }
        self.forget_while(|kept, mark| kept.is_safe(mark, sample.acknowledged, now))
    }

    /// The furthest position among kept batches that the peer's kernel has acknowledged, by the samples so far.
    pub fn acknowledged_up_to(&self) -> Option<Position> {
        let unseen = self.marks.partition_point(|mark| mark.acknowledged.is_some());
        self.marks.get(unseen.checked_sub(1)?).map(|mark| mark.position)
    }

    /// Whether the peer's window does not hold us back.
    pub fn is_calm(&self, now: Instant) -> bool {
        self.estimator.is_calm(now)
    }

    /// The collector has closed the connection in good order, so its program has read all that its kernel had: unread bytes would
    /// have caused a reset. The program may still have lost the last bytes it read, so `replay.bytes` of them are not safe.
    pub fn closed(&mut self, now: Instant) -> Option<Position> {
        let acknowledged = self.marks.iter().rev().find(|mark| mark.acknowledged.is_some())?.wire_bytes;
        self.forget_while(|kept, mark| kept.is_believed(now) && mark.wire_bytes + kept.replay.bytes <= acknowledged)
    }

    /// The last position, for a collector that has read to the end and said so.
    pub fn all(&mut self) -> Option<Position> {
        self.forget_while(|_, _| true)
    }

    fn is_safe(&self, mark: &Mark, acknowledged: u64, now: Instant) -> bool {
        let Some((since, then)) = mark.acknowledged else { return false };
        let old = now.duration_since(since) >= self.replay.time && self.estimator.is_calm(now);
        let read = self.is_believed(now) && then.was_read_by(&self.estimator.last(), self.replay.bytes);
        let behind = acknowledged.saturating_sub(mark.wire_bytes + self.replay.bytes);
        // More bytes came after the batch than the peer's kernel can hold. For a slow program, whose window holds us back, there is no
        // other evidence.
        let pushed_out = self.has_lived(now) && self.estimator.capacity().is_some_and(|capacity| behind >= capacity);
        old || read || pushed_out || mark.wire_bytes + self.replay.limit <= acknowledged
    }

    fn is_believed(&self, now: Instant) -> bool {
        self.has_lived(now) && self.estimator.is_calm(now)
    }

    fn has_lived(&self, now: Instant) -> bool {
        now.duration_since(self.born) >= YOUNG
    }

    fn forget_while(&mut self, safe: impl Fn(&Self, &Mark) -> bool) -> Option<Position> {
        let count = self.marks.iter().take_while(|mark| safe(self, mark)).count();
        self.marks.drain(..count).next_back().map(|mark| mark.position)
    }

    /// When to look again if nothing else happens: soon while something is not acknowledged, otherwise when the oldest
    /// batch has been kept for long enough. `None`: nothing is kept.
    pub fn look_again(&self, now: Instant, soon: Duration) -> Option<Duration> {
        let oldest = self.marks.front()?;
        match oldest.acknowledged {
            Some((since, _)) if self.is_acknowledged() => {
                let old_in = self.replay.time.saturating_sub(now.duration_since(since));
                Some(old_in.max(self.estimator.calm_in(now)))
            }
            _ => Some(soon),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_estimator::Window;
    use super::*;

    fn at(line: u64) -> Position {
        Position { segment: 1, offset: 0, line }
    }

    const TIME: Duration = Duration::from_secs(30);
    const WINDOW: u64 = 100_000;

    fn sample(acknowledged: u64, window: u64, limited: Duration) -> TcpSample {
        TcpSample { acknowledged, window: Some(Window { bytes: window, limited }), signs: None }
    }

    /// A connection that has lived long enough, and keeps at least this many bytes.
    fn grown(bytes: u64) -> (InFlight, Instant) {
        let born = Instant::now();
        let mut sent = InFlight::new(Replay { bytes, time: TIME, limit: 4 << 20 }, born);
        sent.acknowledged(&sample(0, WINDOW, Duration::ZERO), born);
        (sent, born + YOUNG)
    }

    /// Applies a sample with this many acknowledged bytes and this window.
    fn acknowledges(sent: &mut InFlight, bytes: u64, window: u64, now: Instant) -> Option<u64> {
        sent.acknowledged(&sample(bytes, window, Duration::ZERO), now).map(|position| position.line)
    }

    #[test]
    fn what_is_acknowledged_is_told_long_before_it_is_safe() {
        let (mut sent, now) = grown(0);
        assert_eq!(sent.acknowledged_up_to(), None);
        (1..=3).for_each(|line| sent.push(line * 100, at(line)));
        for (bytes, line) in [(99, None), (100, Some(1)), (250, Some(2)), (300, Some(3))] {
            assert_eq!(acknowledges(&mut sent, bytes, WINDOW, now), None);
            assert_eq!(sent.acknowledged_up_to(), line.map(at));
        }
        assert_eq!(acknowledges(&mut sent, 300, WINDOW, now + TIME), Some(3));
        assert_eq!(sent.acknowledged_up_to(), None);
    }

    /// Filtered lines behind the last line that was sent are settled with it.
    #[test]
    fn what_is_filtered_goes_with_what_was_sent_before_it() {
        let (mut sent, now) = grown(0);
        assert!(!sent.extend(at(1)), "nothing was sent");
        sent.push(100, at(2));
        assert!(sent.extend(at(9)));
        assert_eq!(acknowledges(&mut sent, 100, WINDOW, now), None);
        assert_eq!(acknowledges(&mut sent, 100, WINDOW, now + TIME), Some(9));
    }

    #[test]
    fn what_is_not_acknowledged_is_kept() {
        let (mut sent, now) = grown(0);
        sent.push(1_000, at(1));
        assert_eq!(acknowledges(&mut sent, 999, WINDOW, now + TIME), None);
        assert!(!sent.is_acknowledged());
        assert_eq!(acknowledges(&mut sent, 1_000, WINDOW, now + TIME), None, "only just acknowledged");
        assert!(sent.is_acknowledged());
        assert_eq!(acknowledges(&mut sent, 1_000, WINDOW, now + 2 * TIME), Some(1));
        assert!(sent.is_empty());
    }

    #[test]
    fn what_was_read_is_forgotten_at_once() {
        let (mut sent, now) = grown(64 << 10);
        (1..=10).for_each(|n| sent.push(n * 100_000, at(n)));
        let safe: Vec<_> = (1..=10).map(|n| acknowledges(&mut sent, n * 100_000, WINDOW, now)).collect();
        // 300,000 bytes behind.
        assert_eq!(safe[..3], [None; 3]);
        assert_eq!(safe[3..], [1, 2, 3, 4, 5, 6, 7].map(Some));
        assert_eq!(sent.look_again(now, Duration::ZERO), Some(TIME));
        // The connection ends in good order: the program has read the rest too, except for the bytes in its own buffer.
        assert_eq!(sent.closed(now), Some(at(9)));
        assert_eq!(sent.closed(now), None);
    }

    #[test]
    fn what_a_window_swallows_is_kept_up_to_a_limit() {
        let (mut sent, now) = grown(0);
        let later = now + TIME;
        (1..=50).for_each(|n| sent.push(n * 100_000, at(n)));
        for n in 1..=10 {
            assert_eq!(acknowledges(&mut sent, n * 100_000, 1_000_000 - n * 100_000, now), None);
        }
        assert_eq!(sent.acknowledged(&sample(1_000_000, 0, TIME), later), None);
        assert_eq!(sent.closed(later), None);
        // The window was never larger than 1,000,000 bytes, so no more than these and 256 KiB are unread.
        assert_eq!(sent.acknowledged(&sample(2_000_000, 0, TIME), later), Some(at(7)));
        // Where the window may have had any size, the limit decides.
        assert_eq!(sent.acknowledged(&sample(5_000_000, 4_000_000, TIME), later), Some(at(8)));
        // The window no longer holds us back, so the rest becomes safe.
        assert!(sent.look_again(later, Duration::ZERO) > Some(Duration::ZERO));
        assert_eq!(sent.acknowledged(&sample(5_000_000, 0, TIME), later + TIME), Some(at(50)));
    }

    #[test]
    fn a_connection_has_to_live_before_it_is_believed() {
        let (mut sent, now) = grown(0);
        let early = now - YOUNG / 2;
        (1..=10).for_each(|n| sent.push(n * 100_000, at(n)));
        for n in 1..=10 {
            assert_eq!(acknowledges(&mut sent, n * 100_000, WINDOW, early), None);
        }
        assert_eq!(sent.closed(early), None);
        assert_eq!(acknowledges(&mut sent, 1_000_000, WINDOW, now), Some(7));
    }

    #[test]
    fn a_collector_that_read_to_the_end_has_everything() {
        let (mut sent, now) = grown(1000);
        assert_eq!(sent.all(), None);
        sent.push(100, at(1));
        sent.push(200, at(2));
        assert_eq!(sent.look_again(now, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(sent.all(), Some(at(2)));
        assert!(sent.is_empty());
    }
}
