//! The record: how a line lies in a segment and in a [`Batch`]. Pure: bytes in, bytes out; no file, no clock, no async.
//!
//! ```text
//! ┌──────────────┬───────────────────────────────────────┬─────────────┐
//! │ length u32   │ key xor CRC-32C u32 of length ‖ payload │ payload     │    little endian, nothing between records
//! └──────────────┴───────────────────────────────────────┴─────────────┘
//! ```
//!
//! The checksum covers the length too: a run of zeros, which is what a power cut leaves at the end of a file, is not a
//! record. It is mixed with a key that is each segment's own and that no sender knows: neither a record hidden in the text
//! of a line, nor a block of a file that is gone, passes for a record when damage is searched for what is still good.
//!
//! The top bit of the length makes a record a mark: something about the lines behind it, which readers pass over. A batch
//! is a run of records, so it goes to the disk with one write and comes back as what it was.

use std::ops::Range;
use std::sync::Arc;

/// Bytes before each payload.
pub const RECORD_HEADER: usize = 8;

/// The longest line in bytes. Listeners have a far lower limit; this one only says which lengths read back from a disk
/// are believed, and so how much memory a damaged length can make us ask for.
pub const MAX_LINE: usize = 1 << 20;

/// Many lines in one buffer, each already a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whole, valid records and nothing else.
    bytes: Vec<u8>,
    /// How many of the records are lines.
    lines: u64,
    /// What the checksums are mixed with; 0 until it is written.
    key: u32,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `bytes` bytes, [`RECORD_HEADER`] per line included.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Makes room for `bytes` more bytes, [`RECORD_HEADER`] per line included.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Adds the line that `fill` appends, and hands back what `fill` returned. `fill` may only append; if it appends
    /// nothing, no line is added, and what is beyond [`MAX_LINE`] is cut.
    pub fn push<R>(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let start = self.bytes.len();
        let payload = start + RECORD_HEADER;
        self.bytes.extend_from_slice(&[0; RECORD_HEADER]);
        let result = fill(&mut self.bytes);
        debug_assert!(self.bytes.len() >= payload, "fill may only append");
        self.bytes.truncate(payload + MAX_LINE);
        if self.bytes.len() <= payload {
            self.bytes.truncate(start);
            return result;
        }
        let length = (self.bytes.len() - payload) as u32;
        write_header(&mut self.bytes[start..], length, self.key);
        self.lines += 1;
        result
    }

    /// The lines in order. No checksum is computed: a batch holds only what was pushed or has been checked.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines_and_ends().map(|(line, _)| line)
    }

    /// Each line with the offset behind its record.
    pub(super) fn lines_and_ends(&self) -> impl Iterator<Item = (&[u8], usize)> {
        lines_and_ends(&self.bytes)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.records_and_ends().map(|(record, _)| record)
    }

    fn records_and_ends(&self) -> impl Iterator<Item = (Record<'_>, usize)> {
        records_and_ends(&self.bytes)
    }

    /// The records behind the first `lines` lines.
    pub(super) fn behind(&self, lines: u64) -> &[u8] {
        let skipped = usize::try_from(lines).ok().and_then(|lines| lines.checked_sub(1));
        let start = skipped.map_or(0, |last| self.lines_and_ends().nth(last).map_or(self.bytes.len(), |(_, end)| end));
        &self.bytes[start..]
    }

    /// Mixes the checksums with the key of the segment the batch goes to.
    pub(super) fn seal(&mut self, key: u32) {
        let change = std::mem::replace(&mut self.key, key) ^ key;
        let mut rest = self.bytes.as_mut_slice();
        while change != 0
            && let Some((header, behind)) = rest.split_at_mut_checked(RECORD_HEADER)
        {
            let (length, _) = length_of(header);
            header[4..].iter_mut().zip(change.to_le_bytes()).for_each(|(byte, change)| *byte ^= change);
            rest = behind.get_mut(length..).unwrap_or_default();
        }
    }

    pub fn line_count(&self) -> u64 {
        self.lines
    }

    /// Bytes on the disk, record headers included.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
    }

    /// The records as they go to the disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory held; what a bounded queue has to count.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives memory back when most of it is unused: a queue of one-line batches must not hold a full buffer for each.
    pub(super) fn shrink(&mut self) {
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
    }

    /// The longest run of valid records at the start of `bytes`, at most `max_lines` lines of them, and what ended it.
    pub(super) fn decode(mut bytes: Vec<u8>, max_lines: u64, key: u32) -> (Self, Option<Fault>) {
        let (mut good, mut lines, mut fault) = (0, 0, None);
        while good < bytes.len() && lines < max_lines {
            match record_at(&bytes[good..], key) {
                Ok((record, length)) => {
                    good += length;
                    lines += u64::from(matches!(record, Record::Line(_)));
                }
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
        }
        bytes.truncate(good);
        (Self { bytes, lines, key }, fault)
    }
}

