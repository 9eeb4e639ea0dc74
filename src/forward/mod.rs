//! ROOM 4: lines from the spool to a collector.
//!
//! A [`Forwarder`] owns one cursor of the spool. It finds its collector by name (`names`), connects (`dial`), lets a link
//! carry (`tcp`: TCP and TLS, `relp`: the same with answers, `datagram`: UDP, `file`: files and stdout) while it looks
//! out for a better place to be (`target_watch`), and when the link ends it goes back to the first line the collector may not
//! have and starts again, for ever. Nothing here ends the process: a collector that is not there is what the spool is for.

mod backoff;
mod datagram;
mod dial;
mod encode;
mod file;
mod filtered_chunk;
mod log_limiter;
mod names;
mod relp;
mod source;
mod stall;
mod target_watch;
mod tcp;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::TlsConnector;

use crate::board::ForwardState;
use crate::config::{self, ForwardAddress, Target};
use crate::metrics::ForwardMetrics;
use crate::spool::Reader;
use backoff::Backoff;
use datagram::DatagramLink;
use dial::Dialer;
pub use dial::connector;
pub use encode::encoding;
use file::FileLink;
pub use names::{Endpoint, Patience, Resolver};
use relp::RelpLink;
use source::Source;
use target_watch::{Lookout, Moved, Why};
use tcp::stream::StreamLink;

/// The first wait after a connection that could not be made or broke.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// A collector that hangs is waited for up to 32 times `dead-after` before the connection is given up for another one.
const MOST_DOUBLINGS: usize = 5;
/// What may be wrong where a connection ends before it has carried anything.
const NOT_PLAIN: &str = " (does that port speak plain syslog? TLS is tcp+tls://, RELP is relp://)";
/// Looks for an earlier collector that are in vain become rarer, up to so many times `return-after`.
const RAREST_RETURN: u32 = 10;

/// One forward: a cursor of the spool and where its lines go.
pub struct Forwarder {
    settings: Arc<config::Forward>,
    source: Source,
    dialer: Dialer,
    metrics: ForwardMetrics,
    state: ForwardState,
    deadline: Deadline,
    /// Waits before an earlier collector is gone back to. They grow when one did not keep its connection.
    returns: Backoff,
    /// Connections in a row that did not live, or stood still until they were given up. The next attempt begins one target,
    /// or one address, further on.
    useless: usize,
    /// Those that stood still among them.
    standstills: usize,
}

/// What a forward is told while it runs.
pub struct Orders {
    pub deadline: Deadline,
    /// True ends it, with what is on its way brought to an end and the rest left in the spool.
    pub leaving: watch::Receiver<bool>,
    /// What it makes TLS connections with, see [`connector`]; the next one is made with what is there then.
    pub connectors: watch::Receiver<Option<TlsConnector>>,
}

/// Why a link stopped carrying.
enum Ended {
    /// The relay is stopping, and the collector has everything or time is up.
    Stopped,
    /// There is a better place to be now, and a connection to there stands.
    Moved(Moved),
    /// The connection broke; the text says how.
    Broken(String),
}

/// What a link listens to besides its own connection.
struct Events {
    moved: Pin<Box<dyn Future<Output = Moved> + Send>>,
    /// For the link to say that it stands still, each time it has for long enough.
    stalled: Arc<Notify>,
    deadline: Deadline,
}

/// When a stopping relay gives up on delivering. Unset while it runs.
#[derive(Clone)]
pub struct Deadline(watch::Receiver<Option<Instant>>);

/// A connection, and where it leads to.
struct Connected {
    link: Link,
    at: At,
}

#[derive(Clone)]
struct At {
    /// Which of the forward's targets. `0 <= target < to.len()`
    target: usize,
    /// Where on the network; `None` on this machine.
    endpoint: Option<Endpoint>,
    /// How long the answer may be believed by which it was found.
    ttl: Duration,
}

/// A connection that broke.
struct Broken {
    how: String,
    /// For how long it had stood.
    lived: Duration,
    /// Nothing was acknowledged any more at its end.
    stood_still: bool,
}

enum Link {
    Stream(Box<StreamLink>),
    Relp(Box<RelpLink>),
    Datagram(DatagramLink),
    File(FileLink),
}

impl Forwarder {
    /// Nothing is resolved or connected yet.
    pub fn new(
        settings: config::Forward,
        reader: Reader,
        resolver: Resolver,
        sd_id: &str,
        (metrics, state): (ForwardMetrics, ForwardState),
        orders: Orders,
    ) -> Self {
        let Orders { deadline, leaving, connectors } = orders;
        let settings = Arc::new(settings);
        let returns = Backoff::new(settings.failback_after, settings.failback_after * RAREST_RETURN);
        let wanted = (settings.matches.clone(), sd_id.to_owned());
        let source = Source::new(reader, wanted, metrics.clone(), leaving);
        let counted = (metrics.clone(), state.clone());
        let dialer = Dialer::new(settings.clone(), resolver, connectors, sd_id, source.stream(), counted);
        Self { settings, source, dialer, metrics, state, deadline, returns, useless: 0, standstills: 0 }
    }

