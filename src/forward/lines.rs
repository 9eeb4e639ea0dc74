//! Where a forward's lines are from: the spool, or its own dead letters, which are sent again. For links they are the same.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::delivery::Rejected;
use super::filtered_chunk::FilteredChunk;
use crate::protocol::relp::{Numbering, Prover};
use crate::shape::Shape;
use crate::spool::{Position, Reader, ResendReader};

pub enum Lines {
    Spool(Reader),
    Resent(Box<ResendReader>),
}

impl Lines {
    pub fn next(&mut self, max_bytes: usize, shape: &Shape) -> io::Result<Option<FilteredChunk>> {
        Ok(match self {
            Self::Spool(reader) => reader.next(max_bytes)?.map(|chunk| FilteredChunk::new(chunk, shape)),
            Self::Resent(resend) => {
                resend.next(max_bytes)?.map(|(chunk, ids)| FilteredChunk::resent(chunk, ids, shape))
            }
        })
    }

    pub async fn wait(&mut self) -> bool {
        match self {
            Self::Spool(reader) => reader.wait().await,
            Self::Resent(resend) => resend.wait().await,
        }
    }

    pub fn is_reading(&self) -> bool {
        match self {
            Self::Spool(reader) => reader.is_reading(),
            Self::Resent(resend) => resend.is_reading(),
        }
    }

    /// The name under which the lines are numbered. To a collector that keeps numbers a dead letter's would be an old one.
    pub fn numbering(&self) -> Numbering {
        match self {
            Self::Spool(reader) => {
                let prover = reader.identity().map(|identity| -> Arc<dyn Prover> { identity });
                Numbering { stream: reader.stream(), prover, is_told: true }
            }
            Self::Resent(resend) => Numbering { stream: resend.stream(), prover: None, is_told: false },
        }
    }

    pub fn retire(&mut self, up_to: Position) -> u64 {
        match self {
            Self::Spool(reader) => reader.retire(up_to),
            Self::Resent(resend) => resend.retire(up_to),
        }
    }

    /// What a collector's kernel has is enough for a dead letter: nobody would know when it is to be kept no longer.
    pub fn acknowledge(&mut self, up_to: Position) -> u64 {
        match self {
            Self::Spool(reader) => reader.acknowledge(up_to),
            Self::Resent(resend) => resend.retire(up_to),
        }
    }

    pub fn retire_beyond(&mut self, from: Position, up_to: Position) -> u64 {
        match self {
            Self::Spool(reader) => reader.retire_beyond(from, up_to),
            // No connection of theirs is kept when it is left.
            Self::Resent(_) => 0,
        }
    }

    pub fn note_filtered(&self, lines: &[Range<u64>]) {
        if let Self::Spool(reader) = self {
            reader.note_filtered(lines);
        }
    }

    pub async fn reject(&mut self, Rejected { session, line, why, bytes, .. }: &Rejected) -> io::Result<()> {
        match self {
            Self::Spool(reader) => reader.reject((*session, *line), why, bytes).await,
            Self::Resent(resend) => resend.reject(*line, why).await,
        }
    }

    pub fn rewind_to(&mut self, to: Option<Position>) {
        match self {
            Self::Spool(reader) => drop(reader.rewind_to(to)),
            Self::Resent(resend) => resend.rewind(),
        }
    }

    pub fn acknowledged(&self) -> Position {
        match self {
            Self::Spool(reader) => reader.acknowledged(),
            Self::Resent(resend) => resend.position(),
        }
    }

    pub fn pending(&self) -> u64 {
        match self {
            Self::Spool(reader) => reader.pending(),
            Self::Resent(resend) => resend.remaining(),
        }
    }

    pub fn replayable(&self) -> u64 {
        match self {
            Self::Spool(reader) => reader.replayable(),
            Self::Resent(_) => 0,
        }
    }

    pub fn are_resent(&self) -> bool {
        matches!(self, Self::Resent(_))
    }
}
