//! Timestamps of headers: where they are, their fields, and the year and the zone that most of them lack. The time of day never comes from
//! a clock, only from the frame.
//!
//! In reading order:
//!
//! - here: [`StampReader`], which reads the stamps of Docker and of strict RFC 5424, and caches them
//! - `written`: the stamps of all other senders
//! - `cisco`: Cisco's prefixes of a stamp
//! - `resolve`: inference of year and zone
//! - `zones`: abbreviations of zones
//! - `properties`: invariants of all inputs

pub(super) mod cisco;
pub mod properties;
mod resolve;
pub(super) mod written;
mod zones;

use crate::record::time::{BSD_LEN, MONTHS, SECOND_LEN, digit, is_fraction_and_zone, is_second, two};
use crate::record::{Fraction, LocalStamp, Stamp, TimeZone, UnixMicros, UtcOffset, ZoneSource};

use resolve::Resolved;
use zones::SaidZone;

/// How a stamp got its year and zone. Determined afterwards, when a user asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampOrigin {
    /// As the sender wrote it, including the zone.
    Written,
    /// See [`Stamp::Respelt`].
    Respelt,
    /// Without a zone, and received live: the difference to the time of receipt is its zone.
    Live { offset: UtcOffset },
    /// Without a zone: the zone of the settings. `distance`: seconds from the time of receipt.
    Configured { offset: UtcOffset, distance: i64 },
    /// Without a zone, and none can be inferred: UTC. `distance`: seconds from the time of receipt.
    Late { distance: i64 },
    /// See [`Stamp::Received`].
    Received,
}

/// Reads a text that is a stamp in any known form and nothing else. Returns the stamp and its nanoseconds. `near`: a time near the stamp,
/// for a stamp without a year or a zone.
pub fn read_alone(text: &[u8], near: UnixMicros) -> Option<(Stamp<'_>, u16)> {
    let found = written::read(text, near, None)?;
    (found.unread.is_none() && found.end == text.len()).then_some((found.stamp, found.nanoseconds))
}

/// The fields of a stamp as written. They may be an impossible date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SaidTime {
    pub year: Option<i32>,
    /// `1 <= month <= 12` if the month was written as a name.
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub fraction: Fraction,
    pub zone: SaidZone,
}

/// Reads stamps and caches the last one of each kind: thousands of messages share a second.
#[derive(Clone)]
pub(super) struct StampReader {
    /// The last RFC 3164 stamp, the second of its receipt, and the result.
    bsd: ([u8; BSD_LEN], i64, Option<(LocalStamp, ZoneSource)>),
    /// The last RFC 3339 date and second that was found valid.
    written: [u8; SECOND_LEN],
}

impl StampOrigin {
    /// The origin of a stamp in a message that was received at this time.
    pub fn of(stamp: &Stamp<'_>, received: UnixMicros) -> Self {
        match stamp {
            Stamp::Text(_) => Self::Written,
            Stamp::Respelt(_) => Self::Respelt,
            Stamp::Received(_) => Self::Received,
            Stamp::Local(local, source) => {
                let distance = local.utc() - received.second();
                match source {
                    ZoneSource::Clock => Self::Live { offset: local.offset },
                    ZoneSource::Setting => Self::Configured { offset: local.offset, distance },
                    ZoneSource::Default => Self::Late { distance },
                }
            }
        }
    }
}

impl SaidTime {
    /// `Mmm _d hh:mm:ss`, exactly as Go's `time.Stamp` writes it.
    pub(super) fn bsd(text: &[u8; BSD_LEN]) -> Option<Self> {
        let [m1, m2, m3, b' ', d1, d2, b' ', _, _, b':', _, _, b':', _, _] = text else { return None };
        let tens = if *d1 == b' ' { 0 } else { digit(*d1)? * 10 };
        Some(Self {
            month: month([*m1, *m2, *m3])?,
            day: tens + digit(*d2)?,
            hour: two(text, 7)?,
            minute: two(text, 10)?,
            second: two(text, 13)?,
            ..Self::default()
        })
    }
}

impl StampReader {
    /// Reads an RFC 3164 stamp at the start of `text`. `None`: the text is no stamp, or an impossible one, whose text must be kept.
    pub fn bsd(&mut self, text: &[u8], received: UnixMicros, zone: Option<&TimeZone>) -> Option<Stamp<'static>> {
        let text: &[u8; BSD_LEN] = text.first_chunk()?;
        let second = received.second();
        if self.bsd.0 != *text || self.bsd.1 != second {
            let local = match SaidTime::bsd(text)?.resolve(received, zone) {
                Some(Resolved::Found(local, source)) => Some((local, source)),
                _ => None,
            };
            self.bsd = (*text, second, local);
        }
        self.bsd.2.map(|(local, source)| Stamp::Local(local, source))
    }

    /// As [`is_rfc3339`](crate::record::time::is_rfc3339), but checks each second only once.
    pub fn is_rfc3339(&mut self, text: &[u8], fraction: usize) -> bool {
        let Some((second, rest)) = text.split_first_chunk() else { return false };
        if self.written != *second {
            if !is_second(second) {
                return false;
            }
            self.written = *second;
        }
        is_fraction_and_zone(rest, fraction)
    }
}

impl Default for StampReader {
    fn default() -> Self {
        Self { bsd: ([0; BSD_LEN], -1, None), written: *b"1970-01-01T00:00:00" }
    }
}

fn month(name: [u8; 3]) -> Option<u32> {
    MONTHS.iter().position(|month| **month == name).map(|index| index as u32 + 1)
}
