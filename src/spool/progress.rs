//! The positions of one forward, and the counts of its lines. Lines are counted where a position moves, and nowhere
//! else.
//!
//! A forward has two positions. *Acknowledged*: the collector has everything before it, as far as the transport can
//! tell, or the line was filtered, rejected, evicted or lost. Each line is counted once, when this position passes it.
//! *Retired*: no line before it will be sent again, and its segments may be removed. Lines between the two are
//! replayable: they have been counted, and are sent again if the connection breaks. Retired never passes acknowledged.

use std::collections::VecDeque;
use std::ops::Range;

use super::Position;
use crate::metrics::ForwardMetrics;

/// The most ranges of filtered lines, and of rejected ones, that are kept for each forward, at 24 bytes each. Many
/// ranges arise only while such lines alternate with others and none is acknowledged. A further range is merged with
/// the last one. The counts of *filtered* and *delivered* are then exact again when all of the merged range is
/// acknowledged; their sum is always exact.
const MAX_RANGES: usize = 16_384;

pub(super) struct Cursor {
    /// The forward's name.
    pub name: String,
    /// The cursor has a reader. A cursor without a reader stays, and holds back the lines that it has not retired.
    pub taken: bool,
    positions: Positions,
    /// The first line its reader has not read.
    pub read: u64,
    /// Lines beyond `retired` that reading skips, in order: they are unreadable, or need not be sent again although
    /// lines before them may have to be.
    gaps: VecDeque<Gap>,
    /// Lines beyond `acknowledged` that were read and that the forward's `match` does not match.
    filtered: Apart,
    /// Lines beyond `acknowledged` that the collector has refused for good.
    rejected: Apart,
    pub metrics: ForwardMetrics,
}

/// The two positions of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    pub acknowledged: Position,
    pub retired: Position,
}

struct Gap {
    from_line: u64,
    to: Position,
}

impl Cursor {
    /// A cursor with a reader.
    pub fn new(name: &str, positions: Positions, metrics: ForwardMetrics) -> Self {
        Self {
            name: name.to_owned(),
            taken: true,
            positions,
            read: positions.retired.line,
            gaps: VecDeque::new(),
            filtered: Apart::default(),
            rejected: Apart::default(),
            metrics,
        }
    }

    pub fn positions(&self) -> Positions {
        self.positions
    }

    pub fn acknowledged(&self) -> Position {
        self.positions.acknowledged
    }

    pub fn retired(&self) -> Position {
        self.positions.retired
    }

    /// Lines that the collector has not got.
    pub fn pending(&self, end: Position) -> u64 {
        // A segment can be evicted before its lines are published; the cursor is then ahead of the end for a moment.
        end.line.saturating_sub(self.acknowledged().line)
    }

    /// Lines that are kept because they may have to be sent again.
    pub fn replayable(&self) -> u64 {
        self.acknowledged().line - self.retired().line
    }

    /// Notes lines that were read and do not match. They lie behind all lines noted before.
    pub fn note_filtered(&mut self, lines: &[Range<u64>]) {
        let counted = self.acknowledged().line;
        // Lines that are read again were counted when they were acknowledged.
        lines.iter().for_each(|range| self.filtered.push(range.start.max(counted)..range.end));
    }

    /// Notes a line that is now a dead letter.
    pub fn note_rejected(&mut self, number: u64) {
        if number >= self.acknowledged().line {
            self.rejected.push(number..number + 1);
        }
    }

    /// Forgets the notes about lines beyond `retired`, because they will be read, matched and sent again.
    pub fn rewind(&mut self) -> Position {
        self.filtered.clear();
        self.rejected.clear();
        self.retired()
    }

