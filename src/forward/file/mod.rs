//! Files and stdout: lines to files named by a template, or to our own standard output.
//!
//! File I/O blocks, so a thread of the runtime's pool writes each batch: one at a time for each forward. A line is
//! retired when `fdatasync` has returned.

mod files;
mod open;
mod path;
mod refused;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{interval_at, sleep};

use files::{Files, Outcome};
pub use refused::Refused;

use super::encode::Encoding;
use super::filtered_chunk::FilteredChunk;
use super::link::{Ended, Events};
use super::source::Source;
use super::target_watch::Leave;
use crate::config::FileSettings;
use crate::descriptors;
use crate::spool::Position;
use crate::tasks::spawn_blocking;

/// Written lines are made durable and retired at least this often. Files are closed then too, so that a rotated file is left
/// within this time.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Writing that takes this long is reported, and again after each further period of that length.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// Writes lines to files or to stdout. It moves to a pool thread and back for each batch.
pub struct FileLink {
    output: Output,
    encoding: Encoding,
    scratch: Vec<u8>,
    refused: Arc<Refused>,
    abandoned: Abandoned,
}

enum Output {
    Files(Box<Files>),
    Stdout,
}

/// Tells a pool thread that the forward does not wait for it any more, or soon will not.
#[derive(Clone, Default)]
struct Abandoned {
    is_so: Arc<AtomicBool>,
    /// The forward is to end, and a successor may go on in its place. This forward must not write anything after that.
    is_leaving: Arc<AtomicBool>,
}

impl Abandoned {
    fn is_so(&self) -> bool {
        self.is_so.load(Ordering::Relaxed)
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }
}

/// Completes when the forward is to end.
type Left = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Held by the forward while it waits for the lines. Dropping it tells the pool thread that the forward waits no more.
struct Waits(Abandoned);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.is_so.store(true, Ordering::Relaxed);
    }
}

impl FileLink {
    pub fn files(template: &Path, settings: &FileSettings, encoding: Encoding, refused: &Arc<Refused>) -> Self {
        let most = descriptors::forward_files(settings.max_open_files, descriptors::limit());
        if most < settings.max_open_files {
            refused.say_fewer_files(settings.max_open_files, most);
        }
        let abandoned = Abandoned::default();
        let files = Files::new(template, most, refused.clone(), abandoned.clone());
        Self::new(Output::Files(Box::new(files)), encoding, refused, abandoned)
    }

    pub fn stdout(encoding: Encoding, refused: &Arc<Refused>) -> Self {
        Self::new(Output::Stdout, encoding, refused, Abandoned::default())
    }

    fn new(output: Output, encoding: Encoding, refused: &Arc<Refused>, abandoned: Abandoned) -> Self {
        Self { output, encoding, scratch: Vec::new(), refused: refused.clone(), abandoned }
    }

    /// Writes lines until the relay stops, there is a better place, or a file cannot be written.
    pub async fn carry(self, source: &mut Source, events: &mut Events) -> Ended {
        let _waits = Waits(self.abandoned.clone());
        self.carry_on(source, events).await.unwrap_or_else(|error| Ended::Failed(error.into()))
    }

    /// `Err`: the file that could not be written, and why.
    async fn carry_on(mut self, source: &mut Source, events: &mut Events) -> io::Result<Ended> {
        let mut unsynced = Unsynced::default();
        let mut stopping = false;
        let mut left: Left = Box::pin(source.left());
        loop {
            let lines = source.next().await;
            let idle = lines.is_none();
            if let Some(lines) = lines {
                let end = lines.end();
                let done = self.blocking(events, &mut left, move |link| link.write(&lines)).await?;
                let Some((link, outcome)) = done else { return Ok(Ended::Stopped) };
                self = link;
                match outcome {
                    Outcome::Done => unsynced.reach(end),
                    Outcome::Again => {
                        unsynced.write_again(source);
                        // The lines may have to be read from the disk first.
                        stopping = false;
                        continue;
                    }
                }
            }
            if unsynced.due() || stopping && idle || events.deadline.passed() {
                let Some((link, outcome)) = self.blocking(events, &mut left, Self::sync).await? else {
                    return Ok(Ended::Stopped);
                };
                self = link;
                match outcome {
                    Outcome::Done => unsynced.retire(source),
                    Outcome::Again => {
                        unsynced.write_again(source);
                        // The lines may have to be read from the disk first.
                        stopping = false;
                        continue;
                    }
                }
            }
            if events.deadline.passed() {
                return Ok(Ended::Stopped);
            }
            if let Some(leave) = events.leave_by_now().await {
                return self.leave(unsynced, source, events, (leave, left)).await;
            }
            if !idle {
                continue;
            }
            if stopping {
                return Ok(Ended::Stopped);
            }
            tokio::select! {
                more = source.wait() => stopping = !more,
                leave = &mut events.leave => return self.leave(unsynced, source, events, (leave, left)).await,
                () = sleep(SYNC_EVERY), if unsynced.any() => {}
                () = events.deadline.reached() => {}
            }
        }
    }

