//! The bundles: what each stage counts. A stage takes its own once at start; from then on counting is one atomic addition.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::ByCertificate;

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
    /// Tails without an end, dropped when their connection broke. Never counted as received.
    pub unfinished: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed, and datagrams not taken.
    pub refused: Refusals,
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

/// Why only the start of a frame was kept.
#[derive(Clone)]
pub struct Cuts {
    /// It was longer than that, or than a datagram.
    pub max_frame: Counter,
    /// Its connection ended before it did.
    pub connection_end: Counter,
    /// Its end did not come in that time.
    pub frame_timeout: Counter,
    /// All frames without an end together would have taken more than that.
    pub max_unfinished: Counter,
}

/// Why somebody was not listened to, or no longer.
#[derive(Clone)]
pub struct Refusals {
    /// There were so many.
    pub max_connections: Counter,
    /// There were so many of this address.
    pub max_connections_per_address: Counter,
    /// It is none of these addresses.
    pub allow: Counter,
    /// Plain text where only TLS is taken.
    pub plaintext: Counter,
    /// Where RELP is spoken, something else.
    pub protocol: Counter,
    /// A RELP frame did not end in that time.
    pub frame_timeout: Counter,
    /// A RELP session would have taken more memory than there is for all.
    pub max_unfinished: Counter,
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
    /// Lines whose senders are made to wait, because the spool is full or the disk refuses them.
    pub held: Gauge,
    /// Lines of low severity refused because the spool was nearly full.
    pub dropped_severity: Counter,
    /// Lines that a `[[drop]]` rule means.
    pub dropped_rule: Counter,
    /// Lines of containers that sent more than `rate-limit` allows.
    pub dropped_rate: Counter,
    /// Bytes of all segments together.
    pub bytes: Gauge,
    /// What they may take together, in bytes.
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
    /// Lines sent again after a connection broke: what the collector may have twice.
    pub resent: Counter,
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
    /// Their sum, under the name it had before they were told apart.
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
}

impl ForwardMetrics {
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
