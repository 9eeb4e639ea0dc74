//! The segment: one append-only file of the spool. This module has its name, its header, reading records from it, and
//! its removal. `log` knows which lines are in which segment, and which forwards still need it.
//!
//! ```text
//! offset  0  magic "LFSPOOL\n"      16  spool id, 128 random bits      48  created, Unix seconds u64
//!         8  format version u32     32  segment number u64             56  session u32
//!        12  header length u32      40  number of the first line u64   60  CRC-32C u32 of the 60 bytes before
//!        64  records
//! ```
//!
//! All fields are little endian. Every later version keeps the first twelve bytes and the checksum in place, so that a
//! newer spool can be told from a damaged one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::batch::Batch;
use super::record::{Fault, RECORD_HEADER};
use crate::files;
use crate::sorted::sort_by;

/// Bytes before the first record.
pub(super) const HEADER_LEN: u64 = 64;

/// The most damaged segments that are kept aside. The oldest is removed when another one comes, because they do not
/// count towards the size limit.
pub(super) const MAX_DAMAGED: usize = 4;

/// The unit in which reads fail on a bad disk, in bytes: the kernel reads whole pages.
const BLOCK: u64 = 4096;

/// The most bad blocks that one read tries, and the most time it takes: a dying disk may take seconds for each block,
/// while others wait.
const MAX_BAD_BLOCKS: usize = 64;
const READ_AROUND_FOR: Duration = Duration::from_secs(2);

/// Identifies a spool among all spools, as long as it has a segment.
pub(super) type SpoolId = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The format version. New segments always have [`VERSION`].
    pub version: u32,
    pub id: SpoolId,
    pub number: u64,
    pub first_line: u64,
    /// Unix seconds, for people. No decision depends on it.
    pub created: u64,
    /// The opening of the spool that wrote this segment. A random number, because a copy of the spool may be opened
    /// too. A power cut can remove lines that were read already, and the next session then reuses their numbers. So
    /// only (spool id, session, line) identifies a line for good.
    pub session: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    /// A valid header of a format that this version does not know.
    Version(u32),
}

impl Header {
    pub fn new(id: SpoolId, number: u64, first_line: u64, session: u32) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Self { version: VERSION, id, number, first_line, created, session }
    }

    /// The key that is XORed into the checksums of this segment's records. Version 1 has no key.
    pub fn key(&self) -> u32 {
        match self.version {
            1 => 0,
            _ => crc32c::crc32c_append(crc32c::crc32c(&self.id), &self.number.to_le_bytes()),
        }
    }

    pub fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.id);
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_line.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.created.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.session.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_LEN as usize]) -> Result<Self, HeaderFault> {
        if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != le_u32(bytes, 60) {
            return Err(HeaderFault::Damaged);
        }
        let version = le_u32(bytes, 8);
        if !(1..=VERSION).contains(&version) {
            return Err(HeaderFault::Version(version));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        Ok(Self {
            version,
            id,
            number: le_u64(bytes, 32),
            first_line: le_u64(bytes, 40),
            created: le_u64(bytes, 48),
            session: le_u32(bytes, 56),
        })
    }
}

/// The path of segment `number`. The name has twenty digits, so that `ls` lists segments in the order of writing.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.seg"))
}

/// The number in a segment's file name, or `None` for any other file.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Whether a file is a damaged segment that was kept aside, by its name.
pub(super) fn is_damaged(name: &str) -> bool {
    name.strip_suffix(".damaged").and_then(number_of).is_some()
}

/// Creates a segment's file, and writes its header and first records. When it fails, it removes the file. If the
/// process ends in between, the next opening removes a file without lines.
pub(super) fn create(dir: &Path, header: &Header, records: &[u8]) -> io::Result<File> {
    let path = path(dir, header.number);
    // O_APPEND: after a failed write has been cut off, the next write goes to the end without a seek.
    let mut file = files::options().append(true).create_new(true).open(&path)?;
    file.write_all(&[&header.encode(), records].concat()).inspect_err(|_| drop(fs::remove_file(&path)))?;
    Ok(file)
}

/// Reads records from `offset` on, up to `limit` (both file offsets) and `max_lines`: about `max_bytes`, but at least
/// one record. An empty batch means that there is no valid record at `offset`. With records *and* a fault, the fault
/// comes after the records.
///
/// Errors are those of the file, and mean that nothing could be read. A file shorter than `limit` is no error; reading
/// at its end gives an empty batch.
pub(super) fn read(
    file: &File,
    offset: u64,
    limit: u64,
    max_bytes: usize,
    max_lines: u64,
    key: u32,
) -> io::Result<(Batch, Option<Fault>)> {
    let there = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut want = max_bytes.max(RECORD_HEADER).min(there);
    loop {
        let (bytes, error) = read_up_to(file, offset, want);
        let (batch, fault) = Batch::decode(bytes, max_lines, key);
        if let (0, Some(error)) = (batch.byte_len(), error) {
            return Err(error);
        }
        match fault {
            // The buffer ends inside a record and the segment does not: that is no fault. If it is the first record, it
            // is read again, with room for its header or for the length in its header.
            Some(Fault::Short { needed }) if batch.byte_len() + needed <= there => {
                if batch.byte_len() > 0 {
                    return Ok((batch, None));
                }
                if needed <= want {
                    return Ok((batch, fault));
                }
                want = needed;
            }
            fault => return Ok((batch, fault)),
        }
    }
}

/// Removes a segment's file for good.
pub(super) fn remove(dir: &Path, number: u64) -> io::Result<()> {
    fs::remove_file(path(dir, number))
}

