//! Frames → records → lines, for one listener: what is told apart here is whether a header came before.
//!
//! A container's line carries its name as APP-NAME, its ID as PROCID, and image, name and ID as structured data.
//! What had to be changed to make it legal is kept as a param beside it; the message is never changed.

use core::net::IpAddr;
use std::sync::Arc;

use super::header_cache::{Form, HeaderCache, HeaderId, MAX_HEADERS};
use super::stamp::StampReader;
use super::{Frame, Reading, Senders, Settings, Shape, parse_with};
use crate::record::time::{BSD_LEN, StampWriter};
use crate::record::write::{write_start, write_text};
use crate::record::{
    FIELDS_SD_ID, Fields, JSON_SD_ID, LineOptions, OWN_SD_ID, Record, Stamp, StructuredData, priority,
};

/// The most a line grows beside what it repeats of the frame, in bytes: stamp, ID, field and param names.
const MAX_GROWTH: usize = 256;

/// Frames → records → lines. It remembers the last stamps and headers; let every thread have its own.
#[derive(Clone)]
pub struct Translator {
    settings: Arc<Settings>,
    options: LineOptions,
    stamps: StampReader,
    stamp_writer: StampWriter,
    headers: HeaderCache,
    mark: ListenerMark,
    senders: Senders,
    peer: Option<IpAddr>,
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

/// A message whose header came before: who sent it is known, and what its line begins with.
pub struct Known<'a> {
    pub header: HeaderId,
    pub shape: Shape,
    /// `pri <= 191`
    pri: u8,
    timestamp: Stamp<'a>,
    /// Of the header.
    place: usize,
    /// All that is new.
    pub text: &'a [u8],
}

/// A message that was read, and can be written.
pub struct Message<'a> {
    pub record: Record<'a>,
    pub shape: Shape,
    /// The header, if it is one that is remembered. Only those of containers are.
    pub header: Option<HeaderId>,
    options: &'a LineOptions,
    stamp_writer: &'a mut StampWriter,
    /// What was written of the header, if it is remembered.
    written: Option<&'a [u8]>,
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
        Self {
            options: settings.line_options(),
            settings,
            stamps: StampReader::default(),
            stamp_writer: StampWriter::default(),
            headers: HeaderCache::new(MAX_HEADERS),
            mark: ListenerMark::AsItCame,
            senders: Senders::Anybody,
            peer: None,
        }
    }

    /// From now on frames come from the listener with this mark, and from these senders. Forgets the headers it has seen.
    pub fn listen_to(&mut self, mark: ListenerMark, senders: Senders) {
        self.mark = mark;
        self.senders = senders;
        self.headers.forget();
    }

    /// From now on frames come from this address.
    pub fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.peer = peer;
    }

    /// Remembers at most so many headers from now on, instead of [`MAX_HEADERS`].
    pub fn remember_headers(&mut self, max: usize) {
        self.headers = HeaderCache::new(max);
    }

    /// Reads a frame and appends its line to `out`, without a LF behind it. An empty frame gives a line without a message.
    pub fn translate(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Shape {
        if let Some(known) = self.find(frame) {
            self.write_known(&known, out);
            return known.shape;
        }
        let message = self.read(frame);
        let shape = message.shape;
        message.write(out);
        shape
    }

    /// What a frame says whose header came before.
    #[inline]
    pub fn find<'a>(&mut self, frame: &Frame<'a>) -> Option<Known<'a>> {
        let Outline { pri, form, stamp, rest } = self.outline(frame)?;
        let (place, header) = self.headers.find(form, rest)?;
        let timestamp = match form {
            Form::Rfc3164 => self.stamps.bsd(stamp, frame.received, self.settings.utc_offset)?,
            Form::Rfc5424 => self.stamps.is_rfc3339(stamp, 9).then_some(Stamp::Text(stamp.into()))?,
        };
        let text = &rest[header.read.len()..];
        Some(Known { header: header.id, shape: header.shape, pri, timestamp, place, text })
    }

    /// Appends the line of what [`Translator::find`] has found last.
    #[inline]
    pub fn write_known(&mut self, known: &Known<'_>, out: &mut Vec<u8>) {
        let written = &self.headers.at(known.place).written;
        out.reserve(written.len() + known.text.len() + MAX_GROWTH);
        write_start(known.pri, Some(&known.timestamp), &mut self.stamp_writer, out);
        out.extend_from_slice(written);
        // Of anybody's RFC 5424 the blank is there when nothing is behind it.
        let is_there = !known.text.is_empty() || known.shape == Shape::Rfc5424;
        write_text(Some(known.text).filter(|_| is_there), out);
    }

    /// Understands a frame, and remembers its header if it is a container's.
    pub fn read<'a>(&'a mut self, frame: &Frame<'a>) -> Message<'a> {
        let outline = self.outline(frame);
        let Self { settings, options, stamps, stamp_writer, headers, mark, senders, peer } = self;
        let Reading { mut record, shape } = parse_with(frame, settings, *senders, stamps);
        mark.apply(&mut record);
        record.peer = record.peer.or(*peer);
        let mut header = None;
        if let (Some(Outline { form, rest, .. }), Some(text)) = (outline, record.message)
            && is_remembered(&record)
        {
            let read = &rest[..rest.len() - text.len()];
            let place = headers.remember((form, shape), read, |out| record.write_header(options, out));
            header = place.map(|place| headers.at(place));
        }
        let (header, written) = (header.map(|header| header.id), header.map(|header| &header.written[..]));
        Message { record, shape, header, options, stamp_writer, written }
    }

    /// `None` for what is always understood anew: cut frames, and any where a template makes tags with blanks.
    #[inline]
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
}

