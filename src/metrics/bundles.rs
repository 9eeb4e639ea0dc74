//! The bundles: what each stage counts. A stage takes its own once at start; from then on counting is one atomic addition.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{ByCertificate, ByListenerAndReason};
use crate::protocol::foreign::Foreign;
use crate::protocol::session::Violation;

/// What is counted of certificates.
#[derive(Clone)]
pub struct TlsMetrics {
    /// Changed files that were taken over.
    pub reloads_applied: Counter,
    /// Changed files that could not be used, once for each thing that was wrong with them.
    pub reloads_refused: Counter,
    /// When certificates end, in Unix time.
    pub not_after: Family<ByCertificate, Gauge>,
}

impl TlsMetrics {
    /// `certificate`: where it is used, in the config's words.
    pub fn not_after(&self, certificate: &str) -> Gauge {
        self.not_after.get_or_create(&ByCertificate { certificate: certificate.to_owned() }).clone()
    }
}

/// The counters of one listener.
#[derive(Clone)]
pub struct ListenMetrics {
    /// Complete frames handed on.
    pub received: Counter,
    /// Bytes read off the socket, framing included.
    pub bytes: Counter,
    /// Frames of which only the start was kept.
    pub cut: Cuts,
    /// Bytes behind those starts, which were thrown away.
    pub skipped: SkippedBytes,
    /// Tails without an end, dropped when their connection broke. Never counted as received.
    pub unfinished: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed, and datagrams not taken.
    pub refused: Refusals,
    /// Chunks that came again after a connection broke, and were in the spool already.
    pub repeated: Counter,
    /// TLS handshakes that failed or took too long, and RELP sessions that were not opened in time.
    pub handshake_failures: Counter,
    /// Connections open now.
    pub connections: Gauge,
    /// Datagrams the kernel threw away because the receive buffer was full (`SO_MEMINFO`).
    pub kernel_drops: Counter,
    /// How often the name of a unix socket was gone and was bound again.
    pub rebinds: Counter,
    /// The receive buffer the kernel granted, in bytes (`SO_RCVBUF` as read back).
    pub receive_buffer: Gauge,
}

/// Frames of which only the start was kept, by the reason.
#[derive(Clone)]
pub struct Cuts {
    /// The frame was longer than `max-frame`, or than a datagram.
    pub max_frame: Counter,
    /// The connection ended before the frame.
    pub connection_end: Counter,
    /// The frame did not end within `frame-timeout`.
    pub frame_timeout: Counter,
    /// All frames without an end together would have taken more than `max-unfinished`.
    pub max_unfinished: Counter,
}

/// Bytes of frames that were thrown away where only the start was kept, by the reason.
#[derive(Clone)]
pub struct SkippedBytes {
    pub max_frame: Counter,
    pub frame_timeout: Counter,
    pub max_unfinished: Counter,
}

/// Connections and datagrams that were refused, by the reason.
#[derive(Clone)]
pub struct Refusals {
    /// There were `max-connections` connections.
    pub max_connections: Counter,
    /// There were `max-connections-per-address` connections from the address.
    pub max_connections_per_address: Counter,
    /// The sender's address is not in `allow`.
    pub allow: Counter,
    /// The address for which the proxy speaks is not in `client-allow`.
    pub client_allow: Counter,
    /// No header of the PROXY protocol, or not in time.
    pub proxy_protocol: Counter,
    /// Plain text where only TLS is taken.
    pub plaintext: Counter,
    /// Another protocol was spoken: a counter for each [`Foreign`], in their order.
    pub foreign: [Counter; Foreign::ALL.len()],
    /// What was spoken to a RELP listener is neither RELP nor a protocol that is known.
    pub protocol: Counter,
    /// A message did not end within `frame-timeout`, and without it there was no way to go on.
    pub frame_timeout: Counter,
    /// A session would have taken more memory than there is for all.
    pub max_unfinished: Counter,
    /// The sender waited for an answer for `max-wait`.
    pub max_wait: Counter,
    pub(super) all: Family<ByListenerAndReason, Counter>,
    pub(super) listener: String,
    pub(super) words: Words,
}

/// The words for each name of a violation that was counted, which are as many as the program has. Clones share them.
pub(super) type Words = Arc<Mutex<BTreeMap<&'static str, Cow<'static, str>>>>;

