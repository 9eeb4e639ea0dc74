//! Invariants of all bytes in a stamp's place, as functions, so that a property test and a fuzz target are one line each.

use chrono::NaiveDate;

use super::resolve::LIVE;
use super::written::{self, WrittenStamp};
use super::zones::{ABBREVIATIONS, is_in_use};
use super::{StampReader, cisco};
use crate::protocol::syslog::{Frame, Senders, Settings, parse};
use crate::record::time::{BSD_LEN, MONTHS, is_rfc3339, to_bsd};
use crate::record::{Fraction, LocalStamp, Stamp, TimeZone, UnixMicros, UtcOffset, ZoneSource, stamp_text};

const ZONES: [&str; 4] = ["Europe/Berlin", "America/St_Johns", "Pacific/Apia", "-12:00"];

/// Panics unless each stamp that is found is a place in the text and a time that RFC 5424 can represent, and is read again as it is
/// written. Its end must not depend on the bytes after it.
pub fn any_stamp(text: &[u8], received: UnixMicros, zone: Option<&TimeZone>) {
    let header = cisco::read(text, received, zone);
    if let Some(header) = &header {
        let places = [header.host, header.process].into_iter().flatten();
        places.for_each(|place| assert!(is_within(place, &text[..header.stamp.end]), "{}", text.escape_ascii()));
    }
    let header = header.map(|header| header.stamp);
    let iso = written::read_iso(text, 0, received, zone);
    let all = [header, written::read(text, received, zone), iso, written::read_epoch(text, 0)];
    all.iter().flatten().for_each(|found| any_found(found, text, received, zone));
    if let Some(WrittenStamp { end, .. }) = written::read(text, received, zone) {
        let alone = [&text[..end], b" x"].concat();
        assert_eq!(written::read(&alone, received, zone).map(|again| again.end), Some(end));
    }
}

fn any_found(found: &WrittenStamp<'_>, text: &[u8], received: UnixMicros, zone: Option<&TimeZone>) {
    assert!(found.end <= text.len() && found.nanoseconds < 1000);
    let line = stamp_text(&found.stamp);
    assert!(is_rfc3339(line.as_bytes(), 6), "{line}");
    // The next relay reads the stamp of this one unchanged.
    let again = written::read(line.as_bytes(), received, zone).map(|again| (again.stamp, again.end));
    assert_eq!(again, Some((Stamp::Text(line.as_bytes().into()), line.len())));
    match &found.stamp {
        Stamp::Received(time) => {
            let is_place = |unread: &[u8]| is_within(unread, &text[..found.end]) && !unread.is_empty();
            return assert!(*time == received && found.nanoseconds == 0 && found.unread.is_none_or(is_place));
        }
        Stamp::Text(text_of) => assert!(is_within(text_of, &text[..found.end]) && found.nanoseconds == 0),
        Stamp::Respelt(local) => any_local(*local),
        Stamp::Local(local, source) => {
            let (now, utc) = (received.second(), local.utc());
            let is_live = (utc - now).abs() <= LIVE && is_in_use(local.offset.seconds() / 60);
            match (source, zone) {
                (ZoneSource::Clock, _) => assert!(is_live, "{line}"),
                (ZoneSource::Setting, Some(zone)) => {
                    assert_eq!(local.offset, zone.offset(local.seconds, now), "{line}")
                }
                (ZoneSource::Default, None) => assert!(local.offset == UtcOffset::UTC && !is_live, "{line}"),
                (ZoneSource::Setting, None) | (ZoneSource::Default, Some(_)) => panic!("{line} by {source:?}"),
            }
            any_local(*local);
        }
    }
    assert!(found.unread.is_none());
    assert_eq!(found.stamp.time(), UnixMicros::from_rfc3339(line.as_bytes()), "{line}");
}

/// Panics unless the RFC 3164 stamp of a time (without year, fraction and zone), received at that time, is read as that time.
fn any_local(local: LocalStamp) {
    let stamp = Stamp::Respelt(local);
    let now = UnixMicros(local.utc() * 1_000_000);
    // Nothing is received before 1970 or after 9999.
    if now.second() != local.utc() {
        return;
    }
    let text = to_bsd(&stamp).expect("a time with a text");
    let local = LocalStamp { fraction: Fraction::default(), ..local };
    let zone: TimeZone = local.offset.to_string().parse().expect("a zone");
    let expected = Stamp::Local(local, ZoneSource::Setting);
    let shown = text.escape_ascii();
    assert_eq!(StampReader::default().bsd(&text, now, Some(&zone)).as_ref(), Some(&expected), "{shown} in {zone}");
    if is_in_use(local.offset.seconds() / 60) {
        let expected = Stamp::Local(local, ZoneSource::Clock);
        assert_eq!(StampReader::default().bsd(&text, now, None).as_ref(), Some(&expected), "{shown} in {zone}");
    }
}

