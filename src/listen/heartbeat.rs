//! Answers UDP heartbeats. With `heartbeat_type udp`, Fluentd sends one byte a second to the port of its receiver, and expects one
//! byte back. Without an answer it considers the receiver dead, and sends it nothing by TCP either.
//!
//! Heartbeats are of little use for an attack: an answer is no longer than the request, and the number of answers in a second is
//! limited.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::refusal::RefusalReason;
use super::{Rules, socket, stopping};
use crate::config::{ListenAddress, Protocol};

const ANSWER: [u8; 1] = [0];
/// Datagrams that are read in a second. Each sender sends one.
const AT_MOST: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);
/// The pause after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on the UDP port with the number of the listener's TCP port, as long as the listener speaks the Forward protocol.
pub async fn answer(
    address: ListenAddress,
    mut rules: watch::Receiver<Arc<Rules>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let Some(at) = address.socket_address() else { return };
    let mut said = false;
    loop {
        let is_asked = rules.borrow_and_update().protocol == Protocol::Fluent;
        match is_asked.then(|| bind(at)) {
            Some(Ok(socket)) => answer_on(&socket, &mut rules, &mut shutdown).await,
            Some(Err(error)) if !std::mem::replace(&mut said, true) => {
                warn!("listen: {address}: heartbeats by UDP are not answered, all else is: {error}");
            }
            Some(Err(_)) | None => {}
        }
        tokio::select! {
            biased;
            () = stopping(&mut shutdown) => return,
            Ok(()) = rules.changed() => {}
        }
    }
}

fn bind(at: SocketAddr) -> Result<UdpSocket, socket::BindError> {
    let address: ListenAddress = format!("udp://{at}").parse().expect("an address");
    let (socket, _) = socket::open(&address)?;
    let ready = || -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket.into())
    };
    ready().map_err(|error| socket::BindError::Other(address, "making ready to read", error))
}

/// Answers until the relay stops, or the listener speaks another protocol.
async fn answer_on(socket: &UdpSocket, rules: &mut watch::Receiver<Arc<Rules>>, shutdown: &mut watch::Receiver<bool>) {
    let own_port = socket.local_addr().map_or(0, |own| own.port());
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        // One byte more than a heartbeat has, to detect longer datagrams.
        let mut bytes = [0; 2];
        let received = tokio::select! {
            biased;
            () = stopping(shutdown) => return,
            Ok(()) = rules.changed() => {
                if rules.borrow().protocol == Protocol::Fluent {
                    continue;
                }
                rules.mark_changed();
                return;
            }
            () = sleep_until(since + SECOND), if seen >= AT_MOST => {
                seen = 0;
                continue;
            }
            received = socket.recv_from(&mut bytes), if seen < AT_MOST => received,
        };
        if since.elapsed() >= SECOND {
            (seen, since) = (0, Instant::now());
        }
        seen += 1;
        match received {
            // A datagram from the same port number may be an answer: two relays must not answer each other for ever.
            Ok((1, from)) if from.port() != own_port => {
                let rules = rules.borrow().clone();
                if !rules.limits.lets_in(from.ip()) {
                    rules.refusals.refuse(Some(from.ip()), &RefusalReason::Allow);
                } else {
                    // An answer that finds no room in the socket's buffer is lost, like any datagram.
                    let _ = socket.try_send_to(&ANSWER, from);
                }
            }
            Ok(_) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}
