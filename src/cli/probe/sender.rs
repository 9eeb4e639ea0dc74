//! The probe's container: it prints numbered messages at a steady rate, and Docker's driver sends them, each in a write of
//! its own; one that the relay does not take is sent once more over a new connection, as the driver does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;
use parking_lot::Mutex;

use super::arrivals::Token;
use crate::cli::wire::{Door, Pace, Wire, rfc5424micro};
use crate::config::ClientTls;
use crate::listen::ingest::now;

const IMAGE: &str = "logferry/probe:1";
const NAME: &str = "logferry-probe";

/// A relay that refused a connection is not asked again for so long: the messages until then are not sent.
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub struct Messages {
    pub token: Token,
    /// The driver's `tag` option.
    pub tag: String,
    pub count: u32,
    /// A second.
    pub rate: u32,
}

#[derive(Clone)]
pub struct Sender {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Messages that were sent, or were to be.
    tried: AtomicU32,
    /// Those that the relay did not take.
    refused: AtomicU32,
    why: Mutex<Option<String>>,
    finished: AtomicBool,
    took: Mutex<Duration>,
}

impl Sender {
    /// `doors`: the relay's addresses, tried in this order.
    pub fn start(doors: Vec<Door>, tls: ClientTls, messages: Messages) -> io::Result<Self> {
        let sender = Self { state: Arc::default() };
        let state = sender.state.clone();
        thread::Builder::new().name("sender".to_owned()).spawn(move || {
            let start = Instant::now();
            state.send(&doors, &tls, &messages);
            *state.took.lock() = start.elapsed();
            state.finished.store(true, Ordering::Release);
        })?;
        Ok(sender)
    }

    pub fn sent(&self) -> u32 {
        self.state.tried.load(Ordering::Acquire)
    }

    pub fn refused(&self) -> u32 {
        self.state.refused.load(Ordering::Relaxed)
    }

    /// Why the relay did not take the last one that it did not take.
    pub fn why(&self) -> Option<String> {
        self.state.why.lock().clone()
    }

    pub fn finished(&self) -> bool {
        self.state.finished.load(Ordering::Acquire)
    }

    /// How long sending took, once it has finished.
    pub fn took(&self) -> Duration {
        *self.state.took.lock()
    }
}

impl State {
    fn send(&self, doors: &[Door], tls: &ClientTls, messages: &Messages) {
        let Messages { token, tag, count, rate } = messages;
        let (tag, host) = (filled(tag, token.text()), host());
        let pace = Pace::new(f64::from(*rate));
        let mut line = Driver { doors, tls, wire: None, refused_at: None };
        for number in 1..=*count {
            let message = rfc5424micro(&doors[0], Utc::now(), &host, &tag, &token.message(number, now().0));
            self.tried.store(number, Ordering::Release);
            if let Err(error) = line.send(&message) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                *self.why.lock() = Some(error.to_string());
            }
            if pace.is_ahead(number) {
                pace.rest();
            }
        }
        if let Some(wire) = line.wire {
            let _ = wire.finish();
        }
    }
}

/// What stands between the container and the relay.
struct Driver<'a> {
    /// All of one kind; the first that takes a connection.
    doors: &'a [Door],
    tls: &'a ClientTls,
    wire: Option<Wire>,
    refused_at: Option<Instant>,
}

impl Driver<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if let Some(wire) = &mut self.wire {
            if wire.send(message).and_then(|()| wire.flush()).is_ok() {
                return Ok(());
            }
            self.wire = None;
        }
        if self.refused_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return Err(io::Error::other("the relay does not take connections"));
        }
        let connected = self.connect(message);
        self.refused_at = connected.is_err().then(Instant::now);
        self.wire = Some(connected?);
        Ok(())
    }

    /// A connection that has taken the message. When no address does, what is wrong with the first one is told, as the
    /// driver tells it.
    fn connect(&self, message: &[u8]) -> io::Result<Wire> {
        let mut why = None;
        for door in self.doors {
            let connected = Wire::connect(door, self.tls).and_then(|mut wire| {
                wire.send(message)?;
                wire.flush()?;
                Ok(wire)
            });
            match connected {
                Ok(wire) => return Ok(wire),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or_else(|| io::Error::other("the relay has no address")))
    }
}

/// The driver's tag for this container.
fn filled(template: &str, id: &str) -> String {
    // 64 digits, as Docker's.
    let full_id: String = id.chars().cycle().take(64).collect();
    let fields = [
        ("{{.ImageName}}", IMAGE),
        ("{{.Name}}", NAME),
        ("{{.ID}}", id),
        ("{{.FullID}}", &full_id),
        ("{{.Hostname}}", NAME),
    ];
    fields.iter().fold(template.to_owned(), |tag, (field, value)| tag.replace(field, value))
}

/// This machine's name, as a header may carry it.
fn host() -> String {
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

    /// `localhost` is ::1 too, where a relay on 127.0.0.1 does not listen.
    #[test]
    fn all_addresses_are_tried_before_a_message_counts_as_refused() {
        // It has the port, and nobody listens there.
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        held.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        let refuses = Door::Tcp(held.local_addr().expect("its address").as_socket().expect("of IP"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let takes = Door::Tcp(listener.local_addr().expect("its address"));
        let tls = ClientTls::default();
        let send = |doors: &[Door]| Driver { doors, tls: &tls, wire: None, refused_at: None }.send(b"<13>x");
        let error = send(std::slice::from_ref(&refuses)).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        send(&[refuses, takes]).expect("the second one takes it");
        let mut taken = [0; 5];
        listener.accept().expect("a connection").0.read_exact(&mut taken).expect("a message");
        assert_eq!(&taken, b"<13>x");
    }
}
