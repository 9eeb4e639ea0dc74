//! Frames → records → lines, for one listener: what is told apart here is whether a header came before.
//!
//! A container's line carries its name as APP-NAME, its ID as PROCID, and image, name and ID as structured data.
//! What had to be changed to make it legal is kept as a param beside it; the message is never changed.

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

/// The most a line grows beside what it repeats of the frame, in bytes: stamp, ID, field and param names.
const MAX_GROWTH: usize = 256;

/// Frames → records → lines. It remembers the last stamps and headers; let every thread have its own.
#[derive(Clone)]
pub struct Translator {
    settings: Arc<Settings>,
    /// How lines are written that do not say who sent them, and those that do. Shared, for each connection has a translator.
    options: Arc<[LineOptions; 2]>,
    stamps: StampReader,
    stamp_writer: StampWriter,
    headers: HeaderCache,
    listening: Arc<Listening>,
    hosts: Hosts,
    peer: Option<IpAddr>,
    /// The zone of this peer's stamps that have none.
    zone: Option<TimeZone>,
    /// What is left of structured data without our elements. Reused.
    unmarked: Vec<u8>,
}

/// A message whose header came before: who sent it is known, and what its line begins with.
pub struct Known<'a> {
    pub header: HeaderId,
    pub shape: Shape,
    /// `pri <= 191`
    pri: u8,
    timestamp: Stamp<'a>,
    /// Beside the stamp's microseconds, where another protocol says so.
    nanoseconds: u16,
    /// Whether a text is there that may be empty.
    has_text: bool,
    /// The header's place in the cache.
    place: usize,
    /// All that is new.
    pub text: &'a [u8],
}

/// A message that was read, and can be written.
pub struct Message<'a> {
    pub record: Record<'a>,
    /// The header, if it is one that is remembered. Only those of containers are.
    pub header: Option<HeaderId>,
    templates: &'a TagTemplates,
    options: &'a LineOptions,
    stamp_writer: &'a mut StampWriter,
    /// What was written of the header, if it is remembered.
    written: Option<&'a [u8]>,
}

/// A frame taken apart as far as it must be to find a header that came before. Whether the stamp is one is not known yet.
struct FrameOutline<'a> {
    pri: u8,
    form: Form,
    stamp: &'a [u8],
    /// Everything behind the stamp and its blank.
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

    /// From now on frames come from this listener. Forgets the headers it has seen.
    pub fn listen_to(&mut self, listening: Listening) {
        self.hosts.set_source(listening.host.clone());
        self.listening = Arc::new(listening);
        self.headers.forget();
        self.choose_zone();
    }

    /// From now on these are the addresses of this machine. Forgets the headers it has seen.
    pub fn set_local(&mut self, local: Arc<LocalAddresses>) {
        self.hosts.set_local(local);
        self.headers.forget();
    }

    /// Where names of senders come from.
    pub fn set_names(&mut self, names: PeerNames) {
        self.hosts.set_names(names);
    }

    /// From now on frames come from this address. (A socket of both families writes IPv4 addresses as IPv6.)
    #[inline]
    pub fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.peer = peer.map(|peer| peer.to_canonical());
        if !self.listening.zones.ranges.is_empty() {
            self.choose_zone();
        }
    }

    /// What is remembered of stamps was in the zone of before.
    fn choose_zone(&mut self) {
        let zone = self.listening.zones.of(self.peer).or(self.settings.time_zone.as_ref());
        if zone != self.zone.as_ref() {
            self.zone = zone.cloned();
            self.stamps = StampReader::default();
        }
    }

    /// Whether the listener is told that only Docker sends there.
    pub fn hears_docker_only(&self) -> bool {
        self.listening.senders == Senders::Docker
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
        let (message, shape) = self.read(frame);
        message.write(out);
        shape
    }

    /// What a frame says whose header came before.
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
        // Of anybody's RFC 5424 the blank is there when nothing is behind it.
        let has_text = !text.is_empty() || header.shape == Shape::Rfc5424;
        Some(Known { header: header.id, shape: header.shape, pri, timestamp, nanoseconds: 0, has_text, place, text })
    }

    /// What a message of another protocol says, if all but its time and its text came before.
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

    /// Appends the line of what [`Translator::find`] has found last.
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

    /// Completes what another protocol than syslog has read, and remembers what it has in common with other messages.
    pub fn take<'a>(&'a mut self, said: &'a impl ToRecord, received: UnixMicros) -> Message<'a> {
        let Self { settings, options, stamp_writer, headers, listening, hosts, peer, .. } = self;
        let record = said.to_record(settings, received);
        let outline = said.outline();
        complete_taken(record, outline, (settings, options), stamp_writer, headers, (listening, hosts, *peer))
    }

    /// Understands a frame, and remembers its header if it is a container's.
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

    /// `None` for what is always understood anew: cut frames, and any where a template makes tags with blanks.
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

