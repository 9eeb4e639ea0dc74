//! The log: which segments there are, how far each forward is, and every count that follows from it. Writer and readers
//! share one [`Log`] and meet only here.
//!
//! What belongs here is bookkeeping under one lock, held for arithmetic only: files are read, written, synced and removed
//! outside of it. Counting is done where positions move, and nowhere else, so that the books of `spool` balance for each
//! forward at any moment.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::dead_letters::{self, MAX_DEAD_LETTER_BYTES};
use super::fresh::{Fresh, FreshBatches};
use super::hysteresis::Hysteresis;
use super::progress::{Cursor, Positions};
use super::record::Batch;
use super::segment::{self, HEADER_LEN, Header, SpoolId};
use super::{Position, WhenFull};
use crate::metrics::{ForwardMetrics, SpoolMetrics};

pub(super) struct Log {
    pub dir: PathBuf,
    pub id: SpoolId,
    pub metrics: SpoolMetrics,
    state: Mutex<State>,
    /// Held for life: whoever has the lock owns the spool. The kernel lets go of it however the process ends.
    _lock: File,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of all segments.
    pub max_bytes: u64,
    /// Bytes after which a segment is full.
    pub segment_bytes: u64,
    pub when_full: WhenFull,
}

pub(super) struct State {
    /// Oldest first, `number` and `first_line` rising. Empty only until the first line ever is written.
    segments: VecDeque<Segment>,
    /// Bytes of all of them: asked for with each write, and there may be thousands.
    bytes: u64,
    /// Where the next line goes, as far as readers may know. Lines behind it may be on their way to the disk.
    pub end: Position,
    /// One for each forward, by a number that is given once.
    pub cursors: BTreeMap<usize, Cursor>,
    limits: Limits,
    /// Bytes of the dead letters of each forward there ever was.
    dead_letters: BTreeMap<String, u64>,
    /// Of all of them.
    dead_letter_bytes: u64,
    /// What was written last, as long as some reader still has to read it.
    fresh: FreshBatches,
    /// Segments that nobody needs cannot be removed.
    litter: Hysteresis,
}

