//! Writes a record as its line: `<PRI>1 STAMP HOST APP PROCID MSGID SD[ MSG]`, RFC 5424 without framing.
//!
//! Data that the header cannot hold is written as structured data: `[docker@32473 …]` has the container, `fields@32473` and
//! `json@32473` have the fields, `[logferry@32473 …]` has the other data of the relay. An element without content is left
//! out. The message is never changed.
//!
//! The sender's elements stay as they are, byte for byte. That includes elements of ours, as long as they agree with the record.

use super::line::{Own, read_own};
use super::structured_data::{Element, elements, unescape, write_escaped_param, write_param};
use super::time::StampWriter;
use super::{Container, FIELDS_SD_ID, Fields, JSON_SD_ID, OWN_ID, Record, Stamp, StructuredData};

/// The options for writing records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineOptions {
    /// The SD-ID of the element with image, name and ID, for example `docker@32473`; see [`super::is_sd_id`].
    pub sd_id: String,
    /// Whether the address of the sender is written.
    pub peer: bool,
}

/// The params of `[logferry@32473 …]`, in the order in which they are written.
pub(crate) const OWN_PARAMS: [&str; 12] = [
    "cut",
    "listener",
    "peer",
    "host",
    "driver",
    "source",
    "tag",
    "msghdr",
    "nanoseconds",
    "stamp",
    "hop",
    "fields-cut",
];

