//! The parts of a message that Docker's driver repeats in each message of a container (moby `daemon/logger/gelf/gelf.go`;
//! `github.com/Graylog2/go-gelf`, `Message.MarshalJSONBuf`):
//!
//! ```text
//! {"version":"1.1","host":"H","short_message":"TEXT","timestamp":TIME,"level":6,"_command":"…",…}
//! ```
//!
//! The bytes behind the time are not parsed: if they are the same as in an earlier message, they are JSON.

use memchr::{memchr, memchr2};

use crate::protocol::outline::Outline;
use crate::protocol::seconds;
use crate::record::json_reader::split_text;

/// Splits a message into its text and the rest. `None`: it has another form, or its text is longer than the limit.
pub fn outline(json: &[u8], max_message: usize) -> Option<Outline<'_>> {
    let host = json.strip_prefix(br#"{"version":"1.1","host":""#)?;
    let (host, behind) = host.split_at(memchr2(b'"', b'\\', host)?);
    let (text, behind) = split_text(behind.strip_prefix(br#"","short_message":""#)?)?;
    let time = behind.strip_prefix(br#","timestamp":"#)?;
    let (time, behind) = time.split_at(memchr(b',', time)?);
    let (stamp, nanoseconds) = seconds::read(plain_number(time)?)?;
    if text.is_empty() || text.len() > max_message {
        return None;
    }
    let text = super::message::bytes_of(text);
    Some(Outline { origin: [host, behind, b"", b""], stamp: Some(stamp), nanoseconds, text, tells_pieces: false })
}

/// A JSON number without sign and exponent.
fn plain_number(text: &[u8]) -> Option<&str> {
    let is_plain = text.first() != Some(&b'0')
        && text.last() != Some(&b'.')
        && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    str::from_utf8(text).ok().filter(|_| is_plain)
}
