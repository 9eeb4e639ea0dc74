//! The handle: changes to an open spool, for a config reload.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::batch::Run;
use super::catalog::Limits;
use super::cursor::CursorFile;
use super::dead_letters::{self, DeadLetter};
use super::keeper::Job;
use super::log::{Log, Oldest};
use super::reader::Reader;
use super::segment;
use super::tap::Tap;
use super::{MIN_BYTES, Position, WhenFull, default_segment_bytes};
use crate::coalescing::Coalescing;
use crate::metrics::Metrics;

/// Bytes per read when looking at one line.
const PEEK_BYTES: usize = 4096;
/// Reads that may find only marks before a line.
const MAX_MARKS: usize = 64;

/// Changes an open spool. Clones share the spool, which stays locked while any of them exists.
#[derive(Clone)]
pub struct Handle {
    pub(super) log: Arc<Log>,
    pub(super) end: watch::Receiver<Position>,
}

impl Handle {
    /// A reader for one more forward. It begins at the forward's cursor, or without one at the oldest line. If the name
    /// had a reader that was dropped, the new reader continues from there.
    ///
    /// Waits for the disk if the name is new. Dropping the future adds no reader.
    ///
    /// Errors: the name has a reader (`AlreadyExists`).
    pub async fn add_reader(&self, name: &str, metrics: &Metrics) -> io::Result<Reader> {
        let file = if self.log.knows(name) {
            None
        } else {
            let (loaded, file) = oneshot::channel();
            self.log.hand_over(Job::Load(name.to_owned(), loaded));
            Some(file.await.map_err(io::Error::other)?)
        };
        let from = file.as_ref().and_then(CursorFile::positions);
        let index = self.log.add_cursor(name, from, metrics.forward(name))?;
        Ok(Reader::new(self.log.clone(), (index, name.to_owned()), self.end.clone(), file))
    }

    /// Returns when the directory has everything that readers have acknowledged, retired and rejected before.
    pub async fn settled(&self) {
        let (done, settled) = oneshot::channel();
        self.log.hand_over(Job::Settle(done));
        // An error: the keeper has ended and writes nothing more.
        let _ = settled.await;
    }

    /// The oldest pending line of a forward. `None`: no line is pending, or the line cannot be read.
    ///
    /// Reads one record from the disk, unless it is still in memory. Do not call it from an async task.
    pub fn oldest_line(&self, forward: &str) -> Option<Vec<u8>> {
        match self.log.oldest(forward)? {
            Oldest::Fresh { batch, offset } => Run::part(&batch, offset, 1).lines().next().map(<[u8]>::to_vec),
            Oldest::Stored { mut at, limit, key } => {
                let file = File::open(segment::path(&self.log.dir, at.segment)).ok()?;
                for _ in 0..MAX_MARKS {
                    let (batch, _) = segment::read(&file, at.offset, limit, PEEK_BYTES, 1, key).ok()?;
                    match (batch.lines().next(), batch.byte_len() as u64) {
                        (Some(line), _) => return Some(line.to_vec()),
                        (None, 0) => return None,
                        (None, marks) => at.offset += marks,
                    }
                }
                None
            }
        }
    }

    /// The tap, for watching lines as they are written. It does not keep the spool open.
    pub fn tap(&self) -> Tap {
        self.log.tap.clone()
    }

    /// How the spool's threads and the runtime gather messages. The latency is zero until it is set.
    pub fn coalescing(&self) -> Coalescing {
        self.log.coalescing.clone()
    }

    /// The newest dead letters of a forward, the newest first: `max` at most.
    ///
    /// Reads the end of a file. Do not call it from an async task.
    pub fn dead_letters(&self, forward: &str, max: usize) -> io::Result<Vec<DeadLetter>> {
        dead_letters::newest(&self.log.dir, forward, max)
    }

    /// Sets the limit of all segments in bytes (64 KiB at least), and the policy beyond it. A spool above the new limit
    /// gives lines up, or takes none, as the policy says. It does so with the next lines, or on
    /// [`fit`](super::Inlet::fit).
    pub fn set_limits(&self, max_bytes: u64, when_full: WhenFull) {
        let max_bytes = max_bytes.max(MIN_BYTES);
        let segment_bytes = default_segment_bytes(max_bytes).min(max_bytes / 2);
        self.log.set_limits(Limits { max_bytes, segment_bytes, when_full });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{Batch, Options, Origin, Spool};

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::new();
        lines.iter().for_each(|line| batch.push(|out| out.extend_from_slice(line.as_bytes())));
        batch
    }

    #[test]
    fn the_oldest_line_is_the_one_at_the_cursor() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(dir.path(), 1 << 20, vec!["central".to_owned(), "slow".to_owned()]);
        let Spool { mut writer, handle, mut readers, .. } = Spool::open(options, &Metrics::new()).unwrap();
        let oldest = |forward| handle.oldest_line(forward).map(|line| String::from_utf8(line).unwrap());
        assert_eq!((oldest("central"), oldest("nobody")), (None, None));
        // The first line is behind a mark.
        let origin = Origin { stream: "elsewhere".to_owned(), session: 1, first_line: 7, was: None };
        drop(writer.deliver(batch(&["first", "second"]), Some(origin)));
        assert_eq!(oldest("central").as_deref(), Some("first"));
        writer.append(&mut [batch(&["third", "fourth"])]);
        for expected in ["second", "third", "fourth"] {
            let chunk = readers[0].next(1).unwrap().expect("a line");
            readers[0].retire(chunk.end);
            assert_eq!(oldest("central").as_deref(), Some(expected));
        }
        let chunk = readers[0].next(1).unwrap().expect("the last line");
        readers[0].retire(chunk.end);
        assert_eq!((oldest("central"), oldest("slow").as_deref()), (None, Some("first")));
        // Now the lines are on the disk alone.
        handle.log.forget_fresh();
        for expected in ["second", "third", "fourth"] {
            let chunk = readers[1].next(1 << 20).unwrap().expect("lines");
            let (_, behind_first) = chunk.lines().next().unwrap();
            readers[1].retire(behind_first);
            readers[1].rewind();
            assert_eq!(oldest("slow").as_deref(), Some(expected));
        }
    }
}
