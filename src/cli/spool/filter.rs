//! The arguments of `logferry spool cat` that select lines.

use crate::cli::Failure;
use crate::listen::ingest::now;
use crate::record::{HeaderField, Record, SEVERITIES, UnixMicros, matches_glob, severity_by_name};

#[derive(clap::Args)]
pub struct Filter {
    /// Only lines of this container: its name (`*` stands for anything, `?` for one byte) or the start of its ID
    #[arg(long, value_name = "NAME")]
    container: Option<String>,

    /// Only lines of containers of this image (`*` stands for anything)
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Only lines of this host (`*` stands for anything)
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Only lines of this severity and worse: emerg, alert, crit, err, warning, notice, info or debug
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    severity: Option<u8>,

    /// Only lines stamped then or later: 2h (ago), 90s, 1day, or 2026-11-20T22:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<UnixMicros>,

    /// Only lines stamped before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<UnixMicros>,
}

/// The minimum length of an ID's prefix for `--container`. A shorter text is more likely a name.
const MIN_ID_LEN: usize = 4;

impl Filter {
    /// Does the filter select the line? Conditions on the time do not exclude a line without a timestamp.
    pub fn matches(&self, line: &[u8], sd_id: &str) -> bool {
        if self.matches_all() {
            return true;
        }
        let record = Record::from_line(line, sd_id);
        let is = |pattern: &Option<String>, value: Option<&[u8]>| {
            pattern.as_ref().is_none_or(|pattern| value.is_some_and(|value| matches_glob(pattern.as_bytes(), value)))
        };
        let stamp = record.time();
        self.is_container(&record)
            && is(&self.image, record.image_name())
            && is(&self.host, Some(&HeaderField::or_nil(record.hostname)))
            && self.severity.is_none_or(|least| record.severity <= least)
            && stamp.is_none_or(|stamp| {
                self.since.is_none_or(|since| stamp >= since) && self.until.is_none_or(|until| stamp < until)
            })
    }

    fn matches_all(&self) -> bool {
        let Self { container, image, host, severity, since, until } = self;
        container.is_none()
            && image.is_none()
            && host.is_none()
            && severity.is_none()
            && since.is_none()
            && until.is_none()
    }

    fn is_container(&self, record: &Record<'_>) -> bool {
        let Some(asked) = &self.container else { return true };
        let is_name = record.container_name().is_some_and(|name| matches_glob(asked.as_bytes(), name));
        // The tag may have only 12 of the 64 digits that the user gives, or the other way round.
        let same = |id: &[u8]| id.starts_with(asked.as_bytes()) || asked.as_bytes().starts_with(id);
        let is_id = asked.len() >= MIN_ID_LEN && record.container_id().is_some_and(same);
        is_name || is_id
    }
}

fn severity(text: &str) -> Result<u8, String> {
    severity_by_name(text).ok_or_else(|| format!("write {}", SEVERITIES.join(", ")))
}

/// Parses a duration before now, or a timestamp.
fn moment(text: &str) -> Result<UnixMicros, String> {
    if let Some(then) = UnixMicros::from_rfc3339(text.as_bytes()) {
        return Ok(then);
    }
    let ago = humantime::parse_duration(text).map_err(|_| "write 2h (ago), 90s, 1day, or 2026-11-20T22:00:00Z")?;
    let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
    Ok(UnixMicros((now().0 - ago).max(0)))
}

impl Filter {
    /// Refuses a filter that no line can match.
    pub fn check(&self) -> Result<(), Failure> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => {
                Err(Failure::usage("spool cat: --since is not before --until, so there is nothing between"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(moment("2026-11-20T22:00:00+02:00"), moment("2026-11-20T20:00:00Z"));
        assert!(moment("2h").unwrap() < moment("1h").unwrap());
        for bad in ["", "yesterday", "2026-11-20", "-1h"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
        assert_eq!((severity("warning"), severity("emerg"), severity("error")), (Ok(4), Ok(0), Ok(3)));
        assert!(severity("loud").unwrap_err().contains("write emerg, "));
    }
}
