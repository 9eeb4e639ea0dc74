//! `udp://` and `unixgram://`: one datagram is one message. Each socket has an OS thread of its own.
//!
//! Why a thread: what costs is waking up, not copying. `recvmmsg` takes up to 64 datagrams in one call, and a short nap
//! when there are few lets more of them come, which then go the whole way to the collector in one piece: half the CPU
//! time of every way through epoll, where each datagram wakes the runtime. The nap must be the operating system's, for
//! the same reason.

use std::io::{self, IoSliceMut};
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use parking_lot::Mutex;
use socket2::Socket;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::error;

use super::ingest::Ingest;
use super::refusal::RefusalReason;
use super::socket::{self, NameWatch};
use super::{DRAIN_PATIENCE, Place, Rules, SMALL_RECEIVE_BUFFER, report_receive_buffer, stopping};
use crate::config::Limits;
use crate::interfaces::{ip, ip_and_port};
use crate::metrics::ListenMetrics;
use crate::protocol::framing::{Notes, Skipped};
use crate::protocol::session::{Protocol, ToRecord};
use crate::protocol::{gelf, proxy};
use crate::status::SharedListenerStatus;
use crate::sys;
use crate::tasks::spawn;

/// Datagrams taken in one system call.
const BATCH: usize = 64;
/// Bytes for one datagram: more than UDP can carry (65,507). Only the pages that are used become real memory.
const DATAGRAM: usize = 64 * 1024;
/// Bytes of a thread's stack: Rust's own default.
const STACK: usize = 2 * 1024 * 1024;
/// A batch with fewer datagrams is small: there is time to let it grow.
const SMALL_BATCH: usize = 32;
/// How long the next one may grow after a small one was handed on at once.
const NAP: Duration = Duration::from_micros(500);
/// How long a small one may grow itself when there are many, and what a batch costs on its way counts for more than when it
/// arrives…
const LONG_NAP: Duration = Duration::from_millis(1);
/// …and how often they come then, on average.
const MANY: Duration = Duration::from_micros(66);
/// What a datagram of 200 bytes takes of the receive buffer. At a million of them a second, none may be lost in a nap.
const BUFFER_BYTES: usize = 1280;
/// Batches that are handed on in one piece, at the most. Beyond it nothing is gained but delay…
const BATCHES_AT_ONCE: usize = 8;
/// …and bytes of it: datagrams may be of 64 KiB, and say image and name three times when they are lines.
const BYTES_AT_ONCE: usize = 256 * 1024;
/// An idle thread looks up this often, in case a kernel does not wake it when its socket is shut down. Linux does, and
/// the tests rely on it.
const LOOK_UP: Duration = Duration::from_secs(if cfg!(test) { 3600 } else { 1 });
/// …and this often where the socket was handed over, which is not shut down: a stop must not wait for an idle thread while
/// another socket fills.
const LOOK_UP_SOON: Duration = Duration::from_millis(50);
/// Receive errors in a row after which the thread pauses between two of them.
const ERRORS_IN_A_ROW: u32 = 64;
/// The pause.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A socket whose thread is there and waits for its work; it ends when there will be none.
pub(super) struct Idle {
    socket: Arc<Socket>,
    work: mpsc::Sender<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Idle {
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        Self::with_stack(socket, STACK)
    }

    /// An error: the system has no thread left, or no room for its stack.
    pub(super) fn with_stack(socket: Socket, stack: usize) -> io::Result<Self> {
        let (work, comes) = mpsc::channel::<Work>();
        let waits = move || {
            if let Ok(work) = comes.recv() {
                work();
            }
        };
        thread::Builder::new().name("listen".into()).stack_size(stack).spawn(waits)?;
        Ok(Self { socket: Arc::new(socket), work })
    }
}

