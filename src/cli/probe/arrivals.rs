//! Which messages have arrived, and when. They are found in lines of whatever format by a token that is this run's own.

use memchr::memmem::Finder;
use parking_lot::{Mutex, MutexGuard};

use crate::listen::ingest::now;

/// 12 hexadecimal digits that no other run has: the container's ID.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn random() -> Self {
        Self(format!("{:012x}", rand::random::<u64>() >> 16))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// What the container prints: the token, the number, and when it was sent, in microseconds since 1970.
    pub fn message(&self, number: u32, sent: i64) -> String {
        format!("probe {}:{number}:{sent};", self.0)
    }
}

pub struct Arrivals {
    token: Token,
    /// The token and the colon behind it, as they stand in a message and nowhere else.
    needle: Finder<'static>,
    state: Mutex<State>,
}

struct State {
    /// By number: microseconds it took, [`MISSING`] until it is here.
    took: Vec<u32>,
    distinct: u32,
    duplicates: u64,
    out_of_order: u32,
    /// The highest number so far.
    highest: u32,
    /// Messages that arrived before they were sent, by the clocks.
    too_early: u32,
}

/// What has become of the messages so far.
pub struct Tally {
    /// Microseconds, sorted.
    pub took: Vec<u32>,
    /// Of those that were sent, the first and last number of each run.
    pub missing: Vec<(u32, u32)>,
    pub duplicates: u64,
    pub out_of_order: u32,
    pub too_early: u32,
}

const MISSING: u32 = u32::MAX;

impl Arrivals {
    pub fn new(token: Token, count: u32) -> Self {
        let needle = Finder::new(&format!("{}:", token.text())).into_owned();
        let took = vec![MISSING; count as usize];
        let state = State { took, distinct: 0, duplicates: 0, out_of_order: 0, highest: 0, too_early: 0 };
        Self { token, needle, state: Mutex::new(state) }
    }

    pub fn token(&self) -> &Token {
        &self.token
    }

    pub fn distinct(&self) -> u32 {
        self.state().distinct
    }

    /// A line that has arrived, of this run or not.
    pub fn take(&self, line: &[u8]) {
        let mut found = self.needle.find_iter(line);
        if let Some((number, sent)) = found.find_map(|at| read(&line[at + self.needle.needle().len()..])) {
            self.state().take(number, sent, now().0);
        }
    }

    /// Of the first `sent` messages.
    pub fn tally(&self, sent: u32) -> Tally {
        let state = self.state();
        let mut missing: Vec<(u32, u32)> = Vec::new();
        for (number, _) in (1..=sent).zip(&state.took).filter(|(_, took)| **took == MISSING) {
            match missing.last_mut().filter(|(_, last)| last + 1 == number) {
                Some((_, last)) => *last = number,
                None => missing.push((number, number)),
            }
        }
        let mut took: Vec<u32> = state.took.iter().copied().filter(|took| *took != MISSING).collect();
        took.sort_unstable();
        let State { duplicates, out_of_order, too_early, .. } = *state;
        Tally { took, missing, duplicates, out_of_order, too_early }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn take(&mut self, number: u32, sent: i64, now: i64) {
        let Some(took) = number.checked_sub(1).and_then(|index| self.took.get_mut(index as usize)) else { return };
        if *took != MISSING {
            self.duplicates += 1;
            return;
        }
        *took = u32::try_from((now - sent).max(0)).unwrap_or(MISSING - 1).min(MISSING - 1);
        self.distinct += 1;
        self.too_early += u32::from(now < sent);
        self.out_of_order += u32::from(number < self.highest);
        self.highest = self.highest.max(number);
    }
}

/// `NUMBER:SENT;`
fn read(text: &[u8]) -> Option<(u32, i64)> {
    let end = text.iter().take(LONGEST).position(|byte| *byte == b';')?;
    let (number, sent) = std::str::from_utf8(&text[..end]).ok()?.split_once(':')?;
    Some((number.parse().ok()?, sent.parse().ok()?))
}

/// Bytes of a number, a time and what stands between them.
const LONGEST: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals() -> Arrivals {
        Arrivals::new(Token("0123456789ab".to_owned()), 10)
    }

    #[test]
    fn a_message_is_found_in_every_format_and_nothing_else_is() {
        let arrivals = arrivals();
        let text = arrivals.token().message(1, 5);
        for line in [
            format!("<30>1 - host logferry-probe 0123456789ab - [x id=\"0123456789ab\"] {text}"),
            format!("{{\"container_id\":\"0123456789ab\",\"message\":\"{text}\"}}"),
            format!("Nov 20 22:27:28 host logferry-probe[0123456789ab]: {text}"),
            format!("0123456789ab: {text} and more"),
        ] {
            arrivals.take(line.as_bytes());
        }
        assert_eq!((arrivals.distinct(), arrivals.tally(1).duplicates), (1, 3));
        for line in [
            "",
            "0123456789ab:",
            "probe 0123456789ab:2:5",
            "probe 0123456789ac:2:5;",
            "probe 0123456789ab:0:5;",
            "probe 0123456789ab:11:5;",
            "probe 0123456789ab:-1:5;",
        ] {
            arrivals.take(line.as_bytes());
        }
        assert_eq!((arrivals.distinct(), arrivals.tally(1).duplicates), (1, 3));
    }

    #[test]
    fn what_is_missing_late_or_twice_is_told() {
        let arrivals = arrivals();
        for number in [1, 2, 5, 3, 5, 9] {
            arrivals.take(arrivals.token().message(number, now().0 - 1000).as_bytes());
        }
        let tally = arrivals.tally(9);
        assert_eq!(tally.missing, [(4, 4), (6, 8)]);
        assert_eq!((tally.duplicates, tally.out_of_order, tally.too_early), (1, 1, 0));
        assert!(tally.took.len() == 5 && tally.took.iter().all(|took| *took >= 1000));
        arrivals.take(arrivals.token().message(4, now().0 + 60_000_000).as_bytes());
        assert_eq!((arrivals.tally(5).too_early, arrivals.tally(5).took[0]), (1, 0));
    }
}
