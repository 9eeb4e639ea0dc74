//! The handle: what can be changed while the spool is open, for a config that is read again.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::cursor::CursorFile;
use super::log::{Limits, Log};
use super::reader::Reader;
use super::{MIN_BYTES, Position, WhenFull, default_segment_bytes};
use crate::metrics::Metrics;

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
    /// Errors: there is a reader of this name (`AlreadyExists`).
    pub fn add_reader(&self, name: &str, metrics: &Metrics) -> io::Result<Reader> {
        let file = CursorFile::load(&self.log.dir, name, self.log.id);
        let index = self.log.add_cursor(name, file.position(), metrics.forward(name))?;
        Ok(Reader::new(self.log.clone(), (index, name.to_owned()), self.end.clone(), file))
    }

    /// Sets the most all segments together may take, in bytes (64 KiB at least), and what to give up beyond it. Takes
    /// effect with the next lines: a spool that is larger then gives lines up, or takes none, as the policy says.
    pub fn set_limits(&self, max_bytes: u64, when_full: WhenFull) {
        let max_bytes = max_bytes.max(MIN_BYTES);
        let segment_bytes = default_segment_bytes(max_bytes).min(max_bytes / 2);
        self.log.set_limits(Limits { max_bytes, segment_bytes, when_full });
    }
}
