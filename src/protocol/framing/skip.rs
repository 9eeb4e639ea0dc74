//! Frames that are passed on cut: cutting them, skipping their rest, and finding the next message behind it.

use super::start::{self, Look};
use super::{Ahead, Cut, FoundBy, Framer, Nul, OnFrame, PossibleEnd, Rest, State, Tail, behind_nul};

impl Framer {
    /// Continues behind the start of a frame that was passed on cut.
    pub(super) fn skip<'a>(&mut self, rest: Rest, why: Cut, bytes: &'a [u8]) -> &'a [u8] {
        match rest {
            Rest::Line => self.skip_line(why, bytes),
            Rest::Gap => {
                self.state = State::Gap { tail: Tail::NONE, skips: Some(why) };
                bytes
            }
            Rest::Octets(left) => {
                let skipped = (left as usize).min(bytes.len());
                self.notes.skipped.count(skipped, why);
                self.state = match left - skipped as u32 {
                    0 => State::Start,
                    left => State::Skip(Rest::Octets(left), why),
                };
                &bytes[skipped..]
            }
        }
    }

    fn skip_line<'a>(&mut self, why: Cut, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = self.find_end(bytes) else {
            self.notes.skipped.count(bytes.len(), why);
            return &[];
        };
        self.notes.skipped.count(end, why);
        let behind = &bytes[end + 1..];
        if bytes[end] == b'\n' {
            self.nul = Nul::IsText;
            self.state = State::Start;
            return behind;
        }
        match behind_nul(behind) {
            Look::Yes(_) => self.state = State::Start,
            Look::No => self.notes.skipped.count(1, why),
            Look::Open => {
                let at = PossibleEnd::Nul { skips: Some(why) };
                self.state = State::MayEnd { at, ahead: Ahead::of(behind) };
                return &[];
            }
        }
        behind
    }

    /// Takes the first bytes behind a frame whose end did not come in time.
    pub(super) fn resume<'a>(&mut self, rest: Rest, ahead: Ahead, bytes: &'a [u8], on_frame: OnFrame<'_>) -> &'a [u8] {
        let joined = ahead.and(bytes);
        self.state = match start::message(joined.get()) {
            Look::Open => {
                self.state = State::Resume { rest, ahead: joined };
                return &bytes[joined.get().len() - ahead.get().len()..];
            }
            Look::Yes(_) => {
                self.behind_counted = false;
                State::Start
            }
            Look::No => State::Skip(rest, Cut::Timeout),
        };
        self.take(ahead.get(), on_frame);
        bytes
    }

    /// Passes on an unfinished frame so far, cut. Returns the rest of it that is still to come; `None`: there is no such frame.
    pub(super) fn cut(&mut self, on_frame: OnFrame<'_>) -> Option<Rest> {
        if !self.unfinished() {
            return None;
        }
        self.not_ended(on_frame);
        let (rest, framing) = match self.state {
            State::Line { .. } => (Rest::Line, FoundBy::Line),
            State::Gap { tail, skips: None } => {
                self.keep_of_gap(tail.get(), None, on_frame);
                if matches!(self.state, State::Gap { skips: Some(_), .. }) {
                    self.partial = Vec::new();
                    return None;
                }
                (Rest::Gap, FoundBy::Line)
            }
            State::Counted { left } if !self.partial.is_empty() => {
                self.behind_counted = true;
                (Rest::Octets(left), FoundBy::Count)
            }
            _ => return None,
        };
        self.emit_cut(&[], framing, on_frame);
        self.partial = Vec::new();
        Some(rest)
    }
}
