//! `tcp://`, `tcp+tls://`, `unix://` and the other protocols over streams: accepts connections within limits. An error of one
//! connection does not affect others.
//!
//! - here          accepts connections
//! - `peers`       counts the connections of each peer and their memory
//! - `proxied`     reads the PROXY protocol's header
//! - `opening`     distinguishes plain text and TLS
//! - `driver`      serves a connection from its first byte to its end
//! - `conversation` a session with everything that it needs except for the socket
//! - `replies`     batches and answers of a session that answers
//! - `budget`      the memory of incomplete messages
//! - `timer`       the time of a session's next call
//! - `accepted`    an accepted socket, which can be read out to the last byte

pub(super) mod accepted;
pub(super) mod budget;
mod conversation;
pub mod driver;
pub(super) mod opening;
mod peers;
mod proxied;
pub(super) mod replies;
pub(super) mod timer;

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;
use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use accepted::{AcceptedSocket, StreamSocket};
pub use budget::Budget;
pub use conversation::SenderChunks;
use peers::PeerTable;

use super::http;
use super::ingest::Ingest;
use super::refusal::RefusalReason;
use super::socket::NameWatch;
use super::{BACKLOG, Place, Rules, heartbeat, stopping};
use crate::protocol::journal::Cursors;
use crate::protocol::splunk::Acks;
use crate::status::SharedListenerStatus;
use crate::tasks::spawn;

/// The first pause after the system had no descriptor or memory for a connection…
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// …and the longest: the pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// HEC channels that are remembered: 1 MB. Docker's driver uses a new one for each request.
const MAX_CHANNELS: usize = 10_000;
/// How long an unused channel is remembered. This is Splunk's default.
const CHANNEL_IDLE: Duration = Duration::from_secs(600);

/// The most connections, whatever `max-connections` says.
const MAX_PLACES: u32 = 1 << 24;

pub fn start(
    listener: Listener,
    place: Place,
    rules: watch::Receiver<Arc<Rules>>,
    ingest: Ingest,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let Place { address, file, handed_over, metrics, state } = place;
    let heartbeat = spawn(heartbeat::answer(address.clone(), rules.clone(), shutdown.clone()));
    let mut name = NameWatch::start(&address, file, (metrics.rebinds, state.clone()), Listener::unix);
    let ingest = ingest.of_streams();
    let (end, connections) = watch::channel(false);
    let places = Arc::new(Semaphore::new(MAX_PLACES as usize));
    let (peers, budget, memory) = (PeerTable::default(), Budget::default(), Memory::default());
    let senders = Arc::new(Senders { peers, budget, memory, ingest, connections });
    let acceptor = Acceptor { rules, places, senders, state, shutdown };
    spawn(async move {
        let mut listener = listener;
        acceptor.accept_until_stopped(&mut listener, &mut name).await;
        // From here on, no new sender finds the socket. Connections that the kernel has accepted already may contain messages. If
        // the socket was handed over, the next relay accepts them.
        name.remove().await;
        if !handed_over {
            acceptor.accept_held(&listener);
        }
        drop(listener);
        // Connections are reset only now: a sender that reconnected while the listener existed would not be heard.
        end.send_replace(true);
        // Waits for the end of all connections: each returns its permit.
        let _ = acceptor.places.acquire_many(MAX_PLACES).await;
        let _ = heartbeat.await;
    })
}

struct Acceptor {
    rules: watch::Receiver<Arc<Rules>>,
    /// A permit for each connection.
    places: Arc<Semaphore>,
    senders: Arc<Senders>,
    state: SharedListenerStatus,
    /// True when no connection is accepted any more.
    shutdown: watch::Receiver<bool>,
}

/// The state that all connections share.
struct Senders {
    peers: PeerTable,
    budget: Budget,
    memory: Memory,
    ingest: Ingest,
    /// True when connections end, which is later than `shutdown`.
    connections: watch::Receiver<bool>,
}

