//! What was said, by whom and when: a message as the relay holds it, and its line, a complete RFC 5424 message without
//! framing. Inputs and destinations meet here and know nothing of each other.
//!
//! Everything here is a plain function of bytes: no socket, no file, no clock, no async. Reading never fails and
//! never panics, whatever the bytes; what is not understood is carried whole.
//!
//! In reading order:
//!
//! - `time`: stamps, the text that RFC 3339 has for them, zones
//! - `structured_data`: header and structured data of RFC 5424
//! - `line`: a line back into its parts
//! - `render`: a line as RFC 5424, RFC 3164 or JSON
//! - `rule`: which lines match
//! - `escaped`: control characters as text, where people read

mod escaped;
mod line;
mod render;
mod rule;
pub(crate) mod structured_data;
pub(crate) mod time;

pub use escaped::{append_on_one_line, append_visible, escaped, make_json_visible};
pub use line::Line;
pub use render::{FACILITIES, Format, SEVERITIES, escape, render};
pub use rule::{Facilities, Patterns, Rule, Severities, fits, severity_by_name};
pub use structured_data::is_sd_id;
pub use time::{LocalStamp, Stamp, StampOrigin, UnixMicros, UtcOffset};

use time::Stamps;

/// SD-ID of what the relay itself says about a message. (32473 is the number RFC 5612 gives to examples.)
pub(crate) const OWN_ID: &[u8] = OWN_SD_ID.as_bytes();
pub const OWN_SD_ID: &str = "logferry@32473";
/// Its param: the name of the listener that took the message.
pub(crate) const LISTENER: &str = "listener";

/// RFC 3164 4.3.3: a packet without a priority is `user.notice`.
pub(crate) const DEFAULT_PRI: u8 = 13;

/// A setting that cannot be used, and why: a sentence for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSetting(String);

/// The severity of a canonical line, 0 (emergency) to 7 (debug): RFC 5424 6.2.1.
pub fn severity(line: &[u8]) -> u8 {
    pri(line) & 7
}

/// The facility of a canonical line, 0 to 23.
pub fn facility(line: &[u8]) -> u8 {
    pri(line) >> 3
}

fn pri(line: &[u8]) -> u8 {
    priority(line).map_or(DEFAULT_PRI, |(pri, _)| pri)
}

/// A stamp as RFC 5424 6.2.3 wants it.
pub fn stamp_text(stamp: &Stamp<'_>) -> String {
    let mut out = Vec::new();
    Stamps::default().write(stamp, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Splits `<PRI>` off: 0 to 191, without leading zeros (RFC 3164 4.1.1, RFC 5424 6.2.1).
#[inline(always)]
pub(crate) fn priority(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |b: u8| u16::from(b.wrapping_sub(b'0'));
    let (value, rest) = match bytes {
        [b'<', a @ b'0'..=b'9', b'>', rest @ ..] => (digit(*a), rest),
        [b'<', a @ b'1'..=b'9', b @ b'0'..=b'9', b'>', rest @ ..] => (digit(*a) * 10 + digit(*b), rest),
        [b'<', b'1', b @ b'0'..=b'9', c @ b'0'..=b'9', b'>', rest @ ..] => (100 + digit(*b) * 10 + digit(*c), rest),
        _ => return None,
    };
    (value <= 191).then_some((value as u8, rest))
}

impl BadSetting {
    pub fn new(says: String) -> Self {
        Self(says)
    }
}
