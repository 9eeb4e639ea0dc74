//! Splunk's HTTP Event Collector (HEC): a request is answered when its events are in the spool, and with 503 if the spool takes
//! nothing.

use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use tokio::task::yield_now;

use super::super::stream::Memory;
use super::intake::{Intake, NotTaken, Why};
use crate::config;
use crate::protocol::splunk::{Answer, Body, Head, Limits, MAX_ACK_BODY, Post, Refused, Request};
use crate::spool::Receipt;

const CHANNEL: HeaderName = HeaderName::from_static("x-splunk-request-channel");
/// The smallest limit of an event, in bytes: Docker's driver writes 16 KiB of text in up to 96 KiB, with labels beside it.
const MAX_EVENT: usize = 1 << 20;
/// The largest body after decompression, in multiples of `max-unfinished`.
const INFLATED: usize = 2;

/// Answers a request; `None`: the sender has disconnected.
pub async fn answer(intake: &mut Intake<'_>, memory: &Memory, head: &Parts, mut body: Incoming) -> Option<Answer> {
    let said = |name: &HeaderName| value(&head.headers, name);
    let asked = Request::read(
        &Head {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            authorization: said(&AUTHORIZATION),
            channel: said(&CHANNEL),
            encoding: said(&CONTENT_ENCODING),
        },
        &intake.rules.tokens,
    );
    let answered = match asked {
        Ok(Request::Options(methods)) => Ok(Answer::options(methods)),
        Ok(Request::Health) => Ok(Answer::health(intake.ingest.is_spool_full())),
        Ok(Request::Ack(channel)) => match intake.whole(&mut body, MAX_ACK_BODY).await {
            Ok(Some(question)) => memory.acks.lock().answer(channel, &question, Instant::now()).map_err(all_of),
            Ok(None) => Err(all_of(Refused::TooLarge)),
            Err(why) => Err(why.into()),
        },
        Ok(Request::Post(post)) => take(intake, memory, post, &mut body).await,
        Err(refused) => Err(all_of(refused)),
    };
    match answered {
        Ok(answer) => Some(answer),
        Err(Why::Refused((refused, event))) => {
            intake.refuse_request(refused.name(), refused.to_string());
            Some(refused.answer(event))
        }
        Err(Why::NotTaken(NotTaken::Busy)) => Some(Refused::Busy.answer(None)),
        Err(Why::NotTaken(NotTaken::Stopping)) => Some(Refused::Stopping.answer(None)),
        Err(Why::NotTaken(NotTaken::Lost)) => None,
    }
}

/// The error in a request, and how many events of the body come before it.
type Wrong = (Refused, Option<u64>);

/// An error that concerns the whole request.
fn all_of(refused: Refused) -> Why<Wrong> {
    Why::Refused((refused, None))
}

/// The limits of a body at a listener with these limits.
pub fn limits(limits: &config::Limits) -> Limits {
    Limits {
        max_event: MAX_EVENT.max(2 * limits.max_frame),
        max_message: limits.max_frame,
        max_body: limits.max_unfinished.saturating_mul(INFLATED),
    }
}

/// Takes the events or lines of a body.
async fn take(intake: &mut Intake<'_>, memory: &Memory, post: Post, body: &mut Incoming) -> Result<Answer, Why<Wrong>> {
    let limits = limits(&intake.rules.limits);
    let (channel, senders) = (post.channel, intake.rules.senders);
    let mut read = Body::new(post, limits, senders);
    let mut receipts = Vec::new();
    let fed = feed(intake, &mut read, body, &mut receipts).await;
    // Events before a bad event are spooled.
    if let Err(Why::NotTaken(why)) = fed {
        return Err(why.into());
    }
    receipts.extend(intake.hand_over().await?);
    for receipt in &mut receipts {
        intake.spooled(receipt).await?;
    }
    fed?;
    let ack = channel.and_then(|channel| memory.acks.lock().stored(channel, Instant::now()));
    Ok(Answer::success(ack))
}

/// Reads a body to its end. The last batch is not handed over yet.
async fn feed(
    intake: &mut Intake<'_>,
    read: &mut Body,
    body: &mut Incoming,
    receipts: &mut Vec<Receipt>,
) -> Result<(), Why<Wrong>> {
    let refused = |refused, read: &Body| Why::Refused((refused, Some(read.found())));
    while let Some(piece) = intake.piece(body).await? {
        let _turn = intake.turn().await?;
        intake.begin(piece.len());
        read.feed(&piece, |message| intake.take(message)).map_err(|why| refused(why, read))?;
        intake.reserve(read.held())?;
        if intake.is_full() {
            receipts.extend(intake.hand_over().await?);
        }
    }
    // Decompressed data is large, so the turn is kept.
    let _turn = intake.turn().await?;
    intake.begin(0);
    while read.finish(|message| intake.take(message)).map_err(|why| refused(why, read))? {
        if intake.is_full() {
            receipts.extend(intake.hand_over().await?);
        }
        yield_now().await;
    }
    Ok(())
}

fn value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}
