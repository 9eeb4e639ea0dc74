//! One RELP session: what a connection to `relp://` or `relp+tls://` goes through after its handshake.
//!
//! A frame is answered when the spool has its message, and answers come in order. Reading goes on meanwhile, up to a
//! limit; beyond it the sender has to wait, and it is the only sender that can be made to. What has no answer when the
//! connection ends is sent again by whoever sent it; so a session that takes too much memory or time is simply ended.
//! What the frames mean is in `ear`.

mod ear;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use ear::{Ear, Heard, LONGEST_NUMBERED};

use super::super::ingest::Intake;
use super::super::{DRAIN_PATIENCE, Rules, stopping};
use super::accepted::Channel;
use super::budget::{Deadline, Held};
use crate::config::Limits;
use crate::metrics::ListenMetrics;
use crate::protocol::relp::{self, Decoder};
use crate::spool::{Batch, NotSpooled, Origin, Receipt, Turn};

/// Deliveries to the spool that may wait for their receipt before reading pauses. Each is what one read has brought, or
/// one `numbered` frame.
const MOST_UNANSWERED: usize = 16;
/// Bytes of answers that the sender may leave unread before reading pauses.
const MOST_UNREAD: usize = 64 * 1024;
/// Bytes that are read at a time before a session is opened: `open` with its offers is shorter.
const FIRST_BYTES: usize = 512;

/// How often to look whether a sender that waits is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves a session until it ends.
pub async fn serve(
    channel: Channel,
    rules: &Rules,
    metrics: &ListenMetrics,
    held: Held,
    intake: Intake,
    shutdown: &mut watch::Receiver<bool>,
) {
    let limits = &rules.limits;
    let ear = Ear::new(intake.waiting(), metrics, limits.max_frame);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = Session {
        channel,
        // What came last with the end of a handshake is not the socket's any more.
        may_hold_more: true,
        decoder: Decoder::new(limits.max_frame),
        held,
        deadline: Deadline::default(),
        limits,
        ear,
        unanswered: VecDeque::new(),
        answers: Vec::new(),
        sent: 0,
        owed: 0,
        state: State::Open,
        looks,
    };
    let served = async {
        let open = async { while !session.ear.opened && session.step().await {} };
        if timeout(limits.handshake_timeout, open).await.is_err() {
            metrics.handshake_failures.inc();
            return;
        }
        while session.step().await {}
    };
    tokio::select! {
        biased;
        () = stopping(shutdown) => {
            // Nothing more is taken, also of what was read and not delivered. What the spool takes now is answered.
            session.ear.heard.clear();
            session.ear.closed = true;
            session.state = State::Closing;
            let goodbye = b"0 serverclose 0\n".to_vec();
            session.owed += goodbye.len();
            session.unanswered.push_back(Unanswered::Command(goodbye));
            let _ = timeout(DRAIN_PATIENCE, async { while session.step().await {} }).await;
        }
        () = served => {}
    }
    let _ = timeout(DRAIN_PATIENCE, session.say_goodbye()).await;
    metrics.unfinished.inc_by(u64::from(session.decoder.unfinished()));
}

struct Session<'a> {
    channel: Channel,
    /// There may be something to read that the socket does not tell of.
    may_hold_more: bool,
    decoder: Decoder,
    /// The bytes that the decoder holds, and those of answers.
    held: Held,
    /// For the frame that has not ended.
    deadline: Deadline,
    limits: &'a Limits,
    ear: Ear<'a>,
    /// In the order in which they came.
    unanswered: VecDeque<Unanswered>,
    /// Bytes for the sender, `sent` of which it has.
    answers: Vec<u8>,
    sent: usize,
    /// Bytes of answers to commands that wait for what was asked before them.
    owed: usize,
    state: State,
    /// When to look whether the sender is still there, while nothing is read from it.
    looks: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is read; what is left is answered.
    Closing,
    /// The connection is of no more use.
    Over,
}

