//! Finds where a message ends in a stream of bytes, frame by frame: RFC 6587. Pure: bytes in, frames out; no socket, no clock, no async.
//!
//! A sender does not announce which framing it uses, and Docker's driver uses both (octet counting only for RFC 5424 over TLS). So the
//! framing is decided anew for each frame:
//!
//! - `COUNT SP <PRI>` starts a counted frame. `COUNT` is at most [`start::MAX_COUNT`], and includes the priority
//! - anything else starts a line, which ends at the next LF. CRs in front of the LF are dropped. Docker's messages keep them, because a
//!   container's terminal writes them
//! - a NUL ends a line if the sender ends its messages with NUL, as Python's `SysLogHandler` does. That is assumed on a connection whose
//!   first message is not Docker's and where no message has ended in LF. Even there a NUL ends a line only before `<PRI>`, before another
//!   NUL, or when nothing follows for a while ([`Framer::pause`])
//! - LFs and NULs at the start of a frame are skipped: they are empty lines, or bytes that some senders put behind a counted frame
//!
//! # A number without a priority
//!
//! `12 rows` is text, and `46 my text` may be a frame of a sender whose template has no priority. rsyslog decides at each frame and takes
//! every digit for a count: with `70000 rows in set` it loses the bytes that follow. syslog-ng (`transport("auto")`) decides at the first
//! byte of a connection and never again. Here the text decides: the number is a count if the next `COUNT SP` comes exactly where the number
//! says, and no LF comes before; or if the stream ends or pauses there. Once a next number has come so, each number on that connection is a
//! count. Otherwise the number is text, and none of the text is lost. This rule misses one case: a counted frame without a priority and
//! with a LF in it.
//!
//! # A count that is wrong
//!
//! Where neither a count nor `<` follows a counted frame, the sender miscounts (characters instead of bytes, or without the LF). The bytes
//! there, up to the next `COUNT SP <PRI>` or LF, become a line of their own: nothing is lost, and counts are valid again behind it.
//!
//! Invariants, for all bytes:
//!
//! - the frames do not depend on where the bytes were cut ([`properties`] has this as a function)
//! - of a frame longer than the limit, only the start is passed on, once, and exactly the rest is skipped: nothing inside an oversized
//!   frame is ever taken for a frame
//! - every skipped byte is counted ([`Notes`])
//! - `partial.len() <= partial.capacity() <= limit`, and a framer that is idle between two frames holds no memory
//! - a caller may have a frame cut at any time: when the wait for its end was too long, or when there is no memory for it

use memchr::{memchr, memchr2};

use crate::protocol::held::hold;
use crate::protocol::syslog::{Likeness, likeness};
use start::{Look, MAX_START, Number};

mod gap;
mod notes;
pub mod properties;
mod skip;
mod start;
#[cfg(test)]
mod tests;

pub use notes::{Cut, Notes, Skipped};
pub use start::BOM;

/// The smallest limit, in bytes.
pub const SMALLEST_LIMIT: usize = 16;

/// Finds the frames of one connection.
#[derive(Debug)]
pub struct Framer {
    /// The maximum bytes of a frame that are kept; `>= SMALLEST_LIMIT`.
    limit: usize,
    state: State,
    /// The start of the frame in which the last feed ended. Empty unless the state is that of an unfinished frame.
    partial: Vec<u8>,
    /// Whether all messages are from Docker's driver.
    only_docker: bool,
    nul: Nul,
    /// Whether the last frame was counted.
    behind_counted: bool,
    /// Whether each number at the start of a frame is a count.
    bare_counts: bool,
    notes: Notes,
}

/// A frame without its framing. A counted frame keeps its trailing LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    pub bytes: &'a [u8],
    /// Only the start of the frame is present.
    pub cut: bool,
    pub framing: FoundBy,
}

/// Called with each frame that is found.
type OnFrame<'f> = &'f mut dyn FnMut(Found<'_>);

/// How a frame ended, or would have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    Line,
    Nul,
    Count,
}

/// Whether a NUL can end a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nul {
    /// The first message decides.
    Unknown,
    EndsMessages,
    IsText,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// At the start of a frame.
    Start,
    /// In a possible count and priority.
    Head(Ahead),
    /// In a line. `announced`: the line may be a counted frame without a priority.
    Line { announced: Option<Announced> },
    /// Where a message may have ended; the next bytes decide. `partial` has the message, unless the message is skipped.
    MayEnd { at: PossibleEnd, ahead: Ahead },
    /// Behind a counted frame whose count was wrong. `tail`: the last bytes, which may be a count and are not in `partial` yet.
    Gap { tail: Tail, skips: Option<Cut> },
    /// In a counted frame; `left > 0` bytes are still to come.
    Counted { left: u32 },
    /// In the rest of a frame that was passed on cut.
    Skip(Rest, Cut),
    /// In the rest of a frame whose end did not come in time. The next bytes may begin a message.
    Resume { rest: Rest, ahead: Ahead },
}

