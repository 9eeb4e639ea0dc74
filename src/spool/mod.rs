//! ROOM 3: lines on their way from the listeners to the collectors, in a directory of append-only files. Every line goes
//! through here, and the room knows nothing about lines but their bytes.
//!
//! # Constraints
//!
//! - A line that was published survives the process; what survives a power cut is the [`Sync`] policy's choice.
//! - After a crash lines may come twice. They are lost only by eviction or by damage, and then they are counted.
//! - The books of each forward balance (`metrics`). Damaged are lines that could not be read any more. Where the newest
//!   segment was damaged before the spool was opened, how many are missing is only known to be at least one for each place,
//!   and so many are counted.
//! - Lines are numbered through the whole life of the spool, and every count is a difference of numbers.
//! - A line never has two numbers: those behind damage are counted back from the next segment's first number, and those
//!   behind damage in the newest segment are moved to a new session when the spool is opened. (Where the disk has no room
//!   for that they are read in place, and may be taken for others by the next relay.)
//! - A line that another relay has numbered is here once, however often it is sent and wherever a crash has cut: see
//!   `ledger`. After damage it may be here twice.
//! - All segments and dead letters together never take more than `max_bytes`, but for the moment between a dead letter and
//!   the next line (on top come damaged segments kept aside, at most four, and dead letters that are being sent again). The dead letters of a forward never take more
//!   than [`dead_letters::MAX_DEAD_LETTER_BYTES`], those of all no more than a quarter of `max_bytes`. The
//!   queue to the writer never more than 8 MiB, what senders wait with never more than 4 MiB, what was just written and is
//!   still in memory never more than 2 MiB, and a line is never longer than [`MAX_LINE`].
//! - No forward waits for the disk but for lines that are on the disk alone, and for a dead letter. Once the spool's threads are
//!   started (one writes, one syncs, one reads, one keeps cursors and dead letters), nothing that readers do blocks.
//! - No damage and no disk keeps the relay from starting or makes it end. A batch waits for the disk only as long as its
//!   sender's patience.
//! - One directory, one relay: a lock sees to it.
//!
//! # Format
//!
//! ```text
//! lock                               held while the spool is open
//! 00000000000000000007.seg           a segment: 64-byte header, then records; `strings` shows the lines
//! 00000000000000000008.seg           the newest one is appended to, the others never change
//! 00000000000000000003.seg.damaged   what was unreadable, kept for a person to look at
//! cursor.central                     how far the forward `central` is
//! dead-letter/central.jsonl          what its collector has refused for good
//! dead-letter/central.resend         what is being sent again of that, and `central.resend-cursor`, how far
//! probe                              there for a moment, when somebody asks whether the spool can be written
//! ```
//!
//! A record is in `record`, the marks between lines in `ledger`, the segment's header in `segment`, the cursor's two slots
//! in `cursor`. The spool's id, 128 random bits, is in every segment and cursor: there is always a segment, so there is
//! always the id, and a cursor that was copied from elsewhere is not believed. Together with a segment's session and a
//! line's number it names a line for good.
//!
//! # Operation
//!
//! Six verbs: [`append`](Writer::append), [read](Reader::next), [`acknowledge`](Reader::acknowledge),
//! [`retire`](Reader::retire), sync and close, the last two of which nobody has to call.
//!
//! Listeners put [`Batch`]es into an [`Inlet`]. The writer's thread takes all that has queued, appends it to the newest
//! segment with one write and publishes the new end. Each forward's [`Reader`] reads up to there. When the collector has
//! lines they are acknowledged by their [`Position`], and when they will not be sent again they are retired: before the one
//! they are *pending*, between the two *replayable*. A segment goes when every forward has retired it, or when the spool is
//! full and its policy is to drop the oldest. Opening cuts off what a crash left unfinished, and begins a new segment:
//! nothing is ever appended to a file that a crash may have touched.
//!
//! Senders that can be made to wait [deliver](Inlet::deliver): their batches are held until there is room, and nothing is
//! given up for them.
//!
//! In reading order: `record`, `batch`, `ledger`, `segment`, `cursor`; `catalog`, where all positions and counts are, with
//! `progress` and `fresh`; `log`, what writer and readers share; `writer` with `inlet`, `fill`, `pace`, `sync`, `hysteresis` and
//! `probe`; `reader` with `read_head` and `keeper`; `resend`, dead letters that are sent again; `open` and `handle`; `tap`, who watches;
//! `home`, the directory and its lock; `inspect`, for people; `properties`, for tests and fuzzing.

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

/// A place between two lines. `line` says which is further; the rest says where to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// Offset in the segment's file, at a record's start or behind the last one.
    pub offset: u64,
    /// The number of the first line not yet passed, counted from the spool's first line ever.
    pub line: u64,
}

/// Where the lines of a batch were numbered before they came here: in another relay's spool. They follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The sender's spool and forward, as it names them: `<spool id, 32 hex digits>/<forward>`.
    pub stream: String,
    /// Each opening of the sender's spool is a session; a line's number is unique within one.
    pub session: u32,
    /// The number of the first line of the batch.
    pub first_line: u64,
    /// What the stream was called before it proved who it is: where nothing is known of the stream, what is known of that
    /// one holds for it.
    pub was: Option<String>,
}

/// What to give up when the spool has reached its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest segment. The lines in it that are pending count as evicted.
    DropOldest,
    /// The lines that come (counted as dropped).
    DropNewest,
}

/// How a spool is to be opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    /// The most all segments together may take, in bytes; at least 64 KiB.
    pub max_bytes: u64,
    /// When a segment is full, in bytes; never more than half of `max_bytes`. Space is given back in such pieces.
    pub segment_bytes: u64,
    pub when_full: WhenFull,
    pub sync: Sync,
    /// Bytes that are written in a second at the most; `None`: as fast as they come.
    pub max_rate: Option<u64>,
    /// The names of the forwards, each of which gets a reader.
    pub forwards: Vec<String>,
    /// Where the spool's id and the numbers of sessions come from. Not from the kernel where a history is to be repeated.
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

/// The least a spool may take: with less, segments would be smaller than a listener's batch.
const MIN_BYTES: u64 = 64 << 10;

/// An eighth of the spool, within 128 KiB to 16 MiB.
fn default_segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 8).clamp(128 << 10, 16 << 20)
}
