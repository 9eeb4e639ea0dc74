//! An HTTP/1.1 connection on which the relay is the server: at the admin port and at listeners. hyper is generic over the transport
//! and the service, and its code is large. Both are boxed here, so that the binary contains hyper's code once.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::Receiver;

/// The transport under a connection.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + Any {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Any> Carrier for T {}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("nobody waits for an answer")]
pub struct Unanswered;

pub type Answered = Result<Response<Content>, Unanswered>;

/// The body of an answer.
pub enum Content {
    Whole(Full<Bytes>),
    /// Arrives in chunks over time.
    Live {
        chunks: Receiver<Bytes>,
        /// Dropped when the answer ends, or when the client has left.
        _kept: Box<dyn Send>,
    },
}

impl Content {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Pin::new(bytes).poll_frame(cx),
            Self::Live { chunks, .. } => chunks.poll_recv(cx).map(|chunk| chunk.map(Frame::data).map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        if let Self::Whole(bytes) = self { bytes.is_end_stream() } else { false }
    }

    fn size_hint(&self) -> SizeHint {
        if let Self::Whole(bytes) = self { bytes.size_hint() } else { SizeHint::default() }
    }
}

/// Answers requests.
pub type Answering<'a> = Box<dyn Fn(Request<Incoming>) -> Answer<'a> + Send + 'a>;

type Answer<'a> = Pin<Box<dyn Future<Output = Answered> + Send + 'a>>;

pub struct Requests<'a>(Answering<'a>);

impl<'a> Service<Request<Incoming>> for Requests<'a> {
    type Response = Response<Content>;
    type Error = Unanswered;
    type Future = Answer<'a>;

    fn call(&self, request: Request<Incoming>) -> Answer<'a> {
        (self.0)(request)
    }
}

/// Serves a connection. The future ends when the connection ends.
pub fn serve<'a>(
    how: &Builder,
    carrier: Box<dyn Carrier>,
    answering: Answering<'a>,
) -> Connection<TokioIo<Box<dyn Carrier>>, Requests<'a>> {
    how.serve_connection(TokioIo::new(carrier), Requests(answering))
}
