//! Streams of hostile senders: each is refused by its name, at once and at no cost.

use super::super::properties::{End, any_cut, arrays};
use super::*;

const LIMIT: usize = 1 << 20;

#[track_caller]
fn refused(stream: &[u8], bad: BadFrame) {
    assert_eq!(arrays(stream, LIMIT, []), (vec![], End::Bad(bad)));
    (0..stream.len().min(100)).for_each(|cut| any_cut(stream, LIMIT, &[cut, 1]));
}

#[test]
fn what_is_declared_and_does_not_fit_is_refused_before_it_is_there() {
    refused(b"\x93\xa1t\x01\xdb\xff\xff\xff\xff", BadFrame::TooLarge);
    refused(b"\x93\xa1t\x01\xc6\xff\xff\xff\xffabc", BadFrame::TooLarge);
    refused(b"\x93\xa1t\x01\xc9\xff\xff\xff\xff\x00", BadFrame::TooLarge);
    refused(b"\x93\xa1t\x01\xdf\xff\xff\xff\xff", BadFrame::TooLarge);
    refused(b"\xdd\xff\xff\xff\xff", BadFrame::TooLarge);
    // The values that the outer arrays still lack count too.
    let half = (LIMIT as u32 / 2 + 1).to_be_bytes();
    refused(&[b"\xdd", &half[..], b"\xdb", &half[..]].concat(), BadFrame::TooLarge);
    let exact = (LIMIT as u32 - 6).to_be_bytes();
    let stream = [b"\x91\xdb", &exact[..], &vec![b'x'; LIMIT - 6]].concat();
    assert_eq!(arrays(&stream, LIMIT, [3, 7, 1000]), (vec![stream.clone()], End::Whole));
    assert_eq!(arrays(&stream, LIMIT - 1, []), (vec![], End::Bad(BadFrame::TooLarge)));
}

/// A head that lacks its last byte counts.
#[test]
fn a_head_that_is_cut_is_never_held_beyond_the_limit() {
    for stream in [&b"\xdd\x00\x00\x00"[..], b"\x92\x01\xdb\x00\x00", b"\x93\xa1t\xc6\x00\x00\x00"] {
        for limit in 1..=stream.len() {
            let each = vec![1; stream.len()];
            assert_eq!(
                arrays(stream, limit, each.clone()),
                (vec![], End::Bad(BadFrame::TooLarge)),
                "{stream:?}, {limit}"
            );
            any_cut(stream, limit, &each);
            any_cut(stream, limit, &[2]);
        }
    }
}

#[test]
fn what_is_declared_costs_no_memory() {
    let mut framer = Framer::new(1 << 30);
    let fed: Result<(), BadFrame> = framer.feed(b"\x93\xa1t\x01\xdb\x30\x00\x00\x00abc", |_| Ok(()));
    assert_eq!((fed, framer.held()), (Ok(()), 12));
    assert_eq!(framer.capacity(), 12);
}

#[test]
fn what_is_deep_is_refused() {
    let deep = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    assert_eq!(arrays(&deep(32), LIMIT, []), (vec![deep(32)], End::Whole));
    refused(&deep(33), BadFrame::TooDeep);
    refused(&vec![0x91; 100_000], BadFrame::TooDeep);
    refused(&[&[0x91][..], &b"\x81\xa1k".repeat(40)].concat(), BadFrame::TooDeep);
    // Within packed entries, where the framer does not look.
    let entry = array(&[b"\x01", &[b"\x81\xa1k", &deep(31)[..]].concat()]);
    assert_eq!(read(&array(&[b"\xa1t", &bin(&entry)])), Err(BadFrame::TooDeep));
}

#[test]
fn what_is_no_array_is_refused() {
    refused(b"{\"a\":1}", BadFrame::Json);
    refused(b"[\"tag\",1,{}]", BadFrame::Json);
    refused(b"<13>hello\n", BadFrame::NoArray);
    refused(b"\x16\x03\x01\x02\x00", BadFrame::NoArray);
    refused(b"\xc0\xc0\x80", BadFrame::NoArray);
    refused(b"\x92\xa1t\xc1", BadFrame::NoMsgpack);
    assert_eq!(arrays(b"\xc0\x92\xa1t", LIMIT, [1]), (vec![], End::Open));
}

