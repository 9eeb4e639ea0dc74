//! Remembers files that could not be written, from one attempt to the next, and reports them. A sender can choose the file of its
//! lines, so both have a limit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::forward::log_limiter::LogLimiter;
use crate::log::Throttle;
use crate::status::SharedForwardStatus;

/// How long a path that could not be written is not tried again.
pub const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The most paths that are remembered. Further ones are tried with each batch.
const MOST_PATHS: usize = 1024;
/// How often the log reports that lines go elsewhere.
const TELL_EVERY: Duration = Duration::from_secs(600);

/// The most new files in a [`DAY`], because an untrusted sender may invent names. Lines under further names go to one file.
const MOST_NEW_FILES: usize = 10_000;
pub const DAY: Duration = Duration::from_secs(86_400);

pub struct Refused {
    limiter: Arc<LogLimiter>,
    status: SharedForwardStatus,
    /// Counts lines that went elsewhere.
    diverted: Counter,
    memory: Mutex<Memory>,
}

pub struct Memory {
    /// When each path was refused.
    paths: HashMap<PathBuf, Instant>,
    /// Limits the log line about refused paths.
    throttle: Throttle,
    /// How many more files may be created, and when the count began.
    pub new_files: usize,
    pub since: Instant,
}

impl Refused {
    pub fn new(limiter: Arc<LogLimiter>, status: SharedForwardStatus, diverted: Counter) -> Self {
        let memory = Memory {
            paths: HashMap::new(),
            throttle: Throttle::new(TELL_EVERY),
            new_files: MOST_NEW_FILES,
            since: Instant::now(),
        };
        Self { limiter, status, diverted, memory: Mutex::new(memory) }
    }

    /// Whether the path could not be written a moment ago.
    pub fn has(&self, path: &Path) -> bool {
        let mut memory = self.memory.lock();
        let is_fresh = memory.paths.get(path).map(|since| since.elapsed() < TRY_AGAIN_AFTER);
        if is_fresh == Some(false) {
            memory.paths.remove(path);
        }
        is_fresh == Some(true)
    }

    /// Sends lines for `path` to `others` from now on. False: there is no room to remember the path.
    pub fn add(&self, path: &Path, why: &str, others: &Path) -> bool {
        let mut memory = self.memory.lock();
        if memory.paths.len() >= MOST_PATHS {
            memory.paths.retain(|_, since| since.elapsed() < TRY_AGAIN_AFTER);
        }
        let is_remembered = memory.paths.len() < MOST_PATHS;
        if is_remembered {
            memory.paths.insert(path.to_owned(), Instant::now());
        }
        let tells = memory.throttle.allows(Instant::now());
        drop(memory);
        let says = format!("cannot write to {}: {why}", path.display());
        self.status.failed(&says);
        if tells {
            tracing::warn!(
                parent: self.limiter.span(),
                "{says}; its lines go to {}, as do those of other files that cannot be written: logferry_forward_diverted counts them",
                others.display()
            );
        }
        is_remembered
    }

    pub fn count(&self, lines: usize) {
        self.diverted.inc_by(lines as u64);
    }

    /// Whether another file may be created.
    pub fn may_make(&self) -> bool {
        let mut memory = self.memory.lock();
        if memory.since.elapsed() >= DAY {
            (memory.new_files, memory.since) = (MOST_NEW_FILES, Instant::now());
        }
        memory.new_files > 0
    }

    /// Counts a file that was created. `others`: where lines go when the limit is reached.
    pub fn made_one(&self, others: &Path) {
        let mut memory = self.memory.lock();
        memory.new_files = memory.new_files.saturating_sub(1);
        if memory.new_files == 0 {
            tracing::warn!(
                parent: self.limiter.span(),
                "{MOST_NEW_FILES} new files within a day; lines under other new names go to {}",
                others.display()
            );
        }
    }

    pub fn say_fewer_files(&self, asked: usize, most: usize) {
        let says = format!(
            "max-open-files = {asked} is more than the process may have: {most} are used; raise the limit of open files (ulimit -n)"
        );
        if self.limiter.is_new(&says) {
            tracing::warn!(parent: self.limiter.span(), "{says}");
        }
    }

    /// Reports that nothing was written or refused for this time: the disk, or the reader of a pipe, stands still.
    pub fn say_it_hangs(&self, time: Duration) {
        const SAYS: &str = "writing takes longer than 5 s: the disk, or the reader of a pipe, stalls";
        self.status.stalled(time * 2);
        self.status.failed(SAYS);
        if self.limiter.is_new(SAYS) {
            tracing::warn!(parent: self.limiter.span(), "{SAYS}; its lines wait in the spool");
        }
    }

    #[cfg(test)]
    pub fn memory(&self) -> parking_lot::MutexGuard<'_, Memory> {
        self.memory.lock()
    }
}

#[cfg(test)]
impl Memory {
    /// Makes the memory as old as if `time` had passed.
    pub fn ages(&mut self, time: Duration) {
        let before = |at: Instant| at.checked_sub(time).expect("the clock has run for so long");
        self.paths.values_mut().for_each(|at| *at = before(*at));
        self.since = before(self.since);
    }
}
