//! A collector for `demo` and `probe`: it takes connections or datagrams until the process ends, and hands each frame on.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::config::DEFAULT_MAX_FRAME;
use crate::protocol::framing::Framer;

/// Bytes of a frame that are kept: what a relay adds to a message included.
const MOST_FRAME: usize = DEFAULT_MAX_FRAME * 2;

/// Connections at a time; more are closed at once.
const MOST_CONNECTIONS: usize = 64;

/// Where it listens, and the connections it has taken.
pub struct Collector {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Collector {
    /// Takes connections, port 0 for any.
    pub fn tcp(at: SocketAddr, on_frame: impl Fn(&[u8]) + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let address = listener.local_addr()?;
        let (accepted, on_frame, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(on_frame), Arc::new(()));
        let counter = accepted.clone();
        thread::Builder::new().name(format!("collector {address}")).spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::Relaxed);
                let (on_frame, open) = (on_frame.clone(), open.clone());
                if Arc::strong_count(&open) > MOST_CONNECTIONS + 1 {
                    continue;
                }
                // A relay that goes away in the middle is no reason to stop collecting.
                let _ = thread::Builder::new().spawn(move || {
                    let _ = read(stream, &*on_frame);
                    drop(open);
                });
            }
        })?;
        Ok(Self { address, accepted })
    }

    /// Takes datagrams.
    pub fn udp(at: SocketAddr, on_frame: impl Fn(&[u8]) + Send + Sync + 'static) -> io::Result<Self> {
        let socket = UdpSocket::bind(at)?;
        // As much as the kernel gives: what is lost here would be blamed on the chain.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        let address = socket.local_addr()?;
        thread::Builder::new().name(format!("collector {address}")).spawn(move || {
            let mut datagram = vec![0; MOST_FRAME];
            while let Ok(length) = socket.recv(&mut datagram) {
                on_frame(&datagram[..length]);
            }
        })?;
        Ok(Self { address, accepted: Arc::default() })
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn read(mut stream: TcpStream, on_frame: &impl Fn(&[u8])) -> io::Result<()> {
    let mut framer = Framer::new(MOST_FRAME);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        framer.feed(&bytes[..length], |frame, _| on_frame(frame));
    }
}

/// Bytes to ask the kernel for.
const RECEIVE_BUFFER: usize = 8 << 20;
