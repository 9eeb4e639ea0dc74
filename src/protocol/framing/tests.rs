//! Framing: which bytes are a frame, and that cuts of the stream do not change it.

use proptest::prelude::*;

use super::properties::{self, Event};
use super::{Framer, Notes, Skipped};

const LIMIT: usize = 16;

/// One line per feature: the stream, the frames in it (`~` marks a cut frame), and the frames that a clean end adds.
#[track_caller]
fn check(stream: &str, expected: &[&str], at_end: &[&str]) {
    let outcome = properties::frames(stream.as_bytes(), LIMIT, []);
    assert_eq!(show(&outcome.found), expected, "{stream:?}");
    assert_eq!(show(&outcome.last), at_end, "at the end of {stream:?}");
    assert!(outcome.unfinished || at_end.is_empty(), "{stream:?}");
    every_two_cuts(stream.as_bytes());
}

fn show(frames: &[properties::Frame]) -> Vec<String> {
    let show =
        |(frame, cut, _): &properties::Frame| String::from_utf8(frame.clone()).unwrap() + if *cut { "~" } else { "" };
    frames.iter().map(show).collect()
}

/// The frames of a whole stream and the notes, with a limit that is large enough. Also checks the stream cut at every two places.
#[track_caller]
fn check_all(stream: &str, expected: &[&str], notes: Notes) {
    let mut outcome = properties::frames(stream.as_bytes(), 400, []);
    assert_eq!(outcome.notes, notes, "{stream:?}");
    outcome.found.append(&mut outcome.last);
    assert_eq!(show(&outcome.found), expected, "{stream:?}");
    for first in 0..=stream.len() {
        for second in 0..=stream.len() - first {
            properties::any_cut(stream.as_bytes(), 400, &[first, second]);
        }
    }
}

const NOTHING: Notes = Notes { skipped: Skipped { limit: 0, timeout: 0, memory: 0 }, miscounts: 0 };

fn every_two_cuts(stream: &[u8]) {
    for first in 0..=stream.len() {
        for second in 0..=stream.len() - first {
            properties::any_cut(stream, LIMIT, &[first, second]);
        }
    }
}

#[test]
fn lines() {
    check("", &[], &[]);
    check("<13>one\n<13>two\n", &["<13>one", "<13>two"], &[]);
    check("\n\n<13>one\n\n\n<13>two\n\n", &["<13>one", "<13>two"], &[]);
    check("a\rb\n \n", &["a\rb", " "], &[]);
    check("<13>one\n<13>tail", &["<13>one"], &["<13>tail"]);
}

#[test]
fn octet_counts() {
    check("7 <13>one7 <13>two", &["<13>one", "<13>two"], &[]);
    check("8 <13>one\n8 <13>two\n", &["<13>one\n", "<13>two\n"], &[]);
    check("7 <13>one\n\n7 <13>two\n", &["<13>one", "<13>two"], &[]);
    check("7 <13>a\nb8 <13>\n\n\n\n5 <13>x", &["<13>a\nb", "<13>\n\n\n\n", "<13>x"], &[]);
    check("7 \u{feff}<1>a7 \u{feff}<1>\n<13>b\n", &["\u{feff}<1>a", "\u{feff}<1>\n", "<13>b"], &[]);
    check("7 <13>", &[], &["<13>~"]);
    check("7 <13", &[], &["7 <13"]);
    check("7 ", &[], &["7 "]);
}

#[test]
fn both_on_one_connection() {
    check("<13>a\n5 <13>b<13>c\n5 <13>d", &["<13>a", "<13>b", "<13>c", "<13>d"], &[]);
}

