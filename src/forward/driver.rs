//! The driver: one loop for TCP, TLS, RELP, NATS and the Forward protocol. The driver owns the connection, the events, the deadlines
//! and the end. The [`Delivery`] writes the output and interprets the answers.
//!
//! The read half is always polled: the first write after the peer's FIN "succeeds", and only reading shows the FIN
//! before it.

use std::future::poll_fn;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::time::{sleep, sleep_until, timeout};

use super::delivery::{Broken, Delivery, DeliveryError, Progress, Refusals, SAMPLE_EVERY};
use super::dial::ConnectError;
use super::half_closed::{Fate, Teller};
use super::http::{NoCredentials, Unanswered};
use super::link::{Ended, Events};
use super::source::Source;
use super::stall::{Stall, Standstill};
use super::tcp::{Silence, Stream};
use crate::tls;

/// Bytes taken from the socket at once.
const READ: usize = 4096;
/// Reads in a row before the driver writes again.
const READS_BEFORE_WRITING: usize = 16;
/// How long ending a connection in good order may take.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// How long a collector may take to answer our goodbye and to close its side.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// A connection to a collector, with the lines in flight.
pub struct StreamLink {
    stream: Stream,
    peer: SocketAddr,
    delivery: Delivery,
    /// Bytes of the delivery's output that are written.
    sent: usize,
    /// When the connection was last looked at.
    sampled: Option<Instant>,
    /// When the delivery wants to be asked again.
    wakes_at: Option<Instant>,
    stall: Stall,
    limits: Standstill,
    /// Whether the peer's kernel answers.
    silence: Silence,
    /// The outcome of lines that the spool has not been told yet.
    progress: Progress,
    /// Our side of the connection was ended in good order, and the collector has not closed its side.
    is_half_closed: bool,
}

/// Why a link stopped carrying.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{}", tls::explained_alert(.0, tls::Reader::OfForward))]
    Io(#[from] io::Error),
    #[error("the collector closed the connection")]
    Closed,
    /// Nothing was acknowledged for this time, and the peer's kernel does not answer either.
    #[error("nothing was acknowledged for {0:?}, and the collector's machine does not answer")]
    Vanished(Duration),
    /// Nothing was acknowledged for this time, though the peer's kernel answers.
    #[error("the collector has read nothing for {0:?}")]
    Hangs(Duration),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// No answer to a request came within this time.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// The server answers that it cannot take lines now. Another server may be able to.
    #[error("{0}")]
    Busy(String),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(transparent)]
    NoCredentials(#[from] NoCredentials),
    #[error("cannot connect: {0}")]
    Connect(Box<ConnectError>),
}

impl Failure {
    /// Whether another server may do better: this one does not answer, or answers that it cannot take lines.
    pub fn calls_for_another_server(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Busy(_))
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}

/// What happened on the connection.
enum Happened {
    /// The collector sent bytes that matter.
    Heard,
    /// The kernel took this many bytes of the output.
    Wrote(usize),
    /// The whole output is on the wire.
    Flushed,
    /// The collector closed its side.
    Closed,
}

impl StreamLink {
    /// `dead_after`: a part of it without an acknowledgement is a stall. `limits`: when the connection is given up.
    pub fn new(
        stream: Stream,
        peer: SocketAddr,
        delivery: Delivery,
        (dead_after, limits): (Duration, Standstill),
    ) -> Self {
        let (stall, progress) = (Stall::new(dead_after, Instant::now()), Progress::default());
        let silence = Silence::default();
        Self {
            stream,
            peer,
            delivery,
            sent: 0,
            sampled: None,
            wakes_at: None,
            stall,
            limits,
            silence,
            progress,
            is_half_closed: false,
        }
    }

    /// Drives the connection until lines may be sent.
    pub async fn open(&mut self) -> Result<(), Failure> {
        while !self.delivery.is_open() {
            self.progress(&mut Refusals::default()).await?;
        }
        Ok(())
    }

    /// Carries lines until the connection ends, there is a better place or the relay stops. When this returns, for whatever reason, the
    /// spool knows which lines the collector has.
    pub async fn carry(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        let mut refusals = mem::take(&mut source.refusals);
        let ended = self.carry_on(source, &mut refusals, events).await;
        match &ended {
            // The collector hangs, and the lines in flight are not to blame.
            Ended::Failed(Failure::Delivery(DeliveryError::Broken(Broken::Silent(_)))) => {}
            Ended::Failed(_) => self.delivery.failed(Instant::now(), &mut refusals, &mut self.progress),
            Ended::Stopped | Ended::Left(_) => {}
        }
        if let Err(error) = self.sample(Instant::now()) {
            tracing::debug!("forward: cannot ask what {} has acknowledged: {error}", self.peer);
        }
        self.settle(source, events).await;
        self.delivery.left(&mut refusals);
        source.refusals = refusals;
        ended
    }

