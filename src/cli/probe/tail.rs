//! Follows a file that another program writes, as `tail -F` does: the present content is skipped, and the file is opened
//! again after it is rotated, truncated or created.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How often the file is read. It is the resolution of latencies.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const READ_BYTES: usize = 256 << 10;
/// The maximum length of a line, in bytes. The probe's own lines are shorter.
const MAX_LINE: usize = 1 << 20;
/// The maximum number of open files with the same name.
const MAX_OPEN: usize = 4;
/// How long a rotated file is read after its last line.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a thread that calls `on_line` with each line until the process ends. The error is a message for the user.
pub fn follow(path: PathBuf, on_line: impl Fn(&[u8]) + Send + 'static) -> Result<(), String> {
    let displayed = path.display();
    let says = |error: &dyn std::fmt::Display| format!("probe: cannot read {displayed}: {error}");
    let file = match File::open(&path) {
        Ok(mut file) => {
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(says(&"it is a directory; name the file that the messages come to"));
            }
            file.seek(SeekFrom::End(0)).map_err(|error| says(&error))?;
            Some(file)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("probe: {displayed} is not there yet");
            None
        }
        Err(error) => return Err(says(&format!("{error}; read it as the user that may, or as root"))),
    };
    let open = file.into_iter().map(OpenFile::new).collect();
    let mut tail = Tail { path: path.clone(), open, on_line };
    let thread = thread::Builder::new().name("tail".to_owned());
    thread.spawn(move || tail.run()).map(drop).map_err(|error| format!("probe: cannot start a thread: {error}"))
}

struct Tail<F> {
    path: PathBuf,
    /// The files, oldest first. The last one has the name, or had it. The program may continue to write to earlier ones for a
    /// while.
    open: Vec<OpenFile>,
    on_line: F,
}

struct OpenFile {
    file: File,
    /// The start of an incomplete line.
    line: Vec<u8>,
    /// The last time that the file had new bytes.
    last_read: Instant,
}

impl<F: Fn(&[u8])> Tail<F> {
    fn run(&mut self) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            for open in &mut self.open {
                while let Ok(read @ 1..) = open.file.read(&mut buffer) {
                    open.feed(&buffer[..read], &self.on_line);
                }
            }
            self.open.iter_mut().for_each(OpenFile::rewind_if_truncated);
            if self.open.last().is_none_or(|open| is_replaced(&open.file, &self.path)) {
                self.open.extend(File::open(&self.path).map(OpenFile::new));
            }
            while self.open.len() > 1 && (self.open.len() > MAX_OPEN || self.open[0].last_read.elapsed() > IDLE_TIMEOUT)
            {
                self.open.remove(0);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl OpenFile {
    fn new(file: File) -> Self {
        Self { file, line: Vec::new(), last_read: Instant::now() }
    }

    /// Starts again at the beginning if the file was truncated (logrotate's `copytruncate`).
    fn rewind_if_truncated(&mut self) {
        let length = self.file.metadata().map(|metadata| metadata.len());
        if length.is_ok_and(|length| self.file.stream_position().is_ok_and(|at| length < at)) {
            let _ = self.file.rewind();
            self.line.clear();
        }
    }

    fn feed(&mut self, bytes: &[u8], on_line: &impl Fn(&[u8])) {
        self.last_read = Instant::now();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() <= MAX_LINE {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                on_line(&self.line);
                self.line.clear();
            }
        }
    }
}

/// Does another file have the name now? The program may still write to the old one.
fn is_replaced(file: &File, path: &Path) -> bool {
    let (Ok(own), Ok(named)) = (file.metadata(), path.metadata()) else { return false };
    (own.dev(), own.ino()) != (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_file_is_followed_through_whatever_becomes_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("log"), dir.path().join("log.1"));
        std::fs::write(&path, "before\nbef").unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = lines.clone();
        follow(path.clone(), move |line| {
            seen.lock().unwrap().push(String::from_utf8_lossy(line).trim_end().to_owned())
        })
        .unwrap();
        let expect = |expected: &[&str]| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while *lines.lock().unwrap() != expected {
                assert!(Instant::now() < deadline, "{expected:?}, but there is {:?}", lines.lock().unwrap());
                thread::sleep(POLL_INTERVAL);
            }
        };
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"ore\none\nt").unwrap();
        expect(&["ore", "one"]);
        file.write_all(b"wo\n").unwrap();
        expect(&["ore", "one", "two"]);
        // The file is renamed, and a new one has its name. Both are written to.
        std::fs::rename(&path, &aside).unwrap();
        std::fs::write(&path, "three\n").unwrap();
        expect(&["ore", "one", "two", "three"]);
        file.write_all(b"late\n").unwrap();
        expect(&["ore", "one", "two", "three", "late"]);
        // The file is truncated.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"4\n").unwrap();
        expect(&["ore", "one", "two", "three", "late", "4"]);
    }
}
