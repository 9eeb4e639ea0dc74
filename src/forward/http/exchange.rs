//! One request and its answer: credentials for the signature, the wait for the answer, and the wait before the request is sent again.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::time::{interval, sleep, sleep_until};

use super::HttpLink;
use super::client::{Answered, Unanswered};
use crate::forward::driver::Failure;
use crate::forward::link::{Ended, Events};
use crate::forward::source::Source;
use crate::forward::stall::PART_OF_DEAD;
use crate::forward::target_watch::Leave;
use crate::protocol::sigv4::Credentials;

/// How long to wait for an answer when there is a better place.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

impl HttpLink {
    /// The credentials for a request's signature; `None`: requests are not signed.
    pub(super) async fn credentials(&mut self, events: &mut Events) -> Result<Option<Arc<Credentials>>, Ended> {
        if !self.requests.is_signed() {
            return Ok(None);
        }
        tokio::select! {
            found = self.credentials.get() => found.map(Some).map_err(|none| Ended::Failed(none.into())),
            () = events.deadline.reached() => Err(Ended::Stopped),
        }
    }

    /// Sends a request. Returns the answer without our secrets, and where to go afterwards, if there is a better place.
    pub(super) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        events: &mut Events,
    ) -> Result<(Answered, Option<Leave>), Ended> {
        loop {
            let mut client = tokio::select! {
                client = self.connection() => client.map_err(|error| Ended::Failed(error.into()))?,
                () = events.deadline.reached() => return Err(Ended::Stopped),
            };
            let was_used = client.has_answered;
            let (answered, leave) = self.await_answer(client.ask(request.clone()), events).await?;
            match (answered, leave) {
                (Some(Ok(answered)), leave) => {
                    self.client = Some(client);
                    return Ok((self.requests.without_secrets(answered), leave));
                }
                // The server may have closed the idle connection at the same moment.
                (Some(Err(Unanswered::Closed)), None) if was_used => {}
                (answered, leave) => {
                    self.dialer.metrics.requests.count("unanswered");
                    return Err(match (answered, leave) {
                        // Lines without an answer are sent again at the better place.
                        (_, Some(leave)) => Ended::Left(leave),
                        (Some(Err(unanswered)), None) => Ended::Failed(unanswered.into()),
                        (_, None) => Ended::Failed(Failure::NoAnswer(self.settings.answer_timeout)),
                    });
                }
            }
        }
    }

    /// Waits for an answer; `None`: it has not come in time.
    async fn await_answer(
        &self,
        answer: impl Future<Output = Result<Answered, Unanswered>>,
        events: &mut Events,
    ) -> Result<(Option<Result<Answered, Unanswered>>, Option<Leave>), Ended> {
        let mut answer = pin!(answer);
        let (mut until, mut leave) = (Instant::now() + self.settings.answer_timeout, None);
        let mut stalls = interval(self.dialer.settings.dead_after / PART_OF_DEAD);
        stalls.reset();
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return Ok((Some(answered), leave)),
                found = &mut events.leave, if leave.is_none() => {
                    leave = Some(found);
                    until = until.min(Instant::now() + FINISH_WITHIN);
                }
                _ = stalls.tick() => events.stalled.notify_one(),
                () = sleep_until(until.into()) => return Ok((None, leave)),
                () = events.deadline.reached() => return Err(Ended::Stopped),
            }
        }
    }

    /// Waits before a request is sent again.
    pub(super) async fn wait(
        &mut self,
        after: Option<Duration>,
        why: &str,
        source: &Source,
        events: &mut Events,
    ) -> Result<(), Ended> {
        let wait = after.unwrap_or_default().max(self.waits.wait());
        let what_follows = format!("; {} lines pending, sending again", source.pending());
        self.dialer.say(&format!("{}: {why}", self.place()), &what_follows);
        tokio::select! {
            () = sleep(wait) => Ok(()),
            leave = &mut events.leave => Err(Ended::Left(leave)),
            () = events.deadline.reached() => Err(Ended::Stopped),
        }
    }
}
