//! All messages with a header that is neither Docker's nor strict RFC 5424.
//!
//! `stamp::written` reads the stamp of RFC 3164, `stamp::cisco` reads what Cisco writes in front of it, and `words` reads the rest. These
//! modules give the reasons.

use std::borrow::Cow;
use std::ops::Range;

use super::stamp::cisco::{self, CiscoHeader};
use super::stamp::written::{self, WrittenStamp};
use super::words::{self, Words};
use super::{Reader, Reading, Shape, Stamp, docker};
use crate::record::header::MAX_PROC_ID;
use crate::record::{HeaderField, Record, StructuredData};

/// Maximum bytes of a header.
const MAX_HEADER: usize = 4096;

pub(super) fn read<'a>(reader: &Reader<'_, 'a>) -> Option<Reading<'a>> {
    let text = reader.rest;
    let (received, zone) = (reader.frame.received, reader.zone);
    if let [b'1', b' ', behind_version @ ..] = text {
        let others = || read_epoch(reader, text).or_else(|| read_5424(reader, text));
        // The `1` may be the first day of a month, and no version.
        let day_first = || read_stamped(reader, written::read(text, received, zone)?, None);
        return read_format(reader, behind_version).or_else(others).or_else(day_first);
    }
    if let Some(CiscoHeader { stamp, host, process }) = cisco::read(text, received, zone) {
        let mut reading = read_stamped(reader, stamp, host)?;
        let process = process.and_then(|process| HeaderField::legal(process, MAX_PROC_ID));
        reading.record.proc_id = reading.record.proc_id.or(process);
        return Some(reading);
    }
    if let Some(stamp) = written::read(text, received, zone) {
        return read_stamped(reader, stamp, None);
    }
    let words = words::without_stamp(text)?;
    Some(reading(reader, Stamp::Received(received), &words))
}

/// The reading of a stamp and the text after it. `host`: the host in front of the stamp.
fn read_stamped<'a>(reader: &Reader<'_, 'a>, stamp: WrittenStamp<'a>, host: Option<&'a [u8]>) -> Option<Reading<'a>> {
    if stamp.end >= MAX_HEADER {
        return None;
    }
    let words = words::behind_stamp(&reader.rest[stamp.end..]);
    let mut reading = reading(reader, stamp.stamp, &Words { host: host.or(words.host), ..words });
    reading.record.nanoseconds = stamp.nanoseconds;
    reading.record.unread_stamp = stamp.unread.map(Cow::Borrowed);
    Some(reading)
}

/// `1 STAMP HOST CEF:…`: RFC 5424 up to HOSTNAME, followed by CEF or LEEF without the other fields.
fn read_format<'a>(reader: &Reader<'_, 'a>, text: &'a [u8]) -> Option<Reading<'a>> {
    let stamp = written::read(text, reader.frame.received, reader.zone)?;
    let words = words::behind_stamp(&text[stamp.end..]);
    words::is_format(words.message).then(|| reading(reader, stamp.stamp, &words))
}

/// `1 1795213727.321456 HOST APP text`: Meraki's format, which has only the version of RFC 5424.
fn read_epoch<'a>(reader: &Reader<'_, 'a>, text: &'a [u8]) -> Option<Reading<'a>> {
    let stamp = written::read_epoch(text, 2)?;
    let host = word_behind(text, stamp.end);
    let tag = word_behind(text, host.end);
    let (header, message) = text.get(tag.start..)?.split_at_checked(tag.len() + 1)?;
    let words = Words { host: text.get(host), tag: text.get(tag), pid: None, header, message };
    let mut reading = reading(reader, stamp.stamp, &words);
    reading.record.nanoseconds = stamp.nanoseconds;
    Some(reading)
}

fn reading<'a>(reader: &Reader<'_, 'a>, stamp: Stamp<'a>, words: &Words<'a>) -> Reading<'a> {
    let mut record = reader.tagged(stamp, words.host, words.tag, words.pid, words.message);
    record.remember_msghdr(words.header);
    Reading { record, shape: Shape::Rfc3164 }
}

/// Lenient RFC 5424: more than one blank between the fields, or a stamp in another form.
fn read_5424<'a>(reader: &Reader<'_, 'a>, text: &'a [u8]) -> Option<Reading<'a>> {
    let (received, zone) = (reader.frame.received, reader.zone);
    let start = word_behind(text, 1).start;
    let stamp = match text.get(start..start + 2)? {
        b"- " => WrittenStamp { stamp: Stamp::Received(received), nanoseconds: 0, unread: None, end: start + 1 },
        _ => written::read_iso(text, start, received, zone)?,
    };
    let host = word_behind(text, stamp.end);
    let tag = word_behind(text, host.end);
    // PROCID stays text: `007` is not `7`.
    let pid = word_behind(text, tag.end);
    let msg_id = word_behind(text, pid.end);
    if stamp.unread.is_some() || msg_id.end >= MAX_HEADER {
        return None;
    }
    let rest = text.get(word_behind(text, msg_id.end).start..).filter(|rest| !rest.is_empty())?;
    let field = |place: &Range<usize>| text.get(place.clone()).and_then(HeaderField::verbatim);
    let mut record = Record {
        timestamp: Some(stamp.stamp),
        hostname: field(&host),
        app_name: field(&tag),
        proc_id: field(&pid),
        msg_id: field(&msg_id),
        ..reader.record(b"")
    };
    record.take_rest(rest, &reader.settings.sd_id);
    // The stamp's nanoseconds count, whatever a mark says. Beside malformed data the line has no place for them.
    let is_malformed = record.structured_data == StructuredData::Malformed;
    // With a valid stamp the next relay would take the line for Docker's, which it is not.
    if is_malformed {
        let header = [host, tag, pid, msg_id].map(|place| text.get(place).unwrap_or_default());
        if docker::has_tag_twice(&[&header[..], &[rest]].concat().join(&b' ')) {
            return None;
        }
    }
    record.nanoseconds = if is_malformed { 0 } else { stamp.nanoseconds };
    Some(Reading { record, shape: Shape::Rfc5424 })
}

/// The next word at or after `at`.
fn word_behind(text: &[u8], at: usize) -> Range<usize> {
    let is_blank = |b: &&u8| b.is_ascii_whitespace() || **b == 0x0b;
    let behind = text.get(at..).unwrap_or_default();
    let start = at + behind.iter().take_while(is_blank).count();
    let len = text.get(start..).unwrap_or_default().iter().take_while(|b| !is_blank(b)).count();
    start..start + len
}