/// The rest of a frame that was passed on cut.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Line,
    Gap,
    /// `> 0`
    Octets(u32),
}

#[derive(Debug, Clone, Copy)]
enum PossibleEnd {
    /// Behind a NUL.
    Nul { skips: Option<Cut> },
    /// At the end of a number without a priority.
    Announced(Announced),
}

/// A number without a priority. The line begins with it, in `header` bytes. If it is a count, the frame ends at `end`.
#[derive(Debug, Clone, Copy)]
struct Announced {
    header: u8,
    end: u32,
}

/// A few bytes that were read and are not decided yet.
type Ahead = Few<MAX_START>;
/// A count and its priority, and the byte in front.
type Tail = Few<{ MAX_START + 1 }>;

#[derive(Debug, Clone, Copy)]
struct Few<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Few<N> {
    const NONE: Self = Self { bytes: [0; N], len: 0 };

    fn of(bytes: &[u8]) -> Self {
        Self::NONE.and(bytes)
    }

    /// These bytes, and as many of the following ones as fit.
    fn and(mut self, behind: &[u8]) -> Self {
        let len = usize::from(self.len);
        let added = behind.len().min(N - len);
        self.bytes[len..len + added].copy_from_slice(&behind[..added]);
        self.len += added as u8;
        self
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Framer {
    /// A framer for senders of any kind.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(SMALLEST_LIMIT),
            state: State::Start,
            partial: Vec::new(),
            only_docker: false,
            nul: Nul::Unknown,
            behind_counted: false,
            bare_counts: false,
            notes: Notes::default(),
        }
    }

    /// A framer for Docker's driver: NULs and CRs are text.
    pub fn of_docker(limit: usize) -> Self {
        Self { only_docker: true, nul: Nul::IsText, ..Self::new(limit) }
    }

    /// Takes the next bytes, and passes on each frame that ends in them. Frames that lie wholly in `bytes` are not copied.
    #[inline]
    pub fn feed(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Found<'_>)) {
        loop {
            bytes = self.whole_lines(bytes, &mut on_frame);
            if bytes.is_empty() {
                break;
            }
            bytes = self.step(bytes, &mut on_frame);
        }
        // Growth at most doubles the capacity. So this frees only memory that an earlier, longer frame needed.
        self.partial.shrink_to(self.partial.len() * 2);
    }

    /// Ends the stream after a clean close: the rest of a line is a message (people pipe `printf` into `nc`), and the rest of a counted
    /// frame is a cut one. After a broken connection, drop the framer instead.
    pub fn finish(&mut self, on_frame: OnFrame<'_>) {
        match self.state {
            State::Head(ahead) => self.emit(ahead.get(), FoundBy::Line, on_frame),
            State::Line { .. } => self.emit(&[], FoundBy::Line, on_frame),
            State::MayEnd { .. } => {
                self.pause(on_frame);
                self.not_ended(on_frame);
                if matches!(self.state, State::Line { .. }) {
                    self.emit(&[], FoundBy::Line, on_frame);
                }
            }
            State::Gap { tail, skips } => {
                self.keep_of_gap(tail.get(), skips, on_frame);
                if !matches!(self.state, State::Skip(..)) {
                    self.emit(&[], FoundBy::Line, on_frame);
                }
            }
            State::Counted { .. } if !self.partial.is_empty() => self.emit_cut(&[], FoundBy::Count, on_frame),
            State::Resume { ahead, .. } => self.notes.skipped.count(ahead.get().len(), Cut::Timeout),
            State::Counted { .. } | State::Start | State::Skip(..) => {}
        }
        let notes = self.notes;
        *self = if self.only_docker { Self::of_docker(self.limit) } else { Self::new(self.limit) };
        self.notes = notes;
    }

    /// Whether a message ends if nothing follows for a while. See [`pause`](Self::pause).
    pub fn may_have_ended(&self) -> bool {
        matches!(self.state, State::MayEnd { ahead, .. } if ahead.len == 0)
    }

    /// Nothing came for a while: a message that may have ended has ended.
    pub fn pause(&mut self, on_frame: OnFrame<'_>) {
        match self.state {
            State::MayEnd { at, ahead } if ahead.len == 0 => self.end_at(at, on_frame),
            _ => {}
        }
    }

