//! The naps of a thread that reads datagrams: how long more of them may queue before it reads on.

use std::time::{Duration, Instant};

use crate::coalescing::StreamMeter;

/// Bytes of receive buffer that a datagram of 200 bytes takes.
const BUFFER_BYTES: usize = 1280;
/// A nap ends before the receive buffer is full even if suddenly a datagram comes in each such time: a burst of several containers.
const BURST_INTERVAL: Duration = Duration::from_micros(3);
/// The receive buffer holds this many times what came since the last nap began.
const RESERVE: usize = 10;
/// So many datagrams since the last nap gather by themselves…
const MANY: usize = 256;
/// …and there are no naps for so long after them.
const BUSY: Duration = Duration::from_millis(10);
/// A shorter nap costs more than it saves.
const SHORTEST: Duration = Duration::from_micros(250);

pub struct Naps {
    /// How many datagrams the receive buffer holds; 0: there are no naps.
    capacity: usize,
    meter: StreamMeter,
    /// Datagrams that came since the last nap began, or since none waited.
    received: usize,
    busy_until: Instant,
}

impl Naps {
    /// The naps of a UDP socket with this receive buffer.
    pub fn of_udp(receive_buffer: usize, now: Instant) -> Self {
        Self { capacity: receive_buffer / BUFFER_BYTES, meter: StreamMeter::new(now), received: 0, busy_until: now }
    }

    /// None at all for unix sockets: the sender of a full queue waits and loses nothing, and the queue may hold only ten.
    pub fn none(now: Instant) -> Self {
        Self::of_udp(0, now)
    }

    /// Call this when `received` datagrams were passed on. `is_drained`: no more are waiting. Returns how long to nap, at most `longest`.
    pub fn after(&mut self, received: usize, is_drained: bool, longest: Duration, now: Instant) -> Option<Duration> {
        self.received += received;
        let is_stream = self.meter.note(received as u64, now);
        if !is_drained {
            return None;
        }
        let received = std::mem::take(&mut self.received);
        if received >= MANY {
            self.busy_until = now + BUSY;
        }
        let has_room = received * RESERVE < self.capacity;
        let until_full = BURST_INTERVAL.saturating_mul(u32::try_from(self.capacity).unwrap_or(u32::MAX));
        let nap = longest.min(until_full);
        (is_stream && has_room && now >= self.busy_until && nap >= SHORTEST).then_some(nap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(3);
    /// What the relay asks for, and what an unprivileged process gets by default.
    const LARGE: usize = 8 << 20;
    const USUAL: usize = 416 << 10;

    /// The nap after the last of these passes, a millisecond after each other.
    fn after(receive_buffer: usize, longest: Duration, passes: &[usize]) -> Option<Duration> {
        let start = Instant::now();
        let mut naps = Naps::of_udp(receive_buffer, start);
        let times = (1..).map(|ms| start + Duration::from_millis(ms));
        passes.iter().zip(times).map(|(received, now)| naps.after(*received, true, longest, now)).last().flatten()
    }

    #[test]
    fn there_are_naps_in_a_stream() {
        assert_eq!(after(LARGE, LONGEST, &[1]), None);
        assert_eq!(after(LARGE, LONGEST, &[200]), None, "a burst");
        assert_eq!(after(LARGE, LONGEST, &[20; 3]), Some(LONGEST));
        assert_eq!(after(LARGE, Duration::ZERO, &[20; 3]), None);
        let now = Instant::now();
        let mut unix = Naps::none(now);
        assert!((0..10).all(|_| unix.after(1, true, LONGEST, now).is_none()));
    }

    #[test]
    fn a_nap_is_as_long_as_the_receive_buffer_allows() {
        // It holds 332.
        assert_eq!(after(USUAL, LONGEST, &[10; 3]), Some(Duration::from_micros(996)));
        assert_eq!(after(USUAL, LONGEST, &[10, 10, 34]), None);
        assert_eq!(after(64 << 10, LONGEST, &[4; 3]), None, "it would be too short");
    }

    #[test]
    fn datagrams_that_wait_are_not_kept_waiting_and_many_need_no_nap() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut naps = Naps::of_udp(LARGE, start);
        let mut after = |received, is_drained, ms| naps.after(received, is_drained, LONGEST, at(ms));
        (0..3).for_each(|_| _ = after(20, true, 1));
        assert_eq!(after(20, true, 1), Some(LONGEST));
        assert_eq!(after(200, false, 2), None, "more are waiting");
        assert_eq!(after(20, true, 2), Some(LONGEST));
        assert_eq!((after(200, false, 3), after(100, true, 3)), (None, None), "together they are many");
        assert_eq!(after(20, true, 12), None, "so it stays for a while");
        assert_eq!(after(20, true, 13), Some(LONGEST));
    }
}
