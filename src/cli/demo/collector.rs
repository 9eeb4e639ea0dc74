//! The demo's collectors: they compare each message with the one that was sent, and count it by its number.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use super::sender::{IMAGE, container, message};
use crate::cli::frame_receiver::FrameReceiver;
use crate::config::DEFAULT_SD_ID;
use crate::record::Record;

/// How often each message has arrived, at any of the collectors.
pub struct ArrivalCounts {
    times: Vec<AtomicU8>,
    distinct: AtomicUsize,
    duplicated: AtomicUsize,
    damaged: AtomicUsize,
}

/// A collector at one address.
pub struct Collector {
    port: u16,
    received: Arc<AtomicUsize>,
    first_received: Arc<OnceLock<Instant>>,
}

impl ArrivalCounts {
    pub fn new(messages: usize) -> Self {
        Self {
            times: (0..messages).map(|_| AtomicU8::new(0)).collect(),
            distinct: AtomicUsize::new(0),
            duplicated: AtomicUsize::new(0),
            damaged: AtomicUsize::new(0),
        }
    }

    pub fn distinct(&self) -> usize {
        self.distinct.load(Ordering::Relaxed)
    }

    pub fn duplicated(&self) -> usize {
        self.duplicated.load(Ordering::Relaxed)
    }

    /// The number of messages whose text, image, name or ID differs from what was sent.
    pub fn damaged(&self) -> usize {
        self.damaged.load(Ordering::Relaxed)
    }

    fn count(&self, frame: &[u8]) {
        let record = Record::from_line(frame, DEFAULT_SD_ID);
        let number = number_of(&record).filter(|number| is_as_sent(&record, *number));
        let Some(times) = number.and_then(|number| self.times.get(number)) else {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let counter = if times.fetch_add(1, Ordering::Relaxed) == 0 { &self.distinct } else { &self.duplicated };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads the number at the end of a message's text.
fn number_of(record: &Record<'_>) -> Option<usize> {
    let text = std::str::from_utf8(record.message?).ok()?;
    text.rsplit(' ').next()?.parse().ok()
}

fn is_as_sent(record: &Record<'_>, number: usize) -> bool {
    let (name, id) = container(number);
    record.message == Some(message(number).as_bytes())
        && record.image_name() == Some(IMAGE.as_bytes())
        && record.container_name() == Some(name.as_bytes())
        && record.container_id() == Some(id.as_bytes())
}

impl Collector {
    /// Listens on `port` until the process ends. Port 0 stands for any free port.
    pub fn start(address: Ipv4Addr, port: u16, arrivals: Arc<ArrivalCounts>) -> io::Result<Self> {
        let (received, first_received) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
        let (counter, first) = (received.clone(), first_received.clone());
        let receiver = FrameReceiver::tcp((address, port).into(), move |frame| {
            first.get_or_init(Instant::now);
            counter.fetch_add(1, Ordering::Relaxed);
            arrivals.count(frame);
        })?;
        Ok(Self { port: receiver.address.port(), received, first_received })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    pub fn first_received(&self) -> Option<Instant> {
        self.first_received.get().copied()
    }
}
