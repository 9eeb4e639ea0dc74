//! Timestamps: reads and writes RFC 3339, and writes RFC 3164. Nothing here reads a clock.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate};

use super::BadSetting;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMicros(pub i64);

/// The offset of a local clock from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct UtcOffset {
    /// East is positive; `-12 h <= seconds <= +14 h`, a multiple of 60.
    seconds: i32,
}

/// The time of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stamp<'a> {
    /// The RFC 3339 text of the sender.
    Text(Cow<'a, [u8]>),
    /// A timestamp without a zone, and often without a year, after both were added.
    Local(LocalStamp, ZoneSource),
    /// A timestamp with a zone in a format that RFC 5424 does not allow (more digits, other letters, another order), in the
    /// format of RFC 5424.
    Respelt(LocalStamp),
    /// The time of receipt, because the sender gave no timestamp, or an invalid one.
    Received(UnixMicros),
}

/// The time on a local clock, and the clock's offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalStamp {
    /// Seconds since 1970-01-01T00:00:00 on the local clock.
    pub seconds: i64,
    pub fraction: Fraction,
    pub offset: UtcOffset,
}

/// The source of the zone, for a timestamp that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneSource {
    /// The time of receipt: the message is recent, so that the clocks show its offset.
    Clock,
    /// The setting `time-zone`.
    Setting,
    /// UTC, because there is neither.
    Default,
}

/// The fraction of a second, with the number of digits that were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fraction {
    /// `0 <= micros < 1_000_000`
    micros: u32,
    /// `0 <= digits <= 6`; 0: no fraction.
    digits: u8,
}

/// Writes timestamps, and keeps the text of the last one of each kind, because thousands of messages share a second.
#[derive(Clone)]
pub(crate) struct StampWriter {
    /// The last local timestamp, its text, and the length of the text.
    local: (LocalStamp, [u8; MAX_LOCAL_LEN], usize),
    /// The last second of receipt, and its text up to the fraction.
    received: (i64, [u8; SECOND_LEN]),
}

/// `Nov 20 22:28:47`
pub(crate) const BSD_LEN: usize = 15;
/// `2026-11-20T22:28:47`
pub(crate) const SECOND_LEN: usize = 19;
/// `2026-11-20T17:28:47.123456-05:00`, the longest timestamp of RFC 5424.
pub(crate) const MAX_LOCAL_LEN: usize = 32;
/// The maximum number of digits of a fraction in RFC 5424.
const MAX_FRACTION: usize = 6;
/// The first and the last second with a four-digit year.
const YEARS: std::ops::RangeInclusive<i64> = -62_167_219_200..=LAST / 1_000_000;
/// The last microsecond with a four-digit year.
const LAST: i64 = 253_402_300_799_999_999;

impl UtcOffset {
    pub const UTC: Self = Self { seconds: 0 };
    const WEST: i64 = -12 * 3600;
    const EAST: i64 = 14 * 3600;

    /// East is positive. `None`: outside -12:00 to +14:00, or not whole minutes.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        let valid = (Self::WEST..=Self::EAST).contains(&seconds) && seconds % 60 == 0;
        valid.then_some(Self { seconds: seconds as i32 })
    }

    /// East is positive.
    pub fn seconds(self) -> i64 {
        i64::from(self.seconds)
    }
}

impl FromStr for UtcOffset {
    type Err = BadSetting;

    /// Parses `UTC`, `Z`, `+05:30`, `-05:00`.
    fn from_str(text: &str) -> Result<Self, BadSetting> {
        let bad = || BadSetting(format!("{text:?} is no UTC offset: write UTC, or for example +05:30 or -05:00"));
        let (sign, digits) = match text.as_bytes() {
            b"UTC" | b"Z" => return Ok(Self::UTC),
            [b'+', digits @ ..] => (1, digits),
            [b'-', digits @ ..] => (-1, digits),
            _ => return Err(bad()),
        };
        let (Some(hours), Some(b':'), Some(minutes), 5) = (two(digits, 0), digits.get(2), two(digits, 3), digits.len())
        else {
            return Err(bad());
        };
        let offset =
            if minutes < 60 { Self::from_seconds(sign * i64::from(hours * 3600 + minutes * 60)) } else { None };
        offset.ok_or_else(|| BadSetting(format!("{text:?} is no UTC offset: they reach from -12:00 to +14:00")))
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seconds == 0 {
            return f.write_str("UTC");
        }
        let minutes = self.seconds.abs() / 60;
        let sign = if self.seconds < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl LocalStamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn utc(&self) -> i64 {
        self.seconds - self.offset.seconds()
    }

    /// A time in UTC. `None`: the year does not have four digits.
    pub fn in_utc(seconds: i64, fraction: Fraction) -> Option<Self> {
        YEARS.contains(&seconds).then_some(Self { seconds, fraction, offset: UtcOffset::UTC })
    }
}

impl Fraction {
    /// All six digits of `micros < 1_000_000`.
    pub fn of_micros(micros: u32) -> Self {
        Self { micros, digits: MAX_FRACTION as u8 }
    }

