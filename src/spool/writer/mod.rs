//! The writer: appends batches to the newest segment, begins the next one, and keeps the spool under its cap. All of it
//! is plain blocking code that answers with counters, not with errors: whatever the disk does, the relay goes on.
//!
//! Batches come in two kinds. One that was *sent* is written or dropped, for its sender cannot wait. One that was
//! *delivered* is held until it can be written, and all that were delivered later wait behind it; nothing is given up for
//! it. The two kinds never wait for one another.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::watch;

use super::fresh::Fresh;
use super::hysteresis::Hysteresis;
use super::inlet::{Delivery, Inlet, Queued, Receipt};
use super::ledger::{self, Ledger, Mark};
use super::log::{Log, Segment};
use super::pace::Pace;
use super::record::Batch;
use super::segment::{self, HEADER_LEN, Header};
use super::sync::{DOES_NOT_SYNC, Flush};
use super::{Origin, Position, WhenFull};
use crate::files;

/// What is written and published at once, in bytes, if that much has queued. Beyond it nothing is gained but delay.
const GROUP_BYTES: usize = 1 << 20;

/// How long the writer waits before it tries again with what it holds, and looks into the queue meanwhile. Short enough
/// that senders who cannot wait do not notice, long enough that a full disk is left in peace.
const HELD_NAP: Duration = Duration::from_millis(50);

/// Appends lines to the spool. One for each spool; readers learn about the end of the log from it, and that it is final
/// when the writer is dropped.
pub struct Writer {
    pub(super) log: Arc<Log>,
    pub(super) ledger: Ledger,
    pub(super) session: u32,
    /// What the next segment is called. No number is used twice, not even after a failure.
    pub(super) next_number: u64,
    /// The segment written to, `end.segment`. `None`: the next append begins one. That is so after opening, for the tail
    /// of a file that a crash has touched is no place to append to, and after a failure that may have left anything in it.
    pub(super) current: Option<Arc<File>>,
    /// What the records of the current segment are sealed with.
    pub(super) key: u32,
    /// Where the first line of the current segment goes: behind the header and the ledger's snapshot.
    pub(super) head: u64,
    /// Behind the last line written; published at the end of each append.
    pub(super) end: Position,
    pub(super) published: watch::Sender<Position>,
    /// Written and not published yet.
    pub(super) fresh: Vec<Fresh>,
    pub(super) flush: Flush,
    /// `None`: it writes as fast as lines come.
    pub(super) pace: Option<Pace>,
    /// Something was written and not synced; only kept up where each append has to sync.
    pub(super) unsynced: bool,
    /// Delivered and not written yet, in the order of delivery.
    pub(super) held: VecDeque<Delivery>,
    /// The disk refuses what we write.
    pub(super) trouble: Hysteresis,
    /// Lines are given up, or made to wait, for want of room.
    pub(super) full: Hysteresis,
    /// `None`: the disk has taken something since.
    pub(super) last_refusal: Option<LastRefusal>,
    #[cfg(test)]
    pub(super) faults: VecDeque<io::ErrorKind>,
    /// How many of the next syncs fail.
    #[cfg(test)]
    pub(super) sync_faults: u32,
}

/// When and why the disk refused something last.
pub(super) struct LastRefusal {
    pub at: Instant,
    pub why: String,
}

/// Why lines were not written.
#[derive(Debug)]
enum Refusal {
    /// There is no room under the cap.
    Full,
    Disk(io::Error),
}

impl Writer {
    /// Writes the batches and publishes them to the readers, who get what was written: the batches are empty then. What
    /// cannot be written is dropped and counted. Then tries again with what is held.
    pub fn append(&mut self, batches: &mut [Batch]) {
        self.ledger.fit(self.log.limits().segment_bytes);
        let mut rest = batches;
        while !rest.is_empty() {
            let (mut taken, mut result) = self.append_run(rest);
            if let Err(Refusal::Disk(error)) = &result {
                self.log.metrics.errors.inc();
                if self.relieve(error) {
                    (taken, result) = self.append_run(rest);
                }
            }
            let (run, behind) = rest.split_at_mut(taken);
            self.account(run, result);
            rest = behind;
        }
        self.publish();
        self.write_held();
    }

