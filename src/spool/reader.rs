//! The reader of one forward. It reads ahead of its cursor, and moves the cursor when the collector has the lines.
//! `log` does the counting and removes segments.
//!
//! The last written batches are in memory and are returned at once. Once the spool's threads are started, nothing here
//! waits for a disk: `read_head` brings lines from the disk, and `keeper` writes files.

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
    /// The index of this reader's cursor in the log.
    index: usize,
    name: String,
    /// The position of the next line to read, while no copy is away.
    head: ReadHead,
    /// A copy of the head that reads from a segment.
    away: Option<Away>,
    /// The chunks that the copy has brought, and that the forward has not asked for yet.
    brought: VecDeque<Chunk>,
    /// The error of that copy.
    failed: Option<io::Error>,
    /// The published end. The channel is closed when the writer is.
    end: watch::Receiver<Position>,
    /// The dead letter that is being written; at most one at a time.
    rejecting: Option<Rejecting>,
    forgotten: bool,
}

struct Away {
    back: oneshot::Receiver<Read>,
    /// The reader has gone back meanwhile, so the result of the copy is dropped.
    is_stale: bool,
}

struct Rejecting {
    session: u32,
    number: u64,
    answer: oneshot::Receiver<io::Result<()>>,
}

/// Lines that were read together. They stay in the spool until they are retired.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub run: Run,
    /// The opening of the spool that numbered the lines. [`Reader::stream`], session and number identify a line for
    /// good.
    pub session: u32,
    /// The position of the first line.
    pub start: Position,
    /// The position to [`retire`](Reader::retire) when the collector has the whole chunk.
    pub end: Position,
}

impl Chunk {
    /// A chunk for tests; `first` is the number of its first line.
    #[cfg(test)]
    pub fn of<'l>(session: u32, first: u64, lines: impl IntoIterator<Item = &'l [u8]>) -> Self {
        let mut batch = Batch::new();
        lines.into_iter().for_each(|line| batch.push(|bytes| bytes.extend_from_slice(line)));
        let start = Position { segment: 1, offset: 0, line: first };
        let end = Position { segment: 1, offset: batch.byte_len() as u64, line: first + batch.line_count() };
        Self { run: Run::whole(batch), session, start, end }
    }

    /// Splits off about `max_bytes`, but at least one line. Returns the rest as well, if there is one.
    fn split(self, max_bytes: usize) -> (Self, Option<Self>) {
        let Self { run, session, start, end } = self;
        let (first, rest) = run.split(max_bytes);
        let Some(rest) = rest else { return (Self { run: first, session, start, end }, None) };
        let (offset, line) = (start.offset + first.byte_len() as u64, start.line + first.line_count());
        let middle = Position { offset, line, ..start };
        (Self { run: first, session, start, end: middle }, Some(Self { run: rest, session, start: middle, end }))
    }

    /// Each line with the position behind it: the position to retire when the collector has the chunk up to this line.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], Position)> {
        let Position { segment, offset, line } = self.start;
        (line + 1..)
            .zip(self.run.lines_and_ends())
            .map(move |(number, (line, end))| (line, Position { segment, offset: offset + end as u64, line: number }))
    }
}

impl Reader {
    /// `cursor`: the file that stores the forward's positions from now on, if the keeper does not have it yet.
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

    /// The next lines, about `max_bytes` but at least one line. `None`: no lines are available now, because all spooled
    /// lines have been read or the disk is being read. [`wait`](Self::wait) says when to ask again.
    ///
    /// Damage is skipped, logged and counted. An error means that nothing was read, and that the caller should retry a
    /// little later. A place that keeps failing is skipped too.
    pub fn next(&mut self, max_bytes: usize) -> io::Result<Option<Chunk>> {
        let chunk = self.take(max_bytes)?;
        if let Some(chunk) = &chunk {
            self.log.coalescing.note_chunk(chunk.run.byte_len());
        }
        Ok(chunk)
    }