/// State of senders that outlives their connections: chunks and entries that may come again, and acknowledgements that may be
/// requested.
pub struct Memory {
    pub chunks: SenderChunks,
    pub acks: Mutex<Acks>,
    pub cursors: Arc<Mutex<Cursors>>,
}

impl Default for Memory {
    fn default() -> Self {
        let acks = Mutex::new(Acks::new(MAX_CHANNELS, CHANNEL_IDLE));
        Self { chunks: SenderChunks::default(), acks, cursors: Arc::default() }
    }
}

impl Acceptor {
    async fn accept_until_stopped(&self, listener: &mut Listener, name: &mut NameWatch<Listener>) {
        let mut shutdown = self.shutdown.clone();
        let mut pause = SHORTEST_PAUSE;
        let mut is_failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopping(&mut shutdown) => break,
                rebound = name.rebound() => {
                    // Accepts the connections that the kernel holds under the old name.
                    self.accept_held(&std::mem::replace(listener, rebound));
                    continue;
                }
                accepted = listener.accept() => accepted,
                // The connection that could not be accepted has gone.
                () = sleep(LONGEST_PAUSE), if is_failing => {
                    is_failing = false;
                    self.state.works();
                    continue;
                }
            };
            match accepted {
                Ok((socket, from)) => {
                    pause = SHORTEST_PAUSE;
                    if std::mem::take(&mut is_failing) {
                        self.state.works();
                    }
                    self.admit(socket, from);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    // The watchdog reports it.
                    is_failing = true;
                    self.state.fails(&error);
                    tokio::select! {
                        () = stopping(&mut shutdown) => break,
                        () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    }
                }
            }
        }
    }

    fn accept_held(&self, listener: &Listener) {
        for _ in 0..BACKLOG {
            match listener.accept_held() {
                Ok((socket, from)) => self.admit(socket, from),
                Err(error) if concerns_one_connection(&error) => {}
                Err(_) => break,
            }
        }
    }

    /// Admits an accepted connection, or refuses it. `from`: the peer's address, if it has one.
    fn admit(&self, mut socket: AcceptedSocket, from: Option<IpAddr>) {
        let rules = self.rules.borrow().clone();
        rules.metrics.accepted.inc();
        let place = match self.place(&rules, from) {
            Ok(place) => place,
            Err(reason) => {
                rules.refusals.refuse(from, &reason);
                // The sender notices a reset at its first write, an orderly close at its second.
                socket.reset_on_close();
                return;
            }
        };
        if !rules.limits.proxy_protocol {
            return self.senders.admit(socket, from, rules, place);
        }
        let senders = self.senders.clone();
        spawn(async move {
            let mut shutdown = senders.connections.clone();
            let Some(client) = proxied::client(&mut socket, from, &rules, &mut shutdown).await else { return };
            if client.is_some_and(|client| !rules.limits.lets_in_client(client)) {
                rules.refusals.refuse(client, &RefusalReason::ClientAllow);
                return socket.reset_on_close();
            }
            senders.admit(socket, client.or(from), rules, place);
        });
    }

    /// Takes a permit for a connection. An error: the reason why there is none.
    fn place(&self, Rules { limits, .. }: &Rules, from: Option<IpAddr>) -> Result<OwnedSemaphorePermit, RefusalReason> {
        if from.is_some_and(|from| !limits.lets_in(from)) {
            return Err(RefusalReason::Allow);
        }
        let has_room = MAX_PLACES as usize - self.places.available_permits() < limits.max_connections;
        self.places.clone().try_acquire_owned().ok().filter(|_| has_room).ok_or(RefusalReason::MaxConnections)
    }
}

