//! One accepted socket, TCP or unix, plain or with TLS, as a stream of bytes that can be read out to the last byte. This module
//! does not interpret the bytes.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::POLLRDHUP;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Bytes that one read may take. All connections of a thread share one buffer.
const SCRATCH: usize = 64 * 1024;
thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed the connection in good order.
    Clean,
    /// The connection broke, or TLS ended without close_notify, which an attacker on the path can cause.
    Broken,
}

/// An accepted socket.
pub struct AcceptedSocket {
    socket: StreamSocket,
    held_only: bool,
}

pub enum StreamSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An accepted connection, plain or with TLS.
pub enum Connection {
    Plain(AcceptedSocket),
    /// Boxed, because most connections are plain and should not take its memory.
    Tls(Box<TlsStream<AcceptedSocket>>),
}

impl AcceptedSocket {
    pub fn new(socket: StreamSocket) -> Self {
        Self { socket, held_only: false }
    }

    /// From now on, reads take only what the kernel holds, and "pending" means that the kernel holds nothing more and no wake-up
    /// will come. The runtime cannot tell this: it may not know yet of bytes that are there, and it also answers "pending" when it
    /// is another task's turn.
    pub fn held_only(&mut self) {
        self.held_only = true;
    }

    /// Whether the peer has closed its side or the connection is broken, even if unread bytes come first.
    pub fn peer_has_left(&self) -> bool {
        let fd = match &self.socket {
            StreamSocket::Tcp(socket) => socket.as_fd(),
            StreamSocket::Unix(socket) => socket.as_fd(),
        };
        let mut asked = [PollFd::new(fd, PollFlags::from_bits_retain(POLLRDHUP))];
        // An error counts as "no"; the caller asks again later.
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Sends answers when they are written (TCP_NODELAY). Otherwise an answer would wait until the sender's kernel has acknowledged
    /// the one before, a round trip later, and the sender would have its lines in flight for twice as long.
    pub fn answer_at_once(&self) {
        if let StreamSocket::Tcp(socket) = &self.socket {
            // An error means that the connection is gone already.
            let _ = socket.set_nodelay(true);
        }
    }

    /// Makes the coming close a reset, which the sender notices at its next write. A unix socket needs none: after a close the next
    /// write fails.
    pub fn reset_on_close(&self) {
        if let StreamSocket::Tcp(socket) = &self.socket {
            // An error means that the connection is gone already.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Peeks at the first byte; `None`: the peer has closed before it sent one.
    pub fn poll_first_byte(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        let mut byte = [0];
        let count = ready!(self.poll_peek(&mut byte, cx))?;
        Poll::Ready(Ok((count > 0).then_some(byte[0])))
    }

    /// Peeks at the next bytes and returns their number; 0: the peer has closed before another one.
    pub fn poll_peek(&self, bytes: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let StreamSocket::Tcp(socket) = &self.socket else {
            unreachable!("only TCP listeners have a certificate, or a proxy in front of them")
        };
        match self.held_only {
            true => held(|| Ok(recv(socket.as_raw_fd(), bytes, MsgFlags::MSG_PEEK)?)),
            false => socket.poll_peek(cx, &mut ReadBuf::new(bytes)),
        }
    }

    /// Takes bytes that [`AcceptedSocket::poll_peek`] has found. They are there, even if the runtime does not know of them.
    pub fn take_held(&self, bytes: &mut [u8]) -> io::Result<()> {
        let StreamSocket::Tcp(socket) = &self.socket else { unreachable!("they were found on TCP") };
        let mut taken = 0;
        while taken < bytes.len() {
            match recv(socket.as_raw_fd(), &mut bytes[taken..], MsgFlags::empty()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => taken += count,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Asks the kernel directly, without the runtime.
fn held<T>(mut ask: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match ask() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncRead for AcceptedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let accepted = self.get_mut();
        if !accepted.held_only {
            return match &mut accepted.socket {
                StreamSocket::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
                StreamSocket::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            };
        }
        let socket = match &accepted.socket {
            StreamSocket::Tcp(socket) => SockRef::from(socket),
            StreamSocket::Unix(socket) => SockRef::from(socket),
        };
        let count = ready!(held(|| (&*socket).read(buffer.initialize_unfilled())))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// TLS and protocols with answers write. A listener writes nothing on its own.
impl AsyncWrite for AcceptedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            StreamSocket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            StreamSocket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

impl Connection {
    pub fn socket(&mut self) -> &mut AcceptedSocket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Ready when there may be something to read. This checks only the socket: bytes that TLS has decrypted must have been taken
    /// before.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error comes again at the next read.
        match &self.socket().socket {
            StreamSocket::Tcp(socket) => socket.poll_read_ready(cx).map(drop),
            StreamSocket::Unix(socket) => socket.poll_read_ready(cx).map(drop),
        }
    }

    /// Takes as many bytes as there are and fit, at most `max`. All connections share the buffer, so no bytes stay in it, and an
    /// idle connection has no buffer.
    pub fn poll_take(&mut self, max: usize, cx: &mut Context<'_>, on_bytes: impl FnOnce(&[u8])) -> Poll<Option<End>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(&mut buffer[..max.min(SCRATCH)]);
            let end = loop {
                let before = buffer.filled().len();
                match self.poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if buffer.filled().len() == before => break Some(End::Clean),
                    Poll::Ready(Ok(())) if buffer.remaining() == 0 => break None,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => break Some(End::Broken),
                    Poll::Pending if before == 0 => return Poll::Pending,
                    Poll::Pending => break None,
                }
            };
            if !buffer.filled().is_empty() {
                on_bytes(buffer.filled());
            }
            Poll::Ready(end)
        })
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<Poll<usize>> {
        let written = match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        };
        transposed(written)
    }

    /// TLS close_notify and FIN.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let flushed = match self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        };
        transposed(flushed)
    }
}

/// Swaps the nesting, so that `?` applies to errors alone.
fn transposed<T>(poll: Poll<io::Result<T>>) -> io::Result<Poll<T>> {
    match poll {
        Poll::Ready(Ok(done)) => Ok(Poll::Ready(done)),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(Poll::Pending),
    }
}
