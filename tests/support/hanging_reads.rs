//! A disk whose reads hang for one process, unless the page cache has the data. The limit is one byte a second, the lowest that control
//! groups take.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{root_can, skip};

/// A control group's file that limits a device, and the text for that file.
struct Limit {
    file: &'static str,
    hangs: String,
    goes_on: String,
}

/// Dropping this lets reads continue.
pub struct HangingReads {
    parent: PathBuf,
    group: PathBuf,
    limit: Limit,
    process: u32,
}

impl HangingReads {
    /// Makes this process's reads of the files in `dir` hang; `device` is the file system's, `MAJOR:MINOR`. `None`: this requires root and
    /// a kernel with the control group's `io` controller, and the test reported that it was skipped.
    pub fn of(process: u32, dir: &Path, device: &str) -> Option<Self> {
        if !root_can("limit what a process reads") {
            return None;
        }
        let v1 = Path::new("/sys/fs/cgroup/blkio");
        let (parent, limit) = if v1.is_dir() {
            let [hangs, goes_on] = ["1", "0"].map(|bytes| format!("{device} {bytes}"));
            (v1, Limit { file: "blkio.throttle.read_bps_device", hangs, goes_on })
        } else {
            let root = Path::new("/sys/fs/cgroup");
            // The controller may be enabled already, or this process may not be allowed to enable it.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+io");
            let [hangs, goes_on] = ["1", "max"].map(|bytes| format!("{device} rbps={bytes}"));
            (root, Limit { file: "io.max", hangs, goes_on })
        };
        let group = parent.join(format!("logferry-{process}"));
        let made = fs::create_dir(&group).and_then(|()| fs::write(group.join(limit.file), &limit.hangs));
        if let Err(error) = made {
            let _ = fs::remove_dir(&group);
            skip("control groups", &format!("what a process reads cannot be limited: {}: {error}", group.display()));
            return None;
        }
        let hanging = Self { parent: parent.to_owned(), group, limit, process };
        hanging.moves_to(&hanging.group).expect("the process runs");
        // Cached data needs no read, so drop it. The end of a file that is being written stays in memory.
        for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
            if entry.path().is_file() {
                let file = File::open(entry.path()).expect("a file");
                file.sync_all().expect("it is written");
                let half = i64::try_from(file.metadata().expect("a file").len() / 2).expect("a small file");
                posix_fadvise(&file, 0, half, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("a file");
            }
        }
        Some(hanging)
    }

    fn moves_to(&self, group: &Path) -> std::io::Result<()> {
        fs::write(group.join("cgroup.procs"), self.process.to_string())
    }
}

impl Drop for HangingReads {
    fn drop(&mut self) {
        let _ = fs::write(self.group.join(self.limit.file), &self.limit.goes_on);
        // The process may have ended.
        let _ = self.moves_to(&self.parent);
        let _ = fs::remove_dir(&self.group);
    }
}
