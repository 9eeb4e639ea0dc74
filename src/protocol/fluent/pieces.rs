//! Joins the pieces of a message that Docker's driver has split. The driver says which pieces belong together and which is the last one. A
//! last line without LF is an exception: the driver announces another piece, and none follows.

use std::time::{Duration, Instant};

use super::record::{Event, Piece};
use super::{Entry, Items, Time};

/// How long a message waits for its next piece.
const WAIT: Duration = Duration::from_secs(5);
/// The maximum number of messages of a connection that wait. A container has one for each of its streams.
const MAX_WAITING: usize = 64;
/// Bytes that a waiting message takes beside its texts.
const OVERHEAD: usize = size_of::<Waiting>() + 64;

/// Messages of one connection whose last piece has not arrived.
#[derive(Debug)]
pub struct Pieces {
    /// The longest message that is joined, in bytes.
    max: usize,
    /// The message that has waited longest comes first.
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
    /// The keys and values of the first piece, and their number.
    record: (Vec<u8>, u64),
    message: Vec<u8>,
    /// The number of the latest piece.
    ordinal: u32,
    /// Whether the first piece of the message has arrived.
    begins: bool,
    since: Instant,
}

impl Pieces {
    pub fn new(max: usize) -> Self {
        Self { max, waiting: Vec::new(), bytes: 0 }
    }

    /// Takes a piece. Messages that are complete, or will not become so, go to `on_event`.
    pub fn add(&mut self, event: Event<'_>, piece: Piece<'_>, now: Instant, mut on_event: impl FnMut(Event<'_>)) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.is_of(&piece)) else {
            return self.begin(event, piece, now, on_event);
        };
        let waiting = &mut self.waiting[at];
        let fits = waiting.message.len() + piece.message.len() <= self.max;
        if waiting.ordinal.checked_add(1) != Some(piece.ordinal) || !fits {
            // The new piece begins a message of its own: it does not follow, or the joined message would be too long.
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

    /// Gives up on messages whose next piece is overdue. Returns when to call it again.
    pub fn time_out(&mut self, now: Instant, mut on_event: impl FnMut(Event<'_>)) -> Option<Instant> {
        while self.until().is_some_and(|until| until <= now) {
            self.remove(0).with_event(true, self.max, &mut on_event);
        }
        self.until()
    }

    /// Ends all waiting. `is_all`: no message has more pieces to come.
    pub fn end(&mut self, is_all: bool, mut on_event: impl FnMut(Event<'_>)) {
        while !self.waiting.is_empty() {
            self.remove(0).with_event(is_all, self.max, &mut on_event);
        }
    }

    /// When the next wait ends.
    pub fn until(&self) -> Option<Instant> {
        self.waiting.first()?.since.checked_add(WAIT)
    }

    /// Bytes of memory that waiting messages take.
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

    /// Passes on the event of the pieces so far. `ends`: no more pieces will come. An incomplete message keeps its first piece's keys about
    /// pieces.
    fn with_event(&self, ends: bool, max: usize, on_event: &mut impl FnMut(Event<'_>)) {
        let record = Items::from_bytes(&self.record.0, self.record.1);
        let event = Event::new(&self.tag, Entry { time: self.time, record }, max);
        on_event(event.joined(&self.message, self.begins && ends));
    }
}
