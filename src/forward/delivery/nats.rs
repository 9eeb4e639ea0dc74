//! NATS JetStream: each line is a message with a number of its own, and a stream answers for each message whether it has stored it. A
//! stream recognizes a line by its `Nats-Msg-Id`, so a line that is sent again is stored once. Decides only.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::patience::Patience;
use super::send_window::{MAX_BATCH, SendWindow};
use super::{Broken, DeliveryError, Progress, Reason, Refusals, Rejected};
use crate::forward::filtered_chunk::FilteredChunk;
use crate::forward::tcp::TcpSample;
use crate::protocol::api::LineId;
use crate::protocol::nats::{
    Answer, BadOp, Decoder, Info, Login, Message, Op, Publication, SubjectTemplate, answered, append_opening, words,
};
use crate::record::{Record, render_json};
use crate::spool::Position;

/// The most messages without an answer. A server has room for 10,000 of a stream, from all publishers, before it refuses more.
const MAX_UNANSWERED: usize = 4000;
/// The first and the longest wait before messages that the server could not store are sent again. Each wait is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How many answers that a subject has no stream are needed to believe it: a cluster that elects a leader has no stream either.
const TRIES_WITHOUT_STREAM: u8 = 3;

/// How lines become messages.
pub struct Publishing {
    pub subject: SubjectTemplate,
    /// The SD-ID under which image, name and ID are found in a line.
    pub sd_id: String,
    /// The name under which the lines are numbered.
    pub stream: String,
    /// The subject for answers. Each session has a new one.
    pub inbox: String,
}

pub struct NatsDelivery {
    decoder: Decoder,
    book: Book,
}

/// Everything but the decoder.
struct Book {
    publishing: Publishing,
    is_open: bool,
    info: Info,
    window: usize,
    send_window: SendWindow,
    patience: Patience,
    /// The number of the first message without a verdict, and the messages from there on.
    first: u64,
    messages: VecDeque<Published>,
    kept: Kept,
    /// Messages that wait for an answer, and their bytes.
    outstanding: usize,
    on_the_way: usize,
    /// Messages that are to be sent again.
    waiting: usize,
    /// Messages that are stored while an earlier one is not.
    overtaking: usize,
    /// When the waiting messages are sent again, and how long the next wait is.
    again: Option<Instant>,
    wait: Duration,
    /// Why the server takes nothing.
    stop: Option<String>,
    /// Answers that came.
    answers: u64,
    output: Vec<u8>,
    scratch: Scratch,
}

/// Buffers that are kept between lines.
#[derive(Default)]
struct Scratch {
    subject: Vec<u8>,
    id: Vec<u8>,
    payload: Vec<u8>,
}

struct Published {
    /// The permanent name of the line.
    id: LineId,
    /// The line's number in the source.
    line: u64,
    bytes: usize,
    sent: Instant,
    /// The position in the spool behind the line, and behind filtered lines that follow it.
    reaches: Position,
    /// How often the server has answered that no stream takes the subject.
    without_stream: u8,
    state: State,
}

enum State {
    Sent,
    /// To be sent again.
    Waiting,
    Stored,
    /// Rejected for good, with the reason.
    Rejected(String),
}

impl NatsDelivery {
    /// `info`: the server's greeting. The output begins with CONNECT.
    pub fn new(
        publishing: Publishing,
        info: Info,
        (login, is_tls): (&Login, bool),
        (window, patience): (Option<usize>, Duration),
        now: Instant,
    ) -> Self {
        let mut output = Vec::new();
        append_opening(login, is_tls, &publishing.inbox, &mut output);
        let book = Book {
            publishing,
            is_open: false,
            info,
            window: window.unwrap_or(MAX_UNANSWERED),
            send_window: SendWindow::new(),
            patience: Patience::new(patience, now),
            first: 0,
            messages: VecDeque::new(),
            kept: Kept::default(),
            outstanding: 0,
            on_the_way: 0,
            waiting: 0,
            overtaking: 0,
            again: None,
            wait: FIRST_WAIT,
            stop: None,
            answers: 0,
            output,
            scratch: Scratch::default(),
        };
        Self { decoder: Decoder::default(), book }
    }

