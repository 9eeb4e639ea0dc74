//! What one connection goes through, from its first byte to its end. The socket below it is in `wire`; who may connect
//! is decided in `stream`.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::super::ingest::Intake;
use super::super::{DRAIN_PATIENCE, Rules, stopping};
use super::accepted::{Channel, End, Wire};
use super::budget::{Deadline, Held};
use super::relp;
use crate::config::Limits;
use crate::metrics::ListenMetrics;
use crate::protocol::framing::Framer;

/// Bytes taken in one turn, if there are so many, and a little more: one batch for the spool.
const TURN_BYTES: usize = 256 * 1024;
/// The first byte of a TLS connection (content type "handshake"). No syslog message starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

pub async fn serve(
    wire: Wire,
    rules: &Rules,
    metrics: &ListenMetrics,
    held: Held,
    intake: Intake,
    mut shutdown: watch::Receiver<bool>,
) {
    let Some(channel) = open(wire, rules, metrics, &mut shutdown).await else { return };
    if rules.relp {
        // In a box of its own: its state would make every connection larger.
        return Box::pin(relp::serve(channel, rules, metrics, held, intake, &mut shutdown)).await;
    }
    let limits = &rules.limits;
    let framer = Framer::new(limits.max_frame);
    let mut reader = Reader { channel, framer, held, deadline: Deadline::default(), limits, intake, metrics };
    match reader.read_to_end(&mut shutdown).await {
        End::Clean => {
            reader.finish().await;
            // So that a sender that has said goodbye knows that all of it was read. Whether it still listens is its business.
            let _ = timeout(limits.handshake_timeout, poll_fn(|cx| reader.channel.poll_shutdown(cx))).await;
        }
        End::Broken => reader.give_up(),
        End::Stopped => {
            // At once behind the last read: what is written in between is lost. Handing on what was read can wait.
            reader.channel.wire().reset_on_close();
            reader.give_up();
            let Reader { channel, mut intake, .. } = reader;
            drop(channel);
            intake.flush().await;
        }
    }
}

/// Finds out what is spoken. Nothing if the connection is over before a message could come.
async fn open(
    mut wire: Wire,
    rules: &Rules,
    metrics: &ListenMetrics,
    shutdown: &mut watch::Receiver<bool>,
) -> Option<Channel> {
    let Some(acceptor) = &rules.tls else { return Some(Channel::Plain(wire)) };
    let first = if rules.plaintext {
        // No deadline: a container that logs in plain text may say its first word in a week.
        first_byte(&mut wire, shutdown).await
    } else {
        match timeout(rules.limits.handshake_timeout, first_byte(&mut wire, shutdown)).await {
            Ok(first) => first,
            Err(_) => {
                metrics.handshake_failures.inc();
                return None;
            }
        }
    };
    match first {
        Ok(Some(TLS_HANDSHAKE)) => {}
        Ok(Some(_)) if rules.plaintext => return Some(Channel::Plain(wire)),
        Ok(Some(_)) => {
            metrics.refused.plaintext.inc();
            wire.reset_on_close();
            return None;
        }
        Ok(None) | Err(_) => return None,
    }
    let handshake = async {
        // Nothing of it is read before it is its turn. The places are never closed.
        let _place = rules.handshakes.acquire().await;
        acceptor.accept(wire).await
    };
    // In a box of its own: the state of a handshake is large, and most connections never have one.
    let handshake = Box::pin(timeout(rules.limits.handshake_timeout, handshake));
    tokio::select! {
        biased;
        () = stopping(shutdown) => None,
        done = handshake => {
            if let Ok(Ok(stream)) = done {
                return Some(Channel::Tls(Box::new(stream)));
            }
            metrics.handshake_failures.inc();
            None
        }
    }
}

/// Waits for the first byte and leaves it there. At a shutdown, only looks for it.
async fn first_byte(wire: &mut Wire, shutdown: &mut watch::Receiver<bool>) -> io::Result<Option<u8>> {
    tokio::select! {
        biased;
        () = stopping(shutdown) => {}
        first = poll_fn(|cx| wire.poll_first_byte(cx)) => return first,
    }
    wire.held_only();
    wire.reset_on_close();
    poll_fn(|cx| match wire.poll_first_byte(cx) {
        Poll::Pending => Poll::Ready(Ok(None)),
        first => first,
    })
    .await
}

/// What a turn came to.
enum Taken {
    /// There may be more.
    Full,
    /// Nothing more has come so far.
    All,
    /// Nothing more will come.
    Last(End),
}

