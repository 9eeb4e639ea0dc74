//! Recognizes entries that were taken before: after a request was cut, the uploader repeats it from its saved cursor.
//!
//! A cursor names an entry, `s=FILE;i=NUMBER;b=BOOT;m=…;t=TIME;x=…`: the family of files that it is in, its number there, the boot during
//! which it was written, and the time. Numbers rise by one in a family, and one machine has one family for years. So the entries of a
//! sender are a few spans of numbers, however long its backlog is. Several families arrive interleaved, and each has its own spans.
//!
//! Losing an entry is worse than taking an entry twice, and so:
//!
//! - Only entries that were taken are known, not all numbers below the highest. Where families interleave and a clock was set, a lower
//!   number may arrive later, and the journal of a user may appear between two requests.
//! - An entry is known by family, boot and number, and by a time within the times of its span. A machine that is reset to a snapshot of
//!   itself writes the same numbers again, at later times.
//! - An entry is known once it is in the spool, and only for the address that sent it: no sender can make another's entries known.
//! - After the answer to a request, its entries are known only until the sender shows that it has received the answer. The last entry stays
//!   known: an uploader that starts (systemd 252 to 262) sends the entry of its saved cursor once more. So an old journal that is sent
//!   again on purpose is accepted.
//! - With too many spans, some are evicted. Across senders, those that have been silent for longest are evicted first. Their entries may be
//!   taken twice.
//!
//! All of this is in memory: after a start, the relay knows no entry and takes all. A cursor in another format is never known.

use std::collections::{BTreeMap, HashMap};

use core::net::IpAddr;

/// The maximum number of spans of one sender, and of one request.
const MAX_SPANS: usize = 1024;
/// The maximum number of spans of all senders together: 5 MB.
const MAX_ALL_SPANS: usize = 32 * MAX_SPANS;
/// Bytes of memory that a span takes in a map whose nodes are half full.
const SPAN: usize = 2 * size_of::<(Place, Span)>();

/// The identity of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    place: Place,
    /// Microseconds since 1970.
    time: u64,
}

/// The place of an entry. In this order, entries of one family and boot are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    family: u128,
    boot: u128,
    number: u64,
}

/// Consecutive entries. The key in the map is the first of them.
#[derive(Clone, Copy, Debug)]
struct Span {
    last: u64,
    /// The range of their times.
    earliest: u64,
    latest: u64,
}

/// A set of entries.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Spans do not touch one another; `spans.len() <= MAX_SPANS`.
    spans: BTreeMap<Place, Span>,
}

/// The entries of all senders that may come again.
#[derive(Debug, Default)]
pub struct Cursors {
    senders: HashMap<IpAddr, Sender>,
    /// Counts uses, so that the least recently used sender can be found.
    uses: u64,
}

#[derive(Debug, Default)]
struct Sender {
    seen: Seen,
    used: u64,
}

/// A request that uploads entries.
#[derive(Debug)]
pub struct Upload {
    sender: IpAddr,
    /// Entries taken since the last batch.
    batch: Seen,
    /// All entries of the request, including those that were known.
    all: Seen,
    last: Option<Cursor>,
}

/// Entries that are on their way to the spool.
#[derive(Debug)]
pub struct Taken {
    sender: IpAddr,
    seen: Seen,
}

impl Cursor {
    /// `None`: a part of systemd's cursor that is needed here is missing.
    pub fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let part = |name: &str| text.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let id = |name| part(name).filter(|id| id.len() == 32).and_then(|id| u128::from_str_radix(id, 16).ok());
        let number = |name| u64::from_str_radix(part(name)?, 16).ok();
        let place = Place { family: id("s")?, boot: id("b")?, number: number("i")? };
        Some(Self { place, time: number("t")? })
    }
}

impl Cursors {
    /// Begins a request.
    pub fn begin(&self, sender: IpAddr) -> Upload {
        Upload { sender, batch: Seen::default(), all: Seen::default(), last: None }
    }

    /// Whether the next entry of a request is new. If so, it joins the next batch.
    pub fn take(&self, upload: &mut Upload, cursor: Option<Cursor>) -> bool {
        let Some(cursor) = cursor else { return true };
        let is_known = self.senders.get(&upload.sender).is_some_and(|sender| sender.seen.has(cursor));
        upload.all.add(cursor.place, Span::of(cursor));
        upload.last = Some(cursor);
        if !is_known {
            upload.batch.add(cursor.place, Span::of(cursor));
        }
        !is_known
    }