impl Record<'_> {
    /// Appends the line, without a LF at the end.
    pub fn write_line(&self, options: &LineOptions, out: &mut Vec<u8>) {
        self.write_line_with(&mut StampWriter::default(), options, out);
    }

    /// [`Record::write_line`] for many records: `stamps` keeps the text of the last timestamps.
    pub(crate) fn write_line_with(&self, stamps: &mut StampWriter, options: &LineOptions, out: &mut Vec<u8>) {
        write_start(self.facility << 3 | self.severity, self.timestamp.as_ref(), stamps, out);
        self.write_header(options, out);
        match self.structured_data {
            // The message begins with the malformed structured data.
            StructuredData::Malformed => out.extend_from_slice(self.message.unwrap_or_default()),
            _ => write_text(self.message, out),
        }
    }

    /// Writes the header from the blank after the timestamp to the end of the structured data.
    pub(crate) fn write_header(&self, options: &LineOptions, out: &mut Vec<u8>) {
        for field in [&self.hostname, &self.app_name, &self.proc_id, &self.msg_id] {
            out.push(b' ');
            match field {
                Some(field) => field.write(out),
                None => out.push(b'-'),
            }
        }
        out.push(b' ');
        let start = out.len();
        match self.structured_data {
            StructuredData::Malformed => return,
            StructuredData::Nil => self.write_ours(&Sent::default(), options, out),
            StructuredData::Elements(sent) => self.write_among(sent, options, out),
        }
        if out.len() == start {
            out.push(b'-');
        }
    }

    /// Writes the sender's elements, with ours before and after them.
    fn write_among(&self, sent: &[u8], options: &LineOptions, out: &mut Vec<u8>) {
        let ours = Sent::of(sent, &options.sd_id);
        if ours.is_nothing() && !self.says_more_than_the_header(options) {
            return out.extend_from_slice(sent);
        }
        let kept = Kept {
            container: ours.container.is_some_and(|element| self.container_is(element)),
            // Both elements together hold one list of fields.
            fields: (ours.fields.is_some() || ours.json.is_some())
                && Fields::read(ours.fields, ours.json) == self.listed(),
            own: ours.own.is_some_and(|element| self.own_is(element, options)),
        };
        if !kept.container {
            self.write_container(options, out);
        }
        if !kept.fields {
            self.fields.write_params(out);
            self.fields.write_json(out);
        }
        for element in elements(sent) {
            let stays = match which(element.id, &options.sd_id) {
                None => true,
                Some(Which::Container) => kept.container,
                Some(Which::Fields | Which::Json) => kept.fields,
                Some(Which::Own) => kept.own,
            };
            if stays {
                out.extend_from_slice(element.text);
            }
        }
        if !kept.own {
            self.write_own(ours.own, options, out);
        }
    }

    fn write_ours(&self, sent: &Sent<'_>, options: &LineOptions, out: &mut Vec<u8>) {
        self.write_container(options, out);
        self.fields.write_params(out);
        self.fields.write_json(out);
        self.write_own(sent.own, options, out);
    }

    fn says_more_than_the_header(&self, options: &LineOptions) -> bool {
        let has_container = self.container.as_ref().is_some_and(Container::is_known);
        has_container
            || self.lost_tag().is_some()
            || !self.fields.is_empty()
            || OWN_PARAMS.iter().any(|name| self.own(name, options).is_some())
    }

    /// The fields with a zero count of left-out fields, because the elements of the fields do not carry the count.
    fn listed(&self) -> Fields<'_> {
        self.fields.without_count()
    }

    /// The tag of syslog, if APP-NAME was made from it and could not keep it.
    pub fn lost_tag(&self) -> Option<&[u8]> {
        let named = self.container.as_ref().is_some_and(|container| container.name.is_some() || container.id.is_some());
        let tag = self.tag.as_deref().filter(|_| self.driver.is_none() && !named)?;
        let is_kept = self.app_name.map_or(tag == b"-", |app_name| app_name.bytes().eq(tag.iter().copied()));
        (!is_kept).then_some(tag)
    }

    /// Writes the element with image, name and ID, and the tag if it would be lost. The tag of a sender that is no container
    /// does not belong to Docker: it is written to our own element.
    fn write_container(&self, options: &LineOptions, out: &mut Vec<u8>) {
        let container = self.container.as_ref();
        let params = [
            ("image", container.and_then(|container| container.image.as_deref())),
            ("name", container.and_then(|container| container.name.as_deref())),
            ("id", container.and_then(|container| container.id.as_deref())),
            ("tag", self.lost_tag().filter(|_| container.is_some())),
        ];
        if params.iter().all(|(_, value)| value.is_none()) {
            return;
        }
        out.push(b'[');
        out.extend_from_slice(options.sd_id.as_bytes());
        for (name, value) in params {
            if let Some(value) = value {
                write_param(name, value, out);
            }
        }
        out.push(b']');
    }

    /// Does Docker's element have the tag that would be lost, because it is written there or was sent there?
    fn has_docker_s_tag(&self, options: &LineOptions) -> bool {
        let says_it = |element| self.container_is(element) && Container::read(element).1.is_some();
        self.container.is_some()
            || Sent::of(self.structured_data.as_sent(), &options.sd_id).container.is_some_and(says_it)
    }

    /// Does the element agree with the record?
    fn container_is(&self, element: Element<'_>) -> bool {
        let (container, tag) = Container::read(element);
        let tag_is_kept = match tag {
            Some(tag) => self.tag.as_deref() == Some(&*tag),
            None => self.container.is_none() || self.lost_tag().is_none(),
        };
        let container = Some(container).filter(Container::is_known);
        tag_is_kept && container == self.container.clone().filter(Container::is_known)
    }

    /// Do the params of the element agree with the record? Unknown params do not matter.
    fn own_is(&self, element: Element<'_>, options: &LineOptions) -> bool {
        OWN_PARAMS.iter().all(|name| self.param_is(name, first(element, name), options))
    }

    /// Does the param agree with the record? An invalid value counts as missing.
    fn param_is(&self, name: &str, sent: Option<&[u8]>, options: &LineOptions) -> bool {
        let sent = sent.map(unescape);
        let sent = sent.as_deref().and_then(|value| read_own(name, value));
        let is_managed = name != "peer" || options.peer;
        !is_managed || sent == self.own(name, options)
    }

    /// Writes the element with the relay's other data. `sent`: the element of an earlier relay. Its params stay as far as
    /// they agree with the record.
    fn write_own(&self, sent: Option<Element<'_>>, options: &LineOptions, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'[');
        out.extend_from_slice(OWN_ID);
        let empty = out.len();
        let is_said = |name: &str| sent.is_some_and(|sent| self.param_is(name, first(sent, name), options));
        for (name, value) in sent.into_iter().flat_map(Element::params) {
            let known = OWN_PARAMS.iter().find(|known| known.as_bytes() == name);
            if known.is_none_or(|name| is_said(name)) {
                write_escaped_param(name, value, out);
            }
        }
        for name in OWN_PARAMS {
            if let Some(value) = self.own(name, options).filter(|_| !is_said(name)) {
                value.write(name, out);
            }
        }
        match out.len() == empty {
            true => out.truncate(start),
            false => out.push(b']'),
        }
    }

    /// The value of a param, unless it is the default.
    fn own(&self, name: &str, options: &LineOptions) -> Option<Own<'_>> {
        match name {
            "cut" => self.cut.then_some(Own::Cut),
            "listener" => self.listener.as_deref().map(Own::text),
            "peer" => self.peer.filter(|_| options.peer).map(Own::Peer),
            "host" => self.original_host.as_deref().map(Own::text),
            "driver" => self.driver.as_deref().map(Own::text),
            "source" => self.source.map(Own::Source),
            // The tag of a container that came by syslog is in the container's element.
            "tag" if self.driver.is_some() => self.tag.as_deref().map(Own::text),
            "tag" => self.lost_tag().filter(|_| !self.has_docker_s_tag(options)).map(Own::text),
            "msghdr" => self.msghdr.as_deref().map(Own::text),
            "nanoseconds" => (self.nanoseconds > 0).then_some(Own::Number(self.nanoseconds.into())),
            "stamp" => self.unread_stamp.as_deref().map(Own::text),
            "hop" => self.hop.as_deref().map(Own::text),
            "fields-cut" => Some(self.fields.left_out()).filter(|count| *count > 0).map(Own::Number),
            _ => None,
        }
    }
}

