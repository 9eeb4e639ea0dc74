//! The ledger: how far each stream of another relay has been received, so that repeated lines are recognized
//! (deduplication). Pure: bytes in, bytes out. The ledger is stored in the segments, as *marks* between the lines. So
//! it agrees with the lines wherever a crash has cut the file.
//!
//! ```text
//! mark    kind u8 = 1 │ session u32 │ first line u64 │ count u64 │ stream        the payload of a record, see `record`
//! ```
//!
//! A mark is written before the lines of a delivered batch, in the same write: the next `count` lines are the stream's
//! lines `first`, `first + 1`, …. Lines after those have no origin. A mark with a count of 0 says that everything
//! before `first` has been received. Each segment begins with one such mark for every stream: the snapshot of the
//! ledger. So the newest segment alone has the whole ledger. A mark of any other kind only ends the run of lines before
//! it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::Origin;
use super::record::{self, RECORD_HEADER, Record};

/// The longest name of a stream in bytes; lines from a longer one count as lines without an origin.
pub(super) const MAX_STREAM: usize = 128;

/// The most that a snapshot takes of each segment, in bytes: room for some 1000 relays, and never more than a quarter
/// of a segment. Beyond it, the ledger forgets superseded sessions first, then streams without a proof, the least
/// recently written first.
const LEDGER_BYTES: u64 = 64 << 10;
const SEGMENT_SHARE: u64 = 4;

/// The prefix of the names of streams that have proved their identity. No other stream's lines are stored under such a
/// name.
const PROVEN: &str = "key:";

/// The number of sessions of one stream that are remembered. A relay that is killed repeatedly sends again lines of its
/// last session or of the one before. A relay that restarts every second must not push out other relays.
const SESSIONS: usize = 8;

/// The number of the next line, for each session of each stream. It never decreases.
///
/// A session that is not in the ledger is new, whatever its number. Relays whose spools are copies of one another, or
/// that were reset to a snapshot, have the same stream name; their lines must not be taken for repetitions of each
/// other.
#[derive(Clone)]
pub(super) struct Ledger {
    /// The least recently written first.
    streams: VecDeque<Stream>,
    /// Bytes of the snapshot; at most `limit`.
    bytes: u64,
    limit: u64,
}

#[derive(Clone, Debug)]
struct Stream {
    name: Arc<str>,
    session: u32,
    next: u64,
}

impl Stream {
    fn is(&self, name: &str, session: u32) -> bool {
        self.session == session && *self.name == *name
    }
}

impl Ledger {
    pub fn new(segment_bytes: u64) -> Self {
        Self { streams: VecDeque::new(), bytes: 0, limit: LEDGER_BYTES.min(segment_bytes / SEGMENT_SHARE) }
    }

    /// Changes the limit to segments of another size.
    pub fn fit(&mut self, segment_bytes: u64) {
        self.limit = LEDGER_BYTES.min(segment_bytes / SEGMENT_SHARE);
        self.forget();
    }

    /// How many of the `lines` lines from `origin` have been received before: always the first ones.
    pub fn known(&self, origin: &Origin, lines: u64) -> u64 {
        let name = self.inherits(origin).unwrap_or(&origin.stream);
        let next = self.next(name, origin.session).unwrap_or_default();
        next.saturating_sub(origin.first_line).min(lines)
    }