#[test]
fn digits_that_are_no_count() {
    check("12a4\nx\n", &["12a4", "x"], &[]);
    check("012 a\n", &["012 a"], &[]);
    check("0 a\n", &["0 a"], &[]);
    check("0 <13>a\n", &["0 <13>a"], &[]);
    check("12\n34", &["12"], &["34"]);
    check("1234567890 a\n", &["1234567890 a"], &[]);
    check("12345678", &[], &["12345678"]);
    check("16777216 <13>ab", &[], &["<13>ab~"]);
    check("16777217 <13>ab", &[], &["16777217 <13>ab"]);
    check("12\t3\n", &["12\t3"], &[]);
    // A count that does not cover the priority behind it.
    check("3 <13>abc\n", &["3 <13>abc"], &[]);
}

/// A number that is not a count takes none of the bytes that follow.
#[test]
fn text_that_begins_with_a_number() {
    check_all(
        "<14>job done:\n12 rows\n<14>next\n<14>and next\n",
        &["<14>job done:", "12 rows", "<14>next", "<14>and next"],
        NOTHING,
    );
    let following = "<14>next\n".repeat(9);
    let expected = |first| std::iter::once(first).chain(std::iter::repeat_n("<14>next", 9)).collect::<Vec<_>>();
    for first in ["70000 rows in set", "200001 rows", "123 apples", "12 <tag>", "12 <1a>", "99999999 <14>x"] {
        check_all(&format!("{first}\n{following}"), &expected(first), NOTHING);
    }
}

/// Frames of a template without a priority: the number is a count where the next number comes exactly there.
#[test]
fn counts_without_a_priority() {
    check("7 my text5 again", &["my text", "again"], &[]);
    check_all(
        "7 my text5 a\nb c5 again12 {\"a\": \"b c\"}",
        &["my text", "a\nb c", "again", "{\"a\": \"b c\"}"],
        NOTHING,
    );
    check_all("7 my text", &["my text"], NOTHING);
    check_all("7 my text12", &["7 my text12"], NOTHING);
    check_all("7 my texts\n5 again6\n", &["7 my texts", "5 again6"], NOTHING);
    check_all("7 my text\n5 again\n", &["7 my text", "5 again"], NOTHING);
    // A wrong count resets what is known of the connection.
    check_all("2 ab2 cd2 efgh\n2 rows\n", &["ab", "cd", "ef", "gh", "2 rows"], Notes { miscounts: 1, ..NOTHING });
}

#[test]
fn a_count_that_is_wrong() {
    let miscounts = |miscounts| Notes { miscounts, ..NOTHING };
    // One byte too many: the first digit of the next count is taken for text.
    let text = "x".repeat(30);
    check_all(
        &format!("40 <6>{text}hello!40 <6>{text}world!40 <6>{text}hello!39 <6>{text}world!"),
        &[
            &format!("<6>{text}hello!4"),
            &format!("<6>{text}world!"),
            &format!("<6>{text}hello!3"),
            "<6>xxxxxx",
            &format!("{}world!", &text[6..]),
        ],
        miscounts(2),
    );
    check_all("10 <6>hello!10 <6>hello!9 <6>hello!", &["<6>hello!1", "<6>hello!", "<6>hello!"], miscounts(1));
    // Characters instead of bytes.
    check_all("8 <6>héllo8 <6>hello", &["<6>héll", "o", "<6>hello"], miscounts(1));
    check_all("7 <6>hello\n<13>next\n7 <6>again\n", &["<6>hell", "o", "<13>next", "<6>agai", "n"], miscounts(2));
    // Behind a gap counts are valid again. A gap that never ends is a message at the end.
    check_all("7 <6>hello 12 2 <6> <> 8 <6>hello", &["<6>hell", "o 12 2 <6> <> ", "<6>hello"], miscounts(1));
    check_all("7 <6>hello 8 <6", &["<6>hell", "o 8 <6"], miscounts(1));
    // `<` behind a counted frame is not a miscount.
    check_all(
        "7 <6>hell<13>next\n7 <6>hell\u{feff}<13>next\n",
        &["<6>hell", "<13>next", "<6>hell", "\u{feff}<13>next"],
        NOTHING,
    );
}

