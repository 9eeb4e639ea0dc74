//! The inlet: the way into the spool that listeners hold, and its limits. What happens behind the queue is `writer`'s.
//!
//! Inputs never hold a container: a sender waits for room at most as long as its patience, and once that has run out
//! nobody waits again until there is room. Senders that can be made to wait have a room of their own, so that however
//! long they wait, the others go on.
//!
//! Senders of streams have a small room of their own too: what we do not read at once their kernel and ours hold for them,
//! so nothing is gained by reading it into a long queue. Datagrams have the rest, for there is nobody who would hold them.
//! For the same reason streams are read in turn, a few at a time: a thousand of them that all have much to say hold no more
//! memory than a few, and the forwards come to send before the next ones are read.
//!
//! The queue is bounded by the memory of the batches in it and by nothing else; it is a semaphore for each of the three
//! kinds and an unbounded channel, because a count of batches says nothing about bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::Origin;
use super::batch::Batch;
use super::fill::Fill;
use super::hysteresis::Hysteresis;
use super::ledger::MAX_STREAM;
use super::probe::Answered;
use crate::metrics::SpoolMetrics;

/// Memory of all sent batches in the queue, in KiB: of datagrams, and of streams. Each counts for at least one, so there
/// are at most as many batches.
const QUEUE_KIB: u32 = 7 << 10;
const STREAMS_KIB: u32 = 1 << 10;

/// Streams that are read at the same time, each with one batch in its hands; and as many of those that deliver.
const TURNS: usize = 4;

/// Memory of all delivered batches that are not spooled yet, in KiB: on their way to the writer or held by it.
const DELIVERY_KIB: u32 = 4 << 10;

/// How often a blocked thread looks for room. At 8 MiB in the queue it has waited for milliseconds already.
const NAP: Duration = Duration::from_millis(1);

/// Takes batches to the writer. Clones share the queue; the writer closes when the last one is dropped.
#[derive(Clone)]
pub struct Inlet {
    queue: UnboundedSender<Queued>,
    budget: Budget,
    stream_budget: Budget,
    turns: Arc<Semaphore>,
    delivery_turns: Arc<Semaphore>,
    delivery_budget: Arc<Semaphore>,
    patience: Option<Duration>,
    fill: Arc<Fill>,
    metrics: SpoolMetrics,
}

/// A stream's turn to be read. Over when it is dropped.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// What one kind of senders may have in the queue.
#[derive(Clone)]
struct Budget {
    permits: Arc<Semaphore>,
    /// All permits, in KiB.
    kib: u32,
    /// Somebody's patience has run out, and no batch got through since.
    stalled: Arc<AtomicBool>,
    trouble: Arc<Trouble>,
}

/// What is said of a writer that stands still.
#[derive(Default)]
struct Trouble {
    /// Something was said that is not taken back yet.
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
        // Every batch comes by here, and hardly ever is there anything to take back.
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
    /// The limits have changed.
    Fit,
    /// Somebody wants to know whether the spool can be written.
    Probe(watch::Sender<Answered>),
}

/// A batch that is neither dropped nor given up: its sender waits until it is spooled.
pub(super) struct Delivery {
    pub batch: Batch,
    /// Where its lines come from, if they were numbered there.
    pub origin: Option<Origin>,
    /// Tells the sender that the spool has the batch. Dropped: the spool has it not, and never will.
    pub receipt: oneshot::Sender<()>,
    /// The batch's place in the queue, until it is spooled; `None` for a batch that did not come through an inlet.
    pub _permit: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    pub fn new(batch: Batch, origin: Option<Origin>, permit: Option<OwnedSemaphorePermit>) -> (Self, Receipt) {
        let (receipt, spooled) = oneshot::channel();
        let origin = origin.filter(|origin| origin.stream.len() <= MAX_STREAM);
        (Self { batch, origin, receipt, _permit: permit }, Receipt(spooled))
    }
}

/// Resolves when the spool has a batch: as safe as the [`Sync`](super::Sync) policy promises. An error: it has not, and
/// will not, because the relay is stopping or the batch is larger than the spool. Dropping it takes the batch back if that has no origin and
/// finds no room: its sender sends it again.
pub struct Receipt(oneshot::Receiver<()>);

impl Future for Receipt {
    type Output = Result<(), NotSpooled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| NotSpooled)
    }
}

/// The sender keeps its batch: nobody here has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSpooled;

/// Why a line was refused before it came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The spool is nearly full, and the line of low severity.
    Severity,
    /// A `[[drop]]` rule matches the line.
    Rule,
    /// A `[[sample]]` rule keeps another one of the lines.
    Sample,
    /// Another line that is equal stands for it.
    Repeat,
    /// The line's container sends more than `rate-limit` allows.
    Rate,
    /// A line of our own has come back.
    Loop,
}

