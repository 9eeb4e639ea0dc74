//! CloudWatch Logs' PutLogEvents (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>).
//!
//! ```text
//! {"logGroupName":"/docker/prod","logStreamName":"host-1","logEvents":[{"timestamp":1795898247123,"message":"{…}"},…]}
//! ```
//!
//! A request is for one stream. Its events are in the order of their times and span less than 24 hours: [`arrange`] does this. A 200 may
//! report that the oldest or the newest events were dropped, by their indexes.
//!
//! [`arrange`]: CloudWatch::arrange

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ndjson::Ndjson;
use super::object::Object;
use super::{Answer, Fate, Head, Limits, Line, Verdict};
use crate::record::template::Name;
use crate::record::{Record, escape};
use crate::sorted::sort_by_key;

/// A request may have 10,000 events and 1,048,576 bytes: the bytes of the messages plus 26 for each event. Our JSON puts more than 26 bytes
/// around a message, and escaping never makes a text shorter, so a body of this size is never too large. A single event may have as many
/// bytes. That limit is not checked here, because CloudWatch reports events that are too large.
pub const LIMITS: Limits = Limits { lines: 10_000, bytes: 1_048_576, line: usize::MAX };
/// The events of a request must span less than this.
const SPAN: i64 = 24 * 60 * 60 * 1_000_000;
/// Maximum characters of a group's or a stream's name.
pub const MAX_NAME: usize = 512;

pub struct CloudWatch {
    pub group: Name,
    pub stream: Name,
    /// Renders the event's text; `None`: the text is MSG.
    pub objects: Option<Ndjson>,
    /// Whether missing groups and streams are created.
    pub creates: bool,
}

/// The resources of a stream, in the order of their creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    Group,
    Stream,
}

#[derive(Deserialize)]
struct Taken {
    #[serde(rename = "rejectedLogEventsInfo")]
    rejected: Option<Rejected>,
}

/// The parts at both ends of a request that were dropped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rejected {
    /// The index after the last event that is too old.
    too_old_log_event_end_index: Option<usize>,
    /// The index after the last event that is older than the retention of the group.
    expired_log_event_end_index: Option<usize>,
    /// The index of the first event that is too new.
    too_new_log_event_start_index: Option<usize>,
}

/// The error in an answer (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/CommonErrors.html>).
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

impl CloudWatch {
    pub fn head(&self) -> Head {
        Head { path: "/", content_type: "application/x-amz-json-1.1" }
    }

    /// Divides lines into requests. Each is a list of indexes of lines, in the order of their times.
    pub fn arrange(&self, lines: &[Line<'_>]) -> Vec<Vec<usize>> {
        let mut streams: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
        for (place, line) in lines.iter().enumerate() {
            let names = (self.group.of(&line.record).into_owned(), self.stream.of(&line.record).into_owned());
            streams.entry(names).or_default().push(place);
        }
        let time = |place: usize| lines[place].time().map_or(0, |time| time.0);
        let mut requests = Vec::with_capacity(streams.len());
        for mut places in streams.into_values() {
            // Stable: lines with equal times keep their order.
            sort_by_key(&mut places, |place| time(*place));
            let mut rest = &places[..];
            while let Some(first) = rest.first() {
                let (request, behind) =
                    rest.split_at(rest.partition_point(|place| time(*place).saturating_sub(time(*first)) < SPAN));
                requests.push(request.to_vec());
                rest = behind;
            }
        }
        // In the spool's order as far as possible: the cursor waits for the first line of all.
        sort_by_key(&mut requests, |places| places.iter().min().copied());
        requests
    }

    /// Appends a request for these lines, which are of one stream and in order.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        let Some(first) = lines.first() else { return };
        let mut request = Object::begin(out);
        self.names(&first.record, &mut request);
        let mut text = Vec::new();
        request.array("logEvents", lines, |line, out| {
            let mut event = Object::begin(out);
            // In milliseconds. CloudWatch takes no time before 1970.
            event.number("timestamp", line.time().map_or(0, |time| time.0.div_euclid(1000).max(0)));
            self.message(line, &mut text, &mut event);
            event.end();
        });
        request.end();
    }

    fn names(&self, record: &Record<'_>, request: &mut Object<'_>) {
        request.text("logGroupName", &self.group.of(record));
        request.text("logStreamName", &self.stream.of(record));
    }