/// Records of a batch that others may be looking at too, in one piece.
#[derive(Clone, Debug)]
pub struct Run {
    batch: Arc<Batch>,
    /// Whole records.
    bytes: Range<usize>,
    lines: u64,
}

impl Run {
    /// All of a batch.
    pub(super) fn whole(batch: Batch) -> Self {
        Self { bytes: 0..batch.byte_len(), lines: batch.line_count(), batch: Arc::new(batch) }
    }

    /// The records from offset `start` on, about `max_bytes` of them but at least one.
    pub(super) fn part(batch: &Arc<Batch>, start: usize, max_bytes: usize) -> Self {
        let mut run = Self { batch: batch.clone(), bytes: start..start, lines: 0 };
        for (record, end) in records_and_ends(&batch.bytes[start..]) {
            if run.lines > 0 && end > max_bytes {
                break;
            }
            run.bytes.end = start + end;
            run.lines += u64::from(matches!(record, Record::Line(_)));
        }
        run
    }

    /// The lines in order.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines_and_ends().map(|(line, _)| line)
    }

    /// Each line with the offset behind its record, counted from the run's first one.
    pub(super) fn lines_and_ends(&self) -> impl Iterator<Item = (&[u8], usize)> {
        lines_and_ends(&self.batch.bytes[self.bytes.clone()])
    }

    pub fn line_count(&self) -> u64 {
        self.lines
    }

    /// Bytes on the disk, record headers included.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Each record of `bytes`, which hold nothing else, with the offset behind it. No checksum is computed.
fn records_and_ends(bytes: &[u8]) -> impl Iterator<Item = (Record<'_>, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (header, rest) = bytes[at..].split_at_checked(RECORD_HEADER)?;
        let (length, is_mark) = length_of(header);
        let payload = rest.get(..length)?;
        at += RECORD_HEADER + length;
        Some((if is_mark { Record::Mark(payload) } else { Record::Line(payload) }, at))
    })
}

fn lines_and_ends(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
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

/// Completes a record that so far has room for its header and a payload.
#[inline(always)]
fn write_header(record: &mut [u8], length: u32, key: u32) {
    // The checksum covers the length too. Where it will stand, the length stands right before the payload: one pass
    // instead of two, a quarter of what a short line costs.
    record[4..RECORD_HEADER].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&record[4..]) ^ key;
    record[..4].copy_from_slice(&length.to_le_bytes());
    record[4..RECORD_HEADER].copy_from_slice(&checksum.to_le_bytes());
}

/// Why there is no record where one was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end before the record does, which needs `needed` bytes in all as far as is known.
    Short { needed: usize },
    /// These bytes never were a record, or are no longer the one they were.
    Damaged,
}

/// The record that `bytes` start with, and its length on the disk; more may follow it.
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

/// What is still good behind damage at the start of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Salvage {
    /// Runs of whole records, in order; something is missing before each.
    pub runs: Vec<Range<usize>>,
    /// There may be more.
    pub gave_up: bool,
}

