//! When written data is synced to the disk (fdatasync). By default a thread syncs in the background, so that no batch
//! waits for a disk that takes 10 ms.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::hysteresis::Hysteresis;
use crate::metrics::SpoolMetrics;

/// How much a power cut may lose. A crash of the process alone loses nothing in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Nothing: readers see a line only when it is synced.
    Always,
    /// The data written since the last sync, which is at most about this long ago.
    Every(Duration),
    /// The data that the kernel has not written back yet; half a minute is usual.
    Never,
}

/// While syncs keep failing, a new segment is begun at most this often.
const NEW_FILE_EVERY: Duration = Duration::from_secs(60);

/// Logged when a sync fails, here and by the writer.
pub(super) const DOES_NOT_SYNC: &str =
    "the disk does not sync; lines go on, but a power cut now would lose some. Check the disk";

/// The policy at work.
pub(super) enum Flush {
    Always,
    Behind(Behind),
    Never,
}

impl Flush {
    /// Errors: the thread cannot be started.
    pub fn start(policy: Sync, dir: PathBuf, metrics: SpoolMetrics) -> io::Result<Self> {
        Ok(match policy {
            Sync::Always => Self::Always,
            Sync::Every(period) => Self::Behind(Behind::start(period, dir, metrics)?),
            Sync::Never => Self::Never,
        })
    }
}

/// The thread that syncs the written files once per period, full segments included.
pub(super) struct Behind {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    dirty: Mutex<Dirty>,
    changed: Condvar,
    /// A sync has failed, and the writer does not know yet.
    failed: AtomicBool,
}

#[derive(Default)]
struct Dirty {
    /// Files written to and not synced since, each once.
    files: Vec<Arc<File>>,
    closed: bool,
}

impl Behind {
    fn start(period: Duration, dir: PathBuf, metrics: SpoolMetrics) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let run = move || run(&theirs, period, &dir, &metrics);
        let thread = thread::Builder::new().name("spool-sync".into()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes that `file` has been written to.
    pub fn mark(&self, file: &Arc<File>) {
        let mut dirty = self.shared.lock();
        // The newest segment is the usual one, so the search begins at the end.
        if !dirty.files.iter().rev().any(|known| Arc::ptr_eq(known, file)) {
            dirty.files.push(file.clone());
            self.shared.changed.notify_one();
        }
    }

    /// Whether a sync has failed since the last call. After a failed sync the kernel marks the lost pages as clean, so
    /// the next sync of that file would succeed and mean nothing: the next lines belong in another file.
    pub fn take_failed(&self) -> bool {
        self.shared.failed.swap(false, Ordering::Acquire)
    }

    /// Closes files that are no longer in the directory: they need no sync, and the file system frees their space only
    /// when they are closed. A file whose sync is under way stays open until it ends.
    pub fn forget_removed(&self) {
        self.shared.lock().files.retain(|file| file.metadata().is_ok_and(|file| file.nlink() > 0));
    }
}

impl Drop for Behind {
    /// Syncs the remaining files and ends the thread.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock()
    }
}

fn run(shared: &Shared, period: Duration, dir: &std::path::Path, metrics: &SpoolMetrics) {
    let mut trouble = Hysteresis::default();
    // When the writer was last told to begin another file.
    let mut left: Option<Instant> = None;
    loop {
        let idle = |dirty: &mut Dirty| dirty.files.is_empty() && !dirty.closed;
        let mut dirty = shared.lock();
        shared.changed.wait_while(&mut dirty, idle);
        // A file is dirty. Waiting for a period lets writes gather; an idle spool causes no wake-ups.
        shared.changed.wait_while_for(&mut dirty, |dirty| !dirty.closed, period);
        let files = std::mem::take(&mut dirty.files);
        let closed = dirty.closed;
        drop(dirty);

        // A file that fails must not keep the others from being synced.
        let mut failed = None;
        for file in &files {
            metrics.syncs.inc();
            failed = file.sync_data().err().or(failed);
        }
        match failed {
            None if !files.is_empty() && trouble.ends() => {
                tracing::info!(dir = %dir.display(), "spool: the disk syncs again");
            }
            None => {}
            Some(error) => {
                if trouble.begins() {
                    tracing::error!(
                        dir = %dir.display(), %error,
                        "spool: {DOES_NOT_SYNC}"
                    );
                }
                // A disk that keeps failing must not be filled with a segment for each failure.
                if left.is_none_or(|left| left.elapsed() > NEW_FILE_EVERY) {
                    left = Some(Instant::now());
                    shared.failed.store(true, Ordering::Release);
                }
                metrics.errors.inc();
            }
        }
        if closed {
            return;
        }
    }
}
