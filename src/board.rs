//! The board: what the rooms say of themselves in words, beside the numbers of `metrics`. Whoever writes on it does so
//! when something about it changes, never for a message or a batch; `admin` reads it and knows nobody who wrote.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

/// Bytes of a trouble's text that are kept.
const LONGEST_TROUBLE: usize = 600;

/// Who is there now.
#[derive(Default)]
pub struct Board(Mutex<Roll>);

#[derive(Clone, Default)]
pub struct Roll {
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
    pub state: ForwardState,
}

/// How a forward fares. Clones are the same one.
#[derive(Clone, Default)]
pub struct ForwardState(Arc<Mutex<Fares>>);

/// How a forward fares at a moment.
#[derive(Clone)]
pub struct Fares {
    pub doing: Doing,
    /// Since when there is a connection, or none. Not by the wall clock, which is set once the network is up.
    pub since: Instant,
    /// Where the connection leads to; `None` while there is none.
    pub place: Option<Place>,
    /// Until when it counts as stalled: connected, something on its way, and nothing acknowledged.
    pub stalled_until: Option<Instant>,
    /// The collector refuses everything, and the forward waits until it does not.
    pub stopped: bool,
    /// The last thing that went wrong, over or not.
    pub trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Connecting,
    Connected,
    /// Nothing could be connected, or what was connected broke; it is tried again in a moment.
    Waiting,
}

#[derive(Clone, Debug)]
pub struct Place {
    /// As the config names it.
    pub target: String,
    /// `None` on this machine.
    pub address: Option<SocketAddr>,
    /// When the answer that led there is over; `None` for what was not looked up.
    pub believed_until: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct Trouble {
    /// By the wall clock, for a person.
    pub time: SystemTime,
    /// To count from: the wall clock may have been set since.
    pub at: Instant,
    pub says: String,
}

impl Board {
    /// This is who is there from now on.
    pub fn call(&self, roll: Roll) {
        *self.0.lock() = roll;
    }

    pub fn roll(&self) -> Roll {
        self.0.lock().clone()
    }
}

impl ForwardState {
    pub fn now(&self) -> Fares {
        self.lock().clone()
    }

    pub fn connecting(&self) {
        self.lock().does(Doing::Connecting, None);
    }

    pub fn waits(&self) {
        self.lock().does(Doing::Waiting, None);
    }

    /// A connection stands. `ttl`: for how long the answer may be believed by which the address was found.
    pub fn connected(&self, target: String, address: Option<SocketAddr>, ttl: Duration) {
        let place = Place { target, address, believed_until: Instant::now().checked_add(ttl) };
        self.lock().does(Doing::Connected, Some(place));
    }

    /// The name was looked up again, and nothing has changed.
    pub fn believes(&self, ttl: Duration) {
        if let Some(place) = &mut self.lock().place {
            place.believed_until = Instant::now().checked_add(ttl);
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
    pub fn trouble(&self, says: &str) {
        let mut end = says.len().min(LONGEST_TROUBLE);
        while !says.is_char_boundary(end) {
            end -= 1;
        }
        let more = if end < says.len() { "…" } else { "" };
        let says = format!("{}{more}", &says[..end]);
        self.lock().trouble = Some(Trouble { time: SystemTime::now(), at: Instant::now(), says });
    }

    fn lock(&self) -> MutexGuard<'_, Fares> {
        self.0.lock()
    }
}

impl Fares {
    fn does(&mut self, doing: Doing, place: Option<Place>) {
        let was_connected = self.doing == Doing::Connected;
        if was_connected != (doing == Doing::Connected) {
            self.since = Instant::now();
        }
        self.doing = doing;
        self.stalled_until = None;
        self.place = place;
    }
}

impl Default for Fares {
    fn default() -> Self {
        Self {
            doing: Doing::Connecting,
            since: Instant::now(),
            place: None,
            stalled_until: None,
            stopped: false,
            trouble: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trouble_is_cut_between_characters() {
        let state = ForwardState::default();
        state.trouble(&"ä".repeat(LONGEST_TROUBLE));
        let said = state.now().trouble.expect("it was said").says;
        assert_eq!(said, "ä".repeat(LONGEST_TROUBLE / 2) + "…");
        state.trouble("short");
        assert_eq!(state.now().trouble.expect("it was said").says, "short");
    }

    #[test]
    fn an_outage_is_one_however_often_it_is_tried() {
        let state = ForwardState::default();
        let since = state.now().since;
        state.waits();
        state.connecting();
        assert_eq!(state.now().since, since);
        state.connected("tcp://a:514".to_owned(), None, Duration::MAX);
        assert!(state.now().since > since && state.now().place.expect("a place").believed_until.is_none());
        state.believes(Duration::from_secs(1));
        assert!(state.now().place.expect("a place").believed_until.is_some());
        state.waits();
        assert!(state.now().place.is_none());
    }
}
