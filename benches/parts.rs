//! The parts of the way in isolation, on the messages of `tests/corpus`: what each costs. Whole processes are compared in
//! `compare`.
//!
//! `cargo bench --bench parts` measures; with `-- append` only what has that in its name; with `-- --test` each runs once.
//! `item/s` are messages or lines, and their inverse is what one costs.

#[path = "../tests/support/corpus.rs"]
#[allow(dead_code)] // Only the bytes are of interest.
mod corpus;

use std::cell::RefCell;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, Divan};
use logferry::internals::metrics::Metrics;
use logferry::internals::protocol::framing::Framer;
use logferry::internals::protocol::syslog::{Frame, Senders, Settings, Translator, parse};
use logferry::internals::record::{Format, UnixMicros, render};
use logferry::internals::spool::{Batch, Options, Reader, Spool, Sync};
use tempfile::TempDir;

/// The default of `max-frame`, in bytes.
const LIMIT: usize = 64 << 10;
/// When the corpus was captured, so that its stamps are believed.
const RECEIVED: UnixMicros = UnixMicros(1_795_213_727_500_000);
/// Larger than what is read in one go, and small enough to stay in the page cache.
const SPOOL_BYTES: u64 = 64 << 20;
const READ_LINES: usize = 20_000;
/// What a forward asks its reader for.
const CHUNK_BYTES: usize = 64 << 10;

/// Long enough that what comes now and then, a new segment or an old one dropped, is in it.
const MIN_TIME: Duration = Duration::from_millis(500);

fn main() {
    Divan::default().min_time(MIN_TIME).config_with_args().main();
}

/// Which messages of the corpus.
#[derive(Clone, Copy, PartialEq)]
enum Messages {
    /// Nine of ten: those up to 512 bytes, which are 140 on average.
    Short,
    /// With Docker's pieces of 16 KiB among them: 1600 bytes on average.
    All,
}

const BOTH: [Messages; 2] = [Messages::Short, Messages::All];

impl Messages {
    /// Without framing.
    fn read(self) -> Vec<Vec<u8>> {
        let messages = corpus::rows().into_iter().map(|row| row.unframed().to_vec());
        let is_wanted = |message: &Vec<u8>| self == Self::All || message.len() <= 512;
        messages.filter(is_wanted).collect()
    }

    fn lines(self) -> Vec<Vec<u8>> {
        let mut translator = Translator::new(Arc::new(Settings::default()));
        let mut line = |message: &Vec<u8>| {
            let mut line = Vec::new();
            translator.translate(&frame_of(message), &mut line);
            line
        };
        self.read().iter().map(&mut line).collect()
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Short { "short" } else { "all" })
    }
}

fn frame_of(bytes: &[u8]) -> Frame<'_> {
    Frame { bytes, cut: false, received: RECEIVED }
}

/// With the rates of items and bytes.
fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, items: &[Vec<u8>]) -> Bencher<'a, 'b> {
    let bytes: usize = items.iter().map(Vec::len).sum();
    bencher.counter(ItemsCount::new(items.len())).counter(BytesCount::new(bytes))
}

/// One buffer, as if it had been read at once.
fn frames(bencher: Bencher, messages: Vec<Vec<u8>>, framed: impl Fn(&[u8]) -> Vec<u8>) {
    let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
    let mut framer = Framer::new(LIMIT);
    let mut found = 0;
    framer.feed(&stream, |_, _| found += 1);
    assert_eq!(found, messages.len(), "the messages are not what was framed");
    counted(bencher, &messages).bench_local(|| {
        framer.feed(black_box(&stream), |frame, cut| {
            black_box((frame, cut));
        })
    });
}

#[divan::bench(args = BOTH)]
fn frame_newline(bencher: Bencher, which: Messages) {
    let mut messages = which.read();
    for message in &mut messages {
        // A LF in the middle would end the frame there.
        message.retain(|byte| *byte != b'\n');
    }
    frames(bencher, messages, |message| [message, b"\n"].concat());
}

#[divan::bench(args = BOTH)]
fn frame_counted(bencher: Bencher, which: Messages) {
    frames(bencher, which.read(), |message| [format!("{} ", message.len()).as_bytes(), message].concat());
}

#[divan::bench(name = "parse", args = BOTH)]
fn parse_frame(bencher: Bencher, which: Messages) {
    let (messages, settings) = (which.read(), Settings::default());
    counted(bencher, &messages).bench_local(|| {
        for message in &messages {
            black_box(parse(&frame_of(message), &settings, Senders::Anybody));
        }
    });
}

