//! The last batches written, which are still in memory, so that a reader that keeps up need not read them back from the
//! disk. A reader that is behind finds the same lines in the segments.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Position;
use super::batch::Batch;

/// The limit, in bytes of memory.
pub(super) const FRESH_BYTES: usize = 2 << 20;

/// A batch, and its place in a segment.
pub(super) struct Fresh {
    pub start: Position,
    pub batch: Arc<Batch>,
}

impl Fresh {
    pub fn new(start: Position, batch: Batch) -> Self {
        Self { start, batch: Arc::new(batch) }
    }

    pub fn bytes(&self) -> u64 {
        self.batch.byte_len() as u64
    }

    /// The place behind the batch.
    pub fn end(&self) -> Position {
        let Position { segment, offset, line } = self.start;
        Position { segment, offset: offset + self.bytes(), line: line + self.batch.line_count() }
    }

    /// Adds the batch that is behind this one in the segment.
    pub fn append(&mut self, batch: Batch) {
        Arc::make_mut(&mut self.batch).append(batch);
    }
}

/// The last batches, oldest first.
#[derive(Default)]
pub(super) struct FreshBatches {
    batches: VecDeque<Fresh>,
    bytes: usize,
}

impl FreshBatches {
    pub fn push(&mut self, fresh: Fresh) {
        self.bytes += fresh.batch.capacity();
        self.batches.push_back(fresh);
    }

    /// The batch that has the line at `read`, and the offset in it. `None`: the batch is not in memory any more, or
    /// never was. If there are only marks between `read` and that line, `read` moves behind them.
    pub fn at(&self, read: &mut Position) -> Option<(Arc<Batch>, usize)> {
        let behind = self.batches.partition_point(|fresh| fresh.start.line <= read.line);
        let Fresh { start, batch } = self.batches.get(behind.checked_sub(1)?)?;
        if start.segment != read.segment {
            return None;
        }
        if start.line == read.line && read.offset < start.offset {
            *read = *start;
        }
        let offset = usize::try_from(read.offset.checked_sub(start.offset)?).ok()?;
        (offset < batch.byte_len()).then(|| (batch.clone(), offset))
    }

    /// Removes batches while they exceed the limit or while all lines of the oldest are before line `read`. The caller
    /// drops them.
    pub fn take_read(&mut self, read: u64) -> Vec<Fresh> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.batches.front()
            && (self.bytes > FRESH_BYTES || oldest.start.line + oldest.batch.line_count() <= read)
        {
            self.bytes -= oldest.batch.capacity();
            gone.extend(self.batches.pop_front());
        }
        gone
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.batches.len()
    }
}