    /// Gives up waiting for the end of a frame because it is late. Passes on the frame so far, cut, and skips the rest, unless a message
    /// begins with the next bytes. Does nothing if only a count has arrived, which holds no memory.
    pub fn time_out(&mut self, on_frame: OnFrame<'_>) {
        self.pause(on_frame);
        if let Some(rest) = self.cut(on_frame) {
            self.state = State::Resume { rest, ahead: Ahead::NONE };
        }
    }

    /// Gives up waiting for the end of a frame because there is no memory for it. Passes on the frame so far, cut, and skips the rest. Does
    /// nothing if only a count has arrived, which holds no memory.
    pub fn give_up(&mut self, on_frame: OnFrame<'_>) {
        if let Some(rest) = self.cut(on_frame) {
            self.state = State::Skip(rest, Cut::Memory);
        }
    }

    /// The notes since the last call. `None`: there are none.
    pub fn take_notes(&mut self) -> Option<Notes> {
        (self.notes != Notes::default()).then(|| std::mem::take(&mut self.notes))
    }

    /// Bytes of memory that an unfinished frame takes.
    pub fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// Whether a frame has begun that has neither ended nor been passed on cut.
    pub fn unfinished(&self) -> bool {
        match self.state {
            State::Head(_) | State::Line { .. } | State::Counted { .. } => true,
            State::MayEnd { at: PossibleEnd::Nul { skips }, .. } | State::Gap { skips, .. } => skips.is_none(),
            State::MayEnd { .. } => true,
            State::Start | State::Skip(..) | State::Resume { .. } => false,
        }
    }

    /// The fast path for most connections, once a LF has ended a message: takes lines that begin with `<`, lie wholly in `bytes` and do not
    /// end in a CR. Returns the bytes behind them.
    #[inline]
    fn whole_lines<'a>(&self, mut bytes: &'a [u8], on_frame: &mut impl FnMut(Found<'_>)) -> &'a [u8] {
        if !matches!(self.state, State::Start) || self.nul != Nul::IsText || self.behind_counted {
            return bytes;
        }
        while let Some(b'<') = bytes.first()
            && let Some(end) = memchr(b'\n', bytes)
            && end <= self.limit
            && bytes[end - 1] != b'\r'
        {
            on_frame(Found { bytes: &bytes[..end], cut: false, framing: FoundBy::Line });
            bytes = &bytes[end + 1..];
        }
        bytes
    }

    fn take(&mut self, mut bytes: &[u8], on_frame: OnFrame<'_>) {
        while !bytes.is_empty() {
            bytes = self.step(bytes, on_frame);
        }
    }

    /// Takes some of the bytes, or decides what they are. Returns the bytes behind those that were taken.
    fn step<'a>(&mut self, bytes: &'a [u8], on_frame: OnFrame<'_>) -> &'a [u8] {
        match self.state {
            State::Start => self.start(bytes),
            State::Head(ahead) => self.head(ahead, bytes, on_frame),
            State::Line { announced } => self.line(announced, bytes, on_frame),
            State::MayEnd { at, ahead } => self.may_end(at, ahead, bytes, on_frame),
            State::Gap { tail, skips } => self.gap(tail, skips, bytes, on_frame),
            State::Counted { left } => self.counted(left, bytes, on_frame),
            State::Skip(rest, why) => self.skip(rest, why, bytes),
            State::Resume { rest, ahead } => self.resume(rest, ahead, bytes, on_frame),
        }
    }

    fn start<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(first) = bytes.iter().position(|byte| !matches!(byte, b'\n' | 0)) else { return &[] };
        let bytes = &bytes[first..];
        match self.begin(bytes) {
            Some(header) => &bytes[header..],
            None => {
                self.state = State::Head(Ahead::of(bytes));
                &[]
            }
        }
    }

    /// Continues with the start of a frame whose first bytes came earlier.
    fn head<'a>(&mut self, ahead: Ahead, bytes: &'a [u8], on_frame: OnFrame<'_>) -> &'a [u8] {
        let joined = ahead.and(bytes);
        let Some(header) = self.begin(joined.get()) else {
            self.state = State::Head(joined);
            return &bytes[joined.get().len() - ahead.get().len()..];
        };
        match ahead.get().get(header..) {
            Some(rest) => {
                self.take(rest, on_frame);
                bytes
            }
            None => &bytes[header - ahead.get().len()..],
        }
    }

