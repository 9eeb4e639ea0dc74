//! A way to the collector that is ours, for what no collector can be asked to do: to read slowly, and to keep connections that
//! the relay has closed.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Bytes that it reads at once, and so many ten times a second where it is slow: 4 kB/s.
const READ: usize = 64 * 1024;
const READ_SLOWLY: usize = 400;
const SLOWLY: Duration = Duration::from_millis(100);
/// What its kernel takes in for it: little, so that its slowness is felt.
const BUFFER: usize = 128 * 1024;

/// Takes connections on all addresses of this machine, for as long as it lives.
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
    /// Hands on to this address. One that `stays` leaves connections open whose other end has closed.
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

    /// Takes 4 kB/s of what the relay sends.
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

/// Both ways, on threads that end with the connection.
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
