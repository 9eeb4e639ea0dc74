//! The framer's properties as functions. They make a unit test, a property test and a fuzz target one line each.

use super::start::{self, Look, MAX_START, Number};
use super::{Cut, Found, FoundBy, Framer, Notes, SMALLEST_LIMIT, Skipped};
use crate::protocol::syslog::{Likeness, likeness};

/// A frame, whether it was cut, and how it ended.
pub type Frame = (Vec<u8>, bool, FoundBy);

/// The result of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub found: Vec<Frame>,
    /// Whether the stream ended inside a frame.
    pub unfinished: bool,
    /// The frames that its clean end adds.
    pub last: Vec<Frame>,
    pub notes: Notes,
}

impl Outcome {
    /// All frames.
    pub fn frames(self) -> Vec<Frame> {
        [self.found, self.last].concat()
    }
}

/// An event on a connection, beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Pause,
    TimeOut,
    GiveUp,
}

fn owned(found: Found<'_>) -> Frame {
    assert!(!found.bytes.is_empty() || found.cut, "an empty frame");
    (found.bytes.to_vec(), found.cut, found.framing)
}

/// The result of a stream that is fed in pieces of the given lengths. The last piece is the rest.
pub fn frames(stream: &[u8], limit: usize, pieces: impl IntoIterator<Item = usize>) -> Outcome {
    frames_with(Framer::new(limit), stream, pieces, &[])
}

/// The same with events: their positions in the stream, in order.
pub(super) fn frames_with(
    mut framer: Framer,
    stream: &[u8],
    pieces: impl IntoIterator<Item = usize>,
    mut events: &[(usize, Event)],
) -> Outcome {
    let mut found = Vec::new();
    let mut rest = stream;
    for piece in pieces.into_iter().chain([usize::MAX]) {
        let mut piece = piece.min(rest.len());
        loop {
            let at = stream.len() - rest.len();
            let here = events.first().filter(|(place, _)| *place <= at + piece);
            let until = here.map_or(piece, |(place, _)| place.saturating_sub(at));
            let (now, later) = rest.split_at(until);
            framer.feed(now, |frame| found.push(owned(frame)));
            (rest, piece) = (later, piece - until);
            assert!(framer.partial.capacity() <= framer.limit, "the partial frame outgrew the limit");
            assert!(framer.unfinished() || framer.partial.capacity() == 0, "memory is held between frames");
            let Some((_, event)) = here else { break };
            events = &events[1..];
            let keep = &mut |frame: Found<'_>| found.push(owned(frame));
            match event {
                Event::Pause => framer.pause(keep),
                Event::TimeOut => framer.time_out(keep),
                Event::GiveUp => framer.give_up(keep),
            }
            assert!(!framer.may_have_ended() || *event == Event::GiveUp, "a pause ends what may have ended");
        }
    }
    let unfinished = framer.unfinished();
    let mut last = Vec::new();
    framer.finish(&mut |frame| last.push(owned(frame)));
    Outcome { found, unfinished, last, notes: framer.take_notes().unwrap_or_default() }
}

/// The frames of a stream, found as directly as possible: all bytes are present, so that no state is needed.
fn by_the_book(stream: &[u8], limit: usize, only_docker: bool) -> Outcome {
    let mut book = Book {
        limit,
        only_docker,
        rest: stream,
        nul_ends: only_docker.then_some(false),
        behind_counted: false,
        bare: false,
        read: Outcome::default(),
    };
    while let Some(first) = book.rest.iter().position(|byte| !matches!(byte, b'\n' | 0)) {
        book.rest = &book.rest[first..];
        if book.next() == Goes::NotOn {
            break;
        }
    }
    book.read
}

#[derive(PartialEq, Eq)]
enum Goes {
    On,
    NotOn,
}

struct Book<'a> {
    limit: usize,
    only_docker: bool,
    rest: &'a [u8],
    /// `None`: not known yet.
    nul_ends: Option<bool>,
    behind_counted: bool,
    bare: bool,
    read: Outcome,
}

