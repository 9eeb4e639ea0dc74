//! RELP: the collector answers each frame. A line is delivered when its answer has come, and not before.
//!
//! A collector that knows our `numbered` frames (another logferry) gets whole batches, each line with its number in our spool. It
//! leaves out lines that it has already. All other collectors get each line in a `syslog` frame. A refused `numbered` frame is sent
//! again as `syslog` frames, one for each line, so that the line to blame stands alone. These frames have no numbers: the collector
//! may have taken higher numbers meanwhile, and would take the lines for known. Lines in flight at the end of more than one session
//! are sent in smaller frames, one at a time, see `suspect`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::patience::Patience;
use super::send_window::{MAX_BATCH, SendWindow};
use super::suspect::Care;
use super::unanswered::{Book, FrameState, Unanswered};
use super::{Broken, DeliveryError, Progress, Refusals};
use crate::forward::encode::Encoding;
use crate::forward::filtered_chunk::FilteredChunk;
use crate::forward::tcp::TcpSample;
use crate::protocol::relp::{self, Command, Decoder, Numbered, Numbering, Offers, Prover, Transactions, statement};
use crate::spool::Position;

/// Bytes of one answer that are kept: enough for `200 OK` with offers.
const MAX_ANSWER: usize = 4096;

pub struct RelpDelivery {
    encoding: Encoding,
    phase: Phase,
    offers: Offers,
    /// Signs the collector's nonce, once.
    prover: Option<Arc<dyn Prover>>,
    /// Whether the collector takes `numbered` frames.
    numbered: bool,
    /// No more is taken from the spool while this many lines are unanswered; `None`: `send_window` decides.
    window: Option<usize>,
    send_window: SendWindow,
    decoder: Decoder,
    transactions: Transactions,
    book: Book,
    /// Lines taken from the spool that belong to another session than the unanswered ones. A receiver remembers few sessions of a
    /// sender, and a relay that was killed again and again while no collector took its lines has many.
    waiting: Option<FilteredChunk>,
    output: Vec<u8>,
    scratch: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `open` has no answer yet.
    Opening,
    Open,
    /// `close` has no answer yet.
    Closing,
    Over,
}

