//! The stamp at the start of any sender's header: where it begins and ends, and its fields.
//!
//! ```text
//! [WEEKDAY] Mmm d[,] [YEAR] TIME  YEAR Mmm d TIME     Mmm YEAR d TIME     d Mmm YEAR TIME     YEAR-mm-dd{T, blank}TIME     mm/dd/YEAR:TIME
//! TIME    h:m:s[{.,}FRACTION]     h:m:s:MILLISECONDS YEAR
//! behind  [{AM, PM}] [ZONE] [YEAR], in any order: Z, +hh:mm, +hhmm, +hh, CET, UTC+1, [GMT+hh:mm:ss]
//! ```
//!
//! Host, tag and text begin at [`WrittenStamp::end`] and are not read here.

use super::resolve::Resolved;
use super::zones::{SaidZone, abbreviation};
use super::{SaidTime, month};
use crate::record::time::{MAX_LOCAL_LEN, digit, is_rfc3339, two};
use crate::record::{Fraction, LocalStamp, Stamp, TimeZone, UnixMicros, UtcOffset};

/// A stamp that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenStamp<'a> {
    pub stamp: Stamp<'a>,
    /// See [`Record::nanoseconds`](crate::record::Record::nanoseconds).
    pub nanoseconds: u16,
    /// The text in the stamp's place if it is no time: a day that does not exist, or an uptime.
    pub unread: Option<&'a [u8]>,
    /// The index of the first byte after the stamp and its zone: a blank, a `:`, or anything else.
    pub end: usize,
}

/// Reads a stamp at the start of `text`, after any number of blanks. `None`: the text is no stamp. `zone`: the zone of the settings.
pub(crate) fn read<'a>(text: &'a [u8], received: UnixMicros, zone: Option<&TimeZone>) -> Option<WrittenStamp<'a>> {
    // Some devices have a blank between priority and stamp.
    let start = text.iter().take_while(|b| **b == b' ').count();
    find_at(text, start, received, zone)
}

/// The stamp that begins at `start`.
pub(super) fn find_at<'a>(
    text: &'a [u8],
    start: usize,
    received: UnixMicros,
    zone: Option<&TimeZone>,
) -> Option<WrittenStamp<'a>> {
    let mut cursor = Cursor { text, at: start };
    // Callers try a long word from each of its `:` on, so only its start is examined.
    let near = &cursor.rest()[..cursor.rest().len().min(MAX_LOCAL_LEN + 1)];
    let word = near.split(|b| matches!(b, b' ' | b'\t')).next()?;
    if is_rfc3339(word, 6) {
        cursor.at += word.len();
        cursor.tail(&mut SaidTime::default(), &mut 0);
        return Some(WrittenStamp { stamp: Stamp::Text(word.into()), nanoseconds: 0, unread: None, end: cursor.at });
    }
    let (said, nanoseconds) = cursor.stamp()?;
    let (written, end) = (text.get(start..cursor.at)?, cursor.at);
    // The word above may include a `:` after the stamp. This text does not.
    if is_rfc3339(written, 6) {
        return Some(WrittenStamp { stamp: Stamp::Text(written.into()), nanoseconds: 0, unread: None, end });
    }
    Some(match said.resolve(received, zone) {
        Some(Resolved::Written(local)) => WrittenStamp { stamp: Stamp::Respelt(local), nanoseconds, unread: None, end },
        Some(Resolved::Found(local, source)) => {
            WrittenStamp { stamp: Stamp::Local(local, source), nanoseconds, unread: None, end }
        }
        None => WrittenStamp { stamp: Stamp::Received(received), nanoseconds: 0, unread: Some(written), end },
    })
}

/// Reads a stamp that begins with a year of four digits and a `-`, as in RFC 5424.
pub(crate) fn read_iso<'a>(
    text: &'a [u8],
    start: usize,
    received: UnixMicros,
    zone: Option<&TimeZone>,
) -> Option<WrittenStamp<'a>> {
    let begins = |text: &[u8]| text.len() > 4 && text[..4].iter().all(u8::is_ascii_digit) && text[4] == b'-';
    text.get(start..).filter(|text| begins(text)).and_then(|_| find_at(text, start, received, zone))
}

