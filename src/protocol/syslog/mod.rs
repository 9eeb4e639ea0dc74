//! Syslog: parses frames in the shapes of Docker's driver, of RFC 5424 and of RFC 3164.
//!
//! ```
//! use std::sync::Arc;
//! use logferry::internals::protocol::syslog::{Frame, Settings, Shape, Translator};
//! use logferry::internals::record::UnixMicros;
//!
//! let mut translator = Translator::new(Arc::new(Settings { hostname: "node-7".into(), ..Settings::default() }));
//! let bytes = b"<30>Nov 20 17:28:47 nginx:1.25/web/2a9052a5c36e[23223]: hello\n";
//! let received = UnixMicros(1_795_213_727_500_000);
//! let mut line = Vec::new();
//! let shape = translator.translate(&Frame { bytes, cut: false, received }, &mut line);
//! assert_eq!(shape, Shape::Docker);
//! assert_eq!(
//!     String::from_utf8_lossy(&line),
//!     "<30>1 2026-11-20T17:28:47-05:00 node-7 web 2a9052a5c36e - \
//!      [docker@32473 image=\"nginx:1.25\" name=\"web\" id=\"2a9052a5c36e\"] hello"
//! );
//! ```
//!
//! In reading order:
//!
//! - here: [`parse`], which tries the readers one after the other
//! - `docker`: the fast path, for the three shapes that Docker's syslog driver sends
//! - `tag`: splits Docker's tag into image, name and ID; `tag_templates`: by several templates
//! - `likeness`: how much a frame looks like Docker's, before it is parsed
//! - `rfc5424`: RFC 5424 messages of any sender
//! - `rfc3164`: everything else that has a header
//! - `stamp`: RFC 3164's timestamps, and the year and the zone that they lack
//! - `words`: HOSTNAME and TAG after such a stamp
//! - `translate`: [`Message`] → line
//! - `marks`: the listener that messages come from
//! - `session`: a connection, message after message
//! - `host`: HOSTNAME if the sender gives none
//! - `header_cache`: headers that came before
//! - `properties`: invariants of all inputs

mod docker;
mod header_cache;
mod host;
mod likeness;
mod marks;
pub mod properties;
mod rfc3164;
mod rfc5424;
mod session;
mod stamp;
mod tag;
mod tag_templates;
#[cfg(test)]
mod tests;
mod translate;
mod words;

use std::borrow::Cow;
use std::fmt;

pub use header_cache::{HeaderId, MAX_HEADERS};
pub use host::{HostSource, LocalAddresses};
pub use likeness::{Likeness, likeness};
pub use marks::{ListenerMark, Listening, Marks, SenderZones};
pub use session::SyslogSession;
pub use stamp::{StampOrigin, properties as stamp_properties, read_alone as read_stamp};
pub use tag::is_container_id;
pub(in crate::protocol) use tag::is_id;
pub use tag_templates::TagTemplates;
pub use translate::{Message, Translator};

use stamp::StampReader;

use crate::protocol::framing::BOM;
use crate::record::header::{MAX_APP_NAME, MAX_HOSTNAME, MAX_PROC_ID};
use crate::record::{DEFAULT_PRI, HeaderField, LineOptions, Record, Stamp, TimeZone, UnixMicros, priority};

/// One message as it came off a socket.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The bytes without the octet count. One LF at the end belongs to the framing and is not part of the message.
    pub bytes: &'a [u8],
    /// The frame was longer than the limit: `bytes` is only its start, and the rest was thrown away.
    pub cut: bool,
    /// When the frame was read.
    pub received: UnixMicros,
}

/// How a frame was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// With Docker's signature: a container in its tag, or the tag twice as in Docker's RFC 5424
    /// (moby `daemon/logger/syslog/syslog.go`, `rfc5424formatterWithAppNameAsTag`).
    Docker,
    /// RFC 5424 from any other sender.
    Rfc5424,
    /// RFC 3164 from any other sender: a priority, most often a stamp, a host and a tag, and at least a stamp or a tag.
    Rfc3164,
    /// No header that could be parsed. A valid priority is kept, and the rest is the message.
    Unknown,
}

/// The settings by which the relay parses messages and completes them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The HOSTNAME of messages that name no host.
    pub hostname: String,
    /// The possible values of the senders' `tag` log option.
    pub tag_templates: TagTemplates,
    /// SD-ID of the element that carries image, name and ID, for example `docker@32473`; see [`is_sd_id`](crate::record::is_sd_id).
    pub sd_id: String,
    /// The zone of stamps without one; `None`: it is inferred from the time of receipt, if possible.
    pub time_zone: Option<TimeZone>,
}

/// The kind of senders that a listener has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Senders {
    #[default]
    Anybody,
    /// Only Docker's syslog driver. The driver sends no structured data, so anything that looks like some is text: image, name and ID come
    /// from the tag alone.
    Docker,
}

/// The result of parsing a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    pub record: Record<'a>,
    pub shape: Shape,
}

/// Parses one frame. Never fails: see [`Shape::Unknown`].
pub fn parse<'a>(frame: &Frame<'a>, settings: &'a Settings, senders: Senders) -> Reading<'a> {
    let mut reading = parse_with(frame, settings, senders, settings.time_zone.as_ref(), &mut StampReader::default());
    reading.record.hostname = reading.record.hostname.or_else(|| settings.own_host());
    reading
}

