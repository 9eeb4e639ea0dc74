//! Frames → records → lines, for one listener. A header that came before is copied from the cache.
//!
//! A container's line has its name as APP-NAME, its ID as PROCID, and image, name and ID as structured data. A value that had to be changed
//! to make it legal is kept unchanged as a param; the message is never changed.

use core::net::IpAddr;
use std::sync::Arc;

use super::header_cache::{Form, HeaderCache, HeaderId, MAX_HEADERS};
use super::host::{Host, Hosts, LocalAddresses, PeerNames};
use super::marks::has_marks;
use super::stamp::StampReader;
use super::{Frame, Listening, Marks, Reading, Senders, Settings, Shape, TagTemplates, parse_with};
use crate::protocol::outline::Outline;
use crate::protocol::session::ToRecord;
use crate::record::header::MAX_HOSTNAME;
use crate::record::structured_data::elements;
use crate::record::time::{BSD_LEN, StampWriter};
use crate::record::write::{which, write_start, write_text};
use crate::record::{
    Fields, HeaderField, LineOptions, Record, Stamp, StructuredData, TimeZone, UnixMicros, Value, priority,
};

/// Maximum bytes of a line beyond what it repeats of the frame: stamp, ID, field and param names.
const MAX_GROWTH: usize = 256;

/// Frames → records → lines. Caches the last stamps and headers, so each thread should have its own translator.
#[derive(Clone)]
pub struct Translator {
    settings: Arc<Settings>,
    /// The options for lines without the sender's address, and for lines with it. Shared, because each connection has a translator.
    options: Arc<[LineOptions; 2]>,
    stamps: StampReader,
    stamp_writer: StampWriter,
    headers: HeaderCache,
    listening: Arc<Listening>,
    hosts: Hosts,
    peer: Option<IpAddr>,
    /// The zone of this peer's stamps without one.
    zone: Option<TimeZone>,
    /// The structured data without our elements. Reused.
    unmarked: Vec<u8>,
}

/// A message whose header is cached: the container and the start of its line are known.
pub struct Known<'a> {
    pub header: HeaderId,
    pub shape: Shape,
    /// `pri <= 191`
    pri: u8,
    timestamp: Stamp<'a>,
    /// Nanoseconds beyond the stamp's microseconds, from another protocol.
    nanoseconds: u16,
    /// Whether the message has a text, which may be empty.
    has_text: bool,
    /// The header's place in the cache.
    place: usize,
    /// The only new part.
    pub text: &'a [u8],
}

/// A message that was parsed and can be written.
pub struct Message<'a> {
    pub record: Record<'a>,
    /// The header, if it is cached. Only headers of containers are.
    pub header: Option<HeaderId>,
    templates: &'a TagTemplates,
    options: &'a LineOptions,
    stamp_writer: &'a mut StampWriter,
    /// The header as written, if it is copied from the cache.
    written: Option<&'a [u8]>,
}

/// A frame split as far as the lookup of its header needs. The stamp is not checked yet.
struct FrameOutline<'a> {
    pri: u8,
    form: Form,
    stamp: &'a [u8],
    /// Everything after the stamp and its blank.
    rest: &'a [u8],
}

