//! From a target to a connection: look-up, an attempt at each address, TLS.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::delivery::{Delivery, DeliveryError};
use super::driver::{Failure, StreamLink};
use super::encode::{Encoding, encoding};
use super::http;
use super::jetstream::NotRead;
use super::link::Link;
use super::log_limiter::LogLimiter;
use super::names::{Answer, Endpoint, Patience, ResolveError, Resolver, Rotation, Whereabouts};
use super::nats::BadGreeting;
use super::stall::Standstill;
use super::tcp::{self, CountedStream, Stream};
use crate::config::{self, Destination, ListenAddress, Target};
use crate::loops::LoopGuard;
use crate::metrics::{ForwardMetrics, Metrics};
use crate::protocol::relp::Numbering;
use crate::status::SharedForwardStatus;
use crate::tls::{self, Connector, TlsError};

/// A collector without progress is given up for another one after 32 times `dead-after` at the latest.
const MAX_DOUBLINGS: usize = 5;

/// Why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot resolve {0}: {1}")]
    Resolve(Destination, ResolveError),
    /// Each endpoint that was tried, and why there is no connection.
    #[error("cannot connect: {}", in_one_line(.0))]
    Connect(Vec<(SocketAddr, ConnectError)>),
}

/// Why there is no connection to one endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Name(TlsError),
    /// The expected name, and the problem as text for a person.
    #[error("TLS with {0}: {1}")]
    Tls(String, String),
    #[error("TLS with {0}: no handshake within {1:?}")]
    NoHandshake(String, Duration),
    /// The proxy, and why it opens no tunnel.
    #[error("the proxy {0}: {1}")]
    Proxy(String, http::NoTunnel),
    #[error("the proxy {0}: no answer within {1:?}")]
    SilentProxy(String, Duration),
    #[error(transparent)]
    Opening(#[from] Failure),
    /// The message that the collector has to send first, and a hint if it does not come.
    #[error("no {first_word} within {within:?}; {hint}")]
    NotOpened { first_word: &'static str, within: Duration, hint: &'static str },
    #[error(transparent)]
    Nats(#[from] BadGreeting),
    #[error(transparent)]
    NotRead(#[from] NotRead),
    #[error("it is on this machine")]
    Local,
    #[error("it is this relay's own listener {0}, and every line would come back; change `to`")]
    OwnListener(ListenAddress),
}

impl DialError {
    /// The address of a collector that refuses every line, and its own words.
    pub fn stops(&self) -> Option<(SocketAddr, &str)> {
        let Self::Connect(problems) = self else { return None };
        problems.iter().find_map(|(peer, problem)| match problem {
            ConnectError::Opening(Failure::Delivery(DeliveryError::Stop(why))) => Some((*peer, why.as_str())),
            _ => None,
        })
    }
}

fn in_one_line(problems: &[(SocketAddr, ConnectError)]) -> String {
    problems.iter().map(|(peer, problem)| format!("{peer}: {problem}")).collect::<Vec<_>>().join("; ")
}

/// Cheap to clone, so that a new connection can be made beside one that carries lines.
#[derive(Clone)]
pub struct Dialer {
    pub settings: Arc<config::Forward>,
    pub limiter: Arc<LogLimiter>,
    resolver: Resolver,
    /// Knows this relay's own listeners.
    pub loops: Arc<LoopGuard>,
    /// Replaced when certificates are read again.
    connectors: watch::Receiver<Option<Connector>>,
    /// The SD-ID under which image, name and ID are found in a line.
    sd_id: String,
    /// The name under which the lines are numbered, for a collector that keeps such numbers.
    pub numbering: Numbering,
    pub metrics: ForwardMetrics,
    pub state: SharedForwardStatus,
    /// The last good answer for each target, for look-ups that fail. No more entries than targets.
    last_good: Arc<Mutex<HashMap<Destination, Answer>>>,
    /// How each target's answers rotate. No more entries than targets.
    rotations: Arc<Mutex<HashMap<Destination, Rotation>>>,
}

impl Dialer {
    pub fn new(
        settings: Arc<config::Forward>,
        (resolver, loops): (Resolver, Arc<LoopGuard>),
        connectors: watch::Receiver<Option<Connector>>,
        sd_id: &str,
        numbering: Numbering,
        (metrics, state, limiter): (ForwardMetrics, SharedForwardStatus, Arc<LogLimiter>),
    ) -> Self {
        let (sd_id, last_good, rotations) = (sd_id.to_owned(), Arc::default(), Arc::default());
        Self { settings, limiter, resolver, loops, connectors, sd_id, numbering, metrics, state, last_good, rotations }
    }

    /// A dialer for connections that do not carry the forward's lines. `what`: a word for their purpose.
    pub fn aside(settings: Arc<config::Forward>, resolver: Resolver, connector: Option<Connector>, what: &str) -> Self {
        let (metrics, limiter) = (Metrics::new().forward(&settings.name), Arc::new(LogLimiter::new(&settings.name)));
        let numbering = Numbering { stream: format!("{what}/{}", settings.name), prover: None, is_told: true };
        let connectors = watch::channel(connector).1;
        let says = (metrics, SharedForwardStatus::default(), limiter);
        Self::new(settings, (resolver, Arc::default()), connectors, "", numbering, says)
    }

    /// How lines are written to a target.
    pub fn encoding(&self, target: &Target) -> Encoding {
        encoding(&self.settings, target, &self.sd_id)
    }

    /// The SD-ID under which image, name and ID are found in a line.
    pub fn sd_id(&self) -> &str {
        &self.sd_id
    }

    /// Shows a problem in the status, and logs it with its consequence.
    pub fn say(&self, problem: &str, what_follows: &str) {
        self.state.failed(problem);
        if self.limiter.is_new(problem) {
            tracing::warn!(parent: self.limiter.span(), "{problem}{what_follows}");
        }
    }

    /// How long a connection to a target with this many endpoints may be without progress. `rounds`: how many rounds through the
    /// targets have stalled before. Where there is no other place to go, a collector whose kernel answers is not left: a new
    /// connection costs duplicates, and the collector reads no faster.
    pub fn standstill(&self, rounds: usize, endpoints: usize) -> Standstill {
        let silent = self.settings.dead_after * (1 << rounds.min(MAX_DOUBLINGS));
        let is_alone = self.settings.to.len() == 1 && endpoints <= 1;
        let answering = if is_alone { self.settings.dead_after * (1 << MAX_DOUBLINGS) } else { silent };
        Standstill { silent, answering }
    }

    /// The target's addresses as name servers give them now.
    pub async fn look_up(&self, to: &Destination, patience: Patience) -> Result<Answer, DialError> {
        let answer = self.resolver.resolve(to, patience).await.map_err(|error| {
            self.metrics.resolve_failures.inc();
            let problem = DialError::Resolve(to.clone(), error);
            self.state.failed(&problem.to_string());
            problem
        })?;
        let mut last_good = self.last_good.lock();
        let completed = match last_good.get(to) {
            Some(earlier) => answer.clone().completed_by(earlier),
            None => answer.clone(),
        };
        last_good.insert(to.clone(), completed);
        Ok(answer)
    }

    /// The target's addresses. Where the look-up fails, the last good answer counts: stale is better than none.
    pub async fn look_up_or_remember(&self, to: &Destination) -> Result<Answer, DialError> {
        let looked_up = self.look_up(to, Patience::OneFamily).await;
        let last_good = self.last_good.lock();
        last_good.get(to).cloned().map_or(looked_up, Ok)
    }

    /// Whether a target's name has moved away from the connected address. `is_stalled`: that connection makes no progress.
    pub fn has_moved(&self, to: &Destination, from: &mut Whereabouts, answer: &Answer, is_stalled: bool) -> bool {
        let mut rotations = self.rotations.lock();
        from.has_moved(answer, is_stalled, rotations.entry(to.clone()).or_default(), Instant::now())
    }

    /// The first of a target's endpoints that can be connected. `limits`: when the connection is given up.
    pub async fn connect_any<'e>(
        &self,
        target: &Target,
        endpoints: impl Iterator<Item = &'e Endpoint>,
        limits: Standstill,
    ) -> Result<(Link, Endpoint), DialError> {
        let mut problems = Vec::new();
        for endpoint in endpoints {
            match Link::connect(self, target, endpoint, limits).await {
                Ok(link) => {
                    self.metrics.connects.inc();
                    return Ok((link, endpoint.clone()));
                }
                Err(problem) => {
                    self.metrics.connect_failures.inc();
                    problems.push((endpoint.peer, problem));
                }
            }
        }
        Err(DialError::Connect(problems))
    }

    /// A stream to an endpoint, with TLS where the target speaks it.
    pub async fn connect_stream(&self, target: &Target, endpoint: &Endpoint) -> Result<Stream, ConnectError> {
        let within = self.settings.connect_timeout;
        self.secured(target, endpoint, tcp::connect(endpoint.peer, within).await?).await
    }

    /// A connection, with TLS over it where the target speaks it.
    pub async fn secured(
        &self,
        target: &Target,
        endpoint: &Endpoint,
        stream: CountedStream,
    ) -> Result<Stream, ConnectError> {
        let within = self.settings.connect_timeout;
        let connector = self.connectors.borrow().clone().filter(|_| target.address.is_tls());
        let Some(connector) = connector else { return Ok(Stream::Tcp(stream)) };
        let stream = match &target.proxy {
            Some(proxy) => match timeout(within, http::dig(stream, proxy, &server(target, endpoint))).await {
                Ok(tunnel) => tunnel.map_err(|why| ConnectError::Proxy(proxy.to_string(), why))?,
                Err(_) => return Err(ConnectError::SilentProxy(proxy.to_string(), within)),
            },
            None => stream,
        };
        let (host, _) = server_of(target, endpoint);
        Ok(Stream::Tls(Box::new(self.secure(&connector, &host, stream).await?)))
    }

    /// A link over which lines may be sent.
    pub async fn open(
        &self,
        endpoint: &Endpoint,
        stream: Stream,
        delivery: Delivery,
        limits: Standstill,
    ) -> Result<Link, ConnectError> {
        let within = self.settings.connect_timeout;
        let (first_word, hint) = delivery.first_word();
        let mut link = StreamLink::new(stream, endpoint.peer, delivery, (self.settings.dead_after, limits));
        match timeout(within, link.open()).await {
            Ok(Ok(())) => Ok(Link::Stream(Box::new(link))),
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => Err(ConnectError::NotOpened { first_word, within, hint }),
        }
    }

    async fn secure(
        &self,
        connector: &Connector,
        host: &String,
        stream: CountedStream,
    ) -> Result<TlsStream<CountedStream>, ConnectError> {
        let within = self.settings.connect_timeout;
        let expected = self.settings.tls.server_name.as_ref().unwrap_or(host);
        let name = tls::server_name(expected).map_err(ConnectError::Name)?;
        match timeout(within, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let why = error.explained(expected, &self.settings.tls, tls::Reader::OfForward);
                Err(ConnectError::Tls(expected.clone(), why))
            }
            Err(_) => Err(ConnectError::NoHandshake(expected.clone(), within)),
        }
    }
}

