//! `logferry spool verify`: reads every record, header and cursor, and says what is not as it was written.

use std::fmt::Write as _;

use super::{Failure, Place, failure, print};
use crate::spool::{Look, Piece, Position, SegmentFile};

pub fn run(place: &Place) -> Result<(), Failure> {
    let (look, _) = place.look()?;
    let mut verdict = Verdict::default();
    let mut reports: Vec<Report> = Vec::new();
    for file in &look.segments {
        let Some(report) = Report::of(file)? else { continue };
        reports.push(report);
    }
    for (i, report) in reports.iter().enumerate() {
        verdict.segment(report, reports.get(i + 1));
    }
    let end = reports.iter().rev().find_map(Report::end);
    look.cursors.iter().for_each(|cursor| verdict.cursor(cursor, end));
    look.kept.iter().for_each(|file| verdict.kept(file));
    verdict.summary(&look, &reports);
    print(&verdict.says)?;
    match verdict.damaged {
        0 => Ok(()),
        damaged => Err(Failure::failed(format!("spool: {}: {damaged} files are damaged", look.dir.display()))),
    }
}

/// What one segment consists of.
struct Report<'a> {
    file: &'a SegmentFile,
    lines: u64,
    /// Offset, bytes, reason, and how many lines are good before.
    damage: Vec<(u64, u64, String, u64)>,
    tail: Option<(u64, u64)>,
    /// Offset behind the last good record.
    good: u64,
}

impl<'a> Report<'a> {
    /// `None`: it is gone, because it was delivered meanwhile.
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
        if self.damage.len() < MOST_PLACES {
            self.damage.push((offset, bytes, why, self.lines));
        }
    }

    /// The number behind its last line, as far as that can be told.
    fn next_line(&self) -> Option<u64> {
        Some(self.file.head.as_ref().ok()?.first_line + self.lines)
    }

    fn end(&self) -> Option<Position> {
        Some(Position { segment: self.file.number, offset: self.good, line: self.next_line()? })
    }
}

/// Damaged places of one segment that are told.
const MOST_PLACES: usize = 100;

#[derive(Default)]
struct Verdict {
    says: String,
    /// Files.
    damaged: usize,
}

impl Verdict {
    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.says.write_fmt(text);
        self.says.push('\n');
    }

    fn segment(&mut self, report: &Report<'_>, next: Option<&Report<'_>>) {
        let (path, lines) = (report.file.path.display(), report.lines);
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
        // Only where the next one was written by the same relay, or by one that found all of this.
        let follows = next.and_then(|next| Some(next.file.head.as_ref().ok()?.first_line));
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

    fn cursor(&mut self, cursor: &crate::spool::Cursor, end: Option<Position>) {
        let path = cursor.path.display();
        let Some(at) = cursor.position else {
            self.damaged += 1;
            return self.say(format_args!(
                "{path}: no sound position of this spool; its forward would begin with the oldest line"
            ));
        };
        let Some(end) = end else { return };
        if (at.segment, at.offset) > (end.segment, end.offset) || at.line > end.line {
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

    /// It is out of the way, and was counted when it was found.
    fn kept(&mut self, file: &SegmentFile) {
        self.say(format_args!(
            "{}: kept of earlier damage, {} bytes; `logferry spool cat --damaged` prints what can be read of it",
            file.path.display(),
            file.bytes
        ));
    }

    fn summary(&mut self, look: &Look, reports: &[Report<'_>]) {
        let lines: u64 = reports.iter().map(|report| report.lines).sum();
        let (dir, segments, cursors) = (look.dir.display(), reports.len(), look.cursors.len());
        let verdict = match self.damaged {
            0 => "nothing is damaged".to_owned(),
            damaged => format!("{damaged} files are damaged"),
        };
        self.say(format_args!("{dir}: {segments} segments, {lines} good lines, {cursors} cursors: {verdict}"));
    }
}
