//! How long the peer's kernel has owed an answer. A kernel that answers is alive, however little its program reads. A full receive
//! buffer drops what was sent, and the peer's kernel says so. Our own kernel then asks more and more seldom: it doubles its pause
//! each time. This module decides only.

use std::time::{Duration, Instant};

/// When the peer's kernel last answered, whatever its program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignsOfLife {
    /// How long ago the peer's kernel sent its last acknowledgement, new or repeated.
    pub last: Duration,
    pub owes: Owes,
}

/// What the peer's kernel has not answered since its last acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owes {
    Nothing,
    /// Bytes that were sent, or sent again.
    Bytes,
    /// More than one probe of its closed window.
    Probes,
}

/// Follows one connection from sample to sample, because our kernel does not tell when it sent the first bytes without an answer.
#[derive(Debug, Default)]
pub struct Silence {
    /// Whether our kernel tells anything about the peer's kernel.
    is_known: bool,
    since: Option<Instant>,
}

impl Silence {
    pub fn look(&mut self, signs: Option<SignsOfLife>, now: Instant) {
        let Some(SignsOfLife { last, owes }) = signs else { return };
        self.is_known = true;
        let heard = now.checked_sub(last);
        self.since = match owes {
            Owes::Nothing => None,
            Owes::Bytes => self.since.filter(|since| heard.is_none_or(|heard| heard < *since)).or(Some(now)),
            Owes::Probes => heard.or(self.since),
        };
    }

    /// Whether the peer's kernel has owed an answer for this long. True also where our kernel does not tell.
    pub fn lasts(&self, time: Duration, now: Instant) -> bool {
        !self.is_known || self.since.is_some_and(|since| now.duration_since(since) >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Each look: the time since the one before, and the signs of life at that look.
    fn after(looks: &[(Duration, Duration, Owes)]) -> (Silence, Instant) {
        let (mut silence, mut now) = (Silence::default(), Instant::now() + 1000 * SECOND);
        for (later, last, owes) in looks {
            now += *later;
            silence.look(Some(SignsOfLife { last: *last, owes: *owes }), now);
        }
        (silence, now)
    }

    #[test]
    fn what_is_not_known_is_silence() {
        assert!(Silence::default().lasts(SECOND, Instant::now()));
    }

    #[test]
    fn a_kernel_that_owes_nothing_is_not_silent() {
        let (silence, now) = after(&[(SECOND, 100 * SECOND, Owes::Nothing)]);
        assert!(!silence.lasts(SECOND, now + 100 * SECOND));
    }

    #[test]
    fn bytes_without_an_answer_count_from_when_they_were_seen() {
        let (silence, now) = after(&[(SECOND, 9 * SECOND, Owes::Bytes), (SECOND, 10 * SECOND, Owes::Bytes)]);
        assert!(!silence.lasts(2 * SECOND, now) && silence.lasts(2 * SECOND, now + SECOND));
    }

    /// The bytes are sent again after 12 s, and the look comes before the answer can arrive.
    #[test]
    fn a_kernel_that_answers_each_time_is_not_silent() {
        let looks = [(SECOND, 12 * SECOND, Owes::Bytes), (SECOND, SECOND / 2, Owes::Nothing)];
        let (silence, now) = after(&looks);
        assert!(!silence.lasts(SECOND, now));
        let (silence, now) = after(&[looks[0], looks[1], (25 * SECOND, 25 * SECOND, Owes::Bytes)]);
        assert!(!silence.lasts(SECOND, now), "asked just now");
        let (silence, now) = after(&[looks[0], (SECOND, SECOND / 2, Owes::Bytes)]);
        assert!(!silence.lasts(SECOND, now), "answered, and asked again");
    }

    #[test]
    fn probes_count_from_the_last_answer() {
        let (silence, now) = after(&[(SECOND, 3 * SECOND, Owes::Probes)]);
        assert!(silence.lasts(3 * SECOND, now) && !silence.lasts(4 * SECOND, now));
    }
}
