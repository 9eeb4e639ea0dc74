//! The lines that a link takes at once: lines of the spool, shaped by the forward's settings, without the lines that its `match`
//! excludes. Pure.

use std::ops::Range;

use crate::loops::Marks;
use crate::protocol::api::LineId;
use crate::record::append_marked;
use crate::shape::{Shape, Shaped, Tally};
use crate::spool::{Chunk, Position};

/// The likely size of a mark in bytes.
const MARK_BYTES: usize = 96;

/// Lines read in one go, and which of them match.
pub struct FilteredChunk {
    chunk: Chunk,
    /// Numbers of the lines that do not match: in order, no range empty, none adjacent to the next.
    filtered: Vec<Range<u64>>,
    /// Lines that are sent in another form than in the spool.
    rewritten: Rewritten,
    tally: Tally,
    /// Session and number that name each line permanently, where they differ from the chunk's.
    ids: Vec<(u32, u64)>,
}

/// Lines by their numbers, in order: where each line ends in the bytes of all.
#[derive(Default)]
struct Rewritten {
    ends: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl Rewritten {
    /// Marks the end of a line: the bytes appended since the last end are the line with this number.
    fn ends(&mut self, number: u64) {
        self.ends.push((number, self.bytes.len()));
    }

    #[inline]
    fn get(&self, number: u64) -> Option<&[u8]> {
        if self.ends.is_empty() {
            return None;
        }
        let place = self.ends.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some(&self.bytes[start..self.ends[place].1])
    }
}

impl FilteredChunk {
    pub fn new(chunk: Chunk, shape: &Shape) -> Self {
        let mut lines = Self::as_it_is(chunk, Vec::new());
        // Otherwise the lines stay as they are, and no line has to be read.
        if !shape.means_all() || !shape.changes_nothing() {
            lines.shape(|line, out, tally| shape.apply(line, out, tally));
        }
        lines
    }

    /// Dead letters, with their permanent names. They matched when they were first sent, so the current `match` does not apply.
    pub fn resent(chunk: Chunk, ids: Vec<(u32, u64)>, shape: &Shape) -> Self {
        let mut lines = Self::as_it_is(chunk, ids);
        if !shape.changes_nothing() {
            lines.shape(|line, out, tally| shape.apply_to_all(line, out, tally));
        }
        lines
    }

    fn as_it_is(chunk: Chunk, ids: Vec<(u32, u64)>) -> Self {
        let (rewritten, tally) = (Rewritten::default(), Tally::default());
        Self { chunk, filtered: Vec::new(), rewritten, tally, ids }
    }

    fn shape(&mut self, shape: impl Fn(&[u8], &mut Vec<u8>, &mut Tally) -> Shaped) {
        let Self { chunk, filtered, rewritten, tally, .. } = self;
        for (line, behind) in chunk.lines() {
            match shape(line, &mut rewritten.bytes, tally) {
                Shaped::AsItIs => {}
                Shaped::Changed => rewritten.ends(behind.line - 1),
                Shaped::Filtered => match filtered.last_mut() {
                    Some(last) if last.end == behind.line - 1 => last.end = behind.line,
                    _ => filtered.push(behind.line - 1..behind.line),
                },
            }
        }
    }

    /// How the shape changed the lines.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The permanent name of the line that ends at this position.
    pub fn id(&self, behind: Position) -> LineId {
        self.id_of(behind.line - 1)
    }

    /// The permanent name of the line with this number.
    pub fn id_of(&self, number: u64) -> LineId {
        let place = usize::try_from(number - self.chunk.start.line).unwrap_or(usize::MAX);
        let (session, number) = self.ids.get(place).copied().unwrap_or((self.session(), number));
        LineId { session, number }
    }

    /// Adds a relay's mark to all lines, or to the first line alone.
    pub fn mark(&mut self, marks: Marks, mark: &str, sd_id: &str) {
        let count = match marks {
            Marks::None => 0,
            Marks::First => 1,
            Marks::All => usize::MAX,
        };
        if count == 0 {
            return;
        }
        let mut rewritten = Rewritten::default();
        // Behind the last marked line only shaped lines differ from the spool.
        let looked_at = if self.rewritten.ends.is_empty() { count } else { usize::MAX };
        for (place, (line, behind)) in self.lines().take(looked_at).enumerate() {
            if place < count {
                rewritten.bytes.reserve(line.len() + MARK_BYTES);
                append_marked(line, mark, sd_id, &mut rewritten.bytes);
                rewritten.ends(behind.line - 1);
            } else if self.rewritten.get(behind.line - 1).is_some() {
                rewritten.bytes.extend_from_slice(line);
                rewritten.ends(behind.line - 1);
            }
        }
        self.rewritten = rewritten;
    }

    /// Each line as it is sent, with the position behind it.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], Position)> {
        let mut filtered = self.filtered.iter().peekable();
        let lines = self.chunk.lines().filter(move |(_, behind)| {
            if self.filtered.is_empty() {
                return true;
            }
            while filtered.next_if(|range| range.end < behind.line).is_some() {}
            filtered.peek().is_none_or(|range| range.start >= behind.line)
        });
        lines.map(|(line, behind)| (self.as_sent(line, behind.line - 1), behind))
    }

    #[inline]
    fn as_sent<'c>(&'c self, line: &'c [u8], number: u64) -> &'c [u8] {
        self.rewritten.get(number).unwrap_or(line)
    }

    /// The numbers of the lines, in ranges without a gap.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let ends = self.filtered.iter().map(|range| range.start).chain([self.chunk.end.line]);
        let starts = [self.chunk.start.line].into_iter().chain(self.filtered.iter().map(|range| range.end));
        starts.zip(ends).map(|(start, end)| start..end).filter(|run| !run.is_empty())
    }

    /// How many of its lines have a number below this one.
    pub fn count_before(&self, line: u64) -> u64 {
        self.runs().map(|run| run.end.min(line).saturating_sub(run.start)).sum()
    }

    /// Numbers of the lines that do not match.
    pub fn filtered(&self) -> &[Range<u64>] {
        &self.filtered
    }

    /// Whether no line matches.
    pub fn is_empty(&self) -> bool {
        self.runs().next().is_none()
    }

    /// The position to retire when the collector has all lines.
    pub fn end(&self) -> Position {
        self.chunk.end
    }

    /// The session of the spool (one opening of it) that numbered the lines.
    pub fn session(&self) -> u32 {
        self.chunk.session
    }

    /// Bytes of all records, including lines that do not match.
    pub fn byte_len(&self) -> usize {
        self.chunk.run.byte_len()
    }
}
