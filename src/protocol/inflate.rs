//! Decompression of gzip (RFC 1952, including several members in sequence) and zlib (RFC 1950). A few bytes can inflate to millions, so the
//! output has a limit, and the buffer never grows beyond it.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use memchr::memchr;

/// Why data cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDeflate {
    /// Not in the format, truncated, or with a wrong checksum.
    #[error("the compressed data is damaged")]
    Damaged,
    #[error("the data is longer than the limit when it is inflated")]
    TooLong,
}

/// A decompressor. It can be used again after an error.
pub struct Inflater {
    /// 43 kB, reused for each input.
    state: Decompress,
}

const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
/// Bytes of the CRC-32 and the length after a member.
const TRAILER: usize = 8;
/// The initial capacity in bytes.
const FIRST: usize = 4096;

/// Whether the data begins like gzip.
pub fn is_gzip(data: &[u8]) -> bool {
    data.starts_with(&GZIP[..2])
}

/// Whether the data begins like zlib with the usual window of 32 KiB.
pub fn is_zlib(data: &[u8]) -> bool {
    matches!(data, [0x78, flags, ..] if (0x7800 + u16::from(*flags)) % 31 == 0)
}

impl Default for Inflater {
    fn default() -> Self {
        Self { state: Decompress::new(false) }
    }
}

impl Inflater {
    /// Inflates all members of `data`, to at most `max` bytes in total.
    pub fn gzip(&mut self, mut data: &[u8], max: usize) -> Result<Vec<u8>, BadDeflate> {
        let mut out = Vec::new();
        loop {
            let header = gzip_header(data).ok_or(BadDeflate::Damaged)?;
            let start = out.len();
            self.state.reset(false);
            let rest = self.inflate(&data[header..], &mut out, max)?;
            let (trailer, rest) = rest.split_first_chunk::<TRAILER>().ok_or(BadDeflate::Damaged)?;
            let mut crc = Crc::new();
            crc.update(&out[start..]);
            if *trailer != *[crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].as_flattened() {
                return Err(BadDeflate::Damaged);
            }
            if rest.is_empty() {
                return Ok(out);
            }
            data = rest;
        }
    }

    /// Inflates `data` to at most `max` bytes.
    pub fn zlib(&mut self, data: &[u8], max: usize) -> Result<Vec<u8>, BadDeflate> {
        let mut out = Vec::new();
        self.state.reset(true);
        let rest = self.inflate(data, &mut out, max)?;
        if rest.is_empty() { Ok(out) } else { Err(BadDeflate::Damaged) }
    }

    /// Appends one inflated stream and returns the data after it.
    fn inflate<'a>(&mut self, data: &'a [u8], out: &mut Vec<u8>, max: usize) -> Result<&'a [u8], BadDeflate> {
        loop {
            if out.len() == out.capacity() {
                // One byte more than the limit shows that the output is too long.
                let room = (max + 1).saturating_sub(out.len()).min(out.len().max(FIRST));
                out.reserve_exact(room);
            }
            let before = (self.state.total_in(), out.len());
            let status = self.state.decompress_vec(&data[before.0 as usize..], out, FlushDecompress::None);
            if out.len() > max {
                return Err(BadDeflate::TooLong);
            }
            let read = self.state.total_in();
            match status {
                Ok(Status::StreamEnd) => return Ok(&data[read as usize..]),
                Ok(_) if (read, out.len()) != before => {}
                // No progress although there is room: the input ends too early.
                Ok(_) | Err(_) => return Err(BadDeflate::Damaged),
            }
        }
    }
}

/// The length of a member's header. `None`: the data is no header, or ends inside it.
fn gzip_header(data: &[u8]) -> Option<usize> {
    let flags = *data.strip_prefix(&GZIP)?.first()?;
    let [has_crc, has_extra, has_name, has_comment] = [2, 4, 8, 16].map(|bit| flags & bit != 0);
    let mut end = 10;
    if has_extra {
        let len = data.get(end..)?.first_chunk()?;
        end += 2 + usize::from(u16::from_le_bytes(*len));
    }
    for _ in 0..u8::from(has_name) + u8::from(has_comment) {
        end += memchr(0, data.get(end..)?)? + 1;
    }
    end += if has_crc { 2 } else { 0 };
    (flags < 32 && end <= data.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// One deflate stream, with or without the header and trailer of zlib.
    fn deflate(data: &[u8], zlib: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(data.len() + 100);
        let status = Compress::new(Compression::default(), zlib).compress_vec(data, &mut out, FlushCompress::Finish);
        assert!(matches!(status, Ok(Status::StreamEnd)));
        out
    }

    /// A gzip member. `more`: the optional header fields that `flags` announce.
    fn gzip(data: &[u8], flags: u8, more: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(data);
        let header = [&GZIP[..], &[flags, 0, 0, 0, 0, 0, 3], more].concat();
        [header, deflate(data, false), crc.sum().to_le_bytes().into(), crc.amount().to_le_bytes().into()].concat()
    }

    #[test]
    fn members_follow_each_other_and_headers_say_more() {
        let mut inflater = Inflater::default();
        let one = gzip(b"hello ", 0, b"");
        assert!(is_gzip(&one) && !is_zlib(&one));
        assert_eq!(inflater.gzip(&one, 6), Ok(b"hello ".to_vec()));
        let two = [one, gzip(b"", 0, b""), gzip(b"world", 0x1f, b"\x02\0xxname\0comment\0cc")].concat();
        assert_eq!(inflater.gzip(&two, 11), Ok(b"hello world".to_vec()));
        assert_eq!(inflater.gzip(&two, 10), Err(BadDeflate::TooLong));
    }

    #[test]
    fn nothing_is_larger_than_the_limit() {
        let mut inflater = Inflater::default();
        let large = vec![0; 1_400_000];
        for (compressed, is_zlib) in [(gzip(&large, 0, b""), false), (deflate(&large, true), true)] {
            let mut inflate = |max| match is_zlib {
                true => inflater.zlib(&compressed, max),
                false => inflater.gzip(&compressed, max),
            };
            assert!(compressed.len() < 1500, "{} bytes", compressed.len());
            for max in [0, 1, FIRST - 1, FIRST, FIRST + 1, 65536, large.len() - 1] {
                assert_eq!(inflate(max), Err(BadDeflate::TooLong), "{max}");
            }
            let whole = inflate(large.len()).expect("all of it");
            assert!(whole == large && whole.capacity() <= large.len() + 1);
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_damaged() {
        let mut inflater = Inflater::default();
        let text = b"hello hello hello world";
        for (good, is_zlib) in [(gzip(text, 8, b"n\0"), false), (deflate(text, true), true)] {
            let mut inflate = |data: &[u8]| match is_zlib {
                true => inflater.zlib(data, 100),
                false => inflater.gzip(data, 100),
            };
            assert_eq!(inflate(&good), Ok(text.to_vec()));
            for end in 0..good.len() {
                assert_eq!(inflate(&good[..end]), Err(BadDeflate::Damaged), "{end}");
            }
            assert_eq!(inflate(&[&good[..], b"x"].concat()), Err(BadDeflate::Damaged));
            let mut changed = good.clone();
            *changed.last_mut().expect("a byte") ^= 1;
            assert_eq!(inflate(&changed), Err(BadDeflate::Damaged));
        }
    }
}
