//! Queries that find the lines of one run of `logferry probe` in a log store: the request, and the lines in the answer.
//!
//! ```text
//! POST /INDEX/_search   {"query":{"match":{"message":"MARK"}},"sort":["@timestamp"],…}     Elasticsearch, OpenSearch
//! GET /loki/api/v1/query_range?query={job=~".+"} |= "MARK"&…                               Loki
//! ```
//!
//! An answer has at most [`PAGE`] lines, in the order of their times. The next page begins at the time where the previous one ended, so
//! some lines are in both.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::{Api, Elasticsearch, Label, Loki};
use crate::record::UnixMicros;
use crate::sorted::sort_by_key;

/// Maximum lines of an answer: Loki's limit (`max_entries_limit_per_query`). Such an answer of Elasticsearch has some 2 MB.
pub const PAGE: usize = 5000;

/// A query.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// The path, relative to the prefix of the API.
    pub path: String,
    /// JSON; `None`: the request is a GET without a body.
    pub body: Option<String>,
}

/// A line in the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Hit {
    pub text: String,
    /// Identifies the line. The value is the same each time the line is found, and differs between lines.
    pub identity: u64,
    /// The time of the line in the unit of the store.
    pub at: i64,
}

/// The criteria of a query.
pub struct Sought<'a> {
    /// A word in the lines: letters and digits.
    pub mark: &'a str,
    /// The range of the lines' times.
    pub since: UnixMicros,
    pub until: UnixMicros,
    /// The time at which the previous page ended.
    pub from: Option<i64>,
}

impl Api {
    /// The query for lines. `None`: this API has no such query, or logferry does not implement it.
    pub fn question(&self, sought: &Sought<'_>) -> Option<Question> {
        match self {
            Self::Elasticsearch(elasticsearch) => Some(ask_elasticsearch(elasticsearch, sought)),
            Self::Loki(loki) => Some(ask_loki(loki, sought)),
            _ => None,
        }
    }

    /// The lines in an answer. `None`: this is no answer to such a query.
    pub fn hits(&self, body: &[u8]) -> Option<Vec<Hit>> {
        let said: Value = serde_json::from_slice(body).ok()?;
        match self {
            Self::Loki(_) => loki_hits(&said),
            _ => said["hits"]["hits"].as_array()?.iter().map(elasticsearch_hit).collect(),
        }
    }
}

fn ask_elasticsearch(Elasticsearch { index, .. }: &Elasticsearch, sought: &Sought<'_>) -> Question {
    let mut body = json!({
        "size": PAGE,
        "_source": ["message"],
        "query": {"match": {"message": sought.mark}},
        // The index may be empty.
        "sort": [{"@timestamp": {"order": "asc", "unmapped_type": "date"}}],
    });
    if let Some(from) = sought.from {
        // `search_after` excludes its own value.
        body["search_after"] = json!([from - 1]);
    }
    Question { path: format!("/{}/_search?ignore_unavailable=true", index.pattern()), body: Some(body.to_string()) }
}

fn elasticsearch_hit(hit: &Value) -> Option<Hit> {
    Some(Hit {
        text: hit["_source"]["message"].as_str()?.to_owned(),
        identity: identity(&[hit["_index"].as_str()?, hit["_id"].as_str()?]),
        at: hit["sort"][0].as_i64()?,
    })
}

fn ask_loki(Loki { labels, fields, .. }: &Loki, sought: &Sought<'_>) -> Question {
    let field = fields.first().map(|(name, _)| name.as_str());
    let label = match labels.contains(&Label::Job) {
        true => Label::Job.name(),
        false => field.or(labels.first().map(|label| label.name())).unwrap_or(Label::Job.name()),
    };
    let start = sought.from.unwrap_or(sought.since.0 * 1000);
    // {label=~".+"} |= "mark"
    let query = format!("%7B{label}%3D~%22.%2B%22%7D%20%7C%3D%20%22{}%22", sought.mark);
    let path = format!(
        "/loki/api/v1/query_range?direction=forward&limit={PAGE}&start={start}&end={}&query={query}",
        sought.until.0 * 1000
    );
    Question { path, body: None }
}

