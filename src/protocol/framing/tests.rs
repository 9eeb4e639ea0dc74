//! Framing: what is a frame, and that cutting the stream does not change it.

use proptest::prelude::*;

use super::{Framer, properties};

const LIMIT: usize = 16;

/// One line per feature: the stream, the frames found in it (`~` marks a cut one), and what its clean end adds.
fn check(stream: &str, expected: &[&str], at_end: &[&str]) {
    let show = |frames: Vec<properties::Frame>| {
        let show = |(frame, cut): properties::Frame| String::from_utf8(frame).unwrap() + if cut { "~" } else { "" };
        frames.into_iter().map(show).collect::<Vec<_>>()
    };
    let (found, unfinished, last) = properties::frames(stream.as_bytes(), LIMIT, []);
    assert_eq!(show(found), expected, "{stream:?}");
    assert_eq!(show(last), at_end, "at the end of {stream:?}");
    assert!(unfinished || at_end.is_empty(), "{stream:?}");
    every_two_cuts(stream.as_bytes());
}

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
    check("a\rb\0c\r\n\r\n \n", &["a\rb\0c\r", "\r", " "], &[]);
    check("<13>one\n<13>tail", &["<13>one"], &["<13>tail"]);
}

#[test]
fn octet_counts() {
    check("7 <13>one7 <13>two", &["<13>one", "<13>two"], &[]);
    check("8 <13>one\n8 <13>two\n", &["<13>one\n", "<13>two\n"], &[]);
    check("7 <13>one\n\n7 <13>two\n", &["<13>one", "<13>two"], &[]);
    check("3 a\nb3 \n\n\n1 x", &["a\nb", "\n\n\n", "x"], &[]);
    check("7 <13>", &[], &["<13>~"]);
    check("7 ", &[], &[]);
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
    check("12\n34", &["12"], &["34"]);
    check("1234567890 a\n", &["1234567890 a"], &[]);
    check("123456789", &[], &["123456789"]);
    check("999999999 ab", &[], &["ab~"]);
    check("12\t3\n", &["12\t3"], &[]);
}

#[test]
fn oversized_frames() {
    check("0123456789abcdef\nx\n", &["0123456789abcdef", "x"], &[]);
    check("0123456789abcdefg\nx\n", &["0123456789abcdef~", "x"], &[]);
    check("0123456789abcdefg", &["0123456789abcdef~"], &[]);
    check("16 0123456789abcdefx\n", &["0123456789abcdef", "x"], &[]);
    check("17 0123456789abcdefgx\n", &["0123456789abcdef~", "x"], &[]);
    check("20 0123456789abcdef", &["0123456789abcdef~"], &[]);
}

/// What a forger would try: a frame inside the part of an oversized frame that is skipped.
#[test]
fn nothing_is_forged_out_of_an_oversized_frame() {
    let forged = "x".repeat(20) + "\n<13>forged\n9 <13>forged";
    let counted = format!("{} {forged}", forged.len());
    check(&(counted.clone() + "<13>next\n"), &["xxxxxxxxxxxxxxxx~", "<13>next"], &[]);
    check(
        &format!("<13>a\n{counted}5 <13>b{counted}\n<13>c\n"),
        &["<13>a", "xxxxxxxxxxxxxxxx~", "<13>b", "xxxxxxxxxxxxxxxx~", "<13>c"],
        &[],
    );
    check("xxxxxxxxxxxxxxxxxxxx 9 <13>forged\n<13>next\n", &["xxxxxxxxxxxxxxxx~", "<13>next"], &[]);
}

/// Wherever the wait for a frame's end is given up: the frame comes once, cut, its rest is skipped, and the next is whole.
#[test]
fn a_frame_that_is_not_waited_for() {
    for (stream, expected) in [
        ("7 <13>one", vec!["<13>one"]),
        ("<13>one\n", vec!["<13>one"]),
        ("<13>a\n11 <13>\nforged7 <13>two", vec!["<13>a", "<13>\nforged", "<13>two"]),
    ] {
        for at in 0..=stream.len() {
            let mut framer = Framer::new(LIMIT);
            let mut found = Vec::new();
            let mut keep = |frame: &[u8], cut| found.push((String::from_utf8(frame.to_vec()).unwrap(), cut));
            framer.feed(&stream.as_bytes()[..at], &mut keep);
            framer.cut(&mut keep);
            assert_eq!(framer.held(), 0, "{stream:?} at {at}");
            framer.feed(&stream.as_bytes()[at..], &mut keep);
            assert!(!framer.unfinished(), "{stream:?} at {at}");
            assert_eq!(found.len(), expected.len(), "{stream:?} at {at}: {found:?}");
            for ((frame, cut), whole) in found.iter().zip(&expected) {
                assert!(whole.starts_with(frame.as_str()) && (*cut || frame == whole), "{frame} of {whole}");
            }
        }
    }
}

/// Docker's own shapes, longer than the toy limit allows.
#[test]
fn a_long_frame_in_many_pieces() {
    let message = "<30>1 2026-11-20T22:27:31Z docker-host-1 app 1 app - ".to_owned() + &"é".repeat(8192) + "\n";
    let stream = format!("{message}{} {message}{message}", message.len());
    let line = message.trim_end();
    for piece in [1, 2, 7, 4096, 65536] {
        let pieces = stream.len() / piece;
        let (found, _, _) = properties::frames(stream.as_bytes(), 65536, std::iter::repeat_n(piece, pieces));
        let found: Vec<_> = found.iter().map(|(frame, cut)| (std::str::from_utf8(frame).unwrap(), *cut)).collect();
        assert_eq!(found, [(line, false), (&message, false), (line, false)]);
    }
}

#[test]
fn frames_inside_one_read_are_not_copied() {
    let stream = b"<13>one\n7 <13>two12a\n";
    let inside = stream.as_ptr_range();
    let mut framer = Framer::new(LIMIT);
    let mut frames = 0;
    framer.feed(stream, |frame, _| {
        frames += 1;
        assert!(inside.contains(&frame.as_ptr()));
    });
    assert_eq!(frames, 3);
}

/// Pieces of what senders send, so that counts, ends and limits are met often.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[0-9 \n<>ax]{0,6}".prop_map(String::into_bytes),
        (1..40usize).prop_map(|len| format!("{len} {}", "m".repeat(len)).into_bytes()),
        (1..40usize).prop_map(|len| format!("{len} \n<13>forged\n").into_bytes()),
        (1..40usize).prop_map(|len| ("l".repeat(len) + "\n").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cuts_do_not_matter(stream in streams(), limit in 16..40usize, pieces in prop::collection::vec(0..12usize, 0..30)) {
        properties::any_cut(&stream, limit, &pieces);
    }

    #[test]
    fn neither_do_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
        properties::any_bytes(&data);
    }
}

proptest! {
    // Each of them is thousands of cuts.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_two_cuts_matter(stream in streams()) {
        every_two_cuts(&stream);
    }
}
