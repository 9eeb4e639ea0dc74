//! The demo's senders: what Docker's driver would send for a few containers, by UDP, TCP and TLS, at a steady rate.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{Datelike, Timelike, Utc};

use super::Problem;
use crate::config::{ClientTls, ListenAddress};
use crate::tls;

pub const IMAGE: &str = "registry.example.com:5000/shop/web:1.25";

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Messages go out in small bursts, as containers print.
const BURST_EVERY: Duration = Duration::from_millis(5);

/// Bytes that are written at once at the most.
const MOST_PENDING: usize = 16 * 1024;

/// Where a relay listens, and how.
#[derive(Clone, Copy)]
pub enum Door {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Tls(SocketAddr),
}

pub struct Senders {
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Door {
    pub fn from_address(address: &ListenAddress) -> Option<Self> {
        match address {
            ListenAddress::Udp(socket) => Some(Self::Udp(*socket)),
            ListenAddress::Tcp(socket) => Some(Self::Tcp(*socket)),
            ListenAddress::Tls(socket) => Some(Self::Tls(*socket)),
            // The demo's senders speak what containers speak.
            ListenAddress::Relp(_) | ListenAddress::RelpTls(_) => None,
            ListenAddress::Unix(_) | ListenAddress::Unixgram(_) => None,
        }
    }
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(socket) => write!(f, "udp://{socket}"),
            Self::Tcp(socket) => write!(f, "tcp://{socket}"),
            Self::Tls(socket) => write!(f, "tcp+tls://{socket}"),
        }
    }
}

impl Senders {
    /// One thread for each door; together they send `messages` messages, `rate` a second.
    pub fn start(doors: &[Door], ca: &Path, messages: u32, rate: u32) -> Result<Self, Problem> {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for (number, door) in doors.iter().enumerate() {
            let numbers = (number..messages as usize).step_by(doors.len());
            let rate = f64::from(rate) / doors.len() as f64;
            let (door, ca, sent) = (*door, ca.to_owned(), sent.clone());
            let thread = std::thread::Builder::new().name(format!("sender {door}"));
            threads.push(thread.spawn(move || send(door, &ca, numbers, rate, &sent))?);
        }
        Ok(Self { sent, threads })
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// How many were sent, when all are.
    pub fn join(self) -> Result<usize, Problem> {
        for thread in self.threads {
            thread.join().map_err(|_| "a sender panicked")??;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

/// The container that printed a message: its name and ID.
pub fn container(number: usize) -> (String, String) {
    let container = number % 7;
    (format!("shop-web-{container}"), format!("{:012x}", 0x2a90_52a5_c360 + container))
}

/// What it printed.
pub fn message(number: usize) -> String {
    format!("  at demo.Main(Main.java:{}): [level=\"info\"] request {number}", number % 500)
}

fn send(door: Door, ca: &Path, numbers: impl Iterator<Item = usize>, rate: f64, sent: &AtomicUsize) -> io::Result<()> {
    let mut wire = connect(door, ca)?;
    let start = Instant::now();
    let mut done = 0;
    for number in numbers {
        wire.send(&docker_message(door, number))?;
        sent.fetch_add(1, Ordering::Relaxed);
        done += 1;
        let due = start + Duration::from_secs_f64(f64::from(done) / rate);
        if due.saturating_duration_since(Instant::now()) > BURST_EVERY {
            wire.flush()?;
            std::thread::sleep(BURST_EVERY);
        }
    }
    wire.finish()
}

/// UDP in Docker's default format, TCP in rfc3164, TLS in rfc5424micro with octet counting, as the driver frames them.
fn docker_message(door: Door, number: usize) -> Vec<u8> {
    let (name, id) = container(number);
    let tag = format!("{IMAGE}/{name}/{id}");
    let text = message(number);
    let now = Utc::now();
    let (month, day) = (MONTHS[now.month0() as usize], now.day());
    let time = format!("{:02}:{:02}:{:02}", now.hour(), now.minute(), now.second());
    let stamp = format!("{month} {day:2} {time}");
    match door {
        Door::Udp(_) => format!("<30>{stamp} {tag}[4711]: {text}\n").into_bytes(),
        Door::Tcp(_) => format!("<30>{stamp} demo-host {tag}[4711]: {text}\n").into_bytes(),
        Door::Tls(_) => {
            let (year, month, micros) = (now.year(), now.month(), now.timestamp_subsec_micros());
            let stamp = format!("{year}-{month:02}-{day:02}T{time}.{micros:06}Z");
            let message = format!("<30>1 {stamp} demo-host {tag} 4711 {tag} - {text}\n");
            format!("{} {message}", message.len()).into_bytes()
        }
    }
}

/// A way to the relay, with what has not been written to it yet: bursts go out in one write, as from a container.
struct Wire {
    kind: Kind,
    pending: Vec<u8>,
}

enum Kind {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

fn connect(door: Door, ca: &Path) -> io::Result<Wire> {
    let kind = match door {
        Door::Udp(to) => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(to)?;
            Kind::Udp(socket)
        }
        Door::Tcp(to) => Kind::Tcp(TcpStream::connect(to)?),
        Door::Tls(to) => {
            let files = ClientTls { ca: Some(ca.to_owned()), ..ClientTls::default() };
            let stream = tls::blocking_client(&files, &to.ip().to_string(), TcpStream::connect(to)?);
            Kind::Tls(Box::new(stream.map_err(io::Error::other)?))
        }
    };
    Ok(Wire { kind, pending: Vec::new() })
}

impl Wire {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if let Kind::Udp(socket) = &self.kind {
            return socket.send(message).map(drop);
        }
        self.pending.extend_from_slice(message);
        if self.pending.len() < MOST_PENDING { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Udp(_) => {}
            Kind::Tcp(stream) => stream.write_all(&self.pending)?,
            Kind::Tls(stream) => stream.write_all(&self.pending)?,
        }
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        if let Kind::Tls(stream) = &mut self.kind {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(())
    }
}
