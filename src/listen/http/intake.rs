//! Takes the messages of requests into batches for the spool. All requests of a connection share an intake, whatever their
//! protocol.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::super::Rules;
use super::super::ingest::Ingest;
use super::super::refusal::RefusalReason;
use super::super::stream::budget::Reservation;
use super::super::stream::replies::Count;
use super::wire::Wire;
use crate::metrics::ListenMetrics;
use crate::protocol::session::{ToRecord, Violation};
use crate::spool::{Receipt, Turn};

/// How often the intake checks whether a waiting sender is still connected.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of lines from which on a batch is handed over.
const HAND_OVER: usize = 128 * 1024;

pub struct Intake<'a> {
    pub rules: &'a Rules,
    pub metrics: &'a ListenMetrics,
    pub ingest: Box<Ingest>,
    /// How long a sender may wait for the spool; `None`: without limit.
    max_wait: Option<Duration>,
    wire: Wire,
    reservation: Reservation,
    shutdown: watch::Receiver<bool>,
    count: Count,
}

/// Why the relay cannot complete a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The spool takes nothing, or there is no memory.
    Busy,
    /// The relay stops.
    Stopping,
    /// The sender has disconnected, or an answer makes no sense.
    Lost,
}

/// Why a request failed: its protocol refuses it, or the relay cannot complete it.
pub enum Why<R> {
    Refused(R),
    NotTaken(NotTaken),
}

impl<R> From<NotTaken> for Why<R> {
    fn from(why: NotTaken) -> Self {
        Self::NotTaken(why)
    }
}

impl<'a> Intake<'a> {
    pub fn new(
        (rules, metrics): (&'a Rules, &'a ListenMetrics),
        ingest: Box<Ingest>,
        max_wait: Option<Duration>,
        (wire, reservation): (Wire, Reservation),
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self { rules, metrics, ingest, max_wait, wire, reservation, shutdown, count: Count::default() }
    }

    pub fn peer(&self) -> Option<IpAddr> {
        self.ingest.peer()
    }

    /// Prepares for the next request. Messages of the last one that were not handed over are dropped, because the sender sends them
    /// again.
    pub fn reset(&mut self) {
        drop(self.ingest.take());
        self.count = Count::default();
        self.reservation.release();
    }

    /// The next piece of a body; `None`: it has ended.
    pub async fn piece(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, NotTaken> {
        loop {
            match timeout(self.rules.limits.frame_timeout, body.frame()).await {
                // Trailers are ignored.
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
                    _ => {}
                },
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => {
                    self.metrics.unfinished.inc();
                    return Err(NotTaken::Lost);
                }
                Err(_) => {
                    self.refuse(&RefusalReason::FrameTimeout);
                    return Err(NotTaken::Lost);
                }
            }
        }
    }

    /// Reads a body of at most `max` bytes; `None`: it is longer.
    pub async fn whole(&mut self, body: &mut Incoming, max: usize) -> Result<Option<Vec<u8>>, NotTaken> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece(body).await? {
            if whole.len() + piece.len() > max {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
            self.reserve(whole.capacity())?;
        }
        Ok(Some(whole))
    }

    /// Waits for the turn to read, which lasts until the result is dropped. Only a few connections at a time read and hand over, so
    /// that a thousand need no more memory than a few.
    pub async fn turn(&mut self) -> Result<Option<Turn>, NotTaken> {
        match self.ingest.try_turn() {
            Some(turn) => Ok(Some(turn)),
            None => self.wait(self.ingest.turn()).await,
        }
    }

    /// Begins a read of `bytes` bytes.
    pub fn begin(&mut self, bytes: usize) {
        self.metrics.bytes.inc_by(bytes as u64);
        self.ingest.begin(bytes);
    }

    /// Takes a message into the batch.
    pub fn take(&mut self, message: &impl ToRecord) {
        if self.ingest.record(message) {
            self.count.add(message.is_cut());
            return;
        }
        self.metrics.received.inc();
        self.metrics.cut.max_frame.inc_by(message.is_cut().into());
    }

    /// Reserves the memory that a request holds besides its batch.
    pub fn reserve(&mut self, held: usize) -> Result<(), NotTaken> {
        if self.reservation.resize(held + self.ingest.pending(), self.rules.limits.max_unfinished) {
            return Ok(());
        }
        self.refuse(&RefusalReason::MaxUnfinished);
        Err(NotTaken::Busy)
    }

    /// Whether the batch is large enough to hand over.
    pub fn is_full(&self) -> bool {
        self.ingest.pending() >= HAND_OVER
    }

    /// Hands the batch over to the spool; `None`: it is empty.
    pub async fn hand_over(&mut self) -> Result<Option<Receipt>, NotTaken> {
        let batch = self.ingest.take();
        if batch.is_empty() {
            return Ok(None);
        }
        let receipt = self.wait(self.ingest.deliver(batch, None)).await?;
        let Count { messages, cut } = std::mem::take(&mut self.count);
        self.metrics.received.inc_by(messages);
        self.metrics.cut.max_frame.inc_by(cut);
        Ok(Some(receipt))
    }

    /// Waits until the spool has a batch.
    pub async fn spooled(&self, receipt: &mut Receipt) -> Result<(), NotTaken> {
        match self.wait(receipt).await? {
            Ok(()) => Ok(()),
            Err(_) if *self.shutdown.borrow() => Err(NotTaken::Stopping),
            // The batch is larger than the spool.
            Err(_) => Err(NotTaken::Busy),
        }
    }

    /// Counts and reports a request that its protocol refuses.
    pub fn refuse_request(&self, name: &'static str, why: String) {
        self.refuse(&RefusalReason::Request(self.rules.protocol, Violation { name, why: why.into() }));
    }

    fn refuse(&self, reason: &RefusalReason) {
        self.rules.refusals.refuse(self.peer(), reason);
    }

    /// Waits for `what`, as long as the sender is connected and may wait.
    async fn wait<T>(&self, what: impl Future<Output = T>) -> Result<T, NotTaken> {
        let since = Instant::now();
        let lost = async {
            loop {
                sleep(LOOK_EVERY).await;
                if self.wire.peer_has_left() {
                    return NotTaken::Lost;
                }
                if self.max_wait.is_some_and(|max_wait| since.elapsed() >= max_wait) {
                    self.refuse(&RefusalReason::MaxWait);
                    return NotTaken::Busy;
                }
            }
        };
        tokio::select! {
            biased;
            done = what => Ok(done),
            why = lost => Err(why),
        }
    }
}
