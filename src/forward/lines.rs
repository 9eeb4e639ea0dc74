//! Where a forward's lines come from: the spool, or the forward's own dead letters, which are sent again. Links treat both alike.

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

    /// The name under which the lines are numbered. A collector is not told the number of a dead letter: a collector that keeps
    /// numbers would take the letter for an old line.
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

    /// A dead letter is retired when the collector's kernel has it. It is not kept any longer, because nothing would tell when to stop.
    pub fn acknowledge(&mut self, up_to: Position) -> u64 {
        match self {
            Self::Spool(reader) => reader.acknowledge(up_to),
            Self::Resent(resend) => resend.retire(up_to),
        }
    }

    pub fn retire_beyond(&mut self, from: Position, up_to: Position) -> u64 {
        match self {
            Self::Spool(reader) => reader.retire_beyond(from, up_to),
            // Connections with dead letters are not kept when they are left.
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
