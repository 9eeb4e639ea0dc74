//! The RELP link: TCP or TLS with an answer for each frame. A line is retired when its answer has come, and not before.
//!
//! To a collector that knows our `numbered` frames (another logferry) whole batches are sent, each line with its number
//! in our spool: it leaves out what it has already. To all others each line is a `syslog` frame.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::{Instant, sleep_until, timeout};

use super::encode::Encoding;
use super::filtered_chunk::Load;
use super::source::Source;
use super::stall::Stall;
use super::tcp::stream::{FINISH_WITHIN, GOODBYE_WITHIN, Stream};
use super::{Ended, Events};
use crate::protocol::relp::{self, Command, Decoder, Frame, Numbered, Offers, Transactions};
use crate::spool::Position;

/// Bytes of one answer that are kept: `200 OK` with offers. Nobody says more.
const LONGEST_ANSWER: usize = 4096;
/// Bytes taken from the socket at once.
const READ: usize = 4096;

pub struct RelpLink {
    stream: Stream,
    encoding: Encoding,
    /// The collector takes `numbered` frames.
    numbered: bool,
    /// No more is taken from the spool while so many lines are unanswered.
    window: usize,
    /// How long the collector may leave unanswered what was sent.
    patience: Duration,
    decoder: Decoder,
    transactions: Transactions,
    book: Book,
    /// Taken from the spool, and of another session than what is unanswered.
    waiting: Option<Load>,
    stall: Stall,
    outbox: Vec<u8>,
    /// `0 <= sent <= outbox.len()`
    sent: usize,
    scratch: Vec<u8>,
    /// Why the session has ended. Answers that came before are honoured first.
    over: Option<String>,
}

/// What was sent, or is about to be, and has no answer.
struct Book {
    frames: VecDeque<Unanswered>,
    /// Of all frames.
    lines: usize,
    /// Which opening of the spool numbered their lines. There is no other among them: a receiver remembers few sessions of
    /// a sender, and one that was killed again and again while nobody took its lines has many.
    session: u32,
    /// Frames that were answered.
    answers: u64,
    /// When the last answer came, or when the first frame was sent that waits for one.
    heard: Instant,
    /// The end of what was answered and not yet retired.
    answered: Option<Position>,
}

struct Unanswered {
    txnr: u32,
    /// Where in the spool it ends.
    reaches: Position,
    lines: usize,
    /// It has its answer, and one before it has none yet.
    answered: bool,
}

/// What happened on the connection.
enum Progress {
    /// Lines were answered, up to here.
    Answered(Position),
    /// Bytes were sent.
    Sent,
}

impl RelpLink {
    /// Opens a session. `name`: what our lines are numbered under.
    pub async fn open(
        stream: Stream,
        encoding: Encoding,
        name: String,
        (window, dead_after): (usize, Duration),
        patience: Duration,
    ) -> Result<Self, String> {
        // A line in another format is not the line that has the number.
        let offers = Offers { stream: encoding.is_canonical().then_some(name) };
        let mut link = Self {
            stream,
            encoding,
            numbered: false,
            window,
            patience,
            decoder: Decoder::new(LONGEST_ANSWER),
            transactions: Transactions::default(),
            book: Book {
                frames: VecDeque::new(),
                lines: 0,
                session: 0,
                answers: 0,
                heard: Instant::now(),
                answered: None,
            },
            waiting: None,
            stall: Stall::new(dead_after, Instant::now().into_std()),
            outbox: Vec::new(),
            sent: 0,
            scratch: Vec::new(),
            over: None,
        };
        let mut data = Vec::new();
        offers.write(&mut data);
        relp::append(link.transactions.next_number(), "open", &data, &mut link.outbox);
        let answer = link.answer_to_one().await?;
        relp::is_ok(&answer).map_err(|says| format!("RELP's open was answered with: {says}"))?;
        link.numbered = offers.stream.is_some() && Offers::read(&answer) == offers;
        Ok(link)
    }

