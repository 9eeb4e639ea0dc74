//! Space: which segment the next lines go to, what may be there under the cap, and what is given up for it.

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
    /// Bytes that all segments may take, so that another one can be begun before the oldest is gone.
    fn cap(&self) -> u64 {
        self.log.limits().max_bytes.saturating_sub(HEADER_LEN + self.ledger.snapshot_len())
    }

    pub(super) fn never_fits(&self, bytes: u64) -> bool {
        HEADER_LEN + self.ledger.snapshot_len() + bytes > self.cap()
    }

    pub(in crate::spool) fn has_lines(&self) -> bool {
        self.end.offset > self.head
    }

    /// Makes sure that there is a segment for the first of `sizes` (in bytes), and that it fits under the cap; older lines
    /// are given up for it only if they may be. Returns how many of `sizes` fit.
    pub(super) fn make_space(
        &mut self,
        sizes: impl IntoIterator<Item = u64>,
        may_evict: bool,
    ) -> Result<usize, Refusal> {
        let mut sizes = sizes.into_iter();
        let Some(first) = sizes.next() else { return Ok(0) };
        if self.never_fits(first) {
            return Err(Refusal::Full); // Giving up all that is there would not help.
        }
        if let Flush::Behind(behind) = &self.flush
            && behind.take_failed()
        {
            self.leave_segment();
        }
        if self.current.is_none() || (self.has_lines() && self.end.offset + first > self.log.limits().segment_bytes) {
            // A full segment does where no other can be had; none at all does not.
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
                return Err(Refusal::Full); // Cannot be: one empty segment leaves room for what passed the first check.
            }
            self.begin_segment().map_err(Refusal::Disk)?; // Then the one before can go.
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

    /// Gives the oldest lines up that are above the cap, where the policy is to do so. The newest segment goes too, if it alone
    /// is too large.
    pub(in crate::spool) fn fit(&mut self) {
        while self.log.limits().when_full == WhenFull::DropOldest && self.log.bytes() > self.cap() {
            if self.evict() {
                self.say_full("the oldest lines are given up, and counted,");
                continue;
            }
            let has_lines = self.current.is_none() || self.has_lines();
            if !has_lines || self.keep_home().and_then(|()| self.begin_segment()).is_err() {
                break; // The next line that comes says what is wrong.
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
        // It says which spool this is and what is known of others, and what is older may go as soon as it is there.
        if let Flush::Always = self.flush {
            self.sync(&file).inspect_err(|_| drop(segment::remove(&self.log.dir, number)))?;
        }
        // The directory's entry is as much part of the segment as its bytes are.
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

    /// Whether, after `error`, it is worth another try: with the oldest segment given up when there is no room, in a new
    /// segment when there is something wrong with this one.
    pub(super) fn relieve(&mut self, error: &io::Error) -> bool {
        match is_full(error) {
            true => self.recycle() || (self.log.limits().when_full == WhenFull::DropOldest && self.evict()),
            false => self.leave_segment(),
        }
    }

    /// Gives the room of the newest segment back when every forward has passed all of it: the next segment needs some to
    /// begin with, and only then can this one go. It keeps its header, and with it the spool its id.
    pub(in crate::spool) fn recycle(&mut self) -> bool {
        let Some(file) = self.current.as_ref().filter(|_| self.has_lines() && self.log.all_retired(self.end)) else {
            return false;
        };
        let given_back = file.set_len(HEADER_LEN).is_ok();
        if given_back {
            // The ledger was in it too. There was room for it a moment ago.
            let snapshot = self.ledger.snapshot(self.key);
            let kept = file.write_all_at(&snapshot, HEADER_LEN).is_ok();
            self.log.grow(HEADER_LEN + if kept { snapshot.len() as u64 } else { 0 });
            self.current = None;
        }
        given_back
    }

    /// The next write goes to a new segment. False if it would be no newer than this one: an empty segment is as new as
    /// another one would be, and a broken disk must not fill with empty segments.
    pub(super) fn leave_segment(&mut self) -> bool {
        if self.current.is_some() && !self.has_lines() {
            return false;
        }
        self.current = None;
        true
    }
}

/// Whether the disk has no room, which giving up a segment helps against.
pub(in crate::spool) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

const NO_SEGMENT: &str = "a new segment cannot be begun; lines go on into the last one. Inspection at the disk";
