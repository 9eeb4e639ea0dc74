//! A cache of headers. The messages of a container differ only in stamp and text, so the relay parses and writes the part between them once
//! and copies it from then on.

use std::cell::RefCell;

use core::net::IpAddr;

use super::Shape;
use crate::protocol::outline::ORIGIN;

/// Default size of the cache, in headers: a datagram listener receives from many containers in turn.
pub const MAX_HEADERS: usize = 16;
/// Maximum bytes of a cached header as sent. Longer headers are parsed each time.
const MAX_LEN: usize = 256;
/// Maximum bytes of a cached header as written, which includes the fields of a listener.
const MAX_WRITTEN: usize = 768;
/// Maximum bytes of the shared content of messages in other protocols, which includes the labels of a container.
const MAX_ORIGIN: usize = 2048;
/// After this many new shared contents without a hit, only every 64th is cached.
const MANY_UNUSED: u32 = 64;
/// Maximum bytes of the whole cache when a shared content is added. Small caches get less: ten thousand connections may have one each.
const ROOM: usize = 32 << 10;
const ROOM_OF_FEW: usize = 4 << 10;

/// The kind of message that has the header. The same bytes mean different things in different kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Rfc3164,
    Rfc5424,
    /// Another protocol: the content that messages of a sender share.
    Origin,
}

/// The cached headers. Memory is reused. An empty cache has none.
#[derive(Clone)]
pub(super) struct HeaderCache {
    max: usize,
    headers: Vec<Header>,
    /// The place of the last hit: most often the next message has the same header.
    last: usize,
    /// The place that the next header replaces when the cache is full.
    next: usize,
    /// The number of headers ever cached.
    made: u32,
    /// The number of new shared contents since the last hit of one.
    unused: u32,
}

/// The number of a cached header. No other header gets the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderId(u32);

#[derive(Clone)]
pub(super) struct Header {
    pub id: HeaderId,
    pub form: Form,
    pub shape: Shape,
    /// PRI of messages that are no syslog: a syslog message brings its own.
    pub pri: u8,
    /// The only sender that the header applies to; `None`: all senders.
    pub peer: Option<IpAddr>,
    /// The bytes as sent between stamp and text, including the blank before the text.
    pub read: Vec<u8>,
    /// The bytes as written to the line, without that blank.
    pub written: Vec<u8>,
}

impl HeaderCache {
    /// `max`: the number of headers, at least one.
    pub fn new(max: usize) -> Self {
        Self { max, headers: Vec::new(), last: 0, next: 0, made: 0, unused: 0 }
    }

    /// Removes all headers.
    pub fn forget(&mut self) {
        *self = Self { made: self.made, unused: self.unused, ..Self::new(self.max) };
    }

    /// The cached header at the start of a text from this sender, and its place. The place is valid until the next header is cached.
    pub fn find(&mut self, form: Form, text: &[u8], peer: Option<IpAddr>) -> Option<(usize, &Header)> {
        let fits = |header: &Header| {
            header.form == form && text.starts_with(&header.read) && (header.peer.is_none() || header.peer == peer)
        };
        let again = self.headers.get(self.last).is_some_and(fits);
        let place = if again { self.last } else { self.headers.iter().position(fits)? };
        self.last = place;
        Some((place, &self.headers[place]))
    }

    /// Like [`find`](Self::find), for the shared content of messages in another protocol.
    pub fn find_origin(&mut self, origin: &[&[u8]; ORIGIN], peer: Option<IpAddr>) -> Option<(usize, &Header)> {
        let fits = |header: &Header| {
            header.form == Form::Origin
                && is_origin(&header.read, origin)
                && (header.peer.is_none() || header.peer == peer)
        };
        let again = self.headers.get(self.last).is_some_and(fits);
        let place = if again { self.last } else { self.headers.iter().position(fits)? };
        (self.last, self.unused) = (place, 0);
        Some((place, &self.headers[place]))
    }

    pub fn at(&self, place: usize) -> &Header {
        &self.headers[place]
    }

    /// Caches a new header and returns its place. `None`: the header is too long.
    pub fn remember(
        &mut self,
        kind: (Form, Shape, Option<IpAddr>),
        read: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        if read.len() > MAX_LEN {
            return None;
        }
        SCRATCH.with_borrow_mut(|written| {
            written.clear();
            write(written);
            (written.len() <= MAX_WRITTEN).then(|| self.put(kind, read, written))
        })
    }

    /// Like [`remember`](Self::remember), for the shared content of messages in another protocol.
    pub fn remember_origin(
        &mut self,
        (pri, peer): (u8, Option<IpAddr>),
        origin: &[&[u8]; ORIGIN],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        // If every message has new content, caching costs more than it saves.
        self.unused = self.unused.wrapping_add(1);
        if self.unused > MANY_UNUSED && !self.unused.is_multiple_of(MANY_UNUSED) {
            return None;
        }
        let read = written_origin(origin)?;
        SCRATCH.with_borrow_mut(|written| {
            written.clear();
            write(written);
            let is_kept = |header: &Header| header.read.capacity() + header.written.capacity();
            let held: usize = self.headers.iter().map(is_kept).sum();
            let room = if self.max < MAX_HEADERS { ROOM_OF_FEW } else { ROOM };
            if read.len() + written.len() > room / 2 {
                return None;
            }
            if held + read.len() + written.len() > room {
                self.forget();
            }
            let place = self.put((Form::Origin, Shape::Docker, peer), &read, written);
            self.headers[place].pri = pri;
            Some(place)
        })
    }

    fn put(&mut self, (form, shape, peer): (Form, Shape, Option<IpAddr>), read: &[u8], written: &[u8]) -> usize {
        let id = HeaderId(self.made);
        self.made = self.made.wrapping_add(1);
        if self.headers.len() < self.max {
            // In a large cache each entry has room for any header, so that it never needs a new allocation. In a small cache entries are
            // only as large as needed: ten thousand connections may have one each.
            let least = if self.max < MAX_HEADERS || form == Form::Origin { 0 } else { MAX_LEN };
            let room = |len: usize| Vec::with_capacity(len.max(least));
            self.headers.push(Header {
                id,
                form,
                shape,
                pri: 0,
                peer,
                read: room(read.len()),
                written: room(written.len()),
            });
            self.next = self.headers.len() - 1;
        }
        let place = self.next;
        self.next = (place + 1) % self.max;
        let header = &mut self.headers[place];
        (header.id, header.form, header.shape, header.peer) = (id, form, shape, peer);
        read.clone_into(&mut header.read);
        written.clone_into(&mut header.written);
        place
    }
}

/// All parts, each after its length. `None`: the parts are too long.
fn written_origin(origin: &[&[u8]; ORIGIN]) -> Option<Vec<u8>> {
    let len = origin.iter().map(|part| 2 + part.len()).sum();
    if len > MAX_ORIGIN {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    for part in origin {
        out.extend_from_slice(&(part.len() as u16).to_le_bytes());
        out.extend_from_slice(part);
    }
    Some(out)
}

/// Whether [`written_origin`] has made `written` from these parts.
#[inline]
fn is_origin(written: &[u8], origin: &[&[u8]; ORIGIN]) -> bool {
    let mut rest = written;
    origin.iter().all(|part| {
        let Some((len, behind)) = rest.split_first_chunk() else { return false };
        let is_same = usize::from(u16::from_le_bytes(*len)) == part.len() && behind.starts_with(part);
        rest = if is_same { &behind[part.len()..] } else { &[] };
        is_same
    })
}

thread_local! {
    /// The buffer for a header until its length is known. All caches of a thread share it, so that idle connections hold no memory.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
