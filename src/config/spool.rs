//! `[spool]`: the directory for messages on the disk, and its limits.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::effective::displayed_size;
use super::kinds::{Path, Size, Special, Time, Words};
use super::settings::settings;
use crate::spool::{Sync, WhenFull};

pub const DEFAULT_SPOOL_DIR: &str = "/var/spool/logferry";
const DEFAULT_SPOOL_SIZE: ByteSize = ByteSize::gib(1);
/// The smallest `max-size`. With less, segments would be smaller than a few large messages.
pub const MIN_SPOOL_SIZE: ByteSize = ByteSize::mib(1);
/// The largest `max-size`. It is larger than any disk, and a hundredth of what the counters can hold.
const MAX_SPOOL_SIZE: ByteSize = ByteSize::pib(1);
const DEFAULT_SHED_FROM: u8 = 90;
/// The limits of `max-rate`, in bytes a second. Below the minimum, writing the queue would take longer than a stop or
/// `/ready` may wait.
const MAX_RATE_LIMITS: std::ops::RangeInclusive<u64> = 8 << 20..=1 << 40;
const DEFAULT_SYNC: Duration = Duration::from_secs(1);
/// The default of `max-wait`: how long a sender may be blocked when the disk hangs, before messages are dropped and counted.
const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(5);

const WHEN_FULL: Words<WhenFull> =
    Words(&[("drop-oldest", WhenFull::DropOldest), ("drop-newest", WhenFull::DropNewest)]);

settings! {
    pub struct Spool, written as WrittenSpool {
        dir: PathBuf = PathBuf::from(DEFAULT_SPOOL_DIR), as Path, key "dir".needs_restart().flag(
            "spool-dir", "LOGFERRY_SPOOL_DIR", "DIR", "Directory of the spool [default: /var/spool/logferry]",
        );
        /// The maximum size of the spool, in bytes.
        max_size: u64 = DEFAULT_SPOOL_SIZE.as_u64(),
            as Size(MIN_SPOOL_SIZE.as_u64()..=MAX_SPOOL_SIZE.as_u64()), key "max-size".flag(
            "spool-max-size", "LOGFERRY_SPOOL_MAX_SIZE", "SIZE", "Maximum size of the spool in bytes [default: 1GiB]",
        );
        when_full: WhenFull = WhenFull::DropOldest, as WHEN_FULL, key "when-full";
        sync: Sync = Sync::Every(DEFAULT_SYNC), as Special { read: sync, display: display_sync }, key "sync".needs_restart();
        max_wait: Duration = DEFAULT_MAX_WAIT, as Time, key "max-wait".needs_restart();
        /// The percentage of `max_size` from which on messages of low severity are refused; `None`: never.
        shed_from: Option<u8> = Some(DEFAULT_SHED_FROM),
            as Special { read: shed_from, display: display_shed_from }, key "shed-from";
        /// The maximum number of bytes written to the spool in a second; `None`: no limit.
        max_rate: Option<u64> = None, as Special { read: max_rate, display: display_max_rate }, key "max-rate".needs_restart();
    }
}

fn sync(text: &str) -> Result<Sync, String> {
    match (text, humantime::parse_duration(text)) {
        ("always", _) => Ok(Sync::Always),
        ("never", _) => Ok(Sync::Never),
        (_, Ok(every)) if !every.is_zero() => Ok(Sync::Every(every)),
        _ => Err("write a time such as \"1s\", \"always\" or \"never\"".to_owned()),
    }
}

fn display_sync(sync: &Sync) -> String {
    match sync {
        Sync::Always => "always".to_owned(),
        Sync::Never => "never".to_owned(),
        Sync::Every(every) => humantime::format_duration(*every).to_string(),
    }
}

fn shed_from(text: &str) -> Result<Option<u8>, String> {
    match text.strip_suffix('%').and_then(|percent| percent.parse().ok()) {
        _ if text == "off" => Ok(None),
        Some(percent @ 1..=99) => Ok(Some(percent)),
        _ => Err("write a share of `max-size` such as \"90%\", or \"off\"".to_owned()),
    }
}

fn display_shed_from(percent: &Option<u8>) -> String {
    percent.map_or("off".to_owned(), |percent| format!("{percent}%"))
}

fn max_rate(text: &str) -> Result<Option<u64>, String> {
    match text.strip_suffix("/s").and_then(|size| size.trim_end().parse::<ByteSize>().ok()) {
        Some(size) if MAX_RATE_LIMITS.contains(&size.as_u64()) => Ok(Some(size.as_u64())),
        _ if text == "off" => Ok(None),
        _ => Err("write \"16MiB/s\", at least 8MiB/s, or \"off\"".to_owned()),
    }
}

fn display_max_rate(rate: &Option<u64>) -> String {
    rate.map_or("off".to_owned(), |rate| format!("{}/s", displayed_size(rate)))
}