/// The rest of [`Translator::take`], once for all protocols.
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

/// What was found out about a record when it was completed.
struct Completed {
    /// Whether its line says who sent it.
    writes_peer: bool,
    host: HostOrigin,
}

/// Where a record's HOSTNAME comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HostOrigin {
    /// The message, or the settings.
    Lasting,
    /// The address of this sender alone.
    Address,
    /// The name of this sender alone, which may be another one soon.
    Name,
}

impl Completed {
    /// Whose messages alone have this header; the inner `None`: everybody's. The outer one: it may be another one soon.
    fn of_peer(&self, listening: &Listening, peer: Option<IpAddr>) -> Option<Option<IpAddr>> {
        let is_his_alone = self.writes_peer || listening.asks_peer || self.host == HostOrigin::Address;
        (self.host != HostOrigin::Name).then_some(peer.filter(|_| is_his_alone))
    }
}

/// Adds what the relay knows of a record: where it came in, who sent it, and a HOSTNAME.
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

/// A container's header is followed by a text that can be told from it, and the next message has most likely the same one.
fn is_remembered(record: &Record<'_>) -> bool {
    record.container.is_some()
        // What a relay has marked is looked at each time: it may be ours that comes back.
        && record.hop.is_none()
        && record.structured_data != StructuredData::Malformed
        && record.message.is_some_and(|text| !text.is_empty())
        && record.tag.as_ref().is_none_or(|tag| !tag.contains(&b' '))
}

/// Does the outline say what the record says, and all that is the record's own?
fn is_outlined(record: &Record<'_>, outline: &Outline<'_>) -> bool {
    let stamp = outline.stamp.map(Stamp::Respelt);
    record.message == Some(&outline.text)
        && record.nanoseconds == outline.nanoseconds
        && (stamp.is_none() || record.timestamp == stamp)
        // What is written of them stands behind the nanoseconds.
        && record.unread_stamp.is_none()
        && record.fields.left_out() == 0
        && record.structured_data == StructuredData::Nil
        && record.driver.is_some()
}

/// Writes a header that ends with our own element, and these in it.
fn write_with_nanoseconds(written: &[u8], nanoseconds: u16, out: &mut Vec<u8>) {
    let Some(element) = written.strip_suffix(b"]") else { return out.extend_from_slice(written) };
    out.extend_from_slice(element);
    out.extend_from_slice(b" nanoseconds=\"");
    out.extend_from_slice(itoa::Buffer::new().format(nanoseconds).as_bytes());
    out.extend_from_slice(b"\"]");
}

/// The record as if its sender had written no element of ours, but for the mark by which a relay knows what comes back to it: that
/// can only be to the sender's harm. `rest`: what is left of the structured data.
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
        // Those of a stamp that RFC 5424 does not allow stood in it; beside one that it allows only a mark can tell them.
        nanoseconds: if matches!(record.timestamp, Some(Stamp::Text(_))) { 0 } else { record.nanoseconds },
        structured_data,
        ..record
    }
}

impl Message<'_> {
    /// A container's tag that fits no template, and the templates.
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
