//! A batch: many lines in one buffer, each encoded as a record. A batch goes to the disk with one write, and decoding
//! returns the same lines. A run is a part of a batch. Pure: no file, no clock, no async.

use std::ops::Range;
use std::sync::Arc;

use super::record::{
    Fault, MAX_LINE, RECORD_HEADER, Record, length_of, lines_and_ends, record_at, records_and_ends, write_header,
};

/// Many lines in one buffer, each already a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whole, valid records and nothing else.
    bytes: Vec<u8>,
    /// How many of the records are lines.
    lines: u64,
    /// The key that is XORed into the checksums; 0 until the batch is sealed.
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

    /// Adds the line that `fill` appends, and returns the result of `fill`. `fill` may only append. If it appends
    /// nothing, no line is added. Bytes beyond [`MAX_LINE`] are cut.
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

    /// The lines in order. No checksum is computed: a batch holds only lines that were pushed or that `decode` has
    /// checked.
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

    /// XORs the checksums with the key of the segment that the batch goes to.
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

    /// Adds the lines of another batch at the end.
    pub(super) fn append(&mut self, mut other: Self) {
        other.seal(self.key);
        self.bytes.append(&mut other.bytes);
        self.lines += other.lines;
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

    /// The memory held, in bytes. A bounded queue must count this, and not the length.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Frees memory when more than half of it is unused. Otherwise a queue of one-line batches would hold a full buffer
    /// for each.
    pub(super) fn shrink(&mut self) {
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
    }

    /// The longest run of valid records at the start of `bytes`, with at most `max_lines` lines, and the fault that
    /// ended it.
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

/// A contiguous part of a batch. Several readers may share the batch.
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

    /// The records from offset `start` on: about `max_bytes`, but at least one line if there is any.
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

    /// Splits off about `max_bytes`, but at least one line. Returns the rest as well, if it has lines.
    pub(super) fn split(self, max_bytes: usize) -> (Self, Option<Self>) {
        if self.byte_len() <= max_bytes {
            return (self, None);
        }
        let first = Self::part(&self.batch, self.bytes.start, max_bytes);
        if first.lines >= self.lines {
            return (self, None);
        }
        let rest = Self { bytes: first.bytes.end..self.bytes.end, lines: self.lines - first.lines, batch: self.batch };
        (first, Some(rest))
    }

    /// The lines in order.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines_and_ends().map(|(line, _)| line)
    }

    /// Each line with the offset behind its record, counted from the start of the run.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::record::{Salvage, push_mark, salvage};
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
