//! The inlet: the queue from the listeners to the writer, and its limits. `writer` handles everything behind the queue.
//!
//! A full queue never blocks a container for long: a sender waits for room at most as long as its patience. Once one
//! sender's patience has run out, no sender waits again until there is room. Senders that can be made to wait
//! (backpressure) have a budget of their own, so that however long they wait, the others go on.
//!
//! Stream senders have a small budget of their own too. The kernels of both sides buffer the bytes that the relay does
//! not read yet, so a long queue for them would gain nothing. Datagrams have the rest, because nothing else buffers
//! them. For the same reason, only a few streams are read at the same time: a thousand busy streams need no more memory
//! than a few, and the forwards get to send before the next streams are read.
//!
//! The queue is bounded only by the memory of its batches: a semaphore for each of the three kinds of senders, and an
//! unbounded channel. A limit on the number of batches would not limit their bytes.

mod queue;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::Origin;
use super::batch::Batch;
use super::fill::Fill;
use super::hysteresis::Hysteresis;
use super::ledger::MAX_STREAM;
use super::probe::Answered;
use crate::coalescing::Coalescing;
use crate::metrics::SpoolMetrics;
pub(super) use queue::{QueueReceiver, WeakQueueSender};
use queue::{QueueSender, queue};

/// The memory of all sent batches in the queue, in KiB: of datagrams, and of streams. A batch counts as 1 KiB at least,
/// which also limits the number of batches.
const QUEUE_KIB: u32 = 7 << 10;
const STREAMS_KIB: u32 = 1 << 10;

/// Streams that are read at the same time, each with one batch. As many again for streams whose lines are delivered.
const TURNS: usize = 4;

/// The memory of all delivered batches that are not spooled yet, in KiB: in the queue, or held by the writer.
const DELIVERY_KIB: u32 = 4 << 10;

/// A batch of this many bytes wakes the writer at once. A smaller one waits for others until the runtime has done what is
/// ready.
const WAKE_AT_ONCE: usize = 16 << 10;

/// How often a blocked thread checks for room. With 8 MiB in the queue it has waited for milliseconds already.
const NAP: Duration = Duration::from_millis(1);

/// The sending end of the queue to the writer. Clones share the queue; the writer ends when the last clone is dropped.
#[derive(Clone)]
pub struct Inlet {
    queue: QueueSender,
    budget: Budget,
    stream_budget: Budget,
    turns: Arc<Semaphore>,
    delivery_turns: Arc<Semaphore>,
    delivery_budget: Arc<Semaphore>,
    patience: Option<Duration>,
    fill: Arc<Fill>,
    metrics: SpoolMetrics,
    coalescing: Coalescing,
}

/// A stream's turn to be read. Dropping it ends the turn.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// The budget of one kind of senders in the queue.
#[derive(Clone)]
struct Budget {
    permits: Arc<Semaphore>,
    /// All permits, in KiB.
    kib: u32,
    /// A sender's patience has run out, and no batch has got through since.
    stalled: Arc<AtomicBool>,
    trouble: Arc<Trouble>,
}

/// The log's state about a writer that stands still.
#[derive(Default)]
struct Trouble {
    /// The log has an error, and not yet its end.
    said: AtomicBool,
    episode: Mutex<Hysteresis>,
}

impl Trouble {
    fn begins(&self) -> bool {
        let mut episode = self.episode.lock();
        self.said.store(true, Ordering::Relaxed);
        episode.begins()
    }

    fn ends(&self) -> bool {
        // This runs for every batch, and there is hardly ever trouble to end: it must not take the lock.
        if !self.said.load(Ordering::Relaxed) {
            return false;
        }
        let mut episode = self.episode.lock();
        let ends = episode.ends();
        if ends {
            self.said.store(false, Ordering::Relaxed);
        }
        ends
    }
}

impl Budget {
    fn new(kib: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(kib as usize)), kib, stalled: Arc::default(), trouble: Arc::default() }
    }
}

/// A batch on its way to the writer.
pub(super) enum Queued {
    Sent {
        batch: Batch,
        permit: OwnedSemaphorePermit,
    },
    Delivered(Delivery),
    /// The limits have changed, and the spool must fit them.
    Fit,
    /// Asks whether the spool can be written.
    Probe(watch::Sender<Answered>),
}

/// A batch that waits for room instead of being dropped. Its sender waits until it is spooled.
pub(super) struct Delivery {
    pub batch: Batch,
    /// The numbers of its lines in another relay, if they have any.
    pub origin: Option<Origin>,
    /// Tells the sender that the batch is spooled. Dropping it tells the sender that it is not, and will not be.
    pub receipt: oneshot::Sender<()>,
    /// The batch's share of the budget, until it is spooled; `None` for a batch that did not come through an inlet.
    pub _permit: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    pub fn new(batch: Batch, origin: Option<Origin>, permit: Option<OwnedSemaphorePermit>) -> (Self, Receipt) {
        let (receipt, spooled) = oneshot::channel();
        let origin = origin.filter(|origin| origin.stream.len() <= MAX_STREAM);
        (Self { batch, origin, receipt, _permit: permit }, Receipt(spooled))
    }
}