    /// The old name of a stream that has only now proved its identity, if the ledger has nothing under the new name.
    /// The stream inherits once: later entries under the old name do not affect it.
    fn inherits<'o>(&self, origin: &'o Origin) -> Option<&'o str> {
        origin.was.as_deref().filter(|_| !self.streams.iter().any(|stream| *stream.name == *origin.stream))
    }

    /// The sessions that the stream inherits, and the next line of each. They are to be written as marks.
    pub fn inheritance(&self, origin: &Origin) -> Vec<(u32, u64)> {
        let Some(old) = self.inherits(origin) else { return Vec::new() };
        self.streams.iter().filter(|stream| *stream.name == *old).map(|stream| (stream.session, stream.next)).collect()
    }

    fn next(&self, name: &str, session: u32) -> Option<u64> {
        self.streams.iter().rev().find(|stream| stream.is(name, session)).map(|stream| stream.next)
    }

    /// Notes that everything of the stream's session before `next` has been received.
    pub fn advance(&mut self, name: &str, session: u32, next: u64) {
        let known = self.streams.iter().rposition(|stream| stream.is(name, session));
        let stream = match known.and_then(|at| self.streams.remove(at)) {
            Some(known) => Stream { next: known.next.max(next), ..known },
            None => {
                self.forget_a_session(name);
                self.bytes += mark_len(name);
                Stream { name: name.into(), session, next }
            }
        };
        self.streams.push_back(stream);
        self.forget();
    }

    /// Forgets the least recently written session of a stream that has [`SESSIONS`] of them.
    fn forget_a_session(&mut self, name: &str) {
        let mut sessions = (0..self.streams.len()).rev().filter(|at| *self.streams[*at].name == *name);
        if let Some(oldest) = sessions.nth(SESSIONS - 1) {
            self.streams.remove(oldest);
            self.bytes -= mark_len(name);
        }
    }

    fn forget(&mut self) {
        while self.bytes > self.limit
            && let Some(forgotten) = self.streams.remove(self.superseded().or_else(|| self.unproven()).unwrap_or(0))
        {
            self.bytes -= mark_len(&forgotten.name);
        }
    }

    /// The least recently written stream without a proof: any sender can make up such names.
    fn unproven(&self) -> Option<usize> {
        self.streams.iter().position(|stream| !stream.name.starts_with(PROVEN))
    }

    /// The least recently written session whose stream has a more recently written one.
    fn superseded(&self) -> Option<usize> {
        let mut seen = HashSet::new();
        (0..self.streams.len()).rev().filter(|at| !seen.insert(&self.streams[*at].name)).last()
    }

    /// The snapshot at the start of a segment, as records.
    pub fn snapshot(&self, key: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for stream in &self.streams {
            Mark { stream: &stream.name, session: stream.session, first: stream.next, count: 0 }.write(&mut bytes, key);
        }
        bytes
    }

    pub fn snapshot_len(&self) -> u64 {
        self.bytes
    }
}

/// A mark: says where the lines that follow come from.
pub(super) struct Mark<'a> {
    pub stream: &'a str,
    pub session: u32,
    pub first: u64,
    pub count: u64,
}

impl<'a> Mark<'a> {
    /// Appends the mark as a record.
    pub fn write(&self, out: &mut Vec<u8>, key: u32) {
        record::push_mark(out, key, |payload| {
            payload.push(KIND);
            payload.extend_from_slice(&self.session.to_le_bytes());
            payload.extend_from_slice(&self.first.to_le_bytes());
            payload.extend_from_slice(&self.count.to_le_bytes());
            payload.extend_from_slice(self.stream.as_bytes());
        });
    }

