//! Detects loops: a forward that leads back to this relay, either directly, or through an address that Docker publishes, or round a
//! ring of relays. An undetected loop sends each line round for ever.
//!
//! A direct loop is found before anything is sent: the target is an address of this machine, and its port is a listener's port. All
//! other loops are found by a mark in the lines: the `hop` parameter of `[logferry@32473 …]`, which lists the names of the forwards
//! that have sent the line on. Marking a line costs as much as reading one. So only a few lines are marked, and only while many
//! messages come in that are not Docker's own, as in every loop. When a marked line has come back, every line of its forward is
//! marked, and lines that come back are dropped.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use parking_lot::Mutex;

use crate::config::ListenAddress;
use crate::interfaces::interfaces;
use crate::log::Throttle;
use crate::status::SharedForwardStatus;

/// A line is marked when at least this many messages have come in since the last one that are not Docker's own…
const MARK_EVERY: u64 = 256;
/// …and at least this much time has passed.
const MARK_PAUSE: Duration = Duration::from_secs(1);
/// How long all lines of a forward are marked after a line has come back.
const REMEMBERED: Duration = Duration::from_secs(600);
/// The least time between two log entries about a forward that leads back.
const SAY_EVERY: Duration = Duration::from_secs(600);

/// The state of loop detection: the listeners, and which forwards lead back to this relay.
#[derive(Default)]
pub struct LoopGuard {
    listeners: Mutex<Vec<ListenAddress>>,
    /// All forwards since the start, each name once.
    forwards: Mutex<Vec<Arc<Marked>>>,
    /// Messages received that are not Docker's own.
    relayed: AtomicU64,
    /// Whether any line was marked: before that, none can come back.
    has_marked: AtomicBool,
}

/// A forward as its marks name it.
struct Marked {
    /// `SPOOL/FORWARD`, the name under which its lines are numbered.
    mark: String,
    forward: String,
    status: Mutex<SharedForwardStatus>,
    /// When the last line came back.
    returned: Mutex<Option<Instant>>,
    /// Limits the log entries about lines that came back.
    throttle: Mutex<Throttle>,
}

/// Decides which lines of a forward are marked.
pub struct Marker {
    guard: Arc<LoopGuard>,
    forward: Arc<Marked>,
    /// The count of received messages when the last line was marked, and the time.
    relayed: u64,
    at: Option<Instant>,
}

/// Which of the next lines to be sent are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    None,
    First,
    All,
}

impl LoopGuard {
    /// Sets the listeners, with their real ports.
    pub fn set_listeners(&self, listeners: Vec<ListenAddress>) {
        *self.listeners.lock() = listeners;
    }

    /// The listener of this relay that a forward to this address would reach, if there is one.
    pub fn own_listener(&self, to: SocketAddr, is_udp: bool) -> Option<ListenAddress> {
        own_listener(&self.listeners.lock(), to, is_udp)
    }

    /// The marker of a forward. `mark`: the name under which the forward's lines are numbered.
    pub fn marker(self: Arc<Self>, mark: String, status: SharedForwardStatus) -> Marker {
        let mut forwards = self.forwards.lock();
        let forward = match forwards.iter().find(|forward| forward.mark == mark) {
            Some(known) => known.clone(),
            None => {
                let forward = mark.rsplit('/').next().unwrap_or_default().to_owned();
                let new = Marked {
                    mark,
                    forward,
                    status: Mutex::default(),
                    returned: Mutex::default(),
                    throttle: Mutex::new(Throttle::new(SAY_EVERY)),
                };
                forwards.push(Arc::new(new));
                forwards[forwards.len() - 1].clone()
            }
        };
        *forward.status.lock() = status;
        drop(forwards);
        Marker { guard: self, forward, relayed: 0, at: None }
    }

    /// Counts received messages that are not Docker's own.
    pub fn count_relayed(&self, messages: u64) {
        if messages > 0 {
            self.relayed.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// Whether this relay has sent a line before, according to the `hop` in it. `from`: the listener, and the sender's address if
    /// it has one.
    pub fn is_back(&self, hops: &[u8], from: (&str, Option<IpAddr>)) -> bool {
        let forwards = self.forwards.lock();
        let is_of = |forward: &&Arc<Marked>| hops.split(|byte| *byte == b' ').any(|hop| hop == forward.mark.as_bytes());
        let Some(forward) = forwards.iter().find(is_of).cloned() else { return false };
        drop(forwards);
        forward.is_back(from, Instant::now());
        true
    }

    /// Whether this relay has sent a text before, which may be a whole line: like [`is_back`](Self::is_back), for messages whose
    /// structured data is not parsed.
    pub fn is_back_as_text(&self, text: &[u8], from: (&str, Option<IpAddr>)) -> bool {
        const BEGIN: &[u8] = b" hop=\"";
        if !self.has_marked.load(Ordering::Relaxed) {
            return false;
        }
        let hops = |at: usize| text[at + BEGIN.len()..].split(|byte| *byte == b'"').next().unwrap_or_default();
        memmem::find_iter(text, BEGIN).take(8).any(|at| self.is_back(hops(at), from))
    }
}

/// The listener among `listeners` that would receive data sent to an address.
pub fn own_listener(listeners: &[ListenAddress], to: SocketAddr, is_udp: bool) -> Option<ListenAddress> {
    let to_ip = to.ip().to_canonical();
    let takes = |listener: &&ListenAddress| {
        let Some(at) = listener.socket_address().filter(|at| at.port() == to.port()) else { return false };
        let is_any = at.ip().is_unspecified() && (at.is_ipv6() || to_ip.is_ipv4());
        listener.is_udp() == is_udp && (at.ip().to_canonical() == to_ip || is_any || to_ip.is_unspecified())
    };
    let found = listeners.iter().find(takes)?.clone();
    is_of_this_machine(to_ip).then_some(found)
}

/// Whether an interface of this machine has the address. Binding the address would prove nothing on a host with `ip_nonlocal_bind`.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || interfaces().any(|interface| interface.address == address)
}

impl Marked {
    fn is_back(&self, (listener, peer): (&str, Option<IpAddr>), now: Instant) {
        *self.returned.lock() = Some(now);
        if !self.throttle.lock().allows(now) {
            return;
        }
        let peer = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
        let says = format!(
            "it leads back to this relay: a line that it had sent came in again at {listener}{peer}; change its `to`, or where the \
             relay behind it forwards to. What comes back is dropped (logferry_spool_dropped, reason loop)"
        );
        self.status.lock().failed(&says);
        tracing::error!("forward {}: {says}", self.forward);
    }

