//! The fast path: the shapes that Docker's syslog driver sends, read without a copy (moby `daemon/logger/syslog/syslog.go` and RackSec's
//! `srslog/formatter.go`).
//!
//! ```text
//! default        Mmm _d hh:mm:ss TAG[pid]: MSG
//! rfc3164        Mmm _d hh:mm:ss HOST TAG[pid]: MSG
//! rfc5424        1 STAMP HOST TAG pid TAG - MSG
//! ```
//!
//! A tag is the output of the user's template and can have any length: tags often exceed the RFCs' limits. Other senders use the RFC 3164
//! shapes too, so a message in these shapes counts as Docker's only if its tag identifies a container.

use std::borrow::Cow;

use memchr::memchr;

use super::stamp::written::goes_on;
use super::words::is_host;
use super::{Reader, Reading, Senders, Settings, Shape, Stamp, StampReader, original_host};
use crate::record::header::{MAX_APP_NAME, MAX_HOSTNAME, MAX_PROC_ID};
use crate::record::time::{BSD_LEN, is_rfc3339};
use crate::record::{HeaderField, Record, StructuredData};

/// Maximum bytes in which a tag with blanks is searched for.
pub(super) const MAX_TAG_WITH_BLANKS: usize = 512;

/// Reads Docker's shapes with a tag without blanks.
pub(super) fn read<'a>(reader: &Reader<'_, 'a>, stamps: &mut StampReader, senders: Senders) -> Option<Reading<'a>> {
    match reader.rest {
        [b'1', b' ', header @ ..] => read_5424(reader, header),
        _ => read_3164(reader, stamps, senders),
    }
}

fn read_5424<'a>(reader: &Reader<'_, 'a>, header: &'a [u8]) -> Option<Reading<'a>> {
    let (stamp, rest) = token(header)?;
    let (host, rest) = token(rest)?;
    let (tag, rest) = token(rest)?;
    let (pid, rest) = token(rest)?;
    let is_docker = is_digits(pid) && tag != b"-" && is_rfc3339(stamp, 9);
    let message = behind_nil(rest.strip_prefix(tag)?.strip_prefix(b" ")?)?;
    is_docker.then(|| reader.docker_5424(stamp, host, tag, pid, message))
}

fn read_3164<'a>(reader: &Reader<'_, 'a>, stamps: &mut StampReader, senders: Senders) -> Option<Reading<'a>> {
    let (stamp, rest) = stamp(reader, stamps)?;
    // A template with blanks decides what the bytes alone cannot: `my app[1]:` has no host `my`.
    if reader.settings.tag_templates.has_blank()
        && let Some(split) = fit_template(reader, rest)
    {
        return Some(reader.docker_3164(stamp, split));
    }
    let (first, behind) = token_or_all(rest);
    if let Some((tag, pid)) = tag_and_pid(first) {
        return Some(reader.docker_3164(stamp, Split { host: None, tag, pid, behind_host: rest, message: behind }));
    }
    let behind_host = behind;
    let (second, behind) = token_or_all(behind);
    // In `su: job[1]: done` the word `su:` is no host but a tag without a pid.
    let (tag, pid) = tag_and_pid(second).filter(|_| !first.is_empty() && !first.ends_with(b":"))?;
    let reading = reader.docker_3164(stamp, Split { host: Some(first), tag, pid, behind_host, message: behind });
    // Other senders may write something else in this place: `words` examines it more closely.
    let is_host = reading.shape == Shape::Docker || senders == Senders::Docker || first == b"-" || is_host(first);
    is_host.then_some(reading)
}

/// Reads Docker's shapes with blanks in the tag, if the tag can be delimited.
pub(super) fn read_tag_with_blanks<'a>(
    reader: &Reader<'_, 'a>,
    stamps: &mut StampReader,
    senders: Senders,
) -> Option<Reading<'a>> {
    match reader.rest {
        [b'1', b' ', header @ ..] => read_5424_with_blanks(reader, header),
        _ => read_3164_with_blanks(reader, stamps, senders),
    }
}

/// `STAMP HOST (TAG) (digits) \1 - MSG`: the tag occurs twice, so it can be found whatever it contains.
fn read_5424_with_blanks<'a>(reader: &Reader<'_, 'a>, header: &'a [u8]) -> Option<Reading<'a>> {
    let (stamp, (host, tag, pid, message)) = read_twice(header)?;
    Some(reader.docker_5424(stamp, host, tag, pid, message))
}

/// Host, tag, pid and message.
type Twice<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [u8]);

/// Splits a header in which the tag occurs twice.
pub(super) fn read_twice(header: &[u8]) -> Option<(&[u8], Twice<'_>)> {
    let (stamp, rest) = token(header)?;
    if !is_rfc3339(stamp, 9) {
        return None;
    }
    Some((stamp, twice_behind_stamp(rest)?))
}

