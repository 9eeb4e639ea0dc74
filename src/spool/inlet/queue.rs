//! The queue to the writer's thread. Putting a batch into it and waking the thread are two steps, because a wake-up costs
//! more than a small batch: batches that come together share one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};

use super::Queued;
use crate::tasks::spawn;

/// The sending end. The writer ends when the last clone is dropped.
#[derive(Clone)]
pub(in crate::spool) struct QueueSender {
    queue: UnboundedSender<Queued>,
    /// The writer notices only when it is awake that a sender is gone. Declared last, and so dropped last.
    bell: RingsAtEnd,
}

/// A sending end that does not keep the writer from ending.
pub(in crate::spool) struct WeakQueueSender {
    queue: WeakUnboundedSender<Queued>,
    bell: Bell,
}

/// The writer's thread is gone, which happens only after a panic.
#[derive(Debug)]
pub(in crate::spool) struct WriterGone;

/// The writer's end.
pub(in crate::spool) struct QueueReceiver {
    queue: UnboundedReceiver<Queued>,
    bell: Bell,
}

/// Wakes the thread that waits, if one does. It does not keep the writer from ending.
#[derive(Clone, Default)]
struct Bell(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: OnceLock<Thread>,
    /// A task will ring.
    rings_soon: AtomicBool,
}

/// Rings when it is dropped.
#[derive(Clone)]
struct RingsAtEnd(Bell);

pub(in crate::spool) fn queue() -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = unbounded_channel();
    let bell = Bell::default();
    (QueueSender { queue: sender, bell: RingsAtEnd(bell.clone()) }, QueueReceiver { queue: receiver, bell })
}

impl QueueSender {
    /// Queues something and wakes the writer.
    pub fn send(&self, queued: Queued) -> Result<(), WriterGone> {
        self.put(queued)?;
        self.wake();
        Ok(())
    }

    /// Queues something. The caller wakes the writer soon.
    pub fn put(&self, queued: Queued) -> Result<(), WriterGone> {
        self.queue.send(queued).map_err(|_| WriterGone)
    }

    pub fn wake(&self) {
        self.bell.0.ring();
    }

    /// Wakes the writer behind the tasks that are ready now: these may put more into the queue. At the latest, the end of the
    /// runtime wakes it.
    pub fn wake_soon(&self) {
        let bell = &self.bell.0;
        if !bell.0.rings_soon.swap(true, Ordering::AcqRel) {
            let rings = RingsAtEnd(bell.clone());
            spawn(async move { drop(rings) });
        }
    }

    #[cfg(test)]
    pub fn wakes_soon(&self) -> bool {
        self.bell.0.0.rings_soon.load(Ordering::Relaxed)
    }

    pub fn downgrade(&self) -> WeakQueueSender {
        WeakQueueSender { queue: self.queue.downgrade(), bell: self.bell.0.clone() }
    }
}

impl WeakQueueSender {
    /// `None`: all senders are dropped.
    pub fn upgrade(&self) -> Option<QueueSender> {
        Some(QueueSender { queue: self.queue.upgrade()?, bell: RingsAtEnd(self.bell.clone()) })
    }
}

impl QueueReceiver {
    /// Waits for the next entry. `None`: all senders are dropped, and the queue is empty. Only one thread may call this.
    pub fn wait(&mut self) -> Option<Queued> {
        self.bell.0.waiting.get_or_init(thread::current);
        loop {
            match self.queue.try_recv() {
                Ok(queued) => return Some(queued),
                Err(TryRecvError::Disconnected) => return None,
                // An entry that comes in between has left its wake-up here, so this returns at once.
                Err(TryRecvError::Empty) => thread::park(),
            }
        }
    }

    pub fn try_recv(&mut self) -> Result<Queued, TryRecvError> {
        self.queue.try_recv()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there are senders.
    pub fn is_open(&self) -> bool {
        self.queue.sender_strong_count() > 0
    }
}

impl Bell {
    fn ring(&self) {
        // Whoever relies on this wake-up has queued something before.
        self.0.rings_soon.swap(false, Ordering::AcqRel);
        if let Some(waiting) = self.0.waiting.get() {
            waiting.unpark();
        }
    }
}

impl Drop for RingsAtEnd {
    fn drop(&mut self) {
        self.0.ring();
    }
}
