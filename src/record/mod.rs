//! The record: a message as the relay holds it, and its line, a complete RFC 5424 message without framing. Inputs and
//! destinations both use it, and know nothing of each other.
//!
//! Everything here is a pure function of bytes: no socket, no file, no clock, no async. Reading never fails and never panics,
//! whatever the bytes are. Anything that is not understood is kept as it is.
//!
//! In reading order:
//!
//! - here: [`Record`]
//! - `time`: stamps, their text in RFC 3339 and RFC 3164, offsets
//! - `zone`: time zones by name
//! - `header`: the fields of RFC 5424's header
//! - `structured_data`: elements of structured data
//! - `fields`: the fields of a message beside its text
//! - `json`: writing JSON, and parts of JSON that readers refuse; `json_reader`: the members of objects, as they are written
//! - `write`: writes a record as its line
//! - `line`: parses a line into its record
//! - `hop`: the mark of a relay that forwards a line
//! - `render`: a line as RFC 5424, RFC 3164 or JSON
//! - `range`: ranges of addresses
//! - `rule`: which records match; `expression`, `field_condition`: conditions on the text and on the fields
//! - `literals`: literals that a text must contain to match an expression
//! - `template`: a text with fields of a record in it
//! - `escaped`: control characters as text, for people
//! - `properties`: the properties that hold for all bytes

mod escaped;
mod expression;
mod field_condition;
mod fields;
pub(crate) mod header;
mod hop;
pub(crate) mod json;
pub(crate) mod json_reader;
mod line;
mod literals;
pub mod properties;
mod range;
mod render;
mod rule;
pub(crate) mod structured_data;
pub(crate) mod template;
#[cfg(test)]
mod tests;
pub(crate) mod time;
pub(crate) mod write;
mod zone;

use std::borrow::Cow;

use core::net::IpAddr;

pub use escaped::{append_escaped, append_on_one_line, each_displayable, escape, escape_json, escaped, unescape};
pub use expression::{Expression, Expressions};
pub use field_condition::FieldConditions;
pub use fields::{FIELDS_SD_ID, Fields, JSON_SD_ID, Value};
pub(crate) use fields::{MAX_FIELD_BYTES, MAX_FIELDS};
pub use header::HeaderField;
pub use hop::append_marked;
pub(crate) use json::depth as json_depth;
pub use range::AddressRange;
pub(crate) use render::render_json;
pub use render::{FACILITIES, Format, SEVERITIES, render, render_text};
pub use rule::{Facilities, Patterns, Ranges, Rule, Severities, matches_glob, severity_by_name};
pub use structured_data::{is_sd_id, sd_param};
pub use time::{Fraction, LocalStamp, Stamp, UnixMicros, UtcOffset, ZoneSource};
pub use write::LineOptions;
pub use zone::TimeZone;

use time::StampWriter;

/// The SD-ID of the relay's own params for a message. (RFC 5612 reserves 32473 for examples.)
pub(crate) const OWN_ID: &[u8] = OWN_SD_ID.as_bytes();
pub const OWN_SD_ID: &str = "logferry@32473";