struct Reader<'a> {
    channel: Channel,
    framer: Framer,
    /// The bytes that the framer holds.
    held: Held,
    /// For the frame that has not ended.
    deadline: Deadline,
    limits: &'a Limits,
    intake: Intake,
    metrics: &'a ListenMetrics,
}

impl Reader<'_> {
    async fn read_to_end(&mut self, shutdown: &mut watch::Receiver<bool>) -> End {
        // The first message may have come together with the end of a handshake.
        let mut taken = Taken::Full;
        loop {
            tokio::select! {
                biased;
                () = stopping(shutdown) => return self.read_out().await,
                () = poll_fn(|cx| self.channel.poll_readable(cx)), if matches!(taken, Taken::All) => {}
                () = yield_now(), if matches!(taken, Taken::Full) => {}
                // Only when all that came was read: a sender that we did not read is not late.
                () = poll_fn(|cx| self.deadline.poll(cx)), if matches!(taken, Taken::All) => {
                    self.cut().await;
                    continue;
                }
            }
            let turn = self.intake.turn().await;
            taken = poll_fn(|cx| Poll::Ready(self.take_turn(cx))).await;
            self.intake.flush().await;
            drop(turn);
            if let Taken::Last(end) = taken {
                return end;
            }
        }
    }

    /// Takes what the kernel still holds. The last of it is not handed on yet.
    async fn read_out(&mut self) -> End {
        self.channel.wire().held_only();
        let patience = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < patience {
            match poll_fn(|cx| Poll::Ready(self.take_turn(cx))).await {
                Taken::Full => {
                    self.intake.flush().await;
                    yield_now().await;
                }
                Taken::All => break,
                Taken::Last(end) => {
                    self.intake.flush().await;
                    return end;
                }
            }
        }
        End::Stopped
    }

    /// Takes what there is and puts its frames into the intake; it is up to the caller to flush it.
    fn take_turn(&mut self, cx: &mut Context<'_>) -> Taken {
        let Self { channel, framer, held, deadline, limits, intake, metrics } = self;
        let (mut bytes, mut frames) = (0, 0);
        let taken = loop {
            if bytes >= TURN_BYTES {
                break Taken::Full;
            }
            let end = channel.poll_take(cx, |piece| {
                bytes += piece.len();
                metrics.bytes.inc_by(piece.len() as u64);
                intake.begin(piece.len());
                frames += hand_on(intake, metrics, &metrics.cut.max_frame, |on_frame| framer.feed(piece, on_frame));
                if !held.are(framer.held(), limits.max_unfinished) {
                    hand_on(intake, metrics, &metrics.cut.max_unfinished, |on_frame| framer.cut(on_frame));
                    held.are_gone();
                }
            });
            match end {
                Poll::Ready(None) => {}
                Poll::Ready(Some(end)) => break Taken::Last(end),
                Poll::Pending => break Taken::All,
            }
        };
        deadline.after_read(framer.unfinished(), frames > 0, limits.frame_timeout);
        taken
    }

    /// The end of a frame has not come in time. The connection goes on: what comes after that end is heard.
    async fn cut(&mut self) {
        let Self { framer, held, intake, metrics, .. } = self;
        intake.begin(0);
        hand_on(intake, metrics, &metrics.cut.frame_timeout, |on_frame| framer.cut(on_frame));
        held.are_gone();
        self.intake.flush().await;
    }

    /// The end was a clean one: what is left is a message.
    async fn finish(&mut self) {
        if !self.framer.unfinished() {
            return;
        }
        let Self { framer, intake, metrics, .. } = self;
        intake.begin(0);
        hand_on(intake, metrics, &metrics.cut.connection_end, |on_frame| framer.finish(on_frame));
        self.intake.flush().await;
    }

    /// It was none: a sender that has noticed sends the whole message again.
    fn give_up(&mut self) {
        if self.framer.unfinished() {
            self.metrics.unfinished.inc();
        }
    }
}

/// Puts frames into the intake and counts them, those that are cut at `cut` too. Returns how many there were.
fn hand_on(
    intake: &mut Intake,
    metrics: &ListenMetrics,
    cut: &Counter,
    frames: impl FnOnce(&mut dyn FnMut(&[u8], bool)),
) -> u64 {
    let (mut received, mut cuts) = (0, 0);
    frames(&mut |frame, cut| {
        received += 1;
        cuts += u64::from(cut);
        intake.frame(frame, cut);
    });
    metrics.received.inc_by(received);
    cut.inc_by(cuts);
    received
}