pub(super) fn start(
    idle: Idle,
    place: Place,
    receive_buffer: usize,
    mut rules: watch::Receiver<Arc<Rules>>,
    ingest: Ingest,
    mut shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let Idle { socket, work } = idle;
    let Place { address, file, handed_over, metrics, state } = place;
    let mut name = NameWatch::start(&address, file, (metrics.rebinds.clone(), state.clone()), Ok);
    let next = Arc::default();
    rules.mark_unchanged();
    let stop = Arc::new(AtomicBool::new(false));
    // The kernel counts for as long as there is the socket, which may be longer than there are we.
    let drops_before = if handed_over { drops(&socket).unwrap_or(0) } else { 0 };
    let receiver = Receiver {
        look_up: if handed_over { LOOK_UP_SOON } else { LOOK_UP },
        // A unix sender does not lose but wait when the queue is full, and the queue may hold ten: no nap there.
        naps: address.is_udp() && receive_buffer >= SMALL_RECEIVE_BUFFER,
        longest_nap: LONG_NAP.min(Duration::from_micros((receive_buffer / BUFFER_BYTES) as u64)),
        handed_on: Instant::now(),
        are_many: false,
        received: 0,
        socket: socket.clone(),
        next: Arc::clone(&next),
        stop: stop.clone(),
        rules: rules.clone(),
        drops: drops_before,
        gelf: None,
        bytes: 0,
        expected: 0,
        ingest,
        metrics: metrics.clone(),
        state,
        buffers: vec![0; BATCH * DATAGRAM],
    };
    let (done, finished) = oneshot::channel();
    let run = move || {
        receiver.run();
        // Nobody listening means that nobody waits for us.
        let _ = done.send(());
    };
    // The thread ends only after its work, or when `work` is gone.
    let _ = work.send(Box::new(run));
    spawn(async move {
        let (mut finished, mut granted, mut socket) = (finished, receive_buffer, socket);
        loop {
            tokio::select! {
                _ = stopping(&mut shutdown) => break,
                _ = &mut finished => {
                    error!("listen: {address}: the receiving thread ended by itself");
                    return;
                }
                rebound = name.rebound() => {
                    let before = std::mem::replace(&mut socket, Arc::new(rebound));
                    *next.lock() = Some(socket.clone());
                    // Wakes the thread, and says to those who still send to the socket without a name that it is over.
                    let _ = before.shutdown(std::net::Shutdown::Read);
                }
                Ok(()) = rules.changed() => {
                    let rules = rules.borrow_and_update();
                    if address.is_udp()
                        && !handed_over
                    {
                        match socket::grow_receive_buffer(&socket, rules.receive_buffer) {
                            // The same as before is no news.
                            Ok(now) if now == granted => {}
                            Ok(now) => {
                                granted = now;
                                report_receive_buffer(&address, granted, &metrics);
                            }
                            Err(error) => {
                                error!("listen: {address}: cannot set its receive buffer: {error}; it stays as it was");
                            }
                        }
                    }
                }
            }
        }
        // No new sender finds us from here on.
        name.remove().await;
        stop.store(true, Ordering::Release);
        // Wakes the thread. On an unconnected socket it "fails", and still does. A socket that stays would never be
        // the same again: there the thread looks up by itself.
        if !handed_over {
            let _ = socket.shutdown(std::net::Shutdown::Read);
        }
        let _ = finished.await;
    })
}

struct Receiver {
    socket: Arc<Socket>,
    /// The socket that has the name of this one now.
    next: Arc<Mutex<Option<Arc<Socket>>>>,
    stop: Arc<AtomicBool>,
    /// The listener's settings: which peers may send, and how many bytes of a datagram are kept.
    rules: watch::Receiver<Arc<Rules>>,
    /// How often an idle thread looks whether it is to stop.
    look_up: Duration,
    naps: bool,
    longest_nap: Duration,
    /// When something was last handed on, and whether there were many.
    handed_on: Instant,
    are_many: bool,
    /// Datagrams received since.
    received: u32,
    /// The kernel's count of datagrams dropped, as last seen; it wraps.
    drops: u32,
    ingest: Ingest,
    metrics: ListenMetrics,
    state: SharedListenerStatus,
    /// Where GELF is spoken.
    gelf: Option<Box<gelf::Datagrams>>,
    /// Bytes received and not handed on yet; and those that were handed on last.
    bytes: usize,
    expected: usize,
    /// `BATCH` times `DATAGRAM` bytes.
    buffers: Vec<u8>,
}

impl Receiver {
    fn forget_errors(&self, errors: &mut u32) {
        if std::mem::take(errors) >= ERRORS_IN_A_ROW {
            self.state.works();
        }
    }

