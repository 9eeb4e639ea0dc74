//! The reader: one forward's way through the spool. It reads ahead of its cursor, and moves the cursor when the
//! collector has the lines. What a position means for counters and segments is `log`'s business.
//!
//! What was written a moment ago is still in memory and need not be read at all. The rest is read inline, by `pread`,
//! although the caller is an async task: most of it is in the page cache, where 64 KiB take some 15 µs, less than handing
//! them to a thread pool and back. A backlog that really comes
//! from a slow disk holds the other tasks for one such read at a time; UDP is received on a thread of its own.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use nix::errno::Errno;
use tokio::sync::watch;

use super::Position;
use super::batch::{Batch, Run};
use super::cursor::CursorFile;
use super::dead_letters::DeadLetters;
use super::hysteresis::Hysteresis;
use super::log::{Log, Stored, Window};
use super::record;
use super::segment::{self, SpoolId};

/// How often the same place may fail to be read before its segment counts as damaged: a bad block does not get better, and
/// must not hold up all that comes after it.
const READ_ATTEMPTS: u32 = 3;

/// Failures that are not about the place but about the process or the moment: no descriptors or memory, somebody has
/// changed the permissions, a file system over a network is away. They are waited out, however long it takes.
const PASSING: [Errno; 8] = [
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOMEM,
    Errno::EACCES,
    Errno::EPERM,
    Errno::ETIMEDOUT,
    Errno::EHOSTDOWN,
    Errno::EHOSTUNREACH,
];

fn passes(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|raw| PASSING.contains(&Errno::from_raw(raw)))
}

/// Reads lines for one forward, and retires them.
pub struct Reader {
    log: Arc<Log>,
    /// Which of the log's cursors is this reader's.
    index: usize,
    name: String,
    /// Where the next line is read; never before the cursor for long, see [`Log::window`].
    read: Position,
    /// The published end; closed when the writer is.
    end: watch::Receiver<Position>,
    cursor: CursorFile,
    dead_letters: DeadLetters,
    cursor_trouble: Hysteresis,
    /// Reads that failed in a row.
    failures: u32,
    forgotten: bool,
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

    /// Each line with the position behind it, which is what to retire when the collector has the chunk so far.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], Position)> {
        let Position { segment, offset, line } = self.start;
        (line + 1..)
            .zip(self.run.lines_and_ends())
            .map(move |(number, (line, end))| (line, Position { segment, offset: offset + end as u64, line: number }))
    }
}

impl Reader {
    pub(super) fn new(
        log: Arc<Log>,
        (index, name): (usize, String),
        end: watch::Receiver<Position>,
        mut cursor: CursorFile,
    ) -> Self {
        let positions = log.positions(index);
        let read = positions.retired;
        cursor.reserve(positions);
        let dead_letters = DeadLetters::new(&log.dir, &name, hex(&log.id));
        let cursor_trouble = Hysteresis::default();
        Self { log, index, name, read, end, cursor, dead_letters, cursor_trouble, failures: 0, forgotten: false }
    }

    /// The next lines, about `max_bytes` of them but at least one; `None` when all that is spooled has been read.
    ///
    /// Damage is skipped, logged and counted. An error means that nothing was read, and that it is worth another try a
    /// little later; a place that goes on failing is skipped too.
    pub fn next(&mut self, max_bytes: usize) -> io::Result<Option<Chunk>> {
        loop {
            let window = match self.log.window(self.index, &mut self.read) {
                Ok(None) => return Ok(None),
                Ok(Some(Window::Fresh { batch, offset, session })) => {
                    return Ok(Some(self.advance(Run::part(&batch, offset, max_bytes), session)));
                }
                Ok(Some(Window::Stored(window))) => window,
                Err(error) if self.tries_again(&error) => return Err(error),
                Err(error) => {
                    self.pass_over(None, &error);
                    continue;
                }
            };
            match self.read_window(&window, max_bytes) {
                Ok(batch) if !batch.is_empty() => return Ok(Some(self.advance(Run::whole(batch), window.session))),
                // Marks alone; the lines come behind them.
                Ok(batch) if batch.byte_len() > 0 => self.read.offset += batch.byte_len() as u64,
                Ok(_) => self.pass_over(Some(&window), &"checksum mismatch"),
                Err(error) if self.tries_again(&error) => return Err(error),
                Err(error) => self.pass_over(Some(&window), &error),
            }
        }
    }

    /// Whether a read that failed is worth another try.
    fn tries_again(&mut self, error: &io::Error) -> bool {
        let passes = passes(error);
        self.failures += u32::from(!passes);
        passes || (self.failures < READ_ATTEMPTS && error.kind() != io::ErrorKind::NotFound)
    }

    /// Nothing can be read here: goes on behind it.
    fn pass_over(&mut self, window: Option<&Stored>, why: &dyn std::fmt::Display) {
        let found = window.and_then(|window| self.resync(window));
        self.log.damaged(self.index, &mut self.read, found, why);
        self.failures = 0;
    }

    fn read_window(&self, window: &Stored, max_bytes: usize) -> io::Result<Batch> {
        let Stored { file, limit, max_lines, key, .. } = window;
        segment::read(file, self.read.offset, *limit, max_bytes, *max_lines, *key).map(|(batch, _)| batch)
    }

