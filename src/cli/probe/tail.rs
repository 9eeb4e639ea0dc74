//! Reading a file that somebody else writes, as `tail -F` does: what is in it already is passed over; one that is rotated
//! away, cut or not there yet is looked for again.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How often the file is looked at; no latency is measured more exactly.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const PIECE_BYTES: usize = 256 << 10;
/// A longer line is not of the probe's, in bytes.
const LONGEST_LINE: usize = 1 << 20;
/// Files of one name that are read at a time, and for how long one that was rotated away is when nothing comes.
const MOST_OPEN: usize = 4;
const LEFT_AFTER: Duration = Duration::from_secs(10);

/// Reads lines until the process ends. An error is the line to print.
pub fn start(path: PathBuf, on_line: impl Fn(&[u8]) + Send + 'static) -> Result<(), String> {
    let shown = path.display();
    let says = |error: &dyn std::fmt::Display| format!("probe: cannot read {shown}: {error}");
    let file = match File::open(&path) {
        Ok(mut file) => {
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(says(&"it is a directory; name the file that the messages come to"));
            }
            file.seek(SeekFrom::End(0)).map_err(|error| says(&error))?;
            Some(file)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("probe: {shown} is not there yet");
            None
        }
        Err(error) => return Err(says(&format!("{error}; read it as the user that may, or as root"))),
    };
    let open = file.into_iter().map(Open::new).collect();
    let mut tail = Tail { path: path.clone(), open, on_line };
    let thread = thread::Builder::new().name("tail".to_owned());
    thread.spawn(move || tail.run()).map(drop).map_err(|error| format!("probe: cannot start a thread: {error}"))
}

struct Tail<F> {
    path: PathBuf,
    /// The last one has the name, or had it; who writes may go on in those before for a while.
    open: Vec<Open>,
    on_line: F,
}

struct Open {
    file: File,
    /// A line that has not ended yet.
    line: Vec<u8>,
    /// When there was something in it.
    read: Instant,
}

impl<F: Fn(&[u8])> Tail<F> {
    fn run(&mut self) {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            for open in &mut self.open {
                while let Ok(read @ 1..) = open.file.read(&mut piece) {
                    open.take(&piece[..read], &self.on_line);
                }
            }
            self.open.iter_mut().for_each(Open::rewind_if_cut);
            if self.open.last().is_none_or(|open| is_left(&open.file, &self.path)) {
                self.open.extend(File::open(&self.path).map(Open::new));
            }
            while self.open.len() > 1 && (self.open.len() > MOST_OPEN || self.open[0].read.elapsed() > LEFT_AFTER) {
                self.open.remove(0);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Open {
    fn new(file: File) -> Self {
        Self { file, line: Vec::new(), read: Instant::now() }
    }

    /// A file that was copied and cut is written from its start again.
    fn rewind_if_cut(&mut self) {
        let length = self.file.metadata().map(|metadata| metadata.len());
        if length.is_ok_and(|length| self.file.stream_position().is_ok_and(|at| length < at)) {
            let _ = self.file.rewind();
            self.line.clear();
        }
    }

    fn take(&mut self, bytes: &[u8], on_line: &impl Fn(&[u8])) {
        self.read = Instant::now();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() <= LONGEST_LINE {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                on_line(&self.line);
                self.line.clear();
            }
        }
    }
}

/// Whether another file has its name now. One that has no name any more may still be written to.
fn is_left(file: &File, path: &Path) -> bool {
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
        start(path.clone(), move |line| seen.lock().unwrap().push(String::from_utf8_lossy(line).trim_end().to_owned()))
            .unwrap();
        let expect = |expected: &[&str]| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while *lines.lock().unwrap() != expected {
                assert!(Instant::now() < deadline, "{expected:?}, but there is {:?}", lines.lock().unwrap());
                thread::sleep(LOOK_AGAIN);
            }
        };
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"ore\none\nt").unwrap();
        expect(&["ore", "one"]);
        file.write_all(b"wo\n").unwrap();
        expect(&["ore", "one", "two"]);
        // Renamed, and there is a new one: both are written to.
        std::fs::rename(&path, &aside).unwrap();
        std::fs::write(&path, "three\n").unwrap();
        expect(&["ore", "one", "two", "three"]);
        file.write_all(b"late\n").unwrap();
        expect(&["ore", "one", "two", "three", "late"]);
        // Cut.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"4\n").unwrap();
        expect(&["ore", "one", "two", "three", "late", "4"]);
    }
}
