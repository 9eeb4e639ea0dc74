//! Reads what JetStream streams have stored, for `logferry probe`. The session asks one question after another.
//! `protocol::nats::consumer` writes the questions and reads the answers.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::dial::{ConnectError, Dialer};
use super::names::Endpoint;
use super::nats::{Begun, begin};
use crate::config::{NatsTarget, Target};
use crate::http::Carrier;
use crate::protocol::nats::consumer::{self, Next, Question};
use crate::protocol::nats::{BadOp, Decoder, Message, Op, SubjectTemplate, append_opening, words};

/// Bytes read at once.
const READ: usize = 64 << 10;
/// The longest message in bytes, where the server does not give its limit: more than the default of 1 MiB.
const MAX_MESSAGE: usize = 8 << 20;
/// How long a server waits for the next message before it answers that there is none.
const EXPIRES: Duration = Duration::from_millis(250);

/// Why nothing is read.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    #[error("{0}")]
    NoNats(#[from] BadOp),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server hung up")]
    Closed,
    #[error("the server says: {0}")]
    Said(String),
    #[error("this user may not ask JetStream ({0}); allow it to publish to $JS.API.> and to subscribe to _INBOX.>")]
    Forbidden(String),
    #[error("{0}: {1}")]
    Refused(String, String),
    #[error("no JetStream stream takes the subjects {0}; make one, or correct `subject`")]
    NoStream(String),
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// Where a stream is read next. It outlives the session.
pub struct Place {
    stream: String,
    /// The number of the next message.
    next: u64,
}

/// A session with a server.
pub struct Reader {
    stream: Box<dyn Carrier>,
    decoder: Decoder,
    inbox: String,
    /// The consumers of the places, in the order of the places.
    consumers: Vec<String>,
    patience: Duration,
    buffer: Vec<u8>,
}

impl Reader {
    /// Connects to an endpoint, and finds the streams for the target's lines. Reads each from its place in `places`, or else from now on.
    pub async fn connect(
        dialer: &Dialer,
        (target, settings): (&Target, &NatsTarget),
        endpoint: &Endpoint,
        places: &mut Vec<Place>,
    ) -> Result<Self, ConnectError> {
        let Begun { stream, info, login, inbox } = begin(dialer, target, settings, endpoint).await?;
        let decoder = Decoder::with_limit(info.max_payload.unwrap_or(MAX_MESSAGE));
        let (stream, patience, buffer) = (stream.boxed(), dialer.settings.dead_after, vec![0; READ]);
        let mut reader = Self { stream, decoder, inbox, consumers: Vec::new(), patience, buffer };
        let mut opening = Vec::new();
        append_opening(&login, target.address.is_tls(), &reader.inbox, &mut opening);
        reader.stream.write_all(&opening).await?;
        let subjects = SubjectTemplate::new(&settings.subject).pattern();
        if places.is_empty() {
            let streams = reader.asks(&Question::streams(&subjects), consumer::streams).await?;
            if streams.is_empty() {
                return Err(NotRead::NoStream(subjects).into());
            }
            let mut found = Vec::new();
            for stream in streams {
                let next = reader.consumer(&stream, None).await?;
                found.push(Place { stream, next });
            }
            *places = found;
        } else {
            for place in places {
                reader.consumer(&place.stream, Some(place.next)).await?;
            }
        }
        Ok(reader)
    }

    /// Creates a consumer. Returns the number of its first message.
    async fn consumer(&mut self, stream: &str, from: Option<u64>) -> Result<u64, NotRead> {
        let (name, next) = self.asks(&Question::consumer(stream, from), consumer::consumer).await?;
        self.consumers.push(name);
        Ok(next)
    }

    /// Hands on the messages that are stored by now, and waits a moment for more.
    pub async fn look(&mut self, places: &mut [Place], on_line: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), NotRead> {
        for (place, consumer) in places.iter_mut().zip(self.consumers.clone()) {
            let (question, mut count) = (Question::next(&place.stream, &consumer, EXPIRES), 0);
            let mut refused = None;
            self.ask(&question, &mut |message| {
                let next = Next::read(message);
                match &next {
                    Next::Message(number) => {
                        place.next = number + 1;
                        count += 1;
                        on_line(message.payload);
                    }
                    Next::NoMore => {}
                    Next::Refused(why) => refused = Some(why.clone()),
                }
                next.is_last(count)
            })
            .await?;
            if let Some(why) = refused {
                return Err(NotRead::Refused(question.subject().to_owned(), why));
            }
        }
        Ok(())
    }

    /// Asks a question that has one answer.
    async fn asks<T: Send>(
        &mut self,
        question: &Question,
        read: fn(&Message<'_>) -> Result<T, String>,
    ) -> Result<T, NotRead> {
        let mut answer = None;
        self.ask(question, &mut |message| {
            answer = Some(read(message));
            true
        })
        .await?;
        let answer = answer.unwrap_or_else(|| Err("there is no answer".to_owned()));
        answer.map_err(|why| NotRead::Refused(question.subject().to_owned(), why))
    }

    /// Asks, and hands on each message until `is_last` returns true.
    async fn ask(
        &mut self,
        question: &Question,
        is_last: &mut (dyn FnMut(&Message<'_>) -> bool + Send),
    ) -> Result<(), NotRead> {
        let mut asked = Vec::new();
        question.append(&format!("{}.0", self.inbox), &mut asked);
        self.stream.write_all(&asked).await?;
        let (mut is_over, mut pongs) = (false, Vec::new());
        while !is_over {
            let reading = timeout(self.patience, self.stream.read(&mut self.buffer)).await;
            let length = reading.map_err(|_| NotRead::Silent(self.patience))??;
            if length == 0 {
                return Err(NotRead::Closed);
            }
            self.decoder.feed(&self.buffer[..length], |op| {
                match op {
                    Op::Message(message) => is_over |= is_last(&message),
                    Op::Ping => pongs.extend_from_slice(b"PONG\r\n"),
                    Op::Err(said) => return Err(NotRead::of(said)),
                    Op::Info(_) | Op::Pong | Op::Ok => {}
                }
                Ok(())
            })?;
            self.stream.write_all(&pongs).await?;
            pongs.clear();
        }
        Ok(())
    }
}

impl NotRead {
    fn of(said: &[u8]) -> Self {
        let said = words(said);
        if said.starts_with("Permissions Violation") { Self::Forbidden(said) } else { Self::Said(said) }
    }
}
