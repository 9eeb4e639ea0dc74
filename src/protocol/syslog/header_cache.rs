//! What headers became that came before. A container's messages differ in stamp and text alone, so what stands between
//! the two is understood and written once, and copied from then on.

use std::cell::RefCell;

use core::net::IpAddr;

use super::Shape;
use crate::protocol::outline::ORIGIN;

/// Headers that are remembered unless told otherwise: a datagram listener hears many containers in turn.
pub const MAX_HEADERS: usize = 16;
/// Longer headers are understood anew each time, in bytes.
const MAX_LEN: usize = 256;
/// The same of what is written, in bytes: fields of a listener are among it.
const MAX_WRITTEN: usize = 768;
/// The same of what other protocols have instead: labels of a container are among it.
const MAX_ORIGIN: usize = 2048;
/// After so many of these that did not come again one of so many is remembered.
const MANY_UNUSED: u32 = 64;
/// What all of these take together, in bytes: where few are remembered ten thousand connections may each have some.
const ROOM: usize = 32 << 10;
const ROOM_OF_FEW: usize = 4 << 10;

/// Where a header was found, which decides what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Rfc3164,
    Rfc5424,
    /// In another protocol: what messages of a sender have in common.
    Origin,
}

/// The last headers. Reuses its memory; empty, it has none.
#[derive(Clone)]
pub(super) struct HeaderCache {
    max: usize,
    headers: Vec<Header>,
    /// Where the last one was found: most often it is asked for again.
    last: usize,
    /// Which one the next replaces when there are all of them.
    next: usize,
    /// How many there have been.
    made: u32,
    /// How many there have been of other protocols since one came again.
    unused: u32,
}

/// A header that is remembered. Another one never has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderId(u32);

#[derive(Clone)]
pub(super) struct Header {
    pub id: HeaderId,
    pub form: Form,
    pub shape: Shape,
    /// Of what is no syslog: there it stands in what was read.
    pub pri: u8,
    /// The sender whose messages alone it is for; `None`: everybody's.
    pub peer: Option<IpAddr>,
    /// What stood between the stamp and the text, with the blank before the text.
    pub read: Vec<u8>,
    /// What stands there in the line, without that blank.
    pub written: Vec<u8>,
}

impl HeaderCache {
    /// `max`: how many are remembered, at least one.
    pub fn new(max: usize) -> Self {
        Self { max, headers: Vec::new(), last: 0, next: 0, made: 0, unused: 0 }
    }

    /// Knows nothing any longer.
    pub fn forget(&mut self) {
        *self = Self { made: self.made, unused: self.unused, ..Self::new(self.max) };
    }

    /// The header that a text of this sender begins with: its place, which stays until the next one is remembered.
    pub fn find(&mut self, form: Form, text: &[u8], peer: Option<IpAddr>) -> Option<(usize, &Header)> {
        let fits = |header: &Header| {
            header.form == form && text.starts_with(&header.read) && (header.peer.is_none() || header.peer == peer)
        };
        let again = self.headers.get(self.last).is_some_and(fits);
        let place = if again { self.last } else { self.headers.iter().position(fits)? };
        self.last = place;
        Some((place, &self.headers[place]))
    }

    /// The same of what messages of a sender have in common.
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

    /// The place of a header that is new. `None`: it is too long.
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

    /// The same of what messages of a sender have in common.
    pub fn remember_origin(
        &mut self,
        (pri, peer): (u8, Option<IpAddr>),
        origin: &[&[u8]; ORIGIN],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        // Where each message is another one, remembering costs more than it brings.
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
            // Where there are many, each has room for any other, so that none is ever allocated again. Where there are few they
            // are no larger than they must be: ten thousand connections may each have some.
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

/// All parts, each behind its length. `None`: they are too long.
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

/// Was this written of the same parts?
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
    /// Where a header is written before its length is known: everybody's, for an idle connection holds no room.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
