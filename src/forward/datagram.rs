//! The UDP link: each line one datagram (RFC 5426). What was sent is retired; nobody can know more.

use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::source::{Outbox, Source, pause_after_read_error};
use super::{Ended, Events};

/// The most a datagram carries over IPv4 (65,535 − 20 − 8); over IPv6 20 bytes less. Longer lines are cut at their end
/// (RFC 5424 6.1).
const LONGEST_DATAGRAM: usize = 65_535 - 40 - 8;

pub struct DatagramLink {
    socket: UdpSocket,
    peer: SocketAddr,
}

impl DatagramLink {
    pub async fn connect(peer: SocketAddr) -> std::io::Result<Self> {
        let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        // Connected, so that an ICMP "port unreachable" comes back as an error and the name is asked again.
        socket.connect(peer).await?;
        Ok(Self { socket, peer })
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub async fn carry(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        let mut outbox = Outbox::default();
        loop {
            if let Err(error) = source.fill(&mut outbox) {
                tracing::error!("spool: cannot read: {error}; trying again");
                pause_after_read_error().await;
                continue;
            }
            if let Some(reaches) = outbox.reaches {
                tokio::select! {
                    sent = send_all(&self.socket, &outbox) => match sent {
                        Ok(()) => source.retire(reaches),
                        Err(error) => return Ended::Broken(error.to_string()),
                    },
                    () = events.deadline.reached() => return Ended::Stopped,
                }
                // A busy spool must not keep a moved name waiting.
                if let Some(moved) = events.moved_by_now().await {
                    return Ended::Moved(moved);
                }
                continue;
            }
            tokio::select! {
                more = source.wait() => if !more { return Ended::Stopped },
                moved = &mut events.moved => return Ended::Moved(moved),
                () = events.deadline.reached() => return Ended::Stopped,
            }
        }
    }
}

async fn send_all(socket: &UdpSocket, outbox: &Outbox) -> std::io::Result<()> {
    let mut start = 0;
    for end in &outbox.ends {
        let line = &outbox.bytes[start..*end];
        socket.send(&line[..line.len().min(LONGEST_DATAGRAM)]).await?;
        start = *end;
    }
    Ok(())
}
