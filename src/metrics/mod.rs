//! The metrics, under the names they are exported with. This module contains only names and numbers. The stages decide when to
//! count, and `admin` decides who may read. No stage bases a decision on a metric; it keeps that state itself.
//!
//! A stage takes its bundle ([`ListenMetrics`], …, in `bundles`) once at start. After that, counting is one atomic addition without
//! a lock or a look-up. Per-message events are counters, never log lines. `containers` has the messages by container, and `process`
//! the standard metrics of the process.
//!
//! # The books
//!
//! Counters balance. Over all listeners and reasons, at rest,
//!
//! ```text
//! received = spooled + dropped + joined (+ held + reassembly pending + repeat pending)
//! ```
//!
//! and at any moment, for each forward,
//!
//! ```text
//! spooled + pending at start = delivered + filtered + rejected + evicted + damaged + pending
//! ```
//!
//! Each line is counted once, when the forward's position *acknowledged* passes it. *Replayable* is a gauge over lines that are
//! counted already: a line that is sent again counts as resent and as nothing else, even after a restart of the relay.
//! `Metrics::imbalance` in `tests/support/relay.rs` checks these equations in the stories.

mod bundles;
mod containers;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

pub use bundles::{
    ByWord, Cuts, ForwardMetrics, ListenMetrics, LogMetrics, PieceMetrics, Refusals, ShapeMetrics, SkippedBytes,
    SpoolMetrics, TlsMetrics,
};
use bundles::{Labels, MISREAD, REASONS, VERDICTS, Words};
pub use containers::{Busy, ContainerMetrics, Containers, MAX_CONTAINERS};
use process::Process;

use crate::protocol::foreign::Foreign;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByListener {
    listener: String,
}