    /// Decides what frame begins here: sets the state, and returns the number of framing bytes. `None`: more bytes are needed.
    fn begin(&mut self, bytes: &[u8]) -> Option<usize> {
        let number = match bytes[0] {
            b'1'..=b'9' => start::number(bytes),
            b'<' => Number::No,
            _ if self.behind_counted => match start::pri(bytes) {
                Look::Open => return None,
                Look::Yes(_) => Number::No,
                Look::No => return self.begin_gap(bytes),
            },
            _ => Number::No,
        };
        let (octets, header) = match number {
            Number::Open => return None,
            Number::Count { octets, header, .. } => (octets, header),
            Number::Bare { octets, header } if self.bare_counts => (octets, header),
            _ if self.behind_counted && bytes[0].is_ascii_digit() => return self.begin_gap(bytes),
            Number::Bare { octets, header } => {
                let fits = header + octets <= self.limit;
                let announced = fits.then(|| Announced { header: header as u8, end: (header + octets) as u32 });
                self.state = State::Line { announced };
                return Some(0);
            }
            Number::No => {
                self.behind_counted = false;
                self.state = State::Line { announced: None };
                return Some(0);
            }
        };
        self.state = State::Counted { left: octets as u32 };
        Some(header)
    }

    fn line<'a>(&mut self, mut announced: Option<Announced>, bytes: &'a [u8], on_frame: OnFrame<'_>) -> &'a [u8] {
        let (before, capacity) = (self.partial.len(), self.limit - self.partial.len());
        let mut from = 0;
        loop {
            let end = self.find_end(&bytes[from..]).map(|at| from + at);
            let text = end.unwrap_or(bytes.len());
            if let Some(it) = announced.filter(|it| it.end as usize - before <= text) {
                let (piece, behind) = bytes.split_at(it.end as usize - before);
                match start::next_number(behind) {
                    Look::No => announced = None,
                    Look::Yes(_) => {
                        self.bare_counts = true;
                        self.keep(piece);
                        self.end_at(PossibleEnd::Announced(it), on_frame);
                        return behind;
                    }
                    Look::Open => {
                        self.keep(piece);
                        self.state = State::MayEnd { at: PossibleEnd::Announced(it), ahead: Ahead::of(behind) };
                        return &[];
                    }
                }
            }
            if text > capacity {
                self.emit_cut(&bytes[..capacity], FoundBy::Line, on_frame);
                self.state = State::Skip(Rest::Line, Cut::Limit);
                return &bytes[capacity..];
            }
            let (piece, Some(at)) = (&bytes[..text], end) else {
                self.keep(bytes);
                self.state = State::Line { announced };
                return &[];
            };
            if bytes[at] == b'\n' {
                self.nul = Nul::IsText;
                self.emit(piece, FoundBy::Line, on_frame);
                self.state = State::Start;
                return &bytes[at + 1..];
            }
            if self.nul == Nul::Unknown {
                self.keep(piece);
                self.nul = nul_behind(&self.partial);
                self.state = State::Line { announced };
                return &bytes[at..];
            }
            match behind_nul(&bytes[at + 1..]) {
                Look::Yes(_) => {
                    self.emit(piece, FoundBy::Nul, on_frame);
                    self.state = State::Start;
                    return &bytes[at + 1..];
                }
                Look::No => (announced, from) = (None, at + 1),
                Look::Open => {
                    self.keep(piece);
                    self.state =
                        State::MayEnd { at: PossibleEnd::Nul { skips: None }, ahead: Ahead::of(&bytes[at + 1..]) };
                    return &[];
                }
            }
        }
    }

    /// The next byte that ends a line, or may end it.
    fn find_end(&self, bytes: &[u8]) -> Option<usize> {
        match self.nul {
            Nul::IsText => memchr(b'\n', bytes),
            Nul::Unknown | Nul::EndsMessages => memchr2(b'\n', 0, bytes),
        }
    }

    fn may_end<'a>(&mut self, at: PossibleEnd, ahead: Ahead, bytes: &'a [u8], on_frame: OnFrame<'_>) -> &'a [u8] {
        let joined = ahead.and(bytes);
        let look = match at {
            PossibleEnd::Nul { .. } => behind_nul(joined.get()),
            PossibleEnd::Announced(_) => start::next_number(joined.get()),
        };
        match look {
            Look::Open => {
                self.state = State::MayEnd { at, ahead: joined };
                return &bytes[joined.get().len() - ahead.get().len()..];
            }
            Look::Yes(_) => {
                self.bare_counts |= matches!(at, PossibleEnd::Announced(_));
                self.end_at(at, on_frame);
                self.take(ahead.get(), on_frame);
            }
            Look::No => self.not_ended(on_frame),
        }
        bytes
    }