    /// What [`Inlet::deliver`] does, without a queue.
    pub fn deliver(&mut self, batch: Batch, origin: Option<Origin>) -> Receipt {
        let (delivery, receipt) = Delivery::new(batch, origin, None);
        self.held.push_back(delivery);
        self.write_held();
        receipt
    }

    /// Starts the thread that owns the writer from now on. It ends, with everything queued written and synced, when the
    /// last clone of the inlet is dropped. `patience`: see [`Inlet::send`].
    ///
    /// Errors: the thread cannot be started.
    pub fn spawn(self, patience: Option<Duration>) -> io::Result<(Inlet, JoinHandle<()>)> {
        let (inlet, queued) = Inlet::new(patience, self.log.metrics.clone());
        let thread = thread::Builder::new().name("spool-writer".into()).spawn(move || self.run(queued))?;
        Ok((inlet, thread))
    }

    /// Takes all that has queued, writes it once, and again.
    fn run(mut self, mut queued: mpsc::UnboundedReceiver<Queued>) {
        let (mut batches, mut permits) = (Vec::new(), Vec::new());
        loop {
            let mut next = match self.held.is_empty() {
                true => queued.blocking_recv().ok_or(TryRecvError::Disconnected),
                false => {
                    thread::sleep(HELD_NAP);
                    queued.try_recv()
                }
            };
            if let Err(TryRecvError::Disconnected) = next {
                break;
            }
            let mut bytes = 0;
            while let Ok(one) = next {
                match one {
                    Queued::Sent { batch, permit } => {
                        bytes += batch.byte_len();
                        batches.push(batch);
                        permits.push(permit);
                    }
                    // Nobody waits for the answer any more if it took too long.
                    Queued::Probe(answer) => drop(answer.send_replace(Some((Instant::now(), self.probe())))),
                    Queued::Delivered(delivery) => {
                        bytes += delivery.batch.byte_len();
                        self.held.push_back(delivery);
                    }
                }
                next = if bytes < GROUP_BYTES { queued.try_recv() } else { Err(TryRecvError::Empty) };
            }
            self.append(&mut batches);
            batches.clear();
            permits.clear();
            // What is taken counts, whatever becomes of it. When nobody can send any more, the rest is written at once.
            if let Some(pace) = &mut self.pace
                && queued.sender_strong_count() > 0
            {
                thread::sleep(pace.wrote(bytes as u64, Instant::now()));
            }
        }
        // One last time; what is still held then stays with its senders, who learn it when the receipts go.
        self.write_held();
    }

    /// Writes as many batches as go into one segment, at least the first one. Returns how many were tried, and where they
    /// begin; nothing of them is in the spool unless all are.
    fn append_run(&mut self, batches: &mut [Batch]) -> (usize, Result<Position, Refusal>) {
        let sizes = batches.iter().map(|batch| batch.byte_len() as u64);
        match self.make_room(sizes, true) {
            Err(refusal) => (1, Err(refusal)),
            Ok(count) => {
                let run = &mut batches[..count];
                run.iter_mut().for_each(|batch| batch.seal(self.key));
                let records: Vec<&[u8]> = run.iter().map(Batch::as_bytes).collect();
                let lines = run.iter().map(Batch::line_count).sum();
                let start = self.end;
                let written = self.write(&records, lines, false);
                (count, written.map(|()| start).map_err(Refusal::Disk))
            }
        }
    }

