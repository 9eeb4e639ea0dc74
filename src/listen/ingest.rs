//! Where one listener's messages go: each is read as a record, admission is asked, and what is let in is a line in the batch of this
//! read, which is handed to the spool. When the spool is nearly full, what matters least is refused here (RFC 5424 8.6).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::admission::{Admission, AdmissionPolicy, Buckets, DEBUG, Reassembler, Sender};
use crate::config::{Listen, ListenAddress};
use crate::metrics::{Metrics, ShapeMetrics};
use crate::protocol::syslog::{Frame, ListenerMark, MAX_HEADERS, Senders, Shape, Translator};
use crate::record::UnixMicros;
use crate::spool::{Batch, Inlet, Origin, Receipt, Refused, Turn};

/// A container's connection has one header; whoever sends many names on one must not have us remember them.
const HEADERS_OF_A_STREAM: usize = 2;

/// What becomes of messages; it may change between two reads.
#[derive(Clone)]
pub struct IngestPolicy {
    pub translator: Translator,
    pub admission: AdmissionPolicy,
    /// All listeners there are.
    pub listeners: Arc<[Listen]>,
    /// The longest line, in bytes, that is made of pieces; `None`: they stay what they are.
    pub rejoin: Option<usize>,
}

/// The parts of admission that all listeners share.
#[derive(Clone)]
pub struct SharedAdmission {
    pub buckets: Arc<Buckets>,
    pub reassembler: Arc<Reassembler>,
}

/// One for each connection or thread: cloning is cheap, an idle one holds no buffer.
#[derive(Clone)]
pub struct Ingest {
    /// The listener's address, as configured when the listener began.
    address: Arc<ListenAddress>,
    /// The listener's address as text.
    label: Arc<str>,
    policy: IngestPolicy,
    /// The policy from the next read on, once there is another one.
    policies: watch::Receiver<IngestPolicy>,
    /// The sender can be made to wait, so nothing needs to be refused.
    waits: bool,
    /// The least severe that is taken of the current read.
    least: u8,
    /// How many headers, and containers, are remembered.
    headers: usize,
    /// The sender's address, where it has one.
    peer: Option<IpAddr>,
    admission: Admission,
    reassembler: Arc<Reassembler>,
    spool: Inlet,
    shapes: ShapeMetrics,
    /// When the current read came in: one look at the clock for a whole batch.
    received: UnixMicros,
    batch: Batch,
    /// Bytes the batch is likely to have.
    expected: usize,
    /// Messages of the batch by shape: counted here, so that counting costs nothing for each of them.
    counts: [u64; Shape::ALL.len()],
}

impl Ingest {
    /// `address`: the listener's, as configured.
    pub fn new(
        policies: watch::Receiver<IngestPolicy>,
        spool: Inlet,
        metrics: &Metrics,
        address: &ListenAddress,
        shared: &SharedAdmission,
    ) -> Self {
        let policy = policies.borrow().clone();
        let label: Arc<str> = address.to_string().into();
        let mut ingest = Self {
            address: Arc::new(address.clone()),
            label: label.clone(),
            policy,
            policies,
            waits: false,
            least: DEBUG,
            headers: MAX_HEADERS,
            peer: None,
            admission: Admission::new(metrics.containers().clone(), shared.buckets.clone(), label),
            reassembler: shared.reassembler.clone(),
            spool,
            shapes: metrics.shapes(),
            received: UnixMicros(0),
            batch: Batch::new(),
            expected: 0,
            counts: [0; Shape::ALL.len()],
        };
        ingest.take_policy();
        ingest
    }

    /// For senders whose kernel holds what we do not read at once.
    pub fn of_streams(mut self) -> Self {
        self.spool = self.spool.of_streams();
        self.headers = HEADERS_OF_A_STREAM;
        self.admission.remember(self.headers);
        self.policy.translator.remember_headers(self.headers);
        self
    }

    /// Refuses nothing from now on: its sender is made to wait instead.
    pub fn make_senders_wait(&mut self) {
        self.waits = true;
        self.spool = self.spool.of_waiting_senders();
    }

