//! The probe's sender imitates a container that prints numbered messages at a steady rate, and Docker's driver. The driver
//! writes each message by itself. If the relay does not accept a message, the driver sends it once more over a new
//! connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;
use parking_lot::Mutex;

use super::arrivals::Token;
use super::drivers::{Container, Driver};
use crate::cli::log_driver::{Connection, Pacer, RelayAddress};
use crate::config::ClientTls;
use crate::listen::ingest::now;

pub const IMAGE: &str = "logferry/probe:1";
pub const NAME: &str = "logferry-probe";

/// How long the sender waits after a refused connection. Messages are dropped meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The messages to send.
pub struct Messages {
    pub token: Token,
    pub driver: Driver,
    /// The driver's `tag` option.
    pub tag: String,
    pub count: u32,
    /// Messages a second.
    pub rate: u32,
}

/// A sender on its thread.
#[derive(Clone)]
pub struct Sender {
    progress: Arc<Progress>,
}

/// The progress of the sender.
#[derive(Default)]
struct Progress {
    /// Messages that the sender has tried to send.
    attempted: AtomicU32,
    /// Messages that the relay did not accept.
    refused: AtomicU32,
    last_error: Mutex<Option<String>>,
    finished: AtomicBool,
    elapsed: Mutex<Duration>,
}

impl Sender {
    /// Starts the thread. The sender tries the relay's addresses in order.
    pub fn start(relay_addresses: Vec<RelayAddress>, tls: ClientTls, messages: Messages) -> io::Result<Self> {
        let sender = Self { progress: Arc::default() };
        let progress = sender.progress.clone();
        thread::Builder::new().name("sender".to_owned()).spawn(move || {
            progress.send(&relay_addresses, &tls, &messages);
            progress.finished.store(true, Ordering::Release);
        })?;
        Ok(sender)
    }

    pub fn sent(&self) -> u32 {
        self.progress.attempted.load(Ordering::Acquire)
    }

    pub fn refused(&self) -> u32 {
        self.progress.refused.load(Ordering::Relaxed)
    }

    /// Why the relay did not accept the last refused message, or why it ended a connection.
    pub fn last_error(&self) -> Option<String> {
        self.progress.last_error.lock().clone()
    }

    pub fn finished(&self) -> bool {
        self.progress.finished.load(Ordering::Acquire)
    }

    /// How long the sending took. It is known when the sender has finished.
    pub fn elapsed(&self) -> Duration {
        *self.progress.elapsed.lock()
    }
}

impl Progress {
    fn send(&self, relay_addresses: &[RelayAddress], tls: &ClientTls, messages: &Messages) {
        let Messages { token, driver: speaks, tag, count, rate } = messages;
        let start = Instant::now();
        let container = Container { host: hostname(), tag: expand_tag(tag, token.text()), id: full_id(token.text()) };
        let pacer = Pacer::new(f64::from(*rate));
        let mut driver = LogDriver { relay_addresses, tls, connection: None, refused: None, refusal: None };
        for number in 1..=*count {
            let line = token.message(number, now().0);
            let message = speaks.message(&relay_addresses[0], Utc::now(), &container, &line);
            self.attempted.store(number, Ordering::Release);
            if let Err(error) = driver.send(&message) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                *self.last_error.lock() = Some(error.to_string());
            } else if let Some(refusal) = driver.refusal.take() {
                *self.last_error.lock() = Some(refusal);
            }
            if pacer.is_ahead(number) {
                pacer.pause();
            }
        }
        *self.elapsed.lock() = start.elapsed();
        if let Some(refusal) = driver.connection.and_then(Connection::finish_and_hear) {
            *self.last_error.lock() = Some(refusal);
        }
    }
}

/// The log driver's connection to the relay, and the data for another connection.
struct LogDriver<'a> {
    /// The addresses, all with the same transport. The first one that accepts a connection is used.
    relay_addresses: &'a [RelayAddress],
    tls: &'a ClientTls,
    connection: Option<Connection>,
    /// The time and reason of the last refused connection.
    refused: Option<(Instant, String)>,
    /// The last reason that the relay gave for ending a connection.
    refusal: Option<String>,
}

impl LogDriver<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if let Some(connection) = &mut self.connection {
            if connection.send(message).and_then(|()| connection.flush()).is_ok() {
                return Ok(());
            }
            self.refusal = connection.refusal().or(self.refusal.take());
            self.connection = None;
        }
        if let Some((at, why)) = &self.refused
            && at.elapsed() < RETRY_INTERVAL
        {
            return Err(io::Error::other(why.clone()));
        }
        let connected = self.connect(message);
        self.refused = connected.as_ref().err().map(|why| (Instant::now(), why.to_string()));
        self.connection = Some(connected?);
        Ok(())
    }

    /// Connects and sends the message. If all addresses fail, the error is that of the first one, as in the driver.
    fn connect(&self, message: &[u8]) -> io::Result<Connection> {
        let mut first_error = None;
        for to in self.relay_addresses {
            let connected = Connection::connect(to, self.tls).and_then(|mut connection| {
                connection.send(message)?;
                connection.flush()?;
                Ok(connection)
            });
            match connected {
                Ok(connection) => return Ok(connection),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| io::Error::other("the relay has no address")))
    }
}

/// Expands the driver's `tag` template for this container.
fn expand_tag(template: &str, id: &str) -> String {
    let full_id = full_id(id);
    let fields = [
        ("{{.ImageName}}", IMAGE),
        ("{{.Name}}", NAME),
        ("{{.ID}}", id),
        ("{{.FullID}}", &full_id),
        ("{{.Hostname}}", NAME),
    ];
    fields.iter().fold(template.to_owned(), |tag, (field, value)| tag.replace(field, value))
}

/// An ID of 64 digits, as Docker's.
fn full_id(id: &str) -> String {
    id.chars().cycle().take(64).collect()
}

/// The name of this machine, if it is legal in a syslog header.
fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let is_fit = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_fit { name } else { NAME.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// `localhost` may also resolve to ::1, where a relay on 127.0.0.1 does not listen.
    #[test]
    fn all_addresses_are_tried_before_a_message_counts_as_refused() {
        // This socket occupies the port, but does not listen.
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        held.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        let refuses = RelayAddress::Tcp(held.local_addr().expect("its address").as_socket().expect("of IP"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let takes = RelayAddress::Tcp(listener.local_addr().expect("its address"));
        let tls = ClientTls::default();
        let send = |relay_addresses: &[RelayAddress]| {
            LogDriver { relay_addresses, tls: &tls, connection: None, refused: None, refusal: None }.send(b"<13>x")
        };
        let error = send(std::slice::from_ref(&refuses)).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        send(&[refuses, takes]).expect("the second one takes it");
        let mut taken = [0; 5];
        listener.accept().expect("a connection").0.read_exact(&mut taken).expect("a message");
        assert_eq!(&taken, b"<13>x");
    }
}
