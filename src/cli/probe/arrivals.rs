//! Records which messages have arrived, and when. Each run chooses a random token, which marks its messages in lines of any
//! format.

use memchr::memmem::Finder;
use parking_lot::{Mutex, MutexGuard};

use crate::listen::ingest::now;

/// Twelve random hexadecimal digits. They mark the messages of one run, and are also the container's ID.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn random() -> Self {
        Self(format!("{:012x}", rand::random::<u64>() >> 16))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// The text of a message: the token, the number, and the time of sending in microseconds since 1970.
    pub fn message(&self, number: u32, sent: i64) -> String {
        format!("probe {}:{number}:{sent};", self.0)
    }
}

/// The arrivals of one run.
pub struct Arrivals {
    token: Token,
    /// The token with a colon, which occurs only in the text of a message, and nowhere else in a line.
    needle: Finder<'static>,
    recorded: Mutex<Recorded>,
}

/// The records so far.
struct Recorded {
    /// The latency of each message in microseconds, by number; [`MISSING`] until the message arrives.
    latencies: Vec<u32>,
    distinct: u32,
    duplicates: u64,
    out_of_order: u32,
    /// The highest number that has arrived.
    highest: u32,
    /// Messages that arrived before they were sent, by the clocks of the two machines.
    too_early: u32,
}

/// A summary of the arrivals.
pub struct Tally {
    /// The latencies in microseconds, sorted.
    pub latencies: Vec<u32>,
    /// The sent messages that have not arrived: the first and last number of each run.
    pub missing: Vec<(u32, u32)>,
    pub duplicates: u64,
    pub out_of_order: u32,
    pub too_early: u32,
}

const MISSING: u32 = u32::MAX;

impl Arrivals {
    pub fn new(token: Token, count: u32) -> Self {
        let needle = Finder::new(&format!("{}:", token.text())).into_owned();
        let latencies = vec![MISSING; count as usize];
        let recorded = Recorded { latencies, distinct: 0, duplicates: 0, out_of_order: 0, highest: 0, too_early: 0 };
        Self { token, needle, recorded: Mutex::new(recorded) }
    }

    pub fn token(&self) -> &Token {
        &self.token
    }

    pub fn distinct(&self) -> u32 {
        self.recorded().distinct
    }

    /// Records a line that has arrived, if the line holds a message of this run.
    pub fn record(&self, line: &[u8]) {
        let mut found = self.needle.find_iter(line);
        if let Some((number, sent)) = found.find_map(|at| parse(&line[at + self.needle.needle().len()..])) {
            self.recorded().record(number, sent, now().0);
        }
    }

    /// Summarizes the first `sent` messages.
    pub fn tally(&self, sent: u32) -> Tally {
        let recorded = self.recorded();
        let mut missing: Vec<(u32, u32)> = Vec::new();
        for (number, _) in (1..=sent).zip(&recorded.latencies).filter(|(_, latency)| **latency == MISSING) {
            match missing.last_mut().filter(|(_, last)| last + 1 == number) {
                Some((_, last)) => *last = number,
                None => missing.push((number, number)),
            }
        }
        let mut latencies: Vec<u32> =
            recorded.latencies.iter().copied().filter(|latency| *latency != MISSING).collect();
        latencies.sort_unstable();
        let Recorded { duplicates, out_of_order, too_early, .. } = *recorded;
        Tally { latencies, missing, duplicates, out_of_order, too_early }
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock()
    }
}

impl Recorded {
    fn record(&mut self, number: u32, sent: i64, now: i64) {
        let Some(latency) = number.checked_sub(1).and_then(|index| self.latencies.get_mut(index as usize)) else {
            return;
        };
        if *latency != MISSING {
            self.duplicates += 1;
            return;
        }
        *latency = u32::try_from((now - sent).max(0)).unwrap_or(MISSING - 1).min(MISSING - 1);
        self.distinct += 1;
        self.too_early += u32::from(now < sent);
        self.out_of_order += u32::from(number < self.highest);
        self.highest = self.highest.max(number);
    }
}

/// Parses `NUMBER:SENT;`.
fn parse(text: &[u8]) -> Option<(u32, i64)> {
    let end = text.iter().take(MAX_LEN).position(|byte| *byte == b';')?;
    let (number, sent) = std::str::from_utf8(&text[..end]).ok()?.split_once(':')?;
    Some((number.parse().ok()?, sent.parse().ok()?))
}

/// The longest `NUMBER:SENT;`, in bytes.
const MAX_LEN: usize = 40;

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
            arrivals.record(line.as_bytes());
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
            arrivals.record(line.as_bytes());
        }
        assert_eq!((arrivals.distinct(), arrivals.tally(1).duplicates), (1, 3));
    }

    #[test]
    fn what_is_missing_late_or_twice_is_told() {
        let arrivals = arrivals();
        for number in [1, 2, 5, 3, 5, 9] {
            arrivals.record(arrivals.token().message(number, now().0 - 1000).as_bytes());
        }
        let tally = arrivals.tally(9);
        assert_eq!(tally.missing, [(4, 4), (6, 8)]);
        assert_eq!((tally.duplicates, tally.out_of_order, tally.too_early), (1, 1, 0));
        assert!(tally.latencies.len() == 5 && tally.latencies.iter().all(|latency| *latency >= 1000));
        arrivals.record(arrivals.token().message(4, now().0 + 60_000_000).as_bytes());
        assert_eq!((arrivals.tally(5).too_early, arrivals.tally(5).latencies[0]), (1, 0));
    }
}
