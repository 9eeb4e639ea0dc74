//! Creates files and directories, for the spool and for `file://`. The owner may write them, and the group may read them. The umask
//! can take permissions away and adds none. Existing files keep their mode.
//!
//! Reads the files that the config names: certificates, keys, secrets, and the config itself.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Bytes of the largest file that is read whole. A bundle of all public CAs has about 250 KiB.
pub const MAX_BYTES: u64 = 4 << 20;

const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// Options that give a new file this mode.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Creates an empty file. An existing file is truncated.
pub fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// Creates a directory, and its missing parents.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIR_MODE).recursive(true).create(dir)
}

/// Reads a regular file of at most `max_bytes` bytes. A pipe, a socket and a device are errors, because reading one could wait for
/// ever. A symbolic link is followed, because Kubernetes mounts secrets as links.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    // A device is not opened: opening one can change its state.
    check_regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    // The name may refer to another file by now.
    check_regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    // The length in the metadata is no guide: files in /proc have length 0.
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} KiB", max_bytes / 1024)));
    }
    Ok(bytes)
}

/// Reads a regular file of text, as [`read`] reads bytes.
pub fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    String::from_utf8(read(path, max_bytes)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {found}, and no regular file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_file_is_read_through_links_and_up_to_its_limit() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, link) = (dir.path().join("..data"), dir.path().join("token"));
        fs::write(&data, "twelve bytes").expect("written");
        symlink("..data", &link).expect("a link");
        assert_eq!(read_text(&link, 12).expect("a file"), "twelve bytes");
        let error = read(&link, 11).expect_err("larger");
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(&dir.path().join("nothing"), 1).expect_err("no file").kind(), ErrorKind::NotFound);
        assert_eq!(read(dir.path(), 1).expect_err("a directory").kind(), ErrorKind::IsADirectory);
        fs::write(&data, b"\xff").expect("written");
        assert_eq!(read_text(&link, 12).expect_err("no text").kind(), ErrorKind::InvalidData);
        // Its metadata says 0 bytes, and it is not empty.
        assert!(!read(Path::new("/proc/self/status"), MAX_BYTES).expect("a file").is_empty());
    }

    /// Reading one of these would block for ever, or never end.
    #[test]
    fn nothing_but_a_file_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let (pipe, socket) = (dir.path().join("pipe"), dir.path().join("socket"));
        mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        for (path, says) in [(pipe.as_path(), "a pipe"), (&socket, "a socket"), (Path::new("/dev/zero"), "a device")] {
            let error = read(path, MAX_BYTES).expect_err("no file").to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
