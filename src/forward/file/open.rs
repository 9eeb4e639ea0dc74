//! How files are opened and written, and how far an error reaches: one file or all. Nothing here waits for another program
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

/// How long a pipe may be full before its reader counts as stalled.
const PIPE_PATIENCE: Duration = Duration::from_secs(1);
/// Milliseconds between two checks whether the forward still waits for a pipe.
const LOOK_EVERY: u16 = 100;

/// Opens an existing file. Does not wait for a pipe's reader: a pipe without a reader is an error.
pub fn open(path: &Path) -> io::Result<File> {
    waits_for_nobody(&mut OpenOptions::new()).append(true).open(path)
}

/// Creates a file, and the missing directories above it.
pub fn make(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        files::create_dir_all(parent)?;
    }
    waits_for_nobody(&mut files::options()).append(true).create(true).open(path)
}

fn waits_for_nobody(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(O_NONBLOCK | O_NOCTTY)
}

/// Bytes (whole lines) that were written before an error.
pub struct Unwritten {
    pub written: usize,
    pub error: io::Error,
}

/// How long to wait for a full pipe.
#[derive(Clone, Copy)]
pub enum Patience {
    /// A moment: the lines have another place to go to.
    Short,
    /// As long as the forward waits for the lines.
    Endless,
}

/// Appends lines. After an error a regular file has none of them; any other file has the first `written` bytes and none behind them.
pub fn append(file: &mut File, lines: &[u8], patience: Patience, abandoned: &Abandoned) -> Result<(), Unwritten> {
    let (mut written, mut since) = (0, Instant::now());
    // A pipe takes up to PIPE_BUF bytes whole or not at all, so no half line stays in it.
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
                    // The next write reports an error of `poll` too.
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

/// The length of the whole lines at the beginning of `lines`, at most `max` bytes; the first line counts in any case.
fn whole_lines(lines: &[u8], max: usize) -> usize {
    if lines.len() <= max {
        return lines.len();
    }
    let end = memchr::memrchr(b'\n', &lines[..max]).or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines.len(), |end| end + 1)
}

/// Takes back what was written, where that is possible. Returns how many bytes of whole lines stay.
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

/// How far the trouble with one file reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Only this path is concerned.
    Path,
    /// The file system of this path and of the others is full, failing or read-only.
    Disk,
    /// The process has run out of descriptors or memory.
    Process,
}

impl Trouble {
    /// `others`: the path of the file that gets the lines instead.
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

/// Whether both paths are on one file system. True also where the system does not tell.
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