/// Whether the tag occurs twice after the stamp.
pub(super) fn has_tag_twice(behind_stamp: &[u8]) -> bool {
    twice_behind_stamp(behind_stamp).is_some()
}

fn twice_behind_stamp(text: &[u8]) -> Option<Twice<'_>> {
    let (host, rest) = token(text)?;
    let within = &rest[..rest.len().min(MAX_TAG_WITH_BLANKS)];
    memchr::memchr_iter(b' ', within).filter(|at| *at > 0).find_map(|at| {
        let tag = &rest[..at];
        let (pid, again) = token(&rest[at + 1..])?;
        let message = behind_nil(again.strip_prefix(tag)?.strip_prefix(b" ")?)?;
        is_digits(pid).then_some((host, tag, pid, message))
    })
}

/// `[HOST ]TAG[digits]: MSG` with blanks in TAG, and no template that fits. The first word counts as the host. A word that ends in `:`
/// shows that the brackets belong to the text. With [`Senders::Anybody`], only a tag with a blank on either side is certainly Docker's;
/// `words` reads all others.
fn read_3164_with_blanks<'a>(
    reader: &Reader<'_, 'a>,
    stamps: &mut StampReader,
    senders: Senders,
) -> Option<Reading<'a>> {
    let (stamp, rest) = stamp(reader, stamps)?;
    let (end, pid, message) = tag_ends(rest).next()?;
    if senders == Senders::Anybody && !matches!(rest[..end], [b' ', ref word @ .., b' '] if !word.contains(&b' ')) {
        return None;
    }
    let (host, start) = match rest[..end].iter().position(|b| *b == b' ') {
        Some(0) | None => (None, 0),
        Some(host) => (Some(&rest[..host]), host + 1),
    };
    let (tag, behind_host) = (&rest[start..end], &rest[start..]);
    let is_text = rest[..end].split(|b| *b == b' ').any(|word| word.ends_with(b":"));
    (!is_text && !tag.is_empty()).then(|| reader.docker_3164(stamp, Split { host, tag, pid, behind_host, message }))
}

/// Splits host, tag, pid and message at a tag that a template can have made. A split without a host is tried first.
///
/// Only the first end of a tag counts, or a container could print the rest of a header. If a template itself contains what looks like an
/// end, all ends are tried.
fn fit_template<'a>(reader: &Reader<'_, 'a>, rest: &'a [u8]) -> Option<Split<'a>> {
    let templates = &reader.settings.tag_templates;
    let (host, behind_host) = token(rest).map_or((None, rest.len()), |(host, _)| (Some(host), host.len() + 1));
    let tries = if templates.has_tag_end() { usize::MAX } else { 1 };
    tag_ends(rest).take(tries).find_map(|(end, pid, message)| {
        let split = |host, start: usize| {
            let tag = rest.get(start..end).filter(|tag| templates.fit(tag, reader.senders).is_some())?;
            Some(Split { host, tag, pid, behind_host: &rest[start..], message })
        };
        split(None, 0).or_else(|| split(host, behind_host))
    })
}

/// The parts of Docker's RFC 3164 after the stamp.
struct Split<'a> {
    host: Option<&'a [u8]>,
    tag: &'a [u8],
    pid: &'a [u8],
    /// Tag and message as sent.
    behind_host: &'a [u8],
    message: &'a [u8],
}

/// Every possible end of a tag: its index, the digits in the brackets, and the text after it.
pub(super) fn tag_ends(text: &[u8]) -> impl Iterator<Item = (usize, &[u8], &[u8])> {
    let within = &text[..text.len().min(MAX_TAG_WITH_BLANKS)];
    memchr::memchr_iter(b'[', within).filter_map(|open| {
        let (word, behind) = token_or_all(&text[open..]);
        let (_, pid) = tag_and_pid(word).filter(|(tag, _)| tag.is_empty())?;
        Some((open, pid, behind))
    })
}

/// The stamp of RFC 3164, or an RFC 3339 one in its place, as rsyslog and syslog-ng forward it.
fn stamp<'a>(reader: &Reader<'_, 'a>, stamps: &mut StampReader) -> Option<(Stamp<'a>, &'a [u8])> {
    if let Some(b' ') = reader.rest.get(BSD_LEN)
        && let Some(stamp) = stamps.bsd(reader.rest, reader.frame.received, reader.zone)
        && !goes_on(reader.rest, BSD_LEN)
    {
        return Some((stamp, &reader.rest[BSD_LEN + 1..]));
    }
    if !reader.rest.first()?.is_ascii_digit() {
        return None;
    }
    let (text, rest) = token(reader.rest)?;
    is_rfc3339(text, 6).then_some((Stamp::Text(text.into()), rest))
}

