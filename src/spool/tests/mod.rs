//! Stories of one spool: what goes in, what comes out, and what the counters say, whatever happens in between. Bytes on
//! the disk are damaged here; random histories are in `tests/spool_model.rs`.

mod damage;
mod held;
mod origins;
mod runtime;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tempfile::TempDir;

use super::segment::HEADER_LEN;
use super::*;
use crate::metrics::Metrics;

/// A spool directory and the way it is opened.
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
    waiting_at_start: Vec<u64>,
}

impl Home {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        // In memory where that can be had: closing syncs, and some stories close a thousand times.
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
        let waiting_at_start = readers.iter().map(Reader::waiting).collect();
        Ok(Open { metrics, writer, readers, handle, report, waiting_at_start })
    }

    fn open(&self) -> Open {
        self.try_open().unwrap()
    }

    /// The directory as a crash at this moment would leave it.
    fn crashed(&self) -> Self {
        let home = Self::with(|options| *options = Options { ..self.options.clone() });
        for path in files(self.dir.path(), "") {
            fs::copy(&path, home.dir.path().join(path.file_name().unwrap())).unwrap();
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
    fn append(&mut self, lines: std::ops::Range<u64>) {
        let lines: Vec<String> = lines.map(line).collect();
        self.writer.append(&mut [batch(&lines)]);
        self.check_books();
    }

    fn deliver(&mut self, lines: std::ops::Range<u64>) -> Answer {
        let lines: Vec<String> = lines.map(line).collect();
        let receipt = self.writer.deliver(batch(&lines), None);
        self.check_books();
        Answer::of(receipt)
    }

    /// Tries again with what is held.
    fn again(&mut self) {
        self.writer.append(&mut []);
        self.check_books();
    }

    /// All that can be read, in pieces of about `max_bytes`.
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

    fn delivered(&self, reader: usize) -> u64 {
        self.metrics.forward(["a", "b"][reader]).delivered.get()
    }

    #[track_caller]
    fn check_books(&self) {
        for (i, reader) in self.readers.iter().enumerate() {
            let left = self.spooled() + self.waiting_at_start[i];
            assert_eq!(
                left,
                self.delivered(i) + self.evicted(i) + self.damaged(i) + reader.waiting(),
                "books of reader {i}"
            );
            assert_eq!(self.metrics.forward(["a", "b"][i]).waiting.get() as u64, reader.waiting());
        }
        assert_eq!(self.metrics.spool().bytes.get() as u64, self.writer.log.bytes());
    }
}

/// What a receipt says, without waiting.
struct Answer {
    waiting: Pin<Box<dyn Future<Output = Result<(), NotSpooled>>>>,
    said: Option<Result<(), NotSpooled>>,
}

impl Answer {
    fn of(receipt: Receipt) -> Self {
        Self { waiting: Box::pin(receipt.spooled()), said: None }
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
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(end));
    files.sort();
    files
}

fn range(lines: std::ops::Range<u64>) -> Vec<u64> {
    lines.collect()
}

#[test]
fn lines_come_back_in_order_over_many_segments() {
    let home = Home::new();
    let mut spool = home.open();
    for start in (0..200).step_by(5) {
        spool.append(start..start + 5);
    }
    assert!(home.files(".seg").len() > 5, "no segment was rolled");
    for max_bytes in [0, 100, 1 << 18] {
        let chunks = spool.read(0, max_bytes);
        let lines: Vec<u64> = chunks.iter().flat_map(|c| c.batch.lines().map(number)).collect();
        assert_eq!(lines, range(0..200));
        assert!(chunks.windows(2).all(|pair| pair[0].end.line == pair[1].start.line));
        assert_eq!(spool.readers[0].rewind(), 200);
    }
    spool.read_numbers(0);
    spool.retire_all(0);
    assert_eq!((spool.delivered(0), home.files(".seg").len()), (200, 1));
}

#[test]
fn a_chunk_can_be_retired_in_the_middle() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..10);
    let chunk = spool.readers[0].next(1 << 18).unwrap().unwrap();
    let (line, after) = chunk.lines().nth(3).unwrap();
    assert_eq!((number(line), after.line), (3, 4));
    spool.readers[0].retire(after);
    assert_eq!((spool.delivered(0), spool.readers[0].waiting()), (4, 6));
    spool.readers[0].retire(chunk.start);
    assert_eq!(spool.delivered(0), 4, "a cursor went backwards");
    assert_eq!(spool.readers[0].rewind(), 6);
    assert_eq!(spool.read_numbers(0), range(4..10));
    drop(spool);
    let mut spool = home.open();
    assert_eq!(spool.read_numbers(0), range(4..10), "after a restart");
}

