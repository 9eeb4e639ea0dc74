//! Dead letters that are sent again. `logferry spool resend` renames `NAME.jsonl` to `NAME.resend`. The relay reads
//! this file as a second source of the forward, beside its spool.
//!
//! ```text
//! dead-letter/central.resend          the letters
//! dead-letter/central.resend-cursor   how many bytes of it are done with
//! ```
//!
//! The file is removed when each of its letters is delivered, or is a dead letter again. The cursor is written before
//! more letters are handed out, so that a crash repeats only the letters in flight. The keeper does all work on the
//! files. It writes dead letters too, so no letter is being written to a file that it removes.
//!
//! Letters are numbered from the cursor on. Each letter also has the permanent session and number of its line.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

use super::batch::{Batch, Run};
use super::dead_letters::{self, DeadLetter};
use super::keeper::{Job, Letter};
use super::log::Log;
use super::{Chunk, Position};
use crate::files;

/// Bytes of a file per read.
const READ_BYTES: u64 = 256 << 10;
const END: &str = "resend";
const CURSOR_END: &str = "resend-cursor";

/// Why letters are not sent again.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    #[error("{}: there are no dead letters to send again", .0.display())]
    Nothing(PathBuf),
    #[error("{}: a resend is under way; wait until the relay has removed this file", .0.display())]
    UnderWay(PathBuf),
    #[error("cannot rename {}: {}", .0.display(), .1)]
    Rename(PathBuf, io::Error),
}

/// The dead letters of a forward that are to be sent again.
#[derive(Clone)]
pub struct Resends {
    log: Arc<Log>,
    index: usize,
    forward: String,
}

/// The permanent session and number of each line.
pub type Ids = Vec<(u32, u64)>;

/// Reads letters for one forward, and retires them.
pub struct ResendReader {
    of: Resends,
    /// The id of the spool that the first letter comes from. It may be an earlier spool in the same directory, whose
    /// letters are still there.
    spool: String,
    resent: Counter,
    left: Gauge,
    /// Letters that were read and not handed out yet.
    letters: VecDeque<Found>,
    /// Letters that were handed out and are not retired.
    handed_out: VecDeque<Found>,
    /// The number of the first letter that is not retired.
    passed: u64,
    /// Letters from `passed` on.
    remaining: u64,
    /// Bytes of the file before the first letter that is not retired, and the number of bytes that the cursor's file
    /// has.
    at: u64,
    noted: u64,
    /// The offset of the next read, and the length of the file when its end was read.
    read_at: u64,
    end: Option<u64>,
    work: Option<Work>,
    failed: Option<io::Error>,
}

struct Found {
    letter: DeadLetter,
    /// The offset behind the letter.
    end: u64,
}

enum Work {
    Reading(Receiver<io::Result<Read>>),
    /// A read whose result is to be dropped, because the reader has gone back.
    Stale(Receiver<io::Result<Read>>),
    Noting(u64, Receiver<io::Result<()>>),
}

struct Read {
    letters: Vec<Found>,
    /// The offset behind the lines that were read.
    at: u64,
    /// The length of the file, if its end was reached.
    end: Option<u64>,
    /// Lines that are no letters.
    bad: u64,
}

/// Renames a forward's dead letters, so that the relay sends them again.
pub fn begin(dir: &Path, forward: &str) -> Result<(), ResendError> {
    let (letters, resend) = (dead_letters::path(dir, forward), path(dir, forward));
    if resend.exists() {
        return Err(ResendError::UnderWay(resend));
    }
    if !fs::metadata(&letters).is_ok_and(|file| file.len() > 0) {
        return Err(ResendError::Nothing(letters));
    }
    // A cursor may be left from an earlier resend.
    let failed = |error| ResendError::Rename(letters.clone(), error);
    remove(&cursor_path(dir, forward)).map_err(failed)?;
    fs::rename(&letters, &resend).map_err(failed)?;
    let synced = resend.parent().map_or(Ok(()), |dir| File::open(dir).and_then(|dir| dir.sync_all()));
    synced.map_err(failed)
}

