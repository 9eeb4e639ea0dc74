//! Space: chooses the segment for the next lines, keeps the segments under the cap, and evicts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Refusal, Writer};
use crate::spool::catalog::Segment;
use crate::spool::segment::{self, HEADER_LEN, Header};
use crate::spool::sync::Flush;
use crate::spool::{Position, WhenFull};

impl Writer {
    /// The bytes that all segments may take, less the head of a segment, so that a new segment can begin before the
    /// oldest is removed.
    fn cap(&self) -> u64 {
        self.log.limits().max_bytes.saturating_sub(HEADER_LEN + self.ledger.snapshot_len())
    }

    pub(super) fn never_fits(&self, bytes: u64) -> bool {
        HEADER_LEN + self.ledger.snapshot_len() + bytes > self.cap()
    }

    pub(in crate::spool) fn has_lines(&self) -> bool {
        self.end.offset > self.head
    }

    /// Makes sure that there is a segment for the first of `sizes` (in bytes), and that it fits under the cap. Evicts
    /// older lines for it only if `may_evict`. Returns how many of `sizes` fit.
    pub(super) fn make_space(
        &mut self,
        sizes: impl IntoIterator<Item = u64>,
        may_evict: bool,
    ) -> Result<usize, Refusal> {
        let mut sizes = sizes.into_iter();
        let Some(first) = sizes.next() else { return Ok(0) };
        if self.never_fits(first) {
            return Err(Refusal::Full); // Evicting everything would not help.
        }
        if let Flush::Behind(behind) = &self.flush
            && behind.take_failed()
        {
            self.leave_segment();
        }
        if self.current.is_none() || (self.has_lines() && self.end.offset + first > self.log.limits().segment_bytes) {
            // Without a new segment, lines can still go to a full one; without any segment they cannot.
            match self.begin_segment() {
                Err(error) if self.current.is_none() => return Err(Refusal::Disk(error)),
                Err(error) => {
                    self.log.metrics.errors.inc();
                    self.complain(&error, NO_SEGMENT);
                }
                Ok(()) => {}
            }
        }
        while self.log.bytes() + first > self.cap() {
            if !may_evict || self.log.limits().when_full == WhenFull::DropNewest {
                return Err(Refusal::Full);
            }
            if self.evict() {
                self.say_full("the oldest lines are given up, and counted,");
                continue;
            }
            if !self.has_lines() {
                return Err(Refusal::Full); // Unreachable: beside an empty segment there is room for what passed the first check.
            }
            self.begin_segment().map_err(Refusal::Disk)?; // Then the segment before it can be evicted.
        }
        let room = self.cap().saturating_sub(self.log.bytes());
        let room = room.min(self.log.limits().segment_bytes.saturating_sub(self.end.offset));
        let mut bytes = first;
        let more = sizes.take_while(|size| {
            bytes += size;
            bytes <= room
        });
        Ok(1 + more.count())
    }

    /// Evicts the oldest lines above the cap, if the policy is to do so. The newest segment is evicted too, if it alone
    /// is too large.
    pub(in crate::spool) fn fit(&mut self) {
        while self.log.limits().when_full == WhenFull::DropOldest && self.log.bytes() > self.cap() {
            if self.evict() {
                self.say_full("the oldest lines are given up, and counted,");
                continue;
            }
            let has_lines = self.current.is_none() || self.has_lines();
            if !has_lines || self.keep_home().and_then(|()| self.begin_segment()).is_err() {
                break; // The next write logs the error.
            }
        }
        self.publish();
    }

    fn evict(&mut self) -> bool {
        let gone = self.log.evict_oldest(&mut self.litter);
        if let Flush::Behind(behind) = &self.flush {
            behind.forget_removed();
        }
        gone
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        if let (Flush::Always, Some(file)) = (&self.flush, &self.current) {
            file.sync_data()?;
        }
        let number = self.next_number;
        self.next_number += 1;
        let header = Header::new(self.log.id, number, self.end.line, self.session);
        let snapshot = self.ledger.snapshot(header.key());
        let file = Arc::new(segment::create(&self.log.dir, &header, &snapshot)?);
        // The head has the spool's id and the ledger, and the older segments may be removed as soon as it exists.
        if let Flush::Always = self.flush {
            self.sync(&file).inspect_err(|_| drop(segment::remove(&self.log.dir, number)))?;
        }
        // The segment's name in the directory must be as safe as its bytes.
        let dir = File::open(&self.log.dir).map(Arc::new);
        match (&self.flush, dir) {
            (Flush::Always, Ok(dir)) => {
                dir.sync_data().inspect_err(|_| drop(segment::remove(&self.log.dir, number)))?;
            }
            (Flush::Behind(behind), Ok(dir)) => behind.mark(&dir),
            _ => {}
        }
        self.head = HEADER_LEN + snapshot.len() as u64;
        self.key = header.key();
        self.log.add(Segment::new(&header, self.head));
        self.current = Some(file);
        self.end = Position { segment: number, offset: self.head, line: self.end.line };
        Ok(())
    }

    /// Tries to remove the cause of a failed write, and returns whether to retry. A full disk: frees space. Another error: begins
    /// a new segment.
    pub(super) fn relieve(&mut self, error: &io::Error) -> bool {
        match is_full(error) {
            true => self.recycle() || (self.log.limits().when_full == WhenFull::DropOldest && self.evict()),
            false => self.leave_segment(),
        }
    }

    /// Cuts the newest segment to its head if every forward has retired all of it: the next segment needs free space
    /// before this one can be removed. The header stays, because it has the spool's id.
    pub(in crate::spool) fn recycle(&mut self) -> bool {
        let Some(file) = self.current.as_ref().filter(|_| self.has_lines() && self.log.all_retired(self.end)) else {
            return false;
        };
        let given_back = file.set_len(HEADER_LEN).is_ok();
        if given_back {
            // The segment had the ledger too. The space for it has just been freed.
            let snapshot = self.ledger.snapshot(self.key);
            let kept = file.write_all_at(&snapshot, HEADER_LEN).is_ok();
            self.log.grow(HEADER_LEN + if kept { snapshot.len() as u64 } else { 0 });
            self.current = None;
        }
        given_back
    }

    /// Has the next write begin a new segment. False: the current segment is empty, so a new one would be no better,
    /// and a broken disk must not be filled with empty segments.
    pub(super) fn leave_segment(&mut self) -> bool {
        if self.current.is_some() && !self.has_lines() {
            return false;
        }
        self.current = None;
        true
    }
}

/// Whether the error says that the disk is full. Eviction helps against that.
pub(in crate::spool) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

const NO_SEGMENT: &str = "a new segment cannot be begun; lines go on into the last one. Inspection at the disk";
