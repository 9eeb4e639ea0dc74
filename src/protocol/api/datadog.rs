//! Datadog's Logs API (<https://docs.datadoghq.com/api/latest/logs/#send-logs>): an array of objects.
//!
//! ```text
//! [{"message":"…","timestamp":1795898247123,"ddsource":"docker","service":"web-1","hostname":"…","status":"info","ddtags":"image_name:web,…",…}]
//! ```
//!
//! 202 only means that the request was read. Afterwards Datadog drops lines older than 18 hours, without a report.

use super::names::with_own_names;
use super::object::{Object, push_array};
use super::{Head, Limits, Line, ORIGINAL_TIME, TRUNCATED, image_and_tag, service};
use crate::record::time::StampWriter;
use crate::record::{FACILITIES, Record, SEVERITIES, escape};

/// A request may have 1,000 entries and 5 MB, an entry 1 MB. Datadog truncates a longer entry and answers 202. So a request is limited to
/// the size of one entry and cannot contain a longer one.
pub const LIMITS: Limits = Limits { lines: 1000, bytes: 1_000_000, line: 1_000_000 };

/// The attributes that are not the line's fields. A field with one of these names is renamed.
const OURS: [&str; 13] = [
    "message",
    "timestamp",
    "ddsource",
    "service",
    "hostname",
    "status",
    "ddtags",
    "syslog",
    "logferry_id",
    ORIGINAL_TIME,
    TRUNCATED,
    "escaped",
    // Datadog's own name for `hostname`.
    "host",
];

pub struct Datadog {
    /// The spool's ID, which makes the lines' numbers unique.
    pub spool: String,
    /// Tags of each line.
    pub tags: Vec<(String, String)>,
}

impl Datadog {
    pub fn head(&self) -> Head {
        Head { path: "/api/v2/logs", content_type: "application/json" }
    }

    /// Appends a request for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        let (mut stamps, mut tags) = (StampWriter::default(), String::new());
        push_array(lines, out, |line, out| self.entry(line, (&mut stamps, &mut tags), out));
    }

    fn entry(&self, line: &Line<'_>, (stamps, tags): (&mut StampWriter, &mut String), out: &mut Vec<u8>) {
        let record = &line.record;
        let mut entry = Object::begin(out);
        entry.bytes("message", Some(record.text()));
        if let Some(time) = line.time() {
            // In milliseconds.
            entry.number("timestamp", time.0.div_euclid(1000));
        }
        entry.text("ddsource", if record.container.is_some() { "docker" } else { "syslog" });
        entry.bytes("service", service(record));
        entry.bytes("hostname", record.hostname.map(|host| host.said()));
        entry.text("status", SEVERITIES[usize::from(record.severity)]);
        self.write_tags(record, tags);
        if !tags.is_empty() {
            entry.text("ddtags", tags);
        }
        entry.object("syslog", |syslog| {
            syslog.text("facility", FACILITIES[usize::from(record.facility)]);
            for (key, value) in [("appname", record.app_name), ("procid", record.proc_id), ("msgid", record.msg_id)] {
                syslog.bytes(key, value.map(|value| value.said()));
            }
        });
        for (name, value) in with_own_names(&record.fields, |name| name.into(), |name| OURS.contains(&name)) {
            entry.value(&name, value, true);
        }
        if let Some(original) = line.original_time() {
            entry.stamp(ORIGINAL_TIME, original, stamps);
        }
        if record.cut {
            entry.json(TRUNCATED, b"true");
        }
        entry.id("logferry_id", line.id, &self.spool);
        entry.end();
    }

    fn write_tags(&self, record: &Record<'_>, tags: &mut String) {
        tags.clear();
        let (image, tag) = record.image_name().map(image_and_tag).map_or((None, None), |(name, tag)| (Some(name), tag));
        for (name, value) in [
            ("image_name", image),
            ("image_tag", tag),
            ("container_name", record.container_name()),
            ("container_id", record.container_id()),
        ] {
            match value.map(std::str::from_utf8) {
                Some(Ok(value)) => push_tag(name, value, tags),
                Some(Err(_)) => push_tag(name, &escape(value.unwrap_or_default()), tags),
                None => {}
            }
        }
        self.tags.iter().for_each(|(name, value)| push_tag(name, value, tags));
    }
}

/// Appends a tag. A comma would end the tag, so it becomes `_`.
fn push_tag(name: &str, value: &str, tags: &mut String) {
    if !tags.is_empty() {
        tags.push(',');
    }
    let of = |text: &str, tags: &mut String| tags.extend(text.chars().map(|c| if c == ',' { '_' } else { c }));
    of(name, tags);
    tags.push(':');
    of(value, tags);
}

#[cfg(test)]
mod tests {
    use super::super::Api;
    use super::super::properties::{body_of, verdicts};
    use super::*;

    fn api(tags: &[(&str, &str)]) -> Api {
        let tags = tags.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Api::Datadog(Datadog { spool: "5b00".to_owned(), tags })
    }

    #[test]
    fn lines_are_an_array_of_entries() {
        let line: &[u8] = b"<27>1 2026-11-20T22:28:47.123456Z node-1 web 123 - [docker@32473 image=\"r:5000/web:1.2\" name=\"web-1\" \
            id=\"0123456789ab\"][fields@32473 status=\"x\"][json@32473 fields=\"{\\\"took\\\":1.5}\"] GET / 200";
        assert_eq!(
            body_of(&api(&[("env", "a,b")]), &[line, b"<13>1 - - caf\xe9 - - - caf\xe9"]),
            "[{\"message\":\"GET / 200\",\"timestamp\":1795213727123,\"ddsource\":\"docker\",\"service\":\"web-1\",\
             \"hostname\":\"node-1\",\"status\":\"err\",\
             \"ddtags\":\"image_name:r:5000/web,image_tag:1.2,container_name:web-1,container_id:0123456789ab,env:a_b\",\
             \"syslog\":{\"facility\":\"daemon\",\"appname\":\"web\",\"procid\":\"123\"},\"status_\":\"x\",\"took\":1.5,\
             \"logferry_id\":\"5b00-7-100\"},\
             {\"message\":\"caf\\\\xe9\",\"ddsource\":\"syslog\",\"service\":\"caf\\\\xe9\",\"status\":\"notice\",\"ddtags\":\"env:a_b\",\
             \"syslog\":{\"facility\":\"user\",\"appname\":\"caf\\\\xe9\"},\"logferry_id\":\"5b00-7-101\",\
             \"escaped\":[\"message\",\"service\",\"appname\"]}]"
        );
        assert!(!body_of(&api(&[]), &[b"<13>1 - - - - - - x"]).contains("ddtags"));
    }

    #[test]
    fn answers_are_about_the_request() {
        let check = |status: u16, body: &str, expected: &str| verdicts(&api(&[]), 3, status, body, expected);
        check(202, "{}", "Delivered");
        check(400, r#"{"errors":[{"status":"400","title":"Bad Request","detail":"Invalid JSON"}]}"#, "Refused(");
        check(413, r#"{"errors":[{"status":"413","title":"Payload Too Large"}]}"#, "TooLarge(");
        check(401, r#"{"errors":[{"status":"401","title":"Unauthorized"}]}"#, "Stop");
        check(403, r#"{"errors":[{"status":"403","title":"Forbidden"}]}"#, "Stop");
        [408, 429, 500, 503].into_iter().for_each(|status| check(status, "", "Again"));
    }
}
