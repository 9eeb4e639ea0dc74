//! Asks Splunk which requests its indexers have acknowledged, now and then, as long as some are awaited.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::HttpLink;
use super::acks::{Awaited, Outstanding};
use super::deliver::settle;
use crate::forward::backoff::Backoff;
use crate::forward::delivery::DeliveryError;
use crate::forward::driver::Failure;
use crate::forward::link::{Ended, Events};
use crate::forward::source::Source;
use crate::protocol::api::{Verdict, splunk};
use crate::tasks::spawn_blocking;

/// The first and the longest wait before the next question about acknowledgements.
const FIRST_POLL: Duration = Duration::from_millis(250);
const LONGEST_POLL: Duration = Duration::from_secs(5);

/// When the next question is due.
pub struct Polls {
    /// `None`: nothing is awaited.
    pub at: Option<Instant>,
    waits: Backoff,
}

impl Polls {
    pub fn new() -> Self {
        Self { at: None, waits: Backoff::new(FIRST_POLL, LONGEST_POLL) }
    }

    /// Plans the first question, if nothing was awaited before.
    pub fn begin(&mut self) {
        self.at.get_or_insert(Instant::now() + self.waits.wait());
    }
}

impl HttpLink {
    /// Asks about acknowledgements until nothing is awaited.
    pub(super) async fn poll_to_the_end(
        &mut self,
        awaited: &mut Awaited,
        source: &mut Source,
        events: &mut Events,
    ) -> Ended {
        while let Some(at) = self.polls.at {
            tokio::select! {
                () = sleep_until(at.into()) => {}
                leave = &mut events.leave => return Ended::Left(leave),
                () = events.deadline.reached() => return Ended::Stopped,
            }
            if let Err(ended) = self.poll(awaited, source, events).await {
                return ended;
            }
        }
        Ended::Stopped
    }

    /// Asks which requests are acknowledged. `Err`: lines without an acknowledgement are sent again.
    pub(super) async fn poll(
        &mut self,
        awaited: &mut Awaited,
        source: &mut Source,
        events: &mut Events,
    ) -> Result<(), Ended> {
        let (requests, ids) = (self.requests.clone(), awaited.ids());
        // The token may be in a file.
        let made = spawn_blocking(move || requests.make_question(&ids)).await;
        let question = made.map_err(io::Error::other).and_then(|made| made);
        let question = question.map_err(|error| Ended::Failed(error.into()))?;
        let (answered, leave) = self.ask(question, events).await?;
        match splunk::acknowledged(&answered.answer()) {
            Ok(ids) if awaited.acknowledged(&ids) => self.polls.waits.reset(),
            Ok(_) => {}
            Err(Verdict::Stop(why)) => return Err(Ended::Failed(DeliveryError::Stop(why).into())),
            // The next question may be answered.
            Err(_) => {}
        }
        while let Some(Outstanding { batch, mut verdicts, .. }) = awaited.pop() {
            settle(&mut verdicts, &batch, source, events).await?;
        }
        let patience = self.settings.answer_timeout;
        if awaited.is_overdue(Instant::now(), patience) {
            let why = format!("no indexer has acknowledged a request within {patience:?}");
            return Err(Ended::Failed(Failure::Busy(why)));
        }
        self.polls.at = if awaited.is_empty() { None } else { Some(Instant::now() + self.polls.waits.wait()) };
        match leave {
            Some(leave) => Err(Ended::Left(leave)),
            None => Ok(()),
        }
    }
}