    async fn carry_on(&mut self, source: &mut Source, refusals: &mut Refusals, events: &mut Events) -> Ended {
        let mut stopping = false;
        loop {
            let mut is_drained = false;
            if self.delivery.has_capacity() {
                match source.next_of(self.delivery.batch_bytes()).await {
                    Some(lines) => self.delivery.push(lines, Instant::now(), refusals, &mut self.progress),
                    None => is_drained = true,
                }
            }
            let now = Instant::now();
            if let Err(failure) = self.look(now) {
                // The answer may have arrived already, while this task was late.
                if let Some(Ok(Happened::Heard)) = self.progress_by_now(refusals).await {
                    self.settle(source, events).await;
                    continue;
                }
                return self.fails(failure, refusals, events).await;
            }
            if self.stall.look(self.delivery.awaits(), now) {
                events.stalled.notify_one();
            }
            self.settle(source, events).await;
            if let Some(failure) = self.standstill(now) {
                return self.fails(failure, refusals, events).await;
            }
            if stopping && is_drained && self.delivery.is_idle() {
                tokio::select! {
                    () = self.finish_with(source, refusals) => {}
                    () = events.deadline.reached() => {}
                }
                return Ended::Stopped;
            }
            let has_capacity = self.delivery.has_capacity();
            let wakes_at = self.wakes_at(now);
            tokio::select! {
                happened = self.progress(refusals) => {
                    if let Err(failure) = happened {
                        return self.fails(failure, refusals, events).await;
                    }
                    self.settle(source, events).await;
                }
                more = source.wait(), if has_capacity && !stopping => stopping = !more,
                () = sleep_until(wakes_at.unwrap_or(now).into()), if wakes_at.is_some() => {}
                leave = &mut events.leave => return Ended::Left(leave),
                () = events.deadline.reached() => {
                    self.discard();
                    return Ended::Stopped;
                }
            }
        }
    }

    /// Waits until the connection ends. Nothing was sent, so no answer can come.
    pub async fn ends(&mut self) {
        while self.progress(&mut Refusals::default()).await.is_ok() {}
    }

    /// Waits up to `patience` for the collector to end a connection over which nothing was sent. Says goodbye if it does not.
    pub async fn holds(&mut self, patience: Duration) -> Result<(), Failure> {
        let mut refusals = Refusals::default();
        let ended = async {
            loop {
                if let Err(failure) = self.progress(&mut refusals).await {
                    return failure;
                }
            }
        };
        match timeout(patience, ended).await {
            Ok(failure) => Err(failure),
            Err(_) => {
                self.say_goodbye(&mut refusals).await;
                Ok(())
            }
        }
    }

    /// Whether bytes in flight have not been acknowledged or answered for a while.
    pub fn is_stalled(&self) -> bool {
        self.stall.is_stalled()
    }

    /// Ends the connection in good order: waits until all lines taken from the spool are acknowledged or answered, says
    /// goodbye and waits for the collector's goodbye. Takes no more lines from the spool.
    ///
    /// Does not wait for a collector that does not answer the goodbye, or that stands still. After an error or a timeout, lines that
    /// the collector does not have are sent again on another connection.
    pub async fn finish(&mut self, source: &mut Source) {
        let mut refusals = mem::take(&mut source.refusals);
        self.finish_with(source, &mut refusals).await;
        source.refusals = refusals;
    }

    async fn finish_with(&mut self, source: &mut Source, refusals: &mut Refusals) {
        let settled = async { !self.stall.is_stalled() && self.settles(source, refusals).await.is_ok() };
        if timeout(FINISH_WITHIN, settled).await.unwrap_or_default() {
            self.is_half_closed = self.say_goodbye(refusals).await;
        } else {
            self.discard();
        }
        // If sampling fails, the earlier progress counts.
        let _ = self.sample(Instant::now());
        source.settle(&mut self.progress).await;
    }

