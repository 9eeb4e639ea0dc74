//! Files and stdout: lines to files named by a template, or to our own standard output.
//!
//! File I/O blocks, so each batch is written by a thread of the runtime's pool. A line is retired when `fdatasync` is
//! through.

mod path;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use path::PathTemplate;

use super::encode::Encoding;
use super::filtered_chunk::FilteredChunk;
use super::link::{Ended, Events};
use super::source::Source;
use super::target_watch::Moved;
use crate::files;
use crate::record::Record;
use crate::spool::Position;

/// Written lines are made durable and retired at least this often. Files are closed then too, so that one that was
/// rotated away is left within this time.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Files open at once; one more, and all are synced and closed first.
const MAX_OPEN_FILES: usize = 256;
/// From so many on they are made durable together: each alone waits for the disk's cache, and who invents names would have
/// us wait for nothing else.
const MANY_FILES: usize = 64;
/// New files in a [`DAY`], for each has a name that a stranger may have invented. Lines under further names go to one file.
const MOST_NEW_FILES: usize = 10_000;
const DAY: Duration = Duration::from_secs(86_400);

/// The lines' way to the disk or to stdout; moves to a pool thread and back for each batch.
pub struct FileLink {
    output: Output,
    encoding: Encoding,
    scratch: Vec<u8>,
}

enum Output {
    Files(Box<Files>),
    Stdout,
}

struct Files {
    template: PathTemplate,
    open: HashMap<PathBuf, OpenFile>,
    new: NewFiles,
}

/// How many more may be made.
struct NewFiles {
    left: usize,
    /// When there were [`MOST_NEW_FILES`] left.
    since: Instant,
}

struct OpenFile {
    file: File,
    /// The file system it is on.
    device: u64,
    /// Its length when it was last known to be on the disk; `None`: not a regular file.
    synced: Option<u64>,
}

impl FileLink {
    pub fn files(template: &Path, encoding: Encoding) -> Self {
        Self::new(Output::Files(Box::new(Files::new(template, NewFiles::of_a_day()))), encoding)
    }

    pub fn stdout(encoding: Encoding) -> Self {
        Self::new(Output::Stdout, encoding)
    }

    fn new(output: Output, encoding: Encoding) -> Self {
        Self { output, encoding, scratch: Vec::new() }
    }

    /// Writes lines until the relay stops, there is a better place to be, or a file cannot be written.
    pub async fn carry(self, source: &mut Source, events: &mut Events) -> Ended {
        self.carry_on(source, events).await.unwrap_or_else(|error| Ended::Failed(error.into()))
    }

