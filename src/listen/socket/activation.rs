//! Sockets that a service manager has opened and keeps (systemd's socket activation). Messages that are sent while no relay runs
//! wait in them, so that a restart loses nothing.
//!
//! The kind and address of a socket alone decide which listener takes it. Descriptors are copied, never taken: the original ones
//! stay open for the life of the process, so that another listener can take one at a reload. The variables that announce them stay
//! set as well: they name this process's ID, and the relay starts no other program.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use socket2::{Socket, Type};

use super::BindError;
use crate::config::{ListenAddress, ListenTransport};
use crate::sys;

/// The socket that was handed over for this address, if there is one.
pub fn find(address: &ListenAddress) -> Result<Option<Socket>, BindError> {
    let mut handed_over = sockets()?;
    Ok(chosen(&handed_over, address).map(|index| handed_over.swap_remove(index).1))
}

/// The socket that a listener takes: the one with exactly its address. If there is none, a listener at `[::]` takes the socket of
/// all IPv4 addresses.
fn chosen(sockets: &[(RawFd, Socket)], address: &ListenAddress) -> Option<usize> {
    let find = |is_at| sockets.iter().position(|(_, socket)| is_for(socket, address, is_at));
    find(is_exactly as fn(SocketAddr, SocketAddr) -> bool).or_else(|| find(is_all_of_ipv4))
}

/// Checks that each socket has one listener. An error names a socket that no listener reads, so that senders could connect and are
/// never heard, or that several read.
pub fn refuse_strays(addresses: &[&ListenAddress]) -> Result<(), BindError> {
    let sockets = sockets()?;
    let taken: Vec<usize> = addresses.iter().filter_map(|address| chosen(&sockets, address)).collect();
    for (index, (descriptor, socket)) in sockets.iter().enumerate() {
        match taken.iter().filter(|taken| **taken == index).count() {
            0 => return Err(BindError::Stray(*descriptor, described(socket))),
            1 => {}
            _ => return Err(BindError::Contested(*descriptor, described(socket))),
        }
    }
    Ok(())
}

fn sockets() -> Result<Vec<(RawFd, Socket)>, BindError> {
    let descriptors = sd_notify::listen_fds().map_err(BindError::HandedOver)?;
    descriptors
        .map(|descriptor| Ok((descriptor, sys::copy_of_handed_over(descriptor)?.into())))
        .collect::<io::Result<_>>()
        .map_err(BindError::HandedOver)
}

fn is_for(socket: &Socket, address: &ListenAddress, is_at: fn(SocketAddr, SocketAddr) -> bool) -> bool {
    let (Ok(kind), Ok(real)) = (socket.r#type(), socket.local_addr()) else { return false };
    let is_at = |asked| real.as_socket().is_some_and(|real| is_at(real, asked));
    let listens = kind == Type::STREAM && socket.is_listener().unwrap_or(false);
    match address.transport() {
        ListenTransport::Udp(at) => kind == Type::DGRAM && is_at(*at),
        ListenTransport::Tcp(at) | ListenTransport::Tls(at) => listens && is_at(*at),
        ListenTransport::Unix(path) => listens && real.as_pathname() == Some(path),
        ListenTransport::Unixgram(path) => kind == Type::DGRAM && real.as_pathname() == Some(path),
    }
}

fn is_exactly(real: SocketAddr, asked: SocketAddr) -> bool {
    (real.ip(), real.port()) == (asked.ip(), asked.port())
}

/// On a host without IPv6, `[::]` means all IPv4 addresses, for a service manager as for the relay.
fn is_all_of_ipv4(real: SocketAddr, asked: SocketAddr) -> bool {
    let all = asked.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && real.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    all && real.port() == asked.port()
}

/// The address of a `[[listen]]` that would take the socket.
fn described(socket: &Socket) -> String {
    let (Ok(kind), Ok(real)) = (socket.r#type(), socket.local_addr()) else { return "no socket".to_owned() };
    let (inet, unix) = match kind {
        Type::DGRAM => ("udp", "unixgram"),
        Type::STREAM if socket.is_listener().unwrap_or(false) => ("tcp", "unix"),
        _ => return "a socket that no messages come by".to_owned(),
    };
    match (real.as_socket(), real.as_pathname()) {
        (Some(at), _) => format!("{inet}://{at}"),
        (_, Some(path)) => format!("{unix}://{}", path.display()),
        _ => "a socket without an address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn takes(socket: &Socket, address: &str) -> bool {
        chosen(&[(3, socket.try_clone().unwrap())], &address.parse().unwrap()).is_some()
    }

    #[test]
    fn a_listener_takes_the_socket_of_its_kind_and_address() {
        let datagrams: Socket = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let stream: Socket = TcpListener::bind("127.0.0.1:0").unwrap().into();
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        let (udp, tcp) = (port(&datagrams), port(&stream));
        assert!(takes(&datagrams, &format!("udp://127.0.0.1:{udp}")));
        assert!(!takes(&datagrams, &format!("tcp://127.0.0.1:{udp}")));
        assert!(!takes(&datagrams, &format!("udp://127.0.0.2:{udp}")));
        assert!(!takes(&datagrams, &format!("udp://127.0.0.1:{}", udp ^ 1)));
        assert!(!takes(&datagrams, "unixgram:///run/log.sock"));
        for scheme in ["tcp", "tcp+tls", "relp", "relp+tls"] {
            assert!(takes(&stream, &format!("{scheme}://127.0.0.1:{tcp}")), "{scheme}");
        }
        assert!(!takes(&stream, &format!("udp://127.0.0.1:{tcp}")));
        assert!(!takes(&stream, &format!("tcp://[::]:{tcp}")), "one address is not all");
    }

    #[test]
    fn all_addresses_may_be_those_of_ipv4_alone() {
        let stream: Socket = TcpListener::bind("0.0.0.0:0").unwrap().into();
        let port = stream.local_addr().unwrap().as_socket().unwrap().port();
        assert!(takes(&stream, &format!("tcp://[::]:{port}")) && takes(&stream, &format!("tcp://0.0.0.0:{port}")));
        assert!(!takes(&stream, &format!("tcp://127.0.0.1:{port}")));
    }

    /// Sockets as systemd makes them with `BindIPv6Only=ipv6-only`.
    #[test]
    fn where_both_families_have_a_socket_each_is_its_own() {
        // Another process may have the port in the other family.
        let (both, port) = std::iter::repeat_with(|| {
            let ipv4: Socket = UdpSocket::bind("0.0.0.0:0").unwrap().into();
            let port = ipv4.local_addr().unwrap().as_socket().unwrap().port();
            let ipv6 = Socket::new(socket2::Domain::IPV6, Type::DGRAM, None).unwrap();
            ipv6.set_only_v6(true).unwrap();
            let bound = ipv6.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into());
            bound.ok().map(|()| ([(3, ipv4), (4, ipv6)], port))
        })
        .flatten()
        .next()
        .unwrap();
        let takes = |address: String| chosen(&both, &address.parse().unwrap());
        assert_eq!(takes(format!("udp://[::]:{port}")), Some(1));
        assert_eq!(takes(format!("udp://0.0.0.0:{port}")), Some(0));
    }

    #[test]
    fn a_connection_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection: Socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap().into();
        let at = connection.local_addr().unwrap().as_socket().unwrap();
        assert!(!takes(&connection, &format!("tcp://{at}")));
        assert_eq!(described(&connection), "a socket that no messages come by");
    }
}