    /// `None` for a mark of a kind that this version does not know.
    fn read(payload: &'a [u8]) -> Option<Self> {
        let (&KIND, rest) = payload.split_first()? else { return None };
        let (session, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (count, stream) = rest.split_first_chunk()?;
        let stream = std::str::from_utf8(stream).ok().filter(|stream| stream.len() <= MAX_STREAM)?;
        let (session, first) = (u32::from_le_bytes(*session), u64::from_le_bytes(*first));
        Some(Self { stream, session, first, count: u64::from_le_bytes(*count) })
    }
}

/// Appends a mark that only ends the run of lines before it, and says that lines may be missing.
pub(super) fn write_gap(out: &mut Vec<u8>, key: u32) {
    record::push_mark(out, key, |payload| payload.push(GAP));
}

/// Bytes on the disk.
pub(super) fn mark_len(stream: &str) -> u64 {
    (RECORD_HEADER + FIXED + stream.len()) as u64
}

/// Reads a ledger back from a segment's records.
pub(super) struct Replay {
    ledger: Ledger,
    /// The announced lines that come next.
    run: Option<Run>,
    /// Records were missing before the current place.
    gap: bool,
}

struct Run {
    stream: String,
    session: u32,
    first: u64,
    next: u64,
    left: u64,
}

impl Replay {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, run: None, gap: false }
    }

    pub fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Mark(payload) => {
                self.end_run();
                if payload == [GAP] {
                    self.gap = true;
                }
                let Some(Mark { stream, session, first, count }) = Mark::read(payload) else { return };
                match count {
                    0 => self.ledger.advance(stream, session, first),
                    left => {
                        self.run = Some(Run { stream: stream.to_owned(), session, first, next: first, left });
                    }
                }
            }
            Record::Line(_) => {
                if let Some(run) = self.run.as_mut().filter(|run| run.left > 0) {
                    run.next = run.next.saturating_add(1);
                    run.left -= 1;
                }
            }
        }
    }

    /// Notes that records are missing here. The origin of the lines that follow is unknown. A run that does not
    /// continue where the ledger ends may come after other runs that are missing, so it does not count, and the
    /// stream's repetitions are accepted.
    pub fn gap(&mut self) {
        self.end_run();
        self.gap = true;
    }

    /// The ledger so far.
    pub fn so_far(&mut self) -> &Ledger {
        self.end_run();
        &self.ledger
    }

    pub fn end(mut self) -> Ledger {
        self.end_run();
        self.ledger
    }

    fn end_run(&mut self) {
        let Some(Run { stream, session, first, next, .. }) = self.run.take() else { return };
        let goes_on = || self.ledger.next(&stream, session) == Some(first);
        if next > first && (!self.gap || goes_on()) {
            self.ledger.advance(&stream, session, next);
        }
    }
}

