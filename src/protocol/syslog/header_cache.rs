//! What headers became that came before. A container's messages differ in stamp and text alone, so what stands between
//! the two is understood and written once, and copied from then on.

use std::cell::RefCell;

use super::Shape;

/// Headers that are remembered unless told otherwise: a datagram listener hears many containers in turn.
pub const MAX_HEADERS: usize = 16;
/// Longer headers are understood anew each time, in bytes, before or after.
const MAX_LEN: usize = 256;

/// Where a header was found, which decides what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Rfc3164,
    Rfc5424,
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
}

/// A header that is remembered. Another one never has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderId(u32);

#[derive(Clone)]
pub(super) struct Header {
    pub id: HeaderId,
    pub form: Form,
    pub shape: Shape,
    /// What stood between the stamp and the text, with the blank before the text.
    pub read: Vec<u8>,
    /// What stands there in the line, without that blank.
    pub written: Vec<u8>,
}

impl HeaderCache {
    /// `max`: how many are remembered, at least one.
    pub fn new(max: usize) -> Self {
        Self { max, headers: Vec::new(), last: 0, next: 0, made: 0 }
    }

    /// Knows nothing any longer.
    pub fn forget(&mut self) {
        *self = Self { made: self.made, ..Self::new(self.max) };
    }

    /// The header that `text` begins with: its place, which stays until the next one is remembered.
    pub fn find(&mut self, form: Form, text: &[u8]) -> Option<(usize, &Header)> {
        let fits = |header: &Header| header.form == form && text.starts_with(&header.read);
        let again = self.headers.get(self.last).is_some_and(fits);
        let place = if again { self.last } else { self.headers.iter().position(fits)? };
        self.last = place;
        Some((place, &self.headers[place]))
    }

    pub fn at(&self, place: usize) -> &Header {
        &self.headers[place]
    }

    /// The place of a header that is new. `None`: it is too long.
    pub fn remember(
        &mut self,
        (form, shape): (Form, Shape),
        read: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        if read.len() > MAX_LEN {
            return None;
        }
        SCRATCH.with_borrow_mut(|written| {
            written.clear();
            write(written);
            (written.len() <= MAX_LEN).then(|| self.put((form, shape), read, written))
        })
    }

    fn put(&mut self, (form, shape): (Form, Shape), read: &[u8], written: &[u8]) -> usize {
        let id = HeaderId(self.made);
        self.made = self.made.wrapping_add(1);
        if self.headers.len() < self.max {
            // Where there are many, each has room for any other, so that none is ever allocated again. Where there are few they
            // are no larger than they must be: ten thousand connections may each have some.
            let least = if self.max < MAX_HEADERS { 0 } else { MAX_LEN };
            let room = |len: usize| Vec::with_capacity(len.max(least));
            self.headers.push(Header { id, form, shape, read: room(read.len()), written: room(written.len()) });
            self.next = self.headers.len() - 1;
        }
        let place = self.next;
        self.next = (place + 1) % self.max;
        let header = &mut self.headers[place];
        (header.id, header.form, header.shape) = (id, form, shape);
        read.clone_into(&mut header.read);
        written.clone_into(&mut header.written);
        place
    }
}

thread_local! {
    /// Where a header is written before its length is known: everybody's, for an idle connection holds no room.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
