//! A connection that speaks RELP to a listener: `open`, any number of messages and commands, `close`. Answers keep the order of their
//! frames. Each is sent when everything before it is in the spool.

use std::time::Instant;

use super::proof::{proven_name, statement};
use super::{BadFrame, Command, Decoder, Frame, Numbered, NumberedStreams, Offers, Proofs, append, append_ok};
use crate::protocol::answers::Answers;
use crate::protocol::framing::{Notes, Skipped};
use crate::protocol::session::{
    Ack, Bounds, Closed, Conduct, MessageDeadline, Numbers, Phase, Refusal, Session, Sink, Violation,
};

/// Each read is delivered by itself.
const CONDUCT: Conduct = Conduct { answers: true, pipelines: true, turn_bytes: 1, holds_briefly: false };
/// The room for a `numbered` frame beside the longest line, in bytes: another logferry's batch is some 64 KiB.
const NUMBERED_BATCH: usize = 128 * 1024;
/// The shortest line that another logferry can send, in bytes: `<0>1 - - - - - -`. A line grows on arrival: it may get a note of its input,
/// or become a whole message if it is not syslog. So a frame must not hold more lines than valid lines would fit.
const MIN_LINE: usize = 16;
/// The number of lines of a `numbered` frame that may have any length.
const FEW_LINES: usize = 64;

/// On a protocol error, or when a sender takes too much memory or time, the connection ends: the sender repeats frames that have no
/// answer.
#[derive(Debug)]
pub struct RelpSession {
    decoder: Decoder,
    dialog: Dialog,
    deadline: MessageDeadline,
    /// The deadline for `open`.
    open_until: Option<Instant>,
    bounds: Bounds,
}

/// The state of the conversation: what has arrived, and the answers owed for it.
#[derive(Debug)]
struct Dialog {
    phase: Phase,
    has_begun: bool,
    max_frame: usize,
    /// The stream that numbers the sender's lines, if the sender is another logferry.
    stream: Option<Stream>,
    proofs: Proofs,
    answers: Answers<Answer>,
    /// Bytes of unsent answers to commands.
    owed: usize,
}

/// The stream that numbers the sender's lines.
#[derive(Clone, Debug)]
struct Stream {
    name: String,
    /// The stream's name without a proof.
    was: Option<String>,
}

#[derive(Debug)]
enum Answer {
    /// Answers to messages, by their transaction numbers.
    Messages(Vec<u32>),
    /// Answers to commands, as frames.
    Commands(Vec<u8>),
}

impl RelpSession {
    pub fn new(bounds: Bounds) -> Self {
        let dialog = Dialog {
            phase: Phase::Opening,
            has_begun: false,
            max_frame: bounds.max_frame,
            stream: None,
            proofs: bounds.proofs,
            answers: Answers::default(),
            owed: 0,
        };
        Self {
            decoder: Decoder::new(bounds.max_frame),
            dialog,
            deadline: MessageDeadline::new(bounds.frame_timeout),
            open_until: None,
            bounds,
        }
    }

    /// Whether the session was opened.
    pub fn has_begun(&self) -> bool {
        self.dialog.has_begun
    }

    fn take(&mut self, mut bytes: &[u8], now: Instant, to: &mut impl Sink) -> Result<(), BadFrame> {
        let Self { decoder, dialog, deadline, open_until, bounds } = self;
        let mut another = false;
        while !bytes.is_empty() {
            bytes = decoder.step(bytes, &mut |frame| {
                another = true;
                dialog.take(frame, to)
            })?;
            if dialog.stream.is_some() {
                decoder.raise_limit(bounds.max_line + NUMBERED_BATCH);
            }
        }
        deadline.after_feed(decoder.unfinished(), another, now);
        if dialog.phase != Phase::Opening {
            *open_until = None;
        }
        Ok(())
    }
}

