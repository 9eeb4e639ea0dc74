//! What Docker's driver has cut becomes whole again. The driver says what belongs together and where it ends, but for a last line
//! without a LF: it is announced as going on, and nothing follows.

use std::time::{Duration, Instant};

use super::record::{Event, Piece};
use super::{Entry, Items, Time};

/// How long the next piece of a message is waited for.
const WAIT: Duration = Duration::from_secs(5);
/// Messages of a connection that may wait. One container has one for each stream.
const MAX_WAITING: usize = 64;
/// What a message takes beside its bytes.
const OVERHEAD: usize = size_of::<Waiting>() + 64;

/// Messages of one connection whose last piece has not come.
#[derive(Debug)]
pub struct Pieces {
    /// The longest message that is made, in bytes.
    max: usize,
    /// The one that waits longest comes first.
    waiting: Vec<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    id: Vec<u8>,
    container: Vec<u8>,
    source: Vec<u8>,
    tag: Vec<u8>,
    time: Option<Time>,
    /// The first piece's keys and values, and how many values these are.
    record: (Vec<u8>, u64),
    message: Vec<u8>,
    /// The number of the piece that came last.
    ordinal: u32,
    /// Whether the first piece of the message is there.
    begins: bool,
    since: Instant,
}

impl Pieces {
    pub fn new(max: usize) -> Self {
        Self { max, waiting: Vec::new(), bytes: 0 }
    }

    /// Takes a piece. What is as whole as it will become goes to `on_event`.
    pub fn add(&mut self, event: Event<'_>, piece: Piece<'_>, now: Instant, mut on_event: impl FnMut(Event<'_>)) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.is_of(&piece)) else {
            return self.begin(event, piece, now, on_event);
        };
        let waiting = &mut self.waiting[at];
        let fits = waiting.message.len() + piece.message.len() <= self.max;
        if waiting.ordinal.checked_add(1) != Some(piece.ordinal) || !fits {
            // The rest is a message of its own, or it is missing.
            self.remove(at).with_event(false, self.max, &mut on_event);
            return self.begin(event, piece, now, on_event);
        }
        self.bytes -= waiting.message.capacity();
        waiting.message.extend_from_slice(piece.message);
        self.bytes += waiting.message.capacity();
        (waiting.ordinal, waiting.since) = (piece.ordinal, now);
        if piece.is_last {
            self.remove(at).with_event(true, self.max, &mut on_event);
            return;
        }
        self.waiting[at..].rotate_left(1);
    }

    fn begin(&mut self, event: Event<'_>, piece: Piece<'_>, now: Instant, mut on_event: impl FnMut(Event<'_>)) {
        if piece.is_last {
            return on_event(event);
        }
        if self.waiting.len() >= MAX_WAITING {
            self.remove(0).with_event(false, self.max, &mut on_event);
        }
        let Entry { time, record } = event.entry();
        let waiting = Waiting {
            id: piece.id.to_vec(),
            container: piece.container.to_vec(),
            source: piece.source.to_vec(),
            tag: event.tag().to_vec(),
            time,
            record: (record.bytes().to_vec(), record.left()),
            message: piece.message.to_vec(),
            ordinal: piece.ordinal,
            begins: piece.ordinal == 1,
            since: now,
        };
        self.bytes += waiting.byte_len();
        self.waiting.push(waiting);
    }

    /// Gives up waiting for what should have come by now. Returns when to look again.
    pub fn time_out(&mut self, now: Instant, mut on_event: impl FnMut(Event<'_>)) -> Option<Instant> {
        while self.until().is_some_and(|until| until <= now) {
            self.remove(0).with_event(true, self.max, &mut on_event);
        }
        self.until()
    }

    /// Waits no longer. `is_all`: nothing more will come of any of them.
    pub fn end(&mut self, is_all: bool, mut on_event: impl FnMut(Event<'_>)) {
        while !self.waiting.is_empty() {
            self.remove(0).with_event(is_all, self.max, &mut on_event);
        }
    }

    /// When waiting for the next piece ends.
    pub fn until(&self) -> Option<Instant> {
        self.waiting.first()?.since.checked_add(WAIT)
    }

    /// Bytes that messages which wait take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, at: usize) -> Waiting {
        let removed = self.waiting.remove(at);
        self.bytes -= removed.byte_len();
        // An idle connection holds no memory.
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
        removed
    }
}

impl Waiting {
    fn is_of(&self, piece: &Piece<'_>) -> bool {
        (&self.id[..], &self.container[..], &self.source[..]) == (piece.id, piece.container, piece.source)
    }

    fn byte_len(&self) -> usize {
        let texts = [&self.id, &self.container, &self.source, &self.tag, &self.record.0, &self.message];
        OVERHEAD + texts.into_iter().map(Vec::capacity).sum::<usize>()
    }

    /// The event of what has come. `ends`: it has all that will come. One that is not whole says so as its first piece does.
    fn with_event(&self, ends: bool, max: usize, on_event: &mut impl FnMut(Event<'_>)) {
        let record = Items::from_bytes(&self.record.0, self.record.1);
        let event = Event::new(&self.tag, Entry { time: self.time, record }, max);
        on_event(event.joined(&self.message, self.begins && ends));
    }
}