    /// Carries lines until the connection ends, the name moves away or the relay stops.
    pub async fn carry(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        let mut stopping = false;
        loop {
            if self.has_room() {
                if self.waiting.is_none() {
                    self.waiting = source.next().await;
                }
                let (session, idle) = (self.book.session, self.book.frames.is_empty());
                if let Some(load) = self.waiting.take_if(|load| idle || load.session() == session) {
                    self.take(&load);
                }
            }
            if let Some(position) = self.book.answered.take() {
                source.retire(position);
            }
            let idle = self.book.frames.is_empty();
            if stopping && idle {
                tokio::select! {
                    () = self.finish(source) => {}
                    () = events.deadline.reached() => {}
                }
                return Ended::Stopped;
            }
            if self.stall.look((!idle).then_some(self.book.answers), Instant::now().into_std()) {
                events.stalled.notify_one();
            }
            let (has_room, silent_at) = (self.has_room() && self.waiting.is_none(), self.book.heard + self.patience);
            let stalls_at = self.stall.due().map_or(silent_at, Instant::from_std);
            tokio::select! {
                progress = poll_fn(|cx| self.poll_progress(cx)) => match progress {
                    Ok(Progress::Answered(position)) => source.retire(position),
                    Ok(Progress::Sent) => {}
                    Err(how) => return Ended::Broken(how),
                },
                more = source.wait(), if has_room && !stopping => stopping = !more,
                () = sleep_until(silent_at), if !idle => {
                    // Or our goodbye would wait behind what the collector does not read, and keep its place there.
                    let _ = self.stream.wire().reset_on_close();
                    return Ended::Broken(format!("the collector has not answered for {:?}", self.patience));
                }
                () = sleep_until(stalls_at), if !idle => {}
                moved = &mut events.moved => return Ended::Moved(moved),
                () = events.deadline.reached() => return Ended::Stopped,
            }
        }
    }

    /// Waits until the session ends.
    pub async fn ends(&mut self) {
        // Nothing was sent, so there is nothing else to hear of.
        let _ = poll_fn(|cx| self.poll_progress(cx)).await;
    }

    /// Ends the session in good order: waits for the answers, says `close` and hears the answer to that. What has no
    /// answer when this returns is sent again on another connection. A collector that stands still is not waited for.
    pub async fn finish(&mut self, source: &mut Source) {
        if self.stall.stands() {
            // Or our kernel would go on sending what is sent again elsewhere.
            let _ = self.stream.wire().reset_on_close();
            return;
        }
        let answered = timeout(FINISH_WITHIN, async {
            while !self.book.frames.is_empty() {
                if let Progress::Answered(position) = poll_fn(|cx| self.poll_progress(cx)).await? {
                    source.retire(position);
                }
            }
            Ok::<_, String>(())
        });
        if let Ok(Ok(())) = answered.await {
            let txnr = self.transactions.next_number();
            relp::append(txnr, "close", b"", &mut self.outbox);
            // Nothing depends on the answer; waiting for it makes the end a goodbye and not a reset.
            let _ = timeout(GOODBYE_WITHIN, self.answer_to_one()).await;
            let _ = timeout(GOODBYE_WITHIN, self.stream.say_goodbye()).await;
        }
    }

    /// Whether nothing was answered for a while of what was sent.
    pub fn stands(&self) -> bool {
        self.stall.stands()
    }

    /// Whether more may be taken from the spool.
    fn has_room(&self) -> bool {
        self.book.lines < self.window && self.outbox.is_empty()
    }

    /// Puts lines into the outbox.
    fn take(&mut self, load: &Load) {
        self.book.session = load.session();
        match self.numbered {
            true => self.take_numbered(load),
            false => self.take_each(load),
        }
        self.book.pass(load.end());
    }

    fn take_numbered(&mut self, load: &Load) {
        let mut lines = load.lines();
        for run in load.runs() {
            let (count, mut reaches) = ((run.end - run.start) as usize, load.end());
            let of_run = lines.by_ref().take(count).map(|(line, behind)| {
                reaches = behind;
                line
            });
            self.scratch.clear();
            Numbered::write(load.session(), run.start, of_run, &mut self.scratch);
            let txnr = self.transactions.next_number();
            relp::append(txnr, "numbered", &self.scratch, &mut self.outbox);
            self.book.expect(txnr, reaches, count);
        }
    }

