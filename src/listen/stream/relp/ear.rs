//! What the frames of a session mean: messages for the spool, and commands with their answers. No socket, and no waiting:
//! what it has heard is for the session to deliver and to answer.

use std::collections::VecDeque;

use crate::listen::ingest::Intake;
use crate::metrics::ListenMetrics;
use crate::protocol::relp::{self, BadFrame, Command, Frame, Numbered, Offers};
use crate::spool::{Batch, MAX_LINE, Origin};

/// Bytes of a `numbered` frame: another logferry's batch, which is some 64 KiB, or one line of any length.
pub const LONGEST_NUMBERED: usize = MAX_LINE + 128 * 1024;
/// Bytes by which the lines of a `numbered` frame may grow, beside to twice their size, when they are read.
const MOST_GROWTH: usize = 64 * 1024;

/// Understands frames.
pub struct Ear<'a> {
    pub intake: Intake,
    pub metrics: &'a ListenMetrics,
    /// Bytes of a message that are kept.
    max_frame: usize,
    pub opened: bool,
    pub closed: bool,
    /// The name the sender's lines are numbered under, if it is another logferry.
    pub stream: Option<String>,
    /// The `syslog` frames of this read, whose messages are in the intake.
    frames: Frames,
    /// In the order in which it came.
    pub heard: VecDeque<Heard>,
}

/// Numbered lines that are in the intake.
struct Run {
    stream: String,
    session: u32,
    /// The number of its first line.
    first_line: u64,
    lines: u64,
}

pub enum Heard {
    Messages(Batch, Option<Origin>, Frames),
    /// A command, as its answer.
    Command(Vec<u8>),
}

/// The frames of messages that go to the spool together.
#[derive(Debug, Default)]
pub struct Frames {
    pub txnrs: Vec<u32>,
    pub messages: u64,
    pub cut: u64,
}

impl<'a> Ear<'a> {
    pub fn new(intake: Intake, metrics: &'a ListenMetrics, max_frame: usize) -> Self {
        Self {
            intake,
            metrics,
            max_frame,
            opened: false,
            closed: false,
            stream: None,
            frames: Frames::default(),
            heard: VecDeque::new(),
        }
    }

    /// An error ends the session.
    pub fn hear(&mut self, frame: Frame<'_>) -> Result<(), BadFrame> {
        if !self.opened && frame.command != Command::Open || self.closed {
            return Err(BadFrame::new("a command before `open` or after `close`"));
        }
        match frame.command {
            Command::Syslog => {
                let kept = &frame.data[..frame.data.len().min(self.max_frame)];
                let cut = frame.cut || kept.len() < frame.data.len();
                let taken = self.intake.frame(kept, cut);
                self.frames.txnrs.push(frame.txnr);
                self.count(taken, cut);
            }
            Command::Numbered => self.hear_numbered(frame)?,
            Command::Open => {
                // Who can number its lines is told that we can tell them apart.
                let offers = Offers::read(frame.data);
                let mut data = b"200 OK\n".to_vec();
                offers.write(&mut data);
                self.stream = offers.stream;
                self.opened = true;
                self.answer("rsp", frame.txnr, &data);
            }
            Command::Close => {
                self.closed = true;
                self.answer("rsp", frame.txnr, b"200 OK");
                self.answer("serverclose", 0, b"");
            }
            Command::Rsp | Command::Serverclose | Command::Unknown => {
                self.answer("rsp", frame.txnr, b"500 unknown command");
            }
        }
        Ok(())
    }

    fn hear_numbered(&mut self, frame: Frame<'_>) -> Result<(), BadFrame> {
        let Some(stream) = self.stream.clone().filter(|_| !frame.cut) else {
            return Err(BadFrame::new("numbered lines that were not offered, or too many"));
        };
        let numbered = Numbered::read(frame.data)?;
        self.gather();
        // Lines that follow one another; a line that is refused ends a run.
        let mut taken_before = 0;
        let mut run = Run { stream, session: numbered.session, first_line: numbered.first_line, lines: 0 };
        for line in numbered.lines().flatten() {
            let taken = match line {
                // One LF at a frame's end is taken for framing; this one is not.
                [.., b'\n'] => self.intake.frame(&[line, b"\n"].concat(), false),
                _ => self.intake.frame(line, false),
            };
            if taken {
                run.lines += 1;
            } else {
                self.metrics.received.inc();
                taken_before += self.intake.pending();
                self.end_run(&mut run, Vec::new());
            }
            // Another logferry's lines stay what they are. Others of a byte each would each become a whole message.
            if taken_before + self.intake.pending() > 2 * frame.data.len() + MOST_GROWTH {
                return Err(BadFrame::new("numbered lines that are no syslog"));
            }
        }
        if run.lines > 0 {
            self.end_run(&mut run, vec![frame.txnr]);
        } else {
            self.count_refused();
            self.answer("rsp", frame.txnr, b"200 OK");
        }
        Ok(())
    }

    /// Ends a batch of numbered lines. What follows has the number behind the next one.
    fn end_run(&mut self, run: &mut Run, txnrs: Vec<u32>) {
        let Run { stream, session, first_line, lines } = run;
        if *lines > 0 {
            let origin = Origin { stream: stream.clone(), session: *session, first_line: *first_line };
            let frames = Frames { txnrs, messages: *lines, cut: 0 };
            self.heard.push_back(Heard::Messages(self.intake.take(), Some(origin), frames));
        }
        *first_line += std::mem::take(lines) + 1;
    }

    /// Counts a message: one that is in the batch when that is delivered, one that was refused at once.
    fn count(&mut self, taken: bool, cut: bool) {
        if taken {
            self.frames.messages += 1;
            self.frames.cut += u64::from(cut);
        } else {
            self.metrics.received.inc();
            self.metrics.cut.max_frame.inc_by(u64::from(cut));
        }
    }

    /// Messages of which nothing is in the batch are counted with it all the same.
    fn count_refused(&mut self) {
        drop(self.intake.take());
    }

    /// Ends a batch.
    pub fn gather(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        if frames.messages > 0 {
            self.heard.push_back(Heard::Messages(self.intake.take(), None, frames));
        } else if !frames.txnrs.is_empty() {
            // All were refused.
            self.count_refused();
            let mut answer = Vec::new();
            frames.txnrs.iter().for_each(|txnr| relp::append_ok(*txnr, &mut answer));
            self.heard.push_back(Heard::Command(answer));
        }
    }

    fn answer(&mut self, command: &str, txnr: u32, data: &[u8]) {
        self.gather();
        // Commands are short, and a read may bring thousands.
        if let Some(Heard::Command(answers)) = self.heard.back_mut() {
            return relp::append(txnr, command, data, answers);
        }
        let mut answer = Vec::new();
        relp::append(txnr, command, data, &mut answer);
        self.heard.push_back(Heard::Command(answer));
    }
}
