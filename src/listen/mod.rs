//! The first stage, sockets → batches of lines: everything that faces the senders. What bytes mean is `protocol`'s, what a message
//! says is `record`'s; here is decided who may connect, who is read when, and what is let in.
//!
//! - `socket`    sockets that listen: bound, or opened by a service manager before; what to tell the operator when there is none to
//!   be had
//! - `datagram`  `udp://`, `unixgram://`: an OS thread for each, many datagrams in one system call
//! - `stream`    `tcp://`, `unix://`, plain or with TLS, syslog or RELP: who may connect, and what a connection goes through
//! - `heartbeat` what Fluentd asks by UDP before it sends by TCP
//! - `http`      `splunk+http://`, `journal+http://`, plain or with TLS: what comes in requests, each of which is answered
//! - `notices`   what is said of senders, now and then
//! - `ingest`    where messages go, each through admission into a batch of lines for the spool
//! - `passage`   what each of these messages is asked
//! - `refusal`   why a peer is refused, and what is said of it
//! - `local_addresses` the addresses of this machine: senders at these have this machine's name
//! - `admission` which messages are let in: rules, what a container may send, and what Docker has cut, made whole again
//!
//! What never happens here: a sender waits for more than the ingest's bounded flush, but for RELP's; a stranger makes us log, grow
//! beyond a limit, spin or stop; an idle connection costs a buffer or a timer.
//!
//! A shutdown walks the way messages walk: nothing new is accepted, what the kernel holds is read out and handed on,
//! and then connections are reset (`SO_LINGER` 0). Docker's driver notices a reset with its next write and sends that
//! message again; of a connection closed in good order it only notices after it has lost one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::Socket;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::config::{DEFAULT_RECEIVE_BUFFER, Limits, ListenAddress, Protocol};
use crate::identity;
use crate::metrics::ListenMetrics;
use crate::protocol::fluent::FluentSession;
use crate::protocol::fluent::handshake::{Handshake, SharedKey};
use crate::protocol::relp::Proofs;
use crate::protocol::session::{AnySession, Bounds};
use crate::protocol::splunk::Tokens;
use crate::protocol::syslog::Senders;
use crate::spool::MAX_LINE;
use crate::status::SharedListenerStatus;
use crate::tls::Credentials;

pub(crate) mod admission;
mod datagram;
mod heartbeat;
mod http;
pub mod ingest;
mod local_addresses;
mod notices;
mod passage;
mod refusal;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

pub use admission::{
    AdmissionPolicy, Held, Moment, PENDING_CHECK_EVERY, Pending, PendingMessages, Quiet, Reassembler, Repeats, Samples,
    Shedding, multiline_key,
};
pub use http::hec_limits;
pub use ingest::{Ingest, IngestPolicy, SharedAdmission, now};
pub use local_addresses::{local_addresses, watch_local_addresses};
use notices::Notices;
use refusal::RefusalLog;
use socket::SocketFile;
pub use socket::{BindError, grantable_receive_buffer, refuse_strays};

/// Bytes of receive buffer below which a UDP socket loses messages in a burst so small that the operator should know.
pub const SMALL_RECEIVE_BUFFER: usize = 1024 * 1024;
/// Connections the kernel may hold ready for us to accept.
pub const BACKLOG: i32 = 1024;
/// How long a TCP connection is silent before the kernel asks whether its peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How long the kernel waits between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How many questions go unanswered before a connection counts as broken.
pub const KEEPALIVE_RETRIES: u32 = 3;
/// How long one socket is read out at a shutdown. Without an end a sender that never pauses would hold us up.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// One listener, as configured.
pub struct Options {
    pub address: ListenAddress,
    /// `tcp://` takes TLS as well when there is an acceptor; `tcp+tls://` needs it, the others do without. It should send no session tickets
    /// (`send_tls13_tickets = 0`): Docker's driver never reads, and a socket closed with unread bytes is reset, which
    /// throws away what the driver's kernel had not sent yet.
    pub credentials: Credentials,
    /// Whether `tcp://` with a certificate takes plain text too. `tcp+tls://` never does.
    pub plaintext: bool,
    /// Bytes of receive buffer to ask for; `udp://` only.
    pub receive_buffer: usize,
    pub limits: Limits,
    /// What kind of senders there are.
    pub senders: Senders,
}

/// A listener that holds its socket: senders can already send, nobody reads yet.
pub struct Bound {
    address: ListenAddress,
    socket: Socket,
    file: Option<SocketFile>,
    /// Whether the socket is a service manager's, which keeps it when we end: what we do to the socket is done to the relay after us.
    handed_over: bool,
    /// Bytes the kernel granted; 0 where that is not ours to ask.
    receive_buffer: usize,
    options: Options,
    metrics: ListenMetrics,
}

