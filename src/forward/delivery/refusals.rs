//! Decides when a refused line is given up, and when the collector is to blame and not the line. Refusals outlive the
//! connections of a forward: many a collector ends the session in which it has refused something.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::suspect::Suspects;

/// How often a line is refused before it is a dead letter.
pub const MAX_TRIES: u32 = 3;
/// How long a refused line waits before it is sent for the second time. Each further wait is twice as long.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);
/// After this many refusals without a delivery between them the collector takes nothing, whatever the line.
pub const MAX_IN_A_ROW: u32 = 100;
/// After this time with nothing but refusals the collector takes nothing, whatever the line.
pub const ALL_REFUSED_FOR: Duration = Duration::from_secs(600);

/// What one forward's collectors have refused.
#[derive(Debug, Default)]
pub struct Refusals {
    /// How often each line without a verdict was refused, by its number. No more entries than lines in flight.
    tries: BTreeMap<u64, u32>,
    /// Refusals since something was delivered.
    in_a_row: u32,
    /// When the first of these refusals came.
    since: Option<Instant>,
    stopped: bool,
    /// The size in bytes of the smallest message that was too large.
    too_large: Option<usize>,
    /// Lines that were in flight when sessions ended.
    pub suspects: Suspects,
    /// Where parcels ended that had no answer at the end of a connection: the session of the spool, and the number behind the last
    /// line. No more entries than parcels in flight.
    pub cuts: Vec<(u32, u64)>,
}

/// What happens to a refused line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The line is sent again after this time.
    Again(Duration),
    /// The line is a dead letter.
    Poison,
}

impl Refusals {
    /// Counts a refused line.
    pub fn refused(&mut self, line: u64, now: Instant) -> Verdict {
        self.count(now);
        if self.stopped {
            // The line may not be to blame, so this refusal does not count against it.
            return Verdict::Again(RETRY_AFTER);
        }
        let tries = self.tries.entry(line).or_default();
        *tries += 1;
        if *tries >= MAX_TRIES {
            self.tries.remove(&line);
            return Verdict::Poison;
        }
        Verdict::Again(RETRY_AFTER * (1 << (*tries - 1)))
    }

    /// Counts a line that the collector will never take. True: the line is given up. False: the collector takes nothing.
    pub fn gives_up(&mut self, now: Instant) -> bool {
        self.count(now);
        !self.stopped
    }

    fn count(&mut self, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        self.stopped |= self.in_a_row >= MAX_IN_A_ROW || now.duration_since(since) >= ALL_REFUSED_FOR;
    }

    /// Notes that the collector takes lines.
    pub fn delivered(&mut self) {
        (self.in_a_row, self.since, self.stopped) = (0, None, false);
    }

    /// Everything before this line has its verdict.
    pub fn passed(&mut self, line: u64) {
        if !self.tries.is_empty() {
            self.tries = self.tries.split_off(&line);
        }
    }

    /// Notes that the collector never takes a message of this many bytes.
    pub fn takes_less_than(&mut self, bytes: usize) {
        self.too_large = Some(self.too_large.map_or(bytes, |known| known.min(bytes)));
    }

    /// The size in bytes of the largest message that the collector may take.
    pub fn most_bytes(&self) -> usize {
        self.too_large.map_or(usize::MAX, |bytes| bytes.saturating_sub(1))
    }

    /// Whether the collector takes nothing. No line is given up then.
    pub fn are_a_stop(&self) -> bool {
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_few_tries() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.refused(7, now), Verdict::Again(RETRY_AFTER));
        assert_eq!(refusals.refused(8, now), Verdict::Again(RETRY_AFTER));
        // Other lines are delivered meanwhile. That does not reset the tries of these two.
        refusals.delivered();
        assert_eq!(refusals.refused(7, now), Verdict::Again(RETRY_AFTER * 2));
        assert_eq!(refusals.refused(7, now), Verdict::Poison);
        assert_eq!(refusals.refused(8, now), Verdict::Again(RETRY_AFTER * 2));
        refusals.passed(9);
        assert!(refusals.tries.is_empty());
    }

    #[test]
    fn when_everything_is_refused_nothing_is_given_up() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        for line in 1..MAX_IN_A_ROW {
            assert_eq!(refusals.refused(line.into(), now), Verdict::Again(RETRY_AFTER));
            assert!(!refusals.are_a_stop());
        }
        for _ in 0..10 {
            (0..200).for_each(|line| assert_eq!(refusals.refused(line, now), Verdict::Again(RETRY_AFTER)));
            assert!(refusals.are_a_stop());
        }
        refusals.delivered();
        assert!(!refusals.are_a_stop());
        assert_eq!(refusals.refused(1, now), Verdict::Again(RETRY_AFTER * 2), "its first one counted");
        assert_eq!(refusals.refused(1, now), Verdict::Poison);
    }

    #[test]
    fn so_it_is_when_few_lines_are_refused_for_long() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        refusals.refused(1, start);
        refusals.refused(1, start + ALL_REFUSED_FOR - RETRY_AFTER);
        assert!(!refusals.are_a_stop());
        assert_eq!(refusals.refused(1, start + ALL_REFUSED_FOR), Verdict::Again(RETRY_AFTER));
        assert!(refusals.are_a_stop());
    }
}
