//! Heartbeats by UDP, which Fluentd sends with `heartbeat_type udp`, once a second and to the port of its receiver: a byte, and a byte
//! back. Without an answer it takes the receiver for dead, and sends it nothing by TCP either.
//!
//! Nobody can make much of it: an answer is as short as what was asked, and there are so many in a second and no more.

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
/// Datagrams that are looked at in a second. A sender sends one.
const AT_MOST: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);
/// How long to wait after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers where a listener listens by TCP, as long as it speaks the Forward protocol.
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

/// Answers until the relay stops, or the listener speaks something else.
async fn answer_on(socket: &UdpSocket, rules: &mut watch::Receiver<Arc<Rules>>, shutdown: &mut watch::Receiver<bool>) {
    let own_port = socket.local_addr().map_or(0, |own| own.port());
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        // One byte more, to see that there is more.
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
            // What comes from such a port may be an answer: two relays must not answer each other for ever.
            Ok((1, from)) if from.port() != own_port => {
                let rules = rules.borrow().clone();
                if !rules.limits.lets_in(from.ip()) {
                    rules.refusals.refuse(Some(from.ip()), &RefusalReason::Allow);
                } else {
                    // One that finds no room is lost, as any datagram may be.
                    let _ = socket.try_send_to(&ANSWER, from);
                }
            }
            Ok(_) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}
