//! How far one forward is, and what became of each line on the way. Counting is done where the position moves, and nowhere
//! else.

use std::collections::VecDeque;
use std::ops::Range;

use super::Position;
use crate::metrics::ForwardMetrics;

pub(super) struct Cursor {
    /// The forward's.
    pub name: String,
    /// There is a reader. Without one the cursor stays, and holds back what it has not passed.
    pub taken: bool,
    /// Everything before it is retired, evicted or lost.
    pub at: Position,
    /// The first line its reader has not read.
    pub read: u64,
    /// Lines beyond `at` that turned out unreadable, in order. They are counted when the cursor gets there.
    pub gaps: VecDeque<Gap>,
    /// Lines beyond `at` that were read and are not wanted, in order. They go when what is behind them is retired.
    unwanted: VecDeque<Range<u64>>,
    pub metrics: ForwardMetrics,
}

pub(super) struct Gap {
    pub from_line: u64,
    pub to: Position,
}

impl Cursor {
    /// One with a reader.
    pub fn new(name: &str, at: Position, metrics: ForwardMetrics) -> Self {
        let (gaps, unwanted) = Default::default();
        Self { name: name.to_owned(), taken: true, at, read: at.line, gaps, unwanted, metrics }
    }

    pub fn waiting(&self, end: Position) -> u64 {
        // A segment can be evicted before its lines are published; then the cursor is ahead for a moment.
        end.line.saturating_sub(self.at.line)
    }

    /// Takes note of lines that were read and are not wanted; all of them behind those that were noted before.
    pub fn note_unwanted(&mut self, lines: &[Range<u64>]) {
        self.unwanted.extend(lines.iter().cloned());
    }

    /// Everything beyond `at` will be read again, and judged again. Returns how many lines were not wanted.
    pub fn forget_unwanted(&mut self) -> u64 {
        let unwanted = self.take_unwanted(u64::MAX);
        self.unwanted.clear();
        unwanted
    }

    /// Moves to `up_to` and counts every line on the way as what became of it.
    pub fn retire(&mut self, up_to: Position) {
        self.settle();
        while self.at.line < up_to.line {
            let next = match self.gaps.front() {
                Some(gap) if gap.from_line < up_to.line => gap.from_line,
                _ => up_to.line,
            };
            let unwanted = self.take_unwanted(next);
            self.metrics.unwanted.inc_by(unwanted);
            self.metrics.delivered.inc_by(next - self.at.line - unwanted);
            self.at = Position { line: next, ..up_to };
            self.settle();
        }
    }

    /// Everything before `start` is gone.
    pub fn evict(&mut self, start: Position) {
        if self.at.line < start.line {
            self.metrics.evicted.inc_by(start.line - self.at.line);
            self.at = start;
        }
        self.settle();
    }

    /// Passes the gaps the cursor has reached.
    pub fn settle(&mut self) {
        while let Some(gap) = self.gaps.front()
            && gap.from_line <= self.at.line
        {
            if self.at.line < gap.to.line {
                self.metrics.damaged.inc_by(gap.to.line - self.at.line);
                self.at = gap.to;
            }
            self.gaps.pop_front();
        }
    }

    /// How many of the lines from `at` up to `end` are not wanted. Ranges that end there are forgotten.
    fn take_unwanted(&mut self, end: u64) -> u64 {
        let mut lines = 0;
        while let Some(range) = self.unwanted.front().filter(|range| range.start < end) {
            lines += range.end.min(end).saturating_sub(range.start.max(self.at.line));
            if range.end > end {
                break;
            }
            self.unwanted.pop_front();
        }
        lines
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
        Cursor::new("central", at(0), Metrics::new().forward("central"))
    }

    /// Delivered, unwanted, evicted, damaged.
    fn check(cursor: &Cursor, expected: [u64; 4]) {
        let ForwardMetrics { delivered, unwanted, evicted, damaged, .. } = &cursor.metrics;
        assert_eq!([delivered, unwanted, evicted, damaged].map(|counter| counter.get()), expected);
        assert_eq!(expected.iter().sum::<u64>(), cursor.at.line);
    }

    #[test]
    fn each_line_is_counted_once_as_what_became_of_it() {
        let mut cursor = cursor();
        cursor.note_unwanted(&[2..5, 6..8]);
        cursor.note_unwanted(&[10..11, 11..12]);
        cursor.retire(at(1));
        check(&cursor, [1, 0, 0, 0]);
        cursor.retire(at(4));
        check(&cursor, [2, 2, 0, 0]);
        cursor.retire(at(4));
        cursor.retire(at(7));
        check(&cursor, [3, 4, 0, 0]);
        cursor.gaps.push_back(Gap { from_line: 9, to: at(10) });
        cursor.retire(at(20));
        check(&cursor, [12, 7, 0, 1]);
    }

    #[test]
    fn what_is_evicted_was_not_unwanted() {
        let mut cursor = cursor();
        cursor.note_unwanted(&[0..3, 5..9]);
        cursor.evict(at(7));
        cursor.retire(at(8));
        check(&cursor, [0, 1, 7, 0]);
        cursor.retire(at(10));
        check(&cursor, [1, 2, 7, 0]);
    }

    #[test]
    fn what_is_read_again_is_judged_again() {
        let mut cursor = cursor();
        cursor.note_unwanted(&[0..3, 5..9]);
        cursor.retire(at(6));
        check(&cursor, [2, 4, 0, 0]);
        assert_eq!(cursor.forget_unwanted(), 3);
        cursor.note_unwanted(&[6..7, 20..21]);
        cursor.retire(at(9));
        check(&cursor, [4, 5, 0, 0]);
    }
}
