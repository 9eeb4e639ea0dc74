//! The spool as a forward sees it: the next bytes for the link, and the position they reach. What becomes of a position
//! is the link's to say, with `retire`.

use std::io;
use std::time::Duration;

use super::encode::Encoding;
use crate::metrics::ForwardMetrics;
use crate::spool::{Chunk, Position, Reader};

/// Bytes of records taken from the spool at once: one write to the link, small enough that what is sent twice after a
/// broken connection stays small.
const CHUNK_BYTES: usize = 64 * 1024;

/// A spool that cannot be read is tried again after this.
const READ_RETRY: Duration = Duration::from_secs(1);

pub struct Source {
    reader: Reader,
    encoding: Encoding,
    metrics: ForwardMetrics,
    scratch: Vec<u8>,
}

/// Encoded lines on their way out.
#[derive(Debug, Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    /// Where each line ends in `bytes`.
    pub ends: Vec<usize>,
    /// The position in the spool behind the last line; `None` while empty.
    pub reaches: Option<Position>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.reaches.is_none()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.reaches = None;
    }
}

impl Source {
    pub fn new(reader: Reader, encoding: Encoding, metrics: ForwardMetrics) -> Self {
        Self { reader, encoding, metrics, scratch: Vec::new() }
    }

    pub fn set_framing(&mut self, framing: Option<crate::config::Framing>) {
        self.encoding.framing = framing;
    }

    pub fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// The next lines as they are in the spool; `None` when everything has been read.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        self.reader.next(CHUNK_BYTES)
    }

    /// Fills the outbox with the next encoded lines. It stays empty when everything has been read.
    pub fn fill(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        outbox.clear();
        let Some(chunk) = self.reader.next(CHUNK_BYTES)? else { return Ok(()) };
        for line in chunk.batch.lines() {
            self.encoding.append(line, &mut self.scratch, &mut outbox.bytes);
            outbox.ends.push(outbox.bytes.len());
        }
        outbox.reaches = Some(chunk.end);
        Ok(())
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
}

/// A pause after the spool could not be read: the disk may come back, and a busy loop helps nobody.
pub async fn pause_after_read_error() {
    tokio::time::sleep(READ_RETRY).await;
}
