//! The ingest of one listener: parses each message as a record, asks admission, and writes the admitted messages as lines into the
//! batch of this read, which it hands to the spool. When the spool is nearly full, the least severe messages are refused here (RFC
//! 5424 8.6).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::admission::{
    Admission, AdmissionPolicy, Buckets, DEBUG, Gate, Joins, PendingMessages, Quiet, Reassembler, Text,
};
use super::passage::{Facts, Passage};
use crate::coalescing::Coalescing;
use crate::config::{self, Listen, ListenAddress, Multiline};
use crate::loops::LoopGuard;
use crate::metrics::{Metrics, ShapeMetrics};
use crate::protocol::outline::Outline;
use crate::protocol::session::{Protocol, ToRecord};
use crate::protocol::syslog::{Frame, MAX_HEADERS, Shape, TagTemplates, Translator, has_priority};
use crate::record::{UnixMicros, escape};
use crate::spool::{Batch, Inlet, Origin, Receipt, Refused, Turn};
use crate::status::{Mistake, Mistakes};

/// Fullness of the spool, in percent, from which on a batch may find no room.
const FULL: u8 = 90;

/// Bytes of a tag that are logged.
const MAX_TAG_SAID: usize = 128;

/// Headers that are remembered for a connection. A container's connection has one header. A sender that uses many names must not
/// fill the memory.
const HEADERS_OF_A_STREAM: usize = 2;
/// Containers and headers that are remembered for a connection of Fluent Bit, Fluentd or a GELF library. They may send the messages
/// of many containers on one connection, usually several of each in turn.
const CONTAINERS_OF_A_FORWARDER: usize = 32;
const HEADERS_OF_A_FORWARDER: usize = 8;

/// The policy for messages. It may change between two reads.
#[derive(Clone)]
pub struct IngestPolicy {
    pub translator: Translator,
    pub admission: AdmissionPolicy,
    /// All configured listeners.
    pub listeners: Arc<[Listen]>,
    /// The longest line, in bytes, that is joined from pieces; `None`: pieces are not joined.
    pub rejoin: Option<usize>,
}

/// The parts of admission that all listeners share.
#[derive(Clone)]
pub struct SharedAdmission {
    pub buckets: Arc<Buckets>,
    pub reassembler: Arc<Reassembler>,
    /// Holds messages that wait for their next line.
    pub joiner: Arc<PendingMessages>,
    /// The state of `[[sample]]` and `repeat`.
    pub quiet: Quiet,
    /// Recognizes lines that come back from a forward of this relay, which are dropped.
    pub loops: Arc<LoopGuard>,
    pub mistakes: Mistakes,
}

/// Each connection or thread has a clone. Cloning is cheap, and an idle ingest holds no buffer.
#[derive(Clone)]
pub struct Ingest {
    /// The listener's address, as configured when the listener began.
    address: Arc<ListenAddress>,
    /// The listener's address as text.
    label: Arc<str>,
    policy: IngestPolicy,
    /// The checks on whole messages, and whether every message must pass them.
    gate: Arc<Gate>,
    gate_asks_all: bool,
    /// The source of the next policy, which is in force from the next read on.
    policies: watch::Receiver<IngestPolicy>,
    /// The sender can be made to wait, so no message needs to be refused for load.
    waits: bool,
    /// The highest severity number that is let in during the current read.
    least: u8,
    /// The number of headers, and containers, that are remembered.
    headers: usize,
    /// The sender's address, if it has one.
    peer: Option<IpAddr>,
    admission: Admission,
    reassembler: Arc<Reassembler>,
    joiner: Arc<PendingMessages>,
    /// Which lines continue a message, and the longest message in bytes; `None`: lines are not joined.
    joins: Option<(Multiline, usize)>,
    /// The number of the connection; 0: datagrams.
    connection: u64,
    /// The key of the connection's last message.
    last_key: Option<Vec<u8>>,
    loops: Arc<LoopGuard>,
    mistakes: Mistakes,
    spool: Inlet,
    shapes: ShapeMetrics,
    /// The time of the current read: the clock is read once for a whole batch.
    received: UnixMicros,
    batch: Batch,
    /// The expected size of the batch in bytes.
    expected: usize,
    /// Messages of the batch by shape. The counters are updated once for each batch.
    counts: [u64; Shape::ALL.len()],
}