    fn take_each(&mut self, load: &Load) {
        let mut rendered = Vec::new();
        for (line, reaches) in load.lines() {
            rendered.clear();
            self.encoding.append(line, &mut self.scratch, &mut rendered);
            let txnr = self.transactions.next_number();
            relp::append(txnr, "syslog", &rendered, &mut self.outbox);
            self.book.expect(txnr, reaches, 1);
        }
    }

    /// Sends what is in the outbox and waits for the answer to its only frame.
    async fn answer_to_one(&mut self) -> Result<Vec<u8>, String> {
        let mut answer = None;
        poll_fn(|cx| {
            while self.poll_write(cx)?.is_ready() {}
            let heard = self.poll_read(cx, |_, frame| {
                if frame.command == Command::Rsp {
                    answer.get_or_insert(frame.data.to_vec());
                }
                Ok(())
            });
            match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer)),
                None => heard.map(Err),
            }
        })
        .await
    }

    /// Reads answers, then writes.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Result<Progress, String>> {
        if self.over.is_none()
            && let Poll::Ready(how) = self.poll_read(cx, Book::hear)
        {
            self.over = Some(how);
        }
        if let Some(position) = self.book.answered.take() {
            return Poll::Ready(Ok(Progress::Answered(position)));
        }
        if let Some(how) = &self.over {
            return Poll::Ready(Err(how.clone()));
        }
        self.poll_write(cx).map_ok(|()| Progress::Sent)
    }

    /// Reads all there is. Ready when the session has ended; says how.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut on_frame: impl FnMut(&mut Book, Frame<'_>) -> Result<(), String>,
    ) -> Poll<String> {
        loop {
            let mut bytes = [0; READ];
            let mut buffer = ReadBuf::new(&mut bytes);
            if let Err(error) = ready!(self.stream.poll_read(cx, &mut buffer)) {
                return Poll::Ready(error.to_string());
            }
            if buffer.filled().is_empty() {
                return Poll::Ready("the collector closed the connection".to_owned());
            }
            let book = &mut self.book;
            if let Err(how) = self.decoder.feed(buffer.filled(), |frame| on_frame(book, frame)) {
                return Poll::Ready(how);
            }
        }
    }

    /// Writes the outbox, then flushes it. Never ready while there is nothing to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        if self.outbox.is_empty() {
            return Poll::Pending;
        }
        if self.sent < self.outbox.len() {
            let written = ready!(self.stream.poll_write(cx, &self.outbox[self.sent..]));
            self.sent += written.map_err(|error| error.to_string())?;
            return Poll::Ready(Ok(()));
        }
        ready!(self.stream.poll_flush(cx)).map_err(|error| error.to_string())?;
        self.outbox.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl Book {
    fn expect(&mut self, txnr: u32, reaches: Position, lines: usize) {
        if self.frames.is_empty() {
            self.heard = Instant::now();
        }
        self.lines += lines;
        self.frames.push_back(Unanswered { txnr, reaches, lines, answered: false });
    }

    /// Up to there nothing is awaited but the answers to the frames there are: what lies behind them is not wanted.
    fn pass(&mut self, reaches: Position) {
        match self.frames.back_mut() {
            Some(last) => last.reaches = reaches,
            None => self.answered = Some(reaches),
        }
    }

    /// What the collector says. An error ends the session.
    fn hear(&mut self, frame: Frame<'_>) -> Result<(), String> {
        match frame.command {
            Command::Rsp => {}
            Command::Serverclose => return Err("the collector ended the session".to_owned()),
            _ => return Err("the collector sends commands instead of answers".to_owned()),
        }
        // The first one, as nearly always: a collector answers in order, though nothing says that it must.
        let Some(asked) = self.frames.iter_mut().find(|asked| asked.txnr == frame.txnr && !asked.answered) else {
            return Err(format!("the collector answered what nobody asked (number {})", frame.txnr));
        };
        // Skipping it would lose it: it is sent again, and who looks here sees what holds the rest up.
        relp::is_ok(frame.data).map_err(|says| format!("the collector refuses a message: {says}"))?;
        asked.answered = true;
        self.answers += 1;
        self.heard = Instant::now();
        while let Some(first) = self.frames.front().filter(|first| first.answered) {
            self.answered = Some(first.reaches);
            self.lines -= first.lines;
            self.frames.pop_front();
        }
        Ok(())
    }
}
