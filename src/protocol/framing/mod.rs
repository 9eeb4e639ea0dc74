//! Where a message ends in a stream of bytes: RFC 6587, found frame by frame. Pure: bytes in, frames out; no
//! socket, no clock, no async.
//!
//! A sender never says which framing it uses, and Docker's driver uses both (octet counting only for RFC 5424
//! over TLS), so every frame is looked at anew:
//!
//! - `COUNT SP <PRI>` starts a counted frame. `COUNT` is at most [`start::MAX_COUNT`], and covers its priority
//! - anything else starts a line, which ends at the next LF; CRs in front of it are not of the message, unless it is Docker's, where a
//!   terminal writes them
//! - a NUL ends a line where the sender ends its messages so, as Python's `SysLogHandler` does: on a connection whose first
//!   message is not Docker's and where no message has ended in LF, and there before `<PRI>`, before another NUL, or when nothing
//!   came behind it for a while ([`Framer::pause`])
//! - LFs and NULs where a frame would start are skipped: empty lines, and what some senders put behind a counted frame
//!
//! # A number without a priority
//!
//! `12 rows` is text, and `46 my text` may be a frame of a sender whose template has no priority. rsyslog asks each frame and
//! takes every digit for a count: `70000 rows in set` costs it what follows. syslog-ng (`transport("auto")`) asks the first byte of a connection and
//! never again. Here the text decides: the number is a count if the next `COUNT SP` comes exactly where it says, and no LF before; or if
//! the stream ends or pauses there. On a connection where the next number came so, each number is a count from then on. Else it is
//! text, and nothing of it is lost. What this cannot tell apart: a counted frame without priority, with a LF in it.
//!
//! # A count that is wrong
//!
//! Where neither a count nor `<` follows a counted frame, its sender counts wrongly (characters instead of bytes, the LF or not).
//! What stands there up to the next `COUNT SP <PRI>`, or a LF, is a line of its own: nothing is lost, and counts hold again from there on.
//!
//! What must hold, whatever is sent:
//!
//! - the frames do not depend on where the bytes were cut ([`properties`] is this sentence as a function)
//! - of a frame longer than the limit the start is handed on, once, and exactly the rest is skipped: nothing
//!   inside an oversized frame is ever taken for a frame
//! - what is skipped is counted, byte for byte ([`Notes`])
//! - `partial.len() <= partial.capacity() <= limit`, and an idle framer between two frames holds no memory
//! - whoever has waited long enough for the end of a frame, or has no memory left for it, may have it cut at any time

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

/// No limit may be smaller, in bytes.
pub const SMALLEST_LIMIT: usize = 16;

/// Finds the frames of one connection.
#[derive(Debug)]
pub struct Framer {
    /// Bytes of a frame that are kept; `>= SMALLEST_LIMIT`.
    limit: usize,
    state: State,
    /// The start of the frame the last feed ended in. Empty unless the state is one of a frame that has not ended.
    partial: Vec<u8>,
    /// Whether all messages are Docker's.
    only_docker: bool,
    nul: Nul,
    /// The last frame was counted.
    behind_counted: bool,
    /// Each number at the start of a frame is a count.
    bare_counts: bool,
    notes: Notes,
}

/// A frame, without its framing; a counted frame keeps its trailing LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    pub bytes: &'a [u8],
    /// Only the start of the frame is there.
    pub cut: bool,
    pub framing: FoundBy,
}

/// Takes each frame that is found.
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
    /// The first message will tell.
    Unknown,
    EndsMessages,
    IsText,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// At the start of a frame.
    Start,
    /// In what may be a count and a priority.
    Head(Ahead),
    /// In a line. `announced`: it may be a counted frame without a priority.
    Line { announced: Option<Announced> },
    /// Where a message may have ended, which what comes next will tell. `partial` has the message, unless it is skipped.
    MayEnd { at: PossibleEnd, ahead: Ahead },
    /// Behind a counted frame whose count was wrong. `tail`: its last bytes, which may be a count and are not in `partial` yet.
    Gap { tail: Tail, skips: Option<Cut> },
    /// In a counted frame; `left > 0` bytes are still to come.
    Counted { left: u32 },
    /// In the rest of a frame that was handed on cut.
    Skip(Rest, Cut),
    /// In the rest of a frame whose end did not come in time: if what comes next begins a message, it is one.
    Resume { rest: Rest, ahead: Ahead },
}

/// What there is still to come of a frame that was handed on cut.
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
    /// Where a number without a priority says.
    Announced(Announced),
}

/// A number without a priority: the line is `header` bytes of it and, if it is a count, ends at `end`.
#[derive(Debug, Clone, Copy)]
struct Announced {
    header: u8,
    end: u32,
}

