//! The formats of a time.

use super::{BadEntry, Value};

const BILLION: u32 = 1_000_000_000;

/// EventTime, or a time of the same or lower precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// `None`: the sender gives whole seconds. `0 <= nanoseconds < 1_000_000_000`
    pub nanoseconds: Option<u32>,
}

impl Time {
    /// `None` for nil and 0: the time of arrival counts, as in Fluentd.
    pub fn read(value: Value<'_>) -> Result<Option<Self>, BadEntry> {
        match value {
            Value::Array(mut pair) => match (pair.left(), pair.next()) {
                (2, Some(time)) if !matches!(time, Value::Array(_)) => Self::bare(time),
                _ => Err(BadEntry::Time),
            },
            time => Self::bare(time),
        }
    }

    fn bare(value: Value<'_>) -> Result<Option<Self>, BadEntry> {
        let time = match value {
            Value::Nil => return Ok(None),
            Value::Int(seconds) => Self { seconds: seconds.try_into().map_err(|_| BadEntry::Time)?, nanoseconds: None },
            Value::Float(seconds) if seconds.is_finite() => {
                let nanoseconds = ((seconds - seconds.floor()) * f64::from(BILLION)) as u32;
                Self { seconds: seconds.floor() as i64, nanoseconds: Some(nanoseconds.min(BILLION - 1)) }
            }
            Value::Ext(0, &[a, b, c, d, e, f, g, h]) => {
                let nanoseconds = u32::from_be_bytes([e, f, g, h]);
                let seconds = i64::from(u32::from_be_bytes([a, b, c, d])) + i64::from(nanoseconds / BILLION);
                Self { seconds, nanoseconds: Some(nanoseconds % BILLION) }
            }
            _ => return Err(BadEntry::Time),
        };
        let is_zero = time.seconds == 0 && time.nanoseconds.unwrap_or_default() == 0;
        Ok((!is_zero).then_some(time))
    }
}
