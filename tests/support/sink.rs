//! A collector that only counts: a mark identifies each message, and the rest is discarded. For runs of hours and for many senders.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::own_port;

/// Maximum number of streams.
const STREAMS: usize = 10;
/// Length of a mark in bytes.
const MARK: usize = "@0:00000000;".len();

/// The mark that identifies a message.
pub fn mark(stream: usize, number: usize) -> String {
    assert!(stream < STREAMS && number < 100_000_000);
    format!("@{stream}:{number:08};")
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By stream: whether each number has arrived.
    came: [Vec<bool>; STREAMS],
    arrived: [usize; STREAMS],
    /// Duplicates.
    pub repeated: usize,
}

impl Tally {
    /// The number of different messages of a stream.
    pub fn arrived(&self, stream: usize) -> usize {
        self.arrived[stream]
    }

    /// Whether all sent messages of a stream have arrived.
    pub fn has(&self, stream: usize, sent: usize) -> bool {
        // The count is cheaper than a look at each message, and is usually enough.
        self.arrived[stream] >= sent || self.missing(stream, sent).next().is_none()
    }

    /// Messages of a stream that were sent and have not arrived.
    pub fn missing(&self, stream: usize, sent: usize) -> impl Iterator<Item = usize> {
        (0..sent).filter(move |number| !self.came[stream].get(*number).is_some_and(|came| *came))
    }

    fn add(&mut self, mark: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(mark).ok().filter(|_| mark[2] == b':' && mark[MARK - 1] == b';')?;
        let (stream, number): (usize, usize) = (text[1..2].parse().ok()?, text[3..MARK - 1].parse().ok()?);
        let came = &mut self.came[stream];
        if came.len() <= number {
            came.resize(number + 1, false);
        }
        let again = std::mem::replace(&mut came[number], true);
        self.repeated += usize::from(again);
        self.arrived[stream] += usize::from(!again);
        Some(())
    }
}

/// Bytes per read.
const READ: usize = 64 * 1024;
/// The pause of a slow reader before each read.
const SLOWLY: Duration = Duration::from_millis(100);
/// Receive buffer of a sink that may read slowly, so that the relay soon notices.
const SMALL_BUFFER: usize = 16 * 1024;

/// Accepts connections for as long as the process runs.
pub struct Sink {
    address: SocketAddr,
    tally: Arc<Mutex<Tally>>,
    /// Bytes per read.
    reads: Arc<AtomicUsize>,
}

impl Sink {
    pub fn new() -> Self {
        Self::at(TcpListener::bind(own_port()).expect("a free port"))
    }

    /// Listens on every loopback address, for a name with many addresses. Can read slowly.
    pub fn everywhere() -> Self {
        let bound = || -> std::io::Result<TcpListener> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // Accepted sockets inherit the size.
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into())?;
            socket.listen(64)?;
            Ok(socket.into())
        };
        Self::at(bound().expect("a free port"))
    }

    fn at(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("bound");
        let (tally, reads) = (Arc::<Mutex<Tally>>::default(), Arc::new(AtomicUsize::new(READ)));
        let (counts, most) = (tally.clone(), reads.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (counts, most) = (counts.clone(), most.clone());
                std::thread::spawn(move || read(stream, &counts, &most));
            }
        });
        Self { address, tally, reads }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Reads `bytes` bytes ten times a second.
    pub fn reads_slowly(&self, bytes: usize) {
        assert!(0 < bytes && bytes < READ);
        self.reads.store(bytes, Ordering::Relaxed);
    }

    /// Reads as fast as possible again.
    pub fn reads_on(&self) {
        self.reads.store(READ, Ordering::Relaxed);
    }

    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(mut stream: TcpStream, tally: &Mutex<Tally>, reads: &AtomicUsize) {
    let (mut bytes, mut held) = (vec![0; READ + MARK], 0);
    loop {
        let most = reads.load(Ordering::Relaxed);
        if most < READ {
            std::thread::sleep(SLOWLY);
        }
        let Ok(length @ 1..) = stream.read(&mut bytes[held..held + most]) else { return };
        let end = held + length;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        memchr::memchr_iter(b'@', &bytes[..end]).filter(|at| at + MARK <= end).for_each(|at| {
            tally.add(&bytes[at..at + MARK]);
        });
        drop(tally);
        // Keep less than a mark, so that no mark is counted twice.
        held = end.min(MARK - 1);
        bytes.copy_within(end - held..end, 0);
    }
}
