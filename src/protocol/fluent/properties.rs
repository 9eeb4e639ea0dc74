//! Properties that must hold for all bytes. As functions, they make a unit test, a property test and a fuzz target one line each.

use std::sync::Arc;

use super::handshake::{Handshake, Opening, SharedKey};
use super::{
    Answers, BadAnswer, BadFrame, Batch, ChunkName, Credentials, Event, Framer, Greeting, Items, Limits, Mode, Packer,
    TagTemplate, Value, acknowledged,
};
use crate::protocol::api::{LineId, with_own_names};
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::{Senders, Settings, is_id};
use crate::record::properties::{any_record, chosen_line};
use crate::record::{self, Container, LineOptions, Record, UnixMicros};

/// Limits on the entries of an array.
const LIMITS: Limits = Limits { inflated: 64 << 10, lines: 1 << 20 };

/// The longest message that is kept, in bytes.
const MESSAGE: usize = 1 << 10;

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    /// Inside an array.
    Open,
    Bad(BadFrame),
}

/// The arrays of a stream that is fed in pieces of the given lengths. The last piece is the rest.
pub fn arrays(stream: &[u8], limit: usize, pieces: impl IntoIterator<Item = usize>) -> (Vec<Vec<u8>>, End) {
    let mut framer = Framer::new(limit);
    let mut found = Vec::new();
    let mut rest = stream;
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        let fed = framer.feed(now, |array| {
            found.push(array.to_vec());
            Ok::<_, BadFrame>(())
        });
        if let Err(bad) = fed {
            return (found, End::Bad(bad));
        }
        rest = later;
        assert!(framer.held() <= limit, "{} bytes are held; the limit is {limit}", framer.held());
    }
    (found, if framer.unfinished() { End::Open } else { End::Whole })
}

/// Panics unless the arrays are the same wherever the stream is cut, and the same as those of a stateless reader.
pub fn any_cut(stream: &[u8], limit: usize, pieces: &[usize]) {
    let whole = arrays(stream, limit, []);
    assert_eq!(arrays(stream, limit, pieces.iter().copied()), whole, "cut after {pieces:?} of {}", stream.len());
    let (by_the_book, end) = by_the_book(stream, limit);
    let whole_end = match whole.1 {
        // `by_the_book` finds no end of such an array.
        End::Bad(BadFrame::TooLarge | BadFrame::TooDeep | BadFrame::NoMsgpack) => End::Open,
        end => end,
    };
    assert_eq!((whole.0, whole_end), (by_the_book, end));
}

/// Panics if the result of a handshake depends on where its bytes are cut, or if a sender without the key is accepted.
pub fn any_opening(stream: &[u8], pieces: &[usize]) {
    let answers = |pieces: &[usize]| {
        let secret = Arc::new(SharedKey::new("key".to_owned(), None));
        let mut opening = Opening::new(Handshake::new(secret, [7; 16], [8; 16]));
        let (mut answers, mut rest) = (Vec::new(), stream);
        opening.begin(None, &mut answers);
        for piece in pieces.iter().copied().chain([usize::MAX]) {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            match opening.feed(now, &mut answers) {
                Ok(None) => {}
                ended => return (ended.map(drop), answers),
            }
            rest = later;
        }
        (Ok(()), answers)
    };
    let whole = answers(&[]);
    assert!(!whole.1.windows(5).any(|five| five == b"PONG\xc3"), "who has not the key is let in");
    assert_eq!(answers(pieces), whole, "cut after {pieces:?} of {}", stream.len());
}

/// Any bytes as a stream. The bytes in front choose the limit and the cuts.
pub fn any_bytes(data: &[u8]) {
    let [limit, cuts, rest @ ..] = data else { return };
    let (cuts, stream) = rest.split_at(usize::from(cuts % 8).min(rest.len()));
    let cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut)).collect();
    let limit = usize::from(*limit) * 16;
    any_cut(stream, limit, &cuts);
    any_opening(stream, &cuts);
    arrays(stream, limit, []).0.iter().for_each(|array| any_array(array));
    any_array(stream);
    any_answers(stream, &cuts);
    any_lines(&stream.split(|byte| *byte == b'\n').collect::<Vec<_>>());
    any_lines(&[&chosen_line(stream, SD_ID), stream]);
}

/// Panics unless each entry of an array becomes a record whose line has the same contents.
pub fn any_array(array: &[u8]) {
    let mut inflated = Vec::new();
    let Ok(batch) = Batch::read(array, LIMITS, &mut inflated) else { return };
    let settings = Settings { hostname: "relay-1".to_owned(), ..Settings::default() };
    let options = LineOptions { sd_id: settings.sd_id.clone(), peer: true };
    for entry in batch.entries().flatten() {
        let event = Event::new(batch.tag, entry, MESSAGE);
        any_record(&event.to_record(&settings, UnixMicros(1_795_898_247_000_000)), &options);
        event.piece();
    }
}

