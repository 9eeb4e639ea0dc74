//! The addresses of a target: the answers of name servers, put in order. Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::sorted::{sort_by, sort_by_key};

/// The most hosts of a service. Further SRV records, in their order, are ignored.
const MAX_HOSTS: usize = 32;
/// The most addresses of one family that a host has.
const MAX_ADDRESSES: usize = 32;

/// The addresses of a target, and how long they are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Never empty; in the order in which they are to be tried.
    pub endpoints: Vec<Endpoint>,
    /// The least of all records' TTLs, clamped to `[resolve] min-ttl..=max-ttl`.
    pub ttl: Duration,
    /// Hosts and families without an answer.
    pub unanswered: Vec<Unanswered>,
}

/// One address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub peer: SocketAddr,
    /// The host with this address: the host of the target, or of the SRV record.
    pub host: String,
    /// The priority of the SRV record: lower ones come first. 0 without a record.
    pub priority: u16,
}

/// A host and a family whose addresses were asked for. No name server has answered with them, or that there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    pub host: String,
    pub family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    pub priority: u16,
    pub host: String,
    pub port: u16,
    pub weight: u16,
}

impl Answer {
    /// The answer for a literal address.
    pub fn literal(peer: SocketAddr, host: String) -> Self {
        Self { endpoints: vec![Endpoint { peer, host, priority: 0 }], ttl: Duration::MAX, unanswered: Vec::new() }
    }

    /// Whether the target is not at `endpoint` by this answer. A name server that failed to answer has not said so.
    pub fn excludes(&self, endpoint: &Endpoint) -> bool {
        !self.leaves_open(endpoint) && !self.endpoints.iter().any(|found| found.peer == endpoint.peer)
    }

    /// Adds the endpoints of `earlier` that this look-up left unanswered.
    pub fn completed_by(mut self, earlier: &Answer) -> Self {
        let missing = earlier.endpoints.iter().filter(|endpoint| self.leaves_open(endpoint)).cloned();
        let missing: Vec<Endpoint> = missing.collect();
        self.endpoints.extend(missing);
        // The sort is stable: endpoints with the same priority keep their order.
        sort_by_key(&mut self.endpoints, |endpoint| endpoint.priority);
        self
    }

    fn leaves_open(&self, endpoint: &Endpoint) -> bool {
        let family = Family::of(endpoint.peer.ip());
        self.unanswered.iter().any(|open| open.family == family && open.host == endpoint.host)
    }
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// RFC 2782: a lower priority comes first. Among equal priorities the next record is drawn by lot, in proportion to the weights.
/// `lot` draws from 0 to its argument, both included.
pub fn in_order(mut services: Vec<Service>, mut lot: impl FnMut(u32) -> u32) -> Vec<Service> {
    // Sorted before it is cut, so that the same records stay each time.
    sort_by(&mut services, Ord::cmp);
    services.truncate(MAX_HOSTS);
    // Records of weight 0 come first in their group, so that they are drawn only when the lot is 0.
    sort_by_key(&mut services, |service| (service.priority, service.weight));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(priority) = services.first().map(|service| service.priority) {
        let group = services.partition_point(|service| service.priority == priority);
        let sum = services[..group].iter().map(|service| u32::from(service.weight)).sum();
        let drawn = lot(sum);
        let mut running = 0;
        let chosen = services[..group].iter().position(|service| {
            running += u32::from(service.weight);
            running >= drawn
        });
        ordered.push(services.remove(chosen.expect("the last one's running sum is the whole sum")));
    }
    ordered
}

/// No more addresses than can be tried. A longer list is sorted before it is cut, so that the same addresses stay each time, in
/// whatever order the name server sends them.
pub fn not_too_many(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.len() > MAX_ADDRESSES {
        sort_by(&mut addresses, Ord::cmp);
        addresses.truncate(MAX_ADDRESSES);
    }
    addresses
}

/// RFC 8305 4: the families take turns, so that a family without a route delays the other by one attempt at most.
pub fn interleave(first: &[IpAddr], second: &[IpAddr]) -> Vec<IpAddr> {
    let turns = first.len().max(second.len());
    let mut addresses = Vec::with_capacity(first.len() + second.len());
    for turn in 0..turns {
        addresses.extend(first.get(turn));
        addresses.extend(second.get(turn));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("a literal address")).collect()
    }

