//! The tap shows the batches that have just been written to watchers, as far as each keeps up. The writer shares its
//! batches and never waits. Without watchers it reads one flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use super::batch::Batch;

/// Bytes of batches that wait for one watcher. Beyond them a watcher misses batches.
const MAX_QUEUED: usize = 512 << 10;

/// Hands batches to watchers. Clones share the watchers.
#[derive(Clone, Default)]
pub struct Tap(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_watched: AtomicBool,
    watchers: Mutex<Vec<Watcher>>,
}

/// A watcher, as the writer sees it.
struct Watcher {
    batches: Sender<Arc<Batch>>,
    backlog: Arc<Backlog>,
}

/// The bytes that wait for a watcher, and the lines that it has missed.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    missed_lines: AtomicU64,
}

/// The receiving end of a watcher. The batches end when the watcher's [`Watching`] is dropped.
pub struct Batches {
    batches: Receiver<Arc<Batch>>,
    backlog: Arc<Backlog>,
}

/// Keeps a watcher registered. Dropping the value ends the watching.
pub struct Watching {
    tap: Tap,
    backlog: Arc<Backlog>,
}

impl Tap {
    /// Watches from now on. `None`: there are `max` watchers already.
    pub fn watch(&self, max: usize) -> Option<(Watching, Batches)> {
        let mut watchers = self.0.watchers.lock();
        if watchers.len() >= max {
            return None;
        }
        let ((sender, batches), backlog) = (channel(), Arc::<Backlog>::default());
        watchers.push(Watcher { batches: sender, backlog: backlog.clone() });
        self.0.is_watched.store(true, Ordering::Relaxed);
        Some((Watching { tap: self.clone(), backlog: backlog.clone() }, Batches { batches, backlog }))
    }

    /// Sends a batch to all watchers that have room for it.
    pub(super) fn offer(&self, batch: &Arc<Batch>) {
        if !self.0.is_watched.load(Ordering::Relaxed) {
            return;
        }
        for Watcher { batches, backlog } in self.0.watchers.lock().iter() {
            let queued = backlog.bytes.load(Ordering::Relaxed);
            // A watcher with an empty queue takes a batch of any size.
            if queued > 0 && queued + batch.byte_len() > MAX_QUEUED {
                backlog.missed_lines.fetch_add(batch.line_count(), Ordering::Relaxed);
                continue;
            }
            backlog.bytes.fetch_add(batch.byte_len(), Ordering::Relaxed);
            // An error: the watcher is leaving.
            let _ = batches.send(batch.clone());
        }
    }
}

impl Batches {
    /// Waits for the next batch. The number is how many lines the watcher has missed since the last call. `None`: the
    /// watcher has left.
    pub fn next(&self) -> Option<(Arc<Batch>, u64)> {
        let batch = self.batches.recv().ok()?;
        self.backlog.bytes.fetch_sub(batch.byte_len(), Ordering::Relaxed);
        Some((batch, self.backlog.missed_lines.swap(0, Ordering::Relaxed)))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watchers = self.tap.0.watchers.lock();
        watchers.retain(|watcher| !Arc::ptr_eq(&watcher.backlog, &self.backlog));
        self.tap.0.is_watched.store(!watchers.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(line: &[u8]) -> Arc<Batch> {
        let mut batch = Batch::new();
        batch.push(|out| out.extend_from_slice(line));
        Arc::new(batch)
    }

    #[test]
    fn a_watcher_sees_what_is_written_while_it_watches() {
        let tap = Tap::default();
        tap.offer(&batch(b"before"));
        let (watching, batches) = tap.watch(1).expect("room");
        assert!(tap.watch(1).is_none());
        tap.offer(&batch(b"now"));
        let (seen, missed) = batches.next().expect("a batch");
        assert_eq!((seen.lines().next(), missed), (Some(&b"now"[..]), 0));
        drop(watching);
        tap.offer(&batch(b"later"));
        assert!(batches.next().is_none() && tap.watch(1).is_some());
    }

    #[test]
    fn a_slow_watcher_misses_batches_and_learns_how_many_lines() {
        let tap = Tap::default();
        let (_watching, batches) = tap.watch(1).expect("room");
        let line = vec![b'x'; MAX_QUEUED / 3];
        (0..5).for_each(|_| tap.offer(&batch(&line)));
        let missed: Vec<u64> = (0..2).map(|_| batches.next().expect("a batch").1).collect();
        assert_eq!(missed, [3, 0]);
        // A watcher with an empty queue takes a batch of any size.
        tap.offer(&batch(&vec![b'y'; 2 * MAX_QUEUED]));
        assert!(batches.next().is_some());
    }
}
