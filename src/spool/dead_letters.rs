//! Dead letters: the lines of one forward that its collector has refused for good, in a file for people to read.
//!
//! ```text
//! dead-letter/central.jsonl    {"time":"…","spool":"…","session":1,"number":42,"why":"550 too long","line":"<30>1 …"}
//! ```
//!
//! Each line of the file is a JSON object: the time of the refusal (RFC 3339, UTC), the identity of the line (spool,
//! session and number), the collector's reason, and the line itself. If the line is not UTF-8, each invalid byte is
//! written as `\xHH` and each backslash as `\\`, and the object has `"escaped":["line"]`.
//!
//! The relay syncs a letter before it passes the line. It writes each letter once, even if it crashed in between:
//! before the first write it reads the numbers in the file, and cuts off a torn letter at the end. The relay opens the
//! file for each letter, so that the file can be moved away at any time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::cursor::{escape_name, unescape_name};
use crate::files;
use crate::sorted::sort_by;

/// The most that one forward's dead letters take, in bytes.
pub const MAX_DEAD_LETTER_BYTES: u64 = 64 << 20;
/// The dead letters of all forwards take at most this part of the spool's limit (a quarter), and count towards the
/// limit.
pub(super) const SHARE: u64 = 4;

/// Bytes at the end of a file that are searched for the newest letters.
const NEWEST_BYTES: u64 = 256 << 10;

const DIR: &str = "dead-letter";
const END: &str = ".jsonl";

/// One forward's file.
pub(super) struct DeadLetters {
    path: PathBuf,
    /// The spool's id, as text.
    spool: String,
    /// The length of the file after the last letter; `None`: the file must be read first.
    bytes: Option<u64>,
    /// Number and session of the letters whose lines may be refused again.
    written: BTreeSet<(u64, u32)>,
}

/// A line that was refused.
#[derive(Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The time of the refusal, in RFC 3339.
    pub time: String,
    /// The spool's id, as text. Together with session and number it identifies the line for good.
    pub spool: String,
    pub session: u32,
    pub number: u64,
    /// The collector's reason, in its own words.
    pub why: String,
    pub line: Vec<u8>,
}

/// The dead letters of one forward, as found in the directory.
pub struct DeadLetterFile {
    pub path: PathBuf,
    pub forward: String,
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    time: String,
    spool: String,
    session: u32,
    number: u64,
    why: String,
    line: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    escaped: Vec<String>,
}

impl DeadLetters {
    pub fn new(dir: &Path, forward: &str, spool: String) -> Self {
        Self { path: path(dir, forward), spool, bytes: None, written: BTreeSet::new() }
    }

    /// Writes and syncs a letter. Returns the length of the file.
    ///
    /// `from`: the first line that may be refused again. `room`: the most that the file may take, in bytes.
    pub fn write(
        &mut self,
        (session, number): (u32, u64),
        (why, line): (&str, &[u8]),
        from: u64,
        room: u64,
    ) -> io::Result<u64> {
        self.written = self.written.split_off(&(from, 0));
        let mut file = self.open()?;
        let known = self.bytes.take();
        let mut bytes = file.metadata()?.len();
        if known != Some(bytes) {
            bytes = self.look(&file, from)?;
        }
        if !self.written.contains(&(number, session)) {
            let letter = self.letter((session, number), why, line);
            if bytes + letter.len() as u64 > room {
                let (path, why) = (self.path.display(), format!("they may take {room} bytes"));
                return Err(io::Error::new(ErrorKind::StorageFull, format!("{path} is full ({why}); move it away")));
            }
            if let Err(error) = file.write_all(&letter).and_then(|()| file.sync_data()) {
                // Half a letter would make the next one unreadable.
                drop(file.set_len(bytes));
                return Err(named(&self.path, &error));
            }
            bytes += letter.len() as u64;
            self.written.insert((number, session));
        }
        self.bytes = Some(bytes);
        Ok(bytes)
    }

    /// Forgets a letter, so that a line that is refused again is written again.
    pub fn forget(&mut self, (session, number): (u32, u64)) {
        self.written.remove(&(number, session));
    }

    fn open(&self) -> io::Result<File> {
        let failed = |error: io::Error| named(&self.path, &error);
        let mut options = files::options();
        match options.read(true).append(true).open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened.map_err(failed),
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        files::create_dir_all(dir).map_err(failed)?;
        let file = options.create(true).open(&self.path).map_err(failed)?;
        // A sync of the file does not sync its name: that needs a sync of the directory.
        for dir in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        Ok(file)
    }

