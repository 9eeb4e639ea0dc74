//! A listener's log entries about its senders. Strangers can cause these, so each kind is logged at intervals, or once for each of
//! a few peers. Counters count all of them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

use crate::log::Throttle;
use crate::metrics::SkippedBytes;
use crate::protocol::framing::Notes;

/// The least time between two entries of one kind.
const SAY_EVERY: Duration = Duration::from_secs(600);
/// The most peers for which one kind is logged.
const MAX_PEERS: usize = 64;

/// Logs about the senders of one listener.
pub struct Notices {
    /// The listener's address.
    listener: String,
    said: Arc<Said>,
}

/// The entries that a listener has logged. This stays when the settings change.
pub struct Said {
    /// Limits the entries about discarded bytes.
    skipped: Mutex<Throttle>,
    miscounts: Peers,
    json: Peers,
}

/// The peers for which one kind was logged; `None` stands for all peers without an address.
#[derive(Default)]
struct Peers(Mutex<HashSet<Option<IpAddr>>>);

impl Peers {
    /// Whether to log this kind for this peer.
    fn is_new(&self, peer: Option<IpAddr>) -> bool {
        let mut told = self.0.lock();
        told.len() < MAX_PEERS && told.insert(peer)
    }
}

impl Notices {
    pub fn new(listener: String, said: Arc<Said>) -> Self {
        Self { listener, said }
    }

    /// Reports a connection that begins with JSON.
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

    /// Counts and reports discarded bytes and wrong octet counts.
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