#[test]
fn what_is_retired_after_a_rewind_is_not_read_again() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..10);
    let chunk = spool.readers[0].next(100).unwrap().unwrap();
    assert_eq!(spool.readers[0].rewind(), chunk.batch.line_count());
    spool.readers[0].retire(chunk.end);
    assert_eq!(spool.read_numbers(0), range(chunk.end.line..10));
    // And a position that was never given out changes nothing.
    spool.readers[0].retire(Position { line: 11, ..chunk.end });
    assert_eq!(spool.readers[0].position(), chunk.end);
    spool.check_books();
}

#[test]
fn a_crash_at_any_moment_loses_nothing() {
    let home = Home::new();
    let mut spool = home.open();
    for step in 0..60 {
        spool.append(step * 3..step * 3 + 3);
        if step % 4 == 3 {
            let chunk = spool.readers[0].next(200).unwrap().unwrap();
            spool.readers[0].retire(chunk.end);
        }
        let retired = spool.readers[0].position().line;
        let crashed = home.crashed();
        let mut after = crashed.open();
        let read = after.read_numbers(0);
        assert_eq!(read, range(read[0]..step * 3 + 3));
        assert!(read[0] <= retired, "lines {retired}..{} are lost", read[0]);
        assert_eq!(after.report.torn_bytes, 0);
    }
}

#[test]
fn a_segment_cut_at_any_byte_gives_a_prefix_and_goes_on() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..8);
    let segment = home.files(".seg").remove(0);
    let whole = fs::read(&segment).unwrap();
    drop(spool);
    let end_of = |n| HEADER_LEN as usize + (0..=n).map(|n| RECORD_HEADER + line(n).len()).sum::<usize>();
    let ends: Vec<usize> = (0..8).map(end_of).collect();
    for zeros in [0, 100] {
        for cut in 0..whole.len() {
            let home = home.crashed();
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + zeros, 0);
            fs::write(&home.files(".seg")[0], &bytes).unwrap();
            let mut spool = home.open();
            let read = spool.read_numbers(0);
            let whole_lines = ends.iter().take_while(|&&end| end <= cut).count() as u64;
            assert_eq!(read, range(0..whole_lines), "cut {cut}");
            if cut > HEADER_LEN as usize {
                assert!(spool.report.damaged.is_empty(), "cut {cut}");
                let good = whole_lines.checked_sub(1).map_or(HEADER_LEN as usize, end_of);
                assert_eq!(spool.report.torn_bytes as usize, bytes.len() - good, "cut {cut}");
                assert_eq!(home.segment_bytes() as usize, good, "cut {cut}");
            }
            spool.append(100..103);
            assert_eq!(spool.read_numbers(0), range(100..103), "cut {cut}");
            drop(spool);
            let mut spool = home.open();
            assert_eq!(spool.report.torn_bytes, 0, "cut {cut}: repaired once and for all");
            assert_eq!(spool.read_numbers(0), [read, range(100..103)].concat(), "cut {cut}");
        }
    }
}

#[test]
fn files_are_closed_when_they_are_read_or_evicted() {
    let home = Home::with(|options| {
        options.max_bytes = 64 << 10;
        options.sync = Sync::Every(Duration::from_secs(3 << 24));
    });
    let open_files = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        fds.filter(|path| path.starts_with(home.dir.path()) && path.to_str().unwrap().contains(".seg")).count()
    };
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    spool.readers[0].next(100).unwrap().unwrap();
    let segments = home.files(".seg").len();
    assert_eq!(open_files(), segments + 1, "those that wait to be synced, the one read from");
    (0..300).for_each(|step| spool.append(step * 5..step * 5 + 5));
    assert!(spool.evicted(0) > 0);
    let segments = home.files(".seg").len();
    assert_eq!(open_files(), segments, "an evicted file that is open gives no room back");
    spool.read_numbers(0);
    assert!(open_files() <= segments + 1);
}

#[test]
fn lines_that_a_power_cut_takes_back_do_not_make_the_cursor_skip_new_ones() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..10);
    spool.retire_all(0);
    drop(spool);
    let segment = home.files(".seg").remove(0);
    let half = fs::metadata(&segment).unwrap().len() / 2;
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(half).unwrap();
    // Twice: the cursor that is ahead must not come into its own later, when the lines have caught up.
    let mut spool = home.open();
    assert_eq!(spool.readers[0].waiting(), 0);
    spool.append(100..120);
    let crashed = home.crashed();
    let mut again = crashed.open();
    assert_eq!(again.read_numbers(0), range(100..120));
    assert_eq!(spool.read_numbers(0), range(100..120));
}

