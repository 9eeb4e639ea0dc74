//! Recognizes repeated chunks. A sender repeats a chunk whose answer it has not seen, and the spool may already have the chunk.
//!
//! The name of a chunk is not enough: Fluent Bit's is a hash of the contents, so that equal messages have equal names. A chunk counts as
//! repeated only if its answer may not have arrived when its sender's connection ended, and if it comes first on a connection that the
//! sender makes within some minutes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a chunk is remembered.
const KNOWN: Duration = Duration::from_secs(300);
/// The maximum number of chunks remembered, of all senders together. The oldest are evicted first.
const MAX_CHUNKS: usize = 4096;
/// The longest name that is remembered. Docker's and Fluent Bit's names have 24 bytes, Fluentd's 25.
pub(super) const MAX_NAME: usize = 128;

/// Chunks that are in the spool and whose answer may not have arrived. `S` identifies a sender.
#[derive(Debug)]
pub struct UnconfirmedChunks<S> {
    /// In the order in which their connections ended.
    chunks: VecDeque<Chunk<S>>,
}

#[derive(Debug)]
struct Chunk<S> {
    ended: Instant,
    sender: S,
    name: Box<[u8]>,
}

impl<S> Default for UnconfirmedChunks<S> {
    fn default() -> Self {
        Self { chunks: VecDeque::new() }
    }
}

impl<S: Eq> UnconfirmedChunks<S> {
    /// Remembers a chunk in the spool whose answer may not have arrived, because its sender's connection has ended.
    pub fn add(&mut self, sender: S, name: &[u8], now: Instant) {
        if name.len() > MAX_NAME {
            return;
        }
        if self.chunks.len() >= MAX_CHUNKS {
            self.chunks.pop_front();
        }
        self.chunks.push_back(Chunk { ended: now, sender, name: name.into() });
    }

    /// Whether this chunk, the first of a new connection of this sender, is remembered. If so, it is forgotten.
    pub fn take(&mut self, sender: &S, name: &[u8], now: Instant) -> bool {
        let is_old = |chunk: &Chunk<S>| now.saturating_duration_since(chunk.ended) >= KNOWN;
        while self.chunks.front().is_some_and(is_old) {
            self.chunks.pop_front();
        }
        let is_it = |chunk: &Chunk<S>| *chunk.name == *name && chunk.sender == *sender;
        self.chunks.iter().position(is_it).and_then(|at| self.chunks.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_again_once_and_soon_and_from_its_sender() {
        let mut chunks = UnconfirmedChunks::default();
        let now = Instant::now();
        chunks.add("a", b"one", now);
        assert!(!chunks.take(&"b", b"one", now));
        assert!(!chunks.take(&"a", b"two", now));
        assert!(chunks.take(&"a", b"one", now));
        assert!(!chunks.take(&"a", b"one", now), "it is a real repeat");
        chunks.add("a", b"one", now);
        assert!(!chunks.take(&"a", b"one", now + KNOWN));
    }

    #[test]
    fn there_is_a_limit_to_what_is_known() {
        let mut chunks = UnconfirmedChunks::default();
        let now = Instant::now();
        chunks.add((), &[b'x'; MAX_NAME + 1], now);
        assert!(chunks.chunks.is_empty());
        (0..MAX_CHUNKS as u64 + 1).for_each(|name| chunks.add((), &name.to_le_bytes(), now));
        assert_eq!(chunks.chunks.len(), MAX_CHUNKS);
        assert!(!chunks.take(&(), &0_u64.to_le_bytes(), now));
        assert!(chunks.take(&(), &1_u64.to_le_bytes(), now));
    }
}