    /// Where reading can go on behind damage at the read position. Records carry no numbers, but the end of the segment
    /// has one: lines are counted back from there, and so never get another number than they had. Between two damaged
    /// places nobody can tell, and what lies there is given up.
    fn resync(&self, window: &Stored) -> Option<Position> {
        let Position { segment, offset, line } = self.read;
        let tail = usize::try_from(window.limit - offset).ok()?;
        let (bytes, _) = segment::read_around(&window.file, offset, tail);
        let last = record::salvage(&bytes, window.key).runs.pop().filter(|run| run.end == tail)?;
        let (batch, _) = Batch::decode(bytes[last.clone()].to_vec(), u64::MAX, window.key);
        // More than can be missing are not all ours; the last ones are.
        let surplus = batch.line_count().saturating_sub(window.lines);
        let start = offset + (last.end - batch.behind(surplus).len()) as u64;
        Some(Position { segment, offset: start, line: line + window.lines - (batch.line_count() - surplus) })
    }

    /// Waits until there is more than has been read: true. False when there never will be, because the writer has
    /// closed and all is read. Dropping the future loses nothing.
    pub async fn wait(&mut self) -> bool {
        loop {
            if self.end.borrow_and_update().line > self.read.line {
                return true;
            }
            // Before a pause of unknown length the file should say where we are.
            self.write_cursor();
            if self.end.changed().await.is_err() {
                return self.end.borrow().line > self.read.line;
            }
        }
    }

    /// The collector has everything before `up_to`, as far as the transport can tell: counts it as delivered, and keeps it,
    /// for it may have to be sent again. A position before the last one changes nothing. Returns how many lines are delivered
    /// by it.
    pub fn acknowledge(&mut self, up_to: Position) -> u64 {
        let delivered = self.log.acknowledge(self.index, up_to);
        self.write_cursor_if_due();
        delivered
    }

    /// Nothing before `up_to` will be sent again: [acknowledges](Self::acknowledge) it and removes the segments that no
    /// forward needs any more. A position before the last one changes nothing. Returns how many lines are delivered by it.
    pub fn retire(&mut self, up_to: Position) -> u64 {
        let delivered = self.log.retire(self.index, up_to);
        self.write_cursor_if_due();
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
    /// `session` and `number` name the line, `why` is what the collector said. Blocks for one write and one sync, the first
    /// time for reading the file too. Errors say which file cannot be written, or is full and has to be moved away: the line
    /// must be tried again then, for it is kept nowhere else.
    pub fn reject(&mut self, (session, number): (u32, u64), why: &str, line: &[u8]) -> io::Result<()> {
        let from = self.log.positions(self.index).retired.line;
        let room = self.log.dead_letter_capacity(&self.name);
        let bytes = self.dead_letters.write((session, number), (why, line), from, room)?;
        self.log.note_rejected(self.index, number, bytes);
        Ok(())
    }

    /// Goes back to the first line that is not retired, after a connection broke. Returns how many lines will be read
    /// again; whether they had been sent is for the caller to know.
    pub fn rewind(&mut self) -> u64 {
        self.log.rewind(self.index, &mut self.read)
    }

    /// Names what this reader reads, wherever it is sent: `<spool id, 32 hex digits>/<forward>`.
    pub fn stream(&self) -> String {
        format!("{}/{}", hex(&self.log.id), self.name)
    }

    /// The forward is no more: its cursor holds nothing back from now on, and its file is removed. A reader that is
    /// merely dropped stays known, and what it has not retired is kept for it.
    pub fn forget(mut self) {
        self.forgotten = true;
        self.log.forget(self.index);
        let result = self.cursor.remove();
        self.cursor_result(result);
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
        self.log.positions(self.index).retired
    }

    /// The first line that is not acknowledged.
    pub fn acknowledged(&self) -> Position {
        self.log.positions(self.index).acknowledged
    }

    fn advance(&mut self, run: Run, session: u32) -> Chunk {
        self.failures = 0;
        let start = self.read;
        let offset = start.offset + run.byte_len() as u64;
        self.read = Position { segment: start.segment, offset, line: start.line + run.line_count() };
        Chunk { run, session, start, end: self.read }
    }

    fn write_cursor(&mut self) {
        let result = self.cursor.write(self.log.positions(self.index));
        self.cursor_result(result);
    }

    fn write_cursor_if_due(&mut self) {
        let result = self.cursor.write_if_due(self.log.positions(self.index));
        self.cursor_result(result);
    }

    /// A cursor that cannot be written costs duplicates after a crash and nothing else: say it once and go on.
    fn cursor_result(&mut self, result: io::Result<()>) {
        let dir = self.log.dir.display();
        match result {
            Ok(()) => {
                if self.cursor_trouble.ends() {
                    tracing::info!(%dir, "spool: the cursor can be written again");
                }
            }
            Err(error) => {
                self.log.metrics.errors.inc();
                if self.cursor_trouble.begins() {
                    tracing::error!(%dir, %error, "spool: a cursor cannot be written; a restart would send lines again");
                }
            }
        }
    }
}

fn hex(id: &SpoolId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.forgotten {
            return;
        }
        self.write_cursor();
        self.log.release(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_is_no_damage() {
        let of = |errno: Errno| passes(&io::Error::from(errno));
        assert!([Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EACCES].into_iter().all(of));
        assert!(![Errno::EIO, Errno::EUCLEAN, Errno::ENOENT, Errno::EISDIR].into_iter().any(of));
    }
}
