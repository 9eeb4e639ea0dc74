//! The demo's senders: they send the messages that Docker's driver would send for a few containers, by UDP, TCP and TLS, at a
//! steady rate.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use chrono::{Datelike, Timelike, Utc};

use super::DemoError;
use crate::cli::log_driver::{Connection, DOCKERD_PID, Pacer, RelayAddress, rfc5424micro};
use crate::config::ClientTls;

pub const IMAGE: &str = "registry.example.com:5000/shop/web:1.25";

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

pub struct Senders {
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Senders {
    /// Starts one thread for each address. Together the threads send `messages` messages, `rate` a second.
    pub fn start(relay_addresses: &[RelayAddress], ca: &Path, messages: u32, rate: u32) -> Result<Self, DemoError> {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for (number, to) in relay_addresses.iter().enumerate() {
            let numbers = (number..messages as usize).step_by(relay_addresses.len());
            let rate = f64::from(rate) / relay_addresses.len() as f64;
            let (to, ca, sent) = (to.clone(), ca.to_owned(), sent.clone());
            let thread = std::thread::Builder::new().name(format!("sender {to}"));
            threads.push(thread.spawn(move || send(&to, &ca, numbers, rate, &sent))?);
        }
        Ok(Self { sent, threads })
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the threads, and returns the number of messages they sent.
    pub fn join(self) -> Result<usize, DemoError> {
        for thread in self.threads {
            thread.join().map_err(|_| "a sender panicked")??;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

/// The name and ID of the container that printed a message.
pub fn container(number: usize) -> (String, String) {
    let container = number % 7;
    (format!("shop-web-{container}"), format!("{:012x}", 0x2a90_52a5_c360 + container))
}

/// The text of a message.
pub fn message(number: usize) -> String {
    format!("  at demo.Main(Main.java:{}): [level=\"info\"] request {number}", number % 500)
}

fn send(
    to: &RelayAddress,
    ca: &Path,
    numbers: impl Iterator<Item = usize>,
    rate: f64,
    sent: &AtomicUsize,
) -> io::Result<()> {
    let mut connection = Connection::connect(to, &ClientTls { ca: Some(ca.to_owned()), ..ClientTls::default() })?;
    let pacer = Pacer::new(rate);
    let mut done = 0;
    for number in numbers {
        connection.send(&docker_message(to, number))?;
        sent.fetch_add(1, Ordering::Relaxed);
        done += 1;
        if pacer.is_ahead(done) {
            connection.flush()?;
            pacer.pause();
        }
    }
    connection.finish()
}

/// Formats a message. UDP uses Docker's default format, TCP `rfc3164`, TLS `rfc5424micro` with octet counting.
fn docker_message(to: &RelayAddress, number: usize) -> Vec<u8> {
    let (name, id) = container(number);
    let tag = format!("{IMAGE}/{name}/{id}");
    let text = message(number);
    let now = Utc::now();
    let (month, day) = (MONTHS[now.month0() as usize], now.day());
    let stamp = format!("{month} {day:2} {:02}:{:02}:{:02}", now.hour(), now.minute(), now.second());
    match to {
        RelayAddress::Udp(_) | RelayAddress::Unixgram(_) => {
            format!("<30>{stamp} {tag}[{DOCKERD_PID}]: {text}\n").into_bytes()
        }
        RelayAddress::Tcp(_) | RelayAddress::Unix(_) => {
            format!("<30>{stamp} demo-host {tag}[{DOCKERD_PID}]: {text}\n").into_bytes()
        }
        RelayAddress::Tls(_) => rfc5424micro(to, now, "demo-host", &tag, &text),
    }
}
