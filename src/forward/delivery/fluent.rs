//! The Forward protocol: lines go in chunks, and the collector acknowledges each chunk by its name. The protocol has no refusals: a
//! collector acknowledges, stays silent, or ends the connection.
//!
//! Lines are cut into parcels, and a parcel has one chunk for each tag in it. A parcel is delivered when all its chunks are
//! acknowledged, in whatever order. If parcels had no answer when a connection ended, the next connection makes the same parcels
//! again. Their chunks have the same names, and a collector that looks at names leaves out chunks that it has.
//!
//! Lines in flight at the end of more than one connection are sent in smaller parcels, one at a time, see `suspect`. A line that
//! ends connections when it is alone is given up if the collector has taken another line on each of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::patience::Patience;
use super::refusals::Verdict;
use super::suspect::Care;
use super::{Broken, DeliveryError, Progress, Reason, Refusals, Rejected};
use crate::forward::filtered_chunk::FilteredChunk;
use crate::forward::tcp::TcpSample;
use crate::protocol::fluent::{Answers, BadAnswer, ChunkName, Greeting, Packer, acknowledged, read_hello};
use crate::spool::Position;

/// The most parcels in flight. This many may come twice when a connection breaks.
const WINDOW: usize = 4;
/// Why a line is given up.
const ENDS_CONNECTIONS: &str = "the collector ends each connection on which it gets this line";

pub struct FluentDelivery {
    packer: Packer,
    /// `None`: the handshake is over, or the collector asks for none.
    greeting: Option<Greeting>,
    answers: Answers,
    /// Bytes of lines in a parcel.
    batch: usize,
    patience: Patience,
    /// Parcels without a verdict, in the spool's order.
    parcels: VecDeque<Parcel>,
    /// Parcels that wait for an answer; `waiting <= WINDOW`.
    waiting: usize,
    /// The lines of the parcels that are not sent yet.
    held: Option<(FilteredChunk, Care)>,
    /// How many chunks were acknowledged.
    count: u64,
    output: Vec<u8>,
}

/// Lines that get their verdict together.
struct Parcel {
    /// The session (one opening of the spool) that numbered the lines.
    session: u32,
    /// The number of the first line, and the number behind the last line.
    first: u64,
    end: u64,
    lines: usize,
    /// The position in the spool behind the lines, and behind filtered lines that follow them.
    reaches: Position,
    /// The chunks without an answer; `None`: the parcel is not sent yet.
    chunks: Option<Vec<ChunkName>>,
    /// The line, if it is alone in the parcel because it may be what ends connections.
    suspect: Option<Vec<u8>>,
}

impl Parcel {
    fn is_waiting(&self) -> bool {
        self.chunks.as_ref().is_some_and(|chunks| !chunks.is_empty())
    }
}

impl FluentDelivery {
    /// `greeting`: for a collector that asks for a shared key.
    pub fn new(packer: Packer, greeting: Option<Greeting>, (batch, patience): (usize, Duration), now: Instant) -> Self {
        Self {
            packer,
            greeting,
            answers: Answers::default(),
            batch,
            patience: Patience::new(patience, now),
            parcels: VecDeque::new(),
            waiting: 0,
            held: None,
            count: 0,
            output: Vec::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.greeting.is_none()
    }

    pub fn has_capacity(&self) -> bool {
        self.is_open() && self.held.is_none() && self.output.is_empty() && self.waiting < WINDOW
    }

    /// Bytes to take from the spool at once.
    pub fn batch_bytes(&self) -> usize {
        self.batch
    }

    pub fn push(&mut self, lines: FilteredChunk, now: Instant, refusals: &Refusals, progress: &mut Progress) {
        let Some(first) = lines.runs().next().map(|run| run.start) else {
            match self.parcels.back_mut() {
                Some(last) => last.reaches = lines.end(),
                None => progress.safe = Some(lines.end()),
            }
            return;
        };
        let care = refusals.suspects.care(lines.session(), first);
        cut(&lines, care, refusals, &mut self.parcels);
        self.held = Some((lines, care));
        self.send_held(now);
    }

    /// Sends held parcels whose turn has come.
    fn send_held(&mut self, now: Instant) {
        let Some((lines, care)) = &self.held else { return };
        loop {
            let mut held = (0..self.parcels.len()).filter(|at| self.parcels[*at].chunks.is_none());
            let Some(mut at) = held.next() else {
                self.held = None;
                return;
            };
            let window = if *care == Care::None { WINDOW } else { 1 };
            if self.waiting >= window {
                return;
            }
            // The line behind the suspect goes first: if the collector takes that line, the collector is not to blame for what follows.
            if *care == Care::Alone && self.count == 0 {
                at = held.next().unwrap_or(at);
            }
            let parcel = &mut self.parcels[at];
            let first = parcel.first;
            let ids = (lines.id_of(first), lines.id_of(parcel.end - 1));
            let packed = lines.lines().skip_while(|(_, behind)| behind.line <= first).take(parcel.lines);
            let packed = packed.map(|(line, _)| line);
            parcel.chunks = Some(self.packer.pack(packed, ids, &mut self.output));
            if self.waiting == 0 {
                self.patience.begin(now);
            }
            self.waiting += 1;
        }
    }

    pub fn output(&self) -> &[u8] {
        &self.output
    }

    pub fn flushed(&mut self) {
        self.output.clear();
    }

    pub fn heard(
        &mut self,
        bytes: &[u8],
        now: Instant,
        refusals: &mut Refusals,
        progress: &mut Progress,
    ) -> Result<(), DeliveryError> {
        let Self { answers, greeting, output, parcels, waiting, count, patience, .. } = self;
        let fed: Result<(), Broken> = answers.feed(bytes, |value| {
            if let Some(handshake) = greeting {
                if handshake.hear(value, output)? {
                    *greeting = None;
                }
                return Ok(());
            }
            let Some(chunk) = acknowledged(value) else {
                return Err(if read_hello(value).is_some() { Broken::AsksForKey } else { BadAnswer.into() });
            };
            let place = |parcel: &Parcel| parcel.chunks.as_ref()?.iter().position(|name| name == chunk);
            let found = parcels.iter_mut().find_map(|parcel| Some((place(parcel)?, parcel.chunks.as_mut()?)));
            let (place, chunks) = found.ok_or(Broken::UnknownChunk)?;
            chunks.swap_remove(place);
            *waiting -= usize::from(chunks.is_empty());
            *count += 1;
            patience.begin(now);
            progress.delivered = true;
            refusals.delivered();
            Ok(())
        });
        self.settle(refusals, progress);
        fed?;
        self.send_held(now);
        Ok(())
    }

    /// Drops acknowledged parcels, up to the first one that is not acknowledged.
    fn settle(&mut self, refusals: &mut Refusals, progress: &mut Progress) {
        let is_done = |parcel: &Parcel| parcel.chunks.as_ref().is_some_and(Vec::is_empty);
        while self.parcels.front().is_some_and(is_done)
            && let Some(parcel) = self.parcels.pop_front()
        {
            progress.safe = Some(parcel.reaches);
            refusals.passed(parcel.reaches.line);
            refusals.suspects.passed(parcel.session, parcel.reaches.line);
        }
    }

    /// Whether a sample of the connection is of use now.
    pub fn wants_sample(&self) -> bool {
        self.is_open() && self.waiting > 0
    }

    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant) {
        self.patience.look(sample, now);
    }

