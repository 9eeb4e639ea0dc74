//! Hysteresis for the log: trouble that comes and goes is said once when it begins and once when it is over.

use std::time::{Duration, Instant};

/// How long nothing may happen before it is over. On a full disk small batches fit and large ones do not, and a failing one
/// syncs now and then: without a pause each of these would be two lines of log.
const CALM: Duration = Duration::from_secs(60);

/// Something that is said when it begins and when it is over: when it last happened, if that has not been taken back.
#[derive(Default)]
pub struct Hysteresis(Option<Instant>);

impl Hysteresis {
    /// The trouble happens. True: for the first time.
    pub fn begins(&mut self) -> bool {
        self.0.replace(Instant::now()).is_none()
    }

    /// The trouble does not happen now. True: nor has it for a while, after it had.
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
