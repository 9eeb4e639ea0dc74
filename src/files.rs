//! How files and directories are made, the spool's and those of `file://` alike: for their owner, and for their group to
//! read. The umask may take more away and gives nothing back. What is there already keeps the mode it has.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// Options that make a file so, if they make one.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// An empty file, whatever was there.
pub fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

pub fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIR_MODE).create(dir)
}

/// With those above it that are missing.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIR_MODE).recursive(true).create(dir)
}
