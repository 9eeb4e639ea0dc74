//! The senders: numbered messages in Docker's format, at a steady rate over several connections.
//!
//! A message counts as sent when the kernel has taken all of it on a connection that was alive a moment before. If the
//! relay ends, the sender repeats the unfinished message, whole, on the next connection. Messages that were due in the
//! meantime are skipped, so a sender that was blocked does not cause a flood afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::support::{Docker, Format, within};
use super::tally::mark;
use super::wire::{Way, Wire};

/// The number of connections. Each has a stream of numbers of its own.
pub const STREAMS: usize = 4;
/// Bytes of a message, its LF included.
const MESSAGE: usize = 200;
/// How many messages of a stream may be late before they are skipped, as a fraction of a second.
const LATE: f64 = 0.05;
/// Time between two checks of the clock.
const TICK: Duration = Duration::from_millis(1);
/// Only a failing test waits this long for the load.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Messages handed over, by stream: the number of the next one.
    sent: [AtomicUsize; STREAMS],
    /// Messages sent or skipped, of all streams. This is the progress of the story.
    due: AtomicUsize,
    /// How often the senders were asked to reconnect.
    connections: AtomicUsize,
    /// The longest time that a connected relay did not take a message, in milliseconds.
    held: AtomicU64,
}

/// The result of a load.
pub struct Sent {
    /// The number of messages sent, by stream.
    pub sent: [usize; STREAMS],
    /// The longest time that a sender was blocked.
    pub held: Duration,
}

impl Load {
    /// `rate`: messages per second, of all streams together.
    pub fn start(way: &Way, rate: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..STREAMS).map(|stream| {
            let shared = shared.clone();
            let wire = Wire::new(way);
            std::thread::spawn(move || talk(stream, wire, &shared, rate as f64 / STREAMS as f64))
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// Waits until `more` further messages were due.
    pub fn goes_on(&self, more: usize) {
        let goal = self.due() + more;
        let reached = within(PATIENCE, || (self.due() >= goal).then_some(()));
        assert!(reached.is_some(), "the load stands still at {} of {goal}", self.due());
    }

    /// Waits until `goal` messages were sent since the start. Some relays block their senders, so it also returns when
    /// twice as many were due.
    pub fn has_sent(&self, goal: usize) {
        let reached =
            within(PATIENCE, || (self.sent().iter().sum::<usize>() >= goal || self.due() >= 2 * goal).then_some(()));
        assert!(reached.is_some(), "the load stands still at {} of {goal}", self.due());
    }

    pub fn due(&self) -> usize {
        self.shared.due.load(Ordering::Relaxed)
    }

    /// How many messages of each stream were handed over.
    pub fn sent(&self) -> [usize; STREAMS] {
        self.shared.sent.each_ref().map(|sent| sent.load(Ordering::Relaxed))
    }

    /// Makes all senders reconnect, like senders that have just started. Further messages go over new connections.
    pub fn connects_anew(&self) {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn ends(mut self) -> Sent {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a sender"));
        Sent { sent: self.sent(), held: Duration::from_millis(self.shared.held.load(Ordering::Relaxed)) }
    }
}

fn talk(stream: usize, mut wire: Wire, shared: &Shared, rate: f64) {
    let container = Docker::new(Format::Rfc5424Micro, &container(stream));
    let (start, late) = (Instant::now(), (rate * LATE).max(1.0) as usize);
    let (mut number, mut taken) = (0, 0);
    let mut message = numbered(&container, stream, number);
    let (mut connections, mut offered) = (0, None);
    // A message that was begun is finished.
    while !shared.stop.load(Ordering::Relaxed) || wire.is_in_the_middle() {
        let due = (start.elapsed().as_secs_f64() * rate) as usize;
        let skipped = due.saturating_sub(taken + late);
        taken += skipped;
        shared.due.fetch_add(skipped, Ordering::Relaxed);
        if connections < shared.connections.load(Ordering::Relaxed) && !wire.is_in_the_middle() {
            connections += 1;
            wire.hangs_up();
        }
        if taken >= due {
            std::thread::sleep(TICK);
            continue;
        }
        let since = *offered.get_or_insert_with(Instant::now);
        if wire.hands_over(&message) {
            shared.held.fetch_max(since.elapsed().as_millis() as u64, Ordering::Relaxed);
            offered = None;
            number += 1;
            taken += 1;
            shared.sent[stream].store(number, Ordering::Relaxed);
            shared.due.fetch_add(1, Ordering::Relaxed);
            message = numbered(&container, stream, number);
        } else if !wire.is_connected() {
            offered = None;
        }
    }
    let answered = within(PATIENCE, || wire.is_answered().then_some(()));
    assert!(answered.is_some(), "messages without an answer");
}

/// The container of a stream.
pub fn container(stream: usize) -> String {
    format!("web-{stream}")
}

/// The mark is at the end, so a truncated message has none.
fn numbered(container: &Docker, stream: usize, number: usize) -> Vec<u8> {
    let mark = mark(stream, number);
    let padding = MESSAGE - container.says(mark.as_bytes()).len();
    container.says(format!("{}{mark}", ".".repeat(padding)).as_bytes())
}
