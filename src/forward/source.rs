//! The spool as a link sees it: the next lines, and what becomes of them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;

use super::filtered_chunk::Load;
use crate::metrics::ForwardMetrics;
use crate::record::Rule;
use crate::spool::{Chunk, Episode, Position, Reader};

/// Bytes of records taken from the spool at once: one write to the link, small enough that what is sent twice after a
/// broken connection stays small.
const CHUNK_BYTES: usize = 64 * 1024;

/// A spool that cannot be read is tried again after this: the disk may come back, and a busy loop helps nobody.
const READ_RETRY: Duration = Duration::from_secs(1);

pub struct Source {
    reader: Reader,
    /// Which lines are meant; none: all.
    rules: Vec<Rule>,
    /// The SD-ID under which image, name and id are found in a line.
    sd_id: String,
    metrics: ForwardMetrics,
    /// Lines below this number were sent before, or may have been.
    sent: u64,
    /// True: the forward ends, whatever is left in the spool.
    leaving: watch::Receiver<bool>,
    /// The spool cannot be read.
    unreadable: Episode,
}

impl Source {
    pub fn new(
        reader: Reader,
        (rules, sd_id): (Vec<Rule>, String),
        metrics: ForwardMetrics,
        leaving: watch::Receiver<bool>,
    ) -> Self {
        let sent = reader.acknowledged().line;
        Self { reader, rules, sd_id, metrics, sent, leaving, unreadable: Episode::default() }
    }

    /// The next lines, which are about to be sent; `None` when everything has been read, or nothing more shall be. Waits
    /// only when the disk fails.
    pub async fn next(&mut self) -> Option<Load> {
        let load = self.read().await?;
        self.metrics.resent.inc_by(load.count_before(self.sent));
        self.sent = self.sent.max(load.end().line);
        Some(load)
    }

    async fn read(&mut self) -> Option<Load> {
        let load = Load::new(self.next_chunk().await?, &self.rules, &self.sd_id);
        self.reader.note_filtered(load.filtered());
        if load.is_empty() {
            // Nothing to send will make the link wait, and a spool full of such lines must not hold everybody up.
            yield_now().await;
        }
        Some(load)
    }

    /// Passes what is filtered, up to the first line that is not: without a connection it need not wait for one. Only while
    /// nothing is on its way.
    pub async fn pass_filtered(&mut self) {
        if self.rules.is_empty() {
            return;
        }
        while let Some(load) = self.read().await {
            if !load.is_empty() {
                break;
            }
            self.retire(load.end());
        }
        self.reader.rewind();
    }

    async fn next_chunk(&mut self) -> Option<Chunk> {
        while !self.is_left() {
            match self.reader.next(CHUNK_BYTES) {
                Ok(chunk) => {
                    if self.unreadable.ends() {
                        tracing::info!("spool: can be read again");
                    }
                    return chunk;
                }
                Err(error) => {
                    if self.unreadable.begins() {
                        tracing::error!("spool: cannot read: {error}; trying again until it can be read");
                    }
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
        }
        None
    }

    /// The name under which this forward's lines are numbered.
    pub fn stream(&self) -> String {
        self.reader.stream()
    }

    /// Waits for more than was read; false when nothing more will come: the relay is stopping, or the forward ends.
    pub async fn wait(&mut self) -> bool {
        let Self { reader, leaving, .. } = self;
        tokio::select! {
            biased;
            () = is_true(leaving) => false,
            more = reader.wait() => more,
        }
    }

    /// Whether the forward is to end now.
    pub fn is_left(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Waits until the forward is to end, whatever is left. May be kept while the source is used.
    pub fn left(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut leaving = self.leaving.clone();
        async move { is_true(&mut leaving).await }
    }

    /// The collector has everything before `reached`, and may lose it: it is kept, and sent again if the connection breaks.
    pub fn acknowledged(&mut self, reached: Position) {
        self.reader.acknowledge(reached);
    }

    /// The collector has everything before `reached` for good: it will not be sent again.
    pub fn retire(&mut self, reached: Position) {
        self.reader.retire(reached);
    }

    /// Goes back to the first line the collector may not have.
    pub fn rewind(&mut self) {
        self.reader.rewind();
    }

    /// Lines that the collector has not got.
    pub fn pending(&self) -> u64 {
        self.reader.pending()
    }

    /// Lines that the collector has got and that may have to be sent again.
    pub fn replayable(&self) -> u64 {
        self.reader.replayable()
    }

    /// Lines delivered since the start.
    pub fn delivered(&self) -> u64 {
        self.metrics.delivered.get()
    }
}

async fn is_true(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|left| *left).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}