    /// Reads the digits of a fraction: up to six digits, and the rest in nanoseconds if there are at most nine digits. Of a
    /// longer fraction only six digits are read.
    pub(crate) fn read(text: &[u8]) -> (Self, u16) {
        let number = |digits: &[u8], len: usize| {
            let digits = digits.iter().map_while(|b| digit(*b)).chain(std::iter::repeat(0)).take(len);
            digits.fold(0, |value, digit| value * 10 + digit)
        };
        let kept = &text[..text.len().min(MAX_FRACTION)];
        let nanoseconds = if text.len() > 9 { 0 } else { number(&text[kept.len()..], 3) };
        (Self { micros: number(kept, MAX_FRACTION), digits: kept.len() as u8 }, nanoseconds as u16)
    }
}

impl UnixMicros {
    /// Reads an RFC 3339 stamp; digits beyond microseconds are dropped. `None`: the text is no stamp.
    pub fn from_rfc3339(text: &[u8]) -> Option<Self> {
        let (date, rest) = text.split_first_chunk::<SECOND_LEN>()?;
        if !is_rfc3339(text, 9) {
            return None;
        }
        let year = date[..4].iter().try_fold(0, |year, b| Some(year * 10 + digit(*b)? as i32))?;
        let day = NaiveDate::from_ymd_opt(year, two(date, 5)?, two(date, 8)?)?;
        let second = day.and_hms_opt(two(date, 11)?, two(date, 14)?, two(date, 17)?)?.and_utc().timestamp();
        let fraction = rest.strip_prefix(b".").unwrap_or_default();
        let digits = fraction.iter().map_while(|b| digit(*b)).chain(std::iter::repeat(0)).take(6);
        let micros = digits.fold(0, |micros, digit| micros * 10 + i64::from(digit));
        let offset = match rest.last_chunk::<6>() {
            Some(zone @ [sign @ (b'+' | b'-'), ..]) => {
                let seconds = i64::from(two(zone, 1)? * 3600 + two(zone, 4)? * 60);
                if *sign == b'-' { -seconds } else { seconds }
            }
            _ => 0,
        };
        Some(Self((second - offset) * 1_000_000 + micros))
    }

    /// Whether `span` has passed since this time. Also true when the clock was set back to before this time: otherwise waits would
    /// last for ever.
    pub fn has_passed(self, span: Duration, now: Self) -> bool {
        !(0..span.as_micros() as i64).contains(&now.0.saturating_sub(self.0))
    }

    /// The whole seconds, limited to the years 1970 to 9999, which four digits can express.
    pub(crate) fn second(self) -> i64 {
        self.0.clamp(0, LAST) / 1_000_000
    }
}

impl Stamp<'_> {
    /// The time; digits beyond microseconds are dropped. `None`: the text is not RFC 3339.
    pub fn time(&self) -> Option<UnixMicros> {
        match self {
            Self::Text(text) => UnixMicros::from_rfc3339(text),
            Self::Local(local, _) | Self::Respelt(local) => {
                Some(UnixMicros(local.utc() * 1_000_000 + i64::from(local.fraction.micros)))
            }
            Self::Received(time) => Some(*time),
        }
    }
}

impl StampWriter {
    /// Appends `stamp` in the format of RFC 5424 6.2.3.
    #[inline(always)]
    pub fn write(&mut self, stamp: &Stamp<'_>, out: &mut Vec<u8>) {
        match stamp {
            Stamp::Text(text) => out.extend_from_slice(text),
            Stamp::Local(local, _) | Stamp::Respelt(local) => {
                if self.local.0 != *local {
                    let (last, text, len) = &mut self.local;
                    if last.seconds != local.seconds {
                        text[..SECOND_LEN].copy_from_slice(&second_text(local.seconds));
                    }
                    *len = write_behind_second(local, text);
                    *last = *local;
                }
                out.extend_from_slice(&self.local.1[..self.local.2]);
            }
            Stamp::Received(micros) => {
                let second = micros.second();
                if self.received.0 != second {
                    self.received = (second, second_text(second));
                }
                out.extend_from_slice(&self.received.1);
                let mut fraction = *b".000000Z";
                let mut left = micros.0.clamp(0, LAST) % 1_000_000;
                for digit in fraction[1..7].iter_mut().rev() {
                    *digit = b'0' + (left % 10) as u8;
                    left /= 10;
                }
                out.extend_from_slice(&fraction);
            }
        }
    }
}

impl Default for StampWriter {
    fn default() -> Self {
        let epoch = LocalStamp { seconds: 0, fraction: Fraction::default(), offset: UtcOffset::UTC };
        let mut text = [0; MAX_LOCAL_LEN];
        text[..SECOND_LEN].copy_from_slice(&second_text(epoch.seconds));
        let len = write_behind_second(&epoch, &mut text);
        Self { local: (epoch, text, len), received: (0, second_text(0)) }
    }
}

