//! The UDP link: each line is one datagram (RFC 5426), or one GELF message in one or several datagrams. UDP has no acknowledgements, so a
//! line is retired when it is sent.

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

/// Bytes of the longest datagram (65,535 − 40 − 8). It is within the limits of IPv4 (65,507) and IPv6 (65,527). Longer lines are truncated
/// at their end (RFC 5424 6.1).
const MAX_DATAGRAM: usize = 65_535 - 40 - 8;
/// Why a GELF message is not sent.
const TOO_LONG: &str =
    "it takes more datagrams than a message of GELF may have (128); raise `max-datagram`, or take gelf+tcp://";

pub struct DatagramLink {
    socket: UdpSocket,
    encoding: Encoding,
    /// How GELF messages are sent; `None`: the link sends syslog.
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
                // When a chunk fails in the middle, only the rest is sent again.
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
                // A spool that always has lines must not delay the move to another place.
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

    /// `progress` gets the position behind the last line that was sent, and the lines that are too long to send.
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
            // The datagram is larger than this host's buffers allow. Another attempt would fail too, so the line is dropped.
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// The datagrams of a message. `None`: it needs too many.
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
