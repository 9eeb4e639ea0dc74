//! Joins the pieces of long lines, if the config asks for it. Docker cuts a container's line at 16 KiB, and does not mark the
//! pieces (moby `daemon/logger/copier.go`).
//!
//! A message of exactly 16,384 bytes waits a moment for the next one with the same header and severity, because the pieces of a
//! line follow one another at once. If no piece follows, the message was a whole line of that length and is passed on as it came.
//! Two lines are joined by mistake only if another line of the same container follows within that moment.

use super::gate::Pending;
use super::pending::{Joined, PendingMessages, key};
use crate::metrics::PieceMetrics;
use crate::record::UnixMicros;

/// Bytes of a piece, except for the last piece of a line.
const PIECE: usize = 16 * 1024;
/// U+FFFD.
const REPLACED: &[u8] = b"\xef\xbf\xbd";

/// The text of a message.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// In bytes.
    pub len: usize,
    /// Whether the text is as long as a piece that is not the last.
    is_piece: bool,
}

impl Text {
    /// A text in the bytes that the container printed.
    #[inline]
    pub fn of_syslog(len: usize) -> Self {
        Self { len, is_piece: len == PIECE }
    }

    /// A text from Docker's GELF driver, which replaces each byte that is not UTF-8 by U+FFFD, three bytes. A piece has such bytes
    /// when it begins or ends inside a character, as most pieces in many languages do.
    pub fn of_gelf(text: &[u8]) -> Self {
        let more = text.len().saturating_sub(PIECE);
        let is_piece = text.len() == PIECE
            || more > 0
                && more.is_multiple_of(2)
                && memchr::memmem::find_iter(text, REPLACED).nth(more / 2 - 1).is_some();
        Self { len: text.len(), is_piece }
    }
}

/// Lines of all listeners that may be incomplete. Pieces are joined only if they come in by one listener, so that pieces forged at
/// an open listener change no line of a guarded one.
pub struct Reassembler {
    pub pending: PendingMessages,
}

impl Reassembler {
    pub fn new(metrics: PieceMetrics) -> Self {
        Self { pending: PendingMessages::new(metrics) }
    }

    /// Whether a message with this text must be passed to [`Reassembler::join`].
    #[inline]
    pub fn concerns(&self, text: Text) -> bool {
        text.is_piece || !self.pending.is_empty()
    }