/// Reads seconds since 1970 with a fraction: ten digits, which suffice until 2286.
pub(crate) fn read_epoch(text: &[u8], start: usize) -> Option<WrittenStamp<'_>> {
    let mut cursor = Cursor { text, at: start };
    let digits = cursor.rest().first_chunk::<10>()?;
    let seconds = digits.iter().try_fold(0, |seconds, b| Some(seconds * 10 + i64::from(digit(*b)?)))?;
    cursor.at += digits.len();
    let (fraction, nanoseconds) = cursor.fraction()?;
    let stamp = Stamp::Respelt(LocalStamp { seconds, fraction, offset: UtcOffset::UTC });
    let found = WrittenStamp { stamp, nanoseconds, unread: None, end: cursor.at };
    (cursor.rest().first() == Some(&b' ')).then_some(found)
}

/// Whether the stamp that seems to end at `end` continues after a blank with a year, a zone, AM or PM. None of these is a host.
pub(crate) fn goes_on(text: &[u8], end: usize) -> bool {
    Cursor { text, at: end }.more(&mut SaidTime::default(), &mut 0).is_some()
}

/// Whether a text begins with a month and a blank, as a stamp does.
pub(super) fn begins_with_month(text: &[u8]) -> bool {
    let mut cursor = Cursor { text, at: 0 };
    cursor.month().is_some() && cursor.blanks().is_some()
}

