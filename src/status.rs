//! The status registry: what the stages say of themselves in words, beside the numbers of `metrics`. A stage writes here
//! when its state changes, never for a message or a batch; `admin` reads, and knows no stage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

/// Bytes of an error's text that are kept.
const MAX_ERROR_TEXT: usize = 600;

/// The listeners and forwards that there are now.
#[derive(Default)]
pub struct StatusRegistry(Mutex<Topology>);

#[derive(Clone, Default)]
pub struct Topology {
    /// What this host is called in messages.
    pub hostname: String,
    /// In the config's order.
    pub listeners: Vec<Listener>,
    /// In the config's order.
    pub forwards: Vec<Forward>,
}

#[derive(Clone)]
pub struct Listener {
    /// Its label in the metrics: the address of the config.
    pub label: String,
    /// The same, with the real port where 0 was asked for.
    pub address: String,
    /// The `name` it has in the config, which its lines are marked with.
    pub name: Option<String>,
}

#[derive(Clone)]
pub struct Forward {
    /// Its label in the metrics.
    pub name: String,
    /// Its targets, in order.
    pub to: Vec<String>,
    pub state: SharedForwardStatus,
}

/// The status of a forward, which the forward writes and `admin` reads. Clones share it.
#[derive(Clone, Default)]
pub struct SharedForwardStatus(Arc<Mutex<ForwardStatus>>);

/// The status of a forward at a moment.
#[derive(Clone)]
pub struct ForwardStatus {
    pub phase: Phase,
    /// Since when there is a connection, or none. Not by the wall clock, which is set once the network is up.
    pub since: Instant,
    /// Where the connection leads to; `None` while there is none.
    pub peer: Option<Peer>,
    /// Until when it counts as stalled: connected, something on its way, and nothing acknowledged.
    pub stalled_until: Option<Instant>,
    /// The collector refuses everything, and the forward waits until it does not.
    pub stopped: bool,
    /// The last thing that went wrong, over or not.
    pub last_error: Option<LastError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Connected,
    /// Nothing could be connected, or what was connected broke; it is tried again in a moment.
    Backoff,
}

#[derive(Clone, Debug)]
pub struct Peer {
    /// As the config names it.
    pub target: String,
    /// `None` on this machine.
    pub address: Option<SocketAddr>,
    /// When the DNS answer that led there expires; `None` for what was not looked up.
    pub resolved_until: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct LastError {
    /// By the wall clock, for a person.
    pub time: SystemTime,
    /// To count from: the wall clock may have been set since.
    pub at: Instant,
    pub says: String,
}

impl StatusRegistry {
    /// Other listeners or forwards from now on.
    pub fn publish(&self, topology: Topology) {
        *self.0.lock() = topology;
    }

    pub fn topology(&self) -> Topology {
        self.0.lock().clone()
    }
}

impl SharedForwardStatus {
    pub fn now(&self) -> ForwardStatus {
        self.lock().clone()
    }

    pub fn connecting(&self) {
        self.lock().enter(Phase::Connecting, None);
    }

    pub fn backs_off(&self) {
        self.lock().enter(Phase::Backoff, None);
    }

    /// A connection stands. `ttl`: for how long the answer holds by which the address was found.
    pub fn connected(&self, target: String, address: Option<SocketAddr>, ttl: Duration) {
        let peer = Peer { target, address, resolved_until: Instant::now().checked_add(ttl) };
        self.lock().enter(Phase::Connected, Some(peer));
    }

    /// The name was looked up again, and nothing has changed.
    pub fn resolved_again(&self, ttl: Duration) {
        if let Some(peer) = &mut self.lock().peer {
            peer.resolved_until = Instant::now().checked_add(ttl);
        }
    }

    /// The collector refuses everything. Holds, connected or not, until something is delivered.
    pub fn stops(&self) {
        self.lock().stopped = true;
    }

    /// Something is delivered.
    pub fn goes_on(&self) {
        self.lock().stopped = false;
    }

    /// Nothing is acknowledged. Holds for `time`, unless it is said again.
    pub fn stalled(&self, time: Duration) {
        self.lock().stalled_until = Instant::now().checked_add(time);
    }

    /// Something went wrong.
    pub fn failed(&self, says: &str) {
        let mut end = says.len().min(MAX_ERROR_TEXT);
        while !says.is_char_boundary(end) {
            end -= 1;
        }
        let more = if end < says.len() { "…" } else { "" };
        let says = format!("{}{more}", &says[..end]);
        self.lock().last_error = Some(LastError { time: SystemTime::now(), at: Instant::now(), says });
    }

    fn lock(&self) -> MutexGuard<'_, ForwardStatus> {
        self.0.lock()
    }
}

impl ForwardStatus {
    fn enter(&mut self, phase: Phase, peer: Option<Peer>) {
        let was_connected = self.phase == Phase::Connected;
        if was_connected != (phase == Phase::Connected) {
            self.since = Instant::now();
        }
        self.phase = phase;
        self.stalled_until = None;
        self.peer = peer;
    }
}

impl Default for ForwardStatus {
    fn default() -> Self {
        Self {
            phase: Phase::Connecting,
            since: Instant::now(),
            peer: None,
            stalled_until: None,
            stopped: false,
            last_error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let state = SharedForwardStatus::default();
        state.failed(&"ä".repeat(MAX_ERROR_TEXT));
        let said = state.now().last_error.expect("it was said").says;
        assert_eq!(said, "ä".repeat(MAX_ERROR_TEXT / 2) + "…");
        state.failed("short");
        assert_eq!(state.now().last_error.expect("it was said").says, "short");
    }

    #[test]
    fn an_outage_is_one_however_often_it_is_tried() {
        let state = SharedForwardStatus::default();
        let since = state.now().since;
        state.backs_off();
        state.connecting();
        assert_eq!(state.now().since, since);
        state.connected("tcp://a:514".to_owned(), None, Duration::MAX);
        assert!(state.now().since > since && state.now().peer.expect("a peer").resolved_until.is_none());
        state.resolved_again(Duration::from_secs(1));
        assert!(state.now().peer.expect("a peer").resolved_until.is_some());
        state.backs_off();
        assert!(state.now().peer.is_none());
    }
}
