//! The strangers: many connections from many addresses, all with the same attack.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use socket2::{Domain, Socket, Type};

use super::support::{Certs, TlsClient};

/// The strangers use several addresses, so that no limit per address takes effect.
const ADDRESSES: usize = 8;
/// Bytes that each stranger sends in its turn. All messages grow at the same time, so a buffer that one message has
/// outgrown is too small for the next one and stays with the allocator.
const PIECE: usize = 40_000;
/// The relay counts as taking nothing more after this many checks in a row.
const BELIEVED: usize = 60;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Concurrent handshakes.
const AT_A_TIME: usize = 16;
/// The receive buffer of a stranger that does not read, in bytes.
const LITTLE: usize = 2048;

/// Dropping a crowd closes all connections.
pub struct Crowd {
    /// `None`: the relay has closed this connection.
    strangers: Vec<Option<TcpStream>>,
    shouting: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Crowd {
    pub fn comes(to: SocketAddr, strangers: usize) -> Self {
        Self::comes_with(to, strangers, |_| ())
    }

    /// The strangers' receive buffers hold hardly any answers, and the strangers read none.
    pub fn comes_and_reads_little(to: SocketAddr, strangers: usize) -> Self {
        Self::comes_with(to, strangers, |socket| socket.set_recv_buffer_size(LITTLE).expect("a socket option"))
    }

    fn comes_with(to: SocketAddr, strangers: usize, prepares: impl Fn(&Socket)) -> Self {
        let strangers = (0..strangers).map(|number| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
            prepares(&socket);
            socket.bind(&address(number).into()).expect("an address of loopback");
            socket.connect(&to.into()).expect("the kernel takes it");
            socket.set_nonblocking(true).expect("a socket option");
            Some(socket.into())
        });
        Self { strangers: strangers.collect(), shouting: None }
    }

    /// All strangers send these bytes.
    pub fn sends(self, bytes: &[u8]) -> Self {
        self.say(|_| Cow::Borrowed(bytes))
    }

    /// Each stranger sends its own bytes.
    pub fn each_sends(self, says: impl Fn(usize) -> Vec<u8>) -> Self {
        self.say(|number| Cow::Owned(says(number)))
    }

    /// Returns when the relay has taken all bytes or takes no more.
    fn say<'a>(mut self, says: impl Fn(usize) -> Cow<'a, [u8]>) -> Self {
        // The strangers with unsent bytes: number, bytes, and the length already sent.
        let mut speakers: Vec<_> = (0..self.strangers.len()).map(|number| (number, says(number), 0)).collect();
        let mut stood_still = 0;
        while !speakers.is_empty() && stood_still < BELIEVED {
            let mut moved = false;
            speakers.retain_mut(|(number, bytes, said)| {
                let stranger = &mut self.strangers[*number];
                let taken = written(stranger, bytes[*said..].chunks(PIECE).next().unwrap_or_default());
                moved |= taken > 0;
                *said += taken;
                *said < bytes.len() && stranger.is_some()
            });
            stood_still = if moved { 0 } else { stood_still + 1 };
            if !moved {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        self
    }

    /// Completes the handshakes, or ends them when the relay refuses. Several run at a time: in sequence, waiting
    /// connections would be silent for minutes on a busy machine.
    pub fn shakes_hands(self) -> Self {
        let config = Arc::new(TlsClient::ANONYMOUS.config(Certs::get(), None));
        let each = self.strangers.len().div_ceil(AT_A_TIME);
        std::thread::scope(|scope| {
            for some in self.strangers.chunks(each) {
                scope.spawn(|| some.iter().flatten().for_each(|stranger| shake_hands(stranger, config.clone())));
            }
        });
        self
    }

    /// Sends datagrams from several sockets at full speed: `now` datagrams before it returns, and more until the crowd
    /// is dropped.
    pub fn shouts(
        to: SocketAddr,
        sockets: usize,
        now: usize,
        says: impl Fn(usize) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let sockets: Vec<UdpSocket> = (0..sockets).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket")).collect();
        // Datagrams that do not fit into the socket buffer are lost, as always with UDP.
        let shout = move |number: usize| drop(sockets[number % sockets.len()].send_to(&says(number), to));
        (0..now).for_each(&shout);
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || (now..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(shout));
        Self { strangers: Vec::new(), shouting: Some((over, thread)) }
    }

    /// Whether the attack is complete and the connections only stay open.
    pub fn stands(&self) -> bool {
        self.shouting.is_none()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.shouting.take() {
            over.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }
}

fn shake_hands(mut stranger: &TcpStream, config: Arc<ClientConfig>) {
    stranger.set_nonblocking(false).expect("a socket option");
    let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut client = ClientConnection::new(config, name).expect("a client");
    while client.is_handshaking() && client.complete_io(&mut stranger).is_ok() {}
    // The client sends the last message of the handshake.
    while client.wants_write() && client.write_tls(&mut stranger).is_ok() {}
}

/// One address has fewer ports than there may be strangers.
fn address(number: usize) -> SocketAddr {
    let last = u8::try_from(1 + number % ADDRESSES).expect("few");
    SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0))
}

/// Writes and returns how many bytes the kernel takes now.
fn written(stranger: &mut Option<TcpStream>, bytes: &[u8]) -> usize {
    let Some(stream) = stranger else { return 0 };
    match stream.write(bytes) {
        Ok(length) => length,
        Err(error) if is_full(&error) => 0,
        Err(_) => {
            *stranger = None;
            0
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
