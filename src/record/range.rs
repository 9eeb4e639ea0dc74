//! Ranges of addresses: for senders that may connect, and for rules.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

/// A range of IP addresses: `10.0.0.0/8`, `fd00::/8`. Without a length the range is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange(IpNet);

impl AddressRange {
    /// The network of an address. `None`: the netmask is invalid for its family.
    pub fn around(address: IpAddr, netmask: IpAddr) -> Option<Self> {
        Some(Self(IpNet::with_netmask(address, netmask).ok()?.trunc()))
    }

    /// An IPv4-mapped IPv6 address, as a dual-stack socket reports it, counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let range = range.map_err(|_| {
            format!("`{text}`: write an address or a range of addresses, such as \"10.0.0.0/8\" or \"fd00::/8\"")
        })?;
        // 10.1.2.3/8 is ambiguous: the range and the address differ by 16 million senders.
        if range.addr() != range.network() {
            return Err(format!(
                "`{text}`: the range is {}, the address alone {}/{}; write which is meant",
                range.trunc(),
                range.addr(),
                range.max_prefix_len()
            ));
        }
        // Addresses are compared in canonical form, so that such a range would contain none.
        if let IpNet::V6(range) = range
            && let Some(address) = range.addr().to_ipv4_mapped()
        {
            return Err(format!("`{text}`: an IPv4 address in IPv6's clothes; write {address}"));
        }
        Ok(Self(range))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let contains = |range: &str, address: &str| {
            range.parse::<AddressRange>().expect(range).contains(address.parse().expect(address))
        };
        for (range, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.255.0.1"),
            ("192.0.2.7", "192.0.2.7"),
            ("0.0.0.0/0", "192.0.2.7"),
            ("fd00::/8", "fd12::1"),
            ("::1", "::1"),
        ] {
            assert!(contains(range, address), "{range}: {address}");
        }
        for (range, address) in [
            ("10.0.0.0/8", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "192.0.2.7"),
            ("::/0", "::ffff:192.0.2.7"),
            ("fd00::/8", "fe00::1"),
        ] {
            assert!(!contains(range, address), "{range}: {address}");
        }
        let refused = |text: &str| text.parse::<AddressRange>().expect_err(text);
        assert!(refused("10.1.2.3/8").contains("the range is 10.0.0.0/8, the address alone 10.1.2.3/32"));
        assert!(refused("::ffff:192.0.2.7").contains("write 192.0.2.7"));
        assert!(refused("::ffff:0:0/96").contains("write 0.0.0.0"));
        for text in ["", "10.0.0.0/33", "example.com", "10.0.0/8", "[::1]", "10.0.0.1-10.0.0.9", " 10.0.0.1"] {
            assert!(refused(text).contains("write an address or a range"), "{text}");
        }
    }
}
