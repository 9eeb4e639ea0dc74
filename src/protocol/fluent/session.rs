//! A connection that speaks the Forward protocol. A sender that asks for answers gets each array acknowledged once it is in the spool, and
//! can be made to wait. Any other sender is never held.

use std::time::{Duration, Instant};

use super::handshake::{Handshake, NotOpened, Opening};
use super::pieces::Pieces;
use super::repeated::MAX_NAME;
use super::{BadEntry, BadFrame, Batch, Event, Framer, Limits, append_ack};
use crate::protocol::answers::Answers;
use crate::protocol::foreign::{FirstBytes, Foreign};
use crate::protocol::session::{
    Ack, Bounds, Closed, Conduct, MessageDeadline, Phase, Refusal, Session, Sink, Violation,
};

/// As for syslog: Docker's driver notices nothing but a reset.
const UNANSWERED: Conduct = Conduct { answers: false, pipelines: false, turn_bytes: 256 * 1024, holds_briefly: false };
/// A container whose driver waits for an answer stalls, and the Docker daemon with it.
const ANSWERED: Conduct = Conduct { answers: true, pipelines: false, turn_bytes: 1, holds_briefly: true };

/// How large entries may be once they are inflated, and how large their lines may be. A multiple of the longest array.
const INFLATED: usize = 4;
/// Bytes that a waiting answer takes beside the name of its chunk.
const ANSWER: usize = 64;
/// The maximum number of unconfirmed answers remembered for a connection. Most senders wait for one answer at a time.
const MAX_UNCONFIRMED: usize = 64;

#[derive(Debug)]
pub struct FluentSession {
    /// `None`: senders need no key, or this one was accepted. Boxed: most listeners need no key.
    opening: Option<Box<Opening>>,
    open_timeout: Duration,
    /// Whether an array came in the place of a PING.
    has_spoken: bool,
    framer: Framer,
    deadline: MessageDeadline,
    dialog: Dialog,
}

/// The state of the conversation: what has arrived, and the answers owed for it.
#[derive(Debug)]
struct Dialog {
    phase: Phase,
    first: FirstBytes,
    /// Whether the sender asks for answers. A sender that has asked once is assumed to ask always.
    asks: bool,
    /// Whether an array has arrived.
    has_begun: bool,
    /// The names of chunks that wait for their answers.
    answers: Answers<Vec<u8>>,
    /// Bytes that these names take.
    owed: usize,
    /// Chunks that are answered, while the sender has sent nothing after the answer.
    unconfirmed: Vec<Vec<u8>>,
    pieces: Pieces,
    max_message: usize,
    limits: Limits,
}

impl FluentSession {
    pub fn new(bounds: Bounds) -> Self {
        let max_inflated = bounds.max_array.saturating_mul(INFLATED);
        let dialog = Dialog {
            phase: Phase::Open,
            first: FirstBytes::default(),
            asks: false,
            has_begun: false,
            answers: Answers::default(),
            owed: 0,
            unconfirmed: Vec::new(),
            pieces: Pieces::new(bounds.max_frame),
            max_message: bounds.max_frame,
            limits: Limits { inflated: max_inflated, lines: max_inflated },
        };
        let deadline = MessageDeadline::new(bounds.frame_timeout);
        let open_timeout = bounds.open_timeout;
        let framer = Framer::new(bounds.max_array);
        Self { opening: None, open_timeout, has_spoken: false, framer, deadline, dialog }
    }

    /// A session whose sender needs a key.
    pub fn with_handshake(bounds: Bounds, handshake: Handshake) -> Self {
        let mut session = Self::new(bounds);
        session.opening = Some(Box::new(Opening::new(handshake)));
        session.dialog.phase = Phase::Opening;
        session
    }

    pub fn has_begun(&self) -> bool {
        self.has_spoken || self.dialog.has_begun
    }

    /// The other protocol that the sender speaks, where it is recognized.
    pub fn foreign(&self) -> Option<Foreign> {
        self.dialog.first.foreign()
    }
}

