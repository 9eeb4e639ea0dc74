//! The forwarder decides which collector is connected when, and where a forward goes on after a connection has ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::backoff::Backoff;
use super::delivery::DeliveryError;
use super::dial::{DialError, Dialer};
use super::driver::{Failure, StreamLink};
use super::encode::shape;
use super::file::{FileLink, Refused};
use super::lines::Lines;
use super::link::{Connected, Ended, Events, Link, Place};
use super::log_limiter::LogLimiter;
use super::names::Resolver;
use super::resender::Resender;
use super::source::Source;
use super::target_watch::{Leave, Moved, TargetWatch, Why};
use super::{Deadline, Orders};
use crate::config::{self, DeliverySettings, ForwardAddress};
use crate::metrics::ForwardMetrics;
use crate::record::Format;
use crate::spool::Reader;
use crate::status::SharedForwardStatus;
use crate::tasks::spawn;

/// The first wait after a connection attempt has failed or a connection has broken.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// A hint for a connection that ends before it has delivered anything.
const NOT_PLAIN: &str = " (does that port speak plain syslog? TLS is tcp+tls://, RELP is relp://)";
/// Why a working connection is left.
const SENDS_AGAIN: &str =
    "an old connection broke before the collector closed it; lines that the collector may not have read are sent again";
/// How long the end of a forward waits for a request with dead letters.
const RESENDER_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Vain attempts to go back to an earlier collector become rarer. The longest wait is this many times `failback-after`.
const RAREST_FAILBACK: u32 = 10;

/// One forward: a cursor of the spool and where its lines go.
pub struct Forwarder {
    settings: Arc<config::Forward>,
    source: Source,
    dialer: Dialer,
    metrics: ForwardMetrics,
    state: SharedForwardStatus,
    deadline: Deadline,
    /// Remembers files that could not be written.
    refused: Arc<Refused>,
    /// Waits before going back to an earlier collector. They grow when that collector did not keep its connection.
    failback: Backoff,
    /// Connections in a row that ended early, stalled until they were given up, or refused everything. The next attempt begins one
    /// target, or one address, further on.
    failures: usize,
    /// Sends dead letters again. `None`: it runs already, or this forwarder itself sends dead letters.
    resender: Option<Resender>,
    /// How many of these connections stalled. A collector that hangs may later read all that was sent on each of them, so there must
    /// not be many: each round through the targets doubles how long a connection may stand still.
    stalls: usize,
}

/// A connection that can no longer be used.
struct Broken {
    how: String,
    /// How long the connection had stood.
    lived: Duration,
    /// Nothing was acknowledged any more at its end.
    was_stalled: bool,
    /// Set when the verdict was *stop*: the place, and the collector's own words.
    stops: Option<String>,
}

impl Forwarder {
    /// Does not resolve or connect anything yet.
    pub fn new(
        settings: config::Forward,
        reader: Reader,
        resolver: Resolver,
        sd_id: &str,
        (metrics, state): (ForwardMetrics, SharedForwardStatus),
        orders: Orders,
    ) -> Self {
        let resender = Resender {
            resends: reader.resends(),
            settings: settings.clone(),
            resolver: resolver.clone(),
            sd_id: sd_id.to_owned(),
            metrics: metrics.clone(),
            deadline: orders.deadline.clone(),
            connectors: orders.connectors.clone(),
            loops: orders.loops.clone(),
        };
        let limiter = Arc::new(LogLimiter::new(&settings.name));
        let says = (metrics, state, limiter);
        let mut forwarder = Self::of(settings, Lines::Spool(reader), resolver, sd_id, says, orders);
        forwarder.resender = Some(resender);
        forwarder
    }

