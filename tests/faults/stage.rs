//! The surroundings of the relay: collectors, their name, and the path to them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::collector::Collector;
use super::fault::Fault;
use super::proxy::Proxy;
use super::row::{Make, Row, Transport};
use super::support::network::THERE;
use super::support::{Held, NameServer, Network, ScriptedServer, installed, script, skip};
use super::tally::Tally;
use super::under_test::To;
use super::wall::Wall;

/// How many addresses a rotating name has, and how many are in each answer.
const ADDRESSES: usize = 40;
const TOLD: usize = 3;

pub struct Stage {
    /// The collectors. There is a second one when a name moves, or for another forward.
    pub collectors: Vec<Collector>,
    names: Option<Names>,
    proxy: Option<Proxy>,
    network: Option<Network>,
    _held: Vec<Held>,
}

pub enum Names {
    /// A name with one address.
    Whole(NameServer),
    /// A name with many addresses, of which each answer has some.
    Parts(ScriptedServer),
}

impl Names {
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Whole(names) => names.address(),
            Self::Parts(names) => names.address(),
        }
    }

    /// The config section that makes a relay use this name server, with short times for the test.
    pub fn section(&self) -> String {
        match self {
            Self::Whole(names) => names.section(),
            Self::Parts(names) => names.section(),
        }
    }
}

impl Stage {
    /// `None`: a requirement is not installed here.
    pub fn set(row: &Row) -> Option<Self> {
        let fault = row.fault;
        if fault.needs_a_wall() && !Wall::can_be_built() {
            skip("a wall", "packets can only be dropped by root with iptables (Debian: apt-get install iptables)");
            return None;
        }
        let network = if fault == Fault::LinkSlow {
            installed("tc", "iproute2")?;
            Some(Network::new()?)
        } else {
            None
        };
        // The test certificate is valid for 127.0.0.1 and for the name.
        let local = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let (first, mut collectors) = match &network {
            Some(network) => network.there(|| start(row, &[THERE[0].parse().expect("an address")])),
            None if fault.moves_a_name() => start(row, &[local(2), local(3)]),
            None => start(row, &[local(1)]),
        }?;
        let mut held = vec![first];
        if fault.has_another_forward() {
            let (another, of_it) = start(row, &[local(1)])?;
            held.push(another);
            collectors.extend(of_it);
        }
        let proxy = fault.needs_a_proxy().then(|| Proxy::to(collectors[0].at(), fault == Fault::NameRotates));
        let names = match (fault.moves_a_name(), row.relay) {
            (true, Make::Logferry) => Some(Names::Whole(NameServer::start(&[&local(2).to_string()])?)),
            (true, _) => Some(Names::Whole(NameServer::start_for_libc(&[&local(2).to_string()])?)),
            (false, _) if fault == Fault::NameRotates => {
                Some(Names::Parts(ScriptedServer::start(|question| told(question, 0))))
            }
            (false, _) => None,
        };
        Some(Self { collectors, names, proxy, network, _held: held })
    }

    pub fn way_to_it(&self) -> To<'_> {
        if let Some(dir) = self.collectors[0].dir_of_files() {
            return To::Files(dir.to_owned());
        }
        let at = self.collectors[0].at();
        let port = self.proxy.as_ref().map_or(at.port(), Proxy::port);
        match &self.names {
            None => To::At(SocketAddr::new(at.ip(), port)),
            Some(names) => To::Named(names, port),
        }
    }

    /// The address of the other forward's collector.
    pub fn way_beside(&self, row: &Row) -> Option<SocketAddr> {
        row.fault.has_another_forward().then(|| self.collectors[1].at())
    }

    pub fn name_moves(&self) {
        let Some(Names::Whole(names)) = &self.names else { unreachable!("a name that can move") };
        names.moves_to(&self.collectors[1].at().ip().to_string());
    }

    /// Each answer has other addresses, with a TTL of zero.
    pub fn name_rotates(&self) {
        let Some(Names::Parts(names)) = &self.names else { unreachable!("a name of many addresses") };
        let mut turn = 0;
        names.says(move |question| {
            turn += usize::from(question.kind == script::A);
            told(question, turn)
        });
    }

    pub fn reads_slowly(&self, slow: bool) {
        self.proxy.as_ref().expect("a proxy").is_slow(slow);
    }

    pub fn link_is_slow(&self) {
        let has_tc = self.network.as_ref().expect("a network").is_slow("32kbit");
        assert!(has_tc, "it was there a moment ago");
    }

    pub fn link_is_fast(&self) {
        self.network.as_ref().expect("a network").is_fast();
    }

    /// The final count of each collector.
    pub fn counts(self) -> Vec<Tally> {
        let Self { mut collectors, network, .. } = self;
        let first = collectors.remove(0);
        let first = match &network {
            // The collector is in a network namespace of its own, and can only be queried there.
            Some(network) => network.there(|| first.counts()),
            None => first.counts(),
        };
        let others = collectors.into_iter().map(Collector::counts);
        std::iter::once(first).chain(others).collect()
    }
}

/// Starts a collector at each address, all on one port.
fn start(row: &Row, ips: &[IpAddr]) -> Option<(Held, Vec<Collector>)> {
    let held = Held::new(row.transport == Transport::Udp, ips);
    let mut collectors = Vec::new();
    for ip in ips {
        let mut collector = Collector::new(row.collector, row.transport, SocketAddr::new(*ip, held.port()))?;
        collector.starts();
        collectors.push(collector);
    }
    Some((held, collectors))
}

/// The addresses in the answer number `turn`.
fn told(question: &script::Question, turn: usize) -> script::Reply {
    let address = |of: usize| format!("127.0.2.{}", 1 + (turn * TOLD + of) % ADDRESSES);
    let some: Vec<String> = (0..TOLD).map(address).collect();
    script::addresses(question, 0, &some.iter().map(String::as_str).collect::<Vec<_>>())
}
