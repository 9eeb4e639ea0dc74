//! The year and the zone of stamps that have none.

use super::*;

#[track_caller]
fn check_received(received: i64, offset: &str, stamp: &str, expected: &str) {
    let settings = Settings { utc_offset: offset.parse().unwrap(), ..settings() };
    let input = format!("<30>{stamp} {ID}[1]: x");
    let frame = Frame { bytes: input.as_bytes(), cut: false, received: UnixMicros(received) };
    let (out, _) = line_with(settings, frame);
    let line = Line::parse(&out, "docker@32473");
    assert_eq!(line.timestamp, expected);
}

fn unix(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

#[test]
fn finds_the_year_and_the_zone() {
    let now = unix("2026-11-20T22:28:47Z");
    check_received(now, "UTC", "Nov 20 22:28:47", "2026-11-20T22:28:47Z");
    check_received(now, "UTC", "Nov 20 22:28:52", "2026-11-20T22:28:52Z");
    check_received(now, "UTC", "Nov 20 22:21:30", "2026-11-20T22:21:30Z");
    check_received(now, "UTC", "Nov 20 22:21:00", "2026-11-20T22:21:00-00:15");
    check_received(now, "UTC", "Nov 20 17:28:46", "2026-11-20T17:28:46-05:00");
    check_received(now, "UTC", "Nov 21 04:13:47", "2026-11-21T04:13:47+05:45");
    check_received(now, "UTC", "Nov 21 12:28:47", "2026-11-21T12:28:47+14:00");
    check_received(now, "UTC", "Nov 20 10:28:47", "2026-11-20T10:28:47-12:00");
    // Too far off to be a zone: the configured one.
    check_received(now, "UTC", "Nov 20 09:28:47", "2026-11-20T09:28:47Z");
    check_received(now, "+05:30", "Nov  8 22:34:57", "2026-11-08T22:34:57+05:30");
    check_received(now, "-05:00", "Nov 25 01:02:03", "2026-11-25T01:02:03-05:00");
    // New Year, in both directions.
    check_received(unix("2027-01-01T03:00:00Z"), "UTC", "Dec 31 22:00:00", "2026-12-31T22:00:00-05:00");
    check_received(unix("2026-12-31T22:00:00Z"), "UTC", "Jan  1 03:30:00", "2027-01-01T03:30:00+05:30");
    check_received(unix("2027-01-01T00:00:01Z"), "UTC", "Dec 31 23:59:59", "2026-12-31T23:59:59Z");
    check_received(unix("2026-12-31T23:59:59Z"), "UTC", "Jan  1 00:00:01", "2027-01-01T00:00:01Z");
    check_received(unix("2027-01-03T00:00:00Z"), "UTC", "Dec 25 00:00:00", "2026-12-25T00:00:00Z");
    check_received(unix("2026-12-30T00:00:00Z"), "UTC", "Jan  4 00:00:00", "2027-01-04T00:00:00Z");
    // Half a year off: the zone decides which side is nearer.
    check_received(unix("2026-07-02T12:30:00Z"), "+14:00", "Jan  1 06:00:00", "2027-01-01T06:00:00+14:00");
    check_received(unix("2026-07-02T12:30:00Z"), "-12:00", "Jan  1 06:00:00", "2026-01-01T06:00:00-12:00");
    // 29 February.
    check_received(unix("2028-02-29T12:00:00Z"), "UTC", "Feb 29 12:00:00", "2028-02-29T12:00:00Z");
    check_received(unix("2028-03-01T02:00:00Z"), "UTC", "Feb 29 21:00:00", "2028-02-29T21:00:00-05:00");
    check_received(unix("2028-02-28T20:00:00Z"), "UTC", "Feb 29 01:30:00", "2028-02-29T01:30:00+05:30");
    check_received(unix("2027-03-01T00:00:00Z"), "UTC", "Feb 29 12:00:00", "2028-02-29T12:00:00Z");
    check_received(now, "UTC", "Feb 29 12:00:00", "2026-11-20T22:28:47.000000Z");
    // Dates that do not exist.
    for stamp in ["Feb 30 12:00:00", "Nov 31 12:00:00", "Nov  0 12:00:00", "Nov 20 24:00:00", "Nov 20 22:60:00"] {
        check_received(now, "UTC", stamp, "2026-11-20T22:28:47.000000Z");
    }
    // Clocks that are nowhere near.
    for received in [i64::MIN, -1, 0, i64::MAX] {
        let (out, _) = line_with(
            settings(),
            Frame { bytes: b"<30>Dec 31 23:59:59 a[1]: x", cut: false, received: UnixMicros(received) },
        );
        assert!(time::is_rfc3339(Line::parse(&out, "").timestamp.as_bytes(), 6), "{}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn a_remembered_stamp_is_not_another_one() {
    let mut translator = Translator::new(Arc::new(settings()));
    let mut check = |received: &str, stamp: &str, expected: &str| {
        let (mut out, bytes) = (Vec::new(), format!("<30>{stamp} a[1]: x"));
        translator
            .translate(&Frame { bytes: bytes.as_bytes(), cut: false, received: UnixMicros(unix(received)) }, &mut out);
        assert_eq!(Line::parse(&out, "").timestamp, expected);
    };
    for _ in 0..2 {
        check("2026-11-20T22:28:47Z", "Nov 20 22:28:47", "2026-11-20T22:28:47Z");
        check("2026-11-20T22:28:47Z", "Nov 20 17:28:47", "2026-11-20T17:28:47-05:00");
        check("2027-11-20T17:28:47Z", "Nov 20 17:28:47", "2027-11-20T17:28:47Z");
        check("2026-11-20T22:28:47.000001Z", "Feb 30 17:28:47", "2026-11-20T22:28:47.000001Z");
        check("2026-11-20T22:28:47.999999Z", "Feb 30 17:28:47", "2026-11-20T22:28:47.999999Z");
        check("2026-11-20T22:28:48.000000Z", "Feb 30 17:28:47", "2026-11-20T22:28:48.000000Z");
    }
}
