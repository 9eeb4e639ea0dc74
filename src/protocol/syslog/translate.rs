//! [`Message`] → canonical line: `<PRI>1 STAMP HOST APP PROCID MSGID SD[ MSG]`, RFC 5424 without framing.
//!
//! A container's line carries its name as APP-NAME, its ID as PROCID, and image, name and ID as structured data.
//! What had to be changed to make it legal is kept as a param beside it; the message is never changed.

use std::sync::Arc;

use super::header_cache::{Form, HeadId, Heads, MOST_HEADS};
use super::{Frame, Message, Senders, Settings, Shape, StructuredData, parse_with};
use crate::record::structured_data::{Element, elements, write_escaped_param, write_param};
use crate::record::time::{BSD_LEN, Stamps};
use crate::record::{LISTENER, OWN_ID, Stamp, priority};

/// RFC 5424 6.2: the most a field may have, in bytes.
const MAX_HOSTNAME: usize = 255;
const MAX_APP_NAME: usize = 48;
const MAX_PROC_ID: usize = 128;
/// The most a canonical line grows beside what it repeats of the frame: stamp, ID, field and param names.
const GROWTH: usize = 256;

const CUT: &str = "cut";

/// Frames → canonical lines. It remembers the last stamps and headers; let every thread have its own.
#[derive(Clone)]
pub struct Translator {
    settings: Arc<Settings>,
    /// The hostname setting made legal.
    hostname: Vec<u8>,
    stamps: Stamps,
    heads: Heads,
    mark: ListenerMark,
    senders: Senders,
}

/// What a line says of the listener that took it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListenerMark {
    /// Listeners have no names here: what another relay may have said is left as it is.
    #[default]
    AsItCame,
    /// Some listeners have names, this one has none: nobody can say that another one took it.
    Nothing,
    Name(String),
}

impl ListenerMark {
    /// `name`: the listener's; `any_has_one`: whether some listener has a name.
    pub fn new(name: Option<&str>, any_has_one: bool) -> Self {
        match name {
            Some(name) => Self::Name(name.to_owned()),
            None if any_has_one => Self::Nothing,
            None => Self::AsItCame,
        }
    }
}

/// What was appended for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    pub shape: Shape,
    /// The header, if it is one that is remembered; only those of [`Shape::Docker`] are.
    pub head: Option<HeadId>,
    /// Bytes of the line's message, which ends the line.
    pub text: usize,
}

/// A frame taken apart as far as it must be to find a header that came before. Whether the stamp is one is not known yet.
struct Outline<'a> {
    pri: u8,
    form: Form,
    stamp: &'a [u8],
    /// Everything behind the stamp and its blank.
    rest: &'a [u8],
}

impl Translator {
    pub fn new(settings: Arc<Settings>) -> Self {
        let mut hostname = Vec::new();
        write_legal(settings.hostname.as_bytes(), MAX_HOSTNAME, &mut hostname);
        Self {
            settings,
            hostname,
            stamps: Stamps::default(),
            heads: Heads::new(MOST_HEADS),
            mark: ListenerMark::AsItCame,
            senders: Senders::Anybody,
        }
    }

    /// From now on frames come from the listener called so, and from these. Forgets the headers it has seen.
    pub fn hear(&mut self, mark: ListenerMark, senders: Senders) {
        self.mark = mark;
        self.senders = senders;
        self.heads.forget();
    }

    /// Remembers at most so many headers from now on, instead of [`MOST_HEADS`].
    pub fn remember_heads(&mut self, most: usize) {
        self.heads = Heads::new(most);
    }