/// Turns the reading of another reader into Docker's if it has Docker's signature. The fast path misses such a message if its stamp is `-`
/// or in another form, or if more than one blank is between its fields. The line that the relay writes has neither fault, so the next relay
/// would find the signature there.
pub(super) fn signed<'a>(reading: Reading<'a>, settings: &Settings, senders: Senders) -> Reading<'a> {
    let Reading { record, shape: Shape::Rfc5424 } = &reading else { return reading };
    let said = |field: Option<HeaderField<'a>>| field.map(|field| field.said());
    let (Some(tag), StructuredData::Nil) = (said(record.app_name), record.structured_data) else { return reading };
    if said(record.msg_id) != Some(tag) || !said(record.proc_id).is_some_and(is_digits) {
        return reading;
    }
    let (pid, message) = (said(record.proc_id), record.message.filter(|text| !text.is_empty()));
    let mut record = Record {
        app_name: HeaderField::legal(tag, MAX_APP_NAME),
        proc_id: pid.and_then(|pid| HeaderField::legal(pid, MAX_PROC_ID)),
        msg_id: None,
        tag: Some(tag.into()),
        message,
        ..reading.record
    };
    let said = record.hostname.map(|host| host.said());
    record.hostname = said.and_then(|said| HeaderField::legal(said, MAX_HOSTNAME));
    record.original_host = record.hostname.and_then(|field| original_host(said?, field));
    identify(&mut record, tag, (settings, senders));
    Reading { record, shape: Shape::Docker }
}

/// Splits the tag by the templates. The container's name, or else its ID, becomes the APP-NAME, and its ID the PROCID. Returns whether the
/// tag identifies a container.
fn identify<'a>(record: &mut Record<'a>, tag: &'a [u8], (settings, senders): (&Settings, Senders)) -> bool {
    let container = settings.tag_templates.split(tag, senders);
    let borrowed = |part: &Option<Cow<'a, [u8]>>| match part {
        Some(Cow::Borrowed(part)) => Some(*part),
        _ => None,
    };
    let (name, id) = (borrowed(&container.name), borrowed(&container.id));
    if let Some(app_name) = name.or(id) {
        record.app_name = HeaderField::legal(app_name, MAX_APP_NAME);
    }
    if let Some(id) = id {
        record.proc_id = HeaderField::legal(id, MAX_PROC_ID);
    }
    let is_known = container.is_known();
    record.container = Some(container);
    is_known
}

impl<'a> Reader<'_, 'a> {
    fn docker_3164(&self, timestamp: Stamp<'a>, split: Split<'a>) -> Reading<'a> {
        let Split { host, tag, pid, behind_host, message } = split;
        let sent = (!tag.is_empty()).then_some(tag);
        let mut record = self.tagged(timestamp, host, sent, Some(pid), message);
        // Other senders use the same shape. So a tag that identifies no container is Docker's only with `Senders::Docker`.
        if identify(&mut record, tag, (self.settings, self.senders)) || self.senders == Senders::Docker {
            return Reading { record, shape: Shape::Docker };
        }
        let mut record = Record { container: None, ..record };
        record.remember_msghdr(&behind_host[..behind_host.len() - message.len()]);
        Reading { record, shape: Shape::Rfc3164 }
    }

    fn docker_5424(
        &self,
        stamp: &'a [u8],
        host: &'a [u8],
        tag: &'a [u8],
        pid: &'a [u8],
        message: &'a [u8],
    ) -> Reading<'a> {
        let mut record = self.tagged(Stamp::Text(stamp.into()), Some(host), Some(tag), Some(pid), message);
        identify(&mut record, tag, (self.settings, self.senders));
        Reading { record, shape: Shape::Docker }
    }
}

/// Splits `TAG[digits]:`.
fn tag_and_pid(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let word = word.strip_suffix(b"]:")?;
    let digits = word.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, pid) = word.split_at(word.len() - digits);
    let tag = before.strip_suffix(b"[")?;
    (digits > 0).then_some((tag, pid))
}

/// The message after the `-` of absent structured data: everything after one blank.
fn behind_nil(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b'-', b' ', message @ ..] => Some(message),
        b"-" => Some(b""),
        _ => None,
    }
}

/// A word, and the text after its one blank. `None` without a word or a blank.
pub(super) fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b' ', text).filter(|end| *end > 0)?;
    Some((&text[..end], &text[end + 1..]))
}

/// A word, perhaps empty, and the text after its blank if there is one.
fn token_or_all(text: &[u8]) -> (&[u8], &[u8]) {
    memchr(b' ', text).map_or((text, b""), |end| (&text[..end], &text[end + 1..]))
}

fn is_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}
