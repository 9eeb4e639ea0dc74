//! The forward to the next relay or the collector: logferry's own deliveries, on a simulated connection that works like
//! `forward::driver`.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logferry::internals::config::Framing;
use logferry::internals::forward::{
    Delivery, Encoding, FilteredChunk, Progress, Refusals, Rejected, RelpDelivery, Replay, SyslogDelivery, TcpSample,
    Window,
};
use logferry::internals::protocol::relp::Numbering;
use logferry::internals::record::{Format, Rule};
use logferry::internals::shape::Shape;
use logferry::internals::spool::Reader;

use crate::COLLECTOR;
use crate::chance::{Chance, Clock};
use crate::collector::Speaks;
use crate::network::{Heard, Network, Place, Socket};
use crate::relay::note;

const SD_ID: &str = "docker@32473";
/// Time limits in milliseconds: for opening a session, and for settling one before it is closed.
const OPENS_WITHIN: u64 = 10_000;
const FINISHES_WITHIN: u64 = 3_000;
/// Longer than any hang of a collector plus the delay until the end of a connection is noticed, so that no line may be
/// lost.
const REPLAY: Replay = Replay { bytes: 64 << 10, time: Duration::from_secs(120), limit: 1 << 20 };

pub struct Forward {
    to: Place,
    speaks: Speaks,
    /// The rules that select the lines to forward.
    pub rules: Vec<Rule>,
    /// The window of a RELP delivery. `None`: the window follows the link.
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
    /// The total time that writing has waited for buffer space, and the start of the current wait.
    limited: (Duration, Option<u64>),
    since: u64,
    wakes_at: Option<u64>,
    /// The start of an orderly close.
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
    pub fn new((to, speaks): (Place, Speaks), rules: Vec<Rule>, chance: &mut Chance) -> Self {
        let patience = Duration::from_secs(chance.pick(&[5, 30]));
        let window = chance.pick(&[None, None, Some(1), Some(100), Some(4096)]);
        Self { to, speaks, rules, window, patience, refusals: Refusals::default(), link: None, again: 0 }
    }

    /// Whether lines may become dead letters.
    pub fn may_refuse(&self) -> bool {
        self.to == COLLECTOR && self.speaks == Speaks::Relp
    }

    pub fn next_deed(&self) -> Option<u64> {
        match &self.link {
            Some(link) => link.wakes_at,
            None => Some(self.again),
        }
    }

    /// Another address is preferred now: starts an orderly close of the connection.
    pub fn moves(&mut self, now: u64) {
        if let Some(link) = &mut self.link {
            link.leaves.get_or_insert(now);
        }
    }

    /// The relay has ended: closes the connection.
    pub fn hang_up(&mut self, network: &mut Network, now: u64, chance: &mut Chance) {
        if let Some(link) = self.link.take() {
            network.close(link.socket, false, now, chance);
        }
        (self.refusals, self.again) = (Refusals::default(), 0);
    }

    /// Does everything that can be done now. Returns whether anything was done.
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
            let framing = (self.speaks == Speaks::Tcp).then_some(Framing::Newline);
            let encoding = Encoding { format: Some(Format::Rfc5424), framing, escaped: false, sd_id: SD_ID.to_owned() };
            let delivery = match self.speaks {
                Speaks::Tcp => Delivery::Syslog(Box::new(SyslogDelivery::new(encoding, REPLAY, clock.now()))),
                Speaks::Relp => {
                    let numbering = Numbering { stream: reader.stream(), prover: None, is_told: true };
                    let waits = (self.window, self.patience);
                    Delivery::Relp(Box::new(RelpDelivery::new(encoding, numbering, waits, clock.now())))
                }
            };
            let socket = network.connect(self.to, now, chance);
            let wakes_at = Some(now + OPENS_WITHIN);
            let limited = (Duration::ZERO, None);
            let link = Link { socket, delivery, sent: 0, written: 0, limited, since: now, wakes_at, leaves: None };
            self.link = Some(link);
            return true;
        }
        let Some(link) = &mut self.link else { return false };
        let mut progress = Progress::default();
        let (goes_on, has_done) =
            link.step((reader, lines, &self.rules), &mut self.refusals, &mut progress, network, clock, chance);
        for Rejected { session, line, why, bytes, .. } in &progress.rejected {
            let mut written = pin!(reader.reject((*session, *line), why, bytes));
            let written = written.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(written, Poll::Ready(Ok(()))), "a dead letter: {written:?}");
        }
        if let Some(safe) = progress.safe {
            reader.retire(safe);
        }
        if let Some(acknowledged) = progress.acknowledged {
            reader.acknowledge(acknowledged);
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
    /// Returns whether the connection continues, and whether anything was done.
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
            Heard::End { clean } => {
                self.sample(network, clock, progress);
                if clean {
                    self.delivery.closed(false, clock.now(), progress);
                }
                return (false, true);
            }
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
            let lines = FilteredChunk::new(chunk, &Shape::of_rules(rules.to_vec(), SD_ID));
            reader.note_filtered(lines.filtered());
            self.delivery.push(lines, clock.now(), refusals, progress);
            has_done = true;
        }
        self.sample(network, clock, progress);
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
            self.waits_for_room(self.sent < self.delivery.output().len(), now);
        }
        if self.sent > 0 && self.sent == self.delivery.output().len() {
            self.delivery.flushed(self.written);
            self.sent = 0;
        }
        if let Some(since) = self.leaves {
            let (is_settled, is_over) =
                (self.delivery.is_open() && self.delivery.is_settled(), self.delivery.is_over());
            if is_settled && !is_over {
                self.delivery.goodbye();
                has_done = true;
            } else if is_settled || (is_over && !self.delivery.is_open()) || now >= since + FINISHES_WITHIN {
                return (false, true);
            }
            self.wakes_at = Some(since + FINISHES_WITHIN);
        }
        (true, has_done)
    }

    /// Reports to the delivery what the other side's kernel has acknowledged, and its window.
    fn sample(&mut self, network: &mut Network, clock: Clock, progress: &mut Progress) {
        if self.delivery.wants_sample() {
            let (acknowledged, bytes) = network.acknowledged(self.socket, clock.ms);
            self.waits_for_room(self.limited.1.is_some(), clock.ms);
            let window = Some(Window { bytes, limited: self.limited.0 });
            self.delivery.acknowledged(&TcpSample { acknowledged, window, signs: None }, clock.now(), progress);
        }
    }

    /// Counts the time that writing waits for buffer space.
    fn waits_for_room(&mut self, waits: bool, now: u64) {
        let (limited, since) = &mut self.limited;
        if let Some(since) = since {
            *limited += Duration::from_millis(now - *since);
        }
        *since = waits.then_some(now);
    }
}