    /// Moves `acknowledged` to `up_to`, and counts every line on the way as delivered, filtered, rejected or damaged.
    /// Returns how many are delivered.
    pub fn acknowledge(&mut self, up_to: Position) -> u64 {
        let mut delivered = 0;
        self.settle();
        while self.acknowledged().line < up_to.line {
            let at = self.acknowledged().line;
            let gaps = self.gaps.iter().map(|gap| gap.from_line);
            let next = gaps.filter(|from| (at..up_to.line).contains(from)).min().unwrap_or(up_to.line);
            let filtered = self.filtered.take(next);
            let rejected = self.rejected.take(next).min(next - at - filtered);
            self.metrics.filtered.inc_by(filtered);
            self.metrics.rejected.inc_by(rejected);
            delivered += next - at - filtered - rejected;
            self.positions.acknowledged = Position { line: next, ..up_to };
            self.settle();
        }
        self.metrics.delivered.inc_by(delivered);
        delivered
    }

    /// Moves `retired` to `up_to`, and acknowledges the lines before it. Returns how many lines this delivers.
    pub fn retire(&mut self, up_to: Position) -> u64 {
        let delivered = self.acknowledge(up_to);
        if self.retired().line < up_to.line {
            self.positions.retired = up_to;
        }
        self.settle();
        delivered
    }

    /// Retires as [`retire`](Self::retire) does, but only the lines behind `from`.
    pub fn retire_beyond(&mut self, from: Position, up_to: Position) -> u64 {
        if from.line <= self.retired().line {
            return self.retire(up_to);
        }
        let delivered = self.acknowledge(up_to);
        match self.gaps.iter_mut().find(|gap| gap.from_line == from.line) {
            Some(gap) if gap.to.line >= up_to.line => {}
            Some(gap) => gap.to = up_to,
            None if from.line < up_to.line => self.note_gap(from.line, up_to),
            None => {}
        }
        delivered
    }

    /// Notes that everything before `start` is evicted. Lines that were acknowledged have a counter of their own,
    /// because they are lost only if the collector loses them.
    pub fn evict(&mut self, start: Position) {
        let known = self.acknowledged().line.min(start.line);
        self.metrics.evicted_replayable.inc_by(known.saturating_sub(self.retired().line));
        if self.acknowledged().line < start.line {
            self.metrics.evicted.inc_by(start.line - self.acknowledged().line);
            self.filtered.take(start.line);
            self.rejected.take(start.line);
            self.positions.acknowledged = start;
        }
        if self.retired().line < start.line {
            self.positions.retired = start;
        }
        self.settle();
    }

    /// Notes a gap: no line can be read from this line up to a position. The gap is counted when the cursor reaches it.
    pub fn note_gap(&mut self, from_line: u64, to: Position) {
        let behind = self.gaps.partition_point(|gap| gap.from_line <= from_line);
        self.gaps.insert(behind, Gap { from_line, to });
        self.settle();
    }

    /// The end of the gap that begins at `line`, if there is one.
    pub fn gap_at(&self, line: u64) -> Option<Position> {
        self.gaps.iter().find(|gap| gap.from_line == line).map(|gap| gap.to)
    }

    /// The next line behind `line` at which a gap begins.
    pub fn next_gap(&self, line: u64) -> Option<u64> {
        self.gaps.iter().map(|gap| gap.from_line).find(|from| *from > line)
    }

    /// Moves the positions over the gaps that they have reached.
    fn settle(&mut self) {
        let Positions { acknowledged, retired } = &mut self.positions;
        for gap in &self.gaps {
            if gap.from_line <= acknowledged.line && acknowledged.line < gap.to.line {
                self.metrics.damaged.inc_by(gap.to.line - acknowledged.line);
                self.filtered.take(gap.to.line);
                self.rejected.take(gap.to.line);
                *acknowledged = gap.to;
            }
        }
        while let Some(gap) = self.gaps.front()
            && gap.from_line <= retired.line
        {
            if retired.line < gap.to.line {
                *retired = gap.to;
            }
            self.gaps.pop_front();
        }
    }
}

/// Lines that are counted differently from the lines around them when the cursor passes them.
#[derive(Default)]
struct Apart(VecDeque<Ranges>);

/// `count` lines, somewhere from `start` to `end`. Only merged ranges have other lines in between.
struct Ranges {
    start: u64,
    end: u64,
    count: u64,
}