    fn take(&mut self, max_bytes: usize) -> io::Result<Option<Chunk>> {
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

    /// `None`: the reading thread is gone, which happens only after a panic.
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

    /// Waits until there are more lines to read: true. False: there will be no more, because the writer has closed and
    /// all lines are read. Dropping the future loses nothing.
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

    /// Whether a read is under way, which [`wait`](Self::wait) waits for.
    pub fn is_reading(&self) -> bool {
        self.away.is_some()
    }

    /// Acknowledges everything before `up_to`: the collector has these lines, as far as the transport can tell. They
    /// count as delivered, and are kept, because they may have to be sent again. A position before the last one changes
    /// nothing. Returns how many lines this delivers.
    pub fn acknowledge(&mut self, up_to: Position) -> u64 {
        let delivered = self.log.acknowledge(self.index, up_to);
        self.log.cursor_moved();
        delivered
    }

    /// Retires everything before `up_to`: these lines will not be sent again. [Acknowledges](Self::acknowledge) them,
    /// and removes the segments that no forward needs any more. A position before the last one changes nothing. Returns
    /// how many lines this delivers.
    pub fn retire(&mut self, up_to: Position) -> u64 {
        let delivered = self.log.retire(self.index, up_to);
        self.log.cursor_moved();
        delivered
    }

    /// Retires the lines between `from` and `up_to`, although lines before `from` may be sent again: the lines between
    /// are then not read again. [Acknowledges](Self::acknowledge) everything before `up_to`. Returns how many lines
    /// this delivers.
    pub fn retire_beyond(&mut self, from: Position, up_to: Position) -> u64 {
        let delivered = self.log.retire_beyond(self.index, from, up_to);
        self.log.cursor_moved();
        delivered
    }

    /// Notes lines, of those read last, that the forward's `match` does not match. When they are acknowledged, they do
    /// not count as delivered.
    pub fn note_filtered(&self, lines: &[Range<u64>]) {
        self.log.note_filtered(self.index, lines);
    }

    /// Writes a line that the collector has refused for good to the forward's dead letters. It is on the disk when this
    /// returns. It counts as rejected when it is acknowledged, and must not be acknowledged before. Lines come in
    /// order. A line that comes again is not written again.
    ///
    /// `session` and `number` identify the line; `why` is the collector's reason. Errors say which file cannot be
    /// written, or is full and has to be moved away. The caller must then retry, because no other file has the line. If
    /// the future is dropped, the letter is still written; call this again to learn the result.
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

    /// The forward's dead letters, to be sent again.
    pub fn resends(&self) -> Resends {
        Resends::new(self.log.clone(), self.index, self.name.clone())
    }

    /// Goes back to the first line that is not retired, after a connection broke. Returns how many lines will be read
    /// again. The caller knows which of them it had sent.
    pub fn rewind(&mut self) -> u64 {
        self.rewind_to(None)
    }

    /// Goes back as [`rewind`](Self::rewind) does, but not further than `to`.
    pub fn rewind_to(&mut self, to: Option<Position>) -> u64 {
        let unasked: u64 = self.brought.drain(..).map(|chunk| chunk.run.line_count()).sum();
        self.failed = None;
        if let Some(away) = &mut self.away {
            away.is_stale = true;
        }
        self.head.rewind(to).saturating_sub(unasked)
    }

    /// The name of this reader's lines, for receivers: `<spool id, 32 hex digits>/<forward>`.
    pub fn stream(&self) -> String {
        format!("{}/{}", hex::encode(&self.log.id), self.name)
    }

    /// The key that proves to receivers who has numbered the lines.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.log.identity.clone()
    }

    /// Removes the forward: its cursor holds back no more lines, and its file is removed. A reader that is only dropped
    /// keeps its cursor and the lines that it has not retired.
    pub fn forget(mut self) {
        self.forgotten = true;
        self.log.forget(self.index);
    }

    /// Spooled lines that are not retired: pending or replayable.
    pub fn unretired(&self) -> u64 {
        self.pending() + self.replayable()
    }

    /// Spooled lines that are not acknowledged.
    pub fn pending(&self) -> u64 {
        self.log.left(self.index).0
    }

    /// Acknowledged lines that are kept because they may have to be sent again.
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