    /// A message has ended at a possible end.
    fn end_at(&mut self, at: PossibleEnd, on_frame: OnFrame<'_>) {
        match at {
            PossibleEnd::Nul { skips: Some(_) } => {}
            PossibleEnd::Nul { skips: None } => self.emit(&[], FoundBy::Nul, on_frame),
            PossibleEnd::Announced(Announced { header, .. }) => {
                self.partial.drain(..usize::from(header));
                self.emit(&[], FoundBy::Count, on_frame);
                self.behind_counted = self.bare_counts;
            }
        }
        self.state = State::Start;
    }

    /// No message has ended at a possible end: the bytes that were read are part of its text.
    fn not_ended(&mut self, on_frame: OnFrame<'_>) {
        let State::MayEnd { at, ahead } = self.state else { return };
        let nul: &[u8] = match at {
            PossibleEnd::Nul { .. } => &[0],
            PossibleEnd::Announced(_) => &[],
        };
        self.state = match at {
            PossibleEnd::Nul { skips: Some(why) } => State::Skip(Rest::Line, why),
            _ => State::Line { announced: None },
        };
        // None of these bytes ends a line: they are treated as on a connection where LF ends messages.
        let told = std::mem::replace(&mut self.nul, Nul::IsText);
        self.take(nul, on_frame);
        self.nul = told;
        self.take(ahead.get(), on_frame);
    }

    fn counted<'a>(&mut self, left: u32, bytes: &'a [u8], on_frame: OnFrame<'_>) -> &'a [u8] {
        let capacity = self.limit - self.partial.len();
        let wanted = (left as usize).min(capacity);
        if bytes.len() < wanted {
            self.keep(bytes);
            self.state = State::Counted { left: left - bytes.len() as u32 };
            return &[];
        }
        self.behind_counted = true;
        let (frame, behind) = bytes.split_at(wanted);
        if left as usize > capacity {
            self.emit_cut(frame, FoundBy::Count, on_frame);
            self.state = State::Skip(Rest::Octets(left - wanted as u32), Cut::Limit);
        } else {
            self.emit(frame, FoundBy::Count, on_frame);
            self.state = State::Start;
        }
        behind
    }

    /// Passes on `partial` and `piece` as one frame. CRs at the end of a line are dropped, and an empty frame too.
    fn emit(&mut self, piece: &[u8], framing: FoundBy, on_frame: OnFrame<'_>) {
        self.emit_with(piece, framing, |frame, only_docker| {
            let bytes = without_crs(frame, framing, only_docker);
            if !bytes.is_empty() {
                on_frame(Found { bytes, cut: false, framing });
            }
        });
    }

    /// Passes on `partial` and `piece` as the start of a frame.
    fn emit_cut(&mut self, piece: &[u8], framing: FoundBy, on_frame: OnFrame<'_>) {
        self.emit_with(piece, framing, |bytes, _| on_frame(Found { bytes, cut: true, framing }));
    }

    fn emit_with(&mut self, piece: &[u8], framing: FoundBy, emit: impl FnOnce(&[u8], bool)) {
        self.behind_counted &= framing == FoundBy::Count;
        let joins = !self.partial.is_empty();
        if joins {
            self.keep(piece);
        }
        let frame = if joins { &self.partial } else { piece };
        if self.nul == Nul::Unknown {
            self.nul = nul_behind(frame);
        }
        emit(frame, self.only_docker);
        self.partial.clear();
    }

    /// Copies a piece of an unfinished frame.
    fn keep(&mut self, piece: &[u8]) {
        hold(&mut self.partial, piece, self.limit);
    }
}

/// The meaning of a NUL on a connection with this first message. Behind a first message of a container, every NUL is text.
fn nul_behind(first: &[u8]) -> Nul {
    if likeness(first) == Likeness::No { Nul::EndsMessages } else { Nul::IsText }
}

/// Whether a NUL ends a message, with these bytes behind it.
fn behind_nul(bytes: &[u8]) -> Look {
    match bytes.first() {
        Some(0) => Look::Yes(1),
        _ => start::pri(bytes),
    }
}

/// A line without the CRs in front of its LF. A container's terminal writes CR LF: there the CR belongs to the text. In a counted frame it
/// belongs to the text too.
fn without_crs(frame: &[u8], framing: FoundBy, only_docker: bool) -> &[u8] {
    let crs = frame.iter().rev().take_while(|byte| **byte == b'\r').count();
    // Most lines have no CRs, and `likeness` costs as much as all other framing.
    if crs == 0 {
        return frame;
    }
    let stay = framing != FoundBy::Line || crs < frame.len() && (only_docker || likeness(frame) == Likeness::Likely);
    if stay { frame } else { &frame[..frame.len() - crs] }
}
