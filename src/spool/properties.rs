//! Properties that hold for all bytes on a disk, as functions for property tests and fuzz targets.
//!
//! Random bytes hardly ever have a valid checksum, so the input is first turned into lines, marks and rubbish. The
//! author of the input cannot know the key, just as no sender knows a spool's key.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

use super::ledger::{Ledger, Mark, Replay};
use super::record::{Fault, Record};
use super::segment::{HEADER_LEN, Header};
use super::{Batch, Options, RECORD_HEADER, Spool, Sync, record, segment};
use crate::metrics::Metrics;

/// A part of a segment's file.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Line(&'a [u8]),
    Mark(&'a [u8]),
    Rubbish(&'a [u8]),
}

/// Parses the input: each part is a byte for its kind, a byte for its length, and its content.
fn parts(mut data: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    while let [kind, length, rest @ ..] = data {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        match kind % 4 {
            _ if content.is_empty() => {}
            0 | 1 => parts.push(Part::Line(content)),
            2 => parts.push(Part::Mark(content)),
            _ => parts.push(Part::Rubbish(content)),
        }
    }
    parts
}

/// A hash that is no CRC: an input could be solved so that its CRC equals that of a record.
fn key_for(data: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish() as u32
}

/// The parts as a segment has them, and the end of each.
fn written(parts: &[Part<'_>], key: u32) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Line(line) => {
                let mut batch = Batch::new();
                batch.push(|out| out.extend_from_slice(line));
                batch.seal(key);
                bytes.extend_from_slice(batch.as_bytes());
            }
            Part::Mark(payload) => record::push_mark(&mut bytes, key, |out| out.extend_from_slice(payload)),
            Part::Rubbish(rubbish) => bytes.extend_from_slice(rubbish),
        }
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Panics unless the whole records at the start are decoded, and the records behind damage are found, also if the file
/// ends early. The first two bytes say how many bytes are cut off.
pub fn any_records(data: &[u8]) {
    let [low, high, rest @ ..] = data else { return };
    let (parts, key) = (parts(rest), key_for(data));
    let (mut bytes, ends) = written(&parts, key);
    bytes.truncate(bytes.len().saturating_sub(usize::from(u16::from_le_bytes([*low, *high]))));
    let whole = ends.iter().take_while(|end| **end <= bytes.len()).count();
    let sound = parts[..whole].iter().position(|part| matches!(part, Part::Rubbish(_))).unwrap_or(whole);
    let good = sound.checked_sub(1).map_or(0, |last| ends[last]);

    let (batch, fault) = Batch::decode(bytes.clone(), u64::MAX, key);
    assert_eq!(batch.byte_len(), good);
    assert_eq!(lines(&batch), lines_of(&parts[..sound]));
    assert_eq!(batch.line_count(), batch.lines().count() as u64);
    match fault {
        None => assert_eq!(good, bytes.len()),
        Some(Fault::Short { needed }) => assert!(needed > bytes.len() - good),
        Some(Fault::Damaged) => assert!(good < bytes.len()),
    }
    if good < bytes.len() {
        let behind = &bytes[good..];
        let found = record::salvage(behind, key);
        let mut at = 0;
        let mut salvaged = Vec::new();
        for run in &found.runs {
            assert!(at < run.start && run.start < run.end && run.end <= behind.len());
            at = run.end;
            let (batch, fault) = Batch::decode(behind[run.clone()].to_vec(), u64::MAX, key);
            assert_eq!((batch.byte_len(), fault), (run.len(), None));
            salvaged.extend(lines(&batch));
        }
        assert!(found.gave_up || salvaged == lines_of(&parts[sound..whole]));
    }
}

fn lines(batch: &Batch) -> Vec<Vec<u8>> {
    batch.lines().map(<[u8]>::to_vec).collect()
}

fn lines_of(parts: &[Part<'_>]) -> Vec<Vec<u8>> {
    let line = |part: &Part<'_>| if let Part::Line(line) = part { Some(line.to_vec()) } else { None };
    parts.iter().filter_map(line).collect()
}

/// Panics unless a ledger that was read from any marks and lines survives a snapshot, within its limit.
pub fn any_ledger(data: &[u8]) {
    const SEGMENT_BYTES: u64 = 1 << 10;
    let key = key_for(data);
    let mut replay = Replay::new(Ledger::new(SEGMENT_BYTES));
    for part in parts(data) {
        match part {
            Part::Line(line) => replay.record(Record::Line(line)),
            // A few streams and sessions that recur, with any numbers.
            Part::Mark(&[stream, session, first, count]) => {
                let stream = ["", "a", "b", "spool/forward"][usize::from(stream % 4)];
                let first = u64::from(first).wrapping_sub(2);
                let mark = Mark { stream, session: session.into(), first, count: count.into() };
                let mut bytes = Vec::new();
                mark.write(&mut bytes, key);
                let (record, _) = record::record_at(&bytes, key).expect("a record");
                replay.record(record);
            }
            Part::Mark(payload) => replay.record(Record::Mark(payload)),
            Part::Rubbish(_) => replay.gap(),
        }
        assert!(replay.so_far().snapshot_len() <= SEGMENT_BYTES);
    }
    let snapshot = replay.end().snapshot(key);
    let mut again = Replay::new(Ledger::new(SEGMENT_BYTES));
    let (batch, fault) = Batch::decode(snapshot.clone(), u64::MAX, key);
    assert_eq!((batch.byte_len(), fault), (snapshot.len(), None));
    batch.records().for_each(|record| again.record(record));
    let again = again.end();
    assert_eq!((again.snapshot_len(), again.snapshot(key)), (snapshot.len() as u64, snapshot));
}

/// Panics unless a spool opens whatever its last segment holds. Lines come in order: all before the first rubbish, and
/// none that was not written. The books balance, and a second opening repeats nothing.
///
/// The first byte says whether the data replaces the header too, and whether there is an older segment.
pub fn any_segment(dir: &Path, data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let header = Header::new([7; 16], 3, 100, key_for(data));
    if how & 2 != 0 {
        let older = Header::new([7; 16], 2, 99, 5);
        let (bytes, _) = written(&[Part::Line(b"older")], older.key());
        drop(segment::create(dir, &older, &bytes).expect("a segment"));
    }
    let parts = parts(data);
    let is_forged = how & 1 != 0;
    if is_forged {
        fs::write(segment::path(dir, 3), data).expect("a segment");
    } else {
        let (bytes, _) = written(&parts, header.key());
        drop(segment::create(dir, &header, &bytes).expect("a segment"));
    }
    let sound = parts.iter().position(|part| matches!(part, Part::Rubbish(_))).unwrap_or(parts.len());
    let older = [b"older".to_vec()].into_iter().filter(|_| how & 2 != 0);
    let first: Vec<_> = older.clone().chain(lines_of(if is_forged { &[] } else { &parts[..sound] })).collect();
    let all: Vec<_> = older.chain(lines_of(if is_forged { &[] } else { &parts })).collect();

    let read = read_out(dir);
    assert!(read.starts_with(&first), "{read:?} and not first {first:?}");
    let mut rest = all.iter();
    assert!(read.iter().all(|line| rest.any(|written| written == line)), "{read:?} of {all:?}");
    assert_eq!(read.len(), all.len(), "what stands behind damage is read too");
    assert!(read_out(dir).is_empty(), "once");
}

/// Opens the spool, reads and retires all lines, and checks the books.
fn read_out(dir: &Path) -> Vec<Vec<u8>> {
    let options = Options { sync: Sync::Never, ..Options::new(dir, 1 << 20, vec!["a".to_owned()]) };
    let metrics = Metrics::new();
    let Spool { mut readers, .. } = Spool::open(options, &metrics).expect("a spool opens whatever it holds");
    let reader = &mut readers[0];
    let waiting = reader.unretired();
    let mut read = Vec::new();
    while let Some(chunk) = reader.next(usize::from(u16::MAX)).expect("it can be read") {
        assert!(chunk.start.line < chunk.end.line && chunk.start.offset >= HEADER_LEN);
        read.extend(chunk.lines().map(|(line, _)| line.to_vec()));
        reader.retire(chunk.end);
    }
    let books = metrics.forward("a");
    assert_eq!(books.delivered.get(), read.len() as u64);
    assert_eq!(books.delivered.get() + books.damaged.get() + reader.unretired(), waiting);
    assert_eq!((reader.unretired(), books.evicted.get()), (0, 0));
    assert!(read.iter().all(|line| !line.is_empty() && line.len() + RECORD_HEADER <= 1 << 20));
    read
}
