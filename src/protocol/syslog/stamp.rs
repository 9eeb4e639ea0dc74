//! RFC 3164's time stamps: they lack the year and the zone, and both are found here. The time of day never comes from a clock,
//! only from the frame.
//!
//! A scratch image has no time zone data, and does not need any: a live stamp differs from the receive time by the
//! sender's UTC offset, and every offset on earth is a multiple of a quarter hour.

use chrono::{DateTime, Datelike, NaiveDate};

use crate::record::time::{BSD_LEN, MONTHS, SECOND_LEN, digit, is_fraction_and_zone, is_second, two};
use crate::record::{LocalStamp, Stamp, UnixMicros, UtcOffset};

const QUARTER_HOUR: i64 = 15 * 60;

/// Why a stamp is what it is. It is found out afterwards, for a person who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampOrigin {
    /// As the sender wrote it, zone and all.
    Written,
    /// See [`Stamp::Respelt`].
    Respelt,
    /// An RFC 3164 stamp near enough to the receive time: the distance, rounded to the quarter hour, is its zone.
    Live { offset: UtcOffset },
    /// An RFC 3164 stamp so many seconds from the receive time that its zone is the one of the settings.
    Configured { offset: UtcOffset, distance: i64 },
    /// See [`Stamp::Received`].
    Received,
}

/// An RFC 3164 stamp as it stands there; not necessarily a possible date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BsdStamp {
    /// Some devices do send it: `Nov 20 2026 22:28:47`.
    pub year: Option<i32>,
    /// `1 <= month <= 12`
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
}

/// Reads stamps, and remembers the last one of each kind: thousands of messages share a second.
#[derive(Clone)]
pub(super) struct StampReader {
    /// The last RFC 3164 stamp, the second it was received in, and what it meant.
    bsd: ([u8; BSD_LEN], i64, Option<LocalStamp>),
    /// A second that exists, as RFC 3339 writes it: the last one that was looked at.
    written: [u8; SECOND_LEN],
}

impl StampOrigin {
    /// The origin of a stamp in a message that was received at this time.
    pub fn of(stamp: &Stamp<'_>, received: UnixMicros) -> Self {
        match stamp {
            Stamp::Text(_) => Self::Written,
            Stamp::Respelt(_) => Self::Respelt,
            Stamp::Received(_) => Self::Received,
            Stamp::Local(LocalStamp { seconds, offset }) => match live_offset(*seconds, received.second()) {
                Some(live) if live == *offset => Self::Live { offset: live },
                _ => {
                    let distance = seconds - offset.seconds() - received.second();
                    Self::Configured { offset: *offset, distance }
                }
            },
        }
    }
}

/// The zone of a stamp that shows `seconds` and is live `now`; `None`: it is not.
fn live_offset(seconds: i64, now: i64) -> Option<UtcOffset> {
    let quarters = (seconds - now + QUARTER_HOUR / 2).div_euclid(QUARTER_HOUR);
    UtcOffset::from_seconds(quarters * QUARTER_HOUR)
}

impl BsdStamp {
    /// `Mmm _d hh:mm:ss`, exactly as Go's `time.Stamp` writes it.
    pub fn read(text: &[u8; BSD_LEN]) -> Option<Self> {
        let [m1, m2, m3, b' ', d1, d2, b' ', _, _, b':', _, _, b':', _, _] = text else { return None };
        let tens = if *d1 == b' ' { 0 } else { digit(*d1)? * 10 };
        Some(Self {
            year: None,
            month: month([*m1, *m2, *m3])?,
            day: tens + digit(*d2)?,
            hour: two(text, 7)?,
            minute: two(text, 10)?,
            second: two(text, 13)?,
        })
    }

    /// Reads a stamp with any number of blanks, any case, one-digit numbers, and a year if there is one. Returns the
    /// stamp's length too.
    pub fn read_loosely(text: &[u8]) -> Option<(Self, usize)> {
        let name = text.first_chunk::<3>()?;
        let name = [name[0].to_ascii_uppercase(), name[1].to_ascii_lowercase(), name[2].to_ascii_lowercase()];
        let month = month(name)?;
        let mut at = 3;
        let blanks = |at: &mut usize| {
            let start = *at;
            while matches!(text.get(*at), Some(b' ' | b'\t')) {
                *at += 1;
            }
            (*at > start).then_some(())
        };
        let number = |at: &mut usize, longest: usize| {
            let start = *at;
            let mut value = 0;
            while let Some(d) = text.get(*at).and_then(|b| digit(*b)).filter(|_| *at - start < longest) {
                value = value * 10 + d;
                *at += 1;
            }
            (*at > start).then_some(value)
        };
        let colon = |at: &mut usize| {
            *at += 1;
            (text.get(*at - 1) == Some(&b':')).then_some(())
        };
        blanks(&mut at)?;
        let day = number(&mut at, 2)?;
        blanks(&mut at)?;
        let start = at;
        let mut hour = number(&mut at, 4)?;
        let mut year = None;
        if at - start == 4 {
            year = Some(hour as i32);
            blanks(&mut at)?;
            hour = number(&mut at, 2)?;
        } else if at - start == 3 {
            return None;
        }
        colon(&mut at)?;
        let minute = number(&mut at, 2)?;
        colon(&mut at)?;
        let second = number(&mut at, 2)?;
        Some((Self { year, month, day, hour, minute, second }, at))
    }

    /// Finds the year and the zone from the time of receipt. `None`: the date does not exist.
    ///
    /// Of last year, this year and next year, the one that brings the stamp nearest to the receive time is taken.
    /// Rounded to the quarter hour, the distance is the sender's offset; a stamp too far off for that is old, and
    /// `fallback` is its zone.
    pub fn resolve(&self, received: UnixMicros, fallback: UtcOffset) -> Option<LocalStamp> {
        let now = received.second();
        let nearest = |offset: i64| self.candidates(now).min_by_key(|seconds| (seconds - offset - now).abs());
        let live = nearest(0)?;
        if let Some(offset) = live_offset(live, now) {
            return Some(LocalStamp { seconds: live, offset });
        }
        Some(LocalStamp { seconds: nearest(fallback.seconds())?, offset: fallback })
    }

    fn candidates(&self, now: i64) -> impl Iterator<Item = i64> {
        let this = DateTime::from_timestamp(now, 0).map_or(1970, |time| time.year());
        let years = match self.year {
            Some(year) => year..=year,
            None => this - 1..=this + 1,
        };
        let (stamp, of_day) = (*self, i64::from(self.hour * 3600 + self.minute * 60 + self.second));
        let possible = self.hour < 24 && self.minute < 60 && self.second < 60;
        years.filter(move |_| possible).filter_map(move |year| {
            let date = NaiveDate::from_ymd_opt(year, stamp.month, stamp.day)?;
            Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp() + of_day)
        })
    }
}

impl StampReader {
    /// Reads an RFC 3164 stamp at the start of `text`. `None`: the text looks like no stamp. For an impossible date the
    /// receive time is taken.
    pub fn bsd(&mut self, text: &[u8], received: UnixMicros, fallback: UtcOffset) -> Option<Stamp<'static>> {
        let text: &[u8; BSD_LEN] = text.first_chunk()?;
        let second = received.second();
        if self.bsd.0 != *text || self.bsd.1 != second {
            let local = BsdStamp::read(text)?.resolve(received, fallback);
            self.bsd = (*text, second, local);
        }
        Some(self.bsd.2.map_or(Stamp::Received(received), Stamp::Local))
    }

    /// Says what [`is_rfc3339`](crate::record::time::is_rfc3339) says, and looks at each second once.
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