    /// Whether the collector may close its side later, in a way that tells what it has read. False where the collector does not keep up
    /// (its window limits us): a slow collector is not waited for.
    pub fn may_end_well(&self) -> bool {
        self.is_half_closed && self.delivery.wants_sample() && self.delivery.is_calm(Instant::now())
    }

    /// Follows a connection that was ended in good order, until it is known what the collector's program has read.
    pub async fn follow(mut self, teller: Teller) {
        tokio::select! {
            read = self.read_to_the_end(&teller) => teller.tell(if read.is_ok() { Fate::Read } else { Fate::Lost }),
            () = teller.is_over() => {}
        }
    }

    /// `Err`: the connection broke before it was known that the program has read everything.
    async fn read_to_the_end(&mut self, teller: &Teller) -> Result<(), Failure> {
        let mut refusals = Refusals::default();
        loop {
            let now = Instant::now();
            self.sampled = None;
            self.look(now)?;
            if let Some(position) = self.progress.safe.take() {
                teller.tell(Fate::Open(Some(position)));
            }
            let Some(wakes_at) = self.wakes_at.filter(|_| self.delivery.wants_sample()) else { return Ok(()) };
            tokio::select! {
                happened = self.progress(&mut refusals) => match happened {
                    Err(Failure::Closed) => return Ok(()),
                    happened => happened?,
                },
                () = sleep_until(wakes_at.into()) => {}
            }
        }
    }