#[test]
fn a_second_relay_is_refused_until_the_first_is_gone() {
    let home = Home::new();
    let spool = home.open();
    let error = home.try_open().err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains(home.dir.path().to_str().unwrap()), "{error}");
    drop(spool);
    home.open();
}

#[test]
fn the_id_and_the_numbers_last() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.retire_all(0);
    let id = spool.report.id;
    drop(spool);
    for restart in 1..5 {
        let mut spool = home.open();
        assert_eq!((spool.report.id, spool.writer.end.line), (id, restart * 5));
        assert_eq!(home.files(".seg").len(), 1, "a restart leaves files behind");
        spool.append(0..5);
        spool.retire_all(0);
    }
    assert_ne!(Home::new().open().report.id, id);
}

#[test]
fn a_full_spool_drops_the_oldest_lines_and_counts_them() {
    let home = Home::with(|options| {
        options.max_bytes = 64 << 10;
        options.segment_bytes = 8 << 10;
    });
    let mut spool = home.open();
    let first = spool.readers[0].next(1);
    assert!(first.unwrap().is_none());
    for step in 0..500 {
        spool.append(step * 5..step * 5 + 5);
        assert!(home.segment_bytes() <= 64 << 10, "over the cap");
        if step == 3 {
            // Read and not retired: what is then evicted must not count as delivered.
            spool.readers[0].next(200).unwrap().unwrap();
        }
    }
    assert!(home.segment_bytes() > 48 << 10, "more was evicted than had to be");
    let evicted = spool.evicted(0);
    assert!(evicted > 1000);
    assert_eq!(spool.read_numbers(0), range(evicted..2500));
    spool.retire_all(0);
    assert_eq!(spool.delivered(0) + evicted, 2500);
}

#[test]
fn a_full_spool_can_refuse_new_lines_instead() {
    let home = Home::with(|options| {
        options.max_bytes = 64 << 10;
        options.segment_bytes = 8 << 10;
        options.when_full = WhenFull::DropNewest;
    });
    let mut spool = home.open();
    (0..500).for_each(|step| spool.append(step * 5..step * 5 + 5));
    assert!(home.segment_bytes() <= 64 << 10, "over the cap");
    let dropped = spool.metrics.spool().dropped_full.get();
    assert_eq!(spool.spooled() + dropped, 2500);
    let read = spool.read_numbers(0);
    assert!(dropped > 1000 && read.len() as u64 == spool.spooled());
    spool.retire_all(0);
    spool.append(3000..3005);
    assert_eq!(spool.read_numbers(0), range(3000..3005));
}

#[test]
fn no_batch_is_larger_than_the_spool() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        let home = Home::with(|options| {
            options.max_bytes = 64 << 10;
            options.when_full = when_full;
        });
        let mut spool = home.open();
        spool.append(0..5);
        spool.append(0..5000);
        assert!(home.segment_bytes() <= 64 << 10);
        assert_eq!(spool.metrics.spool().dropped_full.get(), 5000);
        assert_eq!(spool.read_numbers(0), range(0..5), "lines were given up for nothing");
    }
}

#[test]
fn the_slowest_forward_holds_the_segments_and_a_removed_one_does_not() {
    let mut home = Home::with(|options| options.forwards = vec!["a".into(), "b".into()]);
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    let segments = home.files(".seg").len();
    assert_eq!(spool.read_numbers(0), range(0..100));
    spool.retire_all(0);
    assert_eq!(home.files(".seg").len(), segments);
    assert_eq!(spool.read_numbers(1), range(0..100));
    let chunk_end = Position { line: 1, ..spool.writer.end };
    spool.readers[1].retire(chunk_end);
    drop(spool);

    home.options.forwards.pop();
    let spool = home.open();
    assert_eq!(spool.report.stale_cursors, ["cursor.b"]);
    assert_eq!(home.files(".seg").len(), 1);
}

#[test]
fn a_new_forward_starts_at_the_oldest_line() {
    let mut home = Home::new();
    home.open().append(0..10);
    home.options.forwards.push("b".into());
    let mut spool = home.open();
    assert_eq!((spool.readers[1].waiting(), spool.read_numbers(1)), (10, range(0..10)));
}