    fn message(&self, line: &Line<'_>, text: &mut Vec<u8>, event: &mut Object<'_>) {
        let Some(objects) = &self.objects else {
            return match line.record.text() {
                // CloudWatch refuses an empty event.
                b"" => event.text("message", " "),
                bytes => match std::str::from_utf8(bytes) {
                    Ok(text) => event.text("message", text),
                    Err(_) => event.text("message", &escape(bytes)),
                },
            };
        };
        text.clear();
        objects.object(line, text);
        event.text("message", &String::from_utf8_lossy(text));
    }

    /// The operation of a request, for `X-Amz-Target`. `None`: a request with lines.
    pub fn operation(what: Option<Creation>) -> &'static str {
        match what {
            None => "Logs_20140328.PutLogEvents",
            Some(Creation::Group) => "Logs_20140328.CreateLogGroup",
            Some(Creation::Stream) => "Logs_20140328.CreateLogStream",
        }
    }

    /// Appends the request that creates a resource for a line.
    pub fn creation(&self, what: Creation, line: &Record<'_>, out: &mut Vec<u8>) {
        let mut request = Object::begin(out);
        match what {
            Creation::Group => request.text("logGroupName", &self.group.of(line)),
            Creation::Stream => self.names(line, &mut request),
        }
        request.end();
    }

    /// The verdict on the answer to a request of this many lines, or to a request that creates a resource.
    pub fn verdict(&self, answer: &Answer<'_>, lines: usize) -> Verdict {
        if (200..=299).contains(&answer.status) {
            return taken(answer, lines);
        }
        let problem: Problem = serde_json::from_slice(answer.body).unwrap_or_default();
        let kind = problem.kind.rsplit('#').next().unwrap_or_default();
        if kind.is_empty() {
            // The answer is not from CloudWatch but from a proxy, or it has no error.
            return answer.verdict();
        }
        let why = problem.words(answer.status, kind);
        match kind {
            _ if answer.is_too_large() => Verdict::TooLarge(why),
            // An existing resource is as good as a new one.
            "DataAlreadyAcceptedException" | "ResourceAlreadyExistsException" => Verdict::Delivered,
            "ResourceNotFoundException" if self.creates => Verdict::Missing(why),
            "ThrottlingException"
            | "Throttling"
            | "LimitExceededException"
            | "OperationAbortedException"
            | "RequestTimeout"
            | "ServiceUnavailableException"
            | "ServiceUnavailable"
            | "InternalFailure"
            | "InvalidSequenceTokenException" => Verdict::Again { after: answer.retry_after, why },
            "InvalidParameterException" | "SerializationException" | "ValidationException" => Verdict::Refused(why),
            _ if answer.status >= 500 => Verdict::Again { after: answer.retry_after, why },
            // AccessDeniedException, UnrecognizedClientException, InvalidSignatureException, ExpiredTokenException and similar.
            _ => Verdict::Stop(why),
        }
    }
}

fn taken(answer: &Answer<'_>, lines: usize) -> Verdict {
    // The answer to a creation has no body.
    let taken = if answer.body.trim_ascii().is_empty() { b"{}" } else { answer.body };
    let Ok(Taken { rejected }) = serde_json::from_slice(taken) else {
        return Verdict::Stop(format!("this is no answer to PutLogEvents: {}", answer.words()));
    };
    let Some(rejected) = rejected else { return Verdict::Delivered };
    let ends = [
        (rejected.too_old_log_event_end_index, "it is too old for CloudWatch Logs (tooOldLogEventEndIndex)"),
        (rejected.expired_log_event_end_index, "it is older than its log group keeps events (expiredLogEventEndIndex)"),
    ];
    let (too_new, why_too_new) =
        (rejected.too_new_log_event_start_index, "it is too new for CloudWatch Logs (tooNewLogEventStartIndex)");
    let fate = |place: usize| {
        // In a request of one event any index means that event, whether it counts from 0 or 1.
        let is_before = |end: usize| place < end || lines == 1;
        let old = ends.iter().find(|(end, _)| end.is_some_and(is_before));
        match old {
            Some((_, why)) => Fate::TooOld((*why).to_owned()),
            None if too_new.is_some_and(|start| place >= start || lines == 1) => Fate::TooNew(why_too_new.to_owned()),
            None => Fate::Delivered,
        }
    };
    Verdict::Each((0..lines).map(fate).collect())
}