/// Panics unless [`StampReader`] agrees with `written`, regardless of what it has cached.
pub fn any_reader(text: &[u8], received: UnixMicros, zone: Option<&TimeZone>) {
    let mut reader = StampReader::default();
    let later = UnixMicros(received.0.saturating_add(3_600_000_000));
    let first = reader.bsd(text, received, zone);
    let other = reader.bsd(text, later, zone);
    assert_eq!(other, StampReader::default().bsd(text, later, zone));
    reader.bsd(b"Nov 20 22:28:47", received, zone);
    assert_eq!(reader.bsd(text, received, zone), first);
    if let Some(stamp) = first {
        let found = written::read(&text[..BSD_LEN], received, zone).map(|found| (found.stamp, found.end));
        assert_eq!(found, Some((stamp, BSD_LEN)), "{}", text.escape_ascii());
        let whole = written::read(text, received, zone).filter(|_| text.get(BSD_LEN) == Some(&b' '));
        let goes_on = written::goes_on(text, BSD_LEN);
        assert!(whole.is_none_or(|whole| goes_on == (whole.end > BSD_LEN)), "{}", text.escape_ascii());
    }
    let word = text.split(|b| *b == b' ').next().unwrap_or_default();
    for fraction in [6, 9, 6] {
        assert_eq!(reader.is_rfc3339(word, fraction), is_rfc3339(word, fraction), "{}", word.escape_ascii());
    }
}

/// Panics unless the message after a stamp is the end of the frame as sent.
pub fn any_message(text: &[u8], received: UnixMicros, settings: &Settings) {
    for head in [&b"<13>"[..], b"<13>1 "] {
        let bytes = [head, text].concat();
        let reading = parse(&Frame { bytes: &bytes, cut: false, received }, settings, Senders::Anybody);
        let sent = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let message = reading.record.message.unwrap_or_default();
        assert!(sent.ends_with(message), "{} of {}", message.escape_ascii(), bytes.escape_ascii());
        assert_eq!(parse(&Frame { bytes: &bytes, cut: false, received }, settings, Senders::Anybody), reading);
    }
}

/// Panics unless a stamp with chosen time and spelling is read as that time, and to its end.
pub fn any_spelling(choices: &[u8], received: UnixMicros, zone: Option<&TimeZone>) {
    let mut choices = choices.iter().copied();
    let mut choose = |count: usize| usize::from(choices.next().unwrap_or_default()) % count;
    let written = Spelling::chosen(&mut choose);
    let behind = ["", " r1 app: x", ": %SYS-5-CONFIG_I: x", "  r1"][choose(4)];
    let (text, blanks) = (written.text.as_str(), " ".repeat(choose(3)));
    let sent = format!("{blanks}{text}{behind}");
    let found = written::read(sent.as_bytes(), received, zone).unwrap_or_else(|| panic!("{sent:?} is none"));
    assert_eq!(found.end, blanks.len() + text.len(), "{sent:?}");
    let Some(said) = written.seconds else {
        return assert_eq!((found.stamp, found.unread), (Stamp::Received(received), Some(text.as_bytes())), "{sent:?}");
    };
    let (fraction, nanoseconds) = Fraction::read(written.fraction.as_bytes());
    let stamp = match (found.stamp, written.offset) {
        (stamp, Some(_)) if is_rfc3339(text.as_bytes(), 6) => {
            return assert_eq!(stamp, Stamp::Text(text.as_bytes().into()), "{sent:?}");
        }
        (Stamp::Respelt(local), Some(offset)) => LocalStamp { offset, ..local },
        (Stamp::Local(local, _), None) => local,
        (stamp, offset) => panic!("{sent:?} in {offset:?} is {stamp:?}"),
    };
    assert_eq!((stamp.seconds, stamp.fraction, found.nanoseconds), (said, fraction, nanoseconds), "{sent:?}");
}

/// A stamp with a year in a chosen spelling, and its meaning.
struct Spelling {
    text: String,
    /// The local time in seconds from 1970; `None`: there is no such day or time.
    seconds: Option<i64>,
    /// Digits.
    fraction: String,
    /// `None`: the stamp has no zone.
    offset: Option<UtcOffset>,
}

