//! Inspects a spool without opening it. It takes no lock and changes nothing. The directory may be in any state, and
//! its relay may append, retire and remove segments meanwhile. For commands and people; the relay itself uses `open`
//! and `reader`.
//!
//! Only one piece of one segment is in memory at a time, except while records are searched behind damage.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Position;
use super::batch::Batch;
use super::catalog::{self, Segment};
use super::cursor;
use super::dead_letters::{self, DeadLetterFile};
use super::progress::Positions;
use super::record;
use super::segment::{self, HEADER_LEN, Header, HeaderFault, SpoolId};
use crate::hex;
use crate::sorted::{sort_by, sort_by_key};

/// The content of a spool's directory.
pub struct Inspection {
    pub dir: PathBuf,
    /// `None`: there is neither a sound segment nor a sound cursor.
    pub id: Option<SpoolId>,
    /// Oldest first.
    pub segments: Vec<SegmentFile>,
    /// Damaged segments that were kept aside.
    pub kept: Vec<SegmentFile>,
    /// By name.
    pub cursors: Vec<Cursor>,
    /// By the forward's name.
    pub dead_letters: Vec<DeadLetterFile>,
}

/// A segment's file at the time of the inspection.
#[derive(Clone)]
pub struct SegmentFile {
    pub path: PathBuf,
    pub number: u64,
    pub bytes: u64,
    /// The header, or why it is not valid.
    pub head: Result<Head, HeadFault>,
    key: u32,
}

/// The fields of a valid header.
#[derive(Clone, Copy)]
pub struct Head {
    pub first_line: u64,
    pub session: u32,
    id: SpoolId,
}

/// Why a segment's header is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    #[error("its header is damaged")]
    Damaged,
    /// The segment has no header and no bytes behind it: it was created and not written to yet, or a crash came in
    /// between. It is the newest segment, and the next opening removes it.
    #[error("its header is not written yet")]
    Torn,
    /// A later version has written the header.
    #[error("it has format version {0}, which a later logferry wrote")]
    Version(u32),
    /// The header has the number of another segment.
    #[error("it has the header of segment {0}")]
    Number(u64),
    /// The segment belongs to another spool.
    #[error("it belongs to another spool")]
    Foreign,
    /// The segment's lines are numbered below those of the segment before it.
    #[error("its lines are numbered below those before it")]
    Falls,
    #[error("its header cannot be read: {0}")]
    Unreadable(String),
}

/// One forward's cursor, from its file.
pub struct Cursor {
    pub path: PathBuf,
    pub forward: String,
    /// `None`: the file has no valid positions for this spool.
    positions: Option<Positions>,
}

/// A part of a segment.
pub enum Piece {
    /// Valid records from `offset` on. The batch may hold marks alone.
    Lines { offset: u64, batch: Batch },
    /// Bytes that are no record.
    Damage { offset: u64, bytes: u64, why: String },
    /// Bytes at the end of the file that are no record: an unfinished write. The write may still be going on.
    Tail { offset: u64, bytes: u64 },
}

/// A file or directory that cannot be inspected.
#[derive(Debug, thiserror::Error)]
#[error("spool: {}", self.says())]
pub struct InspectError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The lines that a forward has not retired.
pub struct Left {
    /// The first pending line, or the end.
    pub from: Position,
    pub pending: u64,
    pub replayable: u64,
}

impl Cursor {
    /// The first line that is not retired, as the file says.
    pub fn retired(&self) -> Option<Position> {
        self.positions.map(|positions| positions.retired)
    }

    /// The first line that is not acknowledged, as the file says.
    pub fn acknowledged(&self) -> Option<Position> {
        self.positions.map(|positions| positions.acknowledged)
    }
}

