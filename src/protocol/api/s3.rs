//! S3's PutObject (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>), of AWS, MinIO, R2, Garage, Ceph and others. An
//! object is a range of the spool: lines as JSON with a LF after each, compressed.
//!
//! ```text
//! PUT /PREFIX/YYYY/MM/DD/SPOOL-FORWARD-SESSION-FIRST.ndjson.gz
//! If-None-Match: *
//! x-amz-meta-last: SESSION-LAST
//! ```
//!
//! # Exactly once
//!
//! The spool's cursor passes all lines of an object at once, when the object is stored. A relay that was killed before that begins again at
//! the object's first line. It comes to the same key, because the key consists of the first line's number and of nothing that a restart
//! could change. The relay's new object may end with another line: there are more lines now, or the sizes in the config have changed. It is
//! not written: the server answers `If-None-Match: *` with 412. The stored object counts. Its metadata has the last line, so the cursor
//! goes exactly there, and the next object begins after it. (With the last number in the key, each end would make another key, and both
//! objects would be stored.)
//! An object has lines of one opening of the spool. After a power cut a spool may have lost lines that an object has. Their numbers are
//! then assigned again in another session, and no object has those new lines yet.

use super::ndjson::Ndjson;
use super::{Answer, Head, Line, LineId, Verdict};
use crate::record::Record;
use crate::record::time::StampWriter;
use crate::record::{Stamp, UnixMicros};

/// The header and object metadata with the last line of the object.
pub const LAST: &str = "x-amz-meta-last";

pub struct S3 {
    /// The spool's ID and the forward's name, which make the lines' numbers unique. Another forward to the same bucket may send other lines
    /// between two numbers.
    pub stream: String,
    pub objects: Ndjson,
}

impl S3 {
    /// The key of an object follows the path in the config.
    pub fn head(&self) -> Head {
        Head { path: "", content_type: "application/x-ndjson" }
    }

    /// Appends the lines of an object, or of a piece of it.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        self.objects.body(lines, out);
    }

    /// The key, after the prefix, of the object that begins with this line. The date is that of the line.
    pub fn key(&self, first: LineId, record: &Record<'_>, is_compressed: bool) -> String {
        let mut key = Vec::new();
        match record.time() {
            Some(time) => {
                let mut stamp = Vec::new();
                StampWriter::default().write(&Stamp::Received(UnixMicros(time.0.max(0))), &mut stamp);
                // `2026-11-30T…`
                key.extend(stamp.iter().take(10).map(|byte| if *byte == b'-' { b'/' } else { *byte }));
            }
            None => key.extend_from_slice(b"undated"),
        }
        key.push(b'/');
        first.append(&self.stream, &mut key);
        key.extend_from_slice(if is_compressed { b".ndjson.gz" } else { b".ndjson" });
        String::from_utf8_lossy(&key).into_owned()
    }

    /// The verdict on the answer to an object. [`Verdict::There`]: the object exists already, and may end with another line.
    pub fn verdict(&self, answer: &Answer<'_>) -> Verdict {
        let code = code(answer.body);
        match answer.status {
            // 304: old versions of MinIO.
            412 | 304 => Verdict::There,
            // Two clients have written the object at the same moment, or the connection timed out.
            409 => Verdict::Again { after: answer.retry_after, why: answer.words() },
            400 if matches!(code, "RequestTimeout" | "BadDigest" | "IncompleteBody") => {
                Verdict::Again { after: answer.retry_after, why: answer.words() }
            }
            // The error concerns no single line, so no line is given up.
            400 | 413 | 422 => Verdict::Stop(answer.words()),
            _ => answer.verdict(),
        }
    }
}

/// The text of [`LAST`].
pub fn last(id: LineId) -> String {
    format!("{}-{}", id.session, id.number)
}

/// Reads the text of [`LAST`].
pub fn read_last(text: &str) -> Option<LineId> {
    let (session, number) = text.split_once('-')?;
    Some(LineId { session: session.parse().ok()?, number: number.parse().ok()? })
}

/// Whether a line is in the object that ends with `last`, if the object begins at this line or before it in the same session.
pub fn has(last: LineId, line: LineId) -> bool {
    line.session == last.session && line.number <= last.number
}

/// The error code in the XML of an answer.
fn code(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::super::Api;
    use super::super::properties::verdicts;
    use super::*;

    fn s3() -> S3 {
        let objects = Ndjson { is_array: false, sd_id: "docker@32473".to_owned(), fields: Vec::new() };
        S3 { stream: "5b00-central".to_owned(), objects }
    }

    #[test]
    fn a_key_is_made_of_the_first_line_alone() {
        let check = |line: &[u8], expected: &str| {
            let record = Record::from_line(line, "docker@32473");
            assert_eq!(s3().key(LineId { session: 7, number: 123 }, &record, true), expected);
        };
        check(b"<13>1 2026-11-30T23:59:59.9+02:00 h - - - - x", "2026/11/30/5b00-central-7-123.ndjson.gz");
        check(b"<13>1 2026-12-01T00:30:00+01:00 h - - - - x", "2026/11/30/5b00-central-7-123.ndjson.gz");
        check(b"<13>1 1960-01-01T00:00:00Z h - - - - x", "1970/01/01/5b00-central-7-123.ndjson.gz");
        check(b"<13>1 - h - - - - x", "undated/5b00-central-7-123.ndjson.gz");
    }

    #[test]
    fn an_object_says_with_which_line_it_ends() {
        let id = |session, number| LineId { session, number };
        assert_eq!(read_last(&last(id(3, 99))), Some(id(3, 99)));
        ["", "3", "-", "3-", "a-1", "3-1-1", "3--1"]
            .into_iter()
            .for_each(|text| assert_eq!(read_last(text), None, "{text}"));
        assert!(has(id(3, 99), id(3, 99)) && has(id(3, 99), id(3, 1)));
        assert!(!has(id(3, 99), id(3, 100)) && !has(id(3, 99), id(4, 98)));
    }

    #[test]
    fn answers_are_about_the_object() {
        let check = |status: u16, body: &str, expected: &str| verdicts(&Api::S3(s3()), 3, status, body, expected);
        let error =
            |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
        check(200, "", "Delivered");
        [412, 304].into_iter().for_each(|status| check(status, &error("PreconditionFailed"), "There"));
        check(409, &error("ConditionalRequestConflict"), "Again");
        check(400, &error("RequestTimeout"), "Again");
        [400, 401, 403, 404, 413, 501].into_iter().for_each(|status| check(status, &error("NoSuchBucket"), "Stop"));
        [408, 429, 500, 503].into_iter().for_each(|status| check(status, &error("SlowDown"), "Again"));
    }
}
