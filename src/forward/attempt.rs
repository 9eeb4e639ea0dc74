//! One attempt to reach each collector, as a relay does, for `logferry check --connect`: TCP, TLS, RELP's open, NATS' CONNECT, and a
//! goodbye. No line is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::Dialer;
use super::link::Link;
use super::names::{Endpoint, Patience, Resolver};
use crate::config::{self, DeliverySettings, Target};
use crate::sorted::sort_by_key;
use crate::tls::Connector;

/// How long one attempt may take, whatever `connect-timeout` is.
const WITHIN: Duration = Duration::from_secs(30);
/// How long a collector may take to close the connection. With TLS 1.3 a server checks our certificate after the handshake.
const SECOND_THOUGHTS: Duration = Duration::from_millis(500);

/// The outcome of the attempt to reach one endpoint.
pub struct Attempt {
    pub at: SocketAddr,
    /// What the attempt has shown, or why there is no connection.
    pub outcome: Result<&'static str, String>,
}

/// Tries all endpoints of a target at once. `None`: the target is on this machine. An error: its name has no address.
pub async fn attempt(
    settings: Arc<config::Forward>,
    target: Target,
    resolver: Resolver,
    connector: Option<Connector>,
) -> Option<Result<Vec<Attempt>, String>> {
    let to = target.reached_at()?;
    let dialer = Dialer::aside(settings, resolver, connector, "check");
    let answer = match dialer.look_up(to, Patience::BothFamilies).await {
        Ok(answer) => answer,
        Err(error) => return Some(Err(error.to_string())),
    };
    let mut running = JoinSet::new();
    for endpoint in answer.endpoints {
        let (dialer, target) = (dialer.clone(), target.clone());
        running.spawn(async move {
            let outcome = timeout(WITHIN, reach(&dialer, &target, &endpoint)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("it is not connected within {WITHIN:?}")));
            Attempt { at: endpoint.peer, outcome }
        });
    }
    let mut attempts = running.join_all().await;
    sort_by_key(&mut attempts, |attempt| attempt.at);
    Some(Ok(attempts))
}

async fn reach(dialer: &Dialer, target: &Target, endpoint: &Endpoint) -> Result<&'static str, String> {
    let link = Link::connect(dialer, target, endpoint, dialer.standstill(0, 1)).await;
    let mut stream = match link.map_err(|error| error.to_string())? {
        Link::Stream(stream) => stream,
        Link::Http(mut http) => {
            return match http.would_take().await {
                None => Ok("connected. Whether lines are taken there shows only when lines are sent"),
                Some(Ok(())) => Ok("connected; a request without lines is understood there, and the server knows us"),
                Some(Err(why)) => Err(why),
            };
        }
        Link::Datagram(_) | Link::File(_) => {
            return Ok("UDP has no answers; whether anything listens there, `logferry probe` finds out");
        }
    };
    stream.holds(SECOND_THOUGHTS).await.map_err(|failure| failure.to_string())?;
    // A server that takes syslog, or waits for a TLS ClientHello, sends nothing by itself. It would take anything we send for a message.
    Ok(match (&target.delivery, target.address.is_tls()) {
        (DeliverySettings::Relp(_), true) => "connected; TLS and RELP are spoken there",
        (DeliverySettings::Relp(_), false) => "connected; RELP is spoken there",
        (DeliverySettings::Nats(_), _) => {
            "connected; NATS is spoken there, and it knows us. Whether a stream takes the subject shows only when lines are sent"
        }
        (DeliverySettings::Fluent(settings), _) if settings.shared_key.is_some() => {
            "connected; the shared key is known there"
        }
        (DeliverySettings::Fluent(_), _) => {
            "connected. Whether the Forward protocol is spoken there shows only when lines are sent"
        }
        (DeliverySettings::Stream(_), _) if target.address.is_gelf() => {
            "connected. Whether GELF is read there shows only when lines are sent"
        }
        (_, true) => {
            "connected; TLS is spoken there. Whether syslog is read there shows only when lines are sent (`logferry probe`)"
        }
        (_, false) => {
            "connected. Whether syslog is read there, or TLS wanted (tcp+tls://), shows only when lines are sent (`logferry probe`)"
        }
    })
}
