//! RELP: an answer for each frame. A line is delivered when its answer has come, and not before.
//!
//! To a collector that knows our `numbered` frames (another logferry) whole batches are sent, each line with its number
//! in our spool: it leaves out what it has already. To all others each line is a `syslog` frame. A `numbered` frame that is
//! refused is sent again as `syslog` frames, one for each line, so that the one that is to blame stands alone: with their
//! numbers the collector could take them for known, for it may have taken higher ones meanwhile. What was on its way at the
//! end of more than one session is sent in smaller frames, and one at a time, see `suspect`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refusals::Verdict;
use super::send_window::{self, SendWindow};
use super::suspect::Care;
use super::{Broken, DeliveryError, Progress, Refusals, Rejected};
use crate::forward::encode::Encoding;
use crate::forward::filtered_chunk::FilteredChunk;
use crate::forward::tcp::TcpSample;
use crate::protocol::relp::{
    self, Command, Decoder, Frame, Numbered, Numbering, Offers, Prover, Transactions, statement,
};
use crate::spool::Position;

/// Bytes of one answer that are kept: `200 OK` with offers. Nobody says more.
const MAX_ANSWER: usize = 4096;
/// Bytes of lines that are kept until they are answered, beside those taken from the spool with the last of them.
const MAX_UNANSWERED_BYTES: usize = send_window::MAX;
/// Bytes that are never exceeded by what is taken from the spool at once.
const MAX_BATCH: usize = 64 << 10;

pub struct RelpDelivery {
    encoding: Encoding,
    phase: Phase,
    offers: Offers,
    /// Signs what the collector makes up, once.
    prover: Option<Arc<dyn Prover>>,
    /// The collector takes `numbered` frames.
    numbered: bool,
    /// No more is taken from the spool while so many lines are unanswered; `None`: as many as the link has shown to carry.
    window: Option<usize>,
    send_window: SendWindow,
    /// Bytes that the collector's kernel has acknowledged, as last seen.
    acknowledged: u64,
    /// How long the collector may leave unanswered what was sent.
    patience: Duration,
    decoder: Decoder,
    transactions: Transactions,
    book: Book,
    /// Taken from the spool, and of another session than what is unanswered: a receiver remembers few sessions of a sender,
    /// and one that was killed again and again while nobody took its lines has many.
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

/// What was sent, or is about to be, and has no verdict.
struct Book {
    /// In the spool's order.
    frames: VecDeque<Unanswered>,
    /// The lines of all frames.
    lines: usize,
    /// Where these lines are, should one have to be sent again; and their bytes in all.
    chunks: VecDeque<FilteredChunk>,
    bytes: usize,
    /// Which opening of the spool numbered them.
    session: u32,
    /// Frames that wait for an answer, and their bytes.
    outstanding: usize,
    on_the_way: usize,
    /// Frames that were refused and are to be sent again.
    refused: usize,
    /// What the collector said when it last refused something.
    refusal: String,
    /// Frames that were answered.
    answers: u64,
    /// When the last answer came, or when the first frame was sent that waits for one.
    heard: Instant,
}

struct Unanswered {
    txnr: u32,
    /// The number of its first line.
    first: u64,
    lines: usize,
    bytes: usize,
    sent: Instant,
    /// Where in the spool it ends, with what is filtered behind it.
    reaches: Position,
    state: FrameState,
}

#[derive(Debug, PartialEq, Eq)]
enum FrameState {
    /// To be sent when nothing else waits for an answer.
    Held {
        numbered: bool,
    },
    Sent,
    Taken,
    /// The frame is sent again at this time.
    Refused(Instant),
    /// For good: why.
    Rejected(String),
}

/// What the collector made of a frame.
enum Answer {
    Taken,
    Refused(String),
}

impl RelpDelivery {
    /// Begins with `open`.
    pub fn new(
        encoding: Encoding,
        numbering: Numbering,
        (window, patience): (Option<usize>, Duration),
        now: Instant,
    ) -> Self {
        // A line in another format is not the line that has the number.
        let Numbering { stream, prover } = numbering;
        let prover = prover.filter(|_| encoding.is_canonical());
        let key = prover.as_ref().map(|prover| prover.key());
        let offers = Offers { stream: encoding.is_canonical().then_some(stream), key, ..Offers::default() };
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
            acknowledged: 0,
            patience,
            decoder: Decoder::new(MAX_ANSWER),
            transactions,
            book: Book {
                frames: VecDeque::new(),
                lines: 0,
                chunks: VecDeque::new(),
                bytes: 0,
                session: 0,
                outstanding: 0,
                on_the_way: 0,
                refused: 0,
                refusal: String::new(),
                answers: 0,
                heard: now,
            },
            waiting: None,
            output,
            scratch: Vec::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub fn has_capacity(&self) -> bool {
        let Book { lines, bytes, on_the_way, .. } = self.book;
        let has_window = match self.window {
            Some(window) => lines < window,
            None => on_the_way < self.send_window.bytes(),
        };
        self.is_open() && self.waiting.is_none() && self.output.is_empty() && has_window && bytes < MAX_UNANSWERED_BYTES
    }

    /// Bytes to take from the spool at once.
    pub fn batch_bytes(&self) -> usize {
        match self.window {
            Some(_) => MAX_BATCH,
            None => self.send_window.bytes().min(MAX_BATCH),
        }
    }

    /// Bytes that the collector's kernel takes are a sign of life, though their answer is still to come.
    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant) {
        if sample.acknowledged > self.acknowledged {
            self.acknowledged = sample.acknowledged;
            self.book.heard = now;
        }
    }

