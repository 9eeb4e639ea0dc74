//! Random histories of a spool, compared with a model that is a `Vec` of lines. After any sequence of appends, reads,
//! retirements, rewinds, closes and crashes, the right lines come out in the right order, and the books balance. Lines
//! of other relays are spooled once and in their order, however often they are sent.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use logferry::internals::metrics::Metrics;
use logferry::internals::spool::{Batch, NotSpooled, Options, Origin, Position, Reader, Spool, Sync, WhenFull, Writer};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

const FORWARDS: [&str; 2] = ["a", "b"];
const STREAMS: [&str; 3] = ["red", "green", "blue"];

#[derive(Clone, Debug)]
enum Action {
    /// Batches, each as a number of lines and their length in bytes.
    Append(Vec<(usize, usize)>),
    /// Another relay sends lines, starting with lines that it has sent before.
    Deliver {
        stream: usize,
        again: u64,
        lines: u64,
        length: usize,
    },
    Read {
        reader: usize,
        max_bytes: usize,
    },
    /// Retires a share of the lines read, in sixteenths.
    Retire {
        reader: usize,
        share: u64,
    },
    Rewind {
        reader: usize,
    },
    Reopen,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let reader = 0..FORWARDS.len();
    prop_oneof![
        4 => vec((0usize..20, 1usize..600), 1..4).prop_map(Action::Append),
        4 => (0..STREAMS.len(), 0u64..30, 0u64..30, 1usize..300)
            .prop_map(|(stream, again, lines, length)| Action::Deliver { stream, again, lines, length }),
        4 => (reader.clone(), 0usize..8000).prop_map(|(reader, max_bytes)| Action::Read { reader, max_bytes }),
        3 => (reader.clone(), 0u64..=16).prop_map(|(reader, share)| Action::Retire { reader, share }),
        1 => reader.prop_map(|reader| Action::Rewind { reader }),
        1 => Just(Action::Reopen),
        1 => Just(Action::Crash),
    ]
}

/// The expected state of one forward.
#[derive(Default)]
struct Seen {
    /// The number of the next line, unless lines are evicted.
    next: u64,
    /// The positions behind the lines that were read and not retired.
    read: Vec<Position>,
    waiting_at_start: u64,
}

/// A model of another relay: it numbers lines and sends them until it gets a receipt.
#[derive(Default)]
struct Sender {
    /// Every line ever sent, by its number.
    sent: Vec<Vec<u8>>,
    /// How many of the lines are spooled.
    spooled: usize,
}

/// A batch without a receipt yet.
struct Pending {
    stream: usize,
    /// The position behind its last line.
    end: usize,
    receipt: Pin<Box<dyn Future<Output = Result<(), NotSpooled>>>>,
}

struct World {
    dir: TempDir,
    options: Options,
    metrics: Metrics,
    /// `None` only while the spool is reopened.
    open: Option<(Writer, Vec<Reader>)>,
    /// Every line ever spooled, by its number.
    lines: Vec<Vec<u8>>,
    seen: Vec<Seen>,
    senders: [Sender; STREAMS.len()],
    pending: VecDeque<Pending>,
}

