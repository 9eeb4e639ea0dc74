//! The status: the data of the page and of `/status`, in one plain struct. Its fields are the keys of the JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use super::history::{SAMPLE_EVERY, recent};
use super::{RequestContext, Sources};
use crate::metrics::{Busy, ForwardMetrics, ListenMetrics};
use crate::protocol::foreign::Foreign;
use crate::protocol::session::UNNAMED;
use crate::record::{Record, escape_json};
use crate::status::{self, ForwardStatus, Phase};

/// Containers in the status.
const MAX_CONTAINERS: usize = 10;
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub hostname: String,
    /// When the status was collected, RFC 3339.
    pub time: String,
    pub uptime_seconds: u64,
    /// Does `/ready` answer 200?
    pub ready: bool,
    /// Messages received and lines delivered per second, over the last 10 s.
    pub received_per_second: f64,
    pub delivered_per_second: f64,
    pub spool: Spool,
    pub forwards: Vec<Forward>,
    pub listeners: Vec<Listener>,
    pub containers: Vec<Container>,
    /// Messages of containers without counters of their own.
    pub other_containers: u64,
    pub losses: Vec<Loss>,
    /// Parts of the relay that stall.
    pub standstills: Vec<Standstill>,
    /// Likely mistakes in the settings.
    pub mistakes: Vec<String>,
    pub history: TimeSeries,
}

#[derive(Clone, Debug, Serialize)]
pub struct Spool {
    pub writable: bool,
    /// Why the spool cannot be written.
    pub trouble: Option<String>,
    pub bytes: u64,
    pub max_bytes: u64,
    pub spooled: u64,
    /// Lines whose senders are made to wait.
    pub held: u64,
    /// Failed writes and syncs.
    pub errors: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Forward {
    pub name: String,
    pub to: Vec<String>,
    pub state: State,
    /// How long the forward has been connected, or not connected.
    pub state_seconds: u64,
    /// The target in `to` that is connected.
    pub target: Option<String>,
    pub address: Option<String>,
    pub ttl_left_seconds: Option<u64>,
    pub last_error: Option<Said>,
    /// The last answer of a log store, in its own words.
    pub last_answer: Option<Said>,
    /// Why the collector refused the last dead letter, in its own words.
    pub last_rejected: Option<Said>,
    /// Requests to a log store, by verdict.
    pub requests: BTreeMap<&'static str, u64>,
    /// Lines that the collector does not have.
    pub pending: u64,
    /// Lines that the collector has and that may have to be sent again.
    pub replayable: u64,
    /// The age of the oldest pending line, by its timestamp.
    pub oldest_pending_seconds: Option<u64>,
    pub delivered: u64,
    /// Lines that the forward's `match` does not match.
    pub filtered: u64,
    /// Lines that the collector refused for good.
    pub rejected: u64,
    /// Rejected lines by reason, each counted when its dead letter was written.
    pub dead_letters: BTreeMap<&'static str, u64>,
    pub dead_letter_bytes: u64,
    pub resent: u64,
    /// Dead letters that are still to be sent again.
    pub resend_pending: u64,
    pub connects: u64,
    pub moves: u64,
    pub failbacks: u64,
    #[serde(flatten)]
    pub old: OldKeys,
}

/// The old keys, for one version.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OldKeys {
    /// `pending` and `replayable`.
    pub waiting: u64,
    /// `oldest_pending_seconds`
    pub oldest_waiting_seconds: Option<u64>,
    /// `filtered`
    pub unwanted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Connecting,
    Connected,
    /// Connected, but the collector has acknowledged nothing for a fifth of `dead-after`.
    Stalled,
    /// The collector refuses every line. The forward waits, and gives no line up.
    Stopped,
    WaitsToRetry,
}

