//! The file and stdout links: lines to files named by a template, or to our own standard output.
//!
//! File I/O blocks, so each batch is written by a thread of the runtime's pool. A line is retired when `fdatasync` is
//! through. A message's fields come from strangers: whatever a container is called, its file stays below the template's
//! fixed directories.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Events;
use super::encode::Encoding;
use super::source::{Source, pause_after_read_error};
use crate::spool::{Batch, Chunk, Position};
use crate::syslog::Line;

/// Written lines are made durable and retired at least this often. Files are closed then too, so that one that was
/// rotated away is left within this time.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Files open at once; one more, and all are synced and closed first.
const MAX_OPEN_FILES: usize = 256;
/// Bytes of a field that go into a file name. File systems allow 255.
const LONGEST_NAME: usize = 128;

/// The lines' way to the disk or to stdout; moves to a pool thread and back for each batch.
pub struct FileLink {
    output: Output,
    encoding: Encoding,
    scratch: Vec<u8>,
}

enum Output {
    Files { template: PathBuf, open: HashMap<PathBuf, File> },
    Stdout,
}

impl FileLink {
    pub fn files(template: &Path, encoding: Encoding) -> Self {
        Self::new(Output::Files { template: template.to_owned(), open: HashMap::new() }, encoding)
    }

    pub fn stdout(encoding: Encoding) -> Self {
        Self::new(Output::Stdout, encoding)
    }

    fn new(output: Output, encoding: Encoding) -> Self {
        Self { output, encoding, scratch: Vec::new() }
    }

    /// Writes lines until the relay stops: `Ok`. `Err`: the file that could not be written, and why.
    pub async fn carry(mut self, source: &mut Source, events: &mut Events) -> Result<(), String> {
        let mut unsynced = Unsynced::default();
        let mut stopping = false;
        loop {
            let chunk = match source.next_chunk() {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::error!("spool: cannot read: {error}; trying again");
                    pause_after_read_error().await;
                    continue;
                }
            };
            let idle = chunk.is_none();
            if let Some(Chunk { batch, end, .. }) = chunk {
                self = self.blocking(move |link| link.write(&batch)).await?;
                unsynced.reach(end);
            }
            if unsynced.due() || stopping && idle || events.deadline.passed() {
                self = self.blocking(Self::sync).await?;
                unsynced.take().into_iter().for_each(|reached| source.retire(reached));
            }
            if events.deadline.passed() {
                return Ok(());
            }
            if !idle {
                continue;
            }
            if stopping {
                return Ok(());
            }
            tokio::select! {
                more = source.wait() => stopping = !more,
                () = sleep(SYNC_EVERY), if unsynced.any() => {}
                () = events.deadline.reached() => {}
            }
        }
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

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let Self { output, encoding, scratch } = self;
        match output {
            Output::Stdout => {
                let mut bytes = Vec::with_capacity(batch.byte_len());
                batch.lines().for_each(|line| encoding.append(line, scratch, &mut bytes));
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()
            }
            Output::Files { template, open } => {
                let mut by_path: HashMap<PathBuf, Vec<u8>> = HashMap::new();
                for line in batch.lines() {
                    let path = path_for(template, &Line::parse(line, &encoding.sd_id));
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

fn append(open: &mut HashMap<PathBuf, File>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(file) = open.get_mut(path) {
        return file.write_all(bytes);
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    file.write_all(bytes)?;
    open.insert(path.to_owned(), file);
    Ok(())
}

fn sync_and_close(open: &mut HashMap<PathBuf, File>) -> io::Result<()> {
    for (path, file) in open.iter() {
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

/// The template with a message's fields filled in, each made a harmless part of a file name.
fn path_for(template: &Path, line: &Line<'_>) -> PathBuf {
    let template = template.to_string_lossy();
    let mut path = String::with_capacity(template.len() + 64);
    let mut rest: &str = &template;
    while let Some(start) = rest.find('{') {
        let after = &rest[start + 1..];
        let Some(end) = after.find('}') else { break };
        path.push_str(&rest[..start]);
        match field(line, &after[..end]) {
            Some(value) => push_harmless(&value, &mut path),
            None => path.push_str(&rest[start..start + end + 2]),
        }
        rest = &after[end + 1..];
    }
    path.push_str(rest);
    PathBuf::from(path)
}

/// `None`: no field has this name, so the text stands for itself.
fn field<'a>(line: &'a Line<'_>, name: &str) -> Option<Cow<'a, [u8]>> {
    let container =
        |value: &'a Option<Cow<'_, [u8]>>, otherwise: &'a [u8]| Cow::Borrowed(value.as_deref().unwrap_or(otherwise));
    match name {
        "host" => Some(Cow::Borrowed(line.hostname)),
        "app" => Some(Cow::Borrowed(line.app_name)),
        "name" => Some(container(&line.container_name, line.app_name)),
        "image" => Some(container(&line.image_name, b"-")),
        "id" => Some(container(&line.container_id, b"-")),
        _ => None,
    }
}

/// Letters, digits and `-_.@+=,` stand for themselves, everything else becomes `_`, and nothing starts with a dot: no
/// value can name another directory, hide a file or be empty.
fn push_harmless(value: &[u8], path: &mut String) {
    if value.is_empty() {
        path.push('-');
    }
    for (at, byte) in value.iter().take(LONGEST_NAME).enumerate() {
        let harmless = byte.is_ascii_alphanumeric() || b"-_.@+=,".contains(byte);
        let hides = at == 0 && *byte == b'.';
        path.push(if harmless && !hides { char::from(*byte) } else { '_' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(value: &[u8], expected: &str) {
        let mut path = String::new();
        push_harmless(value, &mut path);
        assert_eq!(path, expected);
    }

    #[test]
    fn no_field_leaves_its_directory() {
        harmless(b"proj-web-1", "proj-web-1");
        harmless(b"../../etc/passwd", "_._.._etc_passwd");
        harmless(b"..", "_.");
        harmless(b"", "-");
        harmless(b"a\0\nb", "a__b");
        harmless(b"registry.local:5000/app", "registry.local_5000_app");
        harmless(&[b'x'; 300], &"x".repeat(LONGEST_NAME));
    }
}
