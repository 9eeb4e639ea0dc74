//! Runs of equal messages. The first message of a run is passed on at once. The others become one message, which has their count.
//! The last of them is held until the sender sends another text, or until the run has lasted for `repeat`. Pure arithmetic; the
//! caller passes the time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use super::gate::Pending;
use super::sweeps::Sweeps;
use crate::record::UnixMicros;

/// Senders with a run. When there are more, runs that are over are forgotten. Messages of senders that still find no room are
/// passed on as they are.
const MAX_RUNS: usize = 10_000;
/// Bytes of all held messages. Beyond that, messages are passed on as they are.
const MAX_HELD: usize = 8 << 20;
/// Bytes that a held message takes besides its text.
const OVERHEAD: usize = 300;

/// The runs of all senders.
pub struct Repeats {
    /// Hashes names and texts with random keys, so that a sender cannot make two texts with one hash.
    hasher: RandomState,
    runs: Mutex<Runs>,
    /// The number of held messages, readable without the lock.
    count: AtomicUsize,
    /// Notified when the first message is held.
    begun: Notify,
    pending: Gauge,
}

#[derive(Default)]
struct Runs {
    by_sender: HashMap<u64, Run>,
    /// Bytes and number of the held messages.
    bytes: usize,
    held: usize,
    sweeps: Sweeps,
}

/// Equal messages of one sender.
struct Run {
    /// The hash of the content, which is equal in all messages of the run.
    text: u64,
    begun: UnixMicros,
    within: Duration,
    held: Option<Held>,
}

/// The last message of a run, which stands for all but the first.
pub struct Held {
    pub message: Pending,
    /// The number of messages it stands for.
    pub count: u64,
}

/// The decision about a message.
pub enum Repeat {
    /// The message is passed on, after the end of the previous run.
    Passes(Pending, Option<Held>),
    /// The message is held, and replaces the one that was held before.
    TakesPlace,
    /// The message is held, as the first of its run to be held.
    Held,
}

impl Repeats {
    pub fn new(pending: Gauge) -> Self {
        Self {
            hasher: RandomState::new(),
            runs: Mutex::default(),
            count: AtomicUsize::new(0),
            begun: Notify::new(),
            pending,
        }
    }

    /// Takes the next message of a sender. `within`: how long a run lasts.
    pub fn take(&self, key: (u64, u64), message: Pending, within: Duration, now: UnixMicros) -> Repeat {
        let (sender, text) = key;
        self.change(|runs| {
            if !runs.by_sender.contains_key(&sender) && !runs.has_room(now) {
                return Repeat::Passes(message, None);
            }
            let new = Run { text, begun: now, within, held: None };
            let Some(run) = runs.by_sender.get_mut(&sender).filter(|run| run.text == text && !run.is_over(now)) else {
                let ended = runs.by_sender.insert(sender, new).and_then(|ended| ended.held);
                return Repeat::Passes(message, ended.inspect(|held| runs.forget(held)));
            };
            let bytes = byte_len(&message);
            if let Some(held) = &mut run.held {
                runs.bytes = runs.bytes - byte_len(&held.message) + bytes;
                *held = Held { message, count: held.count + 1 };
                return Repeat::TakesPlace;
            }
            if runs.bytes + bytes > MAX_HELD {
                return Repeat::Passes(message, None);
            }
            run.held = Some(Held { message, count: 1 });
            (runs.bytes, runs.held) = (runs.bytes + bytes, runs.held + 1);
            Repeat::Held
        })
    }