/// Whether the name of a log group may contain this byte.
pub fn is_of_group(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-/.#".contains(&byte)
}

/// Whether the name of a log stream may contain this byte.
pub fn is_of_stream(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !b":*".contains(&byte)
}

impl Problem {
    /// The error in one line. The answer to a wrong signature repeats the request, which has the session token, so that part is cut off.
    fn words(&self, status: u16, kind: &str) -> String {
        let message = self.message.split("The Canonical String").next().unwrap_or_default();
        let message = Answer { status, retry_after: None, body: message.as_bytes() }.words();
        message.replacen(&format!("HTTP {status}"), &format!("HTTP {status} {kind}"), 1)
    }
}

/// The name of a log group. Illegal characters become `_`.
pub fn group(template: &str) -> Name {
    Name::new(template, |byte| if is_of_group(byte) { char::from(byte) } else { '_' }, MAX_NAME)
}

/// The name of a log stream, likewise.
pub fn stream(template: &str) -> Name {
    Name::new(template, |byte| if is_of_stream(byte) { char::from(byte) } else { '_' }, MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::super::properties::{body_of, verdicts};
    use super::super::{Api, LineId};
    use super::*;

    fn cloud_watch(group: &str, stream: &str, is_text: bool) -> CloudWatch {
        let ndjson = Ndjson { is_array: false, sd_id: "docker@32473".to_owned(), fields: Vec::new() };
        let objects = (!is_text).then_some(ndjson);
        CloudWatch { group: super::group(group), stream: super::stream(stream), objects, creates: true }
    }

    #[test]
    fn a_request_is_for_one_stream() {
        let line: &[u8] = b"<27>1 2026-11-20T22:28:47.123456Z no:de*1 web 123 - [docker@32473 image=\"i\" name=\"web 1\" id=\"0a\"] GET / 200";
        let api = Api::CloudWatch(cloud_watch("/docker/{host}", "{host}/{name}", true));
        assert_eq!(
            body_of(&api, &[line, b"<13>1 1969-01-01T00:00:00Z h - - - -", b"<13>1 - h - - - - caf\xe9"]),
            "{\"logGroupName\":\"/docker/no_de_1\",\"logStreamName\":\"no_de_1/web_1\",\"logEvents\":[\
             {\"timestamp\":1795213727123,\"message\":\"GET / 200\"},{\"timestamp\":0,\"message\":\" \"},\
             {\"timestamp\":0,\"message\":\"caf\\\\xe9\"}]}"
        );
        let api = Api::CloudWatch(cloud_watch("g", "s", false));
        assert_eq!(
            body_of(&api, &[b"<13>1 2026-11-20T22:28:47Z h app - - - \"x\""]),
            r#"{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":1795213727000,"message":"{\"timestamp\":\"2026-11-20T22:28:47Z\",\"host\":\"h\",\"facility\":\"user\",\"severity\":\"notice\",\"app_name\":\"app\",\"message\":\"\\\"x\\\"\"}"}]}"#
        );
        let long = "x".repeat(MAX_NAME);
        let record = Record::from_line(b"<13>1 - h - - - - x", "docker@32473");
        assert_eq!(stream(&format!("{long}{{host}}")).of(&record), long);
        let mut body = Vec::new();
        cloud_watch("g/{host}", "s", false).creation(Creation::Group, &record, &mut body);
        assert_eq!(body, br#"{"logGroupName":"g/h"}"#);
    }

    #[test]
    fn lines_are_arranged_by_stream_and_time() {
        let day = |day: u32, host: &str| format!("<13>1 2026-11-{day:02}T12:00:00Z {host} - - - - x");
        let texts = [day(3, "a"), day(1, "b"), day(2, "a"), day(1, "b"), day(4, "a"), day(2, "a")];
        let lines = (0..).zip(&texts).map(|(number, text)| Line {
            id: LineId { session: 1, number },
            record: Record::from_line(text.as_bytes(), "docker@32473"),
            sent_at: None,
        });
        let lines: Vec<_> = lines.collect();
        // No two events of a request are a day apart.
        assert_eq!(cloud_watch("g", "{host}", true).arrange(&lines), [vec![0], vec![1, 3], vec![2, 5], vec![4]]);
        assert_eq!(cloud_watch("g", "s", true).arrange(&lines), [vec![0], vec![1, 3], vec![2, 5], vec![4]]);
        assert!(cloud_watch("g", "s", true).arrange(&[]).is_empty());
    }

    #[test]
    fn the_ends_that_were_thrown_away_are_named_by_their_places() {
        let fates = |lines: usize, rejected: &str| {
            let body = format!("{{\"nextSequenceToken\":\"1\",\"rejectedLogEventsInfo\":{rejected}}}");
            let answer = Answer { status: 200, retry_after: None, body: body.as_bytes() };
            let Verdict::Each(fates) = cloud_watch("g", "s", false).verdict(&answer, lines) else { panic!("{body}") };
            let letter = |fate: &Fate| match fate {
                Fate::Delivered => '+',
                Fate::TooOld(why) if why.contains("too old") => 'o',
                Fate::TooNew(why) if why.contains("too new") => 'n',
                Fate::TooOld(why) if why.contains("older than its log group") => 'e',
                fate => panic!("{fate:?}"),
            };
            fates.iter().map(letter).collect::<String>()
        };
        assert_eq!(fates(5, r#"{"tooOldLogEventEndIndex":2}"#), "oo+++");
        assert_eq!(fates(5, r#"{"tooNewLogEventStartIndex":3}"#), "+++nn");
        assert_eq!(
            fates(5, r#"{"tooOldLogEventEndIndex":1,"expiredLogEventEndIndex":3,"tooNewLogEventStartIndex":4}"#),
            "oee+n"
        );
        assert_eq!(fates(3, r#"{"tooOldLogEventEndIndex":99}"#), "ooo");
        assert_eq!(fates(1, r#"{"tooOldLogEventEndIndex":0}"#), "o");
        assert_eq!(fates(3, "{}"), "+++");
        assert_eq!(fates(0, r#"{"tooOldLogEventEndIndex":1}"#), "");
    }

    #[test]
    fn answers_by_the_kind_of_their_problem() {
        let api = |creates: bool| Api::CloudWatch(CloudWatch { creates, ..cloud_watch("g", "s", false) });
        let check = |kind: &str, expected: &str| {
            let body = format!("{{\"__type\":\"com.amazonaws.logs#{kind}\",\"message\":\"no\"}}");
            verdicts(&api(true), 3, 400, &body, expected);
            verdicts(&api(true), 3, 400, &body.replace("com.amazonaws.logs#", ""), expected);
        };
        check("ResourceNotFoundException", "Missing(\"HTTP 400 ResourceNotFoundException: no\")");
        check("ResourceAlreadyExistsException", "Delivered");
        check("DataAlreadyAcceptedException", "Delivered");
        check("InvalidParameterException", "Refused(\"HTTP 400 InvalidParameterException: no\")");
        for kind in ["ThrottlingException", "ServiceUnavailableException", "OperationAbortedException"] {
            check(kind, "Again");
        }
        for kind in [
            "AccessDeniedException",
            "UnrecognizedClientException",
            "InvalidSignatureException",
            "ExpiredTokenException",
            "New",
        ] {
            check(kind, "Stop");
        }
        let missing = r#"{"__type":"ResourceNotFoundException","message":"The specified log stream does not exist."}"#;
        verdicts(&api(false), 3, 400, missing, "Stop");
        verdicts(&api(true), 3, 200, r#"{"nextSequenceToken":"1"}"#, "Delivered");
        verdicts(&api(true), 3, 200, "", "Delivered");
        verdicts(&api(true), 3, 200, "<html>", "Stop");
        verdicts(&api(true), 3, 500, r#"{"__type":"InternalFailure"}"#, "Again");
        [500, 503, 429].into_iter().for_each(|status| verdicts(&api(true), 3, status, "", "Again"));
        verdicts(&api(true), 3, 413, "", "TooLarge(");
        let large = r#"{"__type":"InvalidParameterException","message":"Upload too large: 1048650 bytes exceeds limit of 1048576"}"#;
        verdicts(&api(true), 3, 400, large, "TooLarge(");
        verdicts(&api(true), 3, 403, "<html>", "Stop");
        // The session token is not shown.
        let body = r#"{"__type":"InvalidSignatureException","message":"It does not match.\n\nThe Canonical String for this request should have been 'x-amz-security-token:hunter2'"}"#;
        verdicts(&api(true), 3, 400, body, "Stop(\"HTTP 400 InvalidSignatureException: It does not match.\")");
    }
}
