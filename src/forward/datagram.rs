//! The UDP link: each line one datagram (RFC 5426). What was sent is retired; nobody can know more.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use tokio::net::UdpSocket;

use super::encode::Encoding;
use super::filtered_chunk::FilteredChunk;
use super::link::{Ended, Events};
use super::source::Source;
use crate::spool::Position;

/// The most a datagram carries over IPv6 (65,535 − 40 − 8); over IPv4 it would be 20 bytes more. Longer lines are cut at
/// their end (RFC 5424 6.1).
const MAX_DATAGRAM: usize = 65_535 - 40 - 8;

pub struct DatagramLink {
    socket: UdpSocket,
    encoding: Encoding,
}

impl DatagramLink {
    pub async fn connect(peer: SocketAddr, encoding: Encoding) -> io::Result<Self> {
        let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        // Connected, so that an ICMP "port unreachable" comes back as an error and the name is asked again.
        socket.connect(peer).await?;
        Ok(Self { socket, encoding })
    }

    pub async fn carry(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        loop {
            if let Some(lines) = source.next().await {
                let mut reached = None;
                let sent = tokio::select! {
                    sent = self.send(&lines, &mut reached) => Some(sent),
                    () = events.deadline.reached() => None,
                };
                // Of a chunk that failed in the middle, only the rest is sent again.
                reached.into_iter().for_each(|reached| source.retire(reached));
                match sent {
                    Some(Ok(())) => {}
                    Some(Err(error)) => return Ended::Failed(error.into()),
                    None => return Ended::Stopped,
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

    /// `reached`: the position behind the last line that was sent, and what is not wanted behind it.
    async fn send(&self, lines: &FilteredChunk, reached: &mut Option<Position>) -> io::Result<()> {
        let (mut datagram, mut scratch) = (Vec::new(), Vec::new());
        for (line, behind) in lines.lines() {
            datagram.clear();
            self.encoding.append(line, &mut scratch, &mut datagram);
            datagram.truncate(MAX_DATAGRAM);
            match self.socket.send(&datagram).await {
                // A host with smaller buffers than datagrams may be. It will not take this line at the next try either.
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {}
                sent => drop(sent?),
            }
            *reached = Some(behind);
        }
        *reached = Some(lines.end());
        Ok(())
    }
}