/// The reason is the name of the setting that decided, if there is one.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByListenerAndReason {
    listener: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByForward {
    forward: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByCertificate {
    certificate: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByShape {
    shape: &'static str,
}

/// Every counter of the relay and the registry they are exported from.
pub struct Metrics {
    registry: Registry,
    /// Metrics with standard names, without our prefix.
    standard: Registry,
    /// Changed configurations that were applied.
    pub reloads_applied: Counter,
    /// Changed configurations that were refused.
    pub reloads_refused: Counter,
    /// Parts of the relay that stall.
    pub standstills: Gauge,
    tls_reloads: Family<ByResult, Counter>,
    tls_not_after: Family<ByCertificate, Gauge>,
    received: Family<ByListener, Counter>,
    received_bytes: Family<ByListener, Counter>,
    cut: Family<ByListenerAndReason, Counter>,
    skipped_bytes: Family<ByListenerAndReason, Counter>,
    unfinished: Family<ByListener, Counter>,
    accepted: Family<ByListener, Counter>,
    refused: Family<ByListenerAndReason, Counter>,
    handshake_failures: Family<ByListener, Counter>,
    connections: Family<ByListener, Gauge>,
    kernel_drops: Family<ByListener, Counter>,
    rebinds: Family<ByListener, Counter>,
    repeated: Family<ByListener, Counter>,
    receive_buffer: Family<ByListener, Gauge>,
    shapes: Family<ByShape, Counter>,
    pieces: PieceMetrics,
    spooled: Counter,
    spool_dropped: Family<ByReason, Counter>,
    spool_held: Gauge,
    log_dropped: Family<ByReason, Counter>,
    spool_bytes: Gauge,
    spool_max_bytes: Gauge,
    spool_syncs: Counter,
    spool_errors: Counter,
    evicted: Family<ByForward, Counter>,
    evicted_replayable: Family<ByForward, Counter>,
    damaged: Family<ByForward, Counter>,
    pending: Family<ByForward, Gauge>,
    replayable: Family<ByForward, Gauge>,
    /// The sum of the two, under the old name of the metric.
    waiting: Family<ByForward, Gauge>,
    delivered: Family<ByForward, Counter>,
    filtered: Family<ByForward, Counter>,
    rejected: Family<ByForward, Counter>,
    dead_letter_bytes: Family<ByForward, Gauge>,
    resent: Family<ByForward, Counter>,
    resend_pending: Family<ByForward, Gauge>,
    half_closed: Family<ByForward, Gauge>,
    diverted: Family<ByForward, Counter>,
    connected: Family<ByForward, Gauge>,
    connects: Family<ByForward, Counter>,
    connect_failures: Family<ByForward, Counter>,
    resolve_failures: Family<ByForward, Counter>,
    moves: Family<ByForward, Counter>,
    failbacks: Family<ByForward, Counter>,
    stopped: Family<ByForward, Gauge>,
    requests: Family<Labels, Counter>,
    dead_letters: Family<Labels, Counter>,
    short: Family<ByForward, Counter>,
    restamped: Family<ByForward, Counter>,
    misread: Family<Labels, Counter>,
    masked: Family<ByForward, Counter>,
    masked_by_listener: Family<ByListener, Counter>,
    repeat_pending: Gauge,
    containers: Arc<Containers>,
    named: Mutex<Named>,
}

/// Every label that ever got a counter. All come from configs, so there are few.
#[derive(Default)]
struct Named {
    /// With the words for the violations of their senders.
    listeners: BTreeMap<String, Words>,
    forwards: BTreeSet<String>,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("logferry");
        let containers = Arc::new(Containers::default());
        registry.register(
            "syslog_unmatched_tags",
            "Messages of Docker's whose tag fits no `tag-template`",
            containers.unmatched_tags.clone(),
        );
        registry.register_collector(Box::new(containers.clone()));
        let mut standard = Registry::default();
        standard.register_collector(Box::new(Process));
        let all = &mut registry;
        let reloads: Family<ByResult, Counter> =
            add(all, "config_reloads", "Reloads of the configuration, by what became of them");
        let result = |result| reloads.get_or_create(&ByResult { result }).clone();
        Self {
            reloads_applied: result("applied"),
            reloads_refused: result("refused"),
            standstills: add(all, "standstills", "Parts of the relay that stall"),
            tls_reloads: add(all, "tls_reloads", "Certificates that had changed, by what became of them"),
            tls_not_after: add(all, "tls_not_after_seconds", "When a certificate ends, in Unix time"),
            received: add(all, "listen_received", "Complete frames read off a socket"),
            received_bytes: add(all, "listen_bytes", "Bytes read off a socket, framing included"),
            cut: add(all, "listen_cut", "Frames of which only the start was kept, by reason"),
            skipped_bytes: add(
                all,
                "listen_skipped_bytes",
                "Bytes of frames thrown away behind their start, by reason",
            ),
            unfinished: add(all, "listen_unfinished", "Frames without an end, dropped when their connection broke"),
            accepted: add(all, "listen_accepted", "Connections accepted"),
            refused: add(all, "listen_refused", "Connections closed and datagrams not taken, by reason"),
            handshake_failures: add(
                all,
                "listen_handshake_failures",
                "TLS handshakes that failed or took too long, RELP sessions that were never opened",
            ),
            connections: add(all, "listen_connections", "Connections open now"),
            kernel_drops: add(
                all,
                "listen_kernel_drops",
                "Datagrams the kernel dropped because the receive buffer was full",
            ),
            rebinds: add(all, "listen_rebinds", "Times a unix socket's name was gone and was bound again"),
            repeated: add(
                all,
                "listen_repeated",
                "Chunks of the Forward protocol and entries of a journal that came again, not taken a second time",
            ),
            masked_by_listener: add(all, "listen_masked", "Lines in which a [[mask]] at intake has hidden something"),
            repeat_pending: add(
                all,
                "listen_repeat_pending",
                "Messages that `repeat` holds, the last of a run of equal ones",
            ),
            receive_buffer: add(all, "listen_receive_buffer_bytes", "Receive buffer the kernel granted"),
            shapes: add(all, "syslog_messages", "Messages by the shape they were understood in"),
            pieces: PieceMetrics {
                joined: add(
                    all,
                    "syslog_joined",
                    "Messages that were a piece of the line before them, and joined to it",
                ),
                pending: add(all, "syslog_reassembly_pending", "Messages that wait for the rest of their line"),
            },
            spooled: add(all, "spool_spooled", "Lines appended to the spool"),
            spool_dropped: add(all, "spool_dropped", "Lines received but not spooled, by reason"),
            spool_held: add(all, "spool_held", "Lines whose senders are made to wait for the spool"),
            spool_bytes: add(all, "spool_bytes", "Bytes of all segments on the disk"),
            spool_max_bytes: add(all, "spool_max_bytes", "What all segments together may take"),
            spool_syncs: add(all, "spool_syncs", "Times the disk was made to keep what was written"),
            spool_errors: add(all, "spool_errors", "Failed writes and syncs of the spool"),
            log_dropped: add(all, "log_dropped", "Messages of the relay's own that were not spooled, by reason"),
            evicted: add(all, "forward_evicted", "Lines given up unsent because the spool was full"),
            evicted_replayable: add(
                all,
                "forward_evicted_replayable",
                "Acknowledged lines given up because the spool was full, which cannot be sent again",
            ),
            damaged: add(all, "forward_damaged", "Lines in the spool that could not be read any more"),
            pending: add(all, "forward_pending", "Lines spooled that the collector has not got"),
            replayable: add(all, "forward_replayable", "Lines the collector has that may have to be sent again"),
            waiting: add(all, "forward_waiting", "Old name: the sum of forward_pending and forward_replayable"),
            delivered: add(all, "forward_delivered", "Lines the collector has, as far as the transport can tell"),
            filtered: add(all, "forward_filtered", "Lines that the forward's `match` does not mean"),
            rejected: add(all, "forward_rejected", "Lines the collector refused for good: they are dead letters"),
            dead_letter_bytes: add(all, "forward_dead_letter_bytes", "Bytes of the dead letters on the disk"),
            resent: add(
                all,
                "forward_resent",
                "Lines sent again after a connection broke, and dead letters that `logferry spool resend` sent again",
            ),
            resend_pending: add(all, "forward_resend_pending", "Dead letters that are still to be sent again"),
            half_closed: add(
                all,
                "forward_half_closed",
                "Connections left in good order that the collector has not closed",
            ),
            diverted: add(all, "forward_diverted", "Lines of a file:// whose own file cannot be written, in _others"),
            connected: add(all, "forward_connected", "1 while a connection to the collector stands"),
            connects: add(all, "forward_connects", "Connections made to a collector"),
            connect_failures: add(
                all,
                "forward_connect_failures",
                "Addresses of a collector that could not be connected",
            ),
            resolve_failures: add(
                all,
                "forward_resolve_failures",
                "Look-ups of a collector's name that gave no address",
            ),
            moves: add(all, "forward_moves", "Changes to another address because the name moved"),
            failbacks: add(all, "forward_failbacks", "Changes to a collector that comes earlier and was back"),
            stopped: add(all, "forward_stopped", "1 while the collector refuses everything, and nothing is given up"),
            requests: add(all, "forward_requests", "Requests to a log store, by what became of them"),
            dead_letters: add(all, "forward_dead_letters", "Lines that became dead letters, by reason"),
            masked: add(all, "forward_masked", "Lines in which `mask` has hidden something"),
            misread: add(
                all,
                "forward_misread",
                "Lines that could not be read as `parse`, `time-from`, `severity-from` or a label say, by what of them",
            ),
            restamped: add(
                all,
                "forward_restamped",
                "Lines delivered with the time of sending: their own is too old for the log store",
            ),
            short: add(
                all,
                "forward_short",
                "Lines that a log store has not taken without saying which: they count as delivered",
            ),
            containers,
            named: Mutex::default(),
            registry,
            standard,
        }
        .with_old_names()
    }

    /// Exports each renamed metric also under its old name, for one version.
    fn with_old_names(mut self) -> Self {
        let old = &mut self.registry;
        old.register("forward_unwanted", "Old name of forward_filtered", self.filtered.clone());
        old.register("forward_returns", "Old name of forward_failbacks", self.failbacks.clone());
        old.register("syslog_pieces_waiting", "Old name of syslog_reassembly_pending", self.pieces.pending.clone());
        self
    }

    pub fn tls(&self) -> TlsMetrics {
        let result = |result| self.tls_reloads.get_or_create(&ByResult { result }).clone();
        TlsMetrics {
            reloads_applied: result("applied"),
            reloads_refused: result("refused"),
            not_after: self.tls_not_after.clone(),
        }
    }

    pub fn listener(&self, name: &str) -> ListenMetrics {
        let words = self.named().listeners.entry(name.to_owned()).or_default().clone();
        let label = ByListener { listener: name.to_owned() };
        let by = |reason| ByListenerAndReason { listener: name.to_owned(), reason };
        let cut = |reason| self.cut.get_or_create(&by(reason)).clone();
        let skipped = |reason| self.skipped_bytes.get_or_create(&by(reason)).clone();
        let refused = |reason| self.refused.get_or_create(&by(reason)).clone();
        ListenMetrics {
            received: self.received.get_or_create(&label).clone(),
            bytes: self.received_bytes.get_or_create(&label).clone(),
            cut: Cuts {
                max_frame: cut("max-frame"),
                connection_end: cut("connection-end"),
                frame_timeout: cut("frame-timeout"),
                max_unfinished: cut("max-unfinished"),
            },
            skipped: SkippedBytes {
                max_frame: skipped("max-frame"),
                frame_timeout: skipped("frame-timeout"),
                max_unfinished: skipped("max-unfinished"),
            },
            unfinished: self.unfinished.get_or_create(&label).clone(),
            accepted: self.accepted.get_or_create(&label).clone(),
            refused: Refusals {
                max_connections: refused("max-connections"),
                max_connections_per_address: refused("max-connections-per-address"),
                allow: refused("allow"),
                client_allow: refused("client-allow"),
                proxy_protocol: refused("no-proxy-header"),
                plaintext: refused("plaintext"),
                protocol: refused("protocol"),
                foreign: Foreign::ALL.map(|foreign| refused(foreign.label())),
                frame_timeout: refused("frame-timeout"),
                max_unfinished: refused("max-unfinished"),
                max_wait: refused("max-wait"),
                all: self.refused.clone(),
                listener: name.to_owned(),
                words,
            },
            handshake_failures: self.handshake_failures.get_or_create(&label).clone(),
            connections: self.connections.get_or_create(&label).clone(),
            kernel_drops: self.kernel_drops.get_or_create(&label).clone(),
            rebinds: self.rebinds.get_or_create(&label).clone(),
            repeated: self.repeated.get_or_create(&label).clone(),
            receive_buffer: self.receive_buffer.get_or_create(&label).clone(),
        }
    }

    /// Messages that `repeat` holds, each the last of a run of equal ones.
    pub fn repeat_pending(&self) -> Gauge {
        self.repeat_pending.clone()
    }

    /// Lines of a listener in which a mask has hidden something.
    pub fn masked_by_listener(&self, listener: &str) -> Counter {
        self.masked_by_listener.get_or_create(&ByListener { listener: listener.to_owned() }).clone()
    }

    pub fn shapes(&self) -> ShapeMetrics {
        let shape = |shape| self.shapes.get_or_create(&ByShape { shape }).clone();
        ShapeMetrics {
            docker: shape("docker"),
            rfc5424: shape("rfc5424"),
            rfc3164: shape("rfc3164"),
            unknown: shape("unknown"),
        }
    }

    pub fn pieces(&self) -> PieceMetrics {
        self.pieces.clone()
    }

    pub fn spool(&self) -> SpoolMetrics {
        let dropped = |reason| self.spool_dropped.get_or_create(&ByReason { reason }).clone();
        SpoolMetrics {
            spooled: self.spooled.clone(),
            dropped_full: dropped("full"),
            dropped_error: dropped("error"),
            dropped_stalled: dropped("stalled"),
            dropped_severity: dropped("severity"),
            dropped_repeated: dropped("repeated"),
            dropped_withdrawn: dropped("withdrawn"),
            dropped_rule: dropped("rule"),
            dropped_sample: dropped("sample"),
            dropped_repeat: dropped("repeat"),
            dropped_loop: dropped("loop"),
            dropped_rate: dropped("rate"),
            held: self.spool_held.clone(),
            bytes: self.spool_bytes.clone(),
            max_bytes: self.spool_max_bytes.clone(),
            syncs: self.spool_syncs.clone(),
            errors: self.spool_errors.clone(),
        }
    }

    pub fn log(&self) -> LogMetrics {
        let dropped = |reason| self.log_dropped.get_or_create(&ByReason { reason }).clone();
        LogMetrics { dropped_rate: dropped("rate"), dropped_full: dropped("full") }
    }

    pub fn forward(&self, name: &str) -> ForwardMetrics {
        self.named().forwards.insert(name.to_owned());
        let label = ByForward { forward: name.to_owned() };
        let connected = self.connected.get_or_create(&label).clone();
        self.of_forward(&label, connected)
    }

    /// The counters of a forward, for reading. Unlike [`Metrics::forward`] this does not create the gauges of a removed forward
    /// again.
    pub fn forward_metrics(&self, name: &str) -> ForwardMetrics {
        let label = ByForward { forward: name.to_owned() };
        let connected = self.connected.get(&label).map(|gauge| gauge.clone()).unwrap_or_default();
        self.of_forward(&label, connected)
    }

    /// Removes the gauges of a removed forward, because 0 would mean that it has no connection. Its totals stay.
    pub fn forget_forward(&self, name: &str) {
        self.connected.remove(&ByForward { forward: name.to_owned() });
        self.stopped.remove(&ByForward { forward: name.to_owned() });
        self.resend_pending.remove(&ByForward { forward: name.to_owned() });
    }

    fn of_forward(&self, label: &ByForward, connected: Gauge) -> ForwardMetrics {
        ForwardMetrics {
            connected,
            delivered: self.delivered.get_or_create(label).clone(),
            filtered: self.filtered.get_or_create(label).clone(),
            rejected: self.rejected.get_or_create(label).clone(),
            dead_letter_bytes: self.dead_letter_bytes.get_or_create(label).clone(),
            resent: self.resent.get_or_create(label).clone(),
            resend_pending: self.resend_pending.get_or_create(label).clone(),
            half_closed: self.half_closed.get_or_create(label).clone(),
            diverted: self.diverted.get_or_create(label).clone(),
            evicted: self.evicted.get_or_create(label).clone(),
            evicted_replayable: self.evicted_replayable.get_or_create(label).clone(),
            damaged: self.damaged.get_or_create(label).clone(),
            pending: self.pending.get_or_create(label).clone(),
            replayable: self.replayable.get_or_create(label).clone(),
            waiting: self.waiting.get_or_create(label).clone(),
            connects: self.connects.get_or_create(label).clone(),
            connect_failures: self.connect_failures.get_or_create(label).clone(),
            resolve_failures: self.resolve_failures.get_or_create(label).clone(),
            moves: self.moves.get_or_create(label).clone(),
            failbacks: self.failbacks.get_or_create(label).clone(),
            stopped: self.stopped.get_or_create(label).clone(),
            requests: ByWord::new(&self.requests, &label.forward, "verdict", VERDICTS),
            dead_letters: ByWord::new(&self.dead_letters, &label.forward, "reason", REASONS),
            short: self.short.get_or_create(label).clone(),
            restamped: self.restamped.get_or_create(label).clone(),
            masked: self.masked.get_or_create(label).clone(),
            misread: ByWord::new(&self.misread, &label.forward, "what", MISREAD),
        }
    }

    /// Messages by container.
    pub fn containers(&self) -> &Arc<Containers> {
        &self.containers
    }

    /// The counters of all listeners since the start, by name.
    pub fn listeners(&self) -> Vec<(String, ListenMetrics)> {
        let names: Vec<String> = self.named().listeners.keys().cloned().collect();
        names.into_iter().map(|name| (name.clone(), self.listener(&name))).collect()
    }

    /// The counters of all forwards since the start, by name.
    pub fn forwards(&self) -> Vec<(String, ForwardMetrics)> {
        let names: Vec<String> = self.named().forwards.iter().cloned().collect();
        names.into_iter().map(|name| (name.clone(), self.forward_metrics(&name))).collect()
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock()
    }

    /// All metrics as OpenMetrics text, which Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        [&self.registry, &self.standard]
            .into_iter()
            .try_for_each(|registry| encode_registry(&mut text, registry))
            .and_then(|()| encode_eof(&mut text))
            .expect("writing to a String cannot fail");
        text
    }
}

/// Registers a metric under the name it is exported with.
fn add<M: Metric + Clone + Default>(to: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    to.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