/// A listener that has all that the system can refuse to one: a thread, or a place among what the runtime waits for. Nobody
/// reads yet; dropped, it is as if it had never been.
pub struct Prepared {
    address: ListenAddress,
    reader: Reader,
    file: Option<SocketFile>,
    handed_over: bool,
    receive_buffer: usize,
    options: Options,
    metrics: ListenMetrics,
}

/// How a socket is read.
enum Reader {
    Datagrams(datagram::Idle),
    Streams(stream::Listener),
}

/// A listener at work.
pub struct Running {
    rules: watch::Sender<Arc<Rules>>,
    state: SharedListenerStatus,
    said: Said,
    task: JoinHandle<()>,
}

/// What the log has said of a listener's senders. It stays when the settings change, so that a reload says nothing again. Clones
/// share it.
#[derive(Clone, Default)]
struct Said {
    refusals: Arc<Mutex<refusal::Said>>,
    notices: Arc<notices::Said>,
}

/// What may change while a listener is at work.
struct Rules {
    /// Where the listener listens, with its real port.
    address: ListenAddress,
    metrics: Arc<ListenMetrics>,
    tls: Option<TlsAcceptor>,
    tokens: Arc<Tokens>,
    /// What senders of the Forward protocol have to know; `None`: nothing.
    shared_key: Option<Arc<SharedKey>>,
    /// Whether plain text is taken where there is TLS.
    plaintext: bool,
    protocol: Protocol,
    senders: Senders,
    limits: Limits,
    /// A place for each handshake.
    handshakes: Semaphore,
    /// Bytes of receive buffer to ask for.
    receive_buffer: usize,
    refusals: RefusalLog,
    notices: Notices,
}

/// Takes the address. Needs no runtime and waits for nothing, so that every socket is there before anything else starts.
pub fn bind(options: Options, metrics: ListenMetrics) -> Result<Bound, BindError> {
    options.check()?;
    let asked = &options.address;
    let failed = |step| move |error| BindError::Other(asked.clone(), step, error);
    let (socket, file, handed_over) = match socket::handed_over(asked)? {
        Some(socket) => (socket::made_ready(asked, socket)?, None, true),
        None => {
            let (socket, file) = socket::open(asked)?;
            (socket, file, false)
        }
    };
    let real = socket.local_addr().map_err(failed("reading its address back"))?.as_socket();
    let address = bound_address(asked, real);
    let mut receive_buffer = 0;
    if asked.is_udp() {
        // One that was handed over has what its owner gave it, often more than we could get.
        receive_buffer = match handed_over {
            true => socket.recv_buffer_size(),
            false => socket::grow_receive_buffer(&socket, options.receive_buffer),
        }
        .map_err(failed("setting its receive buffer"))?;
        report_receive_buffer(&address, receive_buffer, &metrics);
    }
    Ok(Bound { address, socket, file, handed_over, receive_buffer, options, metrics })
}

impl Options {
    /// What can be wrong with them whatever the socket is.
    pub fn check(&self) -> Result<(), BindError> {
        let only_tls = self.address.is_tls() || self.address.may_be_tls() && !self.plaintext;
        if only_tls && self.credentials.tls.is_none() {
            let why = if self.address.is_tls() { BindError::NoCertificate } else { BindError::NeitherPlainNorTls };
            return Err(why(self.address.clone()));
        }
        Ok(())
    }
}

impl Bound {
    /// Where it really listens: with the port the kernel chose when 0 was asked for.
    pub fn address(&self) -> ListenAddress {
        self.address.clone()
    }

    /// Takes what the system may refuse, so that from here on nothing about this listener can fail. Must be called inside
    /// the runtime.
    pub fn prepare(self) -> Result<Prepared, BindError> {
        let Self { address, socket, file, handed_over, receive_buffer, options, metrics } = self;
        let reader = match address.is_datagram() {
            true => datagram::Idle::new(socket).map(Reader::Datagrams),
            false if address.is_tcp() => stream::Listener::tcp(socket).map(Reader::Streams),
            false => stream::Listener::unix(socket).map(Reader::Streams),
        };
        match reader {
            Ok(reader) => Ok(Prepared { address, reader, file, handed_over, receive_buffer, options, metrics }),
            Err(error) => Err(BindError::Other(address, "making ready to read", error)),
        }
    }
}

impl Prepared {
    /// Reads until `shutdown` says true (or is gone). Must be called inside the runtime.
    pub fn start(self, ingest: Ingest, shutdown: watch::Receiver<bool>) -> Running {
        let Self { address, reader, file, handed_over, receive_buffer, options, metrics } = self;
        info!("listen: listening on {address}");
        let (state, said) = (SharedListenerStatus::default(), Said::default());
        let rules = Rules::new(address.clone(), &options, metrics.clone(), (&state, &said));
        let (rules, current) = watch::channel(Arc::new(rules));
        let place = Place { address: address.clone(), file, handed_over, metrics, state: state.clone() };
        let task = match reader {
            Reader::Datagrams(idle) => datagram::start(idle, place, receive_buffer, current, ingest, shutdown),
            Reader::Streams(listener) => stream::start(listener, place, current, ingest, shutdown),
        };
        Running { rules, state, said, task }
    }
}

