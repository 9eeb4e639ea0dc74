//! Tests of one spool: its input, its output and its counters, also when something fails in between. This file has the
//! helpers. `damage` damages bytes on the disk; `tests/spool_model.rs` has random histories.

mod any;
mod damage;
mod full;
mod held;
mod home;
mod inspecting;
mod opening;
mod origins;
mod reading;
mod rejected;
mod resent;
mod runtime;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tempfile::TempDir;

use super::open::Report;
use super::segment::HEADER_LEN;
use super::*;
use crate::metrics::Metrics;

/// A spool directory and the options to open it.
struct Home {
    dir: TempDir,
    options: Options,
}

/// An open spool with its own counters, as after a start of the process.
struct Open {
    metrics: Metrics,
    writer: Writer,
    readers: Vec<Reader>,
    handle: Handle,
    report: Report,
    pending_at_start: Vec<u64>,
    reads_back: bool,
}

impl Home {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        // In memory if possible: closing syncs, and some tests close a thousand times.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut options = Options::new(dir.path(), 1 << 20, vec!["a".into()]);
        options.segment_bytes = 1 << 10;
        options.sync = Sync::Never;
        change(&mut options);
        Self { dir, options }
    }

    fn try_open(&self) -> Result<Open, OpenError> {
        let metrics = Metrics::new();
        let Spool { writer, readers, handle, report } = Spool::open(self.options.clone(), &metrics)?;
        let pending_at_start = readers.iter().map(Reader::pending).collect();
        Ok(Open { metrics, writer, readers, handle, report, pending_at_start, reads_back: false })
    }

    fn open(&self) -> Open {
        self.try_open().unwrap()
    }

    /// A copy of the directory, as a crash at this moment would leave it.
    fn crashed(&self) -> Self {
        let home = Self::with(|options| *options = Options { ..self.options.clone() });
        fs::create_dir_all(home.dir.path().join("dead-letter")).unwrap();
        for path in files(self.dir.path(), "").into_iter().chain(files(&self.dir.path().join("dead-letter"), ".jsonl"))
        {
            fs::copy(&path, home.dir.path().join(path.strip_prefix(self.dir.path()).unwrap())).unwrap();
        }
        let options = Options { dir: home.dir.path().into(), ..self.options.clone() };
        Self { dir: home.dir, options }
    }

    fn files(&self, end: &str) -> Vec<PathBuf> {
        files(self.dir.path(), end)
    }

    fn segment_bytes(&self) -> u64 {
        self.files(".seg").iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }
}

impl Open {
    /// Its readers read everything back from the disk, as readers with a backlog do.
    fn reading_back(self) -> Self {
        Self { reads_back: true, ..self }
    }

    fn append(&mut self, lines: std::ops::Range<u64>) {
        let lines: Vec<String> = lines.map(line).collect();
        self.writer.append(&mut [batch(&lines)]);
        if self.reads_back {
            self.writer.log.forget_fresh();
        }
        self.check_books();
    }

    fn deliver(&mut self, lines: std::ops::Range<u64>) -> Answer {
        let lines: Vec<String> = lines.map(line).collect();
        let receipt = self.writer.deliver(batch(&lines), None);
        self.check_books();
        Answer::of(receipt)
    }

    /// Tries to write the held batches again.
    fn again(&mut self) {
        self.writer.append(&mut []);
        self.check_books();
    }

    /// All lines that can be read, in chunks of about `max_bytes`.
    fn read(&mut self, reader: usize, max_bytes: usize) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.readers[reader].next(max_bytes).unwrap() {
            chunks.push(chunk);
        }
        chunks
    }

    fn read_numbers(&mut self, reader: usize) -> Vec<u64> {
        self.read(reader, 300)
            .iter()
            .flat_map(|chunk| chunk.lines().map(|(line, _)| number(line)).collect::<Vec<_>>())
            .collect()
    }

    fn retire_all(&mut self, reader: usize) {
        let end = self.writer.end;
        self.readers[reader].retire(end);
        self.check_books();
    }

    fn spooled(&self) -> u64 {
        self.metrics.spool().spooled.get()
    }

    fn evicted(&self, reader: usize) -> u64 {
        self.metrics.forward(["a", "b"][reader]).evicted.get()
    }

    fn damaged(&self, reader: usize) -> u64 {
        self.metrics.forward(["a", "b"][reader]).damaged.get()
    }

    fn rejected(&self, reader: usize) -> u64 {
        self.metrics.forward(["a", "b"][reader]).rejected.get()
    }

    fn delivered(&self, reader: usize) -> u64 {
        self.metrics.forward(["a", "b"][reader]).delivered.get()
    }

    #[track_caller]
    fn check_books(&self) {
        for (i, reader) in self.readers.iter().enumerate() {
            let left = self.spooled() + self.pending_at_start[i];
            assert_eq!(
                left,
                self.delivered(i) + self.rejected(i) + self.evicted(i) + self.damaged(i) + reader.pending(),
                "books of reader {i}"
            );
            let metrics = self.metrics.forward(["a", "b"][i]);
            assert_eq!((metrics.pending(), metrics.replayable()), (reader.pending(), reader.replayable()));
        }
        assert_eq!(self.metrics.spool().bytes.get() as u64, self.writer.log.bytes());
    }
}

/// The output of a future that must be ready at once, as long as the spool's threads are not started.
fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for something"),
    }
}

/// The result of a receipt, without waiting.
struct Answer {
    waiting: Pin<Box<dyn Future<Output = Result<(), NotSpooled>>>>,
    said: Option<Result<(), NotSpooled>>,
}

impl Answer {
    fn of(receipt: Receipt) -> Self {
        Self { waiting: Box::pin(receipt), said: None }
    }

    fn now(&mut self) -> Option<Result<(), NotSpooled>> {
        if self.said.is_none()
            && let Poll::Ready(said) = self.waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            self.said = Some(said);
        }
        self.said
    }
}

fn line(number: u64) -> String {
    format!("<14>1 line {number:06} {}", "x".repeat(number as usize % 60))
}

fn number(line: &[u8]) -> u64 {
    std::str::from_utf8(&line[11..17]).unwrap().parse().unwrap()
}

fn batch(lines: &[String]) -> Batch {
    let mut batch = Batch::new();
    for line in lines {
        batch.push(|out| out.extend_from_slice(line.as_bytes()));
    }
    batch
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file() && path.to_str().unwrap().ends_with(end));
    files.sort();
    files
}

fn range(lines: std::ops::Range<u64>) -> Vec<u64> {
    lines.collect()
}
