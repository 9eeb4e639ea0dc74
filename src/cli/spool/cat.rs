//! `logferry spool cat`: prints the lines of a spool, oldest first, each on one line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::thread;
use std::time::Duration;

use super::{Failure, Filter, SpoolArguments, failure};
use crate::cli::complain;
use crate::record::{Format, Record, append_escaped, append_on_one_line, render, render_text};
use crate::spool::{DeadLetter, HeadFault, Inspection, Piece, SegmentFile};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    spool: SpoolArguments,

    #[command(flatten)]
    filter: Filter,

    /// rfc5424 (as the lines are, the default), rfc3164, json, or text (time, host, container, severity, message)
    #[arg(long, value_name = "FORMAT", value_parser = line_format)]
    format: Option<LineFormat>,

    /// Only lines that the collector of this forward has not got
    #[arg(long, alias = "waiting", value_name = "FORWARD")]
    pending: Option<String>,

    /// What can be read of damaged segments that were kept aside, instead of the others
    #[arg(long, conflicts_with_all = ["pending", "follow"])]
    damaged: bool,

    /// What the collector of this forward has refused for good, and why, as JSON; with --format the lines alone
    #[arg(long, value_name = "FORWARD", conflicts_with_all = ["pending", "damaged", "follow"])]
    dead: Option<String>,

    /// Go on with lines that a running relay adds, until interrupted
    #[arg(long, short)]
    follow: bool,
}

/// How often `--follow` looks for new lines.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.filter.check()?;
    let (inspection, sd_id) = arguments.spool.inspect()?;
    let mut printer = Printer {
        out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        is_terminal: io::stdout().is_terminal(),
        arguments,
        sd_id,
        scratch: Vec::new(),
        text: Vec::new(),
    };
    match printer.run(inspection) {
        Ok(()) => Ok(()),
        // A reader that has seen enough (`| head`) is not an error.
        Err(CatError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(CatError::Output(error)) => Err(Failure::failed(format!("cannot write to stdout: {error}"))),
        Err(CatError::Spool(failure)) => Err(failure),
    }
}

/// Why the command ends early.
enum CatError {
    Output(io::Error),
    Spool(Failure),
}

impl From<io::Error> for CatError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Failure> for CatError {
    fn from(failure: Failure) -> Self {
        Self::Spool(failure)
    }
}

/// A segment's number, and an offset in the segment.
type SegmentOffset = (u64, u64);

struct Printer<'a> {
    out: BufWriter<StdoutLock<'a>>,
    is_terminal: bool,
    arguments: &'a Arguments,
    sd_id: String,
    scratch: Vec<u8>,
    text: Vec<u8>,
}

