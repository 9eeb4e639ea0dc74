//! `udp://` and `unixgram://`: one datagram is one message. Each socket has an OS thread of its own.
//!
//! Why a thread: what costs is waking up, not copying. `recvmmsg` takes up to 64 datagrams in one call, and a short nap
//! after a small batch lets the next one grow: half the CPU time of every way through epoll, where each datagram wakes
//! the runtime. The nap must be the operating system's, for the same reason.

use std::io::IoSliceMut;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, recvmmsg, setsockopt, sockopt};
use socket2::Socket;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::error;

use super::intake::Intake;
use super::{Bound, DRAIN_PATIENCE, Rules, SMALL_RECEIVE_BUFFER, SocketFile, bind, stopping};
use crate::config::ListenAddress;
use crate::metrics::ListenMetrics;

/// Datagrams taken in one system call.
const BATCH: usize = 64;
/// Bytes for one datagram: more than UDP can carry (65,507). Only the pages that are used become real memory.
const DATAGRAM: usize = 64 * 1024;
/// A batch with fewer datagrams is small: there is time to let the next one grow.
const SMALL_BATCH: usize = 32;
/// How long it may grow: at a million datagrams a second, 500 have come, and the smallest buffer we nap with holds 800.
const NAP: Duration = Duration::from_micros(500);
/// An idle thread looks up this often, in case a kernel does not wake it when its socket is shut down. Linux does, and
/// the tests rely on it.
const LOOK_UP: Duration = Duration::from_secs(if cfg!(test) { 3600 } else { 1 });
/// Receive errors in a row after which the thread pauses between two of them.
const ERRORS_IN_A_ROW: u32 = 64;
/// The pause.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn start(
    bound: Bound,
    mut rules: watch::Receiver<Arc<Rules>>,
    intake: Intake,
    mut shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let Bound { address, socket, file, receive_buffer, metrics, .. } = bound;
    let limit = Arc::new(AtomicUsize::new(rules.borrow_and_update().max_frame));
    let socket = Arc::new(socket);
    let stop = Arc::new(AtomicBool::new(false));
    let receiver = Receiver {
        // A unix sender does not lose but wait when the queue is full, and the queue may hold ten: no nap there.
        nap: matches!(address, ListenAddress::Udp(_)) && receive_buffer >= SMALL_RECEIVE_BUFFER,
        socket: socket.clone(),
        stop: stop.clone(),
        limit: limit.clone(),
        drops: 0,
        intake,
        metrics,
        buffers: vec![0; BATCH * DATAGRAM],
    };
    let (done, finished) = oneshot::channel();
    let run = move || {
        receiver.run(file);
        // Nobody listening means that nobody waits for us.
        let _ = done.send(());
    };
    thread::Builder::new().name("listen".into()).spawn(run).expect("the system has a thread left at start");
    tokio::spawn(async move {
        let mut finished = finished;
        loop {
            tokio::select! {
                _ = stopping(&mut shutdown) => break,
                _ = &mut finished => {
                    error!("listen: {address}: the receiving thread ended by itself");
                    return;
                }
                Ok(()) = rules.changed() => {
                    let rules = rules.borrow_and_update();
                    limit.store(rules.max_frame, Ordering::Relaxed);
                    if let ListenAddress::Udp(_) = address
                        && let Err(error) = bind::grow_receive_buffer(&socket, rules.receive_buffer)
                    {
                        error!("listen: {address}: cannot set its receive buffer: {error}; it stays as it was");
                    }
                }
            }
        }
        stop.store(true, Ordering::Release);
        // Wakes the thread. On an unconnected socket it "fails", and still does.
        let _ = socket.shutdown(std::net::Shutdown::Read);
        let _ = finished.await;
    })
}

struct Receiver {
    socket: Arc<Socket>,
    stop: Arc<AtomicBool>,
    /// Bytes of a datagram that are kept.
    limit: Arc<AtomicUsize>,
    nap: bool,
    /// The kernel's count of datagrams dropped, as last seen; it wraps.
    drops: u32,
    intake: Intake,
    metrics: ListenMetrics,
    /// `BATCH` times `DATAGRAM` bytes.
    buffers: Vec<u8>,
}

impl Receiver {
    fn run(mut self, file: Option<SocketFile>) {
        // Without these two there is a slower stop and no count of drops, but the messages still come.
        let _ = self.socket.set_read_timeout(Some(LOOK_UP));
        let _ = setsockopt(&self.socket, sockopt::RxqOvfl, &1);
        let mut errors = 0;
        while !self.stop.load(Ordering::Acquire) {
            match self.receive(MsgFlags::MSG_WAITFORONE) {
                Ok(count) => {
                    errors = 0;
                    if self.nap && count < SMALL_BATCH {
                        thread::sleep(NAP);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => errors = 0,
                // What the network says about a datagram (ECONNREFUSED and its like) is gone once it is read. Should
                // an error come back for ever, we neither end nor spin: whatever it is may pass.
                Err(_) => {
                    errors += 1;
                    if errors >= ERRORS_IN_A_ROW {
                        thread::sleep(ERROR_PAUSE);
                    }
                }
            }
        }
        // No new sender finds us from here on. What the old ones have sent is read out.
        drop(file);
        let patience = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < patience && self.receive(MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    /// Takes one batch and hands it on. Returns how many datagrams there were.
    fn receive(&mut self, flags: MsgFlags) -> Result<usize, Errno> {
        // Made anew each time: the kernel shortens the control buffers to what it wrote, and `recvmmsg` of `nix` does
        // not lengthen them again, so a batch without drops would be the last to tell of any.
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, Some(cmsg_space!(u32)));
        let mut slices: Vec<_> =
            self.buffers.chunks_exact_mut(DATAGRAM).map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let batch = recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)?;
        let (mut count, mut bytes, mut received, mut cuts) = (0, 0, 0, 0);
        let limit = self.limit.load(Ordering::Relaxed);
        self.intake.begin();
        for message in batch {
            count += 1;
            bytes += message.bytes;
            self.metrics.kernel_drops.inc_by(new_drops(&mut self.drops, &message));
            let whole = message.iovs().next().unwrap_or_default();
            if whole.iter().all(|&byte| byte == b'\n') {
                continue; // Empty, as an empty line is in a stream. A shutdown of the socket looks like this too.
            }
            let frame = &whole[..whole.len().min(limit)];
            let cut = frame.len() < whole.len() || message.flags.contains(MsgFlags::MSG_TRUNC);
            received += 1;
            cuts += u64::from(cut);
            self.intake.frame(frame, cut);
        }
        self.metrics.bytes.inc_by(bytes as u64);
        self.metrics.received.inc_by(received);
        self.metrics.cut.inc_by(cuts);
        self.intake.flush_blocking();
        Ok(count)
    }
}

/// How many datagrams the kernel has dropped since it last said so. It says so only once there are any.
fn new_drops(seen: &mut u32, message: &RecvMsg<'_, '_, ()>) -> u64 {
    let Ok(mut said) = message.cmsgs() else { return 0 };
    let now = said.find_map(|said| match said {
        ControlMessageOwned::RxqOvfl(drops) => Some(drops),
        _ => None,
    });
    let Some(now) = now else { return 0 };
    u64::from(now.wrapping_sub(mem::replace(seen, now)))
}