    /// Whether what the collector's kernel takes is of any use now.
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
        if !lines.is_empty() {
            self.book.bytes += lines.byte_len();
            self.book.chunks.push_back(lines);
        }
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
        // Frames that are to be sent one line at a time.
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

    /// Sends again what was refused, when its time has come. An error: there was no answer for too long.
    pub fn timer(&mut self, now: Instant, progress: &mut Progress) -> Result<Option<Instant>, DeliveryError> {
        // How long a session may take to open and to close is the driver's to know.
        if !self.is_open() {
            return Ok(None);
        }
        let mut next = None;
        if self.book.outstanding > 0 {
            let silent_at = self.book.heard + self.patience;
            if now >= silent_at {
                return Err(Broken::Silent(self.patience).into());
            }
            next = Some(silent_at);
        }
        if self.book.refused > 0 {
            let again_at = self.send_due(now, progress);
            next = next.into_iter().chain(again_at).min();
        }
        Ok(next)
    }

    /// How much was answered or acknowledged, while more is awaited.
    pub fn awaits(&self) -> Option<u64> {
        (self.book.outstanding > 0).then_some(self.book.answers + self.acknowledged)
    }

    /// Everything has its verdict.
    pub fn is_settled(&self) -> bool {
        self.book.frames.is_empty()
    }

    /// The session has ended. What has no answer may be why.
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

    /// Sends the next frame that is sent by itself, when its turn has come.
    fn send_held(&mut self, now: Instant) {
        let Self { book, encoding, scratch, output, transactions, .. } = self;
        if book.outstanding > 0 {
            return;
        }
        let is_held = |frame: &&mut Unanswered| matches!(frame.state, FrameState::Held { .. });
        let Some(frame) = book.frames.iter_mut().find(is_held) else { return };
        let lines = lines_from(&book.chunks, frame.first).map(|(line, _)| line).take(frame.lines);
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
        book.heard = now;
    }

    /// A frame of several lines is refused: each of its lines is sent as a frame of its own.
    fn split(&mut self, txnr: u32, now: Instant, progress: &mut Progress) {
        let Self { book, encoding, scratch, output, transactions, .. } = self;
        let Some(at) = book.frames.iter().position(|frame| frame.txnr == txnr) else { return };
        let mut behind_it = book.frames.split_off(at);
        let Some(whole) = behind_it.pop_front() else { return };
        book.lines -= whole.lines;
        book.refused -= 1;
        let (first, mut rendered) = (whole.first, Vec::new());
        let chunks = std::mem::take(&mut book.chunks);
        for (line, behind) in lines_from(&chunks, first).take(whole.lines) {
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
        book.chunks = chunks;
        book.frames.append(&mut behind_it);
    }

    /// Sends again what was refused and has waited for long enough. When the next one has.
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
            if let Some(line) = line(&book.chunks, frame.first) {
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
            book.heard = now;
            next = next.into_iter().chain([now + self.patience]).min();
        }
        next
    }
}

impl Unanswered {
    fn sent(txnr: u32, (first, lines): (u64, usize), (bytes, sent): (usize, Instant), reaches: Position) -> Self {
        Self { txnr, first, lines, bytes, sent, reaches, state: FrameState::Sent }
    }
}

impl Book {
    fn expect(&mut self, frame: Unanswered, now: Instant) {
        if self.outstanding == 0 {
            self.heard = now;
        }
        self.lines += frame.lines;
        self.outstanding += 1;
        self.on_the_way += frame.bytes;
        self.frames.push_back(frame);
    }

    /// The lines are to be sent by and by, no more than `most` in a frame.
    fn hold(&mut self, chunk: &FilteredChunk, (most, numbered): (usize, bool), now: Instant) {
        let mut lines = chunk.lines();
        for run in chunk.runs() {
            for first in run.clone().step_by(most) {
                let count = (run.end - first).min(most as u64) as usize;
                let reaches = lines.by_ref().take(count).last().map_or(chunk.end(), |(_, behind)| behind);
                let state = FrameState::Held { numbered };
                self.lines += count;
                self.frames.push_back(Unanswered { txnr: 0, first, lines: count, bytes: 0, sent: now, reaches, state });
            }
        }
    }

