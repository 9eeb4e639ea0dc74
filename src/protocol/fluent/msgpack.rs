//! A reader for the part of msgpack (spec.md of msgpack/msgpack) that the Forward protocol needs: heads of values, values borrowed from
//! their bytes, and where a value ends in a stream.
//!
//! This reader is our own because a stream may be cut anywhere: [`Walk`] continues in the middle of a head and never recurses. `rmp` reads
//! a head only from complete bytes, so that a second table of heads would be needed beside it.

use super::BadFrame;

/// The maximum depth of arrays and maps, including the outermost.
pub const MAX_DEPTH: usize = 32;
/// The longest head in bytes: a type, and a length of 32 bits.
const LONGEST_HEAD: usize = 5;

/// One value. Texts are bytes: the specification says that a str is UTF-8, but senders do not keep to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Nil,
    Bool(bool),
    /// `-2^63 <= number < 2^64`
    Int(i128),
    Float(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Array(Items<'a>),
    /// Its items alternate: a key, its value, and so on.
    Map(Items<'a>),
    Ext(i8, &'a [u8]),
}

/// The values of an array or a map that is well-formed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Items<'a> {
    rest: &'a [u8],
    /// The number of values in `rest`.
    count: u64,
}

/// The head of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Head {
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// Lengths in bytes.
    Str(u32),
    Bin(u32),
    Ext(i8, u32),
    /// Counts of values; a map has two for each key.
    Array(u64),
    Map(u64),
}

/// The part of a head that tells where the value ends.
#[derive(Clone, Copy)]
struct Extent {
    /// Bytes of the head: the type, and a length or count.
    head: usize,
    /// Bytes behind the head: of a number, a text, or an ext with its type.
    text: u64,
    /// Values behind the head; a map has two for each key.
    items: u64,
}

/// The way through one value whose bytes arrive in pieces. It holds only the bytes of a head that was cut.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The number of values missing in each array and map around the next value.
    open: [u64; MAX_DEPTH],
    /// `0 <= depth <= max_depth <= MAX_DEPTH`
    depth: usize,
    max_depth: usize,
    /// The minimum number of missing bytes: one for each value that has not begun, and the rest of a text. 0: the value is complete.
    owed: u64,
    /// The rest of a text; `text <= owed`.
    text: u64,
    /// The maximum number of bytes that the value may still take.
    room: u64,
    head: [u8; LONGEST_HEAD],
    /// Bytes of a head that was cut; `head_len < LONGEST_HEAD`.
    head_len: usize,
}

impl Walk {
    /// `limit`: the maximum bytes of the value.
    pub fn new(limit: usize) -> Self {
        Self {
            open: [0; MAX_DEPTH],
            depth: 0,
            max_depth: MAX_DEPTH,
            owed: 1,
            text: 0,
            room: limit as u64,
            head: [0; LONGEST_HEAD],
            head_len: 0,
        }
    }

    /// Continues with the next bytes. `Some`: the value ends before that byte. `None`: all bytes belong to the value, and more are missing.
    pub fn over(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
        // Nearly always the complete value is present.
        if self.depth == 0
            && (self.owed, self.text, self.head_len) == (1, 0, 0)
            && let Some(end) = over_whole(bytes, 0, 1, self.max_depth)
            && end as u64 <= self.room
        {
            (self.owed, self.room) = (0, self.room - end as u64);
            return Ok(Some(end));
        }
        let mut at = 0;
        loop {
            let text = self.text.min((bytes.len() - at) as u64);
            self.text -= text;
            self.owed -= text;
            self.room -= text;
            at += text as usize;
            if self.owed == 0 {
                return Ok(Some(at));
            }
            at += self.over_short_texts(&bytes[at..]);
            if at == bytes.len() {
                return Ok(None);
            }
            let extent = match self.head_len {
                0 => match Extent::read(&bytes[at..])? {
                    Some(extent) => {
                        at += extent.head;
                        extent
                    }
                    None => {
                        let cut = &bytes[at..];
                        self.head[..cut.len()].copy_from_slice(cut);
                        self.head_len = cut.len();
                        return self.has_room_for_head().map(|()| None);
                    }
                },
                held => {
                    self.head[held] = bytes[at];
                    self.head_len += 1;
                    at += 1;
                    let Some(whole) = Extent::read(&self.head[..self.head_len])? else {
                        self.has_room_for_head()?;
                        continue;
                    };
                    self.head_len = 0;
                    whole
                }
            };
            self.begin(extent)?;
        }
    }

