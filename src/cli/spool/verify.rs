//! `logferry spool verify`: reads every record, header and cursor, and reports damage.

use std::fmt::Write as _;

use super::super::progress::Progress;
use super::{Failure, SpoolArguments, failure, print};
use crate::spool::{Cursor, HeadFault, Inspection, Piece, Position, SegmentFile};

pub fn run(spool: &SpoolArguments) -> Result<(), Failure> {
    let (inspection, _) = spool.inspect()?;
    let verdict = Verdict::of(&inspection)?;
    print(&verdict.text)?;
    match verdict.damaged {
        0 => Ok(()),
        damaged => Err(Failure::failed(format!("spool: {}: {damaged} files are damaged", inspection.dir.display()))),
    }
}

/// The content of one segment.
struct SegmentReport<'a> {
    file: &'a SegmentFile,
    lines: u64,
    /// For each damaged place the offset, the bytes, the reason, and the number of good lines before the place.
    damage: Vec<(u64, u64, String, u64)>,
    tail: Option<(u64, u64)>,
    /// The offset after the last good record.
    good: u64,
}

impl<'a> SegmentReport<'a> {
    /// Reads a segment. `None`: the segment has been delivered or evicted meanwhile.
    fn of(file: &'a SegmentFile) -> Result<Option<Self>, Failure> {
        let Some(pieces) = file.pieces(SegmentFile::START).map_err(failure)? else { return Ok(None) };
        let mut report = Self { file, lines: 0, damage: Vec::new(), tail: None, good: SegmentFile::START };
        for piece in pieces {
            match piece {
                Piece::Lines { offset, batch } => {
                    report.lines += batch.line_count();
                    report.good = offset + batch.byte_len() as u64;
                }
                Piece::Damage { offset, bytes, why } => report.note((offset, bytes, why)),
                Piece::Tail { offset, bytes } => report.tail = Some((offset, bytes)),
            }
        }
        Ok(Some(report))
    }

    fn note(&mut self, (offset, bytes, why): (u64, u64, String)) {
        if self.damage.len() < MAX_DAMAGED_PLACES {
            self.damage.push((offset, bytes, why, self.lines));
        }
    }

    /// The number after the segment's last line, if the header is sound.
    fn next_line(&self) -> Option<u64> {
        Some(self.file.head.as_ref().ok()?.first_line + self.lines)
    }

    fn end(&self) -> Option<Position> {
        Some(Position { segment: self.file.number, offset: self.good, line: self.next_line()? })
    }
}

/// Reads all segments, and shows the progress, because a large spool takes minutes.
fn read(segments: &[SegmentFile]) -> Result<Vec<Option<SegmentReport<'_>>>, Failure> {
    let total = segments.iter().map(|file| file.bytes).sum();
    let (mut progress, mut done, mut reports) = (Progress::new(), 0, Vec::with_capacity(segments.len()));
    for file in segments {
        progress.show(done, total, format_args!("spool verify: {} of {} segments", reports.len(), segments.len()));
        reports.push(SegmentReport::of(file)?);
        done += file.bytes;
    }
    Ok(reports)
}

/// The maximum number of damaged places that are reported for one segment.
const MAX_DAMAGED_PLACES: usize = 100;

#[derive(Default)]
struct Verdict {
    text: String,
    /// The number of damaged files.
    damaged: usize,
}

impl Verdict {
    fn of(inspection: &Inspection) -> Result<Self, Failure> {
        let mut verdict = Self::default();
        let reports = read(&inspection.segments)?;
        for (i, report) in reports.iter().enumerate() {
            // The next segment in the listing: its first line is known even if the segment has disappeared meanwhile.
            let next = inspection.segments.get(i + 1).filter(|next| !next.is_torn());
            report.iter().for_each(|report| verdict.segment(report, next));
        }
        // The newest segment with a valid header. Without one, cursors cannot be checked.
        let newest = inspection.segments.iter().rposition(|file| file.head.is_ok());
        let newest = newest.and_then(|newest| reports[newest].as_ref());
        inspection.cursors.iter().for_each(|cursor| verdict.cursor(cursor, newest));
        inspection.kept.iter().for_each(|file| verdict.kept(file));
        let reports: Vec<SegmentReport<'_>> = reports.into_iter().flatten().collect();
        verdict.summary(inspection, &reports);
        Ok(verdict)
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(text);
        self.text.push('\n');
    }

    fn segment(&mut self, report: &SegmentReport<'_>, next: Option<&SegmentFile>) {
        let (path, lines) = (report.file.path.display(), report.lines);
        if report.file.is_torn() {
            return self.say(format_args!(
                "{path}: {}; that is normal while a relay writes and after a crash, and the next start removes it",
                HeadFault::Torn
            ));
        }
        let mut damaged = false;
        if let Err(fault) = &report.file.head {
            damaged = true;
            self.say(format_args!("{path}: {fault}; {lines} lines in it are good"));
        }
        for (offset, bytes, why, before) in &report.damage {
            damaged = true;
            self.say(format_args!(
                "{path}: damaged at offset {offset}, {bytes} bytes ({why}); {before} lines are good before it, {} behind",
                lines - before
            ));
        }
        // This finds only lines that the writer of the next segment knew: the same relay, or a relay that had found all lines
        // of this one.
        let follows = next.and_then(|next| Some(next.head.as_ref().ok()?.first_line));
        let missing = follows.zip(report.next_line()).map_or(0, |(follows, next)| follows.saturating_sub(next));
        if missing > 0 {
            damaged = true;
            self.say(format_args!("{path}: {missing} lines are missing before the next segment begins"));
        }
        match report.tail {
            Some((offset, bytes)) if next.is_none() => self.say(format_args!(
                "{path}: a torn tail at offset {offset}, {bytes} bytes: a write that has not finished; that is normal while \
                 a relay writes and after a crash, and the next start cuts it off; {lines} lines are good before it"
            )),
            Some((offset, bytes)) if missing > 0 => {
                self.say(format_args!("{path}: damaged at offset {offset}, {bytes} bytes up to its end; {lines} lines are good before it"));
            }
            Some((offset, bytes)) => {
                self.say(format_args!("{path}: a torn tail at offset {offset}, {bytes} bytes; no line is missing"));
            }
            None => {}
        }
        self.damaged += usize::from(damaged);
    }