/// A container's header is followed by a text that can be told from it, and the next message has most likely the same one.
fn is_remembered(record: &Record<'_>) -> bool {
    record.container.is_some()
        && record.structured_data != StructuredData::Malformed
        && record.message.is_some_and(|text| !text.is_empty())
        && record.tag.as_ref().is_none_or(|tag| !tag.contains(&b' '))
}

impl ListenerMark {
    /// Makes the record say what the relay knows, and nothing that only the relay may say.
    fn apply<'a>(&'a self, record: &mut Record<'a>) {
        let name = match self {
            Self::AsItCame => return,
            Self::Nothing => None,
            Self::Name(name) => Some(name),
        };
        if record.structured_data == StructuredData::Malformed {
            // For others it may be well formed, and say what only we may say: it is text then.
            let text = record.message.unwrap_or_default();
            let ours = [OWN_SD_ID, FIELDS_SD_ID, JSON_SD_ID];
            if !ours.iter().any(|id| memchr::memmem::find(text, id.as_bytes()).is_some()) {
                return;
            }
            record.structured_data = StructuredData::Nil;
        }
        record.listener = name.map(|name| name.as_bytes().into());
        record.fields = Fields::default();
    }
}

impl Message<'_> {
    /// Appends the line, without a LF behind it.
    pub fn write(self, out: &mut Vec<u8>) {
        let Self { record, options, stamp_writer, written, .. } = self;
        let text = record.message.unwrap_or_default();
        match written {
            Some(written) => {
                out.reserve(written.len() + text.len() + MAX_GROWTH);
                write_start(record.facility << 3 | record.severity, record.timestamp.as_ref(), stamp_writer, out);
                out.extend_from_slice(written);
                write_text(record.message, out);
            }
            None => {
                out.reserve(text.len() + MAX_GROWTH);
                record.write_line_with(stamp_writer, options, out);
            }
        }
    }
}

impl Known<'_> {
    /// RFC 5424 6.2.1.
    pub fn facility(&self) -> u8 {
        self.pri >> 3
    }

    /// RFC 5424 6.2.1.
    pub fn severity(&self) -> u8 {
        self.pri & 7
    }
}
