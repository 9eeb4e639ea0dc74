//! Fluentd's Forward protocol, which Docker's `fluentd` driver, Fluentd, Fluent Bit and their libraries speak. A sender writes msgpack
//! arrays to a stream. The receiver acknowledges each array that asks for an answer. Pure: no socket, no clock, no async.
//!
//! ```text
//! Message                 [tag, time, record, option?]                   one entry
//! Forward                 [tag, [[time, record], …], option?]
//! PackedForward           [tag, str or bin: entries end to end, option?]
//! CompressedPackedForward the same in gzip; option has compressed = "gzip"
//! time                    integer | float | EventTime (ext 0) | [time, metadata] | nil
//! option                  {chunk, size, compressed, fluent_signal, …}    chunk: the sender wants {"ack": chunk}
//! ```
//!
//! Source: Forward-Protocol-Specification-v1 of Fluentd. `tests/corpus-drivers` has recordings of real senders.
//!
//! In reading order:
//!
//! - here: [`Batch`], one array and its entries
//! - `framer`: where an array ends
//! - `msgpack`: values
//! - `time`: the formats of a time
//! - `record`: an entry as a [`Record`](crate::record::Record)
//! - `pieces`: joins the pieces of a message that Docker's driver has split
//! - `handshake`: authentication of senders, where the listener has a shared key
//! - `session`: a connection
//! - `repeated`: recognizes chunks that a sender repeats after a connection broke
//! - `json`: values other than texts, as fields store them
//! - `pack`: lines as chunks; `tag`: the tag of each chunk; `write`: values
//! - `greeting`: the sender's side of the handshake
//! - `answers`: reads the answers of a receiver
//! - `properties`: what must hold for all bytes

mod answers;
mod framer;
mod greeting;
pub mod handshake;
mod json;
mod msgpack;
mod pack;
mod pieces;
pub mod properties;
mod record;
mod repeated;
mod session;
mod tag;
#[cfg(test)]
mod tests;
mod time;
mod write;

use super::inflate::{BadDeflate, Inflater};

pub use answers::{Answers, BadAnswer, acknowledged};
pub use framer::Framer;
pub use greeting::{Credentials, Greeting, NotLetIn, read_hello};
pub use msgpack::{Items, Value};
pub use pack::{ChunkName, Packer};
pub use record::Event;
pub use repeated::UnconfirmedChunks;
pub use session::FluentSession;
pub use tag::TagTemplate;
pub use time::Time;
pub use write::append_str;

/// Estimated bytes of a line beside its tag and the contents of its entry.
const LINE: usize = 256;

/// Why an array is refused. The connection has to end: a sender that gets no answer sends the array again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadFrame {
    #[error("an array of msgpack was expected")]
    NoArray,
    #[error("this is JSON; set the sender to msgpack")]
    Json,
    #[error("the byte 0xc1 is no msgpack")]
    NoMsgpack,
    #[error("arrays and maps are more than {max} deep", max = msgpack::MAX_DEPTH)]
    TooDeep,
    #[error("an array is larger than half of `max-unfinished`; raise that, or let the sender send less at once")]
    TooLarge,
    #[error("a value ends in the middle")]
    Truncated,
    #[error("an array has too few or too many elements for any mode")]
    Elements,
    #[error("a tag is no text")]
    Tag,
    #[error("an option has a wrong type")]
    Option,
    #[error("zstd is not supported; set the sender's compression to gzip")]
    Zstd,
    #[error("the compression is unknown; set the sender's compression to gzip")]
    Compression,
    #[error("the gzip data are damaged")]
    Gzip,
    #[error(
        "inflated, an array is larger than twice `max-unfinished`; raise that, or let the sender send less at once"
    )]
    InflatedTooLarge,
    #[error(
        "as lines, the entries of an array are larger than twice `max-unfinished`; raise that, or let the sender send fewer \
         at once"
    )]
    TooManyEntries,
    #[error("metrics, traces, blobs or profiles are no logs; send logs only")]
    Signal,
}

