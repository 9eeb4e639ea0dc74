//! A message in several datagrams. Each has a header of 12 bytes: `1e 0f`, the message's ID (8 bytes), the chunk's number from 0, and the
//! count of chunks.
//!
//! Chunks arrive in any order, some twice, some never. A message is complete when all its chunks have arrived, and is given up 5 s after
//! its first one. An empty chunk counts: Docker's driver sends one last where the payload is a multiple of 1408 bytes (go-gelf
//! `numChunks`).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use core::net::{IpAddr, SocketAddr};

use super::Refused;

/// The maximum number of chunks of one message (GELF specification, "GELF via UDP").
pub const MAX_CHUNKS: usize = 128;
/// The maximum time from the first chunk to the last (from the same section).
const LIFETIME: Duration = Duration::from_secs(5);
const MAGIC: &[u8] = b"\x1e\x0f";
/// Bytes that an unfinished message takes beside its data and the table of its chunks: entries in two maps.
const OVERHEAD: usize = 192;

/// Limits on messages that lack chunks.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLimits {
    /// The maximum number of unfinished messages, at least 1.
    pub messages: usize,
    /// The maximum size of all unfinished messages, in bytes of memory.
    pub bytes: usize,
}

/// Lost messages and superfluous chunks since the counts were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkCounts {
    /// Messages with a chunk that did not arrive in time.
    pub expired: u64,
    /// Messages that were evicted because newer ones needed their room.
    pub evicted: u64,
    /// Chunks that had arrived already.
    pub repeated: u64,
}

/// Messages that lack chunks. Senders choose the IDs: two senders may use the same ID.
#[derive(Debug)]
pub struct Chunks {
    limits: ChunkLimits,
    /// In the order in which they began, which is also the order in which they expire.
    unfinished: BTreeMap<u64, Unfinished>,
    /// The key of each message in `unfinished`.
    places: HashMap<Key, u64>,
    next_place: u64,
    /// `bytes <= limits.bytes`, except within a call, and from `keep_at_most` to the next chunk.
    bytes: usize,
    counts: ChunkCounts,
    /// The sender of the message that was given up last.
    lost_from: Option<IpAddr>,
}

/// Sender and ID.
type Key = (SocketAddr, [u8; 8]);

#[derive(Debug)]
struct Unfinished {
    key: Key,
    began: Instant,
    chunks: Vec<Option<Box<[u8]>>>,
    missing: usize,
    /// Bytes of memory.
    bytes: usize,
}

/// The header of a chunk, and its data.
struct Chunk<'a> {
    id: [u8; 8],
    number: usize,
    count: usize,
    data: &'a [u8],
}

impl Chunks {
    pub fn new(limits: ChunkLimits) -> Self {
        let (unfinished, places) = Default::default();
        Self { limits, unfinished, places, next_place: 0, bytes: 0, counts: ChunkCounts::default(), lost_from: None }
    }

    /// Whether this datagram is a chunk. Any other datagram is a complete message.
    pub fn is_chunk(datagram: &[u8]) -> bool {
        datagram.starts_with(MAGIC)
    }

    /// Takes a chunk, and returns the payload of the message that it completes. A refused datagram adds nothing.
    pub fn take(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> Result<Option<Vec<u8>>, Refused> {
        self.expire(now);
        let chunk = Chunk::read(datagram)?;
        let key = (from, chunk.id);
        let known = self.places.get(&key).copied();
        let place = match known {
            Some(place) => place,
            None => self.begin(key, chunk.count, now),
        };
        let message = self.unfinished.get_mut(&place).expect("each place is that of a message");
        if message.chunks.len() != chunk.count {
            return Err(Refused::Contradiction);
        }
        let slot = &mut message.chunks[chunk.number];
        if slot.is_some() {
            self.counts.repeated += 1;
            return Ok(None);
        }
        *slot = Some(chunk.data.into());
        message.missing -= 1;
        message.bytes += chunk.data.len();
        self.bytes += chunk.data.len();
        if message.missing == 0 {
            let message = self.remove(place);
            return Ok(Some(message.chunks.into_iter().flatten().flatten().collect()));
        }
        self.evict();
        Ok(None)
    }

    /// Gives up messages that are too old.
    pub fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.unfinished.first_entry()
            && now.saturating_duration_since(oldest.get().began) >= LIFETIME
        {
            let place = *oldest.key();
            self.give_up(place);
            self.counts.expired += 1;
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.unfinished.first_key_value().map(|(_, oldest)| oldest.began + LIFETIME)
    }

    /// The sender of the message that was given up last.
    pub fn lost_from(&self) -> Option<IpAddr> {
        self.lost_from
    }

    pub fn take_counts(&mut self) -> ChunkCounts {
        std::mem::take(&mut self.counts)
    }

    /// Sets the maximum size of all unfinished messages, for the next chunk and later ones.
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.limits.bytes = bytes;
    }

