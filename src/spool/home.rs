//! The directory, and whether it is the spool's still. Somebody may remove it, or what is in it, while the spool is open, and
//! make it anew. The lock is gone then, and another relay may open a spool there: whoever wrote or removed a file by its name
//! would write into that one, and what went to files without a name would be lost when the process ends.

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

/// How often a directory that is not the spool's is tried.
const TRY_EVERY: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

/// The spool's directory for as long as it is locked.
pub(super) struct Home {
    dir: PathBuf,
    id: SpoolId,
    lock: Mutex<Lock>,
    /// How often the directory was taken again.
    generation: AtomicU64,
}

/// Held for life: whoever has the lock owns the spool. The kernel lets go of it however the process ends.
struct Lock {
    _file: File,
    /// While the file is open no other has this number.
    identity: (u64, u64),
    /// When and why the directory could not be taken again.
    refused: Option<(Instant, String)>,
}

/// What was found at the directory's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The directory as it was.
    Same,
    /// The directory had been removed, or emptied, and is taken again. What was in it is gone.
    Anew,
}

impl Home {
    pub fn new(dir: PathBuf, id: SpoolId, lock: File) -> io::Result<Self> {
        Ok(Self { dir, id, lock: Mutex::new(Lock::new(lock)?), generation: AtomicU64::new(0) })
    }

    /// Fails where the directory is no longer the spool's. Files may be written and removed by their names until then.
    pub fn check(&self) -> io::Result<()> {
        match self.is_ours(&self.lock.lock()) {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::NotFound,
                "the spool's lock is not in it any more: it was removed or replaced",
            )),
        }
    }

    /// Looks whether the directory is the spool's, and takes it again if it was removed and nobody else has it. `is_known`:
    /// whether the spool has a segment of this number.
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

    /// Grows each time the directory was taken again: files that were open before have no name any more.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// True also where it cannot be told: a disk that fails, or a directory that is closed to us, is no other directory.
    fn is_ours(&self, held: &Lock) -> bool {
        match fs::symlink_metadata(self.dir.join(LOCK)) {
            Ok(found) => identity(&found) == held.identity,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }

    /// Whether the directory has a segment that is not ours. One of ours with a number that we never gave comes from a relay
    /// that has gone on with our spool.
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
