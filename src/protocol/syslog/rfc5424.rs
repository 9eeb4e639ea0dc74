//! RFC 5424 from anybody, as the RFC writes it.

use super::{Message, Reader, Shape, Stamp, StructuredData};
use crate::record::structured_data::{Header, split_sd, value};

/// A well-formed message of anybody's.
pub(super) fn read<'a>(reader: &Reader<'_, 'a>) -> Option<Message<'a>> {
    let header = Header::split(reader.rest)?;
    let (structured_data, message) = split_sd(header.rest)?;
    let structured_data = match structured_data {
        b"-" => StructuredData::Nil,
        elements => StructuredData::Elements(elements),
    };
    Some(header.into_message(reader, structured_data, message))
}

/// A message with a good header and structured data that is malformed or missing.
pub(super) fn read_malformed<'a>(reader: &Reader<'_, 'a>) -> Option<Message<'a>> {
    let header = Header::split(reader.rest).filter(|header| !header.rest.is_empty())?;
    Some(header.into_message(reader, StructuredData::Malformed, Some(header.rest)))
}

impl<'a> Header<'a> {
    fn into_message(
        self,
        reader: &Reader<'_, 'a>,
        structured_data: StructuredData<'a>,
        message: Option<&'a [u8]>,
    ) -> Message<'a> {
        let timestamp = match self.timestamp {
            b"-" => Stamp::Received(reader.frame.received),
            text => Stamp::Text(text.into()),
        };
        Message {
            timestamp,
            hostname: value(self.hostname),
            tag: value(self.app_name),
            proc_id: value(self.proc_id),
            msg_id: value(self.msg_id),
            structured_data,
            message,
            ..Message::new(Shape::Rfc5424, reader.pri, reader.frame, b"")
        }
    }
}
