//! The network interfaces of this machine, with the kernel's names, and conversion of the kernel's socket addresses.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// An IP address of an interface. An interface with several addresses has several of these.
pub struct Interface {
    pub name: String,
    pub address: IpAddr,
    pub netmask: Option<IpAddr>,
}

/// The interfaces at this moment. There are none if getifaddrs(3) fails, which happens only when memory or descriptors run out.
pub fn interfaces() -> impl Iterator<Item = Interface> {
    getifaddrs().into_iter().flatten().filter_map(|found| {
        let address = found.address.as_ref().and_then(ip)?;
        Some(Interface { name: found.interface_name, address, netmask: found.netmask.as_ref().and_then(ip) })
    })
}

/// The IP address and the port in a socket address; `None`: see [`ip`].
#[inline]
pub fn ip_and_port(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

/// The IP address in a socket address; `None`: a unix socket or a hardware address.
#[inline]
pub fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}