    /// Reads the numbers of the letters whose lines may be refused again, and cuts off a torn letter at the end.
    /// Returns the length of the file.
    fn look(&mut self, file: &File, from: u64) -> io::Result<u64> {
        let (mut reader, mut line, mut good) = (BufReader::with_capacity(64 << 10, file), Vec::new(), 0);
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            good += line.len() as u64;
            if let Some((spool, session, number)) = number(&line)
                && spool == self.spool.as_bytes()
                && number >= from
            {
                self.written.insert((number, session));
            }
            line.clear();
        }
        if file.metadata()?.len() > good {
            file.set_len(good)?;
        }
        // A relay that was killed may have written letters and not synced them.
        file.sync_data()?;
        Ok(good)
    }

    fn letter(&self, (session, number): (u32, u64), why: &str, line: &[u8]) -> Vec<u8> {
        let (line, escaped) = match std::str::from_utf8(line) {
            Ok(text) => (text.to_owned(), Vec::new()),
            Err(_) => (escape(line), vec!["line".to_owned()]),
        };
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let written = Written { time, spool: self.spool.clone(), session, number, why: why.to_owned(), line, escaped };
        let json = serde_json::to_string(&written).expect("text and numbers are always JSON");
        // serde_json escapes only the control characters below U+0020.
        let mut letter = String::with_capacity(json.len() + 1);
        for character in json.chars() {
            match character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
                true => letter.push_str(&format!("\\u{:04x}", u32::from(character))),
                false => letter.push(character),
            }
        }
        letter.push('\n');
        letter.into_bytes()
    }
}

impl DeadLetter {
    /// Parses a line of a file; `None` if it is not a letter.
    pub fn read(text: &[u8]) -> Option<Self> {
        let Written { time, spool, session, number, why, line, escaped } = serde_json::from_slice(text).ok()?;
        let line = if escaped.is_empty() { line.into_bytes() } else { unescape(&line) };
        Some(Self { time, spool, session, number, why, line })
    }
}