/// The first value of a param, still escaped.
pub(super) fn first<'a>(element: Element<'a>, wanted: &str) -> Option<&'a [u8]> {
    element.params().find_map(|(name, value)| (name == wanted.as_bytes()).then_some(value))
}

/// The elements of ours that the sender sent. An SD-ID must not be repeated (RFC 5424 6.3.2). If it is, the first element counts.
#[derive(Clone, Copy, Default)]
pub(super) struct Sent<'a> {
    pub container: Option<Element<'a>>,
    pub fields: Option<Element<'a>>,
    pub json: Option<Element<'a>>,
    pub own: Option<Element<'a>>,
}

/// The elements that agree with the record.
struct Kept {
    container: bool,
    fields: bool,
    own: bool,
}

pub(crate) enum Which {
    Container,
    Fields,
    Json,
    Own,
}

pub(crate) fn which(id: &[u8], sd_id: &str) -> Option<Which> {
    match id {
        id if id == sd_id.as_bytes() => Some(Which::Container),
        OWN_ID => Some(Which::Own),
        id if id == FIELDS_SD_ID.as_bytes() => Some(Which::Fields),
        id if id == JSON_SD_ID.as_bytes() => Some(Which::Json),
        _ => None,
    }
}

impl<'a> Sent<'a> {
    pub fn of(structured_data: &'a [u8], sd_id: &str) -> Self {
        let mut sent = Self::default();
        for element in elements(structured_data) {
            let place = match which(element.id, sd_id) {
                None => continue,
                Some(Which::Container) => &mut sent.container,
                Some(Which::Fields) => &mut sent.fields,
                Some(Which::Json) => &mut sent.json,
                Some(Which::Own) => &mut sent.own,
            };
            place.get_or_insert(element);
        }
        sent
    }

    fn is_nothing(&self) -> bool {
        self.container.is_none() && self.fields.is_none() && self.json.is_none() && self.own.is_none()
    }
}

/// `<PRI>1 STAMP`
#[inline(always)]
pub(crate) fn write_start(pri: u8, stamp: Option<&Stamp<'_>>, stamps: &mut StampWriter, out: &mut Vec<u8>) {
    write_pri(pri, out);
    out.extend_from_slice(b"1 ");
    match stamp {
        Some(stamp) => stamps.write(stamp, out),
        None => out.push(b'-'),
    }
}

#[inline(always)]
pub(crate) fn write_text(text: Option<&[u8]>, out: &mut Vec<u8>) {
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