/// Is this a TIMESTAMP of RFC 5424 6.2.3, other than `-`? `fraction` is the maximum number of digits of a second: the RFC
/// allows 6, some senders send 9.
pub(crate) fn is_rfc3339(text: &[u8], fraction: usize) -> bool {
    let Some((second, rest)) = text.split_first_chunk() else { return false };
    is_second(second) && is_fraction_and_zone(rest, fraction)
}

/// `2026-11-20T22:28:47`, on a day that exists.
pub(crate) fn is_second(date: &[u8; SECOND_LEN]) -> bool {
    let [y1, y2, y3, y4, b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _] = date else { return false };
    let (Some(month), Some(day)) = (two(date, 5), two(date, 8)) else { return false };
    let (Some(hour), Some(minute), Some(second)) = (two(date, 11), two(date, 14), two(date, 17)) else { return false };
    let year = [y1, y2, y3, y4].iter().try_fold(0, |year, b| Some(year * 10 + digit(**b)?));
    let Some(year) = year else { return false };
    (1..=days(year, month)).contains(&day) && hour < 24 && minute < 60 && second < 60
}

#[inline(always)]
pub(crate) fn is_fraction_and_zone(zone: &[u8], fraction: usize) -> bool {
    let zone = match zone {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 || digits > fraction {
                return false;
            }
            &rest[digits..]
        }
        _ => zone,
    };
    match zone {
        b"Z" => true,
        [b'+' | b'-', _, _, b':', _, _] => {
            two(zone, 1).is_some_and(|hours| hours < 24) && two(zone, 4).is_some_and(|minutes| minutes < 60)
        }
        _ => false,
    }
}

/// The timestamp as `Mmm _d hh:mm:ss`, in its own zone. `None`: its text is not RFC 3339.
pub(crate) fn to_bsd(stamp: &Stamp<'_>) -> Option<[u8; BSD_LEN]> {
    let Stamp::Text(text) = stamp else { return to_bsd(&Stamp::Text(super::stamp_text(stamp).into_bytes().into())) };
    let month = two(text, 5)?.checked_sub(1)?;
    let (name, day, time) = (MONTHS.get(month as usize)?, two(text, 8)?, text.get(11..19)?);
    let mut out = *b"Mmm _d hh:mm:ss";
    out[..3].copy_from_slice(*name);
    out[4] = if day < 10 { b' ' } else { b'0' + (day / 10) as u8 };
    out[5] = b'0' + (day % 10) as u8;
    out[7..].copy_from_slice(time);
    Some(out)
}

pub(crate) const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

fn days(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

pub(crate) fn digit(byte: u8) -> Option<u32> {
    byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
}

pub(crate) fn two(text: &[u8], at: usize) -> Option<u32> {
    Some(digit(*text.get(at)?)? * 10 + digit(*text.get(at + 1)?)?)
}

fn second_text(second: i64) -> [u8; SECOND_LEN] {
    let mut out = *b"1970-01-01T00:00:00";
    let second = second.clamp(*YEARS.start(), *YEARS.end());
    if let Some(time) = DateTime::from_timestamp(second, 0) {
        let of_day = second.rem_euclid(86_400) as u32;
        let year = time.year().unsigned_abs();
        let mut put = |at: usize, value: u32| {
            out[at] = b'0' + (value / 10 % 10) as u8;
            out[at + 1] = b'0' + (value % 10) as u8;
        };
        put(0, year / 100);
        put(2, year);
        put(5, time.month());
        put(8, time.day());
        put(11, of_day / 3600);
        put(14, of_day / 60 % 60);
        put(17, of_day % 60);
    }
    out
}

/// Writes the fraction and the offset, and returns the length of the text.
fn write_behind_second(local: &LocalStamp, out: &mut [u8; MAX_LOCAL_LEN]) -> usize {
    let mut len = SECOND_LEN;
    let Fraction { micros, digits } = local.fraction;
    if digits > 0 {
        out[len] = b'.';
        let mut left = micros;
        // Writes all six digits. Digits that are not wanted are overwritten next.
        for place in out[len + 1..=len + MAX_FRACTION].iter_mut().rev() {
            *place = b'0' + (left % 10) as u8;
            left /= 10;
        }
        len += 1 + usize::from(digits);
    }
    let minutes = local.offset.seconds.unsigned_abs() / 60;
    if minutes == 0 {
        out[len] = b'Z';
        return len + 1;
    }
    let two = |value: u32| [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
    let sign = if local.offset.seconds < 0 { b'-' } else { b'+' };
    let ([h1, h2], [m1, m2]) = (two(minutes / 60), two(minutes % 60));
    out[len..len + 6].copy_from_slice(&[sign, h1, h2, b':', m1, m2]);
    len + 6
}
