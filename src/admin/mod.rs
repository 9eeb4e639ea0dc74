//! The admin port: an HTTP server with a status page at `/`, the status as JSON at `/status`, the live tail at `/tail`, the dead
//! letters at `/status/dead-letters`, and `/metrics`, `/live` and `/ready`. It is read-only: no request changes anything.

mod address_file;
mod draw;
mod history;
mod host;
mod letters;
mod page;
mod status;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::ReadyCheck;
use crate::descriptors;
use crate::http::{Answered, Answering, Content};
use crate::metrics::Metrics;
use crate::spool::{self, Prober};
use crate::status::{Mistakes, Part, Standstills, StatusRegistry};
use crate::tasks::{Blocking, spawn, spawn_blocking};
pub use address_file::AddressFile;
use history::History;
use status::Status;
pub use tail::Tail;
use tail::{Filter, Shown, TAIL_TIMEOUT, TailError};

/// Requests at a time for a page that reads the spool. A further one waits for a permit. Other requests take no permit, so that
/// they are answered whatever the disk does. `/ready` takes none either, because all its requests share one probe.
const MAX_SPOOL_REQUESTS: usize = 16;
/// Connections that may be open. A further one closes the oldest connection that has sent no request.
const MAX_CONNECTIONS: usize = 512;
/// The longest head of a request, in bytes. A client that never ends its request must not take more memory.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// A connection closes if it has not sent a request by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection closes by then in any case, because a client that reads slowly must not keep it for ever. For the live tail
/// [`TAIL_TIMEOUT`] is added.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a failed accept: descriptors may have run out, and a busy loop would free none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The timeout of reading the spool for a page.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// The live tail, as a page and as text.
const TAIL: &str = "/tail";
/// The page with the dead letters of all forwards.
const DEAD_LETTERS: &str = "/status/dead-letters";

/// Added to the log entry for a loopback address that cannot be reached from outside the container.
const INSIDE: &str = " inside this container; to reach it from the host, write `[admin] listen = \"0.0.0.0:9514\"` and publish the \
                      port on the host's loopback (`-p 127.0.0.1:9514:9514`)";

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// The bound admin port.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    address_file: Option<PathBuf>,
    /// The address is the container's loopback, not the host's.
    is_in_container: bool,
}

/// The parts of the relay that the answers are made from.
pub struct Sources {
    pub metrics: Arc<Metrics>,
    pub registry: Arc<StatusRegistry>,
    pub spool: spool::Handle,
    pub prober: Prober,
    pub standstills: Standstills,
    pub mistakes: Mistakes,
    /// The SD-ID under which a line has the image, name and ID of its container.
    pub sd_id: String,
    /// The checks that make `/ready` answer 503.
    pub ready: Vec<ReadyCheck>,
    /// `None`: the live tail is off.
    pub tail: Option<Tail>,
}

/// The state that all requests share.
struct RequestContext {
    sources: Sources,
    history: History,
    started: Instant,
    /// One permit: one thread at a time may read the spool's oldest lines and dead letters.
    spool_reads: Arc<Semaphore>,
}

impl RequestContext {
    /// Reads the spool on another thread, one request at a time. `None`: the disk did not answer within [`READ_TIMEOUT`].
    async fn read_spool<T: Send + 'static>(
        &self,
        read: impl FnOnce(&spool::Handle) -> T + Send + 'static,
    ) -> Option<T> {
        let spool = self.sources.spool.clone();
        let result = async {
            let permit = self.spool_reads.clone().acquire_owned().await.ok()?;
            let result = spawn_blocking(move || {
                let result = read(&spool);
                drop(permit);
                result
            });
            result.await.ok()
        };
        timeout(READ_TIMEOUT, result).await.ok().flatten()
    }
}

/// The answer to a request.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    content: Content,
}

/// Connections that the port may have open in a process that may open `limit` files.
pub fn max_connections(limit: usize) -> usize {
    descriptors::admin_connections(MAX_CONNECTIONS, limit)
}