impl Resends {
    pub(super) fn new(log: Arc<Log>, index: usize, forward: String) -> Self {
        Self { log, index, forward }
    }

    /// Waits until there may be letters to be sent again.
    pub async fn appear(&self) {
        self.log.resends.notified().await;
    }

    /// Opens the letters that are to be sent again; `None`: there are none. `resent` counts delivered letters, and
    /// `left` shows the letters that remain.
    pub async fn open(&self, resent: &Counter, left: &Gauge) -> io::Result<Option<ResendReader>> {
        let forward = self.forward.clone();
        let opened = self.ask(move |log| {
            log.home.check()?;
            open(&log.dir, &forward)
        });
        let opened = answer(opened.await)?;
        left.set(opened.as_ref().map_or(0, |opened| opened.letters as i64));
        Ok(opened.map(|Opened { spool, at, letters: remaining }| ResendReader {
            of: self.clone(),
            spool,
            resent: resent.clone(),
            left: left.clone(),
            letters: VecDeque::new(),
            handed_out: VecDeque::new(),
            passed: 0,
            remaining,
            at,
            noted: at,
            read_at: at,
            end: None,
            work: None,
            failed: None,
        }))
    }

    /// Has the keeper run `work`.
    fn ask<T: Send + 'static>(&self, work: impl FnOnce(&Log) -> T + Send + 'static) -> Receiver<T> {
        let (done, answer) = oneshot::channel();
        // Sending fails if the asking task has given up.
        self.log.hand_over(Job::Do(Box::new(move |log| drop(done.send(work(log))))));
        answer
    }
}

impl ResendReader {
    /// The next letters, as [`Reader::next`](super::Reader::next) returns lines, with session and number of each.
    pub fn next(&mut self, max_bytes: usize) -> io::Result<Option<(Chunk, Ids)>> {
        if let Some(work) = self.work.take()
            && let Some(pending) = work.try_take(self)
        {
            self.work = Some(pending);
            return Ok(None);
        }
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        if self.begin_work() {
            return Ok(None);
        }
        let first = self.passed + self.handed_out.len() as u64;
        let (mut batch, mut ids) = (Batch::new(), Vec::new());
        while let Some(found) = self.letters.pop_front() {
            batch.push(|bytes| bytes.extend_from_slice(&found.letter.line));
            ids.push((found.letter.session, found.letter.number));
            self.handed_out.push_back(found);
            if batch.byte_len() >= max_bytes {
                break;
            }
        }
        if ids.is_empty() {
            return Ok(None);
        }
        let start = Position { segment: 0, offset: 0, line: first };
        let end = Position { segment: 0, offset: batch.byte_len() as u64, line: first + ids.len() as u64 };
        Ok(Some((Chunk { run: Run::whole(batch), session: 0, start, end }, ids)))
    }

    /// Begins the work that must be done before letters can be handed out. False: there is none.
    fn begin_work(&mut self) -> bool {
        let forward = self.of.forward.clone();
        let at = self.at;
        if at != self.noted {
            let noted = self.of.ask(move |log| {
                log.home.check()?;
                note(&log.dir, &forward, at)
            });
            self.work = Some(Work::Noting(at, noted));
        } else if self.letters.is_empty() && self.end.is_none() {
            let from = self.read_at;
            self.work = Some(Work::Reading(self.of.ask(move |log| read(&log.dir, &forward, from))));
        }
        self.work.is_some()
    }

    /// Waits until there are more letters; false if there will be no more.
    pub async fn wait(&mut self) -> bool {
        loop {
            if let Some(work) = &mut self.work {
                let done = work.done().await;
                self.work = None;
                self.take(done);
                continue;
            }
            if self.failed.is_some() {
                return true;
            }
            if self.begin_work() {
                continue;
            }
            return !self.letters.is_empty();
        }
    }

