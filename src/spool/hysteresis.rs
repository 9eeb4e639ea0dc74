//! Hysteresis for the log: intermittent trouble is logged once when it begins and once when it is over.

use std::time::{Duration, Instant};

/// Trouble is over after this time without it. On a full disk small batches fit and large ones do not, and a failing
/// disk syncs now and then: without the pause, each change would log two lines.
const CALM: Duration = Duration::from_secs(60);

/// The time of the last trouble. `None`: there is no trouble in the log that is not over.
#[derive(Default)]
pub struct Hysteresis(Option<Instant>);

impl Hysteresis {
    /// Notes that the trouble happens. True: it begins, and the caller logs it.
    pub fn begins(&mut self) -> bool {
        self.0.replace(Instant::now()).is_none()
    }

    /// To be called when the trouble does not happen. True: it has been over for a minute, and the caller logs that.
    pub fn ends(&mut self) -> bool {
        self.0.take_if(|last| last.elapsed() > CALM).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_taken_back_once() {
        let mut trouble = Hysteresis::default();
        assert!(!trouble.ends(), "there was none");
        assert_eq!([trouble.begins(), trouble.begins(), trouble.ends()], [true, false, false]);
        let mut trouble = Hysteresis(Instant::now().checked_sub(2 * CALM));
        assert_eq!([trouble.ends(), trouble.ends(), trouble.begins()], [true, false, true]);
    }
}