impl Inspection {
    pub fn of(dir: &Path) -> Result<Self, InspectError> {
        let names = list(dir)?;
        // The cursors come first: their positions are then not ahead of the segments found.
        let mut found = Vec::new();
        for name in names.iter().filter(|name| cursor::is_cursor(name)) {
            let path = dir.join(name);
            let slots = match File::open(&path) {
                Ok(file) => cursor::read(&file),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(source) => return Err(InspectError { what: "read", path, source }),
            };
            found.push((path, cursor::forward_of(name), slots));
        }
        // The segments are listed again, because the relay may have begun new ones.
        let names = list(dir)?;
        let mut segments = segment_files(dir, &names, segment::number_of)?;
        let kept = segment_files(dir, &names, |name| segment::number_of(name.strip_suffix(".damaged")?))?;
        let newest = segments.iter().rev().find_map(|file| file.head.as_ref().ok());
        let any_cursor = found.iter().find_map(|(_, _, slots)| Some(slots.first()?.id));
        let id = newest.map(|head| head.id).or(any_cursor);
        doubt(&mut segments, id);
        let cursors = found.into_iter().map(|(path, forward, slots)| {
            let own = slots.into_iter().filter(|slot| Some(slot.id) == id);
            Cursor { path, forward, positions: own.max_by_key(|slot| slot.sequence).map(|slot| slot.positions) }
        });
        let mut cursors: Vec<Cursor> = cursors.collect();
        sort_by(&mut cursors, |a, b| a.forward.cmp(&b.forward));
        let failed = |source| InspectError { what: "list the dead letters of", path: dir.to_owned(), source };
        let dead_letters = dead_letters::find(dir).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), id, segments, kept, cursors, dead_letters })
    }

    /// The spool's id as text.
    pub fn name(&self) -> Option<String> {
        self.id.map(|id| hex::encode(&id))
    }

    /// The end of the lines. Reads the newest segment.
    pub fn end(&self) -> Result<Position, InspectError> {
        let Some((newest, head)) = self.sound().last() else {
            return Ok(Position { segment: 0, offset: HEADER_LEN, line: 0 });
        };
        let mut end = Position { segment: newest.number, offset: HEADER_LEN, line: head.first_line };
        for piece in newest.pieces(HEADER_LEN)?.into_iter().flatten() {
            if let Piece::Lines { offset, batch } = piece {
                end.offset = offset + batch.byte_len() as u64;
                end.line += batch.line_count();
            }
        }
        Ok(end)
    }

    /// The lines that a relay would send to the forward of this cursor if it started now.
    pub fn left(&self, cursor: &Cursor, end: Position) -> Left {
        let segments: VecDeque<Segment> = self.sound().map(|(file, head)| file.in_log(head)).collect();
        let oldest = segments.front().map_or(end, Segment::start);
        let start = Positions { acknowledged: oldest, retired: oldest };
        let Positions { acknowledged, retired } =
            cursor.positions.map_or(start, |positions| catalog::resolve(&segments, end, positions));
        let pending = end.line.saturating_sub(acknowledged.line);
        Left { from: acknowledged, pending, replayable: acknowledged.line - retired.line }
    }

    /// The number of lines of a segment, by the first line of the next segment. `None`: the header is not valid.
    pub fn numbered(&self, file: &SegmentFile, end: Position) -> Option<u64> {
        let first = file.head.as_ref().ok()?.first_line;
        let next = self.sound().find(|(other, _)| other.number > file.number).map(|(_, head)| head.first_line);
        Some(next.unwrap_or(end.line).saturating_sub(first))
    }

    /// The segments with a valid header of this spool, oldest first.
    fn sound(&self) -> impl DoubleEndedIterator<Item = (&SegmentFile, &Head)> {
        self.segments.iter().filter_map(|file| Some((file, file.head.as_ref().ok()?)))
    }
}