    /// Appends exactly one canonical line to `out`, without a LF behind it. An empty frame gives a line without a message.
    pub fn translate(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Translated {
        out.reserve(frame.bytes.len() + GROWTH);
        let outline = self.outline(frame);
        if let Some(Outline { pri, form, stamp, rest }) = &outline
            && let Some((id, head, text)) = self.heads.find(*form, rest)
            && let Some(stamp) = match form {
                Form::Rfc3164 => self.stamps.bsd(stamp, frame.received, self.settings.utc_offset),
                Form::Rfc5424 => self.stamps.is_rfc3339(stamp, 9).then_some(Stamp::Text((*stamp).into())),
            }
        {
            write_start(*pri, &stamp, &mut self.stamps, out);
            out.extend_from_slice(head);
            write_text(Some(text).filter(|text| !text.is_empty()), out);
            return Translated { shape: Shape::Docker, head: Some(id), text: text.len() };
        }
        let mut message = parse_with(frame, &self.settings, self.senders, &mut self.stamps);
        // For others it may be well formed, and say what only we may say: it is text then.
        if message.structured_data == StructuredData::Malformed && self.speaks_for_us(&message) {
            message.structured_data = StructuredData::Nil;
        }
        write_start(message.facility << 3 | message.severity, &message.timestamp, &mut self.stamps, out);
        let start = out.len();
        self.write_header(&message, out);
        self.write_sd(&message, out);
        let mut head = None;
        if message.shape == Shape::Docker
            && let (Some(Outline { form, rest, .. }), Some(text)) = (outline, message.message)
            && message.tag.is_some_and(|tag| !tag.contains(&b' '))
        {
            head = self.heads.remember(form, &rest[..rest.len() - text.len()], &out[start..]);
        }
        match message.structured_data {
            StructuredData::Malformed => out.extend_from_slice(message.message.unwrap_or_default()),
            _ => write_text(message.message, out),
        }
        Translated { shape: message.shape, head, text: message.message.map_or(0, <[u8]>::len) }
    }

    /// `None` for what is always understood anew: cut frames, and any where a template makes tags with blanks.
    fn outline<'a>(&self, frame: &Frame<'a>) -> Option<Outline<'a>> {
        if frame.cut || self.settings.tag_template.has_blank() {
            return None;
        }
        let bytes = frame.bytes.strip_suffix(b"\n").unwrap_or(frame.bytes);
        let (pri, header) = priority(bytes)?;
        let (form, (stamp, rest)) = match header.strip_prefix(b"1 ") {
            Some(header) => (Form::Rfc5424, header.split_at_checked(memchr::memchr(b' ', header)?)?),
            None => (Form::Rfc3164, header.split_at_checked(BSD_LEN)?),
        };
        Some(Outline { pri, form, stamp, rest: rest.strip_prefix(b" ")? })
    }

    /// From the blank behind the stamp to the one behind MSGID.
    fn write_header(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        out.push(b' ');
        if message.shape == Shape::Rfc5424 {
            // Not ours to judge: a relay alters nothing it need not.
            for field in [message.hostname.unwrap_or(&self.hostname), or_nil(message.tag), or_nil(message.proc_id)] {
                out.extend_from_slice(field);
                out.push(b' ');
            }
            out.extend_from_slice(or_nil(message.msg_id));
            out.push(b' ');
            return;
        }
        match message.hostname {
            Some(host) => write_legal(host, MAX_HOSTNAME, out),
            None => out.extend_from_slice(&self.hostname),
        }
        out.push(b' ');
        let container = &message.container;
        let app_name = container.name.or(container.id).or(message.tag);
        write_legal(app_name.unwrap_or_default(), MAX_APP_NAME, out);
        out.push(b' ');
        write_legal(container.id.or(message.proc_id).unwrap_or_default(), MAX_PROC_ID, out);
        out.extend_from_slice(b" - ");
    }

    fn write_sd(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        match message.structured_data {
            StructuredData::Malformed => return,
            StructuredData::Elements(sent) => self.write_elements(sent, message.cut, out),
            StructuredData::Nil => {
                if message.shape != Shape::Rfc5424 {
                    self.write_container(message, out);
                }
                self.write_own(None, message.cut, out);
            }
        }
        if out.len() == start {
            out.push(b'-');
        }
    }

    fn speaks_for_us(&self, message: &Message<'_>) -> bool {
        let text = message.message.unwrap_or_default();
        self.mark != ListenerMark::AsItCame && memchr::memmem::find(text, OWN_ID).is_some()
    }

    /// What was sent, but for what only we may say.
    fn write_elements(&self, sent: &[u8], cut: bool, out: &mut Vec<u8>) {
        let own = elements(sent).find(|element| element.id == OWN_ID);
        let says_cut = |element: Element<'_>| element.params().any(|(name, _)| name == CUT.as_bytes());
        if self.mark == ListenerMark::AsItCame && (!cut || own.is_some_and(says_cut)) {
            out.extend_from_slice(sent);
            return;
        }
        for element in elements(sent).filter(|element| element.id != OWN_ID) {
            out.extend_from_slice(element.text);
        }
        self.write_own(own, cut, out);
    }

    /// The element of what the relay itself says. `sent`: what one before us has said.
    fn write_own(&self, sent: Option<Element<'_>>, cut: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'[');
        out.extend_from_slice(OWN_ID);
        let empty = out.len();
        let is_kept = |name: &[u8]| self.mark == ListenerMark::AsItCame || name != LISTENER.as_bytes();
        let kept = || sent.into_iter().flat_map(Element::params).filter(|(name, _)| is_kept(name));
        for (name, value) in kept() {
            write_escaped_param(name, value, out);
        }
        if cut && kept().all(|(name, _)| name != CUT.as_bytes()) {
            write_param(CUT, b"true", out);
        }
        if let ListenerMark::Name(name) = &self.mark {
            write_param(LISTENER, name.as_bytes(), out);
        }
        match out.len() == empty {
            true => out.truncate(start),
            false => out.push(b']'),
        }
    }

    /// The element with image, name and ID, and the tag where APP-NAME was made from it and could not keep it.
    fn write_container(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        let container = &message.container;
        let no_app_name = container.name.is_none() && container.id.is_none();
        let lost_tag = message.tag.filter(|tag| no_app_name && !is_legal(tag, MAX_APP_NAME));
        let params = [("image", container.image), ("name", container.name), ("id", container.id), ("tag", lost_tag)];
        if params.iter().all(|(_, value)| value.is_none()) {
            return;
        }
        out.push(b'[');
        out.extend_from_slice(self.settings.sd_id.as_bytes());
        for (name, value) in params {
            if let Some(value) = value {
                write_param(name, value, out);
            }
        }
        out.push(b']');
    }
}

