//! The connections and the memory of each peer at a listener, so that one peer does not take the places and the memory of all
//! others.
//!
//! A peer is an IPv4 address, or the /64 of an IPv6 address, because a host can use any number of addresses in its /64. (Hosts that
//! share a /64, as on a LAN, also share its places.)

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::budget::Budget;

/// The connections of a listener by their peers.
#[derive(Clone, Default)]
pub struct PeerTable {
    entries: Arc<Mutex<HashMap<IpAddr, Entry>>>,
}

#[derive(Default)]
struct Entry {
    connections: usize,
    budget: Budget,
}

/// The place of one connection, until it is dropped.
pub struct Slot {
    table: PeerTable,
    peer: IpAddr,
    /// The reserved bytes of all connections of this peer.
    pub budget: Budget,
}

impl PeerTable {
    /// Takes a place for a connection from `address`. `None`: its peer has `max` of them.
    pub fn slot(&self, address: IpAddr, max: usize) -> Option<Slot> {
        let peer = peer_of(address);
        let mut entries = self.lock();
        if entries.get(&peer).map_or(0, |entry| entry.connections) >= max {
            return None;
        }
        let entry = entries.entry(peer).or_default();
        entry.connections += 1;
        Some(Slot { table: self.clone(), peer, budget: entry.budget.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Entry>> {
        self.entries.lock()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut entries = self.table.lock();
        match entries.get_mut(&self.peer) {
            Some(entry) if entry.connections > 1 => entry.connections -= 1,
            _ => {
                entries.remove(&self.peer);
            }
        }
    }
}

/// The peer to which an address belongs.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_places() {
        let table = PeerTable::default();
        let slot = |address: &str| table.slot(address.parse().unwrap(), 2);
        let first = slot("192.0.2.1");
        let _second = slot("::ffff:192.0.2.1").expect("the same one, as a socket of both families writes it");
        assert!(first.is_some() && slot("192.0.2.1").is_none());
        let _neighbour = slot("192.0.2.2").expect("another address");
        drop(first);
        assert!(slot("192.0.2.1").is_some());
    }

    #[test]
    fn all_addresses_of_an_ipv6_host_are_one() {
        let table = PeerTable::default();
        let slot = |address: &str| table.slot(address.parse().unwrap(), 1);
        let _first = slot("2001:db8::1").unwrap();
        assert!(slot("2001:db8::ffff:ffff:ffff:ffff").is_none());
        assert!(slot("2001:db8:0:1::1").is_some());
    }

    /// Senders that come and go with ever-new addresses leave nothing behind.
    #[test]
    fn nobody_is_remembered() {
        let table = PeerTable::default();
        for number in 0..1000 {
            drop(table.slot(IpAddr::V4(number.into()), 1));
        }
        assert!(table.lock().is_empty());
    }
}