/// A few bytes that were read and not understood yet.
type Ahead = Few<MAX_START>;
/// A count and its priority, and the byte before.
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

    /// These bytes, and as many as fit of those behind them.
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
    /// For senders of any kind.
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

    /// For Docker's driver: NULs and CRs are text.
    pub fn of_docker(limit: usize) -> Self {
        Self { only_docker: true, nul: Nul::IsText, ..Self::new(limit) }
    }

    /// Takes the next bytes and hands on each frame that ends in them. Frames that lie wholly in `bytes` are not copied.
    #[inline]
    pub fn feed(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Found<'_>)) {
        loop {
            bytes = self.whole_lines(bytes, &mut on_frame);
            if bytes.is_empty() {
                break;
            }
            bytes = self.step(bytes, &mut on_frame);
        }
        // Growth never more than doubles, so this frees what an earlier, longer frame needed and nothing else.
        self.partial.shrink_to(self.partial.len() * 2);
    }

    /// The stream ended in good order: what is left of a line is a message (people pipe `printf` into `nc`), what
    /// is left of a counted frame is a cut one. After a broken connection do not call this: drop the framer.
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

    /// Whether a message has ended if nothing more comes for a while. See [`pause`](Self::pause).
    pub fn may_have_ended(&self) -> bool {
        matches!(self.state, State::MayEnd { ahead, .. } if ahead.len == 0)
    }

    /// Nothing came for a while: a message that may have ended has.
    pub fn pause(&mut self, on_frame: OnFrame<'_>) {
        match self.state {
            State::MayEnd { at, ahead } if ahead.len == 0 => self.end_at(at, on_frame),
            _ => {}
        }
    }

    /// Waits for the end of a frame no longer, because it is too late: hands on what there is of it, cut, and will skip the rest,
    /// unless a message begins with the next bytes. Does nothing while there is nothing but a count, which holds no memory.
    pub fn time_out(&mut self, on_frame: OnFrame<'_>) {
        self.pause(on_frame);
        if let Some(rest) = self.cut(on_frame) {
            self.state = State::Resume { rest, ahead: Ahead::NONE };
        }
    }

    /// Waits for the end of a frame no longer, because there is no memory for it: hands on what there is of it, cut, and will skip
    /// the rest. Does nothing while there is nothing but a count, which holds no memory.
    pub fn give_up(&mut self, on_frame: OnFrame<'_>) {
        if let Some(rest) = self.cut(on_frame) {
            self.state = State::Skip(rest, Cut::Memory);
        }
    }

    /// What is to be told since the last call.
    pub fn take_notes(&mut self) -> Option<Notes> {
        (self.notes != Notes::default()).then(|| std::mem::take(&mut self.notes))
    }

    /// Bytes of memory that an unfinished frame takes.
    pub fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// Whether bytes of a frame were taken that has neither ended nor been handed on cut.
    pub fn unfinished(&self) -> bool {
        match self.state {
            State::Head(_) | State::Line { .. } | State::Counted { .. } => true,
            State::MayEnd { at: PossibleEnd::Nul { skips }, .. } | State::Gap { skips, .. } => skips.is_none(),
            State::MayEnd { .. } => true,
            State::Start | State::Skip(..) | State::Resume { .. } => false,
        }
    }

    /// What most connections send, without a look at states: lines that begin with `<`, lie wholly in `bytes` and have no CR at
    /// their end, once a LF has ended a message. Returns what is behind them.
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

    /// Takes some of the bytes, or decides what they are. Returns what is behind those that were taken.
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

    /// Goes on with a start of which a part came with earlier bytes.
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

    /// Decides what the frame is that begins here: sets the state, and returns how many bytes are its framing. `None`: more bytes
    /// must come.
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

    /// The next byte that ends a line, or may.
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

    /// A message has ended where it may.
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

    /// No message has ended where it might: what was read is text of it.
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
        // None of them ends a line: as text they are, so to speak, behind a LF.
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

    /// Hands on `partial` and `piece` as one frame, if there is anything in it beside CRs at the end of a line.
    fn emit(&mut self, piece: &[u8], framing: FoundBy, on_frame: OnFrame<'_>) {
        self.emit_with(piece, framing, |frame, only_docker| {
            let bytes = without_crs(frame, framing, only_docker);
            if !bytes.is_empty() {
                on_frame(Found { bytes, cut: false, framing });
            }
        });
    }

    /// Hands on `partial` and `piece` as the start of a frame.
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

/// What a NUL means on a connection with this first message: of a container's the whole is text, whatever is in it.
fn nul_behind(first: &[u8]) -> Nul {
    if likeness(first) == Likeness::No { Nul::EndsMessages } else { Nul::IsText }
}

/// Whether a NUL with this behind it ends a message.
fn behind_nul(bytes: &[u8]) -> Look {
    match bytes.first() {
        Some(0) => Look::Yes(1),
        _ => start::pri(bytes),
    }
}

/// A line without the CRs in front of its LF. A terminal of a container writes CR LF: there it belongs to the text, as it does where
/// a count says what does.
fn without_crs(frame: &[u8], framing: FoundBy, only_docker: bool) -> &[u8] {
    let crs = frame.iter().rev().take_while(|byte| **byte == b'\r').count();
    // Most lines have none, and likeness costs as much as all the rest of framing.
    if crs == 0 {
        return frame;
    }
    let stay = framing != FoundBy::Line || crs < frame.len() && (only_docker || likeness(frame) == Likeness::Likely);
    if stay { frame } else { &frame[..frame.len() - crs] }
}