impl Translator {
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            options: Arc::new([false, true].map(|peer| settings.line_options(peer))),
            zone: settings.time_zone.clone(),
            settings,
            stamps: StampReader::default(),
            stamp_writer: StampWriter::default(),
            headers: HeaderCache::new(MAX_HEADERS),
            listening: Arc::default(),
            hosts: Hosts::default(),
            peer: None,
            unmarked: Vec::new(),
        }
    }

    /// Sets the listener that frames come from. Clears the header cache.
    pub fn listen_to(&mut self, listening: Listening) {
        self.hosts.set_source(listening.host.clone());
        self.listening = Arc::new(listening);
        self.headers.forget();
        self.choose_zone();
    }

    /// Sets the addresses of this machine. Clears the header cache.
    pub fn set_local(&mut self, local: Arc<LocalAddresses>) {
        self.hosts.set_local(local);
        self.headers.forget();
    }

    /// Sets the source of senders' names.
    pub fn set_names(&mut self, names: PeerNames) {
        self.hosts.set_names(names);
    }

    /// Sets the address that frames come from. (A dual-stack socket reports IPv4 addresses as IPv6.)
    #[inline]
    pub fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.peer = peer.map(|peer| peer.to_canonical());
        if !self.listening.zones.ranges.is_empty() {
            self.choose_zone();
        }
    }

    /// Sets the zone of the peer. A new zone clears the cached stamps, which belong to the old one.
    fn choose_zone(&mut self) {
        let zone = self.listening.zones.of(self.peer).or(self.settings.time_zone.as_ref());
        if zone != self.zone.as_ref() {
            self.zone = zone.cloned();
            self.stamps = StampReader::default();
        }
    }

    /// Whether the listener is configured for Docker only.
    pub fn hears_docker_only(&self) -> bool {
        self.listening.senders == Senders::Docker
    }

    /// Sets the size of the header cache, instead of [`MAX_HEADERS`].
    pub fn remember_headers(&mut self, max: usize) {
        self.headers = HeaderCache::new(max);
    }

    /// Reads a frame and appends its line to `out`, without a LF behind it. An empty frame gives a line without a message.
    pub fn translate(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Shape {
        if let Some(known) = self.find(frame) {
            self.write_known(&known, out);
            return known.shape;
        }
        let (message, shape) = self.read(frame);
        message.write(out);
        shape
    }

    /// Finds a frame's header in the cache.
    #[inline]
    pub fn find<'a>(&mut self, frame: &Frame<'a>) -> Option<Known<'a>> {
        let FrameOutline { pri, form, stamp, rest } = self.outline(frame)?;
        let (place, header) = self.headers.find(form, rest, self.peer)?;
        let timestamp = match form {
            Form::Rfc3164 => self.stamps.bsd(stamp, frame.received, self.zone.as_ref())?,
            Form::Rfc5424 => self.stamps.is_rfc3339(stamp, 9).then_some(Stamp::Text(stamp.into()))?,
            Form::Origin => return None,
        };
        let text = &rest[header.read.len()..];
        // The cached RFC 5424 header of other senders includes the blank before the text, even if the text is empty.
        let has_text = !text.is_empty() || header.shape == Shape::Rfc5424;
        Some(Known { header: header.id, shape: header.shape, pri, timestamp, nanoseconds: 0, has_text, place, text })
    }

    /// Finds a message of another protocol in the cache, if only its time and its text are new.
    #[inline]
    pub fn find_outlined<'a>(&mut self, outline: &'a Outline<'_>, received: UnixMicros) -> Option<Known<'a>> {
        let (place, header) = self.headers.find_origin(&outline.origin, self.peer)?;
        let Outline { stamp, nanoseconds, text, .. } = outline;
        Some(Known {
            header: header.id,
            shape: header.shape,
            pri: header.pri,
            timestamp: stamp.map_or(Stamp::Received(received), Stamp::Respelt),
            nanoseconds: *nanoseconds,
            has_text: true,
            place,
            text,
        })
    }

    /// Appends the line of the message that [`Translator::find`] has found last.
    #[inline]
    pub fn write_known(&mut self, known: &Known<'_>, out: &mut Vec<u8>) {
        let written = &self.headers.at(known.place).written;
        out.reserve(written.len() + known.text.len() + MAX_GROWTH);
        write_start(known.pri, Some(&known.timestamp), &mut self.stamp_writer, out);
        match known.nanoseconds {
            0 => out.extend_from_slice(written),
            nanoseconds => write_with_nanoseconds(written, nanoseconds, out),
        }
        write_text(Some(known.text).filter(|_| known.has_text), out);
    }

    /// Completes a message of a protocol other than syslog, and caches the content that it shares with other messages.
    pub fn take<'a>(&'a mut self, said: &'a impl ToRecord, received: UnixMicros) -> Message<'a> {
        let Self { settings, options, stamp_writer, headers, listening, hosts, peer, .. } = self;
        let record = said.to_record(settings, received);
        let outline = said.outline();
        complete_taken(record, outline, (settings, options), stamp_writer, headers, (listening, hosts, *peer))
    }

    /// Parses a frame, and caches its header if it is a container's.
    pub fn read<'a>(&'a mut self, frame: &Frame<'a>) -> (Message<'a>, Shape) {
        let outline = self.outline(frame);
        let Self { settings, options, stamps, stamp_writer, headers, listening, hosts, peer, zone, unmarked } = self;
        let Listening { senders, marks, .. } = &**listening;
        let Reading { mut record, shape } = parse_with(frame, settings, *senders, zone.as_ref(), stamps);
        if *marks == Marks::Replace {
            record = without_marks(record, &settings.sd_id, unmarked);
            record.cut = frame.cut;
        }
        let is_docker_s = shape == Shape::Docker || *senders == Senders::Docker;
        let completed = complete(&mut record, is_docker_s, listening, hosts, (settings, *peer));
        let options = &options[usize::from(completed.writes_peer)];
        let mut header = None;
        if let (Some(FrameOutline { form, rest, .. }), Some(text)) = (outline, record.message)
            && let Some(of_peer) = completed.of_peer(listening, *peer)
            && is_remembered(&record)
        {
            let read = &rest[..rest.len() - text.len()];
            let place = headers.remember((form, shape, of_peer), read, |out| record.write_header(options, out));
            header = place.map(|place| headers.at(place));
        }
        let (header, written) = (header.map(|header| header.id), header.map(|header| &header.written[..]));
        (Message { record, header, templates: &settings.tag_templates, options, stamp_writer, written }, shape)
    }

    /// `None` for frames that are always parsed: truncated ones, and all frames if a template makes tags with blanks.
    #[inline(always)]
    fn outline<'a>(&self, frame: &Frame<'a>) -> Option<FrameOutline<'a>> {
        if frame.cut || self.settings.tag_templates.has_blank() {
            return None;
        }
        let bytes = frame.bytes.strip_suffix(b"\n").unwrap_or(frame.bytes);
        let (pri, header) = priority(bytes)?;
        let (form, (stamp, rest)) = match header.strip_prefix(b"1 ") {
            Some(header) => (Form::Rfc5424, header.split_at_checked(memchr::memchr(b' ', header)?)?),
            None => (Form::Rfc3164, header.split_at_checked(BSD_LEN)?),
        };
        Some(FrameOutline { pri, form, stamp, rest: rest.strip_prefix(b" ")? })
    }
}

