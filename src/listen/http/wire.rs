//! A connection that hyper and the listener share. The listener checks the first bytes for another protocol, whether the peer is
//! still connected, and how long a head takes.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::stream::accepted::Connection;
use super::super::stream::timer::Timer;
use crate::protocol::foreign::{FirstBytes, Foreign, at_http};

/// A connection. Clones share it.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<Shared>>);

struct Shared {
    connection: Connection,
    first: FirstBytes,
    head: Head,
    /// The timeout of a head, from its first byte on.
    head_timeout: Duration,
    timer: Timer,
    is_broken: bool,
}

/// The state of the current request: what the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// The first byte of a request. A connection may be idle without limit.
    None,
    /// The end of the head.
    Begun,
    /// The end of the answer.
    Read,
    /// Nothing: the head has not ended in time.
    Late,
}

impl Wire {
    pub fn new(connection: Connection, head_timeout: Duration) -> Self {
        let (head, timer) = (Head::None, Timer::default());
        let shared = Shared { connection, first: FirstBytes::default(), head, head_timeout, timer, is_broken: false };
        Self(Arc::new(Mutex::new(shared)))
    }

    /// Notes that the head of a request is complete.
    pub fn head_ends(&self) {
        self.0.lock().wait_for(Head::Read);
    }

    /// Notes that the request has ended, and another may follow.
    pub fn request_ends(&self) {
        self.0.lock().wait_for(Head::None);
    }

    /// Whether a head did not end in time.
    pub fn was_late(&self) -> bool {
        self.0.lock().head == Head::Late
    }

    /// Whether the connection broke. Between requests, hyper reports that as an end in good order.
    pub fn is_broken(&self) -> bool {
        self.0.lock().is_broken
    }

    /// The protocol that the peer speaks instead of HTTP, if it was recognized.
    pub fn foreign(&self) -> Option<Foreign> {
        self.0.lock().first.foreign()
    }

    pub fn peer_has_left(&self) -> bool {
        self.0.lock().connection.socket().peer_has_left()
    }

    /// Ready when the peer has closed its side. Bytes that it still sends are discarded.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.lock();
        while shared.connection.poll_take(usize::MAX, cx, |_| {}).map(|end| end.is_none()) == Poll::Ready(true) {}
        // After the loop, only an end is ready.
        shared.connection.poll_take(usize::MAX, cx, |_| {}).map(drop)
    }
}

impl Shared {
    fn wait_for(&mut self, head: Head) {
        self.head = head;
        self.timer.set(None);
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        let before = buffer.filled().len();
        let read = shared.connection.poll_read(cx, buffer);
        shared.is_broken |= matches!(read, Poll::Ready(Err(_)));
        let bytes = &buffer.filled()[before..];
        // hyper would answer another protocol with 400, which drivers of other protocols never read.
        if shared.first.take(bytes, at_http).is_err() {
            return Poll::Ready(Err(ErrorKind::InvalidData.into()));
        }
        if !bytes.is_empty() && shared.head == Head::None {
            shared.head = Head::Begun;
            let until = Instant::now().checked_add(shared.head_timeout);
            shared.timer.set(until);
        }
        if read.is_pending() && shared.timer.poll(cx).is_ready() {
            shared.head = Head::Late;
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().connection.poll_write(cx, bytes)?.map(Ok)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().connection.poll_flush(cx)?.map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        // Drivers of other protocols notice only a reset.
        if shared.first.foreign().is_some() {
            shared.connection.socket().reset_on_close();
            return Poll::Ready(Ok(()));
        }
        shared.connection.poll_shutdown(cx)
    }
}
