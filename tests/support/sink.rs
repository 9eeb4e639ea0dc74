//! A collector that counts: a mark in each message says which it is, and nothing else of it is kept. For hours, and for crowds.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Streams of numbered messages there can be.
const STREAMS: usize = 10;
/// Bytes of a mark.
const MARK: usize = "@0:00000000;".len();

/// How a message says which it is.
pub fn mark(stream: usize, number: usize) -> String {
    assert!(stream < STREAMS && number < 100_000_000);
    format!("@{stream}:{number:08};")
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Which numbers came, by stream.
    came: [Vec<bool>; STREAMS],
    arrived: [usize; STREAMS],
    /// How many came again.
    pub repeated: usize,
}

impl Tally {
    /// How many different ones of a stream.
    pub fn arrived(&self, stream: usize) -> usize {
        self.arrived[stream]
    }

    /// Whether all of a stream have come that were sent.
    pub fn has(&self, stream: usize, sent: usize) -> bool {
        // Looking at each of them takes longer, and most often there is nothing to find.
        self.arrived[stream] >= sent || self.missing(stream, sent).next().is_none()
    }

    /// Those of a stream that were sent and have not come.
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

/// Takes connections for as long as the process runs.
pub struct Sink {
    address: SocketAddr,
    tally: Arc<Mutex<Tally>>,
}

impl Sink {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tally = Arc::<Mutex<Tally>>::default();
        let counts = tally.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let counts = counts.clone();
                std::thread::spawn(move || read(stream, &counts));
            }
        });
        Self { address, tally }
    }

    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(mut stream: TcpStream, tally: &Mutex<Tally>) {
    let (mut bytes, mut held) = (vec![0; 64 * 1024], 0);
    while let Ok(length @ 1..) = stream.read(&mut bytes[held..]) {
        let end = held + length;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        memchr::memchr_iter(b'@', &bytes[..end]).filter(|at| at + MARK <= end).for_each(|at| {
            tally.add(&bytes[at..at + MARK]);
        });
        drop(tally);
        // Less than a mark, so that none is counted twice.
        held = end.min(MARK - 1);
        bytes.copy_within(end - held..end, 0);
    }
}