/// One message: its sender, its time and its content. Its parts are borrowed from the bytes it was read from.
///
/// This is the only type that inputs and destinations share. The kind of sender is given here, not by the protocol: a message
/// comes from a container if `container` is there, whichever driver brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// RFC 5424 6.2.1; `0 <= facility <= 23`.
    pub facility: u8,
    /// RFC 5424 6.2.1; `0 <= severity <= 7`, 0 is the worst.
    pub severity: u8,
    /// `None`: the line has no timestamp. A protocol's reader always sets one, if need be the time of receipt.
    pub timestamp: Option<Stamp<'a>>,
    /// The nanoseconds beyond the timestamp's microseconds; `0 <= nanoseconds <= 999`.
    pub nanoseconds: u16,
    /// The sender's text in place of a timestamp, if it is no time: a day that does not exist, or the uptime of a device.
    pub unread_stamp: Option<Cow<'a, [u8]>>,
    /// The time of receipt. The line does not keep it.
    pub received: Option<UnixMicros>,
    pub hostname: Option<HeaderField<'a>>,
    /// The host as the sender wrote it, if RFC 5424 does not allow it as HOSTNAME.
    pub original_host: Option<Cow<'a, [u8]>>,
    /// The name or ID of a container; the sender's own name otherwise.
    pub app_name: Option<HeaderField<'a>>,
    /// The ID of a container; the sender's own PROCID otherwise.
    pub proc_id: Option<HeaderField<'a>>,
    pub msg_id: Option<HeaderField<'a>>,
    /// The container that sent the message. If the driver serves only containers and the tag says nothing about this one, the
    /// container is there with no known part.
    pub container: Option<Container<'a>>,
    /// The tag as the sender wrote it: the `tag` log option of a driver, or the tag that APP-NAME is made of.
    pub tag: Option<Cow<'a, [u8]>>,
    /// The log driver that sent the message, unless it is syslog.
    pub driver: Option<Cow<'a, [u8]>>,
    pub source: Option<Source>,
    /// The name of the listener that received the message, if it has one.
    pub listener: Option<Cow<'a, [u8]>>,
    /// The address that sent the message.
    pub peer: Option<IpAddr>,
    /// The marks of relays that forwarded the message. A relay recognizes its own lines by them.
    pub hop: Option<Cow<'a, [u8]>>,
    pub fields: Fields<'a>,
    pub structured_data: StructuredData<'a>,
    /// The text between HOSTNAME and the message in RFC 3164, if it is not the usual `TAG[PID]: `, or nothing without a tag.
    pub msghdr: Option<Cow<'a, [u8]>>,
    /// The bytes as sent. `Some(b"")` is RFC 5424 with a blank after the structured data and nothing behind it.
    pub message: Option<&'a [u8]>,
    /// The message was longer than the limit: only its start is here.
    pub cut: bool,
}

/// A container. A tag seldom has all parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container<'a> {
    /// The image as the user typed it.
    pub image: Option<Cow<'a, [u8]>>,
    pub name: Option<Cow<'a, [u8]>>,
    /// 12 or 64 lower-case hexadecimal digits.
    pub id: Option<Cow<'a, [u8]>>,
}

/// The stream of a container that a message was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// The structured data (RFC 5424 6.3), as the sender sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructuredData<'a> {
    /// None, or `-`.
    Nil,
    /// One or more well-formed elements, verbatim. The content of our own elements is in the record too.
    Elements(&'a [u8]),
    /// Not well-formed; [`Record::message`] starts with it. "A relay MUST forward malformed STRUCTURED-DATA without
    /// any alteration."
    Malformed,
}

impl<'a> Record<'a> {
    /// A record with a priority, `pri <= 191`, and nothing else.
    pub fn new(pri: u8) -> Self {
        Self {
            facility: pri >> 3,
            severity: pri & 7,
            timestamp: None,
            nanoseconds: 0,
            unread_stamp: None,
            received: None,
            hostname: None,
            original_host: None,
            app_name: None,
            proc_id: None,
            msg_id: None,
            container: None,
            tag: None,
            driver: None,
            source: None,
            listener: None,
            peer: None,
            hop: None,
            fields: Fields::default(),
            structured_data: StructuredData::Nil,
            msghdr: None,
            message: None,
            cut: false,
        }
    }

    /// The timestamp as text, or `-`.
    pub fn stamp_text(&self) -> String {
        self.timestamp.as_ref().map_or("-".to_owned(), stamp_text)
    }

    /// The time of the message, if it is known.
    pub fn time(&self) -> Option<UnixMicros> {
        self.timestamp.as_ref()?.time()
    }

    pub fn image_name(&self) -> Option<&[u8]> {
        self.container.as_ref()?.image.as_deref()
    }

    pub fn container_name(&self) -> Option<&[u8]> {
        self.container.as_ref()?.name.as_deref()
    }