/// The part of [`Translator::take`] that is not generic, so that it is compiled only once.
fn complete_taken<'a>(
    mut record: Record<'a>,
    outline: Option<Outline<'_>>,
    (settings, options): (&'a Settings, &'a [LineOptions; 2]),
    stamp_writer: &'a mut StampWriter,
    headers: &mut HeaderCache,
    (listening, hosts, peer): (&'a Listening, &'a mut Hosts, Option<IpAddr>),
) -> Message<'a> {
    let is_docker_s = record.container.is_some();
    let completed = complete(&mut record, is_docker_s, listening, hosts, (settings, peer));
    let options = &options[usize::from(completed.writes_peer)];
    let header = outline.filter(|outline| is_docker_s && is_outlined(&record, outline)).and_then(|outline| {
        let key = (record.facility << 3 | record.severity, completed.of_peer(listening, peer)?);
        let nanoseconds = std::mem::take(&mut record.nanoseconds);
        let place = headers.remember_origin(key, &outline.origin, |out| record.write_header(options, out));
        record.nanoseconds = nanoseconds;
        Some(headers.at(place?).id)
    });
    Message { record, header, templates: &settings.tag_templates, options, stamp_writer, written: None }
}

/// The result of completing a record.
struct Completed {
    /// Whether its line has the sender's address.
    writes_peer: bool,
    host: HostOrigin,
}

/// The origin of a record's HOSTNAME.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HostOrigin {
    /// The message, or the settings.
    Lasting,
    /// This sender's address.
    Address,
    /// This sender's DNS name. It may change soon.
    Name,
}

impl Completed {
    /// The sender that a cached header is limited to; the inner `None`: all senders. The outer `None`: HOSTNAME may change soon, so the
    /// header must not be cached.
    fn of_peer(&self, listening: &Listening, peer: Option<IpAddr>) -> Option<Option<IpAddr>> {
        let is_his_alone = self.writes_peer || listening.asks_peer || self.host == HostOrigin::Address;
        (self.host != HostOrigin::Name).then_some(peer.filter(|_| is_his_alone))
    }
}

