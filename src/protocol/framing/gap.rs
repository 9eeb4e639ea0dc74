//! Behind a counted frame whose count was wrong: the bytes up to the next `COUNT SP <PRI>`, or a LF, become a line of their own.

use memchr::memchr2;

use super::start::{self, Look};
use super::{Cut, FoundBy, Framer, Nul, OnFrame, State, Tail};

impl Framer {
    /// A counted frame ended, and neither a count nor `<` follows.
    pub(super) fn begin_gap(&mut self, bytes: &[u8]) -> Option<usize> {
        let header = match start::torn_count(bytes) {
            Look::Open => return None,
            Look::Yes(header) => header,
            Look::No => 0,
        };
        self.notes.miscounts += 1;
        self.bare_counts = false;
        self.behind_counted = false;
        self.state = State::Gap { tail: Tail::NONE, skips: None };
        Some(header)
    }

    /// Continues in a gap, up to its end if that is here.
    pub(super) fn gap<'a>(
        &mut self,
        tail: Tail,
        skips: Option<Cut>,
        bytes: &'a [u8],
        on_frame: OnFrame<'_>,
    ) -> &'a [u8] {
        let Some(end) = memchr2(b'\n', b'>', bytes) else {
            self.slide(tail, skips, bytes, on_frame);
            return &[];
        };
        let (piece, behind) = bytes.split_at(end + 1);
        if bytes[end] == b'>' {
            self.slide(tail, skips, piece, on_frame);
            let State::Gap { tail, skips } = self.state else { return behind };
            let Some(start) = start::count_before(tail.get()) else { return behind };
            let (of_gap, count) = tail.get().split_at(start);
            self.keep_of_gap(of_gap, skips, on_frame);
            self.end_gap(on_frame);
            self.take(count, on_frame);
            return behind;
        }
        self.slide(tail, skips, &bytes[..end], on_frame);
        if let State::Gap { tail, skips } = self.state {
            self.keep_of_gap(tail.get(), skips, on_frame);
        }
        self.nul = Nul::IsText;
        self.end_gap(on_frame);
        behind
    }

    fn end_gap(&mut self, on_frame: OnFrame<'_>) {
        if !matches!(self.state, State::Gap { skips: Some(_), .. }) {
            self.emit(&[], FoundBy::Line, on_frame);
        }
        self.state = State::Start;
    }

    /// Takes bytes of a gap, and holds back the last of them.
    fn slide(&mut self, tail: Tail, skips: Option<Cut>, bytes: &[u8], on_frame: OnFrame<'_>) {
        let room = tail.bytes.len();
        let older = (tail.get().len() + bytes.len()).saturating_sub(room);
        let of_tail = older.min(tail.get().len());
        self.state = State::Gap { tail: Tail::NONE, skips };
        self.keep_of_gap(&tail.get()[..of_tail], skips, on_frame);
        let State::Gap { skips, .. } = self.state else { return };
        self.keep_of_gap(&bytes[..older - of_tail], skips, on_frame);
        let State::Gap { skips, .. } = self.state else { return };
        let tail = Tail::of(&tail.get()[of_tail..]).and(&bytes[older - of_tail..]);
        self.state = State::Gap { tail, skips };
    }

    /// Keeps bytes of a gap, or skips them if the gap is too long.
    pub(super) fn keep_of_gap(&mut self, bytes: &[u8], skips: Option<Cut>, on_frame: OnFrame<'_>) {
        let skips = match skips {
            None if bytes.len() <= self.limit - self.partial.len() => {
                self.keep(bytes);
                return;
            }
            None => {
                let capacity = self.limit - self.partial.len();
                self.emit_cut(&bytes[..capacity], FoundBy::Line, on_frame);
                self.notes.skipped.count(bytes.len() - capacity, Cut::Limit);
                Cut::Limit
            }
            Some(why) => {
                self.notes.skipped.count(bytes.len(), why);
                why
            }
        };
        self.state = State::Gap { tail: Tail::NONE, skips: Some(skips) };
    }
}
