//! ROOM 4: lines from the spool to a collector.
//!
//! A [`Forwarder`] owns one cursor of the spool. It finds its collector by name (`resolve`), connects, lets a link carry
//! (`stream`: TCP and TLS, `datagram`: UDP, `file`: files and stdout), and when the link ends it goes back to the first
//! line the collector may not have and starts again, for ever. Nothing here ends the process: a collector that is not
//! there is what the spool is for.

mod acked;
mod backoff;
mod datagram;
mod encode;
mod file;
mod resolve;
mod source;
mod stream;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::config::{self, ForwardAddress, Framing, Host, HostPort};
use crate::metrics::ForwardMetrics;
use crate::spool::Reader;
use crate::tls::{self, TlsError};
use acked::Wire;
use backoff::Backoff;
use datagram::DatagramLink;
use encode::Encoding;
use file::FileLink;
pub use resolve::{Answer, ResolveError, Resolver};
use source::Source;
use stream::{StreamLink, connect_tcp};

/// One forward: a cursor of the spool and where its lines go.
pub struct Forwarder {
    settings: config::Forward,
    source: Source,
    resolver: Resolver,
    tls: Option<TlsConnector>,
    metrics: ForwardMetrics,
    deadline: Deadline,
    /// The last answer for each name, for when there is none.
    last_good: HashMap<String, Answer>,
    /// What was last said about not being connected: said again only when it changes.
    last_problem: String,
}

/// Why a link stopped carrying.
enum Ended {
    /// The relay is stopping, and the collector has everything or time is up.
    Stopped,
    /// The name points elsewhere now.
    Moved(Answer),
    /// The connection broke; the text says how.
    Broken(String),
}

/// What a link listens to besides its own connection.
struct Events {
    moved: Pin<Box<dyn Future<Output = Answer> + Send>>,
    deadline: Deadline,
}

/// When a stopping relay gives up on delivering. Unset while it runs.
#[derive(Clone)]
pub struct Deadline(watch::Receiver<Option<Instant>>);

/// A target the forward is connected to.
struct Connected {
    link: Link,
    target: ForwardAddress,
    /// How long the name may be believed; `None` where there is no name.
    ttl: Option<Duration>,
}

enum Link {
    Stream(Box<StreamLink>),
    Datagram(DatagramLink),
    File(FileLink),
}

impl Forwarder {
    /// Reads the certificates; nothing is resolved or connected yet.
    pub fn new(
        settings: config::Forward,
        reader: Reader,
        resolver: Resolver,
        sd_id: &str,
        metrics: ForwardMetrics,
        deadline: Deadline,
    ) -> Result<Self, TlsError> {
        let tls = connector(&settings)?;
        let encoding = Encoding { format: settings.format, framing: None, sd_id: sd_id.to_owned() };
        let source = Source::new(reader, encoding, metrics.clone());
        Ok(Self {
            settings,
            source,
            resolver,
            tls,
            metrics,
            deadline,
            last_good: HashMap::new(),
            last_problem: String::new(),
        })
    }

