//! Index acknowledgement: the answer to a request in a channel has a number, and the sender asks later whether that number is safe.
//!
//! Here the answer to a request comes when its events are in the spool. So all numbers that a channel has given are safe, and only the next
//! number has to be remembered. Splunk says `true` once and forgets. Here a safe number gets `true` as often as the sender asks, because an
//! answer may be lost. No number of an unknown channel is safe, so its sender sends the events again. After a restart, all channels are
//! unknown.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Answer, Refused};

/// The maximum size of a question, in bytes. It has room for some 100,000 numbers.
pub const MAX_ACK_BODY: usize = 1 << 20;

/// A sender's name for its stream of requests: a GUID. Docker's driver makes a new one for each request and never asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channel(u128);

/// The channels of a listener.
#[derive(Debug)]
pub struct Acks {
    /// `channels.len() <= limit`; 0: nothing is acknowledged.
    limit: usize,
    /// Channels that are unused for this long are forgotten.
    idle: Duration,
    channels: HashMap<Channel, Known>,
    /// The same channels in the order of their last use.
    by_use: BTreeMap<u64, Channel>,
    uses: u64,
}

#[derive(Debug)]
struct Known {
    /// All numbers below are safe.
    next: u64,
    /// The key in [`Acks::by_use`].
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
    /// Remembers up to `limit` channels, each until it is unused for `idle`. (Splunk's default is 600 s.)
    pub fn new(limit: usize, idle: Duration) -> Self {
        Self { limit, idle, channels: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// The events of a request are in the spool. Returns the number of the request.
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

    /// Answers a question: which numbers are safe.
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

    /// Forgets channels that are idle for too long.
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

    /// Marks a channel as used, and returns its next number. An unknown channel has 0.
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
