//! `tcp://`, `tcp+tls://` and `unix://`, all alike: accepting connections, within limits, whatever goes wrong with one
//! of them. What a connection goes through is in `connection`.

mod accepted;
mod budget;
pub mod connection;
mod peers;
mod relp;

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use prometheus_client::metrics::counter::Counter;
use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::warn;

use accepted::{Accepted, Wire};
pub use budget::Unfinished;
use peers::{Crowd, Member};

use super::ingest::Intake;
use super::{BACKLOG, Place, Rules, stopping};

/// How long to wait when the system has no descriptor or memory left for a connection…
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// …and how long when it still has none, however often we tried: the pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often that is worth a line in the log: who opens connections must not be able to fill it.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Connections there can be, whatever the limit that is set.
const ROOM: u32 = 1 << 24;

pub fn start(
    listener: Listener,
    place: Place,
    rules: watch::Receiver<Arc<Rules>>,
    intake: Intake,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let Place { file, handed_over, .. } = place;
    let intake = intake.of_streams();
    let (end, connections) = watch::channel(false);
    let room = Arc::new(Semaphore::new(ROOM as usize));
    let (crowd, unfinished) = (Crowd::default(), Unfinished::default());
    let host = Host { rules, room, crowd, unfinished, intake, shutdown, connections };
    tokio::spawn(async move {
        host.accept_until_stopped(&listener).await;
        // No new sender finds us from here on. Those whom the kernel has let in already may have sent something; where
        // the socket stays, the relay after us lets them in.
        drop(file);
        if !handed_over {
            host.accept_held(&listener);
        }
        drop(listener);
        // Only now are connections reset: a sender that came again while there was a listener would speak to nobody.
        end.send_replace(true);
        // Every connection gives its place back when it is over.
        let _ = host.room.acquire_many(ROOM).await;
    })
}

/// In all, and among those of its address.
type Admitted = (OwnedSemaphorePermit, Option<Member>);

struct Host {
    rules: watch::Receiver<Arc<Rules>>,
    /// A place for each connection.
    room: Arc<Semaphore>,
    crowd: Crowd,
    unfinished: Unfinished,
    intake: Intake,
    /// Says when nobody is let in any more.
    shutdown: watch::Receiver<bool>,
    /// Says when connections end: when that has come to pass.
    connections: watch::Receiver<bool>,
}

impl Host {
    async fn accept_until_stopped(&self, listener: &Listener) {
        let mut shutdown = self.shutdown.clone();
        let mut pause = SHORTEST_PAUSE;
        let mut warned: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopping(&mut shutdown) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((wire, from)) => {
                    pause = SHORTEST_PAUSE;
                    self.admit(wire, from);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
                        warned = Some(Instant::now());
                        warn!("listen: {}: cannot accept connections, trying on: {error}", self.rules.borrow().address);
                    }
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
                Ok((wire, from)) => self.admit(wire, from),
                Err(error) if concerns_one_connection(&error) => {}
                Err(_) => break,
            }
        }
    }

    /// `from`: its address, where senders have one.
    fn admit(&self, wire: Wire, from: Option<IpAddr>) {
        let rules = self.rules.borrow().clone();
        let metrics = rules.metrics.clone();
        metrics.accepted.inc();
        let place = match self.place(&rules, from) {
            Ok(place) => place,
            Err(reason) => {
                reason.inc();
                // So that the sender hears of it with its first write, not its second.
                wire.reset_on_close();
                return;
            }
        };
        let held = self.unfinished.held(place.1.as_ref().map(|member| member.unfinished.clone()));
        let (mut intake, shutdown) = (self.intake.clone(), self.connections.clone());
        intake.set_peer(from);
        metrics.connections.inc();
        tokio::spawn(async move {
            connection::serve(wire, &rules, &metrics, held, intake, shutdown).await;
            metrics.connections.dec();
            drop(place);
        });
    }

    /// A place for a connection, for as long as what is returned lives. An error: what counts that there is none.
    fn place<'a>(&self, rules: &'a Rules, from: Option<IpAddr>) -> Result<Admitted, &'a Counter> {
        let Rules { limits, metrics, .. } = rules;
        let refused = &metrics.refused;
        if from.is_some_and(|from| !limits.lets_in(from)) {
            return Err(&refused.allow);
        }
        let has_room = ROOM as usize - self.room.available_permits() < limits.max_connections;
        let place = self.room.clone().try_acquire_owned().ok().filter(|_| has_room).ok_or(&refused.max_connections)?;
        let join = |from| self.crowd.join(from, limits.max_connections_per_address);
        let member = from.map(|from| join(from).ok_or(&refused.max_connections_per_address)).transpose()?;
        Ok((place, member))
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
    async fn accept(&self) -> io::Result<(Wire, Option<IpAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                (Wire::new(Accepted::Tcp(socket)), Some(from.ip()))
            }
            Self::Unix(listener) => (Wire::new(Accepted::Unix(listener.accept().await?.0)), None),
        })
    }

    /// Takes a connection that the kernel has ready. Asks the kernel itself: the runtime may not have heard of it yet.
    fn accept_held(&self) -> io::Result<(Wire, Option<IpAddr>)> {
        let listener = match self {
            Self::Tcp(listener) => SockRef::from(listener),
            Self::Unix(listener) => SockRef::from(listener),
        };
        let (socket, from) = listener.accept()?;
        socket.set_nonblocking(true)?;
        let wire = Wire::new(match self {
            Self::Tcp(_) => Accepted::Tcp(TcpStream::from_std(socket.into())?),
            Self::Unix(_) => Accepted::Unix(UnixStream::from_std(socket.into())?),
        });
        Ok((wire, from.as_socket().map(|from| from.ip())))
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
