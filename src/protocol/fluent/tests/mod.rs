//! `corpus`: recordings of real senders. `hostile`: streams of hostile senders. `session`, `pieces`: a connection, written with
//! `conversation`; `cuts`: any cuts of its bytes. `packed`: lines that are sent.
//! Here: arrays that the corpus lacks and senders may send.

mod conversation;
mod corpus;
mod cuts;
mod handshake;
mod hostile;
mod packed;
mod pieces;
mod session;

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::properties::any_array;
use super::*;
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::Settings;
use crate::record::{Record, Source, UnixMicros, stamp_text};

const RECEIVED: UnixMicros = UnixMicros(1_795_898_247_500_000);

const LIMITS: Limits = Limits { inflated: 1 << 20, lines: 1 << 20 };

/// `{"log": "hi"}`
const RECORD: &[u8] = b"\x81\xa3log\xa2hi";

fn array(parts: &[&[u8]]) -> Vec<u8> {
    [&[0x90 | parts.len() as u8][..], &parts.concat()].concat()
}

/// A str of up to 255 bytes.
fn str_(text: &str) -> Vec<u8> {
    [&[0xd9, u8::try_from(text.len()).expect("short")][..], text.as_bytes()].concat()
}

/// A bin of any length.
fn bin(bytes: &[u8]) -> Vec<u8> {
    [&[0xc6][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

#[derive(Debug, PartialEq)]
struct Read {
    tag: Vec<u8>,
    mode: Mode,
    chunk: Option<Vec<u8>>,
    bad: Vec<BadEntry>,
    times: Vec<Option<Time>>,
    /// The value of the first key of each.
    texts: Vec<Vec<u8>>,
}

fn read(array: &[u8]) -> Result<Read, BadFrame> {
    any_array(array);
    let mut inflated = Vec::new();
    let batch = Batch::read(array, LIMITS, &mut inflated)?;
    let first = |entry: Entry<'_>| entry.pairs().next().and_then(|(_, value)| value.text()).unwrap_or(b"none").to_vec();
    Ok(Read {
        tag: batch.tag.to_vec(),
        mode: batch.mode,
        chunk: batch.chunk.map(<[u8]>::to_vec),
        bad: batch.entries().filter_map(Result::err).collect(),
        times: batch.entries().flatten().map(|entry| entry.time).collect(),
        texts: batch.entries().flatten().map(first).collect(),
    })
}

/// The record of `[tag, nil, entry]`.
fn with_record<T>(tag: &[u8], entry: &[u8], check: impl Fn(&Record<'_>) -> T) -> T {
    let array = array(&[&bin(tag), b"\xc0", entry]);
    any_array(&array);
    let (settings, mut inflated) = (Settings::default(), Vec::new());
    let batch = Batch::read(&array, LIMITS, &mut inflated).expect("a good array");
    let entry = batch.entries().flatten().next().expect("an entry");
    check(&Event::new(batch.tag, entry, usize::MAX).to_record(&settings, RECEIVED))
}

#[test]
fn every_mode_is_read() {
    let (one, two) = (array(&[b"\x01", RECORD]), array(&[b"\x02", RECORD]));
    let entries = [&one[..], &two].concat();
    let members = [gzip(&one), gzip(b""), gzip(&two)].concat();
    let str32 = [&[0xdb][..], &bin(&entries)[1..]].concat();
    let gzip_option = b"\x82\xaacompressed\xa4gzip\xa5chunk\xc4\x03a\n\xff";
    for (rest, mode) in [
        (vec![&array(&[&one, &two])[..]], Mode::Forward),
        (vec![&array(&[&one, &two]), b"\xc0"], Mode::Forward),
        (vec![&bin(&entries)], Mode::PackedForward),
        (vec![&str32, b"\x82\xaacompressed\xa4text\xa4size\x07"], Mode::PackedForward),
        (vec![&bin(&members), gzip_option], Mode::CompressedPackedForward),
        (vec![b"\x01", RECORD], Mode::Message),
        (vec![b"\x01", RECORD, b"\x81\xa1x\x90"], Mode::Message),
    ] {
        let read = read(&array(&[&[&b"\xa1t"[..]], &rest[..]].concat())).expect("a good array");
        let time = |seconds| Some(Time { seconds, nanoseconds: None });
        let count = if mode == Mode::Message { 1 } else { 2 };
        let times = [time(1), time(2)][..count].to_vec();
        let chunk = (mode == Mode::CompressedPackedForward).then(|| b"a\n\xff".to_vec());
        assert_eq!(read, Read { tag: b"t".into(), mode, chunk, bad: vec![], times, texts: vec![b"hi".into(); count] });
    }
    assert_eq!(read(b"\x92\xa1t\x90").map(|read| (read.mode, read.times.len())), Ok((Mode::Forward, 0)));
    assert_eq!(read(b"\x92\xa1t\xa0").map(|read| (read.mode, read.times.len())), Ok((Mode::PackedForward, 0)));
}

#[test]
fn every_shape_of_time_is_read() {
    let whole = |seconds| Some(Time { seconds, nanoseconds: None });
    let exact = |seconds, nanoseconds| Some(Time { seconds, nanoseconds: Some(nanoseconds) });
    let good: [(&[u8], _); 18] = [
        (b"\xc0", None),
        (b"\x00", None),
        (b"\xd7\x00\0\0\0\0\0\0\0\0", None),
        (b"\x7f", whole(127)),
        (b"\xff", whole(-1)),
        (b"\xcc\xff", whole(255)),
        (b"\xcd\xff\xff", whole(65_535)),
        (b"\xce\xff\xff\xff\xff", whole(4_294_967_295)),
        (b"\xcf\0\0\0\x01\0\0\0\0", whole(4_294_967_296)),
        (b"\xd0\x80", whole(-128)),
        (b"\xd1\x80\0", whole(-32_768)),
        (b"\xd2\x6b\x0b\x3b\x81", whole(1_795_898_241)),
        (b"\xd3\0\0\0\x01\0\0\0\0", whole(4_294_967_296)),
        (b"\xca\x3f\xc0\0\0", exact(1, 500_000_000)),
        (b"\xcb\xbf\xf8\0\0\0\0\0\0", exact(-2, 500_000_000)),
        (b"\xd7\x00\0\0\0\x05\0\0\0\x07", exact(5, 7)),
        // Nanoseconds of more than a second.
        (b"\xc7\x08\x00\0\0\0\x05\x77\x35\x94\x07", exact(7, 7)),
        (b"\x92\xd7\x00\0\0\0\x05\0\0\0\x07\x81\xa1a\xa1b", exact(5, 7)),
    ];
    for (time, expected) in good {
        let message = array(&[b"\xa1t", time, RECORD]);
        assert_eq!(read(&message).map(|read| read.times), Ok(vec![expected]), "{time:x?}");
        let forward = array(&[b"\xa1t", &array(&[&array(&[time, RECORD])])]);
        assert_eq!(read(&forward).map(|read| read.times), Ok(vec![expected]), "{time:x?}");
    }
    let bad: [&[u8]; 6] = [
        b"\xc3",
        b"\xcf\xff\0\0\0\0\0\0\0",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xd7\x01\0\0\0\0\0\0\0\0",
        b"\xd6\x00\0\0\0\0",
        b"\x80",
    ];
    for time in bad {
        assert_eq!(passed_over(&array(&[b"\xa1t", time, RECORD])), ([BadEntry::Time].into(), 0), "{time:x?}");
    }
    let nested = array(&[b"\xa1t", &array(&[&array(&[b"\x92\x90\xc0", RECORD])])]);
    assert_eq!(passed_over(&nested), ([BadEntry::Time].into(), 0));
}

/// The bad entries of an array, and the number of its good ones.
#[track_caller]
fn passed_over(array: &[u8]) -> (Vec<BadEntry>, usize) {
    let read = read(array).expect("an array whose entries can be told apart");
    (read.bad, read.times.len())
}

/// A bad entry at any place, in each mode.
#[test]
fn a_bad_entry_costs_only_itself() {
    let good = array(&[b"\x01", RECORD]);
    for (entry, bad) in [
        (array(&[b"\xc3", RECORD]), BadEntry::Time),
        (array(&[b"\x01", b"\x07"]), BadEntry::Record),
        (array(&[b"\xc3", b"\x90"]), BadEntry::Record),
        (array(&[b"\x01"]), BadEntry::Entry),
        (array(&[b"\x01", RECORD, RECORD]), BadEntry::Entry),
        (array(&[]), BadEntry::Entry),
        (RECORD.to_vec(), BadEntry::Entry),
        (bin(b"text"), BadEntry::Entry),
        (b"\xc0".to_vec(), BadEntry::Entry),
        // Entries inside a bad entry are skipped with it.
        (array(&[&good, &good, &good]), BadEntry::Entry),
    ] {
        for entries in [[&entry, &good, &good], [&good, &entry, &good], [&good, &good, &entry]] {
            let packed = entries.map(Vec::as_slice).concat();
            let list = array(&entries.map(Vec::as_slice));
            for said in [
                array(&[b"\xa1t", &list]),
                array(&[b"\xa1t", &list, b"\x80"]),
                array(&[b"\xa1t", &bin(&packed)]),
                array(&[b"\xa1t", &bin(&gzip(&packed)), b"\x81\xaacompressed\xa4gzip"]),
            ] {
                assert_eq!(passed_over(&said), (vec![bad], 2), "{}", said.escape_ascii());
            }
        }
        let alone = array(&[b"\xa1t", &array(&[&entry])]);
        assert_eq!(passed_over(&alone), (vec![bad], 0));
    }
    assert_eq!(passed_over(&array(&[b"\xa1t", b"\x01", b"\x90"])), (vec![BadEntry::Record], 0));
    assert_eq!(passed_over(&array(&[b"\xa1t", b"\x01", b"\xc0"])), (vec![BadEntry::Record], 0));
}

#[test]
fn an_answer_has_the_chunk_as_it_was_sent() {
    for (len, head) in [
        (0, &b"\xa0"[..]),
        (31, b"\xbf"),
        (32, b"\xd9\x20"),
        (255, b"\xd9\xff"),
        (256, b"\xda\x01\x00"),
        (65_536, b"\xdb\x00\x01\x00\x00"),
    ] {
        let chunk = vec![b'\n'; len];
        let mut answer = b"before".to_vec();
        append_ack(&chunk, &mut answer);
        assert_eq!(answer, [b"before\x81\xa3ack", head, &chunk].concat());
    }
}

#[test]
fn labels_cannot_forge_what_the_tag_says() {
    let id = "2a9052a5c36e".to_owned() + &"0".repeat(52);
    let other = "f".repeat(64);
    let entry = |id: &str, name: &str| {
        let pair = |key: &str, value: &str| [bin(key.as_bytes()), bin(value.as_bytes())].concat();
        [
            &[0x84][..],
            &pair("container_id", id),
            &pair("container_name", name),
            &pair("source", "stderr"),
            &pair("log", "x"),
        ]
        .concat()
    };
    let check = |tag: &str, id: &str, name: &str, expected: [&str; 3]| {
        with_record(tag.as_bytes(), &entry(id, name), |record| {
            let text = |text: Option<&[u8]>| String::from_utf8_lossy(text.unwrap_or(b"-")).into_owned();
            let fields: Vec<_> = record.fields.iter().map(|field| &*field.name).collect();
            let found = [text(record.container_id()), text(record.container_name()), fields.join(" ")];
            assert_eq!(found, expected, "{tag}");
            assert_eq!((record.severity, record.facility, record.source), (3, 3, Some(Source::Stderr)));
            assert_eq!(record.message, Some(&b"x"[..]));
        });
    };
    check("2a9052a5c36e", &id, "/web", [&id, "web", ""]);
    check("nginx:1/web/2a9052a5c36e", &id, "/web", [&id, "web", ""]);
    check("nginx:1/web/2a9052a5c36e", &other, "/forged", ["2a9052a5c36e", "web", "container_id container_name"]);
    check("nginx:1/web/2a9052a5c36e", "no id", "", ["2a9052a5c36e", "web", "container_id container_name"]);
    check("docker.web", &other, "/web", [&other, "web", ""]);
    check("docker.web", "no id", "/", ["-", "-", "container_id container_name"]);
}

#[test]
fn of_a_record_without_log_the_message_is_what_others_call_so() {
    let fields = |record: &Record<'_>| {
        let fields: Vec<_> = record.fields.iter().map(|field| format!("{}={:?}", field.name, field.value)).collect();
        (record.message.map(|message| String::from_utf8_lossy(message).into_owned()), fields.len(), fields.join(" "))
    };
    let check = |entry: &[u8], expected: (Option<&str>, usize)| {
        let (message, count, shown) = with_record(b"app.web", entry, fields);
        assert_eq!((message.as_deref(), count), expected, "{shown}");
    };
    check(b"\x82\xa3msg\xa1a\xa7message\xa1b", (Some("b"), 1));
    check(b"\x82\xa7message\xa1b\xa3msg\xa1a", (Some("b"), 1));
    check(b"\x82\xa3log\x07\xa3msg\xa1a", (Some("a"), 1));
    check(b"\x82\xa3log\xa1a\xa3log\xa1b", (Some("a"), 1));
    check(b"\x80", (None, 0));
    check(b"\x81\xa1x\xa1y", (None, 1));
    check(b"\x81\xa3log\xa0", (Some(""), 0));
}

#[test]
fn values_are_fields_with_their_types() {
    let check = |value: &[u8], expected: &str| {
        let shown = with_record(b"t", &[b"\x81\xa1k", value].concat(), |record| {
            record.fields.iter().map(|field| format!("{:?}", field.value)).collect::<String>()
        });
        assert!(shown.contains(expected), "{shown}, not {expected}");
    };
    check(b"\xc0", "null");
    check(b"\xc3", "true");
    check(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615");
    check(b"\xcb\x3f\xf8\0\0\0\0\0\0", "1.5");
    check(b"\xcb\x7f\xf8\0\0\0\0\0\0", "Text([78, 97, 78])");
    check(b"\xc4\x01\xff", "Text([255])");
    check(b"\xd4\x05\x61", "Text([97])");
    check(b"\x93\x80\x90\x82\x01\xa1\"\xc0\xa1\xff", r#"[{},[],{\"1\":\"\\\"\",\"null\":\"\\\\xff\"}]"#);
    let names = with_record(b"t", b"\x83\x01\xa1a\xa1\xff\xa1b\xa2\xc3\xa9\xa1c", |record| {
        record.fields.iter().map(|field| field.name.to_string()).collect::<Vec<_>>()
    });
    assert_eq!(names, ["1", "\\xff", "é"]);
    let left_out = with_record(b"t", &[b"\x82\xa1k\xdc\x41\x00", &[1; 0x4100][..], b"\xa1x\xa1y"].concat(), |record| {
        (record.fields.iter().count(), record.fields.left_out())
    });
    assert_eq!(left_out, (1, 1));
}

#[test]
fn a_year_that_no_stamp_has_is_kept() {
    let array = array(&[b"\xa1t", b"\xcf\0\0\x01\0\0\0\0\0", RECORD]);
    any_array(&array);
    let (settings, mut inflated) = (Settings::default(), Vec::new());
    let batch = Batch::read(&array, LIMITS, &mut inflated).expect("a good array");
    let event = Event::new(batch.tag, batch.entries().flatten().next().expect("an entry"), usize::MAX);
    let record = event.to_record(&settings, RECEIVED);
    assert_eq!(record.unread_stamp.as_deref(), Some(&b"1099511627776"[..]));
    assert_eq!(record.timestamp.as_ref().map(stamp_text).as_deref(), Some("2026-11-28T20:37:27.500000Z"));
}