    /// Joins a message to the pieces before it, or keeps it to wait for the next piece. `text` is the end of the message's line. No
    /// line becomes longer than `max` bytes. `listener`: the listener's address.
    pub fn join(&self, listener: &str, message: Pending, text: Text, max: usize, now: UnixMicros) -> Joined {
        let Text { len: text, is_piece } = text;
        let header = message.line.len() - text;
        let Some(key) = key((listener, 0), &message.line[..header]) else { return Joined::alone(message) };
        let is_last = !is_piece;
        self.pending.change(|messages| match messages.append(&key, (b"", &message.line[header..]), max, now) {
            true if is_last => Joined { before: None, line: messages.end(&key) },
            true => Joined::default(),
            // A message that waits, if there is one, cannot grow by this piece.
            false if is_last => Joined { before: messages.end(&key), line: Some(message) },
            false => messages.begin(key, message, now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::Terms;
    use super::super::pending::MAX_PENDING;
    use super::*;
    use crate::metrics::Metrics;

    const MAX: usize = 64 * 1024;

    struct Rig {
        reassembler: Reassembler,
        metrics: PieceMetrics,
    }

    fn rig() -> Rig {
        let metrics = Metrics::new().pieces();
        Rig { reassembler: Reassembler::new(metrics.clone()), metrics }
    }

    fn at(millis: i64) -> UnixMicros {
        UnixMicros(1_000_000_000 + millis * 1000)
    }

    impl Rig {
        /// The text that is passed on when a container called `name` prints `text`. No waiting message comes before it.
        fn print(&self, name: &str, text: &[u8], millis: i64) -> Option<Vec<u8>> {
            self.print_at("tcp://[::]:514", name, text, millis)
        }

        fn print_at(&self, listener: &str, name: &str, text: &[u8], millis: i64) -> Option<Vec<u8>> {
            let mut line = Vec::new();
            let header = format!("<30>1 2026-11-20T22:27:33.{millis:06}Z node-7 {name} 2a9052a5c36e - - ");
            line.extend_from_slice(header.as_bytes());
            line.extend_from_slice(text);
            let len = Text::of_syslog(text.len());
            let message = Pending { line, terms: Terms::none() };
            let whole = match self.reassembler.concerns(len) {
                true => self.reassembler.join(listener, message, len, MAX, at(millis)),
                false => Joined::alone(message),
            };
            assert!(whole.before.is_none());
            Some(whole.line?.line[header.len()..].to_vec())
        }

        /// The lengths of the texts that are passed on when a container prints `length` bytes.
        fn print_at_length(&self, length: usize) -> [Option<usize>; 2] {
            let header = "<30>1 2026-11-20T22:27:33Z node-7 web 2a9052a5c36e - - ";
            let line = [header.as_bytes(), &vec![b'x'; length]].concat();
            let message = Pending { line, terms: Terms::none() };
            let Joined { before, line } =
                self.reassembler.join("tcp://[::]:514", message, Text::of_syslog(length), MAX, at(0));
            [before, line].map(|ended| ended.map(|ended| ended.line.len() - header.len()))
        }

        fn numbers(&self) -> (u64, i64) {
            (self.metrics.joined.get(), self.metrics.pending.get())
        }
    }

    #[test]
    fn pieces_become_one_line() {
        let rig = rig();
        let (a, b, c) = ([b'a'; PIECE], [b'b'; PIECE], b"c");
        assert_eq!(rig.print("web", &a, 0), None);
        assert_eq!(rig.print("api", b"another container", 1), Some(b"another container".to_vec()));
        assert_eq!(rig.numbers(), (0, 1));
        assert_eq!(rig.print("web", &b, 2), None);
        assert_eq!(rig.print("web", c, 3), Some([&a[..], &b, c].concat()));
        assert_eq!(rig.numbers(), (2, 0));
        assert_eq!(rig.print("web", b"next", 4), Some(b"next".to_vec()));
        assert!(rig.reassembler.pending.all().is_empty());
    }

    #[test]
    fn what_comes_in_elsewhere_is_no_part_of_a_line() {
        let rig = rig();
        let piece = [b'a'; PIECE];
        assert_eq!(rig.print_at("udp://[::]:514", "web", &piece, 0), None);
        assert_eq!(rig.print("web", b"whole", 1), Some(b"whole".to_vec()));
        assert_eq!(rig.print_at("udp://[::]:514", "web", b"b", 2), Some([&piece[..], b"b"].concat()));
    }

    #[test]
    fn a_line_that_was_not_cut_waits_for_a_moment() {
        let rig = rig();
        let text = [b'x'; PIECE];
        assert_eq!(rig.print("web", &text, 0), None);
        assert!(rig.reassembler.pending.overdue(at(499)).is_empty());
        let overdue = rig.reassembler.pending.overdue(at(500));
        assert!(overdue[0].line.ends_with(&text));
        assert_eq!((overdue.len(), rig.numbers()), (1, (0, 0)));
        assert_eq!(rig.print("web", b"y", 501), Some(b"y".to_vec()));
        // The clock is set back by an hour.
        assert_eq!(rig.print("web", &text, 600), None);
        assert_eq!(rig.reassembler.pending.overdue(at(-3_600_000)).len(), 1);
    }

    #[test]
    fn no_line_is_made_longer_than_it_may_be() {
        let rig = rig();
        for _ in 0..3 {
            assert_eq!(rig.print_at_length(PIECE), [None, None]);
        }
        // The fourth piece does not fit, and begins the next line.
        assert_eq!(rig.print_at_length(PIECE), [Some(3 * PIECE), None]);
        // A line of exactly the allowed length.
        assert_eq!(rig.print_at_length(PIECE), [None, None]);
        assert_eq!(rig.print_at_length(PIECE), [None, None]);
        let rest = MAX - "<30>1 2026-11-20T22:27:33Z node-7 web 2a9052a5c36e - - ".len() - 3 * PIECE;
        assert_eq!(rig.print_at_length(rest), [None, Some(3 * PIECE + rest)]);
        // With one byte more, the last piece is a line of its own.
        for _ in 0..3 {
            assert_eq!(rig.print_at_length(PIECE), [None, None]);
        }
        assert_eq!(rig.print_at_length(rest + 1), [Some(3 * PIECE), Some(rest + 1)]);
        assert!(rig.reassembler.pending.all().is_empty());
        assert_eq!(rig.numbers(), (2 + 3 + 2, 0));
    }

    #[test]
    fn a_piece_of_gelf_is_as_long_as_what_was_printed() {
        let is_piece = |text: &str| Text::of_gelf(text.as_bytes()).is_piece;
        let x = |count: usize| "x".repeat(count);
        for text in [
            x(PIECE),
            // Cut inside three-byte characters: the piece ends with the first byte or the first two, begins with the last two, or
            // is cut at both ends; and a replaced byte in the middle.
            x(PIECE - 1) + "\u{fffd}",
            x(PIECE - 2) + "\u{fffd}\u{fffd}",
            format!("\u{fffd}\u{fffd}{}", x(PIECE - 2)),
            format!("\u{fffd}{}\u{fffd}\u{fffd}", x(PIECE - 3)),
            x(10) + "\u{fffd}" + &x(PIECE - 11),
            // U+FFFD that the container has printed.
            "\u{fffd}".to_owned() + &x(PIECE - 3),
            "\u{fffd}".repeat(PIECE),
        ] {
            assert!(is_piece(&text), "{} bytes", text.len());
        }
        for text in [
            x(PIECE - 1),
            x(PIECE + 1),
            x(PIECE + 2),
            x(PIECE) + "\u{fffd}",
            x(PIECE - 2) + "\u{fffd}",
            x(PIECE + 1) + "\u{fffd}",
            "\u{fffd}".repeat(PIECE + 1),
            String::new(),
        ] {
            assert!(!is_piece(&text), "{} bytes", text.len());
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let rig = rig();
        let piece = [b'x'; PIECE];
        let waiting = (0..1000).filter(|n| rig.print(&format!("web-{n}"), &piece, 0).is_none()).count();
        assert!((490..512).contains(&waiting), "{waiting}");
        assert_eq!(rig.reassembler.pending.all().len(), waiting);
        assert_eq!(rig.numbers(), (0, 0));
        // A header is kept twice and counts twice: in the line and in the key.
        let name = "x".repeat(PIECE);
        let long = (0..1000).filter(|n| rig.print(&format!("{name}-{n}"), &piece, 0).is_none()).count();
        assert!((100..=MAX_PENDING / (3 * PIECE)).contains(&long), "{long}");
    }
}