    /// Records that a batch is in the spool.
    pub fn spooled(&mut self, taken: &Taken) {
        self.used(taken.sender).seen.add_all(&taken.seen);
        self.bound(taken.sender);
    }

    /// Records that the complete request is in the spool and is answered. If the answer does not arrive, the whole request may come again.
    pub fn answered(&mut self, upload: &Upload) {
        let seen = &mut self.used(upload.sender).seen;
        seen.forget_families(&upload.all);
        seen.add_all(&upload.all);
        self.bound(upload.sender);
    }

    /// Records that the sender has received the answer: it continues with another request on the same connection, or closes that cleanly.
    pub fn confirmed(&mut self, upload: &Upload) {
        let seen = &mut self.used(upload.sender).seen;
        seen.forget_families(&upload.all);
        if let Some(last) = upload.last {
            seen.add(last.place, Span::of(last));
        }
        self.bound(upload.sender);
    }

    /// Memory for known entries, in bytes.
    pub fn memory(&self) -> usize {
        self.spans() * SPAN + self.senders.capacity() * size_of::<(IpAddr, Sender)>()
    }

    fn spans(&self) -> usize {
        self.senders.values().map(|sender| sender.seen.spans.len()).sum()
    }

    fn used(&mut self, sender: IpAddr) -> &mut Sender {
        self.uses += 1;
        let sender = self.senders.entry(sender).or_default();
        sender.used = self.uses;
        sender
    }

    /// Evicts the senders that have been silent for longest.
    fn bound(&mut self, current: IpAddr) {
        self.senders.retain(|_, sender| !sender.seen.spans.is_empty());
        while self.spans() > MAX_ALL_SPANS {
            let others = self.senders.iter().filter(|(address, _)| **address != current);
            let Some(oldest) = others.min_by_key(|(_, sender)| sender.used).map(|(address, _)| *address) else { break };
            self.senders.remove(&oldest);
        }
    }
}

impl Upload {
    /// Ends the batch: the entries taken since the last one.
    pub fn batch(&mut self) -> Taken {
        Taken { sender: self.sender, seen: std::mem::take(&mut self.batch) }
    }

    /// Memory in bytes.
    pub fn memory(&self) -> usize {
        (self.batch.spans.len() + self.all.spans.len()) * SPAN
    }
}

impl Span {
    fn of(cursor: Cursor) -> Self {
        Self { last: cursor.place.number, earliest: cursor.time, latest: cursor.time }
    }

    fn and(self, other: Self) -> Self {
        Self {
            last: self.last.max(other.last),
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
        }
    }
}

impl Seen {
    fn has(&self, cursor: Cursor) -> bool {
        let before = self.spans.range(..=cursor.place).next_back();
        before.is_some_and(|(first, span)| {
            let is_within = first.is_beside(cursor.place) && cursor.place.number <= span.last;
            is_within && (span.earliest..=span.latest).contains(&cursor.time)
        })
    }

    /// Adds a span, and merges it with the spans that it touches.
    fn add(&mut self, mut place: Place, mut span: Span) {
        if let Some((&first, before)) = self.spans.range(..=place).next_back()
            && first.is_beside(place)
            && place.number <= before.last.saturating_add(1)
        {
            span = span.and(*before);
            place = first;
        }
        let end = |span: &Span| Place { number: span.last.saturating_add(1), ..place };
        while let Some((&touched, other)) = self.spans.range(place..=end(&span)).next() {
            span = span.and(*other);
            self.spans.remove(&touched);
        }
        self.spans.insert(place, span);
        if self.spans.len() > MAX_SPANS {
            self.spans.pop_first();
        }
    }

    fn add_all(&mut self, other: &Self) {
        other.spans.iter().for_each(|(place, span)| self.add(*place, *span));
    }

    /// Forgets the families that also occur in another set.
    fn forget_families(&mut self, of: &Self) {
        self.spans.retain(|place, _| !of.has_family(place.family));
    }

    fn has_family(&self, family: u128) -> bool {
        let first = Place { family, boot: 0, number: 0 };
        let last = Place { family, boot: u128::MAX, number: u64::MAX };
        self.spans.range(first..=last).next().is_some()
    }
}

impl Place {
    /// Whether both have the same family and boot.
    fn is_beside(self, other: Self) -> bool {
        (self.family, self.boot) == (other.family, other.boot)
    }
}