impl World {
    fn new(when_full: WhenFull, segment_bytes: u64) -> Self {
        let dir = tempdir();
        let forwards = FORWARDS.map(String::from).to_vec();
        let options =
            Options { when_full, segment_bytes, sync: Sync::Never, ..Options::new(dir.path(), 64 << 10, forwards) };
        let mut world = Self {
            dir,
            options,
            metrics: Metrics::new(),
            open: None,
            lines: Vec::new(),
            seen: Vec::new(),
            senders: Default::default(),
            pending: VecDeque::new(),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        self.metrics = Metrics::new();
        // Batches held at the close are refused. Their senders send them again.
        self.pending.clear();
        let Spool { writer, readers, report, .. } = Spool::open(self.options.clone(), &self.metrics).unwrap();
        assert_eq!((report.torn_bytes, report.damaged.len()), (0, 0));
        let seen = |reader: &Reader| {
            let (next, waiting_at_start) = (reader.position().line, reader.unretired());
            Seen { next, read: Vec::new(), waiting_at_start }
        };
        self.seen = readers.iter().map(seen).collect();
        self.open = Some((writer, readers));
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.open.as_mut().unwrap().0
    }

    fn reader(&mut self, index: usize) -> &mut Reader {
        &mut self.open.as_mut().unwrap().1[index]
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Append(batches) => self.append(batches),
            &Action::Deliver { stream, again, lines, length } => self.deliver(stream, again, lines, length),
            Action::Read { reader, max_bytes } => drop(self.read(*reader, *max_bytes)),
            Action::Retire { reader, share } => {
                let read = &mut self.seen[*reader].read;
                let count = read.len() * *share as usize / 16;
                let last = read.drain(..count).next_back();
                if let Some(last) = last {
                    self.reader(*reader).retire(last);
                }
            }
            Action::Rewind { reader } => {
                let from = self.seen[*reader].next;
                let again = self.reader(*reader).rewind();
                let cursor = self.reader(*reader).position().line;
                assert_eq!(again, from.saturating_sub(cursor));
                self.seen[*reader].next = cursor;
                self.seen[*reader].read.clear();
            }
            Action::Reopen => {
                let cursors: Vec<u64> = (0..FORWARDS.len()).map(|i| self.reader(i).position().line).collect();
                self.open = None;
                self.open();
                assert_eq!(cursors, self.seen.iter().map(|seen| seen.next).collect::<Vec<_>>(), "close forgets");
            }
            Action::Crash => {
                let cursors: Vec<u64> = (0..FORWARDS.len()).map(|i| self.reader(i).position().line).collect();
                let dir = tempdir();
                copy(self.dir.path(), dir.path());
                self.open = None;
                self.options.dir = dir.path().into();
                self.dir = dir;
                self.open();
                assert!(cursors.iter().zip(&self.seen).all(|(cursor, seen)| seen.next <= *cursor), "a crash loses");
            }
        }
        self.check();
    }

    fn append(&mut self, batches: &[(usize, usize)]) {
        for &(lines, length) in batches {
            let mut batch = Batch::new();
            for _ in 0..lines {
                let text = format!("{:08} {}", self.lines.len() + batch.line_count() as usize, "x".repeat(length));
                batch.push(|out| out.extend_from_slice(text.as_bytes()));
            }
            let before = self.metrics.spool().spooled.get();
            self.writer().append(&mut [batch.clone()]);
            // Batches that were held are spooled behind it.
            let held = self.receipts();
            match self.metrics.spool().spooled.get() - before - held.len() as u64 {
                0 if self.options.when_full == WhenFull::DropNewest => {}
                spooled => {
                    assert_eq!(spooled, batch.line_count(), "a batch is spooled whole or not at all");
                    self.lines.extend(batch.lines().map(<[u8]>::to_vec));
                }
            }
            self.lines.extend(held);
        }
    }

    fn deliver(&mut self, stream: usize, again: u64, lines: u64, length: usize) {
        let sender = &mut self.senders[stream];
        let first = sender.sent.len().saturating_sub(again as usize);
        // A relay skips no line: the first line sent is one that has no receipt and is in no pending batch, or an
        // earlier one.
        let on_the_way =
            self.pending.iter().filter(|pending| pending.stream == stream).map(|pending| pending.end).max();
        let first = first.min(on_the_way.unwrap_or(sender.spooled));
        while sender.sent.len() < first + lines as usize {
            let text = format!("{} {:08} {}", STREAMS[stream], sender.sent.len(), "x".repeat(length));
            sender.sent.push(text.into_bytes());
        }
        let end = first + lines as usize;
        let mut batch = Batch::new();
        sender.sent[first..end].iter().for_each(|line| batch.push(|out| out.extend_from_slice(line)));
        let origin = Origin { stream: STREAMS[stream].into(), session: 1, first_line: first as u64, was: None };
        let before = self.metrics.spool().spooled.get();
        let receipt = self.writer().deliver(batch, Some(origin));
        self.pending.push_back(Pending { stream, end, receipt: Box::pin(receipt) });
        let lines = self.receipts();
        assert_eq!(self.metrics.spool().spooled.get() - before, lines.len() as u64);
        self.lines.extend(lines);
    }

