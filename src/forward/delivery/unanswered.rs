//! The frames that a RELP collector has not answered yet. Their lines are kept, because one may have to be sent again, and an
//! answer decides the fate of its lines. Decides only.

use std::collections::VecDeque;
use std::time::Instant;

use super::kept::Kept;
use super::patience::Patience;
use super::refusals::Verdict;
use super::send_window::SendWindow;
use super::{Broken, DeliveryError, Progress, Reason, Refusals, Rejected};
use crate::forward::filtered_chunk::FilteredChunk;
use crate::protocol::relp::{self, Command, Frame};
use crate::spool::Position;

/// Frames that were sent, or are about to be, and have no verdict.
pub struct Book {
    /// The frames in the spool's order.
    pub frames: VecDeque<Unanswered>,
    /// The lines of all frames.
    pub lines: usize,
    pub kept: Kept,
    /// The session (one opening of the spool) that numbered the lines.
    pub session: u32,
    /// Frames that wait for an answer, and their bytes.
    pub outstanding: usize,
    pub on_the_way: usize,
    /// Frames that were refused and are to be sent again.
    pub refused: usize,
    /// What the collector said when it last refused something.
    pub refusal: String,
    /// Frames that were answered.
    pub answers: u64,
    pub patience: Patience,
}

pub struct Unanswered {
    pub txnr: u32,
    /// The number of the first line.
    pub first: u64,
    pub lines: usize,
    pub bytes: usize,
    pub sent: Instant,
    /// The position in the spool behind the lines, and behind filtered lines that follow them.
    pub reaches: Position,
    pub state: FrameState,
}

#[derive(Debug, PartialEq, Eq)]
pub enum FrameState {
    /// To be sent when no other frame waits for an answer.
    Held {
        numbered: bool,
    },
    Sent,
    Taken,
    /// The frame is sent again at this time.
    Refused(Instant),
    /// Rejected for good, with the reason.
    Rejected(String),
}

/// The collector's answer to a frame.
enum Answer {
    Taken,
    Refused(String),
}

impl Unanswered {
    pub fn sent(txnr: u32, (first, lines): (u64, usize), (bytes, sent): (usize, Instant), reaches: Position) -> Self {
        Self { txnr, first, lines, bytes, sent, reaches, state: FrameState::Sent }
    }
}

impl Book {
    pub fn new(patience: Patience) -> Self {
        Self {
            frames: VecDeque::new(),
            lines: 0,
            kept: Kept::default(),
            session: 0,
            outstanding: 0,
            on_the_way: 0,
            refused: 0,
            refusal: String::new(),
            answers: 0,
            patience,
        }
    }

    pub fn expect(&mut self, frame: Unanswered, now: Instant) {
        if self.outstanding == 0 {
            self.patience.begin(now);
        }
        self.lines += frame.lines;
        self.outstanding += 1;
        self.on_the_way += frame.bytes;
        self.frames.push_back(frame);
    }

    /// Holds the lines, to be sent in one frame after the other. A frame gets at most `most` lines.
    pub fn hold(&mut self, chunk: &FilteredChunk, (most, numbered): (usize, bool), now: Instant) {
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

    /// The lines behind the last frame up to `reaches` are filtered, and are settled with that frame. Without a frame they are safe now.
    pub fn pass(&mut self, reaches: Position, progress: &mut Progress) {
        match self.frames.back_mut() {
            Some(last) => last.reaches = reaches,
            None => progress.safe = Some(reaches),
        }
    }

    /// Reads a frame of the collector. Returns the number of a frame that has to be split. An error ends the session.
    pub fn hear(
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
        // Nearly always the first frame: collectors answer in order, though nothing says that they must.
        let is_asked = |asked: &&mut Unanswered| asked.txnr == frame.txnr && asked.state == FrameState::Sent;
        let Some(asked) = self.frames.iter_mut().find(is_asked) else {
            return Err(Broken::Unasked(frame.txnr).into());
        };
        self.answers += 1;
        self.patience.begin(now);
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

    /// The collector has ended the session and gives a reason. If a single line was in flight, that line counts as refused.
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

    /// Drops frames that have their verdict, up to the first one without.
    pub fn settle(&mut self, refusals: &mut Refusals, progress: &mut Progress) {
        let mut passed = None;
        while let Some(FrameState::Taken | FrameState::Rejected(_)) = self.frames.front().map(|frame| &frame.state)
            && let Some(frame) = self.frames.pop_front()
        {
            if let FrameState::Rejected(why) = frame.state {
                let bytes = self.kept.line(frame.first).unwrap_or_default().to_vec();
                progress.rejected.push_back(Rejected {
                    session: self.session,
                    line: frame.first,
                    reason: Reason::Refused,
                    why,
                    bytes,
                });
            }
            self.lines -= frame.lines;
            passed = Some(frame.reaches);
        }
        let Some(passed) = passed else { return };
        progress.safe = Some(passed);
        refusals.passed(passed.line);
        refusals.suspects.passed(self.session, passed.line);
        let next = self.frames.front().map_or(u64::MAX, |frame| frame.first);
        self.kept.let_go(next);
    }
}
