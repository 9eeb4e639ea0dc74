//! What was said, by whom and when: a message as the relay holds it, and its line, a complete RFC 5424 message without
//! framing. Inputs and destinations meet here and know nothing of each other.
//!
//! Everything here is a plain function of bytes: no socket, no file, no clock, no async. Reading never fails and
//! never panics, whatever the bytes; what is not understood is carried whole.
//!
//! In reading order:
//!
//! - here: [`Record`]
//! - `time`: stamps, their text in RFC 3339 and RFC 3164, offsets
//! - `zone`: time zones by name
//! - `header`: the fields of RFC 5424's header
//! - `structured_data`: elements of structured data
//! - `fields`: what a message has beside its text
//! - `json`: what is written of JSON, and what its readers refuse all the same; `json_reader`: the members of objects, as they are written
//! - `write`: a record as its line
//! - `line`: a line back into its record
//! - `hop`: the mark of a relay that sends a line on
//! - `render`: a line as RFC 5424, RFC 3164 or JSON
//! - `range`: ranges of addresses
//! - `rule`: which records match; `expression`, `field_condition`: what it asks of the text and of the fields
//! - `literals`: letters without which an expression finds nothing
//! - `template`: a text with fields of a record in it
//! - `escaped`: control characters as text, where people read
//! - `properties`: what must hold for all bytes

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

/// SD-ID of what the relay itself says about a message. (32473 is the number RFC 5612 gives to examples.)
pub(crate) const OWN_ID: &[u8] = OWN_SD_ID.as_bytes();
pub const OWN_SD_ID: &str = "logferry@32473";

/// What was said, by whom and when: one message, its parts borrowed from the bytes it was read from.
///
/// It is the only type that an input and a destination both speak. Who is behind a message stands here and not in the
/// grammar it came in: a container is one because `container` is there, whichever driver brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// RFC 5424 6.2.1; `0 <= facility <= 23`.
    pub facility: u8,
    /// RFC 5424 6.2.1; `0 <= severity <= 7`, 0 is the worst.
    pub severity: u8,
    /// `None`: the line has none. A reader always knows one, at worst when the message was read.
    pub timestamp: Option<Stamp<'a>>,
    /// What the stamp has beside its microseconds; `0 <= nanoseconds <= 999`.
    pub nanoseconds: u16,
    /// What stood in the stamp's place and says no time: a day that does not exist, how long a device has run.
    pub unread_stamp: Option<Cow<'a, [u8]>>,
    /// When the message was read; the line does not keep that.
    pub received: Option<UnixMicros>,
    pub hostname: Option<HeaderField<'a>>,
    /// HOSTNAME as it was written, where RFC 5424 does not allow it.
    pub original_host: Option<Cow<'a, [u8]>>,
    /// A container's name or ID; what others call themselves.
    pub app_name: Option<HeaderField<'a>>,
    /// A container's ID; what others give as PROCID.
    pub proc_id: Option<HeaderField<'a>>,
    pub msg_id: Option<HeaderField<'a>>,
    /// The container that sent the message. Where a driver sends for containers only, and tells nothing, all of it is unknown.
    pub container: Option<Container<'a>>,
    /// The tag as it was written: the APP-NAME of others, the `tag` log option of a driver.
    pub tag: Option<Cow<'a, [u8]>>,
    /// The driver that brought the message, where that was not syslog.
    pub driver: Option<Cow<'a, [u8]>>,
    pub source: Option<Source>,
    /// The name of the listener that took the message, if that has one.
    pub listener: Option<Cow<'a, [u8]>>,
    /// The address that sent the message.
    pub peer: Option<IpAddr>,
    /// The mark of the relay that has sent it on, by which it knows what comes back.
    pub hop: Option<Cow<'a, [u8]>>,
    pub fields: Fields<'a>,
    pub structured_data: StructuredData<'a>,
    /// What stood between HOSTNAME and the text of RFC 3164, where that is not `TAG[PID]: `, or nothing without a tag.
    pub msghdr: Option<Cow<'a, [u8]>>,
    /// Byte for byte as sent. `Some(b"")` is RFC 5424 with a blank after the structured data and nothing behind it.
    pub message: Option<&'a [u8]>,
    /// The message was longer than what is taken: only its start is here.
    pub cut: bool,
}

