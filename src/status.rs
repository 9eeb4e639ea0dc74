//! The status registry: the states of listeners and forwards, beside the numbers of `metrics`. A stage writes here when its state
//! changes, never for a message or a batch; `admin` reads, and knows no stage.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

/// Bytes of an error's text that are kept.
const MAX_ERROR_TEXT: usize = 600;
/// Refused peers that a listener remembers, one for each address and reason.
const MAX_REFUSED: usize = 32;

/// The present listeners and forwards.
#[derive(Default)]
pub struct StatusRegistry(Mutex<Topology>);

/// The listeners and forwards of the running configuration.
#[derive(Clone, Default)]
pub struct Topology {
    /// The HOSTNAME of this host in messages.
    pub hostname: String,
    /// The listeners in the config's order.
    pub listeners: Vec<Listener>,
    /// The forwards in the config's order.
    pub forwards: Vec<Forward>,
}

#[derive(Clone)]
pub struct Listener {
    /// The label of the listener in the metrics: the address of the config.
    pub label: String,
    /// The address with its real port, which is another one when the config has port 0.
    pub address: String,
    /// The `name` of the listener in the config, which marks its lines.
    pub name: Option<String>,
    /// The limit of connections; `None` for datagrams.
    pub max_connections: Option<usize>,
    pub state: SharedListenerStatus,
}

#[derive(Clone)]
pub struct Forward {
    /// The name of the forward, which is its label in the metrics.
    pub name: String,
    /// The targets of the forward, in order.
    pub to: Vec<String>,
    pub state: SharedForwardStatus,
}

/// The status of a listener, which the listener writes, and the watchdog and `admin` read. Clones share it.
#[derive(Clone, Default)]
pub struct SharedListenerStatus(Arc<Mutex<ListenerStatus>>);

#[derive(Default)]
struct ListenerStatus {
    /// Why the listener cannot receive; `None` while it can.
    failure: Option<ListenerFailure>,
    /// Oldest first.
    refused: VecDeque<RefusedPeer>,
}

/// A peer that a listener refused.
#[derive(Clone, Debug)]
pub struct RefusedPeer {
    /// When the peer was refused last, by the wall clock, for people.
    pub time: SystemTime,
    /// When the peer was refused last, by the monotonic clock, to compute its age.
    pub at: Instant,
    /// How often the peer was refused for this reason since it is in this list.
    pub times: u64,
    /// The peer's address; `None` where senders have none, as on a unix socket.
    pub address: Option<IpAddr>,
    /// The name of the reason.
    pub reason: &'static str,
    /// Describes the event and the remedy.
    pub says: String,
}

/// Why a listener cannot receive.
#[derive(Clone, Debug)]
pub struct ListenerFailure {
    pub since: Instant,
    pub why: String,
}

/// A part of the relay that can stand still.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The thread that runs all connections, forwards and the admin port.
    Runtime,
    /// Another thread, by its name.
    Thread(String),
    /// A listener, by its address.
    Listener(String),
    /// A forward, by its name.
    Forward(String),
    /// Lines that another relay numbers.
    Numbered,
}

/// A part that has stalled for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    pub part: Part,
    /// What the part waits for, if known.
    pub waits_for: String,
    pub seconds: u64,
}

/// The parts that stand still now. The watchdog writes them and `admin` reads them. Clones share the list.
#[derive(Clone, Default)]
pub struct Standstills(Arc<Mutex<Vec<Standstill>>>);

/// Likely mistakes in the settings that show only while the relay works. Each kind is logged once, until the configuration is read
/// again. Clones share the list.
#[derive(Clone, Default)]
pub struct Mistakes(Arc<Mutex<BTreeMap<Mistake, String>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// The host name is the ID of the relay's own container.
    ContainerHostname,
    /// The tag of a container fits no template.
    UnmatchedTag,
}

/// The status of a forward, which the forward writes and `admin` reads. Clones share it.
#[derive(Clone, Default)]
pub struct SharedForwardStatus(Arc<Mutex<ForwardStatus>>);

