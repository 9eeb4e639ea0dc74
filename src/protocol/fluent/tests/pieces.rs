//! Pieces of one message, as Docker's driver sends them: each in an array of its own, or all in one.

use std::time::{Duration, Instant};

use super::conversation::{Talk, event, forward, message, partial, text_of};
use super::*;
use crate::protocol::session::{Closed, Session};

/// The texts of the messages, with `…` behind each that its record marks as a piece.
fn told(talk: &Talk) -> Vec<String> {
    talk.messages().into_iter().map(|(text, is_piece)| text + if is_piece { "…" } else { "" }).collect()
}

/// Pieces as (id, source, ordinal, is last, text), each in an array of its own.
fn said(talk: &mut Talk, pieces: &[(&str, &str, u32, bool, &str)]) {
    for (id, source, ordinal, is_last, text) in pieces {
        talk.hears(&message("t", &partial(id, source, *ordinal, *is_last, text.as_bytes()), None));
    }
}

#[test]
fn what_was_cut_is_whole_again() {
    let mut talk = Talk::new();
    said(
        &mut talk,
        &[
            ("a", "stdout", 1, false, "one "),
            ("a", "stdout", 2, false, "two "),
            ("a", "stdout", 3, true, "three"),
            // A line whose last piece is empty: a line of exactly 16,384 bytes has one.
            ("b", "stdout", 1, false, "four"),
            ("b", "stdout", 2, true, ""),
        ],
    );
    talk.hears(&message("t", &event(&[("log", b"next")]), None));
    assert_eq!(told(&talk), ["one two three", "four", "next"]);
    assert_eq!(talk.session.memory(), 0);
    // All pieces of a message in one array, as a forwarder of Docker's messages sends them.
    let pieces = [partial("c", "stdout", 1, false, b"five "), partial("c", "stdout", 2, true, b"six")];
    talk.hears(&forward("t", &pieces, None));
    assert_eq!(told(&talk)[3..], ["five six"]);
}

/// The keys about pieces are removed; the time and the other keys are the first piece's.
#[test]
fn of_a_whole_message_nothing_is_said_of_pieces() {
    let mut talk = Talk::new();
    let label = |piece: Vec<u8>, value: &str| {
        [&[0x80 | (piece[0] + 1)][..], &piece[1..], &str_("label"), &str_(value)].concat()
    };
    let first = label(partial("a", "stdout", 1, false, b"1"), "first");
    let last = label(partial("a", "stdout", 2, true, b"2"), "last");
    talk.hears(&message("t", &first, None));
    talk.hears(&message("t", &last, None));
    let [line] = talk.lines() else { panic!("{:?}", talk.lines()) };
    assert!(line.contains(" label=\"first\"]") && line.ends_with(" 12"), "{line}");
    assert!(!line.contains("partial_"), "{line}");
}

#[test]
fn streams_and_containers_are_told_apart() {
    let mut talk = Talk::new();
    said(
        &mut talk,
        &[
            ("a", "stdout", 1, false, "out "),
            ("b", "stderr", 1, false, "err "),
            // The same id on another stream is another message.
            ("a", "stderr", 1, false, "other "),
            ("b", "stderr", 2, true, "done"),
            ("a", "stdout", 2, true, "done"),
            ("a", "stderr", 2, true, "done"),
        ],
    );
    assert_eq!(told(&talk), ["err done", "out done", "other done"]);
    let of = |container: &str, piece: Vec<u8>| {
        [&[0x80 | (piece[0] + 1)][..], &piece[1..], &str_("container_id"), &str_(container)].concat()
    };
    for (container, ordinal, is_last, text) in [("1", 1, false, "x"), ("2", 1, false, "y"), ("1", 2, true, "x")] {
        talk.hears(&message("t", &of(container, partial("c", "stdout", ordinal, is_last, text.as_bytes())), None));
    }
    assert_eq!(told(&talk)[3..], ["xx"]);
}

/// A message that lacks a piece, or is incomplete, is marked as its first piece is.
#[test]
fn what_is_not_whole_is_marked() {
    let check = |pieces: &[(&str, &str, u32, bool, &str)], expected: &[&str]| {
        let mut talk = Talk::new();
        said(&mut talk, pieces);
        talk.session.closed(Closed::Clean, &mut talk.heard);
        assert_eq!(told(&talk), expected, "{pieces:?}");
        assert_eq!(talk.session.memory(), 0);
    };
    // A piece is missing: in the middle, at the start, all but the last.
    check(
        &[("a", "o", 1, false, "1"), ("a", "o", 2, false, "2"), ("a", "o", 4, false, "4"), ("a", "o", 5, true, "5")],
        &["12…", "45…"],
    );
    check(&[("a", "o", 1, false, "1"), ("a", "o", 3, true, "3")], &["1…", "3…"]);
    check(&[("a", "o", 2, false, "2"), ("a", "o", 3, true, "3")], &["23…"]);
    check(&[("a", "o", 7, true, "7")], &["7…"]);
    // The message begins anew.
    check(&[("a", "o", 1, false, "1"), ("a", "o", 1, false, "1"), ("a", "o", 2, true, "2")], &["1…", "12"]);
    check(&[("a", "o", u32::MAX, false, "x"), ("a", "o", 0, true, "y")], &["x…", "y…"]);
    // An entry without a valid ordinal is not a piece: it is passed on unchanged.
    let mut talk = Talk::new();
    let entry = event(&[("partial_id", b"a"), ("partial_ordinal", b"one"), ("partial_last", b"false"), ("log", b"x")]);
    talk.hears(&message("t", &entry, None));
    assert_eq!(told(&talk), ["x…"]);
}

