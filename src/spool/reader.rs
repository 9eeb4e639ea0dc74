//! The reader: one forward's way through the spool. It reads ahead of its cursor, and moves the cursor when the
//! collector has the lines. What a position means for counters and segments is `log`'s business.
//!
//! What was written a moment ago is in memory and is had at once. Nothing here waits for a disk once the spool's threads are
//! started: what must be read is brought by `read_head`, what must be written is handed to `keeper`.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{oneshot, watch};

use super::Position;
#[cfg(test)]
use super::batch::Batch;
use super::batch::Run;
use super::cursor::CursorFile;
use super::keeper::{Job, Letter};
use super::log::Log;
use super::read_head::{Found, Read, ReadHead};
use super::resend::Resends;
use crate::hex;
use crate::identity::Identity;

/// Reads lines for one forward, and retires them.
pub struct Reader {
    log: Arc<Log>,
    /// Which of the log's cursors is this reader's.
    index: usize,
    name: String,
    /// Where the next line is read, as far as it is known here.
    head: ReadHead,
    /// A copy of the head reads from a segment.
    away: Option<Away>,
    /// What that copy has brought, as far as nobody has asked for it yet.
    brought: VecDeque<Chunk>,
    /// What that copy has failed with.
    failed: Option<io::Error>,
    /// The published end; closed when the writer is.
    end: watch::Receiver<Position>,
    /// The dead letter that is being written: there is never more than one.
    rejecting: Option<Rejecting>,
    forgotten: bool,
}

struct Away {
    back: oneshot::Receiver<Read>,
    /// What the copy brings is not what is wanted any more.
    is_stale: bool,
}

struct Rejecting {
    session: u32,
    number: u64,
    answer: oneshot::Receiver<io::Result<()>>,
}

/// Lines read in one go. They stay in the spool until they are retired.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub run: Run,
    /// Which opening of the spool numbered the lines: with [`Reader::stream`] and its number it names a line for good.
    pub session: u32,
    /// Where the first line lies.
    pub start: Position,
    /// What to [`retire`](Reader::retire) when the collector has all of it.
    pub end: Position,
}

impl Chunk {
    /// Lines as if they had been read; `first` is the number of the first one.
    #[cfg(test)]
    pub fn of<'l>(session: u32, first: u64, lines: impl IntoIterator<Item = &'l [u8]>) -> Self {
        let mut batch = Batch::new();
        lines.into_iter().for_each(|line| batch.push(|bytes| bytes.extend_from_slice(line)));
        let start = Position { segment: 1, offset: 0, line: first };
        let end = Position { segment: 1, offset: batch.byte_len() as u64, line: first + batch.line_count() };
        Self { run: Run::whole(batch), session, start, end }
    }

    /// About `max_bytes` of it but at least one line, and the rest where there is one.
    fn split(self, max_bytes: usize) -> (Self, Option<Self>) {
        let Self { run, session, start, end } = self;
        let (first, rest) = run.split(max_bytes);
        let Some(rest) = rest else { return (Self { run: first, session, start, end }, None) };
        let (offset, line) = (start.offset + first.byte_len() as u64, start.line + first.line_count());
        let middle = Position { offset, line, ..start };
        (Self { run: first, session, start, end: middle }, Some(Self { run: rest, session, start: middle, end }))
    }

    /// Each line with the position behind it, which is what to retire when the collector has the chunk so far.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], Position)> {
        let Position { segment, offset, line } = self.start;
        (line + 1..)
            .zip(self.run.lines_and_ends())
            .map(move |(number, (line, end))| (line, Position { segment, offset: offset + end as u64, line: number }))
    }
}

