//! What one connection goes through, from its first byte to its end. The socket below it is in `wire`; who may connect
//! is decided in `stream`.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::frame::Framer;
use super::intake::Intake;
use super::wire::{Channel, End, Wire};
use super::{DRAIN_PATIENCE, Rules, relp, stopping};
use crate::metrics::ListenMetrics;

/// Bytes taken in one turn, if there are so many, and a little more: one batch for the spool.
const TURN_BYTES: usize = 256 * 1024;
/// The first byte of a TLS connection (content type "handshake"). No syslog message starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

pub(super) async fn serve(
    wire: Wire,
    rules: &Rules,
    metrics: &ListenMetrics,
    intake: Intake,
    mut shutdown: watch::Receiver<bool>,
) {
    let Some(channel) = open(wire, rules, metrics, &mut shutdown).await else { return };
    if rules.relp {
        // In a box of its own: its state would make every connection larger.
        return Box::pin(relp::serve(channel, rules, metrics, intake, &mut shutdown)).await;
    }
    let mut reader = Reader { channel, framer: Framer::new(rules.max_frame), intake, metrics };
    match reader.read_to_end(&mut shutdown).await {
        End::Clean => {
            reader.finish().await;
            // So that a sender that has said goodbye knows that all of it was read. Whether it still listens is its business.
            let _ = timeout(rules.handshake_timeout, poll_fn(|cx| reader.channel.poll_shutdown(cx))).await;
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
        match timeout(rules.handshake_timeout, first_byte(&mut wire, shutdown)).await {
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
            metrics.refused.inc();
            wire.reset_on_close();
            return None;
        }
        Ok(None) | Err(_) => return None,
    }
    // In a box of its own: the state of a handshake is large, and most connections never have one.
    let handshake = Box::pin(timeout(rules.handshake_timeout, acceptor.accept(wire)));
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
        let Self { channel, framer, intake, metrics } = self;
        let mut bytes = 0;
        while bytes < TURN_BYTES {
            let end = channel.poll_take(cx, |piece| {
                bytes += piece.len();
                metrics.bytes.inc_by(piece.len() as u64);
                hand_on(intake, metrics, piece.len(), |on_frame| framer.feed(piece, on_frame));
            });
            match end {
                Poll::Ready(None) => {}
                Poll::Ready(Some(end)) => return Taken::Last(end),
                Poll::Pending => return Taken::All,
            }
        }
        Taken::Full
    }

    /// The end was a clean one: what is left is a message.
    async fn finish(&mut self) {
        if !self.framer.unfinished() {
            return;
        }
        let Self { framer, intake, metrics, .. } = self;
        hand_on(intake, metrics, 0, |on_frame| framer.finish(on_frame));
        self.intake.flush().await;
    }

    /// It was none: a sender that has noticed sends the whole message again.
    fn give_up(&mut self) {
        if self.framer.unfinished() {
            self.metrics.unfinished.inc();
        }
    }
}

/// Puts the frames that end in `bytes` bytes into the intake and counts them.
fn hand_on(
    intake: &mut Intake,
    metrics: &ListenMetrics,
    bytes: usize,
    frames: impl FnOnce(&mut dyn FnMut(&[u8], bool)),
) {
    let (mut received, mut cuts) = (0, 0);
    intake.begin(bytes);
    frames(&mut |frame, cut| {
        received += 1;
        cuts += u64::from(cut);
        intake.frame(frame, cut);
    });
    metrics.received.inc_by(received);
    metrics.cut.inc_by(cuts);
}
