//! For how long has the peer's kernel owed an answer? One that answers whatever it is sent is alive, however little its
//! program reads: a receive buffer that is full throws away what was sent, says so, and is then asked more and more seldom by
//! our own kernel, which doubles its pause each time. Decides only.

use std::time::{Duration, Instant};

/// When the peer's kernel last spoke, whatever its program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignsOfLife {
    /// How long ago the peer's kernel acknowledged anything, and be it what it had acknowledged before.
    pub last: Duration,
    pub owes: Owes,
}

/// What the peer's kernel has not answered since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owes {
    Nothing,
    /// Bytes that were sent, or sent again.
    Bytes,
    /// More than one probe of its closed window.
    Probes,
}

/// Follows one connection from sample to sample, for a kernel does not tell when it sent the first thing that has no answer.
#[derive(Debug, Default)]
pub struct Silence {
    /// Whether our kernel tells anything of the peer's.
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

    /// Whether the peer's kernel has owed an answer for so long. True also where our kernel does not tell.
    pub fn lasts(&self, time: Duration, now: Instant) -> bool {
        !self.is_known || self.since.is_some_and(|since| now.duration_since(since) >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Each look: after how long since the one before, and what is seen then.
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

    /// Sent again after 12 s, and looked at before the answer can be there.
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