/// What is to be answered, in its turn.
enum Unanswered {
    /// When the spool has it.
    Messages(Receipt, Vec<u32>),
    /// Everything before it is answered: that is all it waits for.
    Command(Vec<u8>),
}

impl Session<'_> {
    /// Does what can be done next: answers, reads, delivers; or waits. False when the session is over.
    async fn step(&mut self) -> bool {
        let may_read = poll_fn(|cx| self.poll_step(cx)).await;
        // A few sessions at a time read and deliver: a thousand hold no more memory than a few. Who is not heard yet needs no
        // turn, which may be long in coming while the spool is full, and is read only a little.
        let _turn = match may_read {
            true if self.ear.opened => self.read_in_turn().await,
            true => {
                self.read(FIRST_BYTES).await;
                None
            }
            false => None,
        };
        while let Some(heard) = self.ear.heard.pop_front() {
            let unanswered = match heard {
                Heard::Messages(batch, origin, frames) => match self.deliver(batch, origin).await {
                    Some(receipt) => {
                        self.ear.metrics.received.inc_by(frames.messages);
                        self.ear.metrics.cut.max_frame.inc_by(frames.cut);
                        Unanswered::Messages(receipt, frames.txnrs)
                    }
                    None => {
                        self.ear.heard.clear();
                        self.state = State::Over;
                        return false;
                    }
                },
                Heard::Command(answer) => {
                    self.owed += answer.len();
                    Unanswered::Command(answer)
                }
            };
            self.unanswered.push_back(unanswered);
        }
        self.ear.heard.shrink_to_fit();
        if self.ear.closed && self.state == State::Open {
            self.state = State::Closing;
        }
        self.state != State::Over
    }

    /// Waits for the session's turn, which lasts until what is returned is dropped, and reads.
    async fn read_in_turn(&mut self) -> Option<Turn> {
        let mut turn = pin!(self.ear.intake.turn());
        let turn = poll_fn(|cx| {
            // Meanwhile others write, and what of ours they wrote is answered.
            self.poll_receipts(cx);
            if self.poll_answer(cx).is_err() || self.state == State::Over {
                return Poll::Ready(None);
            }
            match turn.as_mut().poll(cx) {
                Poll::Ready(turn) => Poll::Ready(turn),
                Poll::Pending => poll_left(&mut self.channel, &mut self.looks, cx).map(|()| None),
            }
        })
        .await;
        match turn {
            Some(_) => self.read(usize::MAX).await,
            None => self.state = State::Over,
        }
        turn
    }

    /// Reads what there is, once, and no more than so many bytes.
    async fn read(&mut self, most: usize) {
        poll_fn(|cx| {
            self.take(most, cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for room in the spool's queue, and with it the sender waits. `None`: it has given up, and keeps what it has.
    async fn deliver(&mut self, batch: Batch, origin: Option<Origin>) -> Option<Receipt> {
        let Self { channel, ear, looks, .. } = self;
        tokio::select! {
            biased;
            receipt = ear.intake.deliver(batch, origin) => Some(receipt),
            () = poll_fn(|cx| poll_left(channel, looks, cx)) => None,
        }
    }

    /// Waits for answers to be due, or for the sender to leave.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        ready!(poll_left(&mut self.channel, &mut self.looks, cx));
        self.state = State::Over;
        Poll::Ready(false)
    }

    /// Ready when there may be something to read, or, with false, when the session is over.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_receipts(cx);
        if self.poll_answer(cx).is_err() {
            self.state = State::Over;
        }
        // A sender that does not read its answers takes memory too.
        let held = self.decoder.held() + self.answers.capacity() + self.owed;
        if !self.held.are(held, self.limits.max_unfinished) {
            self.ear.metrics.refused.max_unfinished.inc();
            self.state = State::Over;
        }
        let answered = self.unanswered.is_empty() && self.answers.is_empty();
        match self.state {
            State::Closing if answered => {
                self.state = State::Over;
                Poll::Ready(false)
            }
            State::Over => Poll::Ready(false),
            State::Closing => self.poll_wait(cx),
            State::Open
                if self.unanswered.len() >= MOST_UNANSWERED || self.answers.len() + self.owed >= MOST_UNREAD =>
            {
                self.poll_wait(cx)
            }
            State::Open if self.may_hold_more => Poll::Ready(true),
            State::Open => self.poll_readable(cx),
        }
    }

    /// Waits for something to read, but for the rest of a frame not for ever.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.channel.poll_readable(cx).is_ready() {
            return Poll::Ready(true);
        }
        ready!(self.deadline.poll(cx));
        self.ear.metrics.refused.frame_timeout.inc();
        self.state = State::Over;
        Poll::Ready(false)
    }

    /// Answers what the spool has.
    fn poll_receipts(&mut self, cx: &mut Context<'_>) {
        while let Some(first) = self.unanswered.front_mut() {
            match first {
                Unanswered::Command(answer) => {
                    self.owed -= answer.len();
                    self.answers.append(answer);
                }
                Unanswered::Messages(receipt, txnrs) => match Pin::new(receipt).poll(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(())) => txnrs.iter().for_each(|txnr| relp::append_ok(*txnr, &mut self.answers)),
                    Poll::Ready(Err(NotSpooled)) => {
                        // What comes after it must not be answered either: its sender takes an answer for all before.
                        self.unanswered.clear();
                        self.owed = 0;
                        self.state = State::Over;
                        return;
                    }
                },
            }
            self.unanswered.pop_front();
        }
        // An idle session holds no memory.
        if self.unanswered.is_empty() {
            self.unanswered.shrink_to_fit();
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.sent < self.answers.len() {
            match self.channel.poll_write(cx, &self.answers[self.sent..])? {
                Poll::Ready(written) => self.sent += written,
                Poll::Pending => return Ok(()),
            }
        }
        if !self.answers.is_empty() && self.channel.poll_flush(cx)?.is_ready() {
            self.answers = Vec::new(); // An idle session holds no memory.
            self.sent = 0;
        }
        Ok(())
    }

    fn take(&mut self, most: usize, cx: &mut Context<'_>) {
        let Self { channel, decoder, ear, state, .. } = self;
        let mut heard = 0;
        let taken = channel.poll_take_most(most, cx, |bytes| {
            ear.metrics.bytes.inc_by(bytes.len() as u64);
            ear.intake.begin(bytes.len());
            let fed = decoder.feed(bytes, |frame| {
                heard += 1;
                ear.hear(frame)
            });
            ear.gather();
            if ear.stream.is_some() {
                decoder.raise_limit(LONGEST_NUMBERED);
            }
            if fed.is_err() {
                ear.metrics.refused.protocol.inc();
                *state = State::Over;
            }
        });
        self.may_hold_more = matches!(taken, Poll::Ready(None));
        if matches!(taken, Poll::Ready(Some(_))) {
            self.state = State::Over;
        }
        self.deadline.after_read(self.decoder.unfinished(), heard > 0, self.limits.frame_timeout);
    }

    /// After a session that ended in good order: waits until the sender has heard so. Closing while bytes of it are unread
    /// would reset the connection, and take away answers that it has not read yet.
    async fn say_goodbye(&mut self) {
        if !self.ear.closed || !self.unanswered.is_empty() || !self.answers.is_empty() {
            return;
        }
        let said = poll_fn(|cx| self.channel.poll_shutdown(cx)).await;
        while said.is_ok() && poll_fn(|cx| self.channel.poll_take(cx, |_| {})).await.is_none() {}
    }
}

/// Ready when the sender has left. While nothing is read nobody else tells us, and one that has must not hold its place.
fn poll_left(channel: &mut Channel, looks: &mut Interval, cx: &mut Context<'_>) -> Poll<()> {
    while looks.poll_tick(cx).is_ready() {
        if channel.wire().peer_has_left() {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}
