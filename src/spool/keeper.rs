//! The keeper: does to the directory what forwards bring about. It writes cursors and dead letters and removes segments that
//! nobody needs any more, on a thread of its own, so that nobody who forwards waits for a disk that hangs.
//!
//! Before the thread is started each job is done by whoever hands it over. The queue is bounded by what there is: one job to
//! write all cursors, one dead letter for each forward, one for each segment.

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

/// Moving cursors are written at most this often: a microsecond each, but for every acknowledgement it adds up. A relay that
/// is killed sends again what was retired in this time.
const WRITE_EVERY: Duration = Duration::from_millis(5);

/// How often it is looked whether somebody has moved dead letters away, or wants them sent again.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(super) enum Job {
    /// Reads the cursor of a forward.
    Load(String, oneshot::Sender<CursorFile>),
    /// From now on the cursor of this number is kept in this file.
    Keep(usize, CursorFile),
    /// This cursor is no more.
    Forget(usize),
    /// Cursors have moved.
    WriteCursors,
    Reject(Letter, oneshot::Sender<io::Result<()>>),
    /// Takes the file of a segment that is no longer in the catalog out of the directory.
    Discard(Segment),
    /// The last user of a removed file pays for its removal.
    Close(Arc<File>),
    /// Does this.
    Do(Box<dyn FnOnce(&Log) + Send>),
    /// Answers when all that was handed over before is done.
    Settle(oneshot::Sender<()>),
}

/// A line that the collector of a forward has refused for good.
pub(super) struct Letter {
    /// The forward's cursor, and its name.
    pub index: usize,
    pub forward: String,
    pub session: u32,
    pub number: u64,
    pub why: String,
    pub line: Vec<u8>,
    /// It is a dead letter again: that it was one does not mean that it is written.
    pub is_resent: bool,
}

/// A job, and the log it is about, which lives until the job is done.
type Queued = (Arc<Log>, Job);
#[cfg(test)]
pub(super) type Queue = Receiver<Queued>;

/// The one that does the jobs.
pub(super) enum Keeper {
    Caller(Work),
    Thread(Sender<Queued>),
}

/// What the jobs are done with.
#[derive(Default)]
pub(super) struct Work {
    /// The cursor files by the cursor's number.
    cursors: BTreeMap<usize, CursorFile>,
    dead_letters: BTreeMap<usize, DeadLetters>,
    /// A cursor cannot be written.
    trouble: Hysteresis,
    /// Segments that nobody needs cannot be removed.
    litter: Hysteresis,
    /// The directory's generation in which the cursors were opened.
    generation: u64,
}

impl Keeper {
    pub fn new() -> Self {
        Self::Caller(Work::default())
    }

    /// Errors: the thread cannot be started, and no job is done any more.
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
            // The thread ends with the log, and not before.
            Self::Thread(jobs) => drop(jobs.send((log.clone(), job))),
        }
    }
}

pub(super) fn run(mut work: Work, log: Weak<Log>, queued: &Receiver<Queued>) {
    // Cursors that have moved, and when they may be written.
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
                // Cursors are written with it, and the directory may be gone soon after.
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
        // Nobody waits for an answer any more if it took too long.
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
                    // The directory is another one's.
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
        // What moves from here on is written the next time.
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

    /// A cursor that cannot be written costs duplicates after a crash and nothing else: say it once and go on.
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

/// Somebody may have moved or shortened them, or want them sent again.
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
        return; // A file of that name would be another one's.
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