#[test]
fn an_array_of_no_mode_is_refused() {
    for (bytes, bad) in [
        (&b"\x90"[..], BadFrame::Elements),
        (b"\x91\xa1t", BadFrame::Elements),
        (b"\x92\xa1t\x01", BadFrame::Elements),
        (b"\x95\xa1t\x01\x80\x80\x80", BadFrame::Elements),
        (b"\x94\xa1t\x90\x80\x80", BadFrame::Elements),
        (b"\x94\xa1t\xa0\x80\x80", BadFrame::Elements),
        (b"\x93\x07\x01\x80", BadFrame::Tag),
        (b"\x92\xa1t\xa2\x92\x01", BadFrame::Truncated),
        (b"\x92\xa1t\xa4\x92\x01\x81\xa1", BadFrame::Truncated),
        (b"\x92\xa1t\xa2\x92\xc1", BadFrame::NoMsgpack),
        (b"\x92\xa1t\xa3\x93\x01\xa2", BadFrame::Truncated),
        (b"\x93\xa1t\x90\x07", BadFrame::Option),
        (b"\x93\xa1t\x90\x81\xa5chunk\x07", BadFrame::Option),
        (b"\x93\xa1t\x90\x81\xadfluent_signal\x01", BadFrame::Signal),
        (b"\x93\xa1t\x90\x81\xadfluent_signal\xa10", BadFrame::Option),
        (b"\x93\xa1t\xa0\x81\xaacompressed\xa4zstd", BadFrame::Zstd),
        (b"\x93\xa1t\xa0\x81\xaacompressed\xa3lz4", BadFrame::Compression),
        (b"\x93\xa1t\xa0\x81\xaacompressed\xa4gzip", BadFrame::Gzip),
        (b"\x93\xa1t\xa3abc\x81\xaacompressed\xa4gzip", BadFrame::Gzip),
        (b"\x93\xa1t", BadFrame::Elements),
        (b"", BadFrame::NoArray),
        (b"\x80", BadFrame::NoArray),
        (b"\x92\xa1t\x90\xc0", BadFrame::NoArray),
    ] {
        assert_eq!(read(bytes), Err(bad), "{bytes:x?}");
        assert!(!bad.name().is_empty());
    }
}

#[test]
fn gzip_that_grows_or_is_damaged_is_refused() {
    let compressed = |bytes: &[u8]| array(&[b"\xa1t", &bin(bytes), b"\x81\xaacompressed\xa4gzip"]);
    let of = |inflated| Limits { inflated, ..LIMITS };
    let bomb = gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < LIMIT);
    let bomb = compressed(&bomb);
    let mut inflated = Vec::new();
    assert_eq!(Batch::read(&bomb, of(LIMIT), &mut inflated), Err(BadFrame::InflatedTooLarge));
    assert!(inflated.capacity() <= 3 * LIMIT, "{} bytes", inflated.capacity());
    let members = compressed(&gzip(&array(&[b"\x01", RECORD])).repeat(3));
    let size = 3 * array(&[b"\x01", RECORD]).len();
    assert!(Batch::read(&members, of(size), &mut Vec::new()).is_ok());
    assert_eq!(Batch::read(&members, of(size - 1), &mut Vec::new()), Err(BadFrame::InflatedTooLarge));

    let good = gzip(&array(&[b"\x01", RECORD]));
    for end in 0..good.len() {
        assert_eq!(read(&compressed(&good[..end])), Err(BadFrame::Gzip), "{end}");
    }
    let mut other = good.clone();
    let checksum = good.len() - 8;
    other[checksum] ^= 1;
    assert_eq!(read(&compressed(&other)), Err(BadFrame::Gzip));
    assert_eq!(read(&compressed(&[&good[..], b"rubbish that is no member"].concat())), Err(BadFrame::Gzip));
}

/// Its keys do not become fields, and are not even read.
#[test]
fn of_millions_of_keys_a_few_are_fields() {
    const MANY: u32 = 300_000;
    let pairs =
        |pair: &[u8]| [&b"\xdf"[..], &(MANY + 1).to_be_bytes(), b"\xa3log\xa1x", &pair.repeat(MANY as usize)].concat();
    let long = [&b"\xda\x40\x01"[..], &[b'k'; 0x4001], b"\x00"].concat();
    for (entry, kept) in [
        (pairs(b"\xa1k\x00"), 64),
        (pairs(b"\xa0\x93\x00\x00\x00"), 64),
        // Values that do not fit are read for a while, and then no more.
        ([&b"\xde\x00\x42\xa3log\xa1x"[..], &long.repeat(64), b"\xa1k\x00"].concat(), 0),
    ] {
        let array = array(&[b"\xa1t", b"\x01", &entry]);
        let (settings, mut inflated) = (Settings::default(), Vec::new());
        let batch = Batch::read(&array, LIMITS, &mut inflated).expect("a good array");
        let event = Event::new(batch.tag, batch.entries().flatten().next().expect("an entry"), usize::MAX);
        let record = event.to_record(&settings, RECEIVED);
        let count = event.entry().pairs().count() - 1;
        assert_eq!((record.message, record.fields.iter().count()), (Some(&b"x"[..]), kept));
        assert_eq!(record.fields.left_out() as usize, count - kept);
    }
}

#[test]
fn text_that_is_not_utf_8_is_taken_as_it_is() {
    let message = array(&[b"\xa2\xff\xfe", b"\x01", b"\x81\xa3log\xa3\x80\x00\xff"]);
    let read = read(&message).expect("a good array");
    assert_eq!((&read.tag[..], &read.texts[0][..]), (&b"\xff\xfe"[..], &b"\x80\x00\xff"[..]));
}