#[derive(Clone, Debug, Serialize)]
pub struct Said {
    pub time: String,
    pub seconds_ago: u64,
    pub text: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Listener {
    /// The `name` of the config, if it has one.
    pub name: Option<String>,
    /// The address with its real port.
    pub address: String,
    pub received: u64,
    pub bytes: u64,
    pub connections: u64,
    /// The limit in force, which may be lower than in the config; `None` for datagrams.
    pub max_connections: Option<usize>,
    pub accepted: u64,
    /// The last peer that was refused. It may have been let in since.
    pub last_refused: Option<RefusedPeer>,
    /// The last refused peers, one for each address and reason, newest first.
    pub refused_peers: Vec<RefusedPeer>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RefusedPeer {
    pub times: u64,
    pub time: String,
    pub seconds_ago: u64,
    /// `None` where senders have no address, as on a unix socket.
    pub address: Option<String>,
    pub reason: &'static str,
    /// Describes the event and the remedy.
    pub text: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Container {
    pub name: String,
    pub received: u64,
    /// Messages of these beyond `rate-limit`.
    pub limited: u64,
}

/// The number of lines, messages, bytes or connections that were lost, cut or refused for one reason at one place.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    pub reason: &'static str,
    /// The listener or forward.
    pub place: Option<String>,
    pub count: u64,
    pub unit: &'static str,
    pub says: Cow<'static, str>,
}

/// A part of the relay that has stalled for too long.
#[derive(Clone, Debug, Serialize)]
pub struct Standstill {
    pub part: String,
    pub waits_for: String,
    pub seconds: u64,
}

/// The last minutes, oldest first.
#[derive(Clone, Debug, Serialize)]
pub struct TimeSeries {
    pub every_seconds: u64,
    pub received_per_second: Vec<f64>,
    pub delivered_per_second: Vec<f64>,
    /// Lines pending for the forward that is furthest behind.
    pub pending: Vec<u64>,
    /// The old key of `pending`, for one version.
    pub waiting: Vec<u64>,
}

impl Status {
    /// Collects the status. This takes [`READ_TIMEOUT`](super::READ_TIMEOUT) and a readiness probe at most.
    pub async fn collect(context: &RequestContext) -> Self {
        let RequestContext { sources, history, started, .. } = context;
        let topology = sources.registry.topology();
        let (writable, ready) = tokio::join!(sources.prober.ask(), sources.ready());
        let oldest = oldest_pending(context, topology.forwards.iter().map(|forward| forward.name.clone())).await;
        let metrics = &sources.metrics;
        let (spool, series) = (metrics.spool(), history.series());
        let forwards = topology.forwards.iter().zip(oldest);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            hostname: topology.hostname,
            time: rfc3339(SystemTime::now()),
            uptime_seconds: started.elapsed().as_secs(),
            ready: ready.is_ok(),
            received_per_second: tenths(recent(&series.received)),
            delivered_per_second: tenths(recent(&series.delivered)),
            spool: Spool {
                writable: writable.is_ok(),
                trouble: writable.err(),
                bytes: spool.bytes.get().unsigned_abs(),
                max_bytes: spool.max_bytes.get().unsigned_abs(),
                spooled: spool.spooled.get(),
                held: spool.held.get().unsigned_abs(),
                errors: spool.errors.get(),
            },
            forwards: forwards
                .map(|(forward, oldest)| Forward::of(forward, oldest, &metrics.forward_metrics(&forward.name)))
                .collect(),
            listeners: topology
                .listeners
                .iter()
                .map(|listener| Listener::of(listener, &metrics.listener(&listener.label)))
                .collect(),
            containers: metrics
                .containers()
                .busiest(MAX_CONTAINERS)
                .into_iter()
                .map(|Busy { name, received, limited }| Container { name, received, limited })
                .collect(),
            other_containers: metrics.containers().others(),
            losses: losses(sources),
            standstills: standstills(sources),
            mistakes: sources.mistakes.now(),
            history: TimeSeries {
                every_seconds: SAMPLE_EVERY.as_secs(),
                received_per_second: series.received.into_iter().map(tenths).collect(),
                delivered_per_second: series.delivered.into_iter().map(tenths).collect(),
                waiting: series.pending.clone(),
                pending: series.pending,
            },
        }
    }

    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_vec_pretty(self).expect("a struct of texts and numbers is always JSON");
        // The status contains texts of collectors, and people read it at terminals.
        escape_json(&mut json, 0);
        String::from_utf8(json).expect("JSON is UTF-8") + "\n"
    }

    /// Lines pending for the forward that is furthest behind.
    pub fn pending(&self) -> u64 {
        self.forwards.iter().map(|forward| forward.pending).max().unwrap_or(0)
    }

    /// The age of the oldest pending line of all forwards, in seconds.
    pub fn oldest_pending(&self) -> Option<u64> {
        self.forwards.iter().filter_map(|forward| forward.oldest_pending_seconds).max()
    }
}