impl Printer<'_> {
    fn run(&mut self, mut inspection: Inspection) -> Result<(), CatError> {
        if self.arguments.damaged {
            for file in &inspection.kept {
                self.segment(file, SegmentFile::START, true)?;
            }
            return Ok(self.out.flush()?);
        }
        if let Some(forward) = &self.arguments.dead {
            return self.dead_letters(&inspection, forward);
        }
        let mut from = self.start(&inspection)?;
        loop {
            let first = from.0;
            for file in inspection.segments.iter().filter(|file| file.number >= first) {
                let is_last = inspection.segments.last().is_some_and(|last| last.number == file.number);
                let offset = if file.number == from.0 { from.1 } else { SegmentFile::START };
                from = (file.number, self.segment(file, offset, !is_last)?);
            }
            self.out.flush()?;
            if !self.arguments.follow {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
            inspection = Inspection::of(&inspection.dir).map_err(failure)?;
        }
    }

    /// Prints the dead letters of a forward, oldest first. An incomplete dead letter at the end is left out.
    fn dead_letters(&mut self, inspection: &Inspection, forward: &str) -> Result<(), CatError> {
        let Some(found) = inspection.dead_letters.iter().find(|file| file.forward == forward) else {
            let known: Vec<&str> = inspection.dead_letters.iter().map(|file| file.forward.as_str()).collect();
            let (dir, known) =
                (inspection.dir.display(), if known.is_empty() { "none".to_owned() } else { known.join(", ") });
            return Err(CatError::Spool(Failure::usage(format!(
                "spool cat: there are no dead letters of a forward {forward} in {dir}; there is: {known}"
            ))));
        };
        let path = found.path.display();
        let failed =
            |error: io::Error| CatError::Spool(Failure::config(&format!("spool: cannot read {path}: {error}")));
        let mut file = BufReader::new(File::open(&found.path).map_err(failed)?);
        let mut text = Vec::new();
        while file.read_until(b'\n', &mut text).map_err(failed)? > 0 {
            match DeadLetter::read(&text) {
                Some(letter) if self.arguments.format.is_some() => self.line(&letter.line)?,
                Some(letter) => {
                    if self.arguments.filter.matches(&letter.line, &self.sd_id) {
                        self.out.write_all(&text)?;
                    }
                }
                None if !text.ends_with(b"\n") => {}
                None => complain(&format!("spool: {path} has a line that is no dead letter")),
            }
            text.clear();
        }
        Ok(self.out.flush()?)
    }

    /// The start of the output: the oldest line, or the cursor of the forward of `--pending`.
    fn start(&self, inspection: &Inspection) -> Result<SegmentOffset, Failure> {
        let Some(forward) = &self.arguments.pending else { return Ok((0, SegmentFile::START)) };
        let Some(cursor) = inspection.cursors.iter().find(|cursor| cursor.forward == *forward) else {
            let known: Vec<&str> = inspection.cursors.iter().map(|cursor| cursor.forward.as_str()).collect();
            let (dir, known) =
                (inspection.dir.display(), if known.is_empty() { "none".to_owned() } else { known.join(", ") });
            return Err(Failure::usage(format!(
                "spool cat: no forward {forward} has a cursor in {dir}; there is: {known}"
            )));
        };
        let from = inspection.left(cursor, inspection.end().map_err(failure)?).from;
        Ok((from.segment, from.offset))
    }

    /// Prints a segment from an offset on, and returns the offset after the last good record. A segment that has been
    /// delivered meanwhile no longer exists, and prints nothing.
    fn segment(&mut self, file: &SegmentFile, from: u64, is_whole: bool) -> Result<u64, CatError> {
        let mut behind = from;
        if let Err(fault @ (HeadFault::Foreign | HeadFault::Version(_) | HeadFault::Number(_))) = &file.head {
            complain(&format!("spool: {} is left out: {fault}", file.path.display()));
            return Ok(behind);
        }
        for piece in file.pieces(from).map_err(failure)?.into_iter().flatten() {
            match piece {
                Piece::Lines { offset, batch } => {
                    behind = offset + batch.byte_len() as u64;
                    batch.lines().try_for_each(|line| self.line(line))?;
                }
                Piece::Damage { offset, bytes, why } => {
                    behind = offset + bytes;
                    let path = file.path.display();
                    complain(&format!(
                        "spool: {path} is damaged at offset {offset}: {bytes} bytes are skipped ({why})"
                    ));
                }
                // A segment that is followed by another one does not grow any more.
                Piece::Tail { offset, bytes } if is_whole => behind = offset + bytes,
                Piece::Tail { .. } => {}
            }
        }
        Ok(behind)
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.arguments.filter.matches(line, &self.sd_id) {
            return Ok(());
        }
        self.scratch.clear();
        match self.arguments.format.unwrap_or(LineFormat::As(Format::Rfc5424)) {
            LineFormat::Text => render_text(&Record::from_line(line, &self.sd_id), &mut self.scratch),
            LineFormat::As(format) => render(line, format, &self.sd_id, &mut self.scratch),
        }
        self.text.clear();
        // A message must not drive the terminal.
        match self.is_terminal {
            true => append_escaped(&self.scratch, &mut self.text),
            false => append_on_one_line(&self.scratch, &mut self.text),
        }
        self.text.push(b'\n');
        self.out.write_all(&self.text)
    }
}

#[derive(Clone, Copy)]
enum LineFormat {
    As(Format),
    /// Time, host, container, severity and message, for people.
    Text,
}

fn line_format(text: &str) -> Result<LineFormat, String> {
    match text {
        "text" => Ok(LineFormat::Text),
        other => other.parse().map(LineFormat::As).map_err(|_| "write rfc5424, rfc3164, json or text".to_owned()),
    }
}
