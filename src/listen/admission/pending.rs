//! Messages that may be incomplete wait here for a moment for their next piece (`reassembler`) or their next line (`multiline`).
//! Those modules know which parts belong together. This module limits how much waits, and for how long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::gate::{Pending, Terms};
use crate::metrics::PieceMetrics;
use crate::record::UnixMicros;

/// How long a message waits for its next part.
const WAIT: Duration = Duration::from_millis(500);
/// How long a message waits in total, however many parts come.
const MAX_AGE: Duration = Duration::from_secs(5);
/// How often the relay looks for messages whose wait is over.
pub const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Bytes that all waiting messages may take. Beyond that, parts are not joined.
pub const MAX_PENDING: usize = 8 << 20;
/// Bytes that a message takes besides its text and its key: a slot in a map that may be half empty, and two allocations.
const OVERHEAD: usize = 300;

/// Messages of all listeners that may be incomplete.
pub struct PendingMessages {
    messages: Mutex<Messages>,
    /// The number of waiting messages, readable without the lock.
    count: AtomicUsize,
    /// Notified when the first message begins to wait.
    begun: Notify,
}

/// The waiting messages, which the lock protects.
pub struct Messages {
    /// The messages by their [`key`].
    by_key: HashMap<Vec<u8>, Unfinished>,
    /// Bytes that all waiting messages take.
    bytes: usize,
    metrics: PieceMetrics,
}

/// The parts of a message so far.
struct Unfinished {
    line: Vec<u8>,
    /// The terms of the first part.
    terms: Terms,
    /// Messages that the line was made of.
    parts: u64,
    /// When its first part came, and its last one.
    begun: UnixMicros,
    since: UnixMicros,
}

/// The messages that are passed on after a part has come, in this order.
#[derive(Default)]
pub struct Joined {
    /// The waiting message, if the part does not belong to it.
    pub before: Option<Pending>,
    /// The message that the part has become; `None`: it waits.
    pub line: Option<Pending>,
}

impl Joined {
    /// The part is a message of its own.
    pub fn alone(message: Pending) -> Self {
        Self { before: None, line: Some(message) }
    }
}

/// The key of a message, which all its parts share. A line is `<PRI>1 STAMP HOST …`: the key has the listener, the connection, and
/// the header without the timestamp. A header that precedes a text ends in a blank, which is trimmed.
pub fn key((listener, connection): (&str, u64), header: &[u8]) -> Option<Vec<u8>> {
    let header = header.trim_ascii_end();
    let mut blanks = memchr::memchr_iter(b' ', header);
    let (version, stamp) = (blanks.next()?, blanks.next()?);
    Some([listener.as_bytes(), b" ", &connection.to_le_bytes(), &header[..version], &header[stamp..]].concat())
}

impl PendingMessages {
    pub fn new(metrics: PieceMetrics) -> Self {
        let messages = Messages { by_key: HashMap::new(), bytes: 0, metrics };
        Self { messages: Mutex::new(messages), count: AtomicUsize::new(0), begun: Notify::new() }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Changes the waiting messages under the lock.
    pub fn change<T>(&self, change: impl FnOnce(&mut Messages) -> T) -> T {
        let mut messages = self.messages.lock();
        let result = change(&mut messages);
        let count = messages.by_key.len();
        if self.count.swap(count, Ordering::AcqRel) == 0 && count > 0 {
            self.begun.notify_one();
        }
        result
    }

    /// Returns when there are waiting messages.
    pub async fn wait(&self) {
        while self.is_empty() {
            self.begun.notified().await;
        }
    }

    /// The messages that have waited long enough, with the parts that came.
    pub fn overdue(&self, now: UnixMicros) -> Vec<Pending> {
        self.give_up(|unfinished| unfinished.since.has_passed(WAIT, now) || unfinished.begun.has_passed(MAX_AGE, now))
    }

    /// All waiting messages, because no more parts will come.
    pub fn all(&self) -> Vec<Pending> {
        self.give_up(|_| true)
    }

    fn give_up(&self, mut which: impl FnMut(&Unfinished) -> bool) -> Vec<Pending> {
        if self.is_empty() {
            return Vec::new();
        }
        self.change(|Messages { by_key, bytes, metrics }| {
            let ended = by_key.extract_if(|_, unfinished| which(unfinished)).map(|(key, unfinished)| {
                *bytes -= unfinished.byte_len(&key);
                unfinished.ends(metrics)
            });
            ended.collect()
        })
    }
}

impl Messages {
    /// Appends `between` and a further part to the message that waits under this key. False: no message waits, the message would
    /// exceed `max` bytes, or all messages would exceed [`MAX_PENDING`].
    pub fn append(&mut self, key: &[u8], (between, part): (&[u8], &[u8]), max: usize, now: UnixMicros) -> bool {
        let Some(Unfinished { line, parts, since, .. }) = self.by_key.get_mut(key) else { return false };
        let added = between.len() + part.len();
        if line.len() + added > max || self.bytes + added > MAX_PENDING {
            return false;
        }
        self.bytes -= line.capacity();
        line.extend_from_slice(between);
        line.extend_from_slice(part);
        self.bytes += line.capacity();
        self.metrics.pending.inc();
        *parts += 1;
        *since = now;
        true
    }

