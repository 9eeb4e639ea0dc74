//! One HTTP/1.1 connection for requests, one at a time. hyper speaks HTTP, on a connection that our own dialer has made.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use crate::http::Carrier;
use crate::protocol::api::s3::{LAST, read_last};
use crate::protocol::api::{Answer, LineId};
use crate::tasks::spawn;

/// The longest answer that is read, in bytes. A server says at most some hundred bytes about each line of a request.
const MAX_ANSWER: usize = 4 << 20;
/// The longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A connection. Dropping it closes the connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    /// The task that drives the connection and ends with it.
    driver: JoinHandle<()>,
    /// Whether a request was answered on it.
    pub has_answered: bool,
}

/// A whole answer.
pub struct Answered {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// The last line of an S3 object, from the object's metadata.
    pub last: Option<LineId>,
    pub body: Bytes,
}

impl Answered {
    /// The answer in the form that an API reads.
    pub fn answer(&self) -> Answer<'_> {
        Answer { status: self.status, retry_after: self.retry_after, body: &self.body }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("the server closed the connection")]
    Closed,
    #[error("{0}")]
    Broken(String),
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

impl Client {
    /// Speaks HTTP on an open connection.
    pub async fn begin(carrier: Box<dyn Carrier>) -> Result<Self, Unanswered> {
        let (sender, connection) = http1::handshake(TokioIo::new(carrier)).await.map_err(Unanswered::of)?;
        // The request that waits for an answer gets the error.
        let driver = spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver, has_answered: false })
    }

    /// Whether no more requests can be sent.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the connection ends.
    pub async fn ends(&mut self) {
        // Success and failure are the same here.
        let _ = (&mut self.driver).await;
    }

    /// Sends a request and reads all of its answer.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answered, Unanswered> {
        // The connection may still be busy with the previous request, although we are not.
        self.sender.ready().await.map_err(Unanswered::of)?;
        let response = self.sender.send_request(request).await.map_err(Unanswered::of)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers(), Utc::now()));
        let last = response.headers().get(LAST).and_then(|last| read_last(last.to_str().ok()?));
        let body = match whole(response).await {
            // A server that refuses a request before it has read all of it resets the connection, and part of its answer is lost.
            Err(Unanswered::Broken(_) | Unanswered::Closed) if status.is_client_error() => Bytes::new(),
            body => body?,
        };
        let status = status.as_u16();
        self.has_answered = true;
        Ok(Answered { status, retry_after, last, body })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Unanswered {
    pub fn of(error: hyper::Error) -> Self {
        if error.is_canceled() || error.is_closed() || error.is_incomplete_message() {
            return Self::Closed;
        }
        // hyper's own text, and the text of the underlying error.
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::Broken(format!("{error}{source}"))
    }
}

async fn whole(response: Response<hyper::body::Incoming>) -> Result<Bytes, Unanswered> {
    match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unanswered::TooLong),
        Err(error) => Err(error.downcast::<hyper::Error>().map_or(Unanswered::Closed, |error| Unanswered::of(*error))),
    }
}

/// How long a server asks us to wait (RFC 9110 10.2.3): seconds, or a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_to_wait_in_seconds_or_by_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-11-29T12:00:00Z").expect("a date").to_utc();
        let check = |text: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        };
        check("17", Some(17));
        check("Sun, 29 Nov 2026 12:00:30 GMT", Some(30));
        check("Sun, 29 Nov 2026 11:00:00 GMT", Some(0));
        check("100000", Some(300));
        check("soon", None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
