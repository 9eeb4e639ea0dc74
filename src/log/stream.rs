//! The stream of log entries into the relay's own spool, as messages of `logferry`. It delays nothing and cannot feed itself:
//!
//! - Logging never waits. The stream takes a limited number of messages a minute and queues a limited number; it drops and counts the
//!   rest. When the delivery of a message causes further messages, the limit holds for those too.
//! - The spool gives up no line for log messages. When it is full or its disk is broken, log messages wait in it as the messages of
//!   other relays do, and the queue here fills.
//! - Dropped messages are reported to the collector as any other loss is (see `losses`).

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::entry::Entry;
use crate::metrics::{ListenMetrics, LogMetrics};
use crate::spool::{Batch, Inlet};

/// Messages that are taken in a minute. A relay logs about ten when it starts, and few later.
const MAX_A_MINUTE: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);
/// Messages that may wait for the spool.
const MAX_QUEUED: usize = 32;
/// Messages that are delivered to the spool together. So many more may wait in the spool's queue.
const MAX_BATCH: usize = 16;
/// How long the spool may take for the last messages when the relay stops.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The sending end. It neither waits nor fails.
pub struct StreamSender {
    queue: mpsc::Sender<Entry>,
    rate_limit: Mutex<RateLimit>,
    metrics: LogMetrics,
}

/// The receiving end.
pub struct Stream {
    queue: mpsc::Receiver<Entry>,
    /// Entries that have left the queue and are not in the spool yet.
    taken: Vec<Entry>,
}

pub fn new(metrics: LogMetrics) -> (StreamSender, Stream) {
    let (sender, queue) = mpsc::channel(MAX_QUEUED);
    let rate_limit = Mutex::new(RateLimit { since: Instant::now(), taken: 0 });
    (StreamSender { queue: sender, rate_limit, metrics }, Stream { queue, taken: Vec::new() })
}

impl StreamSender {
    pub fn take(&self, entry: &Entry) {
        if !self.rate_limit.lock().allows(Instant::now()) {
            self.metrics.dropped_rate.inc();
            return;
        }
        // A closed queue is no loss: the relay has stopped, and its last messages are on stderr alone.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(entry.clone()) {
            self.metrics.dropped_full.inc();
        }
    }
}

/// How many messages were taken since a moment.
struct RateLimit {
    since: Instant,
    taken: u32,
}

impl RateLimit {
    fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= MINUTE {
            *self = Self { since: now, taken: 0 };
        }
        if self.taken == MAX_A_MINUTE {
            return false;
        }
        self.taken += 1;
        true
    }
}

impl Stream {
    /// Delivers messages to the spool until the sender of `hostname` is dropped, and then those that are left. `own` counts the messages
    /// as received, so that the books balance.
    pub async fn run(mut self, mut hostname: watch::Receiver<String>, inlet: Inlet, own: ListenMetrics) {
        loop {
            let name = hostname.clone();
            tokio::select! {
                () = self.carry(name, &inlet, &own) => {}
                () = gone(&mut hostname) => break,
            }
        }
        self.queue.close();
        while let Ok(message) = self.queue.try_recv() {
            self.taken.push(message);
        }
        let name = hostname.borrow().clone();
        // The writer writes it together with all other queued batches, if there is room.
        let _ = timeout(FLUSH_WITHIN, self.hand_over(&name, &inlet, &own)).await;
    }

    /// Delivers the next messages, and waits until the spool has them.
    async fn carry(&mut self, hostname: watch::Receiver<String>, inlet: &Inlet, own: &ListenMetrics) {
        if self.taken.is_empty() && self.queue.recv_many(&mut self.taken, MAX_BATCH).await == 0 {
            // The log has ended.
            std::future::pending::<()>().await;
        }
        let hostname = hostname.borrow().clone();
        if let Some(receipt) = self.hand_over(&hostname, inlet, own).await {
            // The next entries wait in the queue meanwhile.
            let _ = receipt.await;
        }
    }

    /// Delivers the taken entries. When the future is dropped early, the next call delivers them.
    async fn hand_over(&mut self, hostname: &str, inlet: &Inlet, own: &ListenMetrics) -> Option<crate::spool::Receipt> {
        let mut batch = Batch::new();
        for entry in &self.taken {
            batch.push(|out| out.extend_from_slice(entry.syslog(hostname).as_bytes()));
        }
        if batch.is_empty() {
            return None;
        }
        let lines = batch.line_count();
        let receipt = inlet.deliver(batch, None).await;
        own.received.inc_by(lines);
        self.taken.clear();
        Some(receipt)
    }
}

/// Waits until the sender is dropped.
async fn gone<T>(from: &mut watch::Receiver<T>) {
    while from.changed().await.is_ok() {}
}

#[cfg(test)]
impl Stream {
    /// The next entry, if one waits.
    pub fn taken(&mut self) -> Option<Entry> {
        self.queue.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::spool::{Options, Spool};

    #[test]
    fn so_many_are_taken_in_a_minute() {
        let start = Instant::now();
        let mut rate_limit = RateLimit { since: start, taken: 0 };
        for minute in 0..3 {
            let taken =
                (0..1000).filter(|n| rate_limit.allows(start + MINUTE * minute + Duration::from_millis(*n))).count();
            assert_eq!(taken, MAX_A_MINUTE as usize);
        }
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_spooled() {
        let (dir, metrics) = (tempfile::TempDir::new().unwrap(), Metrics::new());
        let spool = Spool::open(Options::new(dir.path(), 1 << 20, Vec::new()), &metrics).unwrap();
        let (inlet, thread) = spool.writer.spawn(None).unwrap();
        let (sender, stream) = new(metrics.log());
        (0..MAX_QUEUED).for_each(|_| sender.take(&Entry::error("again")));
        let (hostname, hostnames) = watch::channel("node-7".to_owned());
        drop(hostname);
        stream.run(hostnames, inlet, metrics.listener("logferry")).await;
        thread.join().unwrap();
        assert_eq!(metrics.spool().spooled.get(), MAX_QUEUED as u64);
        assert_eq!(metrics.listener("logferry").received.get(), MAX_QUEUED as u64);
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
        let metrics = Metrics::new().log();
        let (sender, stream) = new(metrics.clone());
        (0..1000).for_each(|_| sender.take(&Entry::error("again")));
        assert_eq!(metrics.dropped_full.get(), u64::from(MAX_A_MINUTE) - MAX_QUEUED as u64);
        assert_eq!(metrics.dropped_rate.get(), 1000 - u64::from(MAX_A_MINUTE));
        drop(stream);
        sender.take(&Entry::error("too late"));
    }
}
