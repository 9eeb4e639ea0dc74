//! The head: where one forward reads, and the reading itself. What was written a moment ago is still in memory; the rest is
//! read from segments on a thread of its own, which all forwards share: a disk that hangs holds up nobody who need not read
//! from it. A copy of the head goes to that thread and comes back with what it has read.

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

/// How often the same place may fail to be read before its segment counts as damaged: a bad block does not get better, and
/// must not hold up all that comes after it.
const READ_ATTEMPTS: u32 = 3;

/// How many times what is asked for is read at once: to go to the thread and back costs the time in which it reads as much. It is
/// memory of a forward that has a backlog.
const READ_AHEAD: usize = 16;

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

#[derive(Clone)]
pub(super) struct ReadHead {
    log: Arc<Log>,
    /// Which of the log's cursors reads.
    index: usize,
    /// Where the next line is read; never before the cursor for long, see [`Log::window`].
    pub at: Position,
    /// Reads that failed in a row.
    failures: u32,
}

/// What can be had without a disk.
pub(super) enum Found {
    Chunk(Chunk),
    /// All that is published has been read.
    End,
    /// The next lines have to be read from a segment.
    OnDisk,
}

/// A head on its way to the thread that reads.
pub(super) struct Errand {
    head: ReadHead,
    max_bytes: usize,
    back: oneshot::Sender<Read>,
}

/// A head that is back, and what it has read: in order, and nothing where all that is published has been read.
pub(super) type Read = (ReadHead, io::Result<VecDeque<Chunk>>);

/// Starts the thread. It ends when nobody can send a head any more.
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
        // A reader that is gone has left its place in the log.
        drop(back.send((head, read)));
    }
}

impl ReadHead {
    pub fn new(log: Arc<Log>, index: usize, at: Position) -> Self {
        Self { log, index, at, failures: 0 }
    }

    /// The next lines, if no disk is needed for them.
    pub fn in_memory(&mut self, max_bytes: usize) -> Found {
        match self.log.window(self.index, &mut self.at) {
            None => Found::End,
            Some(Window::Fresh { batch, offset, session }) => {
                Found::Chunk(self.advance(Run::part(&batch, offset, max_bytes), session))
            }
            Some(Window::Stored(_)) => Found::OnDisk,
        }
    }

    /// The next lines, about `max_bytes` of them but at least one; `None`: all that is published has been read. Blocks while the
    /// disk does.
    ///
    /// Damage is skipped, logged and counted. An error means that nothing was read, and that it is worth another try a
    /// little later; a place that goes on failing is skipped too.
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
                // Marks alone; the lines come behind them.
                Ok(batch) if batch.byte_len() > 0 => self.at.offset += batch.byte_len() as u64,
                Ok(_) => self.pass_over(&window, &"checksum mismatch"),
                Err(error) if self.tries_again(&error) => return Err(error),
                Err(error) => self.pass_over(&window, &error),
            }
        }
    }

    /// As [`next`](Self::next) does, several times. An error behind what was read comes again with the next try.
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

    /// Whether a read that failed is worth another try.
    fn tries_again(&mut self, error: &io::Error) -> bool {
        let passes = passes(error);
        self.failures += u32::from(!passes);
        passes || (self.failures < READ_ATTEMPTS && error.kind() != io::ErrorKind::NotFound)
    }

    /// Nothing can be read here: goes on behind it.
    fn pass_over(&mut self, window: &Stored, why: &dyn std::fmt::Display) {
        let found = window.file.as_ref().and_then(|file| self.resync(file, window));
        self.log.damaged(self.index, &mut self.at, found, why);
        self.failures = 0;
    }

    /// Where reading can go on behind damage at the read position. Records carry no numbers, but the end of the segment
    /// has one: lines are counted back from there, and so never get another number than they had. Between two damaged
    /// places nobody can tell, and what lies there is given up.
    fn resync(&self, file: &File, window: &Stored) -> Option<Position> {
        let Position { segment, offset, line } = self.at;
        let tail = usize::try_from(window.limit - offset).ok()?;
        let (bytes, _) = segment::read_around(file, offset, tail);
        let last = record::salvage(&bytes, window.key).runs.pop().filter(|run| run.end == tail)?;
        let (batch, _) = Batch::decode(bytes[last.clone()].to_vec(), u64::MAX, window.key);
        // More than can be missing are not all ours; the last ones are.
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

    /// Goes back to `to`, or to the first line that is not retired, whichever is later. Returns how many lines lie between.
    pub fn rewind(&mut self, to: Option<Position>) -> u64 {
        self.log.rewind(self.index, &mut self.at, to)
    }

    /// Sends a copy of the head to read. `None`: the thread for it is not started.
    pub fn go(&self, max_bytes: usize) -> Option<oneshot::Receiver<Read>> {
        let (back, read) = oneshot::channel();
        // A thread that is gone drops the errand, and with it the way back.
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
