//! `[syslog]`: how messages are read, and the limits for containers.

use bytesize::ByteSize;

use super::effective::{Table, displayed_size};
use super::error::ConfigError;
use super::kinds::{Count, Optional, Special, Text, Together};
use super::settings::{Place, Settings, settings};
use crate::protocol::syslog::TagTemplates;
use crate::record::{OWN_SD_ID, TimeZone, is_sd_id};

pub const DEFAULT_SD_ID: &str = "docker@32473";
/// The limits of `rejoin`, in bytes: from room for two of Docker's pieces of 16 KiB to the longest line of the spool.
const REJOIN_LIMITS: std::ops::RangeInclusive<u64> = 48 * 1024..=512 * 1024;
/// The default of `rate-burst`, in seconds of `rate-limit`.
const DEFAULT_BURST_SECONDS: u32 = 10;

settings! {
    pub struct Syslog, written as WrittenSyslog {
        /// The possible values of the senders' `tag` log option, tried in order.
        tag_templates: TagTemplates = TagTemplates::default(),
            as Together { read: TagTemplates::new, display: TagTemplates::written }, key "tag-template";
        /// The SD-ID of the element with image, name and ID.
        sd_id: String = DEFAULT_SD_ID.to_owned(), as Special { read: sd_id, display: String::clone }, key "sd-id";
        /// The zone for timestamps without one; `None`: it is guessed if possible.
        time_zone: Option<TimeZone> = None, as Optional(Text), key "time-zone";
        /// The longest line that is joined from Docker's pieces, in bytes; `None`: pieces are not joined.
        rejoin: Option<usize> = None, as Special { read: rejoin, display: display_rejoin }, key "rejoin";
    }
    groups {
        /// The rate limit of each container; `None`: no limit.
        rate: Option<Rate>;
    }
}

/// The rate limit of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages a second, in the long run.
    pub per_second: u32,
    /// Messages at once, after a pause.
    pub burst: u32,
}

settings! {
    /// The keys of [`Rate`].
    pub struct RateKeys, written as WrittenRate {
        limit: Option<u32> = None, as Special { read: rate_limit, display: display_rate_limit }, key "rate-limit";
        burst: Option<usize> = limit.map(|limit| (limit * DEFAULT_BURST_SECONDS) as usize),
            as Optional(Count), key "rate-burst";
    }
}

impl Settings for Option<Rate> {
    type Written = WrittenRate;

    fn read(written: &WrittenRate, place: &Place<'_>) -> Result<Self, ConfigError> {
        if let Some(leaf) = written.burst.first().filter(|_| !written.limit.is_written()) {
            let says = "there is no `rate-limit` that it could belong to";
            return place.source.note(place.source.bad(&place.key("rate-burst"), leaf, says), None);
        }
        let RateKeys { limit, burst } = RateKeys::read(written, place)?;
        let burst = burst.map(|burst| u32::try_from(burst).unwrap_or(u32::MAX));
        Ok(limit.zip(burst).map(|(per_second, burst)| Rate { per_second, burst }))
    }

    fn display(&self, table: &mut Table) {
        RateKeys { limit: self.map(|rate| rate.per_second), burst: self.map(|rate| rate.burst as usize) }
            .display(table);
    }
}

fn sd_id(text: &str) -> Result<String, String> {
    match text {
        OWN_SD_ID => Err("the relay uses this name for its own log lines".to_owned()),
        _ if is_sd_id(text) => Ok(text.to_owned()),
        _ => Err("an SD-ID is 1 to 32 printable characters without = ] and \", such as docker@32473".to_owned()),
    }
}

fn rejoin(text: &str) -> Result<Option<usize>, String> {
    match text.parse::<ByteSize>() {
        _ if text == "off" => Ok(None),
        Ok(size) if REJOIN_LIMITS.contains(&size.as_u64()) => Ok(Some(size.as_u64() as usize)),
        _ => {
            let (min, max) = (displayed_size(*REJOIN_LIMITS.start()), displayed_size(*REJOIN_LIMITS.end()));
            Err(format!("write \"off\", or a size from {min} to {max}"))
        }
    }
}

fn display_rejoin(max: &Option<usize>) -> String {
    max.map_or("off".to_owned(), |max| displayed_size(max as u64))
}

fn rate_limit(text: &str) -> Result<Option<u32>, String> {
    match text.strip_suffix("/s").map(str::trim_end).and_then(|number| number.parse().ok()) {
        Some(number @ 1..=10_000_000) => Ok(Some(number)),
        _ if text == "off" => Ok(None),
        _ => Err("write messages a second, such as \"1000/s\", or \"off\"".to_owned()),
    }
}

fn display_rate_limit(limit: &Option<u32>) -> String {
    limit.map_or("off".to_owned(), |limit| format!("{limit}/s"))
}