    fn leads_back(&self, now: Instant) -> bool {
        self.returned.lock().is_some_and(|returned| now.saturating_duration_since(returned) < REMEMBERED)
    }
}

impl Marker {
    /// Which of the next lines are marked.
    pub fn marks(&mut self) -> Marks {
        let relayed = self.guard.relayed.load(Ordering::Relaxed);
        // The fast path: a relay that receives only Docker's messages always returns here.
        if relayed.wrapping_sub(self.relayed) < MARK_EVERY && self.at.is_none() {
            return Marks::None;
        }
        self.marks_at(relayed, Instant::now())
    }

    fn marks_at(&mut self, relayed: u64, now: Instant) -> Marks {
        let marks = if self.forward.leads_back(now) {
            Marks::All
        } else if relayed.wrapping_sub(self.relayed) >= MARK_EVERY
            && self.at.is_none_or(|at| now.saturating_duration_since(at) >= MARK_PAUSE)
        {
            Marks::First
        } else {
            return Marks::None;
        };
        (self.relayed, self.at) = (relayed, Some(now));
        self.guard.has_marked.store(true, Ordering::Relaxed);
        marks
    }

    pub fn mark(&self) -> &str {
        &self.forward.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(addresses: &[&str], to: &str, is_udp: bool) -> bool {
        let listeners: Vec<ListenAddress> =
            addresses.iter().map(|address| address.parse().expect("an address")).collect();
        own_listener(&listeners, to.parse().expect("an address"), is_udp).is_some()
    }

    #[test]
    fn which_address_is_a_listener_of_our_own() {
        assert!(listens(&["tcp://127.0.0.1:514"], "127.0.0.1:514", false));
        assert!(listens(&["udp://0.0.0.0:514", "relp+tls://0.0.0.0:2514"], "127.0.0.1:2514", false));
        assert!(listens(&["tcp://[::]:514"], "127.0.0.1:514", false));
        assert!(listens(&["tcp://127.0.0.1:514"], "0.0.0.0:514", false), "as which Linux takes loopback");
        assert!(!listens(&["tcp://127.0.0.1:514"], "127.0.0.1:514", true), "another transport");
        assert!(!listens(&["tcp://127.0.0.1:514"], "127.0.0.1:515", false), "another port");
        assert!(!listens(&["tcp://127.0.0.1:514"], "127.0.0.2:514", false), "another address");
        assert!(!listens(&["tcp://0.0.0.0:514"], "[::1]:514", false), "another family");
        // TEST-NET-3 (RFC 5737): no machine has this address.
        assert!(!listens(&["tcp://0.0.0.0:514"], "203.0.113.9:514", false), "another machine");
        assert!(!listens(&["unix:///run/x.sock"], "127.0.0.1:514", false));
    }

    #[test]
    fn lines_are_marked_seldom_until_one_comes_back() {
        let guard = Arc::<LoopGuard>::default();
        let mut marker = guard.clone().marker("5p001/central".to_owned(), SharedForwardStatus::default());
        assert_eq!(marker.marks(), Marks::None, "where only Docker sends, no line is marked");
        guard.count_relayed(MARK_EVERY);
        assert_eq!(marker.marks(), Marks::First);
        assert_eq!(marker.marks(), Marks::None);
        let (later, relayed) = (Instant::now() + MARK_PAUSE, MARK_EVERY * 2);
        assert_eq!(marker.marks_at(relayed - 1, later), Marks::None);
        assert_eq!(marker.marks_at(relayed, later), Marks::First);
        let here = ("tcp://:514", None);
        assert!(!guard.is_back(b"5p001/other 5p002/central", here), "of another relay, or another forward");
        assert_eq!(marker.marks_at(relayed, later), Marks::None);
        assert!(guard.is_back(b"5p002/central 5p001/central", here));
        assert_eq!(marker.marks(), Marks::All);
        assert_eq!(marker.marks_at(MARK_EVERY, later + REMEMBERED), Marks::None);
        assert!(guard.is_back_as_text(b"<13>1 - - - - - [logferry@32473 hop=\"5p001/central\"] x", here));
        assert!(!guard.is_back_as_text(b"<13>1 - - - - - [logferry@32473 hop=\"5p002/central\"] x", here));
    }
}
