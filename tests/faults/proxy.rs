//! A proxy before the collector, for behaviour that no collector offers: it reads slowly, and keeps connections that
//! the relay has closed.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Bytes of one read. When the proxy is slow, it reads the second number of bytes ten times a second: 4 kB/s.
const READ: usize = 64 * 1024;
const READ_SLOWLY: usize = 400;
const SLOWLY: Duration = Duration::from_millis(100);
/// The size of its kernel's receive buffer. It is small, so that slow reading has an effect.
const BUFFER: usize = 128 * 1024;

/// Accepts connections on all addresses of this machine until it is dropped.
pub struct Proxy {
    listener: Socket,
    port: u16,
    manners: Arc<Manners>,
}

#[derive(Default)]
struct Manners {
    is_slow: AtomicBool,
    is_over: AtomicBool,
}

impl Proxy {
    /// Forwards to this address. With `stays`, the proxy leaves a connection open after the other side has closed it.
    pub fn to(collector: SocketAddr, stays: bool) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.set_recv_buffer_size(BUFFER).expect("a socket option");
        listener.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).expect("a free port");
        listener.listen(16).expect("bound");
        let port = listener.local_addr().ok().and_then(|at| at.as_socket()).expect("bound").port();
        let (accepting, manners) = (listener.try_clone().expect("a descriptor"), Arc::<Manners>::default());
        let of_each = manners.clone();
        std::thread::spawn(move || {
            while let Ok((relay, _)) = accepting.accept() {
                let _ = carry(relay.into(), collector, stays, &of_each);
            }
        });
        Self { listener, port, manners }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Limits the rate from the relay to 4 kB/s, or removes the limit.
    pub fn is_slow(&self, slow: bool) {
        self.manners.is_slow.store(slow, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.manners.is_over.store(true, Ordering::Relaxed);
        let _ = self.listener.shutdown(Shutdown::Both);
    }
}

/// Copies both directions, on threads that end with the connection.
fn carry(relay: TcpStream, to: SocketAddr, stays: bool, manners: &Arc<Manners>) -> io::Result<()> {
    let collector = TcpStream::connect(to)?;
    relay.set_nodelay(true)?;
    collector.set_nodelay(true)?;
    let (mut from_collector, mut to_relay) = (collector.try_clone()?, relay.try_clone()?);
    let (of_one, of_other) = (manners.clone(), manners.clone());
    std::thread::spawn(move || {
        let _ = hand_on(relay, &collector, &of_one);
        let _ = collector.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_collector, &mut to_relay);
        while stays && !of_other.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(SLOWLY);
        }
        let _ = to_relay.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn hand_on(mut from: TcpStream, mut to: &TcpStream, manners: &Manners) -> io::Result<()> {
    let mut bytes = vec![0; READ];
    loop {
        let most = if manners.is_slow.load(Ordering::Relaxed) { READ_SLOWLY } else { READ };
        if most < READ {
            std::thread::sleep(SLOWLY);
        }
        match from.read(&mut bytes[..most])? {
            0 => return Ok(()),
            length => to.write_all(&bytes[..length])?,
        }
    }
}
