//! `udp://` and `unixgram://`: one datagram is one message. Each socket is read by an OS thread of its own.
//!
//! The reason for a thread: most of the cost is waking up, not copying. `recvmmsg` takes up to 64 datagrams in one call. While they
//! come in a stream, the thread sleeps briefly after each batch, so that the next ones queue and pass all stages as one batch. This
//! takes half the CPU time of any way through epoll, where each datagram wakes the runtime. For the same reason the sleep is the
//! operating system's, not the runtime's.

use std::io::{self, IoSliceMut};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use parking_lot::Mutex;
use socket2::{SockAddr, Socket, Type};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error};

use super::ingest::Ingest;
use super::naps::Naps;
use super::refusal::RefusalReason;
use super::socket::{self, NameWatch};
use super::{DRAIN_PATIENCE, Place, Rules, report_receive_buffer, stopping};
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
/// Bytes of one datagram's buffer: more than UDP can carry (65,507). Only pages that are used become real memory.
const DATAGRAM: usize = 64 * 1024;
/// Bytes of a thread's stack: Rust's own default.
const STACK: usize = 2 * 1024 * 1024;
/// The most batches that are passed on together. More would only add delay…
const BATCHES_AT_ONCE: usize = 8;
/// …and the bytes of these: a datagram may have 64 KiB, and its line contains image and name three times.
const BYTES_AT_ONCE: usize = 256 * 1024;
/// How often an idle thread checks for a stop, in case a kernel does not wake it when its socket is shut down. Linux does, and the
/// tests rely on it.
const LOOK_UP: Duration = Duration::from_secs(if cfg!(test) { 3600 } else { 1 });
/// Consecutive receive errors after which the thread pauses between two of them.
const ERRORS_IN_A_ROW: u32 = 64;
/// The pause between two such errors.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A socket whose thread is started and waits for its work. The thread ends when this is dropped without work.
pub(super) struct Idle {
    socket: Arc<Socket>,
    work: mpsc::Sender<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Idle {
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        Self::with_stack(socket, STACK)
    }

    /// An error: the system has no thread left, or no memory for its stack.
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
    // The kernel counts from the creation of the socket, which may be older than this process.
    let drops_before = if handed_over { drops(&socket).unwrap_or(0) } else { 0 };
    let now = Instant::now();
    let receiver = Receiver {
        naps: if address.is_udp() { Naps::of_udp(receive_buffer, now) } else { Naps::none(now) },
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
        // An error: nothing waits for this thread.
        let _ = done.send(());
    };
    // An error is impossible: the thread waits until it has work or `work` is dropped.
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
                    // Wakes the thread, and makes sends to the old, unnamed socket fail.
                    let _ = before.shutdown(std::net::Shutdown::Read);
                }
                Ok(()) = rules.changed() => {
                    let rules = rules.borrow_and_update();
                    if address.is_udp()
                        && !handed_over
                    {
                        match socket::grow_receive_buffer(&socket, rules.receive_buffer) {
                            // Nothing has changed.
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
        // From here on, no new sender finds the socket.
        name.remove().await;
        stop.store(true, Ordering::Release);
        if !handed_over {
            // On an unconnected socket it returns an error, and wakes the thread all the same.
            let _ = socket.shutdown(std::net::Shutdown::Read);
        } else if let Err(error) = wake_by_datagram(&socket) {
            debug!(
                "listen: {address}: its thread sees the stop within {LOOK_UP:?}, because nothing can be sent to it: {error}"
            );
        }
        let _ = finished.await;
    })
}

/// Wakes the thread that reads a socket: sends it an empty datagram, which is no message. A socket that was handed over cannot be shut
/// down instead, because it would stay so for its next owner.
fn wake_by_datagram(socket: &Socket) -> io::Result<()> {
    let own = socket.local_addr()?;
    let sender = Socket::new(own.domain(), Type::DGRAM, None)?;
    sender.set_nonblocking(true)?;
    let send = |to: &SockAddr| sender.send_to(&[], to).map(drop);
    let on_loopback = |ip: IpAddr, port| send(&SocketAddr::new(ip, port).into());
    match own.as_socket() {
        Some(own) if own.ip() == Ipv4Addr::UNSPECIFIED => on_loopback(Ipv4Addr::LOCALHOST.into(), own.port()),
        // `::` without IPv6 on the machine takes IPv4 alone.
        Some(own) if own.ip() == Ipv6Addr::UNSPECIFIED => on_loopback(Ipv6Addr::LOCALHOST.into(), own.port())
            .or_else(|_| on_loopback(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), own.port())),
        _ => send(&own),
    }
}

