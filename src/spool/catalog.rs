//! The catalog: the list of segments, the positions of each forward, and every count that follows from them. Pure
//! bookkeeping: it reads and writes no file and never waits. Lines are counted where positions move, and nowhere else,
//! so that the books of `spool` balance for each forward at any moment.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::fill::Fill;
use super::fresh::{Fresh, FreshBatches};
use super::progress::{Cursor, Positions};
use super::segment::{HEADER_LEN, Header};
use super::{Position, WhenFull};
use crate::metrics::{ForwardMetrics, SpoolMetrics};

#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of all segments.
    pub max_bytes: u64,
    /// Bytes after which a segment is full.
    pub segment_bytes: u64,
    pub when_full: WhenFull,
}

pub(super) struct Catalog {
    /// Oldest first; `number` and `first_line` rise. Empty only until the first line ever is written.
    pub segments: VecDeque<Segment>,
    /// Bytes of all segments. Kept as a sum, because each write asks for it and there may be thousands of segments.
    pub bytes: u64,
    /// The end that readers may read up to. The writer may already be writing lines behind it.
    pub end: Position,
    /// The cursor of each forward, by index. The index of the newest cursor is used again after that cursor is removed.
    pub cursors: BTreeMap<usize, Cursor>,
    pub limits: Limits,
    /// Bytes of the dead letters of each forward that has or had any.
    pub dead_letters: BTreeMap<String, u64>,
    /// The last batches written, until every reader has read them.
    pub fresh: FreshBatches,
    /// Bytes and limit, for readers without the lock.
    pub fill: Arc<Fill>,
}

pub(super) struct Segment {
    pub number: u64,
    pub first_line: u64,
    /// See [`Header`].
    pub session: u32,
    pub key: u32,
    /// Bytes of the header and all good records. Bytes that a failed write left behind them do not count.
    pub bytes: u64,
    /// A part of the segment could not be read. Its file is kept aside when no forward needs the segment any more.
    pub damaged: bool,
    /// Open while a reader reads the segment. The catalog owns the file, not the reader, so that evicting the segment
    /// closes it: the file system frees the space of a removed file only when the file is closed, and eviction is meant
    /// to free space.
    pub file: Option<Arc<File>>,
}

impl Catalog {
    /// `dead_letters`: bytes of the dead letters of each forward.
    pub fn new(
        segments: VecDeque<Segment>,
        end: Position,
        limits: Limits,
        dead_letters: BTreeMap<String, u64>,
    ) -> Self {
        let bytes = segments.iter().map(|segment| segment.bytes).sum();
        Self {
            segments,
            bytes,
            end,
            cursors: BTreeMap::new(),
            limits,
            dead_letters,
            fresh: FreshBatches::default(),
            fill: Arc::default(),
        }
    }

    /// Removes the batches that all readers have read. The caller drops them after it has released the lock.
    pub fn take_read(&mut self) -> Vec<Fresh> {
        let readers = self.cursors.values().filter(|cursor| cursor.taken);
        self.fresh.take_read(readers.map(|cursor| cursor.read).min().unwrap_or(u64::MAX))
    }

