//! Checks the spool's directory: whether this user can write there, the free space, and the file system. The check creates
//! and locks nothing, because a relay may be using the directory.

use std::fs;
use std::io;
use std::iter;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use super::Report;
use super::paths::refusal;
use crate::config;
use crate::config::MIN_SPOOL_SIZE;

/// Network file systems: their magic numbers in `statfs` (linux/magic.h and the drivers), and their names.
const NETWORK: [(i64, &str); 8] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6573_5546, "FUSE"),
];
const TMPFS: i64 = 0x0102_1994;
const OVERLAY: i64 = 0x794c_7630;

pub fn check(settings: &config::Spool, report: &mut Report) {
    let dir = &settings.dir;
    let there = match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => {
            return report.problem(format!("spool: {} is no directory; name another as `dir`", dir.display()));
        }
        Ok(_) => dir.as_path(),
        // The relay creates the directory, if the lowest existing directory above it is writable.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.note(format!("spool: {} is not there yet; a relay makes it", dir.display()));
            dir.ancestors().skip(1).find(|parent| parent.exists()).unwrap_or(Path::new("."))
        }
        Err(error) => return report.problem(format!("spool: cannot look at {}: {error}", dir.display())),
    };
    if may_write(dir, there, report) {
        check_kind(dir, there, report);
        check_room(settings, there, report);
    }
}

/// Can this user write to the directory, and to files in it that a relay of another user has left?
fn may_write(dir: &Path, there: &Path, report: &mut Report) -> bool {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all = iter::once(there.to_owned()).chain(files.filter(|path| path.is_file()));
    let Some((path, error)) = all.find_map(|path| refusal(&path).map(|error| (path, error))) else { return true };
    let uid = geteuid();
    let what_to_do = match error {
        Errno::EROFS => "its file system is read-only; mount it writable, or name another `dir`".to_owned(),
        // The directories above belong to others.
        _ if there != dir => {
            format!(
                "uid {uid} must be able to make the spool; make it first (install -d -o {uid} -m 750 {})",
                dir.display()
            )
        }
        _ => format!("it must belong to uid {uid} (chown -R {uid} {})", dir.display()),
    };
    report.problem(format!("spool: cannot write to {}: {}; {what_to_do}", path.display(), error.desc()));
    false
}

fn check_kind(dir: &Path, there: &Path, report: &mut Report) {
    let Ok(found) = statfs(there) else { return };
    let magic = found.filesystem_type().0 & 0xffff_ffff;
    let dir = dir.display();
    if let Some((_, name)) = NETWORK.iter().find(|(number, _)| *number == magic) {
        report.warning(format!(
            "spool: {dir} is on a network file system ({name}): when that hangs, the relay and its senders hang; use a local \
             disk"
        ));
    } else if magic == OVERLAY {
        report.warning(format!(
            "spool: {dir} is in the container's own layer and goes when the container does; mount a volume there"
        ));
    } else if magic == TMPFS {
        report.note(format!("spool: {dir} is in memory (tmpfs): a reboot takes what is in it"));
    }
}

fn check_room(settings: &config::Spool, there: &Path, report: &mut Report) {
    let Ok(found) = statvfs(there) else { return };
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    // The space of spooled lines counts as free.
    let room = free.saturating_add(spooled(&settings.dir));
    let dir = settings.dir.display();
    // In whole MiB, or in GiB from 10 GiB on.
    let unit = if room >> 30 < 10 { 20 } else { 30 };
    let displayed = config::displayed_size(room >> unit << unit);
    if room < MIN_SPOOL_SIZE.as_u64() {
        report.warning(format!(
            "spool: the disk of {dir} is full: every line would be dropped and counted; make room on it"
        ));
    } else if room < settings.max_size {
        report.warning(format!(
            "spool: the disk of {dir} has room for {} and `max-size` is {}: it would be full before the spool is; make room, or \
             set `max-size` to less than that",
            displayed,
            config::displayed_size(settings.max_size)
        ));
    } else {
        report.note(format!("spool: {dir} has room for {displayed}"));
    }
}

fn spooled(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let segments = files.filter(|file| file.path().extension().is_some_and(|end| end == "seg"));
    segments.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}