impl BadFrame {
    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoArray => "no-array",
            Self::Json => "json",
            Self::NoMsgpack => "no-msgpack",
            Self::TooDeep => "depth",
            Self::TooLarge => "size",
            Self::Truncated => "truncated",
            Self::Elements => "elements",
            Self::Tag => "tag",
            Self::Option => "option",
            Self::Zstd => "zstd",
            Self::Compression => "compression",
            Self::Gzip => "gzip",
            Self::InflatedTooLarge => "inflated-size",
            Self::TooManyEntries => "entries",
            Self::Signal => "signal",
        }
    }
}

/// Why an entry is skipped. The entries around it are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEntry {
    /// A time that the protocol does not define.
    Time,
    /// Not a pair of a time and a record.
    Entry,
    /// A record that is not a map.
    Record,
}

impl BadEntry {
    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Entry => "entry",
            Self::Record => "record",
        }
    }

    pub fn why(self) -> &'static str {
        match self {
            Self::Time => "its time is none that the protocol has",
            Self::Entry => "it is no pair of a time and a record",
            Self::Record => "its record is no map",
        }
    }
}

/// The contents of one array: entries of one tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    /// May be any bytes.
    pub tag: &'a [u8],
    /// The name of the chunk to acknowledge, byte for byte.
    pub chunk: Option<&'a [u8]>,
    pub mode: Mode,
    entries: Entries<'a>,
}

/// Limits on the contents of an array, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries, after they are inflated.
    pub inflated: usize,
    /// The lines of all entries.
    pub lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Message,
    Forward,
    PackedForward,
    CompressedPackedForward,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// `None`: the sender gives no time, and the time of arrival counts.
    pub time: Option<Time>,
    record: Items<'a>,
}

/// An entry, or why it is skipped.
type FoundEntry<'a> = Result<Entry<'a>, BadEntry>;

/// The entries of an array, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entries<'a> {
    One(Option<FoundEntry<'a>>),
    List(Items<'a>),
    /// End to end, without an array around them.
    Packed(&'a [u8]),
}

impl<'a> Batch<'a> {
    /// Reads a complete array, as the framer finds it, and checks all of it before any entry is used. Compressed entries are inflated into
    /// `inflated`, and the batch borrows them from there.
    pub fn read(array: &'a [u8], limits: Limits, inflated: &'a mut Vec<u8>) -> Result<Self, BadFrame> {
        let mut items = Items::of_array(array).ok_or(BadFrame::NoArray)?;
        let count = items.left();
        if !(2..=4).contains(&count) {
            return Err(BadFrame::Elements);
        }
        let mut next = || items.next().ok_or(BadFrame::Elements);
        let tag = next()?.text().ok_or(BadFrame::Tag)?;
        let (entries, before) = match next()? {
            Value::Str(entries) | Value::Bin(entries) => (Entries::Packed(entries), 2),
            Value::Array(list) if count == 2 || !is_time(list) => (Entries::List(list), 2),
            time => (Entries::One(Some(Entry::new(time, next()?))), 3),
        };
        let options = match count - before {
            0 => Options::default(),
            1 => Options::read(next()?)?,
            _ => return Err(BadFrame::Elements),
        };
        if !items.bytes().is_empty() {
            return Err(BadFrame::NoArray);
        }
        let (mode, entries) = match entries {
            Entries::One(_) => (Mode::Message, entries),
            Entries::List(_) => (Mode::Forward, entries),
            Entries::Packed(packed) => match options.compressed {
                None | Some(b"text") => (Mode::PackedForward, entries),
                Some(b"gzip") => {
                    (Mode::CompressedPackedForward, Entries::Packed(inflate(packed, limits.inflated, inflated)?))
                }
                Some(b"zstd") => return Err(BadFrame::Zstd),
                Some(_) => return Err(BadFrame::Compression),
            },
        };
        // An estimate without escapes: each line repeats the tag, and an image within the tag.
        entries.check(limits.lines / (LINE + 2 * tag.len()))?;
        Ok(Self { tag, chunk: options.chunk, mode, entries })
    }

    pub fn entries(&self) -> Entries<'a> {
        self.entries
    }
}

impl<'a> Entry<'a> {
    fn new(time: Value<'a>, record: Value<'a>) -> FoundEntry<'a> {
        let Value::Map(record) = record else { return Err(BadEntry::Record) };
        Ok(Self { time: Time::read(time)?, record })
    }

    /// The entry at the start of some bytes, and the bytes behind it. Does not walk over the pair first: that would walk over the record
    /// twice.
    fn read(bytes: &'a [u8]) -> Result<(FoundEntry<'a>, &'a [u8]), BadFrame> {
        let Some(pair) = Items::of_array(bytes).filter(|pair| pair.left() == 2) else {
            let (_, rest) = Value::read(bytes)?;
            return Ok((Err(BadEntry::Entry), rest));
        };
        let (time, rest) = Value::read(pair.bytes())?;
        let (record, rest) = Value::read_within(rest, 1)?;
        Ok((Self::new(time, record), rest))
    }

    /// Keys and values, in order. Nearly every key is a text.
    pub fn pairs(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> + use<'a> {
        let mut items = self.record;
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }
}

