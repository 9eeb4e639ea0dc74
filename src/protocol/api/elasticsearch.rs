//! Elasticsearch's `_bulk` (<https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>), which OpenSearch, Quickwit,
//! VictoriaLogs, OpenObserve and ZincSearch accept too.
//!
//! ```text
//! {"create":{"_index":"logs-docker-default","_id":"SPOOL-SESSION-NUMBER"}}
//! {"@timestamp":"2026-11-20T22:28:47.123456Z","message":"…","host":{"name":"…"},"container":{…},…}
//! ```
//!
//! The names are those of ECS (<https://www.elastic.co/docs/reference/ecs>). `create` is the only action that data streams accept. A line
//! with an existing `_id` gets a 409, which means that it is delivered.

use std::borrow::Cow;

use serde::Deserialize;

use super::names::with_own_names;
use super::object::Object;
use super::{Answer, Fate, Head, Line, ORIGINAL_TIME, TRUNCATED, Verdict, foreign_params, image_and_tag, service};
use crate::record::structured_data::unescape;
use crate::record::template::Name;
use crate::record::time::StampWriter;
use crate::record::{FACILITIES, Record, SEVERITIES};

/// The path with a filter for the answer: a full answer can be larger than the request.
const WANTED: &str =
    "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.failure_store";

/// A data stream of Elasticsearch's built-in template `logs-*-*`.
pub const DEFAULT_INDEX: &str = "logs-docker-default";

/// Maximum bytes of an index's name.
pub const MAX_INDEX: usize = 255;

pub struct Elasticsearch {
    /// The data stream or index.
    pub index: Name,
    /// The spool's ID, which makes the lines' numbers unique. `None`: Elasticsearch generates the `_id`, and a line that is sent twice is
    /// stored twice.
    pub spool: Option<String>,
    /// The SD-ID of the element with image, name and ID.
    pub sd_id: String,
    /// ECS' `labels` of each line.
    pub labels: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Bulk {
    errors: Option<bool>,
    #[serde(default)]
    items: Vec<Item>,
}

/// The result of a line, under the action that was taken.
#[derive(Deserialize)]
struct Item {
    #[serde(alias = "index")]
    create: Said,
}

#[derive(Deserialize)]
struct Said {
    status: u16,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: String,
}

impl Elasticsearch {
    pub fn head(&self) -> Head {
        Head { path: WANTED, content_type: "application/x-ndjson" }
    }

    /// Appends a request for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        let mut stamps = StampWriter::default();
        for line in lines {
            let mut action = Object::begin(out);
            action.object("create", |create| {
                create.text("_index", &self.index.of(&line.record));
                if let Some(spool) = &self.spool {
                    create.id("_id", line.id, spool);
                }
            });
            action.end();
            out.push(b'\n');
            self.document(line, &mut stamps, out);
            out.push(b'\n');
        }
    }

    fn document(&self, line: &Line<'_>, stamps: &mut StampWriter, out: &mut Vec<u8>) {
        let record = &line.record;
        let mut document = Object::begin(out);
        if let Some(time) = line.time() {
            document.stamp("@timestamp", time, stamps);
        }
        document.bytes("message", Some(record.text()));
        document.object("ecs", |ecs| ecs.text("version", "8.11.0"));
        document.object("log", |log| {
            log.text("level", SEVERITIES[usize::from(record.severity)]);
            log.object("syslog", |syslog| self.syslog(record, syslog));
        });
        if let Some(host) = record.hostname {
            document.object("host", |object| object.bytes("name", Some(host.said())));
        }
        if let Some(container) = record.container.as_ref().filter(|container| container.is_known()) {
            document.object("container", |object| {
                object.bytes("id", container.id.as_deref());
                object.bytes("name", container.name.as_deref());
                if let Some((name, tag)) = container.image.as_deref().map(image_and_tag) {
                    object.object("image", |image| {
                        image.bytes("name", Some(name));
                        image.bytes("tag", tag);
                    });
                }
            });
        }
        if let Some(service) = service(record) {
            document.object("service", |object| object.bytes("name", Some(service)));
        }
        let original = line.original_time();
        if !record.fields.is_empty() || !self.labels.is_empty() || original.is_some() || record.cut {
            document.object("labels", |labels| {
                // Names must be unique.
                let is_ours = |name: &str| {
                    [ORIGINAL_TIME, TRUNCATED].contains(&name) || self.labels.iter().any(|(label, _)| label == name)
                };
                for (name, value) in with_own_names(&record.fields.flattened(), without_dots, is_ours) {
                    labels.value(&name, value, false);
                }
                self.labels.iter().for_each(|(name, value)| labels.text(name, value));
                if let Some(original) = original {
                    labels.stamp(ORIGINAL_TIME, original, stamps);
                }
                if record.cut {
                    labels.text(TRUNCATED, "true");
                }
            });
        }
        document.end();
    }