    fn at(peer: &str, host: &str, priority: u16) -> Endpoint {
        Endpoint { peer: peer.parse().expect("an address and a port"), host: host.to_owned(), priority }
    }

    fn answer(endpoints: &[&Endpoint], unanswered: &[(&str, Family)]) -> Answer {
        let open = |(host, family): &(&str, Family)| Unanswered { host: (*host).to_owned(), family: *family };
        Answer {
            endpoints: endpoints.iter().map(|endpoint| (*endpoint).clone()).collect(),
            ttl: Duration::ZERO,
            unanswered: unanswered.iter().map(open).collect(),
        }
    }

    fn service(priority: u16, weight: u16, host: &str) -> Service {
        Service { priority, host: host.to_owned(), port: 514, weight }
    }

    #[test]
    fn families_take_turns() {
        let both = interleave(&addresses(&["::1", "::2"]), &addresses(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]));
        let shown: Vec<String> = both.iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["::1", "127.0.0.1", "::2", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(interleave(&[], &addresses(&["127.0.0.1"])).len(), 1);
    }

    #[test]
    fn a_name_with_a_thousand_addresses_has_a_few() {
        let all = |count: u32| (0..count).map(|bits| IpAddr::V4(bits.into())).rev().collect::<Vec<_>>();
        assert_eq!(not_too_many(all(32)), all(32), "as many as may be: in the name server's order");
        let kept = not_too_many(all(33));
        assert!(kept.len() == MAX_ADDRESSES && kept.is_sorted());
        let mut turned = all(33);
        turned.rotate_left(7);
        assert_eq!(not_too_many(turned), kept);
    }

    #[test]
    fn half_an_answer_is_not_a_move() {
        let (v4, v6) = (at("127.0.0.1:514", "a", 0), at("[::1]:514", "a", 0));
        let half = answer(&[&v6], &[("a", Family::V4)]);
        assert!(!half.excludes(&v4), "nothing was said about IPv4");
        let whole = answer(&[&v6], &[]);
        assert!(whole.excludes(&v4) && !whole.excludes(&v6));
        let earlier = answer(&[&v4, &at("[::2]:514", "a", 0)], &[]);
        assert_eq!(half.completed_by(&earlier).endpoints, [v6.clone(), v4]);
        assert_eq!(whole.completed_by(&earlier).endpoints, [v6]);
    }

    #[test]
    fn a_service_is_left_host_by_host() {
        let (a, b) = (at("127.0.0.1:514", "a", 10), at("127.0.0.2:514", "b", 20));
        let b_failed = answer(&[&a], &[("b", Family::V4), ("b", Family::V6)]);
        assert!(!b_failed.excludes(&b), "b is still in the service");
        assert!(b_failed.excludes(&at("127.0.0.3:514", "c", 10)), "c is not, whatever became of b");
        assert!(b_failed.excludes(&at("127.0.0.1:1514", "a", 10)), "another port is another place");
        let both = answer(&[&b], &[("a", Family::V4)]).completed_by(&answer(&[&a, &b], &[]));
        assert_eq!(both.endpoints, [a, b], "in order of their priorities");
    }

    #[test]
    fn priorities_come_first_and_weights_are_chances() {
        let hosts = |lot: fn(u32) -> u32| {
            let services = vec![service(20, 0, "d"), service(10, 60, "a"), service(10, 0, "c"), service(10, 40, "b")];
            in_order(services, lot).into_iter().map(|service| service.host).collect::<String>()
        };
        assert_eq!(hosts(|_| 0), "cbad");
        assert_eq!(hosts(|sum| sum), "abcd");
        assert_eq!(hosts(|sum| sum.min(41)), "abcd");
        assert_eq!(hosts(|sum| sum.min(40)), "bacd");
        let services = (0..100).map(|at| service(100 - at, 1, "x")).collect();
        let kept = in_order(services, |_| 0);
        assert!(kept.len() == MAX_HOSTS && kept.iter().map(|service| service.priority).is_sorted());
        assert_eq!(kept[0].priority, 1);
    }
}
