//! The time in a field: RFC 3339 and the formats of devices and libraries, or a number since 1970.

use std::borrow::Cow;

use crate::protocol::{read_seconds, read_stamp};
use crate::record::time::MONTHS;
use crate::record::{Record, Stamp, UnixMicros, Value};

/// The most digits of a number of seconds, enough until the year 5138. A number with more digits counts smaller units.
const SECONDS: usize = 11;

/// The time of a value, and the nanoseconds beyond its microseconds. A missing year or zone is chosen so that the time is
/// near that of the record.
pub fn read<'a>(value: &Value<'a>, record: &Record<'_>) -> Option<(Stamp<'a>, u16)> {
    let near = record.time().unwrap_or(UnixMicros(0));
    let text = match value {
        Value::Json(json) => return of_number(json.as_str()),
        Value::Text(text) => text,
    };
    if let Some(stamp) = std::str::from_utf8(text).ok().and_then(of_number) {
        return Some(stamp);
    }
    if let Some(respelt) = of_klog(text) {
        return read_stamp(&respelt, near).map(owned);
    }
    match text {
        Cow::Borrowed(text) => read_stamp(text, near),
        // The result cannot borrow from an owned text.
        Cow::Owned(text) => read_stamp(text, near).map(owned),
    }
}

/// The klog format `1128 17:01:58.123456` in syslog's form.
fn of_klog(text: &[u8]) -> Option<Vec<u8>> {
    let (date, time) = text.split_first_chunk::<4>()?;
    if time.first() != Some(&b' ') || !date.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let month: usize = std::str::from_utf8(&date[..2]).ok()?.parse().ok()?;
    Some([&MONTHS.get(month.checked_sub(1)?)?[..], b" ", &date[2..], time].concat())
}

fn owned((stamp, nanoseconds): (Stamp<'_>, u16)) -> (Stamp<'static>, u16) {
    let stamp = match stamp {
        Stamp::Text(text) => Stamp::Text(Cow::Owned(text.into_owned())),
        Stamp::Local(local, source) => Stamp::Local(local, source),
        Stamp::Respelt(local) => Stamp::Respelt(local),
        Stamp::Received(received) => Stamp::Received(received),
    };
    (stamp, nanoseconds)
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970. The number of digits tells which.
fn of_number(text: &str) -> Option<(Stamp<'static>, u16)> {
    let whole = text.split('.').next()?;
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let smaller = match whole.len() {
        ..=SECONDS => 0,
        12..=14 => 3,
        15..=17 => 6,
        18..=20 => 9,
        _ => return None,
    };
    let (seconds, fraction) = whole.split_at(whole.len() - smaller);
    let rest = text.get(whole.len() + 1..).unwrap_or_default();
    let digits = format!("{fraction}{rest}");
    // Nine digits of a fraction are nanoseconds; further digits are dropped.
    let number = format!("{seconds}.{}", digits.get(..digits.len().min(9))?);
    let (local, nanoseconds) = read_seconds(number.trim_end_matches('.'))?;
    Some((Stamp::Respelt(local), nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::stamp_text;

    fn shown(json: &str) -> Option<String> {
        let record = Record { timestamp: Some(Stamp::Text(b"2026-11-28T17:02:00Z"[..].into())), ..Record::new(13) };
        let value = Value::from_json(json).unwrap_or(Value::Text(json.as_bytes().into()));
        let (stamp, nanoseconds) = read(&value, &record)?;
        Some(format!("{} {nanoseconds}", stamp_text(&stamp)))
    }

    #[test]
    fn forms_of_a_time() {
        for (text, expected) in [
            ("2026-11-28T17:01:58.4Z", "2026-11-28T17:01:58.4Z 0"),
            ("2026-11-28T17:01:58.123456789+01:00", "2026-11-28T17:01:58.123456+01:00 789"),
            ("2026-11-28 17:01:58,123", "2026-11-28T17:01:58.123Z 0"),
            ("28/Nov/2026:20:58:04 +0000", "2026-11-28T20:58:04Z 0"),
            ("\"Nov 28 17:01:58\"", "2026-11-28T17:01:58Z 0"),
            ("1128 17:01:58.123456", "2026-11-28T17:01:58.123456Z 0"),
            ("28/Nov/2026 17:01:58", "2026-11-28T17:01:58Z 0"),
            ("2026-11-28 17:01:58.5 CET", "2026-11-28T17:01:58.5+01:00 0"),
            ("1795885318", "2026-11-28T17:01:58Z 0"),
            ("1795885318.25", "2026-11-28T17:01:58.25Z 0"),
            ("\"1795885318\"", "2026-11-28T17:01:58Z 0"),
            ("1795885318123", "2026-11-28T17:01:58.123Z 0"),
            ("1795885318123456", "2026-11-28T17:01:58.123456Z 0"),
            ("1795885318123456789", "2026-11-28T17:01:58.123456Z 789"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "now",
            "true",
            "-5",
            "1328 17:01:58",
            "0028 17:01:58",
            "2026 17:01:58",
            "2026-13-41T17:01:58Z",
            "2026-11-28T17:01:58Z and more",
            "123456789012345678901",
            "{}",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
