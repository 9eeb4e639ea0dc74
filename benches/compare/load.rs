//! The load: senders that write numbered lines in Docker's default format, and sinks that count the lines that arrive.
//!
//! Each line ends with its sender, its number and the time it was sent, as digits at fixed positions. A relay may
//! rewrite the header, but the end of the line stays. Threads and blocking sockets keep the cost of these tools below
//! the cost of what they measure.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memchr::memchr;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use super::support::collector::server_config;
use super::support::{Certs, Door, TlsClient, Wire, eventually};

/// The receive buffer of a relay's UDP socket, in bytes: our default. The other relays get the same size.
pub const RECEIVE_BUFFER: usize = 8 << 20;

/// How messages enter and leave the relay. Messages that enter by UDP leave by TCP.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Udp,
    Tcp,
    Tls,
}

/// Bytes of a line, its LF included.
const LINE: usize = 200;
/// The most lines of one write: about 64 KB.
const BLOCK: usize = 320;
const HEAD: &[u8] = b"<30>Nov 21 10:00:00 registry.local:5000/team/app:1.2.3/proj-web-1/0123456789ab[1234]: ";
/// Length of ` sender number micros`, each with a blank before it. It is the end of a line without its LF.
const MARK: usize = 4 + 10 + 13;
const SENDER: Range<usize> = 1..4;
const NUMBER: Range<usize> = 5..14;
const MICROS: Range<usize> = 15..27;
/// The sender number of the line that tests whether the path through the relay is open.
const SCOUT: u64 = 999;
/// A working relay never blocks a sender for this long.
const HELD: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub struct Load {
    way: Way,
    senders: u64,
    messages_each: u64,
    rate: Option<u64>,
    /// All times are relative to this instant.
    clock: Instant,
}

pub struct Sink {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

/// The lines that have arrived at a sink.
pub struct Tally {
    /// Whether a line has arrived, by sender and number.
    seen: Vec<Vec<bool>>,
    expected: u64,
    pub unique: u64,
    pub twice: u64,
    pub last: Instant,
    /// Latency from the sender to the sink. It is recorded only at a fixed rate: at full speed it would measure the
    /// length of queues.
    pub micros: Vec<u32>,
    is_timed: bool,
    scout: bool,
    clock: Instant,
}

impl Load {
    pub fn new(way: Way, senders: u64, messages: u64, rate: Option<u64>) -> Self {
        Self { way, senders, messages_each: messages / senders, rate, clock: Instant::now() }
    }

    pub fn messages(&self) -> u64 {
        self.senders * self.messages_each
    }

    /// Returns when a line has reached each sink. The relay's work for its first message is therefore not measured.
    pub fn warms_up(&self, to: SocketAddr, sinks: &[Sink], mut is_up: impl FnMut()) {
        let mut wire = connect(self.way, to);
        let mut line = lines(SCOUT);
        eventually("a line comes through", || {
            is_up();
            mark(&mut line, 0, 1, 0);
            send(&mut wire, &line[..LINE]).expect("the relay takes a line");
            sinks.iter().all(|sink| sink.tally().scout).then_some(())
        });
    }

    /// Sends all messages and returns the connections. The caller keeps them open until everything has arrived: closing
    /// a socket with unread data would reset the connection.
    pub fn is_sent(&self, to: SocketAddr) -> Vec<Wire> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.senders).map(|sender| scope.spawn(move || self.talk(sender, to))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a sender")).collect()
        })
    }

    fn talk(&self, sender: u64, to: SocketAddr) -> Wire {
        let mut wire = connect(self.way, to);
        let (mut lines, mut sent, start) = (lines(sender), 0, Instant::now());
        let nanos_each = self.rate.map(|rate| 1_000_000_000 * self.senders / rate);
        while sent < self.messages_each {
            let due = match nanos_each {
                Some(nanos) => start.elapsed().as_nanos() as u64 / nanos + 1,
                None => self.messages_each,
            };
            let count = (due.min(self.messages_each) - sent).min(BLOCK as u64);
            if count > 0 {
                mark(&mut lines, sent, count as usize, self.clock.elapsed().as_micros() as u64);
                if let Err(error) = send(&mut wire, &lines[..count as usize * LINE]) {
                    eprintln!("sender {sender} was cut off after {sent} messages: {error}");
                    break;
                }
                sent += count;
            } else {
                let next = Duration::from_nanos(sent * nanos_each.unwrap_or_default());
                thread::sleep(next.saturating_sub(start.elapsed()));
            }
        }
        wire
    }
}

/// A block of lines of one sender. The marks are filled in later.
fn lines(sender: u64) -> Vec<u8> {
    let mark = format!(" {sender:03} {:09} {:012}\n", 0, 0);
    let padding = LINE - HEAD.len() - mark.len();
    [HEAD, &vec![b'x'; padding], mark.as_bytes()].concat().repeat(BLOCK)
}