    fn syslog(&self, record: &Record<'_>, syslog: &mut Object<'_>) {
        let (facility, severity) = (usize::from(record.facility), usize::from(record.severity));
        syslog.number("priority", record.facility * 8 + record.severity);
        syslog.object("facility", |object| {
            object.number("code", record.facility);
            object.text("name", FACILITIES[facility]);
        });
        syslog.object("severity", |object| {
            object.number("code", record.severity);
            object.text("name", SEVERITIES[severity]);
        });
        for (key, value) in [
            ("hostname", record.hostname),
            ("appname", record.app_name),
            ("procid", record.proc_id),
            ("msgid", record.msg_id),
        ] {
            if let Some(value) = value {
                syslog.bytes(key, Some(value.said()));
            }
        }
        let ids = foreign_params(record, &self.sd_id);
        if !ids.is_empty() {
            // SD-IDs and names are ASCII: an element accepts nothing else.
            let key = |name| String::from_utf8_lossy(name);
            let text = |value: &&[u8]| String::from_utf8_lossy(&unescape(value)).into_owned();
            syslog.object("structured_data", |object| {
                for (id, names) in &ids {
                    object.object(&key(id), |object| {
                        for (name, values) in names {
                            object.texts(&key(name), &values.iter().map(text).collect::<Vec<_>>());
                        }
                    });
                }
            });
        }
    }

    /// The verdict on the answer to a request of this many lines.
    pub fn verdict(&self, answer: &Answer<'_>, lines: usize) -> Verdict {
        if !(200..=299).contains(&answer.status) {
            return answer.verdict();
        }
        if answer.body.trim_ascii().is_empty() {
            // VictoriaLogs answers like this if it cannot read a document.
            return Verdict::Refused(format!("HTTP {}, and no word about the lines", answer.status));
        }
        let Ok(Bulk { errors, items }) = serde_json::from_slice(answer.body) else {
            return Verdict::Stop(format!("this is no answer to _bulk: {}", answer.words()));
        };
        if errors == Some(false) || errors.is_none() && items.is_empty() {
            return Verdict::Delivered;
        }
        if items.len() != lines {
            let why = format!("the answer is about {} lines, and {lines} were sent", items.len());
            return Verdict::Again { after: None, why };
        }
        let fates: Vec<_> = items.iter().map(|item| item.create.fate()).collect();
        match fates.iter().find_map(|fate| fate.as_ref().err()) {
            Some(why) => Verdict::Stop(why.clone()),
            None => Verdict::Each(fates.into_iter().flatten().collect()),
        }
    }
}

/// The name of a data stream or an index, which begins with a literal text. In a value, letters become lower case, and characters other
/// than letters, digits and `-_.` become `_`.
pub fn index(template: &str) -> Name {
    let legal = |byte: u8| match byte.to_ascii_lowercase() {
        byte if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) => char::from(byte),
        _ => '_',
    };
    Name::new(template, legal, MAX_INDEX)
}

impl Said {
    /// `Err`: the error does not concern the line.
    fn fate(&self) -> Result<Fate, String> {
        let why = || match &self.error {
            Some(Problem { kind, reason }) => format!("{} {kind}: {reason}", self.status),
            None => self.status.to_string(),
        };
        match self.status {
            // 409: a line with this `_id` exists.
            200..=299 | 409 => Ok(Fate::Delivered),
            429 | 500..=599 => Ok(Fate::Again(why())),
            401 | 403 | 404 => Err(why()),
            _ => Ok(Fate::Poison(why())),
        }
    }
}

