//! What a listener says of its senders. Strangers can bring it about, so each kind is said now and then, or once for each peer of a
//! few; counters have all of it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

use crate::log::Throttle;
use crate::metrics::SkippedBytes;
use crate::protocol::framing::Notes;

/// How often a kind is said at most.
const SAY_EVERY: Duration = Duration::from_secs(600);
/// Peers of which a thing is said once.
const MAX_PEERS: usize = 64;

/// What a listener says.
pub struct Notices {
    /// The listener's address.
    listener: String,
    said: Arc<Said>,
}

/// What a listener has said. It stays when the listener gets other settings.
pub struct Said {
    /// For the log line of what is thrown away.
    skipped: Mutex<Throttle>,
    miscounts: Peers,
    json: Peers,
}

/// The peers of whom a thing was said; `None` stands for all that have no address.
#[derive(Default)]
struct Peers(Mutex<HashSet<Option<IpAddr>>>);

impl Peers {
    /// Is a thing to be said of this peer?
    fn is_new(&self, peer: Option<IpAddr>) -> bool {
        let mut told = self.0.lock();
        told.len() < MAX_PEERS && told.insert(peer)
    }
}

impl Notices {
    pub fn new(listener: String, said: Arc<Said>) -> Self {
        Self { listener, said }
    }

    /// A connection begins with JSON.
    pub fn json(&self, peer: Option<IpAddr>) {
        if self.said.json.is_new(peer) {
            warn!(
                "listen: {}: JSON without a syslog priority comes{}, as GELF and json-lines are; each line is carried whole as the text of a \
                 message. If it should be understood, let it be sent as syslog, or GELF to a listener with gelf+tcp:// (this is said once for each peer)",
                self.listener,
                from(peer)
            );
        }
    }

    /// Counts what was thrown away, and says it.
    pub fn notes(&self, notes: Notes, peer: Option<IpAddr>, skipped: &SkippedBytes) {
        let Notes { skipped: bytes, miscounts } = notes;
        skipped.max_frame.inc_by(bytes.limit);
        skipped.frame_timeout.inc_by(bytes.timeout);
        skipped.max_unfinished.inc_by(bytes.memory);
        if bytes != Default::default() && self.said.skipped.lock().allows(Instant::now()) {
            let why = if bytes.timeout > 0 {
                "its end did not come within frame-timeout"
            } else if bytes.memory > 0 {
                "too much had not ended (max-unfinished)"
            } else {
                "it is longer than max-frame"
            };
            warn!(
                "listen: {}: the rest of a message{} is thrown away: {why}; its start was kept, marked cut=\"true\" \
                 (logferry_listen_skipped_bytes counts the bytes, this is said every ten minutes at the most)",
                self.listener,
                from(peer)
            );
        }
        if miscounts > 0 && self.said.miscounts.is_new(peer) {
            warn!(
                "listen: {}: the octet counts{} are wrong: neither a count nor `<` comes where they say that a message ends; \
                 what is between two counts is carried as a message of its own. Have the sender count bytes, not characters, and \
                 what ends its message too, or end its messages with a newline (this is said once for each peer)",
                self.listener,
                from(peer)
            );
        }
    }
}

impl Default for Said {
    fn default() -> Self {
        let skipped = Mutex::new(Throttle::new(SAY_EVERY));
        Self { skipped, miscounts: Peers::default(), json: Peers::default() }
    }
}

fn from(peer: Option<IpAddr>) -> String {
    peer.map_or_else(String::new, |peer| format!(" from {}", peer.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_have_it_said_again_and_again() {
        let peers = Peers::default();
        let said = (0..1000u32).filter(|number| peers.is_new(Some(IpAddr::V4((number / 2).into())))).count();
        assert_eq!(said, MAX_PEERS);
    }
}
