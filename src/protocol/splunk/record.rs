//! The record of an event or a line.

use std::borrow::Cow;

use super::Given;
use super::event::{Content, Event, Line};
use crate::protocol::outline::Outline;
use crate::protocol::seconds;
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::{Senders, Settings, original_host};
use crate::record::header::{MAX_APP_NAME, MAX_HOSTNAME, MAX_PROC_ID};
use crate::record::json_reader as json;
use crate::record::{Container, Fields, HeaderField, LocalStamp, Record, Source, UnixMicros, Value, borrowed};

/// The name of the input in the record.
pub const DRIVER: &[u8] = b"splunk";
/// As in Docker's syslog driver: daemon.info for stdout, daemon.err for stderr.
const INFO: u8 = 3 << 3 | 6;
const ERR: u8 = 3 << 3 | 3;
/// user.notice, as in a syslog message without a priority (RFC 3164 4.3.3).
const NOTICE: u8 = 1 << 3 | 5;
/// The number of digits of a time in milliseconds, microseconds and nanoseconds, from 2001 to 2286, and the number of those digits below a
/// second. Splunk recognizes the unit in the same way.
const SMALLER_UNITS: [(usize, usize); 3] = [(13, 3), (16, 6), (19, 9)];

/// An event or a line, and the metadata from the query.
#[derive(Debug)]
pub struct Message<'a> {
    said: Said<'a>,
    given: &'a Given,
    senders: Senders,
    /// The maximum bytes of a text that are kept.
    max_message: usize,
}

#[derive(Debug)]
pub(super) enum Said<'a> {
    Event(Event<'a>),
    /// The line, and whether it is cut.
    Line(&'a [u8], bool),
}

impl<'a> Message<'a> {
    pub(super) fn new(said: Said<'a>, given: &'a Given, senders: Senders, max_message: usize) -> Self {
        Self { said, given, senders, max_message }
    }

    /// A record with the text and the container of an event.
    fn text<'r>(&self, event: &'r Event<'_>, settings: &'r Settings) -> Record<'r> {
        match &event.content {
            Content::Docker(line) => line.record(self.kept(&line.line), settings),
            Content::Text(text) => self.tagged(event, self.kept(text), settings),
            Content::Json(json) => anybody_s(Some(self.kept(json))),
            Content::None => anybody_s(None),
        }
    }

    /// A text. With `splunk-format=raw`, Docker's driver sends the tag, labels and variables, and the line in one text, without a mark
    /// where the line begins. The tag is split off where it names a container.
    fn tagged<'r>(&self, event: &Event<'_>, text: &'r [u8], settings: &'r Settings) -> Record<'r> {
        let is_docker_s = self.senders == Senders::Docker;
        if (is_docker_s || event.has_docker_s_time && event.host.is_some())
            && let Some(blank) = memchr::memchr(b' ', text)
        {
            let (tag, line) = (&text[..blank], &text[blank + 1..]);
            let container = settings.tag_templates.split(tag, self.senders);
            if container.is_known() {
                return docker_s(INFO, Some(tag), container, line);
            }
        }
        match is_docker_s {
            true => docker_s(INFO, None, Container::default(), text),
            false => anybody_s(Some(text)),
        }
    }

    fn kept<'r>(&self, text: &'r str) -> &'r [u8] {
        &text.as_bytes()[..text.len().min(self.max_message)]
    }
}

impl ToRecord for Message<'_> {
    fn to_record<'r>(&'r self, settings: &'r Settings, received: UnixMicros) -> Record<'r> {
        let Given { host, time, .. } = self.given;
        let (mut record, fields, said_host, said_time) = match &self.said {
            Said::Line(line, _) => (anybody_s(Some(*line)), origin([None; 3], self.given), None, None),
            Said::Event(event) => {
                let fields = event.fields(self.given);
                (self.text(event, settings), fields, event.host.as_deref(), event.time.as_deref())
            }
        };
        let host = said_host.or(host.as_deref());
        let time = said_time.or(time.as_deref());
        let read = time.and_then(in_utc);
        let unread = time.filter(|_| read.is_none()).map(|time| time.as_bytes().into());
        record.date(read, unread, received);
        record.driver = Some(DRIVER.into());
        record.hostname = host.and_then(|host| HeaderField::legal(host.as_bytes(), MAX_HOSTNAME));
        record.original_host = record.hostname.and_then(|field| original_host(host?.as_bytes(), field));
        record.fields = fields;
        record.cut = self.is_cut();
        record
    }

    /// For events of Docker's driver, if nothing else is given beside them.
    fn outline(&self) -> Option<Outline<'_>> {
        let Said::Event(event) = &self.said else { return None };
        let Content::Docker(Line { line, source, tag, attrs }) = &event.content else { return None };
        let says_more = event.fields.is_some() || !event.others.is_empty() || *self.given != Given::default();
        if says_more || [event.source, event.sourcetype, event.index] != [None; 3] || line.len() > self.max_message {
            return None;
        }
        let origin = [tag.as_deref()?, source.as_str(), attrs.unwrap_or_default(), event.host.as_deref()?];
        let (stamp, nanoseconds) = in_utc(event.time.as_deref()?)?;
        let text = line.as_bytes().into();
        let origin = origin.map(str::as_bytes);
        Some(Outline { origin, stamp: Some(stamp), nanoseconds, text, tells_pieces: false })
    }

    fn is_cut(&self) -> bool {
        match &self.said {
            Said::Event(event) => event.content.len() > self.max_message,
            Said::Line(_, is_cut) => *is_cut,
        }
    }
}