/// Binds the port. The real address is written into `address_file` when the port answers.
pub fn bind(address: SocketAddr, address_file: Option<PathBuf>, in_container: bool) -> io::Result<Admin> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let is_in_container = in_container && address.ip().to_canonical().is_loopback();
    Ok(Admin { listener, address, address_file, is_in_container })
}

impl Admin {
    /// Writes the address into its file, if the config names one. Another thread does this, so that a disk that hangs holds up
    /// nothing else. Must be called inside the runtime.
    pub fn write_address(&mut self) -> Option<Blocking<AddressFile>> {
        let (path, address) = (self.address_file.take()?, self.address);
        Some(spawn_blocking(move || AddressFile::write(path, address)))
    }

    /// Answers requests until the future is dropped.
    pub async fn serve(self, sources: Sources) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!("admin: {}: {error}", self.address),
        };
        let place = if self.is_in_container { INSIDE } else { "" };
        tracing::info!("admin: the status page is http://{}/{place}", self.address);
        let spool_reads = Arc::new(Semaphore::new(1));
        let context =
            Arc::new(RequestContext { sources, history: History::default(), started: Instant::now(), spool_reads });
        tokio::join!(context.history.watch(&context.sources.metrics), accept(&listener, &context));
    }
}

async fn accept(listener: &tokio::net::TcpListener, context: &Arc<RequestContext>) {
    let connections = Arc::new(Semaphore::new(max_connections(descriptors::limit())));
    let spool_requests = Arc::new(Semaphore::new(MAX_SPOOL_REQUESTS));
    // Oldest first. The flag is set when the connection has sent its request.
    let mut idle: VecDeque<(Arc<AtomicBool>, JoinHandle<()>)> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        idle.retain(|(has_request, task)| !has_request.load(Ordering::Relaxed) && !task.is_finished());
        if connections.available_permits() == 0
            && let Some((_, oldest)) = idle.pop_front()
        {
            oldest.abort();
        }
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        // Weak: a lingering connection must not keep the spool of a stopped relay open.
        let (context, spool_requests) = (Arc::downgrade(context), spool_requests.clone());
        let has_request = Arc::new(AtomicBool::new(false));
        let requested = has_request.clone();
        let watches = Arc::new(AtomicBool::new(false));
        let watched = watches.clone();
        let task = spawn(async move {
            let answering: Answering<'_> = Box::new(move |request| {
                requested.store(true, Ordering::Relaxed);
                watched.store(request.uri().path() == TAIL, Ordering::Relaxed);
                Box::pin(respond(request, spool_requests.clone(), context.clone()))
            });
            let mut how = http1::Builder::new();
            how.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            how.max_buf_size(MAX_HEAD_BYTES).keep_alive(false);
            let limit = async {
                sleep(CONNECTION_TIMEOUT).await;
                if watches.load(Ordering::Relaxed) {
                    sleep(TAIL_TIMEOUT).await;
                }
            };
            tokio::select! {
                // An error means that the client has hung up early.
                _ = crate::http::serve(&how, Box::new(stream), answering) => {}
                () = limit => {}
            }
            drop(permit);
        });
        idle.push_back((has_request, task));
    }
}

