//! What headers became that came before. A container's messages differ in stamp and text alone, so what stands between
//! the two is understood and written once, and copied from then on.

/// Headers that are remembered unless told otherwise: a datagram listener hears many containers in turn.
pub const MOST_HEADS: usize = 16;
/// Longer headers are understood anew each time, in bytes, before or after.
const LONGEST: usize = 256;

/// Where a header was found, which decides what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Rfc3164,
    Rfc5424,
}

/// The last headers. Reuses its memory; empty, it has none.
#[derive(Clone)]
pub(super) struct Heads {
    most: usize,
    known: Vec<Head>,
    /// Where the last one was found: most often it is asked for again.
    last: usize,
    /// Which one the next replaces when there are all of them.
    next: usize,
    /// How many there have been.
    made: u32,
}

/// A header that is remembered. Another one never has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadId(u32);

#[derive(Clone)]
struct Head {
    id: HeadId,
    form: Form,
    /// What stood between the stamp and the text, with the blank before the text.
    read: Vec<u8>,
    /// What stands there in the canonical line, without that blank.
    written: Vec<u8>,
}

impl Heads {
    /// `most`: how many are remembered, at least one.
    pub fn new(most: usize) -> Self {
        Self { most, known: Vec::new(), last: 0, next: 0, made: 0 }
    }

    /// The same, without what it remembers.
    pub fn forget(&mut self) {
        *self = Self::new(self.most);
    }

    /// What is written for the header that `text` begins with, and the text behind it.
    pub fn find<'a>(&mut self, form: Form, text: &'a [u8]) -> Option<(HeadId, &[u8], &'a [u8])> {
        let fits = |head: &Head| head.form == form && text.starts_with(&head.read);
        let again = self.known.get(self.last).is_some_and(fits);
        let at = if again { self.last } else { self.known.iter().position(fits)? };
        self.last = at;
        let Head { id, read, written, .. } = &self.known[at];
        Some((*id, written, &text[read.len()..]))
    }

    /// `None`: it is too long.
    pub fn remember(&mut self, form: Form, read: &[u8], written: &[u8]) -> Option<HeadId> {
        if read.len() > LONGEST || written.len() > LONGEST {
            return None;
        }
        let id = HeadId(self.made);
        self.made = self.made.wrapping_add(1);
        if self.known.len() < self.most {
            // Where there are many, each has room for any other, so that none is ever allocated again. Where there are few they
            // are no larger than they must be: ten thousand connections may each have some.
            let most = if self.most < MOST_HEADS { 0 } else { LONGEST };
            let room = |len: usize| Vec::with_capacity(len.max(most));
            self.known.push(Head { id, form, read: room(read.len()), written: room(written.len()) });
            self.next = self.known.len() - 1;
        }
        let head = &mut self.known[self.next];
        self.next = (self.next + 1) % self.most;
        head.id = id;
        head.form = form;
        read.clone_into(&mut head.read);
        written.clone_into(&mut head.written);
        Some(id)
    }
}