/// Adds what the relay knows of a record: the listener, the sender's address, HOSTNAME, and the listener's fields.
#[inline]
fn complete<'a>(
    record: &mut Record<'a>,
    is_docker_s: bool,
    listening: &'a Listening,
    hosts: &'a mut Hosts,
    (settings, peer): (&'a Settings, Option<IpAddr>),
) -> Completed {
    listening.mark.apply(record);
    record.peer = record.peer.or(peer);
    let writes_peer = listening.writes_peer || !is_docker_s && record.hostname.is_none();
    let host = match record.hostname {
        None if is_docker_s => Some(Host::Fixed(&settings.hostname)),
        Some(_) if is_docker_s || !hosts.overrules_the_message() => None,
        _ => Some(hosts.host_of(peer, &settings.hostname)),
    };
    if let Some(host) = &host {
        record.hostname = HeaderField::legal(host.text().as_bytes(), MAX_HOSTNAME);
    }
    let host = match host {
        None | Some(Host::Fixed(_)) => HostOrigin::Lasting,
        Some(Host::Address(_)) => HostOrigin::Address,
        Some(Host::Name(_)) => HostOrigin::Name,
    };
    for field in &listening.fields {
        if let Some(value) = field.value(record) {
            record.fields.set(field.name.as_str(), Value::Text(value));
        }
    }
    Completed { writes_peer, host }
}

/// Whether the header of a record is cached: it must be a container's, its end must be clear, and the next message must be likely to have
/// it again.
fn is_remembered(record: &Record<'_>) -> bool {
    record.container.is_some()
        // Lines with a relay's mark are always parsed: they may be our own lines that come back.
        && record.hop.is_none()
        && record.structured_data != StructuredData::Malformed
        && record.message.is_some_and(|text| !text.is_empty())
        && record.tag.as_ref().is_none_or(|tag| !tag.contains(&b' '))
}

/// Whether the outline and its shared content determine the record completely.
fn is_outlined(record: &Record<'_>, outline: &Outline<'_>) -> bool {
    let stamp = outline.stamp.map(Stamp::Respelt);
    record.message == Some(&outline.text)
        && record.nanoseconds == outline.nanoseconds
        && (stamp.is_none() || record.timestamp == stamp)
        // These params follow the nanoseconds in the element, which is why the cached header cannot have them.
        && record.unread_stamp.is_none()
        && record.fields.left_out() == 0
        && record.structured_data == StructuredData::Nil
        && record.driver.is_some()
}

/// Writes a header that ends with our own element, and adds the nanoseconds to that element.
fn write_with_nanoseconds(written: &[u8], nanoseconds: u16, out: &mut Vec<u8>) {
    let Some(element) = written.strip_suffix(b"]") else { return out.extend_from_slice(written) };
    out.extend_from_slice(element);
    out.extend_from_slice(b" nanoseconds=\"");
    out.extend_from_slice(itoa::Buffer::new().format(nanoseconds).as_bytes());
    out.extend_from_slice(b"\"]");
}

/// Removes our elements from a record, as if its sender had not written them. The exception is the mark by which a relay recognizes its own
/// lines: forging it can only harm the sender. `rest`: the remaining structured data.
fn without_marks<'a>(record: Record<'a>, sd_id: &str, rest: &'a mut Vec<u8>) -> Record<'a> {
    let structured_data = match record.structured_data {
        StructuredData::Nil => return record,
        StructuredData::Malformed if has_marks(&record, sd_id) => StructuredData::Nil,
        StructuredData::Malformed => return record,
        StructuredData::Elements(sent) => {
            rest.clear();
            let others = elements(sent).filter(|element| which(element.id, sd_id).is_none());
            others.for_each(|element| rest.extend_from_slice(element.text));
            match rest.is_empty() {
                true => StructuredData::Nil,
                false => StructuredData::Elements(rest),
            }
        }
    };
    Record {
        container: None,
        tag: None,
        driver: None,
        source: None,
        listener: None,
        peer: None,
        fields: Fields::default(),
        original_host: None,
        msghdr: None,
        unread_stamp: None,
        // Nanoseconds from a stamp that RFC 5424 does not allow were part of that stamp. Beside a valid stamp only a mark can have set
        // them.
        nanoseconds: if matches!(record.timestamp, Some(Stamp::Text(_))) { 0 } else { record.nanoseconds },
        structured_data,
        ..record
    }
}

impl Message<'_> {
    /// The tag of a container if it fits no template, and the templates.
    pub fn unmatched_tag(&self) -> Option<(&[u8], &TagTemplates)> {
        let tag = || self.record.tag.as_deref().unwrap_or_default();
        self.record.has_unknown_container().then(|| (tag(), self.templates))
    }

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
