//! Limits the log lines of a forward: each state once, and no more than a few lines a minute. Otherwise a collector that accepts
//! connections and drops them, or a name that points elsewhere with each answer, would fill the log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Span;

/// Different texts logged between two deliveries: an outage of a day takes a few lines.
const MAX_DIFFERENT: usize = 16;
/// Lines in a minute, however often something is delivered between them.
const MAX_PER_MINUTE: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);

/// Shared by all parts of one forward.
pub struct LogLimiter {
    forward: String,
    span: Span,
    /// Something was delivered since the last question.
    has_delivered: AtomicBool,
    memory: Mutex<Memory>,
}

struct Memory {
    /// The texts logged since the last delivery.
    texts: HashMap<String, Kind>,
    /// When the current minute began, and how many lines it has.
    since: Instant,
    lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Trouble,
    Recovery,
}

/// Whether a text is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    It,
    /// Instead of the text, a last line says that no more is logged for a minute.
    Enough,
    Nothing,
}

impl LogLimiter {
    pub fn new(forward: &str) -> Self {
        let memory = Memory { texts: HashMap::new(), since: Instant::now(), lines: 0 };
        let span = tracing::error_span!("forward", name = forward);
        Self { forward: forward.to_owned(), span, has_delivered: AtomicBool::new(false), memory: Mutex::new(memory) }
    }

    /// The limiter for dead letters that are sent again.
    pub fn of_resend(forward: &str) -> Self {
        let span = tracing::error_span!("forward", name = format!("{forward}, resend"));
        Self { span, ..Self::new(forward) }
    }

    pub fn forward(&self) -> &str {
        &self.forward
    }

    /// The forward, as the context of a log line: it begins with `forward NAME: `.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The collector has taken lines: the same texts may be logged again.
    pub fn note_delivered(&self) {
        // Read before writing: every batch calls this, and the flag is nearly always set already.
        if !self.has_delivered.load(Ordering::Relaxed) {
            self.has_delivered.store(true, Ordering::Relaxed);
        }
    }

    /// Whether to log `text`: it was not logged since the last delivery, and the limits are not reached.
    pub fn is_new(&self, text: &str) -> bool {
        self.asks(text, Kind::Trouble)
    }

    /// Whether to log `text`, the end of a trouble. It may be logged again after another trouble was logged.
    pub fn is_over(&self, text: &str) -> bool {
        self.asks(text, Kind::Recovery)
    }

    fn asks(&self, text: &str, kind: Kind) -> bool {
        let has_delivered = self.has_delivered.swap(false, Ordering::Relaxed);
        match self.memory.lock().hear(text, kind, has_delivered, Instant::now()) {
            Say::It => true,
            Say::Nothing => false,
            Say::Enough => {
                tracing::warn!(
                    parent: &self.span,
                    "it comes and goes; for a minute no more is said of it, look at logferry_forward_connects"
                );
                false
            }
        }
    }
}

impl Memory {
    fn hear(&mut self, text: &str, kind: Kind, has_delivered: bool, now: Instant) -> Say {
        if now.duration_since(self.since) >= MINUTE {
            (self.since, self.lines) = (now, 0);
        }
        if has_delivered {
            self.texts.clear();
        }
        if self.texts.len() >= MAX_DIFFERENT || self.texts.contains_key(text) || self.lines > MAX_PER_MINUTE {
            return Say::Nothing;
        }
        self.lines += 1;
        if self.lines > MAX_PER_MINUTE {
            return Say::Enough;
        }
        if kind == Kind::Trouble {
            self.texts.retain(|_, kind| *kind == Kind::Trouble);
        }
        self.texts.insert(text.to_owned(), kind);
        Say::It
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(since: Instant) -> Memory {
        Memory { texts: HashMap::new(), since, lines: 0 }
    }

    #[test]
    fn each_thing_is_said_once_until_something_is_delivered() {
        let now = Instant::now();
        let mut memory = memory(now);
        let mut hear = |text: &str, has_delivered| memory.hear(text, Kind::Trouble, has_delivered, now);
        assert_eq!([hear("away", false), hear("away", false), hear("here", false)], [Say::It, Say::Nothing, Say::It]);
        assert_eq!([hear("away", true), hear("away", false)], [Say::It, Say::Nothing]);
        let (different, more) = (0..MAX_DIFFERENT).fold((0, 0), |(said, not), n| match hear(&n.to_string(), false) {
            Say::It => (said + 1, not),
            _ => (said, not + 1),
        });
        assert!(different < MAX_DIFFERENT && more > 0);
    }

    #[test]
    fn the_end_of_a_trouble_is_said_each_time_the_trouble_was() {
        let now = Instant::now();
        let mut memory = memory(now);
        let mut hear = |text: &str, kind| memory.hear(text, kind, false, now);
        assert_eq!([hear("here", Kind::Recovery), hear("here", Kind::Recovery)], [Say::It, Say::Nothing]);
        assert_eq!(hear("away", Kind::Trouble), Say::It);
        assert_eq!([hear("here", Kind::Recovery), hear("here", Kind::Recovery)], [Say::It, Say::Nothing]);
        // Nothing was delivered, so it is the same outage.
        assert_eq!([hear("away", Kind::Trouble), hear("here", Kind::Recovery)], [Say::Nothing, Say::Nothing]);
    }

    #[test]
    fn whatever_happens_it_is_a_few_lines_a_minute() {
        let start = Instant::now();
        let mut memory = memory(start);
        for minute in 0..3 {
            // A connection comes, delivers and goes every tenth of a second.
            let heard: Vec<Say> = (0..599)
                .map(|n| {
                    let now = start + MINUTE * minute + Duration::from_millis(100) * n;
                    let (text, kind) = [("comes", Kind::Recovery), ("goes", Kind::Trouble)][n as usize % 2];
                    memory.hear(text, kind, true, now)
                })
                .collect();
            let times = |say| heard.iter().filter(|heard| **heard == say).count();
            assert_eq!((times(Say::It), times(Say::Enough)), (MAX_PER_MINUTE, 1));
        }
    }
}