/// Panics if the values that a receiver sends depend on where the stream is cut, or if a receiver without the key is trusted.
pub fn any_answers(stream: &[u8], pieces: &[usize]) {
    let heard = |pieces: &[usize]| {
        let (mut answers, mut heard, mut rest) = (Answers::default(), Vec::new(), stream);
        for piece in pieces.iter().copied().chain([usize::MAX]) {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            let fed = answers.feed(now, |value| {
                heard.push(value.to_vec());
                Ok::<_, BadAnswer>(())
            });
            if fed.is_err() {
                return (heard, false);
            }
            rest = later;
        }
        (heard, true)
    };
    let whole = heard(&[]);
    assert_eq!(heard(pieces), whole, "cut after {pieces:?} of {}", stream.len());
    let credentials = Credentials::new("key".to_owned(), Some(("user".to_owned(), "password".to_owned())));
    let (mut greeting, mut said) = (Greeting::new(credentials, [7; 16]), Vec::new());
    for value in whole.0 {
        acknowledged(&value);
        assert_ne!(greeting.hear(&value, &mut said), Ok(true), "who has not the key is believed");
    }
}

const SD_ID: &str = "docker@32473";

/// Panics unless our own reader reads these lines back from their chunks, and equal chunks have equal names.
pub fn any_lines(lines: &[&[u8]]) {
    let packer = |tag: &str| Packer::new(tag.parse().expect("a template"), SD_ID.to_owned(), "5b00/central".to_owned());
    let templates = [TagTemplate::default().to_string(), "fixed".to_owned(), "docker.{name}.{host}".to_owned()];
    for packer in templates.each_ref().map(|template| packer(template)) {
        let end = 100 + lines.len() as u64;
        let pack = |end: u64| {
            let mut out = Vec::new();
            let names = packer.pack(
                lines.iter().copied(),
                (LineId { session: 7, number: 100 }, LineId { session: 7, number: end }),
                &mut out,
            );
            (names, out)
        };
        let (names, sent) = pack(end);
        assert_eq!(pack(end).0, names);
        assert!(pack(end + 1).0.iter().all(|name| !names.contains(name)));
        let (found, ended) = arrays(&sent, usize::MAX, []);
        assert_eq!((found.len(), ended), (names.len(), End::Whole));
        let mut records: Vec<_> = lines.iter().map(|line| Record::from_line(line, SD_ID)).collect();
        for (array, name) in found.iter().zip(&names) {
            any_chunk(array, name, &mut records);
        }
        assert!(records.is_empty(), "{} lines are in no chunk", records.len());
    }
}

/// Removes the records in a chunk from `records`.
fn any_chunk(array: &[u8], name: &ChunkName, records: &mut Vec<Record<'_>>) {
    any_array(array);
    let limits = Limits { inflated: 0, lines: usize::MAX };
    let mut inflated = Vec::new();
    let batch = Batch::read(array, limits, &mut inflated).expect("a chunk");
    assert_eq!((batch.mode, batch.chunk), (Mode::PackedForward, Some(&name[..])));
    let entries: Vec<_> = batch.entries().map(|entry| entry.expect("an entry")).collect();
    let Some(Value::Map(mut options)) = Items::of_array(array).and_then(|items| items.last()) else { panic!("no map") };
    let size = Value::Int(entries.len() as i128);
    assert!(options.left() == 4 && options.any(|value| value == size) && !batch.tag.is_empty());
    let settings = Settings { hostname: "relay-1".to_owned(), ..Settings::default() };
    for entry in entries {
        let event = Event::new(batch.tag, entry, usize::MAX);
        let back = event.to_record(&settings, UnixMicros(1));
        let place = records.iter().position(|record| back.message == Some(record.text()) && says(&back, record));
        let place = place.unwrap_or_else(|| panic!("{back:?} is none of {records:?}"));
        records.remove(place);
    }
}