    /// Walks over short texts that are complete and not the last value of an array or a map: nearly all keys and values of containers.
    /// Returns their length in bytes.
    #[inline]
    fn over_short_texts(&mut self, bytes: &[u8]) -> usize {
        let Some(open) = self.depth.checked_sub(1).map(|depth| &mut self.open[depth]) else { return 0 };
        let mut at = 0;
        while *open > 1 && self.head_len == 0 {
            let len = match bytes[at..] {
                [first @ 0xa0..=0xbf, ..] => 1 + usize::from(first & 31),
                [0xd9, len, ..] => 2 + usize::from(len),
                _ => break,
            };
            if len > bytes.len() - at || self.owed - 1 + len as u64 > self.room {
                break;
            }
            at += len;
            *open -= 1;
            self.owed -= 1;
            self.room -= len as u64;
        }
        at
    }

    /// A cut head takes at least one byte more than it has. Each value owed behind it takes at least one.
    fn has_room_for_head(&self) -> Result<(), BadFrame> {
        if self.head_len as u64 + self.owed > self.room { Err(BadFrame::TooLarge) } else { Ok(()) }
    }

    /// A declared length or count that exceeds the limit is refused here, without waiting for the bytes.
    #[inline]
    fn begin(&mut self, Extent { head, text, items }: Extent) -> Result<(), BadFrame> {
        let len = head as u64;
        self.owed = self.owed - 1 + text + items;
        if len > self.room || self.owed > self.room - len {
            return Err(BadFrame::TooLarge);
        }
        self.room -= len;
        self.text = text;
        if let Some(open) = self.depth.checked_sub(1) {
            self.open[open] -= 1;
        }
        if items > 0 {
            if self.depth == self.max_depth {
                return Err(BadFrame::TooDeep);
            }
            self.open[self.depth] = items;
            self.depth += 1;
        }
        while self.depth > 0 && self.open[self.depth - 1] == 0 {
            self.depth -= 1;
        }
        Ok(())
    }
}

/// Where so many complete values end, from a position in some bytes on. `None`: something is missing or wrong, and [`Walk`] finds out what.
fn over_whole(bytes: &[u8], mut at: usize, values: u64, max_depth: usize) -> Option<usize> {
    for _ in 0..values {
        let first = *bytes.get(at)?;
        at += match LENGTHS[usize::from(first)] {
            0 if first == 0xd9 => 2 + usize::from(*bytes.get(at + 1)?),
            0 => {
                let Extent { head, text, items } = Extent::read(&bytes[at..]).ok()??;
                if items > 0 {
                    at = over_whole(bytes, at + head, items, max_depth.checked_sub(1)?)?;
                    continue;
                }
                head.checked_add(usize::try_from(text).ok()?)?
            }
            len => usize::from(len),
        };
    }
    (at <= bytes.len()).then_some(at)
}

/// The lengths of values by their first byte; 0 where that byte does not tell.
const LENGTHS: [u8; 256] = {
    let mut lengths = [1; 256];
    let mut first = 0x80;
    while first < 0xe0 {
        lengths[first] = match first {
            0xa0..=0xbf => 1 + (first as u8 & 31),
            0xc0 | 0xc2 | 0xc3 => 1,
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            0xd4..=0xd8 => 2 + (1 << (first - 0xd4)),
            _ => 0,
        };
        first += 1;
    }
    lengths
};

