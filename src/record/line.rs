//! A canonical line back into its fields: for file names, for other output formats, for people.

use std::borrow::Cow;

use super::structured_data::{Element, Header, elements, split_sd, unescape};
use super::{DEFAULT_PRI, LISTENER, OWN_ID, priority};

/// The fields of a canonical line. A field that is not there is `-`, as in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// `0 <= facility <= 23`
    pub facility: u8,
    /// `0 <= severity <= 7`
    pub severity: u8,
    /// RFC 3339, or `-` if the line is not a canonical one.
    pub timestamp: &'a [u8],
    pub hostname: &'a [u8],
    pub app_name: &'a [u8],
    pub proc_id: &'a [u8],
    pub msg_id: &'a [u8],
    /// Verbatim, with all elements; `-` if there is none or it is malformed.
    pub structured_data: &'a [u8],
    /// Everything behind the structured data. Malformed structured data is a part of it.
    pub message: &'a [u8],
    /// The image as the user typed it.
    pub image_name: Option<Cow<'a, [u8]>>,
    pub container_name: Option<Cow<'a, [u8]>>,
    /// 12 or 64 lower-case hexadecimal digits.
    pub container_id: Option<Cow<'a, [u8]>>,
    /// The name of the listener that took the message, if it has one.
    pub listener: Option<Cow<'a, [u8]>>,
}

impl<'a> Line<'a> {
    /// Never fails: a line that is not canonical is all message, `user.notice`.
    pub fn parse(line: &'a [u8], sd_id: &str) -> Self {
        let split = || {
            let (pri, rest) = priority(line)?;
            Some((pri, Header::split(rest)?))
        };
        let nothing =
            Header { timestamp: b"-", hostname: b"-", app_name: b"-", proc_id: b"-", msg_id: b"-", rest: b"" };
        let (pri, fields, is_line) = split().map_or((DEFAULT_PRI, nothing, false), |(pri, fields)| (pri, fields, true));
        let (structured_data, message) = match split_sd(fields.rest) {
            Some((structured_data, message)) => (structured_data, message.unwrap_or_default()),
            None => (&b"-"[..], if is_line { fields.rest } else { line }),
        };
        let mut parsed = Self {
            facility: pri >> 3,
            severity: pri & 7,
            timestamp: fields.timestamp,
            hostname: fields.hostname,
            app_name: fields.app_name,
            proc_id: fields.proc_id,
            msg_id: fields.msg_id,
            structured_data,
            message,
            image_name: None,
            container_name: None,
            container_id: None,
            listener: None,
        };
        // An SD-ID stands there once (RFC 5424 6.3.2); where it does not, the first one counts.
        let (mut container, mut own) = (None, None);
        for element in elements(structured_data) {
            match element.id {
                id if id == sd_id.as_bytes() => drop(container.get_or_insert(element)),
                OWN_ID => drop(own.get_or_insert(element)),
                _ => {}
            }
        }
        if let Some(element) = container {
            parsed.read_container(element);
        }
        let mut own = own.into_iter().flat_map(Element::params);
        parsed.listener = own.find(|(name, _)| *name == LISTENER.as_bytes()).map(|(_, value)| unescape(value));
        parsed
    }

    fn read_container(&mut self, element: Element<'a>) {
        for (name, value) in element.params() {
            match name {
                b"image" => self.image_name = Some(unescape(value)),
                b"name" => self.container_name = Some(unescape(value)),
                b"id" => self.container_id = Some(unescape(value)),
                _ => {}
            }
        }
    }
}
