//! Everything with a header that is neither Docker's nor RFC 5424 to the letter, by way of `syslog_loose`.
//!
//! `syslog_loose` finds the header fields. It is not asked for the rest: it takes text only, trims the message's
//! indentation, takes a leading `[x y="z"]` out of it, and knows neither year nor zone of a stamp. So it gets an
//! ASCII picture of the header, byte for byte of the same length; its fields are places in that picture, and what
//! goes on is what stands at these places in the frame.

use std::ops::Range;

use chrono::Utc;
use syslog_loose::{Variant, parse_message_with_year_exact_tz};

use super::stamp::BsdStamp;
use super::{Reader, Reading, Shape, Stamp, UtcOffset};
use crate::record::time::is_rfc3339;
use crate::record::{HeaderField, LocalStamp, Record};

/// No header is longer, in bytes; nobody can make the picture larger.
const MAX_HEADER: usize = 4096;

/// What is put in front of the header, so that `syslog_loose` finds a priority.
const PRI: &str = "<13>";

type Parsed<'p> = syslog_loose::Message<&'p str>;

pub(super) fn read<'a>(reader: &Reader<'_, 'a>) -> Option<Reading<'a>> {
    let text = reader.rest;
    if let [b'1', b' ', ..] = text {
        return read_5424(reader, text);
    }
    // Some devices have a blank between priority and stamp.
    let blanks = text.iter().take_while(|b| **b == b' ').count();
    let (stamp, len) = read_stamp(reader, &text[blanks..])?;
    let stamp_end = blanks + len;
    if stamp_end >= MAX_HEADER {
        return None;
    }
    let mut picture = picture(text);
    // A date that does not exist would make it give up on the whole header: every number becomes a harmless one.
    if !text[blanks].is_ascii_digit() {
        let shown = PRI.len() + blanks..PRI.len() + stamp_end;
        let harmless = picture[shown.clone()].replace(|c: char| c.is_ascii_digit(), "1");
        picture.replace_range(shown, &harmless);
    }
    let parsed = parse_message_with_year_exact_tz(&picture, |_| 2000, Some(Utc), Variant::RFC3164).ok()?;
    let place = |field: Option<&str>| place(&picture, field?);
    let (mut host, mut tag) = (place(parsed.hostname), place(parsed.appname));
    let mut end = tag.clone().or(host.clone()).map_or(stamp_end, |field| field.end);
    // One word with a `:` behind it is a tag: programs on the same machine send no host.
    if tag.is_none() && text.get(end) == Some(&b':') {
        tag = host.take();
    }
    let mut pid = None;
    if parsed.procid.is_some() {
        let close = end + memchr::memchr(b']', text.get(end..)?)?;
        pid = text.get(end + 1..close);
        end = close + 1;
    }
    if end >= MAX_HEADER {
        return None;
    }
    let field = |place: Option<Range<usize>>| text.get(place?).filter(|field| !field.is_empty() && *field != b"-");
    let tag = field(tag);
    let record = reader.tagged(stamp, field(host), tag, pid, behind_header(text.get(end..)?));
    Some(Reading { record, shape: Shape::Rfc3164 })
}

/// RFC 5424 with more than one blank between its fields.
fn read_5424<'a>(reader: &Reader<'_, 'a>, text: &'a [u8]) -> Option<Reading<'a>> {
    let picture = picture(text);
    let parsed: Parsed<'_> = parse_message_with_year_exact_tz(&picture, |_| 2000, Some(Utc), Variant::RFC5424).ok()?;
    let place = |field: Option<&str>| place(&picture, field?);
    let (host, tag, msg_id) = (place(parsed.hostname)?, place(parsed.appname)?, place(parsed.msgid));
    // The number is not the text: `007` is no 7.
    let pid = word_behind(text, tag.end);
    let msg_id = msg_id.or_else(|| Some(word_behind(text, pid.end)))?;
    let rest = text.get(word_behind(text, msg_id.end).start..)?;
    if rest.is_empty() {
        return None;
    }
    let field = |place: Range<usize>| text.get(place).and_then(HeaderField::verbatim);
    let stamp = text.get(word_behind(text, 1))?;
    let timestamp = match is_rfc3339(stamp, 9) {
        true => Stamp::Text(stamp.into()),
        false => Stamp::Received(reader.frame.received),
    };
    let mut record = Record {
        timestamp: Some(timestamp),
        hostname: field(host).or(reader.hostname(None)),
        app_name: field(tag),
        proc_id: field(pid),
        msg_id: field(msg_id),
        ..reader.record(b"")
    };
    record.take_rest(rest, &reader.settings.sd_id);
    Some(Reading { record, shape: Shape::Rfc5424 })
}

/// The stamp at the start of `text` and its length.
fn read_stamp<'a>(reader: &Reader<'_, 'a>, text: &'a [u8]) -> Option<(Stamp<'a>, usize)> {
    let received = reader.frame.received;
    if let Some((stamp, len)) = BsdStamp::read_loosely(text) {
        let local = stamp.resolve(received, reader.settings.utc_offset);
        return Some((local.map_or(Stamp::Received(received), Stamp::Local), len));
    }
    let word = text.get(word_behind(text, 0)).filter(|word| word.first().is_some_and(u8::is_ascii_digit))?;
    if is_rfc3339(word, 6) {
        return Some((Stamp::Text(word.into()), word.len()));
    }
    // More digits than RFC 5424 allows, lower-case letters, a leap second.
    let time = chrono::DateTime::parse_from_rfc3339(std::str::from_utf8(word).ok()?).ok()?;
    let offset = UtcOffset::from_seconds(i64::from(time.offset().local_minus_utc())).unwrap_or(UtcOffset::UTC);
    Some((Stamp::Respelt(LocalStamp { seconds: time.timestamp() + offset.seconds(), offset }), word.len()))
}

/// The header in ASCII, every other byte as `?`, behind a priority.
fn picture(text: &[u8]) -> String {
    let header = &text[..text.len().min(MAX_HEADER)];
    let ascii = header.iter().map(|b| if b.is_ascii() { char::from(*b) } else { '?' });
    PRI.chars().chain(ascii).collect()
}

/// Where in the frame a field of the picture stands.
fn place(picture: &str, field: &str) -> Option<Range<usize>> {
    let start = (field.as_ptr() as usize).checked_sub(picture.as_ptr() as usize + PRI.len())?;
    Some(start..start + field.len())
}

/// The next word behind `at`.
fn word_behind(text: &[u8], at: usize) -> Range<usize> {
    let is_blank = |b: &&u8| b.is_ascii_whitespace() || **b == 0x0b;
    let behind = text.get(at..).unwrap_or_default();
    let start = at + behind.iter().take_while(is_blank).count();
    let len = text.get(start..).unwrap_or_default().iter().take_while(|b| !is_blank(b)).count();
    start..start + len
}

/// The message behind the last field of the header: one `:` and one blank are the header's, all else is the message's.
fn behind_header(rest: &[u8]) -> &[u8] {
    match rest {
        [b':', b' ', message @ ..] | [b' ', b':', b' ', message @ ..] | [b' ', message @ ..] => message,
        [b':', message @ ..] => message,
        _ => rest,
    }
}
