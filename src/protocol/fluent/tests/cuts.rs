//! The output of a session does not depend on where the bytes are cut, nor on when the records are in the spool.

use std::time::Instant;

use proptest::prelude::*;

use crate::protocol::framing::properties::Event;
use crate::protocol::properties::{REFUSED, any_cut, any_cut_between};
use crate::protocol::syslog::Senders;

/// `[t, 1, {key: text, …}, {chunk}?]`
fn array(keys: &[(&str, &str)], chunk: Option<&str>) -> Vec<u8> {
    let text = |text: &str| [&[0xa0 | text.len() as u8], text.as_bytes()].concat();
    let head = [&[if chunk.is_some() { 0x94 } else { 0x93 }], &b"\xa1t\x01"[..], &[0x80 | keys.len() as u8]];
    let keys = keys.iter().flat_map(|(key, value)| [text(key), text(value)].concat());
    let option = chunk.map(|chunk| [&b"\x81\xa5chunk"[..], &text(chunk)].concat());
    head.concat().into_iter().chain(keys).chain(option.unwrap_or_default()).collect()
}

fn piece(id: &str, ordinal: &str, is_last: bool, text: &str, chunk: Option<&str>) -> Vec<u8> {
    let last = if is_last { "true" } else { "false" };
    let about = [("partial_message", "true"), ("partial_id", id), ("partial_ordinal", ordinal), ("partial_last", last)];
    array(&[&about[..], &[("log", text)]].concat(), chunk)
}

#[test]
fn no_two_cuts_matter() {
    assert_eq!(REFUSED, b'!');
    let said = [
        piece("a", "1", false, "x", None),
        vec![0xc0],
        array(&[("log", "y")], Some("c")),
        array(&[("log", "!")], Some("d")),
    ];
    let behind_bad = [&array(&[("log", "y")], Some("c"))[..], b"\x93\x07\x01\x80\xc0"].concat();
    for stream in [said.concat(), behind_bad] {
        for first in 0..=stream.len() {
            for second in 0..=stream.len() - first {
                any_cut(&stream, 100, &[first, second], Instant::now());
            }
        }
    }
}

/// Arrays of real senders, and streams that nearly are such.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![2 => Just(None), 1 => "[c-e]{1,3}".prop_map(Some)];
    let said = prop_oneof![
        4 => ("[ab!]{0,5}", chunk.clone()).prop_map(|(text, chunk)| array(&[("log", &text)], chunk.as_deref())),
        4 => ("[ab]", "[1-3]", any::<bool>(), "[ab!]{0,9}", chunk).prop_map(|(id, ordinal, is_last, text, chunk)| {
            piece(&id, &ordinal, is_last, &text, chunk.as_deref())
        }),
        1 => Just(b"\xc0\xc0".to_vec()),
        1 => Just(b"\x92\xa1t\x92\x92\x01\x80\x92\xc0\x81\xa3msg\xa1m".to_vec()),
        1 => Just(b"\x93\xa1t\x90\x81\xa5chunk\xa1f".to_vec()),
        1 => Just(b"\x93\xa1t\x93\x92\xc3\x80\x07\x92\xc0\x80\x81\xa5chunk\xa1g".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(said, 0..8).prop_map(|said| said.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_do_not_matter(
        stream in streams(),
        max_frame in 0..20usize,
        pieces in prop::collection::vec(0..40usize, 0..30),
        happens in prop::option::of((0..200usize, prop::sample::select(vec![Event::Pause, Event::TimeOut, Event::GiveUp]))),
    ) {
        let event = happens.filter(|(at, _)| *at <= stream.len());
        any_cut_between(&stream, max_frame, Senders::Anybody, &pieces, event, Instant::now());
    }
}
