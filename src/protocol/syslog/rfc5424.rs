//! Strict RFC 5424 of any sender.

use super::{Reader, Reading, Shape, Stamp, words};
use crate::record::Record;
use crate::record::header::Header;
use crate::record::structured_data::split_sd;

/// Reads a well-formed message.
pub(super) fn read<'a>(reader: &Reader<'_, 'a>) -> Option<Reading<'a>> {
    let header = Header::split(reader.rest)?;
    split_sd(header.rest)?;
    Some(reading(reader, &header))
}

/// Reads a message with a valid header and structured data that is malformed or missing. CEF after HOSTNAME is no APP-NAME.
pub(super) fn read_malformed<'a>(reader: &Reader<'_, 'a>) -> Option<Reading<'a>> {
    let is_header = |header: &Header<'_>| !header.rest.is_empty() && !words::is_format(header.app_name);
    let header = Header::split(reader.rest).filter(is_header)?;
    Some(reading(reader, &header))
}

/// The reading of a header: all fields stay unchanged.
fn reading<'a>(reader: &Reader<'_, 'a>, header: &Header<'a>) -> Reading<'a> {
    let timestamp = match header.timestamp {
        b"-" => Stamp::Received(reader.frame.received),
        text => Stamp::Text(text.into()),
    };
    let mut record = Record { timestamp: Some(timestamp), ..reader.record(b"") };
    record.take_header(header);
    record.take_rest(header.rest, &reader.settings.sd_id);
    Reading { record, shape: Shape::Rfc5424 }
}