/// The server of a target, `host:port`. `endpoint`: where the target was found, or the proxy in front of it.
pub fn server(target: &Target, endpoint: &Endpoint) -> String {
    let (host, port) = server_of(target, endpoint);
    format!("{host}:{port}")
}

/// The server of a target, host and port.
fn server_of(target: &Target, endpoint: &Endpoint) -> (String, u16) {
    match (&target.proxy, target.address.remote()) {
        (Some(_), Some(Destination::Host(to))) => (to.host.to_string(), to.port),
        _ => (endpoint.host.clone(), endpoint.peer.port()),
    }
}

/// The connector that a forward needs, with its certificates read and its names checked. `None`: no target speaks TLS.
pub fn tls_connector(settings: &config::Forward) -> Result<Option<Connector>, TlsError> {
    let mut speaks_tls = false;
    for target in &settings.to {
        let Some(to) = target.address.remote().filter(|_| target.address.is_tls()) else { continue };
        speaks_tls = true;
        match (&settings.tls.server_name, to) {
            (Some(name), _) => drop(tls::server_name(name)?),
            (None, Destination::Host(_)) => drop(tls::server_name(&to.to_string())?),
            // The SRV records name the hosts later.
            (None, Destination::Service(_)) => {}
        }
    }
    if speaks_tls { tls::connector(&settings.tls).map(Some) } else { Ok(None) }
}
