//! Which entries were taken before: those of a request that was cut come again, from the cursor that the uploader has saved.
//!
//! An entry is named by its cursor, `s=FILE;i=NUMBER;b=BOOT;m=…;t=TIME;x=…`: the family of files it is in, its number there, the boot
//! it was written in, and the time. Numbers rise by one in a family, and one machine has one family for years, so that what a sender
//! has sent is a few spans of numbers, however long its backlog is. Several families come interleaved, and each has its own spans.
//!
//! Losing an entry is worse than taking it twice, and so:
//!
//! - Only what was taken is known, not all numbers below the highest. Where families interleave and a clock was set, a lower number
//!   may come later, and a user's own journal may turn up between two requests.
//! - An entry is known by family, boot and number, and by a time within that of its span. A machine that is set back to a snapshot of
//!   itself writes the same numbers again, later.
//! - It is known once it is in the spool, and only to the address that sent it: nobody can make another's entries known.
//! - When a request was answered, what it had is known no longer than until its sender shows that it has heard the answer. But the
//!   last entry stays known: a started uploader (systemd 252 to 262) sends that of its saved cursor once more. So who sends an old
//!   journal again on purpose is heard.
//! - Where there are too many spans, some are forgotten, and of all senders those that have sent nothing for longest. Their entries
//!   may be taken twice.
//!
//! All of it is in memory: a relay that starts knows nothing, and takes what is sent to it. A cursor of another form is never known.

use std::collections::{BTreeMap, HashMap};

use core::net::IpAddr;

/// The maximum number of spans of one sender, and of one request.
const MAX_SPANS: usize = 1024;
/// The same of all senders: 5 MB.
const MAX_ALL_SPANS: usize = 32 * MAX_SPANS;
/// What a span takes in a map, in bytes of memory, where nodes are half full.
const SPAN: usize = 2 * size_of::<(Place, Span)>();

/// What names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    place: Place,
    /// Microseconds since 1970.
    time: u64,
}

/// Where an entry is. In this order, entries of one family and boot are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    family: u128,
    boot: u128,
    number: u64,
}

/// Entries that follow one another, from the one it is kept under.
#[derive(Clone, Copy, Debug)]
struct Span {
    last: u64,
    /// The times of all of them are from here to there.
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
    /// Counts uses, to find who was used last.
    uses: u64,
}

#[derive(Debug, Default)]
struct Sender {
    seen: Seen,
    used: u64,
}

/// A request that brings entries.
#[derive(Debug)]
pub struct Upload {
    sender: IpAddr,
    /// Taken since the last batch.
    batch: Seen,
    /// Those of all of the request, also the ones that were known.
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
    /// `None`: it has not what we need of a cursor of systemd.
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
    /// A request begins.
    pub fn begin(&self, sender: IpAddr) -> Upload {
        Upload { sender, batch: Seen::default(), all: Seen::default(), last: None }
    }

    /// Is the next entry of a request a new one? It is in the next batch then.
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

    /// A batch is in the spool.
    pub fn spooled(&mut self, taken: &Taken) {
        self.used(taken.sender).seen.add_all(&taken.seen);
        self.bound(taken.sender);
    }

    /// All of a request is in the spool, and the sender is told so. It may come again as a whole, if the answer does not arrive.
    pub fn answered(&mut self, upload: &Upload) {
        let seen = &mut self.used(upload.sender).seen;
        seen.forget_families(&upload.all);
        seen.add_all(&upload.all);
        self.bound(upload.sender);
    }

    /// The sender has heard the answer: it goes on with another request on the same connection, or ends that in good order.
    pub fn confirmed(&mut self, upload: &Upload) {
        let seen = &mut self.used(upload.sender).seen;
        seen.forget_families(&upload.all);
        if let Some(last) = upload.last {
            seen.add(last.place, Span::of(last));
        }
        self.bound(upload.sender);
    }

    /// What is known, in bytes of memory.
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

    /// Forgets those who have sent nothing for longest.
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
    /// Ends the batch: what was taken since the last one.
    pub fn batch(&mut self) -> Taken {
        Taken { sender: self.sender, seen: std::mem::take(&mut self.batch) }
    }

    /// In bytes.
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

    /// Adds a span, as one with those that it touches.
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

    /// Forgets the families that another set has something of.
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
    /// Of one family and boot.
    fn is_beside(self, other: Self) -> bool {
        (self.family, self.boot) == (other.family, other.boot)
    }
}
