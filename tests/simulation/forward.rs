//! The way to the next relay: logferry's delivery, and the connection it is driven on, as in `forward::driver`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use logferry::internals::forward::{Delivery, Encoding, FilteredChunk, Progress, Refusals, RelpDelivery, TcpSample};
use logferry::internals::protocol::relp::Numbering;
use logferry::internals::record::{Format, Rule};
use logferry::internals::spool::Reader;

use crate::chance::{Chance, Clock};
use crate::network::{Heard, Network, Place, Socket};
use crate::relay::note;

const SD_ID: &str = "docker@32473";
/// How long a session may take to open, and to be settled before a goodbye.
const OPENS_WITHIN: u64 = 10_000;
const FINISHES_WITHIN: u64 = 3_000;

pub struct Forward {
    to: Place,
    /// Which lines are meant.
    pub rules: Vec<Rule>,
    /// `None`: as the link shows.
    window: Option<usize>,
    patience: Duration,
    refusals: Refusals,
    link: Option<Link>,
    again: u64,
}

struct Link {
    socket: Socket,
    delivery: Delivery,
    /// Bytes of the output that are written.
    sent: usize,
    written: u64,
    since: u64,
    wakes_at: Option<u64>,
    /// It ends in good order, and since when.
    leaves: Option<u64>,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Link { socket, delivery, wakes_at, leaves, .. }) = &self.link else {
            return write!(f, "connects at {}", self.again);
        };
        let (open, awaits) = (delivery.is_open(), delivery.awaits());
        write!(f, "{socket:?}: open {open}, awaits {awaits:?}, wakes at {wakes_at:?}, leaves {leaves:?}")
    }
}

impl Forward {
    pub fn new(to: Place, rules: Vec<Rule>, chance: &mut Chance) -> Self {
        let patience = Duration::from_secs(chance.pick(&[5, 30]));
        let window = chance.pick(&[None, None, Some(1), Some(100), Some(4096)]);
        Self { to, rules, window, patience, refusals: Refusals::default(), link: None, again: 0 }
    }

    pub fn next_deed(&self) -> Option<u64> {
        match &self.link {
            Some(link) => link.wakes_at,
            None => Some(self.again),
        }
    }

    /// There is a better place: ends the connection in good order.
    pub fn moves(&mut self, now: u64) {
        if let Some(link) = &mut self.link {
            link.leaves.get_or_insert(now);
        }
    }

    /// The relay is gone.
    pub fn hang_up(&mut self, network: &mut Network, now: u64, chance: &mut Chance) {
        if let Some(link) = self.link.take() {
            network.close(link.socket, false, now, chance);
        }
        (self.refusals, self.again) = (Refusals::default(), 0);
    }

    /// Does what can be done now, and says whether that was something.
    pub fn step(
        &mut self,
        reader: &mut Reader,
        lines: &mut BTreeMap<u64, Vec<u8>>,
        network: &mut Network,
        (clock, next_is_up): (Clock, bool),
        chance: &mut Chance,
    ) -> bool {
        let now = clock.ms;
        if self.link.is_none() {
            if now < self.again {
                return false;
            }
            if !next_is_up {
                self.again = now + chance.between(10, 1_000);
                return false;
            }
            let encoding = Encoding { format: Format::Rfc5424, framing: None, escaped: false, sd_id: SD_ID.to_owned() };
            let numbering = Numbering { stream: reader.stream(), prover: None };
            let waits = (self.window, self.patience);
            let relp = RelpDelivery::new(encoding, numbering, waits, clock.now());
            let delivery = Delivery::Relp(Box::new(relp));
            let socket = network.connect(self.to, now, chance);
            let wakes_at = Some(now + OPENS_WITHIN);
            self.link = Some(Link { socket, delivery, sent: 0, written: 0, since: now, wakes_at, leaves: None });
            return true;
        }
        let Some(link) = &mut self.link else { return false };
        let mut progress = Progress::default();
        let (goes_on, has_done) =
            link.step((reader, lines, &self.rules), &mut self.refusals, &mut progress, network, clock, chance);
        assert!(progress.rejected.is_empty(), "a relay refuses nothing");
        if let Some(safe) = progress.safe {
            reader.retire(safe);
        }
        if !goes_on {
            network.close(link.socket, chance.one_in(2), now, chance);
            reader.rewind();
            (self.link, self.again) = (None, now + chance.pick(&[1, 100, 1_000, 5_000]));
        }
        has_done || !goes_on
    }
}

impl Link {
    /// Whether it goes on, and whether something was done.
    fn step(
        &mut self,
        (reader, seen, rules): (&mut Reader, &mut BTreeMap<u64, Vec<u8>>, &[Rule]),
        refusals: &mut Refusals,
        progress: &mut Progress,
        network: &mut Network,
        clock: Clock,
        chance: &mut Chance,
    ) -> (bool, bool) {
        let (now, mut has_done) = (clock.ms, false);
        match network.read(self.socket, now, chance) {
            Heard::Nothing => {}
            Heard::End { .. } => return (false, true),
            Heard::Bytes(bytes) => {
                has_done = true;
                if self.delivery.heard(&bytes, clock.now(), refusals, progress).is_err() {
                    return (false, true);
                }
            }
        }
        if self.leaves.is_none()
            && self.delivery.has_capacity()
            && let Some(chunk) =
                reader.next(chance.pick(&[1, 500, 64 << 10]).min(self.delivery.batch_bytes())).expect("a disk")
        {
            note(seen, chunk.lines());
            let lines = FilteredChunk::new(chunk, rules, SD_ID);
            reader.note_filtered(lines.filtered());
            self.delivery.push(lines, clock.now(), refusals, progress);
            has_done = true;
        }
        if self.delivery.wants_sample() {
            let acknowledged = network.arrived(self.socket);
            let sample = TcpSample { acknowledged, window: None, signs: None };
            self.delivery.acknowledged(&sample, clock.now(), progress);
        }
        let Ok(wakes_at) = self.delivery.timer(clock.now(), progress) else { return (false, true) };
        self.wakes_at = wakes_at.map(|at| now + at.saturating_duration_since(clock.now()).as_millis() as u64 + 1);
        if !self.delivery.is_open() && !self.delivery.is_over() {
            let from = self.leaves.unwrap_or(self.since);
            self.wakes_at = Some(from + OPENS_WITHIN);
            if now >= from + OPENS_WITHIN {
                return (false, true);
            }
        }
        let output = self.delivery.output();
        if self.sent < output.len() {
            let written = network.write(self.socket, &output[self.sent..], now);
            (self.sent, self.written) = (self.sent + written, self.written + written as u64);
            has_done |= written > 0;
        }
        if self.sent > 0 && self.sent == self.delivery.output().len() {
            self.delivery.flushed(self.written);
            self.sent = 0;
        }
        if let Some(since) = self.leaves {
            if self.delivery.is_open() && self.delivery.is_settled() {
                self.delivery.goodbye();
                has_done = true;
            } else if self.delivery.is_over() || now >= since + FINISHES_WITHIN {
                return (false, true);
            }
            self.wakes_at = Some(since + FINISHES_WITHIN);
        }
        (true, has_done)
    }
}