impl Extent {
    /// The extent of the value at the start of some bytes. `None`: its head is cut.
    #[inline]
    fn read(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let fixed = |text| (1, text, 0);
        let u8 = || rest.first().map(|len| u64::from(*len));
        let u16 = || rest.first_chunk().map(|len| u64::from(u16::from_be_bytes(*len)));
        let u32 = || rest.first_chunk().map(|len| u64::from(u32::from_be_bytes(*len)));
        let extent = match first {
            0xa0..=0xbf => Some(fixed(u64::from(first & 31))),
            0x80..=0x8f => Some((1, 0, u64::from(first & 15) * 2)),
            0x90..=0x9f => Some((1, 0, u64::from(first & 15))),
            0xc1 => return Err(BadFrame::NoMsgpack),
            0xc4 | 0xd9 => u8().map(|len| (2, len, 0)),
            0xc5 | 0xda => u16().map(|len| (3, len, 0)),
            0xc6 | 0xdb => u32().map(|len| (5, len, 0)),
            0xc7 => u8().map(|len| (2, len + 1, 0)),
            0xc8 => u16().map(|len| (3, len + 1, 0)),
            0xc9 => u32().map(|len| (5, len + 1, 0)),
            0xcc | 0xd0 => Some(fixed(1)),
            0xcd | 0xd1 => Some(fixed(2)),
            0xca | 0xce | 0xd2 => Some(fixed(4)),
            0xcb | 0xcf | 0xd3 => Some(fixed(8)),
            0xd4..=0xd8 => Some(fixed(1 + (1 << (first - 0xd4)))),
            0xdc => u16().map(|items| (3, 0, items)),
            0xdd => u32().map(|items| (5, 0, items)),
            0xde => u16().map(|pairs| (3, 0, pairs * 2)),
            0xdf => u32().map(|pairs| (5, 0, pairs * 2)),
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Some(fixed(0)),
        };
        Ok(extent.map(|(head, text, items)| Self { head, text, items }))
    }
}

impl Head {
    /// The head at the start of some bytes, and its length. `None`: the head is cut.
    #[inline]
    fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, BadFrame> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let short = match first {
            0x00..=0x7f => Self::Int(i128::from(first)),
            0x80..=0x8f => Self::Map(u64::from(first & 15) * 2),
            0x90..=0x9f => Self::Array(u64::from(first & 15)),
            0xa0..=0xbf => Self::Str(u32::from(first & 31)),
            0xc0 => Self::Nil,
            0xc1 => return Err(BadFrame::NoMsgpack),
            0xc2 | 0xc3 => Self::Bool(first == 0xc3),
            0xe0..=0xff => Self::Int(i128::from(first as i8)),
            _ => return Ok(Self::long(first, rest)),
        };
        Ok(Some((short, 1)))
    }

    /// A head with a first byte of 0xc4 to 0xdf, which has a number or a type behind it.
    fn long(first: u8, rest: &[u8]) -> Option<(Self, usize)> {
        let u8 = || Some(u32::from(*rest.first()?));
        let u16 = || Some(u32::from(u16::from_be_bytes(*rest.first_chunk()?)));
        let u32 = || Some(u32::from_be_bytes(*rest.first_chunk()?));
        let u64 = || Some(u64::from_be_bytes(*rest.first_chunk()?));
        let kind = |at: usize| Some(*rest.get(at)? as i8);
        Some(match first {
            0xc4 => (Self::Bin(u8()?), 2),
            0xc5 => (Self::Bin(u16()?), 3),
            0xc6 => (Self::Bin(u32()?), 5),
            0xc7 => (Self::Ext(kind(1)?, u8()?), 3),
            0xc8 => (Self::Ext(kind(2)?, u16()?), 4),
            0xc9 => (Self::Ext(kind(4)?, u32()?), 6),
            0xca => (Self::Float(f32::from_bits(u32()?).into()), 5),
            0xcb => (Self::Float(f64::from_bits(u64()?)), 9),
            0xcc => (Self::Int(u8()?.into()), 2),
            0xcd => (Self::Int(u16()?.into()), 3),
            0xce => (Self::Int(u32()?.into()), 5),
            0xcf => (Self::Int(u64()?.into()), 9),
            0xd0 => (Self::Int((u8()? as i8).into()), 2),
            0xd1 => (Self::Int((u16()? as i16).into()), 3),
            0xd2 => (Self::Int((u32()? as i32).into()), 5),
            0xd3 => (Self::Int((u64()? as i64).into()), 9),
            0xd4..=0xd8 => (Self::Ext(kind(0)?, 1 << (first - 0xd4)), 2),
            0xd9 => (Self::Str(u8()?), 2),
            0xda => (Self::Str(u16()?), 3),
            0xdb => (Self::Str(u32()?), 5),
            0xdc => (Self::Array(u16()?.into()), 3),
            0xdd => (Self::Array(u32()?.into()), 5),
            0xde => (Self::Map(u64::from(u16()?) * 2), 3),
            _ => (Self::Map(u64::from(u32()?) * 2), 5),
        })
    }
}