    /// Up to there nothing is awaited but the answers to the frames there are: what lies behind them is filtered.
    fn pass(&mut self, reaches: Position, progress: &mut Progress) {
        match self.frames.back_mut() {
            Some(last) => last.reaches = reaches,
            None => progress.safe = Some(reaches),
        }
    }

    /// What the collector says. Returns the number of a frame that is to be split. An error ends the session.
    fn hear(
        &mut self,
        frame: Frame<'_>,
        send_window: &mut SendWindow,
        now: Instant,
        refusals: &mut Refusals,
        progress: &mut Progress,
    ) -> Result<Option<u32>, DeliveryError> {
        match frame.command {
            Command::Rsp => {}
            Command::Serverclose => {
                let why = relp::said(frame.data);
                self.blame(why.as_deref(), now, refusals);
                return Err(Broken::SessionEnded(why).into());
            }
            _ => return Err(Broken::NoAnswer.into()),
        }
        // The first one, as nearly always: a collector answers in order, though nothing says that it must.
        let is_asked = |asked: &&mut Unanswered| asked.txnr == frame.txnr && asked.state == FrameState::Sent;
        let Some(asked) = self.frames.iter_mut().find(is_asked) else {
            return Err(Broken::Unasked(frame.txnr).into());
        };
        self.answers += 1;
        self.heard = now;
        self.outstanding -= 1;
        send_window.answered(asked.bytes, asked.sent, self.on_the_way, now);
        self.on_the_way -= asked.bytes;
        let answer = match relp::is_ok(frame.data) {
            Ok(()) => Answer::Taken,
            Err(says) => Answer::Refused(says),
        };
        let (state, split) = match answer {
            Answer::Taken => {
                refusals.delivered();
                progress.delivered = true;
                (FrameState::Taken, None)
            }
            Answer::Refused(says) => {
                self.refusal.clone_from(&says);
                let verdict = if asked.lines > 1 { None } else { Some(refusals.refused(asked.first, now)) };
                match verdict {
                    None => (FrameState::Refused(now), Some(asked.txnr)),
                    Some(Verdict::Again(after)) => (FrameState::Refused(now + after), None),
                    Some(Verdict::Poison) => (FrameState::Rejected(says), None),
                }
            }
        };
        self.refused += usize::from(matches!(state, FrameState::Refused(_)));
        asked.state = state;
        Ok(split)
    }

    /// The collector has ended the session and says why: a line that was the only one on its way is refused.
    fn blame(&mut self, why: Option<&str>, now: Instant, refusals: &mut Refusals) {
        let (Some(why), 1) = (why, self.outstanding) else { return };
        let alone = self.frames.iter_mut().find(|frame| frame.state == FrameState::Sent && frame.lines == 1);
        if let Some(frame) = alone
            && refusals.refused(frame.first, now) == Verdict::Poison
        {
            frame.state = FrameState::Rejected(why.to_owned());
            self.outstanding -= 1;
            self.on_the_way -= frame.bytes;
        }
    }

    /// Lets go of what has its verdict, up to the first frame that has none.
    fn settle(&mut self, refusals: &mut Refusals, progress: &mut Progress) {
        let mut passed = None;
        while let Some(FrameState::Taken | FrameState::Rejected(_)) = self.frames.front().map(|frame| &frame.state)
            && let Some(frame) = self.frames.pop_front()
        {
            if let FrameState::Rejected(why) = frame.state {
                let bytes = line(&self.chunks, frame.first).unwrap_or_default().to_vec();
                progress.rejected.push_back(Rejected { session: self.session, line: frame.first, why, bytes });
            }
            self.lines -= frame.lines;
            passed = Some(frame.reaches);
        }
        let Some(passed) = passed else { return };
        progress.safe = Some(passed);
        refusals.passed(passed.line);
        refusals.suspects.passed(self.session, passed.line);
        let next = self.frames.front().map_or(u64::MAX, |frame| frame.first);
        while let Some(chunk) = self.chunks.front().filter(|chunk| chunk.end().line <= next) {
            self.bytes -= chunk.byte_len();
            self.chunks.pop_front();
        }
    }
}

/// The lines from that number on, each with the position behind it.
fn lines_from(chunks: &VecDeque<FilteredChunk>, first: u64) -> impl Iterator<Item = (&[u8], Position)> {
    chunks.iter().flat_map(FilteredChunk::lines).skip_while(move |(_, behind)| behind.line <= first)
}

/// The line of that number.
fn line(chunks: &VecDeque<FilteredChunk>, number: u64) -> Option<&[u8]> {
    let chunk = chunks.iter().find(|chunk| number < chunk.end().line)?;
    chunk.lines().find(|(_, behind)| behind.line == number + 1).map(|(line, _)| line)
}
