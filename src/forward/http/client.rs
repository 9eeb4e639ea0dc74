//! One connection of HTTP/1.1 on which requests go out, one at a time. hyper speaks, and our own dialer has made the connection.

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

/// The largest answer that is read, in bytes. A server says about each line of a request at most some hundred.
const MAX_ANSWER: usize = 4 << 20;
/// The longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A connection. It ends when it is dropped.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; ends with it.
    driver: JoinHandle<()>,
    /// Whether a request was answered on it.
    pub has_answered: bool,
}

/// An answer, whole.
pub struct Answered {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// The line with which an object of S3 ends.
    pub last: Option<LineId>,
    pub body: Bytes,
}

impl Answered {
    /// As far as an API reads it.
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
    /// Speaks HTTP on a connection that stands.
    pub async fn begin(carrier: Box<dyn Carrier>) -> Result<Self, Unanswered> {
        let (sender, connection) = http1::handshake(TokioIo::new(carrier)).await.map_err(Unanswered::of)?;
        // What becomes of it is told to who waits for an answer.
        let driver = spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver, has_answered: false })
    }

    /// Whether no more can be sent on it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the connection ends.
    pub async fn ends(&mut self) {
        // It ends the one way or the other.
        let _ = (&mut self.driver).await;
    }

    /// Sends a request and reads all of its answer.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answered, Unanswered> {
        // The one before it may not be done with for the connection, though it is for us.
        self.sender.ready().await.map_err(Unanswered::of)?;
        let response = self.sender.send_request(request).await.map_err(Unanswered::of)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers(), Utc::now()));
        let last = response.headers().get(LAST).and_then(|last| read_last(last.to_str().ok()?));
        let body = match whole(response).await {
            // A server that refuses a request before it has read all of it resets the connection, and some of its words are lost.
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
        // hyper's own words, and those of what is behind them.
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
