//! Reads delivered lines back for `logferry probe`: from Elasticsearch, Loki and JetStream. Address, TLS, token, index and subject are
//! the forward's own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::dial::{ConnectError, DialError, Dialer};
use super::http::{CLOCKS_DIFFER, HttpLink};
use super::jetstream::{Place, Reader};
use super::names::{Endpoint, Patience, Resolver};
use crate::config::{self, Api, DeliverySettings, Target};
use crate::record::UnixMicros;
use crate::tls::Connector;

/// The time between two questions to a log store.
const HTTP_PAUSE: Duration = Duration::from_millis(500);

pub struct ReadBack {
    dialer: Dialer,
    /// A word that all wanted lines contain.
    mark: String,
    /// The oldest time of a wanted line.
    since: UnixMicros,
    /// `None`: not connected yet, or the connection failed and is made anew.
    way: Option<Way>,
    /// Lines of a log store that were handed on already.
    seen: HashSet<u64>,
    /// How far streams are read.
    places: Vec<Place>,
}

enum Way {
    Http(Box<HttpLink>),
    JetStream(Box<Reader>),
}

impl ReadBack {
    /// Looks for lines with a mark from `now` on. `None`: the forward has a target from which nothing can be read back.
    pub fn new(
        settings: Arc<config::Forward>,
        resolver: Resolver,
        connector: Option<Connector>,
        (mark, now): (&str, UnixMicros),
    ) -> Option<Self> {
        let can_be_read = settings.to.iter().all(|target| match &target.delivery {
            DeliverySettings::Http(http) => matches!(http.api, Api::Elasticsearch | Api::Loki),
            DeliverySettings::Nats(_) => true,
            _ => false,
        });
        let (mark, since) = (mark.to_owned(), UnixMicros(now.0 - CLOCKS_DIFFER));
        let (seen, places) = (HashSet::new(), Vec::new());
        can_be_read.then(|| Self {
            dialer: Dialer::aside(settings, resolver, connector, "probe"),
            mark,
            since,
            way: None,
            seen,
            places,
        })
    }

    /// How long to wait before the next look.
    pub fn pause(&self) -> Duration {
        match self.way {
            // The reader waits itself.
            Some(Way::JetStream(_)) => Duration::ZERO,
            Some(Way::Http(_)) | None => HTTP_PAUSE,
        }
    }

    /// Hands on each line that is there and was not there before, and perhaps others. `Err`: the look failed; a later one may succeed.
    pub async fn look(&mut self, on_line: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), String> {
        let mut way = match self.way.take() {
            Some(way) => way,
            None => self.connect().await.map_err(|error| error.to_string())?,
        };
        match &mut way {
            Way::Http(http) => http.search((&self.mark, self.since), &mut self.seen, on_line).await?,
            Way::JetStream(reader) => {
                reader.look(&mut self.places, on_line).await.map_err(|error| error.to_string())?
            }
        }
        self.way = Some(way);
        Ok(())
    }

    /// Connects to the first endpoint that can be connected.
    async fn connect(&mut self) -> Result<Way, DialError> {
        let (settings, mut problems) = (self.dialer.settings.clone(), Vec::new());
        for target in &settings.to {
            let Some(to) = target.reached_at() else { continue };
            for endpoint in self.dialer.look_up(to, Patience::BothFamilies).await?.endpoints {
                match self.connect_to(target, &endpoint).await {
                    Ok(way) => return Ok(way),
                    Err(problem) => problems.push((endpoint.peer, problem)),
                }
            }
        }
        Err(DialError::Connect(problems))
    }

    async fn connect_to(&mut self, target: &Target, endpoint: &Endpoint) -> Result<Way, ConnectError> {
        match &target.delivery {
            DeliverySettings::Http(http) => {
                Ok(Way::Http(Box::new(HttpLink::connect(&self.dialer, (target, http), endpoint).await?)))
            }
            DeliverySettings::Nats(nats) => {
                let reader = Reader::connect(&self.dialer, (target, nats), endpoint, &mut self.places).await?;
                Ok(Way::JetStream(Box::new(reader)))
            }
            _ => Err(ConnectError::Local),
        }
    }
}