const KIND: u8 = 1;
const GAP: u8 = 0;
/// Bytes of a mark's payload before the stream's name.
const FIXED: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    fn from(stream: &str, session: u32, first_line: u64) -> Origin {
        Origin { stream: stream.into(), session, first_line, was: None }
    }

    #[test]
    fn what_is_here_is_known() {
        let mut ledger = Ledger::new(1 << 20);
        assert_eq!(ledger.known(&from("a", 1, 0), 5), 0);
        ledger.advance("a", 2, 10);
        for (session, first, known) in [(2, 0, 5), (2, 5, 5), (2, 7, 3), (2, 9, 1), (2, 10, 0), (2, 20, 0)] {
            assert_eq!(ledger.known(&from("a", session, first), 5), known, "{session} {first}");
        }
        assert_eq!(ledger.known(&from("a", 3, 0), 5), 0, "numbers begin anew with a session");
        assert_eq!(ledger.known(&from("b", 2, 0), 5), 0);
        ledger.advance("a", 2, 3);
        ledger.advance("a", 3, 300);
        assert_eq!(ledger.known(&from("a", 2, 9), 5), 1, "a ledger went back");
        assert_eq!(ledger.known(&from("a", 2, u64::MAX), 5), 0);
    }

    /// The stream keeps its history, once. Later entries under its old name do not count for it.
    #[test]
    fn a_stream_that_proves_who_it_is_inherits_once() {
        let mut ledger = Ledger::new(1 << 20);
        ledger.advance("old", 1, 10);
        ledger.advance("old", 2, 20);
        let proven = |session, first_line| Origin { was: Some("old".into()), ..from("key:k/f", session, first_line) };
        assert_eq!([ledger.known(&proven(1, 8), 5), ledger.known(&proven(2, 18), 5)], [2, 2]);
        assert_eq!(ledger.inheritance(&proven(2, 18)), [(1, 10), (2, 20)]);
        for (session, next) in ledger.inheritance(&proven(2, 18)) {
            ledger.advance("key:k/f", session, next);
        }
        ledger.advance("key:k/f", 2, 23);
        ledger.advance("old", 2, 1 << 40);
        assert_eq!([ledger.known(&proven(2, 22), 5), ledger.known(&proven(1, 8), 5)], [1, 2]);
        assert!(ledger.inheritance(&proven(2, 22)).is_empty());
        assert_eq!(ledger.known(&from("old", 2, 22), 5), 5);
    }

    /// A stranger who makes up streams cannot push out streams that have proved their identity.
    #[test]
    fn who_has_proved_who_it_is_is_forgotten_last() {
        let mut ledger = Ledger::new(1 << 20);
        ledger.advance("key:k/f", 1, 10);
        (0..10_000).for_each(|n| ledger.advance(&format!("{n:032}/f"), 1, 10));
        assert_eq!(ledger.known(&from("key:k/f", 1, 0), 1), 1);
    }

    /// Two relays with copies of the same spool; one of them is reset to a snapshot later.
    #[test]
    fn relays_with_one_name_are_not_taken_for_each_other() {
        let mut ledger = Ledger::new(1 << 20);
        ledger.advance("a", 700, 100);
        for (session, first) in [(50, 100), (900, 100), (50, 105), (3, 60)] {
            assert_eq!(ledger.known(&from("a", session, first), 5), 0, "{session} {first}");
            ledger.advance("a", session, first + 5);
            assert_eq!(ledger.known(&from("a", session, first), 5), 5, "{session} {first}");
        }
        assert_eq!(ledger.known(&from("a", 700, 98), 5), 2);
    }

    #[test]
    fn a_relay_that_starts_again_and_again_makes_no_other_be_forgotten() {
        let mut ledger = Ledger::new(1 << 20);
        ledger.advance("a", 1, 10);
        (0..1000).for_each(|session| ledger.advance("b", session, 10));
        assert_eq!(ledger.known(&from("a", 1, 0), 1), 1);
        let known: u64 = (0..1000).map(|session| ledger.known(&from("b", session, 0), 1)).sum();
        assert_eq!(known, SESSIONS as u64);
        assert_eq!(ledger.known(&from("b", 999, 0), 1), 1);
        assert_eq!(ledger.snapshot(7).len() as u64, ledger.snapshot_len());
    }

    #[test]
    fn the_stream_written_to_least_recently_is_forgotten() {
        let mut ledger = Ledger::new(4 * 3 * mark_len("s0"));
        for n in [0, 1, 2, 0, 3] {
            ledger.advance(&format!("s{n}"), 1, 10);
        }
        let known = |ledger: &Ledger| [0, 1, 2, 3].map(|n| ledger.known(&from(&format!("s{n}"), 1, 0), 1));
        assert_eq!(known(&ledger), [1, 0, 1, 1]);
        // A new session of a relay replaces its old session.
        ledger.advance("s0", 2, 10);
        assert_eq!(known(&ledger), [0, 0, 1, 1]);
        assert_eq!(ledger.snapshot(7).len() as u64, ledger.snapshot_len());
        let thousand = (0..2000).fold(Ledger::new(1 << 30), |mut ledger, n| {
            ledger.advance(&format!("{n:040}"), 1, 1);
            ledger
        });
        assert!(thousand.snapshot_len() <= LEDGER_BYTES && thousand.streams.len() > 900);
    }

    #[test]
    fn a_ledger_comes_back_from_its_marks() {
        let mut bytes = Vec::new();
        Mark { stream: "a", session: 1, first: 5, count: 0 }.write(&mut bytes, 9);
        Mark { stream: "b", session: 7, first: 100, count: 3 }.write(&mut bytes, 9);
        let mut replay = Replay::new(Ledger::new(1 << 20));
        let mut at = 0;
        while at < bytes.len() {
            let (record, length) = record::record_at(&bytes[at..], 9).unwrap();
            replay.record(record);
            at += length;
        }
        replay.record(Record::Line(b"100"));
        replay.record(Record::Line(b"101"));
        replay.record(Record::Mark(b"\xff of a later version"));
        replay.record(Record::Line(b"of nobody"));
        let ledger = replay.end();
        assert_eq!(ledger.known(&from("a", 1, 0), 10), 5);
        assert_eq!(ledger.known(&from("b", 7, 100), 10), 2);
    }
}
