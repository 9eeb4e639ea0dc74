//! The read head: one forward's read position, and the reading. The last written batches are still in memory. All other
//! lines are read from segments, on a thread that all forwards share: a disk that hangs delays only the forwards that
//! must read from it. A copy of the head goes to that thread, and comes back with the lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::errno::Errno;
use tokio::sync::oneshot;

use super::Position;
use super::batch::{Batch, Run};
use super::log::{Log, Stored, Window};
use super::reader::Chunk;
use super::{record, segment};

/// After this many failed reads of the same place, its segment counts as damaged. A bad block does not recover, and
/// must not delay all lines behind it.
const READ_ATTEMPTS: u32 = 3;

/// How many chunks one errand reads: the way to the thread and back takes as long as reading that many. A forward with
/// a backlog holds them in memory.
const READ_AHEAD: usize = 16;

/// Errors of the process or the moment, and not of the place: no descriptors or memory, changed permissions, a network
/// file system that is away. The reader waits until they pass, however long that takes.
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

#[derive(Clone)]
pub(super) struct ReadHead {
    log: Arc<Log>,
    /// The index of the reader's cursor in the log.
    index: usize,
    /// The position of the next line to read. It falls behind the cursor only until the next [`Log::window`].
    pub at: Position,
    /// Failed reads in a row.
    failures: u32,
}

/// The result of reading without a disk.
pub(super) enum Found {
    Chunk(Chunk),
    /// All published lines have been read.
    End,
    /// The next lines have to be read from a segment.
    OnDisk,
}

/// A read on its way to the reading thread.
pub(super) struct Errand {
    head: ReadHead,
    max_bytes: usize,
    back: oneshot::Sender<Read>,
}

/// A head that is back, and the chunks it has read, in order. No chunks: all published lines have been read.
pub(super) type Read = (ReadHead, io::Result<VecDeque<Chunk>>);

/// Starts the thread. It ends when all senders are dropped.
pub(super) fn start() -> io::Result<Sender<Errand>> {
    let (errands, queued) = mpsc::channel::<Errand>();
    let run = move || queued.into_iter().for_each(Errand::run);
    thread::Builder::new().name("spool-reader".into()).spawn(run)?;
    Ok(errands)
}

impl Errand {
    pub fn run(self) {
        let Self { mut head, max_bytes, back } = self;
        let read = head.read_ahead(max_bytes);
        // An error: the reader is gone. Its cursor in the log is enough.
        drop(back.send((head, read)));
    }
}

impl ReadHead {
    pub fn new(log: Arc<Log>, index: usize, at: Position) -> Self {
        Self { log, index, at, failures: 0 }
    }

    /// The next lines, if they are in memory.
    pub fn in_memory(&mut self, max_bytes: usize) -> Found {
        match self.log.window(self.index, &mut self.at) {
            None => Found::End,
            Some(Window::Fresh { batch, offset, session }) => {
                Found::Chunk(self.advance(Run::part(&batch, offset, max_bytes), session))
            }
            Some(Window::Stored(_)) => Found::OnDisk,
        }
    }

    /// The next lines, about `max_bytes` but at least one line. `None`: all published lines have been read. Blocks
    /// while the disk does.
    ///
    /// Damage is skipped, logged and counted. An error means that nothing was read, and that the caller should retry a
    /// little later. A place that keeps failing is skipped too.
    pub fn next(&mut self, max_bytes: usize) -> io::Result<Option<Chunk>> {
        loop {
            let mut window = match self.log.window(self.index, &mut self.at) {
                None => return Ok(None),
                Some(Window::Fresh { batch, offset, session }) => {
                    return Ok(Some(self.advance(Run::part(&batch, offset, max_bytes), session)));
                }
                Some(Window::Stored(window)) => window,
            };
            let read = self.file(&mut window).and_then(|file| self.read(&file, &window, max_bytes));
            match read {
                Ok(batch) if !batch.is_empty() => return Ok(Some(self.advance(Run::whole(batch), window.session))),
                // Only marks were read; the lines are behind them.
                Ok(batch) if batch.byte_len() > 0 => self.at.offset += batch.byte_len() as u64,
                Ok(_) => self.pass_over(&window, &"checksum mismatch"),
                Err(error) if self.tries_again(&error) => return Err(error),
                Err(error) => self.pass_over(&window, &error),
            }
        }
    }

