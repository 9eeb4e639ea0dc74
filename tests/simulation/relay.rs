//! A relay: logferry's own sessions, admission, spool with ledger and cursor, and delivery. This module replaces the
//! glue of `listen::stream` and `forward::driver`, in steps instead of tasks.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logferry::internals::metrics::{ForwardMetrics, Metrics, SpoolMetrics};
use logferry::internals::protocol::relp::{NumberedStreams, Proofs};
use logferry::internals::protocol::session::{Bounds, Closed, Phase, Protocol, Refusal, Session};
use logferry::internals::protocol::syslog::Senders;
use logferry::internals::record::Rule;
use logferry::internals::spool::{NotSpooled, Options, Position, Reader, Spool, Sync, Writer};
use tempfile::TempDir;

use crate::chance::{self, Chance, Clock};
use crate::forward::Forward;
use crate::gate::{Gate, Ticket};
use crate::network::{Heard, Network, Place, Socket};

/// The limit of batches that wait for the spool. At the limit, the session is not read, as in `listen::stream`.
const MAX_UNANSWERED: usize = 16;

pub const BOUNDS: Bounds = Bounds {
    max_array: 1 << 20,
    max_frame: 8192,
    max_line: 65_536,
    frame_timeout: Duration::from_secs(20),
    open_timeout: Duration::from_secs(10),
    proofs: Proofs { streams: NumberedStreams::Any, nonce: [0; 32], signer: |_, _, _| None },
    senders: Senders::Anybody,
};

type Unfinished = (BTreeMap<PathBuf, u64>, u64);
type Receipt = Pin<Box<dyn Future<Output = Result<(), NotSpooled>>>>;

/// An accepted connection.
struct Served {
    socket: Socket,
    session: logferry::internals::protocol::session::AnySession,
    gate: Gate,
    receipts: VecDeque<(Receipt, logferry::internals::protocol::session::Ack)>,
    answers: Vec<u8>,
}

pub struct Relay {
    place: Place,
    dir: TempDir,
    options: Options,
    metrics: Metrics,
    counted: (SpoolMetrics, ForwardMetrics),
    writer: Option<Writer>,
    pub reader: Option<Reader>,
    drop: Vec<Rule>,
    sessions: Vec<Served>,
    /// `None`: lines from the spool are consumed at once, as by a file.
    pub forward: Option<Forward>,
    /// The contents of the cursor's file when the spool was opened.
    cursor_at_start: Vec<u8>,
    left_at_start: u64,
    handed_over: u64,
    /// All lines ever read, by number.
    pub lines: BTreeMap<u64, Vec<u8>>,
    pub down_until: Option<u64>,
    pub frozen_until: u64,
    /// Whether the relay dies in the middle of the spool's next write.
    pub dies_writing: bool,
}

impl Relay {
    pub fn new(place: Place, (drop, forward): (Vec<Rule>, Option<Forward>), chance: &mut Chance) -> Self {
        let dir = tempdir();
        // Dead letters take at most a quarter of the spool.
        let may_refuse = forward.as_ref().is_some_and(Forward::may_refuse);
        let max_bytes = if may_refuse { 1 << 20 } else { chance.pick(&[64 << 10, 96 << 10, 1 << 20]) };
        let options = Options {
            segment_bytes: chance.pick(&[4 << 10, 16 << 10, 64 << 10]),
            random: chance::for_spools,
            sync: if chance.one_in(4) { Sync::Never } else { Sync::Always },
            ..Options::new(dir.path(), max_bytes, vec!["next".to_owned()])
        };
        let metrics = Metrics::new();
        let mut relay = Self {
            place,
            dir,
            options,
            counted: (metrics.spool(), metrics.forward("next")),
            metrics,
            writer: None,
            reader: None,
            drop,
            sessions: Vec::new(),
            forward,
            cursor_at_start: Vec::new(),
            left_at_start: 0,
            handed_over: 0,
            lines: BTreeMap::new(),
            down_until: None,
            frozen_until: 0,
            dies_writing: false,
        };
        relay.start();
        relay
    }

    fn start(&mut self) {
        self.metrics = Metrics::new();
        self.counted = (self.metrics.spool(), self.metrics.forward("next"));
        let opened = Spool::open(self.options.clone(), &self.metrics).expect("a spool");
        assert!(opened.report.damaged.is_empty(), "a crash is no damage: {:?}", opened.report);
        let reader = opened.readers.into_iter().next().expect("a reader");
        self.left_at_start = reader.pending();
        (self.writer, self.reader) = (Some(opened.writer), Some(reader));
        self.cursor_at_start = fs::read(self.dir.path().join("cursor.next")).unwrap_or_default();
        (self.down_until, self.handed_over) = (None, 0);
    }

    pub fn is_up(&self) -> bool {
        self.writer.is_some()
    }

    pub fn pending(&self) -> u64 {
        self.reader.as_ref().map_or(1, Reader::unretired)
    }