    /// The number of unfinished messages.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// Bytes of memory that unfinished messages take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn begin(&mut self, key: Key, count: usize, now: Instant) -> u64 {
        let chunks: Vec<_> = std::iter::repeat_with(|| None).take(count).collect();
        let bytes = OVERHEAD + size_of_val(&chunks[..]);
        let place = self.next_place;
        self.next_place += 1;
        self.bytes += bytes;
        self.places.insert(key, place);
        self.unfinished.insert(place, Unfinished { key, began: now, chunks, missing: count, bytes });
        place
    }

    /// Evicts the oldest messages first. A message that is larger than the limit is evicted too.
    fn evict(&mut self) {
        while (self.unfinished.len() > self.limits.messages || self.bytes > self.limits.bytes)
            && let Some((&place, _)) = self.unfinished.first_key_value()
        {
            self.give_up(place);
            self.counts.evicted += 1;
        }
    }

    fn give_up(&mut self, place: u64) {
        let (sender, _) = self.remove(place).key;
        self.lost_from = Some(sender.ip());
    }

    fn remove(&mut self, place: u64) -> Unfinished {
        let message = self.unfinished.remove(&place).expect("a place that was found");
        self.places.remove(&message.key);
        self.bytes -= message.bytes;
        message
    }
}

impl<'a> Chunk<'a> {
    fn read(datagram: &'a [u8]) -> Result<Self, Refused> {
        let rest = datagram.strip_prefix(MAGIC).ok_or(Refused::ShortChunk)?;
        let (&id, rest) = rest.split_first_chunk().ok_or(Refused::ShortChunk)?;
        let [number, count, data @ ..] = rest else { return Err(Refused::ShortChunk) };
        let (number, count) = (usize::from(*number), usize::from(*count));
        if !(1..=MAX_CHUNKS).contains(&count) {
            return Err(Refused::ChunkCount);
        }
        if number >= count {
            return Err(Refused::ChunkNumber);
        }
        Ok(Self { id, number, count, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ChunkLimits = ChunkLimits { messages: 4, bytes: 64 << 10 };

    fn sender(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 7], port))
    }

    fn chunk(id: u8, number: u8, count: u8, data: &[u8]) -> Vec<u8> {
        [MAGIC, &[id; 8], &[number, count], data].concat()
    }

    /// Takes chunks that arrive at once, given as sender, ID, number, count and data.
    fn taken(chunks: &mut Chunks, now: Instant, of: &[(u16, u8, u8, u8, &[u8])]) -> Vec<Vec<u8>> {
        let take = |&(port, id, number, count, data): &(u16, u8, u8, u8, &[u8])| {
            chunks.take(sender(port), &chunk(id, number, count, data), now).expect("a chunk")
        };
        of.iter().filter_map(take).collect()
    }

    #[test]
    fn chunks_come_in_any_order_twice_and_empty() {
        let (mut chunks, now) = (Chunks::new(LIMITS), Instant::now());
        let all: [(u16, u8, u8, u8, &[u8]); 4] =
            [(1, 7, 2, 3, b""), (1, 7, 0, 3, b"ab"), (1, 7, 0, 3, b"xy"), (1, 7, 1, 3, b"c")];
        assert_eq!(taken(&mut chunks, now, &all), [b"abc"]);
        assert_eq!(chunks.take_counts(), ChunkCounts { repeated: 1, ..ChunkCounts::default() });
        assert_eq!((chunks.bytes(), chunks.due()), (0, None));
        assert_eq!(taken(&mut chunks, now, &[(1, 8, 0, 1, b"alone")]), [b"alone"]);
    }

