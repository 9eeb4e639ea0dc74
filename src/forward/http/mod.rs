//! HTTP: batches of lines as requests to a log store, one at a time. What a request carries and what its answer means is `protocol/api`'s;
//! here are the connection, the waits and their ends.
//!
//! - here: the link; one batch after the other, and each until all of its lines have a verdict
//! - `acks`: batches that no indexer has acknowledged yet
//! - `batch`: the lines of a batch, and what has become of them
//! - `request`: the bytes of a request
//! - `size_limit`: how large a request may be for the server
//! - `client`: one connection
//! - `credentials`: what AWS knows us by
//! - `tunnel`: the way through a proxy

mod acks;
mod batch;
mod client;
mod credentials;
mod request;
mod size_limit;
mod tunnel;

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep, sleep_until};

use acks::{Awaited, Outstanding};
use batch::{Batch, Poison, Verdicts};
pub use client::Unanswered;
use client::{Answered, Client};
pub use credentials::NoCredentials;
use credentials::Provider;
pub use request::{EXAMPLE, example};
use request::{Made, Requests, TooLarge, Unfit};
use size_limit::SizeLimit;
pub use tunnel::{NoTunnel, dig};

use super::backoff::Backoff;
use super::delivery::{DeliveryError, Progress, Reason, Refusals};
use super::dial::{ConnectError, Dialer};
use super::driver::Failure;
use super::link::{Ended, Events};
use super::names::Endpoint;
use super::source::Source;
use super::stall::PART_OF_DEAD;
use super::target_watch::Leave;
use crate::config::{HttpSettings, Target};
use crate::protocol::api::age::MARGIN;
use crate::protocol::api::cloudwatch::Creation;
use crate::protocol::api::s3::{LAST, has};
use crate::protocol::api::{Answer, Fate, LineId, Verdict, splunk};
use crate::protocol::sigv4::Credentials;
use crate::record::UnixMicros;
use crate::spool::Position;

/// The first wait after an answer that says to come again, and the longest one. A server may say another.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long an answer is awaited when there is a better place to be.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Waits before it is asked what is acknowledged: the first and the longest.
const FIRST_POLL: Duration = Duration::from_millis(250);
const LONGEST_POLL: Duration = Duration::from_secs(5);

/// How long the time of sending of a batch's lines stays. A store that has taken some of them knows them again by it.
const KEEP_TIME: Duration = Duration::from_secs(600);

/// A way to one server, and what is on its way.
pub struct HttpLink {
    dialer: Dialer,
    target: Target,
    endpoint: Endpoint,
    settings: Arc<HttpSettings>,
    requests: Arc<Requests>,
    credentials: Provider,
    /// `None`: it has ended, and nothing has been sent since.
    client: Option<Client>,
    waits: Backoff,
    size_limit: SizeLimit,
    /// When it is asked next what is acknowledged; `None`: nothing is awaited.
    poll_at: Option<Instant>,
    polls: Backoff,
}

/// What is to be done next.
enum Next {
    /// Lines are sent. `Some`: how it ends when they are delivered.
    Batch(Option<Ended>),
    /// It is time to ask what is acknowledged.
    Poll,
}

/// Lines that are not sent yet.
struct Gathered {
    batch: Batch,
    /// When they are sent, however few there are.
    due: Option<Instant>,
}

impl HttpLink {
    /// Connects to one endpoint of a target.
    pub async fn connect(
        dialer: &Dialer,
        (target, settings): (&Target, &HttpSettings),
        endpoint: &Endpoint,
    ) -> Result<Self, ConnectError> {
        let settings = Arc::new(settings.clone());
        let requests = Requests::new(target, endpoint, settings.clone(), dialer);
        let credentials = Provider::new(settings.aws.clone());
        let mut link = Self {
            dialer: dialer.clone(),
            target: target.clone(),
            endpoint: endpoint.clone(),
            settings,
            requests: Arc::new(requests),
            credentials,
            client: None,
            waits: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            size_limit: SizeLimit::default(),
            poll_at: None,
            polls: Backoff::new(FIRST_POLL, LONGEST_POLL),
        };
        link.client = Some(link.connection().await?);
        Ok(link)
    }

