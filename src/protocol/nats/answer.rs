//! The answer to a publication.

use super::{Message, words};
use crate::record::json_reader::{each_member, text};

/// Values of `err_code` that concern one message: "message size exceeds maximum allowed", "header size exceeds maximum allowed".
const POISON: [u32; 2] = [10054, 10097];
/// "resource limits exceeded for account": its `code` is that of a bad request.
const AGAIN: [u32; 1] = [10002];
/// "account not found", "JetStream not enabled for account", "JetStream not enabled": their `code` is that of a busy server.
const STOP: [u32; 3] = [10035, 10039, 10076];
/// The message could not be stored. Only the text has the reason: the stream is full, or the message is "to large" for the store.
const STORE_FAILED: u32 = 10077;

/// The verdict of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The message is stored, by this publication or an earlier one.
    Stored,
    /// The message is not stored. A retry may succeed.
    Again(String),
    /// The message will never be stored.
    Poison(String),
    /// No message can be stored as things are.
    Stop(String),
    /// No stream takes the subject.
    NoStream,
}

impl Answer {
    pub fn read(message: &Message<'_>) -> Self {
        if let Some(status) = status(message.headers) {
            return if status == b"503" { Self::NoStream } else { Self::Again(words(message.headers)) };
        }
        let said = std::str::from_utf8(message.payload).unwrap_or_default();
        let (mut sequence, mut error) = (None, None);
        let read = each_member(said, |name, value| {
            match &*name {
                "seq" => sequence = value.parse::<u64>().ok(),
                "error" => error = Some(value),
                _ => {}
            }
            true
        });
        match (read, error, sequence) {
            (Ok(()), Some(error), _) => Self::of_error(error),
            (Ok(()), None, Some(1..)) => Self::Stored,
            // From a cluster: the message came twice, and the cluster has not yet decided on the first one.
            (Ok(()), None, Some(0)) => Self::Again("the message is being stored".to_owned()),
            // Another client subscribes to the subject and answers. It is not a stream.
            _ => Self::Stop(format!("the answer is no stream's: {}", words(message.payload))),
        }
    }

    fn of_error(error: &str) -> Self {
        let (mut code, mut err_code, mut says) = (0, 0, String::new());
        let _ = each_member(error, |name, value| {
            match &*name {
                "code" => code = value.parse().unwrap_or(0),
                "err_code" => err_code = value.parse().unwrap_or(0),
                "description" => says = text(value).map_or_else(String::new, |text| words(text.as_bytes())),
                _ => {}
            }
            true
        });
        let why = format!("{says} ({err_code})");
        let is_too_large = err_code == STORE_FAILED && (says.contains("to large") || says.contains("too large"));
        match code {
            _ if is_too_large || POISON.contains(&err_code) => Self::Poison(why),
            _ if STOP.contains(&err_code) => Self::Stop(why),
            _ if AGAIN.contains(&err_code) => Self::Again(why),
            408 | 409 | 429 | 500..=599 => Self::Again(why),
            _ => Self::Stop(why),
        }
    }
}

/// The status in headers: `NATS/1.0 503`. `None`: they have none.
pub(super) fn status(headers: &[u8]) -> Option<&[u8]> {
    let line = headers.strip_prefix(b"NATS/1.0")?.split(|byte| *byte == b'\r').next()?.trim_ascii();
    let status = line.split(|byte| *byte == b' ').next()?;
    (!status.is_empty()).then_some(status)
}