/// [`parse`] for many frames. `zone`: the sender's time zone, if the settings have one. `stamps` caches the last stamps. HOSTNAME stays
/// empty if the message names no host.
fn parse_with<'a>(
    frame: &Frame<'a>,
    settings: &'a Settings,
    senders: Senders,
    zone: Option<&TimeZone>,
    stamps: &mut StampReader,
) -> Reading<'a> {
    // In a truncated frame a LF at the end is text.
    let bytes = match frame.bytes.strip_suffix(b"\n") {
        Some(bytes) if !frame.cut => bytes,
        _ => frame.bytes,
    };
    let bytes = behind_mark(bytes);
    let Some((pri, rest)) = priority(bytes) else {
        return Reader { pri: DEFAULT_PRI, rest: bytes, frame, settings, senders, zone }.unknown();
    };
    let reader = Reader { pri, rest, frame, settings, senders, zone };
    let others = senders == Senders::Anybody;
    // A well-formed RFC 5424 message is never searched for a tag with blanks: a message must not be able to forge one. With
    // `Senders::Docker` there is no other RFC 5424, but a tag can imitate it.
    let reading = docker::read(&reader, stamps, senders)
        .or_else(|| others.then(|| rfc5424::read(&reader))?)
        .or_else(|| docker::read_tag_with_blanks(&reader, stamps, senders))
        .or_else(|| others.then(|| rfc5424::read_malformed(&reader).or_else(|| rfc3164::read(&reader)))?)
        .unwrap_or_else(|| reader.unknown());
    docker::signed(reading, settings, senders)
}

/// Whether a frame begins with a priority. A frame without one is only text.
pub fn has_priority(frame: &[u8]) -> bool {
    priority(behind_mark(frame)).is_some()
}

/// Removes a byte order mark in front of a priority: it is no text.
fn behind_mark(frame: &[u8]) -> &[u8] {
    frame.strip_prefix(BOM).filter(|bytes| bytes.starts_with(b"<")).unwrap_or(frame)
}

/// The input of every reader: the frame after its priority.
struct Reader<'f, 'a> {
    /// `pri <= 191`
    pri: u8,
    /// The bytes after `<PRI>`.
    rest: &'a [u8],
    frame: &'f Frame<'a>,
    settings: &'a Settings,
    senders: Senders,
    /// The zone of stamps without one.
    zone: Option<&'f TimeZone>,
}

impl<'a> Reader<'_, 'a> {
    /// A record with only what the frame and the relay know. An empty text is no text.
    fn record(&self, message: &'a [u8]) -> Record<'a> {
        Record {
            timestamp: Some(Stamp::Received(self.frame.received)),
            received: Some(self.frame.received),
            message: (!message.is_empty()).then_some(message),
            cut: self.frame.cut,
            ..Record::new(self.pri)
        }
    }

    fn unknown(&self) -> Reading<'a> {
        Reading { record: self.record(self.rest), shape: Shape::Unknown }
    }

    /// A record with APP-NAME and PROCID, or their equivalents in other formats. For a container the caller replaces them by its name and
    /// its ID.
    fn tagged(
        &self,
        timestamp: Stamp<'a>,
        hostname: Option<&'a [u8]>,
        tag: Option<&'a [u8]>,
        proc_id: Option<&'a [u8]>,
        message: &'a [u8],
    ) -> Record<'a> {
        let host = hostname.and_then(|host| HeaderField::legal(host, MAX_HOSTNAME));
        Record {
            timestamp: Some(timestamp),
            original_host: host.and_then(|field| original_host(hostname?, field)),
            hostname: host,
            app_name: tag.and_then(|tag| HeaderField::legal(tag, MAX_APP_NAME)),
            proc_id: proc_id.and_then(|proc_id| HeaderField::legal(proc_id, MAX_PROC_ID)),
            tag: tag.map(Cow::Borrowed),
            ..self.record(message)
        }
    }
}

/// The HOSTNAME as sent, if the field cannot hold it unchanged.
pub(super) fn original_host<'a>(said: &'a [u8], field: HeaderField<'a>) -> Option<Cow<'a, [u8]>> {
    let is_kept = field.is_verbatim() && field.said().len() == said.len();
    (!is_kept).then_some(Cow::Borrowed(said))
}

impl Settings {
    /// The options for writing records.
    pub fn line_options(&self, peer: bool) -> LineOptions {
        LineOptions { sd_id: self.sd_id.clone(), peer }
    }

    pub(in crate::protocol) fn own_host(&self) -> Option<HeaderField<'_>> {
        HeaderField::legal(self.hostname.as_bytes(), MAX_HOSTNAME)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "-".to_owned(),
            tag_templates: TagTemplates::default(),
            sd_id: "docker@32473".to_owned(),
            time_zone: None,
        }
    }
}

impl Shape {
    /// All shapes, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Docker, Self::Rfc5424, Self::Rfc3164, Self::Unknown];

    /// The name for counters and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Rfc5424 => "rfc5424",
            Self::Rfc3164 => "rfc3164",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