/// Reads from a place in a text. A method that returns `None` may have moved the place; [`Cursor::attempt`] does not.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The fields of a stamp, and its nanoseconds.
    fn stamp(&mut self) -> Option<(SaidTime, u16)> {
        self.attempt(Self::weekday);
        let dates = [Self::month_first, Self::year_first, Self::day_first, Self::slashed];
        let mut said = dates.into_iter().find_map(|date| self.attempt(date))?;
        let mut nanoseconds = self.time(&mut said)?;
        self.tail(&mut said, &mut nanoseconds);
        self.is_over().then_some((said, nanoseconds))
    }

    /// `Sat `, `Sat, `
    fn weekday(&mut self) -> Option<()> {
        let name = self.three_letters()?;
        [*b"MON", *b"TUE", *b"WED", *b"THU", *b"FRI", *b"SAT", *b"SUN"].contains(&name).then_some(())?;
        self.eat(b',');
        self.blanks()
    }

    /// `Nov 28 `, `Nov 28 2026 `, `Nov 28, 2026 `, `Nov 2026 28 `
    fn month_first(&mut self) -> Option<SaidTime> {
        let month = self.month()?;
        self.blanks()?;
        let early = self.attempt(Self::year_and_blanks);
        let day = self.number(1..=2)?;
        self.eat(b',');
        self.blanks()?;
        let year = early.or_else(|| self.attempt(Self::year_and_blanks));
        Some(SaidTime { year, month, day, ..SaidTime::default() })
    }

    fn year_and_blanks(&mut self) -> Option<i32> {
        let year = self.year()?;
        self.blanks()?;
        Some(year)
    }

    /// `2026-11-28T`, `2026-11-28 `, `2026/11/28-`, `2026:11:28-`, `2026 Nov 28 `
    fn year_first(&mut self) -> Option<SaidTime> {
        let year = Some(self.year()?);
        if self.blanks().is_some() {
            return self.month_first().filter(|said| said.year.is_none()).map(|said| SaidTime { year, ..said });
        }
        let separator = self.one_of(b"-/:")?;
        let month = self.number(2..=2)?;
        self.eat(separator)?;
        let day = self.number(2..=2)?;
        if self.one_of(b"Tt-:").is_none() {
            self.blanks()?;
        }
        Some(SaidTime { year, month, day, ..SaidTime::default() })
    }

    /// `28 Nov 2026 `, `28-Nov-2026 `, `28/Nov/2026:`
    fn day_first(&mut self) -> Option<SaidTime> {
        let day = self.number(1..=2)?;
        let separator = self.one_of(b" -/")?;
        let month = self.month()?;
        self.eat(separator)?;
        let year = Some(self.year()?);
        if self.eat(b':').is_none() {
            self.blanks()?;
        }
        Some(SaidTime { year, month, day, ..SaidTime::default() })
    }

    /// `11/28/2026:` as NetScaler writes it by default, and `28/11/2026:` as it can be configured.
    fn slashed(&mut self) -> Option<SaidTime> {
        let (first, _) = (self.number(2..=2)?, self.eat(b'/')?);
        let (second, _) = (self.number(2..=2)?, self.eat(b'/')?);
        let year = Some(self.year()?);
        self.eat(b':')?;
        let (month, day) = if first > 12 { (second, first) } else { (first, second) };
        Some(SaidTime { year, month, day, ..SaidTime::default() })
    }

    /// `20:16:10`, `20:16:10.321`; behind a `T` also `20:16`. Returns the nanoseconds.
    fn time(&mut self, said: &mut SaidTime) -> Option<u16> {
        let is_iso = self.at > 0 && matches!(self.text[self.at - 1], b'T' | b't');
        said.hour = self.number(1..=2)?;
        self.eat(b':')?;
        said.minute = self.number(1..=2)?;
        if self.is_word_over() || self.eat(b':').is_none() {
            return is_iso.then_some(0);
        }
        said.second = self.number(1..=2)?;
        // A stamp with a year in front has no year after the milliseconds.
        let milliseconds = |cursor: &mut Self| cursor.attempt(Self::milliseconds).filter(|_| said.year.is_none());
        let fraction = self.attempt(Self::fraction).or_else(|| self.attempt(milliseconds));
        let (fraction, nanoseconds) = fraction.unwrap_or_default();
        said.fraction = fraction;
        Some(nanoseconds)
    }

    /// Reads everything after the seconds.
    fn tail(&mut self, said: &mut SaidTime, nanoseconds: &mut u16) {
        while self.attempt(|cursor| cursor.more(said, nanoseconds)).is_some() {}
    }

    /// Reads one part after the seconds, with the blanks in front of it.
    fn more(&mut self, said: &mut SaidTime, nanoseconds: &mut u16) -> Option<()> {
        let is_apart = self.blanks().is_some();
        let (mut more, mut rest) = (*said, *nanoseconds);
        if let Some(is_afternoon) = self.attempt(Self::half) {
            more.hour = match (said.hour, is_afternoon) {
                (12, false) => 0,
                (hour @ 1..12, true) => hour + 12,
                (hour, _) => hour,
            };
            // Cisco's call manager writes the fraction here.
            (more.fraction, rest) = self.attempt(Self::fraction).unwrap_or((more.fraction, rest));
        } else if let Some(zone) = self.attempt(Self::zone) {
            // Some senders write the zone twice, as in `+01:00 CET`.
            if said.zone == SaidZone::None {
                more.zone = zone;
            }
        } else if is_apart && said.year.is_none() {
            more.year = Some(self.year()?);
        } else {
            return None;
        }
        self.is_word_over().then(|| (*said, *nanoseconds) = (more, rest))
    }

    /// AM or PM. Returns whether it is PM. `AMT` is a zone.
    fn half(&mut self) -> Option<bool> {
        let first = self.one_of(b"AaPp")?;
        self.one_of(b"Mm")?;
        self.is_over().then_some(first.eq_ignore_ascii_case(&b'P'))
    }

    fn zone(&mut self) -> Option<SaidZone> {
        let offset = self.attempt(Self::offset).or_else(|| self.attempt(Self::bracketed));
        offset.map(SaidZone::Offset).or_else(|| self.zone_word())
    }

    /// `[GMT+08:00:00]`, `[GMT -05:00:00]` (H3C)
    fn bracketed(&mut self) -> Option<UtcOffset> {
        b"[GMT".iter().try_for_each(|byte| self.eat(*byte))?;
        self.attempt(Self::blanks);
        let offset = self.offset()?;
        b":00]".iter().try_for_each(|byte| self.eat(*byte))?;
        Some(offset)
    }

    /// `.321`, `,321`
    fn fraction(&mut self) -> Option<(Fraction, u16)> {
        self.one_of(b".,")?;
        let digits = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        let read = Fraction::read(&self.rest()[..digits]);
        self.at += digits;
        (digits > 0).then_some(read)
    }

    /// `:321`, followed by the year (H3C). Otherwise the `:` ends the stamp.
    fn milliseconds(&mut self) -> Option<(Fraction, u16)> {
        self.eat(b':')?;
        let read = Fraction::read(self.rest().get(..3)?);
        self.number(3..=3)?;
        let mut behind = *self;
        behind.blanks()?;
        behind.year()?;
        behind.is_word_over().then_some(read)
    }

    /// `+01:00`, `+0100`, `+01`
    fn offset(&mut self) -> Option<UtcOffset> {
        let sign = if self.one_of(b"+-")? == b'+' { 1 } else { -1 };
        let hours = self.two_digits()?;
        let minutes = self.attempt(|cursor| {
            cursor.eat(b':');
            cursor.two_digits().filter(|minutes| *minutes < 60)
        });
        UtcOffset::from_seconds(sign * i64::from(hours * 3600 + minutes.unwrap_or(0) * 60))
    }

    /// A zone by its abbreviation, some of them with an offset: `CET`, `UTC`, `UTC+1`, `GMT-05:00`, `TZ-6`.
    fn zone_word(&mut self) -> Option<SaidZone> {
        let letters = self.rest().iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let word = &self.rest()[..letters];
        self.at += letters;
        if let b"UTC" | b"GMT" | b"TZ" = word {
            let east = self.attempt(|cursor| cursor.attempt(Self::offset).or_else(|| cursor.hours()));
            if let Some(offset) = east {
                return Some(SaidZone::Offset(offset));
            }
        }
        abbreviation(word)
    }

    /// `+1`, `-6`
    fn hours(&mut self) -> Option<UtcOffset> {
        let sign = if self.one_of(b"+-")? == b'+' { 1 } else { -1 };
        UtcOffset::from_seconds(sign * i64::from(self.number(1..=1)?) * 3600)
    }

    /// 19xx or 20xx.
    fn year(&mut self) -> Option<i32> {
        let year = self.number(4..=4)?;
        (1900..2100).contains(&year).then_some(year as i32)
    }

    fn month(&mut self) -> Option<u32> {
        let [first, second, third] = self.three_letters()?;
        month([first, second.to_ascii_lowercase(), third.to_ascii_lowercase()])
    }

    /// Three letters and no fourth, in upper case.
    fn three_letters(&mut self) -> Option<[u8; 3]> {
        let word = *self.rest().first_chunk::<3>()?;
        self.at += word.len();
        let is_word = word.iter().all(u8::is_ascii_alphabetic);
        (is_word && !self.rest().first().is_some_and(u8::is_ascii_alphabetic))
            .then(|| word.map(|b| b.to_ascii_uppercase()))
    }

    fn two_digits(&mut self) -> Option<u32> {
        let value = two(self.text, self.at)?;
        self.at += 2;
        Some(value)
    }

    /// A number with this many digits. No digit may follow.
    fn number(&mut self, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
        let all = self.rest().iter().map_while(|b| digit(*b)).take(digits.end() + 1);
        let (len, value) = all.fold((0, 0), |(len, value), digit| (len + 1, value * 10 + digit));
        self.at += len;
        digits.contains(&len).then_some(value)
    }

    fn blanks(&mut self) -> Option<()> {
        let blanks = self.rest().iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        self.at += blanks;
        (blanks > 0).then_some(())
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.one_of(&[byte]).map(|_| ())
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let byte = *self.rest().first().filter(|byte| bytes.contains(byte))?;
        self.at += 1;
        Some(byte)
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Whether no letter or digit follows.
    fn is_over(&self) -> bool {
        !self.rest().first().is_some_and(u8::is_ascii_alphanumeric)
    }

    /// Whether the word ends here. If it continues, it is a host, as `MST.example.com` and `2001:db8::7` are.
    fn is_word_over(&self) -> bool {
        matches!(self.rest(), [] | [b' ' | b'\t', ..] | [b':'] | [b':', b' ' | b'\t', ..])
    }

    /// Calls `read`, and restores the place if that returns `None`.
    fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = *self;
        let read = read(self);
        if read.is_none() {
            *self = before;
        }
        read
    }
}