impl Reader {
    /// `cursor`: the file that the forward's positions are kept in from now on, if nobody has it yet.
    pub(super) fn new(
        log: Arc<Log>,
        (index, name): (usize, String),
        end: watch::Receiver<Position>,
        cursor: Option<CursorFile>,
    ) -> Self {
        let retired = log.positions(index).map_or(*end.borrow(), |positions| positions.retired);
        if let Some(cursor) = cursor {
            log.hand_over(Job::Keep(index, cursor));
        }
        let head = ReadHead::new(log.clone(), index, retired);
        Self {
            log,
            index,
            name,
            head,
            away: None,
            brought: VecDeque::new(),
            failed: None,
            end,
            rejecting: None,
            forgotten: false,
        }
    }

    /// The next lines, about `max_bytes` of them but at least one; `None` when there is nothing to be had now: all that is
    /// spooled has been read, or the disk is being read. [`wait`](Self::wait) says when to ask again.
    ///
    /// Damage is skipped, logged and counted. An error means that nothing was read, and that it is worth another try a
    /// little later; a place that goes on failing is skipped too.
    pub fn next(&mut self, max_bytes: usize) -> io::Result<Option<Chunk>> {
        if let Some(away) = &mut self.away {
            match away.back.try_recv() {
                Err(TryRecvError::Empty) => return Ok(None),
                read => self.take_back(read.ok()),
            }
        }
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        if let Some(brought) = self.brought.pop_front() {
            let (chunk, rest) = brought.split(max_bytes);
            if let Some(rest) = rest {
                self.brought.push_front(rest);
            }
            return Ok(Some(chunk));
        }
        match self.head.in_memory(max_bytes) {
            Found::Chunk(chunk) => Ok(Some(chunk)),
            Found::End => Ok(None),
            Found::OnDisk => match self.head.go(max_bytes) {
                Some(back) => {
                    self.away = Some(Away { back, is_stale: false });
                    Ok(None)
                }
                None => self.head.next(max_bytes),
            },
        }
    }

