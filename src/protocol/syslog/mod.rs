//! Syslog: what a frame says, in the shapes of Docker's driver, of RFC 5424 and of RFC 3164.
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
//! - here: [`parse`], which asks the readers one after the other
//! - `docker`: the fast path, for the three shapes Docker's syslog driver sends
//! - `tag`: Docker's tag back into image, name and ID; `tag_templates`: by several templates
//! - `likeness`: how far a frame looks like Docker's, before it is read
//! - `rfc5424`: anybody's RFC 5424 message
//! - `rfc3164`: everything else that has a header
//! - `stamp`: RFC 3164's time stamps, and the year and the zone that they lack
//! - `words`: what stands behind such a stamp, HOSTNAME and TAG
//! - `translate`: [`Message`] → line
//! - `marks`: what is told of the listener that messages come from
//! - `session`: a connection, message after message
//! - `host`: HOSTNAME where the sender gives none
//! - `header_cache`: what headers became that came before
//! - `properties`: what must hold for all bytes

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
    /// Longer than the frame limit: `bytes` is only the start, the rest was thrown away.
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
    /// RFC 5424 from anybody else.
    Rfc5424,
    /// RFC 3164 from anybody else: a priority, most often a stamp, a host and a tag, and at least a stamp or a tag.
    Rfc3164,
    /// No header that could be understood. A valid priority was kept, all the rest is the message.
    Unknown,
}

/// What the relay adds to what the sender said, and how it reads the sender's tag.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The HOSTNAME of messages that name no host.
    pub hostname: String,
    /// What the senders' `tag` log option may be.
    pub tag_templates: TagTemplates,
    /// SD-ID of the element that carries image, name and ID, for example `docker@32473`; see [`is_sd_id`](crate::record::is_sd_id).
    pub sd_id: String,
    /// The zone of stamps that have none; `None`: it is found out, as far as that can be.
    pub time_zone: Option<TimeZone>,
}

/// The kind of senders that a listener has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Senders {
    #[default]
    Anybody,
    /// Docker's syslog driver and nobody else. It sends no structured data, so whatever looks like some was written by
    /// somebody else and is text: image, name and ID come from the tag alone.
    Docker,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    pub record: Record<'a>,
    pub shape: Shape,
}

/// Reads one frame. Never fails: see [`Shape::Unknown`].
pub fn parse<'a>(frame: &Frame<'a>, settings: &'a Settings, senders: Senders) -> Reading<'a> {
    let mut reading = parse_with(frame, settings, senders, settings.time_zone.as_ref(), &mut StampReader::default());
    reading.record.hostname = reading.record.hostname.or_else(|| settings.own_host());
    reading
}

/// [`parse`] for many frames: `zone` is the sender's, as far as the settings know it; `stamps` remembers the last stamps. A message that names no host has none.
fn parse_with<'a>(
    frame: &Frame<'a>,
    settings: &'a Settings,
    senders: Senders,
    zone: Option<&TimeZone>,
    stamps: &mut StampReader,
) -> Reading<'a> {
    // Where a frame was cut, a LF at its end is text that happens to stand there.
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
    // A well-formed RFC 5424 message is never searched for a tag with blanks: a message must not be able to forge one.
    // Where only Docker sends there is none, but a tag can be made that looks like one.
    let reading = docker::read(&reader, stamps, senders)
        .or_else(|| others.then(|| rfc5424::read(&reader))?)
        .or_else(|| docker::read_tag_with_blanks(&reader, stamps, senders))
        .or_else(|| others.then(|| rfc5424::read_malformed(&reader).or_else(|| rfc3164::read(&reader)))?)
        .unwrap_or_else(|| reader.unknown());
    docker::signed(reading, settings, senders)
}

/// Whether a frame begins with a priority. One that does not is text and nothing else.
pub fn has_priority(frame: &[u8]) -> bool {
    priority(behind_mark(frame)).is_some()
}

/// A byte order mark in front of a priority is no text.
fn behind_mark(frame: &[u8]) -> &[u8] {
    frame.strip_prefix(BOM).filter(|bytes| bytes.starts_with(b"<")).unwrap_or(frame)
}

/// What every reader gets: the frame behind its priority.
struct Reader<'f, 'a> {
    /// `pri <= 191`
    pri: u8,
    /// What follows `<PRI>`.
    rest: &'a [u8],
    frame: &'f Frame<'a>,
    settings: &'a Settings,
    senders: Senders,
    /// The zone of stamps that have none.
    zone: Option<&'f TimeZone>,
}

impl<'a> Reader<'_, 'a> {
    /// A record of which nothing is known but what the frame and the relay know. An empty text is no text.
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

    /// A record whose header is APP-NAME and PROCID, or what stands for them elsewhere. Of a container they are made of what
    /// identifies it.
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

/// What was said, where the field cannot have it as it is.
pub(super) fn original_host<'a>(said: &'a [u8], field: HeaderField<'a>) -> Option<Cow<'a, [u8]>> {
    let is_kept = field.is_verbatim() && field.said().len() == said.len();
    (!is_kept).then_some(Cow::Borrowed(said))
}

impl Settings {
    /// How records are written.
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
    /// In the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Docker, Self::Rfc5424, Self::Rfc3164, Self::Unknown];

    /// The word for counters and people.
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