impl Apart {
    /// Adds lines at the end. Lines that are in a range already are not added.
    fn push(&mut self, lines: Range<u64>) {
        let start = self.0.back().map_or(lines.start, |last| lines.start.max(last.end));
        let lines = start..lines.end;
        if lines.is_empty() {
            return;
        }
        let (is_full, count) = (self.0.len() >= MAX_RANGES, lines.end - lines.start);
        match self.0.back_mut().filter(|last| is_full || last.end == lines.start) {
            Some(last) => {
                last.end = lines.end;
                last.count += count;
            }
            None => self.0.push_back(Ranges { start: lines.start, end: lines.end, count }),
        }
    }

    /// Removes the lines before line `end`, and returns how many there were.
    fn take(&mut self, end: u64) -> u64 {
        let mut taken = 0;
        while let Some(first) = self.0.front_mut().filter(|first| first.start < end) {
            let count = first.count.min(end - first.start);
            taken += count;
            if end < first.end {
                first.start = end;
                first.count -= count;
                break;
            }
            self.0.pop_front();
        }
        taken
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn at(line: u64) -> Position {
        Position { segment: 1, offset: 0, line }
    }

    fn cursor() -> Cursor {
        let start = Positions { acknowledged: at(0), retired: at(0) };
        Cursor::new("central", start, Metrics::new().forward("central"))
    }

    /// Delivered, filtered, evicted, damaged.
    #[track_caller]
    fn check(cursor: &Cursor, expected: [u64; 4]) {
        let ForwardMetrics { delivered, filtered, evicted, damaged, .. } = &cursor.metrics;
        assert_eq!([delivered, filtered, evicted, damaged].map(|counter| counter.get()), expected);
        assert_eq!(expected.iter().sum::<u64>(), cursor.acknowledged().line);
        assert!(cursor.retired().line <= cursor.acknowledged().line);
    }

    #[test]
    fn each_line_is_counted_once_as_what_became_of_it() {
        let mut cursor = cursor();
        cursor.note_filtered(&[2..5, 6..8]);
        cursor.note_filtered(&[10..11, 11..12]);
        cursor.retire(at(1));
        check(&cursor, [1, 0, 0, 0]);
        cursor.retire(at(4));
        check(&cursor, [2, 2, 0, 0]);
        cursor.retire(at(4));
        cursor.retire(at(7));
        check(&cursor, [3, 4, 0, 0]);
        cursor.note_gap(9, at(10));
        cursor.retire(at(20));
        check(&cursor, [12, 7, 0, 1]);
    }

    #[test]
    fn what_is_acknowledged_is_counted_then_and_not_again() {
        let mut cursor = cursor();
        cursor.note_filtered(&[2..5, 30..31]);
        cursor.note_gap(7, at(9));
        cursor.acknowledge(at(10));
        check(&cursor, [5, 3, 0, 2]);
        assert_eq!((cursor.pending(at(12)), cursor.replayable()), (2, 10));
        // The connection breaks, and all lines are read again; damage has grown.
        assert_eq!(cursor.rewind(), at(0));
        cursor.note_filtered(&[2..5, 10..11]);
        assert_eq!((cursor.gap_at(7), cursor.next_gap(0)), (Some(at(9)), Some(7)));
        cursor.note_gap(3, at(4));
        cursor.acknowledge(at(6));
        cursor.retire(at(4));
        check(&cursor, [5, 3, 0, 2]);
        cursor.retire(at(12));
        check(&cursor, [6, 4, 0, 2]);
        assert_eq!((cursor.pending(at(12)), cursor.replayable()), (0, 0));
    }

    #[test]
    fn what_is_retired_beyond_others_is_passed_with_them() {
        let mut cursor = cursor();
        cursor.acknowledge(at(10));
        assert_eq!(cursor.retire_beyond(at(10), at(15)), 5);
        assert_eq!(cursor.retire_beyond(at(10), at(20)), 5);
        assert_eq!(cursor.retire_beyond(at(10), at(12)), 0);
        assert_eq!(cursor.retire_beyond(at(20), at(30)), 10);
        check(&cursor, [30, 0, 0, 0]);
        // The lines before them are read again, and they are not.
        assert_eq!((cursor.rewind(), cursor.next_gap(0)), (at(0), Some(10)));
        assert_eq!((cursor.gap_at(10), cursor.gap_at(20)), (Some(at(20)), Some(at(30))));
        cursor.retire(at(4));
        assert_eq!(cursor.retired(), at(4));
        cursor.retire(at(10));
        assert_eq!((cursor.retired(), cursor.next_gap(0)), (at(30), None));
        cursor.retire_beyond(at(25), at(40));
        assert_eq!(cursor.retired(), at(40));
        check(&cursor, [40, 0, 0, 0]);
    }

    #[test]
    fn what_is_evicted_was_not_filtered_and_not_acknowledged() {
        let mut cursor = cursor();
        cursor.note_filtered(&[0..3, 5..9]);
        cursor.evict(at(7));
        cursor.retire(at(8));
        check(&cursor, [0, 1, 7, 0]);
        cursor.retire(at(10));
        check(&cursor, [1, 2, 7, 0]);
        cursor.acknowledge(at(15));
        cursor.evict(at(12));
        check(&cursor, [6, 2, 7, 0]);
        assert_eq!((cursor.replayable(), cursor.metrics.evicted_replayable.get()), (3, 2));
        cursor.evict(at(20));
        check(&cursor, [6, 2, 12, 0]);
        assert_eq!(cursor.metrics.evicted_replayable.get(), 5);
    }

    #[test]
    fn what_is_rejected_is_not_delivered() {
        let mut cursor = cursor();
        cursor.note_filtered(&[2..3, 6..7]);
        [1, 4, 4, 8].into_iter().for_each(|line| cursor.note_rejected(line));
        cursor.retire(at(5));
        assert_eq!((cursor.metrics.rejected.get(), cursor.metrics.delivered.get()), (2, 2));
        // Lines that are sent again are refused again.
        cursor.rewind();
        cursor.note_rejected(3);
        cursor.note_rejected(8);
        cursor.acknowledge(at(10));
        let ForwardMetrics { delivered, filtered, rejected, .. } = &cursor.metrics;
        assert_eq!([delivered, filtered, rejected].map(|counter| counter.get()), [6, 1, 3]);
    }

    #[test]
    fn what_is_read_again_is_judged_again() {
        let mut cursor = cursor();
        cursor.note_filtered(&[0..3, 5..9]);
        cursor.retire(at(6));
        check(&cursor, [2, 4, 0, 0]);
        cursor.rewind();
        cursor.note_filtered(&[6..7, 20..21]);
        cursor.retire(at(9));
        check(&cursor, [4, 5, 0, 0]);
    }

    #[test]
    fn a_gap_within_what_is_acknowledged_counts_as_far_as_it_goes_beyond() {
        let mut cursor = cursor();
        cursor.acknowledge(at(5));
        cursor.note_gap(3, at(8));
        check(&cursor, [5, 0, 0, 3]);
        cursor.retire(at(4));
        assert_eq!(cursor.retired(), at(8));
    }

    #[test]
    fn ranges_beyond_the_limit_count_exactly_once_all_is_passed() {
        let mut cursor = cursor();
        let lines = 4 * MAX_RANGES as u64;
        (0..lines).step_by(2).for_each(|line| cursor.note_filtered(std::slice::from_ref(&(line..line + 1))));
        assert_eq!(cursor.filtered.0.len(), MAX_RANGES);
        cursor.acknowledge(at(lines - 10));
        let counted = cursor.metrics.filtered.get() + cursor.metrics.delivered.get();
        assert_eq!(counted, lines - 10);
        cursor.acknowledge(at(lines));
        check(&cursor, [lines / 2, lines / 2, 0, 0]);
    }
}
