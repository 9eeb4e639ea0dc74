//! ROOM 4: lines from the spool to a collector.
//!
//! A [`Forwarder`] owns one cursor of the spool. It finds its collector by name (`resolve`), connects, lets a link carry
//! (`stream`: TCP and TLS, `relp`: the same with answers, `datagram`: UDP, `file`: files and stdout), and when the link ends it goes back to the first
//! line the collector may not have and starts again, for ever. Nothing here ends the process: a collector that is not
//! there is what the spool is for.

mod acked;
mod backoff;
mod datagram;
mod dial;
mod encode;
mod file;
mod path;
mod reading;
mod relp;
mod resolve;
mod source;
mod stream;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{self, ForwardAddress, Host, HostPort};
use crate::metrics::ForwardMetrics;
use crate::spool::Reader;
use crate::tls::TlsError;
use backoff::Backoff;
use datagram::DatagramLink;
pub use dial::connector;
use dial::{Dialer, Moved};
use file::FileLink;
use relp::RelpLink;
pub use resolve::{Answer, Patience, ResolveError, Resolver};
use source::Source;
use stream::StreamLink;

/// Different things said between two deliveries. More would be a flood, whatever they are.
const MOST_SAID: usize = 16;

/// One forward: a cursor of the spool and where its lines go.
pub struct Forwarder {
    settings: Arc<config::Forward>,
    source: Source,
    dialer: Dialer,
    metrics: ForwardMetrics,
    deadline: Deadline,
    /// The last answer for each name, for when there is none.
    last_good: HashMap<String, Answer>,
    /// Connections in a row that did not live. The next attempt begins one target, or one address, further on.
    stillborn: usize,
    /// What was said since the last delivery: an outage of a day is a few lines, not a flood.
    said: HashSet<String>,
    /// `delivered` when `said` was last emptied.
    said_at: u64,
}

/// Why a link stopped carrying.
enum Ended {
    /// The relay is stopping, and the collector has everything or time is up.
    Stopped,
    /// The name points elsewhere now, and a connection to there stands.
    Moved(Moved),
    /// The connection broke; the text says how.
    Broken(String),
}

/// What a link listens to besides its own connection.
struct Events {
    moved: Pin<Box<dyn Future<Output = Moved> + Send>>,
    deadline: Deadline,
}

/// When a stopping relay gives up on delivering. Unset while it runs.
#[derive(Clone)]
pub struct Deadline(watch::Receiver<Option<Instant>>);

/// A target the forward is connected to.
struct Connected {
    link: Link,
    target: ForwardAddress,
    /// The name it was found by and how long that may be believed; `None` where there is no name.
    name: Option<(HostPort, Duration)>,
}

enum Link {
    Stream(Box<StreamLink>),
    Relp(Box<RelpLink>),
    Datagram(DatagramLink),
    File(FileLink),
}

impl Forwarder {
    /// Reads the certificates; nothing is resolved or connected yet. `leaving`: true ends the forward, with what is on its
    /// way brought to an end and the rest left in the spool.
    pub fn new(
        settings: config::Forward,
        reader: Reader,
        resolver: Resolver,
        sd_id: &str,
        metrics: ForwardMetrics,
        deadline: Deadline,
        leaving: watch::Receiver<bool>,
    ) -> Result<Self, TlsError> {
        let settings = Arc::new(settings);
        let source = Source::new(reader, metrics.clone(), leaving);
        let dialer = Dialer::new(settings.clone(), resolver, sd_id, source.stream(), metrics.clone())?;
        Ok(Self {
            settings,
            source,
            dialer,
            metrics,
            deadline,
            last_good: HashMap::new(),
            stillborn: 0,
            said: HashSet::new(),
            said_at: 0,
        })
    }

