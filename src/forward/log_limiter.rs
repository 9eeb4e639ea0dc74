//! What a forward says: states, each once, and no more than a few lines a minute whatever collectors and name servers do.
//! One that takes connections and drops them, or points elsewhere with each answer, would otherwise fill the log.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

/// Different things said between two deliveries: an outage of a day is a few lines.
const MOST_DIFFERENT: usize = 16;
/// Lines in a minute, however often something is delivered between them.
const MOST_A_MINUTE: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);

/// Shared by all that looks after one forward.
pub struct News {
    forward: String,
    delivered: Counter,
    said: Mutex<Said>,
}

struct Said {
    /// Since the last delivery.
    texts: HashSet<String>,
    /// `delivered` when `texts` was last emptied.
    at: u64,
    /// When the minute began, and what was said in it.
    since: Instant,
    lines: usize,
}

/// Whether something is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    It,
    /// That no more will be said for a while.
    Enough,
    Nothing,
}

impl News {
    pub fn new(forward: &str, delivered: Counter) -> Self {
        let said = Said { texts: HashSet::new(), at: 0, since: Instant::now(), lines: 0 };
        Self { forward: forward.to_owned(), delivered, said: Mutex::new(said) }
    }

    /// Whether `text` is to be said: it has not been since something was delivered, and not too much was.
    pub fn is_new(&self, text: &str) -> bool {
        let mut said = self.said.lock();
        match said.hear(text, self.delivered.get(), Instant::now()) {
            Say::It => true,
            Say::Nothing => false,
            Say::Enough => {
                tracing::warn!(
                    "forward {}: it comes and goes; for a minute no more is said of it, look at logferry_forward_connects",
                    self.forward
                );
                false
            }
        }
    }
}

impl Said {
    fn hear(&mut self, text: &str, delivered: u64, now: Instant) -> Say {
        if now.duration_since(self.since) >= MINUTE {
            (self.since, self.lines) = (now, 0);
        }
        if delivered != self.at {
            self.at = delivered;
            self.texts.clear();
        }
        if self.texts.len() >= MOST_DIFFERENT || self.texts.contains(text) || self.lines > MOST_A_MINUTE {
            return Say::Nothing;
        }
        self.lines += 1;
        if self.lines > MOST_A_MINUTE {
            return Say::Enough;
        }
        self.texts.insert(text.to_owned());
        Say::It
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(since: Instant) -> Said {
        Said { texts: HashSet::new(), at: 0, since, lines: 0 }
    }

    #[test]
    fn each_thing_is_said_once_until_something_is_delivered() {
        let now = Instant::now();
        let mut said = said(now);
        let mut hear = |text: &str, delivered| said.hear(text, delivered, now);
        assert_eq!([hear("away", 0), hear("away", 0), hear("here", 0)], [Say::It, Say::Nothing, Say::It]);
        assert_eq!([hear("away", 1), hear("away", 1)], [Say::It, Say::Nothing]);
        let (different, more) = (0..MOST_DIFFERENT).fold((0, 0), |(said, not), n| match hear(&n.to_string(), 1) {
            Say::It => (said + 1, not),
            _ => (said, not + 1),
        });
        assert!(different < MOST_DIFFERENT && more > 0);
    }

    #[test]
    fn whatever_happens_it_is_a_few_lines_a_minute() {
        let start = Instant::now();
        let mut said = said(start);
        for minute in 0..3 {
            // A connection comes, delivers and goes every tenth of a second.
            let heard: Vec<Say> = (0..599)
                .map(|n| {
                    let now = start + MINUTE * minute + Duration::from_millis(100) * n;
                    said.hear(["comes", "goes"][n as usize % 2], u64::from(minute * 1000 + n), now)
                })
                .collect();
            let times = |say| heard.iter().filter(|heard| **heard == say).count();
            assert_eq!((times(Say::It), times(Say::Enough)), (MOST_A_MINUTE, 1));
        }
    }
}