impl Session for RelpSession {
    fn conduct(&self) -> &'static Conduct {
        &CONDUCT
    }

    fn phase(&self) -> Phase {
        self.dialog.phase
    }

    fn opened(&mut self, now: Instant, _answers: &mut Vec<u8>) {
        self.open_until = now.checked_add(self.bounds.open_timeout);
    }

    fn feed(&mut self, bytes: &[u8], now: Instant, to: &mut impl Sink, answers: &mut Vec<u8>) -> Result<(), Violation> {
        let taken = self.take(bytes, now, to);
        self.dialog.answers.end_batch(None, to);
        let taken = taken.map_err(|bad| self.dialog.end(bad));
        self.dialog.answer_committed(answers);
        taken
    }

    fn committed(&mut self, ack: Ack, answers: &mut Vec<u8>) {
        self.dialog.answers.committed(ack);
        self.dialog.answer_committed(answers);
    }

    fn refused(&mut self, ack: Ack, why: Refusal) {
        self.dialog.forget_from(ack);
        if why == Refusal::NotSpooled {
            self.dialog.phase = Phase::Over;
        }
    }

    fn timer(&mut self, now: Instant, _to: &mut impl Sink) -> Result<Option<Instant>, Violation> {
        if self.open_until.is_some_and(|until| until <= now) || self.deadline.is_over(now) {
            self.dialog.phase = Phase::Over;
            return Err(Violation::new("a frame, or `open`, has not ended in time"));
        }
        Ok(self.open_until.into_iter().chain(self.deadline.at()).min())
    }

    fn give_up(&mut self, _to: &mut impl Sink) -> Result<(), Violation> {
        self.dialog.phase = Phase::Over;
        Err(Violation::new("there is no memory for a frame that has not ended"))
    }

    fn stopping(&mut self, answers: &mut Vec<u8>) {
        self.dialog.phase = Phase::Closing;
        self.dialog.command("serverclose", 0, b"");
        self.dialog.answer_committed(answers);
    }

    fn closed(&mut self, _how: Closed, _to: &mut impl Sink) {
        self.dialog.phase = Phase::Over;
    }

    fn unfinished(&self) -> bool {
        self.decoder.unfinished()
    }

    fn memory(&self) -> usize {
        self.decoder.held() + self.dialog.owed
    }

    fn owed(&self) -> usize {
        self.dialog.owed
    }
}

impl Dialog {
    fn take(&mut self, frame: Frame<'_>, to: &mut impl Sink) -> Result<(), BadFrame> {
        match (self.phase, frame.command) {
            (Phase::Opening, Command::Open) | (Phase::Open, _) => {}
            _ => return Err(BadFrame::new("a command before `open` or after `close`")),
        }
        match frame.command {
            Command::Syslog => {
                let kept = &frame.data[..frame.data.len().min(self.max_frame)];
                let skipped = frame.length - kept.len();
                if skipped > 0 {
                    let skipped = Skipped { limit: skipped as u64, ..Skipped::default() };
                    to.notes(Notes { skipped, ..Notes::default() });
                }
                self.answers.add_taken(u64::from(to.frame(kept, skipped > 0)));
                self.message(frame.txnr);
            }
            Command::Numbered => self.numbered(frame, to)?,
            Command::Open => {
                let mut data = b"200 OK\n".to_vec();
                match self.open(Offers::read(frame.data)) {
                    Ok(offers) => offers.write(&mut data),
                    Err(why) => data = format!("500 {why}").into_bytes(),
                }
                (self.phase, self.has_begun) = (Phase::Open, true);
                self.command("rsp", frame.txnr, &data);
            }
            Command::Close => {
                self.phase = Phase::Closing;
                self.command("rsp", frame.txnr, b"200 OK");
                self.command("serverclose", 0, b"");
            }
            Command::Rsp | Command::Serverclose | Command::Unknown => {
                self.command("rsp", frame.txnr, b"500 unknown command");
            }
        }
        Ok(())
    }

