//! A message, which is one JSON object, and its record.
//!
//! - `short_message` is the text of the message. An object without it is not a message.
//! - `timestamp` is a decimal number of seconds.
//! - `level` is the syslog severity. Without one the severity is notice, as for a syslog message without a priority. The default in the
//!   specification is alert, which would wake the operator for each sender that omits the level.
//! - `host` is kept as the sender wrote it.
//! - `_name` becomes the field `name`, with its type. `full_message`, the deprecated `facility`, `line` and `file`, and any other members
//!   become fields under their own names.
//! - Where a name occurs twice, the last one counts, as in most JSON readers. Fields are all kept.
//!
//! The four members that Docker's driver always sends identify its messages. Labels and variables of a container can overwrite each of
//! them, even the tag. So none of them is certain, and each is carried as it is.

use std::borrow::Cow;

use super::{MAX_KEYS, Refused, outline};
use crate::protocol::outline::Outline;
use crate::protocol::seconds;
use crate::protocol::session::ToRecord;
use crate::protocol::syslog::{Settings, is_id, original_host};
use crate::record::header::{MAX_APP_NAME, MAX_HOSTNAME, MAX_PROC_ID};
use crate::record::json_reader::{self as json, BadObject, text};
use crate::record::{Container, Fields, HeaderField, Record, Source, UnixMicros};

/// The name of the input in the record.
pub const DRIVER: &[u8] = b"gelf";
/// `daemon`, as in Docker's syslog driver.
const FACILITY_OF_DOCKER: u8 = 3;
/// `user`, as in a syslog message without a priority (RFC 3164 4.3.3); the severity is notice.
const FACILITY: u8 = 1;
const SEVERITY: u8 = 5;

/// A message, parts of it borrowed from its JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    short_message: Cow<'a, str>,
    host: Option<Cow<'a, str>>,
    /// A number, or another value in its place.
    timestamp: Option<Cow<'a, str>>,
    /// `level <= 7`
    level: Option<u8>,
    container: Option<FromDocker<'a>>,
    fields: Fields<'a>,
    /// The maximum bytes of the text that are kept.
    max_message: usize,
    /// The whole message, where [`outline`] can find its parts.
    outlined: Option<&'a [u8]>,
}

/// The container's identity in a message of Docker's driver (moby `daemon/logger/gelf/gelf.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct FromDocker<'a> {
    id: Cow<'a, str>,
    name: Cow<'a, str>,
    image: Cow<'a, str>,
    tag: Cow<'a, str>,
}

impl<'a> Message<'a> {
    /// Reads one object. Blanks, NULs and newlines around it are ignored.
    pub fn read(json: &'a [u8]) -> Result<Self, Refused> {
        let bytes = json;
        let json = std::str::from_utf8(json).map_err(|_| Refused::NotUtf8)?;
        let members = members(json.trim_matches(['\0', ' ', '\t', '\r', '\n']))?;
        let places = places(&members);
        let [short, host, stamp, level, version, docker_s @ ..] = places;
        let text_of = |at: Option<usize>| at.and_then(|at| text(members[at].1));
        let short_message = text_of(short).ok_or(Refused::NoShortMessage)?;
        let timestamp = stamp.map(|at| text(members[at].1).unwrap_or(members[at].1.into()));
        let severity = level.and_then(|at| {
            let written = text(members[at].1).unwrap_or(members[at].1.into());
            written.parse().ok().filter(|level| *level <= 7)
        });
        let [id, name, image, tag] = docker_s.map(text_of);
        let container = match (id, name, image, tag) {
            (Some(id), Some(name), Some(image), Some(tag)) => Some(FromDocker { id, name, image, tag }),
            _ => None,
        };
        let host_said = text_of(host);
        // A member with an invalid value is kept as a field.
        let docker_s = docker_s.map(|at| at.filter(|_| container.is_some()));
        let (host, level) = (host.filter(|_| host_said.is_some()), level.filter(|_| severity.is_some()));
        let told = [[short, version, stamp, host, level].as_slice(), &docker_s].concat();
        let mut fields = Fields::default();
        for (at, (name, value)) in members.iter().enumerate() {
            if told.contains(&Some(at)) {
                continue;
            }
            let name = match name {
                Cow::Borrowed(name) => Cow::Borrowed(name.strip_prefix('_').unwrap_or(name)),
                Cow::Owned(name) => Cow::Owned(name.strip_prefix('_').unwrap_or(name).to_owned()),
            };
            fields.push(name, json::field(value).ok_or(Refused::NotJson)?);
        }
        // The outline takes the first member of a name, but the last one counts here.
        let is_once = |at: Option<usize>| {
            at.is_some_and(|at| members.iter().filter(|(name, _)| *name == members[at].0).count() == 1)
        };
        let outlined = (container.is_some() && is_once(short) && is_once(stamp)).then_some(bytes);
        let (host, level, max_message) = (host_said, severity, usize::MAX);
        Ok(Self { short_message, host, timestamp, level, container, fields, max_message, outlined })
    }

