//! The log: the state that writer and readers share. One lock guards the [`Catalog`], and is held for arithmetic only:
//! files are read, written, synced and removed without it. Forwards call from the runtime's thread, so `keeper` and
//! `read_head` have threads for their disk work.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
#[cfg(test)]
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::Notify;

use super::batch::Batch;
use super::catalog::{Catalog, Limits, Segment};
use super::dead_letters::{self, MAX_DEAD_LETTER_BYTES};
use super::fill::Fill;
use super::fresh::Fresh;
use super::home::{Found, Home};
use super::hysteresis::Hysteresis;
use super::keeper::{self, Job, Keeper};
use super::progress::{Cursor, Positions};
use super::read_head::{self, Errand};
use super::segment::{self, SpoolId};
use super::tap::Tap;
use super::{Position, WhenFull};
use crate::coalescing::Coalescing;
use crate::identity::Identity;
use crate::metrics::{ForwardMetrics, SpoolMetrics};

pub(super) struct Log {
    pub dir: PathBuf,
    pub id: SpoolId,
    /// The key that proves to other relays who has numbered the lines; `None`: it can be neither read nor made.
    pub identity: Option<Arc<Identity>>,
    pub metrics: SpoolMetrics,
    pub fill: Arc<Fill>,
    catalog: Mutex<Catalog>,
    keeper: Mutex<Keeper>,
    /// The keeper has a job to write cursors, or is about to get one.
    pub cursors_moved: AtomicBool,
    /// The queue of the thread that reads segments, once it is started.
    pub errands: OnceLock<Sender<Errand>>,
    pub home: Home,
    /// Notified as long as there are dead letters to be sent again.
    pub resends: Notify,
    pub tap: Tap,
    pub coalescing: Coalescing,
}

/// The lines that can be read at a position.
pub(super) enum Window {
    /// A batch in memory, from an offset on.
    Fresh {
        batch: Arc<Batch>,
        offset: usize,
        session: u32,
    },
    Stored(Stored),
}

/// The place of a forward's oldest pending line.
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

/// A range of a segment's file.
pub(super) struct Stored {
    /// `None`: the file is not open.
    pub file: Option<Arc<File>>,
    pub session: u32,
    pub key: u32,
    /// File offset behind the last byte that may be read.
    pub limit: u64,
    /// Lines from the read position to `limit`; at least one.
    pub lines: u64,
    /// How many of these lines may be read now: the lines before the next gap.
    pub max_lines: u64,
}

impl Log {
    pub fn new(
        dir: PathBuf,
        (id, identity): (SpoolId, Option<Identity>),
        metrics: SpoolMetrics,
        catalog: Catalog,
        home: Home,
    ) -> Arc<Self> {
        let log = Arc::new(Self {
            dir,
            id,
            identity: identity.map(Arc::new),
            metrics,
            fill: catalog.fill.clone(),
            catalog: Mutex::new(catalog),
            keeper: Mutex::new(Keeper::new()),
            cursors_moved: AtomicBool::new(false),
            errands: OnceLock::new(),
            home,
            resends: Notify::new(),
            tap: Tap::default(),
            coalescing: Coalescing::default(),
        });
        log.remove_passed();
        log.lock().set_gauges(&log.metrics);
        log
    }

    /// See [`Home::keep`].
    pub fn keep_home(&self) -> io::Result<Found> {
        self.home.keep(|number| self.lock().segments.iter().any(|segment| segment.number == number))
    }

    /// Starts the spool's threads. From now on reading, retiring and rejecting do not block on a disk.
    ///
    /// Errors: a thread cannot be started.
    pub fn start_threads(self: &Arc<Self>) -> io::Result<()> {
        self.keeper.lock().start(self)?;
        let errands = read_head::start()?;
        // There is one writer, and it is spawned once: the cell is empty.
        drop(self.errands.set(errands));
        Ok(())
    }

    /// Sends jobs and errands to threads that hang.
    #[cfg(test)]
    pub fn hang(&self) -> (keeper::Queue, Receiver<Errand>) {
        let ((keeper, jobs), (errands, queued)) = (Keeper::hanging(), channel());
        *self.keeper.lock() = keeper;
        drop(self.errands.set(errands));
        (jobs, queued)
    }

    pub fn hand_over(self: &Arc<Self>, job: Job) {
        self.keeper.lock().hand_over(self, job);
    }

