//! New Relic's Log API (<https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>): an array of one object, whose `common`
//! applies to all its `logs`.
//!
//! ```text
//! [{"common":{"attributes":{"env":"prod"}},"logs":[{"timestamp":1795898247123,"message":"…","attributes":{"hostname":"…",…}}]}]
//! ```
//!
//! 202 only means that the request was read. New Relic reports errors in lines later, by an event `NrIntegrationError`. It keeps 128 KB of
//! a value, of which 4,094 characters can be searched, without a report. It may drop lines older than 48 hours.

use super::names::with_own_names;
use super::object::Object;
use super::{Head, Limits, Line, ORIGINAL_TIME, TRUNCATED, image_and_tag, service};
use crate::record::time::StampWriter;
use crate::record::{FACILITIES, SEVERITIES};

/// "1MB(10^6 bytes) maximum per POST".
pub const LIMITS: Limits = Limits { lines: usize::MAX, bytes: 1_000_000, line: 1_000_000 };

/// The attributes that are not the line's fields. A field with one of these names is renamed.
const OURS: [&str; 19] = [
    "hostname",
    "service.name",
    "level",
    "container.id",
    "container.name",
    "container.image.name",
    "container.image.tag",
    "syslog.facility",
    "syslog.appname",
    "syslog.procid",
    "syslog.msgid",
    "logferry_id",
    ORIGINAL_TIME,
    TRUNCATED,
    "escaped",
    // In New Relic `message` and `timestamp` are attributes like others. It drops the two names after them.
    "message",
    "timestamp",
    "accountId",
    "eventType",
];

pub struct NewRelic {
    /// The spool's ID, which makes the lines' numbers unique.
    pub spool: String,
    /// Attributes of each line.
    pub attributes: Vec<(String, String)>,
}

impl NewRelic {
    pub fn head(&self) -> Head {
        Head { path: "/log/v1", content_type: "application/json" }
    }

    /// Appends a request for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        let mut stamps = StampWriter::default();
        out.push(b'[');
        let mut all = Object::begin(out);
        if !self.attributes.is_empty() {
            all.object("common", |common| {
                common.object("attributes", |object| {
                    self.attributes.iter().for_each(|(name, value)| object.text(name, value));
                });
            });
        }
        all.array("logs", lines, |line, out| self.log(line, &mut stamps, out));
        all.end();
        out.push(b']');
    }

    fn log(&self, line: &Line<'_>, stamps: &mut StampWriter, out: &mut Vec<u8>) {
        let mut log = Object::begin(out);
        if let Some(time) = line.time() {
            // In milliseconds.
            log.number("timestamp", time.0.div_euclid(1000));
        }
        log.bytes("message", Some(line.record.text()));
        log.object("attributes", |attributes| self.attributes(line, stamps, attributes));
        log.end();
    }

    fn attributes(&self, line: &Line<'_>, stamps: &mut StampWriter, attributes: &mut Object<'_>) {
        let record = &line.record;
        attributes.bytes("hostname", record.hostname.map(|host| host.said()));
        attributes.bytes("service.name", service(record));
        attributes.text("level", SEVERITIES[usize::from(record.severity)]);
        attributes.bytes("container.id", record.container_id());
        attributes.bytes("container.name", record.container_name());
        if let Some((name, tag)) = record.image_name().map(image_and_tag) {
            attributes.bytes("container.image.name", Some(name));
            attributes.bytes("container.image.tag", tag);
        }
        attributes.text("syslog.facility", FACILITIES[usize::from(record.facility)]);
        attributes.bytes("syslog.appname", record.app_name.map(|name| name.said()));
        attributes.bytes("syslog.procid", record.proc_id.map(|id| id.said()));
        attributes.bytes("syslog.msgid", record.msg_id.map(|id| id.said()));
        let is_ours = |name: &str| OURS.contains(&name) || self.attributes.iter().any(|(ours, _)| ours == name);
        for (name, value) in with_own_names(&record.fields.flattened(), |name| name.into(), is_ours) {
            attributes.value(&name, value, true);
        }
        if let Some(original) = line.original_time() {
            attributes.stamp(ORIGINAL_TIME, original, stamps);
        }
        if record.cut {
            attributes.json(TRUNCATED, b"true");
        }
        attributes.id("logferry_id", line.id, &self.spool);
        attributes.tell_escaped();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Api;
    use super::super::properties::{body_of, verdicts};
    use super::*;

    fn api(attributes: &[(&str, &str)]) -> Api {
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Api::NewRelic(NewRelic { spool: "5b00".to_owned(), attributes })
    }

    #[test]
    fn what_is_common_is_said_once() {
        let line: &[u8] = b"<27>1 2026-11-20T22:28:47.123456Z node-1 web 123 - [docker@32473 image=\"r:5000/web:1.2\" name=\"web-1\" \
            id=\"0123456789ab\"][fields@32473 level=\"x\" env=\"dev\"][json@32473 fields=\"{\\\"took\\\":1.5}\"] GET / 200";
        assert_eq!(
            body_of(&api(&[("env", "prod")]), &[line, b"<13>1 - - - - - - caf\xe9"]),
            "[{\"common\":{\"attributes\":{\"env\":\"prod\"}},\"logs\":[\
             {\"timestamp\":1795213727123,\"message\":\"GET / 200\",\"attributes\":{\"hostname\":\"node-1\",\"service.name\":\"web-1\",\
             \"level\":\"err\",\"container.id\":\"0123456789ab\",\"container.name\":\"web-1\",\
             \"container.image.name\":\"r:5000/web\",\"container.image.tag\":\"1.2\",\"syslog.facility\":\"daemon\",\
             \"syslog.appname\":\"web\",\"syslog.procid\":\"123\",\"level_\":\"x\",\"env_\":\"dev\",\"took\":1.5,\
             \"logferry_id\":\"5b00-7-100\"}},\
             {\"message\":\"caf\\\\xe9\",\"attributes\":{\"level\":\"notice\",\"syslog.facility\":\"user\",\
             \"logferry_id\":\"5b00-7-101\",\"escaped\":[\"message\"]}}]}]"
        );
        assert!(body_of(&api(&[]), &[b"<13>1 - - - - - - x"]).starts_with("[{\"logs\":[{"));
    }

    #[test]
    fn answers_are_about_the_request() {
        let check = |status: u16, body: &str, expected: &str| verdicts(&api(&[]), 3, status, body, expected);
        check(202, r#"{"requestId":"f0e7bfff-001a-b000-0000-01682bcf4565"}"#, "Delivered");
        check(400, "", "Refused(");
        check(413, "", "TooLarge(");
        [401, 403, 404, 405, 411, 415].into_iter().for_each(|status| check(status, "", "Stop"));
        [408, 429, 500, 503].into_iter().for_each(|status| check(status, "", "Again"));
    }
}