/// The limit applies to a gap as to any line.
#[test]
fn a_gap_that_is_too_long() {
    let gap = "x".repeat(50);
    for (stream, expected, limit) in [
        (format!("5 <13>a{gap}5 <13>b"), vec!["<13>a", "xxxxxxxxxxxxxxxx~", "<13>b"], 34),
        (format!("5 <13>a{gap}\n<13>b\n"), vec!["<13>a", "xxxxxxxxxxxxxxxx~", "<13>b"], 34),
        (format!("5 <13>a{gap}"), vec!["<13>a", "xxxxxxxxxxxxxxxx~"], 34),
    ] {
        let outcome = properties::frames(stream.as_bytes(), LIMIT, []);
        assert_eq!(outcome.notes, Notes { skipped: Skipped { limit, ..NOTHING.skipped }, miscounts: 1 }, "{stream}");
        assert_eq!(show(&outcome.frames()), expected, "{stream}");
        every_two_cuts(stream.as_bytes());
    }
}

/// As Python's `SysLogHandler` writes over TCP.
#[test]
fn nul_ends_a_message() {
    check_all("<14>jobs[7]: one\0<14>jobs[7]: two\0", &["<14>jobs[7]: one", "<14>jobs[7]: two"], NOTHING);
    check_all("<14>one\0\0\0<14>two\0\0", &["<14>one", "<14>two"], NOTHING);
    check_all("<14>one\0\u{feff}<14>two\0", &["<14>one", "\u{feff}<14>two"], NOTHING);
    // A NUL with text behind it is text.
    check_all("<14>a\0b\0<14>two\0", &["<14>a\0b", "<14>two"], NOTHING);
    check_all("<14>a\0<1b\0<14>two\0<14", &["<14>a\0<1b", "<14>two\0<14"], NOTHING);
    // Between frames a NUL is ignored.
    check_all("\0<14>a\n\0\n\0<14>b\n5 <14>c\0\x005 <14>d\0", &["<14>a", "<14>b", "<14>c", "<14>d"], NOTHING);
}

/// Docker's driver ends messages with LF alone, and a container may print any bytes.
#[test]
fn nul_is_text_where_lf_ends_messages() {
    check_all("<14>a\n<14>b\0<14>c\n<14>d\0\0\n", &["<14>a", "<14>b\0<14>c", "<14>d\0\0"], NOTHING);
    check_all("<14>a\0<14>b\n<14>c\0<14>d\n", &["<14>a", "<14>b", "<14>c\0<14>d"], NOTHING);
    for header in [
        "<30>Nov 20 17:28:47 nginx:1.25/web/2a9052a5c36e[23223]: ",
        "<14>Nov 20 17:28:47 web[23223]: ",
        "<27>Nov 20 17:28:47 host my app[23223]: ",
        "<30>1 2026-11-20T22:27:31Z host web 1 web - ",
    ] {
        let forged = format!("{header}a\0<14>Nov 20 17:28:47 db[1]: forged\0\0<14>forged");
        let stream = format!("{forged}\n{forged}\n");
        let outcome = properties::frames(stream.as_bytes(), 400, []);
        assert_eq!(show(&outcome.frames()), [&forged[..], &forged[..]]);
        for at in 0..=stream.len() {
            properties::any_cut(stream.as_bytes(), 400, &[at]);
            properties::any_cut(stream.as_bytes(), 100, &[at]);
        }
    }
    let mut framer = Framer::of_docker(LIMIT);
    let mut found = Vec::new();
    framer.feed(b"<14>a\0<14>b\r\n", |frame| found.push(frame.bytes.to_vec()));
    assert_eq!(found, [b"<14>a\0<14>b\r"]);
}

