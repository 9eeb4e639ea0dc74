//! The progress of long work, on stderr: a bar on a terminal, otherwise a line every few seconds.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// The time between two lines if stderr is no terminal. Shorter work prints none.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// The time between two updates of the bar.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// The width of the bar, in characters.
const WIDTH: u64 = 24;
const CLEAR: &str = "\r\x1b[K";

/// Shows progress. Dropping it clears the bar.
pub struct Progress {
    is_terminal: bool,
    shown: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self { is_terminal: stderr().is_terminal(), shown: Instant::now() }
    }

    /// Shows the progress, followed by `says`, unless it was shown a moment ago.
    pub fn show(&mut self, done: u64, total: u64, says: impl Display) {
        let every = if self.is_terminal { BAR_EVERY } else { LINE_EVERY };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let percent = percent(done, total);
        let mut stderr = stderr().lock();
        // The work continues if stderr is closed.
        let _ = match self.is_terminal {
            true => write!(stderr, "{CLEAR}{} {percent:>3} %  {says}", bar(done, total)),
            false => writeln!(stderr, "{percent} %  {says}"),
        };
    }

    /// Prints a line that stays.
    pub fn line(&self, text: impl Display) {
        clear();
        let _ = writeln!(stderr(), "{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        clear();
    }
}

/// Clears the bar, if there is one, before other output.
pub fn clear() {
    let mut stderr = stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "{CLEAR}");
    }
}

fn percent(done: u64, total: u64) -> u64 {
    (done.min(total) * 100).checked_div(total).unwrap_or(100)
}

fn bar(done: u64, total: u64) -> String {
    let full = (done.min(total) * WIDTH).checked_div(total).unwrap_or(WIDTH);
    (0..WIDTH).map(|at| if at < full { '█' } else { '░' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        let full = |done, total| (percent(done, total), bar(done, total).matches('█').count());
        assert_eq!([full(0, 8), full(2, 8), full(8, 8), full(9, 8)], [(0, 0), (25, 6), (100, 24), (100, 24)]);
        assert_eq!(full(0, 0), (100, 24), "nothing to do is done");
        assert_eq!(bar(1, 2).chars().count(), 24);
    }
}