    #[test]
    fn two_senders_may_use_one_id() {
        let (mut chunks, now) = (Chunks::new(LIMITS), Instant::now());
        let all: [(u16, u8, u8, u8, &[u8]); 4] =
            [(1, 7, 0, 2, b"a"), (2, 7, 0, 2, b"x"), (2, 7, 1, 2, b"y"), (1, 7, 1, 2, b"b")];
        assert_eq!(taken(&mut chunks, now, &all), [b"xy", b"ab"]);
    }

    #[test]
    fn what_is_no_chunk_is_refused_and_changes_nothing() {
        let (mut chunks, now) = (Chunks::new(LIMITS), Instant::now());
        assert!(taken(&mut chunks, now, &[(1, 7, 0, 2, b"a")]).is_empty());
        let bytes = chunks.bytes();
        let mut check = |datagram: &[u8], expected| {
            assert_eq!(chunks.take(sender(1), datagram, now), Err(expected), "{}", datagram.escape_ascii());
            assert_eq!(chunks.bytes(), bytes);
        };
        check(&chunk(7, 1, 3, b"b"), Refused::Contradiction);
        check(&chunk(8, 0, 129, b"b"), Refused::ChunkCount);
        check(&chunk(8, 0, 0, b"b"), Refused::ChunkCount);
        check(&chunk(8, 3, 3, b"b"), Refused::ChunkNumber);
        (2..12).for_each(|len| check(&chunk(8, 0, 1, b"")[..len], Refused::ShortChunk));
        assert_eq!(taken(&mut chunks, now, &[(1, 7, 1, 2, b"b")]), [b"ab"]);
    }

    #[test]
    fn a_message_is_given_up_five_seconds_after_its_first_chunk() {
        let (mut chunks, began) = (Chunks::new(LIMITS), Instant::now());
        taken(&mut chunks, began, &[(1, 7, 0, 3, b"a")]);
        taken(&mut chunks, began + LIFETIME / 2, &[(1, 7, 1, 3, b"b"), (1, 8, 0, 2, b"x")]);
        assert_eq!((chunks.due(), chunks.lost_from()), (Some(began + LIFETIME), None));
        // The last chunk of message 7 is too late, and begins the message anew.
        assert_eq!(taken(&mut chunks, began + LIFETIME, &[(1, 7, 2, 3, b"c"), (1, 8, 1, 2, b"y")]), [b"xy"]);
        assert_eq!(chunks.take_counts(), ChunkCounts { expired: 1, ..ChunkCounts::default() });
        assert_eq!(chunks.lost_from(), Some(sender(1).ip()));
        chunks.expire(began + 2 * LIFETIME);
        assert_eq!(chunks.take_counts(), ChunkCounts { expired: 1, ..ChunkCounts::default() });
        assert_eq!((chunks.bytes(), chunks.due()), (0, None));
    }

    #[test]
    fn the_oldest_goes_first_where_there_are_too_many() {
        let (mut chunks, now) = (Chunks::new(LIMITS), Instant::now());
        (0..5).for_each(|id| assert!(taken(&mut chunks, now, &[(1, id, 0, 2, b"a")]).is_empty()));
        assert_eq!(chunks.take_counts(), ChunkCounts { evicted: 1, ..ChunkCounts::default() });
        assert_eq!(taken(&mut chunks, now, &[(1, 1, 1, 2, b"b")]), [b"ab"]);
    }

    #[test]
    fn the_oldest_goes_first_where_they_are_too_large_and_bytes_stay_bounded() {
        let limits = ChunkLimits { messages: 1000, ..LIMITS };
        let (mut chunks, now) = (Chunks::new(limits), Instant::now());
        let large = vec![b'x'; 1408];
        for id in 0..200 {
            taken(&mut chunks, now, &[(1, id, 0, 128, &large)]);
            assert!(chunks.bytes() <= limits.bytes, "{} bytes", chunks.bytes());
        }
        let evicted = chunks.take_counts().evicted;
        assert!((150..200).contains(&evicted), "{evicted}");
        // A message that is larger than the limit for all messages.
        let larger = vec![b'x'; limits.bytes];
        taken(&mut chunks, now, &[(1, 250, 0, 2, &larger)]);
        assert_eq!((chunks.bytes(), chunks.due()), (0, None));
        assert_eq!(chunks.take_counts().evicted, 201 - evicted);
    }
}
