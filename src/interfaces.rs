//! The network interfaces of this machine, as the kernel names them, and addresses in the form the kernel gives them.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// An IP address of an interface. An interface with several addresses is here several times.
pub struct Interface {
    pub name: String,
    pub address: IpAddr,
    pub netmask: Option<IpAddr>,
}

/// The interfaces now. None, when the kernel does not say: getifaddrs(3) fails only for want of memory or descriptors.
pub fn interfaces() -> impl Iterator<Item = Interface> {
    getifaddrs().into_iter().flatten().filter_map(|found| {
        let address = found.address.as_ref().and_then(ip)?;
        Some(Interface { name: found.interface_name, address, netmask: found.netmask.as_ref().and_then(ip) })
    })
}

/// The IP address and the port in a socket address; `None`: as of [`ip`].
#[inline]
pub fn ip_and_port(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

/// The IP address in a socket address; `None` for a unix socket, and for a hardware address.
#[inline]
pub fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}
