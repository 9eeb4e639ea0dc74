//! The spool's directory, and the check that it still belongs to this spool. While the spool is open, a person may
//! remove the directory or its content, and create it again. The lock file is then gone, and another relay may open a
//! spool there. Writing or removing a file by its name would then damage the other spool, and data written to removed
//! files would be lost when the process ends.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::OpenError;
use super::open::{LOCK, lock};
use super::segment::{self, HEADER_LEN, Header, SpoolId};

/// How often the spool tries to take the directory again.
const TRY_EVERY: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

/// The spool's directory, locked as long as this value exists.
pub(super) struct Home {
    dir: PathBuf,
    id: SpoolId,
    lock: Mutex<Lock>,
    /// The number of times that the directory was taken again.
    generation: AtomicU64,
}

/// The lock file. The process that holds the lock owns the spool. The kernel releases the lock however the process
/// ends.
struct Lock {
    _file: File,
    /// Device and inode. No other file has these numbers while this one is open.
    identity: (u64, u64),
    /// When and why taking the directory again failed last.
    refused: Option<(Instant, String)>,
}

/// The state of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The directory is still the spool's.
    Same,
    /// The directory was removed or emptied, and has been taken again. Its former content is gone.
    Anew,
}

impl Home {
    pub fn new(dir: PathBuf, id: SpoolId, lock: File) -> io::Result<Self> {
        Ok(Self { dir, id, lock: Mutex::new(Lock::new(lock)?), generation: AtomicU64::new(0) })
    }

    /// Fails if the directory is no longer the spool's. While it succeeds, files may be written and removed by their
    /// names.
    pub fn check(&self) -> io::Result<()> {
        match self.is_ours(&self.lock.lock()) {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::NotFound,
                "the spool's lock is not in it any more: it was removed or replaced",
            )),
        }
    }

    /// Checks that the directory is the spool's, and takes it again if it was removed and no other relay has it.
    /// `is_known`: whether the spool has a segment of this number.
    pub fn keep(&self, is_known: impl Fn(u64) -> bool) -> io::Result<Found> {
        let mut held = self.lock.lock();
        if self.is_ours(&held) {
            return Ok(Found::Same);
        }
        if let Some((at, why)) = &held.refused
            && at.elapsed() < TRY_EVERY
        {
            return Err(io::Error::other(why.clone()));
        }
        match self.take(is_known) {
            Ok(lock) => *held = lock,
            Err(error) => {
                held.refused = Some((Instant::now(), error.to_string()));
                return Err(error);
            }
        }
        self.generation.fetch_add(1, Ordering::Release);
        Ok(Found::Anew)
    }

    fn take(&self, is_known: impl Fn(u64) -> bool) -> io::Result<Lock> {
        let file = lock(&self.dir).map_err(|error| match error {
            OpenError::InUse { .. } => io::Error::other("another relay has its spool there now"),
            OpenError::Io { source, .. } => source,
            other => io::Error::other(other),
        })?;
        match self.has_another_spool(is_known)? {
            true => Err(io::Error::other("another spool is there now")),
            false => Lock::new(file),
        }
    }

    /// Grows each time the directory is taken again: files opened before that have no name any more.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Also true on other errors: a disk that fails, or a directory without permission, is still the same directory.
    fn is_ours(&self, held: &Lock) -> bool {
        match fs::symlink_metadata(self.dir.join(LOCK)) {
            Ok(found) => identity(&found) == held.identity,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }

    /// Whether the directory has a segment of another spool. A segment with this spool's id and an unknown number
    /// counts too: another relay has continued this spool.
    fn has_another_spool(&self, is_known: impl Fn(u64) -> bool) -> io::Result<bool> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(segment::number_of) else { continue };
            if !is_known(number) || !self.wrote(&segment::path(&self.dir, number)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn wrote(&self, segment: &Path) -> bool {
        let mut header = [0; HEADER_LEN as usize];
        let read = File::open(segment).and_then(|file| file.read_exact_at(&mut header, 0));
        read.is_ok() && Header::decode(&header).is_ok_and(|header| header.id == self.id)
    }
}

impl Lock {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self { identity: identity(&file.metadata()?), _file: file, refused: None })
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