    /// Forwards until the spool is closed and delivered, or the deadline passed. What is left stays in the spool.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, self.settings.max_backoff);
        loop {
            let (mut deadline, mut stopping) = (self.deadline.clone(), self.deadline.clone());
            let idle = self.source.pending() + self.source.replayable() == 0;
            let left = self.source.left();
            self.state.connecting();
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = deadline.reached() => break,
                () = left => break,
                // Nothing to deliver: a stopping relay does not wait for a collector.
                () = stopping.announced(), if idle => break,
            };
            if let Some(connected) = connected {
                let carried = self.carry(connected).await;
                self.metrics.connected.set(0);
                let Err(Broken { how, lived, stood_still }) = carried else { break };
                self.say_problem(&how);
                self.source.rewind();
                // A collector that takes a connection only to drop it is not hammered, and others are tried; they are
                // also when one hangs, whose kernel goes on taking connections for it.
                if stood_still || lived <= self.settings.max_backoff {
                    self.useless += 1;
                    self.standstills += usize::from(stood_still);
                } else {
                    backoff.reset();
                    self.useless = 0;
                    self.standstills = 0;
                }
                if lived > self.settings.failback_after && !stood_still {
                    self.returns.reset();
                }
            }
            self.state.waits();
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
            let name = &self.settings.name;
            tracing::warn!(
                "forward {name}: stopping with {} lines not confirmed; they stay in the spool",
                pending + replayable
            );
        }
    }

    /// Tries every address of every target, in order.
    async fn connect(&mut self) -> Option<Connected> {
        let targets = self.settings.to.len();
        for turn in 0..targets {
            let target = (self.useless + turn) % targets;
            match self.connect_target(target).await {
                Ok(connected) => return Some(connected),
                Err(problem) => self.say_problem(&format!("{}: {problem}", self.settings.to[target])),
            }
        }
        None
    }

    async fn connect_target(&self, target: usize) -> Result<Connected, String> {
        let address = &self.settings.to[target];
        let here = |file| Connected { link: Link::File(file), at: At { target, endpoint: None, ttl: Duration::MAX } };
        let to = match &address.address {
            ForwardAddress::Stdout => return Ok(here(FileLink::stdout(self.dialer.encoding(address)))),
            ForwardAddress::File(template) => {
                return Ok(here(FileLink::files(template, self.dialer.encoding(address))));
            }
            ForwardAddress::Network(network) => network.destination(),
        };
        let answer = self.dialer.look_up_or_remember(to).await?;
        let start = self.useless / self.settings.to.len();
        let (behind, first) = answer.endpoints.split_at(start % answer.endpoints.len().max(1));
        let patience = self.patience();
        let (link, endpoint) = self.dialer.connect_any(address, first.iter().chain(behind), patience).await?;
        Ok(Connected { link, at: At { target, endpoint: Some(endpoint), ttl: answer.ttl } })
    }

    /// How long the next connection may stand still. A collector that hangs reads all that it was sent on each connection
    /// when it comes round, so there must not be many of them: each round through the targets doubles it.
    fn patience(&self) -> Duration {
        let rounds = self.standstills / self.settings.to.len();
        self.settings.dead_after * (1 << rounds.min(MOST_DOUBLINGS))
    }

    /// Carries over one connection, and over the next ones as long as there is a better place to be. `Ok`: the relay is
    /// stopping.
    async fn carry(&mut self, mut connected: Connected) -> Result<(), Broken> {
        loop {
            self.metrics.connected.set(1);
            self.say_connected(&connected);
            self.show_place(&connected.at);
            let (since, delivered) = (Instant::now(), self.source.delivered());
            let Connected { link, at } = connected;
            let mut events = self.events(&at);
            let (ended, old) = match link {
                Link::Stream(mut link) => (link.carry(&mut self.source, &mut events).await, Some(Link::Stream(link))),
                Link::Relp(mut link) => (link.carry(&mut self.source, &mut events).await, Some(Link::Relp(link))),
                Link::Datagram(mut link) => (link.carry(&mut self.source, &mut events).await, None),
                Link::File(link) => (link.carry(&mut self.source, &mut events).await, None),
            };
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Broken(how) => {
                    let (lived, stood_still) = (since.elapsed(), old.is_some_and(|link| link.stands()));
                    let target = &self.settings.to[at.target];
                    let misunderstood = target.address.is_plain_syslog()
                        && lived < self.settings.max_backoff
                        && delivered == self.source.delivered();
                    let hint = if misunderstood { NOT_PLAIN } else { "" };
                    return Err(Broken { how: format!("{}: {how}{hint}", at.place(target)), lived, stood_still });
                }
                Ended::Moved(moved) => connected = self.follow(&at, old, moved).await,
            }
        }
    }

    /// Leaves the old place for the new one, which is connected already. `old`: the connection to end in good order.
    async fn follow(&mut self, from: &At, old: Option<Link>, Moved { why, link, at }: Moved) -> Connected {
        let (name, target) = (&self.settings.name, &self.settings.to[at.target]);
        match why {
            Why::NameMoved => {
                self.metrics.moves.inc();
                let said = format!("{target} moved from {from} to {at}");
                if self.dialer.news.is_new(&said) {
                    tracing::info!("forward {name}: {said}");
                }
            }
            Why::BetterIsBack => {
                self.metrics.failbacks.inc();
                // Until it has shown that it stays.
                self.returns.wait();
                let said = format!("{target} at {at} is back; leaving {from}");
                if self.dialer.news.is_new(&said) {
                    tracing::info!("forward {name}: {said}");
                }
            }
        }
        let source = &mut self.source;
        let finish = async move {
            match old {
                Some(Link::Stream(mut old)) => old.finish(source).await,
                Some(Link::Relp(mut old)) => old.finish(source).await,
                Some(Link::Datagram(_) | Link::File(_)) | None => {}
            }
        };
        tokio::select! {
            () = finish => {}
            () = self.deadline.reached() => {}
        }
        self.source.rewind();
        Connected { link, at }
    }

    fn events(&self, at: &At) -> Events {
        let stalled = Arc::new(Notify::new());
        let lookout = Lookout::new(self.dialer.clone(), at.clone(), stalled.clone(), self.returns.clone());
        Events { moved: Box::pin(lookout.elsewhere()), stalled, deadline: self.deadline.clone() }
    }

    /// Waits before the next attempt; false when the relay is stopping and there is nothing left to deliver, or no time.
    async fn pause(&mut self, wait: Duration) -> bool {
        let drained = async {
            // True: there is something to deliver, so we are not done and go on trying.
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
        let place = connected.at.place(&self.settings.to[connected.at.target]);
        let does = if let Link::File(_) = connected.link { "writes to" } else { "connected to" };
        let said = format!("{does} {place}");
        if self.dialer.news.is_new(&said) {
            tracing::info!("forward {}: {said}; {} lines pending", self.settings.name, self.source.pending());
        }
    }

    /// For whoever looks at the board.
    fn show_place(&self, at: &At) {
        let address = at.endpoint.as_ref().map(|endpoint| endpoint.peer);
        self.state.connected(self.settings.to[at.target].to_string(), address, at.ttl);
    }

    /// Says why nothing is delivered.
    fn say_problem(&self, problem: &str) {
        self.state.trouble(problem);
        if self.dialer.news.is_new(problem) {
            let name = &self.settings.name;
            tracing::warn!(
                "forward {name}: {problem}; {} lines wait in the spool, trying again",
                self.source.pending()
            );
        }
    }
}