    pub fn is_reading(&self) -> bool {
        self.work.is_some()
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Stale => {}
            Done::Noted(at, Ok(())) => self.noted = at,
            Done::Read(Ok(Read { letters, at, end, bad })) => {
                if bad > 0 {
                    let path = path(&self.of.log.dir, &self.of.forward);
                    tracing::error!(
                        "spool: {} has {bad} lines that are no dead letters; they are left out",
                        path.display()
                    );
                }
                self.letters.extend(letters);
                (self.read_at, self.end) = (at, end);
            }
            Done::Noted(_, Err(error)) | Done::Read(Err(error)) => self.failed = Some(error),
        }
    }

    /// Retires the letters before `up_to`: the collector has them, or they are dead letters again. Returns how many are
    /// retired.
    pub fn retire(&mut self, up_to: Position) -> u64 {
        let count = up_to.line.saturating_sub(self.passed).min(self.handed_out.len() as u64);
        for found in self.handed_out.drain(..count as usize) {
            self.at = found.end;
        }
        self.passed += count;
        self.remaining = self.remaining.saturating_sub(count);
        self.left.set(self.remaining as i64);
        self.resent.inc_by(count);
        count
    }

    /// Writes a letter that is refused again to the dead letters. It is on the disk when this returns.
    pub async fn reject(&mut self, number: u64, why: &str) -> io::Result<()> {
        let place = number.checked_sub(self.passed).and_then(|place| usize::try_from(place).ok());
        let Some(found) = place.and_then(|place| self.handed_out.get(place)) else { return Ok(()) };
        let DeadLetter { session, number, ref line, .. } = found.letter;
        let (index, forward, line) = (self.of.index, self.of.forward.clone(), line.clone());
        let letter = Letter { index, forward, session, number, why: why.to_owned(), line, is_resent: true };
        let (done, written) = oneshot::channel();
        self.of.log.hand_over(Job::Reject(letter, done));
        answer(written.await)
    }

    /// Goes back to the first letter that is not retired.
    pub fn rewind(&mut self) {
        self.letters.clear();
        self.handed_out.clear();
        self.failed = None;
        (self.read_at, self.end) = (self.at, None);
        self.work = self.work.take().map(|work| match work {
            Work::Reading(reading) => Work::Stale(reading),
            work => work,
        });
    }

    /// The first letter that is not retired.
    pub fn position(&self) -> Position {
        Position { segment: 0, offset: 0, line: self.passed }
    }

    /// Letters that are not retired.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The spool's id and the forward.
    pub fn stream(&self) -> String {
        format!("{}/{}", self.spool, self.of.forward)
    }

    /// Removes the file if all of its letters are retired: true. False: there are more.
    pub async fn finish(&mut self) -> io::Result<bool> {
        while let Some(work) = &mut self.work {
            let done = work.done().await;
            self.work = None;
            self.take(done);
        }
        let (at, forward) = (self.at, self.of.forward.clone());
        let end = self.end.filter(|_| self.letters.is_empty() && self.handed_out.is_empty());
        let is_removed = self.of.ask(move |log| {
            log.home.check()?;
            match end {
                Some(end) if fs::metadata(path(&log.dir, &forward))?.len() == end => {
                    remove(&path(&log.dir, &forward))?;
                    remove(&cursor_path(&log.dir, &forward))?;
                    Ok(true)
                }
                _ => note(&log.dir, &forward, at).map(|()| false),
            }
        });
        answer(is_removed.await)
    }
}

enum Done {
    Read(io::Result<Read>),
    Stale,
    Noted(u64, io::Result<()>),
}

impl Work {
    async fn done(&mut self) -> Done {
        match self {
            Self::Reading(reading) => Done::Read(answer(reading.await)),
            Self::Stale(reading) => {
                let _ = reading.await;
                Done::Stale
            }
            Self::Noting(at, noting) => Done::Noted(*at, answer(noting.await)),
        }
    }

