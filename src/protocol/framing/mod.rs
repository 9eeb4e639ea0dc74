//! Where a message ends in a stream of bytes: RFC 6587, found frame by frame. Pure: bytes in, frames out; no
//! socket, no clock, no async.
//!
//! A sender never says which framing it uses, and Docker's driver uses both (octet counting only for RFC 5424
//! over TLS), so every frame is looked at anew:
//!
//! - a digit 1–9 starts an octet count, `LEN SP MSG`; if no blank comes after at most 9 digits it was none
//! - anything else starts a line, which ends at the next LF. CR, NUL and all the others belong to the message
//! - LFs where a frame would start are skipped: empty lines, and the LF some senders put behind a counted frame
//!
//! What must hold, whatever is sent:
//!
//! - the frames do not depend on where the bytes were cut ([`properties`] is this sentence as a function)
//! - of a frame longer than the limit the start is handed on, once, and exactly the rest is skipped: nothing
//!   inside an oversized frame is ever taken for a frame
//! - `partial.len() <= partial.capacity() <= limit`, and an idle framer between two frames holds no memory
//! - whoever has waited long enough for the end of a frame, or has no memory left for it, may have it cut at any time

use memchr::memchr;

pub mod properties;
#[cfg(test)]
mod tests;

/// No limit may be smaller, in bytes: a count that turns out to be text must fit.
pub const SMALLEST_LIMIT: usize = 16;

/// Digits an octet count may have. 999,999,999 is longer than any limit worth setting.
const COUNT_DIGITS: usize = 9;

