//! Opens a spool: from a directory, in any state that a crash has left, to a writer and readers. Every repair happens
//! here, and no repair removes bytes that may be a line.
//!
//! Only the newest segment is read. Of the other segments the headers are enough, so opening takes milliseconds however
//! much is spooled. Readers find the damage in the other segments when they get there.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use tokio::sync::watch;

use super::batch::Batch;
use super::catalog::{Catalog, Limits, Segment};
use super::cursor::{self, CursorFile};
use super::dead_letters;
use super::handle::Handle;
use super::home::Home;
use super::hysteresis::Hysteresis;
use super::ledger::{self, Ledger, Replay};
use super::log::Log;
use super::pace::Pace;
use super::progress::Positions;
use super::reader::Reader;
use super::record::{self, Salvage};
use super::segment::{self, HEADER_LEN, Header, HeaderFault, SpoolId};
use super::sync::{Flush, Sync};
use super::writer::Writer;
use super::{MIN_BYTES, Options, Position};
use crate::files;
use crate::identity::Identity;
use crate::metrics::Metrics;

/// The parts of an open spool.
pub struct Spool {
    pub writer: Writer,
    /// One for each of [`Options::forwards`], in that order.
    pub readers: Vec<Reader>,
    /// For changes while the spool is open.
    pub handle: Handle,
    pub report: Report,
}

/// The state of the directory at the opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Identifies this spool as long as it exists.
    pub id: SpoolId,
    pub segments: usize,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes of unfinished writes, which were cut off.
    pub torn_bytes: u64,
    /// Files that could not be read everywhere, and were kept aside.
    pub damaged: Vec<PathBuf>,
    /// Cursors of forwards that are not in the options. They hold back no segments.
    pub stale_cursors: Vec<String>,
}

