//! A sender's connection to the relay: UDP, TCP or a unix socket without acknowledgements, or RELP.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, SockAddr, Socket, Type};

use super::support::relp;

/// The write timeout on a full connection.
const HELD: Duration = Duration::from_millis(20);
/// Time between two attempts to connect, or two checks for an answer.
const AGAIN: Duration = Duration::from_millis(10);
/// The limit of unanswered messages in a RELP session, as in rsyslog's sender.
const WINDOW: usize = 128;

#[derive(Clone, Debug)]
pub enum Way {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Unix(PathBuf),
    Relp(SocketAddr),
}

pub enum Wire {
    Udp(UdpSocket),
    Stream(Stream),
    Relp(Relp),
}

/// A connection without answers. It may be closed.
pub struct Stream {
    to: Way,
    open: Option<Socket>,
    /// Bytes of the message that the kernel has taken.
    taken: usize,
}

/// A RELP session. No row of the table breaks it.
pub struct Relp {
    socket: Socket,
    txnr: u32,
    /// Bytes of the frame that the kernel has taken.
    taken: usize,
    unanswered: usize,
    /// The part of the next answer that was read.
    answer: Vec<u8>,
}

impl Way {
    /// Whether a relay listens there. For UDP always true, because nothing would report it.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Udp(_) => true,
            Self::Tcp(to) | Self::Relp(to) => TcpStream::connect(to).is_ok(),
            Self::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        let (domain, to) = match self {
            Self::Udp(to) | Self::Tcp(to) | Self::Relp(to) => (Domain::for_address(*to), (*to).into()),
            Self::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect(&to)?;
        socket.set_write_timeout(Some(HELD))?;
        if domain != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    }
}

impl Wire {
    pub fn new(way: &Way) -> Self {
        match way {
            Way::Udp(to) => {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                socket.connect(to).expect("udp always connects");
                Self::Udp(socket)
            }
            Way::Tcp(_) | Way::Unix(_) => Self::Stream(Stream { to: way.clone(), open: None, taken: 0 }),
            Way::Relp(_) => Self::Relp(Relp::open(way)),
        }
    }

    pub fn is_in_the_middle(&self) -> bool {
        match self {
            Self::Udp(_) => false,
            Self::Stream(stream) => stream.open.is_some() && stream.taken > 0,
            Self::Relp(relp) => relp.taken > 0,
        }
    }

    /// Whether a relay is connected that could take a message.
    pub fn is_connected(&self) -> bool {
        !matches!(self, Self::Stream(Stream { open: None, .. }))
    }

    /// Closes the connection, so that the next message goes over a new one.
    pub fn hangs_up(&mut self) {
        if let Self::Stream(stream) = self {
            stream.open = None;
        }
    }

    /// Whether the kernel has taken the whole message. If not, the caller must pass the same message again.
    pub fn hands_over(&mut self, message: &[u8]) -> bool {
        match self {
            // An error reports the refusal of an earlier datagram. The second attempt sends this one.
            Self::Udp(socket) => socket.send(message).is_ok() || socket.send(message).is_ok(),
            Self::Stream(stream) => stream.hands_over(message),
            Self::Relp(relp) => relp.hands_over(message),
        }
    }

    /// Whether all messages that need an answer have one.
    pub fn is_answered(&mut self) -> bool {
        match self {
            Self::Udp(_) | Self::Stream(_) => true,
            Self::Relp(relp) => {
                relp.hears();
                relp.unanswered == 0
            }
        }
    }
}

impl Stream {
    fn hands_over(&mut self, message: &[u8]) -> bool {
        let Some(open) = &mut self.open else {
            self.taken = 0;
            self.open = self.to.connect().ok();
            if self.open.is_none() {
                std::thread::sleep(AGAIN);
            }
            return false;
        };
        if !is_alive(open) {
            self.open = None;
            return false;
        }
        match write_some(open, message, &mut self.taken) {
            Ok(whole) => whole,
            Err(_) => {
                self.open = None;
                false
            }
        }
    }
}

impl Relp {
    /// Returns when the relay has answered the `open`.
    fn open(to: &Way) -> Self {
        let mut socket = to.connect().expect("the relay listens");
        let offers = b"relp_version=0\nrelp_software=librelp,1.11.0\ncommands=syslog";
        socket.write_all(&relp::frame(1, "open", offers)).expect("a small frame");
        let mut session = Self { socket, txnr: 1, taken: 0, unanswered: 1, answer: Vec::new() };
        while session.unanswered > 0 {
            std::thread::sleep(AGAIN);
            session.hears();
        }
        session
    }

    fn hands_over(&mut self, message: &[u8]) -> bool {
        self.hears();
        if self.unanswered >= WINDOW {
            std::thread::sleep(AGAIN);
            return false;
        }
        let text = message.strip_suffix(b"\n").unwrap_or(message);
        let frame = relp::frame(self.txnr + 1, "syslog", text);
        let whole = write_some(&mut self.socket, &frame, &mut self.taken).expect("the relay keeps the session");
        if whole {
            self.txnr += 1;
            self.unanswered += 1;
        }
        whole
    }

    /// Reads the available answers without waiting.
    fn hears(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(length @ 1..) => self.answer.extend_from_slice(&bytes[..length]),
                Err(Errno::EAGAIN) => break,
                ended => panic!("the relay has ended a RELP session: {ended:?}"),
            }
        }
        while let Some(end) = frame_end(&self.answer) {
            let frame: Vec<u8> = self.answer.drain(..end).collect();
            assert!(frame.windows(4).any(|word| word == b" 200"), "{}", String::from_utf8_lossy(&frame));
            self.unanswered -= 1;
        }
    }
}

/// The end of the frame `TXNR rsp LENGTH DATA`, if it is complete.
fn frame_end(bytes: &[u8]) -> Option<usize> {
    let blanks: Vec<usize> = memchr::memchr_iter(b' ', bytes).take(3).collect();
    let [_, command, length] = blanks[..] else { return None };
    let length_of_data: usize = std::str::from_utf8(&bytes[command + 1..length]).ok()?.parse().expect("a length");
    let end = length + 1 + length_of_data + 1;
    (bytes.len() >= end).then_some(end)
}

/// Writes as much as the kernel takes within [`HELD`]. Returns true when the message is complete.
fn write_some(socket: &mut Socket, message: &[u8], taken: &mut usize) -> io::Result<bool> {
    match socket.write(&message[*taken..]) {
        Ok(length) => *taken += length,
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
        Err(error) => return Err(error),
    }
    let whole = *taken == message.len();
    if whole {
        *taken = 0;
    }
    Ok(whole)
}

/// Whether the relay has not closed the connection: the first write after a close would still succeed.
fn is_alive(socket: &Socket) -> bool {
    recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK) == Err(Errno::EAGAIN)
}
