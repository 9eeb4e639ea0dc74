//! Sockets that a service manager has opened for us and keeps (systemd's socket activation): what is sent while no relay
//! runs waits in them, so that a restart loses nothing.
//!
//! Which listener takes which socket is said by their kind and address alone. Descriptors are copied, never taken: those
//! that were handed over stay open for as long as the process lives, so that another listener may take one at a reload.
//! The variables that tell of them stay set as well: they name our process ID, and we start no other program.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, RawFd};

use socket2::{SockAddr, Socket, Type};

use super::BindError;
use crate::config::ListenAddress;

/// The socket that was handed over for this address, if there is one.
pub(super) fn find(address: &ListenAddress) -> Result<Option<Socket>, BindError> {
    let handed_over = sockets()?;
    Ok(handed_over.into_iter().map(|(_, socket)| socket).find(|socket| is_for(socket, address)))
}

/// Each socket must have one listener. An error names one that none reads, where senders would be let in and never heard, or
/// that several read.
pub fn refuse_strays(addresses: &[&ListenAddress]) -> Result<(), BindError> {
    for (descriptor, socket) in sockets()? {
        match addresses.iter().filter(|address| is_for(&socket, address)).count() {
            0 => return Err(BindError::Stray(descriptor, described(&socket))),
            1 => {}
            _ => return Err(BindError::Contested(descriptor, described(&socket))),
        }
    }
    Ok(())
}

fn sockets() -> Result<Vec<(RawFd, Socket)>, BindError> {
    let descriptors = sd_notify::listen_fds().map_err(BindError::HandedOver)?;
    descriptors
        .map(|descriptor| Ok((descriptor, copy(descriptor)?)))
        .collect::<io::Result<_>>()
        .map_err(BindError::HandedOver)
}

fn copy(descriptor: RawFd) -> io::Result<Socket> {
    // SAFETY: LISTEN_FDS says that it was opened for us, `listen_fds` has just found it open, and nobody here closes it.
    let handed_over = unsafe { BorrowedFd::borrow_raw(descriptor) };
    Ok(handed_over.try_clone_to_owned()?.into())
}

fn is_for(socket: &Socket, address: &ListenAddress) -> bool {
    let (Ok(kind), Ok(real)) = (socket.r#type(), socket.local_addr()) else { return false };
    let listens = kind == Type::STREAM && socket.is_listener().unwrap_or(false);
    match address {
        ListenAddress::Udp(at) => kind == Type::DGRAM && is_at(&real, *at),
        ListenAddress::Tcp(at) | ListenAddress::Tls(at) | ListenAddress::Relp(at) | ListenAddress::RelpTls(at) => {
            listens && is_at(&real, *at)
        }
        ListenAddress::Unix(path) => listens && real.as_pathname() == Some(path),
        ListenAddress::Unixgram(path) => kind == Type::DGRAM && real.as_pathname() == Some(path),
    }
}

fn is_at(real: &SockAddr, asked: SocketAddr) -> bool {
    let Some(real) = real.as_socket() else { return false };
    // On a host without IPv6 `[::]` is every address of IPv4, for a service manager as for us.
    let all = asked.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && real.ip().is_unspecified();
    real.port() == asked.port() && (all || real.ip() == asked.ip())
}

/// What a `[[listen]]` that takes it would be called.
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
        is_for(socket, &address.parse().unwrap())
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

    #[test]
    fn a_connection_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection: Socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap().into();
        let at = connection.local_addr().unwrap().as_socket().unwrap();
        assert!(!takes(&connection, &format!("tcp://{at}")));
        assert_eq!(described(&connection), "a socket that no messages come by");
    }
}
