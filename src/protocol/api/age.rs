//! Lines that are too old for a store. Stores drop such lines, often with a 2xx, and a spool can hold lines for long. Pure: the time is an
//! argument.

use std::time::Duration;

use super::Api;
use crate::record::UnixMicros;

/// Safety margin: a line must not become too old on its way, nor while a repeated request keeps its time of sending.
pub const MARGIN: Duration = Duration::from_secs(15 * 60);

/// How old lines may be, and how older lines are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeLimit {
    /// `None`: no limit.
    pub max_age: Option<Duration>,
    pub too_old: TooOld,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooOld {
    /// The line is sent with the time of sending.
    Now,
    DeadLetter,
    /// The line is sent with its own time.
    Send,
}

/// How a line is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    AsItIs,
    /// With this time. The line's own time is a field.
    At(UnixMicros),
    /// Not at all: the line has this age.
    Never(Duration),
}

impl AgeLimit {
    /// How a line with this time is sent at `now`. A line without a time is never refused for its age, but some stores need a time. A line
    /// from the future is not old.
    pub fn sending(&self, time: Option<UnixMicros>, now: UnixMicros) -> Sending {
        let (Some(max_age), TooOld::Now | TooOld::DeadLetter) = (self.max_age, self.too_old) else {
            return Sending::AsItIs;
        };
        let age = time.map(|time| u64::try_from(i128::from(now.0) - i128::from(time.0)).unwrap_or_default());
        match (age.map(Duration::from_micros), self.too_old) {
            (Some(age), _) if age <= max_age => Sending::AsItIs,
            (_, TooOld::Now) => Sending::At(now),
            (Some(age), _) => Sending::Never(age),
            (None, _) => Sending::AsItIs,
        }
    }
}

impl Api {
    /// The default age limit of lines; `None`: no limit.
    pub fn max_age(&self) -> Option<Duration> {
        const HOUR: u64 = 3600;
        let hours = match self {
            // Older lines are answered with 202 and dropped (<https://docs.datadoghq.com/api/latest/logs/#send-logs>).
            Self::Datadog(_) => 18,
            // <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/#limits>
            Self::NewRelic(_) => 48,
            // Older lines are dropped. The answer is a 200 that reports it.
            Self::CloudWatch(_) => 14 * 24,
            // `reject_old_samples_max_age`
            Self::Loki(_) => 7 * 24,
            Self::Elasticsearch(_) | Self::Splunk(_) | Self::Ndjson(_) | Self::Otlp(_) | Self::S3(_) => return None,
        };
        Some(Duration::from_secs(hours * HOUR) - MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const NOW: UnixMicros = UnixMicros(1_795_898_247_000_000);

    fn sending(too_old: TooOld, time: Option<i64>) -> Sending {
        let limit = AgeLimit { max_age: Some(Duration::from_secs(3600)), too_old };
        limit.sending(time.map(UnixMicros), NOW)
    }

    #[test]
    fn a_line_is_too_old_beyond_the_limit_and_not_at_it() {
        let ago = |ago| Some(NOW.0 - ago);
        for (time, is_too_old) in [
            (ago(0), false),
            (ago(HOUR), false),
            (ago(HOUR + 1), true),
            (ago(1000 * HOUR), true),
            // From the near future and from the farthest.
            (ago(-1), false),
            (ago(-1000 * HOUR), false),
            (Some(i64::MAX), false),
            (Some(i64::MIN), true),
            (Some(0), true),
        ] {
            let expected = if is_too_old { Sending::At(NOW) } else { Sending::AsItIs };
            assert_eq!(sending(TooOld::Now, time), expected, "{time:?}");
            let is_dead = matches!(sending(TooOld::DeadLetter, time), Sending::Never(_));
            assert_eq!(is_dead, is_too_old, "{time:?}");
            assert_eq!(sending(TooOld::Send, time), Sending::AsItIs, "{time:?}");
        }
        assert_eq!(sending(TooOld::DeadLetter, ago(2 * HOUR)), Sending::Never(Duration::from_secs(7200)));
    }

    #[test]
    fn a_line_without_a_time_gets_one_and_is_never_given_up() {
        assert_eq!(sending(TooOld::Now, None), Sending::At(NOW));
        assert_eq!(sending(TooOld::DeadLetter, None), Sending::AsItIs);
        assert_eq!(sending(TooOld::Send, None), Sending::AsItIs);
    }

    #[test]
    fn without_a_limit_nothing_is_too_old() {
        for too_old in [TooOld::Now, TooOld::DeadLetter, TooOld::Send] {
            for time in [None, Some(UnixMicros(0))] {
                assert_eq!(AgeLimit { max_age: None, too_old }.sending(time, NOW), Sending::AsItIs);
            }
        }
    }
}