impl<'a> Value<'a> {
    /// The value at the start of some bytes, and the bytes behind it.
    #[inline(always)]
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BadFrame> {
        // Nearly all keys and values of containers are short texts.
        let text = match bytes {
            [first @ 0xa0..=0xbf, rest @ ..] => rest.split_at_checked(usize::from(first & 31)),
            [0xd9, len, rest @ ..] => rest.split_at_checked(usize::from(*len)),
            _ => return Self::read_within(bytes, 0),
        };
        text.map(|(text, rest)| (Self::Str(text), rest)).ok_or(BadFrame::Truncated)
    }

    /// The bytes behind the value at the start of some bytes. `None`: the value is not well-formed, or incomplete.
    pub fn skip(bytes: &'a [u8]) -> Option<&'a [u8]> {
        over_whole(bytes, 0, 1, MAX_DEPTH).map(|end| &bytes[end..])
    }

    /// Reads a value that stands within so many arrays and maps, as [`read`](Self::read) does.
    pub fn read_within(bytes: &'a [u8], around: usize) -> Result<(Self, &'a [u8]), BadFrame> {
        // EventTime: nearly all entries have one.
        if let [0xd7, kind, behind @ ..] = bytes
            && let Some((text, rest)) = behind.split_at_checked(8)
        {
            return Ok((Self::Ext(*kind as i8, text), rest));
        }
        let (head, len) = Head::read(bytes)?.ok_or(BadFrame::Truncated)?;
        let rest = &bytes[len..];
        let text = |len: u32| rest.split_at_checked(len as usize).ok_or(BadFrame::Truncated);
        let items = |count: u64| {
            if let Some(end) = over_whole(bytes, len, count, (MAX_DEPTH - around).saturating_sub(1))
                && around < MAX_DEPTH
            {
                return Ok((Items { rest: &bytes[len..end], count }, &bytes[end..]));
            }
            let mut walk = Walk { max_depth: MAX_DEPTH - around, ..Walk::new(bytes.len()) };
            let walked = walk.over(bytes).map_err(|bad| match bad {
                BadFrame::TooLarge => BadFrame::Truncated,
                bad => bad,
            });
            let end = walked?.ok_or(BadFrame::Truncated)?;
            Ok((Items { rest: &bytes[len..end], count }, &bytes[end..]))
        };
        Ok(match head {
            Head::Nil => (Self::Nil, rest),
            Head::Bool(value) => (Self::Bool(value), rest),
            Head::Int(value) => (Self::Int(value), rest),
            Head::Float(value) => (Self::Float(value), rest),
            Head::Str(len) => text(len).map(|(text, rest)| (Self::Str(text), rest))?,
            Head::Bin(len) => text(len).map(|(text, rest)| (Self::Bin(text), rest))?,
            Head::Ext(kind, len) => text(len).map(|(text, rest)| (Self::Ext(kind, text), rest))?,
            Head::Array(count) => items(count).map(|(items, rest)| (Self::Array(items), rest))?,
            Head::Map(count) => items(count).map(|(items, rest)| (Self::Map(items), rest))?,
        })
    }

    /// The bytes of a str or a bin: senders use either for texts.
    pub fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Str(text) | Self::Bin(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Items<'a> {
    /// The values of an array that takes up all of some bytes, as found by [`Walk`]. `None`: the bytes are not an array.
    pub fn of_array(whole: &'a [u8]) -> Option<Self> {
        if let [first @ 0x90..=0x9f, rest @ ..] = whole {
            return Some(Self { rest, count: u64::from(first & 15) });
        }
        match Head::read(whole) {
            Ok(Some((Head::Array(count), len))) => Some(Self { rest: &whole[len..], count }),
            _ => None,
        }
    }

    /// The number of values left; a map has two for each key. Not `count`: iterators have a method of that name, which consumes them.
    pub fn left(&self) -> u64 {
        self.count
    }

    /// The bytes of the values left.
    pub fn bytes(&self) -> &'a [u8] {
        self.rest
    }

    /// The values in these bytes, which [`bytes`](Self::bytes) returned.
    pub fn from_bytes(bytes: &'a [u8], len: u64) -> Self {
        Self { rest: bytes, count: len }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Value<'a>> {
        self.count = self.count.checked_sub(1)?;
        let (value, rest) = Value::read(self.rest).ok()?;
        self.rest = rest;
        Some(value)
    }
}
