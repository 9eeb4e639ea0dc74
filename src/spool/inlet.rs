//! The inlet: the way into the spool that listeners hold, and its limits. What happens behind the queue is `writer`'s.
//!
//! Inputs never hold a container: a sender waits for room at most as long as its patience, and once that has run out
//! nobody waits again until there is room. The queue is bounded by the memory of the batches in it and by nothing else;
//! it is a semaphore and an unbounded channel, because a count of batches says nothing about bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::Origin;
use super::record::Batch;
use crate::metrics::SpoolMetrics;

/// How long a listener waits for room in the queue unless told otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

/// Memory of all batches in the queue, in KiB. Each counts for at least one, so there are at most as many batches.
pub(super) const QUEUE_KIB: u32 = 8 << 10;

/// How often a blocked thread looks for room. At 8 MiB in the queue it has waited for milliseconds already.
const NAP: Duration = Duration::from_millis(1);

/// Takes batches to the writer. Clones share the queue; the writer closes when the last one is dropped.
#[derive(Clone)]
pub struct Inlet {
    pub(super) queue: UnboundedSender<Queued>,
    pub(super) room: Arc<Semaphore>,
    pub(super) patience: Option<Duration>,
    /// Somebody's patience has run out, and no batch got through since.
    pub(super) stalled: Arc<AtomicBool>,
    pub(super) metrics: SpoolMetrics,
}

/// A batch on its way to the writer.
pub(super) struct Queued {
    pub batch: Batch,
    /// Where its lines come from, if they were numbered there.
    pub origin: Option<Origin>,
    /// Whom to tell that the spool has it.
    pub receipt: Option<oneshot::Sender<()>>,
    pub permit: OwnedSemaphorePermit,
}

/// Resolves when the spool has a batch: as safe as the [`Sync`](super::Sync) policy promises. An error: it has not, and
/// will not, because the relay is stopping or the disk refuses it.
pub struct Receipt(oneshot::Receiver<()>);

impl Receipt {
    pub async fn spooled(self) -> Result<(), NotSpooled> {
        self.0.await.map_err(|_| NotSpooled)
    }
}

/// The sender keeps its batch: nobody here has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSpooled;

impl Inlet {
    /// The same inlet for a sender with another patience; `None` waits as long as it takes, for inputs that can make
    /// their sender wait.
    pub fn with_patience(&self, patience: Option<Duration>) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Hands `batch` to the writer. Waits for room no longer than this inlet's patience; then the batch is dropped and
    /// counted, and so is every one after it that finds no room at once, until one gets through.
    ///
    /// A future dropped while it waits takes its batch along, uncounted. Needs a runtime with its timer enabled.
    pub async fn send(&self, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let cost = cost(&mut batch);
        let permit = match (self.try_room(cost), self.patience) {
            (Some(permit), _) => Some(permit),
            (None, None) => self.room.clone().acquire_many_owned(cost).await.ok(),
            (None, Some(_)) if self.stalled.load(Ordering::Relaxed) => None,
            (None, Some(patience)) => {
                timeout(patience, self.room.clone().acquire_many_owned(cost)).await.ok().and_then(Result::ok)
            }
        };
        self.pass(batch, permit);
    }

    /// The same for a thread of its own. Never call it from an async task.
    pub fn send_blocking(&self, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let cost = cost(&mut batch);
        let mut permit = self.try_room(cost);
        if permit.is_none() && (self.patience.is_none() || !self.stalled.load(Ordering::Relaxed)) {
            let since = Instant::now();
            while permit.is_none() && self.patience.is_none_or(|patience| since.elapsed() < patience) {
                thread::sleep(NAP);
                permit = self.try_room(cost);
            }
        }
        self.pass(batch, permit);
    }

    /// Hands `batch` to the writer and does not give up: for senders that can be made to wait. They may forget the batch
    /// when the receipt says so, and only then.
    pub async fn deliver(&self, mut batch: Batch, origin: Option<Origin>) -> Receipt {
        let (receipt, spooled) = oneshot::channel();
        let cost = cost(&mut batch);
        if let Ok(permit) = self.room.clone().acquire_many_owned(cost).await {
            // A writer that is gone drops the receipt, which says that nothing was spooled.
            let _ = self.queue.send(Queued { batch, origin, receipt: Some(receipt), permit });
        }
        Receipt(spooled)
    }

    fn try_room(&self, cost: u32) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_many_owned(cost).ok()
    }

    fn pass(&self, batch: Batch, permit: Option<OwnedSemaphorePermit>) {
        let Some(permit) = permit else {
            self.metrics.dropped_stalled.inc_by(batch.line_count());
            if !self.stalled.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    "spool: the writer has stood still for too long; lines are dropped and counted until it goes on. \
                     Is the disk hanging?"
                );
            }
            return;
        };
        if self.stalled.swap(false, Ordering::Relaxed) {
            tracing::info!("spool: the writer goes on");
        }
        if let Err(refused) = self.queue.send(Queued { batch, origin: None, receipt: None, permit }) {
            // The writer's thread is gone, which only a panic can do.
            self.metrics.dropped_error.inc_by(refused.0.batch.line_count());
        }
    }
}

