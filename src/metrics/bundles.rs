//! The bundles: the counters of each stage. A stage takes its bundle once at start; after that, counting is one atomic addition.

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

/// The counters of certificates.
#[derive(Clone)]
pub struct TlsMetrics {
    /// Changed files that were taken over.
    pub reloads_applied: Counter,
    /// Errors in changed files, one for each error.
    pub reloads_refused: Counter,
    /// The notAfter of each certificate, in Unix time.
    pub not_after: Family<ByCertificate, Gauge>,
}

impl TlsMetrics {
    /// The gauge of one certificate. `certificate`: where the config uses it.
    pub fn not_after(&self, certificate: &str) -> Gauge {
        self.not_after.get_or_create(&ByCertificate { certificate: certificate.to_owned() }).clone()
    }
}

/// The counters of one listener.
#[derive(Clone)]
pub struct ListenMetrics {
    /// Complete frames passed on.
    pub received: Counter,
    /// Bytes read off the socket, framing included.
    pub bytes: Counter,
    /// Frames of which only the start was kept.
    pub cut: Cuts,
    /// Bytes behind those starts, which were discarded.
    pub skipped: SkippedBytes,
    /// Incomplete frames that were dropped when their connection broke. They are never counted as received.
    pub unfinished: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed, and datagrams not taken.
    pub refused: Refusals,
    /// Chunks of the Forward protocol and entries of a journal that came again after a connection broke, and that the spool had
    /// already.
    pub repeated: Counter,
    /// TLS handshakes that failed or took too long, and RELP sessions that were not opened in time.
    pub handshake_failures: Counter,
    /// Connections open now.
    pub connections: Gauge,
    /// Datagrams that the kernel dropped because the receive buffer was full (`SO_MEMINFO`).
    pub kernel_drops: Counter,
    /// How often a unix socket was bound again because its name was gone.
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
    /// All incomplete frames together would have taken more than `max-unfinished`.
    pub max_unfinished: Counter,
}

/// Bytes that were discarded from such frames, by reason.
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
    /// A RELP listener received neither RELP nor another known protocol.
    pub protocol: Counter,
    /// A message did not end within `frame-timeout`, and the session could not continue without it.
    pub frame_timeout: Counter,
    /// A session would have exceeded the memory limit of all sessions.
    pub max_unfinished: Counter,
    /// The sender waited for an answer for `max-wait`.
    pub max_wait: Counter,
    pub(super) all: Family<ByListenerAndReason, Counter>,
    pub(super) listener: String,
    pub(super) words: Words,
}

/// The words for each name of a violation that was counted. There are as many names as the program has. Clones share the map.
pub(super) type Words = Arc<Mutex<BTreeMap<&'static str, Cow<'static, str>>>>;

impl Refusals {
    /// The counter of a violation.
    pub fn of_violation(&self, violation: &Violation) -> Counter {
        self.words.lock().entry(violation.name).or_insert_with(|| violation.why.clone());
        self.of_protocol(violation.name)
    }

    /// The violations that were counted: name, counter and words.
    pub fn violations(&self) -> Vec<(&'static str, Counter, Cow<'static, str>)> {
        let words = self.words.lock().clone();
        words.into_iter().map(|(name, words)| (name, self.of_protocol(name), words)).collect()
    }

    /// The counter of connections that spoke neither the listener's protocol nor another known one, by the name of the violation.
    pub fn of_protocol(&self, reason: &'static str) -> Counter {
        self.all.get_or_create(&ByListenerAndReason { listener: self.listener.clone(), reason }).clone()
    }
}

/// Messages by the shape in which they were parsed; one counter for each `protocol::syslog::Shape`.
#[derive(Clone)]
pub struct ShapeMetrics {
    pub docker: Counter,
    pub rfc5424: Counter,
    pub rfc3164: Counter,
    pub unknown: Counter,
}

/// The counters of pieces: Docker cuts long lines into pieces.
#[derive(Clone)]
pub struct PieceMetrics {
    /// Messages that became part of the line before them.
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
    /// Lines lost because the spool's writer stalled for longer than the listeners may wait.
    pub dropped_stalled: Counter,
    /// Lines that another relay has sent again, and that the spool had already.
    pub dropped_repeated: Counter,
    /// Lines that waited for room when their sender hung up without an answer.
    pub dropped_withdrawn: Counter,
    /// Lines whose senders are made to wait, because the spool is full or the disk refuses them.
    pub held: Gauge,
    /// Lines of low severity refused because the spool was nearly full.
    pub dropped_severity: Counter,
    /// Lines that a `[[drop]]` rule matches.
    pub dropped_rule: Counter,
    /// Lines that a `[[sample]]` rule has dropped because it keeps one of so many.
    pub dropped_sample: Counter,
    /// Lines that `repeat` has dropped because an equal line stands for them.
    pub dropped_repeat: Counter,
    /// Lines that a forward of this relay had sent, and that came back.
    pub dropped_loop: Counter,
    /// Lines of containers that sent more than `rate-limit` allows.
    pub dropped_rate: Counter,
    /// Bytes of all segments together.
    pub bytes: Gauge,
    /// Bytes that all segments together may have.
    pub max_bytes: Gauge,
    /// Syncs of written data to the disk.
    pub syncs: Counter,
    /// Failed writes and syncs.
    pub errors: Counter,
}

