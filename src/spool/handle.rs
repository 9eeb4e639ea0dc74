//! The handle: what can be changed while the spool is open, for a config that is read again.

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
use crate::metrics::Metrics;

/// What is read at once to look at one line, in bytes.
const PEEK_BYTES: usize = 4096;
/// Reads that may give nothing but marks before a line.
const MAX_MARKS: usize = 64;

/// Changes an open spool. Clones are the same; the spool stays locked while one is held.
#[derive(Clone)]
pub struct Handle {
    pub(super) log: Arc<Log>,
    pub(super) end: watch::Receiver<Position>,
}

impl Handle {
    /// A reader for one more forward. It begins where its cursor says; without one, at the oldest line there is. One of
    /// a name whose reader was dropped goes on where that one was.
    ///
    /// Waits for the disk where the name is new. A future that is dropped adds none.
    ///
    /// Errors: there is a reader of this name (`AlreadyExists`).
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

    /// Returns when the directory says what readers have said before.
    pub async fn settled(&self) {
        let (done, settled) = oneshot::channel();
        self.log.hand_over(Job::Settle(done));
        // A keeper that is gone settles nothing more.
        let _ = settled.await;
    }

    /// The oldest line that is pending for a forward. `None`: nothing is, or it cannot be read.
    ///
    /// Reads one record from the disk, unless it is still in memory: not for an async task.
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

    /// Where the lines can be watched that are written from now on. It does not keep the spool.
    pub fn tap(&self) -> Tap {
        self.log.tap.clone()
    }

    /// The newest dead letters of a forward, the newest first: `max` at most.
    ///
    /// Reads the end of a file: not for an async task.
    pub fn dead_letters(&self, forward: &str, max: usize) -> io::Result<Vec<DeadLetter>> {
        dead_letters::newest(&self.log.dir, forward, max)
    }

    /// Sets the most all segments together may take, in bytes (64 KiB at least), and what to give up beyond it. A spool that is
    /// larger gives lines up, or takes none, as the policy says: with the next lines, or when it is told to
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
        // Behind a mark, and not in memory.
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
        // Once all have read it, it is on the disk alone.
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