/// Replaces dots: in ECS a name with a dot denotes an object.
fn without_dots(name: &str) -> Cow<'_, str> {
    if name.contains('.') { name.replace('.', "_").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::super::Api;
    use super::super::properties::body_of;
    use super::*;

    fn verdict(status: u16, body: &str, lines: usize) -> Verdict {
        let spool = Some("00ff".to_owned());
        let bulk = Elasticsearch { index: index("i"), spool, sd_id: "docker@32473".to_owned(), labels: Vec::new() };
        bulk.verdict(&Answer { status, retry_after: None, body: body.as_bytes() }, lines)
    }

    fn stops(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Stop(_))
    }

    #[test]
    fn an_answer_without_errors_is_about_all_lines() {
        assert_eq!(
            verdict(200, r#"{"took":3,"errors":false,"items":[{"create":{"status":201}}]}"#, 1),
            Verdict::Delivered
        );
        // The answer after `filter_path`, and the answer of a compatible server.
        assert_eq!(verdict(200, r#"{"errors":false}"#, 7), Verdict::Delivered);
        assert_eq!(verdict(200, "{}", 7), Verdict::Delivered);
    }

    #[test]
    fn each_item_says_what_becomes_of_its_line() {
        let body = r#"{"errors":true,"items":[{"create":{"status":201,"failure_store":"used"}},{"create":{"status":409,"error":{"type":"t","reason":"r"}}},
            {"create":{"status":429,"error":{"type":"full","reason":"r"}}},{"create":{"status":503}},
            {"index":{"status":400,"error":{"type":"bad","reason":"no\ndate"}}}]}"#;
        let (again, poison) = (|why: &str| Fate::Again(why.to_owned()), Fate::Poison("400 bad: no\ndate".to_owned()));
        let fates = vec![Fate::Delivered, Fate::Delivered, again("429 full: r"), again("503"), poison];
        assert_eq!(verdict(200, body, 5), Verdict::Each(fates));
        assert!(matches!(verdict(200, body, 6), Verdict::Again { .. }), "about another request");
    }

    #[test]
    fn what_is_about_the_index_is_not_about_the_line() {
        for (status, kind) in
            [(401, "security_exception"), (403, "security_exception"), (404, "index_not_found_exception")]
        {
            let body = format!(
                r#"{{"errors":true,"items":[{{"create":{{"status":{status},"error":{{"type":"{kind}"}}}}}}]}}"#
            );
            assert_eq!(verdict(200, &body, 1), Verdict::Stop(format!("{status} {kind}: ")));
        }
    }

    /// Elasticsearch refuses a document with a duplicate name.
    #[test]
    fn each_name_is_there_once() {
        let labels = vec![("env".to_owned(), "prod".to_owned())];
        let bulk = Elasticsearch { index: index("i"), spool: None, sd_id: "docker@32473".to_owned(), labels };
        let line = "<14>1 2026-11-29T12:00:00Z h a - - [fields@32473 a.b=\"1\" a_b=\"2\" env=\"test\"][x@1 k=\"1\" k=\"2\"][x@1 l=\"3\"] m";
        let body = body_of(&Api::Elasticsearch(bulk), &[line.as_bytes()]);
        let document = body.lines().nth(1).expect("a document");
        let labels = r#""labels":{"a_b":"1","a_b_":"2","env_":"test","env":"prod"}"#;
        assert!(document.contains(labels), "{document}");
        let structured_data = r#""structured_data":{"x@1":{"k":["1","2"],"l":"3"}}"#;
        assert!(document.contains(structured_data), "{document}");
    }

    #[test]
    fn an_index_may_have_fields_of_the_line() {
        let check = |template: &str, host: &str, expected: &str| {
            let bulk = Elasticsearch {
                index: index(template),
                spool: None,
                sd_id: "docker@32473".to_owned(),
                labels: Vec::new(),
            };
            let line = format!("<14>1 - {host} a - - - m");
            let body = body_of(&Api::Elasticsearch(bulk), &[line.as_bytes()]);
            assert_eq!(
                body.lines().next(),
                Some(&*format!("{{\"create\":{{\"_index\":\"{expected}\"}}}}")),
                "{template}"
            );
        };
        check("logs-{host}-prod", "Node-7.example", "logs-node-7.example-prod");
        check("logs-{host}", "a/b:c*?\\d#E", "logs-a_b_c___d_e");
        check("logs-{name}-{id}", "h", "logs-a--");
        check("logs-{host}", "-", "logs--");
        check(&format!("{}{{host}}", "é".repeat(127)), "node", &format!("{}n", "é".repeat(127)));
        check(&format!("{}{{host}}é", "x".repeat(253)), "n", &format!("{}n", "x".repeat(253)));
    }

    #[test]
    fn what_is_no_answer_to_it_loses_nothing() {
        assert!(stops(verdict(200, "<html>Welcome</html>", 3)), "a page that asks for a login");
        assert!(matches!(verdict(200, "", 3), Verdict::Refused(_)));
        assert!(matches!(verdict(503, "", 3), Verdict::Again { .. }));
        assert!(matches!(verdict(413, "", 3), Verdict::TooLarge(_)));
        assert!(stops(verdict(404, "", 3)));
    }
}