    /// The time of its next action that does not depend on input.
    pub fn next_deed(&self, now: u64) -> Option<u64> {
        match self.down_until {
            Some(until) => Some(until),
            None if self.frozen_until > now => Some(self.frozen_until),
            None => self.forward.as_ref().and_then(Forward::next_deed),
        }
    }

    /// Does everything that can be done now. Returns whether anything was done.
    pub fn step(&mut self, network: &mut Network, clock: Clock, next_is_up: bool, chance: &mut Chance) -> bool {
        if let Some(until) = self.down_until {
            if clock.ms >= until {
                self.start();
            }
            return clock.ms >= until;
        }
        let mut has_done = false;
        while let Some(socket) = network.accept(self.place, clock.ms) {
            let mut session =
                logferry::internals::protocol::session::AnySession::new(Protocol::Relp, BOUNDS).expect("a session");
            let mut answers = Vec::new();
            session.opened(clock.now(), &mut answers);
            let gate = Gate::new(self.drop.clone(), &self.metrics);
            self.sessions.push(Served { socket, session, gate, receipts: VecDeque::new(), answers });
            has_done = true;
        }
        let frozen = clock.ms < self.frozen_until;
        let mut sessions = std::mem::take(&mut self.sessions);
        sessions.retain_mut(|served| {
            let goes_on = served.step(network, clock, chance, &mut has_done);
            if !frozen && self.is_up() {
                has_done |= self.take_tickets(served, network, clock, chance);
            }
            if !goes_on {
                network.close(served.socket, served.session.phase() == Phase::Closing, clock.ms, chance);
                has_done = true;
            }
            goes_on
        });
        self.sessions = sessions;
        if self.writer.is_none() {
            // The relay has died while it served the sessions.
            self.sessions.drain(..).for_each(|served| network.close(served.socket, false, clock.ms, chance));
            return true;
        }
        if !frozen {
            // Tries to spool the held batches again.
            self.writer.as_mut().expect("it is up").append(&mut []);
            has_done |= self.forward_lines(network, clock, next_is_up, chance);
        }
        self.check();
        has_done
    }

    /// Hands the batches of a session to the spool.
    fn take_tickets(&mut self, served: &mut Served, network: &mut Network, clock: Clock, chance: &mut Chance) -> bool {
        let mut has_done = false;
        while let Some(Ticket { batch, origin, ack }) = served.gate.tickets.pop_front() {
            has_done = true;
            self.handed_over += batch.line_count();
            let before = segments(self.dir.path());
            let (lines, bytes, spooled) = (batch.line_count(), batch.byte_len() as u64, self.counted.0.spooled.clone());
            let spooled_before = spooled.get();
            let receipt = self.writer.as_mut().expect("it is up").deliver(batch, origin);
            if std::mem::take(&mut self.dies_writing) && self.options.sync == Sync::Always {
                // The head of a new segment is synced before it is used, so that only the batch in it can be
                // incomplete.
                let of_new = if spooled.get() - spooled_before < lines { 0 } else { bytes };
                self.die(Some((before, of_new)), network, clock.ms, chance);
                return true;
            }
            served.receipts.push_back((Box::pin(receipt), ack));
        }
        has_done
    }

    fn forward_lines(&mut self, network: &mut Network, clock: Clock, next_is_up: bool, chance: &mut Chance) -> bool {
        let reader = self.reader.as_mut().expect("it is up");
        if let Some(forward) = &mut self.forward {
            return forward.step(reader, &mut self.lines, network, (clock, next_is_up), chance);
        }
        let Some(chunk) = reader.next(4096).expect("a disk") else { return false };
        note(&mut self.lines, chunk.lines());
        reader.retire(chunk.end);
        true
    }

    /// Checks the books of this life so far.
    pub fn check(&self) {
        let (Some(reader), (spool, forward)) = (&self.reader, &self.counted) else { return };
        let counted = [&forward.delivered, &forward.filtered, &forward.rejected, &forward.evicted, &forward.damaged];
        let settled: u64 = counted.iter().map(|counter| counter.get()).sum();
        let place = self.place;
        assert_eq!(spool.spooled.get() + self.left_at_start, settled + reader.pending(), "the books of relay {place}");
        let may_refuse = self.forward.as_ref().is_some_and(Forward::may_refuse);
        let wrong = forward.damaged.get() + if may_refuse { 0 } else { forward.rejected.get() };
        assert_eq!(wrong, 0, "relay {place}");
        let dropped = spool.dropped_repeated.get() + spool.dropped_withdrawn.get();
        let taken = spool.spooled.get() + dropped + spool.held.get() as u64;
        assert_eq!(self.handed_over, taken, "what was handed over to the spool of relay {place}");
    }

    /// The numbers of its dead letters.
    pub fn dead_letters(&self) -> Vec<u64> {
        let file = fs::read_to_string(self.dir.path().join("dead-letter/next.jsonl")).unwrap_or_default();
        let letters = file.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        letters.map(|letter| letter["number"].as_u64().expect("a number")).collect()
    }