fn loki_hits(said: &Value) -> Option<Vec<Hit>> {
    let mut hits = Vec::new();
    for stream in said["data"]["result"].as_array()? {
        let labels = stream["stream"].to_string();
        for entry in stream["values"].as_array()? {
            let (time, text) = (entry[0].as_str()?, entry[1].as_str()?);
            let identity = identity(&[&labels, time, text]);
            hits.push(Hit { text: text.to_owned(), identity, at: time.parse().ok()? });
        }
    }
    // Loki sorts them by stream.
    sort_by_key(&mut hits, |hit| hit.at);
    Some(hits)
}

fn identity(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::api::elasticsearch::index;

    const SOUGHT: Sought<'_> = Sought { mark: "0123ab", since: UnixMicros(5), until: UnixMicros(7), from: None };

    fn elasticsearch() -> Api {
        let (spool, sd_id) = (None, String::new());
        Api::Elasticsearch(Elasticsearch { index: index("logs-{host}-default"), spool, sd_id, labels: Vec::new() })
    }

    fn loki(labels: &[Label], fields: &[&str]) -> Api {
        let fields = fields.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        Api::Loki(Loki { labels: labels.to_vec(), fields, sd_id: String::new() })
    }

    #[test]
    fn elasticsearch_is_asked_for_a_page_and_the_next_one() {
        let question = elasticsearch().question(&SOUGHT).expect("a question");
        assert_eq!(question.path, "/logs-*-default/_search?ignore_unavailable=true");
        let body: Value = serde_json::from_str(&question.body.expect("a body")).expect("JSON");
        assert_eq!((&body["query"]["match"]["message"], &body["search_after"]), (&json!("0123ab"), &Value::Null));
        let question = elasticsearch().question(&Sought { from: Some(9), ..SOUGHT }).expect("a question");
        let body: Value = serde_json::from_str(&question.body.expect("a body")).expect("JSON");
        assert_eq!(body["search_after"], json!([8]));
        let hit = |id: &str| json!({"_index": "i", "_id": id, "_source": {"message": "m"}, "sort": [17]});
        let answer = json!({"hits": {"hits": [hit("a"), hit("b"), hit("a")]}}).to_string();
        let hits = elasticsearch().hits(answer.as_bytes()).expect("hits");
        assert_eq!((hits[0].at, &*hits[0].text, hits.len()), (17, "m", 3));
        assert!(hits[0] == hits[2] && hits[0].identity != hits[1].identity);
    }

    #[test]
    fn loki_is_asked_by_a_label_that_all_lines_have() {
        let check = |labels: &[Label], fields: &[&str], label: &str| {
            let question = loki(labels, fields).question(&SOUGHT).expect("a question");
            let query = format!("&query=%7B{label}%3D~%22.%2B%22%7D%20%7C%3D%20%220123ab%22");
            assert!(question.path.ends_with(&query), "{}", question.path);
            assert!(question.body.is_none() && question.path.contains("&start=5000&end=7000&"), "{}", question.path);
        };
        check(&[Label::Host, Label::Job], &["env"], "job");
        check(&[Label::Host], &["env"], "env");
        check(&[Label::Level, Label::Host], &[], "level");
        check(&[], &[], "job");
    }

    #[test]
    fn what_loki_has_is_in_the_order_of_its_times() {
        let stream = |label: &str, values: Value| json!({"stream": {"job": label}, "values": values});
        let streams = [stream("a", json!([["1", "x"], ["3", "y"]])), stream("b", json!([["1", "x"], ["2", "x"]]))];
        let answer = json!({"data": {"result": streams}}).to_string();
        let hits = loki(&[], &[]).hits(answer.as_bytes()).expect("hits");
        assert_eq!(hits.iter().map(|hit| hit.at).collect::<Vec<_>>(), [1, 1, 2, 3]);
        let identities: std::collections::HashSet<_> = hits.iter().map(|hit| hit.identity).collect();
        assert_eq!(identities.len(), 4, "the stream, the time and the text are what names a line");
    }

    #[test]
    fn what_answers_no_question_has_no_hits() {
        for body in ["", "{}", "[]", "{\"hits\":{\"hits\":[{}]}}", "{\"data\":{\"result\":[{\"values\":[[1]]}]}}"] {
            assert_eq!(elasticsearch().hits(body.as_bytes()), None, "{body}");
            assert_eq!(loki(&[], &[]).hits(body.as_bytes()), None, "{body}");
        }
    }
}