    /// Writes what is held, in order, until something finds no room. Its senders learn that the spool has it.
    fn write_held(&mut self) {
        while !self.held.is_empty() {
            match self.write_held_run() {
                Ok(()) => {}
                Err(Refusal::Full) => {
                    self.say_full("senders that can be made to wait do so");
                    break;
                }
                Err(Refusal::Disk(error)) => {
                    self.log.metrics.errors.inc();
                    match is_full(&error) {
                        true => self.recycle(),
                        false => self.leave_segment(),
                    };
                    self.refuse(&error);
                    break;
                }
            }
        }
        let lines: u64 = self.held.iter().map(|delivery| delivery.batch.line_count()).sum();
        self.log.metrics.held.set(lines as i64);
    }

    /// Writes as many of the held batches as go into one segment, at least the first one, or nothing.
    fn write_held_run(&mut self) -> Result<(), Refusal> {
        let mut held = std::mem::take(&mut self.held);
        let result = match held.front() {
            // Needs no room, and must not wait for any.
            Some(first) if self.known(first) == first.batch.line_count() => {
                self.log.metrics.dropped_repeated.inc_by(first.batch.line_count());
                Ok(1)
            }
            Some(first) if self.never_fits(self.cost(first)) => {
                self.log.metrics.dropped_full.inc_by(first.batch.line_count());
                held.pop_front();
                Ok(0)
            }
            _ => self.write_deliveries(&mut held),
        };
        let settled = *result.as_ref().unwrap_or(&0);
        for delivery in held.drain(..settled) {
            // Nobody waits for a receipt any more if its sender is gone.
            let _ = delivery.receipt.send(());
        }
        self.held = held;
        result.map(drop)
    }

    /// Returns how many are written now, published and as safe as the policy promises.
    fn write_deliveries(&mut self, held: &mut VecDeque<Delivery>) -> Result<usize, Refusal> {
        let count = self.make_room(held.iter().map(|delivery| self.cost(delivery)).collect::<Vec<_>>(), false)?;
        let (mut written, mut repeated, mut records) = (0, 0, Vec::new());
        // Where those begin that are written whole: what readers need not read back.
        let (mut at, mut starts) = (self.end, Vec::new());
        // A write that fails has not happened.
        let before = self.ledger.clone();
        for delivery in held.iter_mut().take(count) {
            delivery.batch.seal(self.key);
            let lines = delivery.batch.line_count();
            let known = self.known(delivery);
            repeated += known;
            written += lines - known;
            if let Some(Origin { stream, session, first_line }) = &delivery.origin
                && known < lines
            {
                let (first, next) = (first_line.saturating_add(known), first_line.saturating_add(lines));
                let mut mark = Vec::new();
                Mark { stream, session: *session, first, count: lines - known }.write(&mut mark, self.key);
                at.offset += mark.len() as u64;
                records.push(Cow::Owned(mark));
                self.ledger.advance(stream, *session, next);
            }
            let behind = delivery.batch.behind(known);
            starts.push((known == 0).then_some(at));
            at.offset += behind.len() as u64;
            at.line += lines - known;
            records.push(Cow::Borrowed(behind));
        }
        let records: Vec<&[u8]> = records.iter().map(|records| &**records).collect();
        if let Err(error) = self.write(&records, written, true) {
            self.ledger = before;
            return Err(Refusal::Disk(error));
        }
        self.log.metrics.dropped_repeated.inc_by(repeated);
        self.calm();
        for (delivery, start) in held.iter_mut().zip(starts) {
            if let Some(start) = start {
                self.keep(start, std::slice::from_mut(&mut delivery.batch));
            }
        }
        self.publish();
        Ok(count)
    }

    /// How many lines of a delivered batch are here already.
    fn known(&self, delivery: &Delivery) -> u64 {
        delivery.origin.as_ref().map_or(0, |origin| self.ledger.known(origin, delivery.batch.line_count()))
    }