    /// `None`: the thread that reads is gone, which only a panic can do.
    fn take_back(&mut self, read: Option<Read>) {
        let is_stale = self.away.take().is_none_or(|away| away.is_stale);
        if let Some((head, read)) = read.filter(|_| !is_stale) {
            self.head = head;
            match read {
                Ok(chunks) => self.brought = chunks,
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// Waits until there is more than has been read: true. False when there never will be, because the writer has
    /// closed and all is read. Dropping the future loses nothing.
    pub async fn wait(&mut self) -> bool {
        loop {
            if !self.brought.is_empty() || self.failed.is_some() {
                return true;
            }
            if let Some(away) = &mut self.away {
                let read = (&mut away.back).await.ok();
                self.take_back(read);
                continue;
            }
            if self.end.borrow_and_update().line > self.head.at.line {
                return true;
            }
            if self.end.changed().await.is_err() {
                return self.end.borrow().line > self.head.at.line;
            }
        }
    }

    /// Whether something is being read, which [`wait`](Self::wait) waits for.
    pub fn is_reading(&self) -> bool {
        self.away.is_some()
    }

    /// The collector has everything before `up_to`, as far as the transport can tell: counts it as delivered, and keeps it,
    /// for it may have to be sent again. A position before the last one changes nothing. Returns how many lines are delivered
    /// by it.
    pub fn acknowledge(&mut self, up_to: Position) -> u64 {
        let delivered = self.log.acknowledge(self.index, up_to);
        self.log.cursor_moved();
        delivered
    }

    /// Nothing before `up_to` will be sent again: [acknowledges](Self::acknowledge) it and removes the segments that no
    /// forward needs any more. A position before the last one changes nothing. Returns how many lines are delivered by it.
    pub fn retire(&mut self, up_to: Position) -> u64 {
        let delivered = self.log.retire(self.index, up_to);
        self.log.cursor_moved();
        delivered
    }

    /// Nothing between `from` and `up_to` will be sent again, though some lines before `from` may be, in which case these are not
    /// read again: [acknowledges](Self::acknowledge) all before `up_to`. Returns how many lines are delivered by it.
    pub fn retire_beyond(&mut self, from: Position, up_to: Position) -> u64 {
        let delivered = self.log.retire_beyond(self.index, from, up_to);
        self.log.cursor_moved();
        delivered
    }

    /// The forward's `match` does not mean these of the lines that were read last: they do not count as delivered when
    /// they are acknowledged.
    pub fn note_filtered(&self, lines: &[Range<u64>]) {
        self.log.note_filtered(self.index, lines);
    }

    /// The collector has refused a line for good: writes it to the forward's dead letters, where it is on the disk when this
    /// returns. It counts as rejected when it is acknowledged, and must not be acknowledged before. Lines come in order; one
    /// that comes again is not written again.
    ///
    /// `session` and `number` name the line, `why` is what the collector said. Errors say which file cannot be written, or is
    /// full and has to be moved away: the line must be tried again then, for it is kept nowhere else. A future that is dropped
    /// leaves the letter to be written; ask again what became of it.
    pub async fn reject(&mut self, (session, number): (u32, u64), why: &str, line: &[u8]) -> io::Result<()> {
        loop {
            let rejecting = self.rejecting.get_or_insert_with(|| {
                let (index, forward) = (self.index, self.name.clone());
                let letter = Letter {
                    index,
                    forward,
                    session,
                    number,
                    why: why.to_owned(),
                    line: line.to_vec(),
                    is_resent: false,
                };
                let (done, answer) = oneshot::channel();
                self.log.hand_over(Job::Reject(letter, done));
                Rejecting { session, number, answer }
            });
            let is_asked_for = (rejecting.session, rejecting.number) == (session, number);
            let written = (&mut rejecting.answer).await;
            self.rejecting = None;
            if is_asked_for {
                written.unwrap_or_else(|_| Err(io::Error::other("the spool is closed")))?;
                self.log.note_rejected(self.index, number);
                return Ok(());
            }
        }
    }

    /// The forward's dead letters that are to be sent again.
    pub fn resends(&self) -> Resends {
        Resends::new(self.log.clone(), self.index, self.name.clone())
    }

    /// Goes back to the first line that is not retired, after a connection broke. Returns how many lines will be read
    /// again; whether they had been sent is for the caller to know.
    pub fn rewind(&mut self) -> u64 {
        self.rewind_to(None)
    }

    /// As [`rewind`](Self::rewind) does, but not further than `to`.
    pub fn rewind_to(&mut self, to: Option<Position>) -> u64 {
        let unasked: u64 = self.brought.drain(..).map(|chunk| chunk.run.line_count()).sum();
        self.failed = None;
        if let Some(away) = &mut self.away {
            away.is_stale = true;
        }
        self.head.rewind(to).saturating_sub(unasked)
    }

    /// Names what this reader reads, wherever it is sent: `<spool id, 32 hex digits>/<forward>`.
    pub fn stream(&self) -> String {
        format!("{}/{}", hex::encode(&self.log.id), self.name)
    }

    /// What proves to others who has numbered the lines.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.log.identity.clone()
    }

    /// The forward is no more: its cursor holds nothing back from now on, and its file is removed. A reader that is
    /// merely dropped stays known, and what it has not retired is kept for it.
    pub fn forget(mut self) {
        self.forgotten = true;
        self.log.forget(self.index);
    }

    /// Lines spooled and not retired: pending or replayable.
    pub fn unretired(&self) -> u64 {
        self.pending() + self.replayable()
    }

    /// Lines spooled that the collector has not got.
    pub fn pending(&self) -> u64 {
        self.log.left(self.index).0
    }

    /// Lines that the collector has got, and that are kept because they may have to be sent again.
    pub fn replayable(&self) -> u64 {
        self.log.left(self.index).1
    }

    /// The first line that is not retired.
    pub fn position(&self) -> Position {
        self.log.positions(self.index).map_or(*self.end.borrow(), |positions| positions.retired)
    }

    /// The first line that is not acknowledged.
    pub fn acknowledged(&self) -> Position {
        self.log.positions(self.index).map_or(*self.end.borrow(), |positions| positions.acknowledged)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.forgotten {
            self.log.release(self.index);
            self.log.cursor_moved();
        }
    }
}