/// The status of a forward at one moment.
#[derive(Clone)]
pub struct ForwardStatus {
    pub phase: Phase,
    /// When the connection began or ended. The clock is monotonic, because the wall clock may be set when the network comes up.
    pub since: Instant,
    /// The other end of the connection; `None` while there is none.
    pub peer: Option<Peer>,
    /// The forward counts as stalled until then: it is connected and has sent lines, and none is acknowledged.
    pub stalled_until: Option<Instant>,
    /// The collector refuses every line, and the forward waits.
    pub stopped: bool,
    /// Lines wait until there are enough for an object.
    pub gathers: bool,
    /// The last error. It may be over.
    pub last_error: Option<Said>,
    /// The last answer of a log store, in its own words.
    pub last_answer: Option<Said>,
    /// Why the collector refused the last dead letter, in its own words.
    pub last_rejected: Option<Said>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Connected,
    /// Waiting to retry, after a failed attempt or a broken connection.
    Backoff,
}

#[derive(Clone, Debug)]
pub struct Peer {
    /// The target as the config has it.
    pub target: String,
    /// The address; `None` for a file or a unix socket.
    pub address: Option<SocketAddr>,
    /// When the DNS answer with the address expires; `None` for a target without a name.
    pub resolved_until: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct Said {
    /// The wall-clock time of the text, for people.
    pub time: SystemTime,
    /// The monotonic time of the text, to compute its age.
    pub at: Instant,
    pub says: String,
}

impl StatusRegistry {
    /// Replaces the topology.
    pub fn publish(&self, topology: Topology) {
        *self.0.lock() = topology;
    }

    pub fn topology(&self) -> Topology {
        self.0.lock().clone()
    }
}

impl SharedListenerStatus {
    /// Notes that the listener cannot receive.
    pub fn fails(&self, error: &dyn fmt::Display) {
        let failure = || ListenerFailure { since: Instant::now(), why: error.to_string() };
        self.0.lock().failure.get_or_insert_with(failure);
    }

    /// Notes that the listener has received something, or that nothing is there to receive.
    pub fn works(&self) {
        self.0.lock().failure = None;
    }

    /// Why the listener cannot receive; `None` while it can.
    pub fn failure(&self) -> Option<ListenerFailure> {
        self.0.lock().failure.clone()
    }

    /// Notes that a peer was refused.
    pub fn refused(&self, address: Option<IpAddr>, reason: &'static str, says: &dyn fmt::Display) {
        let (time, at, says) = (SystemTime::now(), Instant::now(), shortened(&says.to_string()));
        let refused = &mut self.0.lock().refused;
        let known = refused.iter().position(|known| (known.address, known.reason) == (address, reason));
        let times = known.and_then(|known| refused.remove(known)).map_or(0, |known| known.times) + 1;
        if refused.len() == MAX_REFUSED {
            refused.pop_front();
        }
        refused.push_back(RefusedPeer { time, at, times, address, reason, says });
    }

    /// The remembered refused peers, newest first.
    pub fn refused_peers(&self) -> Vec<RefusedPeer> {
        self.0.lock().refused.iter().rev().cloned().collect()
    }

    #[cfg(test)]
    pub fn last_refused(&self) -> Option<RefusedPeer> {
        self.refused_peers().into_iter().next()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime => f.write_str("the runtime (all connections, forwards and the admin port)"),
            Self::Thread(name) => write!(f, "thread {name}"),
            Self::Listener(address) => write!(f, "listen {address}"),
            Self::Forward(name) => write!(f, "forward {name}"),
            Self::Numbered => f.write_str("a stream of lines that another relay numbers"),
        }
    }
}

impl fmt::Display for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, waits_for, seconds } = self;
        write!(f, "{part} has stalled for {seconds} s; it waits for {waits_for}")
    }
}