impl Session for FluentSession {
    fn conduct(&self) -> &'static Conduct {
        if self.dialog.asks { &ANSWERED } else { &UNANSWERED }
    }

    fn phase(&self) -> Phase {
        self.dialog.phase
    }

    fn opened(&mut self, now: Instant, answers: &mut Vec<u8>) {
        if let Some(opening) = &mut self.opening {
            opening.begin(now.checked_add(self.open_timeout), answers);
        }
    }

    fn feed(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        to: &mut impl Sink,
        answers: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let Self { opening, has_spoken, framer, deadline, dialog, .. } = self;
        if !matches!(dialog.phase, Phase::Opening | Phase::Open) {
            return Ok(());
        }
        if let Some(told) = dialog.first.take_strange(bytes, is_strange) {
            deadline.after_feed(true, false, now);
            return told.map_err(|()| {
                dialog.phase = Phase::Over;
                BadFrame::NoArray.into()
            });
        }
        if let Some(handshake) = opening {
            let fed = handshake.feed(bytes, answers);
            let Some(fed) = fed.transpose() else { return Ok(()) };
            *opening = None;
            *has_spoken = !matches!(fed, Err(NotOpened::Bad(_)));
            bytes = fed.map_err(|why| match why {
                NotOpened::Bad(bad) => {
                    dialog.phase = Phase::Over;
                    Violation::from(bad)
                }
                NotOpened::Denied(denied) => {
                    // The sender receives the reason first.
                    dialog.phase = Phase::Closing;
                    denied.into()
                }
            })?;
            dialog.phase = Phase::Open;
        }
        let mut another = false;
        let fed = framer.feed(bytes, |array| {
            another = true;
            dialog.take(array, now, to)
        });
        match dialog.asks {
            true => dialog.answers.end_batch(None, to),
            false => dialog.answers.forget_taken(),
        }
        dialog.answer_committed(answers);
        deadline.after_feed(framer.unfinished(), another, now);
        fed.map_err(|bad| {
            // The owed answers are sent first.
            dialog.phase = if dialog.asks { Phase::Closing } else { Phase::Over };
            bad.into()
        })
    }

    fn committed(&mut self, ack: Ack, answers: &mut Vec<u8>) {
        self.dialog.answers.committed(ack);
        self.dialog.answer_committed(answers);
    }

    fn refused(&mut self, ack: Ack, why: Refusal) {
        let owed: usize = self.dialog.answers.forget_from(ack).map(|chunk| ANSWER + chunk.len()).sum();
        self.dialog.owed -= owed;
        if why == Refusal::NotSpooled {
            self.dialog.phase = Phase::Over;
        }
    }

    fn timer(&mut self, now: Instant, to: &mut impl Sink) -> Result<Option<Instant>, Violation> {
        if let Some(opening) = &self.opening {
            if opening.is_late(now) {
                self.dialog.phase = Phase::Over;
                return Err(Violation::new("no PING came in time"));
            }
            return Ok(opening.until);
        }
        let pieces = self.dialog.pieces.time_out(now, |event| {
            to.record(&event);
        });
        if self.deadline.is_over(now) {
            self.dialog.phase = Phase::Over;
            return Err(Violation::new("an array has not ended in time"));
        }
        Ok(pieces.into_iter().chain(self.deadline.at()).min())
    }

    fn give_up(&mut self, to: &mut impl Sink) -> Result<(), Violation> {
        self.dialog.end_pieces(false, to);
        // No sender waits for an answer to these records.
        self.dialog.answers.forget_taken();
        // A sender that asks for answers repeats the arrays that have none.
        if self.unfinished() || self.dialog.asks {
            self.dialog.phase = Phase::Over;
            return Err(Violation::new("there is no memory for an array, or for answers"));
        }
        Ok(())
    }

    /// The protocol has no message for closing: the sender repeats arrays that have no answer.
    fn stopping(&mut self, answers: &mut Vec<u8>) {
        self.dialog.phase = Phase::Closing;
        self.dialog.answer_committed(answers);
    }

    fn closed(&mut self, how: Closed, to: &mut impl Sink) {
        // On a connection that breaks off, the rest of a message comes by another connection.
        self.dialog.end_pieces(how == Closed::Clean, to);
        if how != Closed::Clean {
            self.dialog.unconfirmed.iter().for_each(|chunk| to.unconfirmed(chunk));
        }
        self.dialog.phase = Phase::Over;
    }

    fn unfinished(&self) -> bool {
        let opens = self.opening.as_ref().is_some_and(|opening| opening.unfinished());
        opens || self.framer.unfinished() || self.dialog.first.are_held()
    }

    fn memory(&self) -> usize {
        let unconfirmed: usize = self.dialog.unconfirmed.iter().map(|chunk| ANSWER + chunk.len()).sum();
        let opening = self.opening.as_ref().map_or(0, |opening| opening.held());
        opening + self.framer.held() + self.dialog.pieces.bytes() + self.dialog.owed + unconfirmed
    }

    fn owed(&self) -> usize {
        self.dialog.owed
    }
}

