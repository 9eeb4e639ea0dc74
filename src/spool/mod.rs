//! STAGE 3: a persistent queue of lines between the listeners and the collectors, in a directory of append-only files.
//! Every line passes through it. The spool sees lines as bytes, and knows nothing else about them.
//!
//! # Constraints
//!
//! - A published line survives a crash of the process. The [`Sync`] policy decides what survives a power cut.
//! - After a crash lines may be sent twice (at-least-once delivery). Lines are lost only by eviction or by damage, and
//!   the loss is counted.
//! - The books of each forward balance (`metrics`). Lines that can no longer be read count as damaged. If the newest
//!   segment was damaged before the spool was opened, the number of missing lines at each damaged place is unknown and
//!   at least one; one is counted for each place.
//! - Lines are numbered through the whole life of the spool, and every count is a difference of numbers.
//! - A line never has two numbers. Lines behind damage are counted back from the first number of the next segment.
//!   Lines behind damage in the newest segment move to a new session when the spool is opened. (If the disk has no room
//!   for that, they are read in place, and the next relay may take them for other lines.)
//! - A line that another relay has numbered is stored once, however often it is sent and wherever a crash has cut: see
//!   `ledger`. After damage it may be stored twice.
//! - All segments and dead letters together never take more than `max_bytes`, except between a dead letter and the next
//!   line. Two things come on top: damaged segments kept aside (at most four), and dead letters that are being sent
//!   again.
//! - The dead letters of a forward never take more than [`dead_letters::MAX_DEAD_LETTER_BYTES`], and those of all
//!   forwards no more than a quarter of `max_bytes`.
//! - The queue to the writer never takes more than 8 MiB of memory, delivered batches that are not spooled yet no more
//!   than 4 MiB, and the last written batches no more than 2 MiB. A line is never longer than [`MAX_LINE`].
//! - A forward waits for the disk only for lines that are on the disk alone, and for a dead letter. Once the spool's
//!   threads are started (one writes, one syncs, one reads, one keeps cursors and dead letters), no call of a reader
//!   blocks.
//! - Neither damage nor a failing disk keeps the relay from starting, or makes it end. A batch waits for the disk only as long as
//!   its sender's patience.
//! - A directory is used by one relay: a file lock ensures it.
//!
//! # Format
//!
//! ```text
//! lock                               held while the spool is open
//! 00000000000000000007.seg           a segment: 64-byte header, then records; `strings` shows the lines
//! 00000000000000000008.seg           the newest one is appended to, the others never change
//! 00000000000000000003.seg.damaged   a damaged segment, kept for people to inspect
//! cursor.central                     the positions of the forward `central`
//! dead-letter/central.jsonl          the lines that its collector has refused for good
//! dead-letter/central.resend         dead letters that are being sent again, and `central.resend-cursor`, their position
//! probe                              a test file, which exists only while the spool is probed
//! ```
//!
//! The formats are described in the modules: the record in `record`, the marks between lines in `ledger`, the segment's
//! header in `segment`, the cursor's two slots in `cursor`. The spool's id, 128 random bits, is in every segment and
//! cursor. There is always a segment, so there is always the id, and a cursor that was copied from another spool is
//! ignored. The spool's id, a segment's session and a line's number identify a line for good.
//!
//! # Operation
//!
//! Six operations: [`append`](Writer::append), [read](Reader::next), [`acknowledge`](Reader::acknowledge),
//! [`retire`](Reader::retire), sync and close. Sync and close happen by themselves.
//!
//! Listeners put [`Batch`]es into an [`Inlet`]. The writer's thread takes all queued batches, appends them to the
//! newest segment with one write, and publishes the new end. Each forward's [`Reader`] reads up to the published end.
//! Lines that the collector has received are acknowledged by their [`Position`]; lines that will not be sent again are
//! retired. Lines that are not acknowledged are *pending*; lines between the two positions are *replayable*. A segment
//! is removed when every forward has retired it, or when the spool is full and the policy is to drop the oldest.
//! Opening cuts off an unfinished write. The first append then begins a new segment, so nothing is ever appended to a
//! file that a crash may have touched.
//!
//! Senders that can be made to wait [deliver](Inlet::deliver): their batches are held until there is room, and no other
//! line is evicted for them.
//!
//! In reading order: `record`, `batch`, `ledger`, `segment`, `cursor`; `catalog`, with all positions and counts, and
//! its `progress` and `fresh`; `log`, the state that writer and readers share; `writer` with `inlet`, `fill`, `pace`,
//! `sync`, `hysteresis` and `probe`; `reader` with `read_head` and `keeper`; `resend`, dead letters that are sent
//! again; `open` and `handle`; `tap`, for watchers; `home`, the directory and its lock; `inspect`, for people;
//! `properties`, for tests and fuzzing.

