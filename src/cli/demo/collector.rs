//! The demo's collectors: they check every field and tick off every message.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use super::sender::{IMAGE, container, message};
use crate::cli::collector;
use crate::config::DEFAULT_SD_ID;
use crate::record::Record;

/// What has arrived at any of the collectors, by message number.
pub struct Arrivals {
    times: Vec<AtomicU8>,
    distinct: AtomicUsize,
    duplicated: AtomicUsize,
    damaged: AtomicUsize,
}

pub struct Collector {
    port: u16,
    taken: Arc<AtomicUsize>,
    first: Arc<OnceLock<Instant>>,
}

impl Arrivals {
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

    /// Messages that are not what was sent: wrong text, image, name or id.
    pub fn damaged(&self) -> usize {
        self.damaged.load(Ordering::Relaxed)
    }

    fn take(&self, frame: &[u8]) {
        let record = Record::from_line(frame, DEFAULT_SD_ID);
        let number = number_of(&record).filter(|number| as_sent(&record, *number));
        let Some(times) = number.and_then(|number| self.times.get(number)) else {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let counter = if times.fetch_add(1, Ordering::Relaxed) == 0 { &self.distinct } else { &self.duplicated };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The message ends in its number.
fn number_of(record: &Record<'_>) -> Option<usize> {
    let text = std::str::from_utf8(record.message?).ok()?;
    text.rsplit(' ').next()?.parse().ok()
}

fn as_sent(record: &Record<'_>, number: usize) -> bool {
    let (name, id) = container(number);
    record.message == Some(message(number).as_bytes())
        && record.image_name() == Some(IMAGE.as_bytes())
        && record.container_name() == Some(name.as_bytes())
        && record.container_id() == Some(id.as_bytes())
}

impl Collector {
    /// Takes connections on `port`, 0 for any, until the process ends.
    pub fn start(address: Ipv4Addr, port: u16, arrivals: Arc<Arrivals>) -> io::Result<Self> {
        let (taken, first) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
        let (counter, first_taken) = (taken.clone(), first.clone());
        let listening = collector::Collector::tcp((address, port).into(), move |frame| {
            first_taken.get_or_init(Instant::now);
            counter.fetch_add(1, Ordering::Relaxed);
            arrivals.take(frame);
        })?;
        Ok(Self { port: listening.address.port(), taken, first })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn first_taken(&self) -> Option<Instant> {
        self.first.get().copied()
    }
}
