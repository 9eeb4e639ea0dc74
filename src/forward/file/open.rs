//! How files are opened and written, and whose the trouble is when they cannot be. Nothing here waits for another program
//! without a bound.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK, PIPE_BUF};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Abandoned;
use crate::files;

/// How long a pipe may be full before its reader counts as one that does not read.
const PIPE_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether anybody still waits for a pipe.
const LOOK_EVERY: u16 = 100;

/// Opens a file that is there. A pipe is not waited for: without a reader it is an error.
pub fn open(path: &Path) -> io::Result<File> {
    waits_for_nobody(&mut OpenOptions::new()).append(true).open(path)
}

/// Makes a file, with the directories above it that are missing.
pub fn make(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        files::create_dir_all(parent)?;
    }
    waits_for_nobody(&mut files::options()).append(true).create(true).open(path)
}

fn waits_for_nobody(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(O_NONBLOCK | O_NOCTTY)
}

/// Bytes of a file that were written before an error: whole lines.
pub struct Unwritten {
    pub written: usize,
    pub error: io::Error,
}

/// How long a pipe is waited for that is full.
#[derive(Clone, Copy)]
pub enum Patience {
    /// A moment: its lines have another place to go to.
    Short,
    /// As long as somebody waits for the lines.
    Endless,
}

/// Appends lines. After an error there is none of them in a regular file, and none behind those that were `written` in any other.
pub fn append(file: &mut File, lines: &[u8], patience: Patience, abandoned: &Abandoned) -> Result<(), Unwritten> {
    let (mut written, mut since) = (0, Instant::now());
    // What a pipe takes at once it takes whole, so that no half of a line stays in it.
    let is_pipe = lines.len() > PIPE_BUF && file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    while written < lines.len() {
        let rest = &lines[written..];
        let piece = if is_pipe { &rest[..whole_lines(rest, PIPE_BUF)] } else { rest };
        if abandoned.is_so() {
            let error = ErrorKind::Interrupted.into();
            return Err(Unwritten { written: keep_whole_lines(file, lines, written), error });
        }
        let error = match file.write(piece) {
            Ok(0) => ErrorKind::WriteZero.into(),
            Ok(bytes) => {
                (written, since) = (written + bytes, Instant::now());
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let is_endless = matches!(patience, Patience::Endless) && !abandoned.is_leaving();
                let has_patience = is_endless || since.elapsed() < PIPE_PATIENCE;
                if has_patience && !abandoned.is_so() {
                    let mut writable = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                    // An error is one of the next write too.
                    let _ = poll(&mut writable, PollTimeout::from(LOOK_EVERY));
                    continue;
                }
                io::Error::new(ErrorKind::TimedOut, "no process reads from the pipe")
            }
            Err(error) => error,
        };
        return Err(Unwritten { written: keep_whole_lines(file, lines, written), error });
    }
    Ok(())
}

/// Bytes of the lines at the beginning of `lines` that are not more than `max` together; of the first one in any case.
fn whole_lines(lines: &[u8], max: usize) -> usize {
    if lines.len() <= max {
        return lines.len();
    }
    let end = memchr::memrchr(b'\n', &lines[..max]).or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines.len(), |end| end + 1)
}

/// Takes back what was written, where that can be done; returns how many bytes of whole lines stay.
fn keep_whole_lines(file: &File, lines: &[u8], written: usize) -> usize {
    if let Ok(metadata) = file.metadata()
        && metadata.is_file()
        && let Some(before) = metadata.len().checked_sub(written as u64)
        && (written == 0 || file.set_len(before).is_ok())
    {
        return 0;
    }
    lines[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// What a file that cannot be written has to do with all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: it is about this path.
    Path,
    /// The file system of both is full, failing or read-only.
    Disk,
    /// The process may have no more of something.
    Process,
}

impl Trouble {
    /// `others`: the path whose file is to have lines instead.
    pub fn of(error: &io::Error, path: &Path, others: &Path) -> Self {
        let is_of_both = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => return Self::Process,
            Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EIO) => same_file_system(path, others),
            Some(Errno::EROFS) => is_read_only(others),
            _ => false,
        };
        if is_of_both { Self::Disk } else { Self::Path }
    }
}

pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// Are both paths on one file system? True also where the system does not say.
fn same_file_system(path: &Path, others: &Path) -> bool {
    let device = |path: &Path| nearest(path).map(|metadata| metadata.dev());
    match (device(path), device(others)) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// The metadata of the path, or of the first directory above it that is there.
fn nearest(path: &Path) -> Option<Metadata> {
    path.ancestors().find_map(|path| fs::metadata(path).ok())
}

fn is_read_only(path: &Path) -> bool {
    let flags = path.ancestors().find_map(|path| statvfs(path).ok()).map(|about| about.flags());
    flags.is_none_or(|flags| flags.contains(FsFlags::ST_RDONLY))
}