impl Book<'_> {
    fn next(&mut self) -> Goes {
        let rest = self.rest;
        let number = if rest[0] == b'<' { Number::No } else { start::number(rest) };
        match number {
            Number::Count { octets, header, .. } => return self.counted(octets, header),
            Number::Bare { octets, header } if self.bare => return self.counted(octets, header),
            Number::Open => return self.unfinished((rest.to_vec(), false, FoundBy::Line)),
            Number::Bare { .. } | Number::No => {}
        }
        if self.behind_counted && rest[0] != b'<' {
            let torn = start::torn_count(rest);
            match (start::pri(rest), torn) {
                (Look::Open, _) | (_, Look::Open) => return self.unfinished((rest.to_vec(), false, FoundBy::Line)),
                (Look::Yes(_), _) => {}
                (Look::No, torn) => {
                    self.rest = if let Look::Yes(torn) = torn { &rest[torn..] } else { rest };
                    return self.gap();
                }
            }
        }
        self.behind_counted = false;
        let announced = match number {
            Number::Bare { octets, header } if header + octets <= self.limit => Some((header, header + octets)),
            _ => None,
        };
        self.line(announced)
    }

    fn unfinished(&mut self, last: Frame) -> Goes {
        self.read.unfinished = true;
        self.read.last.extend(Some(self.trimmed(last)).filter(|(bytes, ..)| !bytes.is_empty()));
        Goes::NotOn
    }

    fn add(&mut self, bytes: &[u8], cut: bool, by: FoundBy) {
        self.nul_ends.get_or_insert_with(|| likeness(bytes) == Likeness::No);
        let frame = self.trimmed((bytes.to_vec(), cut, by));
        self.read.found.extend(Some(frame).filter(|(bytes, ..)| !bytes.is_empty()));
    }

    fn counted(&mut self, octets: usize, header: usize) -> Goes {
        let body = &self.rest[header..];
        let (frame, rest) = body.split_at(octets.min(body.len()));
        self.behind_counted = true;
        self.rest = rest;
        if octets > self.limit && frame.len() >= self.limit {
            self.add(&frame[..self.limit], true, FoundBy::Count);
            self.read.notes.skipped.count(frame.len() - self.limit, Cut::Limit);
        } else if frame.len() == octets {
            self.add(frame, false, FoundBy::Count);
        } else {
            return self.unfinished((frame.to_vec(), true, FoundBy::Count));
        }
        Goes::On
    }

    fn gap(&mut self) -> Goes {
        (self.behind_counted, self.bare) = (false, false);
        self.read.notes.miscounts += 1;
        let rest = self.rest;
        let end = (0..rest.len()).find_map(|at| match rest[at] {
            b'\n' => Some((at, at + 1)),
            b'>' => start::count_before(&rest[..=at]).map(|start| (start, start)),
            _ => None,
        });
        let (text, behind) = end.map_or((rest, &rest[rest.len()..]), |(end, next)| (&rest[..end], &rest[next..]));
        self.rest = behind;
        let is_long = text.len() > self.limit;
        if is_long {
            self.read.notes.skipped.count(text.len() - self.limit, Cut::Limit);
        }
        let kept = &text[..text.len().min(self.limit)];
        // The last bytes may be a count as long as nothing follows them.
        if end.is_none() && text.len().saturating_sub(MAX_START + 1) <= self.limit {
            return self.unfinished((kept.to_vec(), is_long, FoundBy::Line));
        }
        self.add(kept, is_long, FoundBy::Line);
        if end.is_some_and(|(end, next)| end != next) {
            self.nul_ends = Some(false);
        }
        Goes::On
    }

    fn line(&mut self, mut announced: Option<(usize, usize)>) -> Goes {
        let rest = self.rest;
        let mut from = 0;
        let mut is_cut = false;
        loop {
            let ends = |byte: &u8| *byte == b'\n' || *byte == 0 && self.nul_ends != Some(false);
            let end = rest[from..].iter().position(ends).map(|at| from + at);
            let text = end.unwrap_or(rest.len());
            if let Some((header, end)) = announced.filter(|(_, end)| *end <= text) {
                match start::next_number(&rest[end..]) {
                    Look::Yes(_) => {
                        self.add(&rest[header..end], false, FoundBy::Count);
                        (self.rest, self.bare, self.behind_counted) = (&rest[end..], true, true);
                        return Goes::On;
                    }
                    Look::Open if end == rest.len() => {
                        return self.unfinished((rest[header..].to_vec(), false, FoundBy::Count));
                    }
                    Look::Open => return self.open_line(rest),
                    Look::No => announced = None,
                }
            }
            if text > self.limit && !is_cut {
                is_cut = true;
                self.add(&rest[..self.limit], true, FoundBy::Line);
                continue; // Now the meaning of a NUL is known.
            }
            let skipped = |until: usize| until.saturating_sub(self.limit);
            let Some(at) = end else {
                if is_cut {
                    self.read.notes.skipped.count(skipped(rest.len()), Cut::Limit);
                    self.rest = &[];
                    return Goes::NotOn;
                }
                return self.unfinished((rest.to_vec(), false, FoundBy::Line));
            };
            if rest[at] == 0 {
                if !*self.nul_ends.get_or_insert_with(|| likeness(&rest[..at]) == Likeness::No) {
                    continue;
                }
                let behind = &rest[at + 1..];
                match if behind.first() == Some(&0) { Look::Yes(1) } else { start::pri(behind) } {
                    Look::Yes(_) => {}
                    Look::No => {
                        (announced, from) = (None, at + 1);
                        continue;
                    }
                    Look::Open if is_cut => {
                        let until = if behind.is_empty() { at } else { rest.len() };
                        // The possible start of a message is not counted as skipped before the stream ends.
                        self.read.notes.skipped.count(skipped(until), Cut::Limit);
                        return Goes::NotOn;
                    }
                    Look::Open if behind.is_empty() => {
                        return self.unfinished((rest[..at].to_vec(), false, FoundBy::Nul));
                    }
                    Look::Open => return self.open_line(rest),
                }
            }
            if is_cut {
                self.read.notes.skipped.count(skipped(at), Cut::Limit);
            }
            let by = if rest[at] == 0 { FoundBy::Nul } else { FoundBy::Line };
            if by == FoundBy::Line {
                self.nul_ends = Some(false);
            }
            if !is_cut {
                self.add(&rest[..at], false, by);
            }
            self.rest = &rest[at + 1..];
            return Goes::On;
        }
    }

    /// The stream ends at a possible end of a line: the line did not end there.
    fn open_line(&mut self, line: &[u8]) -> Goes {
        let is_long = line.len() > self.limit;
        if is_long {
            self.read.notes.skipped.count(line.len() - self.limit, Cut::Limit);
        }
        self.unfinished((line[..line.len().min(self.limit)].to_vec(), is_long, FoundBy::Line))
    }

    fn trimmed(&self, (mut bytes, cut, by): Frame) -> Frame {
        let text = bytes.iter().rposition(|byte| *byte != b'\r').map_or(0, |at| at + 1);
        let is_docker = || self.only_docker || likeness(&bytes) == Likeness::Likely;
        if by == FoundBy::Line && !cut && (text == 0 || !is_docker()) {
            bytes.truncate(text);
        }
        (bytes, cut, by)
    }
}

