//! What the peer's kernel has acknowledged on a TCP connection, in bytes on the wire and in positions of the spool.
//!
//! `write()` returning says that bytes are in our own kernel. `SIOCOUTQ` says how many of them the peer has not
//! acknowledged: written minus that is what it has. It stays readable after the connection broke, as long as the file
//! descriptor is open; a FIN of ours counts as one byte, so it is read before closing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::spool::Position;

mod ioctl {
    // linux/sockios.h: SIOCOUTQ is TIOCOUTQ.
    nix::ioctl_read_bad!(siocoutq, nix::libc::TIOCOUTQ, nix::libc::c_int);
}

/// A TCP stream that counts the bytes it handed to the kernel. Under TLS these are ciphertext, handshake included.
pub struct Wire {
    stream: TcpStream,
    written: u64,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, written: 0 }
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    /// Closing it will throw away what is unsent, and tell the peer that something is missing.
    pub fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Bytes the peer's kernel has acknowledged since the connection was made.
    pub fn acknowledged(&self) -> io::Result<u64> {
        Ok(self.written.saturating_sub(unacknowledged(std::os::fd::AsFd::as_fd(&self.stream))?))
    }
}

fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: nix::libc::c_int = 0;
    // SAFETY: the descriptor is borrowed from an open socket for the call, and SIOCOUTQ writes one int to the pointer.
    unsafe { ioctl::siocoutq(socket.as_raw_fd(), &mut bytes) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// How long the last acknowledged lines are kept, so that they can be sent again. A collector that reads has read them
/// by then; one that is just dying takes with it what its kernel acknowledged and its program had not read.
pub const REPLAY_FOR: Duration = Duration::from_secs(1);

/// What was sent on a connection and may be needed again: not acknowledged yet, or only just.
#[derive(Debug)]
pub struct InFlight {
    /// Ascending in every field.
    marks: VecDeque<Mark>,
    /// The replay window: of what is acknowledged, the last so many bytes on the wire are kept, for [`REPLAY_FOR`].
    replay: u64,
    /// When the connection was made. What it acknowledges in its first moment is kept whole: a proxy without a backend
    /// takes a buffer full and hangs up, and does so again and again.
    born: Instant,
}

/// The end of a batch.
#[derive(Debug)]
struct Mark {
    /// The wire's byte count after the batch was flushed.
    wire_bytes: u64,
    /// Where in the spool it ends.
    position: Position,
    /// When its acknowledgement was seen; `None`: not yet.
    acknowledged: Option<Instant>,
}

impl InFlight {
    pub fn new(replay: u64, born: Instant) -> Self {
        Self { marks: VecDeque::new(), replay, born }
    }

    /// A batch was flushed: the wire's count now, and where in the spool the batch ends.
    pub fn push(&mut self, wire_bytes: u64, position: Position) {
        self.marks.push_back(Mark { wire_bytes, position, acknowledged: None });
    }

    /// Nothing is kept, for whatever reason.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Everything is acknowledged, though some of it may still be kept.
    pub fn is_acknowledged(&self) -> bool {
        self.marks.back().is_none_or(|mark| mark.acknowledged.is_some())
    }

    /// The furthest position that is safe when the peer has acknowledged `bytes`; it and all before it are forgotten.
    pub fn safe(&mut self, bytes: u64, now: Instant) -> Option<Position> {
        let unseen = self.marks.partition_point(|mark| mark.acknowledged.is_some());
        for mark in self.marks.range_mut(unseen..).take_while(|mark| mark.wire_bytes <= bytes) {
            mark.acknowledged = Some(now);
        }
        let kept = |mark: &Mark| match mark.acknowledged {
            Some(since) => {
                let young = since.duration_since(self.born) < REPLAY_FOR;
                now.duration_since(since) < REPLAY_FOR && (young || mark.wire_bytes + self.replay > bytes)
            }
            None => true,
        };
        let safe = self.marks.iter().take_while(|mark| !kept(mark)).count();
        self.marks.drain(..safe).next_back().map(|mark| mark.position)
    }

    /// The last position of all: for a collector that has read to the end and said so.
    pub fn all(&mut self) -> Option<Position> {
        self.marks.drain(..).next_back().map(|mark| mark.position)
    }

    /// When to look again if nothing else happens: soon while something is not acknowledged, otherwise when the oldest
    /// batch has been kept for long enough. `None`: nothing is kept.
    pub fn look_again(&self, now: Instant, soon: Duration) -> Option<Duration> {
        let oldest = self.marks.front()?;
        match oldest.acknowledged {
            Some(since) if self.is_acknowledged() => Some(REPLAY_FOR.saturating_sub(now.duration_since(since))),
            _ => Some(soon),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.written += *written as u64;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u64) -> Position {
        Position { segment: 1, offset: 0, line }
    }

    /// A connection that has lived for long enough.
    fn grown(replay: u64) -> (InFlight, Instant) {
        let born = Instant::now();
        (InFlight::new(replay, born), born + REPLAY_FOR)
    }

    #[test]
    fn only_whole_batches_are_safe() {
        let (mut sent, now) = grown(0);
        sent.push(100, at(1));
        sent.push(200, at(2));
        sent.push(300, at(3));
        assert_eq!(sent.safe(99, now), None);
        assert_eq!(sent.safe(250, now), Some(at(2)));
        assert_eq!(sent.safe(250, now), None);
        assert!(!sent.is_acknowledged());
        assert_eq!(sent.safe(300, now), Some(at(3)));
        assert!(sent.is_empty());
    }

    #[test]
    fn the_last_bytes_are_kept_for_a_while() {
        let (mut sent, start) = grown(150);
        sent.push(100, at(1));
        sent.push(200, at(2));
        sent.push(300, at(3));
        // 300 acknowledged: the first batch is 200 bytes back, the others are within the window.
        assert_eq!(sent.safe(300, start), Some(at(1)));
        assert!(sent.is_acknowledged() && !sent.is_empty());
        assert_eq!(sent.look_again(start, Duration::ZERO), Some(REPLAY_FOR));
        assert_eq!(sent.safe(300, start + REPLAY_FOR / 2), None);
        assert_eq!(sent.safe(300, start + REPLAY_FOR), Some(at(3)));
        assert_eq!(sent.look_again(start, Duration::ZERO), None);
    }

    #[test]
    fn a_connection_has_to_live_before_it_is_believed() {
        let born = Instant::now();
        let mut sent = InFlight::new(0, born);
        sent.push(100, at(1));
        assert_eq!(sent.safe(100, born + REPLAY_FOR / 2), None);
        assert_eq!(sent.safe(100, born + REPLAY_FOR), None);
        assert_eq!(sent.safe(100, born + REPLAY_FOR * 3 / 2), Some(at(1)));
        sent.push(200, at(2));
        assert_eq!(sent.safe(200, born + REPLAY_FOR * 3 / 2), Some(at(2)));
    }

    #[test]
    fn a_collector_that_read_to_the_end_has_everything() {
        let (mut sent, now) = grown(1000);
        assert_eq!(sent.all(), None);
        sent.push(100, at(1));
        sent.push(200, at(2));
        assert_eq!(sent.look_again(now, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(sent.all(), Some(at(2)));
        assert!(sent.is_empty());
    }
}
