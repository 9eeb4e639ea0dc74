//! Coalescing: while many small reads follow one another, the relay sleeps before it reads on, and so takes together what came
//! meanwhile. Waking a thread costs more than carrying a message. Network cards do the same with interrupts. `latency` is what this
//! adds to a message's way on average; the sleeps follow from it.
//!
//! - **The runtime** sleeps before it waits for events, so that one wake-up finds the bytes of all streams and what the spool has
//!   written meanwhile. Only messages count whose senders go on without an answer: others would send less.
//! - **A thread of datagrams** sleeps before it reads again (`listen::datagram`).
//! - **Nobody sleeps** for a message after a silence, nor while there is much to do: large reads and a backlog gather by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What each message adds to a stream's level. Time takes it away, so that only a stream with more than one message in this time
/// has a level that rises.
const SHARE: Duration = Duration::from_millis(2);
/// Messages that come together count as so many at most: a burst is no stream.
const MOST_TOGETHER: u32 = 4;
/// Above this level there is a stream. Messages that came together do not reach it.
const STREAM: Duration = SHARE.saturating_mul(MOST_TOGETHER);
/// The highest level. It decides how long after its last message a stream has ended.
const HIGHEST: Duration = Duration::from_millis(24);

/// If the runtime has taken so many bytes since it last waited, nothing needs gathering. A forward with a backlog takes 64 KiB at a
/// time.
const LARGE: usize = 48 << 10;
/// Senders of RELP have 128 messages without an answer (rsyslog), or more.
const MOST_PIPELINED: u64 = 32;

/// Distinguishes a stream of messages from single ones.
pub struct StreamMeter {
    level: Duration,
    at: Instant,
}

impl StreamMeter {
    pub fn new(now: Instant) -> Self {
        Self { level: Duration::ZERO, at: now }
    }

    /// Notes messages that came together. Returns whether they belong to a stream.
    pub fn note(&mut self, messages: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.level = (self.level.saturating_sub(passed) + SHARE * counted(messages)).min(HIGHEST);
        self.level > STREAM
    }

    /// There is so much to do that nothing needs gathering.
    fn reset(&mut self) {
        self.level = Duration::ZERO;
    }
}

fn counted(messages: u64) -> u32 {
    messages.min(MOST_TOGETHER.into()) as u32
}

/// Decides when the runtime sleeps. Clones share the decision.
#[derive(Clone)]
pub struct Coalescing(Arc<Shared>);

struct Shared {
    latency_micros: AtomicU64,
    /// Messages since the runtime last had nothing to do, as far as they count.
    messages: AtomicU32,
    /// Bytes of batches since then.
    bytes: AtomicUsize,
    /// There was a large chunk for a collector since then, or a sender that would have to wait for its answers.
    is_busy: AtomicBool,
    meter: Mutex<StreamMeter>,
}

impl Default for Coalescing {
    /// Without a latency, so that nobody sleeps.
    fn default() -> Self {
        Self(Arc::new(Shared {
            latency_micros: AtomicU64::default(),
            messages: AtomicU32::default(),
            bytes: AtomicUsize::default(),
            is_busy: AtomicBool::default(),
            meter: Mutex::new(StreamMeter::new(Instant::now())),
        }))
    }
}

