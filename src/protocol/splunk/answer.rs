//! Answers: a status, and a JSON object with a text and Splunk's code for it.

use std::borrow::Cow;

use super::Refused;

/// An answer. The body is JSON, or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// A header that the status requires, in addition to those of all answers.
    pub header: Option<(&'static str, &'static str)>,
    pub body: Cow<'static, str>,
}

const ALLOW: &str = "allow";

impl Answer {
    /// The whole request is in the spool. `ack` is its number in its channel.
    pub fn success(ack: Option<u64>) -> Self {
        let body = match ack {
            None => r#"{"text":"Success","code":0}"#.into(),
            Some(id) => format!(r#"{{"text":"Success","code":0,"ackId":{id}}}"#).into(),
        };
        Self { status: 200, header: None, body }
    }

    /// The answer to OPTIONS.
    pub fn options(methods: &'static str) -> Self {
        Self { status: 200, header: Some((ALLOW, methods)), body: "".into() }
    }

    /// The answer to a health check. `is_full`: the spool takes no lines.
    pub fn health(is_full: bool) -> Self {
        match is_full {
            false => Self::of(200, 17, "HEC is healthy"),
            true => Self::of(503, 18, "HEC is unhealthy, queues are full"),
        }
    }

    pub(super) fn acks(body: String) -> Self {
        Self { status: 200, header: None, body: body.into() }
    }

    fn of(status: u16, code: u16, text: &str) -> Self {
        Self { status, header: None, body: format!(r#"{{"text":"{text}","code":{code}}}"#).into() }
    }
}

impl Refused {
    /// The answer. `event`: the number of events before the refused one, which is also its number. `None`: no body was read.
    pub fn answer(self, event: Option<u64>) -> Answer {
        let (status, code, text) = self.told();
        let mut answer = Answer::of(status, code, text);
        answer.header = match self {
            Self::TokenRequired | Self::InvalidAuthorization => Some(("www-authenticate", "Splunk")),
            Self::Method(methods) => Some((ALLOW, methods)),
            _ => None,
        };
        if let Some(event) = event.filter(|_| self.is_of_an_event()) {
            answer.body = format!(r#"{{"text":"{text}","code":{code},"invalid-event-number":{event}}}"#).into();
        }
        answer
    }

    /// Status, code and text as in Splunk. For 413 and 415 Splunk sends a page of HTML: here their code is the status, as for 404.
    fn told(self) -> (u16, u16, &'static str) {
        match self {
            Self::Path => (404, 404, "The requested URL was not found on this server."),
            // Splunk sends the same text and code for both.
            Self::Method(_) => (405, 404, "The requested URL was not found on this server."),
            Self::Encoding => (415, 415, "Unsupported Media Type"),
            Self::TooLarge | Self::TooLong => (413, 413, "Content Too Large"),
            Self::TokenRequired => (401, 2, "Token is required"),
            Self::InvalidAuthorization => (401, 3, "Invalid authorization"),
            Self::InvalidToken => (403, 4, "Invalid token"),
            Self::InvalidHealthToken => (400, 21, "Invalid token"),
            Self::QueryToken => (400, 16, "Query string authorization is not enabled"),
            Self::NoData => (400, 5, "No data"),
            Self::BadGzip
            | Self::NotUtf8
            | Self::NotJson
            | Self::NoObject
            | Self::TooDeep
            | Self::TooManyKeys
            | Self::Unfinished => (400, 6, "Invalid data format"),
            Self::Busy => (503, 9, "Server is busy"),
            Self::ChannelMissing => (400, 10, "Data channel is missing"),
            Self::InvalidChannel => (400, 11, "Invalid data channel"),
            Self::EventRequired => (400, 12, "Event field is required"),
            Self::EventBlank => (400, 13, "Event field cannot be blank"),
            Self::AckDisabled => (400, 14, "ACK is disabled"),
            Self::Stopping => (503, 23, "Server is shutting down"),
        }
    }

    fn is_of_an_event(self) -> bool {
        matches!(self.told(), (_, 6 | 12 | 13, _)) || self == Self::TooLong
    }
}
