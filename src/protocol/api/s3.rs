//! S3's PutObject (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>), of AWS, MinIO, R2, Garage, Ceph and others: a
//! stretch of the spool is an object, lines as JSON with a LF behind each, compressed.
//!
//! ```text
//! PUT /PREFIX/YYYY/MM/DD/SPOOL-FORWARD-SESSION-FIRST.ndjson.gz
//! If-None-Match: *
//! x-amz-meta-last: SESSION-LAST
//! ```
//!
//! # Exactly once
//!
//! The spool's cursor passes an object's lines when the object is there, all of them at once. So a relay that was killed in between begins
//! again at the object's first line, and comes to the key that is there: the key is made of the first line's number and of nothing that
//! another start could change. Its own object may end elsewhere: there are more lines now, or the sizes in the config are others. It is not
//! written: `If-None-Match: *` is answered with 412. What counts is what is there, and the object says itself with which line it ends. The
//! cursor goes exactly there, and the next object begins behind it. (A name with the last number in it would be another name for each end, and
//! both objects would be there.)
//!
//! An object has lines of one opening of the spool. After a power cut a spool may have lost lines that an object has; the numbers of these
//! are then given again, in another session, and such lines are in no object yet.

use super::ndjson::Ndjson;
use super::{Answer, Head, Line, LineId, Verdict};
use crate::record::Record;
use crate::record::time::StampWriter;
use crate::record::{Stamp, UnixMicros};

/// The header, and the metadata of an object, that says with which line it ends.
pub const LAST: &str = "x-amz-meta-last";

pub struct S3 {
    /// The spool's id and the forward's name, which make the lines' numbers unique: another forward to the same bucket may have other lines
    /// between two numbers.
    pub stream: String,
    pub objects: Ndjson,
}

impl S3 {
    /// Objects have keys behind the path that the config has.
    pub fn head(&self) -> Head {
        Head { path: "", content_type: "application/x-ndjson" }
    }

    /// Appends the lines of an object, or of a piece of it.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        self.objects.body(lines, out);
    }

    /// The key of the object that begins with this line, behind the prefix. The date is that of the line.
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

    /// What the answer to an object means. [`Verdict::There`]: it is there already, and may end with another line.
    pub fn verdict(&self, answer: &Answer<'_>) -> Verdict {
        let code = code(answer.body);
        match answer.status {
            // 304: as MinIO had it once.
            412 | 304 => Verdict::There,
            // Two have put it in the same moment, or the clock of the connection ran out.
            409 => Verdict::Again { after: answer.retry_after, why: answer.words() },
            400 if matches!(code, "RequestTimeout" | "BadDigest" | "IncompleteBody") => {
                Verdict::Again { after: answer.retry_after, why: answer.words() }
            }
            // It is about no single line: nothing is given up.
            400 | 413 | 422 => Verdict::Stop(answer.words()),
            _ => answer.verdict(),
        }
    }
}

/// How an object says with which line it ends.
pub fn last(id: LineId) -> String {
    format!("{}-{}", id.session, id.number)
}

/// The line with which an object ends that says so.
pub fn read_last(text: &str) -> Option<LineId> {
    let (session, number) = text.split_once('-')?;
    Some(LineId { session: session.parse().ok()?, number: number.parse().ok()? })
}

/// Whether a line is in the object of its session that ends with `last`, and begins with it or before it.
pub fn has(last: LineId, line: LineId) -> bool {
    line.session == last.session && line.number <= last.number
}

/// What is wrong, by the code in the XML of an answer.
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
