//! The inference of year and zone for stamps without them.

use super::*;
use crate::protocol::syslog::stamp::properties::any_stamp;

#[track_caller]
fn check_received(received: i64, zone: &str, stamp: &str, expected: &str) {
    let time_zone = (zone != "-").then(|| zone.parse().unwrap());
    let settings = Settings { time_zone, ..settings() };
    let input = format!("<30>{stamp} {ID}[1]: x");
    let frame = Frame { bytes: input.as_bytes(), cut: false, received: UnixMicros(received) };
    let (out, _) = line_with(settings, frame);
    let line = Line::parse(&out, "docker@32473");
    assert_eq!(line.timestamp, expected);
}

fn unix(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

/// A line of tests/data/stamps.tsv.
struct Sent {
    zone: &'static str,
    text: &'static str,
    time: &'static str,
    host: &'static str,
    app: &'static str,
    message: &'static str,
    kept: &'static str,
}

fn sent() -> Vec<Sent> {
    let lines = include_str!("../../../../tests/data/stamps.tsv").lines().filter(|line| !line.starts_with('#'));
    let sent = lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [zone, text, time, host, app, message, kept] = columns[..] else { panic!("{line}") };
        Sent { zone, text, time, host, app, message, kept }
    });
    sent.collect()
}

#[test]
fn stamps_of_every_vendor() {
    let mut wrong = Vec::new();
    for Sent { zone, text, time, host, app, message, kept } in sent() {
        let time_zone = (zone != "-").then(|| zone.parse().unwrap());
        let settings = Settings { time_zone, ..settings() };
        let bytes = format!("<13>{text}");
        let (line, _) = line_with(settings, Frame { bytes: bytes.as_bytes(), cut: false, received: NOW });
        let read = Line::parse(&line, "docker@32473");
        let found_kept = match (&read.record.unread_stamp, read.record.nanoseconds) {
            (Some(stamp), _) => format!("stamp={}", String::from_utf8_lossy(stamp)),
            (None, 0) => "-".to_owned(),
            (None, nanoseconds) => format!("nanoseconds={nanoseconds}"),
        };
        let said = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let found =
            [read.timestamp.clone(), said(&read.hostname), said(&read.app_name), said(read.message), found_kept];
        let time = if time == "received" { "2026-11-20T22:28:47.500000Z" } else { time };
        let expected = [time, if host == "-" { "relay-1" } else { host }, app, message, kept];
        if found != expected {
            wrong.push(format!("{text}\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(sent().len() > 100);
}

#[test]
fn a_zone_is_guessed_only_where_it_is_in_use_and_the_stamp_live() {
    let now = unix("2026-11-20T22:28:47Z");
    check_received(now, "-", "Nov 20 22:28:47", "2026-11-20T22:28:47Z");
    check_received(now, "-", "Nov 20 22:30:47", "2026-11-20T22:30:47Z");
    check_received(now, "-", "Nov 20 17:26:47", "2026-11-20T17:26:47-05:00");
    check_received(now, "-", "Nov 20 17:26:46", "2026-11-20T17:26:46Z");
    check_received(now, "-", "Nov 20 22:12:47", "2026-11-20T22:12:47Z");
    check_received(now, "-", "Nov 20 22:13:47", "2026-11-20T22:13:47Z");
    check_received(now, "-", "Nov 21 04:13:47", "2026-11-21T04:13:47+05:45");
    check_received(now, "-", "Nov 21 12:28:47", "2026-11-21T12:28:47+14:00");
    check_received(now, "-", "Nov 20 10:28:47", "2026-11-20T10:28:47-12:00");
    check_received(now, "-", "Nov 20 19:13:47", "2026-11-20T19:13:47Z");
    check_received(now, "-", "Nov 20 09:28:47", "2026-11-20T09:28:47Z");
    // A configured zone applies to late lines. A stamp that lies ahead in that zone is from another zone.
    check_received(now, "UTC", "Nov 20 19:28:47", "2026-11-20T19:28:47Z");
    check_received(now, "UTC", "Nov 21 03:58:47", "2026-11-21T03:58:47+05:30");
    check_received(now, "UTC", "Nov 20 22:58:47", "2026-11-20T22:58:47Z");
    check_received(now, "+05:30", "Nov  8 22:34:57", "2026-11-08T22:34:57+05:30");
}

#[test]
fn the_year_is_the_latest_that_is_not_more_than_two_days_ahead() {
    let now = unix("2026-11-20T22:28:47Z");
    check_received(now, "-", "Nov 22 22:28:47", "2026-11-22T22:28:47Z");
    check_received(now, "-", "Nov 22 22:28:48", "2025-11-22T22:28:48Z");
    check_received(now, "-", "May 20 12:00:00", "2026-05-20T12:00:00Z");
    check_received(now, "-05:00", "Nov 25 01:02:03", "2025-11-25T01:02:03-05:00");
    // New Year, in both directions.
    check_received(unix("2027-01-01T03:00:00Z"), "-", "Dec 31 22:00:00", "2026-12-31T22:00:00-05:00");
    check_received(unix("2026-12-31T22:00:00Z"), "-", "Jan  1 03:30:00", "2027-01-01T03:30:00+05:30");
    check_received(unix("2027-01-01T00:00:01Z"), "-", "Dec 31 23:59:59", "2026-12-31T23:59:59Z");
    check_received(unix("2026-12-31T23:59:59Z"), "-", "Jan  1 00:00:01", "2027-01-01T00:00:01Z");
    check_received(unix("2027-01-03T00:00:00Z"), "-", "Dec 25 00:00:00", "2026-12-25T00:00:00Z");
    check_received(unix("2026-12-30T00:00:00Z"), "-", "Jan  4 00:00:00", "2026-01-04T00:00:00Z");
    // The zone decides whether the stamp is more than two days ahead.
    check_received(unix("2026-12-30T12:00:00Z"), "+14:00", "Jan  2 01:00:00", "2027-01-02T01:00:00+14:00");
    check_received(unix("2026-12-30T12:00:00Z"), "-12:00", "Jan  2 01:00:00", "2026-01-02T01:00:00-12:00");
    // 29 February.
    check_received(unix("2028-02-29T12:00:00Z"), "-", "Feb 29 12:00:00", "2028-02-29T12:00:00Z");
    check_received(unix("2028-03-01T02:00:00Z"), "-", "Feb 29 21:00:00", "2028-02-29T21:00:00-05:00");
    check_received(unix("2028-02-28T20:00:00Z"), "-", "Feb 29 01:30:00", "2028-02-29T01:30:00+05:30");
    check_received(now, "-", "Feb 29 12:00:00", "2024-02-29T12:00:00Z");
    // Dates that do not exist.
    for stamp in ["Feb 30 12:00:00", "Nov 31 12:00:00", "Nov  0 12:00:00", "Nov 20 24:00:00", "Nov 20 22:60:00"] {
        check_received(now, "-", stamp, "2026-11-20T22:28:47.000000Z");
    }
    // Times of receipt that are far off.
    for received in [i64::MIN, -1, 0, i64::MAX] {
        let (out, _) = line_with(
            settings(),
            Frame { bytes: b"<30>Dec 31 23:59:59 a[1]: x", cut: false, received: UnixMicros(received) },
        );
        assert!(time::is_rfc3339(Line::parse(&out, "").timestamp.as_bytes(), 6), "{}", String::from_utf8_lossy(&out));
    }
}

/// A local time that occurs twice is the later one, unless that lies in the future. A local time that is skipped is read as if the clock
/// had not gone forward yet.
#[test]
fn when_clocks_change() {
    let zone = "Europe/Berlin";
    let check = |received: &str, stamp: &str, expected: &str| check_received(unix(received), zone, stamp, expected);
    check("2026-10-25T00:30:00Z", "Oct 25 02:30:00", "2026-10-25T02:30:00+02:00");
    check("2026-10-25T01:27:00Z", "Oct 25 02:30:00", "2026-10-25T02:30:00+02:00");
    check("2026-10-25T01:30:00Z", "Oct 25 02:30:00", "2026-10-25T02:30:00+01:00");
    check("2026-10-26T00:00:00Z", "Oct 25 02:30:00", "2026-10-25T02:30:00+01:00");
    check("2026-10-25T02:00:00Z", "Oct 25 03:00:00", "2026-10-25T03:00:00+01:00");
    check("2026-03-29T01:30:00Z", "Mar 29 02:30:00", "2026-03-29T02:30:00+01:00");
    check("2026-03-29T01:00:00Z", "Mar 29 03:00:00", "2026-03-29T03:00:00+02:00");
    check("2026-03-29T00:59:59Z", "Mar 29 01:59:59", "2026-03-29T01:59:59+01:00");
    // After the last entry of the table its rule applies. The table has no rule for zones that never change their clocks.
    check_received(unix("2080-07-01T10:00:00Z"), zone, "Jul  1 11:00:00", "2080-07-01T11:00:00+02:00");
    check_received(unix("2026-07-01T10:00:00Z"), "Asia/Kolkata", "Jul  1 11:00:00", "2026-07-01T11:00:00+05:30");
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

/// On one socket each sender has its own zone, even if two senders send the same stamp in the same second.
#[test]
fn a_sender_s_zone_is_its_own() {
    let range = |range: &str, zone: &str| (vec![range.parse().unwrap()], zone.parse().unwrap());
    let zones = SenderZones {
        ranges: vec![range("10.1.0.0/16", "Asia/Kolkata"), range("10.0.0.0/8", "Europe/Berlin")],
        others: None,
    };
    let time_zone = Some("America/New_York".parse().unwrap());
    let mut translator = Translator::new(Arc::new(Settings { time_zone, ..settings() }));
    let time = |translator: &mut Translator, peer: &str, head: &str| {
        let (bytes, mut line) = (format!("<13>Nov 18 12:00:00 {head}: x"), Vec::new());
        translator.set_peer(peer.parse().ok());
        translator.translate(&Frame { bytes: bytes.as_bytes(), cut: false, received: NOW }, &mut line);
        Line::parse(&line, "").timestamp
    };
    let tag = format!("nginx:1.25/web/{ID}[7]");
    assert_eq!(time(&mut translator, "10.2.0.1", "r1 app"), "2026-11-18T12:00:00-05:00");
    translator.listen_to(Listening { zones, ..Listening::default() });
    for head in ["r1 app", &tag, &tag] {
        assert_eq!(time(&mut translator, "10.1.0.1", head), "2026-11-18T12:00:00+05:30");
        assert_eq!(time(&mut translator, "10.2.0.1", head), "2026-11-18T12:00:00+01:00");
        assert_eq!(time(&mut translator, "192.0.2.1", head), "2026-11-18T12:00:00-05:00");
        assert_eq!(time(&mut translator, "a socket in the file system", head), "2026-11-18T12:00:00-05:00");
    }
    let zones = SenderZones { ranges: Vec::new(), others: Some("+02:00".parse().unwrap()) };
    translator.listen_to(Listening { zones, ..Listening::default() });
    assert_eq!(time(&mut translator, "10.1.0.1", "r1 app"), "2026-11-18T12:00:00+02:00");
}

/// Text that looks like milliseconds followed by a year, but is no year in the end.
#[test]
fn a_stamp_ends_where_it_ends_without_what_is_behind() {
    for text in [
        "Nov 20 22:28:47:321 2026:026 x",
        "Nov 20 22:28:47:321 2026.x",
        "2026-11-20T2:28:47:320 2026 x",
        "Nov 20 22:28:47:321 2026 x",
    ] {
        any_stamp(text.as_bytes(), NOW, None);
    }
    check_received(NOW.0, "UTC", "Nov 20 22:28:47:321 2026", "2026-11-20T22:28:47.321Z");
}