    /// The hash of a message's sender, and the hash of its content.
    pub fn key(&self, sender: &[&[u8]], text: &[&[u8]]) -> (u64, u64) {
        (self.hasher.hash_one(sender), self.hasher.hash_one(text))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns when there are held messages.
    pub async fn wait(&self) {
        while self.is_empty() {
            self.begun.notified().await;
        }
    }

    /// Ends the runs that have lasted long enough.
    pub fn overdue(&self, now: UnixMicros) -> Vec<Held> {
        self.end(|run| run.is_over(now))
    }

    /// Ends all runs, because no more messages will come.
    pub fn all(&self) -> Vec<Held> {
        self.end(|_| true)
    }

    fn end(&self, mut which: impl FnMut(&Run) -> bool) -> Vec<Held> {
        if self.is_empty() {
            return Vec::new();
        }
        self.change(|runs| {
            let ended = runs.by_sender.extract_if(|_, run| run.held.is_some() && which(run));
            let ended: Vec<Held> = ended.filter_map(|(_, run)| run.held).collect();
            ended.iter().for_each(|held| runs.forget(held));
            ended
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Runs) -> T) -> T {
        let mut runs = self.runs.lock();
        let result = change(&mut runs);
        let held = runs.held;
        self.pending.set(held as i64);
        if self.count.swap(held, Ordering::AcqRel) == 0 && held > 0 {
            self.begun.notify_one();
        }
        result
    }
}

impl Runs {
    fn has_room(&mut self, now: UnixMicros) -> bool {
        if self.by_sender.len() >= MAX_RUNS && self.sweeps.begin(now) {
            self.by_sender.retain(|_, run| run.held.is_some() || !run.is_over(now));
        }
        self.by_sender.len() < MAX_RUNS
    }

    /// Subtracts a message that is no longer held.
    fn forget(&mut self, held: &Held) {
        (self.bytes, self.held) = (self.bytes - byte_len(&held.message), self.held - 1);
    }
}

impl Run {
    fn is_over(&self, now: UnixMicros) -> bool {
        self.begun.has_passed(self.within, now)
    }
}

fn byte_len(message: &Pending) -> usize {
    OVERHEAD + message.line.capacity()
}

#[cfg(test)]
mod tests {
    use super::super::gate::Terms;
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    struct Rig {
        repeats: Repeats,
        pending: Gauge,
    }

    fn rig() -> Rig {
        let pending = Gauge::default();
        Rig { repeats: Repeats::new(pending.clone()), pending }
    }

    fn at(seconds: i64) -> UnixMicros {
        UnixMicros(1_000_000_000 + seconds * 1_000_000)
    }

    fn shown(held: &Held) -> String {
        format!("{} x{}", String::from_utf8_lossy(&held.message.line), held.count)
    }

    impl Rig {
        /// The messages that are passed on when a sender sends a text.
        fn says(&self, sender: &str, text: &str, seconds: i64) -> Vec<String> {
            let message = Pending { line: text.as_bytes().to_vec(), terms: Terms::none() };
            let key = self.repeats.key(&[sender.as_bytes()], &[text.as_bytes()]);
            match self.repeats.take(key, message, WITHIN, at(seconds)) {
                Repeat::Passes(message, ended) => {
                    let text = String::from_utf8_lossy(&message.line).into_owned();
                    ended.iter().map(shown).chain([text]).collect()
                }
                Repeat::TakesPlace => vec!["dropped".to_owned()],
                Repeat::Held => Vec::new(),
            }
        }

        fn overdue(&self, seconds: i64) -> Vec<String> {
            self.repeats.overdue(at(seconds)).iter().map(shown).collect()
        }
    }

    #[test]
    fn equal_messages_become_one_that_says_how_many_they_were() {
        let rig = rig();
        assert_eq!(rig.says("web", "a", 0), ["a"]);
        assert!(rig.says("web", "a", 1).is_empty());
        assert_eq!(rig.says("api", "a", 1), ["a"], "another sender");
        assert_eq!(
            (rig.says("web", "a", 2), rig.says("web", "a", 3)),
            (vec!["dropped".into()], vec!["dropped".into()])
        );
        assert_eq!(rig.pending.get(), 1);
        assert_eq!(rig.says("web", "b", 4), ["a x3", "b"]);
        assert_eq!((rig.pending.get(), rig.repeats.is_empty()), (0, true));
        assert_eq!(rig.says("web", "a", 5), ["a"]);
        assert!(rig.overdue(100).is_empty(), "nothing is held");
    }

    #[test]
    fn a_run_ends_with_its_time() {
        let rig = rig();
        assert_eq!(rig.says("web", "a", 0), ["a"]);
        assert!(rig.says("web", "a", 1).is_empty());
        assert!(rig.overdue(9).is_empty());
        assert_eq!(rig.overdue(10), ["a x1"]);
        assert_eq!(rig.says("web", "a", 10), ["a"]);
        assert!(rig.says("web", "a", 11).is_empty());
        // The run is over, and `overdue` was not called.
        assert_eq!(rig.says("web", "a", 21), ["a x1", "a"]);
        assert!(rig.says("web", "a", 22).is_empty());
        // The clock is set back by an hour.
        assert_eq!(rig.overdue(-3600), ["a x1"]);
        assert!(rig.says("web", "a", -3600) == ["a"] && rig.says("web", "a", -3600).is_empty());
        let all: Vec<String> = rig.repeats.all().iter().map(shown).collect();
        assert_eq!((all, rig.pending.get()), (vec!["a x1".to_owned()], 0));
    }

    #[test]
    fn what_is_known_and_held_is_bounded() {
        let rig = rig();
        for number in 0..MAX_RUNS + 10 {
            assert_eq!(rig.says(&number.to_string(), "a", 0), ["a"]);
        }
        assert_eq!(rig.repeats.runs.lock().by_sender.len(), MAX_RUNS);
        assert_eq!(rig.says("new", "a", 1), ["a"]);
        assert_eq!(rig.says("new", "a", 1), ["a"], "there is no room for its run");
        // The runs from before are over.
        assert!(rig.says("new", "a", 20) == ["a"] && rig.says("new", "a", 21).is_empty());
        let long = "x".repeat(MAX_HELD / 4);
        let held = (0..8).filter(|n| {
            let sender = format!("long-{n}");
            rig.says(&sender, &long, 22).len() == 1 && rig.says(&sender, &long, 22).is_empty()
        });
        assert_eq!(held.count(), 3);
        assert_eq!(rig.repeats.all().len(), 4);
        assert_eq!(rig.repeats.runs.lock().bytes, 0);
    }
}
