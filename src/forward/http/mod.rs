//! HTTP: batches of lines as requests to a log store, one at a time. `protocol/api` writes the bodies of requests and interprets the
//! answers. This module has the connection, the waits and their ends.
//!
//! - here: the link, which gathers one batch after the other
//! - `deliver`: sends a batch, until all of its lines have a verdict
//! - `answers`: applies an answer to lines
//! - `exchange`: one request and its answer
//! - `polling`: asks for the acknowledgements of Splunk's indexers
//! - `questions`: requests that carry no lines
//! - `missing`: creates missing groups and streams of CloudWatch
//! - `object`: objects of S3 that exist already
//! - `acks`: batches that no indexer has acknowledged yet
//! - `batch`: the lines of a batch, and the verdict on each
//! - `request`: the bytes of a request
//! - `size_limit`: the largest request that the server takes
//! - `api`: makes an API from the config
//! - `signature`: the signature of a request to AWS
//! - `secrets`: hides our secrets in what is logged and shown
//! - `client`: one connection
//! - `credentials`: finds credentials for AWS
//! - `tunnel`: the way through a proxy

mod acks;
mod answers;
mod api;
mod batch;
mod client;
mod credentials;
mod deliver;
mod exchange;
mod missing;
mod object;
mod polling;
mod questions;
mod request;
mod secrets;
mod signature;
mod size_limit;
mod tunnel;

use std::future::pending;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use acks::Awaited;
pub use api::{EXAMPLE, example};
use batch::Batch;
use client::Client;
pub use client::Unanswered;
pub use credentials::NoCredentials;
use credentials::Provider;
use polling::Polls;
pub use questions::CLOCKS_DIFFER;
use request::Requests;
use size_limit::SizeLimit;
pub use tunnel::{NoTunnel, dig};

use super::backoff::Backoff;
use super::delivery::Refusals;
use super::dial::{ConnectError, Dialer};
use super::driver::Failure;
use super::link::{Ended, Events};
use super::names::Endpoint;
use super::source::Source;
use crate::config::{HttpSettings, Target};

/// The first and the longest wait after an answer that asks for another attempt. A server may ask for another wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A link to one server.
pub struct HttpLink {
    dialer: Dialer,
    target: Target,
    endpoint: Endpoint,
    settings: Arc<HttpSettings>,
    requests: Arc<Requests>,
    credentials: Provider,
    /// `None`: the connection has ended, and nothing has been sent since.
    client: Option<Client>,
    waits: Backoff,
    size_limit: SizeLimit,
    polls: Polls,
}

/// What is to be done next.
enum Next {
    /// Lines are sent. `Some`: how the link ends when they are delivered.
    Batch(Option<Ended>),
    /// It is time to ask for acknowledgements.
    Poll,
}

/// Lines that are not sent yet.
struct Gathered {
    batch: Batch,
    /// When they are sent, however few they are.
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
            polls: Polls::new(),
        };
        link.client = Some(link.connection().await?);
        Ok(link)
    }

    /// Takes the connection. Makes a new one if the server has closed it, as servers do with idle connections.
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

    /// Carries lines until the server fails, there is a better place or the relay stops.
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

    /// Gathers the lines of the next requests, until there are as many as `batch` or `batch-wait` has passed. `is_full`: gathers none now.
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
            if has_come(self.polls.at) {
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
            let wakes_at = [self.polls.at, due.filter(|_| !is_full)].into_iter().flatten().min();
            tokio::select! {
                more = source.wait(), if !is_full => if !more {
                    return Ok(Next::Batch(Some(Ended::Stopped)));
                },
                () = sleep_until(wakes_at.unwrap_or_else(Instant::now).into()), if wakes_at.is_some() => {}
                leave = &mut events.leave => {
                    // An object gathers lines for a long time, and each move would begin that time anew.
                    return if self.requests.api().objects().is_some() && batch.end().is_some() {
                        events.leave = Box::pin(pending());
                        Ok(Next::Batch(Some(Ended::Left(leave))))
                    } else {
                        // The gathered lines are read again.
                        Err(Ended::Left(leave))
                    };
                }
                () = events.deadline.reached() => return Err(Ended::Stopped),
            }
        }
    }

    fn place(&self) -> String {
        format!("{} at {}", self.target, self.endpoint.peer)
    }
}