    /// Reads offers, and returns ours. A sender that numbers its lines gets its stream back, and a nonce if it offers a key.
    fn open(&mut self, offers: Offers) -> Result<Offers, &'static str> {
        let Offers { stream, key, proof, .. } = offers;
        self.stream = None;
        let Some(name) = stream else { return Ok(Offers::default()) };
        let answer = Offers { stream: Some(name.clone()), ..Offers::default() };
        if let (Some(key), Some(proof)) = (key, proof) {
            let signer = (self.proofs.signer)(&key, &statement(&self.proofs.nonce, &name), &proof);
            let proven = signer.and_then(|signer| proven_name(&signer, &name));
            let proven = proven.ok_or("the proof of the sender that numbers these lines is wrong")?;
            self.stream = Some(Stream { name: proven, was: Some(name) });
            return Ok(answer);
        }
        match self.proofs.streams {
            NumberedStreams::Any => self.stream = Some(Stream { name, was: None }),
            NumberedStreams::Proven if key.is_none() => return Ok(Offers::default()),
            NumberedStreams::Proven => {}
        }
        Ok(Offers { nonce: key.map(|_| self.proofs.nonce), ..answer })
    }

    fn numbered(&mut self, frame: Frame<'_>, to: &mut impl Sink) -> Result<(), BadFrame> {
        let Some(stream) = self.stream.clone().filter(|_| !frame.cut) else {
            return Err(BadFrame::new("numbered lines that were not offered, or too many"));
        };
        let numbered = Numbered::read(frame.data)?;
        if numbered.lines().count() > FEW_LINES + frame.data.len().min(NUMBERED_BATCH) / MIN_LINE {
            return Err(BadFrame::new("numbered lines that are too short to be syslog"));
        }
        self.answers.end_batch(None, to);
        // A run of consecutive lines. A refused line ends the run.
        let Stream { name, was } = &stream;
        let (session, first_line) = (numbered.session, numbered.first_line);
        let mut run = Numbers { stream: name, session, first_line, was: was.as_deref() };
        for line in numbered.lines().flatten() {
            let taken = match line {
                // One LF at the end of a frame counts as framing; this LF is part of the line.
                [.., b'\n'] => to.frame(&[line, b"\n"].concat(), false),
                _ => to.frame(line, false),
            };
            if taken {
                self.answers.add_taken(1);
            } else {
                // The next run begins behind the refused line.
                let next = run.first_line + self.answers.taken() + 1;
                self.answers.end_batch(Some(run), to);
                run.first_line = next;
            }
        }
        self.message(frame.txnr);
        self.answers.end_batch(Some(run), to);
        Ok(())
    }

    /// The bytes are not RELP. If the session is open, the sender gets the reason, behind the answers owed to it.
    fn end(&mut self, bad: BadFrame) -> Violation {
        match self.phase {
            Phase::Open => {
                self.phase = Phase::Closing;
                self.command("serverclose", 0, bad.0.as_bytes());
            }
            _ => self.phase = Phase::Over,
        }
        Violation::new(bad.0)
    }

    /// Owes the answer to a message, which is due once its batch is in the spool.
    fn message(&mut self, txnr: u32) {
        self.answers.owe_for_message(|last| match last {
            Some(Answer::Messages(txnrs)) => {
                txnrs.push(txnr);
                None
            }
            _ => Some(Answer::Messages(vec![txnr])),
        });
    }

    /// Owes a frame in answer to a command, which is due once everything before it is answered.
    fn command(&mut self, command: &str, txnr: u32, data: &[u8]) {
        let mut frame = Vec::new();
        append(txnr, command, data, &mut frame);
        self.owed += frame.len();
        // Commands are short, and one read may have thousands.
        self.answers.owe_behind(|last| match last {
            Some(Answer::Commands(commands)) => {
                commands.append(&mut frame);
                None
            }
            _ => Some(Answer::Commands(frame)),
        });
    }

    /// Sends the answers that are due.
    fn answer_committed(&mut self, out: &mut Vec<u8>) {
        while let Some(answer) = self.answers.next_due() {
            match answer {
                Answer::Messages(txnrs) => txnrs.iter().for_each(|txnr| append_ok(*txnr, out)),
                Answer::Commands(mut commands) => {
                    self.owed -= commands.len();
                    out.append(&mut commands);
                }
            }
        }
    }

    /// Forgets the answers that wait for this batch or a later one: they are never sent.
    fn forget_from(&mut self, ack: Ack) {
        for answer in self.answers.forget_from(ack) {
            if let Answer::Commands(commands) = answer {
                self.owed -= commands.len();
            }
        }
    }
}
