//! The writer: appends batches to the newest segment, begins new segments, and keeps the spool under its cap. It is
//! plain blocking code, and reports failures in counters and the log instead of returning them: the relay goes on
//! whatever the disk does.
//!
//! There are two kinds of batches. A *sent* batch is written or dropped, because its sender cannot wait. A *delivered*
//! batch is held until it can be written, and all later deliveries wait behind it; nothing is evicted for it. The two
//! kinds never wait for one another. `held` handles deliveries; `space` handles segments and the cap.

mod held;
mod space;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::watch;

use super::Position;
use super::batch::Batch;
use super::fresh::Fresh;
use super::home::Found;
use super::hysteresis::Hysteresis;
use super::inlet::{Delivery, Inlet, QueueReceiver, Queued};
use super::ledger::Ledger;
use super::log::Log;
use super::pace::Pace;
use super::sync::{DOES_NOT_SYNC, Flush};
pub(super) use space::is_full;

/// Beyond this many bytes the writer takes no more batches into one write and one publication. More would only add
/// delay.
const GROUP_BYTES: usize = 1 << 20;

/// Small batches are merged up to this size, so that a forward sends them together.
const MERGED_BYTES: u64 = 32 << 10;

/// How long the writer waits before it tries to write held batches again, and looks into the queue. Short enough that
/// senders that cannot wait do not notice, long enough to spare a full disk.
const HELD_NAP: Duration = Duration::from_millis(50);

/// Appends lines to the spool. Each spool has one writer. Readers learn the end of the log from it; when it is dropped,
/// the end is final.
pub struct Writer {
    pub(super) log: Arc<Log>,
    pub(super) ledger: Ledger,
    pub(super) session: u32,
    /// The number of the next segment. No number is used twice, not even after a failure.
    pub(super) next_number: u64,
    /// The segment that is written to, `end.segment`. `None`: the next append begins one. This is so after opening,
    /// because a crash may have damaged the end of the last file, and after a failure that may have left unknown bytes
    /// in it.
    pub(super) current: Option<Arc<File>>,
    /// The key of the current segment, for the checksums of its records.
    pub(super) key: u32,
    /// The offset of the first line in the current segment: behind the header and the ledger's snapshot.
    pub(super) head: u64,
    /// The position behind the last written line; published at the end of each append.
    pub(super) end: Position,
    pub(super) published: watch::Sender<Position>,
    /// Batches that are written and not published yet.
    pub(super) fresh: Vec<Fresh>,
    pub(super) flush: Flush,
    /// `None`: no rate limit.
    pub(super) pace: Option<Pace>,
    /// Lines were written and not synced. Only the policy *always* uses it.
    pub(super) unsynced: bool,
    /// Batches that are delivered and not written yet, in the order of delivery.
    pub(super) held: VecDeque<Delivery>,
    /// The disk refuses writes.
    pub(super) trouble: Hysteresis,
    /// Lines are dropped, evicted or held for want of room.
    pub(super) full: Hysteresis,
    /// Evicted segments cannot be removed.
    pub(super) litter: Hysteresis,
    /// `None`: the disk has taken lines since.
    pub(super) last_refusal: Option<LastRefusal>,
    #[cfg(test)]
    pub(super) faults: VecDeque<io::ErrorKind>,
    /// How many of the next syncs fail.
    #[cfg(test)]
    pub(super) sync_faults: u32,
}