    fn cursor(&mut self, cursor: &Cursor, newest: Option<&SegmentReport<'_>>) {
        let path = cursor.path.display();
        let (Some(retired), Some(acknowledged)) = (cursor.retired(), cursor.acknowledged()) else {
            self.damaged += 1;
            return self.say(format_args!(
                "{path}: no sound position of this spool; its forward would begin with the oldest line"
            ));
        };
        let Some((newest, end)) = newest.and_then(|newest| Some((newest, newest.end()?))) else { return };
        // On a full disk the relay truncates the newest segment when all of it has been delivered.
        let is_emptied = |at: &Position| newest.lines == 0 && at.segment == end.segment;
        let is_behind = |at: &Position| (at.segment, at.offset) > (end.segment, end.offset) || at.line > end.line;
        if let Some(at) = [retired, acknowledged].iter().find(|at| !is_emptied(at) && is_behind(at)) {
            self.damaged += 1;
            self.say(format_args!(
                "{path}: points behind the end, to line {} at offset {} of segment {}, and the last line is {}: a power cut has \
                 taken lines that were delivered before, or the segments are older than the cursor",
                at.line,
                at.offset,
                at.segment,
                end.line.saturating_sub(1)
            ));
        }
    }

    /// Reports a damaged segment that was moved aside. Its lines were counted when the damage was found.
    fn kept(&mut self, file: &SegmentFile) {
        self.say(format_args!(
            "{}: kept of earlier damage, {} bytes; `logferry spool cat --damaged` prints what can be read of it",
            file.path.display(),
            file.bytes
        ));
    }

    fn summary(&mut self, inspection: &Inspection, reports: &[SegmentReport<'_>]) {
        let lines: u64 = reports.iter().map(|report| report.lines).sum();
        let (dir, segments, cursors) = (inspection.dir.display(), reports.len(), inspection.cursors.len());
        let verdict = match self.damaged {
            0 => "nothing is damaged".to_owned(),
            damaged => format!("{damaged} files are damaged"),
        };
        self.say(format_args!("{dir}: {segments} segments, {lines} good lines, {cursors} cursors: {verdict}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::metrics::Metrics;
    use crate::spool::{Batch, Options, Spool};

    /// A spool with at least three segments, all of which one forward has delivered.
    fn delivered() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        // The other forward keeps the segments.
        let mut options = Options::new(dir.path(), 1 << 20, vec!["a".to_owned(), "b".to_owned()]);
        options.segment_bytes = 1 << 10;
        let mut spool = Spool::open(options, &Metrics::new()).expect("a spool");
        for number in 0..30 {
            let mut batch = Batch::new();
            batch.push(|out| out.extend(format!("<14>1 {number} {}", "x".repeat(100)).bytes()));
            spool.writer.append(&mut [batch]);
        }
        while let Some(chunk) = spool.readers[0].next(1 << 20).expect("sound") {
            let end = chunk.lines().last().expect("a line").1;
            spool.readers[0].retire(end);
        }
        dir
    }

    fn inspection(dir: &tempfile::TempDir) -> Inspection {
        Inspection::of(dir.path()).expect("a spool")
    }

    #[track_caller]
    fn damaged(inspection: &Inspection, expected: usize) {
        let Ok(Verdict { text, damaged }) = Verdict::of(inspection) else { panic!("it can be read") };
        assert_eq!(damaged, expected, "{text}");
    }

    /// Segments that are delivered or evicted between listing and reading, one or all of them.
    #[test]
    fn segments_that_go_meanwhile_are_not_missed() {
        for gone in [1..2, 0..2, 2..usize::MAX, 0..usize::MAX] {
            let dir = delivered();
            let inspection = inspection(&dir);
            assert!(inspection.segments.len() >= 3);
            damaged(&inspection, 0);
            for file in inspection.segments.iter().take(gone.end).skip(gone.start) {
                fs::remove_file(&file.path).expect("removed");
            }
            damaged(&inspection, 0);
        }
    }

    /// Segments that are neither listed nor there are reported as missing.
    #[test]
    fn segments_that_were_gone_before_are_missed() {
        let dir = delivered();
        fs::remove_file(&inspection(&dir).segments[1].path).expect("removed");
        damaged(&inspection(&dir), 1);
        let dir = delivered();
        fs::remove_file(&inspection(&dir).segments.pop().expect("a segment").path).expect("removed");
        damaged(&inspection(&dir), 1);
    }

    #[test]
    fn a_newest_segment_without_a_header_is_not_finished() {
        for (bytes, expected) in [(0, 0), (40, 0), (64, 0), (65, 1)] {
            let dir = delivered();
            fs::write(dir.path().join("00000000000000000099.seg"), vec![0; bytes]).expect("written");
            damaged(&inspection(&dir), expected);
        }
        // An empty segment that is followed by another one had lines once.
        let dir = delivered();
        fs::write(&inspection(&dir).segments[1].path, "").expect("written");
        damaged(&inspection(&dir), 1);
    }
}