#[test]
fn a_pause_ends_what_may_have_ended() {
    for (stream, expected) in [
        ("<14>one\0", Some("<14>one")),
        ("<14>one\0<1", None),
        ("<14>one", None),
        ("7 my text", Some("my text")),
        ("7 my tex", None),
        ("<14>a\n<14>one\0", None),
    ] {
        let mut framer = Framer::new(LIMIT);
        let mut found = Vec::new();
        framer.feed(stream.as_bytes(), |_| {});
        assert_eq!(framer.may_have_ended(), expected.is_some(), "{stream:?}");
        framer.pause(&mut |frame| found.push(String::from_utf8(frame.bytes.to_vec()).unwrap()));
        assert_eq!(found.first().map(|frame| &frame[..]), expected, "{stream:?}");
        assert_eq!(framer.unfinished(), expected.is_none());
    }
    // A message begins behind the pause, with any bytes.
    let mut framer = Framer::new(LIMIT);
    let mut found = Vec::new();
    framer.feed(b"<14>one\0", |_| {});
    framer.pause(&mut |_| {});
    framer.feed(b"two\0<14>3\0\0", |frame| found.push(String::from_utf8(frame.bytes.to_vec()).unwrap()));
    assert_eq!(found, ["two", "<14>3"]);
}

#[test]
fn cr_before_lf_is_no_text() {
    check_all("<13>one\r\n\r\n<13>two\r\r\n\r", &["<13>one", "<13>two"], NOTHING);
    check_all("9 <13>one\r\n<13>a\rb\r\0\n", &["<13>one\r\n", "<13>a\rb\r\0"], NOTHING);
    // A container's terminal writes the CR.
    let of_docker = "<30>Nov 20 17:28:47 nginx:1.25/web/2a9052a5c36e[23223]: one\r";
    let of_others = "<14>Nov 20 17:28:47 win-7 Security-Auditing[812]: one";
    check_all(&format!("{of_docker}\n{of_others}\r\n"), &[of_docker, of_others], NOTHING);
}

#[test]
fn oversized_frames() {
    check("0123456789abcdef\nx\n", &["0123456789abcdef", "x"], &[]);
    check("0123456789abcdefg\nx\n", &["0123456789abcdef~", "x"], &[]);
    check("0123456789abcdefg", &["0123456789abcdef~"], &[]);
    check("16 <13>456789abcdef<13>x\n", &["<13>456789abcdef", "<13>x"], &[]);
    check("17 <13>456789abcdefg<13>x\n", &["<13>456789abcdef~", "<13>x"], &[]);
    check("20 <13>456789abcdef", &["<13>456789abcdef~"], &[]);
    check(
        "<14>456789abcdefg\0<14>x\0<14>456789abcdefgh\0x\0\0",
        &["<14>456789abcdef~", "<14>x", "<14>456789abcdef~"],
        &[],
    );
    check("<14>456789abcdef\0<14>x\0<14>456789abcdef\0x\0\0", &["<14>456789abcdef", "<14>x", "<14>456789abcdef~"], &[]);
}

/// Each byte of an oversized frame that is not passed on is counted.
#[test]
fn what_is_skipped_is_counted() {
    for (stream, skipped) in [
        ("0123456789abcdefg\nx\n", 1),
        ("0123456789abcdefghi", 3),
        ("20 <13>456789abcdef", 0),
        ("20 <13>456789abcdefgh", 2),
        ("20 <13>456789abcdefghij<13>x\n", 4),
        ("<14>456789abcdefg\0<14>x\0<14>456789abcdefgh\0x\0\0", 1 + 4),
    ] {
        let Notes { skipped: found, .. } = properties::frames(stream.as_bytes(), LIMIT, []).notes;
        assert_eq!(found, Skipped { limit: skipped, ..Skipped::default() }, "{stream:?}");
    }
}

