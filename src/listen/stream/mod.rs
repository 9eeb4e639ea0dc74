//! `tcp://`, `tcp+tls://` and `unix://`, all alike: accepting connections, within limits, whatever goes wrong with one
//! of them.
//!
//! - here          accepting connections
//! - `peers`       how many connections each peer has, and what they hold
//! - `proxied`     for whom a proxy speaks
//! - `opening`     plain text or TLS
//! - `driver`      what a connection goes through, from its first byte to its end
//! - `conversation` a session with all that it needs except for the socket
//! - `replies`     what is owed to a sender that is answered
//! - `budget`      memory for messages that have not ended
//! - `timer`       when a session wants to be called
//! - `accepted`    an accepted socket, and how it is read out to the last byte

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

/// How long to wait when the system has no descriptor or memory left for a connection…
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// …and how long when it still has none, however often we tried: the pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Channels of HEC that are remembered: 1 MB. Docker's driver uses another one for each request.
const MAX_CHANNELS: usize = 10_000;
/// How long a channel is remembered that is not used. It is Splunk's default.
const CHANNEL_IDLE: Duration = Duration::from_secs(600);

/// Connections there can be, whatever the limit that is set.
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
        // No new sender finds us from here on. Those whom the kernel has let in already may have sent something; where
        // the socket stays, the relay after us lets them in.
        name.remove().await;
        if !handed_over {
            acceptor.accept_held(&listener);
        }
        drop(listener);
        // Only now are connections reset: a sender that came again while there was a listener would speak to nobody.
        end.send_replace(true);
        // Every connection gives its place back when it is over.
        let _ = acceptor.places.acquire_many(MAX_PLACES).await;
        let _ = heartbeat.await;
    })
}

struct Acceptor {
    rules: watch::Receiver<Arc<Rules>>,
    /// A place for each connection.
    places: Arc<Semaphore>,
    senders: Arc<Senders>,
    state: SharedListenerStatus,
    /// True when nobody is let in any more.
    shutdown: watch::Receiver<bool>,
}

/// What all connections share.
struct Senders {
    peers: PeerTable,
    budget: Budget,
    memory: Memory,
    ingest: Ingest,
    /// True when connections end, which is after nobody is let in any more.
    connections: watch::Receiver<bool>,
}

/// What is remembered of senders when their connections are gone: what may come again, and what they may ask for.
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
                    // Those whom the kernel has let in by the old name are not left behind.
                    self.accept_held(&std::mem::replace(listener, rebound));
                    continue;
                }
                accepted = listener.accept() => accepted,
                // Whoever could not be accepted has gone.
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
                    // The watchdog tells of it.
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

    /// `from`: its address, where senders have one.
    fn admit(&self, mut socket: AcceptedSocket, from: Option<IpAddr>) {
        let rules = self.rules.borrow().clone();
        rules.metrics.accepted.inc();
        let place = match self.place(&rules, from) {
            Ok(place) => place,
            Err(reason) => {
                rules.refusals.refuse(from, &reason);
                // So that the sender hears of it with its first write, not its second.
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

    /// A place for a connection, for as long as what is returned lives. An error: why there is none.
    fn place(&self, Rules { limits, .. }: &Rules, from: Option<IpAddr>) -> Result<OwnedSemaphorePermit, RefusalReason> {
        if from.is_some_and(|from| !limits.lets_in(from)) {
            return Err(RefusalReason::Allow);
        }
        let has_room = MAX_PLACES as usize - self.places.available_permits() < limits.max_connections;
        self.places.clone().try_acquire_owned().ok().filter(|_| has_room).ok_or(RefusalReason::MaxConnections)
    }
}

impl Senders {
    /// `from`: the sender's address, which a proxy may have told.
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
        // Boxed: it would make the future of every connection larger by several times its size.
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
                // Boxed: most connections speak syslog, and should not pay for it.
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

/// A socket that the runtime waits for.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// An error: the system has no room for it among what is waited for.
    pub fn tcp(socket: Socket) -> io::Result<Self> {
        TcpListener::from_std(socket.into()).map(Self::Tcp)
    }

    pub fn unix(socket: Socket) -> io::Result<Self> {
        UnixListener::from_std(socket.into()).map(Self::Unix)
    }

    /// A connection, and its address where it has one.
    async fn accept(&self) -> io::Result<(AcceptedSocket, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                (AcceptedSocket::new(StreamSocket::Tcp(socket)), Some(from.ip()))
            }
            Self::Unix(listener) => (AcceptedSocket::new(StreamSocket::Unix(listener.accept().await?.0)), None),
        })
    }

    /// Takes a connection that the kernel has ready. Asks the kernel itself: the runtime may not have heard of it yet.
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

/// Whether an error of `accept` is about the connection that was to be accepted: it is gone, and the next one may be
/// fine. Linux also passes on network errors that were pending on it. Anything else (no descriptor, no memory) would
/// come back at once.
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