    /// Begins a message with its first part.
    pub fn begin(&mut self, key: Vec<u8>, Pending { line, terms }: Pending, now: UnixMicros) -> Joined {
        let before = self.end(&key);
        let new = Unfinished { line, terms, parts: 1, begun: now, since: now };
        let bytes = new.byte_len(&key);
        if self.bytes + bytes > MAX_PENDING {
            return Joined { before, line: Some(Pending { line: new.line, terms: new.terms }) };
        }
        self.bytes += bytes;
        self.metrics.pending.inc();
        self.by_key.insert(key, new);
        Joined { before, line: None }
    }

    /// Removes the message that waits under this key: it is whole.
    pub fn end(&mut self, key: &[u8]) -> Option<Pending> {
        let ended = self.by_key.remove(key)?;
        self.bytes -= ended.byte_len(key);
        Some(ended.ends(&self.metrics))
    }
}

impl Unfinished {
    fn byte_len(&self, key: &[u8]) -> usize {
        OVERHEAD + key.len() + self.line.capacity()
    }

    /// Counts the parts as joined, and no longer as waiting.
    fn ends(self, metrics: &PieceMetrics) -> Pending {
        metrics.joined.inc_by(self.parts - 1);
        metrics.pending.dec_by(self.parts as i64);
        Pending { line: self.line, terms: self.terms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const KEY: &[u8] = b"key";
    const MAX: usize = 200;

    fn rig() -> (PendingMessages, PieceMetrics) {
        let metrics = Metrics::new().pieces();
        (PendingMessages::new(metrics.clone()), metrics)
    }

    fn at(millis: i64) -> UnixMicros {
        UnixMicros(1_000_000_000 + millis * 1000)
    }

    impl PendingMessages {
        fn begins(&self, key: &[u8], line: &[u8], millis: i64) -> Vec<Vec<u8>> {
            let first = Pending { line: line.to_vec(), terms: Terms::none() };
            let Joined { before, line } = self.change(|messages| messages.begin(key.to_vec(), first, at(millis)));
            before.into_iter().chain(line).map(|ended| ended.line).collect()
        }

        fn goes_on(&self, part: &[u8], millis: i64) -> bool {
            self.change(|messages| messages.append(KEY, (b"+", part), MAX, at(millis)))
        }

        fn overdue_at(&self, millis: i64) -> Vec<Vec<u8>> {
            self.overdue(at(millis)).into_iter().map(|ended| ended.line).collect()
        }

        fn bytes(&self) -> usize {
            self.messages.lock().bytes
        }
    }

    #[test]
    fn parts_are_joined_and_counted() {
        let (pending, metrics) = rig();
        let counts = || (metrics.joined.get(), metrics.pending.get());
        assert!(!pending.goes_on(b"b", 0));
        assert!(pending.begins(KEY, b"a", 0).is_empty());
        assert!(pending.begins(b"other", b"other", 0).is_empty());
        assert!(pending.goes_on(b"b", 1) && pending.goes_on(b"c", 1));
        assert_eq!(counts(), (0, 4));
        assert_eq!(pending.begins(KEY, b"d", 2), [b"a+b+c"]);
        assert_eq!(counts(), (2, 2));
        assert_eq!(pending.change(|messages| messages.end(KEY)).map(|ended| ended.line).as_deref(), Some(&b"d"[..]));
        assert_eq!((pending.all().len(), counts(), pending.bytes()), (1, (2, 0), 0));
        assert!(pending.is_empty() && pending.all().is_empty());
    }

    #[test]
    fn no_message_waits_for_long_or_grows_without_end() {
        let (pending, metrics) = rig();
        pending.begins(KEY, b"a", 0);
        assert!(pending.overdue_at(499).is_empty());
        assert_eq!(pending.overdue_at(500), [b"a"]);
        pending.begins(KEY, b"a", 1000);
        for millis in (1400..5900).step_by(400) {
            assert!(pending.goes_on(b"b", millis));
            assert!(pending.overdue_at(millis + 99).is_empty());
        }
        assert_eq!(pending.overdue_at(6000).len(), 1, "it has waited for 5 s in all");
        pending.begins(KEY, b"a", 7000);
        let fits = (0..40).take_while(|_| pending.goes_on(b"0123456789", 7001)).count();
        assert_eq!(fits, (MAX - 1) / 11);
        // The clock is set back by an hour.
        assert_eq!(pending.overdue_at(-3_600_000).len(), 1);
        assert_eq!((metrics.pending.get(), pending.bytes()), (0, 0));
    }

    /// The limit includes the overhead of short messages, and the capacity that growing messages allocate.
    #[test]
    fn there_is_a_limit_to_what_waits() {
        let (pending, metrics) = rig();
        let long = vec![b'x'; MAX_PENDING];
        assert_eq!(pending.begins(KEY, &long, 0), [long.as_slice()]);
        assert_eq!(metrics.pending.get(), 0);
        let waits = |n: &u64| pending.begins(&n.to_le_bytes(), b"x", 0).is_empty();
        let waiting = (0..MAX_PENDING as u64).take_while(waits).count();
        assert!((1..=MAX_PENDING / 200).contains(&waiting), "{waiting}");
        assert!(pending.bytes() > MAX_PENDING - 1000);
        let first = 0_u64.to_le_bytes();
        let part = [b'y'; 1000];
        assert!(!pending.change(|messages| messages.append(&first, (b"", &part), usize::MAX, at(0))));
        assert_eq!(pending.all().len(), waiting);
        assert_eq!(pending.bytes(), 0);
    }
}
