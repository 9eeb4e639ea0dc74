//! The catalog: which segments there are, how far each forward is, and every count that follows from it. Pure bookkeeping:
//! nothing is read, written or waited for. Counting is done where positions move, and nowhere else, so that the books of `spool` balance
//! for each forward at any moment.

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
    /// Oldest first, `number` and `first_line` rising. Empty only until the first line ever is written.
    pub segments: VecDeque<Segment>,
    /// Bytes of all of them: asked for with each write, and there may be thousands.
    pub bytes: u64,
    /// Where the next line goes, as far as readers may know. Lines behind it may be on their way to the disk.
    pub end: Position,
    /// One for each forward, by a number that is given once.
    pub cursors: BTreeMap<usize, Cursor>,
    pub limits: Limits,
    /// Bytes of the dead letters of each forward there ever was.
    pub dead_letters: BTreeMap<String, u64>,
    /// What was written last, as long as some reader still has to read it.
    pub fresh: FreshBatches,
    /// Bytes and limit, for those who have no lock.
    pub fill: Arc<Fill>,
}

pub(super) struct Segment {
    pub number: u64,
    pub first_line: u64,
    /// See [`Header`].
    pub session: u32,
    pub key: u32,
    /// The header and all good records, in bytes; what a failed write left behind it does not count.
    pub bytes: u64,
    /// Something in it could not be read: its file is kept aside when nobody needs it any more.
    pub damaged: bool,
    /// Open while somebody reads it. It lives here and not in the reader, so that evicting the segment closes the file:
    /// a removed file that is still open gives no room back, and room is what evicting is for.
    pub file: Option<Arc<File>>,
}

impl Catalog {
    /// `dead_letters`: bytes of those of each forward.
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

    /// Takes out of memory what was read by all. It is for the caller to drop, when nobody waits.
    pub fn take_read(&mut self) -> Vec<Fresh> {
        let readers = self.cursors.values().filter(|cursor| cursor.taken);
        self.fresh.take_read(readers.map(|cursor| cursor.read).min().unwrap_or(u64::MAX))
    }

    /// The cursor of a reader that is about to be: the one there is, if nobody has it, or one that begins at `from`.
    ///
    /// Errors: somebody has it.
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

    /// Whether every forward, and there is one, has retired all before this line.
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

    /// Moves a read position over lines that are not there, if any, and settles them with the cursor.
    pub fn skip(&mut self, index: usize, read: &mut Position, to: Position, metrics: &SpoolMetrics) {
        let cursor = self.cursor(index);
        if to.line > read.line {
            cursor.note_gap(read.line, to);
        }
        *read = to;
        self.set_gauges(metrics);
    }

    pub fn limits_beside(&self) -> Limits {
        // They take no more than a part; but the limit may have been lowered since.
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

/// Where a cursor read from its file is now.
pub(super) fn resolve(segments: &VecDeque<Segment>, end: Position, from: Positions) -> Positions {
    let place = |position| resolve_one(segments, end, position);
    let (acknowledged, retired) = (place(from.acknowledged), place(from.retired));
    Positions { acknowledged: if acknowledged.line > retired.line { acknowledged } else { retired }, retired }
}

/// Where one of its positions is. In doubt before it was: a line sent twice is better than one lost.
fn resolve_one(segments: &VecDeque<Segment>, end: Position, cursor: Position) -> Position {
    let i = segments.partition_point(|segment| segment.number < cursor.segment);
    let Some(segment) = segments.get(i) else { return end };
    let start = segment.start();
    let stop = segments.get(i + 1).map_or(end, Segment::start);
    if segment.number != cursor.segment {
        return start; // Its segment is gone: delivered, or evicted.
    }
    if cursor.line >= stop.line {
        // At the end of its segment, or beyond: a power cut has taken lines that were delivered before. Their
        // numbers are given again in the next segment, so the line alone says nothing.
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
