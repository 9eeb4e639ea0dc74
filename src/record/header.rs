//! The header of RFC 5424: its fields found, and written as far as the RFC allows.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;

use super::time::is_rfc3339;

/// The maximum length of a field in bytes (RFC 5424 6.2).
pub const MAX_HOSTNAME: usize = 255;
pub const MAX_APP_NAME: usize = 48;
pub const MAX_PROC_ID: usize = 128;
pub const MAX_MSG_ID: usize = 32;

/// The fields behind `<PRI>1 `, none of them empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub timestamp: &'a [u8],
    pub hostname: &'a [u8],
    pub app_name: &'a [u8],
    pub proc_id: &'a [u8],
    pub msg_id: &'a [u8],
    /// Structured data and message, not yet told apart.
    pub rest: &'a [u8],
}

/// HOSTNAME, APP-NAME, PROCID or MSGID: what a sender said, and how it stands in the line. Two that stand there alike are
/// equal.
#[derive(Clone, Copy)]
pub struct HeaderField<'a> {
    said: &'a [u8],
    /// `false`: it is written with `_` for each byte that RFC 5424 does not allow.
    verbatim: bool,
}

impl<'a> Header<'a> {
    /// Splits what follows `<PRI>`. `None`: no version 1, a field missing, or an impossible stamp.
    pub fn split(text: &'a [u8]) -> Option<Self> {
        let mut rest = text.strip_prefix(b"1 ")?;
        let mut next = || {
            let end = memchr(b' ', rest).filter(|end| *end > 0)?;
            let field = &rest[..end];
            rest = &rest[end + 1..];
            Some(field)
        };
        let (timestamp, hostname, app_name, proc_id, msg_id) = (next()?, next()?, next()?, next()?, next()?);
        // Nine digits of a second are not RFC 5424, but there are many senders of them, and they harm nobody.
        let possible = timestamp == b"-" || is_rfc3339(timestamp, 9);
        possible.then_some(Self { timestamp, hostname, app_name, proc_id, msg_id, rest })
    }
}

impl<'a> HeaderField<'a> {
    /// A field as it stands in a header of RFC 5424: at least one byte, and no blank among them. It is not ours to judge: a
    /// relay alters nothing it need not. `None`: it is `-`, or none.
    pub fn verbatim(said: &'a [u8]) -> Option<Self> {
        (said != b"-" && !said.is_empty()).then_some(Self { said, verbatim: true })
    }

    /// What is no field yet: it is cut after `max` bytes, and everything but printable ASCII becomes `_`.
    pub fn legal(said: &'a [u8], max: usize) -> Option<Self> {
        let said = &said[..said.len().min(max)];
        (said != b"-" && !said.is_empty()).then_some(Self { said, verbatim: is_legal(said) })
    }

    /// What the sender said; of what is no field only as much as is written.
    pub fn said(&self) -> &'a [u8] {
        self.said
    }

    /// Does the line have the field as the sender said it?
    pub fn is_verbatim(&self) -> bool {
        self.verbatim
    }

    /// The bytes of the field in the line.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let is_verbatim = self.is_verbatim();
        self.said.iter().map(move |byte| if is_verbatim || byte.is_ascii_graphic() { *byte } else { b'_' })
    }

    /// The field in the line.
    pub fn written(&self) -> Cow<'a, [u8]> {
        match self.is_verbatim() {
            true => self.said.into(),
            false => self.bytes().collect::<Vec<u8>>().into(),
        }
    }

    /// The field in the line: `-` for none.
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
