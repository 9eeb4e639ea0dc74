//! The header of RFC 5424: splits it into fields, and writes each field as far as the RFC allows.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;

use super::time::is_rfc3339;

/// The maximum lengths of the fields, in bytes (RFC 5424 6).
pub const MAX_HOSTNAME: usize = 255;
pub const MAX_APP_NAME: usize = 48;
pub const MAX_PROC_ID: usize = 128;
pub const MAX_MSG_ID: usize = 32;

/// The fields after `<PRI>1 `. None of them is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub timestamp: &'a [u8],
    pub hostname: &'a [u8],
    pub app_name: &'a [u8],
    pub proc_id: &'a [u8],
    pub msg_id: &'a [u8],
    /// Structured data and message, not yet split.
    pub rest: &'a [u8],
}

/// HOSTNAME, APP-NAME, PROCID or MSGID, as the sender wrote it and as it is written in the line. Two fields are equal if they
/// are written alike in the line.
#[derive(Clone, Copy)]
pub struct HeaderField<'a> {
    said: &'a [u8],
    /// `false`: each byte that RFC 5424 does not allow is written as `_`.
    verbatim: bool,
}

impl<'a> Header<'a> {
    /// Splits the text after `<PRI>`. `None`: the version is not 1, a field is missing, or the timestamp is invalid.
    pub fn split(text: &'a [u8]) -> Option<Self> {
        let mut rest = text.strip_prefix(b"1 ")?;
        let mut next = || {
            let end = memchr(b' ', rest).filter(|end| *end > 0)?;
            let field = &rest[..end];
            rest = &rest[end + 1..];
            Some(field)
        };
        let (timestamp, hostname, app_name, proc_id, msg_id) = (next()?, next()?, next()?, next()?, next()?);
        // RFC 5424 allows six digits of a second. Many senders write nine, which does no harm.
        let possible = timestamp == b"-" || is_rfc3339(timestamp, 9);
        possible.then_some(Self { timestamp, hostname, app_name, proc_id, msg_id, rest })
    }
}

impl<'a> HeaderField<'a> {
    /// A field of an RFC 5424 header: at least one byte, without blanks. It is not checked, because a relay does not alter
    /// more than it must. `None`: the field is `-` or empty.
    pub fn verbatim(said: &'a [u8]) -> Option<Self> {
        (said != b"-" && !said.is_empty()).then_some(Self { said, verbatim: true })
    }

    /// Makes a legal field of any text: the text is cut after `max` bytes, and everything but printable ASCII is written as
    /// `_`. `None`: the text is `-` or empty.
    pub fn legal(said: &'a [u8], max: usize) -> Option<Self> {
        let said = &said[..said.len().min(max)];
        (said != b"-" && !said.is_empty()).then_some(Self { said, verbatim: is_legal(said) })
    }

    /// The field as the sender wrote it. A text that was made legal is cut to the length of the field.
    pub fn said(&self) -> &'a [u8] {
        self.said
    }

    /// Is the field written as the sender wrote it?
    pub fn is_verbatim(&self) -> bool {
        self.verbatim
    }

    /// The bytes of the field as written in the line.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let is_verbatim = self.is_verbatim();
        self.said.iter().map(move |byte| if is_verbatim || byte.is_ascii_graphic() { *byte } else { b'_' })
    }

    /// The field as written in the line.
    pub fn written(&self) -> Cow<'a, [u8]> {
        match self.is_verbatim() {
            true => self.said.into(),
            false => self.bytes().collect::<Vec<u8>>().into(),
        }
    }

    /// The field as written in the line; `-` for `None`.
    pub fn or_nil(field: Option<Self>) -> Cow<'a, [u8]> {
        field.map_or(Cow::Borrowed(b"-"), |field| field.written())
    }

    #[inline(always)]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self.is_verbatim() {
            true => out.extend_from_slice(self.said),
            false => out.extend(self.bytes()),
        }
    }
}

fn is_legal(value: &[u8]) -> bool {
    value.iter().all(u8::is_ascii_graphic)
}

impl PartialEq for HeaderField<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes().eq(other.bytes())
    }
}

impl Eq for HeaderField<'_> {}

impl fmt::Debug for HeaderField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.written()))
    }
}