/// A forgery: a frame inside the skipped part of an oversized frame.
#[test]
fn nothing_is_forged_out_of_an_oversized_frame() {
    let forged = "<13>".to_owned() + &"x".repeat(16) + "\n<13>forged\n9 <13>forged";
    let counted = format!("{} {forged}", forged.len());
    check(&(counted.clone() + "<13>next\n"), &["<13>xxxxxxxxxxxx~", "<13>next"], &[]);
    check(
        &format!("<13>a\n{counted}5 <13>b{counted}\n<13>c\n"),
        &["<13>a", "<13>xxxxxxxxxxxx~", "<13>b", "<13>xxxxxxxxxxxx~", "<13>c"],
        &[],
    );
    check("xxxxxxxxxxxxxxxxxxxx 9 <13>forged\n<13>next\n", &["xxxxxxxxxxxxxxxx~", "<13>next"], &[]);
}

/// The result if this event happens behind the first `at` bytes of a stream.
fn with(event: Event, stream: &str, at: usize) -> (Vec<String>, Notes) {
    let outcome = properties::frames_with(Framer::new(LIMIT), stream.as_bytes(), [], &[(at, event)]);
    let notes = outcome.notes;
    (show(&outcome.frames()), notes)
}

/// Gives up a frame for want of memory, at any place: the frame is passed on once, cut, its rest is skipped, and the next frame is
/// complete.
#[test]
fn a_frame_for_which_there_is_no_memory() {
    for (stream, expected) in [
        ("7 <13>one", vec!["<13>one"]),
        ("<13>one\n", vec!["<13>one"]),
        ("<13>a\n11 <13>\nforged7 <13>two", vec!["<13>a", "<13>\nforged", "<13>two"]),
    ] {
        for at in 0..=stream.len() {
            let (found, Notes { skipped, .. }) = with(Event::GiveUp, stream, at);
            assert_eq!(found.len(), expected.len(), "{stream:?} at {at}: {found:?}");
            let mut missing = 0;
            for (frame, whole) in found.iter().zip(&expected) {
                let kept = frame.strip_suffix('~').unwrap_or(frame);
                assert!(whole.starts_with(kept) && (kept != frame || kept == *whole), "{frame} of {whole}");
                missing += (whole.len() - kept.len()) as u64;
            }
            assert_eq!(skipped, Skipped { memory: missing, ..Skipped::default() }, "{stream:?} at {at}");
        }
    }
}

/// Behind a message whose end did not come in time, the next bytes begin another message if they can.
#[test]
fn a_frame_that_is_not_waited_for() {
    let skipped = |timeout| Notes { skipped: Skipped { timeout, ..Skipped::default() }, ..NOTHING };
    for (before, after, expected, lost) in [
        ("<14>one", "<14>two\n", vec!["<14>one~", "<14>two"], 0),
        ("<14>one", "7 <14>two", vec!["<14>one~", "<14>two"], 0),
        ("<14>one", " and more\n<14>two\n", vec!["<14>one~", "<14>two"], 9),
        ("<14>one", "7 and more\n<14>two\n", vec!["<14>one~", "<14>two"], 10),
        ("<14>one", "<1x\n<14>two\n", vec!["<14>one~", "<14>two"], 3),
        ("<14>one", "\n<14>two\n", vec!["<14>one~", "<14>two"], 0),
        ("<14>one", "<1", vec!["<14>one~"], 2),
        ("9 <14>one", "\n<7 <14>two", vec!["<14>one~", "<14>two"], 2),
        ("9 <14>one", "<14>two\n", vec!["<14>one~", "<14>two"], 0),
        ("9 <14>one", "7 <14>two", vec!["<14>one~", "<14>two"], 0),
        ("5 <14>ab", "c7 <14>two", vec!["<14>a", "b~", "<14>two"], 1),
        ("<14>one\0", "<14>two\0", vec!["<14>one", "<14>two"], 0),
        ("7 my text", "5 again", vec!["my text", "again"], 0),
        // A number alone is not given up.
        ("7", " <14>two", vec!["<14>two"], 0),
    ] {
        let stream = [before, after].concat();
        let (found, notes) = with(Event::TimeOut, &stream, before.len());
        assert_eq!(found, expected, "{before:?} {after:?}");
        assert_eq!(notes.skipped, skipped(lost).skipped, "{before:?} {after:?}");
        for first in 0..=stream.len() {
            for second in 0..=stream.len() - first {
                properties::any_events(stream.as_bytes(), LIMIT, &[first, second], &[(before.len(), Event::TimeOut)]);
            }
        }
    }
    // A frame that is too long ends at its real end.
    let (found, notes) = with(Event::TimeOut, "<14>456789abcdefgh<14>two\n<14>next\n", 18);
    assert_eq!((found, notes.skipped.limit), (vec!["<14>456789abcdef~".to_owned(), "<14>next".to_owned()], 9));
}

