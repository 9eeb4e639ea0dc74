//! The driver of a session: serves one connection from its first byte to its end, whatever its protocol. It owns the socket, the
//! limits, the turns, the waits and the end. The session interprets the bytes.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::super::ingest::Ingest;
use super::super::refusal::RefusalReason;
use super::super::{DRAIN_PATIENCE, Rules, stopping};
use super::accepted::{AcceptedSocket, Connection, End};
use super::budget::Reservation;
use super::conversation::{Conversation, SenderChunks};
use super::opening::open;
use super::replies::{Lost, Replies, Ticket};
use super::timer::Timer;
use crate::metrics::ListenMetrics;
use crate::protocol::session::{AnySession, Closed, Phase, Protocol, Refusal, Session, Violation};
use crate::spool::Turn;

/// Bytes that are read at a time before a session is open: an opening with its offers is shorter.
const FIRST_BYTES: usize = 512;

/// Serves a connection until it ends.
pub fn serve<'a>(
    socket: AcceptedSocket,
    (rules, metrics): (&'a Rules, &'a ListenMetrics),
    chunks: &'a SenderChunks,
    (session, mut ingest, reservation): (AnySession, Box<Ingest>, Reservation),
    shutdown: watch::Receiver<bool>,
) -> impl Future<Output = ()> + 'a {
    let limits = &rules.limits;
    if session.conduct().answers {
        ingest.make_senders_wait();
    }
    if matches!(rules.protocol, Protocol::Fluent | Protocol::Gelf) {
        ingest.of_forwarders();
    }
    let replies = rules.protocol.may_answer().then(|| {
        socket.answer_at_once();
        Box::new(Replies::new())
    });
    let (refusals, notices) = (&rules.refusals, &rules.notices);
    // Boxed, because a moved value takes its memory in each connection's future twice.
    let conversation =
        Box::new(Conversation { session, replies, ingest, reservation, limits, metrics, refusals, notices, chunks });
    drive(socket, rules, conversation, shutdown)
}

async fn drive(
    socket: AcceptedSocket,
    rules: &Rules,
    mut conversation: Box<Conversation<'_>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let Some(connection) = open(socket, rules, &conversation.ingest, &mut shutdown).await else { return };
    let limits = conversation.limits;
    let conversation = &mut *conversation;
    let mut driver = Driver { connection, conversation, timer: Timer::default(), may_hold_more: true };
    match driver.run(&mut shutdown).await {
        Ended::Clean => {
            driver.conversation.closed(Closed::Clean);
            driver.conversation.ingest.flush().await;
            // Tells a sender that has closed its side that all its bytes were read. It need not listen.
            let _ = timeout(limits.handshake_timeout, poll_fn(|cx| driver.connection.poll_shutdown(cx))).await;
        }
        Ended::Broken => {
            // A reset tells a sender of another protocol at once, so that it does not wait for an answer. Docker's drivers notice
            // only a reset.
            let session = &driver.conversation.session;
            if session.foreign().is_some() || !session.conduct().answers || session.conduct().holds_briefly {
                driver.connection.socket().reset_on_close();
            }
            driver.conversation.closed(Closed::Broken);
            driver.conversation.ingest.flush().await;
        }
        Ended::Finished => {
            Box::pin(driver.say_goodbye()).await;
            driver.conversation.closed(Closed::Stopped);
        }
        Ended::ReadOut => {
            // The reset comes directly after the last read: messages that are written in between are lost. The last batch can wait.
            driver.connection.socket().reset_on_close();
            driver.conversation.closed(Closed::Stopped);
            let Driver { connection, conversation, .. } = driver;
            drop(connection);
            conversation.ingest.flush().await;
        }
    }
}

/// How a conversation ended.
enum Ended {
    /// The peer closed the connection in good order.
    Clean,
    /// The connection broke, or is useless.
    Broken,
    /// The session has sent everything that it had to send.
    Finished,
    /// The relay stops, and the bytes that the kernel held are read.
    ReadOut,
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        match end {
            End::Clean => Self::Clean,
            End::Broken => Self::Broken,
        }
    }
}

/// The next action.
enum Next {
    Read,
    /// Call the session's timer.
    Overdue,
    End(Ended),
}

/// The result of reading.
enum Taken {
    /// There may be more.
    Full,
    /// Nothing more is there now.
    All,
    /// Nothing more will come, or nothing useful.
    Last(Ended),
}

struct Driver<'a, 'b> {
    connection: Connection,
    conversation: &'b mut Conversation<'a>,
    timer: Timer,
    /// There may be bytes that the socket does not report, such as a first message that came together with the end of a handshake.
    may_hold_more: bool,
}