impl Forward {
    fn of(forward: &status::Forward, oldest: Option<u64>, metrics: &ForwardMetrics) -> Self {
        let ForwardStatus {
            phase,
            since,
            peer,
            stalled_until,
            stopped,
            gathers: _,
            last_error,
            last_answer,
            last_rejected,
        } = forward.state.now();
        let (pending, replayable) = (metrics.pending(), metrics.replayable());
        // The line was read before the counter, and may be delivered by now.
        let oldest = oldest.filter(|_| pending > 0);
        let filtered = metrics.filtered.get();
        let now = Instant::now();
        let state = match phase {
            _ if stopped => State::Stopped,
            Phase::Connecting => State::Connecting,
            Phase::Backoff => State::WaitsToRetry,
            Phase::Connected if stalled_until.is_some_and(|until| until > now) => State::Stalled,
            Phase::Connected => State::Connected,
        };
        let resolved_until = peer.as_ref().and_then(|peer| peer.resolved_until);
        let address = peer.as_ref().and_then(|peer| peer.address);
        Self {
            name: forward.name.clone(),
            to: forward.to.clone(),
            state,
            state_seconds: since.elapsed().as_secs(),
            target: peer.map(|peer| peer.target),
            address: address.map(|address| address.to_string()),
            ttl_left_seconds: resolved_until.map(|until| until.saturating_duration_since(now).as_secs()),
            last_error: last_error.map(Said::from),
            last_answer: last_answer.map(Said::from),
            last_rejected: last_rejected.map(Said::from),
            requests: metrics.requests.counts().into_iter().collect(),
            pending,
            replayable,
            oldest_pending_seconds: oldest,
            delivered: metrics.delivered.get(),
            filtered,
            rejected: metrics.rejected.get(),
            dead_letters: metrics.dead_letters.counts().into_iter().collect(),
            dead_letter_bytes: metrics.dead_letter_bytes.get().unsigned_abs(),
            resent: metrics.resent.get(),
            resend_pending: metrics.resend_pending.get().unsigned_abs(),
            connects: metrics.connects.get(),
            moves: metrics.moves.get(),
            failbacks: metrics.failbacks.get(),
            old: OldKeys { waiting: pending + replayable, oldest_waiting_seconds: oldest, unwanted: filtered },
        }
    }
}

impl From<status::Said> for Said {
    fn from(said: status::Said) -> Self {
        Self { time: rfc3339(said.time), seconds_ago: said.at.elapsed().as_secs(), text: said.says }
    }
}

impl Listener {
    fn of(listener: &status::Listener, metrics: &ListenMetrics) -> Self {
        let refused_peers: Vec<_> = listener.state.refused_peers().into_iter().map(RefusedPeer::from).collect();
        Self {
            name: listener.name.clone(),
            address: listener.address.clone(),
            received: metrics.received.get(),
            bytes: metrics.bytes.get(),
            connections: metrics.connections.get().unsigned_abs(),
            max_connections: listener.max_connections,
            accepted: metrics.accepted.get(),
            last_refused: refused_peers.first().cloned(),
            refused_peers,
        }
    }
}

impl From<status::RefusedPeer> for RefusedPeer {
    fn from(refused: status::RefusedPeer) -> Self {
        Self {
            times: refused.times,
            time: rfc3339(refused.time),
            seconds_ago: refused.at.elapsed().as_secs(),
            address: refused.address.map(|address| address.to_string()),
            reason: refused.reason,
            text: refused.says,
        }
    }
}

fn standstills(sources: &Sources) -> Vec<Standstill> {
    let now = sources.standstills.now().into_iter();
    now.map(|status::Standstill { part, waits_for, seconds }| Standstill { part: part.to_string(), waits_for, seconds })
        .collect()
}