impl Spelling {
    fn chosen(choose: &mut impl FnMut(usize) -> usize) -> Self {
        let (year, month, day) = (1900 + choose(200) as i32, 1 + choose(12), 1 + choose(31));
        let (hour, minute, second) = (choose(25), choose(61), choose(62));
        let fraction: String = (0..choose(12)).map(|digit| char::from(b'0' + (digit * 7 % 10) as u8)).collect();
        let name = str::from_utf8(MONTHS[month - 1]).expect("ASCII");
        let name = [name.to_owned(), name.to_uppercase(), name.to_lowercase()][choose(3)].clone();
        let (before, year_behind) = match choose(14) {
            0 => (format!("{name} {day} {year} "), false),
            1 => (format!("{name} {day:2} {year}  "), false),
            2 => (format!("{year} {name} {day:02} "), false),
            3 => (format!("{day} {name} {year} "), false),
            4 => (format!("{day:02}-{name}-{year} "), false),
            5 => (format!("{day:02}/{name}/{year}:"), false),
            6 => (format!("{year}-{month:02}-{day:02} "), false),
            7 => (format!("{year}/{month:02}/{day:02}-"), false),
            8 => (format!("{year}:{month:02}:{day:02}-"), false),
            9 => (format!("{month:02}/{day:02}/{year}:"), false),
            10 => (format!("{name} {day:2} "), true),
            11 => (format!("{name} {day:02} "), true),
            _ => (format!("{year}-{month:02}-{day:02}T"), false),
        };
        let weekday = ["", "", "", "Fri ", "SAT, "][choose(5)];
        let is_short = before.ends_with('T') && second == 0 && fraction.is_empty() && choose(2) == 0;
        let half = ["", "", "", " AM", "PM", " pm"][choose(6)];
        let time = match (is_short, choose(4)) {
            (true, _) => format!("{hour:02}:{minute:02}"),
            (_, 0) => format!("{hour}:{minute}:{second}"),
            _ => format!("{hour:02}:{minute:02}:{second:02}"),
        };
        let point = match (fraction.as_str(), choose(3)) {
            ("", _) => "",
            (_, 0) => ",",
            _ => ".",
        };
        let (zone, offset) = zone(choose);
        // A zone after AM or PM needs a blank.
        let gap = if !zone.is_empty() && (!half.is_empty() || choose(2) == 0) { " " } else { "" };
        let (zone, year_text) = (format!("{gap}{zone}"), format!(" {year}"));
        let tail = match (year_behind, choose(2)) {
            (false, _) => zone,
            (true, 0) if !zone.starts_with(' ') => format!("{zone}{year_text}"),
            (true, 0) => format!("{year_text}{zone}"),
            (true, _) => format!("{zone}{year_text}"),
        };
        let of_day = match (hour, half.trim().to_ascii_uppercase().as_str()) {
            (12, "AM") => 0,
            (1..12, "PM") => hour + 12,
            _ => hour,
        };
        let date = NaiveDate::from_ymd_opt(year, month as u32, day as u32);
        let exists = of_day < 24 && minute < 60 && second < 61;
        let midnight = date.filter(|_| exists).and_then(|date| date.and_hms_opt(0, 0, 0));
        let since = (of_day * 3600 + minute * 60 + second.min(59)) as i64;
        let seconds = midnight.map(|midnight| midnight.and_utc().timestamp() + since);
        Self { text: format!("{weekday}{before}{time}{point}{fraction}{half}{tail}"), seconds, fraction, offset }
    }
}

/// A zone in a chosen spelling, and its offset.
fn zone(choose: &mut impl FnMut(usize) -> usize) -> (String, Option<UtcOffset>) {
    // Each quarter of an hour from -12:00 to +14:00.
    let minutes = choose(105) as i64 * 15 - 12 * 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
    let plain: Vec<_> = ABBREVIATIONS.iter().filter(|(_, meanings)| meanings.len() == 1).collect();
    let (text, minutes) = match choose(8) {
        0 => return (String::new(), None),
        1 => (format!("{sign}{hours:02}{rest:02}"), minutes),
        2 if rest == 0 => (format!("{sign}{hours:02}"), minutes),
        3 if rest == 0 && hours < 10 => (format!("UTC{sign}{hours}"), minutes),
        4 => (format!("GMT{sign}{hours:02}:{rest:02}"), minutes),
        5 | 6 => {
            let (letters, meanings) = plain[choose(plain.len())];
            ((*letters).to_owned(), i64::from(meanings[0]))
        }
        _ => (format!("{sign}{hours:02}:{rest:02}"), minutes),
    };
    (text, UtcOffset::from_seconds(minutes * 60))
}

fn is_within(part: &[u8], text: &[u8]) -> bool {
    let (part, text) = (part.as_ptr_range(), text.as_ptr_range());
    text.start <= part.start && part.end <= text.end
}

/// All invariants above, with everything chosen by `data`.
pub fn any_bytes(data: &[u8]) {
    let Some(([zone, received @ ..], text)) = data.split_first_chunk::<5>() else { return };
    // Any second until 2106.
    let received = UnixMicros(i64::from(u32::from_le_bytes(*received)) * 1_000_000);
    let zone = ZONES.get(usize::from(*zone)).and_then(|zone| zone.parse::<TimeZone>().ok());
    any_stamp(text, received, zone.as_ref());
    any_reader(text, received, zone.as_ref());
    any_spelling(text, received, zone.as_ref());
    any_message(text, received, &Settings { time_zone: zone, ..Settings::default() });
}