    /// Makes written lines durable first. Otherwise they would be written again elsewhere.
    async fn leave(
        self,
        mut unsynced: Unsynced,
        source: &mut Source,
        events: &mut Events,
        (why, mut left): (Leave, Left),
    ) -> io::Result<Ended> {
        if let Some((_, Outcome::Done)) = self.blocking(events, &mut left, Self::sync).await? {
            unsynced.retire(source);
        }
        Ok(Ended::Left(why))
    }

    /// Runs `work` on a thread that may block. `None`: the deadline of a stopping relay came first.
    async fn blocking(
        mut self,
        events: &mut Events,
        left: &mut Left,
        work: impl FnOnce(&mut Self) -> io::Result<Outcome> + Send + 'static,
    ) -> io::Result<Option<(Self, Outcome)>> {
        let (refused, is_over) = (self.refused.clone(), events.deadline.passed());
        let is_leaving = self.abandoned.is_leaving.clone();
        let mut done = pin!(spawn_blocking(move || work(&mut self).map(|outcome| (self, outcome))));
        let mut hangs = interval_at(tokio::time::Instant::now() + HANGS_AFTER, HANGS_AFTER);
        loop {
            tokio::select! {
                biased;
                done = &mut done => return done.map_err(io::Error::other)?.map(Some),
                () = &mut *left, if !is_leaving.load(Ordering::Relaxed) => is_leaving.store(true, Ordering::Relaxed),
                // Lines that were written just before the deadline are still made durable.
                () = sleep(SYNC_EVERY), if is_over => return Ok(None),
                () = events.deadline.reached(), if !is_over => return Ok(None),
                _ = hangs.tick() => refused.say_it_hangs(HANGS_AFTER),
            }
        }
    }

    fn write(&mut self, lines: &FilteredChunk) -> io::Result<Outcome> {
        let Self { output, encoding, scratch, .. } = self;
        match output {
            Output::Stdout => {
                let mut bytes = Vec::with_capacity(lines.byte_len());
                lines.lines().for_each(|(line, _)| encoding.append(line, scratch, &mut bytes));
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
                Ok(Outcome::Done)
            }
            Output::Files(files) => files.write(lines.lines().map(|(line, _)| line), encoding, scratch),
        }
    }

    fn sync(&mut self) -> io::Result<Outcome> {
        match &mut self.output {
            Output::Stdout => Ok(Outcome::Done),
            Output::Files(files) => files.sync_and_close(),
        }
    }
}

/// Lines that are written but may not be on the disk yet.
#[derive(Default)]
struct Unsynced {
    /// The position behind the last written line, and when the first line since the last sync was written.
    reached: Option<(Position, Instant)>,
}

impl Unsynced {
    fn reach(&mut self, position: Position) {
        let since = self.reached.map_or_else(Instant::now, |(_, since)| since);
        self.reached = Some((position, since));
    }

    fn any(&self) -> bool {
        self.reached.is_some()
    }

    fn due(&self) -> bool {
        self.reached.is_some_and(|(_, since)| since.elapsed() >= SYNC_EVERY)
    }

    /// Retires the lines that were written: all of them are on the disk.
    fn retire(&mut self, source: &mut Source) {
        if let Some((position, _)) = self.reached.take() {
            source.retire(position);
        }
    }

    /// Some lines are not on the disk, so all lines since the last sync are written again.
    fn write_again(&mut self, source: &mut Source) {
        self.reached = None;
        source.rewind();
    }
}
