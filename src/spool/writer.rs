//! The writer: appends batches to the newest segment, begins the next one, and keeps the spool under its cap. All of it
//! is plain blocking code that answers with counters, not with errors: whatever the disk does, the relay goes on.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};

use super::inlet::{Inlet, QUEUE_KIB, Queued};
use super::log::Log;
use super::record::Batch;
use super::segment::{self, HEADER_LEN, Header, SpoolId};
use super::sync::Flush;
use super::{Position, WhenFull};

/// What is written and published at once, in bytes, if that much has queued. Beyond it nothing is gained but delay.
const GROUP_BYTES: usize = 4 << 20;

/// How long nothing may fail before the disk is said to work again. On a full disk small batches fit and large ones do
/// not: without a pause, whoever sends them would have us write two lines of log for each.
const CALM: Duration = Duration::from_secs(60);

/// Appends lines to the spool. One for each spool; readers learn about the end of the log from it, and that it is final
/// when the writer is dropped.
pub struct Writer {
    pub(super) log: Arc<Log>,
    pub(super) limits: Limits,
    pub(super) id: SpoolId,
    pub(super) session: u32,
    /// What the next segment is called. No number is used twice, not even after a failure.
    pub(super) next_number: u64,
    /// The segment written to, `end.segment`. `None`: the next append begins one. That is so after opening, for the tail
    /// of a file that a crash has touched is no place to append to, and after a failure that may have left anything in it.
    pub(super) current: Option<Arc<File>>,
    /// Behind the last line written; published at the end of each append.
    pub(super) end: Position,
    pub(super) published: watch::Sender<Position>,
    pub(super) flush: Flush,
    /// When the disk last refused what we wrote, if that has been said and not taken back.
    pub(super) trouble: Option<Instant>,
    #[cfg(test)]
    pub(super) faults: std::collections::VecDeque<io::ErrorKind>,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of all segments, one header less than the option says: a segment can be begun before another one is gone.
    pub max_bytes: u64,
    /// Bytes after which a segment is full.
    pub segment_bytes: u64,
    pub when_full: WhenFull,
}

/// Why lines were not written.
#[derive(Debug)]
enum Refusal {
    /// There is no room under the cap.
    Full,
    Disk(io::Error),
}

impl Writer {
    /// Writes the batches and publishes them to the readers. What cannot be written is dropped and counted.
    pub fn append(&mut self, batches: &[Batch]) {
        let mut rest = batches;
        while !rest.is_empty() {
            let (mut taken, mut result) = self.append_run(rest);
            if let Err(Refusal::Disk(error)) = &result {
                self.log.metrics.errors.inc();
                if self.relieve(error) {
                    (taken, result) = self.append_run(rest);
                }
            }
            let (run, behind) = rest.split_at(taken);
            self.account(run, result);
            rest = behind;
        }
        self.publish();
    }

    /// Starts the thread that owns the writer from now on. It ends, with everything queued written and synced, when the
    /// last clone of the inlet is dropped. `patience`: see [`Inlet::send`].
    ///
    /// Errors: the thread cannot be started.
    pub fn spawn(self, patience: Option<Duration>) -> io::Result<(Inlet, JoinHandle<()>)> {
        let (queue, queued) = mpsc::unbounded_channel();
        let inlet = Inlet {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
            patience,
            stalled: Arc::new(AtomicBool::new(false)),
            metrics: self.log.metrics.clone(),
        };
        let thread = thread::Builder::new().name("spool-writer".into()).spawn(move || self.run(queued))?;
        Ok((inlet, thread))
    }

    /// Takes all that has queued, writes it once, and again.
    fn run(mut self, mut queued: mpsc::UnboundedReceiver<Queued>) {
        let (mut batches, mut receipts, mut permits) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(first) = queued.blocking_recv() {
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(Queued { batch, receipt, permit, .. }) = next {
                bytes += batch.byte_len();
                batches.push(batch);
                receipts.extend(receipt);
                permits.push(permit);
                next = if bytes < GROUP_BYTES { queued.try_recv().ok() } else { None };
            }
            self.append(&batches);
            // Nobody waits for a receipt any more if its sender is gone.
            for receipt in receipts.drain(..) {
                let _ = receipt.send(());
            }
            batches.clear();
            permits.clear();
        }
    }

    /// Writes as many batches as go into one segment, at least the first one. Returns how many were tried, and nothing
    /// of them is in the spool unless all are.
    fn append_run(&mut self, batches: &[Batch]) -> (usize, Result<(), Refusal>) {
        let first = batches[0].byte_len() as u64;
        if let Err(refusal) = self.make_room(first) {
            return (1, Err(refusal));
        }
        let room = self.limits.max_bytes.saturating_sub(self.log.bytes());
        let room = room.min(self.limits.segment_bytes.saturating_sub(self.end.offset));
        let mut bytes = first;
        let more = batches[1..].iter().take_while(|batch| {
            bytes += batch.byte_len() as u64;
            bytes <= room
        });
        let count = 1 + more.count();
        (count, self.write(&batches[..count]).map_err(Refusal::Disk))
    }