impl<'a> Entries<'a> {
    /// Checks that all entries can be read, bad ones too, and that there are at most `max + 1`.
    fn check(self, max: usize) -> Result<(), BadFrame> {
        let (mut count, mut packed) = match self {
            Self::One(_) => (1, &[][..]),
            // The entries are well-formed because their array is.
            Self::List(list) => (list.left(), &[][..]),
            Self::Packed(packed) => (0, packed),
        };
        while !packed.is_empty() && count <= max as u64 + 1 {
            packed = match Value::skip(packed) {
                Some(rest) => rest,
                None => Entry::read(packed)?.1,
            };
            count += 1;
        }
        if count > max as u64 + 1 { Err(BadFrame::TooManyEntries) } else { Ok(()) }
    }

    fn read_next(&mut self) -> Result<Option<FoundEntry<'a>>, BadFrame> {
        match self {
            Self::One(entry) => Ok(entry.take()),
            Self::List(list) if list.left() == 0 => Ok(None),
            Self::List(list) => {
                let (entry, rest) = Entry::read(list.bytes())?;
                *list = Items::from_bytes(rest, list.left() - 1);
                Ok(Some(entry))
            }
            Self::Packed([]) => Ok(None),
            Self::Packed(packed) => {
                let (entry, rest) = Entry::read(packed)?;
                *packed = rest;
                Ok(Some(entry))
            }
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = FoundEntry<'a>;

    /// Every entry was read once, in [`Batch::read`].
    fn next(&mut self) -> Option<FoundEntry<'a>> {
        self.read_next().ok().flatten()
    }
}

/// Whether an array in the place of a time is Fluent Bit's [time, metadata]. Any other array is a list of entries.
fn is_time(mut array: Items<'_>) -> bool {
    array.left() == 2 && array.all(|item| !matches!(item, Value::Array(_)))
}

/// The options that a receiver acts on. `size` is not among them: it is a hint, and may be wrong.
#[derive(Default)]
struct Options<'a> {
    chunk: Option<&'a [u8]>,
    compressed: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn read(value: Value<'a>) -> Result<Self, BadFrame> {
        let mut items = match value {
            Value::Map(items) => items,
            Value::Nil => return Ok(Self::default()),
            _ => return Err(BadFrame::Option),
        };
        let mut options = Self::default();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            let text = || value.text().ok_or(BadFrame::Option).map(Some);
            match (key.text(), value) {
                (_, Value::Nil) => {}
                (Some(b"chunk"), _) => options.chunk = text()?,
                (Some(b"compressed"), _) => options.compressed = text()?,
                (Some(b"fluent_signal"), Value::Int(0)) => {}
                (Some(b"fluent_signal"), Value::Int(_)) => return Err(BadFrame::Signal),
                (Some(b"fluent_signal"), _) => return Err(BadFrame::Option),
                _ => {}
            }
        }
        Ok(options)
    }
}

/// Inflates one or several gzip members: Fluentd appends member by member.
fn inflate<'a>(members: &[u8], limit: usize, out: &'a mut Vec<u8>) -> Result<&'a [u8], BadFrame> {
    *out = Inflater::default().gzip(members, limit).map_err(|why| match why {
        BadDeflate::Damaged => BadFrame::Gzip,
        BadDeflate::TooLong => BadFrame::InflatedTooLarge,
    })?;
    Ok(out)
}

/// Appends the answer for a chunk, `{"ack": chunk}`, to be sent in one write. The chunk is a str: Fluent Bit accepts no bin.
pub fn append_ack(chunk: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\x81\xa3ack");
    append_str(chunk, out);
}
