//! Index acknowledgement: a request in a channel has a number in its answer, and the sender asks later whether that is safe.
//!
//! Here a request is answered when its events are in the spool. So its number is given then and not before, and all numbers that a
//! channel has given are safe: what has to be remembered is the next one. Splunk says `true` once and forgets; here it is said as
//! often as it is asked for, because an answer can be lost. Of a channel that is not known, after a restart too, nothing is
//! said to be safe, and its sender sends again.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Answer, Refused};

/// The maximum size of a question, in bytes. It holds some 100,000 numbers.
pub const MAX_ACK_BODY: usize = 1 << 20;

/// A sender's name for what it sends: a GUID. Docker's driver makes a new one for each request and never asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channel(u128);

/// The channels of a listener.
#[derive(Debug)]
pub struct Acks {
    /// `channels.len() <= limit`; 0: nothing is acknowledged.
    limit: usize,
    /// Channels that are not used for so long are forgotten.
    idle: Duration,
    channels: HashMap<Channel, Known>,
    /// The same channels by when they were last used.
    by_use: BTreeMap<u64, Channel>,
    uses: u64,
}

#[derive(Debug)]
struct Known {
    /// All numbers below are safe.
    next: u64,
    /// In [`Acks::by_use`].
    last_use: u64,
    used: Instant,
}

#[derive(Deserialize)]
struct Question {
    acks: Vec<u64>,
}

impl Channel {
    /// Reads a GUID, with or without its hyphens.
    pub fn read(text: &[u8]) -> Option<Self> {
        let digits = text.trim_ascii().iter().filter(|byte| **byte != b'-');
        let mut read = (0_u128, 0);
        for digit in digits {
            read = (read.0 << 4 | u128::from(char::from(*digit).to_digit(16)?), read.1 + 1);
            if read.1 > 32 {
                return None;
            }
        }
        (read.1 == 32).then_some(Self(read.0))
    }
}

impl Acks {
    /// Remembers at most `limit` channels, each as long as it is used within `idle`. (Splunk's default is 600 s.)
    pub fn new(limit: usize, idle: Duration) -> Self {
        Self { limit, idle, channels: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// The events of a request are in the spool: its number.
    pub fn stored(&mut self, channel: Channel, now: Instant) -> Option<u64> {
        self.expire(now);
        if self.limit == 0 {
            return None;
        }
        if !self.channels.contains_key(&channel) && self.channels.len() == self.limit {
            self.forget_oldest();
        }
        let known = self.channels.entry(channel).or_insert(Known { next: 0, last_use: 0, used: now });
        let id = known.next;
        known.next += 1;
        self.use_now(channel, now);
        Some(id)
    }

    /// The answer to a question: which numbers are safe.
    pub fn answer(&mut self, channel: Option<Channel>, body: &[u8], now: Instant) -> Result<Answer, Refused> {
        if self.limit == 0 {
            return Err(Refused::AckDisabled);
        }
        let channel = channel.ok_or(Refused::ChannelMissing)?;
        if body.len() > MAX_ACK_BODY {
            return Err(Refused::TooLarge);
        }
        let Question { mut acks } = serde_json::from_slice(body).map_err(|_| Refused::NotJson)?;
        self.expire(now);
        let next = self.use_now(channel, now);
        acks.sort_unstable();
        acks.dedup();
        let mut out = r#"{"acks":{"#.to_owned();
        for (at, id) in acks.into_iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(out, r#"{comma}"{id}":{}"#, id < next);
        }
        out.push_str("}}");
        Ok(Answer::acks(out))
    }

    /// Forgets channels that have not been used for long.
    pub fn expire(&mut self, now: Instant) {
        while let Some((_, channel)) = self.by_use.first_key_value()
            && self.channels.get(channel).is_none_or(|known| now.saturating_duration_since(known.used) >= self.idle)
        {
            self.forget_oldest();
        }
    }

    /// The number of channels that are remembered.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Its next number; 0 where the channel is not known.
    fn use_now(&mut self, channel: Channel, now: Instant) -> u64 {
        let Some(known) = self.channels.get_mut(&channel) else { return 0 };
        self.by_use.remove(&known.last_use);
        self.uses += 1;
        (known.last_use, known.used) = (self.uses, now);
        self.by_use.insert(self.uses, channel);
        known.next
    }

    fn forget_oldest(&mut self) {
        if let Some((_, channel)) = self.by_use.pop_first() {
            self.channels.remove(&channel);
        }
    }
}