struct Receiver {
    socket: Arc<Socket>,
    /// The socket that is bound to this one's name now.
    next: Arc<Mutex<Option<Arc<Socket>>>>,
    stop: Arc<AtomicBool>,
    /// The listener's settings: which peers may send, and how many bytes of a datagram are kept.
    rules: watch::Receiver<Arc<Rules>>,
    naps: Naps,
    /// The kernel's count of dropped datagrams when last read; it wraps.
    drops: u32,
    ingest: Ingest,
    metrics: ListenMetrics,
    state: SharedListenerStatus,
    /// Chunks of GELF messages, if the listener speaks GELF.
    gelf: Option<Box<gelf::Datagrams>>,
    /// Bytes received and not passed on yet; and the bytes that were passed on last.
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
        // An error only makes the stop slower.
        let _ = self.socket.set_read_timeout(Some(LOOK_UP));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut errors = 0u32;
        while !self.stop.load(Ordering::Acquire) {
            let next = self.next.lock().take();
            if let Some(next) = next {
                self.read_out(&mut headers);
                self.socket = next;
                let _ = self.socket.set_read_timeout(Some(LOOK_UP));
            }
            match self.receive(&mut headers, MsgFlags::MSG_WAITFORONE) {
                Ok(mut count) => {
                    self.forget_errors(&mut errors);
                    let mut received = count;
                    for _ in 1..BATCHES_AT_ONCE {
                        if count < BATCH {
                            break;
                        }
                        // An error comes again at the next blocking read.
                        count = self.receive(&mut headers, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
                        received += count;
                    }
                    self.hand_on();
                    let (is_drained, longest) = (count < BATCH, self.ingest.coalescing().sleep_of_datagrams());
                    if let Some(nap) = self.naps.after(received, is_drained, longest, Instant::now()) {
                        thread::sleep(nap);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    self.forget_errors(&mut errors);
                    self.give_up_chunks();
                }
                // Reading an error that the network reports about a datagram (such as ECONNREFUSED) clears it. If an error comes
                // back for ever, the thread neither ends nor spins, because the cause may pass.
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

    /// Passes on the datagrams that the kernel holds for a socket that no new sender finds.
    fn read_out(&mut self, headers: &mut MultiHeaders<SockaddrStorage>) {
        let patience = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < patience && self.receive(headers, MsgFlags::MSG_DONTWAIT).is_ok() {
            self.hand_on();
        }
    }

    /// Passes on the received datagrams.
    fn hand_on(&mut self) {
        if let Some(drops) = drops(&self.socket) {
            self.metrics.kernel_drops.inc_by(drops.wrapping_sub(mem::replace(&mut self.drops, drops)).into());
        }
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
                continue; // Empty, like an empty line in a stream. A shutdown of the socket looks the same.
            }
            let (peer, whole) = match sender(&rules.limits, sent, message.address.as_ref().and_then(ip)) {
                Ok((_, whole)) if is_empty(whole) => continue, // A health check of the proxy.
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
                // Behind a proxy, two senders may use one message ID and one socket of the proxy.
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
        // Reports only the last one of a batch: a flood of datagrams must not cost more than counting them.
        if let Some(Refusal { peer, reason }) = last_refused {
            rules.refusals.report(peer, &reason);
        }
        if skipped > 0 {
            let skipped = Skipped { limit: skipped, ..Skipped::default() };
            let notes = Notes { skipped, ..Notes::default() };
            rules.notices.notes(notes, self.ingest.peer(), &self.metrics.skipped);
        }
        self.bytes += bytes;
        self.give_up_chunks();
        Ok(count)
    }

    /// Gives up messages whose chunks have not come in time: counts and reports them.
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

/// Forgets incomplete messages, because no more chunks will come, and counts them.
fn forget_chunks(gelf: &mut Option<Box<gelf::Datagrams>>, metrics: &ListenMetrics) {
    if let Some(gelf) = gelf.take() {
        metrics.unfinished.inc_by(gelf.unfinished() as u64);
    }
}

/// Whether a datagram contains no message.
fn is_empty(datagram: &[u8]) -> bool {
    datagram.iter().all(|&byte| byte == b'\n')
}

/// A datagram without trailing NULs, which Python's `SysLogHandler` and others append. Docker's datagrams end in LF.
fn without_nuls(datagram: &[u8]) -> &[u8] {
    &datagram[..datagram.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)]
}

/// Why a datagram is refused, and its sender.
struct Refusal {
    peer: Option<IpAddr>,
    reason: RefusalReason,
}

/// The address of a datagram's sender, and the message. Behind a proxy, a datagram begins with a header that has the address and is
/// not part of the message.
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

/// The number of datagrams that the kernel has dropped at this socket; it wraps. `None`: the kernel does not report it (before
/// Linux 4.12).
fn drops(socket: &Socket) -> Option<u32> {
    /// linux/sock_diag.h.
    const SK_MEMINFO_DROPS: usize = 8;
    const BYTES: usize = 4 * (SK_MEMINFO_DROPS + 1);
    let info: [u8; BYTES] = sys::socket_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO).ok()??;
    info.last_chunk().map(|drops| u32::from_ne_bytes(*drops))
}