/// Whether an entry that was read back has the contents of the record that was packed, as far as Docker's driver has keys for them.
fn says(back: &Record<'_>, record: &Record<'_>) -> bool {
    let settings = Settings::default();
    let tag = back.tag.as_deref().unwrap_or_default();
    let Container { name: told_name, id: told_id, .. } = settings.tag_templates.split(tag, Senders::Anybody);
    let time = record.time().map(|time| (time, record.nanoseconds)).filter(|time| *time != (UnixMicros(0), 0));
    // EventTime cannot hold a stamp of another century; it is sent in whole seconds.
    let is_there = |(time, _): &(UnixMicros, u16)| u32::try_from(time.0.div_euclid(1_000_000)).is_ok();
    let is_time =
        time.filter(is_there).is_none_or(|time| Some(time) == back.time().map(|time| (time, back.nanoseconds)));
    let name = record.container_name().filter(|name| !name.is_empty() && !name.starts_with(b"/"));
    // The tag has priority over the key.
    let is_name = told_name.is_some() || name.is_none() || name == back.container_name();
    let id = record.container_id().filter(|id| is_id(id) && id.starts_with(told_id.as_deref().unwrap_or_default()));
    let is_id = id.is_none() || id == back.container_id();
    let source = record.source.is_none() || record.source == back.source;
    is_time && is_name && is_id && source && has_fields(back, record)
}

/// Whether all fields are present, each under a name of its own.
fn has_fields(back: &Record<'_>, record: &Record<'_>) -> bool {
    if back.fields.left_out() > 0 {
        return true;
    }
    let more = ["container_name", "container_id", "source", "image_name", "host", "facility", "severity", "app_name"];
    let more = [&more[..], &["proc_id", "msg_id", "peer", "structured_data", "log"]].concat();
    // Excludes our own keys, and fields that were renamed because their names equal these keys.
    let is_plain = |name: &str| !more.contains(&name.trim_end_matches('_'));
    let value = |value: &record::Value<'_>| match value {
        record::Value::Text(text) => Ok(text.to_vec()),
        record::Value::Json(json) => Err(serde_json::from_str::<serde_json::Value>(json.as_str()).expect("JSON")),
    };
    let named = with_own_names(&record.fields, |name| name.into(), |_| false);
    let named = named.iter().filter(|(name, _)| is_plain(name)).map(|(name, of)| (&**name, value(of)));
    let found =
        back.fields.iter().filter(|field| is_plain(&field.name)).map(|field| (&*field.name, value(&field.value)));
    named.eq(found)
}

/// The arrays of a stream, and how it ends. All bytes are present, so that no state is needed.
fn by_the_book(mut stream: &[u8], limit: usize) -> (Vec<Vec<u8>>, End) {
    let mut found = Vec::new();
    loop {
        match stream {
            [] => return (found, End::Whole),
            [0xc0, rest @ ..] => stream = rest,
            [0x90..=0x9f | 0xdc | 0xdd, ..] => match length(stream, 0) {
                Some(len) if len <= limit => {
                    found.push(stream[..len].to_vec());
                    stream = &stream[len..];
                }
                _ => return (found, End::Open),
            },
            [b'{' | b'[', ..] => return (found, End::Bad(BadFrame::Json)),
            _ => return (found, End::Bad(BadFrame::NoArray)),
        }
    }
}

/// The length of the value at the start of some bytes, by the table in the specification. `None`: the value is incomplete, or nested too
/// deep.
fn length(bytes: &[u8], depth: usize) -> Option<usize> {
    let big_endian = |from: usize, len: usize| {
        let bytes = bytes.get(from..from + len)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let first = *bytes.first()?;
    let (head, text, items) = match first {
        0x80..=0x8f => (1, 0, 2 * usize::from(first & 15)),
        0x90..=0x9f => (1, 0, usize::from(first & 15)),
        0xa0..=0xbf => (1, usize::from(first & 31), 0),
        0xc1 => return None,
        0xc4 | 0xd9 => (2, big_endian(1, 1)?, 0),
        0xc5 | 0xda => (3, big_endian(1, 2)?, 0),
        0xc6 | 0xdb => (5, big_endian(1, 4)?, 0),
        0xc7 => (3, big_endian(1, 1)?, 0),
        0xc8 => (4, big_endian(1, 2)?, 0),
        0xc9 => (6, big_endian(1, 4)?, 0),
        0xcc | 0xd0 => (2, 0, 0),
        0xcd | 0xd1 => (3, 0, 0),
        0xca | 0xce | 0xd2 => (5, 0, 0),
        0xcb | 0xcf | 0xd3 => (9, 0, 0),
        0xd4..=0xd8 => (2, 1 << (first - 0xd4), 0),
        0xdc => (3, 0, big_endian(1, 2)?),
        0xdd => (5, 0, big_endian(1, 4)?),
        0xde => (3, 0, 2 * big_endian(1, 2)?),
        0xdf => (5, 0, 2 * big_endian(1, 4)?),
        _ => (1, 0, 0),
    };
    if items > 0 && depth == 32 {
        return None;
    }
    let mut end = head + text;
    for _ in 0..items {
        end += length(bytes.get(end..)?, depth + 1)?;
    }
    (end <= bytes.len()).then_some(end)
}
