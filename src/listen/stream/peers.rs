//! How many connections each address has at a listener, and what they hold, so that one neighbour does not take the places
//! and the memory of all others.
//!
//! An IPv4 address counts for itself. Of an IPv6 address its /64 counts: a host may use as many addresses of it as it likes.
//! (Where many hosts share one, as on a LAN, they share its places.)

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::budget::Unfinished;

/// The connections of a listener by where they come from.
#[derive(Clone, Default)]
pub struct Crowd {
    households: Arc<Mutex<HashMap<IpAddr, Household>>>,
}

#[derive(Default)]
struct Household {
    connections: usize,
    unfinished: Unfinished,
}

/// One of an address's connections, until it is dropped.
pub struct Member {
    crowd: Crowd,
    from: IpAddr,
    /// What all of this address hold.
    pub unfinished: Unfinished,
}

impl Crowd {
    /// `None`: this address has as many as it may.
    pub fn join(&self, address: IpAddr, most: usize) -> Option<Member> {
        let from = household(address);
        let mut households = self.lock();
        if households.get(&from).map_or(0, |household| household.connections) >= most {
            return None;
        }
        let household = households.entry(from).or_default();
        household.connections += 1;
        Some(Member { crowd: self.clone(), from, unfinished: household.unfinished.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Household>> {
        self.households.lock()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut households = self.crowd.lock();
        match households.get_mut(&self.from) {
            Some(household) if household.connections > 1 => household.connections -= 1,
            _ => {
                households.remove(&self.from);
            }
        }
    }
}

/// Whose address it is, as far as an address tells.
fn household(address: IpAddr) -> IpAddr {
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
        let crowd = Crowd::default();
        let join = |address: &str| crowd.join(address.parse().unwrap(), 2);
        let first = join("192.0.2.1");
        let _second = join("::ffff:192.0.2.1").expect("the same one, as a socket of both families writes it");
        assert!(first.is_some() && join("192.0.2.1").is_none());
        let _neighbour = join("192.0.2.2").expect("another address");
        drop(first);
        assert!(join("192.0.2.1").is_some());
    }

    #[test]
    fn all_addresses_of_an_ipv6_host_are_one() {
        let crowd = Crowd::default();
        let join = |address: &str| crowd.join(address.parse().unwrap(), 1);
        let _first = join("2001:db8::1").unwrap();
        assert!(join("2001:db8::ffff:ffff:ffff:ffff").is_none());
        assert!(join("2001:db8:0:1::1").is_some());
    }

    /// Who comes and goes with ever-new addresses leaves nothing behind.
    #[test]
    fn nobody_is_remembered() {
        let crowd = Crowd::default();
        for number in 0..1000 {
            drop(crowd.join(IpAddr::V4(number.into()), 1));
        }
        assert!(crowd.lock().is_empty());
    }
}