pub(super) struct Segment {
    pub number: u64,
    pub first_line: u64,
    /// See [`Header`](segment::Header).
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

/// What can be read.
pub(super) enum Window {
    /// A batch that was just written, from an offset in it on.
    Fresh {
        batch: Arc<Batch>,
        offset: usize,
        session: u32,
    },
    Stored(Stored),
}

/// Where the oldest line lies that a forward has not got.
pub(super) enum Oldest {
    Fresh {
        batch: Arc<Batch>,
        offset: usize,
    },
    Stored {
        at: Position,
        /// File offset behind the last byte that may be read.
        limit: u64,
        key: u32,
    },
}

/// A stretch of a segment's file.
pub(super) struct Stored {
    pub file: Arc<File>,
    pub session: u32,
    pub key: u32,
    /// File offset behind the last byte that may be read.
    pub limit: u64,
    /// Lines from the read position to `limit`; at least one.
    pub lines: u64,
    /// Those of them that may be read now: up to what was passed over before.
    pub max_lines: u64,
}

impl Log {
    pub fn new(dir: PathBuf, id: SpoolId, metrics: SpoolMetrics, state: State, lock: File) -> Self {
        let log = Self { dir, id, metrics, state: Mutex::new(state), _lock: lock };
        log.remove_passed();
        log.lock().set_gauges(&log.metrics);
        log
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// What segments may take beside the dead letters.
    pub fn limits(&self) -> Limits {
        self.lock().limits_beside()
    }

    pub fn set_limits(&self, limits: Limits) {
        let mut state = self.lock();
        state.limits = limits;
        state.set_gauges(&self.metrics);
    }

    /// The most that the dead letters of a forward may take, in bytes.
    pub fn dead_letter_room(&self, name: &str) -> u64 {
        let state = self.lock();
        let others = state.dead_letters.iter().filter(|(other, _)| *other != name).map(|(_, bytes)| bytes);
        let all = state.limits.max_bytes / dead_letters::SHARE;
        MAX_DEAD_LETTER_BYTES.min(all.saturating_sub(others.sum()))
    }

    /// A line of a forward is a dead letter, and all of its dead letters take so many bytes.
    pub fn note_rejected(&self, index: usize, number: u64, bytes: u64) {
        let mut state = self.lock();
        let cursor = state.cursor(index);
        cursor.note_rejected(number);
        cursor.metrics.dead_letter_bytes.set(bytes as i64);
        let name = cursor.name.clone();
        let before = state.dead_letters.insert(name, bytes).unwrap_or(0);
        state.dead_letter_bytes = state.dead_letter_bytes - before + bytes;
        state.set_gauges(&self.metrics);
    }

    /// See [`State::add_cursor`].
    pub fn add_cursor(&self, name: &str, from: Option<Positions>, metrics: ForwardMetrics) -> io::Result<usize> {
        let mut state = self.lock();
        let index = state.add_cursor(name, from, metrics)?;
        state.set_gauges(&self.metrics);
        Ok(index)
    }

    /// The reader is gone; the cursor stays.
    pub fn release(&self, index: usize) {
        let mut state = self.lock();
        let cursor = state.cursor(index);
        cursor.taken = false;
        cursor.rewind();
    }

    /// The cursor goes, and holds nothing back any more.
    pub fn forget(&self, index: usize) {
        let mut state = self.lock();
        if let Some(cursor) = state.cursors.remove(&index) {
            cursor.metrics.set_left(0, 0);
        }
        drop(state);
        self.remove_passed();
    }

    pub fn positions(&self, index: usize) -> Positions {
        self.lock().cursor(index).positions()
    }

    /// Lines that are pending, and lines that are replayable.
    pub fn left(&self, index: usize) -> (u64, u64) {
        let mut state = self.lock();
        let end = state.end;
        let cursor = state.cursor(index);
        (cursor.pending(end), cursor.replayable())
    }

    /// A new segment begins, which the next lines go to.
    pub fn add(&self, segment: Segment) {
        let mut state = self.lock();
        state.bytes += segment.bytes;
        state.segments.push_back(segment);
        state.set_gauges(&self.metrics);
        drop(state);
        // The segment before it is no longer the last one, and may have been passed by all long ago.
        self.remove_passed();
    }

    /// Whether every forward, and there is one, has retired all before `end`.
    pub fn all_retired(&self, end: Position) -> bool {
        self.lock().all_retired(end.line)
    }

    /// The last segment has `bytes` now.
    pub fn grow(&self, bytes: u64) {
        let mut state = self.lock();
        if let Some(last) = state.segments.back_mut() {
            let before = std::mem::replace(&mut last.bytes, bytes);
            state.bytes = state.bytes - before + bytes;
        }
        self.metrics.bytes.set(state.bytes as i64);
    }

    /// Readers may read up to `end`. `fresh`: what was written since the last time, as far as it was kept.
    pub fn publish(&self, end: Position, fresh: impl Iterator<Item = Fresh>) {
        let mut state = self.lock();
        self.metrics.spooled.inc_by(end.line - state.end.line);
        state.end = end;
        fresh.for_each(|fresh| state.fresh.push(fresh));
        let read = state.take_read();
        state.set_gauges(&self.metrics);
        drop(state);
        drop(read);
    }

    /// Readers have to read back what was written.
    #[cfg(test)]
    pub fn forget_fresh(&self) {
        self.lock().fresh = FreshBatches::default();
    }

    /// Bytes and batches that readers need not read back.
    #[cfg(test)]
    pub fn fresh(&self) -> (usize, usize) {
        let state = self.lock();
        (state.fresh.bytes(), state.fresh.count())
    }

    /// Gives up the oldest segment, and the lines in it that are not retired. Never the last one: false if there is
    /// no other.
    pub fn evict_oldest(&self) -> bool {
        let mut state = self.lock();
        if state.segments.len() < 2 {
            return false;
        }
        let gone = state.pop_oldest();
        if let Some(oldest) = state.segments.front() {
            let start = oldest.start();
            state.cursors.values_mut().for_each(|cursor| cursor.evict(start));
        }
        state.set_gauges(&self.metrics);
        drop(state);
        gone.into_iter().for_each(|segment| self.discard(segment));
        true
    }

    /// The collector has everything before `up_to`. Positions never move backwards; one that is beyond the end was not
    /// ours and is ignored. Returns whether it moved.
    pub fn acknowledge(&self, index: usize, up_to: Position) -> bool {
        let mut state = self.lock();
        let end = state.end;
        let cursor = state.cursor(index);
        if up_to.line > end.line || up_to.line <= cursor.acknowledged().line {
            return false;
        }
        cursor.acknowledge(up_to);
        state.set_gauges(&self.metrics);
        true
    }

    /// Nothing before `up_to` will be sent again, which the collector has, too. Positions never move backwards; one that is
    /// beyond the end was not ours and is ignored.
    pub fn retire(&self, index: usize, up_to: Position) {
        let mut state = self.lock();
        if up_to.line > state.end.line {
            return;
        }
        state.cursor(index).retire(up_to);
        state.set_gauges(&self.metrics);
        drop(state);
        self.remove_passed();
    }

    /// The forward's `match` does not mean these of the lines that were read last. They are counted when they are passed.
    pub fn note_filtered(&self, index: usize, lines: &[Range<u64>]) {
        self.lock().cursor(index).note_filtered(lines);
    }

    /// Puts `read` back to the first line that is not retired, and says how many lines lie between.
    pub fn rewind(&self, index: usize, read: &mut Position) -> u64 {
        let retired = self.lock().cursor(index).rewind();
        std::mem::replace(read, retired).line.saturating_sub(retired.line)
    }

    /// What can be read at `read`, which is moved to where that begins: out of segments that were evicted or are read
    /// to their end. `None`: nothing for now.
    ///
    /// Errors come from opening the segment's file.
    pub fn window(&self, index: usize, read: &mut Position) -> io::Result<Option<Window>> {
        let mut state = self.lock();
        let cursor = state.cursor(index);
        if read.line < cursor.retired().line {
            *read = cursor.retired();
        }
        cursor.read = read.line;
        loop {
            // What was passed over once is passed over again, also if it could be read now: the next relay may have taken
            // what comes behind it, and would take it for known.
            if let Some(behind) = state.cursor(index).gap_at(read.line) {
                *read = behind;
            }
            let end = state.end;
            let i = state.find(read.segment);
            let next = state.segments.get(i + 1).map(Segment::start);
            let Some(segment) = state.segments.get(i).filter(|segment| segment.number <= end.segment) else {
                return Ok(None);
            };
            if segment.number != read.segment {
                let start = segment.start();
                state.skip(index, read, start, &self.metrics);
                continue;
            }
            let (limit, stop) = match next {
                Some(next) if segment.number < end.segment => (segment.bytes, next),
                _ => (end.offset, end),
            };
            let lines = stop.line.saturating_sub(read.line);
            let (session, key) = (segment.session, segment.key);
            if lines > 0 && read.offset < limit {
                let gap = state.cursor(index).next_gap(read.line);
                if let (None, Some((batch, offset))) = (gap, state.fresh.at(read)) {
                    return Ok(Some(Window::Fresh { batch, offset, session }));
                }
                let max_lines = gap.map_or(lines, |from| lines.min(from - read.line));
                let segment = &mut state.segments[i];
                let file = match &segment.file {
                    Some(file) => file.clone(),
                    None => segment.file.insert(Arc::new(File::open(segment::path(&self.dir, read.segment))?)).clone(),
                };
                return Ok(Some(Window::Stored(Stored { file, session, key, limit, lines, max_lines })));
            }
            if lines == 0 && stop.segment == segment.number {
                let read = state.take_read();
                drop(state);
                drop(read);
                return Ok(None);
            }
            let segment = &mut state.segments[i];
            segment.file = None;
            if lines > 0 && !std::mem::replace(&mut segment.damaged, true) {
                let file = segment::path(&self.dir, segment.number);
                tracing::error!(file = %file.display(), lines, "spool: lines are missing behind a segment");
            }
            state.skip(index, read, stop, &self.metrics);
        }
    }

    /// The oldest line that is pending for the forward called `name`. Reads and moves nothing; `None`: there is none.
    pub fn oldest(&self, name: &str) -> Option<Oldest> {
        let state = self.lock();
        let mut at = state.cursors.values().find(|cursor| cursor.name == name)?.acknowledged();
        if at.line >= state.end.line {
            return None;
        }
        let behind = state.segments.partition_point(|segment| segment.first_line <= at.line);
        let segment = state.segments.get(behind.checked_sub(1)?)?;
        if segment.number != at.segment {
            at = segment.start();
        }
        if let Some((batch, offset)) = state.fresh.at(&mut at) {
            return Some(Oldest::Fresh { batch, offset });
        }
        let limit = if segment.number < state.end.segment { segment.bytes } else { state.end.offset };
        Some(Oldest::Stored { at, limit, key: segment.key })
    }

    /// There are more segments than the one that is written to.
    pub fn can_evict(&self) -> bool {
        let state = self.lock();
        state.limits.when_full == WhenFull::DropOldest && state.segments.len() > 1
    }

    /// There is nothing to be read at `read`, which moves to `found` in the same segment, or behind the segment. The lines
    /// that are passed over will count as damaged.
    pub fn damaged(&self, index: usize, read: &mut Position, found: Option<Position>, why: &dyn std::fmt::Display) {
        let mut state = self.lock();
        let end = state.end;
        let i = state.find(read.segment);
        let to = match (found, state.segments.get(i + 1)) {
            (Some(found), _) => found,
            (None, Some(next)) if read.segment < end.segment => next.start(),
            _ => end,
        };
        let mut known = true;
        if let Some(segment) = state.segments.get_mut(i).filter(|segment| segment.number == read.segment) {
            known = std::mem::replace(&mut segment.damaged, true);
            segment.file = None;
        }
        if !known {
            let (file, lines) = (segment::path(&self.dir, read.segment), to.line.saturating_sub(read.line));
            tracing::error!(
                file = %file.display(), offset = read.offset, lines, error = %why,
                "spool: a part of a segment cannot be read and is skipped; its file will be kept as .damaged"
            );
        }
        state.skip(index, read, to, &self.metrics);
    }

    /// Removes the segments that every forward has retired, but never the last one, which carries the spool's id and the
    /// line number to go on with. Unlinking is not handed to another thread: it is once in a segment's life.
    fn remove_passed(&self) {
        loop {
            let mut state = self.lock();
            let Some(next_line) = state.segments.get(1).map(|next| next.first_line) else { return };
            if !state.all_retired(next_line) {
                return;
            }
            let gone = state.pop_oldest();
            state.set_gauges(&self.metrics);
            drop(state);
            gone.into_iter().for_each(|segment| self.discard(segment));
        }
    }

    /// Takes the file of a segment that is no longer in the list out of the directory.
    fn discard(&self, segment: Segment) {
        drop(segment.file);
        let result = match segment.damaged {
            true => segment::set_aside(&self.dir, segment.number),
            false => segment::remove(&self.dir, segment.number),
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.metrics.errors.inc();
                if self.lock().litter.begins() {
                    let file = segment::path(&self.dir, segment.number);
                    tracing::error!(
                        file = %file.display(), %error,
                        "spool: segments nobody needs cannot be removed and take room; may the relay write to its directory?"
                    );
                }
            }
            _ => {
                if self.lock().litter.ends() {
                    tracing::info!(dir = %self.dir.display(), "spool: segments can be removed again");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
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
            dead_letter_bytes: dead_letters.values().sum(),
            dead_letters,
            fresh: FreshBatches::default(),
            litter: Hysteresis::default(),
        }
    }

    /// Takes out of memory what was read by all. It is for the caller to drop, when nobody waits.
    fn take_read(&mut self) -> Vec<Fresh> {
        let readers = self.cursors.values().filter(|cursor| cursor.taken);
        self.fresh.take_read(readers.map(|cursor| cursor.read).min().unwrap_or(u64::MAX))
    }

    /// The cursor of a reader that is about to be: the one there is, if nobody has it, or one that begins at `from`.
    ///
    /// Errors: somebody has it.
    pub fn add_cursor(&mut self, name: &str, from: Option<Positions>, metrics: ForwardMetrics) -> io::Result<usize> {
        metrics.dead_letter_bytes.set(self.dead_letters.get(name).copied().unwrap_or(0) as i64);
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

    fn cursor(&mut self, index: usize) -> &mut Cursor {
        self.cursors.get_mut(&index).expect("a reader's cursor lives as long as the reader")
    }

    /// Whether every forward, and there is one, has retired all before this line.
    fn all_retired(&self, line: u64) -> bool {
        !self.cursors.is_empty() && self.cursors.values().all(|cursor| cursor.retired().line >= line)
    }

    /// The index of segment `number`, or of the first one after it.
    fn find(&self, number: u64) -> usize {
        self.segments.partition_point(|segment| segment.number < number)
    }

    fn pop_oldest(&mut self) -> Option<Segment> {
        let gone = self.segments.pop_front()?;
        self.bytes -= gone.bytes;
        Some(gone)
    }

    /// Moves a read position over lines that are not there, if any, and settles them with the cursor.
    fn skip(&mut self, index: usize, read: &mut Position, to: Position, metrics: &SpoolMetrics) {
        let cursor = self.cursor(index);
        if to.line > read.line {
            cursor.note_gap(read.line, to);
        }
        *read = to;
        self.set_gauges(metrics);
    }

    fn limits_beside(&self) -> Limits {
        // They take no more than a part; but the limit may have been lowered since.
        let max_bytes = self.limits.max_bytes.saturating_sub(self.dead_letter_bytes).max(super::MIN_BYTES);
        let segment_bytes = self.limits.segment_bytes.min(max_bytes / 2);
        Limits { max_bytes, segment_bytes, ..self.limits }
    }

    fn set_gauges(&self, metrics: &SpoolMetrics) {
        metrics.bytes.set(self.bytes as i64);
        metrics.max_bytes.set(self.limits_beside().max_bytes as i64);
        for cursor in self.cursors.values() {
            cursor.metrics.set_left(cursor.pending(self.end), cursor.replayable());
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