/// Time and reason of the disk's last refusal.
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
    /// Writes the batches and publishes them to the readers, which get the written batches: those are empty afterwards.
    /// Lines that cannot be written are dropped and counted. Then tries to write the held batches.
    pub fn append(&mut self, batches: &mut [Batch]) {
        self.ledger.fit(self.log.limits().segment_bytes);
        let mut rest = batches;
        if !rest.is_empty() && self.keep_home().is_err() {
            let lines = rest.iter().map(Batch::line_count).sum();
            self.log.metrics.dropped_error.inc_by(lines);
            rest = &mut [];
        }
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

    /// Starts the spool's threads, one of which owns the writer from now on. When the last clone of the inlet is
    /// dropped, the writer's thread writes and syncs everything queued, and ends. `patience`: see [`Inlet::send`].
    ///
    /// Errors: a thread cannot be started.
    pub fn spawn(self, patience: Option<Duration>) -> io::Result<(Inlet, JoinHandle<()>)> {
        let (inlet, queued) = Inlet::new(patience, self.log.fill.clone(), self.log.metrics.clone());
        let inlet = inlet.with_coalescing(self.log.coalescing.clone());
        self.log.start_threads()?;
        let thread = thread::Builder::new().name("spool-writer".into()).spawn(move || self.run(queued))?;
        Ok((inlet, thread))
    }

    /// Repeatedly takes all queued batches and writes them together.
    pub(super) fn run(mut self, mut queued: QueueReceiver) {
        let (mut batches, mut permits) = (Vec::new(), Vec::new());
        loop {
            let mut next = match self.held.is_empty() {
                true => queued.wait().ok_or(TryRecvError::Disconnected),
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
                    Queued::Fit => self.fit(),
                    // Sending fails if the asking task has given up.
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
            // All bytes taken count towards the rate, written or not. Once all senders are gone, the rest is written at
            // once.
            if let Some(pace) = &mut self.pace
                && queued.is_open()
            {
                thread::sleep(pace.wrote(bytes as u64, Instant::now()));
            }
        }
        // The last attempt. Batches that are still held stay with their senders, which learn it when the receipts are
        // dropped.
        self.write_held();
    }

    /// Writes as many batches as fit into one segment, at least the first one. Returns how many were tried, and their
    /// start. On an error none of them is in the spool.
    fn append_run(&mut self, batches: &mut [Batch]) -> (usize, Result<Position, Refusal>) {
        let sizes = batches.iter().map(|batch| batch.byte_len() as u64);
        match self.make_space(sizes, true) {
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

    /// Writes a run completely or not at all, if possible with one system call. `safe`: under the policy *always*, the
    /// run is synced before it counts as written.
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

    /// Simulates a full disk, which takes a part of a write.
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

    pub(super) fn sync(&mut self, file: &File) -> io::Result<()> {
        self.log.metrics.syncs.inc();
        #[cfg(test)]
        if let Some(left) = self.sync_faults.checked_sub(1) {
            self.sync_faults = left;
            return Err(io::Error::other("a sync that fails"));
        }
        file.sync_data()
    }

    /// Cuts off the bytes of a failed write. If that fails too, the segment is not written to any more, and readers
    /// stop before these bytes.
    fn undo(&mut self) {
        let cut = self.current.as_ref().map(|file| file.set_len(self.end.offset));
        if let Some(Err(_)) = cut {
            self.current = None;
        }
    }

    /// Counts the lines of a run by its result, and logs changes. Written batches are kept in memory for the readers.
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
            let batch = std::mem::take(batch);
            let (bytes, lines) = (batch.byte_len() as u64, batch.line_count());
            match self.fresh.last_mut().filter(|last| last.end() == start && last.bytes() + bytes <= MERGED_BYTES) {
                Some(last) => last.append(batch),
                None => self.fresh.push(Fresh::new(start, batch)),
            }
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

    /// Checks before each write that the directory is the spool's, and takes it again if it was removed. A write to a removed
    /// file would lose lines that were reported as safe.
    pub(super) fn keep_home(&mut self) -> io::Result<()> {
        let found = self.log.keep_home().inspect_err(|error| {
            self.log.metrics.errors.inc();
            self.last_refusal = Some(LastRefusal { at: Instant::now(), why: error.to_string() });
            self.complain(error, NOT_OURS);
        })?;
        if found == Found::Anew {
            let dir = self.log.dir.display();
            tracing::error!(
                %dir,
                "spool: the directory was removed while it was in use, and is taken again; lines that only it had are lost, and \
                 count as damaged when a forward gets to them"
            );
            self.current = None;
            self.last_refusal = None;
            self.log.cursor_moved();
        }
        Ok(())
    }

    fn publish(&mut self) {
        if let (Flush::Always, true, Some(file)) = (&self.flush, self.unsynced, self.current.clone())
            && let Err(error) = self.sync(&file)
        {
            // The kernel now marks the lost pages as clean, so a second sync of this file would succeed and mean
            // nothing. The lines can still be read, so they are published, and the next lines go to another file.
            self.log.metrics.errors.inc();
            self.complain(&error, DOES_NOT_SYNC);
            self.current = None;
        }
        self.unsynced = false;
        self.fresh.iter().for_each(|fresh| self.log.tap.offer(&fresh.batch));
        self.log.publish(self.end, self.fresh.drain(..));
        self.published.send_replace(self.end);
    }
}

const REFUSES: &str = "the disk does not take lines; until it does they are dropped and counted, or their senders made to \
                       wait. Make room on it, or let `max-size` be less than there is";
const NOT_OURS: &str = "the directory was removed or replaced while it was in use; new lines are dropped and counted, or their \
                        senders made to wait. Restart the relay when its directory is in place";

impl Drop for Writer {
    /// Syncs whatever the policy is. Readers learn that the end is final.
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
    // Also drops leading empty slices. Writing these would return 0, which looks like a full disk.
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
