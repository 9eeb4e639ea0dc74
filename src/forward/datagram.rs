//! The UDP link: each line one datagram (RFC 5426), or one message of GELF in one or several. What was sent is retired; nobody can know
//! more.

use std::io::{self, Write};
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::errno::Errno;
use tokio::net::UdpSocket;

use super::delivery::{Progress, Reason, Rejected};
use super::encode::Encoding;
use super::filtered_chunk::FilteredChunk;
use super::link::{Ended, Events};
use super::source::Source;
use crate::config::GelfSettings;
use crate::protocol::gelf;

/// The most a datagram carries over IPv6 (65,535 − 40 − 8); over IPv4 it would be 20 bytes more. Longer lines are cut at
/// their end (RFC 5424 6.1).
const MAX_DATAGRAM: usize = 65_535 - 40 - 8;
/// Why a message of GELF is not sent.
const TOO_LONG: &str =
    "it takes more datagrams than a message of GELF may have (128); raise `max-datagram`, or take gelf+tcp://";

pub struct DatagramLink {
    socket: UdpSocket,
    encoding: Encoding,
    /// How messages of GELF go; `None`: it is syslog.
    gelf: Option<GelfSettings>,
}

impl DatagramLink {
    pub async fn connect(peer: SocketAddr, (encoding, gelf): (Encoding, Option<GelfSettings>)) -> io::Result<Self> {
        let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        // Connected, so that an ICMP "port unreachable" comes back as an error and the name is asked again.
        socket.connect(peer).await?;
        Ok(Self { socket, encoding, gelf })
    }

    pub async fn carry(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        loop {
            if let Some(lines) = source.next().await {
                let mut progress = Progress::default();
                let sent = tokio::select! {
                    sent = self.send(&lines, &mut progress) => Some(sent),
                    () = events.deadline.reached() => None,
                };
                // Of a chunk that failed in the middle, only the rest is sent again.
                if !progress.is_empty() {
                    progress.delivered = true;
                    tokio::select! {
                        biased;
                        () = source.settle(&mut progress) => {}
                        () = events.deadline.reached() => {}
                    }
                }
                match sent {
                    Some(Ok(())) => {}
                    Some(Err(error)) => return Ended::Failed(error.into()),
                    None => return Ended::Stopped,
                }
                // A busy spool must not keep a moved name waiting.
                if let Some(leave) = events.leave_by_now().await {
                    return Ended::Left(leave);
                }
                continue;
            }
            tokio::select! {
                more = source.wait() => if !more { return Ended::Stopped },
                leave = &mut events.leave => return Ended::Left(leave),
                () = events.deadline.reached() => return Ended::Stopped,
            }
        }
    }

    /// `progress`: the position behind the last line that was sent, and what is not wanted behind it.
    async fn send(&self, lines: &FilteredChunk, progress: &mut Progress) -> io::Result<()> {
        let (mut datagram, mut scratch) = (Vec::new(), Vec::new());
        for (line, behind) in lines.lines() {
            datagram.clear();
            self.encoding.append(line, &mut scratch, &mut datagram);
            match &self.gelf {
                None => {
                    datagram.truncate(MAX_DATAGRAM);
                    self.send_one(&datagram).await?;
                }
                Some(settings) => match in_datagrams(&datagram, settings)? {
                    Some(datagrams) => {
                        for datagram in datagrams {
                            self.send_one(&datagram).await?;
                        }
                    }
                    None => progress.rejected.push_back(Rejected {
                        session: lines.session(),
                        line: behind.line - 1,
                        reason: Reason::TooLarge,
                        why: TOO_LONG.to_owned(),
                        bytes: line.to_vec(),
                    }),
                },
            }
            progress.safe = Some(behind);
        }
        progress.safe = Some(lines.end());
        Ok(())
    }

    async fn send_one(&self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.send(datagram).await {
            // A host with smaller buffers than datagrams may be. It will not take this line at the next try either.
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// The datagrams of a message. `None`: there would be too many.
fn in_datagrams(json: &[u8], settings: &GelfSettings) -> io::Result<Option<Vec<Vec<u8>>>> {
    let payload = if settings.compress {
        let mut encoder = GzEncoder::new(Vec::with_capacity(json.len() / 2), Compression::fast());
        encoder.write_all(json)?;
        encoder.finish()?
    } else {
        json.to_vec()
    };
    Ok(gelf::datagrams(payload, rand::random(), settings.max_datagram))
}
