//! Where one listener's messages go: each is read as a record, admission is asked, and what is let in is a line in the batch of this
//! read, which is handed to the spool. When the spool is nearly full, what matters least is refused here (RFC 5424 8.6).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::admission::{
    Admission, AdmissionPolicy, Buckets, DEBUG, Gate, Joins, PendingMessages, Quiet, Reassembler, Text,
};
use super::passage::{Facts, Passage};
use crate::config::{self, Listen, ListenAddress, Multiline};
use crate::loops::LoopGuard;
use crate::metrics::{Metrics, ShapeMetrics};
use crate::protocol::outline::Outline;
use crate::protocol::session::{Protocol, ToRecord};
use crate::protocol::syslog::{Frame, MAX_HEADERS, Shape, TagTemplates, Translator, has_priority};
use crate::record::{UnixMicros, escape};
use crate::spool::{Batch, Inlet, Origin, Receipt, Refused, Turn};
use crate::status::{Mistake, Mistakes};

/// A spool fuller than this, in percent, may have no room for a batch.
const FULL: u8 = 90;

/// Bytes of a tag that are said.
const MAX_TAG_SAID: usize = 128;

/// A container's connection has one header; whoever sends many names on one must not have us remember them.
const HEADERS_OF_A_STREAM: usize = 2;
/// Fluent Bit, Fluentd and GELF's libraries may send what many containers say on one connection, most often several messages of each
/// in turn.
const CONTAINERS_OF_A_FORWARDER: usize = 32;
const HEADERS_OF_A_FORWARDER: usize = 8;

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
    /// Messages that wait for their next line.
    pub joiner: Arc<PendingMessages>,
    /// What is known for `[[sample]]` and `repeat`.
    pub quiet: Quiet,
    /// What comes back from a forward of our own is not let in.
    pub loops: Arc<LoopGuard>,
    pub mistakes: Mistakes,
}

/// One for each connection or thread: cloning is cheap, an idle one holds no buffer.
#[derive(Clone)]
pub struct Ingest {
    /// The listener's address, as configured when the listener began.
    address: Arc<ListenAddress>,
    /// The listener's address as text.
    label: Arc<str>,
    policy: IngestPolicy,
    /// What messages are asked when they are whole, and whether each one is.
    gate: Arc<Gate>,
    gate_asks_all: bool,
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
    joiner: Arc<PendingMessages>,
    /// Which lines become messages, and the longest one in bytes; `None`: they stay what they are.
    joins: Option<(Multiline, usize)>,
    /// The number of the connection; 0: these are datagrams.
    connection: u64,
    /// Of the last message of this connection.
    last_key: Option<Vec<u8>>,
    loops: Arc<LoopGuard>,
    mistakes: Mistakes,
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
        let gate = Gate {
            policy: policy.admission.clone(),
            listener: label.clone(),
            repeat: None,
            masked: metrics.masked_by_listener(&label),
            quiet: shared.quiet.clone(),
        };
        let mut ingest = Self {
            address: Arc::new(address.clone()),
            label: label.clone(),
            gate: Arc::new(gate),
            gate_asks_all: false,
            policy,
            policies,
            waits: false,
            least: DEBUG,
            headers: MAX_HEADERS,
            peer: None,
            admission: Admission::new(metrics.containers().clone(), shared.buckets.clone(), label),
            reassembler: shared.reassembler.clone(),
            joiner: shared.joiner.clone(),
            joins: None,
            connection: 0,
            last_key: None,
            loops: shared.loops.clone(),
            mistakes: shared.mistakes.clone(),
            spool,
            shapes: metrics.shapes(),
            received: UnixMicros(0),
            batch: Batch::new(),
            expected: 0,
            counts: [0; Shape::ALL.len()],
        };
        // Its numbers stand for lines.
        if address.protocol() == Protocol::Relp {
            ingest.admission.keep_all();
        }
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

    /// For senders that may speak for many containers on one connection.
    pub fn of_forwarders(&mut self) {
        self.admission.remember(CONTAINERS_OF_A_FORWARDER);
        self.headers = HEADERS_OF_A_FORWARDER;
        self.policy.translator.remember_headers(self.headers);
    }

