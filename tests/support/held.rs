//! Addresses and ports that stay reserved while no program listens on them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

use super::eventually;

/// A loopback address that no other test in this process has. On a shared address, the relay of another test could still try the port of
/// its former collector.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 18, high, low))
}

/// A fresh address with port 0, so that the kernel chooses a port.
pub fn own_port() -> SocketAddr {
    SocketAddr::new(own_address(), 0)
}

/// A port that is reserved on each of these addresses for as long as this lives. A program that reuses addresses, as all TCP listeners do,
/// can bind it repeatedly. No other program gets the port, and connections are refused while no program listens.
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

/// A UDP port cannot be reserved for another program. This port is below the range from which the kernel chooses ports
/// (`net.ipv4.ip_local_port_range`), and a process uses it only once.
fn of_nobody(ips: &[IpAddr]) -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two processes start at different ports.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    eventually("a port of UDP that is free on all addresses", || {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        ips.iter().all(|ip| UdpSocket::bind((*ip, port)).is_ok()).then_some(port)
    })
}
