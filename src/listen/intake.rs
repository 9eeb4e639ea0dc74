//! Where a listener's frames go: translated, gathered into one batch for each read, handed to the spool.
//!
//! STUB: keeps the frames in memory until `syslog` and `spool` are there.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// A frame and whether it was cut.
pub type Frame = (Vec<u8>, bool);

/// Where one listener's frames go: translated, gathered into one batch per read, handed to the spool.
#[derive(Clone)]
pub struct Intake {
    pending: Vec<Frame>,
    taken: Arc<Mutex<Vec<Frame>>>,
}

impl Intake {
    /// An intake that keeps what it was handed, and where to look for it.
    pub fn for_tests() -> (Self, Arc<Mutex<Vec<Frame>>>) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        (Self { pending: Vec::new(), taken: taken.clone() }, taken)
    }

    /// Starts a batch. Reads the clock once: call it once for each read.
    pub fn begin(&mut self) {}

    /// One complete frame, its framing removed (a trailing LF may be there), and whether it was cut.
    pub fn frame(&mut self, bytes: &[u8], cut: bool) {
        self.pending.push((bytes.to_vec(), cut));
    }

    /// Hands the batch over. Waits for room, but not for long.
    pub async fn flush(&mut self) {
        self.flush_blocking();
    }

    /// [`Intake::flush`] for threads of their own.
    pub fn flush_blocking(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).extend(mem::take(&mut self.pending));
    }
}