    pub fn is_open(&self) -> bool {
        self.book.is_open
    }

    pub fn has_capacity(&self) -> bool {
        let book = &self.book;
        let may_send = book.is_open && book.stop.is_none() && !book.info.is_leaving && book.output.is_empty();
        let has_window = book.messages.len() < book.window && book.on_the_way < book.send_window.bytes();
        may_send && has_window && book.kept.has_room()
    }

    /// Bytes to take from the spool at once.
    pub fn batch_bytes(&self) -> usize {
        self.book.send_window.bytes().min(MAX_BATCH)
    }

    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant) {
        self.book.patience.look(sample, now);
    }

    /// Whether a sample of the connection is of use now.
    pub fn wants_sample(&self) -> bool {
        self.book.is_open && self.book.outstanding > 0
    }

    pub fn push(&mut self, lines: FilteredChunk, now: Instant, refusals: &mut Refusals, progress: &mut Progress) {
        let book = &mut self.book;
        for (line, behind) in lines.lines() {
            book.push(lines.id(behind), line, behind, now, refusals);
        }
        match book.messages.back_mut() {
            Some(last) => last.reaches = lines.end(),
            None => progress.safe = Some(lines.end()),
        }
        book.kept.push(lines);
        book.settle(refusals, progress);
    }

    pub fn output(&self) -> &[u8] {
        &self.book.output
    }

    pub fn flushed(&mut self) {
        self.book.output.clear();
    }

    pub fn heard(
        &mut self,
        bytes: &[u8],
        now: Instant,
        refusals: &mut Refusals,
        progress: &mut Progress,
    ) -> Result<(), DeliveryError> {
        let Self { decoder, book } = self;
        let fed = decoder.feed(bytes, |op| book.hear(op, now, refusals, progress));
        book.settle(refusals, progress);
        fed
    }

    /// Sends messages again that could not be stored, when they are due. An error: there was no answer for too long, the server takes
    /// nothing, or it is about to stop.
    pub fn timer(&mut self, now: Instant, progress: &mut Progress) -> Result<Option<Instant>, DeliveryError> {
        let book = &mut self.book;
        // The driver limits how long a session may take to open.
        if !book.is_open {
            return Ok(None);
        }
        if book.outstanding == 0 {
            if let Some(why) = &book.stop {
                return Err(DeliveryError::Stop(why.clone()));
            }
            if book.info.is_leaving {
                return Err(Broken::Leaving.into());
            }
        }
        let mut next = None;
        if book.outstanding > 0 {
            let silent_at = book.silent_at();
            if now >= silent_at {
                return Err(Broken::Silent(book.patience.limit()).into());
            }
            next = Some(silent_at);
        }
        if book.waiting > 0 {
            let again_at = book.again.unwrap_or(now);
            if now < again_at {
                return Ok(next.into_iter().chain([again_at]).min());
            }
            book.send_again(now, progress);
            next = Some(book.silent_at());
        }
        Ok(next)
    }

    /// How much was answered or acknowledged; `None`: nothing is awaited.
    pub fn awaits(&self) -> Option<u64> {
        (self.book.outstanding > 0).then_some(self.book.answers + self.book.patience.acknowledged())
    }

    /// Whether everything has its verdict.
    pub fn is_settled(&self) -> bool {
        self.book.messages.is_empty()
    }
}

