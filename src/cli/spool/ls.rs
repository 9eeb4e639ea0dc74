//! `logferry spool ls`: lists the segments of a spool, and the position of each forward.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{Failure, SpoolArguments, failure, print};
use crate::listen::ingest::now;
use crate::record::{Record, UnixMicros};
use crate::spool::{DeadLetterFile, InspectError, Inspection, Left, SegmentFile};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    spool: SpoolArguments,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (inspection, _) = arguments.spool.inspect()?;
    let listing = Listing::of(&inspection).map_err(failure)?;
    print(if arguments.json { listing.json() } else { listing.table() })
}

#[derive(Serialize)]
struct Listing {
    dir: String,
    id: Option<String>,
    segments: Vec<Segment>,
    forwards: Vec<Forward>,
    /// Damaged segments that were set aside.
    damaged: Vec<DamagedFile>,
    /// Files with lines that collectors have refused for good.
    dead_letters: Vec<DeadLetters>,
}

#[derive(Serialize)]
struct DeadLetters {
    forward: String,
    file: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Segment {
    number: u64,
    bytes: u64,
    /// The number of lines, by their line numbers; `None` if the header is damaged.
    lines: Option<u64>,
    /// The timestamp of the first line.
    first: Option<String>,
    /// The timestamp of the last line.
    last: Option<String>,
    session: Option<u32>,
    fault: Option<String>,
}

#[derive(Serialize)]
struct Forward {
    name: String,
    /// `None` if the forward's cursor file is damaged. The forward would then begin with the oldest line.
    segment: Option<u64>,
    offset: Option<u64>,
    line: Option<u64>,
    /// Lines that the collector has not received.
    pending: u64,
    /// Lines that the collector has received, and that may have to be sent again.
    replayable: u64,
    /// The sum of `pending` and `replayable`, under an old key.
    waiting: u64,
    /// The age of the oldest pending line in seconds, by its timestamp.
    oldest_age: Option<u64>,
}

#[derive(Serialize)]
struct DamagedFile {
    file: String,
    bytes: u64,
}

impl Listing {
    fn of(inspection: &Inspection) -> Result<Self, InspectError> {
        let end = inspection.end()?;
        let segments = inspection.segments.iter().map(|file| {
            let fault = file.head.as_ref().err().map(ToString::to_string);
            let session = file.head.as_ref().ok().map(|head| head.session);
            let (first, last) = (file.first_from(SegmentFile::START)?, file.last()?);
            let (first, last) = (first.and_then(timestamp), last.and_then(timestamp));
            let (number, bytes, lines) = (file.number, file.bytes, inspection.numbered(file, end));
            Ok(Segment { number, bytes, lines, first, last, session, fault })
        });
        let segments = segments.collect::<Result<_, InspectError>>()?;
        let forwards = inspection.cursors.iter().map(|cursor| {
            let Left { from, pending, replayable } = inspection.left(cursor, end);
            let file = inspection.segments.iter().find(|file| file.number == from.segment);
            let oldest = match file.filter(|_| pending > 0) {
                Some(file) => file.first_from(from.offset)?,
                None => None,
            };
            let at = cursor.retired();
            Ok(Forward {
                name: cursor.forward.clone(),
                segment: at.map(|at| at.segment),
                offset: at.map(|at| at.offset),
                line: at.map(|at| at.line),
                pending,
                replayable,
                waiting: pending + replayable,
                oldest_age: oldest.and_then(timestamp).and_then(|stamp| age(&stamp)),
            })
        });
        let kept = |file: &SegmentFile| DamagedFile { file: file.path.display().to_string(), bytes: file.bytes };
        let dead_letters = |DeadLetterFile { path, forward, bytes }: &DeadLetterFile| DeadLetters {
            forward: forward.clone(),
            file: path.display().to_string(),
            bytes: *bytes,
        };
        Ok(Self {
            dir: inspection.dir.display().to_string(),
            id: inspection.name(),
            segments,
            forwards: forwards.collect::<Result<_, InspectError>>()?,
            damaged: inspection.kept.iter().map(kept).collect(),
            dead_letters: inspection.dead_letters.iter().map(dead_letters).collect(),
        })
    }

    fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("text and numbers are always JSON") + "\n"
    }

    fn table(&self) -> String {
        let Self { dir, id, segments, forwards, damaged, dead_letters } = self;
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let id = id.as_deref().unwrap_or("without an id");
        let mut out = format!("spool {id} in {dir}: {} segments, {bytes} bytes\n", segments.len());
        let _ =
            writeln!(out, "\n{:>8} {:>12} {:>10}  {:<32} {:<32} session", "segment", "bytes", "lines", "first", "last");
        for Segment { number, bytes, lines, first, last, session, fault } in segments {
            let lines = or_dash(lines.as_ref());
            let (first, last) = (or_dash(first.as_ref()), or_dash(last.as_ref()));
            let session = session.map_or("-".to_owned(), |session| format!("{session:08x}"));
            let fault = fault.as_ref().map(|fault| format!("  {fault}")).unwrap_or_default();
            let _ = writeln!(out, "{number:>8} {bytes:>12} {lines:>10}  {first:<32} {last:<32} {session}{fault}");
        }
        let _ = writeln!(
            out,
            "\n{:<20} {:>8} {:>10} {:>10} {:>10}  age of the oldest",
            "forward", "segment", "offset", "pending", "replayable"
        );
        for Forward { name, segment, offset, pending, replayable, oldest_age, .. } in forwards {
            let age = oldest_age
                .map_or("-".to_owned(), |age| humantime::format_duration(Duration::from_secs(age)).to_string());
            let (segment, offset) = (or_dash(segment.as_ref()), or_dash(offset.as_ref()));
            let _ = writeln!(out, "{name:<20} {segment:>8} {offset:>10} {pending:>10} {replayable:>10}  {age}");
        }
        for DeadLetters { forward, file, bytes } in dead_letters {
            let _ = writeln!(out, "\ndead letters of {forward}, refused by its collector: {file} ({bytes} bytes)");
        }
        for DamagedFile { file, bytes } in damaged {
            let _ = writeln!(out, "\ndamaged, kept for a person to look at: {file} ({bytes} bytes)");
        }
        out
    }
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or("-".to_owned(), T::to_string)
}

/// The timestamp of a line, if it is valid. The line may have been written by any sender.
fn timestamp(line: Vec<u8>) -> Option<String> {
    let record = Record::from_line(&line, "");
    record.time().map(|_| record.stamp_text())
}

/// The age of a timestamp in whole seconds; 0 if it is in the future.
fn age(timestamp: &str) -> Option<u64> {
    let then = UnixMicros::from_rfc3339(timestamp.as_bytes())?;
    u64::try_from((now().0 - then.0).max(0) / 1_000_000).ok()
}