    /// Stops in good order: each sender gets a goodbye, and the spool is closed.
    pub fn stop(&mut self, network: &mut Network, clock: Clock, chance: &mut Chance) {
        for served in &mut self.sessions {
            served.session.stopping(&mut served.answers);
            network.write(served.socket, &served.answers, clock.ms);
        }
        self.leave(network, clock.ms, chance);
        (self.writer, self.reader) = (None, None);
    }

    /// Dies and restarts later with the contents of the disk. `unfinished`: the relay dies in the middle of a write. It
    /// has the earlier segments with their lengths, and how many bytes may be missing at the end of a new one.
    pub fn die(&mut self, unfinished: Option<Unfinished>, network: &mut Network, now: u64, chance: &mut Chance) {
        self.leave(network, now, chance);
        let dir = tempdir();
        copy(self.dir.path(), dir.path());
        if let Some((before, of_new)) = unfinished
            && let Some((newest, length)) = segments(dir.path()).into_iter().next_back()
        {
            let was = before.get(&self.dir.path().join(newest.file_name().expect("a file")));
            let least = was.copied().unwrap_or(length - of_new).min(length);
            let file = OpenOptions::new().write(true).open(&newest).expect("a segment");
            file.set_len(chance.between(least, length)).expect("cut");
        }
        // The cursor is never synced, so an old one may be left after a power failure. Lines are then sent again.
        (self.writer, self.reader) = (None, None);
        let cursor = dir.path().join("cursor.next");
        if self.options.sync == Sync::Always && chance.one_in(3) {
            fs::write(cursor, &self.cursor_at_start).expect("written");
        } else {
            fs::copy(self.dir.path().join("cursor.next"), cursor).expect("copied");
        }
        self.options.dir = dir.path().to_owned();
        self.dir = dir;
    }

    fn leave(&mut self, network: &mut Network, now: u64, chance: &mut Chance) {
        self.check();
        for served in self.sessions.drain(..) {
            network.close(served.socket, false, now, chance);
        }
        network.refuse_all(self.place, now, chance);
        if let Some(forward) = &mut self.forward {
            forward.hang_up(network, now, chance);
        }
        self.down_until = Some(now + chance.pick(&[1, 500, 10_000]));
    }
}

/// For the analysis of a failed history.
impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions: Vec<_> =
            self.sessions.iter().map(|one| (one.socket, one.receipts.len(), one.session.phase())).collect();
        let (spool, forward) = (&self.counted.0, &self.forward);
        let (pending, held, bytes) = (self.pending(), spool.held.get(), spool.bytes.get());
        write!(f, "pending {pending}, held {held}, {bytes} bytes, sessions {sessions:?}, {forward:?}")
    }
}

impl Served {
    /// Returns false when the connection has ended.
    fn step(&mut self, network: &mut Network, clock: Clock, chance: &mut Chance, has_done: &mut bool) -> bool {
        while let Some((receipt, ack)) = self.receipts.front_mut() {
            match receipt.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => self.session.committed(*ack, &mut self.answers),
                Poll::Ready(Err(NotSpooled)) => {
                    self.session.refused(*ack, Refusal::NotSpooled);
                    self.receipts.clear();
                    break;
                }
            }
            self.receipts.pop_front();
            *has_done = true;
        }
        if !self.answers.is_empty() {
            let written = network.write(self.socket, &self.answers, clock.ms);
            self.answers.drain(..written);
            *has_done |= written > 0;
        }
        match self.session.phase() {
            Phase::Over => return false,
            Phase::Closing => {
                return !(self.receipts.is_empty() && self.answers.is_empty() && self.session.owed() == 0);
            }
            Phase::Opening | Phase::Open => {}
        }
        if self.receipts.len() >= MAX_UNANSWERED || !self.gate.tickets.is_empty() {
            return !network.has_left(self.socket, clock.ms);
        }
        match network.read(self.socket, clock.ms, chance) {
            Heard::Nothing => {}
            Heard::End { clean } => {
                let how = if clean { Closed::Clean } else { Closed::Broken };
                self.session.closed(how, &mut self.gate);
                return false;
            }
            Heard::Bytes(bytes) => {
                *has_done = true;
                if self.session.feed(&bytes, clock.now(), &mut self.gate, &mut self.answers).is_err() {
                    return false;
                }
            }
        }
        self.session.timer(clock.now(), &mut self.gate).is_ok()
    }
}

/// Records the lines read. A number must always have the same line.
pub fn note<'l>(lines: &mut BTreeMap<u64, Vec<u8>>, read: impl Iterator<Item = (&'l [u8], Position)>) {
    for (line, behind) in read {
        let known = lines.entry(behind.line - 1).or_insert_with(|| line.to_vec());
        assert!(known == line, "two lines have the number {}", behind.line - 1);
    }
}

/// In memory if possible, because closing a spool syncs.
fn tempdir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn segments(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let segments = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "seg"));
    segments.map(|entry| (entry.path(), entry.metadata().expect("a file").len())).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let there = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&there).expect("a directory");
            copy(&path, &there);
        } else {
            fs::copy(&path, there).expect("copied");
        }
    }
}