    /// Forwards until the spool is closed and delivered, or the deadline passed. What is left stays in the spool.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.max_backoff);
        loop {
            let (mut deadline, mut stopping) = (self.deadline.clone(), self.deadline.clone());
            let idle = self.source.waiting() == 0;
            let left = self.source.left();
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = deadline.reached() => break,
                () = left => break,
                // Nothing to deliver: a stopping relay does not wait for a collector.
                () = stopping.announced(), if idle => break,
            };
            if let Some(connected) = connected {
                let since = Instant::now();
                let carried = self.carry(connected).await;
                self.metrics.connected.set(0);
                match carried {
                    Ok(()) => break,
                    Err(reason) => self.say_problem(&reason),
                }
                self.source.rewind();
                // A collector that takes a connection only to drop it is not hammered, and others are tried.
                if since.elapsed() > self.settings.max_backoff {
                    backoff.reset();
                    self.stillborn = 0;
                } else {
                    self.stillborn = self.stillborn.wrapping_add(1);
                }
            }
            if !self.pause(backoff.wait()).await {
                break;
            }
        }
        let left = self.source.waiting();
        if left > 0 && !self.source.is_left() {
            let name = &self.settings.name;
            tracing::warn!("forward {name}: stopping with {left} lines not confirmed; they stay in the spool");
        }
    }

    /// Tries every address of every target, in order.
    async fn connect(&mut self) -> Option<Connected> {
        let targets = self.settings.to.len();
        for turn in 0..targets {
            let target = self.settings.to[(self.stillborn + turn) % targets].clone();
            match self.connect_target(&target).await {
                Ok(connected) => return Some(connected),
                Err(problem) => self.say_problem(&format!("{target}: {problem}")),
            }
        }
        None
    }

    async fn connect_target(&mut self, target: &ForwardAddress) -> Result<Connected, String> {
        let encoding = || self.dialer.encoding(target);
        let link = match target {
            ForwardAddress::Stdout => Link::File(FileLink::stdout(encoding())),
            ForwardAddress::File(template) => Link::File(FileLink::files(template, encoding())),
            ForwardAddress::Udp(to)
            | ForwardAddress::Tcp(to)
            | ForwardAddress::Tls(to)
            | ForwardAddress::Relp(to)
            | ForwardAddress::RelpTls(to) => {
                let answer = self.look_up(&to.host).await?;
                let name = matches!(to.host, Host::Name(_)).then_some((to.clone(), answer.ttl));
                let start = self.stillborn / self.settings.to.len();
                let link = self.dialer.connect_any(target, to, &answer, start).await?;
                return Ok(Connected { link, target: target.clone(), name });
            }
        };
        Ok(Connected { link, target: target.clone(), name: None })
    }

    /// The addresses of a host. What cannot be looked up keeps its last good answer: stale is better than none.
    async fn look_up(&mut self, host: &Host) -> Result<Answer, String> {
        let name = match host {
            Host::Address(address) => return Ok(Answer::literal(*address)),
            Host::Name(name) => name,
        };
        let earlier = self.last_good.get(name);
        let answer = match self.dialer.look_up(name, Patience::OneFamily).await {
            Ok(answer) => earlier.map_or(answer.clone(), |earlier| answer.completed_by(earlier)),
            Err(problem) => return earlier.cloned().ok_or(problem),
        };
        self.last_good.insert(name.clone(), answer.clone());
        Ok(answer)
    }

    /// Carries over one connection, and over the next ones as long as the name moves. `Ok`: the relay is stopping. `Err`:
    /// the connection broke, and how.
    async fn carry(&mut self, mut connected: Connected) -> Result<(), String> {
        loop {
            self.metrics.connected.set(1);
            self.say_connected(&connected);
            let mut events = self.events(&connected);
            let ended = match connected.link {
                Link::Stream(ref mut link) => link.carry(&mut self.source, &mut events).await,
                Link::Relp(ref mut link) => link.carry(&mut self.source, &mut events).await,
                Link::Datagram(ref mut link) => link.carry(&mut self.source, &mut events).await,
                Link::File(link) => return link.carry(&mut self.source, &mut events).await,
            };
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Broken(reason) => return Err(reason),
                Ended::Moved(moved) => connected = self.follow(connected, moved).await,
            }
        }
    }

    /// Leaves the old address for the new one, which is connected already.
    async fn follow(&mut self, old: Connected, Moved { answer, link }: Moved) -> Connected {
        self.metrics.moves.inc();
        tracing::info!("forward {}: {} moved from {} to {}", self.settings.name, old.target, old.link, link);
        let source = &mut self.source;
        let finish = async move {
            match old.link {
                Link::Stream(mut old) => old.finish(source).await,
                Link::Relp(mut old) => old.finish(source).await,
                Link::Datagram(_) | Link::File(_) => {}
            }
        };
        tokio::select! {
            () = finish => {}
            () = self.deadline.reached() => {}
        }
        self.source.rewind();
        let name = old.name.map(|(to, _)| {
            if let Host::Name(name) = &to.host {
                self.last_good.insert(name.clone(), answer.clone());
            }
            (to, answer.ttl)
        });
        Connected { link, target: old.target, name }
    }

    fn events(&self, connected: &Connected) -> Events {
        let moved: Pin<Box<dyn Future<Output = Moved> + Send>> = match (&connected.name, connected.link.peer()) {
            (Some((to, ttl)), Some(peer)) => {
                Box::pin(self.dialer.clone().moved_away(connected.target.clone(), to.clone(), peer, *ttl))
            }
            _ => Box::pin(std::future::pending()),
        };
        Events { moved, deadline: self.deadline.clone() }
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

    fn say_connected(&mut self, connected: &Connected) {
        let said = format!("connected to {} at {}", connected.target, connected.link);
        if !matches!(connected.link, Link::File(_)) && self.is_news(&said) {
            tracing::info!("forward {}: {said}; {} lines waiting", self.settings.name, self.source.waiting());
        }
    }

    /// Says why nothing is delivered.
    fn say_problem(&mut self, problem: &str) {
        if self.is_news(problem) {
            let name = &self.settings.name;
            tracing::warn!(
                "forward {name}: {problem}; {} lines wait in the spool, trying again",
                self.source.waiting()
            );
        }
    }

    /// Each thing is said once, until something was delivered again.
    fn is_news(&mut self, text: &str) -> bool {
        let delivered = self.source.delivered();
        if delivered != self.said_at {
            self.said_at = delivered;
            self.said.clear();
        }
        self.said.len() < MOST_SAID && self.said.insert(text.to_owned())
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
    /// The new connection, if the name has moved while nobody was waiting for it.
    async fn moved_by_now(&mut self) -> Option<Moved> {
        tokio::select! {
            biased;
            moved = &mut self.moved => Some(moved),
            () = std::future::ready(()) => None,
        }
    }
}

impl Link {
    fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Stream(link) => Some(link.peer()),
            Self::Relp(link) => Some(link.peer()),
            Self::Datagram(link) => Some(link.peer()),
            Self::File(_) => None,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer() {
            Some(peer) => write!(f, "{peer}"),
            None => f.write_str("this machine"),
        }
    }
}
