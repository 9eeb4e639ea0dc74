//! The cursor: the file that stores one forward's positions across restarts. `progress` moves and counts the positions;
//! this file only stores them. `keeper` calls it to write.
//!
//! ```text
//! offset  0  magic "LFCURSR\n"     48  retired: line u64          88  acknowledged: line u64
//!         8  sequence u64          56  reserved, zero             96  reserved, zero
//!        16  spool id              60  CRC-32C u32 of 0 to 60    108  CRC-32C u32 of 0 to 60, 64 to 108
//!        32  retired: segment u64  64  magic "LFACKED\n"
//!        40  retired: offset u64   72  acknowledged: segment u64, 80: offset u64
//! ```
//!
//! The file has two such slots, which are written in turn and never synced. A write that a crash has torn leaves the
//! other slot, which is older, so lines are sent twice but never lost. The slots are a page apart, so that no sector
//! holds both.
//!
//! Older versions have no position *acknowledged*, and their slots are the first 64 bytes. Such a version reads these
//! bytes and counts replayable lines as pending. When it overwrites them, the second checksum becomes wrong. If the
//! second checksum is wrong, or the second part is missing, *acknowledged* is *retired*.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Position;
use super::progress::Positions;
use super::segment::{SpoolId, le_u64, read_up_to};
use crate::files;

/// One forward's cursor file.
pub(super) struct CursorFile {
    path: PathBuf,
    id: SpoolId,
    /// `None` until the file has been opened for writing.
    file: Option<File>,
    /// The number of the last slot written; slot `sequence % 2` holds it.
    sequence: u64,
    /// The positions in the file.
    written: Option<Positions>,
}

impl CursorFile {
    /// Reads the cursor of `forward`, if there is one for this spool. A file that cannot be read counts as missing: the
    /// relay then sends lines again, which is better than not to start.
    pub fn load(dir: &Path, forward: &str, id: SpoolId) -> Self {
        let path = dir.join(file_name(forward));
        let slots = File::open(&path).map(|file| read(&file)).unwrap_or_default();
        let newest = slots.into_iter().filter(|slot| slot.id == id).max_by_key(|slot| slot.sequence);
        Self {
            path,
            id,
            file: None,
            sequence: newest.as_ref().map_or(0, |slot| slot.sequence),
            written: newest.map(|slot| slot.positions),
        }
    }

    pub fn positions(&self) -> Option<Positions> {
        self.written
    }

    /// Writes the positions to both slots, so that the file has its space before the disk is full. Errors are ignored,
    /// because a full disk must not keep the spool from opening; the next write reports them.
    pub fn reserve(&mut self, positions: Positions) {
        for _ in 0..2 {
            self.written = None;
            drop(self.write(positions));
        }
    }

    /// The file was removed: the next write creates a new one.
    pub fn begin_anew(&mut self) {
        (self.file, self.written) = (None, None);
    }