/// Looks for records behind damage at the start of `bytes`. None tells a write that never finished from damage with lines
/// behind it.
///
/// A stranger chooses the payloads, and could choose them so that every offset looks like a length: the checksums
/// computed are limited to [`SEARCH_BUDGET`] bytes.
pub(super) fn salvage(bytes: &[u8], key: u32) -> Salvage {
    let mut found = Salvage::default();
    let (mut at, mut budget) = (0, SEARCH_BUDGET);
    while at < bytes.len() {
        // A damaged length may lead over good records to another one: it is believed only when looking got too dear.
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

/// The first offset from `from` on at which a record lies; none when the budget is used up.
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

/// Reads the length field of a record header of at least four bytes: bytes of payload, and whether it is a mark.
fn length_of(header: &[u8]) -> (usize, bool) {
    let field = header.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    ((field & !MARK) as usize, field & MARK != 0)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// The bit of the length field that makes a record a mark; [`MAX_LINE`] leaves it free.
const MARK: u32 = 1 << 31;

/// 64 MiB of CRC-32C take some 10 ms: an opening is allowed that much.
const SEARCH_BUDGET: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(lines: &[Vec<u8>]) -> Batch {
        let mut batch = Batch::new();
        for line in lines {
            batch.push(|out| out.extend_from_slice(line));
        }
        batch
    }

    fn collect(batch: &Batch) -> Vec<Vec<u8>> {
        batch.lines().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn the_format_is_pinned() {
        let batch = batch(&[b"hi".to_vec()]);
        let mut expected = vec![2, 0, 0, 0];
        expected.extend(crc32c::crc32c(b"\x02\0\0\0hi").to_le_bytes());
        expected.extend(b"hi");
        assert_eq!(batch.as_bytes(), expected);
    }

    #[test]
    fn a_fill_that_appends_nothing_adds_no_line() {
        let mut batch = Batch::new();
        assert_eq!(batch.push(|_| 7), 7);
        assert!(batch.is_empty() && batch.byte_len() == 0);
        batch.push(|out| out.push(b'x'));
        batch.clear();
        assert!(batch.is_empty() && batch.lines().next().is_none());
    }

    #[test]
    fn a_line_beyond_the_limit_is_cut() {
        let batch = batch(&[vec![b'x'; MAX_LINE + 1], b"next".to_vec()]);
        let lines = collect(&batch);
        assert_eq!((lines[0].len(), lines[1].as_slice()), (MAX_LINE, b"next".as_slice()));
    }

    #[test]
    fn zeros_are_no_record() {
        let (batch, fault) = Batch::decode(vec![0; 4096], u64::MAX, 0);
        assert_eq!((batch.line_count(), fault), (0, Some(Fault::Damaged)));
        assert_eq!(salvage(&[0; 4096], 0), Salvage::default());
    }

    #[test]
    fn records_behind_rubbish_are_found() {
        let records = batch(&[b"one".to_vec(), b"two".to_vec()]).as_bytes().to_vec();
        let bytes = [b"rubbish", &records[..], b"more rubbish", &records[..11], &[0; 20]].concat();
        let runs = vec![7..29, 41..52];
        assert_eq!(salvage(&bytes, 0), Salvage { runs, gave_up: false });
        assert_eq!(salvage(&bytes[..17], 0), Salvage::default());
        assert_eq!(salvage(&bytes, 1), Salvage::default(), "of another key");
    }

    #[test]
    fn a_record_hidden_in_the_text_of_a_line_stays_hidden() {
        let hidden = batch(&[b"forged".to_vec()]).as_bytes().to_vec();
        let mut outer = batch(&[[b"text ", &hidden[..], b" text"].concat(), b"next".to_vec()]);
        outer.seal(77);
        let whole = outer.as_bytes().to_vec();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (_, fault) = Batch::decode(bytes.clone(), u64::MAX, 77);
            assert!(fault.is_some(), "bit {bit}");
            assert!(salvage(&bytes, 77).runs.iter().all(|run| run.len() == 12), "bit {bit}");
        }
    }

    #[test]
    fn searching_hostile_bytes_has_a_limit() {
        // Every offset reads as a length near 64 KiB: without the budget this is 2^21 checksums of 64 KiB.
        assert!(salvage(&[0, 0, 1, 0].repeat(1 << 19), 0).gave_up);
    }

    #[test]
    fn a_mark_is_no_line() {
        let mut batch = batch(&[b"one".to_vec(), b"two".to_vec()]);
        batch.seal(77);
        let mut bytes = Vec::new();
        push_mark(&mut bytes, 77, |payload| payload.extend_from_slice(b"mark"));
        let mark = bytes.len();
        bytes.extend_from_slice(batch.behind(0));
        push_mark(&mut bytes, 77, |payload| payload.extend_from_slice(b"mark"));
        bytes.extend_from_slice(batch.behind(1));
        let (marked, fault) = Batch::decode(bytes.clone(), u64::MAX, 77);
        assert_eq!((marked.line_count(), marked.byte_len(), fault), (3, bytes.len(), None));
        let ends: Vec<usize> = marked.lines_and_ends().map(|(_, end)| end).collect();
        assert_eq!(ends, [mark + 11, mark + 22, bytes.len()]);
        assert_eq!(collect(&marked), [b"one", b"two", b"two"]);
        assert_eq!(batch.behind(2), b"");
    }

    #[test]
    fn a_record_of_another_key_is_none() {
        let mut sealed = batch(&[b"one".to_vec(), b"two".to_vec()]);
        let plain = sealed.clone();
        sealed.seal(1 << 20);
        assert_eq!(Batch::decode(sealed.as_bytes().to_vec(), u64::MAX, 0).1, Some(Fault::Damaged));
        assert_eq!(Batch::decode(sealed.as_bytes().to_vec(), u64::MAX, 1 << 20), (sealed.clone(), None));
        sealed.seal(5);
        sealed.push(|out| out.push(b'x'));
        assert_eq!(Batch::decode(sealed.as_bytes().to_vec(), u64::MAX, 5).0.line_count(), 3);
        let mut again = batch(&[b"one".to_vec(), b"two".to_vec()]);
        again.seal(5);
        again.seal(0);
        assert_eq!(again, plain);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20)) {
            let batch = batch(&lines);
            prop_assert_eq!(collect(&batch), lines.clone());
            let (again, fault) = Batch::decode(batch.as_bytes().to_vec(), u64::MAX, 0);
            prop_assert_eq!((&again, fault), (&batch, None));
            prop_assert_eq!(again.line_count(), lines.len() as u64);
        }

        #[test]
        fn a_cut_gives_a_prefix(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = batch(&lines);
            let cut = cut.index(whole.byte_len());
            let (part, _) = Batch::decode(whole.as_bytes()[..cut].to_vec(), u64::MAX, 0);
            let part = collect(&part);
            prop_assert_eq!(&part[..], &lines[..part.len()]);
            prop_assert!(part.len() < lines.len());
        }

        #[test]
        fn a_flipped_bit_ends_the_run_at_its_record(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..8),
            at in any::<prop::sample::Index>(),
            bit in 0u32..8,
        ) {
            let whole = batch(&lines);
            let mut bytes = whole.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let (mut end, mut before) = (0, 0);
            for line in &lines {
                end += RECORD_HEADER + line.len();
                if end > at {
                    break;
                }
                before += 1;
            }
            let (part, fault) = Batch::decode(bytes, u64::MAX, 0);
            prop_assert_eq!(collect(&part), lines[..before].to_vec());
            prop_assert!(fault.is_some());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (batch, _) = Batch::decode(bytes.clone(), u64::MAX, 0);
            prop_assert_eq!(batch.lines().count() as u64, batch.line_count());
            prop_assert!(salvage(&bytes, 0).runs.iter().all(|run| run.end <= bytes.len()));
        }
    }
}