    /// Limits the text of the message to so many bytes.
    pub fn at_most(self, max_message: usize) -> Self {
        Self { max_message, ..self }
    }

    /// The record of the message. `received` is the time at which it was read.
    pub fn record(&self, received: UnixMicros) -> Record<'_> {
        let said = self.timestamp.as_deref();
        let read = said.and_then(seconds::read);
        let unread = said.filter(|_| read.is_none()).map(|said| said.as_bytes().into());
        let facility = if self.container.is_some() { FACILITY_OF_DOCKER } else { FACILITY };
        let mut record = Record {
            driver: Some(DRIVER.into()),
            fields: self.fields.reborrow(),
            message: some(&self.short_message).map(|text| &text[..text.len().min(self.max_message)]),
            cut: self.short_message.len() > self.max_message,
            ..Record::new(facility << 3 | self.level.unwrap_or(SEVERITY))
        };
        record.date(read, unread, received);
        if let Some(host) = &self.host {
            record.hostname = HeaderField::legal(host.as_bytes(), MAX_HOSTNAME);
            record.original_host = record.hostname.and_then(|field| original_host(host.as_bytes(), field));
        }
        if let Some(docker) = &self.container {
            docker.identify(&mut record);
        }
        record
    }
}

impl ToRecord for Message<'_> {
    fn to_record<'r>(&'r self, _: &'r Settings, received: UnixMicros) -> Record<'r> {
        self.record(received)
    }

    fn outline(&self) -> Option<Outline<'_>> {
        outline(self.outlined?, self.max_message)
    }

    fn is_cut(&self) -> bool {
        self.short_message.len() > self.max_message
    }
}

/// The bytes of a text.
pub(super) fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}

/// Names that become more than fields.
const KNOWN: [&str; 9] = [
    "short_message",
    "host",
    "timestamp",
    "level",
    "version",
    "_container_id",
    "_container_name",
    "_image_name",
    "_tag",
];

/// The position of the last member of each of these names.
fn places(members: &[Member<'_>]) -> [Option<usize>; KNOWN.len()] {
    let mut places = [None; KNOWN.len()];
    for (at, (name, _)) in members.iter().enumerate() {
        if let Some(known) = KNOWN.iter().position(|known| **known == **name) {
            places[known] = Some(at);
        }
    }
    places
}

impl FromDocker<'_> {
    fn identify<'a>(&'a self, record: &mut Record<'a>) {
        let id = some(&self.id).filter(|id| is_id(id));
        let name = some(&self.name);
        record.app_name = name.or(id).and_then(|name| HeaderField::legal(name, MAX_APP_NAME));
        record.proc_id = id.and_then(|id| HeaderField::legal(id, MAX_PROC_ID));
        record.tag = some(&self.tag).map(Cow::Borrowed);
        record.source = match record.severity {
            6 => Some(Source::Stdout),
            3 => Some(Source::Stderr),
            _ => None,
        };
        let [image, name, id] = [some(&self.image), name, id].map(|part| part.map(Cow::Borrowed));
        record.container = Some(Container { image, name, id });
    }
}

fn some(text: &str) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text.as_bytes())
}

type Member<'a> = (Cow<'a, str>, &'a str);

/// The members of an object in order, with the JSON text of each value.
fn members(object: &str) -> Result<Vec<Member<'_>>, Refused> {
    let mut members = Vec::with_capacity(16);
    let all = json::each_member(object, |name, value| {
        members.push((name, value));
        members.len() <= MAX_KEYS
    });
    all.map_err(|why| match why {
        BadObject::NotJson => Refused::NotJson,
        BadObject::NoObject => Refused::NoObject,
        BadObject::TooDeep => Refused::TooDeep,
        BadObject::Stopped => Refused::TooManyKeys,
    })?;
    Ok(members)
}
