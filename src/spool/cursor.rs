//! The cursor: the file in which one forward's position outlives the process. Where the position moves, and what is
//! counted when it does, belongs to `log`; this file only makes it durable enough.
//!
//! ```text
//! offset  0  magic "LFCURSR\n"     32  segment u64     56  reserved, zero
//!         8  sequence u64          40  offset u64      60  CRC-32C u32 of the 60 bytes before
//!        16  spool id              48  line u64
//! ```
//!
//! Two such slots, written in turn and never synced: a write torn by a crash leaves the other slot, which is older, so
//! lines are sent twice but never lost. The slots are a page apart, so that no sector holds both.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Position;
use super::segment::{SpoolId, le_u64, read_up_to};
use crate::files;

/// A moving cursor is written at most this often: half a microsecond each, but for every acknowledgement it adds up.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// One forward's cursor file.
pub(super) struct CursorFile {
    path: PathBuf,
    id: SpoolId,
    /// `None` until something could be written.
    file: Option<File>,
    /// The number of the last slot written; slot `sequence % 2` holds it.
    sequence: u64,
    /// What the file says.
    written: Option<Position>,
    due: Instant,
}

impl CursorFile {
    /// Reads the cursor of `forward`, if there is one for this spool. A file that cannot be read counts as none: lines
    /// are then sent again, which is better than not to start.
    pub fn load(dir: &Path, forward: &str, id: SpoolId) -> Self {
        let path = dir.join(file_name(forward));
        let slots = File::open(&path).map(|file| read(&file)).unwrap_or_default();
        let newest = slots.into_iter().filter(|slot| slot.id == id).max_by_key(|slot| slot.sequence);
        Self {
            path,
            id,
            file: None,
            sequence: newest.as_ref().map_or(0, |slot| slot.sequence),
            written: newest.map(|slot| slot.position),
            due: Instant::now(),
        }
    }

    pub fn position(&self) -> Option<Position> {
        self.written
    }

    /// Writes `position` to both slots, so that the file has its room before the disk is full. If it is full already that
    /// must not keep the spool from opening; the next write says so.
    pub fn reserve(&mut self, position: Position) {
        for _ in 0..2 {
            self.written = None;
            drop(self.write(position));
        }
        self.due = Instant::now();
    }

    /// Removes the file, if there is one.
    pub fn remove(&mut self) -> io::Result<()> {
        self.file = None;
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Writes `position` unless it was written already, or something in the same segment was less than [`WRITE_EVERY`] ago:
    /// a relay that starts again at once, and again, begins a segment each time, and must not lag behind by many.
    pub fn write_if_due(&mut self, position: Position) -> io::Result<()> {
        let same_segment = self.written.is_some_and(|written| written.segment == position.segment);
        if same_segment && Instant::now() < self.due {
            return Ok(());
        }
        self.write(position)
    }

    /// Writes `position` unless it was written already.
    pub fn write(&mut self, position: Position) -> io::Result<()> {
        // Positions compare by line alone, but a line number can come again in another segment.
        if self.written.is_some_and(|written| written == position && written.segment == position.segment) {
            return Ok(());
        }
        self.due = Instant::now() + WRITE_EVERY;
        let file = match &self.file {
            Some(file) => file,
            None => {
                let file = files::options().write(true).create(true).truncate(false).open(&self.path)?;
                self.file.insert(file)
            }
        };
        let sequence = self.sequence + 1;
        file.write_all_at(&encode(sequence, &self.id, position), (sequence % 2) * SLOT_STRIDE as u64)?;
        self.sequence = sequence;
        self.written = Some(position);
        Ok(())
    }
}

/// What one slot of a cursor's file says.
pub(super) struct Slot {
    pub id: SpoolId,
    pub sequence: u64,
    pub position: Position,
}

/// The sound slots of a cursor's file, of whichever spool.
pub(super) fn read(file: &File) -> Vec<Slot> {
    let bytes = read_up_to(file, 0, FILE_LEN).0;
    [0, SLOT_STRIDE].into_iter().filter_map(|at| decode(bytes.get(at..at + SLOT_LEN)?)).collect()
}

/// `cursor.<forward>`; what is not plain in a file name is written as `%` and two digits, so that no two names meet.
pub(super) fn file_name(forward: &str) -> String {
    let mut name = String::from(PREFIX);
    for byte in forward.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

/// The forward whose cursor a file is, from its name.
pub(super) fn forward_of(file_name: &str) -> String {
    let mut parts = file_name.strip_prefix(PREFIX).unwrap_or(file_name).split('%');
    let mut name = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.split_at_checked(2).and_then(|(digits, rest)| Some((u8::from_str_radix(digits, 16).ok()?, rest))) {
            Some((byte, rest)) => name.extend([&[byte], rest.as_bytes()].concat()),
            None => name.extend(["%", part].concat().bytes()),
        }
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// Whether a file is some forward's cursor.
pub(super) fn is_cursor(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn encode(sequence: u64, id: &SpoolId, position: Position) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    slot[16..32].copy_from_slice(id);
    slot[32..40].copy_from_slice(&position.segment.to_le_bytes());
    slot[40..48].copy_from_slice(&position.offset.to_le_bytes());
    slot[48..56].copy_from_slice(&position.line.to_le_bytes());
    let checksum = crc32c::crc32c(&slot[..60]);
    slot[60..].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<Slot> {
    let sound = &slot[..8] == MAGIC && crc32c::crc32c(&slot[..60]).to_le_bytes() == slot[60..];
    let id = *slot[16..].first_chunk()?;
    let position = Position { segment: le_u64(slot, 32), offset: le_u64(slot, 40), line: le_u64(slot, 48) };
    sound.then_some(Slot { id, sequence: le_u64(slot, 8), position })
}

const PREFIX: &str = "cursor.";
const MAGIC: &[u8; 8] = b"LFCURSR\n";
const SLOT_LEN: usize = 64;
const SLOT_STRIDE: usize = 4096;
const FILE_LEN: usize = SLOT_STRIDE + SLOT_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SpoolId = [9; 16];

    fn at(line: u64) -> Position {
        Position { segment: 1, offset: 64 + line, line }
    }

    fn load(dir: &Path) -> Option<Position> {
        CursorFile::load(dir, "central", ID).position()
    }

    #[test]
    fn the_newest_slot_wins_and_the_other_one_stands_in() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut cursor = CursorFile::load(dir.path(), "central", ID);
        assert_eq!(cursor.position(), None);
        for line in 1..=5 {
            cursor.write(at(line)).unwrap();
            assert_eq!(load(dir.path()), Some(at(line)));
        }
        let path = dir.path().join("cursor.central");
        let whole = std::fs::read(&path).unwrap();
        let newest = SLOT_STRIDE; // sequence 5 is odd
        for byte in 0..SLOT_LEN {
            let mut torn = whole.clone();
            torn[newest + byte] ^= 0x40;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(load(dir.path()), Some(at(4)), "byte {byte}");
            torn[byte] ^= 0x40;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(load(dir.path()), None, "byte {byte}");
        }
        for cut in (0..2 * SLOT_LEN).chain(SLOT_STRIDE..whole.len()) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected = (cut >= SLOT_LEN).then(|| at(4));
            assert_eq!(load(dir.path()), expected, "cut {cut}");
        }
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