    /// From now on frames come from a connection of their own.
    pub fn begin_connection(&mut self) {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        self.connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    }

    /// Refuses nothing from now on: its sender is made to wait instead.
    pub fn make_senders_wait(&mut self) {
        self.waits = true;
        // Also of what is being read.
        self.least = DEBUG;
        self.spool = self.spool.of_waiting_senders();
    }

    /// From now on frames come from this address.
    pub fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.peer = peer;
        self.policy.translator.set_peer(peer);
    }

    /// Whether the spool is as good as full: the next batch may find no room.
    pub fn is_spool_full(&self) -> bool {
        self.spool.fullness() >= FULL
    }

    /// How long a sender may be held that cannot wait for long; `None`: without end.
    pub fn max_wait(&self) -> Option<Duration> {
        self.spool.patience()
    }

    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
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
        let Self {
            label,
            policy,
            batch,
            expected,
            counts,
            received,
            least,
            waits,
            loops,
            peer,
            gate,
            gate_asks_all,
            joiner,
            joins,
            connection,
            last_key,
            ..
        } = self;
        let IngestPolicy { translator, admission: policy, rejoin, .. } = policy;
        if batch.is_empty() {
            // Once for each read: one that is taken in many batches has no large ones.
            batch.reserve(std::mem::take(expected));
        }
        let now = *received;
        // A sender that waits for an answer is answered for what is spooled.
        let joins = joins.as_ref().filter(|_| !*waits);
        let joins = joins.map(|(multiline, max)| {
            let from = (&**label, *connection);
            let is_bare = *connection > 0 && !has_priority(bytes);
            Joins { pending: joiner, multiline, from, max: *max, cut, is_bare, last_key }
        });
        if let Some(joins) = &joins
            && joins.take_bare(bytes, now)
        {
            counts[Shape::Unknown as usize] += 1;
            return false;
        }
        let mut passage = Passage {
            joins,
            admission: &mut self.admission,
            policy,
            gate,
            gate_asks_all: *gate_asks_all,
            // A sender that waits for an answer is answered for what is spooled.
            rejoin: rejoin.filter(|_| !*waits && !cut).map(|max| (&*self.reassembler, &**label, max)),
            load: (*least, !*waits),
            spool: &self.spool,
            now,
        };
        let frame = Frame { bytes, cut, received: now };
        let result = if let Some(known) = translator.find(&frame)
            && let Some(sender) = passage.admission.find(known.header)
        {
            counts[known.shape as usize] += 1;
            let text = Text::of_syslog(known.text.len());
            let facts = Facts { sender, priority: (known.facility(), known.severity()), text };
            passage.take(facts, batch, |out| translator.write_known(&known, out))
        } else {
            let is_docker_s = translator.hears_docker_only();
            let (message, shape) = translator.read(&frame);
            counts[shape as usize] += 1;
            if let Some((tag, templates)) = message.unmatched_tag() {
                self.mistakes.note(Mistake::UnmatchedTag, || unmatched_tag(label, tag, templates));
            }
            let from = (&**label, *peer);
            let is_back = match &message.record.hop {
                Some(hops) => loops.is_back(hops, from),
                // Where only Docker sends, a line of ours is text.
                None => is_docker_s && shape != Shape::Docker && loops.is_back_as_text(bytes, from),
            };
            match is_back {
                true => Err(Refused::Loop),
                false => {
                    let sender = passage.admission.identify(&message.record, message.header, policy, now);
                    passage.take_message(sender, message, batch)
                }
            }
        };
        result.unwrap_or_else(|why| {
            self.spool.count_refused(why);
            false
        })
    }

    /// One message of another protocol than syslog. False: as of [`frame`](Self::frame).
    pub fn record(&mut self, said: &impl ToRecord) -> bool {
        if let Some(taken) = said.outline().and_then(|outline| self.known(&outline)) {
            return taken;
        }
        let (mut passage, translator, batch) = self.passage(said.is_cut(), said.tells_pieces());
        let message = translator.take(said, passage.now);
        let Passage { admission, policy, now, .. } = &mut passage;
        let sender = match message.header {
            Some(header) => admission.identify(&message.record, Some(header), policy, *now),
            None => admission.identify_record(&message.record, policy, *now),
        };
        let taken = passage.take_message(sender, message, batch);
        taken.unwrap_or_else(|why| self.refuse(why))
    }

    /// One message of another protocol than syslog, if all but its time and its text came before. What it returns is as of
    /// [`frame`](Self::frame).
    pub fn known(&mut self, outline: &Outline<'_>) -> Option<bool> {
        let (mut passage, translator, batch) = self.passage(false, outline.tells_pieces);
        let known = translator.find_outlined(outline, passage.now)?;
        let sender = passage.admission.find(known.header)?;
        let text = match passage.rejoin {
            Some(_) => Text::of_gelf(known.text),
            None => Text::of_syslog(known.text.len()),
        };
        let facts = Facts { sender, priority: (known.facility(), known.severity()), text };
        let taken = passage.take(facts, batch, |out| translator.write_known(&known, out));
        Some(taken.unwrap_or_else(|why| self.refuse(why)))
    }

    fn refuse(&mut self, why: Refused) -> bool {
        self.spool.count_refused(why);
        false
    }

    /// The way of a message of another protocol than syslog. `tells_pieces`: nothing else tells what is a piece of a line.
    #[inline]
    fn passage(&mut self, cut: bool, tells_pieces: bool) -> (Passage<'_>, &mut Translator, &mut Batch) {
        let Self {
            label,
            policy,
            gate,
            gate_asks_all,
            batch,
            expected,
            received,
            least,
            waits,
            joiner,
            joins,
            connection,
            last_key,
            ..
        } = self;
        let IngestPolicy { translator, admission: policy, rejoin, .. } = policy;
        if batch.is_empty() {
            batch.reserve(std::mem::take(expected));
        }
        let now = *received;
        let joins = joins.as_ref().filter(|_| !*waits).map(|(multiline, max)| {
            let from = (&**label, *connection);
            Joins { pending: joiner, multiline, from, max: *max, cut, is_bare: false, last_key }
        });
        let rejoin = rejoin.filter(|_| !*waits && !cut && !tells_pieces);
        let passage = Passage {
            joins,
            admission: &mut self.admission,
            policy,
            gate,
            gate_asks_all: *gate_asks_all,
            rejoin: rejoin.map(|max| (&*self.reassembler, &**label, max)),
            load: (*least, !*waits),
            spool: &self.spool,
            now,
        };
        (passage, translator, batch)
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
        let IngestPolicy { translator, admission, listeners, .. } = &mut self.policy;
        let own = listeners.iter().rfind(|listener| self.address.can_become(&listener.address));
        translator.remember_headers(self.headers);
        translator.set_peer(self.peer);
        let asking = admission.drop.iter().chain(admission.sample.iter().map(|sample| &sample.rule));
        translator.listen_to(config::listening(own, listeners, asking));
        let joins = own.filter(|own| own.multiline != Multiline::Off);
        self.joins = joins.map(|own| (own.multiline.clone(), own.limits.max_frame));
        let gate = Gate {
            policy: admission.clone(),
            listener: self.label.clone(),
            repeat: own.and_then(|own| own.repeat),
            masked: self.gate.masked.clone(),
            quiet: self.gate.quiet.clone(),
        };
        (self.gate_asks_all, self.gate) = (gate.asks_all(), Arc::new(gate));
        self.admission.forget();
    }

    /// The batch so far. What was refused is counted with it, also when it is empty.
    pub fn take(&mut self) -> Batch {
        self.loops.count_relayed(self.counts.iter().sum::<u64>() - self.counts[Shape::Docker as usize]);
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

/// What to say of a container whose tag fits none of these templates.
fn unmatched_tag(listener: &str, tag: &[u8], templates: &TagTemplates) -> String {
    format!(
        "listen: {listener}: the tag `{}` of a container does not fit `tag-template` ({}): its lines have no name for \
         `match`, limits and metrics; write there what the container's `tag` option is, or make that one of these \
         (logferry_syslog_unmatched_tags counts such messages, this is said once)",
        escape(&tag[..tag.len().min(MAX_TAG_SAID)]),
        templates.written().join(", ")
    )
}

/// The clock: messages are stamped with when they were read.
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