    /// The container's name, or APP-NAME.
    pub fn sender_name(&self) -> Cow<'_, [u8]> {
        self.container_name().map_or_else(|| HeaderField::or_nil(self.app_name), Cow::Borrowed)
    }

    pub fn container_id(&self) -> Option<&[u8]> {
        self.container.as_ref()?.id.as_deref()
    }

    /// The host as the sender wrote it.
    pub fn host_as_written(&self) -> Option<Cow<'_, [u8]>> {
        self.original_host.as_deref().map(Cow::Borrowed).or(self.hostname.map(|host| host.written()))
    }

    /// PROCID, unless it is the container's ID.
    pub fn own_proc_id(&self) -> Option<HeaderField<'a>> {
        self.proc_id.filter(|proc_id| Some(proc_id.said()) != self.container_id())
    }

    /// Sets the timestamp: the sender's time with its nanoseconds, or else the time of receipt. `unread`: the sender's text,
    /// if it is no time.
    pub(crate) fn date(
        &mut self,
        said: Option<(LocalStamp, u16)>,
        unread: Option<Cow<'a, [u8]>>,
        received: UnixMicros,
    ) {
        self.received = Some(received);
        (self.timestamp, self.nanoseconds) = match said {
            Some((stamp, nanoseconds)) => (Some(Stamp::Respelt(stamp)), nanoseconds),
            None => (Some(Stamp::Received(received)), 0),
        };
        self.unread_stamp = unread;
    }

    /// Is the sender a container with no known part, for example because its tag fits no template?
    pub fn has_unknown_container(&self) -> bool {
        self.container.as_ref().is_some_and(|container| !container.is_known())
    }
}

impl Container<'_> {
    /// Is any part known?
    pub fn is_known(&self) -> bool {
        self.id.is_some() || self.name.is_some() || self.image.is_some()
    }
}

/// The bytes of a part that borrows from the input, as in the records of readers. `None`: the part is owned.
pub(crate) fn borrowed<'a>(part: &Cow<'a, [u8]>) -> Option<&'a [u8]> {
    match part {
        Cow::Borrowed(part) => Some(part),
        Cow::Owned(_) => None,
    }
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    pub fn by_name(name: &[u8]) -> Option<Self> {
        [Self::Stdout, Self::Stderr].into_iter().find(|source| source.as_str().as_bytes() == name)
    }
}

impl<'a> StructuredData<'a> {
    /// The structured data as it is written in a line without elements of ours: `-` if there is none, or if it is malformed.
    pub fn as_sent(&self) -> &'a [u8] {
        match self {
            Self::Elements(sent) => sent,
            Self::Nil | Self::Malformed => b"-",
        }
    }
}

/// A packet without a priority is `user.notice` (RFC 3164 4.3.3).
pub(crate) const DEFAULT_PRI: u8 = 13;

/// An invalid setting: a sentence that says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSetting(String);

/// The timestamp in the format of RFC 5424 6.2.3.
pub fn stamp_text(stamp: &Stamp<'_>) -> String {
    let mut out = Vec::new();
    StampWriter::default().write(stamp, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Splits off `<PRI>`: 0 to 191, without leading zeros (RFC 3164 4.1.1, RFC 5424 6.2.1).
#[inline(always)]
pub(crate) fn priority(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |b: u8| u16::from(b.wrapping_sub(b'0'));
    let (value, rest) = match bytes {
        [b'<', a @ b'0'..=b'9', b'>', rest @ ..] => (digit(*a), rest),
        [b'<', a @ b'1'..=b'9', b @ b'0'..=b'9', b'>', rest @ ..] => (digit(*a) * 10 + digit(*b), rest),
        [b'<', b'1', b @ b'0'..=b'9', c @ b'0'..=b'9', b'>', rest @ ..] => (100 + digit(*b) * 10 + digit(*c), rest),
        _ => return None,
    };
    (value <= 191).then_some((value as u8, rest))
}

impl BadSetting {
    pub fn new(says: String) -> Self {
        Self(says)
    }
}
