//! The spool as a link sees it: the next lines, and what becomes of them.

use std::time::Duration;

use crate::metrics::ForwardMetrics;
use crate::spool::{Chunk, Position, Reader};

/// Bytes of records taken from the spool at once: one write to the link, small enough that what is sent twice after a
/// broken connection stays small.
const CHUNK_BYTES: usize = 64 * 1024;

/// A spool that cannot be read is tried again after this: the disk may come back, and a busy loop helps nobody.
const READ_RETRY: Duration = Duration::from_secs(1);

pub struct Source {
    reader: Reader,
    metrics: ForwardMetrics,
}

impl Source {
    pub fn new(reader: Reader, metrics: ForwardMetrics) -> Self {
        Self { reader, metrics }
    }

    /// The next lines; `None` when everything has been read. Waits only when the disk fails.
    pub async fn next(&mut self) -> Option<Chunk> {
        loop {
            match self.reader.next(CHUNK_BYTES) {
                Ok(chunk) => return chunk,
                Err(error) => {
                    tracing::error!("spool: cannot read: {error}; trying again");
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
        }
    }

    /// Waits for more than was read; false when the relay is stopping and nothing more will come.
    pub async fn wait(&mut self) -> bool {
        self.reader.wait().await
    }

    /// Everything before `reached` is with the collector.
    pub fn retire(&mut self, reached: Position) {
        self.reader.retire(reached);
    }

    /// Goes back to the first line the collector may not have.
    pub fn rewind(&mut self) {
        let again = self.reader.rewind();
        self.metrics.resent.inc_by(again);
    }

    pub fn waiting(&self) -> u64 {
        self.reader.waiting()
    }

    /// Lines delivered since the start.
    pub fn delivered(&self) -> u64 {
        self.metrics.delivered.get()
    }
}