/// Finds the frames of one connection.
#[derive(Debug)]
pub struct Framer {
    /// Bytes of a frame that are kept; `>= SMALLEST_LIMIT`.
    limit: usize,
    state: FramerState,
    /// The start of the frame the last feed ended in. Empty unless the state is `Line` or `Counted`.
    partial: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum FramerState {
    /// At the start of a frame.
    Start,
    /// In what may be an octet count: `1 <= len <= COUNT_DIGITS` digits, no blank yet.
    Count { digits: [u8; COUNT_DIGITS], len: usize },
    /// In a line; `partial` has its start.
    Line,
    /// In a counted frame; `left > 0` bytes are still to come.
    Counted { left: usize },
    /// In the rest of a line that was handed on cut.
    SkipLine,
    /// In the rest of a counted frame that was handed on cut; `left > 0`.
    SkipCounted { left: usize },
}

/// What the bytes at the start of a frame say about an octet count.
enum Header {
    /// A count of `octets`, written in `header` bytes, the blank included.
    Count { octets: usize, header: usize },
    /// Digits only: more bytes are needed to tell.
    Open,
    /// Not a count: a line.
    Text,
}

impl Framer {
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(SMALLEST_LIMIT), state: FramerState::Start, partial: Vec::new() }
    }

    /// Takes the next bytes and hands on each frame that ends in them, without its framing (a counted frame keeps
    /// its trailing LF), and whether it was cut. Frames that lie wholly in `bytes` are not copied.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            bytes = match self.state {
                FramerState::Start => self.start(bytes),
                FramerState::Count { digits, len } => self.count(&digits[..len], bytes),
                FramerState::Line => self.line(bytes, &mut on_frame),
                FramerState::Counted { left } => self.counted(left, bytes, &mut on_frame),
                FramerState::SkipLine => self.skip_line(bytes),
                FramerState::SkipCounted { left } => self.skip_counted(left, bytes),
            };
        }
        // Growth never more than doubles, so this frees what an earlier, longer frame needed and nothing else.
        self.partial.shrink_to(self.partial.len() * 2);
    }

    /// The stream ended in good order: what is left of a line is a message (people pipe `printf` into `nc`), what
    /// is left of a counted frame is a cut one. After a broken connection do not call this: drop the framer.
    pub fn finish(&mut self, mut on_frame: impl FnMut(&[u8], bool)) {
        match self.state {
            FramerState::Count { digits, len } => on_frame(&digits[..len], false),
            FramerState::Line => on_frame(&self.partial, false),
            FramerState::Counted { .. } if !self.partial.is_empty() => on_frame(&self.partial, true),
            FramerState::Counted { .. }
            | FramerState::Start
            | FramerState::SkipLine
            | FramerState::SkipCounted { .. } => {}
        }
        *self = Self::new(self.limit);
    }

    /// Waits for the end of a frame no longer: hands on what there is of it, cut, and will skip the rest. Does nothing
    /// while there is nothing but a count, which holds no memory.
    pub fn cut(&mut self, mut on_frame: impl FnMut(&[u8], bool)) {
        self.state = match self.state {
            FramerState::Line => FramerState::SkipLine,
            FramerState::Counted { left } if !self.partial.is_empty() => FramerState::SkipCounted { left },
            _ => return,
        };
        on_frame(&self.partial, true);
        self.partial = Vec::new();
    }

    /// Bytes of memory that an unfinished frame takes.
    pub fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// Whether bytes of a frame were taken that has neither ended nor been handed on cut.
    pub fn unfinished(&self) -> bool {
        matches!(self.state, FramerState::Count { .. } | FramerState::Line | FramerState::Counted { .. })
    }

    fn start<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(first) = bytes.iter().position(|&byte| byte != b'\n') else { return &[] };
        let bytes = &bytes[first..];
        match header(bytes) {
            Header::Count { octets, header } => {
                self.state = FramerState::Counted { left: octets };
                &bytes[header..]
            }
            Header::Text => {
                self.state = FramerState::Line;
                bytes
            }
            Header::Open => {
                self.state = open_count(bytes);
                &[]
            }
        }
    }

    /// Goes on with a count whose first digits came with earlier bytes.
    fn count<'a>(&mut self, digits: &[u8], bytes: &'a [u8]) -> &'a [u8] {
        let mut joined = [0; COUNT_DIGITS * 2 + 1];
        let len = digits.len() + bytes.len().min(COUNT_DIGITS + 1);
        joined[..digits.len()].copy_from_slice(digits);
        joined[digits.len()..len].copy_from_slice(&bytes[..len - digits.len()]);
        match header(&joined[..len]) {
            Header::Count { octets, header } => {
                self.state = FramerState::Counted { left: octets };
                &bytes[header - digits.len()..]
            }
            Header::Text => {
                self.state = FramerState::Line;
                self.keep(digits);
                bytes
            }
            Header::Open => {
                self.state = open_count(&joined[..len]);
                &[]
            }
        }
    }

    fn line<'a>(&mut self, bytes: &'a [u8], on_frame: &mut impl FnMut(&[u8], bool)) -> &'a [u8] {
        let end = memchr(b'\n', bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        let capacity = self.limit - self.partial.len();
        if piece.len() > capacity {
            self.emit(&piece[..capacity], true, on_frame);
            self.state = FramerState::SkipLine;
            return &bytes[capacity..];
        }
        let Some(end) = end else {
            self.keep(piece);
            return &[];
        };
        self.emit(piece, false, on_frame);
        self.state = FramerState::Start;
        &bytes[end + 1..]
    }

    fn counted<'a>(&mut self, left: usize, bytes: &'a [u8], on_frame: &mut impl FnMut(&[u8], bool)) -> &'a [u8] {
        let capacity = self.limit - self.partial.len();
        let wanted = left.min(capacity);
        if bytes.len() < wanted {
            self.keep(bytes);
            self.state = FramerState::Counted { left: left - bytes.len() };
            return &[];
        }
        let cut = left > capacity;
        self.emit(&bytes[..wanted], cut, on_frame);
        self.state = if cut { FramerState::SkipCounted { left: left - wanted } } else { FramerState::Start };
        &bytes[wanted..]
    }

    fn skip_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else { return &[] };
        self.state = FramerState::Start;
        &bytes[end + 1..]
    }

    fn skip_counted<'a>(&mut self, left: usize, bytes: &'a [u8]) -> &'a [u8] {
        let skipped = left.min(bytes.len());
        self.state =
            if skipped == left { FramerState::Start } else { FramerState::SkipCounted { left: left - skipped } };
        &bytes[skipped..]
    }

    /// Hands on `partial` and `piece` as one frame.
    fn emit(&mut self, piece: &[u8], cut: bool, on_frame: &mut impl FnMut(&[u8], bool)) {
        if self.partial.is_empty() {
            return on_frame(piece, cut);
        }
        self.keep(piece);
        on_frame(&self.partial, cut);
        self.partial.clear();
    }

    /// Copies a piece of an unfinished frame. Grows with what has arrived, never with what was announced: a count
    /// costs its sender nothing.
    fn keep(&mut self, piece: &[u8]) {
        let needed = self.partial.len() + piece.len();
        debug_assert!(needed <= self.limit);
        if needed > self.partial.capacity() {
            let grown = (self.partial.capacity() * 2).min(self.limit).max(needed);
            self.partial.reserve_exact(grown - self.partial.len());
        }
        self.partial.extend_from_slice(piece);
    }
}

fn header(bytes: &[u8]) -> Header {
    let mut octets = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'1'..=b'9' if at < COUNT_DIGITS => octets = octets * 10 + usize::from(byte - b'0'),
            b'0' if 0 < at && at < COUNT_DIGITS => octets *= 10,
            b' ' if at > 0 => return Header::Count { octets, header: at + 1 },
            _ => return Header::Text,
        }
    }
    Header::Open
}

/// The state after `bytes`, all of them digits and at most `COUNT_DIGITS`, as [`Header::Open`] says.
fn open_count(bytes: &[u8]) -> FramerState {
    let mut digits = [0; COUNT_DIGITS];
    digits[..bytes.len()].copy_from_slice(bytes);
    FramerState::Count { digits, len: bytes.len() }
}