/// The path of segment `number` when it is kept aside as damaged.
pub(super) fn aside_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.seg.damaged"))
}

/// Renames a damaged segment, to keep it. If opening has already kept a copy from before the segment was cut, the
/// segment is removed.
pub(super) fn set_aside(dir: &Path, number: u64) -> io::Result<()> {
    if aside_path(dir, number).exists() {
        return remove(dir, number);
    }
    fs::rename(path(dir, number), aside_path(dir, number))?;
    // One file too many is no reason to fail.
    drop(limit_damaged(dir));
    Ok(())
}

/// Removes the oldest damaged segments beyond [`MAX_DAMAGED`].
pub(super) fn limit_damaged(dir: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_damaged) {
            kept.push(entry.path());
        }
    }
    sort_by(&mut kept, Ord::cmp);
    for path in kept.iter().rev().skip(MAX_DAMAGED) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Up to `want` bytes from `offset` on. Fewer if the file ends, or if the error says that it cannot be read there.
pub(super) fn read_up_to(file: &File, offset: u64, want: usize) -> (Vec<u8>, Option<io::Error>) {
    let mut bytes = vec![0; want];
    let (filled, error) = fill(file, offset, &mut bytes);
    bytes.truncate(filled);
    (bytes, error)
}

/// Reads like [`read_up_to`] from a damaged file: blocks that cannot be read become zeros, which are no record, and the
/// last error is returned. Stops after too many bad blocks, or after too long a time.
pub(super) fn read_around(file: &File, offset: u64, want: usize) -> (Vec<u8>, Option<io::Error>) {
    let (mut bytes, mut filled, mut why) = (vec![0; want], 0, None);
    let since = Instant::now();
    for _ in 0..MAX_BAD_BLOCKS {
        let (good, error) = fill(file, offset + filled as u64, &mut bytes[filled..]);
        filled += good;
        if error.is_none() {
            break;
        }
        why = error;
        // Skips the bad block also if this is the last round, so that the caller can continue behind it.
        let bad = offset + filled as u64;
        filled = want.min(((bad / BLOCK + 1) * BLOCK - offset) as usize);
        if since.elapsed() > READ_AROUND_FOR {
            break;
        }
    }
    bytes.truncate(filled);
    (bytes, why)
}

/// Reads until the buffer is full, the file ends, or a read fails. Returns the number of bytes.
fn fill(file: &File, offset: u64, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (filled, Some(e)),
        }
    }
    (filled, None)
}

pub(super) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

pub(super) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

const MAGIC: &[u8; 8] = b"LFSPOOL\n";
/// Version 1 has no marks and no key in its checksums. It is still read, and never appended to.
const VERSION: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { version: VERSION, id: [7; 16], number: 3, first_line: 41, created: 1_700_000_000, session: 2 };

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_passes() {
        let bytes = HEADER.encode();
        assert_eq!(Header::decode(&bytes), Ok(HEADER));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_not_mistaken_for_damage() {
        let mut bytes = HEADER.encode();
        bytes[8] = 9;
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderFault::Version(9)));
    }

    #[test]
    fn only_segment_names_are_segments() {
        assert_eq!(number_of("00000000000000000012.seg"), Some(12));
        for other in ["12.seg", "0000000000000000001x.seg", "00000000000000000012.seg.damaged", "lock", "cursor.a"] {
            assert_eq!(number_of(other), None, "{other}");
        }
        assert!(is_damaged("00000000000000000012.seg.damaged"));
    }

    #[test]
    fn a_record_is_read_whole_however_small_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = create(dir.path(), &HEADER, &[]).unwrap();
        let mut batch = Batch::new();
        batch.push(|out| out.extend([b'x'; 1000]));
        batch.push(|out| out.extend(b"short"));
        file.write_all(batch.as_bytes()).unwrap();
        let file = File::open(path(dir.path(), HEADER.number)).unwrap();
        let limit = HEADER_LEN + batch.byte_len() as u64;
        for max_bytes in [0, 1, 8, 9, 500, 1008, 1009, 1015] {
            let (read, fault) = read(&file, HEADER_LEN, limit, max_bytes, u64::MAX, 0).unwrap();
            assert_eq!((read.line_count(), fault), (1, None), "{max_bytes}");
        }
        let (all, fault) = read(&file, HEADER_LEN, limit, 1 << 20, u64::MAX, 0).unwrap();
        assert_eq!((all, fault), (batch, None));
    }

    /// The kernel fails to read unmapped memory, just as it fails to read a bad block.
    #[test]
    fn what_cannot_be_read_is_read_around() {
        const PAGE: usize = BLOCK as usize;
        let start = crate::sys::hole::in_memory(PAGE, b'x');
        let memory = File::open("/proc/self/mem").unwrap();
        let (bytes, error) = read_up_to(&memory, start + 100, 2 * PAGE);
        assert_eq!((bytes, error.unwrap().raw_os_error()), (vec![b'x'; PAGE - 100], Some(nix::libc::EIO)));
        let (bytes, error) = read_around(&memory, start + 100, 4 * PAGE - 100);
        assert_eq!(bytes, [vec![b'x'; PAGE - 100], vec![0; PAGE], vec![b'x'; 2 * PAGE]].concat());
        assert_eq!(error.unwrap().raw_os_error(), Some(nix::libc::EIO));
        assert_eq!(read_around(&memory, start + 100, PAGE).0.len(), PAGE, "it ends where nothing can be read");
        // Reading stops on a disk on which every read fails.
        assert_eq!(read_around(&memory, 0, 1 << 30).0.len(), MAX_BAD_BLOCKS * PAGE);
    }
}