    /// From now on frames come from this address.
    pub fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.peer = peer;
        self.policy.translator.set_peer(peer);
    }

    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The listener's address, as configured.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The turn of this stream to be read, if it comes at once. It lasts until what is returned is dropped.
    pub fn try_turn(&self) -> Option<Turn> {
        self.spool.try_turn()
    }

    /// Waits for the turn.
    pub fn turn(&self) -> impl Future<Output = Option<Turn>> + use<> {
        self.spool.turn()
    }

    /// Call once for each read of `bytes` bytes, before its frames.
    pub fn begin(&mut self, bytes: usize) {
        self.received = now();
        // A line of Docker's grows by half; what grows more makes the batch grow.
        self.expected = bytes + bytes / 2;
        // An error: nobody is left who could change it.
        if self.policies.has_changed().unwrap_or(false) {
            self.take_policy();
        }
        self.least = if self.waits { DEBUG } else { self.policy.admission.shedding.least(self.spool.fullness()) };
    }

    /// One complete frame, its framing removed (a trailing LF may be there), and whether it was cut. False: it is not in
    /// the batch, because it was refused, or waits for the rest of its line.
    ///
    /// The record is asked first. The line is written when it is known that it stays.
    pub fn frame(&mut self, bytes: &[u8], cut: bool) -> bool {
        let Self { label, policy, batch, expected, counts, received, least, waits, .. } = self;
        let IngestPolicy { translator, admission: policy, rejoin, .. } = policy;
        if batch.is_empty() {
            // Once for each read: one that is taken in many batches has no large ones.
            batch.reserve(std::mem::take(expected));
        }
        let now = *received;
        let mut passage = Passage {
            admission: &mut self.admission,
            policy,
            // A sender that waits for an answer is answered for what is spooled.
            rejoin: rejoin.filter(|_| !*waits && !cut).map(|max| (&*self.reassembler, &**label, max)),
            load: (*least, !*waits),
            now,
        };
        let frame = Frame { bytes, cut, received: now };
        let result = if let Some(known) = translator.find(&frame)
            && let Some(sender) = passage.admission.find(known.header)
        {
            counts[known.shape as usize] += 1;
            let facts = Facts { sender, priority: (known.facility(), known.severity()), text: known.text.len() };
            passage.take(facts, batch, |out| translator.write_known(&known, out))
        } else {
            let message = translator.read(&frame);
            counts[message.shape as usize] += 1;
            let record = &message.record;
            let sender = passage.admission.identify(record, message.header, policy, now);
            let text = record.message.map_or(0, <[u8]>::len);
            let facts = Facts { sender, priority: (record.facility, record.severity), text };
            passage.take(facts, batch, |out| message.write(out))
        };
        result.unwrap_or_else(|why| {
            self.spool.count_refused(why);
            false
        })
    }

    /// Bytes of the batch so far.
    pub fn pending(&self) -> usize {
        self.batch.byte_len()
    }

    /// Hands the batch over; waits for the spool's queue, but never for long. An empty batch is nothing.
    pub async fn flush(&mut self) {
        let batch = self.take();
        self.spool.send(batch).await;
    }

    /// Hands the batch over from a thread that may block; waits for the spool's queue, but never for long.
    pub fn flush_blocking(&mut self) {
        let batch = self.take();
        self.spool.send_blocking(batch);
    }

    /// Hands over a batch whose sender waits until the spool has it; see [`Inlet::deliver`].
    pub async fn deliver(&self, batch: Batch, origin: Option<Origin>) -> Receipt {
        self.spool.deliver(batch, origin).await
    }

    fn take_policy(&mut self) {
        self.policy = self.policies.borrow_and_update().clone();
        let IngestPolicy { translator, listeners, .. } = &mut self.policy;
        let own = listeners.iter().rfind(|listener| self.address.can_become(&listener.address));
        let mark =
            ListenerMark::new(own.and_then(|own| own.name.as_deref()), listeners.iter().any(|one| one.name.is_some()));
        translator.remember_headers(self.headers);
        translator.set_peer(self.peer);
        translator.listen_to(mark, own.map_or(Senders::Anybody, |own| own.from));
        self.admission.forget();
    }

    /// The batch so far. What was refused is counted with it, also when it is empty.
    pub fn take(&mut self) -> Batch {
        for (shape, count) in Shape::ALL.into_iter().zip(std::mem::take(&mut self.counts)) {
            let counter = match shape {
                Shape::Docker => &self.shapes.docker,
                Shape::Rfc5424 => &self.shapes.rfc5424,
                Shape::Rfc3164 => &self.shapes.rfc3164,
                Shape::Unknown => &self.shapes.unknown,
            };
            if count > 0 {
                counter.inc_by(count);
            }
        }
        self.admission.count();
        std::mem::take(&mut self.batch)
    }
}

/// The way of one message into the batch.
struct Passage<'i> {
    admission: &'i mut Admission,
    policy: &'i AdmissionPolicy,
    /// Where pieces become lines again, the listener's address, and the longest line in bytes.
    rejoin: Option<(&'i Reassembler, &'i str, usize)>,
    /// See [`Admission::check_load`].
    load: (u8, bool),
    now: UnixMicros,
}

/// What is asked of a message.
struct Facts {
    sender: Sender,
    /// Facility and severity.
    priority: (u8, u8),
    /// Bytes of its text.
    text: usize,
}

impl Passage<'_> {
    /// False: it waits for the rest of its line.
    #[inline]
    fn take(&mut self, facts: Facts, batch: &mut Batch, write: impl FnOnce(&mut Vec<u8>)) -> Result<bool, Refused> {
        let Facts { mut sender, priority, text } = facts;
        let Self { admission, policy, load, now, .. } = self;
        admission.check_rules(&mut sender, priority, policy)?;
        if let Some((reassembler, address, max)) = self.rejoin
            && !matches!(sender, Sender::Other { .. })
            && reassembler.concerns(text)
        {
            let mut line = Vec::new();
            write(&mut line);
            let Some(line) = reassembler.join(address, line, text, max, *now) else { return Ok(false) };
            admission.check_load(&sender, priority.1, policy, *load, *now)?;
            batch.push(|out| out.extend_from_slice(&line));
        } else {
            admission.check_load(&sender, priority.1, policy, *load, *now)?;
            batch.push(write);
        }
        Ok(true)
    }
}

/// The clock: messages are stamped with when they were read.
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