impl SegmentFile {
    /// The parts of the segment from an offset on; [`SegmentFile::START`] for all of it. `None`: the file was removed,
    /// which is no error.
    pub fn pieces(&self, from: u64) -> Result<Option<Pieces>, InspectError> {
        let failed = |source| InspectError { what: "read", path: self.path.clone(), source };
        let opened = File::open(&self.path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        let (file, end) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let at = from.max(HEADER_LEN);
        let why = CHECKSUM.to_owned();
        Ok(Some(Pieces { file, key: self.key, at, end, runs: VecDeque::new(), searched: 0, why }))
    }

    /// Whether the segment has no header yet, and so no line.
    pub fn is_torn(&self) -> bool {
        self.head.as_ref().err() == Some(&HeadFault::Torn)
    }

    /// The offset of the first record.
    pub const START: u64 = HEADER_LEN;

    /// The first line from an offset on.
    pub fn first_from(&self, offset: u64) -> Result<Option<Vec<u8>>, InspectError> {
        let first = |piece| match piece {
            Piece::Lines { batch, .. } => batch.lines().next().map(<[u8]>::to_vec),
            Piece::Damage { .. } | Piece::Tail { .. } => None,
        };
        Ok(self.pieces(offset)?.and_then(|mut pieces| pieces.find_map(first)))
    }

    /// The last line. A record has its own length and not that of the record before, so records cannot be read
    /// backwards. The last bytes of the file are searched for records as behind damage.
    pub fn last(&self) -> Result<Option<Vec<u8>>, InspectError> {
        for window in LAST_WINDOWS {
            let Some(pieces) = self.pieces(HEADER_LEN)? else { return Ok(None) };
            let start = pieces.end.saturating_sub(window).max(HEADER_LEN);
            let (bytes, _) = segment::read_up_to(&pieces.file, start, (pieces.end.saturating_sub(start)) as usize);
            // The salvage skips a run that begins exactly at the window's start.
            let whole = Batch::decode(bytes.clone(), u64::MAX, self.key).0;
            let runs = record::salvage(&bytes, self.key).runs.into_iter().rev();
            let mut found = runs.map(|run| Batch::decode(bytes[run].to_vec(), u64::MAX, self.key).0).chain([whole]);
            if let Some(last) = found.find_map(|batch| batch.lines().last().map(<[u8]>::to_vec)) {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    fn in_log(&self, head: &Head) -> Segment {
        let Head { first_line, session, .. } = *head;
        Segment {
            number: self.number,
            first_line,
            session,
            key: self.key,
            bytes: self.bytes,
            damaged: false,
            file: None,
        }
    }
}

/// The parts of one segment. The file stays open meanwhile, so the file system frees the space of a removed segment
/// only afterwards.
pub struct Pieces {
    file: File,
    key: u32,
    at: u64,
    /// The file's end when it was opened.
    end: u64,
    /// Valid records that were found behind damage, as file offsets.
    runs: VecDeque<Range<u64>>,
    /// The search has found all runs up to this offset.
    searched: u64,
    why: String,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while self.at < self.end {
            match self.runs.front().cloned() {
                Some(run) if self.at < run.start => return Some(self.skip_to(run.start)),
                Some(run) => {
                    let lines = self.lines(run.end);
                    if lines.is_none() || self.at >= run.end {
                        self.runs.pop_front();
                    }
                    // `None`: the file has changed since the search.
                    return lines.or_else(|| Some(self.skip_to(run.end)));
                }
                None if self.at < self.searched => return Some(self.skip_to(self.searched)),
                None => match self.lines(self.end) {
                    None => self.search(),
                    lines => return lines,
                },
            }
        }
        None
    }
}

impl Pieces {
    fn lines(&mut self, limit: u64) -> Option<Piece> {
        let read = segment::read(&self.file, self.at, limit, PIECE_BYTES, u64::MAX, self.key);
        let batch = read.map(|(batch, _)| batch).inspect_err(|error| self.why = error.to_string()).ok()?;
        let offset = self.at;
        self.at += batch.byte_len() as u64;
        (batch.byte_len() > 0).then_some(Piece::Lines { offset, batch })
    }

    /// Searches for valid records behind the current offset, where there is none.
    fn search(&mut self) {
        let want = SEARCH_BYTES.min(self.end - self.at) as usize;
        let (bytes, unreadable) = segment::read_around(&self.file, self.at, want);
        let runs = record::salvage(&bytes, self.key).runs;
        let in_file = |run: Range<usize>| self.at + run.start as u64..self.at + run.end as u64;
        self.runs = runs.into_iter().map(in_file).collect();
        self.searched = self.at + bytes.len() as u64;
        match unreadable {
            Some(error) => self.why = error.to_string(),
            // The file has become shorter.
            None if bytes.len() < want => self.end = self.searched,
            // The next search begins behind the last run, so that a record that the window has cut is read whole.
            None if self.searched < self.end => {
                self.searched = self.runs.back().map_or(self.searched, |last| last.end);
            }
            None => {}
        }
    }

    fn skip_to(&mut self, to: u64) -> Piece {
        let (offset, bytes) = (self.at, to - self.at);
        self.at = to;
        match to == self.end && self.why == CHECKSUM {
            true => Piece::Tail { offset, bytes },
            false => Piece::Damage { offset, bytes, why: self.why.clone() },
        }
    }
}

/// The names in the directory that are valid UTF-8. The spool creates no others.
fn list(dir: &Path) -> Result<Vec<String>, InspectError> {
    let failed = |source| InspectError { what: "list", path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

fn segment_files(
    dir: &Path,
    names: &[String],
    number: impl Fn(&str) -> Option<u64>,
) -> Result<Vec<SegmentFile>, InspectError> {
    let mut files = Vec::new();
    for (name, number) in names.iter().filter_map(|name| Some((name, number(name)?))) {
        let path = dir.join(name);
        match head(&path, number) {
            Ok((bytes, key, head)) => files.push(SegmentFile { path, number, bytes, head, key }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(InspectError { what: "read", path, source }),
        }
    }
    sort_by_key(&mut files, |file| file.number);
    Ok(files)
}

type HeadRead = (u64, u32, Result<Head, HeadFault>);

fn head(path: &Path, number: u64) -> io::Result<HeadRead> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let (start, unreadable) = segment::read_up_to(&file, 0, HEADER_LEN as usize);
    if let Some(error) = unreadable {
        return Ok((bytes, 0, Err(HeadFault::Unreadable(error.to_string()))));
    }
    Ok(match start.first_chunk().map(Header::decode) {
        Some(Ok(header)) => {
            let head = Head { first_line: header.first_line, session: header.session, id: header.id };
            let fault = (header.number != number).then_some(HeadFault::Number(header.number));
            (bytes, header.key(), fault.map_or(Ok(head), Err))
        }
        Some(Err(HeaderFault::Version(version))) => (bytes, 0, Err(HeadFault::Version(version))),
        Some(Err(HeaderFault::Damaged)) | None if bytes <= HEADER_LEN => (bytes, 0, Err(HeadFault::Torn)),
        Some(Err(HeaderFault::Damaged)) | None => (bytes, 0, Err(HeadFault::Damaged)),
    })
}

/// Rejects the headers that a relay would reject too. Lines behind a damaged header can still be read, because the key
/// of their checksums follows from the spool's id and the segment's number.
fn doubt(segments: &mut [SegmentFile], id: Option<SpoolId>) {
    // A header is written before the next segment is created, so only the newest segment can be torn.
    let behind = segments.iter().rposition(|file| !file.is_torn()).unwrap_or(0);
    for file in segments[..behind].iter_mut().filter(|file| file.is_torn()) {
        file.head = Err(HeadFault::Damaged);
    }
    let mut before = 0;
    for file in segments {
        match &file.head {
            Ok(head) if Some(head.id) != id => file.head = Err(HeadFault::Foreign),
            Ok(head) if head.first_line < before => file.head = Err(HeadFault::Falls),
            Ok(head) => before = head.first_line,
            Err(HeadFault::Damaged | HeadFault::Torn | HeadFault::Unreadable(_)) => {
                file.key = id.map_or(0, |id| Header::new(id, file.number, 0, 0).key());
            }
            Err(_) => {}
        }
    }
}

impl InspectError {
    fn says(&self) -> String {
        let Self { what, path, source } = self;
        let path_shown = path.display();
        match source.kind() {
            ErrorKind::NotFound => format!("{path_shown} is not there; name the spool's directory, or a --config"),
            ErrorKind::PermissionDenied => {
                let advice = match path.metadata().map(|found| found.uid()) {
                    Ok(owner) => format!("it belongs to uid {owner}: look as that user, or as root"),
                    Err(_) => "look as the user that the relay runs as, or as root".to_owned(),
                };
                format!("cannot {what} {path_shown}: {source}; {advice}")
            }
            _ => format!("cannot {what} {path_shown}: {source}"),
        }
    }
}

/// Bytes of a segment per read.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes per search for valid records behind damage: more than a segment has by default.
const SEARCH_BYTES: u64 = 64 << 20;
/// Bytes at the end of a segment that are searched for its last line: first for lines of usual length, then for the
/// longest.
const LAST_WINDOWS: [u64; 2] = [64 << 10, 4 << 20];
const CHECKSUM: &str = "checksum mismatch";