impl Senders {
    /// Admits a connection and serves it in a task. `from`: the sender's address, possibly from a proxy's header.
    fn admit(
        self: &Arc<Self>,
        socket: AcceptedSocket,
        from: Option<IpAddr>,
        rules: Arc<Rules>,
        place: OwnedSemaphorePermit,
    ) {
        let slot = match from.map(|from| self.peers.slot(from, rules.limits.max_connections_per_address)) {
            Some(None) => {
                rules.refusals.refuse(from, &RefusalReason::MaxConnectionsPerAddress);
                return socket.reset_on_close();
            }
            slot => slot.flatten(),
        };
        let metrics = rules.metrics.clone();
        let reservation = self.budget.reservation(slot.as_ref().map(|slot| slot.budget.clone()));
        // Boxed, because it would make the future of every connection several times larger.
        let (mut ingest, shutdown) = (Box::new(self.ingest.clone()), self.connections.clone());
        ingest.set_peer(from);
        ingest.begin_connection();
        metrics.connections.inc();
        let senders = self.clone();
        spawn(async move {
            let memory = &senders.memory;
            match rules.session() {
                Some(session) => {
                    let conversation = (session, ingest, reservation);
                    driver::serve(socket, (&rules, &metrics), &memory.chunks, conversation, shutdown).await;
                }
                // Boxed, because most connections speak syslog and should not take its memory.
                None => {
                    let served = http::serve(socket, (&rules, &metrics), memory, reservation, ingest, shutdown);
                    Box::pin(served).await;
                }
            }
            metrics.connections.dec();
            drop((place, slot));
        });
    }
}

/// A socket that is registered with the runtime.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Registers the socket. An error: the system has no room for it.
    pub fn tcp(socket: Socket) -> io::Result<Self> {
        TcpListener::from_std(socket.into()).map(Self::Tcp)
    }

    pub fn unix(socket: Socket) -> io::Result<Self> {
        UnixListener::from_std(socket.into()).map(Self::Unix)
    }

    /// Accepts a connection, and returns its address if it has one.
    async fn accept(&self) -> io::Result<(AcceptedSocket, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                (AcceptedSocket::new(StreamSocket::Tcp(socket)), Some(from.ip()))
            }
            Self::Unix(listener) => (AcceptedSocket::new(StreamSocket::Unix(listener.accept().await?.0)), None),
        })
    }

    /// Accepts a connection that the kernel holds. Asks the kernel directly, because the runtime may not know of it yet.
    fn accept_held(&self) -> io::Result<(AcceptedSocket, Option<IpAddr>)> {
        let listener = match self {
            Self::Tcp(listener) => SockRef::from(listener),
            Self::Unix(listener) => SockRef::from(listener),
        };
        let (socket, from) = listener.accept()?;
        socket.set_nonblocking(true)?;
        let accepted = AcceptedSocket::new(match self {
            Self::Tcp(_) => StreamSocket::Tcp(TcpStream::from_std(socket.into())?),
            Self::Unix(_) => StreamSocket::Unix(UnixStream::from_std(socket.into())?),
        });
        Ok((accepted, from.as_socket().map(|from| from.ip())))
    }
}

/// Whether an error of `accept` concerns only the connection that it would have returned: that one is gone, and the next one may
/// work. Linux also passes on network errors that were pending on that connection: accept(2). Any other error (no descriptor, no
/// memory) would recur at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted | ErrorKind::TimedOut
    ) || error.raw_os_error().is_some_and(|raw| {
        matches!(
            Errno::from_raw(raw),
            Errno::EPERM
                | Errno::EPROTO
                | Errno::ENOPROTOOPT
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::EHOSTUNREACH
                | Errno::EOPNOTSUPP
                | Errno::ENETUNREACH
                | Errno::ENETDOWN
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_sorted() {
        let one = |errno: Errno| concerns_one_connection(&io::Error::from(errno));
        assert!([Errno::ECONNABORTED, Errno::EINTR, Errno::EPROTO, Errno::ENETDOWN].into_iter().all(one));
        assert!(![Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EBADF].into_iter().any(one));
    }
}
