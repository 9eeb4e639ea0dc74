//! From a target to a connection: what is known about its name, every address of it, TLS.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::delivery::Delivery;
use super::driver::{Failure, StreamLink};
use super::encode::{Encoding, encoding};
use super::link::Link;
use super::log_limiter::LogLimiter;
use super::names::{Answer, Endpoint, Patience, ResolveError, Resolver};
use super::tcp::{self, CountedStream, Stream};
use crate::config::{self, Destination, Target};
use crate::metrics::ForwardMetrics;
use crate::status::SharedForwardStatus;
use crate::tls::{self, TlsError};

/// Why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot resolve {0}: {1}")]
    Resolve(Destination, ResolveError),
    /// Each endpoint that was tried, and why it is not connected.
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
    /// The name that was expected, and what is wrong, for a person.
    #[error("TLS with {0}: {1}")]
    Tls(String, String),
    #[error("TLS with {0}: no handshake within {1:?}")]
    NoHandshake(String, Duration),
    #[error(transparent)]
    Opening(#[from] Failure),
    #[error("no answer to RELP's open within {0:?}; is that a RELP port? Plain syslog is tcp://")]
    NoRelpAnswer(Duration),
    #[error("it is on this machine")]
    Local,
}

fn in_one_line(problems: &[(SocketAddr, ConnectError)]) -> String {
    problems.iter().map(|(peer, problem)| format!("{peer}: {problem}")).collect::<Vec<_>>().join("; ")
}

/// Cheap to clone, so that a new connection can be made beside one that carries.
#[derive(Clone)]
pub struct Dialer {
    pub settings: Arc<config::Forward>,
    pub limiter: Arc<LogLimiter>,
    resolver: Resolver,
    /// Replaced when certificates are read again.
    connectors: watch::Receiver<Option<TlsConnector>>,
    /// The SD-ID under which image, name and ID are found in a line.
    sd_id: String,
    /// The name under which the lines are numbered, for a collector that keeps such numbers.
    pub stream: String,
    metrics: ForwardMetrics,
    pub state: SharedForwardStatus,
    /// The last answer for each target, for when there is none. No more than there are targets.
    last_good: Arc<Mutex<HashMap<Destination, Answer>>>,
}

impl Dialer {
    pub fn new(
        settings: Arc<config::Forward>,
        resolver: Resolver,
        connectors: watch::Receiver<Option<TlsConnector>>,
        sd_id: &str,
        stream: String,
        (metrics, state, limiter): (ForwardMetrics, SharedForwardStatus, Arc<LogLimiter>),
    ) -> Self {
        let (sd_id, last_good) = (sd_id.to_owned(), Arc::default());
        Self { settings, limiter, resolver, connectors, sd_id, stream, metrics, state, last_good }
    }

    /// How lines are written to a target.
    pub fn encoding(&self, target: &Target) -> Encoding {
        encoding(&self.settings, target, &self.sd_id)
    }

    /// Where a target is by what name servers say now.
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

    /// Where a target is; what cannot be looked up keeps its last good answer: stale is better than none.
    pub async fn look_up_or_remember(&self, to: &Destination) -> Result<Answer, DialError> {
        let looked_up = self.look_up(to, Patience::OneFamily).await;
        let last_good = self.last_good.lock();
        last_good.get(to).cloned().map_or(looked_up, Ok)
    }

    /// The first of a target's endpoints that can be connected. The connection may stand still for as long as `patience`.
    pub async fn connect_any<'e>(
        &self,
        target: &Target,
        endpoints: impl Iterator<Item = &'e Endpoint>,
        patience: Duration,
    ) -> Result<(Link, Endpoint), DialError> {
        let mut problems = Vec::new();
        for endpoint in endpoints {
            match Link::connect(self, target, endpoint, patience).await {
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
    pub async fn connect_stream(
        &self,
        target: &Target,
        endpoint: &Endpoint,
        patience: Duration,
    ) -> Result<Stream, ConnectError> {
        let within = self.settings.connect_timeout;
        let stream = tcp::connect(endpoint.peer, within, patience).await?;
        let connector = self.connectors.borrow().clone().filter(|_| target.address.is_tls());
        match connector {
            Some(connector) => Ok(Stream::Tls(Box::new(self.secure(&connector, endpoint, stream).await?))),
            None => Ok(Stream::Tcp(stream)),
        }
    }

    /// A link over which lines may be sent.
    pub async fn open(&self, endpoint: &Endpoint, stream: Stream, delivery: Delivery) -> Result<Link, ConnectError> {
        let within = self.settings.connect_timeout;
        let mut link = StreamLink::new(stream, endpoint.peer, delivery, self.settings.dead_after);
        match timeout(within, link.open()).await {
            Ok(Ok(())) => Ok(Link::Stream(Box::new(link))),
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => Err(ConnectError::NoRelpAnswer(within)),
        }
    }

    async fn secure(
        &self,
        connector: &TlsConnector,
        endpoint: &Endpoint,
        stream: CountedStream,
    ) -> Result<TlsStream<CountedStream>, ConnectError> {
        let within = self.settings.connect_timeout;
        let expected = self.settings.tls.server_name.as_ref().unwrap_or(&endpoint.host);
        let name = tls::server_name(expected).map_err(ConnectError::Name)?;
        match timeout(within, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(ConnectError::Tls(expected.clone(), tls::explained(&error, &self.settings.tls))),
            Err(_) => Err(ConnectError::NoHandshake(expected.clone(), within)),
        }
    }
}

/// The connector a forward needs, with its certificates read and its names looked at: `None` when no target speaks TLS.
pub fn tls_connector(settings: &config::Forward) -> Result<Option<TlsConnector>, TlsError> {
    let mut speaks_tls = false;
    for target in &settings.to {
        let Some(to) = target.address.remote().filter(|_| target.address.is_tls()) else { continue };
        speaks_tls = true;
        match (&settings.tls.server_name, to) {
            (Some(name), _) => drop(tls::server_name(name)?),
            (None, Destination::Host(_)) => drop(tls::server_name(&to.to_string())?),
            // Its hosts are not known yet.
            (None, Destination::Service(_)) => {}
        }
    }
    if speaks_tls { tls::connector(&settings.tls).map(Some) } else { Ok(None) }
}
