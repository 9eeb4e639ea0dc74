//! Room 2: what a message means. A [`Frame`] comes in, one canonical line goes out, and a canonical line can be
//! rendered in the format a collector wants.
//!
//! Everything here is a plain function of bytes: no socket, no file, no clock, no async. Parsing never fails and
//! never panics, whatever the bytes; what is not understood is carried whole.
//!
//! ```
//! use std::sync::Arc;
//! use logferry::syslog::{Frame, Settings, Shape, Translator, UnixMicros};
//!
//! let mut translator = Translator::new(Arc::new(Settings { hostname: "node-7".into(), ..Settings::default() }));
//! let bytes = b"<30>Nov 20 17:28:47 nginx:1.25/web/2a9052a5c36e[23223]: hello\n";
//! let received = UnixMicros(1_795_213_727_500_000);
//! let mut line = Vec::new();
//! let translated = translator.translate(&Frame { bytes, cut: false, received }, &mut line);
//! assert_eq!(translated.shape, Shape::Docker);
//! assert_eq!(
//!     String::from_utf8_lossy(&line),
//!     "<30>1 2026-11-20T17:28:47-05:00 node-7 web 2a9052a5c36e - \
//!      [docker@32473 image=\"nginx:1.25\" name=\"web\" id=\"2a9052a5c36e\"] hello"
//! );
//! ```
//!
//! In reading order:
//!
//! - here: the words of the room, and [`parse`], which asks the readers one after the other
//! - `docker`: the fast path, for the three shapes Docker's syslog driver sends
//! - `tag`: Docker's tag back into image, name and ID
//! - `rfc5424`: the header and the structured data of anybody's RFC 5424 message
//! - `loose`: everything else that has a header, by way of `syslog_loose`
//! - `time`: the year and the zone an RFC 3164 stamp does not carry
//! - `translate`: [`Message`] → canonical line
//! - `heads`: what headers became that came before
//! - `line`: a canonical line back into its fields
//! - `render`: a canonical line as RFC 5424, RFC 3164 or JSON
//! - `rule`: which canonical lines are meant
//! - `visible`: control characters as text, where people read
//! - `check`: what must hold for all bytes

pub mod check;
mod docker;
mod heads;
mod line;
mod loose;
mod render;
mod rfc5424;
mod rule;
mod tag;
#[cfg(test)]
mod tests;
mod time;
mod translate;
mod visible;

use std::fmt;

pub use heads::{HeadId, MOST_HEADS};
pub use line::Line;
pub use render::{FACILITIES, Format, SEVERITIES, escape, render};
pub use rfc5424::is_sd_id;
pub use rule::{Facilities, Patterns, Rule, Severities, fits, severity_by_name};
pub use tag::{Container, TagTemplate};
pub use time::{LocalStamp, Stamp, StampOrigin, UnixMicros, UtcOffset};
pub use translate::{ListenerMark, OWN_SD_ID, Translated, Translator};
pub use visible::{append_escaped, append_on_one_line, append_visible, make_json_visible};

use time::Stamps;

/// RFC 3164 4.3.3: a packet without a priority is `user.notice`.
const DEFAULT_PRI: u8 = 13;

/// One message as it came off a socket.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The bytes without the octet count. One LF at the end belongs to the framing and is not part of the message.
    pub bytes: &'a [u8],
    /// Longer than the frame limit: `bytes` is only the start, the rest was thrown away.
    pub cut: bool,
    /// When it was read.
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
    /// RFC 3164 from anybody else: a priority, a stamp, and most often a host and a tag.
    Rfc3164,
    /// No header that could be understood. A valid priority was kept, all the rest is the message.
    Unknown,
}

/// What the relay adds to what the sender said, and how it reads the sender's tag.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For messages that name no host.
    pub hostname: String,
    /// The senders' `tag` log option.
    pub tag_template: TagTemplate,
    /// SD-ID of the element that carries image, name and ID, for example `docker@32473`; see [`is_sd_id`].
    pub sd_id: String,
    /// The zone of RFC 3164 stamps that are too old or too new to tell it themselves.
    pub utc_offset: UtcOffset,
}

/// The severity of a canonical line, 0 (emergency) to 7 (debug): RFC 5424 6.2.1.
pub fn severity(line: &[u8]) -> u8 {
    pri(line) & 7
}

/// The facility of a canonical line, 0 to 23.
pub fn facility(line: &[u8]) -> u8 {
    pri(line) >> 3
}

fn pri(line: &[u8]) -> u8 {
    priority(line).map_or(DEFAULT_PRI, |(pri, _)| pri)
}

