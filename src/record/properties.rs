//! The properties that hold for all records and all lines, as functions, so that a unit test, a property test and a fuzz
//! target need only one line each.

use std::borrow::Cow;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::header::{MAX_APP_NAME, MAX_HOSTNAME, MAX_MSG_ID, MAX_PROC_ID};
use super::structured_data::{elements, split_sd};
use super::write::which;
use super::*;

/// Panics unless the line parses back into the record, and the record is written again byte for byte.
pub fn any_record(record: &Record<'_>, options: &LineOptions) {
    let mut line = Vec::new();
    record.write_line(options, &mut line);
    let back = Record::from_line(&line, &options.sd_id);
    let shown = || String::from_utf8_lossy(&line).into_owned();
    assert_eq!(in_a_line(record), in_a_line(&back), "{}", shown());
    assert_eq!(others(record, options), others(&back, options), "{}", shown());
    let mut again = Vec::new();
    back.write_line(options, &mut again);
    assert_eq!(String::from_utf8_lossy(&again), shown());
    any_line(&line, &options.sd_id);
}

/// The parts of a record that a line keeps, except for elements of others.
fn in_a_line<'a>(record: &Record<'a>) -> Record<'a> {
    let text = record.timestamp.as_ref().map(|stamp| Stamp::Text(stamp_text(stamp).into_bytes().into()));
    let is_malformed = record.structured_data == StructuredData::Malformed;
    let tag = match record.driver {
        Some(_) => record.tag.clone(),
        None => record.lost_tag().map(|tag| Cow::Owned(tag.to_vec())),
    };
    Record {
        timestamp: text,
        received: None,
        container: record.container.clone().filter(Container::is_known),
        tag,
        fields: record.fields.as_written(),
        structured_data: if is_malformed { StructuredData::Malformed } else { StructuredData::Nil },
        // A line with malformed structured data has no place for it.
        cut: record.cut && !is_malformed,
        ..record.clone()
    }
}

/// The elements that are not ours.
fn others(record: &Record<'_>, options: &LineOptions) -> Vec<u8> {
    let others =
        elements(record.structured_data.as_sent()).filter(|element| which(element.id, &options.sd_id).is_none());
    others.flat_map(|element| element.text).copied().collect()
}

/// Checks a line. It need not come from a relay, because a spool may hold other lines: a line that is not RFC 5424 is all
/// message, and each format has the content of the line.
pub fn any_line(line: &[u8], sd_id: &str) {
    let mut json = Vec::new();
    render(line, Format::Json, sd_id, &mut json);
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let said = json["message"].as_str().expect("a message");
    let record = Record::from_line(line, sd_id);
    let message = record.message.unwrap_or_default();
    let message = match record.container {
        Some(_) => message,
        None => message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message),
    };
    match std::str::from_utf8(message) {
        Ok(text) => assert_eq!(said, text),
        Err(_) => assert_eq!(unescape(said), message),
    }
    assert_eq!(json.get("fields").is_some(), !record.fields.is_empty());
    let mut rfc3164 = Vec::new();
    render(line, Format::Rfc3164, sd_id, &mut rfc3164);
    assert!(rfc3164.ends_with(message));
}

/// Checks [`any_record`] with a record chosen by the bytes, and [`any_line`] with the bytes themselves.
pub fn any_bytes(data: &[u8]) {
    let options = LineOptions { sd_id: "docker@32473".to_owned(), peer: true };
    let record = Choices(data).record(&options.sd_id);
    any_record(&record, &options);
    any_line(data, &options.sd_id);
}

/// A line chosen by the bytes.
pub fn chosen_line(data: &[u8], sd_id: &str) -> Vec<u8> {
    let mut line = Vec::new();
    Choices(data).record(sd_id).write_line(&LineOptions { sd_id: sd_id.to_owned(), peer: true }, &mut line);
    line
}