/// To the canonical line, parsing included.
#[divan::bench(args = BOTH)]
fn translate(bencher: Bencher, which: Messages) {
    let messages = which.read();
    let mut translator = Translator::new(Arc::new(Settings::default()));
    let mut line = Vec::new();
    counted(bencher, &messages).bench_local(|| {
        for message in &messages {
            line.clear();
            translator.translate(&frame_of(message), &mut line);
            black_box(&line);
        }
    });
}

fn renders(bencher: Bencher, which: Messages, format: Format) {
    let (lines, sd_id) = (which.lines(), Settings::default().sd_id);
    let mut out = Vec::new();
    counted(bencher, &lines).bench_local(|| {
        for line in &lines {
            out.clear();
            render(line, format, &sd_id, &mut out);
            black_box(&out);
        }
    });
}

#[divan::bench(args = BOTH)]
fn render_rfc3164(bencher: Bencher, which: Messages) {
    renders(bencher, which, Format::Rfc3164);
}

#[divan::bench(args = BOTH)]
fn render_json(bencher: Bencher, which: Messages) {
    renders(bencher, which, Format::Json);
}

/// Short lines, over and over, in batches of so many.
fn batches(lines: usize, of: usize) -> (Vec<Vec<u8>>, Vec<Batch>) {
    let lines: Vec<_> = Messages::Short.lines().into_iter().cycle().take(lines).collect();
    let batch = |lines: &[Vec<u8>]| {
        let mut batch = Batch::new();
        lines.iter().for_each(|line| batch.push(|out| out.extend_from_slice(line)));
        batch
    };
    let batches = lines.chunks(of).map(batch).collect();
    (lines, batches)
}

fn open(dir: &TempDir, metrics: &Metrics) -> Spool {
    let options = Options::new(dir.path(), SPOOL_BYTES, vec!["central".to_owned()]);
    // What a disk takes to sync is not ours to measure.
    Spool::open(Options { sync: Sync::Never, ..options }, metrics).expect("a spool")
}

/// A batch of so many lines, written and published. Large ones fill the spool, which then drops its oldest segments.
#[divan::bench(args = [1, 10, 100, 1000])]
fn append(bencher: Bencher, batch_lines: usize) {
    let dir = TempDir::new().expect("a directory");
    // The reader stays: without one, lines would be nobody's.
    let metrics = Metrics::new();
    let Spool { mut writer, readers, .. } = open(&dir, &metrics);
    let (lines, batches) = batches(batch_lines, batch_lines);
    counted(bencher, &lines).with_inputs(|| batches.clone()).bench_local_refs(|batches| writer.append(batches));
    drop(readers);
    assert_eq!(metrics.spool().errors.get(), 0, "the disk refused lines, and refusing is quick");
}

/// Every line there is, from where the reader stands.
fn read_all(reader: &mut Reader, expected: usize) {
    let mut found = 0;
    while let Some(chunk) = reader.next(CHUNK_BYTES).expect("the disk reads") {
        found += chunk.lines().map(black_box).count();
    }
    assert_eq!(found, expected, "the spool has other lines");
}

/// What a reader that keeps up finds: one batch after the other, each still in memory. Each is read before the
/// next one is written.
#[divan::bench(sample_size = 1)]
fn read_just_written(bencher: Bencher) {
    let dir = TempDir::new().expect("a directory");
    let (lines, batches) = batches(1000, 1000);
    let Spool { mut writer, mut readers, .. } = open(&dir, &Metrics::new());
    let reader = RefCell::new(readers.pop().expect("its forward's"));
    counted(bencher, &lines)
        .with_inputs(|| {
            let mut reader = reader.borrow_mut();
            let passed = reader.next(0).expect("the disk reads").is_none();
            assert!(passed, "the last batch was not read to its end");
            writer.append(&mut batches.clone());
        })
        .bench_local_values(|()| read_all(&mut reader.borrow_mut(), lines.len()));
}

/// What one that is behind finds, in the segments.
#[divan::bench]
fn read_reopened(bencher: Bencher) {
    let dir = TempDir::new().expect("a directory");
    let (lines, mut batches) = batches(READ_LINES, 100);
    open(&dir, &Metrics::new()).writer.append(&mut batches);
    let mut reader = open(&dir, &Metrics::new()).readers.pop().expect("its forward's");
    counted(bencher, &lines).bench_local(|| {
        reader.rewind();
        read_all(&mut reader, lines.len());
    });
}