/// Answers a request whose head has been read.
async fn respond(
    request: Request<Incoming>,
    spool_requests: Arc<Semaphore>,
    context: Weak<RequestContext>,
) -> Answered {
    let permit = match request.uri().path() {
        path if tells_of_lines(path) => spool_requests.acquire().await.ok(),
        _ => None,
    };
    let answer = match context.upgrade() {
        Some(context) => answer(&request, &context).await,
        None => Answer::plain(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping\n"),
    };
    drop(permit);
    let mut response = Response::new(answer.content);
    *response.status_mut() = answer.status;
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, answer.content_type),
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

async fn answer(request: &Request<Incoming>, context: &RequestContext) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Answer::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let path = request.uri().path();
    if tells_of_lines(path) && !host::may_ask(request, &context.sources.registry.topology().hostname) {
        return Answer::plain(StatusCode::MISDIRECTED_REQUEST, host::NOT_BY_THIS_NAME);
    }
    let ok =
        |content_type, text: String| Answer { status: StatusCode::OK, content_type, content: Content::whole(text) };
    match path {
        "/" => ok(HTML, page::render(&Status::collect(context).await, context.sources.tail.is_some())),
        "/status" => ok(JSON, Status::collect(context).await.to_json()),
        DEAD_LETTERS => {
            ok(HTML, page::dead_letters(&context.sources.registry.topology().hostname, letters::collect(context).await))
        }
        TAIL => match &context.sources.tail {
            Some(tail) if wants_page(request) => {
                ok(HTML, page::tail(&context.sources.registry.topology().hostname, tail.token.is_some()))
            }
            Some(tail) => {
                watch(tail, request).await.unwrap_or_else(|error| Answer::plain(error.status(), format!("{error}\n")))
            }
            None => Answer::plain(StatusCode::NOT_FOUND, "the live tail is off; write `tail = true` in [admin]\n"),
        },
        "/metrics" => ok(OPENMETRICS, context.sources.metrics.encode()),
        // A relay that answers is alive.
        "/live" => Answer::plain(StatusCode::OK, "ok\n"),
        "/ready" => match context.sources.ready().await {
            Ok(()) => Answer::plain(StatusCode::OK, "ok\n"),
            Err(why) => Answer::plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => Answer::plain(StatusCode::NOT_FOUND, "try /, /status, /metrics, /live, /ready or /tail\n"),
    }
}

/// Whether a page shows data of lines: it may read the spool, and it is shown under the relay's own names only.
fn tells_of_lines(path: &str) -> bool {
    matches!(path, "/" | "/status" | DEAD_LETTERS | TAIL)
}

/// Whether the request is for the page, as from a browser's address bar, and not for lines, as from the page's script or curl.
fn wants_page(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
    memchr::memmem::find(accept, b"text/html").is_some()
}

async fn watch(tail: &Tail, request: &Request<Incoming>) -> Result<Answer, TailError> {
    tail.admit(request).await?;
    let filter = Filter::of(request.uri().query().unwrap_or_default())?;
    if request.method() == Method::HEAD {
        return Ok(Answer::plain(StatusCode::OK, ""));
    }
    // Half of the connections are reserved for other requests.
    let max_viewers = tail::MAX_VIEWERS.min(max_connections(descriptors::limit()) / 2);
    let Shown { chunks, watching } = tail.show(filter, max_viewers)?;
    Ok(Answer {
        status: StatusCode::OK,
        content_type: PLAIN,
        content: Content::Live { chunks, _kept: Box::new(watching) },
    })
}

impl Sources {
    /// Whether the relay can do its work. An error says why it cannot. Listeners are bound before the port answers. By default an
    /// unreachable collector is no error, because the spool keeps the lines; a spool that cannot be written is one.
    async fn ready(&self) -> Result<(), String> {
        if self.ready.contains(&ReadyCheck::Spool) {
            self.prober.ask().await?;
        }
        let matters = |part: &Part| match part {
            Part::Runtime => true,
            Part::Thread(name) => name.starts_with("spool") && self.ready.contains(&ReadyCheck::Spool),
            Part::Listener(_) => self.ready.contains(&ReadyCheck::Listeners),
            Part::Forward(_) => self.ready.contains(&ReadyCheck::Forwards),
            Part::Numbered => false,
        };
        let standing = self.standstills.now().into_iter().find(|standstill| matters(&standstill.part));
        standing.map_or(Ok(()), |standstill| Err(standstill.to_string()))
    }
}

impl Answer {
    fn plain(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, content_type: PLAIN, content: Content::whole(text.into()) }
    }
}