impl RelpDelivery {
    /// Begins with `open`.
    pub fn new(
        encoding: Encoding,
        numbering: Numbering,
        (window, patience): (Option<usize>, Duration),
        now: Instant,
    ) -> Self {
        // The number belongs to the line in the spool's format. A line in another format gets no number.
        let Numbering { stream, prover, is_told } = numbering;
        let prover = prover.filter(|_| is_told && encoding.is_canonical());
        let key = prover.as_ref().map(|prover| prover.key());
        let offers =
            Offers { stream: (is_told && encoding.is_canonical()).then_some(stream), key, ..Offers::default() };
        let mut transactions = Transactions::default();
        let (mut data, mut output) = (Vec::new(), Vec::new());
        offers.write(&mut data);
        relp::append(transactions.next_number(), "open", &data, &mut output);
        Self {
            encoding,
            phase: Phase::Opening,
            offers,
            prover,
            numbered: false,
            window,
            send_window: SendWindow::new(),
            decoder: Decoder::new(MAX_ANSWER),
            transactions,
            book: Book::new(Patience::new(patience, now)),
            waiting: None,
            output,
            scratch: Vec::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub fn has_capacity(&self) -> bool {
        let Book { lines, on_the_way, ref kept, .. } = self.book;
        let has_window = match self.window {
            Some(window) => lines < window,
            None => on_the_way < self.send_window.bytes(),
        };
        self.is_open() && self.waiting.is_none() && self.output.is_empty() && has_window && kept.has_room()
    }

    /// Bytes to take from the spool at once.
    pub fn batch_bytes(&self) -> usize {
        match self.window {
            Some(_) => MAX_BATCH,
            None => self.send_window.bytes().min(MAX_BATCH),
        }
    }

    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant) {
        self.book.patience.look(sample, now);
    }

    /// Whether a sample of the connection is of use now.
    pub fn wants_sample(&self) -> bool {
        self.is_open() && self.book.outstanding > 0
    }

    pub fn push(&mut self, lines: FilteredChunk, now: Instant, refusals: &Refusals, progress: &mut Progress) {
        if lines.session() != self.book.session && !self.book.frames.is_empty() {
            self.waiting = Some(lines);
            return;
        }
        let book = &mut self.book;
        book.session = lines.session();
        let first = lines.runs().next().map_or(0, |run| run.start);
        match (refusals.suspects.care(lines.session(), first), self.numbered) {
            (Care::None, true) => self.push_numbered(&lines, now),
            (Care::None, false) => self.push_each(&lines, now),
            (Care::InFrames(most), true) => self.book.hold(&lines, (most, true), now),
            (Care::InFrames(_), false) | (Care::Alone, _) => self.book.hold(&lines, (1, false), now),
        }
        self.book.pass(lines.end(), progress);
        self.book.kept.push(lines);
        self.send_held(now);
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
        let Self { decoder, phase, book, offers, numbered, send_window, prover, transactions, output, .. } = self;
        // Frames that have to be sent again one line at a time.
        let mut split = Vec::new();
        let fed: Result<(), DeliveryError> = decoder.feed(bytes, |frame| match (*phase, frame.command) {
            (Phase::Open, _) => {
                if let Some(txnr) = book.hear(frame, send_window, now, refusals, progress)? {
                    split.push(txnr);
                }
                Ok(())
            }
            (Phase::Opening, Command::Rsp) => {
                relp::is_ok(frame.data).map_err(Broken::NotOpened)?;
                let Offers { stream, nonce, .. } = Offers::read(frame.data);
                let is_known = stream.is_some() && stream == offers.stream;
                match (stream, nonce, prover.take()) {
                    (Some(stream), Some(nonce), Some(prover)) if is_known => {
                        let proof = Some(prover.sign(&statement(&nonce, &stream)));
                        let mut data = Vec::new();
                        Offers { proof, ..offers.clone() }.write(&mut data);
                        relp::append(transactions.next_number(), "open", &data, output);
                    }
                    _ => {
                        *numbered = is_known;
                        *phase = Phase::Open;
                    }
                }
                Ok(())
            }
            (Phase::Closing, Command::Rsp) => {
                *phase = Phase::Over;
                Ok(())
            }
            _ => Ok(()),
        });
        split.into_iter().for_each(|txnr| self.split(txnr, now, progress));
        self.book.settle(refusals, progress);
        fed?;
        self.send_held(now);
        let Book { outstanding, refused, refusal, .. } = &self.book;
        if refusals.are_a_stop() && *outstanding == 0 && *refused > 0 {
            return Err(DeliveryError::Stop(refusal.clone()));
        }
        if self.book.frames.is_empty()
            && let Some(waiting) = self.waiting.take()
        {
            self.push(waiting, now, refusals, progress);
        }
        Ok(())
    }

    /// Sends refused lines again when they are due. An error: there was no answer for too long.
    pub fn timer(&mut self, now: Instant, progress: &mut Progress) -> Result<Option<Instant>, DeliveryError> {
        // The driver limits how long a session may take to open and to close.
        if !self.is_open() {
            return Ok(None);
        }
        let mut next = None;
        if self.book.outstanding > 0 {
            next = Some(self.book.patience.check(now)?);
        }
        if self.book.refused > 0 {
            let again_at = self.send_due(now, progress);
            next = next.into_iter().chain(again_at).min();
        }
        Ok(next)
    }

    /// How much was answered or acknowledged; `None`: nothing is awaited.
    pub fn awaits(&self) -> Option<u64> {
        (self.book.outstanding > 0).then_some(self.book.answers + self.book.patience.acknowledged())
    }

    /// Whether everything has its verdict.
    pub fn is_settled(&self) -> bool {
        self.book.frames.is_empty()
    }

    /// The session has ended. The first frame without an answer may be the cause.
    pub fn failed(&self, refusals: &mut Refusals) {
        if let Some(frame) = self.book.frames.iter().find(|frame| frame.state == FrameState::Sent) {
            refusals.suspects.ended(self.book.session, frame.first..frame.first + frame.lines as u64);
        }
    }

    pub fn goodbye(&mut self) {
        relp::append(self.transactions.next_number(), "close", b"", &mut self.output);
        self.phase = Phase::Closing;
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    fn push_numbered(&mut self, chunk: &FilteredChunk, now: Instant) {
        let max = self.send_window.frame_bytes();
        let mut lines = chunk.lines().peekable();
        for run in chunk.runs() {
            while let Some(first) = lines.next_if(|(_, behind)| behind.line <= run.end) {
                let (mut count, mut bytes, mut reaches) = (1, first.0.len(), first.1);
                let rest = std::iter::from_fn(|| {
                    let fits = |line: &[u8], behind: Position| behind.line <= run.end && bytes + line.len() <= max;
                    let (line, behind) = lines.next_if(|(line, behind)| fits(line, *behind))?;
                    (count, bytes, reaches) = (count + 1, bytes + line.len(), behind);
                    Some(line)
                });
                self.scratch.clear();
                Numbered::write(
                    chunk.session(),
                    first.1.line - 1,
                    [first.0].into_iter().chain(rest),
                    &mut self.scratch,
                );
                let txnr = self.transactions.next_number();
                relp::append(txnr, "numbered", &self.scratch, &mut self.output);
                let frame = Unanswered::sent(txnr, (first.1.line - 1, count), (self.scratch.len(), now), reaches);
                self.book.expect(frame, now);
            }
        }
    }

    fn push_each(&mut self, chunk: &FilteredChunk, now: Instant) {
        let mut rendered = Vec::new();
        for (line, behind) in chunk.lines() {
            rendered.clear();
            self.encoding.append(line, &mut self.scratch, &mut rendered);
            let txnr = self.transactions.next_number();
            relp::append(txnr, "syslog", &rendered, &mut self.output);
            let frame = Unanswered::sent(txnr, (behind.line - 1, 1), (rendered.len(), now), behind);
            self.book.expect(frame, now);
        }
    }

    /// Sends the next held frame, if nothing waits for an answer.
    fn send_held(&mut self, now: Instant) {
        let Self { book, encoding, scratch, output, transactions, .. } = self;
        if book.outstanding > 0 {
            return;
        }
        let is_held = |frame: &&mut Unanswered| matches!(frame.state, FrameState::Held { .. });
        let Some(frame) = book.frames.iter_mut().find(is_held) else { return };
        let lines = book.kept.lines_from(frame.first).map(|(line, _)| line).take(frame.lines);
        frame.txnr = transactions.next_number();
        let mut data = Vec::new();
        let is_numbered = frame.state == FrameState::Held { numbered: true };
        match is_numbered {
            true => Numbered::write(book.session, frame.first, lines, &mut data),
            false => lines.for_each(|line| encoding.append(line, scratch, &mut data)),
        }
        relp::append(frame.txnr, if is_numbered { "numbered" } else { "syslog" }, &data, output);
        frame.state = FrameState::Sent;
        (frame.bytes, frame.sent) = (data.len(), now);
        book.outstanding += 1;
        book.on_the_way += frame.bytes;
        book.patience.begin(now);
    }

    /// Splits a refused frame of several lines: each of its lines is sent in a frame of its own.
    fn split(&mut self, txnr: u32, now: Instant, progress: &mut Progress) {
        let Self { book, encoding, scratch, output, transactions, .. } = self;
        let Some(at) = book.frames.iter().position(|frame| frame.txnr == txnr) else { return };
        let mut behind_it = book.frames.split_off(at);
        let Some(whole) = behind_it.pop_front() else { return };
        book.lines -= whole.lines;
        book.refused -= 1;
        let (first, mut rendered) = (whole.first, Vec::new());
        let kept = std::mem::take(&mut book.kept);
        for (line, behind) in kept.lines_from(first).take(whole.lines) {
            rendered.clear();
            encoding.append(line, scratch, &mut rendered);
            let txnr = transactions.next_number();
            relp::append(txnr, "syslog", &rendered, output);
            book.expect(Unanswered::sent(txnr, (behind.line - 1, 1), (rendered.len(), now), behind), now);
        }
        if let Some(last) = book.frames.back_mut() {
            last.reaches = whole.reaches;
        }
        progress.resent += whole.lines as u64;
        book.kept = kept;
        book.frames.append(&mut behind_it);
    }

    /// Sends refused lines again that have waited long enough. Returns when the next one is due.
    fn send_due(&mut self, now: Instant, progress: &mut Progress) -> Option<Instant> {
        let Self { book, encoding, scratch, output, transactions, .. } = self;
        let (mut next, mut rendered) = (None, Vec::new());
        let is_first = book.outstanding == 0;
        for frame in &mut book.frames {
            let FrameState::Refused(again_at) = frame.state else { continue };
            if now < again_at {
                next = next.into_iter().chain([again_at]).min();
                continue;
            }
            rendered.clear();
            if let Some(line) = book.kept.line(frame.first) {
                encoding.append(line, scratch, &mut rendered);
            }
            frame.txnr = transactions.next_number();
            frame.state = FrameState::Sent;
            (frame.bytes, frame.sent) = (rendered.len(), now);
            book.on_the_way += frame.bytes;
            relp::append(frame.txnr, "syslog", &rendered, output);
            book.outstanding += 1;
            book.refused -= 1;
            progress.resent += 1;
        }
        if is_first && book.outstanding > 0 {
            book.patience.begin(now);
            next = next.into_iter().chain([book.patience.until()]).min();
        }
        next
    }
}
