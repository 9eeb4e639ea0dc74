//! Turns the fields of a stamp into a time: infers the year and the zone that most stamps lack.
//!
//! A zone in the stamp counts first, then the zone of the settings. Without a zone, a live stamp differs from the time of receipt by an
//! offset that is in use on earth. A stamp with another difference is late and counts as UTC. The year is the latest that puts the stamp at
//! most two days after the time of receipt.

use chrono::NaiveDate;

use super::SaidTime;
use super::zones::{SaidZone, is_in_use};
use crate::record::{LocalStamp, TimeZone, UnixMicros, UtcOffset, ZoneSource};

/// Maximum clock error of a live stamp in seconds.
pub(super) const LIVE: i64 = 2 * 60;
/// Maximum seconds that a stamp may be ahead of the time of receipt. Beyond that it is last year's.
const AHEAD: i64 = 2 * 24 * 3600;
/// This many years contain every day, including 29 February.
const YEARS: i32 = 8;
const QUARTER_HOUR: i64 = 15 * 60;

/// A stamp with year and zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// The zone comes from the stamp.
    Written(LocalStamp),
    Found(LocalStamp, ZoneSource),
}

impl SaidTime {
    /// `zone`: the zone of the settings. `None`: the date does not exist.
    pub(super) fn resolve(&self, received: UnixMicros, zone: Option<&TimeZone>) -> Option<Resolved> {
        let now = received.second();
        match self.zone {
            SaidZone::Offset(offset) => return self.latest(now, |_| offset).map(Resolved::Written),
            SaidZone::Letters([]) | SaidZone::None => {}
            SaidZone::Letters(meanings) => return self.in_zone_of(meanings, now, zone).map(Resolved::Written),
        }
        let live = || self.live(now).map(|live| Resolved::Found(live, ZoneSource::Clock));
        let found = self.latest(now, |local| zone.map_or(UtcOffset::UTC, |zone| zone.offset(local, now)))?;
        match zone {
            // A stamp that lies ahead in the configured zone is not late, so the sender is in another zone.
            Some(_) if found.utc() > now + LIVE => live().or(Some(Resolved::Found(found, ZoneSource::Setting))),
            Some(_) => Some(Resolved::Found(found, ZoneSource::Setting)),
            None => live().or(Some(Resolved::Found(found, ZoneSource::Default))),
        }
    }

    /// The stamp in one of the zones that an abbreviation may mean: the zone that makes it live, else the zone of the settings, else the
    /// most common meaning.
    fn in_zone_of(&self, meanings: &[i16], now: i64, zone: Option<&TimeZone>) -> Option<LocalStamp> {
        let stamps = || {
            let offsets = meanings.iter().filter_map(|minutes| UtcOffset::from_seconds(i64::from(*minutes) * 60));
            offsets.filter_map(|offset| self.latest(now, |_| offset))
        };
        let is_local = |stamp: &LocalStamp| zone.is_some_and(|zone| zone.offset(stamp.seconds, now) == stamp.offset);
        let is_live = |stamp: &LocalStamp| (stamp.utc() - now).abs() <= LIVE;
        stamps().find(is_live).or_else(|| stamps().find(is_local)).or_else(|| stamps().next())
    }

    /// The stamp with its difference to the time of receipt as the offset, if that offset is in use.
    fn live(&self, now: i64) -> Option<LocalStamp> {
        let years = self.years(now).take(3);
        years.filter_map(|year| self.seconds(year)).find_map(|seconds| {
            let apart = seconds - now;
            let rounded = (apart + QUARTER_HOUR / 2).div_euclid(QUARTER_HOUR) * QUARTER_HOUR;
            let is_live = (apart - rounded).abs() <= LIVE && is_in_use(rounded / 60);
            let offset = UtcOffset::from_seconds(rounded).filter(|_| is_live)?;
            Some(LocalStamp { seconds, fraction: self.fraction, offset })
        })
    }

    /// The stamp in the latest year that is not too far ahead. `offset`: returns the offset of a local time.
    fn latest(&self, now: i64, offset: impl Fn(i64) -> UtcOffset) -> Option<LocalStamp> {
        let stamps = self.years(now).filter_map(|year| {
            let seconds = self.seconds(year)?;
            Some(LocalStamp { seconds, fraction: self.fraction, offset: offset(seconds) })
        });
        let mut stamps = stamps.filter(|stamp| self.year.is_some() || stamp.utc() <= now + AHEAD);
        stamps.next()
    }

    /// The possible years of the stamp, the latest first.
    fn years(&self, now: i64) -> impl Iterator<Item = i32> + use<> {
        use chrono::{DateTime, Datelike};
        let this = DateTime::from_timestamp(now, 0).map_or(1970, |time| time.year());
        let years = match self.year {
            Some(year) => year..=year,
            // 9999 is the last year with four digits.
            None => this - YEARS..=(this + 1).min(9999),
        };
        years.rev()
    }

    /// The local time in seconds from 1970. `None`: there is no such day or time.
    fn seconds(&self, year: i32) -> Option<i64> {
        // A leap second is written as the one before: RFC 5424 has none.
        let second = self.second.min(59);
        if self.hour >= 24 || self.minute >= 60 || self.second > 60 {
            return None;
        }
        let day = NaiveDate::from_ymd_opt(year, self.month, self.day)?.and_hms_opt(0, 0, 0)?;
        Some(day.and_utc().timestamp() + i64::from(self.hour * 3600 + self.minute * 60 + second))
    }
}
