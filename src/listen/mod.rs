//! STAGE 1: sockets → batches of lines: everything that faces the senders. `protocol` parses bytes and `record` represents
//! messages. This module decides who may connect, which connection is read when, and which messages are let in.
//!
//! - `socket`    listening sockets: binds them, or takes them from a service manager; and the advice when that fails
//! - `datagram`  `udp://`, `unixgram://`: an OS thread for each, many datagrams in one system call
//! - `naps`      how long a thread of datagrams lets more of them queue
//! - `stream`    `tcp://`, `unix://`, plain or with TLS, syslog or RELP: accepts and serves connections
//! - `heartbeat` answers the UDP heartbeats that Fluentd needs before it sends by TCP
//! - `http`      `splunk+http://`, `journal+http://`, plain or with TLS: messages in requests, each of which is answered
//! - `notices`   log entries about senders, at intervals
//! - `ingest`    passes messages through admission into a batch of lines for the spool
//! - `passage`   the checks on each of these messages, in their order
//! - `refusal`   the reasons for refusing a peer, with counters and texts
//! - `local_addresses` the addresses of this machine: senders at these have this machine's name
//! - `admission` decides which messages are let in: rules, limits of containers, and joining of pieces and lines
//!
//! These things never happen here: a sender waits longer than for the ingest's bounded flush (except for senders that get an
//! answer, such as RELP's); a stranger makes the relay log, grow beyond a limit, spin or stop; an idle connection costs a buffer or
//! a timer.
//!
//! A shutdown follows the way of messages: nothing new is accepted, the messages that the kernel holds are read and passed on, and
//! then connections are reset (`SO_LINGER` 0). Docker's driver notices a reset at its next write, and sends that message again. It
//! notices an orderly close only after it has lost a message.

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
mod naps;
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

/// Bytes of receive buffer below which a UDP socket loses messages even in a small burst, so that the operator must know.
pub const SMALL_RECEIVE_BUFFER: usize = 1024 * 1024;
/// Connections that the kernel may queue before the relay accepts them.
pub const BACKLOG: i32 = 1024;
/// How long a TCP connection is silent before the kernel sends a keepalive probe.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// The time between two keepalive probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered probes after which a connection counts as broken.
pub const KEEPALIVE_RETRIES: u32 = 3;
/// How long one socket is read out at a shutdown. Without this limit, a sender that never pauses would prevent the stop.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// One listener, as configured.
pub struct Options {
    pub address: ListenAddress,
    /// Certificate and secrets. `tcp://` takes TLS as well if there is a certificate; `tcp+tls://` needs one; the others do
    /// without. The acceptor should send no session tickets (`send_tls13_tickets = 0`): Docker's driver never reads, closing a
    /// socket with unread bytes resets it, and a reset discards the bytes that the driver's kernel has not sent yet.
    pub credentials: Credentials,
    /// Whether `tcp://` with a certificate also takes plain text. `tcp+tls://` never does.
    pub plaintext: bool,
    /// Bytes of receive buffer to ask for; `udp://` only.
    pub receive_buffer: usize,
    pub limits: Limits,
    /// The kind of senders.
    pub senders: Senders,
}

/// A listener that has its socket: senders can send already, and nothing reads yet.
pub struct Bound {
    address: ListenAddress,
    socket: Socket,
    file: Option<SocketFile>,
    /// Whether the socket belongs to a service manager, which keeps it when the relay ends: a change to the socket affects the next
    /// relay.
    handed_over: bool,
    /// Bytes of receive buffer that the kernel granted; 0 for a socket other than UDP.
    receive_buffer: usize,
    options: Options,
    metrics: ListenMetrics,
}

/// A listener that has everything that the system can refuse: a thread, or a registration with the runtime. Nothing reads yet.
/// Dropping it releases everything.
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

/// A running listener.
pub struct Running {
    rules: watch::Sender<Arc<Rules>>,
    state: SharedListenerStatus,
    said: Said,
    task: JoinHandle<()>,
}