    /// Takes the connection, made anew where the server has ended it: servers do so with those that are idle.
    async fn connection(&mut self) -> Result<Client, ConnectError> {
        match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => {
                let stream = self.dialer.connect_stream(&self.target, &self.endpoint).await?;
                Ok(Client::begin(stream.boxed()).await.map_err(Failure::from)?)
            }
        }
    }

    /// Waits until the server ends the connection.
    pub async fn ends(&mut self) {
        if let Some(client) = &mut self.client {
            client.ends().await;
        }
    }

    /// Asks whether lines would be taken, without leaving one. `None`: there is no such question. `Err`: why they would not.
    pub async fn would_take(&mut self) -> Option<Result<(), String>> {
        self.ask_of_none().await.transpose()
    }

    async fn ask_of_none(&mut self) -> Result<Option<()>, String> {
        let requests = self.requests.clone();
        let credentials = match requests.is_signed() {
            true => Some(self.credentials.get().await.map_err(|none| none.to_string())?),
            false => None,
        };
        // A token may be in a file.
        let made = spawn_blocking(move || requests.make_of_none(credentials.as_deref()).transpose()).await;
        let request = made.map_err(io::Error::other).and_then(|made| made).map_err(|error| error.to_string())?;
        let Some(request) = request else { return Ok(None) };
        let mut client = self.connection().await.map_err(|error| error.to_string())?;
        let answered = client.ask(request).await.map_err(|unanswered| unanswered.to_string())?;
        let answered = self.requests.without_secrets(answered);
        let answer = answered.answer();
        match self.requests.api().arranged().map(|cloud_watch| cloud_watch.verdict(&answer, 0)) {
            // It says with a 400 that somebody may not, too.
            Some(Verdict::Stop(why) | Verdict::Again { why, .. }) => Err(why),
            Some(_) => Ok(Some(())),
            None => answer.would_take().map(Some),
        }
    }

    /// Carries lines until the server fails, there is a better place to be or the relay stops.
    pub async fn carry(&mut self, source: &mut Source, events: &mut Events) -> Ended {
        let mut refusals = mem::take(&mut source.refusals);
        let ended = self.carry_on(source, &mut refusals, events).await;
        source.refusals = refusals;
        ended
    }

    async fn carry_on(&mut self, source: &mut Source, refusals: &mut Refusals, events: &mut Events) -> Ended {
        let (mut gathered, mut awaited) = (Gathered { batch: Batch::new(), due: None }, Awaited::default());
        loop {
            self.dialer.state.gathers(self.requests.api().objects().is_some());
            let next = self.gather(&mut gathered, awaited.is_full(), source, events).await;
            self.dialer.state.gathers(false);
            let (done, then) = match next {
                Ok(Next::Poll) => (self.poll(&mut awaited, source, events).await, None),
                Ok(Next::Batch(then)) => {
                    gathered.due = None;
                    let batch = mem::replace(&mut gathered.batch, Batch::new());
                    (self.deliver(batch, &mut awaited, source, refusals, events).await, then)
                }
                Err(ended) => return ended,
            };
            if let Err(ended) = done {
                return ended;
            }
            match then {
                None => {}
                Some(Ended::Stopped) => return self.poll_to_the_end(&mut awaited, source, events).await,
                Some(ended) => return ended,
            }
        }
    }

    /// Gathers the lines of the next requests: as many as `batch` has room for, or as have come within `batch-wait`. `is_full`: none now.
    async fn gather(
        &self,
        gathered: &mut Gathered,
        is_full: bool,
        source: &mut Source,
        events: &mut Events,
    ) -> Result<Next, Ended> {
        let (Gathered { batch, due }, (full, wait)) = (gathered, self.requests.batch());
        let full = self.size_limit.wanted(Instant::now()).map_or(full, |wanted| full.min(wanted));
        loop {
            let has_come = |at: Option<Instant>| at.is_some_and(|at| Instant::now() >= at);
            if has_come(self.poll_at) {
                return Ok(Next::Poll);
            }
            if !is_full {
                if has_come(*due) || batch.byte_len() >= full {
                    return Ok(Next::Batch(None));
                }
                if let Some(chunk) = source.next_of(full - batch.byte_len()).await {
                    batch.push(chunk);
                    due.get_or_insert(Instant::now() + wait);
                    continue;
                }
            }
            let wakes_at = [self.poll_at, due.filter(|_| !is_full)].into_iter().flatten().min();
            tokio::select! {
                more = source.wait(), if !is_full => if !more {
                    return Ok(Next::Batch(Some(Ended::Stopped)));
                },
                () = sleep_until(wakes_at.unwrap_or_else(Instant::now).into()), if wakes_at.is_some() => {}
                leave = &mut events.leave => {
                    // Lines that wait for long would wait anew each time.
                    return if self.requests.api().objects().is_some() && batch.end().is_some() {
                        events.leave = Box::pin(pending());
                        Ok(Next::Batch(Some(Ended::Left(leave))))
                    } else {
                        // What was gathered is read again.
                        Err(Ended::Left(leave))
                    };
                }
                () = events.deadline.reached() => return Err(Ended::Stopped),
            }
        }
    }

    /// Asks what is acknowledged until all is.
    async fn poll_to_the_end(&mut self, awaited: &mut Awaited, source: &mut Source, events: &mut Events) -> Ended {
        while let Some(at) = self.poll_at {
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

    /// Asks what is acknowledged of what was sent. `Err`: what is not is sent again.
    async fn poll(&mut self, awaited: &mut Awaited, source: &mut Source, events: &mut Events) -> Result<(), Ended> {
        let (requests, ids) = (self.requests.clone(), awaited.ids());
        // A token may be in a file.
        let made = spawn_blocking(move || requests.make_question(&ids)).await;
        let question = made.map_err(io::Error::other).and_then(|made| made);
        let question = question.map_err(|error| Ended::Failed(error.into()))?;
        let (answered, leave) = self.ask(question, events).await?;
        match splunk::acknowledged(&answered.answer()) {
            Ok(ids) if awaited.acknowledged(&ids) => self.polls.reset(),
            Ok(_) => {}
            Err(Verdict::Stop(why)) => return Err(Ended::Failed(DeliveryError::Stop(why).into())),
            // Another time.
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
        self.poll_at = if awaited.is_empty() { None } else { Some(Instant::now() + self.polls.wait()) };
        match leave {
            Some(leave) => Err(Ended::Left(leave)),
            None => Ok(()),
        }
    }

    /// Sends a batch, until each of its lines has a verdict. `Err`: those that have none are sent again.
    async fn deliver(
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
                    // It takes a while until what was made is there.
                    None if was_missing => self.wait(None, &why, source, events).await?,
                    None => self.create((&batch, first), &why, source, events).await?,
                }
                was_missing = !was_missing;
                continue;
            }
            was_missing = false;
            ids.extend(self.requests.ack_id(&answer));
            let again = self.take_note(&answer, (verdict, size), &mut verdicts, refusals);
            // What is behind a line that is not acknowledged waits for it.
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
            self.poll_at.get_or_insert(Instant::now() + self.polls.wait());
        }
        Ok(())
    }

    /// What the answer to a request of so many lines means. It is counted and shown.
    fn verdict(&self, answer: &Answer<'_>, lines: usize) -> Verdict {
        self.dialer.state.answered(&answer.words());
        let verdict = self.requests.api().verdict(answer, lines);
        self.dialer.metrics.requests.count(verdict.word());
        verdict
    }

    /// Notes what an answer means for the lines of a request. `size`: bytes of them. `Err`: the link carries no more.
    fn take_note(
        &mut self,
        answer: &Answer<'_>,
        (verdict, size): (Verdict, usize),
        verdicts: &mut Verdicts,
        refusals: &mut Refusals,
    ) -> Result<Option<Again>, Failure> {
        let (stop, busy) = (DeliveryError::Stop, Failure::Busy);
        match verdict {
            Verdict::Delivered => {
                refusals.delivered();
                verdicts.delivered();
                Ok(None)
            }
            Verdict::Short { rejected, why } => {
                refusals.delivered();
                verdicts.delivered();
                self.dialer.metrics.short.inc_by(rejected);
                let problem = format!("{}: {rejected} lines of a request are not there: {why}", self.place());
                self.dialer.say(&problem, "; the API forbids to send them again");
                Ok(None)
            }
            Verdict::Each(fates) => take_note_of_each(fates, verdicts, refusals),
            Verdict::Again { after, why } => {
                // Another server may be able to.
                let is_alone = self.dialer.settings.to.len() == 1 || after.is_some();
                if is_alone { Ok(Some(Again { after, why })) } else { Err(busy(why)) }
            }
            // An object's is taken before.
            Verdict::There => Err(busy(answer.words())),
            Verdict::Stop(why) | Verdict::Missing(why) => Err(stop(why).into()),
            Verdict::Refused(_) if verdicts.halve() => Ok(None),
            Verdict::RefusedAt { place, .. } if verdicts.isolate(place) => Ok(None),
            Verdict::Refused(why) | Verdict::RefusedAt { why, .. } => {
                give_up_next(Poison { reason: Reason::Refused, why }, verdicts, refusals)?;
                Ok(None)
            }
            Verdict::TooLarge(why) if verdicts.halve() => {
                self.size_limit.refused(size, &why, Instant::now());
                Ok(None)
            }
            Verdict::TooLarge(why) => {
                self.size_limit.forget();
                give_up_next(Poison { reason: Reason::TooLarge, why }, verdicts, refusals)?;
                Ok(None)
            }
        }
    }

    /// Makes the stream that a line goes to, and its group if that is not there either. `why`: what the server says is missing.
    async fn create(
        &mut self,
        (batch, place): (&Batch, usize),
        why: &str,
        source: &Source,
        events: &mut Events,
    ) -> Result<(), Ended> {
        for what in [Creation::Stream, Creation::Group, Creation::Stream] {
            let credentials = self.credentials(events).await?;
            let request = self.requests.creation(what, (batch, place), credentials.as_deref());
            let request = request.map_err(|error| Ended::Failed(error.into()))?;
            let (answered, leave) = self.ask(request, events).await?;
            let verdict = self.verdict(&answered.answer(), 0);
            match (leave, verdict) {
                (Some(leave), _) => return Err(Ended::Left(leave)),
                (None, Verdict::Again { after, why }) => return self.wait(after, &why, source, events).await,
                (None, Verdict::Stop(why) | Verdict::Refused(why) | Verdict::TooLarge(why)) => {
                    return Err(Ended::Failed(DeliveryError::Stop(why).into()));
                }
                // The group comes next.
                (None, Verdict::Missing(_)) => {}
                (None, _) if what == Creation::Stream => return Ok(()),
                (None, _) => {}
            }
        }
        self.wait(None, why, source, events).await
    }

    /// The object that begins with a line is there: the cursor passes the lines that it has, and those behind it are read anew.
    async fn pass_object(
        &mut self,
        batch: &Arc<Batch>,
        first: usize,
        source: &mut Source,
        events: &mut Events,
    ) -> Result<(), Ended> {
        let credentials = self.credentials(events).await?;
        let request = self.requests.look((batch, first), credentials.as_deref());
        let (answered, leave) = self.ask(request.map_err(|error| Ended::Failed(error.into()))?, events).await?;
        if let Some(leave) = leave {
            return Err(Ended::Left(leave));
        }
        let last = match (answered.status, answered.last) {
            (200..=299, Some(last)) => last,
            (200..=299, None) => {
                let why = format!("an object that begins with a line of ours is there, and has no metadata {LAST}");
                return Err(Ended::Failed(DeliveryError::Stop(why).into()));
            }
            // It was taken away in between: the next try puts it.
            (404, _) => {
                return self.again_from_start(None, "an object is there, and is not found", source, events).await;
            }
            // A HEAD is answered without a body (RFC 9110 9.3.2).
            (status, _) => match self.requests.api().verdict(&answered.answer(), 0) {
                Verdict::Again { after, why } => return self.again_from_start(after, &why, source, events).await,
                _ => return Err(Ended::Failed(DeliveryError::Stop(format!("HTTP {status} to a HEAD")).into())),
            },
        };
        let mut progress = Progress::default();
        let mut is_passed = pass(batch.lines().skip(first), last, &mut progress);
        // It may end behind what is gathered here. The cursor must not stand in it: the next start would begin an object there.
        while !is_passed {
            if let Some(chunk) = source.next_of(self.requests.batch().0).await {
                let mut more = Batch::new();
                more.push(chunk);
                is_passed = pass(more.lines(), last, &mut progress);
                continue;
            }
            tokio::select! {
                // The next start finds it again.
                more = source.wait() => if !more { return Err(Ended::Stopped) },
                leave = &mut events.leave => return Err(Ended::Left(leave)),
                () = events.deadline.reached() => return Err(Ended::Stopped),
            }
        }
        tokio::select! {
            biased;
            () = source.settle(&mut progress) => {}
            () = events.deadline.reached() => return Err(Ended::Stopped),
        }
        source.rewind();
        Ok(())
    }

    /// Waits, and has all lines without a verdict read and sent again.
    async fn again_from_start(
        &mut self,
        after: Option<Duration>,
        why: &str,
        source: &mut Source,
        events: &mut Events,
    ) -> Result<(), Ended> {
        self.wait(after, why, source, events).await?;
        source.rewind();
        Ok(())
    }

    /// What a request is signed with, where it is.
    async fn credentials(&mut self, events: &mut Events) -> Result<Option<Arc<Credentials>>, Ended> {
        if !self.requests.is_signed() {
            return Ok(None);
        }
        tokio::select! {
            found = self.credentials.get() => found.map(Some).map_err(|none| Ended::Failed(none.into())),
            () = events.deadline.reached() => Err(Ended::Stopped),
        }
    }

    /// The requests of a batch.
    async fn arrange(&self, batch: &Arc<Batch>, now: UnixMicros, events: &mut Events) -> Result<Verdicts, Ended> {
        let api = self.requests.api();
        if api.arranged().is_none() && api.objects().is_none() {
            return Ok(Verdicts::new(batch));
        }
        let (requests, batch) = (self.requests.clone(), batch.clone());
        // All lines are read for it.
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
        // Compressing a batch, and reading a file with a token, would hold everybody up.
        let made = tokio::select! {
            made = spawn_blocking(move || requests.make(&batch, &places, now, credentials.as_deref())) => made,
            () = events.deadline.reached() => return Err(Ended::Stopped),
        };
        made.map_err(io::Error::other).and_then(|made| made).map_err(|error| Ended::Failed(error.into()))
    }

    /// Sends a request. The answer has nothing of what the server knows us by. With it: where to go then, if there is a better place to be.
    async fn ask(
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
                // The server may have ended an idle connection in the same moment.
                (Some(Err(Unanswered::Closed)), None) if was_used => {}
                (answered, leave) => {
                    self.dialer.metrics.requests.count("unanswered");
                    return Err(match (answered, leave) {
                        // What has no answer is sent again there.
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
    async fn wait(
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

    fn place(&self) -> String {
        format!("{} at {}", self.target, self.endpoint.peer)
    }
}

/// Lines of the next request are not sent. `Err`: as of [`gives_up`].
fn give_up_unfit(unfit: Unfit, verdicts: &mut Verdicts, refusals: &mut Refusals) -> Result<(), Failure> {
    match unfit {
        Unfit::TooLarge(TooLarge { why, .. }) => {
            give_up_next(Poison { reason: Reason::TooLarge, why }, verdicts, refusals)
        }
        // The config wants it so: that says nothing of the server.
        Unfit::TooOld(lines) => {
            for (place, why) in lines {
                verdicts.settle(place, Some(Poison { reason: Reason::TooOld, why }));
            }
            verdicts.keep_rest();
            Ok(())
        }
    }
}

/// The only line of the next request will never be taken. `Err`: as of [`gives_up`].
fn give_up_next(poison: Poison, verdicts: &mut Verdicts, refusals: &mut Refusals) -> Result<(), Failure> {
    gives_up(refusals, &poison.why)?;
    if let Some(place) = verdicts.next().and_then(|places| places.first().copied()) {
        verdicts.settle(place, Some(poison));
    }
    verdicts.keep_rest();
    Ok(())
}

/// A line will never be taken. `Err`: no line is, so that none is given up.
fn gives_up(refusals: &mut Refusals, why: &str) -> Result<(), Failure> {
    match refusals.gives_up(Instant::now()) {
        true => Ok(()),
        false => Err(DeliveryError::Stop(why.to_owned()).into()),
    }
}

/// Notes how far lines are in an object that ends with `last`. `true`: its end is found.
fn pass<'l>(lines: impl Iterator<Item = (LineId, &'l [u8], Position)>, last: LineId, progress: &mut Progress) -> bool {
    for (id, _, behind) in lines {
        if !has(last, id) {
            return true;
        }
        progress.delivered = true;
        progress.safe = Some(behind);
        if id == last {
            return true;
        }
    }
    false
}

/// Tells the spool what is known of lines. Waits only where a dead letter cannot be written.
async fn settle(verdicts: &mut Verdicts, batch: &Batch, source: &mut Source, events: &mut Events) -> Result<(), Ended> {
    let mut progress = Progress::default();
    let restamped = verdicts.tell(batch, &mut progress);
    source.note_restamped(restamped);
    tokio::select! {
        biased;
        () = source.settle(&mut progress) => Ok(()),
        () = events.deadline.reached() => Err(Ended::Stopped),
    }
}

/// Notes what an answer means that is about each line.
fn take_note_of_each(
    fates: Vec<Fate>,
    verdicts: &mut Verdicts,
    refusals: &mut Refusals,
) -> Result<Option<Again>, Failure> {
    let places = verdicts.next().map(<[usize]>::to_vec).unwrap_or_default();
    let (mut again, mut poison, mut out_of_time) = (None, Vec::new(), Vec::new());
    for (place, fate) in places.into_iter().zip(fates) {
        match fate {
            Fate::Delivered => {
                refusals.delivered();
                verdicts.settle(place, None);
            }
            Fate::Again(why) => drop(again.get_or_insert(Again { after: None, why })),
            Fate::Poison(why) => poison.push((place, Poison { reason: Reason::Refused, why })),
            Fate::TooOld(why) => out_of_time.push((place, Poison { reason: Reason::TooOld, why })),
            Fate::TooNew(why) => out_of_time.push((place, Poison { reason: Reason::Refused, why })),
        }
    }
    // All of them are counted first: where the answer says that nothing is taken, none is given up.
    for (_, poison) in &poison {
        gives_up(refusals, &poison.why)?;
    }
    poison.into_iter().chain(out_of_time).for_each(|(place, poison)| verdicts.settle(place, Some(poison)));
    verdicts.keep_rest();
    Ok(again)
}

/// Lines of a request that are to be sent once more.
struct Again {
    after: Option<Duration>,
    why: String,
}

/// The time of sending. It stays for [`KEEP_TIME`].
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
