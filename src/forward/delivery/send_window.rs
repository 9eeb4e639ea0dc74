//! How many bytes may be in flight to a collector that answers: as many as the link and the program have carried in a round trip,
//! by the answers so far. The window grows while answers come soon, and shrinks when they come late. Decides only.

use std::time::{Duration, Instant};

/// Bytes in flight before the first answer. A smaller window grows with every answer that is not late: its frames are so small that
/// a collector's work for each frame, and not the link, makes answers take longer than [`SOON`].
const FIRST: usize = 64 << 10;
/// Bytes that may always be in flight: a second's worth of a link of 32 kbit/s.
const MIN: usize = 4 << 10;
/// The largest window in bytes. They are kept in memory until they are answered.
pub const MAX: usize = 4 << 20;
/// The most bytes that are taken from the spool at once.
pub const MAX_BATCH: usize = 64 << 10;
/// The number of frames in a window. Each answer is a part of the progress.
const FRAMES: usize = 32;
/// The most bytes in a frame of several lines.
const MAX_FRAME: usize = 64 << 10;
/// An answer within this time allows more bytes in flight, whatever the fastest answer took.
const SOON: Duration = Duration::from_millis(50);
/// An answer within twice the time of the fastest one does so too, if it comes at most this much later than that one.
const SOON_AFTER_FASTEST: Duration = Duration::from_millis(500);
/// An answer that comes this much later than the fastest one demands fewer bytes in flight.
const LATE_AFTER_FASTEST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct SendWindow {
    /// Bytes that may be unanswered. `MIN <= limit <= MAX`
    limit: usize,
    /// The shortest time that an answer took.
    fastest: Duration,
    /// When the window last shrank. Answers to earlier frames say nothing about its present size.
    shrank: Option<Instant>,
}

impl SendWindow {
    pub fn new() -> Self {
        Self { limit: FIRST, fastest: Duration::MAX, shrank: None }
    }

    /// Bytes that may be unanswered.
    pub fn bytes(&self) -> usize {
        self.limit
    }

    /// Bytes of a frame of several lines.
    pub fn frame_bytes(&self) -> usize {
        (self.limit / FRAMES).min(MAX_FRAME)
    }

    /// A frame of `bytes`, sent at `sent`, is answered. `on_the_way`: the unanswered bytes, including this frame.
    pub fn answered(&mut self, bytes: usize, sent: Instant, on_the_way: usize, now: Instant) {
        let took = now.duration_since(sent);
        self.fastest = self.fastest.min(took);
        let is_full = on_the_way >= self.limit / 2;
        let soon = SOON.max(self.fastest + self.fastest.min(SOON_AFTER_FASTEST));
        let is_late = took > self.fastest + LATE_AFTER_FASTEST;
        if is_full && (took <= soon || (self.limit < FIRST && !is_late)) {
            self.limit = (self.limit + bytes).min(MAX);
        } else if is_late && self.shrank.is_none_or(|shrank| sent >= shrank) {
            self.limit = (on_the_way.min(self.limit) / 2).max(MIN);
            self.shrank = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Simulates a link with this many bytes a second and this round trip that always gets as much as the window allows. Returns the
    /// bytes that it carried in each of the `seconds`, and the window at the end.
    fn carries(rate: usize, trip: Duration, seconds: u64) -> (Vec<usize>, SendWindow) {
        let (start, mut window) = (Instant::now(), SendWindow::new());
        let end = start + Duration::from_secs(seconds);
        let (mut carried, mut sent, mut now, mut free) = (vec![0; seconds as usize], Vec::new(), start, start);
        let mut on_the_way = 0;
        while now < end {
            while on_the_way < window.bytes() {
                let bytes = window.frame_bytes().max(200);
                free = free.max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
                sent.push((bytes, now, free + trip));
                on_the_way += bytes;
            }
            let (bytes, at, answered) = sent.remove(0);
            now = answered;
            window.answered(bytes, at, on_the_way, now);
            on_the_way -= bytes;
            if let Some(second) = carried.get_mut((now - start).as_secs() as usize) {
                *second += bytes;
            }
        }
        (carried, window)
    }

    #[test]
    fn a_link_is_filled_however_slow_and_long_it_is() {
        for rate in [4_000, 40_000, 400_000, 4_000_000, 12_500_000] {
            for trip in [0, 1, 10, 100, 300].map(Duration::from_millis) {
                let (carried, window) = carries(rate, trip, 40);
                let late = &carried[20..];
                let a_second = late.iter().sum::<usize>() / late.len();
                assert!(a_second * 10 >= rate * 8, "{rate} bytes/s, {trip:?}: {a_second}, {window:?}");
            }
        }
    }

    #[test]
    fn what_is_on_its_way_to_a_slow_link_is_little() {
        let (carried, window) = carries(4_000, Duration::from_millis(300), 60);
        assert!(carried.iter().skip(30).all(|second| *second > 0), "{carried:?}");
        assert!(window.bytes() <= 16 << 10 && window.frame_bytes() <= 512, "{window:?}");
    }

    /// The collector needs the same time for a frame of one line as for one of many, and has paused once while little was in
    /// flight. Small frames are no reason to stay small.
    #[test]
    fn a_pause_is_over_when_it_is_over() {
        const EACH_FRAME: Duration = Duration::from_millis(4);
        let (start, mut window) = (Instant::now(), SendWindow::new());
        window.answered(300, start, 300, start + Duration::from_millis(1));
        let mut now = start + Duration::from_secs(3);
        window.answered(300, start + Duration::from_secs(1), 300, now);
        assert_eq!(window.bytes(), MIN);
        let (mut sent, mut on_the_way, mut carried) = (VecDeque::new(), 0, 0);
        let end = now + Duration::from_secs(10);
        while now < end {
            while on_the_way < window.bytes() {
                let bytes = window.frame_bytes().max(250);
                sent.push_back((bytes, now));
                on_the_way += bytes;
            }
            now += EACH_FRAME;
            let (bytes, at) = sent.pop_front().expect("more is on the way");
            window.answered(bytes, at, on_the_way, now);
            on_the_way -= bytes;
            carried += bytes;
        }
        assert!(carried / 10 > 400_000, "{} bytes/s, {window:?}", carried / 10);
    }

    #[test]
    fn memory_is_the_end_of_it() {
        let (_, window) = carries(1 << 30, Duration::from_millis(300), 20);
        assert_eq!((window.bytes(), window.frame_bytes()), (MAX, MAX_FRAME));
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let (now, mut window) = (Instant::now(), SendWindow::new());
        (0..10_000).for_each(|_| window.answered(1000, now, 1000, now));
        assert_eq!(window.bytes(), FIRST);
    }
}
