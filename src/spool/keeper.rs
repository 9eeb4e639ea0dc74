//! The keeper: a thread that changes the directory for the forwards. It writes cursors and dead letters, and removes
//! segments that no forward needs any more. So no forward waits for a disk that hangs.
//!
//! Before the thread is started, the caller of `hand_over` does each job itself. The queue needs no limit: it has at
//! most one job to write all cursors, one dead letter for each forward, and one job for each segment.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::catalog::Segment;
use super::cursor::CursorFile;
use super::dead_letters::{self, DeadLetters};
use super::hysteresis::Hysteresis;
use super::log::Log;
use super::resend;
use super::segment;
use crate::hex;

/// Cursors that move are written at most this often. A write takes a microsecond, but one for every acknowledgement
/// would add up. After a kill, the relay sends again the lines that were retired in this time.
const WRITE_EVERY: Duration = Duration::from_millis(5);

/// How often the keeper checks whether dead letters were moved away or are to be sent again.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(super) enum Job {
    /// Reads the cursor of a forward.
    Load(String, oneshot::Sender<CursorFile>),
    /// From now on this file stores the cursor of this index.
    Keep(usize, CursorFile),
    /// Removes the file of a cursor.
    Forget(usize),
    /// Cursors have moved.
    WriteCursors,
    Reject(Letter, oneshot::Sender<io::Result<()>>),
    /// Takes the file of a segment that is no longer in the catalog out of the directory.
    Discard(Segment),
    /// Closes a file. Closing a removed file frees its space, which can take long.
    Close(Arc<File>),
    /// Runs a closure.
    Do(Box<dyn FnOnce(&Log) + Send>),
    /// Answers when all earlier jobs are done.
    Settle(oneshot::Sender<()>),
}

/// A line that the collector of a forward has refused for good.
pub(super) struct Letter {
    /// The index of the forward's cursor.
    pub index: usize,
    pub forward: String,
    pub session: u32,
    pub number: u64,
    pub why: String,
    pub line: Vec<u8>,
    /// The line was a dead letter before, so the number of the earlier letter does not mean that this one is written.
    pub is_resent: bool,
}

/// A job and its log. The log lives until the job is done.
type Queued = (Arc<Log>, Job);
#[cfg(test)]
pub(super) type Queue = Receiver<Queued>;

/// Runs the jobs: the caller's thread, or the keeper's thread.
pub(super) enum Keeper {
    Caller(Work),
    Thread(Sender<Queued>),
}

/// The state of the jobs.
#[derive(Default)]
pub(super) struct Work {
    /// The cursor files, by the cursor's index.
    cursors: BTreeMap<usize, CursorFile>,
    dead_letters: BTreeMap<usize, DeadLetters>,
    /// A cursor cannot be written.
    trouble: Hysteresis,
    /// Segments that no forward needs cannot be removed.
    litter: Hysteresis,
    /// The generation of the directory in which the cursor files were opened.
    generation: u64,
}

impl Keeper {
    pub fn new() -> Self {
        Self::Caller(Work::default())
    }

    /// Errors: the thread cannot be started, and no more jobs are done.
    pub fn start(&mut self, log: &Arc<Log>) -> io::Result<()> {
        if let Self::Caller(work) = self {
            let (work, log) = (std::mem::take(work), Arc::downgrade(log));
            let (jobs, queued) = mpsc::channel();
            thread::Builder::new().name("spool-keeper".into()).spawn(move || run(work, log, &queued))?;
            *self = Self::Thread(jobs);
        }
        Ok(())
    }

    /// A keeper whose thread does nothing.
    #[cfg(test)]
    pub fn hanging() -> (Self, Queue) {
        let (jobs, queued) = mpsc::channel();
        (Self::Thread(jobs), queued)
    }

    pub fn hand_over(&mut self, log: &Arc<Log>, job: Job) {
        match self {
            Self::Caller(work) => work.run(log, job),
            // The thread ends only when the log is dropped.
            Self::Thread(jobs) => drop(jobs.send((log.clone(), job))),
        }
    }
}

