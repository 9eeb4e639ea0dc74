//! Plain syslog over TCP or TLS: framed lines, no answers. A line is safe when the peer's kernel has acknowledged it and
//! there is reason to believe that the program has read it (`tcp::in_flight`).

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::Progress;
use crate::forward::encode::Encoding;
use crate::forward::filtered_chunk::FilteredChunk;
use crate::forward::tcp::{InFlight, Replay, TcpSample};
use crate::spool::Position;

/// How often acknowledgements are looked at while some are outstanding. Each look is two system calls.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// A link that does not keep up gets batches of the size that it acknowledges in this time. So the known progress is never much
/// older.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// The smallest batch, and the batch for a link that keeps up, in bytes.
const BATCH_BYTES: RangeInclusive<usize> = 4 << 10..=64 << 10;

pub struct SyslogDelivery {
    encoding: Encoding,
    /// Encoded lines that are still to be written.
    output: Vec<u8>,
    /// The position in the spool behind the last of these lines; `None`: there are none.
    reaches: Option<Position>,
    scratch: Vec<u8>,
    in_flight: InFlight,
    /// Bytes the peer's kernel has acknowledged, as last seen.
    acknowledged: u64,
    /// Since when each look has found a batch that the kernel has not taken, and how much was acknowledged then.
    pressed: Option<(Instant, u64)>,
    batch_bytes: usize,
}

impl SyslogDelivery {
    /// For a connection that was made now.
    pub fn new(encoding: Encoding, replay: Replay, now: Instant) -> Self {
        let in_flight = InFlight::new(replay, now);
        Self {
            encoding,
            output: Vec::new(),
            reaches: None,
            scratch: Vec::new(),
            in_flight,
            acknowledged: 0,
            pressed: None,
            batch_bytes: *BATCH_BYTES.end(),
        }
    }

    pub fn has_capacity(&self) -> bool {
        self.reaches.is_none()
    }

    /// Bytes to take from the spool at once.
    pub fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    pub fn push(&mut self, lines: &FilteredChunk, progress: &mut Progress) {
        if !lines.is_empty() {
            lines.lines().for_each(|(line, _)| self.encoding.append(line, &mut self.scratch, &mut self.output));
            self.reaches = Some(lines.end());
        } else if !self.in_flight.extend(lines.end()) {
            // Nothing is to be sent, and no earlier batch is kept.
            progress.safe = Some(lines.end());
        }
    }

    pub fn output(&self) -> &[u8] {
        &self.output
    }

    pub fn flushed(&mut self, wire_bytes: u64) {
        if let Some(reaches) = self.reaches.take() {
            self.in_flight.push(wire_bytes, reaches);
        }
        self.output.clear();
    }

    pub fn wants_sample(&self) -> bool {
        self.reaches.is_some() || !self.in_flight.is_empty()
    }

    pub fn acknowledged(&mut self, sample: &TcpSample, now: Instant, progress: &mut Progress) {
        self.acknowledged = sample.acknowledged;
        self.size_batches(now);
        let safe = self.in_flight.acknowledged(sample, now);
        self.is_safe(safe, progress);
        if let Some(position) = self.in_flight.acknowledged_up_to() {
            progress.acknowledged = Some(position);
            progress.delivered = true;
        }
    }

    /// Sizes the batches. A link that takes each batch at once does not show how fast it is, so it gets the largest.
    fn size_batches(&mut self, now: Instant) {
        if self.reaches.is_none() {
            (self.pressed, self.batch_bytes) = (None, *BATCH_BYTES.end());
            return;
        }
        let (since, before) = *self.pressed.get_or_insert((now, self.acknowledged));
        let time = now.duration_since(since);
        if time >= BATCH_TIME {
            let rate = (self.acknowledged - before) as f64 / time.as_secs_f64();
            let bytes = (rate * BATCH_TIME.as_secs_f64()) as usize;
            self.batch_bytes = bytes.clamp(*BATCH_BYTES.start(), *BATCH_BYTES.end());
            self.pressed = Some((now, self.acknowledged));
        }
    }

    pub fn look_again(&self, now: Instant) -> Option<Instant> {
        self.in_flight.look_again(now, SAMPLE_EVERY).map(|wait| now + wait)
    }

    /// How much is acknowledged; `None`: nothing is awaited.
    pub fn awaits(&self) -> Option<u64> {
        (self.reaches.is_some() || !self.in_flight.is_acknowledged()).then_some(self.acknowledged)
    }

    pub fn is_calm(&self, now: Instant) -> bool {
        self.in_flight.is_calm(now)
    }

    pub fn closed(&mut self, in_answer: bool, now: Instant, progress: &mut Progress) {
        // A program that closes its side after our goodbye has read to the end: closing with unread bytes would have reset the
        // connection.
        let safe = if in_answer { self.in_flight.all() } else { self.in_flight.closed(now) };
        self.is_safe(safe, progress);
    }

    fn is_safe(&self, position: Option<Position>, progress: &mut Progress) {
        if let Some(position) = position {
            progress.safe = Some(position);
            progress.delivered = true;
        }
    }
}