/// Why a spool cannot be opened. Damage does not prevent opening.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the spool open.
    #[error("spool: {} is in use by another relay; give each its own directory", dir.display())]
    InUse { dir: PathBuf },
    /// The spool was written by a later version.
    #[error("spool: {} has format version {version}, which a later logferry wrote", path.display())]
    Version { path: PathBuf, version: u32 },
    /// The options make no sense.
    #[error("spool: {0}")]
    Options(&'static str),
    /// `what` could not be done to `path`.
    #[error("spool: cannot {what} {}: {source}{}", path.display(), advice(path, source))]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// Reads or makes the spool's key. Without a key no line is lost: receivers treat the relay as one that has never had a
/// key.
fn identity_of(dir: &Path) -> Option<Identity> {
    let says = |error: &io::Error| {
        tracing::warn!(
            "spool: no key to be had from {}: {error}; lines go by RELP without a proof of the sender that numbers them; mend that, and \
             start the relay again",
            Identity::path(dir).display()
        );
    };
    Identity::of_spool(dir).inspect_err(says).ok()
}

impl Spool {
    /// Opens the spool in `options.dir`. Creates the directory if it is missing, takes its lock, and repairs the spool.
    pub fn open(options: Options, metrics: &Metrics) -> Result<Self, OpenError> {
        check(&options)?;
        let lock = lock(&options.dir)?;
        let mut found = Found::default();
        found.list(&options)?;
        found.read_headers(&options)?;
        let cursors: Vec<CursorFile> =
            options.forwards.iter().map(|name| CursorFile::load(&options.dir, name, found.id)).collect();
        let (end, ledger) = found.repair_newest(&options, &cursors)?;
        found.report.segments = found.segments.len();
        found.report.bytes = found.segments.iter().map(|segment| segment.bytes).sum();
        found.report.id = found.id;

        found.say(&options.dir);

        let limits = Limits {
            max_bytes: options.max_bytes,
            segment_bytes: segment_bytes(&options),
            when_full: options.when_full,
        };
        let flush = Flush::start(options.sync, options.dir.clone(), metrics.spool())
            .map_err(io_error("start a thread for", &options.dir))?;
        let dead_letters =
            dead_letters::find(&options.dir).map_err(io_error("list the dead letters of", &options.dir))?;
        let dead_letters = dead_letters.into_iter().map(|file| (file.forward, file.bytes)).collect();
        let mut catalog = Catalog::new(found.segments, end, limits, dead_letters);
        let mut opened = Vec::new();
        for (name, file) in options.forwards.iter().zip(cursors) {
            // `check` has refused equal names, so this cannot fail.
            let index = catalog.add_cursor(name, file.positions(), metrics.forward(name));
            opened.push((index.map_err(io_error("read twice from", &options.dir))?, name.clone(), file));
        }
        let home =
            Home::new(options.dir.clone(), found.id, lock).map_err(io_error("look at the lock of", &options.dir))?;
        let identity = identity_of(&options.dir);
        let log = Log::new(options.dir, (found.id, identity), metrics.spool(), catalog, home);
        let (published, watched) = watch::channel(end);
        let reader = |(index, name, file)| Reader::new(log.clone(), (index, name), watched.clone(), Some(file));
        let readers = opened.into_iter().map(reader).collect();
        let handle = Handle { log: log.clone(), end: watched.clone() };
        let writer = Writer {
            log,
            ledger,
            session: (options.random)() as u32,
            next_number: found.last_number + 1,
            current: None,
            key: 0,
            head: HEADER_LEN,
            end,
            published,
            fresh: Vec::new(),
            flush,
            pace: options.max_rate.map(|rate| Pace::new(rate, Instant::now())),
            unsynced: false,
            held: VecDeque::new(),
            trouble: Hysteresis::default(),
            full: Hysteresis::default(),
            litter: Hysteresis::default(),
            last_refusal: None,
            #[cfg(test)]
            faults: Default::default(),
            #[cfg(test)]
            sync_faults: 0,
        };
        Ok(Self { writer, readers, handle, report: found.report })
    }
}

/// The directory's content, from which the [`Catalog`] is made.
#[derive(Default)]
struct Found {
    numbers: Vec<u64>,
    id: SpoolId,
    segments: VecDeque<Segment>,
    last_number: u64,
    report: Report,
}

impl Found {
    fn list(&mut self, options: &Options) -> Result<(), OpenError> {
        let wanted: Vec<String> = options.forwards.iter().map(|name| cursor::file_name(name)).collect();
        let failed = |source| io_error("list", &options.dir)(source);
        for entry in fs::read_dir(&options.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // The spool creates no names that are not UTF-8.
            let Some(name) = name.to_str() else { continue };
            if let Some(number) = segment::number_of(name) {
                self.numbers.push(number);
            }
            // The number of a segment kept aside is not used again: otherwise, keeping the next segment of that number
            // would find its name taken.
            let number = segment::number_of(name.strip_suffix(".damaged").unwrap_or(name));
            self.last_number = self.last_number.max(number.unwrap_or(0));
            if cursor::is_cursor(name) && !wanted.iter().any(|wanted| wanted == name) {
                self.report.stale_cursors.push(name.to_owned());
            }
        }
        self.numbers.sort_unstable();
        self.report.stale_cursors.sort_unstable();
        Ok(())
    }

    /// Reads the headers. Fills `segments` with the valid ones, and puts the other files aside.
    fn read_headers(&mut self, options: &Options) -> Result<(), OpenError> {
        let dir = &options.dir;
        let mut sound = Vec::new();
        for number in std::mem::take(&mut self.numbers) {
            let path = segment::path(dir, number);
            let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
            let (file, bytes) = match opened {
                Ok(opened) => opened,
                Err(error) if is_damage(&error) => {
                    self.report.damaged.push(path);
                    continue;
                }
                Err(error) => return Err(io_error("open", &path)(error)),
            };
            let start = segment::read_up_to(&file, 0, HEADER_LEN as usize).0;
            let header = start.first_chunk().map(Header::decode);
            match header {
                Some(Ok(header)) if header.number == number => sound.push((header, bytes)),
                Some(Err(HeaderFault::Version(version))) => return Err(OpenError::Version { path, version }),
                // A crash between creating a segment and writing to it.
                _ if bytes <= HEADER_LEN => drop(fs::remove_file(&path)),
                _ => self.keep_aside(dir, number),
            }
        }
        // The newest segment has the spool's id; segments with another id were copied from elsewhere.
        self.id = sound.last().map_or_else(|| (options.random)().to_le_bytes(), |(newest, _)| newest.id);
        for (header, bytes) in sound {
            let rises = self.segments.back().is_none_or(|before| before.first_line <= header.first_line);
            if header.id != self.id || !rises {
                self.keep_aside(dir, header.number);
                continue;
            }
            self.segments.push_back(Segment::new(&header, bytes));
        }
        Ok(())
    }

    /// Finds the end of the log, and cuts off an unfinished write behind it. Removes segments without lines at the end,
    /// except the only one: it has the spool's id. The ledger is read from the segment that is then the newest, and so
    /// agrees with the lines.
    fn repair_newest(&mut self, options: &Options, cursors: &[CursorFile]) -> Result<(Position, Ledger), OpenError> {
        let dir = &options.dir;
        loop {
            let mut replay = Replay::new(Ledger::new(segment_bytes(options)));
            let alone = self.segments.len() == 1;
            let Some(newest) = self.segments.back_mut() else {
                let start = Position { segment: self.last_number, offset: HEADER_LEN, line: 0 };
                return Ok((start, replay.end()));
            };
            let (number, bytes) = (newest.number, newest.bytes);
            let path = segment::path(dir, number);
            let file = File::options().read(true).write(true).open(&path).map_err(io_error("open", &path))?;
            let (good, lines) = scan(&file, newest, &mut replay);
            let mut end = Position { segment: number, offset: good, line: newest.first_line + lines };
            let mut damaged = false;
            if good < bytes {
                let tail = usize::try_from(bytes - good).unwrap_or(usize::MAX);
                let (tail, unreadable) = segment::read_around(&file, good, tail);
                let salvage = record::salvage(&tail, newest.key);
                damaged = salvage != Salvage::default() || unreadable.is_some();
                if let Some(error) = unreadable {
                    tracing::error!(file = %path.display(), %error, "spool: cannot be read everywhere; is the disk dying?");
                }
                if damaged {
                    end = self.rescue(options, &file, (end, &tail, salvage), passed(cursors, number), &mut replay);
                } else {
                    self.report.torn_bytes += tail.len() as u64;
                    newest.bytes = good;
                    // An error is ignored: nothing is appended to this file, and readers stop before the torn bytes.
                    drop(file.set_len(good));
                }
            }
            if lines > 0 || alone || damaged {
                // Lines that the ledger knows are reported to their senders as received, so they must be as safe as the
                // policy promises.
                let unsafe_yet = options.sync == Sync::Always && file.sync_data().is_err();
                let ledger = if unsafe_yet { Ledger::new(segment_bytes(options)) } else { replay.end() };
                return Ok((end, ledger));
            }
            // An error is ignored: the next opening finds the empty segment again.
            drop(fs::remove_file(&path));
            self.segments.pop_back();
        }
    }

    /// Moves the lines behind damage in the newest segment to a new segment, because their numbers are lost: the number
    /// of missing lines at each gap is unknown and at least one. A new session numbers them, so that no number
    /// identifies two lines. Keeps a copy of the damaged file aside. Returns the new end of the log.
    ///
    /// If the disk has no room for the new segment, the relay must start all the same: the lines are then read in
    /// place.
    fn rescue(
        &mut self,
        Options { dir, random, .. }: &Options,
        file: &File,
        (at, tail, salvage): (Position, &[u8], Salvage),
        passed: u64,
        replay: &mut Replay,
    ) -> Position {
        let Some(newest) = self.segments.back_mut() else { return at };
        // Lines that every forward has retired are not moved.
        let skip = usize::try_from(passed.saturating_sub(at.offset)).unwrap_or(usize::MAX);
        let (mut records, mut lost) = (Vec::new(), u64::from(salvage.runs.is_empty() && skip < tail.len()));
        for run in salvage.runs {
            let (batch, _) = Batch::decode(tail[run.clone()].to_vec(), u64::MAX, newest.key);
            replay.gap();
            batch.records().for_each(|record| replay.record(record));
            if skip < run.end {
                lost += u64::from(skip <= run.start);
                ledger::write_gap(&mut records, newest.key);
                records.extend_from_slice(&tail[run.start.max(skip)..run.end]);
            }
        }
        newest.damaged = true;
        let (mut batch, _) = Batch::decode(records, u64::MAX, newest.key);
        let first_line = at.line + lost;
        let header = Header::new(self.id, self.last_number + 1, first_line, random() as u32);
        batch.seal(header.key());
        let content = [replay.so_far().snapshot(header.key()).as_slice(), batch.as_bytes()].concat();
        let line = first_line + batch.line_count();
        if !batch.is_empty()
            && let Err(error) = segment::create(dir, &header, &content).and_then(|new| new.sync_data())
        {
            let file = segment::path(dir, at.segment);
            tracing::error!(file = %file.display(), %error, "spool: no room to move lines out of a damaged segment");
            self.report.damaged.push(file);
            return Position { offset: newest.bytes, line, ..at };
        }
        let aside = segment::aside_path(dir, at.segment);
        let kept = keep_copy(file, &aside, at.offset, tail).and_then(|()| segment::limit_damaged(dir));
        newest.bytes = at.offset;
        match kept.and_then(|()| file.set_len(at.offset)) {
            Ok(()) => newest.damaged = false,
            Err(error) => {
                drop(fs::remove_file(&aside));
                tracing::error!(file = %aside.display(), %error, "spool: a damaged segment could not be kept yet");
            }
        }
        self.report.damaged.push(aside);
        if batch.is_empty() {
            return Position { line: first_line, ..at };
        }
        self.last_number = header.number;
        let bytes = HEADER_LEN + content.len() as u64;
        self.segments.push_back(Segment::new(&header, bytes));
        Position { segment: header.number, offset: bytes, line }
    }

    /// Renames a damaged segment. If that fails, the next opening finds it again; the relay must start all the same.
    fn keep_aside(&mut self, dir: &Path, number: u64) {
        let kept = segment::set_aside(dir, number).is_ok();
        self.report.damaged.push(if kept { segment::aside_path(dir, number) } else { segment::path(dir, number) });
    }

    fn say(&self, dir: &Path) {
        let Report { segments, bytes, torn_bytes, damaged, stale_cursors, .. } = &self.report;
        let dir = dir.display();
        tracing::info!(%dir, segments, bytes, "spool: open");
        if *torn_bytes > 0 {
            tracing::warn!(%dir, torn_bytes, "spool: cut off a write that a crash had left unfinished");
        }
        if !damaged.is_empty() {
            tracing::error!(%dir, files = ?damaged, "spool: damaged segments were kept aside; lines in them are missing");
        }
        if !stale_cursors.is_empty() {
            tracing::info!(%dir, files = ?stale_cursors, "spool: cursors of forwards that are not configured are ignored");
        }
    }
}

/// Copies a segment: its `good` readable bytes, and then `tail`.
fn keep_copy(mut file: &File, to: &Path, good: u64, tail: &[u8]) -> io::Result<()> {
    let mut copy = files::create(to)?;
    file.rewind()?;
    io::copy(&mut file.take(good), &mut copy)?;
    copy.write_all(tail)
}

/// Reads a segment up to its first fault. Returns the offset behind the last valid record, and the number of lines.
fn scan(file: &File, segment: &Segment, replay: &mut Replay) -> (u64, u64) {
    let (mut good, mut lines) = (HEADER_LEN, 0);
    while let Ok((batch, _)) = segment::read(file, good, segment.bytes, SCAN_BYTES, u64::MAX, segment.key)
        && batch.byte_len() > 0
    {
        batch.records().for_each(|record| replay.record(record));
        good += batch.byte_len() as u64;
        lines += batch.line_count();
    }
    (good, lines)
}

fn segment_bytes(options: &Options) -> u64 {
    options.segment_bytes.min(options.max_bytes / 2)
}

/// The offset in the newest segment that every forward has retired.
fn passed(cursors: &[CursorFile], newest: u64) -> u64 {
    let offset = |cursor: &CursorFile| match cursor.positions() {
        Some(Positions { retired, .. }) if retired.segment == newest => retired.offset,
        _ => 0,
    };
    cursors.iter().map(offset).min().unwrap_or(0)
}

fn check(options: &Options) -> Result<(), OpenError> {
    if options.max_bytes < MIN_BYTES {
        return Err(OpenError::Options("a spool must be allowed at least 64 KiB"));
    }
    let mut names = options.forwards.clone();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(OpenError::Options("two forwards cannot share a name, and with it a cursor"));
    }
    Ok(())
}

