//! HOSTNAME where the sender gives none, or is not asked: what its address tells of it.

use core::net::IpAddr;
use std::fmt::Write;
use std::sync::Arc;

use crate::record::AddressRange;

/// Which HOSTNAME messages get. What Docker's driver sends is not concerned: its host is the one it names, or the relay's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostSource {
    /// What the message says; where it says nothing, the address that sent it.
    #[default]
    Message,
    /// The address that sent the message, whatever that says.
    Address,
    /// The name that DNS has for that address, whatever the message says; the address as long as there is none.
    Name,
    /// This text, whatever the message says.
    Text(String),
}

/// Addresses that tell no more of a sender than that it is on this machine, or behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// The addresses of the interfaces.
    pub own: Vec<IpAddr>,
    /// The addresses of the default routes. In a container this is Docker's bridge, as which every sender of the host comes.
    pub gateways: Vec<IpAddr>,
    /// The networks of Docker's bridges.
    pub bridges: Vec<AddressRange>,
}

/// The name of an address: appends it and says whether one is known. One that is not known yet is looked up, and not waited for.
pub type PeerNames = Arc<dyn Fn(IpAddr, &mut String) -> bool + Send + Sync>;

/// Finds the HOSTNAME of senders.
#[derive(Clone, Default)]
pub(super) struct Hosts {
    source: HostSource,
    local: Arc<LocalAddresses>,
    names: Option<PeerNames>,
    /// Reused, so that a sender costs no memory.
    text: String,
}

/// HOSTNAME that is not the message's.
pub(super) enum Host<'h> {
    /// The same for all senders: the relay's own, or what is configured.
    Fixed(&'h str),
    /// The address of this sender alone.
    Address(&'h str),
    /// The name of this sender alone, which may be another one soon.
    Name(&'h str),
}

impl LocalAddresses {
    /// Is a sender with this address on this machine, or in a container of it?
    fn has(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self.own.contains(&address)
            || self.bridges.iter().any(|bridge| bridge.contains(address))
    }
}

impl Hosts {
    pub fn set_source(&mut self, source: HostSource) {
        self.source = source;
    }

    pub fn set_local(&mut self, local: Arc<LocalAddresses>) {
        self.local = local;
    }

    pub fn set_names(&mut self, names: PeerNames) {
        self.names = Some(names);
    }

    /// Does the message's own HOSTNAME count for nothing?
    pub fn overrules_the_message(&self) -> bool {
        self.source != HostSource::Message
    }

    /// HOSTNAME of a sender. `own`: the relay's.
    pub fn host_of<'h>(&'h mut self, peer: Option<IpAddr>, own: &'h str) -> Host<'h> {
        let Self { source, local, names, text } = self;
        if let HostSource::Text(text) = source {
            return Host::Fixed(text);
        }
        let Some(peer) = peer else { return Host::Fixed(own) };
        // Who asks for addresses gets the gateway's too: it may be a router that sends.
        let is_gateway = *source == HostSource::Message && local.gateways.contains(&peer);
        if is_gateway || local.has(peer) {
            return Host::Fixed(own);
        }
        text.clear();
        if *source == HostSource::Name
            && let Some(names) = names
        {
            if !names(peer, text) {
                text.clear();
                let _ = write!(text, "{peer}");
            }
            return Host::Name(text);
        }
        let _ = write!(text, "{peer}");
        Host::Address(text)
    }
}

impl<'h> Host<'h> {
    pub fn text(&self) -> &'h str {
        match self {
            Self::Fixed(text) | Self::Address(text) | Self::Name(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> LocalAddresses {
        let address = |text: &str| text.parse().expect("an address");
        LocalAddresses {
            own: vec![address("192.0.2.1"), address("2001:db8::1")],
            gateways: vec![address("192.0.2.254")],
            bridges: vec!["172.17.0.0/16".parse().expect("a range")],
        }
    }

    /// HOSTNAME of a sender on `relay`, where DNS knows 192.0.2.9 and nobody else.
    fn host(source: HostSource, peer: &str) -> String {
        let mut hosts = Hosts::default();
        hosts.set_source(source);
        hosts.set_local(Arc::new(local()));
        hosts.set_names(Arc::new(|peer, name| {
            name.push_str("half a name");
            let is_known = peer.to_string() == "192.0.2.9";
            if is_known {
                *name = "switch-9".to_owned();
            }
            is_known
        }));
        hosts.host_of(peer.parse().ok(), "relay").text().to_owned()
    }

    #[test]
    fn a_sender_is_its_address_unless_it_is_here() {
        for (peer, expected) in [
            ("192.0.2.9", "192.0.2.9"),
            ("2001:db8::9", "2001:db8::9"),
            ("127.0.0.1", "relay"),
            ("127.8.0.1", "relay"),
            ("::1", "relay"),
            ("192.0.2.1", "relay"),
            ("2001:db8::1", "relay"),
            ("192.0.2.254", "relay"),
            ("172.17.0.5", "relay"),
            ("172.18.0.5", "172.18.0.5"),
            ("none", "relay"),
        ] {
            assert_eq!(host(HostSource::Message, peer), expected, "{peer}");
        }
    }

    #[test]
    fn who_asks_for_addresses_gets_the_router_s_too() {
        for (peer, address, name) in [
            ("192.0.2.9", "192.0.2.9", "switch-9"),
            ("192.0.2.8", "192.0.2.8", "192.0.2.8"),
            ("192.0.2.254", "192.0.2.254", "192.0.2.254"),
            ("172.17.0.5", "relay", "relay"),
            ("127.0.0.1", "relay", "relay"),
            ("none", "relay", "relay"),
        ] {
            assert_eq!(host(HostSource::Address, peer), address, "{peer}");
            assert_eq!(host(HostSource::Name, peer), name, "{peer}");
            assert_eq!(host(HostSource::Text("dmz".to_owned()), peer), "dmz", "{peer}");
        }
    }
}