    /// Hands the result to the reader. `Some`: the work is not done.
    fn try_take(mut self, to: &mut ResendReader) -> Option<Self> {
        let done = match &mut self {
            Self::Reading(reading) => by_now(reading).map(Done::Read),
            Self::Stale(reading) => by_now(reading).map(|_| Done::Stale),
            Self::Noting(at, noting) => by_now(noting).map(|noted| Done::Noted(*at, noted)),
        };
        match done {
            Some(done) => {
                to.take(done);
                None
            }
            None => Some(self),
        }
    }
}

fn by_now<T>(receiver: &mut Receiver<io::Result<T>>) -> Option<io::Result<T>> {
    match receiver.try_recv() {
        Ok(answer) => Some(answer),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Closed) => Some(Err(closed())),
    }
}

fn answer<T>(answer: Result<io::Result<T>, oneshot::error::RecvError>) -> io::Result<T> {
    answer.unwrap_or_else(|_| Err(closed()))
}

fn closed() -> io::Error {
    io::Error::other("the spool is closed")
}

/// Whether a forward has letters to be sent again.
pub(super) fn is_there(dir: &Path, forward: &str) -> bool {
    path(dir, forward).exists()
}

/// The state of a file when it was opened.
struct Opened {
    spool: String,
    /// Bytes that are retired.
    at: u64,
    /// Letters behind `at`.
    letters: u64,
}

fn open(dir: &Path, forward: &str) -> io::Result<Option<Opened>> {
    let file = match File::open(path(dir, forward)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let at = match files::read_text(&cursor_path(dir, forward), 64) {
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        // A power cut may have damaged the file. Sending letters again is acceptable.
        text => text?.trim().parse().unwrap_or(0),
    };
    let at = if at <= file.metadata()?.len() { at } else { 0 };
    let (mut reader, mut first, mut letters) = (from(file, 0)?, Vec::new(), 0);
    reader.read_until(b'\n', &mut first)?;
    let spool = DeadLetter::read(&first).map(|letter| letter.spool).unwrap_or_default();
    reader.seek(SeekFrom::Start(at))?;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(Some(Opened { spool, at, letters }));
        }
        letters += memchr::memchr_iter(b'\n', bytes).count() as u64;
        let length = bytes.len();
        reader.consume(length);
    }
}

fn from(mut file: File, at: u64) -> io::Result<BufReader<File>> {
    file.seek(SeekFrom::Start(at))?;
    Ok(BufReader::with_capacity(64 << 10, file))
}

/// Reads letters from an offset on. A torn line at the end of the file is no letter: the relay crashed before it passed
/// that line, so the spool still has it.
fn read(dir: &Path, forward: &str, start: u64) -> io::Result<Read> {
    let mut reader = from(File::open(path(dir, forward))?, start)?;
    let (mut found, mut text) = (Read { letters: Vec::new(), at: start, end: None, bad: 0 }, Vec::new());
    while found.at - start < READ_BYTES {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 || !text.ends_with(b"\n") {
            found.end = Some(found.at + text.len() as u64);
            break;
        }
        found.at += text.len() as u64;
        match DeadLetter::read(&text) {
            Some(letter) => found.letters.push(Found { letter, end: found.at }),
            None => found.bad += 1,
        }
    }
    Ok(found)
}

/// Writes how many bytes are retired.
fn note(dir: &Path, forward: &str, at: u64) -> io::Result<()> {
    let file = files::options().write(true).create(true).truncate(false).open(cursor_path(dir, forward))?;
    // The text always has the same length, so one write replaces it.
    std::os::unix::fs::FileExt::write_all_at(&file, format!("{at:020}\n").as_bytes(), 0)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn path(dir: &Path, forward: &str) -> PathBuf {
    dead_letters::path(dir, forward).with_extension(END)
}

fn cursor_path(dir: &Path, forward: &str) -> PathBuf {
    dead_letters::path(dir, forward).with_extension(CURSOR_END)
}
