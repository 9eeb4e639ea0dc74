//! The file and stdout links: lines to files named by a template, or to our own standard output.
//!
//! File I/O blocks, so each batch is written by a thread of the runtime's pool. A line is retired when `fdatasync` is
//! through.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::encode::Encoding;
use super::load::Load;
use super::lookout::Moved;
use super::path::PathTemplate;
use super::source::Source;
use super::{Ended, Events};
use crate::spool::Position;
use crate::syslog::Line;

/// Written lines are made durable and retired at least this often. Files are closed then too, so that one that was
/// rotated away is left within this time.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Files open at once; one more, and all are synced and closed first.
const MAX_OPEN_FILES: usize = 256;

/// The lines' way to the disk or to stdout; moves to a pool thread and back for each batch.
pub struct FileLink {
    output: Output,
    encoding: Encoding,
    scratch: Vec<u8>,
}

enum Output {
    Files { template: PathTemplate, open: HashMap<PathBuf, OpenFile> },
    Stdout,
}

struct OpenFile {
    file: File,
    /// Its length when it was last known to be on the disk; `None`: not a regular file.
    synced: Option<u64>,
}

impl FileLink {
    pub fn files(template: &Path, encoding: Encoding) -> Self {
        Self::new(Output::Files { template: PathTemplate::new(template), open: HashMap::new() }, encoding)
    }

    pub fn stdout(encoding: Encoding) -> Self {
        Self::new(Output::Stdout, encoding)
    }

    fn new(output: Output, encoding: Encoding) -> Self {
        Self { output, encoding, scratch: Vec::new() }
    }

    /// Writes lines until the relay stops, there is a better place to be, or a file cannot be written.
    pub async fn carry(self, source: &mut Source, events: &mut Events) -> Ended {
        self.carry_on(source, events).await.unwrap_or_else(Ended::Broken)
    }

    /// `Err`: the file that could not be written, and why.
    async fn carry_on(mut self, source: &mut Source, events: &mut Events) -> Result<Ended, String> {
        let mut unsynced = Unsynced::default();
        let mut stopping = false;
        loop {
            let load = source.next().await;
            let idle = load.is_none();
            if let Some(load) = load {
                let end = load.end();
                self = self.blocking(move |link| link.write(&load)).await?;
                unsynced.reach(end);
            }
            if unsynced.due() || stopping && idle || events.deadline.passed() {
                self = self.blocking(Self::sync).await?;
                unsynced.take().into_iter().for_each(|reached| source.retire(reached));
            }
            if events.deadline.passed() {
                return Ok(Ended::Stopped);
            }
            if let Some(moved) = events.moved_by_now().await {
                return self.leave(unsynced, source, moved).await;
            }
            if !idle {
                continue;
            }
            if stopping {
                return Ok(Ended::Stopped);
            }
            tokio::select! {
                more = source.wait() => stopping = !more,
                moved = &mut events.moved => return self.leave(unsynced, source, moved).await,
                () = sleep(SYNC_EVERY), if unsynced.any() => {}
                () = events.deadline.reached() => {}
            }
        }
    }

    /// What was written is made durable first, or it would be written again elsewhere.
    async fn leave(self, mut unsynced: Unsynced, source: &mut Source, moved: Moved) -> Result<Ended, String> {
        self.blocking(Self::sync).await?;
        unsynced.take().into_iter().for_each(|reached| source.retire(reached));
        Ok(Ended::Moved(moved))
    }

    /// Runs `work` where it may block.
    async fn blocking(
        mut self,
        work: impl FnOnce(&mut Self) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, String> {
        match spawn_blocking(move || work(&mut self).map(|()| self)).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        }
    }

    fn write(&mut self, load: &Load) -> io::Result<()> {
        let Self { output, encoding, scratch } = self;
        match output {
            Output::Stdout => {
                let mut bytes = Vec::with_capacity(load.byte_len());
                load.lines().for_each(|(line, _)| encoding.append(line, scratch, &mut bytes));
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()
            }
            Output::Files { template, open } => {
                write_files(template, open, load, encoding, scratch).map_err(|error| match take_back(open) {
                    Ok(()) => error,
                    Err(also) => io::Error::other(format!("{error}; cannot take back what is written again: {also}")),
                })
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Stdout => Ok(()),
            Output::Files { open, .. } => sync_and_close(open),
        }
    }
}

/// What is written but may not be on the disk yet.
#[derive(Default)]
struct Unsynced {
    /// How far the writing got, and when the first line since the last sync was written.
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

    fn take(&mut self) -> Option<Position> {
        self.reached.take().map(|(position, _)| position)
    }
}

fn write_files(
    template: &PathTemplate,
    open: &mut HashMap<PathBuf, OpenFile>,
    load: &Load,
    encoding: &Encoding,
    scratch: &mut Vec<u8>,
) -> io::Result<()> {
    let mut by_path: HashMap<PathBuf, Vec<u8>> = HashMap::new();
    for (line, _) in load.lines() {
        let path = template.fill(&Line::parse(line, &encoding.sd_id));
        encoding.append(line, scratch, by_path.entry(path).or_default());
    }
    for (path, bytes) in by_path {
        if open.len() >= MAX_OPEN_FILES && !open.contains_key(&path) {
            sync_and_close(open)?;
        }
        append(open, &path, &bytes).map_err(|error| named(&path, &error))?;
    }
    Ok(())
}

fn append(open: &mut HashMap<PathBuf, OpenFile>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(OpenFile { file, .. }) = open.get_mut(path) {
        return file.write_all(bytes);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let metadata = file.metadata()?;
    let synced = metadata.is_file().then_some(metadata.len());
    let OpenFile { file, .. } = open.entry(path.to_owned()).or_insert(OpenFile { file, synced });
    file.write_all(bytes)
}

/// After a write that failed: back to what is synced and retired, for everything behind it is written again. Otherwise
/// half a line would stay, and every attempt would add to the files that can be written.
fn take_back(open: &mut HashMap<PathBuf, OpenFile>) -> io::Result<()> {
    let mut taken_back = Ok(());
    for (path, OpenFile { file, synced }) in open.drain() {
        let Some(synced) = synced else { continue };
        // Shorter already: somebody has emptied it meanwhile (logrotate's copytruncate).
        let longer = file.metadata().is_ok_and(|metadata| metadata.len() > synced);
        if longer && let Err(error) = file.set_len(synced) {
            taken_back = Err(named(&path, &error));
        }
    }
    taken_back
}

fn sync_and_close(open: &mut HashMap<PathBuf, OpenFile>) -> io::Result<()> {
    for (path, OpenFile { file, .. }) in open.iter() {
        // A pipe or /dev/null has nothing to sync.
        match file.sync_data() {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINVAL) => return Err(named(path, &error)),
            _ => {}
        }
    }
    open.clear();
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
