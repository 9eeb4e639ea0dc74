//! The record: the encoding of a line in a segment and in a [`Batch`](super::batch::Batch). Pure: bytes in, bytes out;
//! no file, no clock, no async.
//!
//! ```text
//! ┌──────────────┬───────────────────────────────────────┬─────────────┐
//! │ length u32   │ key xor CRC-32C u32 of length ‖ payload │ payload     │    little endian, nothing between records
//! └──────────────┴───────────────────────────────────────┴─────────────┘
//! ```
//!
//! The checksum covers the length too, so a run of zeros, which a power cut leaves at the end of a file, is not a
//! record. The checksum is XORed with a key that each segment has for itself and no sender knows. So a search for
//! records behind damage finds neither a record hidden in the text of a line, nor one in a block of a deleted file.
//!
//! The top bit of the length makes a record a mark: a note about the lines behind it, which readers skip. A batch is a
//! run of records, so it goes to the disk with one write and is decoded unchanged.

use std::ops::Range;

/// Bytes before each payload.
pub const RECORD_HEADER: usize = 8;

/// The longest line, in bytes. Listeners have a far lower limit. This one decides which lengths from a disk are
/// plausible, and so how much memory a damaged length can make the relay allocate.
pub const MAX_LINE: usize = 1 << 20;

/// Each record of `bytes`, with the offset behind it. `bytes` must be valid records: no checksum is computed.
pub(super) fn records_and_ends(bytes: &[u8]) -> impl Iterator<Item = (Record<'_>, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (header, rest) = bytes[at..].split_at_checked(RECORD_HEADER)?;
        let (length, is_mark) = length_of(header);
        let payload = rest.get(..length)?;
        at += RECORD_HEADER + length;
        Some((if is_mark { Record::Mark(payload) } else { Record::Line(payload) }, at))
    })
}

pub(super) fn lines_and_ends(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    records_and_ends(bytes).filter_map(|(record, end)| match record {
        Record::Line(line) => Some((line, end)),
        Record::Mark(_) => None,
    })
}

/// A record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Line(&'a [u8]),
    /// See `ledger`.
    Mark(&'a [u8]),
}

/// Appends a mark with the payload that `fill` appends.
pub(super) fn push_mark(out: &mut Vec<u8>, key: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let payload = start + RECORD_HEADER;
    out.resize(payload, 0);
    fill(out);
    let length = (out.len() - payload) as u32 | MARK;
    write_header(&mut out[start..], length, key);
}

/// Writes the header of a record that has room for it and a payload.
#[inline(always)]
pub(super) fn write_header(record: &mut [u8], length: u32, key: u32) {
    // The checksum covers the length too. The length is first written right before the payload, where the checksum will
    // be: this takes one CRC pass instead of two, and saves a quarter of the cost of a short line.
    record[4..RECORD_HEADER].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&record[4..]) ^ key;
    record[..4].copy_from_slice(&length.to_le_bytes());
    record[4..RECORD_HEADER].copy_from_slice(&checksum.to_le_bytes());
}

/// Why the bytes at an offset are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end inside the record, which needs at least `needed` bytes.
    Short { needed: usize },
    /// The bytes never were a record, or have changed.
    Damaged,
}

/// The record at the start of `bytes`, and its length on the disk. More bytes may follow.
pub(super) fn record_at(bytes: &[u8], key: u32) -> Result<(Record<'_>, usize), Fault> {
    let (header, rest) = bytes.split_at_checked(RECORD_HEADER).ok_or(Fault::Short { needed: RECORD_HEADER })?;
    let (length, is_mark) = length_of(header);
    if length == 0 || length > MAX_LINE {
        return Err(Fault::Damaged);
    }
    let payload = rest.get(..length).ok_or(Fault::Short { needed: RECORD_HEADER + length })?;
    let [a, b, c, d, e, f, g, h] = *header else { return Err(Fault::Damaged) };
    if checksum([a, b, c, d], payload) ^ key != u32::from_le_bytes([e, f, g, h]) {
        return Err(Fault::Damaged);
    }
    let record = if is_mark { Record::Mark(payload) } else { Record::Line(payload) };
    Ok((record, RECORD_HEADER + length))
}

/// The valid records behind damage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Salvage {
    /// Runs of whole records, in order. Lines are missing before each run.
    pub runs: Vec<Range<usize>>,
    /// There may be more.
    pub gave_up: bool,
}

/// Searches for records behind damage at the start of `bytes`. If there are none, the caller takes the damage for an
/// unfinished write.
///
/// A sender chooses the payloads, and could make every offset look like a length. So the search computes checksums of
/// at most [`SEARCH_BUDGET`] bytes.
pub(super) fn salvage(bytes: &[u8], key: u32) -> Salvage {
    let mut found = Salvage::default();
    let (mut at, mut budget) = (0, SEARCH_BUDGET);
    while at < bytes.len() {
        // A damaged length may skip valid records and point at another one. So it is used only if the search found
        // nothing within its budget.
        let start = search(bytes, at + 1, key, &mut budget).or_else(|| {
            let behind = at + RECORD_HEADER + length_of(&bytes[at..]).0;
            bytes.get(behind..).is_some_and(|rest| record_at(rest, key).is_ok()).then_some(behind)
        });
        let Some(start) = start else { break };
        let mut end = start;
        while let Ok((_, length)) = record_at(&bytes[end..], key) {
            end += length;
        }
        found.runs.push(start..end);
        at = end;
    }
    found.gave_up = budget == 0;
    found
}

/// The first offset from `from` on at which there is a record. `None`: there is none, or the budget is used up.
fn search(bytes: &[u8], from: usize, key: u32, budget: &mut usize) -> Option<usize> {
    for start in from..bytes.len().saturating_sub(RECORD_HEADER) {
        let rest = &bytes[start..];
        let (length, _) = length_of(rest);
        if length == 0 || length > MAX_LINE || rest.len() < RECORD_HEADER + length {
            continue;
        }
        if record_at(rest, key).is_ok() {
            return Some(start);
        }
        if *budget == 0 {
            return None;
        }
        *budget = budget.saturating_sub(length);
    }
    None
}

/// Reads the length field of a record header of at least four bytes. Returns the length of the payload, and whether the
/// record is a mark.
pub(super) fn length_of(header: &[u8]) -> (usize, bool) {
    let field = header.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    ((field & !MARK) as usize, field & MARK != 0)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// The bit of the length field that makes a record a mark; [`MAX_LINE`] leaves it free.
const MARK: u32 = 1 << 31;

/// The search budget. The CRC-32C of 64 MiB takes some 10 ms, which an opening may take.
const SEARCH_BUDGET: usize = 64 << 20;