/// `<PRI>1 STAMP`
#[inline(always)]
fn write_start(pri: u8, stamp: &Stamp<'_>, stamps: &mut Stamps, out: &mut Vec<u8>) {
    write_pri(pri, out);
    out.extend_from_slice(b"1 ");
    stamps.write(stamp, out);
}

#[inline(always)]
fn write_text(text: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(text) = text {
        out.push(b' ');
        out.extend_from_slice(text);
    }
}

#[inline(always)]
fn write_pri(pri: u8, out: &mut Vec<u8>) {
    out.push(b'<');
    if pri >= 100 {
        out.push(b'0' + pri / 100);
    }
    if pri >= 10 {
        out.push(b'0' + pri / 10 % 10);
    }
    out.extend_from_slice(&[b'0' + pri % 10, b'>']);
}

/// Appends a header field: printable ASCII without blanks, everything else as `_`; `-` for nothing.
fn write_legal(value: &[u8], max: usize, out: &mut Vec<u8>) {
    let value = &value[..value.len().min(max)];
    if value.is_empty() {
        out.push(b'-');
    } else if is_legal(value, max) {
        out.extend_from_slice(value);
    } else {
        out.extend(value.iter().map(|b| if b.is_ascii_graphic() { *b } else { b'_' }));
    }
}

fn is_legal(value: &[u8], max: usize) -> bool {
    value.len() <= max && value.iter().all(u8::is_ascii_graphic)
}

fn or_nil(field: Option<&[u8]>) -> &[u8] {
    field.unwrap_or(b"-")
}