    /// Removes the file, if there is one.
    pub fn remove(self) -> io::Result<()> {
        drop(self.file);
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Writes the positions, unless the file has them already.
    pub fn write(&mut self, positions: Positions) -> io::Result<()> {
        if self.written == Some(positions) {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file,
            None => {
                let file = files::options().write(true).create(true).truncate(false).open(&self.path)?;
                self.file.insert(file)
            }
        };
        let sequence = self.sequence + 1;
        file.write_all_at(&encode(sequence, &self.id, positions), (sequence % 2) * SLOT_STRIDE as u64)?;
        self.sequence = sequence;
        self.written = Some(positions);
        Ok(())
    }
}

/// The content of one slot.
pub(super) struct Slot {
    pub id: SpoolId,
    pub sequence: u64,
    pub positions: Positions,
}

/// The slots of a cursor's file with a valid checksum, of any spool.
pub(super) fn read(file: &File) -> Vec<Slot> {
    let bytes = read_up_to(file, 0, FILE_LEN).0;
    [0, SLOT_STRIDE].into_iter().filter_map(|at| decode(bytes.get(at..)?)).collect()
}

/// `cursor.<forward>`
pub(super) fn file_name(forward: &str) -> String {
    PREFIX.to_owned() + &escape_name(forward)
}

/// The name of the forward, from the name of its cursor's file.
pub(super) fn forward_of(file_name: &str) -> String {
    unescape_name(file_name.strip_prefix(PREFIX).unwrap_or(file_name))
}

/// Encodes a forward's name for a file name: other characters than `a-z`, `0-9`, `_` and `-` become `%` and two hex
/// digits, so that two names never become equal.
pub(super) fn escape_name(forward: &str) -> String {
    let mut name = String::new();
    for byte in forward.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

pub(super) fn unescape_name(name: &str) -> String {
    let mut parts = name.split('%');
    let mut name = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.split_at_checked(2).and_then(|(digits, rest)| Some((u8::from_str_radix(digits, 16).ok()?, rest))) {
            Some((byte, rest)) => name.extend([&[byte], rest.as_bytes()].concat()),
            None => name.extend(["%", part].concat().bytes()),
        }
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// Whether a file is a cursor, by its name.
pub(super) fn is_cursor(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn encode(sequence: u64, id: &SpoolId, positions: Positions) -> [u8; SLOT_LEN] {
    let Positions { acknowledged, retired } = positions;
    let mut slot = [0; SLOT_LEN];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    slot[16..32].copy_from_slice(id);
    put(&mut slot[32..56], retired);
    slot[64..72].copy_from_slice(ACKNOWLEDGED_MAGIC);
    put(&mut slot[72..96], acknowledged);
    let [first, whole] = checksums(&slot);
    slot[60..64].copy_from_slice(&first);
    slot[108..].copy_from_slice(&whole);
    slot
}

/// `bytes`: from the start of the slot to the end of the file.
fn decode(bytes: &[u8]) -> Option<Slot> {
    let mut slot = [0; SLOT_LEN];
    let there = bytes.len().min(SLOT_LEN);
    slot[..there].copy_from_slice(&bytes[..there]);
    let [first, whole] = checksums(&slot);
    if !slot.starts_with(MAGIC) || slot[60..64] != first {
        return None;
    }
    let id = *slot[16..].first_chunk()?;
    let retired = position_at(&slot, 32);
    let is_whole = slot[64..].starts_with(ACKNOWLEDGED_MAGIC) && slot[108..] == whole;
    let acknowledged = if is_whole { position_at(&slot, 72) } else { retired };
    Some(Slot { id, sequence: le_u64(&slot, 8), positions: Positions { acknowledged, retired } })
}

/// The checksums of the first 64 bytes, and of the whole slot. The second one leaves out the first one: a CRC over
/// bytes and their own CRC does not depend on the bytes.
fn checksums(slot: &[u8; SLOT_LEN]) -> [[u8; 4]; 2] {
    let first = crc32c::crc32c(&slot[..60]);
    [first, crc32c::crc32c_append(first, &slot[64..108])].map(u32::to_le_bytes)
}

fn put(to: &mut [u8], Position { segment, offset, line }: Position) {
    to[..8].copy_from_slice(&segment.to_le_bytes());
    to[8..16].copy_from_slice(&offset.to_le_bytes());
    to[16..24].copy_from_slice(&line.to_le_bytes());
}

fn position_at(bytes: &[u8], at: usize) -> Position {
    Position { segment: le_u64(bytes, at), offset: le_u64(bytes, at + 8), line: le_u64(bytes, at + 16) }
}

const PREFIX: &str = "cursor.";
const MAGIC: &[u8; 8] = b"LFCURSR\n";
const ACKNOWLEDGED_MAGIC: &[u8; 8] = b"LFACKED\n";
const SLOT_LEN: usize = 112;
const SLOT_STRIDE: usize = 4096;
const FILE_LEN: usize = SLOT_STRIDE + SLOT_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SpoolId = [9; 16];
    /// The length of a slot in versions without a position *acknowledged*.
    const FIRST_LEN: usize = 64;

    /// Retired up to `line`, acknowledged up to twice as far.
    fn at(line: u64) -> Positions {
        let position = |line| Position { segment: 1, offset: 64 + line, line };
        Positions { acknowledged: position(2 * line), retired: position(line) }
    }

    /// The positions as a version without *acknowledged* reads them.
    fn old(Positions { retired, .. }: Positions) -> Positions {
        Positions { acknowledged: retired, retired }
    }

    fn load(dir: &Path) -> Option<Positions> {
        CursorFile::load(dir, "central", ID).positions()
    }

    #[test]
    fn the_newest_slot_wins_and_the_other_one_stands_in() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut cursor = CursorFile::load(dir.path(), "central", ID);
        assert_eq!(cursor.positions(), None);
        for line in 1..=5 {
            cursor.write(at(line)).unwrap();
            assert_eq!(load(dir.path()), Some(at(line)));
        }
        let path = dir.path().join("cursor.central");
        let whole = std::fs::read(&path).unwrap();
        let newest = SLOT_STRIDE; // sequence 5 is odd
        for byte in 0..SLOT_LEN {
            let is_first = byte < FIRST_LEN;
            let mut torn = whole.clone();
            torn[newest + byte] ^= 0x40;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(load(dir.path()), Some(if is_first { at(4) } else { old(at(5)) }), "byte {byte}");
            torn[byte] ^= 0x40;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(load(dir.path()), (!is_first).then(|| old(at(5))), "byte {byte}");
        }
        for cut in (0..2 * SLOT_LEN).chain(SLOT_STRIDE..whole.len()) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected = match cut {
                0..FIRST_LEN => None,
                FIRST_LEN..SLOT_LEN => Some(old(at(4))),
                _ if cut < SLOT_STRIDE + FIRST_LEN => Some(at(4)),
                _ => Some(old(at(5))),
            };
            assert_eq!(load(dir.path()), expected, "cut {cut}");
        }
    }

    /// The exact bytes that a version without *acknowledged* wrote: both slots, 5 and 6.
    #[test]
    fn an_older_file_is_read_and_an_older_relay_can_go_on() {
        let old_slot = |sequence: u64, line: u64| {
            let mut slot = b"LFCURSR\n".to_vec();
            slot.extend(sequence.to_le_bytes());
            slot.extend(ID);
            [1, 64 + line, line].into_iter().for_each(|number: u64| slot.extend(number.to_le_bytes()));
            slot.extend([0; 4]);
            slot.extend(crc32c::crc32c(&slot).to_le_bytes());
            slot
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor.central");
        let mut file = old_slot(6, 60);
        assert_eq!(file.len(), 64);
        file.resize(4096, 0);
        file.extend(old_slot(5, 50));
        std::fs::write(&path, &file).unwrap();
        assert_eq!(load(dir.path()), Some(old(at(60))));
        // This version writes the next slot. Its first part is in the older format.
        CursorFile::load(dir.path(), "central", ID).write(at(70)).unwrap();
        assert_eq!(load(dir.path()), Some(at(70)));
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written[4096..][..64], old_slot(7, 70));
        // An older version writes the slot after that, over the first part of a slot that this version wrote.
        CursorFile::load(dir.path(), "central", ID).write(at(80)).unwrap();
        let mut written = std::fs::read(&path).unwrap();
        written[4096..][..64].copy_from_slice(&old_slot(9, 90));
        std::fs::write(&path, &written).unwrap();
        assert_eq!(load(dir.path()), Some(old(at(90))));
    }

    #[test]
    fn a_cursor_of_another_spool_is_none() {
        let dir = tempfile::tempdir().unwrap();
        CursorFile::load(dir.path(), "central", [1; 16]).write(at(3)).unwrap();
        assert_eq!(load(dir.path()), None);
    }

    #[test]
    fn a_reopened_cursor_does_not_write_over_its_newest_slot() {
        let dir = tempfile::tempdir().unwrap();
        CursorFile::load(dir.path(), "central", ID).write(at(1)).unwrap();
        let path = dir.path().join("cursor.central");
        let before = std::fs::read(&path).unwrap()[SLOT_STRIDE..].to_vec();
        CursorFile::load(dir.path(), "central", ID).write(at(2)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[SLOT_STRIDE..], before);
        assert_eq!(load(dir.path()), Some(at(2)));
    }

    #[test]
    fn no_name_leaves_the_directory_or_meets_another() {
        assert_eq!(file_name("central-2_a"), "cursor.central-2_a");
        assert_eq!(file_name("../x"), "cursor.%2e%2e%2fx");
        for name in ["central-2_a", "../x", "A", "100%", "é"] {
            assert_eq!(forward_of(&file_name(name)), name);
        }
        assert_ne!(file_name("A"), file_name("a"));
    }
}
