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

/// Positions on the wire: which of them the peer has reached.
#[derive(Debug, Default)]
pub struct Unacknowledged {
    /// Ascending: the wire's byte count after a batch was flushed, and where in the spool that batch ends.
    marks: VecDeque<(u64, Position)>,
}

impl Unacknowledged {
    pub fn push(&mut self, wire_bytes: u64, position: Position) {
        self.marks.push_back((wire_bytes, position));
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The furthest position that `acknowledged` bytes cover; it and all before it are forgotten.
    pub fn reached(&mut self, acknowledged: u64) -> Option<Position> {
        let mut furthest = None;
        while let Some((_, position)) = self.marks.front().filter(|(wire_bytes, _)| *wire_bytes <= acknowledged) {
            furthest = Some(*position);
            self.marks.pop_front();
        }
        furthest
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

    #[test]
    fn only_whole_batches_are_reached() {
        let mut marks = Unacknowledged::default();
        marks.push(100, at(1));
        marks.push(200, at(2));
        marks.push(300, at(3));
        assert_eq!(marks.reached(99), None);
        assert_eq!(marks.reached(250), Some(at(2)));
        assert_eq!(marks.reached(250), None);
        assert!(!marks.is_empty());
        assert_eq!(marks.reached(300), Some(at(3)));
        assert!(marks.is_empty());
    }
}
