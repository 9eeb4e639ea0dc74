//! systemd's journal, as `systemd-journal-upload` sends it: the body of `POST /upload` is a series of entries in the Journal Export Format,
//! and one answer is for all of them. Pure: no socket, no HTTP, no clock, no async.
//!
//! ```text
//! NAME=value LF                               a text on one line
//! NAME LF length (u64, little-endian) value LF   any bytes
//! LF                                          the end of an entry
//! ```
//!
//! How the uploader behaves, and so what a server has to do (systemd 252 was tested; `src/journal-remote/journal-upload*.c` was read from
//! 252 to 262. The exception is 257, of which only the unit file was read):
//!
//! - A request has `Content-Type: application/vnd.fdo.journal`, chunks, and `Expect: 100-continue`. Without a `100 Continue`, curl waits
//!   for a second. The request ends where the journal ends: a backlog is one request, and a line that is written later is a request of its
//!   own on the same connection. The uploader compresses only if the server offers that or `ForceCompression=` is set; such a request is
//!   answered with 415.
//! - The answer takes effect when the complete request has been read. Any 2xx makes the uploader save the cursor of the last entry that it
//!   has *read*. So an early 2xx loses the entries that it has not sent: curl stops in the middle of an entry, and that entry is never sent
//!   again.
//! - Any other answer ends the uploader, and so does a broken connection. `Restart=on-failure` starts it again, and the whole request comes
//!   again. The uploader ignores both the status and `Retry-After`. The first restarts follow each other so closely that they reach
//!   systemd's limit of five within 10 s. Then systemd gives up, unless the unit has `StartLimitIntervalSec=0`.
//! - An idle connection that the server closes just when the next request begins has the same effect: curl cannot send the start of the
//!   request again (systemd issue 38775).
//! - So a refused entry blocks all entries behind it. For that reason only bytes that cannot be a journal are [`Refused`]: a field that is
//!   too large is left out or cut, and an invalid time is kept as text.
//! - An uploader that starts begins with the entry of its saved cursor, which was answered before. [`Cursors`] recognize that entry too.
//!
//! Sources: <https://systemd.io/JOURNAL_EXPORT_FORMATS/>; `src/shared/journal-importer.c`, the reader of `systemd-journal-remote`.
//! `tests/corpus-journal` has recordings of real uploaders.
//!
//! In reading order:
//!
//! - here: [`Refused`], why bytes are not a journal
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

/// Why bytes are not a journal. There is no way to find the next entry: the request has to end.
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
    /// The name in counters.
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