impl Refusals {
    /// The counter of what is wrong with what was sent.
    pub fn of_violation(&self, violation: &Violation) -> Counter {
        self.words.lock().entry(violation.name).or_insert_with(|| violation.why.clone());
        self.of_protocol(violation.name)
    }

    /// What was wrong with what was sent: its name, how often, and its words.
    pub fn violations(&self) -> Vec<(&'static str, Counter, Cow<'static, str>)> {
        let words = self.words.lock().clone();
        words.into_iter().map(|(name, words)| (name, self.of_protocol(name), words)).collect()
    }

    /// What was spoken is neither the protocol of the listener nor another one that is known: by what is wrong with it.
    pub fn of_protocol(&self, reason: &'static str) -> Counter {
        self.all.get_or_create(&ByListenerAndReason { listener: self.listener.clone(), reason }).clone()
    }
}

/// How many messages were understood in which way; one counter for each `protocol::syslog::Shape`.
#[derive(Clone)]
pub struct ShapeMetrics {
    pub docker: Counter,
    pub rfc5424: Counter,
    pub rfc3164: Counter,
    pub unknown: Counter,
}

/// What becomes of the pieces that Docker cuts long lines into.
#[derive(Clone)]
pub struct PieceMetrics {
    /// Messages that went on as a part of the line before them.
    pub joined: Counter,
    /// Messages that wait for the rest of their line.
    pub pending: Gauge,
}

/// The counters of the spool's writing side.
#[derive(Clone)]
pub struct SpoolMetrics {
    /// Lines appended to the spool.
    pub spooled: Counter,
    /// Lines refused because the spool was full and its policy is `drop-newest`.
    pub dropped_full: Counter,
    /// Lines lost because the disk refused them and nothing older could be given up for them.
    pub dropped_error: Counter,
    /// Lines lost because the spool's writer stood still for longer than the listeners may wait.
    pub dropped_stalled: Counter,
    /// Lines that another relay has sent again, and that were here already.
    pub dropped_repeated: Counter,
    /// Lines that waited for room when their sender hung up without an answer.
    pub dropped_withdrawn: Counter,
    /// Lines whose senders are made to wait, because the spool is full or the disk refuses them.
    pub held: Gauge,
    /// Lines of low severity refused because the spool was nearly full.
    pub dropped_severity: Counter,
    /// Lines that a `[[drop]]` rule means.
    pub dropped_rule: Counter,
    /// Lines of which a `[[sample]]` rule keeps one of so many.
    pub dropped_sample: Counter,
    /// Lines for which another one stands that is equal.
    pub dropped_repeat: Counter,
    /// Lines that a forward of our own had sent, and that came back.
    pub dropped_loop: Counter,
    /// Lines of containers that sent more than `rate-limit` allows.
    pub dropped_rate: Counter,
    /// Bytes of all segments together.
    pub bytes: Gauge,
    /// Bytes that all segments together may have.
    pub max_bytes: Gauge,
    /// Times the disk was made to keep what was written.
    pub syncs: Counter,
    /// Failed writes and syncs.
    pub errors: Counter,
}

/// What the relay said and could not put into its own spool.
#[derive(Clone)]
pub struct LogMetrics {
    /// More was said in a minute than is taken.
    pub dropped_rate: Counter,
    /// Too much waited already.
    pub dropped_full: Counter,
}

