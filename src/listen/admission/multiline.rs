//! Joins lines that belong to one message, such as a stack trace. Docker's driver sends each line as a message; other senders send
//! further lines without a priority. If the listener's `multiline` says so, lines that are indented, or that do not begin like a
//! first line, become part of the message before them.
//!
//! A line with a header is joined only to a message with the same header, never to a message of another container or connection.
//! Admission checks the message when it is whole.

use super::gate::Pending;
use super::pending::{Joined, PendingMessages, key};
use crate::config::Multiline;
use crate::record::UnixMicros;

/// Makes a line a message, or a part of one.
pub struct Joins<'i> {
    pub pending: &'i PendingMessages,
    /// Decides which lines continue a message.
    pub multiline: &'i Multiline,
    /// The listener's address, and the number of the connection; 0: datagrams.
    pub from: (&'i str, u64),
    /// The longest message in bytes.
    pub max: usize,
    /// The line was cut: nothing is joined to it.
    pub cut: bool,
    /// The line came over a connection and has no priority. It can be joined only to the last message of the connection.
    pub is_bare: bool,
    /// The key of the connection's last message.
    pub last_key: &'i mut Option<Vec<u8>>,
}

impl Joins<'_> {
    /// Joins a bare line to the last message of its connection. False: it was not joined.
    pub fn take_bare(&self, line: &[u8], now: UnixMicros) -> bool {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let last = self.last_key.as_ref().filter(|_| self.is_bare && self.is_further(text));
        last.is_some_and(|key| self.append(key, text, now))
    }

    /// Takes a line whose last `text` bytes are its message.
    pub fn take(&mut self, message: Pending, text: usize, now: UnixMicros) -> Joined {
        let (header, text) = message.line.split_at(message.line.len() - text);
        let Some(key) = key(self.from, header) else { return Joined::alone(message) };
        if !self.is_bare && self.is_further(text) && self.append(&key, text, now) {
            self.remember(&key);
            return Joined::default();
        }
        // A message without text has no place for a further line.
        if self.cut || text.is_empty() {
            *self.last_key = None;
            return Joined { before: self.pending.change(|messages| messages.end(&key)), line: Some(message) };
        }
        self.remember(&key);
        self.pending.change(|messages| messages.begin(key, message, now))
    }

    /// Remembers the key as that of the connection's last message.
    fn remember(&mut self, key: &[u8]) {
        if self.from.1 > 0 && self.last_key.as_deref() != Some(key) {
            *self.last_key = Some(key.to_owned());
        }
    }

    fn is_further(&self, text: &[u8]) -> bool {
        !self.cut && self.multiline.is_further(text)
    }

    fn append(&self, key: &[u8], text: &[u8], now: UnixMicros) -> bool {
        self.pending.change(|messages| messages.append(key, (b"\n", text), self.max, now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::Terms;
    use super::*;
    use crate::metrics::{Metrics, PieceMetrics};
    use crate::record::Record;

    const MAX: usize = 200;

    struct Rig {
        multiline: Multiline,
        pending: PendingMessages,
        metrics: PieceMetrics,
        /// The last keys of the connections.
        last_keys: [Option<Vec<u8>>; 3],
    }

    fn rig(multiline: &str) -> Rig {
        let (multiline, metrics) = (multiline.parse().unwrap(), Metrics::new().pieces());
        Rig { multiline, pending: PendingMessages::new(metrics.clone()), metrics, last_keys: Default::default() }
    }

    fn at(millis: i64) -> UnixMicros {
        UnixMicros(1_000_000_000 + millis * 1000)
    }

    fn texts(ended: impl IntoIterator<Item = Pending>) -> Vec<String> {
        let text = |ended: Pending| {
            let message = Record::from_line(&ended.line, "").message.unwrap_or_default();
            String::from_utf8_lossy(message).into_owned()
        };
        ended.into_iter().map(text).collect()
    }

    impl Rig {
        /// The texts that are passed on when a container called `name` prints `text` over a connection.
        fn print(&mut self, name: &str, connection: u64, text: &str, millis: i64) -> Vec<String> {
            let is_empty = if text.is_empty() { "" } else { " " };
            let line = format!("<30>1 2026-11-20T22:27:33.{millis:06}Z node-7 {name} 2a9052a5c36e - -{is_empty}{text}");
            self.line(connection, false, line, text, millis)
        }

        /// The texts that are passed on when a line without a priority comes over a connection.
        fn bare(&mut self, connection: u64, text: &str, millis: i64) -> Vec<String> {
            let line = format!("<13>1 2026-11-20T22:27:33.{millis:06}Z relay - - - - {text}");
            self.line(connection, true, line, text, millis)
        }

        fn line(&mut self, connection: u64, is_bare: bool, line: String, text: &str, millis: i64) -> Vec<String> {
            let (from, last_key) = (("tcp://:514", connection), &mut self.last_keys[connection as usize]);
            let mut joins = Joins {
                pending: &self.pending,
                multiline: &self.multiline,
                from,
                max: MAX,
                cut: false,
                is_bare,
                last_key,
            };
            if joins.take_bare(text.as_bytes(), at(millis)) {
                return Vec::new();
            }
            let message = Pending { line: line.into_bytes(), terms: Terms::none() };
            let Joined { before, line } = joins.take(message, text.len(), at(millis));
            texts(before.into_iter().chain(line))
        }

        fn overdue(&self, millis: i64) -> Vec<String> {
            texts(self.pending.overdue(at(millis)))
        }

        fn numbers(&self) -> (u64, i64) {
            (self.metrics.joined.get(), self.metrics.pending.get())
        }
    }

    #[test]
    fn a_stack_trace_is_one_message() {
        let mut rig = rig("indented");
        assert!(rig.print("web", 1, "java.lang.Exception: no", 0).is_empty());
        assert!(rig.print("web", 1, "\tat a.B.c(B.java:1)", 1).is_empty());
        // Another container, and another connection.
        assert!(rig.print("api", 1, " indented", 2).is_empty());
        assert!(rig.print("web", 2, " indented", 2).is_empty());
        assert!(rig.print("web", 1, "\tat a.B.d(B.java:2)", 3).is_empty());
        assert_eq!(rig.numbers(), (0, 5));
        let whole = "java.lang.Exception: no\n\tat a.B.c(B.java:1)\n\tat a.B.d(B.java:2)";
        assert_eq!(rig.print("web", 1, "next", 4), [whole]);
        assert_eq!(rig.numbers(), (2, 3));
        let mut rest = rig.overdue(600);
        rest.sort();
        assert_eq!((rest, rig.numbers()), (vec![" indented".to_owned(), " indented".into(), "next".into()], (2, 0)));
        assert!(rig.pending.is_empty());
    }

    #[test]
    fn what_does_not_begin_as_a_first_line_does_is_a_further_one() {
        let mut rig = rig(r"^\d{4}-");
        assert!(rig.print("web", 1, "2026-11-20 a", 0).is_empty());
        assert!(rig.print("api", 1, "of another container", 1).is_empty());
        assert!(rig.print("web", 2, "of another connection", 1).is_empty());
        assert!(rig.print("web", 1, "Caused by: b", 2).is_empty());
        assert!(rig.print("web", 1, "", 3).is_empty());
        assert!(rig.bare(1, "bare", 4).is_empty());
        let whole = "2026-11-20 a\nCaused by: b\n\nbare";
        assert_eq!(rig.print("web", 1, "2026-11-20 c", 5), [whole]);
        assert!(rig.bare(1, "2026-11-20 d", 6).is_empty());
        assert_eq!(rig.bare(1, "2026-11-20 e", 7), ["2026-11-20 d"]);
        assert_eq!(rig.numbers(), (3, 4));
        let mut rest = rig.overdue(600);
        rest.sort();
        assert_eq!(rest, ["2026-11-20 c", "2026-11-20 e", "of another connection", "of another container"]);
        assert_eq!((rig.numbers(), rig.pending.is_empty()), ((3, 0), true));
    }

    #[test]
    fn no_message_becomes_longer_than_it_may_be() {
        let mut rig = rig("indented");
        rig.print("web", 1, "first", 0);
        let whole: Vec<String> = (0..40).flat_map(|line| rig.print("web", 1, " 0123456789", 1 + line)).collect();
        assert!(whole.len() > 2 && whole.iter().all(|text| text.len() <= MAX), "{whole:?}");
    }

    /// A message may be only `<13>`. A line joined to it would stand in the place of structured data.
    #[test]
    fn nothing_is_joined_to_what_has_no_text() {
        let mut rig = rig("indented");
        rig.print("web", 1, "first", 0);
        assert_eq!(rig.print("web", 1, "", 1), ["first", ""]);
        assert!(rig.bare(1, "  bare", 2).is_empty());
        assert_eq!(rig.overdue(600), ["  bare"]);
        assert_eq!(rig.numbers(), (0, 0));
    }

    #[test]
    fn a_line_without_a_priority_is_joined_to_the_last_message_of_its_connection_or_to_none() {
        let mut rig = rig("indented");
        let (long, more) = ("x".repeat(100), format!("  {}", "y".repeat(50)));
        rig.bare(1, "of long ago", 0);
        rig.print("web", 1, &long, 1);
        rig.bare(2, "of another connection", 1);
        assert!(rig.bare(1, " b", 2).is_empty());
        // The line does not fit into the last message, and does not belong to the one before that.
        assert_eq!(rig.bare(1, &more, 3), ["of long ago"]);
        let mut rest = rig.overdue(600);
        rest.sort();
        assert_eq!(rest, [more, "of another connection".into(), format!("{long}\n b")]);
    }
}
