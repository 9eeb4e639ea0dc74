//! The files of one `file://` target: which are open, how far they are synced, and where lines go whose own file cannot be
//! written. All functions may block.
//!
//! A problem with one path does not stop the forward: its lines go to the file of the others, where each field of the template is
//! `_others`. A problem with that file, or with its disk, makes the forward wait.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Abandoned;
use super::open::{self, Patience, Trouble, Unwritten};
use super::path::PathTemplate;
use super::refused::Refused;
use crate::forward::encode::Encoding;
use crate::record::Record;

/// From this many open files on, files are synced together. Each single sync waits for the disk's cache, so a sender that invents
/// names could keep us busy with nothing else.
pub const MANY_FILES: usize = 64;

pub struct Files {
    template: PathTemplate,
    /// The file for all lines whose own file cannot be written or would be one too many.
    others: PathBuf,
    open: HashMap<PathBuf, OpenFile>,
    /// How many files may be open at once.
    most: usize,
    /// How many files may be open until the next sync: the process may have fewer descriptors left.
    allowed: usize,
    /// Counts writes, to know which file was written least recently.
    writes: u64,
    refused: Arc<Refused>,
    abandoned: Abandoned,
}

struct OpenFile {
    file: File,
    /// The file's file system.
    device: u64,
    /// The file's length when all of it was last known to be on the disk; `None`: not a regular file.
    synced: Option<u64>,
    last_write: u64,
}

/// The outcome of a batch, or of everything that was written since the last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Some lines are not on the disk, and will go elsewhere. All lines have to be written again.
    Again,
}

/// Why a batch is not written. All of it is taken back, as far as possible.
enum Failed {
    /// A file could not be made durable. Its lines will go elsewhere.
    Again,
    /// No line can be written.
    All(io::Error),
}

/// Why lines do not go to their own file.
enum Refusal {
    /// The file would be one too many.
    TooManyFiles,
    Unwritten(Unwritten),
}

impl Refusal {
    fn into_error(self) -> io::Error {
        match self {
            Self::TooManyFiles => ErrorKind::QuotaExceeded.into(),
            Self::Unwritten(Unwritten { error, .. }) => error,
        }
    }
}

impl Files {
    pub fn new(template: &Path, most: usize, refused: Arc<Refused>, abandoned: Abandoned) -> Self {
        let template = PathTemplate::new(template);
        let (others, open) = (template.of_others(), HashMap::new());
        Self { template, others, open, most, allowed: most, writes: 0, refused, abandoned }
    }