/// Resolves when the batch is spooled, as safely as the [`Sync`](super::Sync) policy promises. An error: the batch is
/// not spooled, and will not be, because the relay is stopping or the batch is larger than the spool. Dropping the
/// receipt withdraws the batch if it has no origin and finds no room; its sender sends it again.
pub struct Receipt(oneshot::Receiver<()>);

impl Future for Receipt {
    type Output = Result<(), NotSpooled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| NotSpooled)
    }
}

/// The batch is not spooled: its sender must keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSpooled;

/// Why a listener has refused a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The spool is nearly full, and the line's severity is low.
    Severity,
    /// A `[[drop]]` rule matches the line.
    Rule,
    /// A `[[sample]]` rule keeps only some of the lines, and not this one.
    Sample,
    /// The line repeats an equal one, which stands for it.
    Repeat,
    /// The line's container sends more than `rate-limit` allows.
    Rate,
    /// The line is the relay's own and has come back: a loop.
    Loop,
}

impl Inlet {
    /// A new queue: the inlet, and the receiving end for the writer.
    pub(super) fn new(patience: Option<Duration>, fill: Arc<Fill>, metrics: SpoolMetrics) -> (Self, QueueReceiver) {
        Self::with_budget(Budget::new(QUEUE_KIB), patience, fill, metrics)
    }

    fn with_budget(
        budget: Budget,
        patience: Option<Duration>,
        fill: Arc<Fill>,
        metrics: SpoolMetrics,
    ) -> (Self, QueueReceiver) {
        let (queue, queued) = queue();
        let [turns, delivery_turns] = std::array::from_fn(|_| Arc::new(Semaphore::new(TURNS)));
        let (stream_budget, delivery_budget) =
            (Budget::new(STREAMS_KIB), Arc::new(Semaphore::new(DELIVERY_KIB as usize)));
        let inlet = Self {
            queue,
            budget,
            stream_budget,
            turns,
            delivery_turns,
            delivery_budget,
            patience,
            fill,
            metrics,
            coalescing: Coalescing::default(),
        };
        (inlet, queued)
    }

    /// This inlet with a shared decision about gathering messages.
    pub(super) fn with_coalescing(self, coalescing: Coalescing) -> Self {
        Self { coalescing, ..self }
    }

    /// Tells the writer that the limits have changed. It gives up lines above them at once, and not only with the next
    /// line.
    pub fn fit(&self) {
        // An error: the writer has ended and gives nothing up any more.
        let _ = self.queue.send(Queued::Fit);
    }

    /// The queue, for a prober that must not keep the writer from ending.
    pub(super) fn weak_queue(&self) -> WeakQueueSender {
        self.queue.downgrade()
    }

    /// This inlet for stream senders.
    pub fn of_streams(&self) -> Self {
        Self { budget: self.stream_budget.clone(), ..self.clone() }
    }

    /// This inlet for senders that wait for an answer. Their turn may last as long as the spool is full, so they have
    /// turns of their own.
    pub fn of_waiting_senders(&self) -> Self {
        Self { turns: self.delivery_turns.clone(), ..self.clone() }
    }

    /// Waits for a stream's turn to be read. `None` never happens: the semaphore is not closed.
    pub fn turn(&self) -> impl Future<Output = Option<Turn>> + use<> {
        let turns = self.turns.clone();
        async move { Some(Turn { _permit: turns.acquire_owned().await.ok()? }) }
    }

    /// A turn, if one is free now.
    pub fn try_turn(&self) -> Option<Turn> {
        Some(Turn { _permit: self.turns.clone().try_acquire_owned().ok()? })
    }

    /// How long a sender waits for room at most; `None`: without limit.
    pub fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// This inlet with another patience. `None` waits without limit, for inputs that can make their senders wait.
    pub fn with_patience(&self, patience: Option<Duration>) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Counts a line that a listener has refused.
    pub fn count_refused(&self, why: Refused) {
        let counter = match why {
            Refused::Severity => &self.metrics.dropped_severity,
            Refused::Rule => &self.metrics.dropped_rule,
            Refused::Sample => &self.metrics.dropped_sample,
            Refused::Repeat => &self.metrics.dropped_repeat,
            Refused::Rate => &self.metrics.dropped_rate,
            Refused::Loop => &self.metrics.dropped_loop,
        };
        counter.inc();
    }

    /// How the runtime and threads of datagrams gather messages.
    pub fn coalescing(&self) -> &Coalescing {
        &self.coalescing
    }