/// Docker's formats, which are longer than the small limit of the other tests.
#[test]
fn a_long_frame_in_many_pieces() {
    let message = "<30>1 2026-11-20T22:27:31Z docker-host-1 app 1 app - ".to_owned() + &"é".repeat(8192) + "\n";
    let stream = format!("{message}{} {message}{message}", message.len());
    let line = message.trim_end();
    for piece in [1, 2, 7, 4096, 65536] {
        let pieces = stream.len() / piece;
        let outcome = properties::frames(stream.as_bytes(), 65536, std::iter::repeat_n(piece, pieces));
        let found: Vec<_> =
            outcome.found.iter().map(|(frame, cut, _)| (std::str::from_utf8(frame).unwrap(), *cut)).collect();
        assert_eq!(found, [(line, false), (&message, false), (line, false)]);
    }
}

#[test]
fn frames_inside_one_read_are_not_copied() {
    let stream = b"<13>one\n7 <13>two<13>a\n";
    let inside = stream.as_ptr_range();
    let mut framer = Framer::new(LIMIT);
    let mut frames = 0;
    framer.feed(stream, |frame| {
        frames += 1;
        assert!(inside.contains(&frame.bytes.as_ptr()));
    });
    assert_eq!(frames, 3);
}

/// Pieces as senders write them, so that counts, ends and limits occur often.
fn streams(pieces: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[0-9 \n<>ax\\x00\r]{0,6}".prop_map(String::into_bytes),
        (1..40usize).prop_map(|len| format!("{len} {}", "m".repeat(len)).into_bytes()),
        (1..40usize).prop_map(|len| format!("{} <13>{}", len + 4, "m".repeat(len)).into_bytes()),
        (1..40usize).prop_map(|len| format!("{len} <13>\n<13>forged\n").into_bytes()),
        (1..40usize).prop_map(|len| ("l".repeat(len) + "\n").into_bytes()),
        (1..40usize).prop_map(|len| format!("<13>{}\0", "n".repeat(len)).into_bytes()),
        prop::sample::select(vec![
            "<30>Nov 20 17:28:47 a/b/c[2]: \0<14>x\r\n",
            "0 <6>",
            "\u{feff}<13>",
            "<13>",
            "\0",
            "\r\n",
            "7 <13>abc",
            "7 <13>abcd",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..pieces).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cuts_do_not_matter(stream in streams(12), limit in 16..60usize, pieces in prop::collection::vec(0..12usize, 0..30)) {
        properties::any_cut(&stream, limit, &pieces);
    }

    #[test]
    fn nor_what_happens_between_them(
        stream in streams(12),
        limit in 16..60usize,
        pieces in prop::collection::vec(0..12usize, 0..30),
        events in prop::collection::vec((0..200usize, prop::sample::select(vec![Event::Pause, Event::TimeOut, Event::GiveUp])), 0..4),
    ) {
        let mut events = events;
        events.retain(|(place, _)| *place <= stream.len());
        events.sort_by_key(|(place, _)| *place);
        properties::any_events(&stream, limit, &pieces, &events);
    }

    #[test]
    fn neither_do_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::any_bytes(&data);
    }
}

proptest! {
    // Each case is thousands of cuts.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_two_cuts_matter(stream in streams(6)) {
        every_two_cuts(&stream);
    }
}