/// The dead letter files in a spool's directory, sorted by the forward's name.
pub(super) fn find(dir: &Path) -> io::Result<Vec<DeadLetterFile>> {
    let entries = match fs::read_dir(dir.join(DIR)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(END));
        let Some(forward) = name.map(unescape_name) else { continue };
        match fs::metadata(&path) {
            Ok(file) => found.push(DeadLetterFile { path, forward, bytes: file.len() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sort_by(&mut found, |a, b| a.forward.cmp(&b.forward));
    Ok(found)
}

/// The newest `max` letters in the last [`NEWEST_BYTES`] of a forward's file, the newest first. Empty if there is no
/// file.
pub(super) fn newest(dir: &Path, forward: &str, max: usize) -> io::Result<Vec<DeadLetter>> {
    let path = path(dir, forward);
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(&path)?;
        let start = file.metadata()?.len().saturating_sub(NEWEST_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut text = Vec::new();
        file.take(NEWEST_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    match read() {
        // The first line may have lost its beginning, and the last one its end: neither is then parsed as a letter.
        Ok(text) => Ok(text.rsplit(|byte| *byte == b'\n').filter_map(DeadLetter::read).take(max).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(named(&path, &error)),
    }
}

/// The path of a forward's dead letters.
pub fn path(dir: &Path, forward: &str) -> PathBuf {
    dir.join(DIR).join(escape_name(forward) + END)
}

/// Spool, session and number of a letter. They come before all fields that a sender or a collector can choose.
fn number(letter: &[u8]) -> Option<(&[u8], u32, u64)> {
    let behind = |key: &str| memchr::memmem::find(letter, key.as_bytes()).map(|at| &letter[at + key.len()..]);
    let digits = |text: &[u8]| {
        let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(&text[..end]).ok()?.parse::<u64>().ok()
    };
    let spool = behind("\"spool\":\"")?;
    let spool = &spool[..memchr::memchr(b'"', spool)?];
    let session = u32::try_from(digits(behind("\"session\":")?)?).ok()?;
    Some((spool, session, digits(behind("\"number\":")?)?))
}

/// Escapes bytes that are not UTF-8, as text.
fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\\\"));
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        let hex = part.strip_prefix('x').and_then(|rest| rest.split_at_checked(2));
        match hex.and_then(|(digits, rest)| Some((u8::from_str_radix(digits, 16).ok()?, rest))) {
            Some((byte, rest)) => bytes.extend([&[byte], rest.as_bytes()].concat()),
            // An escaped backslash splits into two parts, the first of them empty.
            None if part.is_empty() => {
                bytes.push(b'\\');
                bytes.extend(parts.next().unwrap_or_default().as_bytes());
            }
            None => bytes.extend(part.as_bytes()),
        }
    }
    bytes
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tempfile::TempDir;

    const ROOM: u64 = 1 << 20;

    fn letters(dir: &TempDir) -> DeadLetters {
        DeadLetters::new(dir.path(), "central", "00ff".to_owned())
    }

    fn read(dir: &TempDir) -> Vec<DeadLetter> {
        let text = fs::read(path(dir.path(), "central")).expect("a file");
        text.split_inclusive(|byte| *byte == b'\n').map(|line| DeadLetter::read(line).expect("a letter")).collect()
    }

    fn numbers(dir: &TempDir) -> Vec<(u32, u64)> {
        read(dir).iter().map(|letter| (letter.session, letter.number)).collect()
    }

    #[test]
    fn a_letter_says_which_line_why_and_what() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = b"<30>1 - - - - - - caf\xe9 \\x41 \x7f";
        let bytes = letters(&dir).write((7, 42), ("550 \u{2028}no", line), 0, ROOM).expect("written");
        let text = fs::read_to_string(path(dir.path(), "central")).expect("text");
        assert_eq!(text.len() as u64, bytes);
        let (time, rest) = text.split_once("Z\",").expect("a time");
        assert!(time.starts_with("{\"time\":\"2"), "{time}");
        let expected = r#""spool":"00ff","session":7,"number":42,"why":"550 \u2028no","#.to_owned()
            + r#""line":"<30>1 - - - - - - caf\\xe9 \\\\x41 \u007f","escaped":["line"]}"#;
        assert_eq!(rest, expected + "\n");
        assert_eq!((&read(&dir)[0].line[..], &*read(&dir)[0].why), (&line[..], "550 \u{2028}no"));
    }

    #[test]
    fn each_is_written_once_by_number_also_after_a_crash() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = letters(&dir);
        for (session, number) in [(1, 5), (1, 6), (1, 5), (2, 6)] {
            first.write((session, number), ("why", b"line"), 5, ROOM).expect("written");
        }
        assert_eq!(numbers(&dir), [(1, 5), (1, 6), (2, 6)]);
        // A crash has torn the last letter.
        let file = path(dir.path(), "central");
        let text = fs::read(&file).expect("a file");
        fs::write(&file, &text[..text.len() - 3]).expect("written");
        let mut second = letters(&dir);
        for (session, number) in [(1, 6), (2, 6), (2, 7)] {
            second.write((session, number), ("why", b"line"), 6, ROOM).expect("written");
        }
        assert_eq!(numbers(&dir), [(1, 5), (1, 6), (2, 6), (2, 7)]);
        // A letter with the same numbers, of another spool that was here before.
        let mut other = DeadLetters::new(dir.path(), "central", "00fe".to_owned());
        other.write((1, 6), ("why", b"line"), 0, ROOM).expect("written");
        assert_eq!(numbers(&dir).len(), 5);
    }

    #[test]
    fn a_full_file_is_named_and_one_that_is_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut letters = letters(&dir);
        let bytes = letters.write((1, 1), ("why", b"line"), 0, ROOM).expect("written");
        let full = letters.write((1, 2), ("why", b"line"), 0, 2 * bytes - 1).expect_err("full");
        let says = full.to_string();
        assert!(full.kind() == ErrorKind::StorageFull && says.contains("central.jsonl is full"), "{says}");
        // A letter that is written already needs no room.
        assert_eq!(letters.write((1, 1), ("why", b"line"), 0, 0).expect("it is there"), bytes);
        fs::rename(path(dir.path(), "central"), dir.path().join("aside")).expect("moved");
        letters.write((1, 1), ("why", b"line"), 0, ROOM).expect("it is there, elsewhere");
        assert_eq!(letters.write((1, 2), ("why", b"line"), 0, ROOM).expect("written"), bytes);
        assert_eq!(numbers(&dir), [(1, 2)]);
        let found = find(dir.path()).expect("a directory");
        assert_eq!((found.len(), &*found[0].forward, found[0].bytes), (1, "central", bytes));
    }

    #[test]
    fn the_newest_letters_come_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let newest = |max| -> Vec<u64> {
            newest(dir.path(), "central", max).expect("readable").iter().map(|letter| letter.number).collect()
        };
        assert_eq!(newest(9), [0; 0]);
        let line = [b'x'; 100_000];
        for number in 1..=5 {
            letters(&dir).write((1, number), ("why", &line), 0, ROOM).expect("written");
        }
        assert_eq!((newest(9), newest(1)), (vec![5, 4], vec![5]));
    }

    #[test]
    fn nowhere_to_write_is_an_error_with_a_name() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(DIR), b"a file").expect("written");
        let error = letters(&dir).write((1, 1), ("why", b"line"), 0, ROOM).expect_err("no directory");
        assert!(error.to_string().contains("central.jsonl: "), "{error}");
    }

    proptest! {
        #[test]
        fn every_line_comes_back(line in prop::collection::vec(any::<u8>(), 1..100), why in ".*") {
            let letters = DeadLetters::new(Path::new("/"), "central", "00ff".to_owned());
            let text = letters.letter((1, u64::MAX), &why, &line);
            prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(number(&text), Some((&b"00ff"[..], 1, u64::MAX)));
            let letter = DeadLetter::read(&text).expect("a letter");
            prop_assert_eq!((letter.line, letter.why, letter.number), (line, why, u64::MAX));
        }
    }
}