#[test]
fn a_full_disk_costs_the_oldest_lines_first() {
    let home = Home::new();
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    let oldest = home.files(".seg").remove(0);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(100..105);
    assert!(!oldest.exists());
    assert_eq!(spool.metrics.spool().dropped_error.get(), 0);
    let evicted = spool.evicted(0);
    assert_eq!(spool.read_numbers(0), range(evicted..105));

    spool.writer.faults.extend([ErrorKind::StorageFull; 2]);
    spool.append(105..110);
    assert_eq!(spool.metrics.spool().dropped_error.get(), 5);
    spool.append(110..115);
    assert_eq!(spool.read_numbers(0), range(110..115));
    drop(spool);
    assert_eq!(home.open().report.torn_bytes, 0, "a failed write left something behind");
}

#[test]
fn a_full_disk_never_costs_the_segment_that_is_written_to() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(5..10);
    assert_eq!((spool.evicted(0), spool.metrics.spool().dropped_error.get()), (0, 5));
    spool.append(10..15);
    assert_eq!(spool.read_numbers(0), [range(0..5), range(10..15)].concat());
}

#[test]
fn a_full_disk_costs_new_lines_where_old_ones_are_dearer() {
    let home = Home::with(|options| options.when_full = WhenFull::DropNewest);
    let mut spool = home.open();
    (0..20).for_each(|step| spool.append(step * 5..step * 5 + 5));
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(100..105);
    spool.append(105..110);
    assert_eq!((spool.evicted(0), spool.metrics.spool().dropped_error.get()), (0, 5));
    assert_eq!(spool.read_numbers(0), [range(0..100), range(105..110)].concat());
}

#[test]
fn a_full_disk_takes_lines_again_when_all_is_delivered() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.read_numbers(0);
    spool.retire_all(0);
    let full = home.files(".seg").remove(0);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    spool.append(5..10);
    assert!(!full.exists(), "it holds the room that a new one needs");
    assert_eq!((spool.metrics.spool().dropped_error.get(), spool.read_numbers(0)), (0, range(5..10)));
    let mut answer = spool.deliver(10..11);
    spool.retire_all(0);
    spool.writer.faults.push_back(ErrorKind::StorageFull);
    let mut held = spool.deliver(11..15);
    spool.again();
    assert_eq!((answer.now(), held.now()), (Some(Ok(())), Some(Ok(()))));
    drop(spool);
    assert_eq!(home.open().read_numbers(0), range(11..15));
}

#[test]
fn a_sync_that_failed_behind_our_back_is_not_forgotten() {
    let home = Home::with(|options| {
        options.sync = Sync::Every(Duration::from_millis(1));
        options.segment_bytes = 128 << 10;
    });
    let mut spool = home.open();
    spool.append(0..5);
    let sync::Flush::Behind(behind) = &spool.writer.flush else { panic!("another policy") };
    // A pipe cannot be synced.
    let pipe = std::sync::Arc::new(fs::File::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().0)));
    behind.mark(&pipe);
    while spool.metrics.spool().errors.get() == 0 {
        std::thread::yield_now();
    }
    spool.append(5..6);
    assert_eq!(home.files(".seg").len(), 2);
    // A disk that goes on failing is not filled with segments.
    let sync::Flush::Behind(behind) = &spool.writer.flush else { panic!("another policy") };
    let errors = spool.metrics.spool().errors.get();
    behind.mark(&pipe);
    while spool.metrics.spool().errors.get() == errors {
        std::thread::yield_now();
    }
    let segments = home.files(".seg").len();
    spool.append(6..7);
    assert_eq!(home.files(".seg").len(), segments);
}

#[test]
fn a_broken_segment_is_left_for_a_new_one() {
    let home = Home::new();
    let mut spool = home.open();
    spool.append(0..5);
    spool.writer.faults.push_back(ErrorKind::Other);
    spool.append(5..10);
    assert_eq!((home.files(".seg").len(), spool.evicted(0)), (2, 0));
    // A disk that stays broken must not be filled with empty segments.
    for step in 0..10 {
        spool.writer.faults.extend([ErrorKind::Other; 2]);
        spool.append(100 + step..101 + step);
        spool.writer.faults.clear();
    }
    assert_eq!(spool.metrics.spool().dropped_error.get(), 10);
    assert!(home.files(".seg").len() <= 3);
    spool.append(10..15);
    assert_eq!(spool.read_numbers(0), range(0..15));
}

#[test]
fn strings_shows_the_lines() {
    let home = Home::new();
    home.open().append(0..2);
    let text = String::from_utf8_lossy(&fs::read(&home.files(".seg")[0]).unwrap()).into_owned();
    assert!(text.contains(&line(0)) && text.contains(&line(1)));
}