impl Book {
    fn push(&mut self, id: LineId, line: &[u8], reaches: Position, now: Instant, refusals: &mut Refusals) {
        let number = self.first + self.messages.len() as u64;
        let most = self.info.max_payload.unwrap_or(usize::MAX).min(refusals.most_bytes());
        let bytes = self.publish(number, id, line, most);
        let too_large = || format!("it has {bytes} bytes, and the server takes {most}");
        let state = match bytes <= most {
            true => State::Sent,
            false if refusals.gives_up(now) => State::Rejected(too_large()),
            false => {
                self.stop.get_or_insert_with(too_large);
                State::Waiting
            }
        };
        match state {
            State::Sent => self.expect(bytes, now),
            State::Waiting => self.waiting += 1,
            State::Stored | State::Rejected(_) => {}
        }
        let line = reaches.line - 1;
        self.messages.push_back(Published { id, line, bytes, sent: now, reaches, without_stream: 0, state });
    }

    /// Writes a message, unless it has more than `most` bytes. Returns its size.
    fn publish(&mut self, number: u64, id: LineId, line: &[u8], most: usize) -> usize {
        let Self { publishing: Publishing { subject, sd_id, stream, inbox }, scratch, output, .. } = self;
        let record = Record::from_line(line, sd_id);
        scratch.payload.clear();
        render_json(&record, sd_id, &mut scratch.payload);
        subject.fill(&record, &mut scratch.subject);
        scratch.id.clear();
        id.append(stream, &mut scratch.id);
        let Scratch { subject, id, payload } = scratch;
        let publication = Publication { subject, inbox, number, id, payload };
        let bytes = publication.byte_len();
        if bytes <= most {
            publication.append(output);
        }
        bytes
    }

    fn expect(&mut self, bytes: usize, now: Instant) {
        if self.outstanding == 0 {
            self.patience.begin(now);
        }
        self.outstanding += 1;
        self.on_the_way += bytes;
    }

    /// When the wait for answers ends. It also ends when only the first message has no answer for too long while later ones have theirs,
    /// because a cluster may lose a message without any error.
    fn silent_at(&self) -> Instant {
        let silent = self.patience.until();
        match self.messages.front() {
            Some(Published { state: State::Sent, sent, .. }) if self.overtaking > 0 => {
                silent.min(*sent + self.patience.limit())
            }
            _ => silent,
        }
    }

    fn hear(
        &mut self,
        op: Op<'_>,
        now: Instant,
        refusals: &mut Refusals,
        progress: &mut Progress,
    ) -> Result<(), DeliveryError> {
        match op {
            Op::Message(message) => self.answer(&message, now, refusals, progress),
            Op::Ping => self.output.extend_from_slice(b"PONG\r\n"),
            Op::Pong => self.is_open = true,
            Op::Info(json) => {
                if let Some(info) = Info::read(json) {
                    self.info = info;
                }
            }
            Op::Ok => {}
            Op::Err(said) => return Err(self.refused(&words(said), refusals)),
        }
        Ok(())
    }

    /// The server reports an error that does not answer a single message. It ends most sessions after that.
    fn refused(&self, says: &str, refusals: &mut Refusals) -> DeliveryError {
        let is = |what: &str| says.get(..what.len()).is_some_and(|start| start.eq_ignore_ascii_case(what));
        if is("Maximum Payload Violation") {
            // A user may have a limit that INFO does not tell. Some message in flight exceeds it, so the largest one does.
            let on_the_way = self.messages.iter().filter(|message| matches!(message.state, State::Sent));
            if let Some(largest) = on_the_way.map(|message| message.bytes).max() {
                refusals.takes_less_than(largest);
            }
        }
        match is("Authorization Violation") || is("Permissions Violation") {
            true => DeliveryError::Stop(says.to_owned()),
            false => Broken::SessionEnded(Some(says.to_owned())).into(),
        }
    }

