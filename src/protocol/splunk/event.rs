//! The contents of an event, which is one JSON object.
//!
//! - `event` is the message: a text, or the original JSON of any other value.
//! - `time`, a number or a text, `host`, `source`, `sourcetype` and `index` are metadata. A null counts as absent.
//! - `fields` has fields. Unknown members become fields too, and so does the first of two members with the same name.
//!
//! Docker's driver (moby `daemon/logger/splunk/splunk.go`) sends an object as `event`: `line` is the message, and `attrs` has labels and
//! variables, which cannot overwrite other members. With `splunk-format=raw` it sends a text that begins with the tag.

use std::borrow::Cow;

use super::{MAX_KEYS, Refused};
use crate::record::Source;
use crate::record::json_reader::{self as json, BadObject, text};

/// An event, parts of it borrowed from its JSON.
#[derive(Debug, Default)]
pub(super) struct Event<'a> {
    pub content: Content<'a>,
    pub time: Option<Cow<'a, str>>,
    pub host: Option<Cow<'a, str>>,
    /// These are still JSON.
    pub source: Option<&'a str>,
    pub sourcetype: Option<&'a str>,
    pub index: Option<&'a str>,
    pub fields: Option<&'a str>,
    pub others: Vec<(Cow<'a, str>, &'a str)>,
    /// The time is a text with six digits behind the point. Few senders beside Docker's driver write it so.
    pub has_docker_s_time: bool,
}

#[derive(Debug, Default)]
pub(super) enum Content<'a> {
    /// Only fields, as in metrics.
    #[default]
    None,
    Text(Cow<'a, str>),
    Json(&'a str),
    Docker(Line<'a>),
}

/// The `event` of Docker's driver.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// With `splunk-format=json` any JSON, which is the line as the container printed it.
    pub line: Cow<'a, str>,
    pub source: Source,
    /// Present even without the log option `tag=`.
    pub tag: Option<Cow<'a, str>>,
    /// The JSON of an object.
    pub attrs: Option<&'a str>,
}

impl<'a> Event<'a> {
    pub fn read(json: &'a [u8]) -> Result<Self, Refused> {
        let json = std::str::from_utf8(json).map_err(|_| Refused::NotUtf8)?;
        let (mut read, mut event, mut time, mut host) = (Self::default(), None, None, None);
        let all = json::each_member(json, |name, value| {
            let place = match &*name {
                "event" => &mut event,
                "time" => &mut time,
                "host" => &mut host,
                "source" => &mut read.source,
                "sourcetype" => &mut read.sourcetype,
                "index" => &mut read.index,
                "fields" => &mut read.fields,
                _ => {
                    read.others.push((name, value));
                    return read.others.len() <= MAX_KEYS;
                }
            };
            if let Some(before) = place.replace(value) {
                read.others.push((name, before));
            }
            read.others.len() <= MAX_KEYS
        });
        all.map_err(|why| match why {
            BadObject::NotJson => Refused::NotJson,
            BadObject::NoObject => Refused::NoObject,
            BadObject::TooDeep => Refused::TooDeep,
            BadObject::Stopped => Refused::TooManyKeys,
        })?;
        for place in [&mut time, &mut host, &mut read.source, &mut read.sourcetype, &mut read.index, &mut read.fields] {
            *place = place.filter(|value| *value != "null");
        }
        read.content = match event {
            Some(event) => Content::read(event)?,
            None if read.fields.is_some() => Content::None,
            None => return Err(Refused::EventRequired),
        };
        read.time = time.map(|time| text(time).unwrap_or(time.into()));
        read.has_docker_s_time = time.is_some_and(is_docker_s);
        read.host = host.and_then(text);
        // A value of the wrong type is kept as a field.
        read.others.extend(host.filter(|_| read.host.is_none()).map(|host| ("host".into(), host)));
        Ok(read)
    }
}

impl<'a> Content<'a> {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Text(text) => text.len(),
            Self::Json(json) => json.len(),
            Self::Docker(line) => line.line.len(),
        }
    }

    fn read(event: &'a str) -> Result<Self, Refused> {
        if let Some(text) = text(event) {
            let is_blank = text.trim_ascii().is_empty();
            return if is_blank { Err(Refused::EventBlank) } else { Ok(Self::Text(text)) };
        }
        let inside = |brackets: [char; 2]| event.strip_prefix(brackets[0])?.strip_suffix(brackets[1]);
        let is_empty = inside(['{', '}']).or(inside(['[', ']'])).is_some_and(|inside| inside.trim_ascii().is_empty());
        if is_empty || event == "null" {
            return Err(Refused::EventBlank);
        }
        Ok(Line::read(event).map_or(Self::Json(event), Self::Docker))
    }
}

impl<'a> Line<'a> {
    /// `None`: the event is not from Docker's driver.
    fn read(event: &'a str) -> Option<Self> {
        let [mut line, mut source, mut tag, mut attrs] = [None; 4];
        let all = json::each_member(event, |name, value| {
            let place = match &*name {
                "line" => &mut line,
                "source" => &mut source,
                "tag" => &mut tag,
                "attrs" => &mut attrs,
                _ => return false,
            };
            place.replace(value).is_none()
        });
        all.ok()?;
        let line = line?;
        let attrs = match attrs {
            Some(object) => Some(Some(object).filter(|object| object.starts_with('{'))?),
            None => None,
        };
        let tag = match tag {
            Some(tag) => Some(text(tag)?),
            None => None,
        };
        Some(Self {
            line: text(line).unwrap_or(line.into()),
            source: Source::by_name(text(source?)?.as_bytes())?,
            tag,
            attrs,
        })
    }
}

/// `"1795898403.057468"`
fn is_docker_s(time: &str) -> bool {
    let number = time.strip_prefix('"').and_then(|time| time.strip_suffix('"')?.split_once('.'));
    number.is_some_and(|(_, fraction)| fraction.len() == 6)
}