    /// What a delivered batch takes, in bytes. An origin takes its mark twice: before the lines, and as long as it is
    /// known in each segment that begins.
    fn cost(&self, delivery: &Delivery) -> u64 {
        let marks = delivery.origin.as_ref().map_or(0, |origin| 2 * ledger::mark_len(&origin.stream));
        delivery.batch.byte_len() as u64 + marks
    }

    /// Bytes that all segments may take, so that another one can be begun before the oldest is gone.
    fn cap(&self) -> u64 {
        self.log.limits().max_bytes.saturating_sub(HEADER_LEN + self.ledger.snapshot_len())
    }

    fn never_fits(&self, bytes: u64) -> bool {
        HEADER_LEN + self.ledger.snapshot_len() + bytes > self.cap()
    }

    pub(super) fn has_lines(&self) -> bool {
        self.end.offset > self.head
    }

    /// Makes sure that there is a segment for the first of `sizes` (in bytes), and that it fits under the cap; older lines
    /// are given up for it only if they may be. Returns how many of `sizes` fit.
    fn make_room(&mut self, sizes: impl IntoIterator<Item = u64>, may_evict: bool) -> Result<usize, Refusal> {
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

    fn evict(&mut self) -> bool {
        let gone = self.log.evict_oldest();
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
        let created = segment::create(&self.log.dir, &header, &snapshot).or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            files::create_dir(&self.log.dir)?;
            tracing::error!(dir = %self.log.dir.display(), "spool: the directory was gone and is made again");
            segment::create(&self.log.dir, &header, &snapshot)
        });
        let file = Arc::new(created?);
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

    /// Writes a run with one system call, or not at all. `safe`: and where the policy is to sync always, syncs it before
    /// it counts as written.
    fn write(&mut self, run: &[&[u8]], lines: u64, safe: bool) -> io::Result<()> {
        let Some(file) = self.current.clone() else { return Err(io::ErrorKind::NotFound.into()) };
        let safe = safe && matches!(self.flush, Flush::Always);
        let written = match self.fault(&file, run) {
            Some(fault) => Err(fault),
            None => write_all(&file, run),
        };
        if let Err(error) = written.and_then(|()| if safe { self.sync(&file) } else { Ok(()) }) {
            self.undo();
            return Err(error);
        }
        self.unsynced |= !safe;
        if let Flush::Behind(behind) = &self.flush {
            behind.mark(&file);
        }
        self.end.offset += run.iter().map(|records| records.len() as u64).sum::<u64>();
        self.end.line += lines;
        self.log.grow(self.end.offset);
        Ok(())
    }

    /// What a full disk does: it takes some of it.
    #[cfg(test)]
    fn fault(&mut self, mut file: &File, run: &[&[u8]]) -> Option<io::Error> {
        let kind = self.faults.pop_front()?;
        let _ = file.write_all(&run[0][..run[0].len() / 2]);
        Some(kind.into())
    }

    #[cfg(not(test))]
    fn fault(&mut self, _: &File, _: &[&[u8]]) -> Option<io::Error> {
        None
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        self.log.metrics.syncs.inc();
        #[cfg(test)]
        if let Some(left) = self.sync_faults.checked_sub(1) {
            self.sync_faults = left;
            return Err(io::Error::other("a sync that fails"));
        }
        file.sync_data()
    }

    /// Cuts off what a failed write has left. If not even that works the segment is left alone: its lines end before.
    fn undo(&mut self) {
        let cut = self.current.as_ref().map(|file| file.set_len(self.end.offset));
        if let Some(Err(_)) = cut {
            self.current = None;
        }
    }

    /// Whether, after `error`, it is worth another try: with the oldest segment given up when there is no room, in a new
    /// segment when there is something wrong with this one.
    fn relieve(&mut self, error: &io::Error) -> bool {
        match is_full(error) {
            true => self.recycle() || (self.log.limits().when_full == WhenFull::DropOldest && self.evict()),
            false => self.leave_segment(),
        }
    }