/// A stamp as RFC 5424 6.2.3 wants it.
pub fn stamp_text(stamp: &Stamp<'_>) -> String {
    let mut out = Vec::new();
    Stamps::default().write(stamp, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Who sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Senders {
    #[default]
    Anybody,
    /// Docker's syslog driver and nobody else. It sends no structured data, so whatever looks like some was written by
    /// somebody else and is text: image, name and ID come from the tag alone.
    Docker,
}

/// One message, its parts borrowed from its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub shape: Shape,
    /// `0 <= facility <= 23`
    pub facility: u8,
    /// `0 <= severity <= 7`
    pub severity: u8,
    pub timestamp: Stamp<'a>,
    /// `None`: the sender named none.
    pub hostname: Option<&'a [u8]>,
    /// The tag of RFC 3164, the APP-NAME of RFC 5424; as sent, of any length.
    pub tag: Option<&'a [u8]>,
    /// The process that spoke to us; from Docker, `dockerd`.
    pub proc_id: Option<&'a [u8]>,
    /// Never from Docker, whose MSGID is the tag once more.
    pub msg_id: Option<&'a [u8]>,
    /// What the tag tells about the container, if it is a container's.
    pub container: Container<'a>,
    pub structured_data: StructuredData<'a>,
    /// Byte for byte as sent. `Some(b"")` is RFC 5424 with a blank after the structured data and nothing behind it.
    pub message: Option<&'a [u8]>,
    /// See [`Frame::cut`].
    pub cut: bool,
}

/// RFC 5424 6.3, as the sender sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructuredData<'a> {
    /// None sent, or `-`.
    Nil,
    /// One or more well-formed elements, verbatim.
    Elements(&'a [u8]),
    /// Not well-formed; [`Message::message`] starts with it. "A relay MUST forward malformed STRUCTURED-DATA without
    /// any alteration."
    Malformed,
}

/// A setting that cannot be used, and why: a sentence for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSetting(String);

/// Reads one frame. Never fails: see [`Shape::Unknown`].
pub fn parse<'a>(frame: &Frame<'a>, settings: &Settings, senders: Senders) -> Message<'a> {
    parse_with(frame, settings, senders, &mut Stamps::default())
}

/// [`parse`] for many frames: `stamps` remembers the last stamps.
fn parse_with<'a>(frame: &Frame<'a>, settings: &Settings, senders: Senders, stamps: &mut Stamps) -> Message<'a> {
    // Where a frame was cut, a LF at its end is text that happens to stand there.
    let bytes = match frame.bytes.strip_suffix(b"\n") {
        Some(bytes) if !frame.cut => bytes,
        _ => frame.bytes,
    };
    let Some((pri, rest)) = priority(bytes) else {
        return Message::new(Shape::Unknown, DEFAULT_PRI, frame, bytes);
    };
    let reader = Reader { pri, rest, frame, settings };
    let others = senders == Senders::Anybody;
    // A well-formed RFC 5424 message is never searched for a tag with blanks: a message must not be able to forge one.
    // Where only Docker sends there is none, but a tag can be made that looks like one.
    let message = docker::read(&reader, stamps)
        .or_else(|| others.then(|| rfc5424::read(&reader))?)
        .or_else(|| docker::read_tag_with_blanks(&reader, stamps))
        .or_else(|| others.then(|| rfc5424::read_malformed(&reader).or_else(|| loose::read(&reader)))?)
        .unwrap_or_else(|| Message::new(Shape::Unknown, pri, frame, rest));
    docker::signed(message, settings)
}

/// What every reader gets: the frame behind its priority.
struct Reader<'f, 'a> {
    /// `pri <= 191`
    pri: u8,
    /// What follows `<PRI>`.
    rest: &'a [u8],
    frame: &'f Frame<'a>,
    settings: &'f Settings,
}

impl<'a> Message<'a> {
    /// A message of which nothing is known but its priority. An empty text is no text.
    fn new(shape: Shape, pri: u8, frame: &Frame<'_>, message: &'a [u8]) -> Self {
        Self {
            shape,
            facility: pri >> 3,
            severity: pri & 7,
            timestamp: Stamp::Received(frame.received),
            hostname: None,
            tag: None,
            proc_id: None,
            msg_id: None,
            container: Container::default(),
            structured_data: StructuredData::Nil,
            message: (!message.is_empty()).then_some(message),
            cut: frame.cut,
        }
    }
}

/// Splits `<PRI>` off: 0 to 191, without leading zeros (RFC 3164 4.1.1, RFC 5424 6.2.1).
#[inline(always)]
fn priority(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |b: u8| u16::from(b.wrapping_sub(b'0'));
    let (value, rest) = match bytes {
        [b'<', a @ b'0'..=b'9', b'>', rest @ ..] => (digit(*a), rest),
        [b'<', a @ b'1'..=b'9', b @ b'0'..=b'9', b'>', rest @ ..] => (digit(*a) * 10 + digit(*b), rest),
        [b'<', b'1', b @ b'0'..=b'9', c @ b'0'..=b'9', b'>', rest @ ..] => (100 + digit(*b) * 10 + digit(*c), rest),
        _ => return None,
    };
    (value <= 191).then_some((value as u8, rest))
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "-".to_owned(),
            tag_template: TagTemplate::default(),
            sd_id: "docker@32473".to_owned(),
            utc_offset: UtcOffset::UTC,
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

impl BadSetting {
    pub fn new(says: String) -> Self {
        Self(says)
    }
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSetting {}
