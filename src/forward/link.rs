//! A link carries lines to one place by one protocol, and listens to events meanwhile.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Deadline;
use super::datagram::DatagramLink;
use super::delivery::{Delivery, FluentDelivery, RelpDelivery, SyslogDelivery};
use super::dial::{ConnectError, Dialer};
use super::driver::{Failure, StreamLink};
use super::file::FileLink;
use super::http::HttpLink;
use super::names::Endpoint;
use super::nats;
use super::source::Source;
use super::stall::Standstill;
use super::target_watch::Leave;
use super::tcp::Replay;
use crate::config::{DeliverySettings, Target};
use crate::protocol::fluent::{Greeting, Packer};
use crate::tasks::spawn_blocking;

/// The closed set of ways to a place.
pub enum Link {
    /// TCP, TLS, RELP, NATS and the Forward protocol.
    Stream(Box<StreamLink>),
    /// UDP.
    Datagram(DatagramLink),
    /// Requests to log stores.
    Http(Box<HttpLink>),
    /// Files and stdout.
    File(FileLink),
}

/// A link, and where it leads to.
pub struct Connected {
    pub link: Link,
    pub place: Place,
}

#[derive(Clone)]
pub struct Place {
    /// The index of the forward's target. `0 <= target < to.len()`
    pub target: usize,
    /// The address on the network; `None`: this machine.
    pub endpoint: Option<Endpoint>,
    /// How long the look-up that found the place is valid.
    pub ttl: Duration,
}

/// Why a link stopped carrying.
pub enum Ended {
    /// The relay is stopping, and the collector has everything or time is up.
    Stopped,
    Left(Leave),
    Failed(Failure),
}

/// What a link listens to besides its own connection.
pub struct Events {
    pub leave: Pin<Box<dyn Future<Output = Leave> + Send>>,
    /// The link notifies it when it stalls, and again each time the stall has lasted long enough.
    pub stalled: Arc<Notify>,
    pub deadline: Deadline,
}

impl Link {
    /// Connects to one endpoint of a target. `limits`: when the connection is given up.
    pub async fn connect(
        dialer: &Dialer,
        target: &Target,
        endpoint: &Endpoint,
        limits: Standstill,
    ) -> Result<Self, ConnectError> {
        if let Some(listener) = dialer.loops.own_listener(endpoint.peer, target.address.is_udp()) {
            return Err(ConnectError::OwnListener(listener));
        }
        let encoding = dialer.encoding(target);
        match &target.delivery {
            DeliverySettings::Datagram => {
                Ok(Self::Datagram(DatagramLink::connect(endpoint.peer, (encoding, None)).await?))
            }
            DeliverySettings::GelfDatagram(settings) => {
                let form = (encoding, Some(settings.clone()));
                Ok(Self::Datagram(DatagramLink::connect(endpoint.peer, form).await?))
            }
            DeliverySettings::Stream(settings) => {
                let stream = dialer.connect_stream(target, endpoint).await?;
                let replay = Replay { bytes: settings.replay, time: settings.replay_for, limit: settings.replay_limit };
                let delivery = SyslogDelivery::new(encoding, replay, Instant::now());
                dialer.open(endpoint, stream, Delivery::Syslog(Box::new(delivery)), limits).await
            }
            DeliverySettings::Relp(settings) => {
                let stream = dialer.connect_stream(target, endpoint).await?;
                let waits = (settings.window, limits.silent);
                let delivery = RelpDelivery::new(encoding, dialer.numbering.clone(), waits, Instant::now());
                dialer.open(endpoint, stream, Delivery::Relp(Box::new(delivery)), limits).await
            }
            DeliverySettings::Nats(settings) => nats::connect(dialer, target, settings, endpoint, limits).await,
            DeliverySettings::Fluent(settings) => {
                let read = {
                    let settings = settings.clone();
                    spawn_blocking(move || settings.credentials())
                };
                let greeting = read.await.map_err(io::Error::other).and_then(|read| read.map_err(io::Error::other))?;
                let greeting = greeting.map(|credentials| Greeting::new(credentials, rand::random()));
                let stream = dialer.connect_stream(target, endpoint).await?;
                let stream_id = dialer.numbering.stream.clone();
                let packer = Packer::new(settings.tag.clone(), dialer.sd_id().to_owned(), stream_id);
                let waits = (settings.batch, limits.silent);
                let delivery = FluentDelivery::new(packer, greeting, waits, Instant::now());
                dialer.open(endpoint, stream, Delivery::Fluent(Box::new(delivery)), limits).await
            }
            DeliverySettings::Http(settings) => {
                Ok(Self::Http(Box::new(HttpLink::connect(dialer, (target, settings), endpoint).await?)))
            }
            DeliverySettings::File(_) | DeliverySettings::Stdout => Err(ConnectError::Local),
        }
    }

    /// Carries lines until the link ends. Also returns the connection that the caller has to close in good order, if there is one.
    pub async fn carry(self, source: &mut Source, events: &mut Events) -> (Ended, Option<Box<StreamLink>>) {
        match self {
            Self::Stream(mut link) => (link.carry(source, events).await, Some(link)),
            Self::Datagram(mut link) => (link.carry(source, events).await, None),
            Self::Http(mut link) => (link.carry(source, events).await, None),
            Self::File(link) => (link.carry(source, events).await, None),
        }
    }

    /// Waits until the other side ends a connection over which nothing was sent. Datagrams and files never end.
    pub async fn ends(&mut self) {
        match self {
            Self::Stream(link) => link.ends().await,
            Self::Http(link) => link.ends().await,
            Self::Datagram(_) | Self::File(_) => std::future::pending().await,
        }
    }
}

impl Events {
    /// Why to leave now, if there is a reason already. Does not wait.
    pub async fn leave_by_now(&mut self) -> Option<Leave> {
        tokio::select! {
            biased;
            leave = &mut self.leave => Some(leave),
            () = std::future::ready(()) => None,
        }
    }
}

impl Place {
    /// The place as text for a person. `target`: the place's name in the config.
    pub fn of(&self, target: &Target) -> String {
        self.endpoint.as_ref().map_or_else(|| target.to_string(), |endpoint| format!("{target} at {}", endpoint.peer))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(f, "{}", endpoint.peer),
            None => f.write_str("this machine"),
        }
    }
}