    /// The cursor for a new reader: the existing one, if no reader has it, or a new one that begins at `from`.
    ///
    /// Errors: another reader has the cursor.
    pub fn add_cursor(&mut self, name: &str, from: Option<Positions>, metrics: ForwardMetrics) -> io::Result<usize> {
        if let Some((&index, cursor)) = self.cursors.iter_mut().find(|(_, cursor)| cursor.name == name) {
            return match std::mem::replace(&mut cursor.taken, true) {
                true => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("the forward {name} has a reader"))),
                false => Ok(index),
            };
        }
        let oldest = self.segments.front().map_or(self.end, Segment::start);
        let start = Positions { acknowledged: oldest, retired: oldest };
        let at = from.map_or(start, |from| resolve(&self.segments, self.end, from));
        let index = self.cursors.last_key_value().map_or(0, |(last, _)| last + 1);
        self.cursors.insert(index, Cursor::new(name, at, metrics));
        Ok(index)
    }

    pub fn cursor(&mut self, index: usize) -> &mut Cursor {
        self.cursors.get_mut(&index).expect("a reader's cursor lives as long as the reader")
    }

    /// Whether there are forwards, and each has retired all lines before this one.
    pub fn all_retired(&self, line: u64) -> bool {
        !self.cursors.is_empty() && self.cursors.values().all(|cursor| cursor.retired().line >= line)
    }

    /// The index of segment `number`, or of the first one after it.
    pub fn find(&self, number: u64) -> usize {
        self.segments.partition_point(|segment| segment.number < number)
    }

    pub fn pop_oldest(&mut self) -> Option<Segment> {
        let gone = self.segments.pop_front()?;
        self.bytes -= gone.bytes;
        Some(gone)
    }

    /// Moves a read position to `to`. Lines that are missing in between are noted as a gap of the cursor.
    pub fn skip(&mut self, index: usize, read: &mut Position, to: Position, metrics: &SpoolMetrics) {
        let cursor = self.cursor(index);
        if to.line > read.line {
            cursor.note_gap(read.line, to);
        }
        *read = to;
        self.set_gauges(metrics);
    }

    pub fn limits_beside(&self) -> Limits {
        // Dead letters take at most a quarter of the limit; but the limit may have been lowered since they were
        // written.
        let dead_letters: u64 = self.dead_letters.values().sum();
        let max_bytes = self.limits.max_bytes.saturating_sub(dead_letters).max(super::MIN_BYTES);
        let segment_bytes = self.limits.segment_bytes.min(max_bytes / 2);
        Limits { max_bytes, segment_bytes, ..self.limits }
    }

    pub fn set_gauges(&self, metrics: &SpoolMetrics) {
        let max_bytes = self.limits_beside().max_bytes;
        self.fill.set(self.bytes, max_bytes);
        metrics.bytes.set(self.bytes as i64);
        metrics.max_bytes.set(max_bytes as i64);
        for cursor in self.cursors.values() {
            cursor.metrics.set_left(cursor.pending(self.end), cursor.replayable());
            cursor.metrics.dead_letter_bytes.set(self.dead_letters.get(&cursor.name).copied().unwrap_or(0) as i64);
        }
    }
}

/// Where the positions from a cursor's file are in the current segments.
pub(super) fn resolve(segments: &VecDeque<Segment>, end: Position, from: Positions) -> Positions {
    let place = |position| resolve_one(segments, end, position);
    let (acknowledged, retired) = (place(from.acknowledged), place(from.retired));
    Positions { acknowledged: if acknowledged.line > retired.line { acknowledged } else { retired }, retired }
}

/// Where one position is. In doubt the result is an earlier one: a line that is sent twice is better than a lost one.
fn resolve_one(segments: &VecDeque<Segment>, end: Position, cursor: Position) -> Position {
    let i = segments.partition_point(|segment| segment.number < cursor.segment);
    let Some(segment) = segments.get(i) else { return end };
    let start = segment.start();
    let stop = segments.get(i + 1).map_or(end, Segment::start);
    if segment.number != cursor.segment {
        return start; // The segment of the cursor is gone: delivered, or evicted.
    }
    if cursor.line >= stop.line {
        // At the end of its segment, or beyond: a power cut has removed lines that were delivered before. The next
        // segment reuses their numbers, so the line number alone does not say which line is meant.
        return stop;
    }
    let inside = cursor.line >= start.line && (HEADER_LEN..segment.bytes).contains(&cursor.offset);
    if inside { cursor } else { start }
}

impl Segment {
    pub fn new(header: &Header, bytes: u64) -> Self {
        let &Header { number, first_line, session, .. } = header;
        Self { number, first_line, session, key: header.key(), bytes, damaged: false, file: None }
    }

    /// The position of its first line.
    pub fn start(&self) -> Position {
        Position { segment: self.number, offset: HEADER_LEN, line: self.first_line }
    }
}
