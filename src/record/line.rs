//! Parses a line into its record: for rules, for file names, for other output formats, for people.

use std::borrow::Cow;
use std::str::FromStr;

use core::net::IpAddr;

use super::header::{Header, HeaderField};
use super::structured_data::{Element, split_sd, unescape, write_param};
use super::write::{OWN_PARAMS, Sent, first};
use super::{Container, DEFAULT_PRI, Fields, Record, Source, Stamp, StructuredData, priority};

impl<'a> Record<'a> {
    /// Parsing never fails: a line that is not RFC 5424 becomes a message with the priority `user.notice`. `sd_id`: the SD-ID
    /// of the element with image, name and ID.
    pub fn from_line(line: &'a [u8], sd_id: &str) -> Self {
        let split = || {
            let (pri, rest) = priority(line)?;
            Some((pri, Header::split(rest)?))
        };
        let Some((pri, header)) = split() else {
            return Self { message: Some(line), ..Self::new(DEFAULT_PRI) };
        };
        let timestamp = (header.timestamp != b"-").then(|| Stamp::Text(header.timestamp.into()));
        let mut record = Self { timestamp, ..Self::new(pri) };
        record.take_header(&header);
        record.take_rest(header.rest, sd_id);
        record
    }

    /// Takes the four fields after the timestamp as they are.
    pub(crate) fn take_header(&mut self, header: &Header<'a>) {
        self.hostname = HeaderField::verbatim(header.hostname);
        self.app_name = HeaderField::verbatim(header.app_name);
        self.proc_id = HeaderField::verbatim(header.proc_id);
        self.msg_id = HeaderField::verbatim(header.msg_id);
    }

    /// Takes structured data and message.
    pub(crate) fn take_rest(&mut self, rest: &'a [u8], sd_id: &str) {
        match split_sd(rest) {
            Some((structured_data, message)) => {
                self.message = message;
                if structured_data != b"-" {
                    self.take_elements(structured_data, sd_id);
                }
            }
            None => (self.structured_data, self.message) = (StructuredData::Malformed, Some(rest)),
        }
    }

    /// Takes well-formed elements, and reads our own among them.
    pub(crate) fn take_elements(&mut self, sent: &'a [u8], sd_id: &str) {
        self.structured_data = StructuredData::Elements(sent);
        let ours = Sent::of(sent, sd_id);
        if let Some(element) = ours.container {
            let (container, tag) = Container::read(element);
            (self.container, self.tag) = (container.is_known().then_some(container), tag);
        }
        if ours.fields.is_some() || ours.json.is_some() {
            // A line may hold more fields than we would write, and all of them stay in the line, so none counts as missing.
            self.fields = Fields::read(ours.fields, ours.json).without_count();
        }
        for name in OWN_PARAMS {
            if let Some(value) = ours.own.and_then(|element| first(element, name)) {
                self.take_own(name, unescape(value));
            }
        }
    }

    /// Takes a param of `[logferry@32473 …]`.
    fn take_own(&mut self, name: &str, value: Cow<'a, [u8]>) {
        let Some(read) = read_own(name, &value) else { return };
        match (name, read) {
            ("cut", _) => self.cut = true,
            ("peer", Own::Peer(peer)) => self.peer = Some(peer),
            ("source", Own::Source(source)) => self.source = Some(source),
            ("nanoseconds", Own::Number(number)) => self.nanoseconds = number as u16,
            ("fields-cut", Own::Number(number)) => self.fields.leave_out(number),
            ("listener", _) => self.listener = Some(value),
            ("driver", _) => self.driver = Some(value),
            ("host", _) => self.original_host = Some(value),
            ("tag", _) => self.tag = Some(value),
            ("msghdr", _) => self.msghdr = Some(value),
            ("stamp", _) => self.unread_stamp = Some(value),
            ("hop", _) => self.hop = Some(value),
            _ => {}
        }
    }
}

/// The value of a param of `[logferry@32473 …]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own<'a> {
    /// The param is there; its value does not matter.
    Cut,
    Text(&'a [u8]),
    Peer(IpAddr),
    Source(Source),
    Number(u32),
}

/// `None`: the value is not valid for this param.
pub(super) fn read_own<'v>(name: &str, value: &'v [u8]) -> Option<Own<'v>> {
    match name {
        "cut" => Some(Own::Cut),
        "peer" => parsed(value).map(Own::Peer),
        "source" => Source::by_name(value).map(Own::Source),
        "nanoseconds" => parsed(value).filter(|number| (1..1000).contains(number)).map(Own::Number),
        "fields-cut" => parsed(value).filter(|number| *number > 0).map(Own::Number),
        _ => Some(Own::Text(value)),
    }
}

/// Only our own spelling is accepted. A value in another spelling was not written by a relay.
fn parsed<T: FromStr + ToString>(value: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse().ok().filter(|parsed: &T| parsed.to_string() == text)
}

impl<'a> Own<'a> {
    pub fn text(text: &'a [u8]) -> Self {
        Self::Text(text)
    }

    pub fn write(&self, name: &str, out: &mut Vec<u8>) {
        match self {
            Self::Cut => write_param(name, b"true", out),
            Self::Text(text) => write_param(name, text, out),
            Self::Peer(peer) => write_param(name, peer.to_string().as_bytes(), out),
            Self::Source(source) => write_param(name, source.as_str().as_bytes(), out),
            Self::Number(number) => write_param(name, number.to_string().as_bytes(), out),
        }
    }
}

impl<'a> Container<'a> {
    /// The container that the element describes, and the tag in it.
    pub(super) fn read(element: Element<'a>) -> (Self, Option<Cow<'a, [u8]>>) {
        let (mut container, mut tag) = (Self::default(), None);
        for (name, value) in element.params() {
            let place = match name {
                b"image" => &mut container.image,
                b"name" => &mut container.name,
                b"id" => &mut container.id,
                b"tag" => &mut tag,
                _ => continue,
            };
            *place = Some(unescape(value));
        }
        (container, tag)
    }
}
