//! Counts messages that arrived once, twice, late or never, at the end or while they arrive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::load::STREAMS;
use super::support::relay::segments;

/// Length of a mark, in bytes.
const MARK: usize = "@00:00000000;".len();

/// The mark that identifies a message.
pub fn mark(stream: usize, number: usize) -> String {
    format!("@{stream:02}:{number:08};")
}

/// All marks in these bytes, each with its end.
fn marks(bytes: &[u8]) -> impl Iterator<Item = (usize, usize, usize)> {
    memchr::memchr_iter(b'@', bytes).filter_map(|at| {
        let mark = bytes.get(at..at + MARK)?;
        let is_one = mark[3] == b':' && mark[MARK - 1] == b';';
        let text = std::str::from_utf8(mark).ok().filter(|_| is_one)?;
        Some((text[1..3].parse().ok()?, text[4..MARK - 1].parse().ok()?, at + MARK))
    })
}

#[derive(Clone, Default)]
pub struct Tally {
    /// How often each number has arrived, by stream.
    counts: [Vec<u8>; STREAMS],
    pub unique: usize,
    pub repeated: usize,
    /// Messages that first arrived after a later one.
    pub late: usize,
}

impl Tally {
    pub fn add(&mut self, stream: usize, number: usize) {
        let counts = &mut self.counts[stream];
        if number < counts.len() && counts[number] > 0 {
            self.repeated += 1;
        } else {
            self.unique += 1;
            self.late += usize::from(number + 1 < counts.len());
        }
        if counts.len() <= number {
            counts.resize(number + 1, 0);
        }
        counts[number] = counts[number].saturating_add(1);
    }

    pub fn add_all(&mut self, bytes: &[u8]) {
        marks(bytes).for_each(|(stream, number, _)| self.add(stream, number));
    }

    /// Merges the counts of two collectors. The order is judged separately for each.
    pub fn and(mut self, other: &Self) -> Self {
        let late = self.late + other.late;
        for (stream, counts) in other.counts.iter().enumerate() {
            for (number, count) in counts.iter().enumerate() {
                (0..*count).for_each(|_| self.add(stream, number));
            }
        }
        self.late = late;
        self
    }

    /// The number after the highest one that has arrived, by stream.
    pub fn reached(&self) -> [usize; STREAMS] {
        self.counts.each_ref().map(Vec::len)
    }

    /// The sent messages that have not arrived.
    pub fn missing(&self, sent: [usize; STREAMS]) -> Vec<(usize, usize)> {
        let of = |stream: usize| (0..sent[stream]).map(move |number| (stream, number));
        let came = |&(stream, number): &(usize, usize)| self.counts[stream].get(number).is_some_and(|count| *count > 0);
        (0..STREAMS).flat_map(of).filter(|one| !came(one)).collect()
    }
}

/// Reads growing files: an rsyslog's output, or the segments of a spool.
pub struct Watch {
    at: Place,
    /// How far each file was read.
    read: BTreeMap<PathBuf, u64>,
    pub seen: Tally,
}

pub enum Place {
    File(PathBuf),
    Spool(PathBuf),
    /// All files of a directory.
    Files(PathBuf),
}

impl Watch {
    pub fn new(at: Place) -> Self {
        Self { at, read: BTreeMap::new(), seen: Tally::default() }
    }

    pub fn look(&mut self) {
        let files = match &self.at {
            Place::File(file) => vec![file.clone()],
            Place::Spool(dir) => segments(dir),
            Place::Files(dir) => files(dir),
        };
        for file in files {
            let from = self.read.get(&file).copied().unwrap_or(0);
            let Some(bytes) = read_from(&file, from) else { continue };
            // An unfinished mark is left for the next look.
            let mut end = bytes.len().saturating_sub(MARK - 1);
            for (stream, number, behind) in marks(&bytes) {
                self.seen.add(stream, number);
                end = end.max(behind);
            }
            self.read.insert(file, from + end as u64);
        }
    }
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_file()).collect()
}

fn read_from(file: &Path, from: u64) -> Option<Vec<u8>> {
    let file = File::open(file).ok()?;
    let length = file.metadata().ok()?.len().checked_sub(from)?;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    // The file may be truncated at the same time.
    file.read_exact_at(&mut bytes, from).ok()?;
    Some(bytes)
}