impl Event<'_> {
    fn fields<'r>(&'r self, given: &'r Given) -> Fields<'r> {
        let mut fields = origin([self.source, self.sourcetype, self.index], given);
        if let Some(object) = self.fields {
            add_members("fields", object, &mut fields);
        }
        for (name, json) in &self.others {
            add(Cow::Borrowed(&**name), json, &mut fields);
        }
        if let Content::Docker(Line { attrs: Some(attrs), .. }) = self.content {
            add_members("attrs", attrs, &mut fields);
        }
        fields
    }
}

impl Line<'_> {
    /// Only the tag identifies the container.
    fn record<'r>(&'r self, kept: &'r [u8], settings: &'r Settings) -> Record<'r> {
        let pri = if self.source == Source::Stderr { ERR } else { INFO };
        let tag = self.tag.as_deref().map(str::as_bytes);
        // Only Docker's driver sends such events.
        let container = tag.map(|tag| settings.tag_templates.split(tag, Senders::Docker));
        let record = docker_s(pri, tag, container.unwrap_or_default(), kept);
        Record { source: Some(self.source), ..record }
    }
}

fn anybody_s(message: Option<&[u8]>) -> Record<'_> {
    Record { message, ..Record::new(NOTICE) }
}

fn docker_s<'r>(pri: u8, tag: Option<&'r [u8]>, container: Container<'r>, line: &'r [u8]) -> Record<'r> {
    let [name, id] = [&container.name, &container.id].map(|part| part.as_ref().and_then(borrowed));
    Record {
        app_name: name.or(id).or(tag).and_then(|name| HeaderField::legal(name, MAX_APP_NAME)),
        proc_id: id.and_then(|id| HeaderField::legal(id, MAX_PROC_ID)),
        tag: tag.map(Cow::Borrowed),
        container: Some(container),
        message: Some(line),
        ..Record::new(pri)
    }
}

/// The time of a number, and the nanoseconds below a microsecond.
fn in_utc(text: &str) -> Option<(LocalStamp, u16)> {
    seconds::read(text).or_else(|| {
        let (digits, smaller) = SMALLER_UNITS.into_iter().find(|(digits, _)| *digits == text.len())?;
        let (whole, fraction) = text.split_at_checked(digits - smaller)?;
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| seconds::read(&format!("{whole}.{fraction}")))?
    })
}

/// `source`, `sourcetype` and `index` as fields: from the event as JSON, or else from the query.
fn origin<'r>(said: [Option<&'r str>; 3], given: &'r Given) -> Fields<'r> {
    let mut fields = Fields::default();
    let given = [("source", &given.source), ("sourcetype", &given.sourcetype), ("index", &given.index)];
    for ((name, given), said) in given.into_iter().zip(said) {
        match (said, given) {
            (Some(json), _) => add(name.into(), json, &mut fields),
            (None, Some(text)) => fields.push(name, Value::Text(text.as_bytes().into())),
            (None, None) => {}
        }
    }
    fields
}

/// Adds the members of an object. A value that is not an object is added under `name`.
fn add_members<'r>(name: &'static str, object: &'r str, fields: &mut Fields<'r>) {
    let all = json::each_member(object, |name, json| {
        add(name, json, fields);
        true
    });
    if all.is_err() {
        add(name.into(), object, fields);
    }
}

fn add<'r>(name: Cow<'r, str>, json: &'r str, fields: &mut Fields<'r>) {
    match json::field(json) {
        Some(value) => fields.push(name, value),
        None => fields.leave_out(1),
    }
}