    /// Drives the connection until no answer is awaited any more. A stall is an error.
    async fn settles(&mut self, source: &mut Source, refusals: &mut Refusals) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            self.sampled = None;
            self.look(now)?;
            source.settle(&mut self.progress).await;
            if self.delivery.is_settled() {
                return Ok(());
            }
            if self.stall.look(self.delivery.awaits(), now) {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            tokio::select! {
                happened = self.progress(refusals) => happened?,
                () = sleep(SAMPLE_EVERY) => {}
            }
        }
    }

    /// Ends our side of the connection. A program that closes its side in answer has read to the end: closing with unread bytes
    /// would have reset the connection. True: the collector has not closed or reset the connection yet, or its close tells nothing.
    async fn say_goodbye(&mut self, refusals: &mut Refusals) -> bool {
        self.delivery.goodbye();
        // Nothing depends on the answer, but without waiting for it the end would be a reset.
        let is_answered = async {
            while !self.delivery.is_over() {
                self.progress(refusals).await?;
            }
            Ok::<_, Failure>(())
        };
        let _ = timeout(GOODBYE_WITHIN, is_answered).await;
        let closed = timeout(GOODBYE_WITHIN, async {
            self.stream.say_goodbye().await?;
            while self.delivery.learns_from_close() {
                self.progress(refusals).await?;
            }
            Ok::<_, Failure>(())
        });
        match closed.await {
            Ok(Err(Failure::Closed)) => {
                self.delivery.closed(true, Instant::now(), &mut self.progress);
                false
            }
            Ok(Err(_)) => false,
            // The collector has not closed yet, or its close tells nothing.
            Ok(Ok(())) | Err(_) => true,
        }
    }

    /// Gives the connection up in the middle, with a reset. So the collector does not take half a line for a whole one, and our
    /// kernel does not deliver bytes that the next connection sends again.
    fn discard(&self) {
        let is_unfinished = self.sent > 0 || self.delivery.awaits().is_some();
        if is_unfinished && let Err(error) = self.stream.counted().reset_on_close() {
            tracing::debug!("forward: {}: {error}", self.peer);
        }
    }

    async fn fails(&mut self, failure: Failure, refusals: &mut Refusals, events: &mut Events) -> Ended {
        match &failure {
            Failure::Closed => {
                let now = Instant::now();
                if self.sample(now).is_ok() {
                    self.delivery.closed(false, now, &mut self.progress);
                }
            }
            // Without a reset our goodbye would queue behind bytes that the collector does not read, and keep the connection open there.
            Failure::Delivery(DeliveryError::Broken(Broken::Silent(_))) | Failure::Vanished(_) | Failure::Hangs(_) => {
                let _ = self.stream.counted().reset_on_close();
            }
            // The collector answers, so it may read a goodbye too.
            Failure::Delivery(DeliveryError::Stop(_)) => tokio::select! {
                _ = self.say_goodbye(refusals) => {}
                () = events.deadline.reached() => {}
            },
            Failure::Delivery(DeliveryError::Broken(_)) | Failure::Io(_) => {}
            // Only the HTTP link fails in these ways.
            Failure::NoAnswer(_)
            | Failure::Busy(_)
            | Failure::Unanswered(_)
            | Failure::NoCredentials(_)
            | Failure::Connect(_) => {}
        }
        Ended::Failed(failure)
    }

    /// Tells the spool the outcome of lines. Waits only while a dead letter cannot be written.
    async fn settle(&mut self, source: &mut Source, events: &mut Events) {
        if self.progress.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            () = source.settle(&mut self.progress) => {}
            () = events.deadline.reached() => {}
        }
    }

    /// Samples the connection and runs the delivery's timer, where they are due.
    fn look(&mut self, now: Instant) -> Result<(), Failure> {
        if self.delivery.wants_sample() && self.sampled.is_none_or(|at| now >= at + SAMPLE_EVERY) {
            self.sampled = Some(now);
            self.sample(now)?;
        }
        self.wakes_at = self.delivery.timer(now, &mut self.progress)?;
        Ok(())
    }

    fn sample(&mut self, now: Instant) -> io::Result<()> {
        if self.delivery.wants_sample() {
            let sample = self.stream.counted().sample()?;
            self.silence.look(sample.signs, now);
            self.delivery.acknowledged(&sample, now, &mut self.progress);
        }
        Ok(())
    }

    /// Why a connection without progress is given up; `None`: it is not.
    fn standstill(&self, now: Instant) -> Option<Failure> {
        let (lasts, Standstill { silent, answering }) = (self.stall.lasts(now), self.limits);
        if lasts >= answering {
            return Some(Failure::Hangs(answering));
        }
        (lasts >= silent && self.silence.lasts(silent, now)).then_some(Failure::Vanished(silent))
    }

    /// When to look again if nothing else happens; `None`: nothing is awaited or kept.
    fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let next = self.wakes_at.into_iter().chain(self.stall.due()).min()?;
        let samples_at = self.sampled.filter(|_| self.delivery.wants_sample()).map_or(now, |at| at + SAMPLE_EVERY);
        Some(next.max(samples_at))
    }

    /// Waits for the next event on the connection, and applies it.
    async fn progress(&mut self, refusals: &mut Refusals) -> Result<(), Failure> {
        let happened = poll_fn(|cx| self.poll_progress(refusals, cx)).await?;
        self.take_note(happened)
    }

    /// The next event on the connection, if it is there already.
    async fn progress_by_now(&mut self, refusals: &mut Refusals) -> Option<Result<Happened, Failure>> {
        poll_fn(|cx| match self.poll_progress(refusals, cx) {
            Poll::Ready(happened) => Poll::Ready(Some(happened)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn take_note(&mut self, happened: Happened) -> Result<(), Failure> {
        match happened {
            Happened::Heard => {}
            Happened::Wrote(bytes) => self.sent += bytes,
            Happened::Flushed => {
                self.delivery.flushed(self.stream.counted().written());
                self.sent = 0;
            }
            Happened::Closed => return Err(Failure::Closed),
        }
        Ok(())
    }

    /// Reads what the collector sends, or its close; then writes.
    fn poll_progress(&mut self, refusals: &mut Refusals, cx: &mut Context<'_>) -> Poll<Result<Happened, Failure>> {
        let (mut talks_on, mut has_heard) = (true, false);
        for _ in 0..READS_BEFORE_WRITING {
            let mut bytes = [MaybeUninit::uninit(); READ];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match self.stream.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(Happened::Closed)),
                Poll::Ready(Ok(())) => {
                    has_heard = true;
                    self.delivery.heard(buffer.filled(), Instant::now(), refusals, &mut self.progress)?;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    talks_on = false;
                    break;
                }
            }
        }
        if has_heard && self.delivery.listens() {
            return Poll::Ready(Ok(Happened::Heard));
        }
        let progress = self.poll_write(cx);
        if progress.is_pending() && talks_on {
            // The last read was not pending, so it has not registered the waker for the rest.
            cx.waker().wake_by_ref();
        }
        progress
    }

    /// Writes the output, then flushes it. Never ready while there is none.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<Happened, Failure>> {
        let output = self.delivery.output();
        if output.is_empty() {
            return Poll::Pending;
        }
        if self.sent < output.len() {
            let written = ready!(self.stream.poll_write(cx, &output[self.sent..]))?;
            return Poll::Ready(Ok(Happened::Wrote(written)));
        }
        ready!(self.stream.poll_flush(cx))?;
        Poll::Ready(Ok(Happened::Flushed))
    }
}