    /// How full the spool is, in percent.
    pub fn fullness(&self) -> u8 {
        self.fill.percent()
    }

    /// Queues `batch` for the writer. Waits for room no longer than this inlet's patience; then the batch is dropped
    /// and counted. After that, every batch that finds no room at once is dropped as well, until one gets through.
    ///
    /// Dropping the future while it waits drops the batch, uncounted. Needs a runtime with its timer enabled.
    pub async fn send(&self, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let cost = cost(&mut batch, self.budget.kib);
        let permit = match (self.try_acquire(cost), self.patience) {
            (Some(permit), _) => Some(permit),
            (None, None) => self.budget.permits.clone().acquire_many_owned(cost).await.ok(),
            (None, Some(_)) if self.budget.stalled.load(Ordering::Relaxed) => None,
            (None, Some(patience)) => {
                timeout(patience, self.budget.permits.clone().acquire_many_owned(cost)).await.ok().and_then(Result::ok)
            }
        };
        let (bytes, lines) = (batch.byte_len(), batch.line_count());
        self.coalescing.note_batch(lines, bytes);
        self.pass(batch, permit);
        self.wake_for(bytes);
    }

    /// [`send`](Self::send) for a thread. Never call it from an async task.
    pub fn send_blocking(&self, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let cost = cost(&mut batch, self.budget.kib);
        let mut permit = self.try_acquire(cost);
        if permit.is_none() && (self.patience.is_none() || !self.budget.stalled.load(Ordering::Relaxed)) {
            let since = Instant::now();
            while permit.is_none() && self.patience.is_none_or(|patience| since.elapsed() < patience) {
                thread::sleep(NAP);
                permit = self.try_acquire(cost);
            }
        }
        self.pass(batch, permit);
        self.queue.wake();
    }

    /// Wakes the writer for a batch of so many bytes in the queue.
    fn wake_for(&self, bytes: usize) {
        match bytes >= WAKE_AT_ONCE {
            true => self.queue.wake(),
            false => self.queue.wake_soon(),
        }
    }

    /// Queues `batch` for the writer and does not give up, for senders that can be made to wait. They may forget the
    /// batch only when the receipt says that it is spooled. Nothing is evicted or dropped to make room for it. While it
    /// finds no room, the batch waits, and all later deliveries wait behind it.
    ///
    /// Lines of `origin` that the spool has already are left out and counted as dropped (`repeated`). A stream name of
    /// more than 128 bytes counts as no origin.
    ///
    /// Waits for room in the queue. Dropping the future while it waits drops the batch.
    ///
    /// The runtime does not sleep for these batches, because a sender that waits for its answer would send less. See
    /// [`Coalescing::note_pipelined`].
    pub async fn deliver(&self, mut batch: Batch, origin: Option<Origin>) -> Receipt {
        let cost = cost(&mut batch, DELIVERY_KIB);
        let permit = self.delivery_budget.clone().acquire_many_owned(cost).await.ok();
        let (delivery, receipt) = Delivery::new(batch, origin, permit);
        let bytes = delivery.batch.byte_len();
        // If the writer is gone, the delivery is dropped, and the receipt reports that nothing was spooled.
        let _ = self.queue.put(Queued::Delivered(delivery));
        self.wake_for(bytes);
        receipt
    }

    fn try_acquire(&self, cost: u32) -> Option<OwnedSemaphorePermit> {
        self.budget.permits.clone().try_acquire_many_owned(cost).ok()
    }

    fn pass(&self, batch: Batch, permit: Option<OwnedSemaphorePermit>) {
        let Some(permit) = permit else {
            self.metrics.dropped_stalled.inc_by(batch.line_count());
            self.budget.stalled.store(true, Ordering::Relaxed);
            if self.budget.trouble.begins() {
                tracing::error!(
                    "spool: the writer has stalled for too long; lines are dropped and counted until it goes on. \
                     Is the disk hanging, or `max-rate` too low?"
                );
            }
            return;
        };
        self.budget.stalled.store(false, Ordering::Relaxed);
        if self.budget.trouble.ends() {
            tracing::info!("spool: the writer goes on");
        }
        let lines = batch.line_count();
        if self.queue.put(Queued::Sent { batch, permit }).is_err() {
            // The writer's thread is gone, which happens only after a panic.
            self.metrics.dropped_error.inc_by(lines);
        }
    }
}

/// The cost of a batch in a budget of `all` KiB, after freeing memory that it does not use. A larger batch takes all of
/// it.
fn cost(batch: &mut Batch, all: u32) -> u32 {
    batch.shrink();
    u32::try_from(batch.capacity().div_ceil(1024)).unwrap_or(all).clamp(1, all)
}

#[cfg(test)]
mod tests;
