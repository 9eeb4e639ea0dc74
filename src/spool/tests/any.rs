//! Properties that hold for all bytes on the disk; `properties` has them as functions.

use proptest::prelude::*;

use crate::spool::properties;

/// Likely parts, and arbitrary bytes.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let part = (0u8..4, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(kind, content)| [&[kind, content.len() as u8], &content[..]].concat());
    let mark = prop::array::uniform4(0u8..6).prop_map(|fields| [&[2, 4], &fields[..]].concat());
    let piece = prop_oneof![4 => part, 2 => mark, 1 => prop::collection::vec(any::<u8>(), 0..8)];
    let choices = prop::array::uniform2(0u8..8);
    (choices, prop::collection::vec(piece, 0..12))
        .prop_map(|(choices, pieces)| [&choices, &pieces.concat()[..]].concat())
}

proptest! {
    #[test]
    fn records(data in data()) {
        properties::any_records(&data);
    }

    #[test]
    fn ledgers(data in data()) {
        properties::any_ledger(&data[2..]);
    }

    #[test]
    fn segments(data in data()) {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        properties::any_segment(dir.path(), &data[1..]);
    }
}