impl Ingest {
    /// `address`: the listener's address, as configured.
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
        // RELP's numbers count lines, so `[[sample]]` must drop none.
        if address.protocol() == Protocol::Relp {
            ingest.admission.keep_all();
        }
        ingest.take_policy();
        ingest
    }

    /// Configures the ingest for streams: the sender's kernel holds the bytes that are not read at once.
    pub fn of_streams(mut self) -> Self {
        self.spool = self.spool.of_streams();
        self.headers = HEADERS_OF_A_STREAM;
        self.admission.remember(self.headers);
        self.policy.translator.remember_headers(self.headers);
        self
    }

    /// Configures the ingest for senders that may send for many containers on one connection.
    pub fn of_forwarders(&mut self) {
        self.admission.remember(CONTAINERS_OF_A_FORWARDER);
        self.headers = HEADERS_OF_A_FORWARDER;
        self.policy.translator.remember_headers(self.headers);
    }

    /// Begins a connection with a number of its own.
    pub fn begin_connection(&mut self) {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        self.connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    }

    /// From now on, makes the sender wait instead of refusing messages.
    pub fn make_senders_wait(&mut self) {
        self.waits = true;
        // This applies to the current read, too.
        self.least = DEBUG;
        self.spool = self.spool.of_waiting_senders();
    }

    /// Sets the sender's address for the next frames.
    pub fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.peer = peer;
        self.policy.translator.set_peer(peer);
    }

    /// Whether the spool is nearly full, so that the next batch may find no room.
    pub fn is_spool_full(&self) -> bool {
        self.spool.fullness() >= FULL
    }

    /// See [`Inlet::coalescing`].
    pub fn coalescing(&self) -> &Coalescing {
        self.spool.coalescing()
    }

    /// How long a sender may be held that cannot wait long; `None`: without limit.
    pub fn max_wait(&self) -> Option<Duration> {
        self.spool.patience()
    }

    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The turn of this stream to be read, if it is free now. It lasts until the result is dropped.
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
        // A line of Docker's grows by half. The batch grows for lines that grow more.
        self.expected = bytes + bytes / 2;
        // An error: the sender half is gone, so the policy cannot change any more.
        if self.policies.has_changed().unwrap_or(false) {
            self.take_policy();
        }
        self.least = if self.waits { DEBUG } else { self.policy.admission.shedding.least(self.spool.fullness()) };
    }

    /// Takes one complete frame without its framing (a trailing LF is allowed), and whether it was cut. False: the message is not
    /// in the batch, because it was refused or waits for its next part.
    ///
    /// Admission examines the record first. The line is written only if the message stays.
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
            // Once for each read: a read that is taken in several batches has no large ones.
            batch.reserve(std::mem::take(expected));
        }
        let now = *received;
        // No joining for a sender that waits for an answer: it is answered only for spooled messages.
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
            // No joining for a sender that waits for an answer: it is answered only for spooled messages.
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
                // On a listener for Docker alone, a line of this relay is parsed as plain text.
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

    /// Takes one message of a protocol other than syslog. False: see [`frame`](Self::frame).
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

    /// Takes one message of a protocol other than syslog, if its header came before, that is, everything except time and text.
    /// `None`: it did not. The boolean is that of [`frame`](Self::frame).
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

    /// The passage of a message of a protocol other than syslog. `tells_pieces`: the protocol marks pieces of lines itself.
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

    /// The size of the batch so far, in bytes.
    pub fn pending(&self) -> usize {
        self.batch.byte_len()
    }

    /// Hands the batch over. Waits for the spool's queue, but never long. An empty batch is ignored.
    pub async fn flush(&mut self) {
        let batch = self.take();
        self.spool.send(batch).await;
    }

    /// Hands the batch over from a thread that may block. Waits for the spool's queue, but never long.
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
        let asking = config::intake_rules(&admission.drop, &admission.sample);
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

    /// Takes the batch, and updates the counters. Refused messages are counted too, even if the batch is empty.
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

/// The warning about a container whose tag fits none of these templates.
fn unmatched_tag(listener: &str, tag: &[u8], templates: &TagTemplates) -> String {
    format!(
        "listen: {listener}: the tag `{}` of a container does not fit `tag-template` ({}): its lines have no name for \
         `match`, limits and metrics; write there what the container's `tag` option is, or make that one of these \
         (logferry_syslog_unmatched_tags counts such messages, this is said once)",
        escape(&tag[..tag.len().min(MAX_TAG_SAID)]),
        templates.written().join(", ")
    )
}

/// The wall clock, which gives messages their time of receipt.
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