/// The counters of one forward.
#[derive(Clone)]
pub struct ForwardMetrics {
    /// Lines the collector has, as far as the transport can tell. Each counts once, when it is first acknowledged.
    pub delivered: Counter,
    /// Lines that the forward's `match` does not mean.
    pub filtered: Counter,
    /// Lines that the collector refused for good. They are dead letters.
    pub rejected: Counter,
    /// Bytes of the forward's dead letters on the disk.
    pub dead_letter_bytes: Gauge,
    /// Lines sent again after a connection broke, which the collector may have twice, and dead letters that were sent again.
    pub resent: Counter,
    /// Dead letters that are still to be sent again.
    pub resend_pending: Gauge,
    /// Connections that were left in good order, that the collector has not closed, and whose lines it may not have read.
    pub half_closed: Gauge,
    /// Lines of a `file://` that went to the file of the others, because their own cannot be written or would be one too many.
    pub diverted: Counter,
    /// Lines given up because the spool was full (`drop-oldest`), that the collector was not known to have.
    pub evicted: Counter,
    /// Lines given up then that the collector had acknowledged, and that cannot be sent again if it loses them.
    pub evicted_replayable: Counter,
    /// Lines in the spool that could not be read any more.
    pub damaged: Counter,
    pub(super) pending: Gauge,
    pub(super) replayable: Gauge,
    /// The sum of pending and replayable, under the name it had before the two were told apart.
    pub(super) waiting: Gauge,
    /// 1 while a connection stands.
    pub connected: Gauge,
    /// Connections made.
    pub connects: Counter,
    /// Attempts to connect that failed, one for each address tried.
    pub connect_failures: Counter,
    /// Look-ups of the collector's name that gave no address.
    pub resolve_failures: Counter,
    /// How often the forward left an address because the name no longer pointed to it.
    pub moves: Counter,
    /// How often the forward left a collector because one that comes earlier was back.
    pub failbacks: Counter,
    /// 1 while the collector refuses everything.
    pub stopped: Gauge,
    /// Requests to a log store, by what became of them.
    pub requests: ByWord,
    /// Lines that became dead letters, by reason.
    pub dead_letters: ByWord,
    /// Lines that a log store has not taken without saying which.
    pub short: Counter,
    /// Lines that a log store has with the time of sending, because their own is too old for it.
    pub restamped: Counter,
    /// Lines in which something was hidden.
    pub masked: Counter,
    /// Lines that could not be read as the settings say, by what of them.
    pub misread: ByWord,
}

/// What of a line could not be read.
pub(super) const MISREAD: &[&str] = &["form", "limit", "duplicate", "time", "severity", "label"];
/// What became of a request to a log store.
pub(super) const VERDICTS: &[&str] = &["delivered", "short", "again", "poison", "stop", "unanswered"];
/// Why a line is a dead letter.
pub(super) const REASONS: &[&str] = &["refused", "too-large", "too-old"];

/// The labels of [`ByWord`], with their names.
pub(super) type Labels = [(&'static str, String); 2];

/// Counters of a forward, one for each word of a closed set. Those of words that never came are not exported.
#[derive(Clone)]
pub struct ByWord {
    all: Family<Labels, Counter>,
    forward: String,
    /// What the words are, as the name of their label.
    label: &'static str,
    words: &'static [&'static str],
}

impl ByWord {
    pub(super) fn new(
        all: &Family<Labels, Counter>,
        forward: &str,
        label: &'static str,
        words: &'static [&'static str],
    ) -> Self {
        Self { all: all.clone(), forward: forward.to_owned(), label, words }
    }

    pub fn count(&self, word: &'static str) {
        self.add(word, 1);
    }

    pub fn add(&self, word: &'static str, count: u64) {
        debug_assert!(self.words.contains(&word), "{word} is not in the docs");
        if count > 0 {
            self.all.get_or_create(&self.labels(word)).inc_by(count);
        }
    }

    /// The words that came, each with how often.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |word| Some((word, self.all.get(&self.labels(word))?.get()));
        self.words.iter().copied().filter_map(count).collect()
    }

    fn labels(&self, word: &'static str) -> Labels {
        [("forward", self.forward.clone()), (self.label, word.to_owned())]
    }
}

impl ForwardMetrics {
    /// Those of dead letters that are sent again: they were counted before, so that most of it counts nowhere.
    pub fn of_resend(&self) -> Self {
        Self {
            delivered: Counter::default(),
            filtered: Counter::default(),
            rejected: Counter::default(),
            dead_letter_bytes: Gauge::default(),
            resent: Counter::default(),
            half_closed: Gauge::default(),
            diverted: Counter::default(),
            evicted: Counter::default(),
            evicted_replayable: Counter::default(),
            damaged: Counter::default(),
            pending: Gauge::default(),
            replayable: Gauge::default(),
            waiting: Gauge::default(),
            connected: Gauge::default(),
            stopped: Gauge::default(),
            ..self.clone()
        }
    }

    /// Lines in the spool that the collector has not got, and lines that it has got and that are kept because they may
    /// have to be sent again.
    pub fn set_left(&self, pending: u64, replayable: u64) {
        self.pending.set(pending as i64);
        self.replayable.set(replayable as i64);
        self.waiting.set((pending + replayable) as i64);
    }

    /// Lines in the spool that the collector has not got.
    pub fn pending(&self) -> u64 {
        self.pending.get().unsigned_abs()
    }

    /// Lines in the spool that the collector has got and that may have to be sent again.
    pub fn replayable(&self) -> u64 {
        self.replayable.get().unsigned_abs()
    }
}