    /// Reads several chunks with [`next`](Self::next). If an error comes after some chunks, the next read meets it
    /// again.
    fn read_ahead(&mut self, max_bytes: usize) -> io::Result<VecDeque<Chunk>> {
        let mut chunks = VecDeque::with_capacity(READ_AHEAD);
        while chunks.len() < READ_AHEAD {
            match self.next(max_bytes) {
                Ok(Some(chunk)) => chunks.push_back(chunk),
                Err(error) if chunks.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(chunks)
    }

    fn file(&self, window: &mut Stored) -> io::Result<Arc<File>> {
        if let Some(file) = &window.file {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(segment::path(&self.log.dir, self.at.segment))?);
        self.log.keep_open(self.at.segment, &file);
        window.file = Some(file.clone());
        Ok(file)
    }

    fn read(&self, file: &File, window: &Stored, max_bytes: usize) -> io::Result<Batch> {
        let Stored { limit, max_lines, key, .. } = window;
        segment::read(file, self.at.offset, *limit, max_bytes, *max_lines, *key).map(|(batch, _)| batch)
    }

    /// Whether to retry a failed read.
    fn tries_again(&mut self, error: &io::Error) -> bool {
        let passes = passes(error);
        self.failures += u32::from(!passes);
        passes || (self.failures < READ_ATTEMPTS && error.kind() != io::ErrorKind::NotFound)
    }

    /// Skips a place that cannot be read.
    fn pass_over(&mut self, window: &Stored, why: &dyn std::fmt::Display) {
        let found = window.file.as_ref().and_then(|file| self.resync(file, window));
        self.log.damaged(self.index, &mut self.at, found, why);
        self.failures = 0;
    }

    /// The position behind damage at which reading can continue. Records have no numbers, but the end of the segment
    /// does: lines are counted back from there, and so keep their numbers. The numbers of lines between two damaged
    /// places are unknown, so these lines are given up.
    fn resync(&self, file: &File, window: &Stored) -> Option<Position> {
        let Position { segment, offset, line } = self.at;
        let tail = usize::try_from(window.limit - offset).ok()?;
        let (bytes, _) = segment::read_around(file, offset, tail);
        let last = record::salvage(&bytes, window.key).runs.pop().filter(|run| run.end == tail)?;
        let (batch, _) = Batch::decode(bytes[last.clone()].to_vec(), u64::MAX, window.key);
        // If the run has more lines than are left by number, only its last lines belong to the segment.
        let surplus = batch.line_count().saturating_sub(window.lines);
        let start = offset + (last.end - batch.behind(surplus).len()) as u64;
        Some(Position { segment, offset: start, line: line + window.lines - (batch.line_count() - surplus) })
    }

    fn advance(&mut self, run: Run, session: u32) -> Chunk {
        self.failures = 0;
        let start = self.at;
        let offset = start.offset + run.byte_len() as u64;
        self.at = Position { segment: start.segment, offset, line: start.line + run.line_count() };
        Chunk { run, session, start, end: self.at }
    }

    /// Goes back to `to` or to the first line that is not retired, whichever is later. Returns how many lines lie
    /// between.
    pub fn rewind(&mut self, to: Option<Position>) -> u64 {
        self.log.rewind(self.index, &mut self.at, to)
    }

    /// Sends a copy of the head to the reading thread. `None`: the thread is not started.
    pub fn go(&self, max_bytes: usize) -> Option<oneshot::Receiver<Read>> {
        let (back, read) = oneshot::channel();
        // If the thread is gone, the errand is dropped, and the receiver reports it.
        drop(self.log.errands.get()?.send(Errand { head: self.clone(), max_bytes, back }));
        Some(read)
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