/// The file that a relay locks while it has the spool open.
pub(super) const LOCK: &str = "lock";

/// Creates the directory if it is missing, and takes its lock.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    files::create_dir_all(dir).map_err(io_error("create", dir))?;
    let path = dir.join(LOCK);
    let file = files::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

/// Whether the disk has lost data, so that trying again does not help.
fn is_damage(error: &io::Error) -> bool {
    let raw = error.raw_os_error().map(Errno::from_raw);
    matches!(raw, Some(Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG))
}

/// What to do about an error, in the words behind it.
fn advice(path: &Path, error: &io::Error) -> String {
    let uid = nix::unistd::geteuid();
    match error.kind() {
        // `dir` is a file, or something above it is.
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => "; name a directory as `dir`".to_owned(),
        io::ErrorKind::PermissionDenied if !path.exists() => {
            format!(
                "; uid {uid} must be able to make it; make it first (install -d -o {uid} -m 750 {})",
                path.display()
            )
        }
        io::ErrorKind::PermissionDenied => {
            let dir = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
            format!("; it must belong to uid {uid} (chown -R {uid} {})", dir.display())
        }
        _ => String::new(),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { what, path: path.to_owned(), source }
}

/// Bytes per read while looking for the end.
const SCAN_BYTES: usize = 1 << 20;