    /// `Err`: the file that could not be written, and why.
    async fn carry_on(mut self, source: &mut Source, events: &mut Events) -> io::Result<Ended> {
        let mut unsynced = Unsynced::default();
        let mut stopping = false;
        loop {
            let lines = source.next().await;
            let idle = lines.is_none();
            if let Some(lines) = lines {
                let end = lines.end();
                self = self.blocking(move |link| link.write(&lines)).await?;
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
    async fn leave(self, mut unsynced: Unsynced, source: &mut Source, moved: Moved) -> io::Result<Ended> {
        self.blocking(Self::sync).await?;
        unsynced.take().into_iter().for_each(|reached| source.retire(reached));
        Ok(Ended::Moved(moved))
    }

    /// Runs `work` where it may block.
    async fn blocking(mut self, work: impl FnOnce(&mut Self) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        spawn_blocking(move || work(&mut self).map(|()| self)).await.map_err(io::Error::other)?
    }

    fn write(&mut self, lines: &FilteredChunk) -> io::Result<()> {
        let Self { output, encoding, scratch } = self;
        match output {
            Output::Stdout => {
                let mut bytes = Vec::with_capacity(lines.byte_len());
                lines.lines().for_each(|(line, _)| encoding.append(line, scratch, &mut bytes));
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()
            }
            Output::Files(files) => {
                files.write(lines.lines().map(|(line, _)| line), encoding, scratch).map_err(|error| {
                    match take_back(&mut files.open) {
                        Ok(()) => error,
                        Err(also) => {
                            io::Error::other(format!("{error}; cannot take back what is written again: {also}"))
                        }
                    }
                })
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Stdout => Ok(()),
            Output::Files(files) => sync_and_close(&mut files.open),
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

impl Files {
    fn new(template: &Path, new: NewFiles) -> Self {
        Self { template: PathTemplate::new(template), open: HashMap::new(), new }
    }

    fn write<'l>(
        &mut self,
        lines: impl Iterator<Item = &'l [u8]>,
        encoding: &Encoding,
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut by_path: HashMap<String, Vec<u8>> = HashMap::new();
        let mut path = String::new();
        for line in lines {
            self.template.fill(&Record::from_line(line, &encoding.sd_id), &mut path);
            // Not an entry, which would take a path of its own for each line.
            match by_path.get_mut(&path) {
                Some(bytes) => encoding.append(line, scratch, bytes),
                None => encoding.append(line, scratch, by_path.entry(path.clone()).or_default()),
            }
        }
        for (path, bytes) in by_path {
            let path = Path::new(&path);
            self.append(path, &bytes).map_err(|error| named(path, &error))?;
        }
        Ok(())
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(OpenFile { file, .. }) = self.open.get_mut(path) {
            return file.write_all(bytes);
        }
        if self.open.len() >= MAX_OPEN_FILES {
            sync_and_close(&mut self.open)?;
        }
        let file = match OpenOptions::new().append(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let others = self.template.of_others();
                if path != others && !self.new.takes_one(&others) {
                    return self.append(&others, bytes);
                }
                made(path)?
            }
            // Whoever is called as a directory that is there (`lost+found`) must not stop the others.
            Err(error) if is_of_another_kind(&error) && path != self.template.of_others() => {
                return self.append(&self.template.of_others(), bytes);
            }
            file => file?,
        };
        let metadata = file.metadata()?;
        let (device, synced) = (metadata.dev(), metadata.is_file().then_some(metadata.len()));
        let OpenFile { file, .. } = self.open.entry(path.to_owned()).or_insert(OpenFile { file, device, synced });
        file.write_all(bytes)
    }
}

impl NewFiles {
    fn of_a_day() -> Self {
        Self { left: MOST_NEW_FILES, since: Instant::now() }
    }

    /// False: there have been enough. `others`: where their lines go then.
    fn takes_one(&mut self, others: &Path) -> bool {
        if self.since.elapsed() >= DAY {
            *self = Self::of_a_day();
        }
        if self.left == 1 {
            let others = others.display();
            tracing::warn!(
                "forward: {MOST_NEW_FILES} new files within a day; lines under other new names go to {others}"
            );
        }
        let takes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        takes
    }
}

/// There is a directory where a file should be, or a file where a directory should be.
fn is_of_another_kind(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::NotADirectory)
}

fn made(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        files::create_dir_all(parent)?;
    }
    files::options().append(true).create(true).open(path)
}

/// After a write that failed: back to what is synced and retired, for everything behind it is written again. Otherwise
/// half a line would stay, and every attempt would add to the files that can be written.
fn take_back(open: &mut HashMap<PathBuf, OpenFile>) -> io::Result<()> {
    let mut taken_back = Ok(());
    for (path, OpenFile { file, synced, .. }) in open.drain() {
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
    if open.len() >= MANY_FILES {
        sync_together(open)?;
        open.clear();
        return Ok(());
    }
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

/// By whole file systems, which empty the disk's cache once and not once for each file. (Linux says since 5.8 whether all of
/// it could be written.)
fn sync_together(open: &HashMap<PathBuf, OpenFile>) -> io::Result<()> {
    let mut synced: Vec<u64> = Vec::new();
    for (path, OpenFile { file, device, .. }) in open {
        if !synced.contains(device) {
            nix::unistd::syncfs(file).map_err(|error| named(path, &error.into()))?;
            synced.push(*device);
        }
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;
    use crate::record::Format;

    fn files(dir: &TempDir, left: usize) -> Files {
        Files::new(&dir.path().join("{host}/{name}.log"), NewFiles { left, since: Instant::now() })
    }

    /// Lines of these containers, each of which says its name.
    fn write(files: &mut Files, names: &[String]) {
        let encoding = Encoding {
            format: Format::Rfc3164,
            framing: Some(crate::config::Framing::Newline),
            escaped: true,
            sd_id: "docker@32473".to_owned(),
        };
        let line = |name: &String| format!("<30>1 2026-11-20T22:27:33Z n7 {name} - - - {name}").into_bytes();
        let lines: Vec<_> = names.iter().map(line).collect();
        files.write(lines.iter().map(Vec::as_slice), &encoding, &mut Vec::new()).expect("written");
    }

    /// What each file has, by its path below the directory.
    fn found(dir: &TempDir) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::new();
        for host in std::fs::read_dir(dir.path()).expect("a directory") {
            for file in std::fs::read_dir(host.expect("an entry").path()).expect("a directory") {
                let path = file.expect("an entry").path();
                let text = std::fs::read_to_string(&path).expect("text");
                let last = |line: &str| line.rsplit(' ').next().map(str::to_owned);
                let below = path.strip_prefix(dir.path()).expect("below");
                found.insert(below.display().to_string(), text.lines().filter_map(last).collect());
            }
        }
        found
    }

    #[test]
    fn names_beyond_the_most_share_a_file() {
        let dir = TempDir::new().expect("a directory");
        let mut few = files(&dir, 3);
        let names = |from: usize, to: usize| (from..to).map(|n| format!("web-{n}")).collect::<Vec<_>>();
        (0..5).for_each(|n| write(&mut few, &names(n, n + 1)));
        sync_and_close(&mut few.open).expect("synced");
        // Those that have a file keep it.
        write(&mut few, &names(0, 3));
        let own = |n: usize| (format!("n7/web-{n}.log"), vec![format!("web-{n}"); 2]);
        let others = ("_others/_others.log".to_owned(), names(3, 5));
        assert_eq!(found(&dir), (0..3).map(own).chain([others]).collect());
        // Another day.
        few.new.since = Instant::now().checked_sub(DAY).expect("the clock has run for a day");
        write(&mut few, &names(4, 5));
        assert_eq!(found(&dir)["n7/web-4.log"], ["web-4"]);
    }

    #[test]
    fn a_name_that_is_taken_by_a_directory_stops_nobody() {
        let dir = TempDir::new().expect("a directory");
        std::fs::create_dir_all(dir.path().join("n7/web-1.log")).expect("a directory");
        let mut some = files(&dir, 10);
        let names: Vec<_> = (0..3).map(|n| format!("web-{n}")).collect();
        write(&mut some, &names);
        std::fs::remove_dir(dir.path().join("n7/web-1.log")).expect("it is empty");
        let own = |n: usize| (format!("n7/web-{n}.log"), vec![format!("web-{n}")]);
        let others = ("_others/_others.log".to_owned(), vec!["web-1".to_owned()]);
        assert_eq!(found(&dir), [own(0), own(2), others].into());
    }

    #[test]
    fn many_files_are_synced_and_closed_like_few() {
        let dir = TempDir::new().expect("a directory");
        let mut many = files(&dir, usize::MAX);
        let names: Vec<_> = (0..2 * MAX_OPEN_FILES + 1).map(|n| format!("web-{n}")).collect();
        write(&mut many, &names);
        assert_eq!(many.open.len(), 1, "the others were closed");
        write(&mut many, &names[..MANY_FILES + 1]);
        sync_and_close(&mut many.open).expect("synced");
        assert!(many.open.is_empty());
        let found = found(&dir);
        assert_eq!(found.len(), names.len());
        assert_eq!(found["n7/web-0.log"], ["web-0"; 2]);
    }
}
