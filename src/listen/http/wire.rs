//! A connection as hyper has it, and as we do: what the peer said first, whether it is still there, how long it may take for a head.

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
    /// How long a head may take, from its first byte on.
    head_timeout: Duration,
    timer: Timer,
    is_broken: bool,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// The first byte of a request. A connection may be idle for as long as it likes.
    None,
    /// The end of its head.
    Begun,
    /// The end of an answer.
    Read,
    /// Nothing more: the head has not ended in time.
    Late,
}

impl Wire {
    pub fn new(connection: Connection, head_timeout: Duration) -> Self {
        let (head, timer) = (Head::None, Timer::default());
        let shared = Shared { connection, first: FirstBytes::default(), head, head_timeout, timer, is_broken: false };
        Self(Arc::new(Mutex::new(shared)))
    }

    /// The head of a request is there.
    pub fn head_ends(&self) {
        self.0.lock().wait_for(Head::Read);
    }

    /// What comes next is another request.
    pub fn request_ends(&self) {
        self.0.lock().wait_for(Head::None);
    }

    /// Whether a head did not end in time.
    pub fn was_late(&self) -> bool {
        self.0.lock().head == Head::Late
    }

    /// Whether the connection broke, which hyper takes for an end where no request has begun.
    pub fn is_broken(&self) -> bool {
        self.0.lock().is_broken
    }

    /// What the peer speaks instead of HTTP, where that is known.
    pub fn foreign(&self) -> Option<Foreign> {
        self.0.lock().first.foreign()
    }

    pub fn peer_has_left(&self) -> bool {
        self.0.lock().connection.socket().peer_has_left()
    }

    /// Ready when the peer has closed its side. What it still sends is thrown away.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.lock();
        while shared.connection.poll_take(usize::MAX, cx, |_| {}).map(|end| end.is_none()) == Poll::Ready(true) {}
        // Only an end is ready and no bytes.
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
        // hyper would answer it with 400, which drivers of other protocols never read.
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
        // Drivers of other protocols notice nothing but a reset.
        if shared.first.foreign().is_some() {
            shared.connection.socket().reset_on_close();
            return Poll::Ready(Ok(()));
        }
        shared.connection.poll_shutdown(cx)
    }
}
