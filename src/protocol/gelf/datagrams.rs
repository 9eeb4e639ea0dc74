//! Messages in datagrams: whole or in chunks, plain or compressed.

use std::time::Instant;

use core::net::{IpAddr, SocketAddr};

use super::{ChunkCounts, ChunkLimits, Chunks, MAX_JSON, Payloads, Refused};

/// The maximum number of messages that lack chunks, of all senders together.
const MAX_UNFINISHED: usize = 10_000;

/// Reads the datagrams of a socket.
pub struct Datagrams {
    chunks: Chunks,
    payloads: Payloads,
}

impl Datagrams {
    /// `max_unfinished`: the maximum memory for messages that lack chunks, in bytes.
    pub fn new(max_unfinished: usize) -> Self {
        let limits = ChunkLimits { messages: MAX_UNFINISHED, bytes: max_unfinished };
        Self { chunks: Chunks::new(limits), payloads: Payloads::default() }
    }

    /// Changes the maximum memory for messages that lack chunks.
    pub fn keep_at_most(&mut self, max_unfinished: usize) {
        self.chunks.keep_at_most(max_unfinished);
    }

    /// Takes a datagram. If it is a message or completes one, the JSON of the message goes to `on_json`.
    pub fn take(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        on_json: impl FnOnce(&[u8]) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let whole;
        let payload = if Chunks::is_chunk(datagram) {
            let Some(payload) = self.chunks.take(from, datagram, now)? else { return Ok(()) };
            whole = payload;
            &whole[..]
        } else {
            datagram
        };
        on_json(&self.payloads.read(payload, MAX_JSON)?)
    }

    /// Gives up messages whose chunks have not arrived in time. Returns the reasons for which messages were lost since the last call, and
    /// their numbers.
    pub fn give_up(&mut self, now: Instant) -> impl Iterator<Item = (Refused, u64)> + use<> {
        self.chunks.expire(now);
        let ChunkCounts { expired, evicted, .. } = self.chunks.take_counts();
        [(Refused::Expired, expired), (Refused::Evicted, evicted)].into_iter().filter(|(_, messages)| *messages > 0)
    }

    /// The sender of the message that was given up last.
    pub fn lost_from(&self) -> Option<IpAddr> {
        self.chunks.lost_from()
    }

    /// The number of messages that lack chunks.
    pub fn unfinished(&self) -> usize {
        self.chunks.unfinished()
    }
}
