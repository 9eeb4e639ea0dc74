//! Finds where a line of `/raw` ends: with LF, with CR and LF, or with the body. Empty lines are ignored.

use memchr::memchr;

use crate::protocol::held::hold;

/// Finds lines. Only an incomplete line is copied. A line that is longer than the limit is cut.
#[derive(Debug)]
pub(super) struct Lines {
    /// The maximum length of a line in bytes.
    limit: usize,
    /// The start of a line; `begun.len() <= limit`.
    begun: Vec<u8>,
    /// The line is longer than the limit.
    is_cut: bool,
}

impl Lines {
    pub fn new(limit: usize) -> Self {
        Self { limit, begun: Vec::new(), is_cut: false }
    }

    /// Passes each line that ends in `bytes` to `take`, and whether it was cut.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8], bool)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.begun.is_empty() && line.len() <= self.limit {
                hand_on(line, false, &mut take);
            } else {
                self.keep(line);
                self.finish(&mut take);
            }
        }
        self.keep(bytes);
    }

    /// Ends the body.
    pub fn finish(&mut self, take: impl FnMut(&[u8], bool)) {
        hand_on(&self.begun, self.is_cut, take);
        self.begun.clear();
        self.is_cut = false;
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.begun.capacity()
    }

    fn keep(&mut self, piece: &[u8]) {
        let kept = piece.len().min(self.limit - self.begun.len());
        self.is_cut |= kept < piece.len();
        hold(&mut self.begun, &piece[..kept], self.limit);
    }
}

fn hand_on(line: &[u8], is_cut: bool, mut take: impl FnMut(&[u8], bool)) {
    let line = if is_cut { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
    if !line.is_empty() {
        take(line, is_cut);
    }
}