/// However it ends: one that is cut off in the middle is not connected either.
impl Drop for Forwarder {
    fn drop(&mut self) {
        self.metrics.connected.set(0);
    }
}

impl Deadline {
    pub fn new(watch: watch::Receiver<Option<Instant>>) -> Self {
        Self(watch)
    }

    /// Waits until the deadline is set and has passed.
    async fn reached(&mut self) {
        loop {
            let deadline = *self.0.borrow_and_update();
            match deadline {
                Some(deadline) => return sleep_until(deadline).await,
                // A relay that is dropped without a word is not stopping; whoever holds us ends us.
                None if self.0.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        }
    }

    /// Waits until the relay begins to stop.
    async fn announced(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn passed(&self) -> bool {
        self.0.borrow().is_some_and(|deadline| deadline <= Instant::now())
    }
}

impl Events {
    /// The new connection, if there is one by now, while nobody was waiting for it.
    async fn moved_by_now(&mut self) -> Option<Moved> {
        tokio::select! {
            biased;
            moved = &mut self.moved => Some(moved),
            () = std::future::ready(()) => None,
        }
    }
}

impl Link {
    /// Waits until the other side ends a connection over which nothing was sent. What is no connection does not end.
    async fn ends(&mut self) {
        match self {
            Self::Stream(link) => link.ends().await,
            Self::Relp(link) => link.ends().await,
            Self::Datagram(_) | Self::File(_) => std::future::pending().await,
        }
    }

    /// Whether nothing was acknowledged for a while of what is on its way.
    fn stands(&self) -> bool {
        match self {
            Self::Stream(link) => link.stands(),
            Self::Relp(link) => link.stands(),
            Self::Datagram(_) | Self::File(_) => false,
        }
    }
}

impl At {
    /// Where it is, for a person: `target` is what the config calls it.
    fn place(&self, target: &Target) -> String {
        self.endpoint.as_ref().map_or_else(|| target.to_string(), |endpoint| format!("{target} at {}", endpoint.peer))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(f, "{}", endpoint.peer),
            None => f.write_str("this machine"),
        }
    }
}
