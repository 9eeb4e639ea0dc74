//! What an operator may ask a running relay over HTTP: a status page at `/`, the same as JSON at `/status`, `/metrics`,
//! `/live` and `/ready`. Answers only; nothing here changes anything.

mod address_file;
mod draw;
mod history;
mod host;
mod page;
mod status;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::spool::{self, Prober};
use crate::status::StatusRegistry;
use address_file::AddressFile;
use history::History;
use status::Status;

/// Requests that read the spool, answered at once; one more waits its turn. What needs no disk takes none, so that it is
/// answered whatever the disk does; nor does `/ready`, whose askers share one probe.
const MAX_ANSWERING: usize = 16;
/// Connections open at once; for one more, the one goes that has said nothing for the longest.
const MAX_CONNECTIONS: usize = 512;
/// Bytes of a request's head, so that those who never end theirs cannot make us hold much.
const LONGEST_HEAD: usize = 16 * 1024;
/// A connection that has not said what it wants by then is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// And one that has not read its answer by then: who reads slowly must not keep a connection for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// After an accept that failed: descriptors may run out, and a busy loop frees none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// A bound admin port.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    address_file: Option<PathBuf>,
}

/// Where the answers come from.
pub struct Sources {
    pub metrics: Arc<Metrics>,
    pub registry: Arc<StatusRegistry>,
    pub spool: spool::Handle,
    pub prober: Prober,
}

/// Everything an answer is made of.
struct Look {
    sources: Sources,
    history: History,
    started: Instant,
    /// One at a time reads the spool.
    reading: Arc<Semaphore>,
}

/// What is said to a request.
struct Answer {
    status: StatusCode,
    kind: &'static str,
    text: String,
}

/// `address_file`: where the real address is written when this answers.
pub fn bind(address: SocketAddr, address_file: Option<PathBuf>) -> io::Result<Admin> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok(Admin { listener, address, address_file })
}

impl Admin {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(self, sources: Sources) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!("admin: {}: {error}", self.address),
        };
        tracing::info!("admin: the status page is http://{}/", self.address);
        let _written = self.address_file.map(|path| AddressFile::write(path, self.address));
        let reading = Arc::new(Semaphore::new(1));
        let look = Arc::new(Look { sources, history: History::default(), started: Instant::now(), reading });
        tokio::join!(look.history.watch(&look.sources.metrics), accept(&listener, &look));
    }
}

async fn accept(listener: &tokio::net::TcpListener, look: &Arc<Look>) {
    let (room, turns) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(Semaphore::new(MAX_ANSWERING)));
    // Oldest first, and whether they have asked by now.
    let mut silent: VecDeque<(Arc<AtomicBool>, JoinHandle<()>)> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        silent.retain(|(asked, task)| !asked.load(Ordering::Relaxed) && !task.is_finished());
        if room.available_permits() == 0
            && let Some((_, oldest)) = silent.pop_front()
        {
            oldest.abort();
        }
        let Ok(place) = room.clone().acquire_owned().await else { return };
        // Weak: a connection that lingers must not keep the spool of a relay that has stopped.
        let (look, turns) = (Arc::downgrade(look), turns.clone());
        let asked = Arc::new(AtomicBool::new(false));
        let asks = asked.clone();
        let task = tokio::spawn(async move {
            let answers = service_fn(move |request| {
                asks.store(true, Ordering::Relaxed);
                respond(request, turns.clone(), look.clone())
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(LONGEST_HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answers);
            // Whoever hangs up early has had what it wanted.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
        silent.push_back((asked, task));
    }
}

/// Called when the head of the request is there.
async fn respond(
    request: Request<Incoming>,
    turns: Arc<Semaphore>,
    look: Weak<Look>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let turn = match request.uri().path() {
        "/" | "/status" => turns.acquire().await.ok(),
        _ => None,
    };
    let answer = match look.upgrade() {
        Some(look) => answer(&request, &look).await,
        None => Answer::plain(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping\n"),
    };
    drop(turn);
    let mut response = Response::new(Full::new(Bytes::from(answer.text)));
    *response.status_mut() = answer.status;
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, answer.kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, page::POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("our own headers are printable ASCII");
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

async fn answer(request: &Request<Incoming>, look: &Look) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Answer::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let path = request.uri().path();
    if matches!(path, "/" | "/status") && !host::may_ask(request, &look.sources.registry.topology().hostname) {
        return Answer::plain(StatusCode::MISDIRECTED_REQUEST, host::NOT_BY_THIS_NAME);
    }
    let ok = |kind, text| Answer { status: StatusCode::OK, kind, text };
    match path {
        "/" => ok(HTML, page::render(&Status::take(look).await)),
        "/status" => ok(JSON, Status::take(look).await.to_json()),
        "/metrics" => ok(OPENMETRICS, look.sources.metrics.encode()),
        // Answering at all is being alive.
        "/live" => Answer::plain(StatusCode::OK, "ok\n"),
        // Listeners are bound before this port answers. That a collector is away is what the spool is for, and no reason
        // to send nothing here; that nothing can be spooled is.
        "/ready" => match look.sources.prober.ask().await {
            Ok(()) => Answer::plain(StatusCode::OK, "ok\n"),
            Err(why) => Answer::plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => Answer::plain(StatusCode::NOT_FOUND, "try /, /status, /metrics, /live or /ready\n"),
    }
}

impl Answer {
    fn plain(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, kind: PLAIN, text: text.into() }
    }
}
