//! The senders: numbered messages like Docker's, at a steady rate over several connections, whatever happens.
//!
//! A message counts as sent when the kernel has taken all of it on a connection that was alive a moment before. When the
//! relay goes, the unfinished message is sent again, whole, on the next connection, and what was due in the meantime is
//! skipped, not saved up: a sender that was held back does not come back with a flood.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};

use super::support::{Docker, Format, within};
use super::tally::mark;

/// Connections, and streams of numbers: each has its own.
pub const STREAMS: usize = 4;
/// Bytes of a message, its LF included.
const MESSAGE: usize = 200;
/// Messages of one stream that may be late before they are skipped, as a share of a second.
const LATE: f64 = 0.05;
/// Between two looks at the clock, and the longest a full connection holds its sender.
const TICK: Duration = Duration::from_millis(1);
const HELD: Duration = Duration::from_millis(20);
/// Between two attempts to connect.
const CONNECT_AGAIN: Duration = Duration::from_millis(10);
/// Nobody waits so long for a load to get on, but a test that fails.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy)]
pub enum Way {
    Udp(SocketAddr),
    Tcp(SocketAddr),
}

pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Messages handed over, by stream: the number of the next one.
    sent: [AtomicUsize; STREAMS],
    /// Messages sent or skipped, of all streams: how far the story is.
    due: AtomicUsize,
}

impl Load {
    /// So many messages each second, of all streams together.
    pub fn start(way: Way, rate: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..STREAMS).map(|stream| {
            let shared = shared.clone();
            std::thread::spawn(move || talk(stream, Wire::new(way), &shared, rate as f64 / STREAMS as f64))
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// Until so many more were due.
    pub fn goes_on(&self, more: usize) {
        let goal = self.due() + more;
        let reached = within(PATIENCE, || (self.due() >= goal).then_some(()));
        assert!(reached.is_some(), "the load stands still at {} of {goal}", self.due());
    }

    /// Until so many were sent since the start; or were due twice over, for there are relays that hold their senders.
    pub fn has_sent(&self, goal: usize) {
        let reached =
            within(PATIENCE, || (self.sent().iter().sum::<usize>() >= goal || self.due() >= 2 * goal).then_some(()));
        assert!(reached.is_some(), "the load stands still at {} of {goal}", self.due());
    }

    pub fn due(&self) -> usize {
        self.shared.due.load(Ordering::Relaxed)
    }

    /// How many messages of each stream were handed over.
    pub fn sent(&self) -> [usize; STREAMS] {
        self.shared.sent.each_ref().map(|sent| sent.load(Ordering::Relaxed))
    }

    pub fn ends(self) -> [usize; STREAMS] {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a sender"));
        self.shared.sent.each_ref().map(|sent| sent.load(Ordering::Relaxed))
    }
}

fn talk(stream: usize, mut wire: Wire, shared: &Shared, rate: f64) {
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let (start, late) = (Instant::now(), (rate * LATE).max(1.0) as usize);
    let (mut number, mut taken) = (0, 0);
    let mut message = numbered(&container, stream, number);
    // What has begun is brought to its end.
    while !shared.stop.load(Ordering::Relaxed) || wire.is_in_the_middle() {
        let due = (start.elapsed().as_secs_f64() * rate) as usize;
        let skipped = due.saturating_sub(taken + late);
        taken += skipped;
        shared.due.fetch_add(skipped, Ordering::Relaxed);
        if taken >= due {
            std::thread::sleep(TICK);
        } else if wire.hands_over(&message) {
            number += 1;
            taken += 1;
            shared.sent[stream].store(number, Ordering::Relaxed);
            shared.due.fetch_add(1, Ordering::Relaxed);
            message = numbered(&container, stream, number);
        }
    }
}

/// The mark stands at the end: a message that was cut has none.
fn numbered(container: &Docker, stream: usize, number: usize) -> Vec<u8> {
    let mark = mark(stream, number);
    let padding = MESSAGE - container.says(mark.as_bytes()).len();
    container.says(format!("{}{mark}", ".".repeat(padding)).as_bytes())
}

enum Wire {
    Udp(UdpSocket),
    Tcp {
        to: SocketAddr,
        stream: Option<TcpStream>,
        /// Bytes of the message that the kernel has taken.
        taken: usize,
    },
}

impl Wire {
    fn new(way: Way) -> Self {
        match way {
            Way::Udp(to) => {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                socket.connect(to).expect("udp always connects");
                Self::Udp(socket)
            }
            Way::Tcp(to) => Self::Tcp { to, stream: None, taken: 0 },
        }
    }

    fn is_in_the_middle(&self) -> bool {
        matches!(self, Self::Tcp { stream: Some(_), taken: 1.., .. })
    }

    /// Whether the kernel has all of it now. If not, the same message must come again.
    fn hands_over(&mut self, message: &[u8]) -> bool {
        match self {
            // A refusal is the answer to an earlier datagram; this one is as gone as any.
            Self::Udp(socket) => socket.send(message).is_ok() || socket.send(message).is_ok(),
            Self::Tcp { to, stream, taken } => {
                let Some(open) = stream else {
                    *taken = 0;
                    *stream = connect(*to);
                    return false;
                };
                if !is_alive(open) {
                    *stream = None;
                    return false;
                }
                match open.write(&message[*taken..]) {
                    Ok(length) => *taken += length,
                    Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
                    Err(_) => *stream = None,
                }
                let whole = *taken == message.len();
                if whole {
                    *taken = 0;
                }
                whole
            }
        }
    }
}

fn connect(to: SocketAddr) -> Option<TcpStream> {
    let connected = TcpStream::connect(to).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(HELD))?;
        Ok(stream)
    });
    if connected.is_err() {
        std::thread::sleep(CONNECT_AGAIN);
    }
    connected.ok()
}

/// Nobody has hung up: the first write after that would "succeed".
fn is_alive(stream: &TcpStream) -> bool {
    let looked = recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK);
    looked == Err(nix::errno::Errno::EAGAIN)
}