mod batch;
mod catalog;
mod cursor;
mod dead_letters;
mod fill;
mod fresh;
mod handle;
mod home;
mod hysteresis;
mod inlet;
mod inspect;
mod keeper;
mod ledger;
mod log;
mod open;
mod pace;
mod probe;
mod progress;
pub mod properties;
mod read_head;
mod reader;
mod record;
mod resend;
mod segment;
mod sync;
mod tap;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

pub use batch::Batch;
pub use dead_letters::{DeadLetter, DeadLetterFile};
pub use handle::Handle;
pub use hysteresis::Hysteresis;
pub use inlet::{Inlet, NotSpooled, Receipt, Refused, Turn};
pub use inspect::{Cursor, HeadFault, InspectError, Inspection, Left, Piece, SegmentFile};
pub use open::{OpenError, Spool};
pub use probe::Prober;
pub use reader::{Chunk, Reader};
pub use record::{MAX_LINE, RECORD_HEADER};
pub use resend::{ResendError, ResendReader, Resends, begin as resend};
pub use sync::Sync;
pub use tap::{Batches, Tap, Watching};
pub use writer::Writer;

/// A place between two lines. `line` gives the order of positions; the other fields say where the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// Offset in the segment's file, at a record's start or behind the last one.
    pub offset: u64,
    /// The number of the line behind the place, counted from the spool's first line ever.
    pub line: u64,
}

/// The numbers that the lines of a batch have in another relay's spool. They are consecutive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The sender's spool and forward, in the sender's words: `<spool id, 32 hex digits>/<forward>`.
    pub stream: String,
    /// Each opening of the sender's spool is a session; a line's number is unique within one.
    pub session: u32,
    /// The number of the first line of the batch.
    pub first_line: u64,
    /// The name of the stream before it proved its identity. As long as the ledger has nothing about the stream, its
    /// entries about the old name apply.
    pub was: Option<String>,
}

/// Which lines to give up when the spool has reached its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest segment. The lines in it that are pending count as evicted.
    DropOldest,
    /// The new lines, which are counted as dropped.
    DropNewest,
}

/// The options for opening a spool.
#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    /// The most that all segments together may take, in bytes; at least 64 KiB.
    pub max_bytes: u64,
    /// The size of a full segment, in bytes; never more than half of `max_bytes`. The spool frees space in whole
    /// segments.
    pub segment_bytes: u64,
    pub when_full: WhenFull,
    pub sync: Sync,
    /// The most bytes that are written in a second; `None`: no limit.
    pub max_rate: Option<u64>,
    /// The names of the forwards, each of which gets a reader.
    pub forwards: Vec<String>,
    /// The source of the spool's id and of the numbers of sessions. A test that repeats a history uses its own.
    pub random: fn() -> u128,
}

impl Options {
    /// The defaults: segments of an eighth of the spool but 128 KiB to 16 MiB, drop the oldest, sync every second.
    pub fn new(dir: impl Into<PathBuf>, max_bytes: u64, forwards: Vec<String>) -> Self {
        Self {
            dir: dir.into(),
            max_bytes,
            segment_bytes: default_segment_bytes(max_bytes),
            when_full: WhenFull::DropOldest,
            sync: Sync::Every(Duration::from_secs(1)),
            max_rate: None,
            forwards,
            random: rand::random,
        }
    }
}

/// The least that a spool may take: with less, a segment would be smaller than a listener's batch.
const MIN_BYTES: u64 = 64 << 10;

/// An eighth of the spool, within 128 KiB to 16 MiB.
fn default_segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 8).clamp(128 << 10, 16 << 20)
}