/// The log entries about a listener's senders so far. This stays when the settings change, so that a reload repeats no entry.
/// Clones share it.
#[derive(Clone, Default)]
struct Said {
    refusals: Arc<Mutex<refusal::Said>>,
    notices: Arc<notices::Said>,
}

/// The settings that may change while a listener runs.
struct Rules {
    /// The listener's address, with its real port.
    address: ListenAddress,
    metrics: Arc<ListenMetrics>,
    tls: Option<TlsAcceptor>,
    tokens: Arc<Tokens>,
    /// The shared key that senders of the Forward protocol need; `None`: none.
    shared_key: Option<Arc<SharedKey>>,
    /// Whether plain text is taken besides TLS.
    plaintext: bool,
    protocol: Protocol,
    senders: Senders,
    limits: Limits,
    /// A permit for each handshake.
    handshakes: Semaphore,
    /// Bytes of receive buffer to ask for.
    receive_buffer: usize,
    refusals: RefusalLog,
    notices: Notices,
}

/// Binds the address, or takes the socket that was handed over. Needs no runtime and waits for nothing, so that every socket exists
/// before anything else starts.
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
        // A socket that was handed over keeps the buffer that its owner set, often a larger one than the relay could get.
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
    /// Finds errors that do not depend on the socket.
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
    /// The real address, with the port that the kernel chose if the config has 0.
    pub fn address(&self) -> ListenAddress {
        self.address.clone()
    }

    /// Takes everything that the system may refuse, so that nothing about this listener can fail afterwards. Must be called inside
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
    /// Reads until `shutdown` is true or its sender half is gone. Must be called inside the runtime.
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

/// A listener's address, socket file, counters and status.
struct Place {
    address: ListenAddress,
    file: Option<SocketFile>,
    handed_over: bool,
    metrics: ListenMetrics,
    /// The listener's status.
    state: SharedListenerStatus,
}

impl Rules {
    /// `state` and `said` belong to the listener, and stay when its settings change.
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

    /// Makes the session of a new connection. `None`: the listener speaks HTTP.
    fn session(&self) -> Option<AnySession> {
        let bounds = bounds(&self.limits, self.senders);
        if let (Protocol::Fluent, Some(key)) = (self.protocol, &self.shared_key) {
            let handshake = Handshake::new(key.clone(), rand::random(), rand::random());
            return Some(AnySession::Fluent(Box::new(FluentSession::with_handshake(bounds, handshake))));
        }
        AnySession::new(self.protocol, bounds)
    }
}

/// The bounds of a session at a listener with these limits.
pub fn bounds(limits: &Limits, senders: Senders) -> Bounds {
    let Limits { max_frame, max_unfinished, frame_timeout, handshake_timeout: open_timeout, numbered, .. } = *limits;
    let proofs = Proofs { streams: numbered, nonce: identity::nonce(), signer: identity::signer };
    // All connections of one address may hold half of it at most.
    let max_array = max_unfinished / 2;
    Bounds { max_frame, max_array, max_line: MAX_LINE, frame_timeout, open_timeout, proofs, senders }
}

impl Running {
    /// The address, with its real port.
    pub fn address(&self) -> ListenAddress {
        self.rules.borrow().address.clone()
    }

    /// The listener's status: whether it can receive, and its last refusals.
    pub fn state(&self) -> SharedListenerStatus {
        self.state.clone()
    }

    /// Sets other settings for the socket, possibly with another protocol, and counts with `metrics`. Established connections keep
    /// their settings.
    pub fn change(&self, options: Options, metrics: ListenMetrics) {
        let address = bound_address(&options.address, self.address().socket_address());
        self.rules.send_replace(Arc::new(Rules::new(address, &options, metrics, (&self.state, &self.said))));
    }

    /// Resolves when all messages are passed on and every socket is closed, some time after the shutdown.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Resolves when the shutdown has begun. It can be awaited repeatedly.
async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // An error: the sender half is gone, which is a shutdown too.
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

/// The warning about a receive buffer of `granted` bytes, with the remedy; `None`: it is large enough.
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