    fn run(mut self) {
        // Without it there is a slower stop, but the messages still come.
        let _ = self.socket.set_read_timeout(Some(self.look_up));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut errors = 0u32;
        while !self.stop.load(Ordering::Acquire) {
            let next = self.next.lock().take();
            if let Some(next) = next {
                self.read_out(&mut headers);
                self.socket = next;
                let _ = self.socket.set_read_timeout(Some(self.look_up));
            }
            match self.receive(&mut headers, MsgFlags::MSG_WAITFORONE) {
                Ok(mut count) => {
                    self.forget_errors(&mut errors);
                    let (naps, are_many) = (self.naps && count < SMALL_BATCH, self.are_many);
                    if naps && are_many {
                        thread::sleep(self.longest_nap);
                        count = BATCH; // There may be more.
                    }
                    for _ in 1..BATCHES_AT_ONCE {
                        if count < BATCH {
                            break;
                        }
                        // An error comes again when we wait.
                        count = self.receive(&mut headers, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
                    }
                    self.hand_on();
                    if naps && !are_many {
                        thread::sleep(NAP);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    self.forget_errors(&mut errors);
                    self.give_up_chunks();
                }
                // What the network says about a datagram (ECONNREFUSED and its like) is gone once it is read. Should
                // an error come back for ever, we neither end nor spin: whatever it is may pass.
                Err(error) => {
                    errors += 1;
                    if errors >= ERRORS_IN_A_ROW {
                        self.state.fails(&error);
                        thread::sleep(ERROR_PAUSE);
                    }
                }
            }
        }
        self.read_out(&mut headers);
        forget_chunks(&mut self.gelf, &self.metrics);
    }

    /// Hands on what the kernel holds. No new sender finds this socket.
    fn read_out(&mut self, headers: &mut MultiHeaders<SockaddrStorage>) {
        let patience = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < patience && self.receive(headers, MsgFlags::MSG_DONTWAIT).is_ok() {
            self.hand_on();
        }
    }

    /// Hands on what was received.
    fn hand_on(&mut self) {
        if let Some(drops) = drops(&self.socket) {
            self.metrics.kernel_drops.inc_by(drops.wrapping_sub(mem::replace(&mut self.drops, drops)).into());
        }
        self.are_many = self.handed_on.elapsed() < mem::take(&mut self.received) * MANY;
        self.handed_on = Instant::now();
        self.ingest.flush_blocking();
        self.expected = mem::take(&mut self.bytes);
    }

    /// Takes one batch. Returns how many datagrams there were.
    fn receive(&mut self, headers: &mut MultiHeaders<SockaddrStorage>, flags: MsgFlags) -> Result<usize, Errno> {
        let mut slices: Vec<_> =
            self.buffers.chunks_exact_mut(DATAGRAM).map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let batch = recvmmsg(self.socket.as_raw_fd(), headers, slices.iter_mut(), flags, None)?;
        let (mut count, mut bytes, mut received, mut cuts, mut skipped) = (0, 0, 0, 0, 0);
        let mut last_refused = None;
        let rules = self.rules.borrow().clone();
        let max_frame = rules.limits.max_frame;
        if rules.protocol == Protocol::Gelf {
            let max_unfinished = rules.limits.max_unfinished;
            self.gelf
                .get_or_insert_with(|| Box::new(gelf::Datagrams::new(max_unfinished)))
                .keep_at_most(max_unfinished);
        } else {
            forget_chunks(&mut self.gelf, &self.metrics);
        }
        let now = Instant::now();
        self.ingest.begin(self.expected.min(BYTES_AT_ONCE));
        for message in batch {
            count += 1;
            bytes += message.bytes;
            let sent = message.iovs().next().unwrap_or_default();
            if is_empty(without_nuls(sent)) {
                continue; // Empty, as an empty line is in a stream. A shutdown of the socket looks like this too.
            }
            let (peer, whole) = match sender(&rules.limits, sent, message.address.as_ref().and_then(ip)) {
                Ok((_, whole)) if is_empty(whole) => continue, // A proxy looks whether we live.
                Ok(taken) => taken,
                Err(refusal) => {
                    rules.refusals.count(&refusal.reason);
                    last_refused = Some(refusal);
                    continue;
                }
            };
            self.ingest.set_peer(peer);
            if let Some(gelf) = &mut self.gelf {
                let Some(mut from) = message.address.as_ref().and_then(ip_and_port) else { continue };
                // Behind a proxy two senders may have one ID, and one socket.
                from.set_ip(peer.unwrap_or(from.ip()));
                let taken = gelf.take(from, whole, now, |json| {
                    let known = gelf::outline(json, max_frame).and_then(|outline| self.ingest.known(&outline));
                    if known.is_none() {
                        let message = gelf::Message::read(json)?.at_most(max_frame);
                        cuts += u64::from(message.is_cut());
                        self.ingest.record(&message);
                    }
                    received += 1;
                    Ok(())
                });
                if let Err(why) = taken {
                    let reason = RefusalReason::NoMessage(Protocol::Gelf, why.into());
                    rules.refusals.count(&reason);
                    last_refused = Some(Refusal { peer, reason });
                }
                if self.ingest.pending() > BYTES_AT_ONCE {
                    self.ingest.flush_blocking();
                }
                continue;
            }
            let whole = without_nuls(whole);
            let frame = &whole[..whole.len().min(max_frame)];
            let cut = frame.len() < whole.len() || message.flags.contains(MsgFlags::MSG_TRUNC);
            received += 1;
            cuts += u64::from(cut);
            skipped += (whole.len() - frame.len()) as u64;
            self.ingest.frame(frame, cut);
            if self.ingest.pending() > BYTES_AT_ONCE {
                self.ingest.flush_blocking();
            }
        }
        self.metrics.bytes.inc_by(bytes as u64);
        self.metrics.received.inc_by(received);
        self.metrics.cut.max_frame.inc_by(cuts);
        // Only the last of a batch: a flood of datagrams must not cost more than counting them.
        if let Some(Refusal { peer, reason }) = last_refused {
            rules.refusals.report(peer, &reason);
        }
        if skipped > 0 {
            let skipped = Skipped { limit: skipped, ..Skipped::default() };
            let notes = Notes { skipped, ..Notes::default() };
            rules.notices.notes(notes, self.ingest.peer(), &self.metrics.skipped);
        }
        self.bytes += bytes;
        self.received += count as u32;
        self.give_up_chunks();
        Ok(count)
    }

    /// Messages whose chunks have not come are lost: counts them, and says so.
    fn give_up_chunks(&mut self) {
        let Some(gelf) = &mut self.gelf else { return };
        for (why, messages) in gelf.give_up(Instant::now()) {
            let reason = RefusalReason::NoMessage(Protocol::Gelf, why.into());
            let rules = self.rules.borrow();
            rules.refusals.count_many(&reason, messages);
            rules.refusals.report(gelf.lost_from(), &reason);
        }
    }
}

/// No chunk will come any more for messages that lack some.
fn forget_chunks(gelf: &mut Option<Box<gelf::Datagrams>>, metrics: &ListenMetrics) {
    if let Some(gelf) = gelf.take() {
        metrics.unfinished.inc_by(gelf.unfinished() as u64);
    }
}

/// Is there no message in a datagram?
fn is_empty(datagram: &[u8]) -> bool {
    datagram.iter().all(|&byte| byte == b'\n')
}

/// A datagram without the NULs at its end, which Python's `SysLogHandler` and others write there. Docker's end in LF.
fn without_nuls(datagram: &[u8]) -> &[u8] {
    &datagram[..datagram.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)]
}

/// Why a datagram is not taken, and whose it is.
struct Refusal {
    peer: Option<IpAddr>,
    reason: RefusalReason,
}

/// The address of a datagram's sender, and the message. Behind a proxy the datagram begins with a header, which has the address
/// and is no part of the message.
#[inline]
fn sender<'d>(limits: &Limits, whole: &'d [u8], peer: Option<IpAddr>) -> Result<(Option<IpAddr>, &'d [u8]), Refusal> {
    let refused = |peer, reason| Err(Refusal { peer, reason });
    if !limits.allow.is_empty() && !peer.is_some_and(|peer| limits.lets_in(peer)) {
        return refused(peer, RefusalReason::Allow);
    }
    if !limits.proxy_protocol {
        return Ok((peer, whole));
    }
    match proxy::read_datagram(whole) {
        None => refused(peer, RefusalReason::NoProxyHeader),
        Some((_, Some(client))) if !limits.lets_in_client(client) => refused(Some(client), RefusalReason::ClientAllow),
        Some((len, client)) => Ok((client.or(peer), &whole[len..])),
    }
}

/// How many datagrams the kernel has dropped at this socket; it wraps. `None`: this kernel does not tell (before Linux 4.12).
fn drops(socket: &Socket) -> Option<u32> {
    /// linux/sock_diag.h.
    const SK_MEMINFO_DROPS: usize = 8;
    const BYTES: usize = 4 * (SK_MEMINFO_DROPS + 1);
    let info: [u8; BYTES] = sys::socket_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO).ok()??;
    info.last_chunk().map(|drops| u32::from_ne_bytes(*drops))
}
