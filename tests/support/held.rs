//! Addresses and ports that are ours, also while nobody listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

use super::eventually;

/// An address of loopback that nothing else in this process has: a relay of another test may still try a port at which
/// its collector was.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 18, high, low))
}

/// A port of it that nobody has.
pub fn own_port() -> SocketAddr {
    SocketAddr::new(own_address(), 0)
}

/// A port that is ours on each of these addresses for as long as this lives. A program that reuses addresses, as all
/// that listen on TCP do, can listen there and go and come back; nobody else gets it, and while nobody listens
/// connections are refused.
pub struct Held {
    port: u16,
    _sockets: Vec<Socket>,
}

impl Held {
    pub fn new(udp: bool, ips: &[IpAddr]) -> Self {
        if udp { Self { port: of_nobody(ips), _sockets: Vec::new() } } else { Self::on(ips) }
    }

    pub fn on(ips: &[IpAddr]) -> Self {
        let try_all = || -> io::Result<Self> {
            let mut sockets = Vec::new();
            let mut port = 0;
            for ip in ips {
                let at = SocketAddr::new(*ip, port);
                let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&at.into())?;
                port = socket.local_addr()?.as_socket().expect("an IP socket").port();
                sockets.push(socket);
            }
            Ok(Self { port, _sockets: sockets })
        };
        eventually("a port that is free on all addresses", || try_all().ok())
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A port of UDP cannot be held for somebody else. This one is below those that the kernel gives to whoever asks for any
/// (`net.ipv4.ip_local_port_range`), and given once in a process.
fn of_nobody(ips: &[IpAddr]) -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two processes start at different places.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    eventually("a port of UDP that is free on all addresses", || {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        ips.iter().all(|ip| UdpSocket::bind((*ip, port)).is_ok()).then_some(port)
    })
}
