//! The way of what the relay says into its own spool, as messages of `logferry`. It holds nothing and it breeds nothing:
//!
//! - Whoever says something never waits. So many messages a minute are taken, and so many wait; the rest is dropped and
//!   counted. Whatever carrying a message may make the relay say, in a minute it cannot become more than that.
//! - The spool gives nothing up for them. When it is full or its disk is broken they wait in it as what other relays
//!   deliver does, and the queue here fills.
//! - What is dropped is told to the collector as any other loss is (see `losses`).

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::entry::Entry;
use crate::metrics::{ListenMetrics, LogMetrics};
use crate::spool::{Batch, Inlet};

/// Messages that are taken in a minute. A relay says about ten when it starts, and then one now and then.
const MAX_A_MINUTE: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);
/// Messages that wait to be handed to the spool.
const MAX_QUEUED: usize = 32;
/// Messages that are handed to it together; so many more may wait there.
const MAX_BATCH: usize = 16;
/// How long the spool may take to take over what is left when the relay stops.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Where messages go in. Neither waits nor fails.
pub struct StreamSender {
    queue: mpsc::Sender<Entry>,
    rate_limit: Mutex<RateLimit>,
    metrics: LogMetrics,
}

/// Where they come out.
pub struct Stream {
    queue: mpsc::Receiver<Entry>,
    /// Out of the queue, and not with the spool yet.
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
        // Closed: the relay has stopped, and its last messages are on stderr alone.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(entry.clone()) {
            self.metrics.dropped_full.inc();
        }
    }
}

/// How many were taken since when.
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
    /// Hands the spool what is said until nobody sends host names any more, and then what is left. `own` counts the messages
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
        // The writer takes it with what else has queued, if there is room.
        let _ = timeout(FLUSH_WITHIN, self.hand_over(&name, &inlet, &own)).await;
    }

    /// The next messages, until the spool has them.
    async fn carry(&mut self, hostname: watch::Receiver<String>, inlet: &Inlet, own: &ListenMetrics) {
        if self.taken.is_empty() && self.queue.recv_many(&mut self.taken, MAX_BATCH).await == 0 {
            // Nobody is left who could say something.
            std::future::pending::<()>().await;
        }
        let hostname = hostname.borrow().clone();
        if let Some(receipt) = self.hand_over(&hostname, inlet, own).await {
            // The next ones wait here meanwhile.
            let _ = receipt.await;
        }
    }

    /// What was not handed over when this is dropped is handed over the next time.
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

/// Waits until whoever sends is gone.
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
