//! The receiving end of `demo` and `probe`: threads that accept connections or datagrams until the process ends, and call a
//! function with each frame.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::config::DEFAULT_MAX_FRAME;
use crate::protocol::framing::Framer;

/// The maximum size of a frame, in bytes. A relay adds a header to the longest message.
const MAX_FRAME: usize = DEFAULT_MAX_FRAME * 2;

/// The maximum number of connections. Further ones are closed at once.
const MAX_CONNECTIONS: usize = 64;

/// A bound socket with its reading threads.
pub struct FrameReceiver {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl FrameReceiver {
    /// Listens for TCP connections. Port 0 stands for any free port.
    pub fn tcp(at: SocketAddr, on_frame: impl Fn(&[u8]) + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let address = listener.local_addr()?;
        let (accepted, on_frame, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(on_frame), Arc::new(()));
        let counter = accepted.clone();
        thread::Builder::new().name(format!("receiver {address}")).spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::Relaxed);
                let (on_frame, open) = (on_frame.clone(), open.clone());
                if Arc::strong_count(&open) > MAX_CONNECTIONS + 1 {
                    continue;
                }
                // A broken connection must not end the collecting.
                let _ = thread::Builder::new().spawn(move || {
                    let _ = read(stream, &*on_frame);
                    drop(open);
                });
            }
        })?;
        Ok(Self { address, accepted })
    }

    /// Reads datagrams. Port 0 stands for any free port.
    pub fn udp(at: SocketAddr, on_frame: impl Fn(&[u8]) + Send + Sync + 'static) -> io::Result<Self> {
        let socket = UdpSocket::bind(at)?;
        // The size is limited by the kernel. A datagram that is lost here would count as lost by the relay.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        let address = socket.local_addr()?;
        thread::Builder::new().name(format!("receiver {address}")).spawn(move || {
            let mut datagram = vec![0; MAX_FRAME];
            while let Ok(length) = socket.recv(&mut datagram) {
                on_frame(&datagram[..length]);
            }
        })?;
        Ok(Self { address, accepted: Arc::default() })
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn read(mut stream: TcpStream, on_frame: &impl Fn(&[u8])) -> io::Result<()> {
    let mut framer = Framer::new(MAX_FRAME);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        framer.feed(&bytes[..length], |frame| on_frame(frame.bytes));
    }
}

/// The receive buffer of a UDP socket, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;