    /// Takes the receipts that have arrived, oldest first. Returns the new lines of their batches.
    fn receipts(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Some(first) = self.pending.front_mut()
            && let Poll::Ready(said) = first.receipt.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            assert_eq!(said, Ok(()));
            let sender = &mut self.senders[first.stream];
            lines.extend(sender.sent[..first.end].iter().skip(sender.spooled).cloned());
            sender.spooled = sender.spooled.max(first.end);
            self.pending.pop_front();
        }
        let rest = self.pending.iter_mut();
        rest.for_each(|pending| {
            assert!(pending.receipt.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending())
        });
        assert_eq!(self.metrics.spool().held.get() > 0, self.pending.iter().len() > 0);
        lines
    }

    fn read(&mut self, reader: usize, max_bytes: usize) -> bool {
        let Some(chunk) = self.reader(reader).next(max_bytes).unwrap() else { return false };
        let seen = &mut self.seen[reader];
        let evicted = self.metrics.forward(FORWARDS[reader]).evicted.get();
        assert!(chunk.start.line == seen.next || (chunk.start.line > seen.next && evicted > 0));
        for (line, behind) in chunk.lines() {
            assert_eq!(line, self.lines[behind.line as usize - 1]);
            seen.read.push(behind);
        }
        // Marks may stand between the two positions.
        let place = |at: &Position| (at.segment, at.line);
        assert_eq!(seen.read.last().map(place), Some(place(&chunk.end)));
        assert!(chunk.run.line_count() > 0 && chunk.start.line + chunk.run.line_count() == chunk.end.line);
        seen.next = chunk.end.line;
        true
    }

    fn check(&mut self) {
        let spooled = self.metrics.spool().spooled.get();
        for (i, name) in FORWARDS.iter().enumerate() {
            let forward = self.metrics.forward(name);
            let waiting = self.reader(i).unretired();
            let left = spooled + self.seen[i].waiting_at_start;
            assert_eq!(
                left,
                forward.delivered.get() + forward.evicted.get() + forward.damaged.get() + waiting,
                "the books of {name}"
            );
            assert_eq!(forward.pending() + forward.replayable(), waiting);
            assert_eq!(self.lines.len() as u64 - self.reader(i).position().line, waiting);
        }
        let on_disk = segments(self.dir.path());
        assert_eq!(self.metrics.spool().bytes.get() as u64, on_disk);
        assert!(on_disk <= self.options.max_bytes, "{on_disk} bytes are over the cap");
    }
}

/// In memory if possible: closing syncs, and a history closes often.
fn tempdir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn segments(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let segments = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "seg"));
    segments.map(|segment| segment.metadata().unwrap().len()).sum()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_balances_and_keeps_the_order(
        drop_oldest in any::<bool>(),
        segment_bytes in prop_oneof![Just(1u64 << 10), Just(8 << 10), Just(32 << 10)],
        history in vec(action(), 1..80),
    ) {
        let when_full = if drop_oldest { WhenFull::DropOldest } else { WhenFull::DropNewest };
        let mut world = World::new(when_full, segment_bytes);
        for action in &history {
            world.act(action);
        }
        // At the end, all waiting lines come out, once.
        for reader in 0..FORWARDS.len() {
            world.act(&Action::Rewind { reader });
            let waiting = world.reader(reader).unretired();
            while world.read(reader, 4096) {}
            prop_assert_eq!(world.seen[reader].read.len() as u64, waiting);
            world.act(&Action::Retire { reader, share: 16 });
            prop_assert_eq!(world.reader(reader).unretired(), 0);
        }
        // Now the spool has room: it takes the held batches, and each relay's lines are spooled once and in order.
        world.act(&Action::Append(vec![(0, 1)]));
        for (stream, name) in STREAMS.iter().enumerate() {
            world.act(&Action::Deliver { stream, again: u64::MAX, lines: world.senders[stream].sent.len() as u64, length: 1 });
            for reader in 0..FORWARDS.len() {
                while world.read(reader, 4096) {}
                world.act(&Action::Retire { reader, share: 16 });
            }
            world.act(&Action::Append(vec![(0, 1)]));
            let here = world.lines.iter().filter(|line| line.starts_with(name.as_bytes()));
            prop_assert!(here.eq(&world.senders[stream].sent), "{name} is not what was sent");
        }
    }
}
