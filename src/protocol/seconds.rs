//! Seconds since 1970 as a decimal number, usually with milliseconds, as GELF and Splunk's HEC send them. The number is read as text: a
//! binary floating-point number would change its last digits.

use crate::record::{Fraction, LocalStamp};

/// Maximum length of a number in bytes.
const LONGEST: usize = 40;

/// The time of a number, and its nanoseconds beyond the microseconds. `None`: a stamp cannot represent the time, for example because the
/// number is negative or in milliseconds.
pub fn read(text: &str) -> Option<(LocalStamp, u16)> {
    if text.len() > LONGEST {
        return None;
    }
    let shifted = shift(text)?;
    let text = shifted.as_deref().unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let (fraction, nanoseconds) = Fraction::read(fraction.as_bytes());
    Some((LocalStamp::in_utc(whole.parse().ok()?, fraction)?, nanoseconds))
}

/// Rewrites a number without its exponent: Java writes `1.795898357357E9`. The inner `None`: the number has no exponent. The outer `None`:
/// it is malformed.
fn shift(text: &str) -> Option<Option<String>> {
    let Some((number, exponent)) = text.split_once(['e', 'E']) else { return Some(None) };
    let exponent: usize = exponent.parse().ok().filter(|exponent| *exponent <= 12)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() {
        return None;
    }
    let digits = format!("{fraction:0<exponent$}");
    let (moved, fraction) = digits.split_at_checked(exponent)?;
    Some(Some(format!("{whole}{moved}.{fraction}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Stamp;
    use crate::record::stamp_text;

    #[test]
    fn a_number_is_read_as_text() {
        let check = |text: &str, expected: &str, nanoseconds| {
            let (local, read) = read(text).unwrap_or_else(|| panic!("{text} is a time"));
            assert_eq!((stamp_text(&Stamp::Respelt(local)).as_str(), read), (expected, nanoseconds), "{text}");
        };
        check("1795898357.357", "2026-11-28T20:39:17.357Z", 0);
        check("1795898357.36", "2026-11-28T20:39:17.36Z", 0);
        check("1795898357", "2026-11-28T20:39:17Z", 0);
        check("1795898357.123456789", "2026-11-28T20:39:17.123456Z", 789);
        check("1.795898357357E9", "2026-11-28T20:39:17.357Z", 0);
        check("1.7958e9", "2026-11-27T17:20:00Z", 0);
        check("0", "1970-01-01T00:00:00Z", 0);
        check("253402300799.999999", "9999-12-31T23:59:59.999999Z", 0);
    }

    #[test]
    fn what_says_no_time_is_none() {
        let long = format!("1.{}", "0".repeat(40));
        let bad =
            ["", ".", "-1", "1795898357357", "1e13", "1e-3", "1e", "e9", "null", "1.2.3", "{}", "é.é", "é.ée1", &long];
        bad.into_iter().for_each(|text| assert_eq!(read(text), None, "{text}"));
    }
}