    /// Has the keeper write the cursors.
    pub fn cursor_moved(self: &Arc<Self>) {
        if !self.cursors_moved.swap(true, Ordering::AcqRel) {
            self.hand_over(Job::WriteCursors);
        }
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The limits of the segments: without the bytes of the dead letters.
    pub fn limits(&self) -> Limits {
        self.lock().limits_beside()
    }

    pub fn set_limits(&self, limits: Limits) {
        let mut catalog = self.lock();
        catalog.limits = limits;
        catalog.set_gauges(&self.metrics);
    }

    /// The most that the dead letters of a forward may take, in bytes.
    pub fn dead_letter_capacity(&self, name: &str) -> u64 {
        let catalog = self.lock();
        let others = catalog.dead_letters.iter().filter(|(other, _)| *other != name).map(|(_, bytes)| bytes);
        let all = catalog.limits.max_bytes / dead_letters::SHARE;
        MAX_DEAD_LETTER_BYTES.min(all.saturating_sub(others.sum()))
    }

    /// Notes that a line of a forward is a dead letter.
    pub fn note_rejected(&self, index: usize, number: u64) {
        if let Some(cursor) = self.lock().cursors.get_mut(&index) {
            cursor.note_rejected(number);
        }
    }

    /// Notes how many bytes all dead letters of a forward take.
    pub fn note_dead_letters(&self, name: &str, bytes: u64) {
        let mut catalog = self.lock();
        catalog.dead_letters.insert(name.to_owned(), bytes);
        catalog.set_gauges(&self.metrics);
    }

    /// The names of all cursors.
    pub fn forwards(&self) -> Vec<String> {
        self.lock().cursors.values().map(|cursor| cursor.name.clone()).collect()
    }

    /// The forwards that have or had dead letters.
    pub fn with_dead_letters(&self) -> Vec<String> {
        self.lock().dead_letters.keys().cloned().collect()
    }

    /// Whether this forward has a cursor, with or without a reader.
    pub fn knows(&self, name: &str) -> bool {
        self.lock().cursors.values().any(|cursor| cursor.name == name)
    }

    /// See [`Catalog::add_cursor`].
    pub fn add_cursor(&self, name: &str, from: Option<Positions>, metrics: ForwardMetrics) -> io::Result<usize> {
        let mut catalog = self.lock();
        let index = catalog.add_cursor(name, from, metrics)?;
        catalog.set_gauges(&self.metrics);
        Ok(index)
    }

    /// Notes that the reader is gone. Its cursor stays.
    pub fn release(&self, index: usize) {
        let mut catalog = self.lock();
        let cursor = catalog.cursor(index);
        cursor.taken = false;
        cursor.rewind();
    }

    /// Removes a cursor, which then holds back no segment.
    pub fn forget(self: &Arc<Self>, index: usize) {
        let mut catalog = self.lock();
        if let Some(cursor) = catalog.cursors.remove(&index) {
            cursor.metrics.set_left(0, 0);
        }
        drop(catalog);
        self.hand_over(Job::Forget(index));
        self.remove_passed();
    }

    /// `None`: the forward has been forgotten.
    pub fn positions(&self, index: usize) -> Option<Positions> {
        self.lock().cursors.get(&index).map(Cursor::positions)
    }

    /// The numbers of pending and of replayable lines.
    pub fn left(&self, index: usize) -> (u64, u64) {
        let mut catalog = self.lock();
        let end = catalog.end;
        let cursor = catalog.cursor(index);
        (cursor.pending(end), cursor.replayable())
    }

    /// Adds a new segment, for the next lines.
    pub fn add(self: &Arc<Self>, segment: Segment) {
        let mut catalog = self.lock();
        catalog.bytes += segment.bytes;
        catalog.segments.push_back(segment);
        catalog.set_gauges(&self.metrics);
        drop(catalog);
        // The segment before it is no longer the last one, and every forward may have passed it.
        self.remove_passed();
    }

    /// Whether there are forwards, and each has retired all lines before `end`.
    pub fn all_retired(&self, end: Position) -> bool {
        self.lock().all_retired(end.line)
    }

    /// Sets the size of the last segment.
    pub fn grow(&self, bytes: u64) {
        let mut catalog = self.lock();
        if let Some(last) = catalog.segments.back_mut() {
            let before = std::mem::replace(&mut last.bytes, bytes);
            catalog.bytes = catalog.bytes - before + bytes;
        }
        catalog.set_gauges(&self.metrics);
    }

    /// Lets readers read up to `end`. `fresh`: the batches written since the last call, if they were kept.
    pub fn publish(&self, end: Position, fresh: impl Iterator<Item = Fresh>) {
        let mut catalog = self.lock();
        self.metrics.spooled.inc_by(end.line - catalog.end.line);
        catalog.end = end;
        fresh.for_each(|fresh| catalog.fresh.push(fresh));
        let read = catalog.take_read();
        catalog.set_gauges(&self.metrics);
        drop(catalog);
        drop(read);
    }

    /// Drops the batches in memory, so that readers read from the disk.
    #[cfg(test)]
    pub fn forget_fresh(&self) {
        self.lock().fresh = Default::default();
    }

    /// Bytes and batches in memory.
    #[cfg(test)]
    pub fn fresh(&self) -> (usize, usize) {
        let catalog = self.lock();
        (catalog.fresh.bytes(), catalog.fresh.count())
    }

    /// Evicts the oldest segment, with its lines that are not retired. Never evicts the last segment: returns false if
    /// there is no other.
    pub fn evict_oldest(&self, litter: &mut Hysteresis) -> bool {
        let mut catalog = self.lock();
        if catalog.segments.len() < 2 {
            return false;
        }
        let gone = catalog.pop_oldest();
        if let Some(oldest) = catalog.segments.front() {
            let start = oldest.start();
            catalog.cursors.values_mut().for_each(|cursor| cursor.evict(start));
        }
        catalog.set_gauges(&self.metrics);
        drop(catalog);
        // Not by the keeper: the caller waits for the free space.
        gone.into_iter().for_each(|segment| keeper::discard(self, segment, litter));
        true
    }

    /// Acknowledges everything before `up_to`. Positions never move backwards. A position beyond the end is ignored,
    /// because this spool has not given it out. Returns how many lines this delivers.
    pub fn acknowledge(&self, index: usize, up_to: Position) -> u64 {
        let mut catalog = self.lock();
        let end = catalog.end;
        let cursor = catalog.cursor(index);
        if up_to.line > end.line || up_to.line <= cursor.acknowledged().line {
            return 0;
        }
        let delivered = cursor.acknowledge(up_to);
        catalog.set_gauges(&self.metrics);
        delivered
    }

    /// Retires everything before `up_to`, and acknowledges it too. Positions never move backwards. A position beyond
    /// the end is ignored, because this spool has not given it out. Returns how many lines this delivers.
    pub fn retire(self: &Arc<Self>, index: usize, up_to: Position) -> u64 {
        let mut catalog = self.lock();
        if up_to.line > catalog.end.line {
            return 0;
        }
        let delivered = catalog.cursor(index).retire(up_to);
        catalog.set_gauges(&self.metrics);
        drop(catalog);
        self.remove_passed();
        delivered
    }

    /// Notes lines, of those read last, that the forward's `match` does not match. They are counted when the cursor
    /// passes them.
    pub fn note_filtered(&self, index: usize, lines: &[Range<u64>]) {
        self.lock().cursor(index).note_filtered(lines);
    }

    /// Retires as [`retire`](Self::retire) does, but only the lines behind `from`: lines before it may have to be sent
    /// again.
    pub fn retire_beyond(&self, index: usize, from: Position, up_to: Position) -> u64 {
        let mut catalog = self.lock();
        if up_to.line > catalog.end.line {
            return 0;
        }
        let delivered = catalog.cursor(index).retire_beyond(from, up_to);
        catalog.set_gauges(&self.metrics);
        delivered
    }

    /// Moves `read` back to `to` or to the first line that is not retired, whichever is later. Returns how many lines
    /// lie between.
    pub fn rewind(&self, index: usize, read: &mut Position, to: Option<Position>) -> u64 {
        let retired = self.lock().cursor(index).rewind();
        let to = to.filter(|to| to.line > retired.line).unwrap_or(retired);
        std::mem::replace(read, to).line.saturating_sub(to.line)
    }

    /// The lines that can be read at `read`. Moves `read` out of segments that were evicted or are read to their end,
    /// to where these lines begin. `None`: no line can be read now. Touches no files.
    pub fn window(self: &Arc<Self>, index: usize, read: &mut Position) -> Option<Window> {
        let mut catalog = self.lock();
        let cursor = catalog.cursor(index);
        if read.line < cursor.retired().line {
            *read = cursor.retired();
        }
        cursor.read = read.line;
        loop {
            // A gap stays a gap, even if its lines could be read now: the next relay may have received the lines behind
            // it, and would take these for repeated ones.
            while let Some(behind) = catalog.cursor(index).gap_at(read.line) {
                *read = behind;
            }
            let end = catalog.end;
            let i = catalog.find(read.segment);
            let next = catalog.segments.get(i + 1).map(Segment::start);
            let segment = catalog.segments.get(i).filter(|segment| segment.number <= end.segment)?;
            if segment.number != read.segment {
                let start = segment.start();
                catalog.skip(index, read, start, &self.metrics);
                continue;
            }
            let (limit, stop) = match next {
                Some(next) if segment.number < end.segment => (segment.bytes, next),
                _ => (end.offset, end),
            };
            let lines = stop.line.saturating_sub(read.line);
            let (session, key, file) = (segment.session, segment.key, segment.file.clone());
            if lines > 0 && read.offset < limit {
                let gap = catalog.cursor(index).next_gap(read.line);
                if let (None, Some((batch, offset))) = (gap, catalog.fresh.at(read)) {
                    return Some(Window::Fresh { batch, offset, session });
                }
                let max_lines = gap.map_or(lines, |from| lines.min(from - read.line));
                return Some(Window::Stored(Stored { file, session, key, limit, lines, max_lines }));
            }
            if lines == 0 && stop.segment == segment.number {
                let read = catalog.take_read();
                drop(catalog);
                drop(read);
                return None;
            }
            let segment = &mut catalog.segments[i];
            let file = segment.file.take();
            if lines > 0 && !std::mem::replace(&mut segment.damaged, true) {
                let file = segment::path(&self.dir, segment.number);
                tracing::error!(file = %file.display(), lines, "spool: lines are missing behind a segment");
            }
            catalog.skip(index, read, stop, &self.metrics);
            if let Some(file) = file {
                drop(catalog);
                self.hand_over(Job::Close(file));
                catalog = self.lock();
            }
        }
    }

    /// Keeps a segment open for the next reader there.
    pub fn keep_open(&self, number: u64, file: &Arc<File>) {
        let mut catalog = self.lock();
        let i = catalog.find(number);
        if let Some(segment) = catalog.segments.get_mut(i).filter(|segment| segment.number == number) {
            segment.file = Some(file.clone());
        }
    }

    /// The oldest pending line of the forward `name`. Reads no file and moves no position. `None`: no line is pending.
    pub fn oldest(&self, name: &str) -> Option<Oldest> {
        let catalog = self.lock();
        let mut at = catalog.cursors.values().find(|cursor| cursor.name == name)?.acknowledged();
        if at.line >= catalog.end.line {
            return None;
        }
        let behind = catalog.segments.partition_point(|segment| segment.first_line <= at.line);
        let segment = catalog.segments.get(behind.checked_sub(1)?)?;
        if segment.number != at.segment {
            at = segment.start();
        }
        if let Some((batch, offset)) = catalog.fresh.at(&mut at) {
            return Some(Oldest::Fresh { batch, offset });
        }
        let limit = if segment.number < catalog.end.segment { segment.bytes } else { catalog.end.offset };
        Some(Oldest::Stored { at, limit, key: segment.key })
    }

    /// Whether the policy allows to evict, and there is a segment besides the one that is written to.
    pub fn can_evict(&self) -> bool {
        let catalog = self.lock();
        catalog.limits.when_full == WhenFull::DropOldest && catalog.segments.len() > 1
    }

    /// Notes that nothing can be read at `read`. Moves `read` to `found` in the same segment, or behind the segment.
    /// The lines between count as damaged.
    pub fn damaged(&self, index: usize, read: &mut Position, found: Option<Position>, why: &dyn std::fmt::Display) {
        let mut catalog = self.lock();
        let end = catalog.end;
        let i = catalog.find(read.segment);
        let to = match (found, catalog.segments.get(i + 1)) {
            (Some(found), _) => found,
            (None, Some(next)) if read.segment < end.segment => next.start(),
            _ => end,
        };
        let mut known = true;
        if let Some(segment) = catalog.segments.get_mut(i).filter(|segment| segment.number == read.segment) {
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
        catalog.skip(index, read, to, &self.metrics);
    }

    /// Removes the segments that every forward has retired, but never the last one: it has the spool's id and the
    /// number of the next line.
    fn remove_passed(self: &Arc<Self>) {
        loop {
            let mut catalog = self.lock();
            let Some(next_line) = catalog.segments.get(1).map(|next| next.first_line) else { return };
            if !catalog.all_retired(next_line) {
                return;
            }
            let gone = catalog.pop_oldest();
            catalog.set_gauges(&self.metrics);
            drop(catalog);
            gone.into_iter().for_each(|segment| self.hand_over(Job::Discard(segment)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock()
    }
}