    /// A forwarder for lines of the spool, or for dead letters.
    pub(super) fn of(
        settings: config::Forward,
        lines: Lines,
        resolver: Resolver,
        sd_id: &str,
        (metrics, state, limiter): (ForwardMetrics, SharedForwardStatus, Arc<LogLimiter>),
        orders: Orders,
    ) -> Self {
        let Orders { deadline, leaving, half_closed, connectors, loops } = orders;
        let settings = Arc::new(settings);
        let failback = Backoff::new(settings.failback_after, settings.failback_after * RAREST_FAILBACK);
        let shape = shape(&settings, sd_id);
        // Other formats have no place for a mark, and no relay reads marks back from a file.
        let is_marked = settings.format == Format::Rfc5424 && settings.to.iter().any(|to| to.address.keeps_marks());
        let marker = match &lines {
            Lines::Spool(reader) if is_marked => Some(loops.clone().marker(reader.stream(), state.clone())),
            _ => None,
        };
        let source = Source::new(
            (lines, marker),
            shape,
            (metrics.clone(), state.clone()),
            limiter.clone(),
            (leaving, half_closed),
        );
        let refused = Arc::new(Refused::new(limiter.clone(), state.clone(), metrics.diverted.clone()));
        let says = (metrics.clone(), state.clone(), limiter);
        let dialer = Dialer::new(settings.clone(), (resolver, loops), connectors, sd_id, source.numbering(), says);
        Self {
            settings,
            source,
            dialer,
            metrics,
            state,
            deadline,
            refused,
            failback,
            failures: 0,
            stalls: 0,
            resender: None,
        }
    }

    /// Forwards until the spool is closed and delivered, or the deadline passed. What is left stays in the spool.
    pub async fn run(mut self) {
        let (leave, leaving) = watch::channel(false);
        // Dropping the set aborts the resender, so the resender always ends with the forward.
        let mut resenders = JoinSet::new();
        if let Some(resender) = self.resender.take() {
            resenders.spawn(resender.run(leaving));
        }
        self.forward().await;
        leave.send_replace(true);
        // Dead letters in flight after that time are sent again at the next start.
        let _ = timeout(RESENDER_ENDS_WITHIN, resenders.join_next()).await;
    }

    /// Settles the dead letters that were sent again. True: none is left.
    pub(super) async fn finish(&mut self) -> io::Result<bool> {
        match self.source.lines() {
            Lines::Resent(resend) => resend.finish().await,
            Lines::Spool(_) => Ok(true),
        }
    }

