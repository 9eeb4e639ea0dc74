//! Docker cuts what a container prints in one line at 16 KiB, and says nowhere that it did (moby `daemon/logger/copier.go`).
//! Here the pieces become one line again, where that is asked for.
//!
//! A message of exactly 16,384 bytes waits for the next one with the same header and severity, for a moment: the pieces of
//! a line follow one another at once. A line that was that long and not cut waits in vain, and goes on as it came; only
//! when another line of its container follows within that moment are two lines taken for one.

use super::gate::Pending;
use super::pending::{Joined, PendingMessages, key};
use crate::metrics::PieceMetrics;
use crate::record::UnixMicros;

/// Bytes of a piece that is not the last one.
const PIECE: usize = 16 * 1024;
/// U+FFFD.
const REPLACED: &[u8] = b"\xef\xbf\xbd";

/// The text of a message.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// In bytes.
    pub len: usize,
    /// Whether it is as long as a piece that is not the last one.
    is_piece: bool,
}

impl Text {
    /// One that came as its container printed it.
    #[inline]
    pub fn of_syslog(len: usize) -> Self {
        Self { len, is_piece: len == PIECE }
    }

    /// Docker's driver for GELF has three bytes, U+FFFD, for each that is not UTF-8: of each piece that begins or ends inside of a
    /// character, which most pieces of many languages do.
    pub fn of_gelf(text: &[u8]) -> Self {
        let more = text.len().saturating_sub(PIECE);
        let is_piece = text.len() == PIECE
            || more > 0
                && more.is_multiple_of(2)
                && memchr::memmem::find_iter(text, REPLACED).nth(more / 2 - 1).is_some();
        Self { len: text.len(), is_piece }
    }
}

/// Lines that may not be whole yet, of all listeners. Pieces of one line come in by one listener: who forges them at an open
/// one changes nothing that comes in by a guarded one.
pub struct Reassembler {
    pub pending: PendingMessages,
}

impl Reassembler {
    pub fn new(metrics: PieceMetrics) -> Self {
        Self { pending: PendingMessages::new(metrics) }
    }

    /// Is a message with such a text to be shown to [`Reassembler::join`]?
    #[inline]
    pub fn concerns(&self, text: Text) -> bool {
        text.is_piece || !self.pending.is_empty()
    }

    /// A line, at its end the text of its message, becomes as whole as can be told. No line is made longer than `max` bytes. `listener`:
    /// its address.
    pub fn join(&self, listener: &str, message: Pending, text: Text, max: usize, now: UnixMicros) -> Joined {
        let Text { len: text, is_piece } = text;
        let header = message.line.len() - text;
        let Some(key) = key((listener, 0), &message.line[..header]) else { return Joined::alone(message) };
        let is_last = !is_piece;
        self.pending.change(|messages| match messages.append(&key, (b"", &message.line[header..]), max, now) {
            true if is_last => Joined { before: None, line: messages.end(&key) },
            true => Joined::default(),
            // What waits, if anything does, is as long as a line may be.
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
        /// What comes out when a container called `name` prints `text`, cut down to the text. Nothing that waited comes first.
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

        /// How long the texts are that come out when a container prints so much.
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
        // The fourth does not fit, and begins the next one.
        assert_eq!(rig.print_at_length(PIECE), [Some(3 * PIECE), None]);
        // Up to the last byte that is allowed.
        assert_eq!(rig.print_at_length(PIECE), [None, None]);
        assert_eq!(rig.print_at_length(PIECE), [None, None]);
        let rest = MAX - "<30>1 2026-11-20T22:27:33Z node-7 web 2a9052a5c36e - - ".len() - 3 * PIECE;
        assert_eq!(rig.print_at_length(rest), [None, Some(3 * PIECE + rest)]);
        // One byte more is a line of its own.
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
            // Of a character of three bytes the first, the first two, its last two; and one in the middle.
            x(PIECE - 1) + "\u{fffd}",
            x(PIECE - 2) + "\u{fffd}\u{fffd}",
            format!("\u{fffd}\u{fffd}{}", x(PIECE - 2)),
            format!("\u{fffd}{}\u{fffd}\u{fffd}", x(PIECE - 3)),
            x(10) + "\u{fffd}" + &x(PIECE - 11),
            // One that was printed as it is.
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
        // A header is kept twice, and counts as often: in the line, and as what the line is found by.
        let name = "x".repeat(PIECE);
        let long = (0..1000).filter(|n| rig.print(&format!("{name}-{n}"), &piece, 0).is_none()).count();
        assert!((100..=MAX_PENDING / (3 * PIECE)).contains(&long), "{long}");
    }
}