    /// Makes sure that there is a segment to write `bytes` to, and that they fit under the cap.
    fn make_room(&mut self, bytes: u64) -> Result<(), Refusal> {
        if HEADER_LEN + bytes > self.limits.max_bytes {
            return Err(Refusal::Full); // Giving up all that is there would not help.
        }
        let has_lines = self.end.offset > HEADER_LEN;
        if self.current.is_none() || (has_lines && self.end.offset + bytes > self.limits.segment_bytes) {
            // A full segment does where no other can be had; none at all does not.
            match self.begin_segment() {
                Err(error) if self.current.is_none() => return Err(Refusal::Disk(error)),
                _ => {}
            }
        }
        while self.log.bytes() + bytes > self.limits.max_bytes {
            if self.limits.when_full == WhenFull::DropNewest {
                return Err(Refusal::Full);
            }
            if self.evict() {
                continue;
            }
            if self.end.offset == HEADER_LEN {
                return Err(Refusal::Full); // Cannot be: one empty segment leaves room for what passed the first check.
            }
            self.begin_segment().map_err(Refusal::Disk)?; // Then the one before can go.
        }
        Ok(())
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
        let header = Header::new(self.id, number, self.end.line, self.session);
        let file = Arc::new(segment::create(&self.log.dir, &header)?);
        // The directory's entry is as much part of the segment as its bytes are.
        let dir = File::open(&self.log.dir).map(Arc::new);
        match (&self.flush, dir) {
            (Flush::Always, Ok(dir)) => {
                dir.sync_data().inspect_err(|_| drop(segment::remove(&self.log.dir, number)))?;
            }
            (Flush::Behind(behind), Ok(dir)) => behind.mark(&dir),
            _ => {}
        }
        self.log.add(number, self.end.line);
        self.current = Some(file);
        self.end = Position { segment: number, offset: HEADER_LEN, line: self.end.line };
        Ok(())
    }

    /// Writes a run with one system call, or not at all.
    fn write(&mut self, run: &[Batch]) -> io::Result<()> {
        #[cfg(test)]
        let fault = self.faults.pop_front();
        let Some(file) = &self.current else { return Err(io::ErrorKind::NotFound.into()) };
        #[cfg(test)]
        if let Some(kind) = fault {
            // What a full disk does: it takes some of it.
            (&**file).write_all(&run[0].as_bytes()[..run[0].byte_len() / 2])?;
            self.undo();
            return Err(kind.into());
        }
        if let Err(error) = write_all(file, run) {
            self.undo();
            return Err(error);
        }
        if let Flush::Behind(behind) = &self.flush {
            behind.mark(file);
        }
        for batch in run {
            self.end.offset += batch.byte_len() as u64;
            self.end.line += batch.line_count();
        }
        self.log.grow(self.end.offset);
        Ok(())
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
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if let StorageFull | QuotaExceeded | FileTooLarge = error.kind() {
            return self.limits.when_full == WhenFull::DropOldest && self.evict();
        }
        // An empty segment is as new as another one would be; and a broken disk must not fill with empty segments.
        if self.end.offset == HEADER_LEN {
            return false;
        }
        self.current = None;
        true
    }

    /// Counts what became of a run, and says so when that changes.
    fn account(&mut self, run: &[Batch], result: Result<(), Refusal>) {
        let lines = run.iter().map(Batch::line_count).sum();
        match result {
            Ok(()) => {
                if self.trouble.is_some_and(|last| last.elapsed() > CALM) {
                    self.trouble = None;
                    tracing::info!(dir = %self.log.dir.display(), "spool: the disk takes lines again");
                }
            }
            Err(Refusal::Full) => drop(self.log.metrics.dropped_full.inc_by(lines)),
            Err(Refusal::Disk(error)) => {
                self.log.metrics.dropped_error.inc_by(lines);
                self.complain(&error);
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if self.trouble.replace(Instant::now()).is_none() {
            tracing::error!(
                dir = %self.log.dir.display(), %error,
                "spool: the disk does not take lines; they are dropped and counted until it does. \
                 Make room on it, or let `max-size` be less than there is"
            );
        }
    }

    fn publish(&mut self) {
        if let (Flush::Always, Some(file)) = (&self.flush, &self.current)
            && let Err(error) = file.sync_data()
        {
            // The kernel now takes the lost pages for clean, so a second sync of this file would succeed and mean
            // nothing. The lines can still be read: they go on, and the next ones go to another file.
            self.log.metrics.errors.inc();
            self.complain(&error);
            self.current = None;
        }
        self.log.publish(self.end);
        self.published.send_replace(self.end);
    }
}

impl Drop for Writer {
    /// Closing is syncing, whatever the policy; the readers learn that the end is final.
    fn drop(&mut self) {
        if let Some(file) = &self.current
            && let Err(error) = file.sync_data()
        {
            self.log.metrics.errors.inc();
            tracing::error!(dir = %self.log.dir.display(), %error, "spool: the disk did not sync at the end");
        }
    }
}

fn write_all(mut file: &File, run: &[Batch]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = run.iter().map(|batch| IoSlice::new(batch.as_bytes())).collect();
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
