//! A connection of HTTP/1.1 whose requests we answer, at the admin port and at listeners. hyper is generic in what carries the bytes and
//! in what answers, and large: here both are boxed, so that the binary has one of it.

use std::any::Any;
use std::pin::Pin;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// What carries the bytes.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + Any {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Any> Carrier for T {}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("nobody waits for an answer")]
pub struct Unanswered;

pub type Answered = Result<Response<Full<Bytes>>, Unanswered>;

/// What answers a request.
pub type Answering<'a> = Box<dyn Fn(Request<Incoming>) -> Answer<'a> + Send + 'a>;

type Answer<'a> = Pin<Box<dyn Future<Output = Answered> + Send + 'a>>;

pub struct Requests<'a>(Answering<'a>);

impl<'a> Service<Request<Incoming>> for Requests<'a> {
    type Response = Response<Full<Bytes>>;
    type Error = Unanswered;
    type Future = Answer<'a>;

    fn call(&self, request: Request<Incoming>) -> Answer<'a> {
        (self.0)(request)
    }
}

/// The connection, a future that ends with it.
pub fn serve<'a>(
    how: &Builder,
    carrier: Box<dyn Carrier>,
    answering: Answering<'a>,
) -> Connection<TokioIo<Box<dyn Carrier>>, Requests<'a>> {
    how.serve_connection(TokioIo::new(carrier), Requests(answering))
}