/// What is known of a container; a tag seldom tells all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container<'a> {
    /// The image as the user typed it.
    pub image: Option<Cow<'a, [u8]>>,
    pub name: Option<Cow<'a, [u8]>>,
    /// 12 or 64 lower-case hexadecimal digits.
    pub id: Option<Cow<'a, [u8]>>,
}

/// Where a container said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// RFC 5424 6.3, as the sender sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructuredData<'a> {
    /// None sent, or `-`.
    Nil,
    /// One or more well-formed elements, verbatim. What those of ours among them say is in the record too.
    Elements(&'a [u8]),
    /// Not well-formed; [`Record::message`] starts with it. "A relay MUST forward malformed STRUCTURED-DATA without
    /// any alteration."
    Malformed,
}

impl<'a> Record<'a> {
    /// A record of which nothing is known but its priority, `pri <= 191`.
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

    /// The stamp as text, or `-`.
    pub fn stamp_text(&self) -> String {
        self.timestamp.as_ref().map_or("-".to_owned(), stamp_text)
    }

    /// When the message was sent, as far as that is known.
    pub fn time(&self) -> Option<UnixMicros> {
        self.timestamp.as_ref()?.time()
    }

    pub fn image_name(&self) -> Option<&[u8]> {
        self.container.as_ref()?.image.as_deref()
    }

    pub fn container_name(&self) -> Option<&[u8]> {
        self.container.as_ref()?.name.as_deref()
    }

    /// The container's name; of other senders their APP-NAME.
    pub fn sender_name(&self) -> Cow<'_, [u8]> {
        self.container_name().map_or_else(|| HeaderField::or_nil(self.app_name), Cow::Borrowed)
    }

    pub fn container_id(&self) -> Option<&[u8]> {
        self.container.as_ref()?.id.as_deref()
    }

    /// The host as its sender wrote it.
    pub fn host_as_written(&self) -> Option<Cow<'_, [u8]>> {
        self.original_host.as_deref().map(Cow::Borrowed).or(self.hostname.map(|host| host.written()))
    }

    /// PROCID, where it says more than the container's ID.
    pub fn own_proc_id(&self) -> Option<HeaderField<'a>> {
        self.proc_id.filter(|proc_id| Some(proc_id.said()) != self.container_id())
    }

    /// Dates the message by what its sender says, a time and the nanoseconds beside its microseconds, or else by when it was read.
    /// `unread`: what the sender says, where that is no time.
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

    /// Is the sender a container of which nothing is known? Its tag fits no template.
    pub fn has_unknown_container(&self) -> bool {
        self.container.as_ref().is_some_and(|container| !container.is_known())
    }
}

impl Container<'_> {
    /// Is anything known?
    pub fn is_known(&self) -> bool {
        self.id.is_some() || self.name.is_some() || self.image.is_some()
    }
}

/// A part that its owner borrows itself, as readers make them.
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
    /// As it stands in a line that has none beside: `-` for none and for what is malformed.
    pub fn as_sent(&self) -> &'a [u8] {
        match self {
            Self::Elements(sent) => sent,
            Self::Nil | Self::Malformed => b"-",
        }
    }
}

/// RFC 3164 4.3.3: a packet without a priority is `user.notice`.
pub(crate) const DEFAULT_PRI: u8 = 13;

/// A setting that cannot be used, and why: a sentence for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSetting(String);

/// A stamp as RFC 5424 6.2.3 wants it.
pub fn stamp_text(stamp: &Stamp<'_>) -> String {
    let mut out = Vec::new();
    StampWriter::default().write(stamp, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Splits `<PRI>` off: 0 to 191, without leading zeros (RFC 3164 4.1.1, RFC 5424 6.2.1).
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