impl Driver<'_, '_> {
    async fn run(&mut self, shutdown: &mut watch::Receiver<bool>) -> Ended {
        let now = Instant::now();
        self.conversation.opened(now);
        if self.set_timer(now).is_err() {
            return Ended::Broken;
        }
        loop {
            let next = tokio::select! {
                biased;
                () = stopping(shutdown) => return self.stop().await,
                next = poll_fn(|cx| self.poll_next(cx)) => next,
            };
            match next {
                Next::Read => {}
                Next::Overdue => {
                    self.conversation.ingest.begin(0);
                    if self.set_timer(Instant::now()).and_then(|()| self.conversation.reserve()).is_err() {
                        return Ended::Broken;
                    }
                    self.conversation.ingest.flush().await;
                    continue;
                }
                Next::End(ended) => return ended,
            }
            let Some(turn) = self.turn(shutdown).await else { continue };
            let taken = poll_fn(|cx| Poll::Ready(self.read(cx))).await;
            self.hand_over(shutdown).await;
            drop(turn);
            self.may_hold_more = matches!(taken, Taken::Full);
            match taken {
                Taken::Full => yield_now().await,
                Taken::All => {}
                Taken::Last(ended) => return ended,
            }
        }
    }

    /// Ready when there is something to read or to do. Sends answers that are ready.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.poll_replies(cx).is_err() {
            return Poll::Ready(Next::End(Ended::Broken));
        }
        let max_wait = self.conversation.max_wait();
        let Conversation { session, replies, refusals, ingest, .. } = &mut *self.conversation;
        if let Some(replies) = replies {
            let waits = match session.phase() {
                Phase::Over => return Poll::Ready(Next::End(Ended::Broken)),
                Phase::Closing if replies.are_none(session) => return Poll::Ready(Next::End(Ended::Finished)),
                Phase::Closing => true,
                Phase::Opening | Phase::Open => replies.are_many(session),
            };
            if replies.poll_overdue(max_wait, cx).is_ready() {
                refusals.refuse(ingest.peer(), &RefusalReason::MaxWait);
                return Poll::Ready(Next::End(Ended::Broken));
            }
            if waits {
                return replies.poll_lost(&mut self.connection, max_wait, cx).map(|_| Next::End(Ended::Broken));
            }
        }
        if self.may_hold_more || self.connection.poll_readable(cx).is_ready() {
            return Poll::Ready(Next::Read);
        }
        // Checked only when everything is read: a sender whose bytes the relay has not read is not late.
        self.timer.poll(cx).map(|()| Next::Overdue)
    }

    /// Answers messages that are in the spool. An error: the connection has to end.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Result<(), Violation> {
        let Conversation { session, replies: Some(replies), .. } = &mut *self.conversation else { return Ok(()) };
        replies.poll_receipts(session, cx);
        replies.poll_write(&mut self.connection, cx).map_err(|_| Violation::new("it cannot be written to"))?;
        self.conversation.reserve()
    }

    /// Waits for the turn to be read, which lasts until the result is dropped; `None`: there is something else to do.
    ///
    /// Only a few connections at a time are read and hand over, so that a thousand need no more memory than a few. A connection
    /// whose session is not open yet needs no turn and is read only a little, because a turn can take long while the spool is full.
    async fn turn(&mut self, shutdown: &mut watch::Receiver<bool>) -> Option<Option<Turn>> {
        if self.conversation.session.phase() == Phase::Opening {
            return Some(None);
        }
        if let Some(turn) = self.conversation.ingest.try_turn() {
            return Some(Some(turn));
        }
        match self.conversation.session.conduct().answers {
            // Boxed, because its state would make every connection larger.
            true => Box::pin(self.answer_until_turn(shutdown)).await,
            false => Some(self.conversation.ingest.turn().await),
        }
    }

    /// Waits for the turn while the spool is full. Meanwhile other connections hand over, and messages of this one that reach the
    /// spool are answered.
    async fn answer_until_turn(&mut self, shutdown: &mut watch::Receiver<bool>) -> Option<Option<Turn>> {
        let mut turn = pin!(self.conversation.ingest.turn());
        let turn = poll_fn(|cx| {
            if self.poll_replies(cx).is_err() || self.conversation.session.phase() == Phase::Over {
                return Poll::Ready(None);
            }
            if let Poll::Ready(turn) = turn.as_mut().poll(cx) {
                return Poll::Ready(Some(turn));
            }
            let max_wait = self.conversation.max_wait();
            let Some(replies) = &mut self.conversation.replies else { return Poll::Pending };
            replies.poll_lost(&mut self.connection, max_wait, cx).map(|_| None)
        });
        tokio::select! {
            biased;
            turn = turn => turn,
            () = stopping(shutdown) => None,
        }
    }

    /// Reads the available bytes, at most as many as a turn allows. The caller hands the messages over.
    fn read(&mut self, cx: &mut Context<'_>) -> Taken {
        let Self { connection, conversation, .. } = self;
        let max = if conversation.session.phase() == Phase::Opening { FIRST_BYTES } else { usize::MAX };
        let turn_bytes = conversation.session.conduct().turn_bytes;
        let now = Instant::now();
        let mut bytes = 0;
        let taken = loop {
            let mut fed = Ok(());
            let end = connection.poll_take(max, cx, |piece| {
                bytes += piece.len();
                fed = conversation.feed(piece, now);
            });
            match end {
                _ if fed.is_err() => break Taken::Last(Ended::Broken),
                Poll::Ready(None) if bytes >= turn_bytes => break Taken::Full,
                Poll::Ready(None) => {}
                Poll::Ready(Some(end)) => break Taken::Last(end.into()),
                Poll::Pending => break Taken::All,
            }
        };
        match taken {
            Taken::Full | Taken::All if self.set_timer(now).is_err() => Taken::Last(Ended::Broken),
            taken => taken,
        }
    }

    /// Calls the session's timer, and sets the time of the next call.
    fn set_timer(&mut self, now: Instant) -> Result<(), Violation> {
        self.timer.set(self.conversation.timer(now)?);
        Ok(())
    }

    /// Hands the messages over. Waits for room, but never long if the sender cannot be made to wait.
    async fn hand_over(&mut self, shutdown: &mut watch::Receiver<bool>) {
        let Conversation { session, replies, ingest, .. } = &mut *self.conversation;
        let Some(replies) = replies.as_mut().filter(|_| session.conduct().answers) else {
            return ingest.flush().await;
        };
        // A batch without a ticket is dropped. `take` is called because it counts refused messages.
        drop(ingest.take());
        if !replies.tickets.is_empty() {
            // Boxed, because its state would make every connection larger.
            Box::pin(self.deliver(shutdown)).await;
        }
    }

    /// Hands over the tickets. Waits for room in the spool's queue, and the sender waits with it: as long as it takes, as the
    /// sender may wait, and as it is connected.
    async fn deliver(&mut self, shutdown: &mut watch::Receiver<bool>) {
        let Self { connection, conversation, .. } = self;
        let max_wait = conversation.max_wait();
        let Conversation { session, replies: Some(replies), ingest, metrics, refusals, .. } = &mut **conversation
        else {
            return;
        };
        replies.begin_to_wait();
        let pipelines = session.conduct().pipelines;
        while let Some(Ticket { batch, origin, ack, count }) = replies.tickets.pop_front() {
            let bytes = batch.byte_len();
            let refusal = tokio::select! {
                biased;
                receipt = ingest.deliver(batch, origin) => {
                    if pipelines {
                        ingest.coalescing().note_pipelined(count.messages, bytes);
                    }
                    metrics.received.inc_by(count.messages);
                    metrics.cut.max_frame.inc_by(count.cut);
                    replies.expect(receipt, ack);
                    continue;
                }
                () = stopping(shutdown) => Refusal::Stopping,
                // The sender keeps its messages.
                lost = poll_fn(|cx| replies.poll_lost(connection, max_wait, cx)) => {
                    if lost == Lost::Overdue {
                        refusals.refuse(ingest.peer(), &RefusalReason::MaxWait);
                    }
                    Refusal::NotSpooled
                }
            };
            session.refused(ack, refusal);
            replies.tickets.clear();
        }
        replies.tickets.shrink_to_fit();
    }

    /// Serves the connection's end when the relay stops.
    async fn stop(&mut self) -> Ended {
        match self.conversation.session.conduct().answers {
            true => Box::pin(self.answer_the_last()).await,
            false => self.read_out().await,
        }
    }

    /// Reads the bytes that the kernel still holds. The last batch is not handed over yet.
    async fn read_out(&mut self) -> Ended {
        self.connection.socket().held_only();
        let patience = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < patience {
            match poll_fn(|cx| Poll::Ready(self.read(cx))).await {
                Taken::Full => {
                    self.conversation.ingest.flush().await;
                    yield_now().await;
                }
                Taken::All => break,
                Taken::Last(ended) => {
                    self.conversation.ingest.flush().await;
                    return ended;
                }
            }
        }
        Ended::ReadOut
    }

    /// Reads nothing more. Messages that the spool takes now are answered.
    async fn answer_the_last(&mut self) -> Ended {
        self.conversation.stopping();
        let answered = poll_fn(|cx| match self.poll_next(cx) {
            Poll::Ready(Next::End(ended)) => Poll::Ready(ended),
            // A closing session is not read any more.
            Poll::Ready(Next::Read | Next::Overdue) => Poll::Ready(Ended::Broken),
            Poll::Pending => Poll::Pending,
        });
        timeout(DRAIN_PATIENCE, answered).await.unwrap_or(Ended::Broken)
    }

    /// Closes the sending side, and waits for the sender's end. Closing while the sender's bytes are unread would reset the
    /// connection, and answers that the sender has not read yet would be lost.
    async fn say_goodbye(&mut self) {
        let goodbye = async {
            let said = poll_fn(|cx| self.connection.poll_shutdown(cx)).await;
            while said.is_ok() && poll_fn(|cx| self.connection.poll_take(usize::MAX, cx, |_| {})).await.is_none() {}
        };
        let _ = timeout(DRAIN_PATIENCE, goodbye).await;
    }
}