    /// `Err`: the file that could not be written, and why.
    pub fn write<'l>(
        &mut self,
        lines: impl Iterator<Item = &'l [u8]>,
        encoding: &Encoding,
        scratch: &mut Vec<u8>,
    ) -> io::Result<Outcome> {
        let mut by_path: HashMap<String, Vec<u8>> = HashMap::new();
        let mut path = String::new();
        for line in lines {
            self.template.fill(&Record::from_line(line, &encoding.sd_id), &mut path);
            // Not the entry API, which would need an owned path for each line.
            match by_path.get_mut(&path) {
                Some(bytes) => encoding.append(line, scratch, bytes),
                None => encoding.append(line, scratch, by_path.entry(path.clone()).or_default()),
            }
        }
        let written = by_path.iter().try_for_each(|(path, lines)| self.append_somewhere(Path::new(path), lines));
        self.finish(written)
    }

    /// Makes all written lines durable, and closes the files.
    pub fn sync_and_close(&mut self) -> io::Result<Outcome> {
        let synced = self.sync();
        self.allowed = self.most;
        if synced.is_ok() {
            self.open.clear();
        }
        self.finish(synced)
    }

    /// After a failure, cuts the files back to what is synced and retired, because everything behind it is written again. Otherwise
    /// half a line would stay, and every attempt would add to the files that can be written.
    fn finish(&mut self, done: Result<(), Failed>) -> io::Result<Outcome> {
        let Err(failed) = done else { return Ok(Outcome::Done) };
        let taken_back = self.take_back();
        match (failed, taken_back) {
            (Failed::Again, _) => Ok(Outcome::Again),
            (Failed::All(error), Ok(())) => Err(error),
            (Failed::All(error), Err(also)) => {
                Err(io::Error::other(format!("{error}; cannot take back what is written again: {also}")))
            }
        }
    }

    /// Appends lines to the file of their path, or to the file for all lines whose own cannot be written.
    fn append_somewhere(&mut self, path: &Path, lines: &[u8]) -> Result<(), Failed> {
        if self.abandoned.is_so() {
            return Err(Failed::All(ErrorKind::Interrupted.into()));
        }
        let rest = match self.refused.has(path) {
            true => lines,
            false => match self.append(path, lines)? {
                Ok(()) => return Ok(()),
                Err(Refusal::TooManyFiles) => lines,
                Err(Refusal::Unwritten(Unwritten { written, error })) => {
                    self.is_of_the_path(path, &error)?;
                    self.refused.add(path, &error.to_string(), &self.others);
                    &lines[written..]
                }
            },
        };
        let others = self.others.clone();
        match self.append(&others, rest)? {
            Ok(()) => {
                self.refused.count(rest.iter().filter(|byte| **byte == b'\n').count());
                Ok(())
            }
            Err(refusal) => {
                let error = refusal.into_error();
                let says = format!("{error}; lines go there that {} does not take", path.display());
                Err(Failed::All(named(&others, &io::Error::new(error.kind(), says))))
            }
        }
    }

    /// `Ok`: the error concerns this path alone. `Err`: no line can be written.
    fn is_of_the_path(&self, path: &Path, error: &io::Error) -> Result<(), Failed> {
        match Trouble::of(error, path, &self.others) {
            Trouble::Path if path != self.others => Ok(()),
            _ => Err(Failed::All(named(path, error))),
        }
    }

    fn append(&mut self, path: &Path, lines: &[u8]) -> Result<Result<(), Refusal>, Failed> {
        if !self.open.contains_key(path) {
            match self.open(path)? {
                Ok(file) => drop(self.open.insert(path.to_owned(), file)),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        self.writes += 1;
        let Some(open) = self.open.get_mut(path) else { return Ok(Ok(())) };
        open.last_write = self.writes;
        let patience = if path == self.others { Patience::Endless } else { Patience::Short };
        Ok(open::append(&mut open.file, lines, patience, &self.abandoned).map_err(Refusal::Unwritten))
    }

    fn open(&mut self, path: &Path) -> Result<Result<OpenFile, Refusal>, Failed> {
        if self.open.len() >= self.allowed {
            self.close_some()?;
        }
        loop {
            let opened = match open::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if path != self.others && !self.refused.may_make() {
                        return Ok(Err(Refusal::TooManyFiles));
                    }
                    let made = open::make(path);
                    if made.is_ok() && path != self.others {
                        self.refused.made_one(&self.others);
                    }
                    made
                }
                opened => opened,
            };
            let looked_at = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
            match looked_at {
                Ok((file, metadata)) => {
                    let synced = metadata.is_file().then_some(metadata.len());
                    return Ok(Ok(OpenFile { file, device: metadata.dev(), synced, last_write: 0 }));
                }
                Err(error) if open::is_out_of_descriptors(&error) && !self.open.is_empty() => {
                    self.allowed = self.open.len();
                    self.close_some()?;
                }
                Err(error) => return Ok(Err(Refusal::Unwritten(Unwritten { written: 0, error }))),
            }
        }
    }

    /// Closes the files that were written least recently: a quarter of those that may be open.
    fn close_some(&mut self) -> Result<(), Failed> {
        self.sync()?;
        let mut writes: Vec<u64> = self.open.values().map(|open| open.last_write).collect();
        writes.sort_unstable();
        let stay = self.allowed * 3 / 4;
        let closed = writes.len().saturating_sub(stay);
        let first_to_stay = writes.get(closed).copied().unwrap_or(u64::MAX);
        self.open.retain(|_, open| open.last_write >= first_to_stay);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failed> {
        let synced = if self.open.len() >= MANY_FILES { self.sync_together() } else { self.sync_each() };
        let Err((paths, error)) = synced else { return Ok(()) };
        for path in &paths {
            self.is_of_the_path(path, &error)?;
        }
        let are_remembered = paths.iter().all(|path| self.refused.add(path, &error.to_string(), &self.others));
        Err(if are_remembered { Failed::Again } else { Failed::All(error) })
    }

    fn sync_each(&self) -> Result<(), (Vec<PathBuf>, io::Error)> {
        for (path, OpenFile { file, .. }) in &self.open {
            match file.sync_data() {
                // A pipe or /dev/null has nothing to sync.
                Err(error) if error.raw_os_error() != Some(nix::libc::EINVAL) => {
                    return Err((vec![path.clone()], error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Syncs whole file systems, so that the disk's cache is flushed once and not once for each file. (`syncfs` reports write errors
    /// since Linux 5.8.)
    fn sync_together(&self) -> Result<(), (Vec<PathBuf>, io::Error)> {
        let mut synced: Vec<u64> = Vec::new();
        for OpenFile { file, device, .. } in self.open.values() {
            if synced.contains(device) {
                continue;
            }
            synced.push(*device);
            if let Err(error) = nix::unistd::syncfs(file) {
                let on_it = self.open.iter().filter(|(_, open)| open.device == *device);
                return Err((on_it.map(|(path, _)| path.clone()).collect(), error.into()));
            }
        }
        Ok(())
    }

    fn take_back(&mut self) -> io::Result<()> {
        let mut taken_back = Ok(());
        for (path, OpenFile { file, synced, .. }) in self.open.drain() {
            let Some(synced) = synced else { continue };
            // A shorter file was truncated by another program meanwhile (logrotate's copytruncate).
            let longer = file.metadata().is_ok_and(|metadata| metadata.len() > synced);
            if longer && let Err(error) = file.set_len(synced) {
                taken_back = Err(named(&path, &error));
            }
        }
        taken_back
    }

    #[cfg(test)]
    pub fn open_files(&self) -> usize {
        self.open.len()
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