/// What a batch takes of the queue, after giving back memory it does not use. A batch larger than the queue takes all.
fn cost(batch: &mut Batch) -> u32 {
    batch.shrink();
    u32::try_from(batch.capacity().div_ceil(1024)).unwrap_or(QUEUE_KIB).clamp(1, QUEUE_KIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::spool::{Options, Reader, Spool};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn batch(lines: usize) -> Batch {
        let mut batch = Batch::new();
        (0..lines).for_each(|n| batch.push(|out| out.extend_from_slice(format!("line {n}").as_bytes())));
        batch
    }

    /// An inlet whose writer takes nothing until told to, with room for `kib`.
    fn stuck(kib: usize) -> (Inlet, UnboundedReceiver<Queued>) {
        let (queue, queued) = unbounded_channel();
        let inlet = Inlet {
            queue,
            room: Arc::new(Semaphore::new(kib)),
            patience: Some(Duration::from_millis(1)),
            stalled: Arc::default(),
            metrics: Metrics::new().spool(),
        };
        (inlet, queued)
    }

    #[test]
    fn a_stalled_writer_holds_a_thread_no_longer_than_its_patience() {
        let (mut inlet, mut queued) = stuck(2);
        for _ in 0..5 {
            inlet.send_blocking(batch(3));
        }
        assert_eq!(inlet.metrics.dropped_stalled.get(), 9);
        // Stalled: from now on nobody waits, or this would take a year.
        inlet.patience = Some(Duration::from_secs(3 << 24));
        inlet.send_blocking(batch(1));
        assert_eq!(inlet.metrics.dropped_stalled.get(), 10);
        drop(queued.try_recv().unwrap());
        inlet.send_blocking(batch(1));
        assert!(!inlet.stalled.load(Ordering::Relaxed));
        assert_eq!(inlet.metrics.dropped_stalled.get(), 10);
    }

    #[tokio::test]
    async fn a_stalled_writer_holds_a_task_no_longer_than_its_patience() {
        let (mut inlet, mut queued) = stuck(2);
        for _ in 0..5 {
            inlet.send(batch(3)).await;
        }
        assert_eq!(inlet.metrics.dropped_stalled.get(), 9);
        inlet.patience = Some(Duration::from_secs(3 << 24));
        inlet.send(batch(1)).await;
        assert_eq!(inlet.metrics.dropped_stalled.get(), 10);

        // Who has all the time in the world gets its batch through.
        let endless = inlet.with_patience(None);
        let waiting = tokio::spawn(async move { endless.send(batch(7)).await });
        drop(queued.recv().await.unwrap());
        waiting.await.unwrap();
        inlet.send(Batch::new()).await;
        assert_eq!(queued.recv().await.unwrap().batch.line_count(), 3);
        assert_eq!(queued.recv().await.unwrap().batch.line_count(), 7);
        assert!(queued.try_recv().is_err(), "an empty batch was queued");
        assert_eq!(inlet.metrics.dropped_stalled.get(), 10);
    }

    #[test]
    fn the_queue_is_bounded_by_memory_and_not_by_lines() {
        let (inlet, queued) = stuck(QUEUE_KIB as usize);
        for _ in 0..1000 {
            let mut batch = Batch::with_capacity(256 << 10);
            batch.push(|out| out.extend_from_slice(b"one line in a large buffer"));
            inlet.send_blocking(batch);
        }
        assert_eq!(queued.len(), 1000, "memory that is not used was not given back");
        let mut huge = Batch::new();
        (0..9).for_each(|_| huge.push(|out| out.resize(out.len() + (1 << 20), b'x')));
        inlet.send_blocking(huge.clone());
        assert_eq!(inlet.metrics.dropped_stalled.get(), 9);
        let (inlet, _queued) = stuck(QUEUE_KIB as usize);
        inlet.send_blocking(huge);
        assert_eq!(inlet.metrics.dropped_stalled.get(), 0, "larger than the queue, but alone in it");
    }

    async fn read_to_the_end(mut reader: Reader) -> u64 {
        let mut lines = 0;
        while reader.wait().await {
            while let Some(chunk) = reader.next(1 << 10).unwrap() {
                lines += chunk.batch.line_count();
                reader.retire(chunk.end);
            }
        }
        assert_eq!(reader.waiting(), 0);
        lines
    }

    #[tokio::test]
    async fn shutdown_walks_the_way_a_message_walks() {
        for sync in [super::super::Sync::Always, super::super::Sync::Every(NAP), super::super::Sync::Never] {
            let dir = tempfile::tempdir().unwrap();
            let metrics = Metrics::new();
            let options = Options { sync, ..Options::new(dir.path(), 64 << 20, vec!["a".into(), "b".into()]) };
            let Spool { writer, mut readers, .. } = Spool::open(options, &metrics).unwrap();
            let (inlet, thread) = writer.spawn(None).unwrap();
            let (b, a) = (readers.pop().unwrap(), readers.pop().unwrap());
            let (a, b) = (tokio::spawn(read_to_the_end(a)), tokio::spawn(read_to_the_end(b)));

            let other = inlet.with_patience(Some(DEFAULT_PATIENCE));
            let sender = thread::spawn(move || (0..200).for_each(|_| other.send_blocking(batch(10))));
            for _ in 0..200 {
                inlet.send(batch(10)).await;
            }
            drop(inlet);
            assert_eq!((a.await.unwrap(), b.await.unwrap()), (4000, 4000));
            sender.join().unwrap();
            thread.join().unwrap();
            assert_eq!((metrics.spool().spooled.get(), metrics.spool().errors.get()), (4000, 0));
        }
    }
}