    /// Like [`run`](Self::run), but without sending dead letters again.
    pub(super) async fn forward(&mut self) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, self.settings.max_backoff);
        loop {
            let (mut deadline, mut stopping) = (self.deadline.clone(), self.deadline.clone());
            let idle = self.source.pending() + self.source.replayable() == 0;
            let left = self.source.left();
            // Log lines while it resolves and connects get the forward's span. Carrying lines enters no span: the few log lines there
            // name the forward, and entering a span costs more than a turn with a single line.
            let context = self.dialer.limiter.span().clone();
            self.state.connecting();
            let connected = tokio::select! {
                connected = self.connect().instrument(context) => connected,
                () = deadline.reached() => break,
                () = left => break,
                // Nothing to deliver: a stopping relay does not wait for a collector.
                () = stopping.announced(), if idle => break,
            };
            if let Some(connected) = connected {
                let carried = self.carry(connected).await;
                self.metrics.connected.set(0);
                let Err(Broken { how, lived, was_stalled, stops }) = carried else { break };
                match &stops {
                    Some(why) => self.source.stop(why),
                    None => self.say_problem(&how),
                }
                self.source.rewind();
                // The back-off grows for a collector that accepts a connection and drops it, and the next attempt begins with another
                // target. Other targets are also tried when a collector refuses everything, or hangs while its kernel still accepts
                // connections.
                if was_stalled || stops.is_some() || lived <= self.settings.max_backoff {
                    self.failures += 1;
                    self.stalls += usize::from(was_stalled);
                } else {
                    backoff.reset();
                    self.failures = 0;
                    self.stalls = 0;
                }
                if lived > self.settings.failback_after && !was_stalled {
                    self.failback.reset();
                }
            }
            self.state.backs_off();
            let mut deadline = self.deadline.clone();
            tokio::select! {
                () = self.source.pass_filtered() => {}
                () = deadline.reached() => break,
            }
            if !self.pause(backoff.wait()).await {
                break;
            }
        }
        let (pending, replayable) = (self.source.pending(), self.source.replayable());
        if pending + replayable > 0 && !self.source.is_left() {
            tracing::warn!(
                parent: self.dialer.limiter.span(),
                "stopping with {pending} lines pending and {replayable} replayable; they stay in the spool"
            );
        }
    }

    /// Tries every address of every target, in order.
    async fn connect(&mut self) -> Option<Connected> {
        let (targets, mut stops) = (self.settings.to.len(), None);
        for turn in 0..targets {
            let target = (self.failures + turn) % targets;
            match self.connect_target(target).await {
                Ok(connected) => return Some(connected),
                Err(problem) => {
                    let to = &self.settings.to[target];
                    match problem.stops() {
                        Some((peer, why)) => stops = Some(format!("{to} at {peer}: {why}")),
                        None => self.say_problem(&format!("{to}: {problem}")),
                    }
                }
            }
        }
        if let Some(why) = stops {
            self.source.stop(&why);
        }
        None
    }

    async fn connect_target(&self, target: usize) -> Result<Connected, DialError> {
        let to = &self.settings.to[target];
        let here =
            |file| Connected { link: Link::File(file), place: Place { target, endpoint: None, ttl: Duration::MAX } };
        let destination = match (&to.address, &to.delivery, to.reached_at()) {
            (_, _, Some(destination)) => destination,
            (ForwardAddress::File(template), DeliverySettings::File(settings), None) => {
                return Ok(here(FileLink::files(template, settings, self.dialer.encoding(to), &self.refused)));
            }
            (_, _, None) => {
                return Ok(here(FileLink::stdout(self.dialer.encoding(to), &self.refused)));
            }
        };
        let answer = self.dialer.look_up_or_remember(destination).await?;
        let start = self.failures / self.settings.to.len();
        let (behind, first) = answer.endpoints.split_at(start % answer.endpoints.len().max(1));
        let limits = self.dialer.standstill(self.stalls / self.settings.to.len(), answer.endpoints.len());
        let (link, endpoint) = self.dialer.connect_any(to, first.iter().chain(behind), limits).await?;
        Ok(Connected { link, place: Place { target, endpoint: Some(endpoint), ttl: answer.ttl } })
    }

    /// Carries over one connection, and over the next ones as long as there is a better place. `Ok`: the relay is stopping, or the
    /// forward ends.
    async fn carry(&mut self, mut connected: Connected) -> Result<(), Broken> {
        loop {
            self.metrics.connected.set(1);
            self.say_connected(&connected);
            self.show_place(&connected.place);
            let (since, delivered) = (Instant::now(), self.source.delivered());
            let Connected { link, place } = connected;
            let mut events = self.events(&place);
            let (ended, old) = link.carry(&mut self.source, &mut events).await;
            match ended {
                Ended::Stopped => {
                    self.keep(old);
                    return Ok(());
                }
                Ended::Failed(failure) => {
                    let lived = since.elapsed();
                    let was_stalled = old.is_some_and(|link| link.is_stalled()) || failure.calls_for_another_server();
                    let target = &self.settings.to[place.target];
                    let is_misunderstood = target.address.is_plain_syslog()
                        && lived < self.settings.max_backoff
                        && delivered == self.source.delivered();
                    let hint = if is_misunderstood { NOT_PLAIN } else { "" };
                    let how = format!("{}: {failure}{hint}", place.of(target));
                    let stops = match failure {
                        Failure::Delivery(DeliveryError::Stop(why)) => Some(format!("{}: {why}", place.of(target))),
                        _ => None,
                    };
                    return Err(Broken { how, lived, was_stalled, stops });
                }
                Ended::Left(Leave::For(moved)) => {
                    self.say_moved(&place, &moved);
                    self.leave(old).await;
                    self.source.rewind();
                    let Moved { link, place, .. } = moved;
                    connected = Connected { link, place };
                }
                Ended::Left(Leave::ToSendAgain) => {
                    self.leave(old).await;
                    let how = format!("{}: {SENDS_AGAIN}", place.of(&self.settings.to[place.target]));
                    return Err(Broken { how, lived: Duration::MAX, was_stalled: false, stops: None });
                }
            }
        }
    }

    /// Ends a connection in good order.
    async fn leave(&mut self, old: Option<Box<StreamLink>>) {
        let Some(mut old) = old else { return };
        tokio::select! {
            () = old.finish(&mut self.source) => {}
            () = self.deadline.reached() => {}
        }
        self.keep(Some(old));
    }

    /// Keeps a connection that we have ended in good order, until the collector has ended it too.
    fn keep(&mut self, old: Option<Box<StreamLink>>) {
        if let Some(old) = old.filter(|old| old.may_end_well())
            && let Some(teller) = self.source.keep()
        {
            spawn(old.follow(teller));
        }
    }

    /// Logs and counts the move from `from`.
    fn say_moved(&mut self, from: &Place, Moved { why, place, .. }: &Moved) {
        let target = &self.settings.to[place.target];
        match why {
            Why::NameMoved => {
                self.metrics.moves.inc();
                let said = format!("{target} moved from {from} to {place}");
                if self.dialer.limiter.is_new(&said) {
                    tracing::info!(parent: self.dialer.limiter.span(), "{said}");
                }
            }
            Why::Failback => {
                self.metrics.failbacks.inc();
                // The wait grows until the collector has kept its connection.
                self.failback.wait();
                let said = format!("{target} at {place} is back; leaving {from}");
                if self.dialer.limiter.is_new(&said) {
                    tracing::info!(parent: self.dialer.limiter.span(), "{said}");
                }
            }
        }
    }

    fn events(&self, place: &Place) -> Events {
        let stalled = Arc::new(Notify::new());
        let watch = TargetWatch::new(self.dialer.clone(), place.clone(), stalled.clone(), self.failback.clone());
        let lost = self.source.lost();
        let leave = async {
            tokio::select! {
                moved = watch.elsewhere() => Leave::For(moved),
                () = lost => Leave::ToSendAgain,
            }
        };
        Events { leave: Box::pin(leave), stalled, deadline: self.deadline.clone() }
    }

    /// Waits before the next attempt. False: the deadline has passed, or the relay is stopping (or the forward ends) and nothing is left
    /// to deliver.
    async fn pause(&mut self, wait: Duration) -> bool {
        let drained = async {
            // True: there is something to deliver, so the attempts go on.
            if self.source.wait().await {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sleep(wait) => true,
            () = drained => false,
            () = self.deadline.reached() => false,
        }
    }

    fn say_connected(&self, connected: &Connected) {
        let place = connected.place.of(&self.settings.to[connected.place.target]);
        let does = if let Link::File(_) = connected.link { "writes to" } else { "connected to" };
        let said = format!("{does} {place}");
        if self.dialer.limiter.is_over(&said) {
            tracing::info!(parent: self.dialer.limiter.span(), "{said}; {} lines pending", self.source.pending());
        }
    }

    /// Shows the forward's place in its status.
    fn show_place(&self, place: &Place) {
        let address = place.endpoint.as_ref().map(|endpoint| endpoint.peer);
        self.state.connected(self.settings.to[place.target].to_string(), address, place.ttl);
    }

    /// Reports why nothing is delivered.
    fn say_problem(&self, problem: &str) {
        self.state.failed(problem);
        if self.dialer.limiter.is_new(problem) {
            tracing::warn!(
                parent: self.dialer.limiter.span(),
                "{problem}; {} lines pending, trying again",
                self.source.pending()
            );
        }
    }
}

/// A forwarder that is cancelled in the middle is not connected either.
impl Drop for Forwarder {
    fn drop(&mut self) {
        self.metrics.connected.set(0);
    }
}
