//! Sends a batch: request after request, until each of its lines has a verdict.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;

use super::HttpLink;
use super::acks::{Awaited, Outstanding};
use super::answers::{Again, give_up_unfit};
use super::batch::{Batch, Verdicts};
use super::request::{Made, TooLarge, Unfit};
use crate::forward::delivery::{Progress, Refusals};
use crate::forward::link::{Ended, Events};
use crate::forward::source::Source;
use crate::protocol::api::Verdict;
use crate::protocol::api::age::MARGIN;
use crate::record::UnixMicros;
use crate::tasks::spawn_blocking;

/// How long the lines of a batch keep their time of sending. A store that has taken some of them recognizes them by it.
const KEEP_TIME: Duration = Duration::from_secs(600);

impl HttpLink {
    /// Sends a batch, until each of its lines has a verdict. `Err`: lines without a verdict are sent again.
    pub(super) async fn deliver(
        &mut self,
        batch: Batch,
        awaited: &mut Awaited,
        source: &mut Source,
        refusals: &mut Refusals,
        events: &mut Events,
    ) -> Result<(), Ended> {
        let batch = Arc::new(batch);
        let mut clock = Clock::new();
        let mut verdicts = self.arrange(&batch, clock.now(), events).await?;
        let (mut was_missing, mut ids) = (false, BTreeSet::new());
        if awaited.is_empty() {
            settle(&mut verdicts, &batch, source, events).await?;
        }
        while let Some(places) = verdicts.next().map(<[usize]>::to_vec) {
            let (count, first, size) = (places.len(), places[0], batch.bytes_at(&places));
            let parts = self.size_limit.parts(size, Instant::now());
            if parts > 1 && verdicts.divide(parts) {
                continue;
            }
            let request = match self.make(&batch, places, clock.now(), events).await? {
                Ok(Made { request, restamped }) => {
                    verdicts.restamp(&restamped);
                    request
                }
                Err(Unfit::TooLarge(TooLarge { parts, .. })) if verdicts.divide(parts) => continue,
                Err(unfit) => {
                    give_up_unfit(unfit, &mut verdicts, refusals).map_err(Ended::Failed)?;
                    if awaited.is_empty() && ids.is_empty() {
                        settle(&mut verdicts, &batch, source, events).await?;
                    }
                    continue;
                }
            };
            let (answered, leave) = self.ask(request, events).await?;
            let answer = answered.answer();
            let verdict = self.verdict(&answer, count);
            if verdict == Verdict::There {
                return match leave {
                    Some(leave) => Err(Ended::Left(leave)),
                    None => self.pass_object(&batch, first, source, events).await,
                };
            }
            if let Verdict::Missing(why) = verdict {
                match leave {
                    Some(leave) => return Err(Ended::Left(leave)),
                    // A new stream takes a while to appear.
                    None if was_missing => self.wait(None, &why, source, events).await?,
                    None => self.create((&batch, first), &why, source, events).await?,
                }
                was_missing = !was_missing;
                continue;
            }
            was_missing = false;
            ids.extend(self.requests.ack_id(&answer));
            let again = self.take_note(&answer, (verdict, size), &mut verdicts, refusals);
            // Lines behind an unacknowledged one wait for it.
            if awaited.is_empty() && ids.is_empty() {
                settle(&mut verdicts, &batch, source, events).await?;
            }
            match (leave, again.map_err(Ended::Failed)?) {
                (Some(leave), _) => return Err(Ended::Left(leave)),
                (None, Some(Again { after, why })) => self.wait(after, &why, source, events).await?,
                (None, None) => self.waits.reset(),
            }
        }
        if let Some(news) = self.size_limit.news() {
            self.dialer.say(&format!("{}: {news}", self.place()), "");
        }
        if !awaited.is_empty() || !ids.is_empty() {
            awaited.push(Outstanding { batch, verdicts, ids, since: Instant::now() });
            self.polls.begin();
        }
        Ok(())
    }

    /// Divides a batch into requests.
    async fn arrange(&self, batch: &Arc<Batch>, now: UnixMicros, events: &mut Events) -> Result<Verdicts, Ended> {
        let api = self.requests.api();
        if api.arranged().is_none() && api.objects().is_none() {
            return Ok(Verdicts::new(batch));
        }
        let (requests, batch) = (self.requests.clone(), batch.clone());
        // This reads all lines, so it must not block the runtime.
        tokio::select! {
            verdicts = spawn_blocking(move || requests.arrange(&batch, now)) => {
                verdicts.map_err(|error| Ended::Failed(io::Error::other(error).into()))
            }
            () = events.deadline.reached() => Err(Ended::Stopped),
        }
    }

    /// Makes a request for some lines of a batch.
    async fn make(
        &mut self,
        batch: &Arc<Batch>,
        places: Vec<usize>,
        now: UnixMicros,
        events: &mut Events,
    ) -> Result<Result<Made, Unfit>, Ended> {
        let credentials = self.credentials(events).await?;
        let (requests, batch) = (self.requests.clone(), batch.clone());
        // Compressing a batch, and reading a file with a token, would block the runtime.
        let made = tokio::select! {
            made = spawn_blocking(move || requests.make(&batch, &places, now, credentials.as_deref())) => made,
            () = events.deadline.reached() => return Err(Ended::Stopped),
        };
        made.map_err(io::Error::other).and_then(|made| made).map_err(|error| Ended::Failed(error.into()))
    }
}

/// Tells the spool the known outcome of lines. Waits only while a dead letter cannot be written.
pub(super) async fn settle(
    verdicts: &mut Verdicts,
    batch: &Batch,
    source: &mut Source,
    events: &mut Events,
) -> Result<(), Ended> {
    let mut progress = Progress::default();
    let restamped = verdicts.tell(batch, &mut progress);
    source.note_restamped(restamped);
    tokio::select! {
        biased;
        () = source.settle(&mut progress) => Ok(()),
        () = events.deadline.reached() => Err(Ended::Stopped),
    }
}

/// The time of sending. It stays the same for [`KEEP_TIME`].
struct Clock {
    now: UnixMicros,
    since: Instant,
}

const _: () = assert!(KEEP_TIME.as_secs() < MARGIN.as_secs());

impl Clock {
    fn new() -> Self {
        Self { now: UnixMicros(Utc::now().timestamp_micros()), since: Instant::now() }
    }

    fn now(&mut self) -> UnixMicros {
        if self.since.elapsed() >= KEEP_TIME {
            *self = Self::new();
        }
        self.now
    }
}