    fn answer(&mut self, message: &Message<'_>, now: Instant, refusals: &mut Refusals, progress: &mut Progress) {
        let number = answered(message.subject, &self.publishing.inbox);
        // Other messages are ignored. They are second answers to messages that have one.
        let Some(place) = number.and_then(|number| number.checked_sub(self.first)) else { return };
        let Some(asked) = self.messages.get_mut(place as usize) else { return };
        if !matches!(asked.state, State::Sent) {
            return;
        }
        self.answers += 1;
        self.patience.begin(now);
        self.outstanding -= 1;
        self.send_window.answered(asked.bytes, asked.sent, self.on_the_way, now);
        self.on_the_way -= asked.bytes;
        asked.state = State::Waiting;
        let (line, without_stream) = (asked.line, asked.without_stream + 1);
        let state = match Answer::read(message) {
            Answer::Stored => {
                refusals.delivered();
                self.wait = FIRST_WAIT;
                self.overtaking += 1;
                State::Stored
            }
            Answer::Poison(why) if refusals.gives_up(now) => State::Rejected(why),
            Answer::Poison(why) | Answer::Stop(why) => {
                self.stop.get_or_insert(why);
                State::Waiting
            }
            Answer::NoStream if without_stream >= TRIES_WITHOUT_STREAM => {
                let why = self.without_stream(line);
                self.stop.get_or_insert(why);
                State::Waiting
            }
            Answer::NoStream => {
                self.again.get_or_insert(now + FIRST_WAIT);
                State::Waiting
            }
            Answer::Again(why) => {
                progress.busy = Some(why);
                if self.again.is_none() {
                    self.again = Some(now + self.wait);
                    self.wait = (self.wait * 2).min(LONGEST_WAIT);
                }
                State::Waiting
            }
        };
        self.waiting += usize::from(matches!(state, State::Waiting));
        if let Some(asked) = self.messages.get_mut(place as usize) {
            (asked.state, asked.without_stream) = (state, without_stream);
        }
    }

    fn without_stream(&self, number: u64) -> String {
        let (line, mut subject) = (self.kept.line(number).unwrap_or_default(), Vec::new());
        self.publishing.subject.fill(&Record::from_line(line, &self.publishing.sd_id), &mut subject);
        format!("no JetStream stream takes the subject {}", String::from_utf8_lossy(&subject))
    }

    /// Sends messages again that could not be stored.
    fn send_again(&mut self, now: Instant, progress: &mut Progress) {
        self.again = None;
        if self.stop.is_some() {
            return;
        }
        let (mut messages, kept) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.kept));
        let waiting =
            messages.iter_mut().zip(self.first..).filter(|(message, _)| matches!(message.state, State::Waiting));
        for (message, number) in waiting {
            let Some(line) = kept.line(message.line) else { continue };
            self.publish(number, message.id, line, usize::MAX);
            (message.state, message.sent) = (State::Sent, now);
            self.expect(message.bytes, now);
            self.waiting -= 1;
            progress.resent += 1;
        }
        (self.messages, self.kept) = (messages, kept);
    }

    /// Drops messages that have their verdict, up to the first one without.
    fn settle(&mut self, refusals: &mut Refusals, progress: &mut Progress) {
        let mut passed = None;
        while let Some(State::Stored | State::Rejected(_)) = self.messages.front().map(|message| &message.state)
            && let Some(message) = self.messages.pop_front()
        {
            self.first += 1;
            match message.state {
                State::Rejected(why) => {
                    let (session, number) = (message.id.session, message.line);
                    let bytes = self.kept.line(number).unwrap_or_default().to_vec();
                    // A stream has only one reason to refuse a single message: its size.
                    let reason = Reason::TooLarge;
                    progress.rejected.push_back(Rejected { session, line: number, reason, why, bytes });
                }
                _ => {
                    self.overtaking -= 1;
                    progress.delivered = true;
                }
            }
            passed = Some(message.reaches);
        }
        let Some(passed) = passed else { return };
        progress.safe = Some(passed);
        refusals.passed(passed.line);
        let next = self.messages.front().map_or(u64::MAX, |message| message.line);
        self.kept.let_go(next);
    }
}

impl From<BadOp> for DeliveryError {
    fn from(bad: BadOp) -> Self {
        Self::Broken(Broken::NoNats(bad))
    }
}