/// Where a listener listens, and whose socket that is.
struct Place {
    address: ListenAddress,
    file: Option<SocketFile>,
    handed_over: bool,
    metrics: ListenMetrics,
    /// The listener's status: whether it can read.
    state: SharedListenerStatus,
}

impl Rules {
    /// `state` and `said` are the listener's, whatever its settings.
    fn new(
        address: ListenAddress,
        options: &Options,
        metrics: ListenMetrics,
        (state, said): (&SharedListenerStatus, &Said),
    ) -> Self {
        let name = address.to_string();
        let tls = address.is_tls() || address.may_be_tls();
        Self {
            tls: options.credentials.tls.clone().filter(|_| tls),
            tokens: options.credentials.tokens.clone(),
            shared_key: options.credentials.shared_key.clone(),
            plaintext: options.plaintext && address.may_be_tls(),
            protocol: address.protocol(),
            senders: options.senders,
            limits: options.limits.clone(),
            handshakes: Semaphore::new(options.limits.max_handshakes.min(Semaphore::MAX_PERMITS)),
            receive_buffer: options.receive_buffer,
            refusals: RefusalLog::new(name.clone(), metrics.clone(), state.clone(), said.refusals.clone()),
            metrics: Arc::new(metrics),
            notices: Notices::new(name, said.notices.clone()),
            address,
        }
    }

    /// Makes the session of a new connection. `None`: HTTP is spoken here.
    fn session(&self) -> Option<AnySession> {
        let bounds = bounds(&self.limits, self.senders);
        if let (Protocol::Fluent, Some(key)) = (self.protocol, &self.shared_key) {
            let handshake = Handshake::new(key.clone(), rand::random(), rand::random());
            return Some(AnySession::Fluent(Box::new(FluentSession::with_handshake(bounds, handshake))));
        }
        AnySession::new(self.protocol, bounds)
    }
}

/// What a session may take at a listener with these limits.
pub fn bounds(limits: &Limits, senders: Senders) -> Bounds {
    let Limits { max_frame, max_unfinished, frame_timeout, handshake_timeout: open_timeout, numbered, .. } = *limits;
    let proofs = Proofs { streams: numbered, nonce: identity::nonce(), signer: identity::signer };
    // Half of it is the most that all connections of an address may hold.
    let max_array = max_unfinished / 2;
    Bounds { max_frame, max_array, max_line: MAX_LINE, frame_timeout, open_timeout, proofs, senders }
}

impl Running {
    /// Where it listens, with its real port.
    pub fn address(&self) -> ListenAddress {
        self.rules.borrow().address.clone()
    }

    /// The listener's status: whether it can take what comes, and whom it refused last.
    pub fn state(&self) -> SharedListenerStatus {
        self.state.clone()
    }

    /// Other settings for the same socket, perhaps with another protocol on it, counted by `metrics`. Connections that
    /// stand keep theirs.
    pub fn change(&self, options: Options, metrics: ListenMetrics) {
        let address = bound_address(&options.address, self.address().socket_address());
        self.rules.send_replace(Arc::new(Rules::new(address, &options, metrics, (&self.state, &self.said))));
    }

    /// Resolves when everything read was handed on and every socket is closed: some time after the shutdown.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Resolves when the shutdown has begun. May be asked again and again.
async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could say it: the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

fn bound_address(asked: &ListenAddress, real: Option<SocketAddr>) -> ListenAddress {
    real.map_or_else(|| asked.clone(), |at| asked.with_socket_address(at))
}

fn report_receive_buffer(address: &ListenAddress, granted: usize, metrics: &ListenMetrics) {
    metrics.receive_buffer.set(granted.try_into().unwrap_or(i64::MAX));
    match small_receive_buffer(granted) {
        Some(says) => warn!("listen: {address}: {says}"),
        None => info!("listen: {address}: receive buffer {} KiB", granted / 1024),
    }
}

/// What to say of a receive buffer of so many bytes, and what to do about it; `None`: it is large enough.
pub fn small_receive_buffer(granted: usize) -> Option<String> {
    let says = || {
        format!(
            "the kernel grants a receive buffer of only {} KiB; a burst of some hundred messages may be lost. On the host: \
             `sysctl -w net.core.rmem_max={DEFAULT_RECEIVE_BUFFER}`; or give the container `cap_add: NET_ADMIN`, a systemd \
             socket `ReceiveBuffer=8M`",
            granted / 1024
        )
    };
    (granted < SMALL_RECEIVE_BUFFER).then(says)
}
