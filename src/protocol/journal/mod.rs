//! systemd's journal, as `systemd-journal-upload` sends it: the body of `POST /upload` is one entry after the other in the Journal
//! Export Format, and the answer is for all of them. Pure: no socket, no HTTP, no clock, no async.
//!
//! ```text
//! NAME=value LF                               a text on one line
//! NAME LF length (u64, little-endian) value LF   any bytes
//! LF                                          the end of an entry
//! ```
//!
//! What the uploader does (systemd 252 was tried; `src/journal-remote/journal-upload*.c` was read from 252 to 262, but for 257, of which
//! the unit file alone was), and so what a server has to do:
//!
//! - A request has `Content-Type: application/vnd.fdo.journal`, chunks, and `Expect: 100-continue`, without which curl waits for a
//!   second. It ends where the journal ends: a backlog is one request, and a line that is written later is one of its own on the
//!   same connection. Nothing is compressed unless the server offers that or `ForceCompression=` is set; 415 is the answer then.
//! - The answer counts when all of the request has been read. Any 2xx makes the uploader save the cursor of the last entry that it
//!   has *read*. So an early 2xx loses what it has not sent: curl stops in the middle of an entry, and it never comes again.
//! - Any other answer, and a connection that breaks, end the uploader. `Restart=on-failure` starts it again, and all of the request
//!   comes again. It heeds neither the status nor `Retry-After`. The first starts are so close together that the limit of five within
//!   10 s is reached, and it is given up, unless its unit has `StartLimitIntervalSec=0`.
//! - An idle connection that is closed just when the next request begins is such an end too: curl cannot send the start of it again
//!   (systemd issue 38775).
//! - So an entry that is refused stands in the way of all that come behind it. Only what cannot be a journal is [`Refused`]: what is
//!   too large is left out or cut, and a time that is none is kept as text.
//! - A started uploader begins with the entry of its saved cursor, which was answered before. [`Cursors`] know that too.
//!
//! Sources: <https://systemd.io/JOURNAL_EXPORT_FORMATS/>; `src/shared/journal-importer.c`, which is the reader of
//! `systemd-journal-remote`. What uploaders really send is in `tests/corpus-journal`.
//!
//! In reading order:
//!
//! - here: [`Refused`], why something is no journal
//! - `reader`: where an entry ends, and its fields
//! - `record`: an entry as a [`Record`](crate::record::Record)
//! - `cursors`: which entries were taken before
//! - `properties`: what must hold for all bytes

mod cursors;
pub mod properties;
mod reader;
mod record;
#[cfg(test)]
mod tests;

pub use cursors::{Cursor, Cursors, Taken, Upload};
pub use reader::{Entry, ExportReader};
pub use record::Part;

/// The path that entries are posted to.
pub const PATH: &str = "/upload";
pub const CONTENT_TYPE: &str = "application/vnd.fdo.journal";

/// The maximum length of a field's name, in bytes (systemd, `journal_field_valid`).
pub const MAX_NAME: usize = 64;
/// The maximum number of fields of an entry (systemd, `ENTRY_FIELD_COUNT_MAX`).
pub const MAX_FIELDS: usize = 1024;
/// The maximum length of a value, in bytes (systemd, `DATA_SIZE_MAX`).
pub const MAX_VALUE: u64 = 768 << 20;
/// The maximum length of an entry, in bytes (systemd, `ENTRY_SIZE_MAX`).
pub const MAX_ENTRY: u64 = 770 << 20;

/// Why something is no journal. There is no way to find the next entry: the request has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("a line is no field of a journal")]
    BadName,
    #[error("a field is longer than {MAX_VALUE} bytes")]
    LongValue,
    #[error("an entry is longer than {MAX_ENTRY} bytes")]
    LongEntry,
    #[error("an entry has more than {MAX_FIELDS} fields")]
    TooManyFields,
    #[error("the length of a field is not that of its value")]
    BadLength,
    #[error("the request ended inside an entry")]
    Unfinished,
}

impl Refused {
    /// As counters call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadName => "bad-name",
            Self::LongValue => "long-value",
            Self::LongEntry => "long-entry",
            Self::TooManyFields => "too-many-fields",
            Self::BadLength => "bad-length",
            Self::Unfinished => "unfinished",
        }
    }
}