    /// Gives the room of the newest segment back when every forward has passed all of it: the next segment needs some to
    /// begin with, and only then can this one go. It keeps its header, and with it the spool its id.
    pub(super) fn recycle(&mut self) -> bool {
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
    fn leave_segment(&mut self) -> bool {
        if self.current.is_some() && !self.has_lines() {
            return false;
        }
        self.current = None;
        true
    }

    /// Counts what became of a run, and says so when that changes. What was written is kept for the readers.
    fn account(&mut self, run: &mut [Batch], result: Result<Position, Refusal>) {
        let lines = run.iter().map(|batch| batch.line_count()).sum();
        match result {
            Ok(start) => {
                self.calm();
                self.keep(start, run);
            }
            Err(Refusal::Full) => {
                self.log.metrics.dropped_full.inc_by(lines);
                self.say_full("new lines are dropped, and counted,");
            }
            Err(Refusal::Disk(error)) => {
                self.log.metrics.dropped_error.inc_by(lines);
                self.refuse(&error);
            }
        }
    }

    fn keep(&mut self, mut start: Position, run: &mut [Batch]) {
        for batch in run {
            let batch = Arc::new(std::mem::take(batch));
            let (bytes, lines) = (batch.byte_len() as u64, batch.line_count());
            self.fresh.push(Fresh { start, batch });
            start.offset += bytes;
            start.line += lines;
        }
    }

    fn calm(&mut self) {
        self.last_refusal = None;
        if self.trouble.ends() {
            tracing::info!(dir = %self.log.dir.display(), "spool: the disk takes lines again");
        }
        if self.full.ends() {
            tracing::info!(dir = %self.log.dir.display(), "spool: there is room again");
        }
    }

    fn say_full(&mut self, what: &str) {
        if self.full.begins() {
            let (dir, max_bytes) = (self.log.dir.display(), self.log.limits().max_bytes);
            tracing::warn!(%dir, max_bytes, "spool: full: {what} until a forward has delivered");
        }
    }

    fn refuse(&mut self, error: &io::Error) {
        self.last_refusal = Some(LastRefusal { at: Instant::now(), why: error.to_string() });
        self.complain(error, REFUSES);
    }

    fn complain(&mut self, error: &io::Error, what: &str) {
        if self.trouble.begins() {
            tracing::error!(dir = %self.log.dir.display(), %error, "spool: {what}");
        }
    }

    fn publish(&mut self) {
        if let (Flush::Always, true, Some(file)) = (&self.flush, self.unsynced, self.current.clone())
            && let Err(error) = self.sync(&file)
        {
            // The kernel now takes the lost pages for clean, so a second sync of this file would succeed and mean
            // nothing. The lines can still be read: they go on, and the next ones go to another file.
            self.log.metrics.errors.inc();
            self.complain(&error, DOES_NOT_SYNC);
            self.current = None;
        }
        self.unsynced = false;
        self.log.publish(self.end, self.fresh.drain(..));
        self.published.send_replace(self.end);
    }
}

/// Whether the disk has no room, which giving up a segment helps against.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

const REFUSES: &str = "the disk does not take lines; until it does they are dropped and counted, or their senders made to \
                       wait. Make room on it, or let `max-size` be less than there is";
const NO_SEGMENT: &str = "a new segment cannot be begun; lines go on into the last one. Inspection at the disk";

impl Drop for Writer {
    /// Closing is syncing, whatever the policy; the readers learn that the end is final.
    fn drop(&mut self) {
        self.log.metrics.held.set(0);
        if let Some(file) = &self.current
            && let Err(error) = file.sync_data()
        {
            self.log.metrics.errors.inc();
            tracing::error!(dir = %self.log.dir.display(), %error, "spool: the disk did not sync at the end");
        }
    }
}

fn write_all(mut file: &File, run: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = run.iter().map(|records| IoSlice::new(records)).collect();
    let mut slices = slices.as_mut_slice();
    // Also drops leading empty slices, of which a write would return 0 and look like a full disk.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
