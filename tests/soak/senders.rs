//! The senders that stay: one for each transport, at a steady rate, each on one connection from beginning to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::support::{Docker, Format, RelpPeer, Wire, within};
use super::tally::{Sent, Stream};
use super::world::Doors;

/// Bytes of a message, without its framing.
const MESSAGE: usize = 200;
/// Time between two checks of the clock.
const TICK: Duration = Duration::from_millis(2);
/// Only a failing test waits this long for the load.
const PATIENCE: Duration = Duration::from_secs(600);

const STAYING: [Stream; 4] = [Stream::Udp, Stream::Tcp, Stream::Tls, Stream::Relp];

pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The state that all senders share, guests included.
pub struct Shared {
    stop: AtomicBool,
    /// Messages handed over, by stream: the number of the next one.
    sent: [AtomicUsize; Stream::ALL.len()],
}

impl Shared {
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The next message of a stream, in a container's format, with an LF.
    pub fn message(&self, stream: Stream) -> Vec<u8> {
        numbered(&Docker::new(Format::Rfc5424Micro, "web"), stream, self.sent[stream as usize].load(Ordering::Relaxed))
    }

    pub fn was_sent(&self, stream: Stream) {
        self.sent[stream as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn sent(&self) -> Sent {
        self.sent.each_ref().map(|sent| sent.load(Ordering::Relaxed))
    }

    pub fn total(&self) -> usize {
        self.sent().iter().sum()
    }
}

impl Load {
    /// Starts senders that send `rate` messages per second together. Their numbers start at `from`. `guests` runs
    /// beside them.
    pub fn start(doors: &Doors, rate: usize, from: Sent, guests: impl FnOnce(Arc<Shared>) + Send + 'static) -> Self {
        let shared = Arc::new(Shared { sent: from.map(AtomicUsize::new), stop: AtomicBool::new(false) });
        let guests_share = shared.clone();
        let mut threads: Vec<_> = STAYING
            .into_iter()
            .map(|stream| {
                let (shared, doors) = (shared.clone(), doors.clone());
                std::thread::spawn(move || talk(stream, &doors, &shared, rate as f64 / STAYING.len() as f64))
            })
            .collect();
        threads.push(std::thread::spawn(move || guests(guests_share)));
        Self { shared, threads }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until `more` further messages were sent.
    pub fn goes_on(&self, more: usize) {
        let goal = self.shared.total() + more;
        let reached = within(PATIENCE, || {
            let fell_over = self.threads.iter().any(JoinHandle::is_finished);
            (fell_over || self.shared.total() >= goal).then_some(!fell_over)
        });
        assert_eq!(reached, Some(true), "a sender has ended, or the load stands still: {:?}", self.shared.sent());
    }

    /// Ends the load. Returns how many messages of each stream were handed over.
    pub fn ends(self) -> Sent {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a sender"));
        self.shared.sent()
    }
}

fn talk(stream: Stream, doors: &Doors, shared: &Shared, rate: f64) {
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut voice = match stream {
        Stream::Udp => Voice::Wire(doors.udp.connect()),
        Stream::Tcp => Voice::Wire(doors.tcp.connect()),
        Stream::Tls => Voice::Wire(doors.connect_tls()),
        _ => Voice::Relp(RelpPeer::opened(&doors.relp), 1),
    };
    let start = Instant::now();
    let first = shared.sent()[stream as usize];
    let mut number = first;
    while !shared.is_over() {
        let due = first + (start.elapsed().as_secs_f64() * rate) as usize;
        if number < due {
            let messages: Vec<_> = (number..due).map(|number| numbered(&container, stream, number)).collect();
            voice.says(&messages);
            number = due;
            shared.sent[stream as usize].store(number, Ordering::Relaxed);
        }
        // This sleep sets a pace and waits for no event.
        std::thread::sleep(TICK);
    }
    if let Voice::Wire(wire) = voice {
        wire.close();
    }
}

/// The connection of a stream.
enum Voice {
    Wire(Wire),
    /// A RELP session, with the number of its last transaction.
    Relp(RelpPeer, u32),
}

impl Voice {
    /// Sends messages. With RELP, it returns when all are acknowledged.
    fn says(&mut self, messages: &[Vec<u8>]) {
        match self {
            // Docker's driver frames TLS with octet counting. The other connections end messages with an LF.
            Self::Wire(wire @ Wire::Tls(_)) => messages.iter().for_each(|message| wire.send_counted(message)),
            Self::Wire(wire) => messages.iter().for_each(|message| wire.send(message)),
            Self::Relp(peer, last) => {
                for message in messages {
                    // Number 1 was the session's `open`. Numbers do not reach their limit within a day.
                    *last += 1;
                    peer.says(*last, "syslog", message);
                }
                messages.iter().for_each(|_| assert!(peer.frame().is_some_and(|answer| answer.is_ok()), "refused"));
            }
        }
    }
}

fn numbered(container: &Docker, stream: Stream, number: usize) -> Vec<u8> {
    let mark = stream.mark(number);
    let padding = MESSAGE.saturating_sub(container.says(mark.as_bytes()).len());
    container.says(format!("{}{mark}", ".".repeat(padding)).as_bytes())
}