/// Whether a byte begins no array, no heartbeat and no JSON.
fn is_strange(byte: u8) -> bool {
    !matches!(byte, 0x90..=0x9f | 0xdc | 0xdd | 0xc0 | b'{' | b'[')
}

impl From<BadFrame> for Violation {
    fn from(bad: BadFrame) -> Self {
        Self { name: bad.name(), why: bad.to_string().into() }
    }
}

impl From<BadEntry> for Violation {
    fn from(bad: BadEntry) -> Self {
        Self { name: bad.name(), why: bad.why().into() }
    }
}

impl Dialog {
    fn take(&mut self, array: &[u8], now: Instant, to: &mut impl Sink) -> Result<(), BadFrame> {
        let mut inflated = Vec::new();
        let batch = Batch::read(array, self.limits, &mut inflated)?;
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        // A sender that goes on has seen the answers.
        self.unconfirmed.clear();
        let Some(chunk) = batch.chunk else {
            self.take_entries(&batch, now, to);
            if self.asks {
                self.end_pieces(false, to);
            }
            return Ok(());
        };
        if !std::mem::replace(&mut self.asks, true) {
            to.answers_messages();
        }
        if is_first && to.comes_again(chunk) {
            self.answers.owe_behind(|_| Some(chunk.to_vec()));
        } else {
            self.take_entries(&batch, now, to);
            // Each array is answered by itself, so that no piece waits for another array.
            self.end_pieces(false, to);
            self.answers.owe_for_message(|_| Some(chunk.to_vec()));
        }
        self.owed += ANSWER + chunk.len();
        Ok(())
    }

    fn take_entries(&mut self, batch: &Batch<'_>, now: Instant, to: &mut impl Sink) {
        let Self { pieces, answers, max_message, .. } = self;
        for entry in batch.entries() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(bad) => {
                    to.refused(bad.into());
                    continue;
                }
            };
            let event = Event::new(batch.tag, entry, *max_message);
            let mut take = |event: Event<'_>| answers.add_taken(to.record(&event).into());
            match event.piece() {
                Some(piece) => pieces.add(event, piece, now, take),
                None => take(event),
            }
        }
    }

    fn end_pieces(&mut self, is_all: bool, to: &mut impl Sink) {
        let Self { pieces, answers, .. } = self;
        pieces.end(is_all, |event| answers.add_taken(to.record(&event).into()));
    }

    /// Answers the chunks that are in the spool.
    fn answer_committed(&mut self, out: &mut Vec<u8>) {
        while let Some(chunk) = self.answers.next_due() {
            self.owed -= ANSWER + chunk.len();
            append_ack(&chunk, out);
            if chunk.len() <= MAX_NAME && self.unconfirmed.len() < MAX_UNCONFIRMED {
                self.unconfirmed.push(chunk);
            }
        }
    }
}
