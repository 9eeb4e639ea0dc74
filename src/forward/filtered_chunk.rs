//! What a link carries at once: lines of the spool, without those that the forward's `match` does not mean. Pure.

use std::ops::Range;

use crate::loops::Marks;
use crate::protocol::api::LineId;
use crate::record::{Record, Rule, append_marked};
use crate::spool::{Chunk, Position};

/// What a mark is likely to take, in bytes.
const MARK_BYTES: usize = 96;

/// Lines read in one go, and which of them are meant.
pub struct FilteredChunk {
    chunk: Chunk,
    /// Numbers of lines that are not: in order, none of them empty, none touching the next.
    filtered: Vec<Range<u64>>,
    /// Lines that are sent with a mark, by their numbers, in order.
    marked: Vec<(u64, Vec<u8>)>,
    /// Session and number that each line has for good, where these are others than the chunk's.
    ids: Vec<(u32, u64)>,
}

impl FilteredChunk {
    /// `rules` say which lines are meant.
    pub fn new(chunk: Chunk, rules: &[Rule], sd_id: &str) -> Self {
        let mut filtered: Vec<Range<u64>> = Vec::new();
        // Without rules there is nothing to look at.
        if !rules.is_empty() {
            for (line, behind) in chunk.lines() {
                if Rule::lets_pass(rules, &Record::from_line(line, sd_id)) {
                    continue;
                }
                match filtered.last_mut() {
                    Some(last) if last.end == behind.line - 1 => last.end = behind.line,
                    _ => filtered.push(behind.line - 1..behind.line),
                }
            }
        }
        Self { chunk, filtered, marked: Vec::new(), ids: Vec::new() }
    }

    /// Dead letters, with what names each for good.
    pub fn resent(chunk: Chunk, ids: Vec<(u32, u64)>) -> Self {
        Self { chunk, filtered: Vec::new(), marked: Vec::new(), ids }
    }

    /// What names the line behind which this is for good.
    pub fn id(&self, behind: Position) -> LineId {
        self.id_of(behind.line - 1)
    }

    /// What names the line with this number here for good.
    pub fn id_of(&self, number: u64) -> LineId {
        let place = usize::try_from(number - self.chunk.start.line).unwrap_or(usize::MAX);
        let (session, number) = self.ids.get(place).copied().unwrap_or((self.session(), number));
        LineId { session, number }
    }

    /// Has its lines, or the first of them alone, sent with a relay's mark.
    pub fn mark(&mut self, marks: Marks, mark: &str, sd_id: &str) {
        let count = match marks {
            Marks::None => 0,
            Marks::First => 1,
            Marks::All => usize::MAX,
        };
        let marked = self.lines().take(count).map(|(line, behind)| {
            let mut marked = Vec::with_capacity(line.len() + MARK_BYTES);
            append_marked(line, mark, sd_id, &mut marked);
            (behind.line - 1, marked)
        });
        self.marked = marked.collect();
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
        if self.marked.is_empty() {
            return line;
        }
        let place = self.marked.binary_search_by_key(&number, |(number, _)| *number);
        place.map_or(line, |place| &self.marked[place].1)
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

    /// Numbers of the lines that are not meant.
    pub fn filtered(&self) -> &[Range<u64>] {
        &self.filtered
    }

    /// None of its lines is meant.
    pub fn is_empty(&self) -> bool {
        self.runs().next().is_none()
    }

    /// What to retire when the collector has all of it.
    pub fn end(&self) -> Position {
        self.chunk.end
    }

    /// Which opening of the spool numbered the lines.
    pub fn session(&self) -> u32 {
        self.chunk.session
    }

    /// Bytes of its records, those of lines that are not meant too.
    pub fn byte_len(&self) -> usize {
        self.chunk.run.byte_len()
    }
}
