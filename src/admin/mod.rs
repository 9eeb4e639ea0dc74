//! What an operator may ask a running relay over HTTP: `/metrics`, `/live`, `/ready`. Answers only; nothing here changes
//! anything.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// Requests answered at once; a scraper that comes when all are taken waits its turn.
const MAX_CONNECTIONS: usize = 16;
/// A connection that has not said what it wants by then is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// After an accept that failed: descriptors may run out, and a busy loop frees none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// A bound admin port.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Arc<Metrics>,
}

pub fn bind(address: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Admin> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok(Admin { listener, address, metrics })
}

impl Admin {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!("admin: {}: {error}", self.address),
        };
        tracing::info!("admin: http://{}/metrics", self.address);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let metrics = self.metrics.clone();
            tokio::spawn(async move {
                let answers = service_fn(move |request| std::future::ready(answer(&request, &metrics)));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), answers);
                // Whoever hangs up early has had what it wanted.
                let _ = connection.await;
                drop(place);
            });
        }
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, OPENMETRICS, metrics.encode()),
        // Answering at all is being alive; listeners are bound and the spool is open before this port answers.
        (&Method::GET | &Method::HEAD, "/live" | "/ready") => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, PLAIN, "try /metrics, /live or /ready\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