/// The relay's own log entries that did not get into its spool.
#[derive(Clone)]
pub struct LogMetrics {
    /// Too many entries in one minute.
    pub dropped_rate: Counter,
    /// The queue was full.
    pub dropped_full: Counter,
}

/// The counters of one forward.
#[derive(Clone)]
pub struct ForwardMetrics {
    /// Lines that the collector has, as far as the transport can tell. Each is counted once, when it is first acknowledged.
    pub delivered: Counter,
    /// Lines that the forward's `match` does not match.
    pub filtered: Counter,
    /// Lines that the collector refused for good. They are dead letters.
    pub rejected: Counter,
    /// Bytes of the forward's dead letters on the disk.
    pub dead_letter_bytes: Gauge,
    /// Lines sent again after a connection broke, which the collector may have twice, and dead letters that were sent again.
    pub resent: Counter,
    /// Dead letters that are still to be sent again.
    pub resend_pending: Gauge,
    /// Connections that the forward has left in good order and the collector has not closed. The collector may not have read their
    /// lines.
    pub half_closed: Gauge,
    /// Lines of a `file://` in the file for all others, because their own file cannot be written or would exceed the limit.
    pub diverted: Counter,
    /// Lines evicted because the spool was full (`drop-oldest`), and not known to have arrived.
    pub evicted: Counter,
    /// Lines evicted because the spool was full, after the collector had acknowledged them. They cannot be sent again if it loses
    /// them.
    pub evicted_replayable: Counter,
    /// Lines in the spool that could not be read any more.
    pub damaged: Counter,
    pub(super) pending: Gauge,
    pub(super) replayable: Gauge,
    /// The sum of pending and replayable, under the old name of the metric.
    pub(super) waiting: Gauge,
    /// 1 while there is a connection.
    pub connected: Gauge,
    /// Connections made.
    pub connects: Counter,
    /// Attempts to connect that failed, one for each address tried.
    pub connect_failures: Counter,
    /// Look-ups of the collector's name that returned no address.
    pub resolve_failures: Counter,
    /// How often the forward left an address because the name no longer pointed to it.
    pub moves: Counter,
    /// How often the forward left a collector because an earlier one in `to` was back.
    pub failbacks: Counter,
    /// 1 while the collector refuses every line.
    pub stopped: Gauge,
    /// Requests to a log store, by verdict.
    pub requests: ByWord,
    /// Lines that became dead letters, by reason.
    pub dead_letters: ByWord,
    /// Lines that a log store rejected without saying which lines they were.
    pub short: Counter,
    /// Lines that a log store got with the time of sending, because their own time is too old for it.
    pub restamped: Counter,
    /// Lines in which a mask has hidden something.
    pub masked: Counter,
    /// Lines that could not be parsed as the settings say, by what was unreadable.
    pub misread: ByWord,
}

/// The part of a line that could not be parsed.
pub(super) const MISREAD: &[&str] = &["form", "limit", "duplicate", "time", "severity", "label"];
/// The verdicts on a request to a log store.
pub(super) const VERDICTS: &[&str] = &["delivered", "short", "again", "poison", "stop", "unanswered"];
/// Why a line is a dead letter.
pub(super) const REASONS: &[&str] = &["refused", "too-large", "too-old"];

/// The labels of [`ByWord`], with their names.
pub(super) type Labels = [(&'static str, String); 2];

/// Counters of a forward, one for each word of a closed set. Words that never occurred are not exported.
#[derive(Clone)]
pub struct ByWord {
    all: Family<Labels, Counter>,
    forward: String,
    /// The name of the words' label.
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

    /// The words that occurred, with their counts.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |word| Some((word, self.all.get(&self.labels(word))?.get()));
        self.words.iter().copied().filter_map(count).collect()
    }

    fn labels(&self, word: &'static str) -> Labels {
        [("forward", self.forward.clone()), (self.label, word.to_owned())]
    }
}

impl ForwardMetrics {
    /// The counters for sending dead letters again. These lines were counted before, so most of the counters are not exported.
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

    /// Sets the number of lines that the collector does not have, and the number of lines that it has and that are kept because
    /// they may have to be sent again.
    pub fn set_left(&self, pending: u64, replayable: u64) {
        self.pending.set(pending as i64);
        self.replayable.set(replayable as i64);
        self.waiting.set((pending + replayable) as i64);
    }

    /// Lines in the spool that the collector does not have.
    pub fn pending(&self) -> u64 {
        self.pending.get().unsigned_abs()
    }

    /// Lines in the spool that the collector has and that may have to be sent again.
    pub fn replayable(&self) -> u64 {
        self.replayable.get().unsigned_abs()
    }
}
