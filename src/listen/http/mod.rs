//! `splunk+http://`, `splunk+https://`, `journal+http://` and `journal+https://`: HTTP/1.1 requests, each of which is answered when
//! its messages are in the spool. hyper reads and writes HTTP; `protocol` parses the requests.
//!
//! - here     serves a connection
//! - `wire`   the connection, shared between hyper and this module
//! - `intake` takes the messages of requests into batches
//! - `splunk`, `journal` the requests of each protocol, and their answers

mod intake;
mod journal;
mod splunk;
mod wire;

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Request, Response, StatusCode};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::ingest::Ingest;
use super::refusal::RefusalReason;
use super::stream::Memory;
use super::stream::accepted::AcceptedSocket;
use super::stream::budget::Reservation;
use super::stream::opening::open;
use super::{DRAIN_PATIENCE, Rules, stopping};
use crate::http::{Answering, Content, Unanswered};
use crate::metrics::ListenMetrics;
use crate::protocol::session::{Protocol, Violation};
use intake::Intake;
use journal::Uploads;
pub use splunk::limits as hec_limits;
use wire::Wire;

/// The longest head of a request, and the most that is read of a body at a time, in bytes. This is hyper's minimum, because each
/// connection has such a buffer.
const MAX_BUFFER: usize = 8 * 1024;

/// Serves a connection until it ends.
pub async fn serve(
    socket: AcceptedSocket,
    (rules, metrics): (&Rules, &ListenMetrics),
    memory: &Memory,
    reservation: Reservation,
    mut ingest: Box<Ingest>,
    mut shutdown: watch::Receiver<bool>,
) {
    ingest.make_senders_wait();
    ingest.of_forwarders();
    socket.answer_at_once();
    let Some(connection) = open(socket, rules, &ingest, &mut shutdown).await else { return };
    let wire = Wire::new(connection, rules.limits.handshake_timeout);
    let max_wait = match rules.protocol {
        // The uploader can wait without limit. Any answer except success would end it.
        Protocol::Journal => None,
        _ => ingest.max_wait(),
    };
    let peer = ingest.peer();
    let intake = Intake::new((rules, metrics), ingest, max_wait, (wire.clone(), reservation), shutdown.clone());
    let uploads = Uploads::new(memory.cursors.clone());
    // Never contended: requests of a connection come one after the other.
    let exchange = Mutex::new(Exchange { intake, uploads, memory, wire: wire.clone() });
    let answering: Answering<'_> = Box::new(|request| {
        Box::pin(async {
            let answered = exchange.lock().await.answer(request).await;
            answered.ok_or(Unanswered)
        })
    });
    let served = {
        let mut how = http1::Builder::new();
        let carrier = Box::new(wire.clone());
        let connection = crate::http::serve(how.max_buf_size(MAX_BUFFER), carrier, answering);
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            served = connection.as_mut() => served,
            () = stopping(&mut shutdown) => {
                // Requests whose messages the spool takes now are answered.
                connection.as_mut().graceful_shutdown();
                timeout(DRAIN_PATIENCE, connection).await.unwrap_or(Ok(()))
            }
        }
    };
    // hyper reports some of these failures as an end in good order.
    if wire.was_late() {
        return rules.refusals.refuse(peer, &RefusalReason::HandshakeTimeout);
    }
    if let Some(foreign) = wire.foreign() {
        return rules.refusals.refuse(peer, &RefusalReason::Foreign(foreign, rules.protocol));
    }
    match served {
        Ok(()) => {
            if !wire.is_broken() {
                exchange.into_inner().uploads.confirm();
            }
            // Waits for the sender's end. Closing while its bytes are unread would reset the connection, and an answer that it has
            // not read yet would be lost.
            let _ = timeout(DRAIN_PATIENCE, poll_fn(|cx| wire.poll_end(cx))).await;
        }
        Err(error) if error.is_parse() => {
            let violation =
                Violation { name: "http-request", why: format!("its request cannot be read: {error}").into() };
            rules.refusals.refuse(peer, &RefusalReason::NotSpoken(rules.protocol, violation));
        }
        // The peer has hung up.
        Err(_) => {}
    }
}

/// The state that the requests of a connection share.
struct Exchange<'a> {
    intake: Intake<'a>,
    uploads: Uploads,
    memory: &'a Memory,
    wire: Wire,
}

impl Exchange<'_> {
    async fn answer(&mut self, request: Request<Incoming>) -> Option<Response<Content>> {
        self.wire.head_ends();
        self.intake.reset();
        let (head, body) = request.into_parts();
        let response = match self.intake.rules.protocol {
            Protocol::Journal => {
                let journal::Answer { status, text } =
                    journal::answer(&mut self.intake, &mut self.uploads, &head, body).await?;
                response(status, "text/plain; charset=utf-8", text.into())
            }
            _ => {
                let answer = splunk::answer(&mut self.intake, self.memory, &head, body).await?;
                let mut response = response(answer.status, "application/json; charset=UTF-8", answer.body);
                if let Some((name, value)) = answer.header {
                    response.headers_mut().insert(name, HeaderValue::from_static(value));
                }
                response
            }
        };
        self.intake.reset();
        self.wire.request_ends();
        Some(response)
    }
}

fn response(status: u16, kind: &'static str, text: Cow<'static, str>) -> Response<Content> {
    let bytes = match text {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    let mut response = Response::new(Content::whole(bytes));
    *response.status_mut() = StatusCode::from_u16(status).expect("our own are statuses");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
