//! HOSTNAME from the sender's address, if the message names no host or its HOSTNAME is overruled.

use core::net::IpAddr;
use std::fmt::Write;
use std::sync::Arc;

use crate::record::AddressRange;

/// The source of HOSTNAME. Docker's messages are not affected: they have the host that they name, or the relay's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostSource {
    /// The HOSTNAME of the message. If it has none, the address that sent the message.
    #[default]
    Message,
    /// The address that sent the message, regardless of the HOSTNAME in it.
    Address,
    /// The DNS name of that address, regardless of the HOSTNAME in the message. Until a name is known, the address.
    Name,
    /// This text, regardless of the HOSTNAME in the message.
    Text(String),
}

/// Addresses that only show that a sender is on this machine, or behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// The addresses of the interfaces.
    pub own: Vec<IpAddr>,
    /// The addresses of the default routes. In a container this is Docker's bridge, which is the source address of every sender on the
    /// host.
    pub gateways: Vec<IpAddr>,
    /// The networks of Docker's bridges.
    pub bridges: Vec<AddressRange>,
}

/// Looks up the name of an address: appends it and returns whether one is known. For an unknown name a lookup is started, but not awaited.
pub type PeerNames = Arc<dyn Fn(IpAddr, &mut String) -> bool + Send + Sync>;

/// Finds the HOSTNAME of senders.
#[derive(Clone, Default)]
pub(super) struct Hosts {
    source: HostSource,
    local: Arc<LocalAddresses>,
    names: Option<PeerNames>,
    /// Reused, so that a sender needs no allocation.
    text: String,
}

/// A HOSTNAME that does not come from the message.
pub(super) enum Host<'h> {
    /// One text for all senders: the relay's own HOSTNAME, or a configured text.
    Fixed(&'h str),
    /// This sender's address.
    Address(&'h str),
    /// This sender's DNS name. It may change soon.
    Name(&'h str),
}

impl LocalAddresses {
    /// Whether a sender with this address is on this machine, or in a container on it.
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

    /// Whether the HOSTNAME of a message is ignored.
    pub fn overrules_the_message(&self) -> bool {
        self.source != HostSource::Message
    }

    /// The HOSTNAME of a sender. `own`: the relay's own HOSTNAME.
    pub fn host_of<'h>(&'h mut self, peer: Option<IpAddr>, own: &'h str) -> Host<'h> {
        let Self { source, local, names, text } = self;
        if let HostSource::Text(text) = source {
            return Host::Fixed(text);
        }
        let Some(peer) = peer else { return Host::Fixed(own) };
        // With `Address` or `Name` the gateway keeps its address: it may be a router that sends.
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

    /// The HOSTNAME of a sender on `relay`. DNS knows 192.0.2.9 only.
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
