//! RFC 5424 from anybody, as the RFC writes it.

use super::{Reader, Reading, Shape, Stamp, words};
use crate::record::Record;
use crate::record::header::Header;
use crate::record::structured_data::split_sd;

/// A well-formed message of anybody's.
pub(super) fn read<'a>(reader: &Reader<'_, 'a>) -> Option<Reading<'a>> {
    let header = Header::split(reader.rest)?;
    split_sd(header.rest)?;
    Some(reading(reader, &header))
}

/// A message with a good header and structured data that is malformed or missing. CEF behind HOSTNAME is no APP-NAME.
pub(super) fn read_malformed<'a>(reader: &Reader<'_, 'a>) -> Option<Reading<'a>> {
    let is_header = |header: &Header<'_>| !header.rest.is_empty() && !words::is_format(header.app_name);
    let header = Header::split(reader.rest).filter(is_header)?;
    Some(reading(reader, &header))
}

/// The reading of a header: all of it stays as it is.
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
