//! Docker cuts what a container prints in one line at 16 KiB, and says nowhere that it did (moby `daemon/logger/copier.go`).
//! Here the pieces become one line again, where that is asked for.
//!
//! A message of exactly 16,384 bytes waits for the next one with the same header and severity, for a moment: the pieces of
//! a line follow one another at once. A line that was that long and not cut waits in vain, and goes on as it came; only
//! when another line of its container follows within that moment are two lines taken for one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::metrics::PieceMetrics;
use crate::record::UnixMicros;
use crate::spool::Batch;

/// Bytes of a piece that is not the last one.
const PIECE: usize = 16 * 1024;
/// How long a piece waits for the next one.
const WAIT: Duration = Duration::from_millis(500);
/// How often the reassembler is checked for lines whose wait for the next piece is over.
pub const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Bytes of all lines that wait, and of what they are found by. When there are more, pieces stay what they are.
const MAX_WAITING: usize = 8 << 20;

/// Lines that may not be whole yet, of all listeners. Pieces of one line come in by one listener: who forges them at an open
/// one changes nothing that comes in by a guarded one.
pub struct Reassembler {
    waiting: Mutex<Waiting>,
    /// Lines that wait, for a look without the lock.
    lines: AtomicUsize,
    /// Something has begun to wait.
    begun: Notify,
    metrics: PieceMetrics,
}

#[derive(Default)]
struct Waiting {
    /// Unfinished lines by their key: the listener, and everything of a line but its stamp and its text.
    lines: HashMap<Vec<u8>, Unfinished>,
    /// Bytes of all lines and of their keys.
    bytes: usize,
}

struct Unfinished {
    line: Vec<u8>,
    /// Messages it was made of.
    messages: i64,
    /// When the last piece came.
    since: UnixMicros,
}

impl Reassembler {
    pub fn new(metrics: PieceMetrics) -> Self {
        Self { waiting: Mutex::default(), lines: AtomicUsize::new(0), begun: Notify::new(), metrics }
    }

    /// Is a message with so many bytes of text to be shown to [`Reassembler::join`]?
    #[inline]
    pub fn concerns(&self, text: usize) -> bool {
        text == PIECE || self.lines.load(Ordering::Acquire) > 0
    }

    /// A line, the last `text` bytes of it its message, becomes as whole as can be told; `None`: it waits. No line is made
    /// longer than `max` bytes. `listener`: its address.
    pub fn join(&self, listener: &str, line: Vec<u8>, text: usize, max: usize, now: UnixMicros) -> Option<Vec<u8>> {
        let Some(key) = key(listener, &line[..line.len() - text]) else { return Some(line) };
        let mut waiting = self.waiting.lock();
        let mut unfinished = match waiting.take(&key) {
            None if text != PIECE => return Some(line),
            None => Unfinished { line, messages: 1, since: now },
            Some(mut before) => {
                before.line.extend_from_slice(&line[line.len() - text..]);
                before.messages += 1;
                before
            }
        };
        let length = unfinished.line.len();
        let waits = text == PIECE && length + PIECE <= max && waiting.bytes + key.len() + length <= MAX_WAITING;
        let whole = if waits {
            unfinished.since = now;
            waiting.put(key, unfinished);
            self.metrics.pending.inc();
            None
        } else {
            // The last message has not waited.
            self.count_whole(&unfinished, unfinished.messages - 1);
            Some(unfinished.line)
        };
        if self.lines.swap(waiting.lines.len(), Ordering::AcqRel) == 0 {
            self.begun.notify_one();
        }
        whole
    }

    /// Returns when there are lines that wait.
    pub async fn wait(&self) {
        while self.lines.load(Ordering::Acquire) == 0 {
            self.begun.notified().await;
        }
    }

    /// The lines that have waited for long enough, as far as they came.
    pub fn overdue(&self, now: UnixMicros) -> Batch {
        let patience = i64::try_from(WAIT.as_micros()).unwrap_or(i64::MAX);
        // A clock that was set back would make them wait for ever.
        self.give_up(|unfinished| !(0..patience).contains(&now.0.saturating_sub(unfinished.since.0)))
    }

    /// All of them: nothing more will come.
    pub fn all(&self) -> Batch {
        self.give_up(|_| true)
    }

    fn give_up(&self, mut which: impl FnMut(&Unfinished) -> bool) -> Batch {
        let mut batch = Batch::new();
        if self.lines.load(Ordering::Acquire) == 0 {
            return batch;
        }
        let mut waiting = self.lock();
        let Waiting { lines, bytes } = &mut *waiting;
        for (key, unfinished) in lines.extract_if(|_, unfinished| which(unfinished)) {
            *bytes -= key.len() + unfinished.line.len();
            batch.push(|out| out.extend_from_slice(&unfinished.line));
            self.count_whole(&unfinished, unfinished.messages);
        }
        self.lines.store(waiting.lines.len(), Ordering::Release);
        batch
    }

    /// Counts a line's messages as joined, and those that waited as waiting no longer.
    fn count_whole(&self, unfinished: &Unfinished, waited: i64) {
        self.metrics.joined.inc_by(unfinished.messages.unsigned_abs() - 1);
        self.metrics.pending.dec_by(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }
}

impl Waiting {
    fn take(&mut self, key: &[u8]) -> Option<Unfinished> {
        let unfinished = self.lines.remove(key)?;
        self.bytes -= key.len() + unfinished.line.len();
        Some(unfinished)
    }