#[test]
fn a_message_is_made_no_longer_than_it_may_be() {
    let mut talk = Talk::with_max_frame(10);
    said(
        &mut talk,
        &[
            ("a", "o", 1, false, "12345"),
            ("a", "o", 2, false, "67890"),
            // Up to the longest message, and one byte more.
            ("a", "o", 3, true, "x"),
            ("b", "o", 1, false, "12345"),
            ("b", "o", 2, true, "67890"),
        ],
    );
    assert_eq!(told(&talk), ["1234567890…", "x…", "1234567890"]);
    assert_eq!(talk.cut(), 0);
    // A single piece that is too long is cut.
    said(&mut talk, &[("c", "o", 1, false, "123456789012"), ("c", "o", 2, true, "3")]);
    assert_eq!(told(&talk)[3..], ["1234567890…", "3…"]);
    assert_eq!(talk.cut(), 1);
}

/// A hostile sender that begins many messages ends its own first ones.
#[test]
fn so_many_wait_and_no_more() {
    const MAX: usize = 64;
    let mut talk = Talk::new();
    let ids: Vec<String> = (0..MAX + 3).map(|number| number.to_string()).collect();
    for id in &ids {
        said(&mut talk, &[(id, "o", 1, false, id)]);
    }
    assert_eq!(told(&talk), ["0…", "1…", "2…"]);
    let memory = talk.session.memory();
    assert!((MAX * 100..MAX * 1000).contains(&memory), "{memory}");
    talk.session.give_up(&mut talk.heard).expect("nothing else is held");
    assert_eq!((told(&talk).len(), talk.session.memory()), (MAX + 3, 0));
    assert!(told(&talk).iter().all(|text| text.ends_with('…')), "more of them may come");
}

/// A container prints no LF at its end, or waits for an answer to its output: no more pieces come.
#[test]
fn the_end_of_a_line_without_lf_is_not_waited_for_without_end() {
    let mut talk = Talk::new();
    let start = talk.now;
    let after = |seconds| start + Duration::from_secs(seconds);
    said(&mut talk, &[("a", "stdout", 1, false, "first$ ")]);
    talk.now = after(2);
    said(&mut talk, &[("b", "stderr", 1, false, "second"), ("b", "stderr", 2, false, " prompt$ ")]);
    assert_eq!(talk.session.timer(after(4), &mut talk.heard), Ok(Some(after(5))));
    assert_eq!(told(&talk), [""; 0]);
    assert_eq!(talk.session.timer(after(5), &mut talk.heard), Ok(Some(after(7))));
    assert_eq!(told(&talk), ["first$ "]);
    assert_eq!(talk.session.timer(after(8), &mut talk.heard), Ok(None));
    assert_eq!(told(&talk), ["first$ ", "second prompt$ "]);
    // The wait begins anew with each piece. A piece that comes too late stays a piece.
    said(&mut talk, &[("a", "stdout", 2, true, "late")]);
    assert_eq!(told(&talk)[2..], ["late…"]);
    said(&mut talk, &[("c", "stdout", 1, false, "x")]);
    talk.session.closed(Closed::Clean, &mut talk.heard);
    assert_eq!(told(&talk)[3..], ["x"], "a container that has ended prints nothing more");
}

/// The rest goes to another relay, or comes by another connection.
#[test]
fn what_breaks_off_is_marked() {
    for how in [Closed::Broken, Closed::Stopped] {
        let mut talk = Talk::new();
        said(&mut talk, &[("a", "stdout", 1, false, "begun")]);
        talk.session.closed(how, &mut talk.heard);
        assert_eq!(told(&talk), ["begun…"], "{how:?}");
    }
}

/// An answer is a promise for a complete array, and the sender sends nothing more before it.
#[test]
fn what_is_answered_waits_for_no_other_array() {
    let mut talk = Talk::new();
    talk.hears(&message("t", &partial("a", "stdout", 1, false, b"one"), Some(b"chunk-1")));
    talk.hears(&message("t", &partial("a", "stdout", 2, true, b"two"), Some(b"chunk-2")));
    // A sender that has asked once is made to wait, whatever it sends.
    talk.hears(&message("t", &partial("b", "stdout", 1, false, b"three"), None));
    assert_eq!(told(&talk), ["one…", "two…", "three…"]);
    assert_eq!((talk.heard.tickets.len(), talk.heard.without_ticket()), (3, 0));
    // Pieces in one array are joined.
    let pieces = [partial("c", "o", 1, false, b"four "), partial("c", "o", 2, true, b"five")];
    talk.hears(&forward("t", &pieces, Some(b"chunk-3")));
    assert_eq!(told(&talk)[3..], ["four five"]);
    assert_eq!(talk.session.timer(Instant::now(), &mut talk.heard), Ok(None));
}

#[test]
fn pieces_of_any_bytes_come_back() {
    let texts: [&[u8]; 4] = [b"\xe2\x82", b"\xac \0\n", b"", b"\xff\""];
    let mut talk = Talk::new();
    for (ordinal, text) in (1..).zip(texts) {
        talk.hears(&message("t", &partial("a", "stdout", ordinal, ordinal == 4, text), None));
    }
    assert_eq!(talk.heard.messages, [(texts.concat(), false)]);
    assert_eq!(text_of(&talk.heard.messages[0].0), "\\xe2\\x82\\xac \\x00\\n\\xff\\\"");
}
