//! Lines that are kept until they are answered, because one may have to be sent again. Decides only.

use std::collections::VecDeque;

use super::send_window;
use crate::forward::filtered_chunk::FilteredChunk;
use crate::spool::Position;

#[derive(Default)]
pub struct Kept {
    chunks: VecDeque<FilteredChunk>,
    /// Bytes of the chunks' lines.
    bytes: usize,
}

impl Kept {
    /// Whether there is room for another chunk. The last chunk may exceed the limit.
    pub fn has_room(&self) -> bool {
        self.bytes < send_window::MAX
    }

    pub fn push(&mut self, lines: FilteredChunk) {
        if !lines.is_empty() {
            self.bytes += lines.byte_len();
            self.chunks.push_back(lines);
        }
    }

    /// Drops chunks that end before the line with this number.
    pub fn let_go(&mut self, next: u64) {
        while let Some(chunk) = self.chunks.front().filter(|chunk| chunk.end().line <= next) {
            self.bytes -= chunk.byte_len();
            self.chunks.pop_front();
        }
    }

    /// The lines from this number on, each with the position behind it.
    pub fn lines_from(&self, first: u64) -> impl Iterator<Item = (&[u8], Position)> {
        self.chunks.iter().flat_map(FilteredChunk::lines).skip_while(move |(_, behind)| behind.line <= first)
    }

    /// The line with this number.
    pub fn line(&self, number: u64) -> Option<&[u8]> {
        let chunk = self.chunks.iter().find(|chunk| number < chunk.end().line)?;
        chunk.lines().find(|(_, behind)| behind.line == number + 1).map(|(line, _)| line)
    }
}