    fn put(&mut self, key: Vec<u8>, unfinished: Unfinished) {
        self.bytes += key.len() + unfinished.line.len();
        self.lines.insert(key, unfinished);
    }
}

/// What the pieces of a line have in common: where they came in, and all of their header but the stamp. `<PRI>1 STAMP HOST …`
fn key(listener: &str, header: &[u8]) -> Option<Vec<u8>> {
    let mut blanks = memchr::memchr_iter(b' ', header);
    let (version, stamp) = (blanks.next()?, blanks.next()?);
    Some([listener.as_bytes(), b" ", &header[..version], &header[stamp..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const MAX: usize = 64 * 1024;

    struct Rig {
        reassembler: Reassembler,
        metrics: PieceMetrics,
    }

    fn rig() -> Rig {
        let metrics = Metrics::new().pieces();
        Rig { reassembler: Reassembler::new(metrics.clone()), metrics }
    }

    fn at(millis: i64) -> UnixMicros {
        UnixMicros(1_000_000_000 + millis * 1000)
    }

    impl Rig {
        /// What comes out when a container called `name` prints `text`, cut down to the text.
        fn print(&self, name: &str, text: &[u8], millis: i64) -> Option<Vec<u8>> {
            self.print_at("tcp://[::]:514", name, text, millis)
        }

        fn print_at(&self, listener: &str, name: &str, text: &[u8], millis: i64) -> Option<Vec<u8>> {
            let mut line = Vec::new();
            let header = format!("<30>1 2026-11-20T22:27:33.{millis:06}Z node-7 {name} 2a9052a5c36e - - ");
            line.extend_from_slice(header.as_bytes());
            line.extend_from_slice(text);
            let whole = match self.reassembler.concerns(text.len()) {
                true => self.reassembler.join(listener, line, text.len(), MAX, at(millis))?,
                false => line,
            };
            Some(whole[header.len()..].to_vec())
        }

        fn numbers(&self) -> (u64, i64) {
            (self.metrics.joined.get(), self.metrics.pending.get())
        }
    }

    #[test]
    fn pieces_become_one_line() {
        let rig = rig();
        let (a, b, c) = ([b'a'; PIECE], [b'b'; PIECE], b"c");
        assert_eq!(rig.print("web", &a, 0), None);
        assert_eq!(rig.print("api", b"another container", 1), Some(b"another container".to_vec()));
        assert_eq!(rig.numbers(), (0, 1));
        assert_eq!(rig.print("web", &b, 2), None);
        assert_eq!(rig.print("web", c, 3), Some([&a[..], &b, c].concat()));
        assert_eq!(rig.numbers(), (2, 0));
        assert_eq!(rig.print("web", b"next", 4), Some(b"next".to_vec()));
        assert!(rig.reassembler.all().is_empty());
    }

    #[test]
    fn what_comes_in_elsewhere_is_no_part_of_a_line() {
        let rig = rig();
        let piece = [b'a'; PIECE];
        assert_eq!(rig.print_at("udp://[::]:514", "web", &piece, 0), None);
        assert_eq!(rig.print("web", b"whole", 1), Some(b"whole".to_vec()));
        assert_eq!(rig.print_at("udp://[::]:514", "web", b"b", 2), Some([&piece[..], b"b"].concat()));
    }

    #[test]
    fn a_line_that_was_not_cut_waits_for_a_moment() {
        let rig = rig();
        let text = [b'x'; PIECE];
        assert_eq!(rig.print("web", &text, 0), None);
        assert!(rig.reassembler.overdue(at(499)).is_empty());
        let batch = rig.reassembler.overdue(at(500));
        assert!(batch.lines().next().unwrap().ends_with(&text));
        assert_eq!((batch.line_count(), rig.numbers()), (1, (0, 0)));
        assert_eq!(rig.print("web", b"y", 501), Some(b"y".to_vec()));
        // The clock is set back by an hour.
        assert_eq!(rig.print("web", &text, 600), None);
        assert_eq!(rig.reassembler.overdue(at(-3_600_000)).line_count(), 1);
    }

    #[test]
    fn no_line_is_made_longer_than_it_may_be() {
        let rig = rig();
        let piece = [b'x'; PIECE];
        let lengths: Vec<_> = (0..8).map(|n| rig.print("web", &piece, n).map(|text| text.len() / PIECE)).collect();
        assert_eq!(lengths, [None, None, Some(3), None, None, Some(3), None, None]);
        let left = rig.reassembler.all();
        assert_eq!((left.line_count(), rig.numbers()), (1, (5, 0)));
    }

    #[test]
    fn what_waits_is_bounded() {
        let rig = rig();
        let piece = [b'x'; PIECE];
        let waiting = (0..1000).filter(|n| rig.print(&format!("web-{n}"), &piece, 0).is_none()).count();
        assert!((500..512).contains(&waiting), "{waiting}");
        assert_eq!(rig.reassembler.all().line_count(), waiting as u64);
        assert_eq!((rig.numbers(), rig.reassembler.lock().bytes), ((0, 0), 0));
        // A header is kept twice, and counts as often: in the line, and as what the line is found by.
        let name = "x".repeat(PIECE);
        let long = (0..1000).filter(|n| rig.print(&format!("{name}-{n}"), &piece, 0).is_none()).count();
        assert!((100..=MAX_WAITING / (3 * PIECE)).contains(&long), "{long}");
        assert!((7 << 20..=MAX_WAITING).contains(&rig.reassembler.lock().bytes));
    }
}
