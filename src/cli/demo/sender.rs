//! The demo's senders: what Docker's driver would send for a few containers, by UDP, TCP and TLS, at a steady rate.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use chrono::{Datelike, Timelike, Utc};

use super::Problem;
use crate::cli::wire::{DOCKERD, Door, Pace, Wire, rfc5424micro};
use crate::config::ClientTls;

pub const IMAGE: &str = "registry.example.com:5000/shop/web:1.25";

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

pub struct Senders {
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Senders {
    /// One thread for each door; together they send `messages` messages, `rate` a second.
    pub fn start(doors: &[Door], ca: &Path, messages: u32, rate: u32) -> Result<Self, Problem> {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for (number, door) in doors.iter().enumerate() {
            let numbers = (number..messages as usize).step_by(doors.len());
            let rate = f64::from(rate) / doors.len() as f64;
            let (door, ca, sent) = (door.clone(), ca.to_owned(), sent.clone());
            let thread = std::thread::Builder::new().name(format!("sender {door}"));
            threads.push(thread.spawn(move || send(&door, &ca, numbers, rate, &sent))?);
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

fn send(door: &Door, ca: &Path, numbers: impl Iterator<Item = usize>, rate: f64, sent: &AtomicUsize) -> io::Result<()> {
    let mut wire = Wire::connect(door, &ClientTls { ca: Some(ca.to_owned()), ..ClientTls::default() })?;
    let pace = Pace::new(rate);
    let mut done = 0;
    for number in numbers {
        wire.send(&docker_message(door, number))?;
        sent.fetch_add(1, Ordering::Relaxed);
        done += 1;
        if pace.is_ahead(done) {
            wire.flush()?;
            pace.rest();
        }
    }
    wire.finish()
}

/// UDP in Docker's default format, TCP in rfc3164, TLS in rfc5424micro with octet counting, as the driver frames them.
fn docker_message(door: &Door, number: usize) -> Vec<u8> {
    let (name, id) = container(number);
    let tag = format!("{IMAGE}/{name}/{id}");
    let text = message(number);
    let now = Utc::now();
    let (month, day) = (MONTHS[now.month0() as usize], now.day());
    let stamp = format!("{month} {day:2} {:02}:{:02}:{:02}", now.hour(), now.minute(), now.second());
    match door {
        Door::Udp(_) | Door::Unixgram(_) => format!("<30>{stamp} {tag}[{DOCKERD}]: {text}\n").into_bytes(),
        Door::Tcp(_) | Door::Unix(_) => format!("<30>{stamp} demo-host {tag}[{DOCKERD}]: {text}\n").into_bytes(),
        Door::Tls(_) => rfc5424micro(door, now, "demo-host", &tag, &text),
    }
}