    /// An error: there was no answer for too long.
    pub fn timer(&self, now: Instant) -> Result<Option<Instant>, DeliveryError> {
        // The driver limits how long a handshake may take.
        if !self.is_open() || self.waiting == 0 {
            return Ok(None);
        }
        Ok(Some(self.patience.check(now)?))
    }

    /// How much was answered or acknowledged; `None`: nothing is awaited.
    pub fn awaits(&self) -> Option<u64> {
        (self.waiting > 0).then_some(self.count + self.patience.acknowledged())
    }

    /// Whether everything has its verdict.
    pub fn is_settled(&self) -> bool {
        self.parcels.is_empty()
    }

    /// The connection has ended. The first parcel without an answer may be the cause.
    pub fn failed(&mut self, now: Instant, refusals: &mut Refusals, progress: &mut Progress) {
        let Some(first) = self.parcels.front().filter(|_| self.waiting > 0) else { return };
        let is_blamed = first.is_waiting() && self.waiting == 1 && self.count > 0;
        match &first.suspect {
            Some(line) if is_blamed && refusals.refused(first.first, now) == Verdict::Poison => {
                let (session, why) = (first.session, ENDS_CONNECTIONS.to_owned());
                progress.rejected.push_back(Rejected {
                    session,
                    line: first.first,
                    reason: Reason::Refused,
                    why,
                    bytes: line.clone(),
                });
                progress.safe = Some(first.reaches);
                refusals.suspects.passed(session, first.end);
            }
            _ => refusals.suspects.ended(first.session, first.first..first.end),
        }
    }

    /// The connection carries no more lines. Parcels without a verdict are sent on another one, cut in the same way.
    pub fn left(&self, refusals: &mut Refusals) {
        let sent = self.parcels.iter().filter(|parcel| parcel.chunks.is_some());
        refusals.cuts = sent.map(|parcel| (parcel.session, parcel.end)).collect();
    }
}

/// Cuts lines into parcels: where they were cut before, or as small as `care` demands.
fn cut(lines: &FilteredChunk, care: Care, refusals: &Refusals, parcels: &mut VecDeque<Parcel>) {
    let (session, from) = (lines.session(), parcels.len());
    let mut cuts = refusals.cuts.iter().filter(|(of, _)| *of == session).map(|(_, end)| *end).peekable();
    let mut is_full = |parcel: &Parcel, number: u64, so_far: usize| match care {
        Care::None => {
            while cuts.next_if(|cut| *cut <= parcel.first).is_some() {}
            cuts.next_if(|cut| *cut <= number).is_some()
        }
        Care::InFrames(most) => parcel.lines >= most,
        Care::Alone => so_far <= 2,
    };
    for (line, behind) in lines.lines() {
        let number = behind.line - 1;
        let so_far = parcels.len() - from;
        match parcels.back_mut().filter(|_| so_far > 0) {
            Some(parcel) if !is_full(parcel, number, so_far) => {
                (parcel.end, parcel.reaches) = (behind.line, behind);
                parcel.lines += 1;
            }
            _ => {
                let suspect = (care == Care::Alone && so_far == 0).then(|| line.to_vec());
                let (first, end) = (number, behind.line);
                parcels.push_back(Parcel { session, first, end, lines: 1, reaches: behind, chunks: None, suspect });
            }
        }
    }
    if let Some(last) = parcels.back_mut() {
        last.reaches = lines.end();
    }
}