impl Inlet {
    /// Into a new queue, and the end that the writer takes from.
    pub(super) fn new(
        patience: Option<Duration>,
        fill: Arc<Fill>,
        metrics: SpoolMetrics,
    ) -> (Self, UnboundedReceiver<Queued>) {
        Self::with_budget(Budget::new(QUEUE_KIB), patience, fill, metrics)
    }

    fn with_budget(
        budget: Budget,
        patience: Option<Duration>,
        fill: Arc<Fill>,
        metrics: SpoolMetrics,
    ) -> (Self, UnboundedReceiver<Queued>) {
        let (queue, queued) = unbounded_channel();
        let [turns, delivery_turns] = std::array::from_fn(|_| Arc::new(Semaphore::new(TURNS)));
        let (stream_budget, delivery_budget) =
            (Budget::new(STREAMS_KIB), Arc::new(Semaphore::new(DELIVERY_KIB as usize)));
        (Self { queue, budget, stream_budget, turns, delivery_turns, delivery_budget, patience, fill, metrics }, queued)
    }

    /// Tells the writer that the limits have changed: what is above them is given up at once, and not with the next line.
    pub fn fit(&self) {
        // A writer that has ended gives nothing up any more.
        let _ = self.queue.send(Queued::Fit);
    }

    /// The queue, for whoever has a question for the writer and must not keep it from ending.
    pub(super) fn weak_queue(&self) -> WeakUnboundedSender<Queued> {
        self.queue.downgrade()
    }

    /// The same inlet for senders of streams.
    pub fn of_streams(&self) -> Self {
        Self { budget: self.stream_budget.clone(), ..self.clone() }
    }

    /// This inlet for senders that wait for an answer: a turn of theirs may last as long as the spool is full.
    pub fn of_waiting_senders(&self) -> Self {
        Self { turns: self.delivery_turns.clone(), ..self.clone() }
    }

    /// Waits for a stream's turn to be read. `None` never comes: the turns are not closed.
    pub fn turn(&self) -> impl Future<Output = Option<Turn>> + use<> {
        let turns = self.turns.clone();
        async move { Some(Turn { _permit: turns.acquire_owned().await.ok()? }) }
    }

    /// The turn, if it comes at once: nobody waits for one.
    pub fn try_turn(&self) -> Option<Turn> {
        Some(Turn { _permit: self.turns.clone().try_acquire_owned().ok()? })
    }

    /// How long a sender waits for room at most; `None`: as long as it takes.
    pub fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// The same inlet for a sender with another patience; `None` waits as long as it takes, for inputs that can make
    /// their sender wait.
    pub fn with_patience(&self, patience: Option<Duration>) -> Self {
        Self { patience, ..self.clone() }
    }

    /// A line was refused before it came here.
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

    /// How full the spool is, in percent.
    pub fn fullness(&self) -> u8 {
        self.fill.percent()
    }

    /// Hands `batch` to the writer. Waits for room no longer than this inlet's patience; then the batch is dropped and
    /// counted, and so is every one after it that finds no room at once, until one gets through.
    ///
    /// A future dropped while it waits takes its batch along, uncounted. Needs a runtime with its timer enabled.
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
        self.pass(batch, permit);
    }

    /// [`send`](Self::send) for a thread of its own. Never call it from an async task.
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
    }

    /// Hands `batch` to the writer and does not give up: for senders that can be made to wait. They may forget the batch
    /// when the receipt says so, and only then. Nothing is evicted or dropped for it; while it finds no room it waits, and
    /// all that is delivered later waits behind it.
    ///
    /// Lines of `origin` that are here already are left out (counted as dropped, `repeated`). A stream's name of more than
    /// 128 bytes is no origin.
    ///
    /// Waits for room in the queue. A future dropped while it waits takes its batch along.
    pub async fn deliver(&self, mut batch: Batch, origin: Option<Origin>) -> Receipt {
        let cost = cost(&mut batch, DELIVERY_KIB);
        let permit = self.delivery_budget.clone().acquire_many_owned(cost).await.ok();
        let (delivery, receipt) = Delivery::new(batch, origin, permit);
        // A writer that is gone drops the delivery, which says that nothing was spooled.
        let _ = self.queue.send(Queued::Delivered(delivery));
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
        if self.queue.send(Queued::Sent { batch, permit }).is_err() {
            // The writer's thread is gone, which only a panic can do.
            self.metrics.dropped_error.inc_by(lines);
        }
    }
}

/// What a batch takes of a room of `all` KiB, after giving back memory it does not use. A larger one takes all.
fn cost(batch: &mut Batch, all: u32) -> u32 {
    batch.shrink();
    u32::try_from(batch.capacity().div_ceil(1024)).unwrap_or(all).clamp(1, all)
}

#[cfg(test)]
mod tests;