/// Panics unless the frames of `stream`, cut into these pieces, are the frames of the whole stream.
pub fn any_cut(stream: &[u8], limit: usize, pieces: &[usize]) {
    let limit = limit.max(SMALLEST_LIMIT);
    for (new, only_docker) in [(Framer::new as fn(usize) -> Framer, false), (Framer::of_docker, true)] {
        assert_eq!(
            frames_with(new(limit), stream, pieces.iter().copied(), &[]),
            by_the_book(stream, limit, only_docker),
            "limit {limit}, only Docker {only_docker}, pieces {pieces:?}, stream {:?}",
            stream.escape_ascii().to_string()
        );
    }
}

/// Panics if cuts between events change the result, if the frames are not consecutive parts of the stream, or if bytes of frames are
/// counted as skipped.
pub fn any_events(stream: &[u8], limit: usize, pieces: &[usize], events: &[(usize, Event)]) {
    let shown = stream.escape_ascii();
    for new in [Framer::new, Framer::of_docker] {
        let whole = frames_with(new(limit), stream, [], events);
        let cut = frames_with(new(limit), stream, pieces.iter().copied(), events);
        assert_eq!(cut, whole, "limit {limit}, pieces {pieces:?}, events {events:?}, stream {shown}");
        let Skipped { limit, timeout, memory } = whole.notes.skipped;
        let mut rest = stream;
        for (bytes, ..) in whole.frames() {
            let at = memchr::memmem::find(rest, &bytes);
            let at = at.unwrap_or_else(|| panic!("{} is no part of {shown}, events {events:?}", bytes.escape_ascii()));
            rest = &rest[at + bytes.len()..];
        }
        let frames: usize = cut.frames().iter().map(|(bytes, ..)| bytes.len()).sum();
        let counted = (limit + timeout + memory) as usize;
        assert!(frames + counted <= stream.len(), "{counted} skipped beside {frames} of {shown}, events {events:?}");
    }
}

/// Checks a stream that `bytes` describe completely: a limit, the number of cuts, an event, its place, the cuts, and the stream.
pub fn any_bytes(data: &[u8]) {
    let [limit, cuts, event, place, rest @ ..] = data else { return };
    let (cuts, stream) = rest.split_at(usize::from(cuts % 16).min(rest.len()));
    let cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut)).collect();
    any_cut(stream, usize::from(*limit), &cuts);
    let event = [Event::Pause, Event::TimeOut, Event::GiveUp][usize::from(event % 3)];
    let place = usize::from(*place);
    let events = [(place / 2, event), (place, Event::TimeOut)];
    let events: Vec<_> = events.into_iter().filter(|(place, _)| *place <= stream.len()).collect();
    any_events(stream, usize::from(*limit), &cuts, &events);
}
