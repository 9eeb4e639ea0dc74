//! Requests that carry no lines: they ask whether a server would take lines, and which lines it has.

use std::collections::HashSet;
use std::io;

use chrono::Utc;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::time::timeout;

use super::HttpLink;
use super::client::Answered;
use super::request::Requests;
use crate::protocol::api::Verdict;
use crate::protocol::api::search::{PAGE, Sought};
use crate::protocol::sigv4::Credentials;
use crate::record::UnixMicros;
use crate::tasks::spawn_blocking;

/// How far the clocks of two machines may differ, in microseconds, when lines are searched by their time.
pub const CLOCKS_DIFFER: i64 = 3_600_000_000;

impl HttpLink {
    /// Asks whether lines would be taken, without leaving one. `None`: the API has no such request. `Err`: why they would not.
    pub async fn would_take(&mut self) -> Option<Result<(), String>> {
        self.ask_of_none().await.transpose()
    }

    async fn ask_of_none(&mut self) -> Result<Option<()>, String> {
        let made = self.question(|requests, credentials| requests.make_of_none(credentials)).await;
        let Some(answered) = made? else { return Ok(None) };
        let answer = answered.answer();
        match self.requests.api().arranged().map(|cloud_watch| cloud_watch.verdict(&answer, 0)) {
            // CloudWatch answers missing permissions with a 400 too.
            Some(Verdict::Stop(why) | Verdict::Again { why, .. }) => Err(why),
            Some(_) => Ok(Some(())),
            None => answer.would_take().map(Some),
        }
    }

    /// Hands on each line with this mark that is in the store since that time and not among `seen`. `Err`: the store gave no lines.
    pub async fn search(
        &mut self,
        (mark, since): (&str, UnixMicros),
        seen: &mut HashSet<u64>,
        on_line: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), String> {
        let (within, mut from) = (self.settings.answer_timeout, None);
        loop {
            let (mark, until) = (mark.to_owned(), UnixMicros(Utc::now().timestamp_micros() + CLOCKS_DIFFER));
            let asked = self.question(move |requests, credentials| {
                requests.search(&Sought { mark: &mark, since, until, from }, credentials)
            });
            let answered =
                timeout(within, asked).await.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))?;
            let answered = answered.ok_or("this API has no way to find lines")?;
            if !(200..=299).contains(&answered.status) {
                return Err(answered.answer().words());
            }
            let hits = self.requests.api().hits(&answered.body);
            let hits = hits.ok_or_else(|| format!("the answer has no lines: {}", answered.answer().words()))?;
            hits.iter().filter(|hit| seen.insert(hit.identity)).for_each(|hit| on_line(hit.text.as_bytes()));
            let last = hits.last().map(|hit| hit.at);
            if hits.len() < PAGE || last <= from {
                return Ok(());
            }
            from = last;
        }
    }

    /// Sends a request, and keeps the connection. `None`: the API has no such request.
    async fn question(
        &mut self,
        make: impl FnOnce(&Requests, Option<&Credentials>) -> Option<io::Result<Request<Full<Bytes>>>> + Send + 'static,
    ) -> Result<Option<Answered>, String> {
        let requests = self.requests.clone();
        let credentials = match requests.is_signed() {
            true => Some(self.credentials.get().await.map_err(|none| none.to_string())?),
            false => None,
        };
        // The token may be in a file.
        let made = spawn_blocking(move || make(&requests, credentials.as_deref()).transpose()).await;
        let request = made.map_err(io::Error::other).and_then(|made| made).map_err(|error| error.to_string())?;
        let Some(request) = request else { return Ok(None) };
        let mut client = self.connection().await.map_err(|error| error.to_string())?;
        let answered = client.ask(request).await.map_err(|unanswered| unanswered.to_string())?;
        self.client = Some(client);
        Ok(Some(self.requests.without_secrets(answered)))
    }
}