/// All losses since the start, from the counters. Listeners and forwards that have been removed are among them.
fn losses(sources: &Sources) -> Vec<Loss> {
    let (spool, log) = (sources.metrics.spool(), sources.metrics.log());
    let of_lines = [
        ("full", &spool.dropped_full, "the spool was full and `when-full` is drop-newest"),
        ("severity", &spool.dropped_severity, "the spool was nearly full, and they had a low severity"),
        ("rate", &spool.dropped_rate, "their containers sent more than `rate-limit` allows"),
        ("error", &spool.dropped_error, "the disk refused them"),
        ("stalled", &spool.dropped_stalled, "the disk did not answer in time"),
        ("rule", &spool.dropped_rule, "not lost: a `[[drop]]` rule matches them"),
        ("sample", &spool.dropped_sample, "not lost: a `[[sample]]` rule keeps one of so many"),
        ("repeat", &spool.dropped_repeat, "not lost: one line stands for equal ones (`repeat`)"),
        ("loop", &spool.dropped_loop, "not lost: a forward leads back to this relay"),
        ("repeated", &spool.dropped_repeated, "not lost: another relay sent them twice"),
        (
            "withdrawn",
            &spool.dropped_withdrawn,
            "not lost: their sender hung up while they waited for room, and will send them again",
        ),
        ("log-rate", &log.dropped_rate, "messages of the relay about itself: more than 100 a minute"),
        ("log-full", &log.dropped_full, "messages of the relay about itself: more than wait for room"),
    ];
    let loss = |reason, place, counter: &Counter, unit, says: &'static str| Loss {
        reason,
        place,
        count: counter.get(),
        unit,
        says: says.into(),
    };
    let mut losses: Vec<Loss> =
        of_lines.into_iter().map(|(reason, counter, says)| loss(reason, None, counter, "lines", says)).collect();
    for (name, m) in sources.metrics.forwards() {
        losses.extend(
            [
                ("evicted", &m.evicted, "the spool was full and they were the oldest"),
                ("damaged", &m.damaged, "they are damaged on the disk"),
                (
                    "short",
                    &m.short,
                    "the store took their request without them, and did not say which lines are missing",
                ),
                ("rejected", &m.rejected, "the collector refused them for good; they are dead letters"),
            ]
            .map(|(reason, counter, says)| loss(reason, Some(name.clone()), counter, "lines", says)),
        );
    }
    for (name, m) in sources.metrics.listeners() {
        // Violations without a name of their own are below.
        let violations = m.refused.violations().into_iter().filter(|(reason, ..)| *reason != UNNAMED);
        losses.extend(violations.map(|(reason, counter, says)| {
            let place = Some(name.clone());
            Loss { reason, place, count: counter.get(), unit: "connections and messages", says }
        }));
        losses.extend(Foreign::ALL.into_iter().zip(&m.refused.foreign).map(|(foreign, counter)| {
            loss(foreign.label(), Some(name.clone()), counter, "connections", "the sender spoke another protocol")
        }));
        losses.extend(
            [
                ("receive-buffer", &m.kernel_drops, "messages", "the kernel's receive buffer was full"),
                ("max-frame", &m.cut.max_frame, "messages", "longer than `max-frame`; their start was kept"),
                (
                    "connection-end",
                    &m.cut.connection_end,
                    "messages",
                    "their connection ended too early; their start was kept",
                ),
                (
                    "frame-timeout",
                    &m.cut.frame_timeout,
                    "messages",
                    "not complete within `frame-timeout`; their start was kept",
                ),
                (
                    "max-unfinished",
                    &m.cut.max_unfinished,
                    "messages",
                    "too many bytes of incomplete messages; their start was kept",
                ),
                ("max-frame", &m.skipped.max_frame, "bytes", "of messages longer than `max-frame`, behind their start"),
                ("frame-timeout", &m.skipped.frame_timeout, "bytes", "of messages not complete within `frame-timeout`"),
                ("max-unfinished", &m.skipped.max_unfinished, "bytes", "of messages for which there was no memory"),
                ("unfinished", &m.unfinished, "messages", "their connection broke before they were complete"),
                (
                    "max-connections",
                    &m.refused.max_connections,
                    "connections",
                    "more connections than `max-connections` allows",
                ),
                (
                    "max-connections-per-address",
                    &m.refused.max_connections_per_address,
                    "connections",
                    "more connections from one address than allowed",
                ),
                ("allow", &m.refused.allow, "connections and datagrams", "`allow` does not contain their address"),
                (
                    "client-allow",
                    &m.refused.client_allow,
                    "connections and datagrams",
                    "`client-allow` does not contain the address in the proxy's header",
                ),
                (
                    "no-proxy-header",
                    &m.refused.proxy_protocol,
                    "connections and datagrams",
                    "they do not begin with a header of a proxy",
                ),
                ("plaintext", &m.refused.plaintext, "connections", "plain text, where the listener takes only TLS"),
                (UNNAMED, &m.refused.protocol, "connections", "not the protocol of the listener, or an error in it"),
                ("frame-timeout", &m.refused.frame_timeout, "connections", "a message was not complete in time"),
                ("max-unfinished", &m.refused.max_unfinished, "connections", "too many bytes of incomplete messages"),
                (
                    "max-wait",
                    &m.refused.max_wait,
                    "connections",
                    "they waited for an answer longer than `max-wait`, and will send again",
                ),
                ("handshake", &m.handshake_failures, "connections", "the handshake of TLS, RELP or Forward failed"),
            ]
            .map(|(reason, counter, unit, says)| loss(reason, Some(name.clone()), counter, unit, says)),
        );
    }
    losses
}

/// The age of the oldest pending line of each forward, in seconds. An age that is not read in time is `None`.
async fn oldest_pending(context: &RequestContext, forwards: impl Iterator<Item = String>) -> Vec<Option<u64>> {
    let forwards: Vec<String> = forwards.collect();
    let unknown = vec![None; forwards.len()];
    let ages =
        context.read_spool(move |spool| forwards.iter().map(|forward| age(&spool.oldest_line(forward)?)).collect());
    ages.await.unwrap_or(unknown)
}

fn age(line: &[u8]) -> Option<u64> {
    let made = Record::from_line(line, "").time()?.0 / 1_000_000;
    u64::try_from(Utc::now().timestamp() - made).ok().or(Some(0))
}

fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