    /// Forwards until the spool is closed and delivered, or the deadline passed. What is left stays in the spool.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.max_backoff);
        loop {
            let mut deadline = self.deadline.clone();
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = deadline.reached() => break,
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
                // A collector that takes a connection only to drop it is not hammered.
                if since.elapsed() > self.settings.max_backoff {
                    backoff.reset();
                }
            }
            if !self.pause(backoff.wait()).await {
                break;
            }
        }
        let left = self.source.waiting();
        if left > 0 {
            tracing::warn!(
                "forward {}: stopping with {left} lines undelivered; they stay in the spool",
                self.settings.name
            );
        }
    }

    /// Tries every address of every target, in order.
    async fn connect(&mut self) -> Option<Connected> {
        for target in self.settings.to.clone() {
            match self.connect_target(&target).await {
                Ok(connected) => return Some(connected),
                Err(problem) => self.say_problem(&format!("{target}: {problem}")),
            }
        }
        None
    }

    async fn connect_target(&mut self, target: &ForwardAddress) -> Result<Connected, String> {
        self.source.set_framing(framing(&self.settings, target));
        let encoding = self.source.encoding().clone();
        let link = match target {
            ForwardAddress::Stdout => Link::File(FileLink::stdout(encoding)),
            ForwardAddress::File(template) => Link::File(FileLink::files(template, encoding)),
            ForwardAddress::Udp(to) | ForwardAddress::Tcp(to) | ForwardAddress::Tls(to) => {
                let answer = self.resolve(&to.host).await?;
                let ttl = matches!(to.host, Host::Name(_)).then_some(answer.ttl);
                let link = self.connect_any(target, to, &answer).await?;
                return Ok(Connected { link, target: target.clone(), ttl });
            }
        };
        Ok(Connected { link, target: target.clone(), ttl: None })
    }

    /// The addresses of a host. A name that cannot be looked up keeps its last good answer: stale is better than none.
    async fn resolve(&mut self, host: &Host) -> Result<Answer, String> {
        let name = match host {
            Host::Address(address) => return Ok(Answer { addresses: vec![*address], ttl: Duration::MAX }),
            Host::Name(name) => name,
        };
        match self.resolver.resolve(name).await {
            Ok(answer) => {
                self.last_good.insert(name.clone(), answer.clone());
                Ok(answer)
            }
            Err(error) => {
                self.metrics.resolve_failures.inc();
                self.last_good.get(name).cloned().ok_or_else(|| format!("cannot resolve {name}: {error}"))
            }
        }
    }

    /// The first of a target's addresses that can be connected.
    async fn connect_any(&self, target: &ForwardAddress, to: &HostPort, answer: &Answer) -> Result<Link, String> {
        let mut problems = Vec::new();
        for address in &answer.addresses {
            let peer = SocketAddr::new(*address, to.port);
            match self.connect_one(target, to, peer).await {
                Ok(link) => {
                    self.metrics.connects.inc();
                    return Ok(link);
                }
                Err(problem) => {
                    self.metrics.connect_failures.inc();
                    problems.push(format!("{peer}: {problem}"));
                }
            }
        }
        Err(format!("cannot connect: {}", problems.join("; ")))
    }

    async fn connect_one(&self, target: &ForwardAddress, to: &HostPort, peer: SocketAddr) -> Result<Link, String> {
        let within = self.settings.connect_timeout;
        if let ForwardAddress::Udp(_) = target {
            return DatagramLink::connect(peer).await.map(Link::Datagram).map_err(|error| error.to_string());
        }
        let stream = connect_tcp(peer, within, self.settings.dead_after).await.map_err(|error| error.to_string())?;
        let Some(connector) = self.tls.as_ref().filter(|_| matches!(target, ForwardAddress::Tls(_))) else {
            return Ok(Link::Stream(Box::new(StreamLink::tcp(stream, peer, self.settings.replay))));
        };
        let expected = expected_name(&self.settings, to);
        let name = tls::server_name(&expected).map_err(|error| error.to_string())?;
        match timeout(within, connector.connect(name, Wire::new(stream))).await {
            Ok(Ok(stream)) => Ok(Link::Stream(Box::new(StreamLink::tls(stream, peer, self.settings.replay)))),
            Ok(Err(error)) => Err(format!("TLS with {expected}: {error}")),
            Err(_) => Err(format!("TLS with {expected}: no handshake within {within:?}")),
        }
    }

    /// Carries over one connection, and over the next ones as long as the name moves: make before break. `Ok`: the
    /// relay is stopping. `Err`: the connection broke, and how.
    async fn carry(&mut self, mut connected: Connected) -> Result<(), String> {
        loop {
            self.metrics.connected.set(1);
            self.say_connected(&connected);
            let mut events = self.events(&connected);
            let ended = match connected.link {
                Link::Stream(ref mut link) => link.carry(&mut self.source, &mut events).await,
                Link::Datagram(ref mut link) => link.carry(&mut self.source, &mut events).await,
                Link::File(link) => return link.carry(&mut self.source, &mut events).await,
            };
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Broken(reason) => return Err(reason),
                Ended::Moved(answer) => connected = self.follow(connected, &answer).await,
            }
        }
    }

    /// The name points elsewhere: connect there first, then leave the old address. If the new one cannot be connected
    /// yet, the old connection goes on as long as it works.
    async fn follow(&mut self, old: Connected, answer: &Answer) -> Connected {
        let (ForwardAddress::Udp(to) | ForwardAddress::Tcp(to) | ForwardAddress::Tls(to)) = &old.target else {
            return old;
        };
        if let Host::Name(name) = &to.host {
            self.last_good.insert(name.clone(), answer.clone());
        }
        match self.connect_any(&old.target, to, answer).await {
            Ok(link) => {
                self.metrics.moves.inc();
                tracing::info!("forward {}: {} moved from {} to {}", self.settings.name, old.target, old.link, link);
                if let Link::Stream(mut old) = old.link {
                    old.finish(&mut self.source).await;
                }
                self.source.rewind();
                Connected { link, target: old.target, ttl: Some(answer.ttl) }
            }
            Err(problem) => {
                self.say_problem(&format!("{} points to a new address, but: {problem}", old.target));
                Connected { ttl: Some(answer.ttl), ..old }
            }
        }
    }

    fn events(&self, connected: &Connected) -> Events {
        let moved: Pin<Box<dyn Future<Output = Answer> + Send>> = match (&connected.target, connected.ttl) {
            (ForwardAddress::Udp(to) | ForwardAddress::Tcp(to) | ForwardAddress::Tls(to), Some(ttl)) => {
                match (&to.host, connected.link.peer()) {
                    (Host::Name(name), Some(peer)) => Box::pin(moved_away(
                        self.resolver.clone(),
                        name.clone(),
                        peer,
                        ttl,
                        self.metrics.resolve_failures.clone(),
                    )),
                    _ => Box::pin(std::future::pending()),
                }
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
        if matches!(connected.link, Link::File(_)) {
            return;
        }
        self.last_problem.clear();
        let waiting = self.source.waiting();
        tracing::info!(
            "forward {}: connected to {} at {}; {waiting} lines waiting",
            self.settings.name,
            connected.target,
            connected.link
        );
    }

    /// Says why nothing is delivered, once for each reason: an outage of a day is a few lines, not a flood.
    fn say_problem(&mut self, problem: &str) {
        if self.last_problem != problem {
            let name = &self.settings.name;
            tracing::warn!(
                "forward {name}: {problem}; {} lines wait in the spool, trying again",
                self.source.waiting()
            );
            problem.clone_into(&mut self.last_problem);
        }
    }
}

/// The connector a forward needs, with its certificates read and its names looked at: `None` when no target speaks TLS.
pub fn connector(settings: &config::Forward) -> Result<Option<TlsConnector>, TlsError> {
    let mut names = settings.to.iter().filter_map(|target| match target {
        ForwardAddress::Tls(to) => Some(expected_name(settings, to)),
        _ => None,
    });
    let Some(first) = names.next() else { return Ok(None) };
    tls::server_name(&first)?;
    names.try_for_each(|name| tls::server_name(&name).map(drop))?;
    tls::connector(&settings.tls).map(Some)
}

/// The name a collector's certificate must carry.
fn expected_name(settings: &config::Forward, to: &HostPort) -> String {
    settings.tls.server_name.clone().unwrap_or_else(|| to.host.to_string())
}

/// The framing for a target: what was configured, or by its scheme (RFC 5425 knows octet counting only).
fn framing(settings: &config::Forward, target: &ForwardAddress) -> Option<Framing> {
    match target {
        ForwardAddress::Udp(_) => None,
        ForwardAddress::File(_) | ForwardAddress::Stdout => Some(Framing::Newline),
        ForwardAddress::Tls(_) => Some(settings.framing.unwrap_or(Framing::OctetCounting)),
        ForwardAddress::Tcp(_) => Some(settings.framing.unwrap_or(Framing::Newline)),
    }
}

/// Asks for the name whenever its answer has expired; ends when `peer` is no longer among its addresses.
async fn moved_away(
    resolver: Resolver,
    name: String,
    peer: SocketAddr,
    mut ttl: Duration,
    failures: prometheus_client::metrics::counter::Counter,
) -> Answer {
    loop {
        sleep(ttl).await;
        match resolver.resolve(&name).await {
            Ok(answer) if !answer.addresses.contains(&peer.ip()) => return answer,
            Ok(answer) => ttl = answer.ttl,
            Err(_) => {
                failures.inc();
            }
        }
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

    fn passed(&self) -> bool {
        self.0.borrow().is_some_and(|deadline| deadline <= Instant::now())
    }
}

impl Events {
    /// The new answer, if the name has moved while nobody was waiting for it.
    async fn moved_by_now(&mut self) -> Option<Answer> {
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