impl Coalescing {
    /// Sets what the sleeps may add to a message's way on average; zero: nobody sleeps.
    pub fn set_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.latency_micros.store(micros, Ordering::Relaxed);
    }

    fn latency(&self) -> Duration {
        Duration::from_micros(self.0.latency_micros.load(Ordering::Relaxed))
    }

    /// How long the runtime sleeps. A message waits for half of it until it is read, and for all of the next one until the forward
    /// finds it in the spool.
    fn sleep_of_runtime(&self) -> Duration {
        self.latency() * 2 / 3
    }

    /// How long a thread of datagrams may sleep. A datagram waits for half of it, and its way through the spool takes a little.
    pub fn sleep_of_datagrams(&self) -> Duration {
        self.latency() * 3 / 2
    }

    /// Notes a batch whose sender waits for no answer.
    pub fn note_batch(&self, messages: u64, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.messages.fetch_add(counted(messages), Ordering::Relaxed);
    }

    /// Notes a batch whose sender sends on without its answers, up to a window.
    pub fn note_pipelined(&self, messages: u64, bytes: usize) {
        // So many at once are a large part of the window: the sender would have to wait.
        match messages > MOST_PIPELINED {
            true => self.0.is_busy.store(true, Ordering::Relaxed),
            false => self.note_batch(messages, bytes),
        }
    }

    /// Notes lines that go to a collector.
    pub fn note_chunk(&self, bytes: usize) {
        if bytes >= LARGE {
            self.0.is_busy.store(true, Ordering::Relaxed);
        }
    }

    /// How long the runtime sleeps before it waits for events.
    fn sleep_before_waiting(&self, now: Instant) -> Option<Duration> {
        let messages = self.0.messages.swap(0, Ordering::Relaxed);
        let bytes = self.0.bytes.swap(0, Ordering::Relaxed);
        let is_busy = self.0.is_busy.swap(false, Ordering::Relaxed);
        let mut meter = self.0.meter.lock();
        if is_busy || bytes >= LARGE {
            meter.reset();
            return None;
        }
        let is_stream = meter.note(messages.into(), now);
        is_stream.then(|| self.sleep_of_runtime()).filter(|sleep| !sleep.is_zero())
    }

    /// Call this on the runtime's thread before it waits for events.
    pub fn before_waiting(&self) {
        if let Some(time) = self.sleep_before_waiting(Instant::now()) {
            // The thread's own sleep: a timer of the runtime would be an event.
            thread::sleep(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Notes so many messages at each of these milliseconds. Returns the last answer.
    fn noted(messages: u64, times: impl IntoIterator<Item = u32>) -> bool {
        let start = Instant::now();
        let mut meter = StreamMeter::new(start);
        times.into_iter().map(|ms| meter.note(messages, start + ms * MS)).last().expect("a time")
    }

    #[test]
    fn a_stream_is_more_than_one_message_in_two_milliseconds() {
        assert!(!noted(1, [0]));
        assert!(noted(1, 0..50), "a thousand a second");
        assert!(!noted(1, (0..1000).step_by(2)), "five hundred");
        assert!(!noted(1, (0..1000).step_by(100)));
    }

    #[test]
    fn a_burst_is_no_stream() {
        assert!(!noted(1000, [0]));
        assert!(!noted(1000, (0..1000).step_by(10)), "each is over before the next");
        assert!(noted(20, [0, 2]), "two in a row may be one");
    }

    #[test]
    fn a_stream_ends_soon_after_its_last_message() {
        let start = Instant::now();
        let mut meter = StreamMeter::new(start);
        assert!((0..1000).map(|_| meter.note(10, start)).last() == Some(true));
        assert!(meter.note(0, start + 15 * MS));
        assert!(!meter.note(0, start + 16 * MS));
        assert!(!meter.note(1, start + 1000 * MS), "a message after a silence");
    }

    #[test]
    fn the_runtime_sleeps_while_there_is_a_stream_and_not_much_to_do() {
        let (coalescing, now) = (Coalescing::default(), Instant::now());
        coalescing.set_latency(3 * MS);
        coalescing.note_batch(1, 300);
        assert_eq!(coalescing.sleep_before_waiting(now), None, "one message");
        let now = now + 100 * MS;
        (0..10).for_each(|_| coalescing.note_batch(1, 300));
        assert_eq!(coalescing.sleep_before_waiting(now), None, "a burst");
        coalescing.note_batch(4, 1200);
        assert_eq!(coalescing.sleep_before_waiting(now), Some(2 * MS));
        assert_eq!(coalescing.sleep_before_waiting(now + MS), Some(2 * MS), "the stream goes on");
        coalescing.set_latency(Duration::ZERO);
        assert_eq!(coalescing.sleep_before_waiting(now + MS), None);
        coalescing.set_latency(3 * MS / 2);
        assert_eq!(coalescing.sleep_before_waiting(now + MS), Some(MS));
        // A forward with a backlog.
        coalescing.note_chunk(64_000);
        assert_eq!(coalescing.sleep_before_waiting(now + MS), None);
        assert_eq!(coalescing.sleep_before_waiting(now + MS), None, "the stream has to show itself again");
        (0..3).for_each(|_| {
            coalescing.note_batch(4, 1200);
            coalescing.sleep_before_waiting(now + MS);
        });
        assert_eq!(coalescing.sleep_before_waiting(now + MS), Some(MS));
        // A sender of RELP at full speed has to wait for answers, and one that sends less does not.
        coalescing.note_pipelined(100, 30_000);
        assert_eq!(coalescing.sleep_before_waiting(now + MS), None);
        (0..3).for_each(|_| {
            coalescing.note_pipelined(20, 6000);
            coalescing.sleep_before_waiting(now + MS);
        });
        assert_eq!(coalescing.sleep_before_waiting(now + MS), Some(MS));
        // Fifty senders at full speed.
        (0..50).for_each(|_| coalescing.note_batch(10, 3000));
        assert_eq!(coalescing.sleep_before_waiting(now + MS), None);
    }
}