pub(super) fn run(mut work: Work, log: Weak<Log>, queued: &Receiver<Queued>) {
    // Whether cursors have moved, and the time from which they may be written.
    let (mut moved, mut due) = (None, Instant::now());
    let mut looked = Instant::now();
    loop {
        let wait = match &moved {
            Some(_) => due.saturating_duration_since(Instant::now()),
            None => LOOK_EVERY,
        };
        match queued.recv_timeout(wait) {
            Ok((log, Job::WriteCursors)) => moved = Some(log),
            Ok((log, job)) => {
                // A `Settle` writes the cursors, and the directory may be gone soon after.
                if matches!(job, Job::Settle(_)) {
                    moved = None;
                }
                work.run(&log, job);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(log) = moved.take_if(|_| Instant::now() >= due) {
            work.run(&log, Job::WriteCursors);
            due = Instant::now() + WRITE_EVERY;
        }
        if looked.elapsed() >= LOOK_EVERY {
            log.upgrade().into_iter().for_each(|log| look_at_dead_letters(&log));
            looked = Instant::now();
        }
    }
}

impl Work {
    fn run(&mut self, log: &Log, job: Job) {
        // Sending an answer fails if the asking task has given up.
        match job {
            Job::Load(forward, answer) => drop(answer.send(CursorFile::load(&log.dir, &forward, log.id))),
            Job::Keep(index, mut file) => {
                if let Some(positions) = log.positions(index) {
                    file.reserve(positions);
                    self.cursors.insert(index, file);
                }
            }
            Job::Forget(index) => {
                self.dead_letters.remove(&index);
                let removed = match (self.cursors.remove(&index), log.home.check()) {
                    (Some(file), Ok(())) => file.remove(),
                    // The directory belongs to another spool.
                    _ => Ok(()),
                };
                self.cursor_result(log, removed);
            }
            Job::WriteCursors => self.write_cursors(log),
            Job::Reject(letter, answer) => {
                let written = self.reject(log, &letter);
                let _ = answer.send(written);
            }
            Job::Discard(segment) => discard(log, segment, &mut self.litter),
            Job::Close(file) => drop(file),
            Job::Do(work) => work(log),
            Job::Settle(answer) => {
                self.write_cursors(log);
                let _ = answer.send(());
            }
        }
    }

    fn write_cursors(&mut self, log: &Log) {
        // A cursor that moves after this is written the next time.
        log.cursors_moved.store(false, Ordering::Release);
        if let Err(error) = log.home.check() {
            return self.cursor_result(log, Err(error));
        }
        let generation = log.home.generation();
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.cursors.values_mut().for_each(CursorFile::begin_anew);
        }
        let mut cursors = std::mem::take(&mut self.cursors);
        for (&index, file) in &mut cursors {
            if let Some(positions) = log.positions(index) {
                self.cursor_result(log, file.write(positions));
            }
        }
        self.cursors = cursors;
    }

    /// A cursor that cannot be written only causes duplicates after a crash. Logs it once and goes on.
    fn cursor_result(&mut self, log: &Log, result: io::Result<()>) {
        let dir = log.dir.display();
        match result {
            Ok(()) => {
                if self.trouble.ends() {
                    tracing::info!(%dir, "spool: the cursor can be written again");
                }
            }
            Err(error) => {
                log.metrics.errors.inc();
                if self.trouble.begins() {
                    tracing::error!(%dir, %error, "spool: a cursor cannot be written; a restart would send lines again");
                }
            }
        }
    }

    fn reject(&mut self, log: &Log, letter: &Letter) -> io::Result<()> {
        let Letter { index, forward, session, number, why, line, is_resent } = letter;
        let Some(positions) = log.positions(*index) else { return Ok(()) };
        log.home.check()?;
        let letters = self
            .dead_letters
            .entry(*index)
            .or_insert_with(|| DeadLetters::new(&log.dir, forward, hex::encode(&log.id)));
        let capacity = log.dead_letter_capacity(forward);
        let number = (*session, *number);
        if *is_resent {
            letters.forget(number);
        }
        let bytes = letters.write(number, (why, line), positions.retired.line, capacity)?;
        log.note_dead_letters(forward, bytes);
        Ok(())
    }
}

/// Notices dead letters that a person has moved or shortened, or wants to be sent again.
fn look_at_dead_letters(log: &Log) {
    if log.forwards().iter().any(|forward| resend::is_there(&log.dir, forward)) {
        log.resends.notify_waiters();
    }
    for forward in log.with_dead_letters() {
        match fs::metadata(dead_letters::path(&log.dir, &forward)) {
            Ok(file) => log.note_dead_letters(&forward, file.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => log.note_dead_letters(&forward, 0),
            Err(_) => {}
        }
    }
}

/// Takes the file of a segment that is no longer in the catalog out of the directory.
pub(super) fn discard(log: &Log, segment: Segment, litter: &mut Hysteresis) {
    drop(segment.file);
    if log.home.check().is_err() {
        return; // A file of that name would belong to another spool.
    }
    let result = match segment.damaged {
        true => segment::set_aside(&log.dir, segment.number),
        false => segment::remove(&log.dir, segment.number),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log.metrics.errors.inc();
            if litter.begins() {
                let file = segment::path(&log.dir, segment.number);
                tracing::error!(
                    file = %file.display(), %error,
                    "spool: segments that no forward needs cannot be removed and take up space; check that the relay may write to its directory"
                );
            }
        }
        _ => {
            if litter.ends() {
                tracing::info!(dir = %log.dir.display(), "spool: segments can be removed again");
            }
        }
    }
}