fn mark(lines: &mut [u8], first: u64, count: usize, micros: u64) {
    for (line, number) in lines.chunks_exact_mut(LINE).take(count).zip(first..) {
        let mark = &mut line[LINE - 1 - MARK..];
        write_digits(&mut mark[NUMBER], number);
        write_digits(&mut mark[MICROS], micros);
    }
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

fn connect(way: Way, to: SocketAddr) -> Wire {
    let wire = match way {
        Way::Udp => Door::Udp(to).connect(),
        Way::Tcp => Door::Tcp(to).connect(),
        Way::Tls => Door::Tls(to).connect_tls(TlsClient { version: &rustls::version::TLS13, identified: false }),
    };
    let stream = match &wire {
        Wire::Tcp(stream) => stream,
        Wire::Tls(stream) => stream.get_ref(),
        _ => return wire,
    };
    stream.set_nodelay(true).expect("a socket option");
    stream.set_write_timeout(Some(HELD)).expect("a socket option");
    wire
}

fn send(wire: &mut Wire, lines: &[u8]) -> io::Result<()> {
    match wire {
        // An error reports an ICMP refusal of an earlier datagram. Lost datagrams are counted at the sink.
        Wire::Udp(socket) => lines.chunks(LINE).for_each(|line| drop(socket.send(line))),
        Wire::Tcp(stream) => stream.write_all(lines)?,
        Wire::Tls(stream) => stream.write_all(lines)?,
        _ => unreachable!("not made by connect"),
    }
    Ok(())
}

/// Waits until all sinks have all lines, or until no more lines arrive.
pub fn arrives(sinks: &[Sink], quiet: Duration) {
    let start = Instant::now();
    let is_due = |sink: &Sink| {
        let tally = sink.tally();
        tally.unique < tally.expected && tally.last.max(start).elapsed() < quiet
    };
    while sinks.iter().any(is_due) {
        thread::sleep(LOOK_AGAIN);
    }
}

impl Sink {
    pub fn new(load: &Load) -> Self {
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
        let address = listener.local_addr().expect("an address");
        let tally = Arc::new(Mutex::new(Tally {
            seen: vec![vec![false; load.messages_each as usize]; load.senders as usize],
            expected: load.messages(),
            unique: 0,
            twice: 0,
            last: load.clock,
            micros: Vec::new(),
            is_timed: load.rate.is_some(),
            scout: false,
            clock: load.clock,
        }));
        let tls = (load.way == Way::Tls).then(|| server_config(Certs::get(), false));
        let (accepts, counts) = (listener.clone(), tally.clone());
        let thread = thread::spawn(move || accept(&accepts, tls.as_ref(), &counts));
        Self { address, listener, tally, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sink {
    /// The relay has ended before this runs, so all connections are closed.
    fn drop(&mut self) {
        let _ = SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, tally: &Mutex<Tally>) {
    thread::scope(|scope| {
        while let Ok((stream, _)) = listener.accept() {
            scope.spawn(move || match tls {
                Some(config) => {
                    let connection = ServerConnection::new(config.clone()).expect("a server");
                    count(StreamOwned::new(connection, stream), tally);
                }
                None => count(stream, tally),
            });
        }
    });
}

fn count(mut from: impl Read, tally: &Mutex<Tally>) {
    let (mut bytes, mut held) = (vec![0; 256 << 10], 0);
    while let Ok(length @ 1..) = from.read(&mut bytes[held..]) {
        let now = Instant::now();
        let (mut rest, mut tally) = (&bytes[..held + length], tally.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(end) = memchr(b'\n', rest) {
            tally.add(&rest[..end], now);
            rest = &rest[end + 1..];
        }
        let start = held + length - rest.len();
        bytes.copy_within(start..held + length, 0);
        held = held + length - start;
    }
}

impl Tally {
    /// A line without a mark is a message of the relay itself and is ignored.
    fn add(&mut self, line: &[u8], now: Instant) {
        let Some((_, mark)) = line.split_last_chunk::<MARK>() else { return };
        let [sender, number, micros] = [SENDER, NUMBER, MICROS].map(|place| digits(&mark[place]));
        let (Some(sender), Some(number), Some(micros)) = (sender, number, micros) else { return };
        self.scout |= sender == SCOUT;
        let Some(seen) = self.seen.get_mut(sender as usize).and_then(|seen| seen.get_mut(number as usize)) else {
            return;
        };
        self.last = now;
        self.unique += u64::from(!*seen);
        self.twice += u64::from(*seen);
        *seen = true;
        if self.is_timed {
            let arrived = (now - self.clock).as_micros() as u64;
            self.micros.push(arrived.saturating_sub(micros) as u32);
        }
    }
}