impl Mistakes {
    /// Notes a mistake, and logs it if it is the first of its kind.
    pub fn note(&self, kind: Mistake, says: impl FnOnce() -> String) {
        if let Entry::Vacant(first) = self.0.lock().entry(kind) {
            let says = first.insert(says());
            tracing::warn!("{says}");
        }
    }

    /// Forgets all mistakes: another configuration may have none.
    pub fn forget(&self) {
        self.0.lock().clear();
    }

    pub fn now(&self) -> Vec<String> {
        self.0.lock().values().cloned().collect()
    }
}

impl Standstills {
    pub fn publish(&self, found: Vec<Standstill>) {
        *self.0.lock() = found;
    }

    pub fn now(&self) -> Vec<Standstill> {
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

    /// Notes a connection. `ttl` is the remaining time to live of the DNS answer with the address.
    pub fn connected(&self, target: String, address: Option<SocketAddr>, ttl: Duration) {
        let peer = Peer { target, address, resolved_until: Instant::now().checked_add(ttl) };
        self.lock().enter(Phase::Connected, Some(peer));
    }

    /// Notes that the name was looked up again with the same answer.
    pub fn resolved_again(&self, ttl: Duration) {
        if let Some(peer) = &mut self.lock().peer {
            peer.resolved_until = Instant::now().checked_add(ttl);
        }
    }

    /// Notes that the collector refuses every line. This stays so, connected or not, until a line is delivered.
    pub fn stops(&self) {
        self.lock().stopped = true;
    }

    /// Notes that a line was delivered.
    pub fn goes_on(&self) {
        self.lock().stopped = false;
    }

    /// Notes whether lines wait until there are enough of them.
    pub fn gathers(&self, gathers: bool) {
        self.lock().gathers = gathers;
    }

    /// Notes that nothing is acknowledged. This holds for `time`, unless it is noted again.
    pub fn stalled(&self, time: Duration) {
        self.lock().stalled_until = Instant::now().checked_add(time);
    }

    /// Notes an error.
    pub fn failed(&self, says: &str) {
        self.lock().last_error = Some(Said::now(says));
    }

    /// Notes the answer of a log store. There is one for each request, and requests are few.
    pub fn answered(&self, says: &str) {
        self.lock().last_answer = Some(Said::now(says));
    }

    /// Notes why a line has become a dead letter.
    pub fn rejected(&self, says: &str) {
        self.lock().last_rejected = Some(Said::now(says));
    }

    fn lock(&self) -> MutexGuard<'_, ForwardStatus> {
        self.0.lock()
    }
}

impl Said {
    fn now(says: &str) -> Self {
        Self { time: SystemTime::now(), at: Instant::now(), says: shortened(says) }
    }
}

fn shortened(says: &str) -> String {
    let mut end = says.len().min(MAX_ERROR_TEXT);
    while !says.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < says.len() { "…" } else { "" };
    format!("{}{more}", &says[..end])
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
            gathers: false,
            last_error: None,
            last_answer: None,
            last_rejected: None,
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
    fn refused_peers_are_remembered_once_for_each_reason_and_only_so_many() {
        let state = SharedListenerStatus::default();
        let peer = |last: usize| Some(IpAddr::from([10, 0, 0, last as u8]));
        for (last, reason) in [(1, "allow"), (2, "allow"), (1, "plaintext"), (1, "allow")] {
            state.refused(peer(last), reason, &"why");
        }
        let seen = |state: &SharedListenerStatus| -> Vec<_> {
            state.refused_peers().into_iter().map(|refused| (refused.address, refused.reason, refused.times)).collect()
        };
        let expected = [(peer(1), "allow", 2), (peer(1), "plaintext", 1), (peer(2), "allow", 1)];
        assert_eq!(seen(&state), expected);
        (0..2 * MAX_REFUSED).for_each(|last| state.refused(peer(last), "tls", &"why"));
        let seen = seen(&state);
        assert_eq!((seen.len(), seen[0]), (MAX_REFUSED, (peer(2 * MAX_REFUSED - 1), "tls", 1)));
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