/// Bytes that choose a record. When they run out, the choice is zero or empty.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn maybe<T>(&mut self, choose: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() & 1 == 1).then(|| choose(self))
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn text(&mut self) -> Cow<'a, [u8]> {
        self.bytes().into()
    }

    /// A field of RFC 5424 verbatim, or made legal.
    fn header(&mut self, max: usize) -> Option<HeaderField<'a>> {
        let is_verbatim = self.byte() & 1 == 1;
        let said = self.bytes();
        match is_verbatim && !said.contains(&b' ') {
            true => HeaderField::verbatim(said),
            false => HeaderField::legal(said, max),
        }
    }

    fn stamp(&mut self) -> Stamp<'a> {
        let number = |choices: &mut Self| i64::from(u32::from_le_bytes(std::array::from_fn(|_| choices.byte())));
        match self.byte() % 3 {
            0 => Stamp::Received(UnixMicros(number(self) * 1_000_003)),
            1 => Stamp::Text(b"2026-11-20T22:28:47.123456789+05:30"[..].into()),
            _ => {
                let fraction = Fraction::read(&self.bytes().iter().map(|b| b'0' + b % 10).collect::<Vec<_>>()).0;
                let local = LocalStamp { seconds: number(self), fraction, offset: UtcOffset::UTC };
                Stamp::Local(local, ZoneSource::Clock)
            }
        }
    }

    fn value(&mut self) -> Value<'a> {
        let text = self.bytes();
        let json = || Value::from_json(std::str::from_utf8(text).ok()?);
        json().unwrap_or(Value::Text(text.into()))
    }

    /// A record that readers and later steps can make: syslog with any elements, and any changes to it.
    fn record(&mut self, sd_id: &str) -> Record<'a> {
        let mut record = Record::new(self.byte() % 192);
        let sent = self.bytes();
        if split_sd(sent).is_some_and(|(elements, message)| elements != b"-" && message.is_none()) {
            record.take_elements(sent, sd_id);
        }
        record.timestamp = Some(self.stamp());
        record.hostname = self.header(MAX_HOSTNAME);
        record.app_name = self.header(MAX_APP_NAME);
        record.proc_id = self.header(MAX_PROC_ID);
        record.msg_id = self.header(MAX_MSG_ID);
        record.message = self.maybe(Self::bytes);
        record.received = Some(UnixMicros(i64::from(self.byte())));
        let changes = u16::from_le_bytes([self.byte(), self.byte()]);
        for change in (0..16).filter(|bit| changes >> bit & 1 == 1) {
            self.change(change, &mut record);
        }
        record
    }

    fn change(&mut self, what: u16, record: &mut Record<'a>) {
        match what {
            0 => {
                record.container = self.maybe(|choices| Container {
                    image: choices.maybe(Self::text),
                    name: choices.maybe(Self::text),
                    id: choices.maybe(Self::text),
                });
            }
            1 => record.tag = self.maybe(Self::text),
            2 => record.driver = self.maybe(Self::text),
            3 => {
                record.source = self.maybe(|choices| [Source::Stdout, Source::Stderr][usize::from(choices.byte() & 1)])
            }
            4 => record.listener = self.maybe(Self::text),
            5 => record.peer = self.maybe(Self::peer),
            6 => record.hop = self.maybe(Self::text),
            7 => record.msghdr = self.maybe(Self::text),
            8 => record.cut = self.byte() & 1 == 1,
            9 => record.nanoseconds = u16::from(self.byte()) * 3,
            10 => record.fields = Fields::default(),
            11 => record.fields.leave_out(self.byte().into()),
            12 => record.original_host = self.maybe(Self::text),
            13 => record.unread_stamp = self.maybe(Self::text),
            _ => {
                let name = String::from_utf8_lossy(self.bytes());
                let value = self.value();
                record.fields.push(name, value);
            }
        }
    }

    fn peer(&mut self) -> IpAddr {
        match self.byte() & 1 {
            0 => Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|_| self.byte())).into(),
            _ => Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|_| self.byte())).into(),
        }
    }
}
