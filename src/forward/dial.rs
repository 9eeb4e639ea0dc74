//! From a target to a connection: every address of a name, TLS, and what to do when the name moves while a connection
//! stands. Holds nothing that changes, so that a new connection can be made beside one that carries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Link;
use super::acked::{Replay, Wire};
use super::datagram::DatagramLink;
use super::encode::Encoding;
use super::relp::RelpLink;
use super::resolve::{Answer, Patience, Resolver};
use super::stream::{Stream, StreamLink, connect_tcp};
use crate::config::{self, ForwardAddress, Framing, Host, HostPort};
use crate::metrics::ForwardMetrics;
use crate::tls::{self, TlsError};

#[derive(Clone)]
pub struct Dialer {
    settings: Arc<config::Forward>,
    resolver: Resolver,
    tls: Option<TlsConnector>,
    /// The SD-ID under which image, name and ID are found in a line.
    sd_id: String,
    /// The name under which the lines are numbered, for a collector that keeps such numbers.
    stream: String,
    metrics: ForwardMetrics,
}

/// The name points elsewhere, and a connection to there stands.
pub struct Moved {
    pub answer: Answer,
    pub link: Link,
}

impl Dialer {
    /// Reads the certificates.
    pub fn new(
        settings: Arc<config::Forward>,
        resolver: Resolver,
        sd_id: &str,
        stream: String,
        metrics: ForwardMetrics,
    ) -> Result<Self, TlsError> {
        let tls = connector(&settings)?;
        Ok(Self { settings, resolver, tls, sd_id: sd_id.to_owned(), stream, metrics })
    }

    /// How lines are written to a target: the framing that was configured, or the one of its scheme (RFC 5425 knows
    /// octet counting only; datagrams and RELP's frames need none).
    pub fn encoding(&self, target: &ForwardAddress) -> Encoding {
        let framing = match target {
            ForwardAddress::Udp(_) | ForwardAddress::Relp(_) | ForwardAddress::RelpTls(_) => None,
            ForwardAddress::File(_) | ForwardAddress::Stdout => Some(Framing::Newline),
            ForwardAddress::Tls(_) => Some(self.settings.framing.unwrap_or(Framing::OctetCounting)),
            ForwardAddress::Tcp(_) => Some(self.settings.framing.unwrap_or(Framing::Newline)),
        };
        Encoding { format: self.settings.format, framing, sd_id: self.sd_id.clone() }
    }

    /// The addresses of a name.
    pub async fn look_up(&self, name: &str, patience: Patience) -> Result<Answer, String> {
        self.resolver.resolve(name, patience).await.map_err(|error| {
            self.metrics.resolve_failures.inc();
            format!("cannot resolve {name}: {error}")
        })
    }

    /// The first of a target's addresses that can be connected, beginning with the one at `start`.
    pub async fn connect_any(
        &self,
        target: &ForwardAddress,
        to: &HostPort,
        answer: &Answer,
        start: usize,
    ) -> Result<Link, String> {
        let mut problems = Vec::new();
        let (behind, first) = answer.addresses.split_at(start % answer.addresses.len().max(1));
        for address in first.iter().chain(behind) {
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
            let link = DatagramLink::connect(peer, self.encoding(target)).await;
            return link.map(Link::Datagram).map_err(|error| error.to_string());
        }
        let stream = connect_tcp(peer, within, self.settings.dead_after).await.map_err(|error| error.to_string())?;
        let stream = match self.tls.as_ref().filter(|_| target.is_tls()) {
            Some(connector) => Stream::Tls(Box::new(self.secure(connector, to, stream).await?)),
            None => Stream::Tcp(Wire::new(stream)),
        };
        let encoding = self.encoding(target);
        if let ForwardAddress::Relp(_) | ForwardAddress::RelpTls(_) = target {
            let opened = RelpLink::open(stream, peer, encoding, self.stream.clone(), &self.settings);
            let link =
                timeout(within, opened).await.map_err(|_| format!("no answer to RELP's open within {within:?}"))?;
            return link.map(|link| Link::Relp(Box::new(link)));
        }
        let config::Forward { replay: bytes, replay_for: time, replay_limit: limit, .. } = *self.settings;
        Ok(Link::Stream(Box::new(StreamLink::new(stream, peer, encoding, Replay { bytes, time, limit }))))
    }

    async fn secure(
        &self,
        connector: &TlsConnector,
        to: &HostPort,
        stream: TcpStream,
    ) -> Result<TlsStream<Wire>, String> {
        let within = self.settings.connect_timeout;
        let expected = expected_name(&self.settings, to);
        let name = tls::server_name(&expected).map_err(|error| error.to_string())?;
        match timeout(within, connector.connect(name, Wire::new(stream))).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("TLS with {expected}: {error}")),
            Err(_) => Err(format!("TLS with {expected}: no handshake within {within:?}")),
        }
    }

    /// Asks for the name whenever its answer has expired. Ends when `peer` is no longer among its addresses and one of
    /// the new ones is connected: make before break, and the connection that stands carries on all the while.
    pub async fn moved_away(self, target: ForwardAddress, to: HostPort, peer: SocketAddr, mut ttl: Duration) -> Moved {
        let Host::Name(name) = &to.host else { return std::future::pending().await };
        let mut said = String::new();
        loop {
            sleep(ttl).await;
            // A look-up that failed says nothing about where the name points.
            let Ok(answer) = self.look_up(name, Patience::BothFamilies).await else { continue };
            ttl = answer.ttl;
            if !answer.excludes(peer.ip()) {
                continue;
            }
            match self.connect_any(&target, &to, &answer, 0).await {
                Ok(link) => return Moved { answer, link },
                Err(problem) if problem != said => {
                    let forward = &self.settings.name;
                    tracing::warn!(
                        "forward {forward}: {target} no longer points to {peer}, but: {problem}; going on with {peer}"
                    );
                    said = problem;
                }
                Err(_) => {}
            }
        }
    }
}

/// The connector a forward needs, with its certificates read and its names looked at: `None` when no target speaks TLS.
pub fn connector(settings: &config::Forward) -> Result<Option<TlsConnector>, TlsError> {
    let targets = settings.to.iter().filter(|target| target.is_tls());
    let mut names = targets.filter_map(ForwardAddress::remote).map(|to| expected_name(settings, to));
    let Some(first) = names.next() else { return Ok(None) };
    tls::server_name(&first)?;
    names.try_for_each(|name| tls::server_name(&name).map(drop))?;
    tls::connector(&settings.tls).map(Some)
}

/// The name a collector's certificate must carry.
fn expected_name(settings: &config::Forward, to: &HostPort) -> String {
    settings.tls.server_name.clone().unwrap_or_else(|| to.host.to_string())
}
