//! Reads a stream by a consumer of its own. The server forgets an idle consumer, and delivers a batch of messages for each request.
//!
//! ```text
//! → $JS.API.STREAM.NAMES {"subject":"logs.*.*"}                        ← {"streams":["LOGS"]}
//! → $JS.API.CONSUMER.CREATE.LOGS {…}                                   ← {"name":"c","delivered":{"stream_seq":11}}
//! → $JS.API.CONSUMER.MSG.NEXT.LOGS.c {"batch":500,"expires":250000000} ← messages, then NATS/1.0 408 or 404
//! ```

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::status;
use super::{Message, words};

/// The number of messages in one request.
const BATCH: usize = 500;
/// The time after which a server forgets an idle consumer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// A request to the server: a subject, and JSON.
pub struct Question {
    subject: String,
    body: Value,
}

/// The answer to a request for messages.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A message of the stream, and its number there.
    Message(u64),
    /// No more messages for now.
    NoMore,
    /// The request failed, for this reason.
    Refused(String),
}

impl Question {
    /// Asks which streams take these subjects.
    pub fn streams(subjects: &str) -> Self {
        Self { subject: "$JS.API.STREAM.NAMES".to_owned(), body: json!({"subject": subjects}) }
    }

    /// Creates a consumer that delivers messages from a number on; `None`: new messages only.
    pub fn consumer(stream: &str, from: Option<u64>) -> Self {
        let mut config = json!({"ack_policy": "none", "inactive_threshold": FORGOTTEN_AFTER.as_nanos() as u64});
        match from {
            Some(from) => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(from);
            }
            None => config["deliver_policy"] = json!("new"),
        }
        let body = json!({"stream_name": stream, "config": config});
        Self { subject: format!("$JS.API.CONSUMER.CREATE.{stream}"), body }
    }

    /// Asks for the next messages: those that are stored already, or arrive within a time.
    pub fn next(stream: &str, consumer: &str, within: Duration) -> Self {
        let body = json!({"batch": BATCH, "expires": within.as_nanos() as u64});
        Self { subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"), body }
    }

    /// Appends the request. The server answers to `reply`.
    pub fn append(&self, reply: &str, out: &mut Vec<u8>) {
        let body = self.body.to_string();
        out.extend_from_slice(format!("PUB {} {reply} {}\r\n{body}\r\n", self.subject, body.len()).as_bytes());
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// The streams in an answer. `Err`: why the request failed.
pub fn streams(message: &Message<'_>) -> Result<Vec<String>, String> {
    let said = said(message)?;
    let names = said["streams"].as_array().into_iter().flatten();
    Ok(names.filter_map(|name| Some(name.as_str()?.to_owned())).collect())
}

/// The name of the consumer in an answer, and the number of the first message that it delivers.
pub fn consumer(message: &Message<'_>) -> Result<(String, u64), String> {
    let said = said(message)?;
    let found = said["name"].as_str().zip(said["delivered"]["stream_seq"].as_u64());
    let (name, before) = found.ok_or_else(|| format!("the answer is no consumer: {}", words(message.payload)))?;
    Ok((name.to_owned(), before + 1))
}

fn said(message: &Message<'_>) -> Result<Value, String> {
    if status(message.headers).is_some() {
        return Err("JetStream does not answer; is it enabled for this account?".to_owned());
    }
    let said: Value = serde_json::from_slice(message.payload).unwrap_or_default();
    match &said["error"] {
        Value::Null => Ok(said),
        error => Err(format!("{} ({})", error["description"].as_str().unwrap_or_default(), error["err_code"])),
    }
}

impl Next {
    /// Reads an answer to [`Question::next`].
    pub fn read(message: &Message<'_>) -> Self {
        match (sequence(message.reply), status(message.headers)) {
            (Some(number), _) => Self::Message(number),
            (None, Some(b"404" | b"408")) => Self::NoMore,
            (None, _) => Self::Refused(words(message.headers)),
        }
    }

    /// Whether no more answers to this request will come, after so many messages.
    pub fn is_last(&self, count: usize) -> bool {
        !matches!(self, Self::Message(_)) || count >= BATCH
    }
}

/// The number of a message in its stream: the sixth of nine tokens, or the eighth if the subject has a domain and an account (ADR-15).
fn sequence(reply: &[u8]) -> Option<u64> {
    let tokens: Vec<&str> = std::str::from_utf8(reply).ok()?.strip_prefix("$JS.ACK.")?.split('.').collect();
    tokens.get(if tokens.len() < 9 { 3 } else { 5 })?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer<'a>(reply: &'a str, headers: &'a str, payload: &'a str) -> Message<'a> {
        let [reply, headers, payload] = [reply, headers, payload].map(str::as_bytes);
        Message { subject: b"s", reply, headers, payload }
    }

    #[test]
    fn a_message_has_its_number_and_a_status_has_none() {
        let check = |reply: &str, headers: &str, expected| {
            assert_eq!(Next::read(&answer(reply, headers, "")), expected, "{reply} {headers}");
        };
        check("$JS.ACK.LOGS.c.1.12.3.1700000000.0", "", Next::Message(12));
        check("$JS.ACK.LOGS.c.1.12.3.1700000000.0", "NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n", Next::Message(12));
        check("$JS.ACK.hub.ACC.LOGS.c.1.12.3.1700000000.0.x", "", Next::Message(12));
        check("", "NATS/1.0 404 No Messages\r\n\r\n", Next::NoMore);
        check("", "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\n\r\n", Next::NoMore);
        let gone = "NATS/1.0 409 Consumer Deleted\r\n\r\n";
        check("", gone, Next::Refused("NATS/1.0 409 Consumer Deleted".to_owned()));
        for bad in ["$JS.ACK.LOGS.c.1", "$JS.ACK.LOGS.c.1.x.3.1.0", "elsewhere.a.b.c.4"] {
            assert!(matches!(Next::read(&answer(bad, "", "")), Next::Refused(_)), "{bad}");
        }
    }

    #[test]
    fn an_answer_names_streams_or_a_consumer_or_says_why_not() {
        assert_eq!(streams(&answer("", "", r#"{"total":2,"streams":["A","B"]}"#)), Ok(vec!["A".into(), "B".into()]));
        assert_eq!(streams(&answer("", "", r#"{"total":0,"streams":null}"#)), Ok(Vec::new()));
        let made = r#"{"name":"c","delivered":{"consumer_seq":0,"stream_seq":11}}"#;
        assert_eq!(consumer(&answer("", "", made)), Ok(("c".to_owned(), 12)));
        let refused = r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        assert_eq!(consumer(&answer("", "", refused)), Err("stream not found (10059)".to_owned()));
        assert!(consumer(&answer("", "", "{}")).is_err());
        assert!(streams(&answer("", "NATS/1.0 503\r\n\r\n", "")).is_err_and(|why| why.contains("is it enabled")));
    }

    #[test]
    fn a_question_is_published_with_where_its_answer_goes() {
        let mut out = Vec::new();
        Question::streams("logs.*").append("_INBOX.a.0", &mut out);
        assert_eq!(out, b"PUB $JS.API.STREAM.NAMES _INBOX.a.0 20\r\n{\"subject\":\"logs.*\"}\r\n");
        let (first, again) = (Question::consumer("LOGS", None), Question::consumer("LOGS", Some(7)));
        assert_eq!(
            (first.subject(), &first.body["config"]["deliver_policy"]),
            ("$JS.API.CONSUMER.CREATE.LOGS", &json!("new"))
        );
        assert_eq!(again.body["config"]["opt_start_seq"], 7);
    }
}
