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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

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
    pub(super) queue: UnboundedSender<(Batch, OwnedSemaphorePermit)>,
    pub(super) room: Arc<Semaphore>,
    pub(super) patience: Option<Duration>,
    /// Somebody's patience has run out, and no batch got through since.
    pub(super) stalled: Arc<AtomicBool>,
    pub(super) metrics: SpoolMetrics,
}

impl Inlet {
    /// The same inlet for a sender with another patience; `None` waits as long as it takes, for inputs that can make
    /// their sender wait.
    pub fn with_patience(&self, patience: Option<Duration>) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Hands `batch` to the writer. Waits for room no longer than this inlet's patience; then the batch is dropped and
    /// counted, and so is every one after it that finds no room at once, until one gets through.
    ///
    /// A future dropped while it waits takes its batch along, uncounted.
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
        if let Err(refused) = self.queue.send((batch, permit)) {
            // The writer's thread is gone, which only a panic can do.
            self.metrics.dropped_error.inc_by(refused.0.0.line_count());
        }
    }
}

/// What a batch takes of the queue, after giving back memory it does not use. A batch larger than the queue takes all.
fn cost(batch: &mut Batch) -> u32 {
    batch.shrink();
    u32::try_from(batch.capacity().div_ceil(1024)).unwrap_or(QUEUE_KIB).clamp(1, QUEUE_KIB)
}
