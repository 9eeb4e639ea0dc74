//! Receives systemd's journal from `systemd-journal-upload`. A request is answered when all its entries are in the spool.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::http::request::Parts;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::intake::{Intake, NotTaken, Why};
use crate::protocol::journal::{
    CONTENT_TYPE as JOURNAL, Cursor, Cursors, Entry, ExportReader, PATH, Refused, Taken, Upload,
};
use crate::spool::Receipt;
use crate::tasks::spawn;

/// Batches of a request that may wait for the spool before reading pauses.
const MAX_UNANSWERED: usize = 16;
/// How long the relay waits for batches of a broken request that are on the way to the spool, so that their entries are recognized
/// when they come again.
const LINGER: Duration = Duration::from_secs(5);

/// The answer to a request: a status, and a text with the reason.
pub struct Answer {
    pub status: u16,
    pub text: String,
}

/// The entries received over a connection, and the last answer that the sender may not have got.
pub struct Uploads {
    cursors: Arc<Mutex<Cursors>>,
    /// The last request, which was answered with success.
    answered: Option<Upload>,
}

impl Uploads {
    pub fn new(cursors: Arc<Mutex<Cursors>>) -> Self {
        Self { cursors, answered: None }
    }

    /// Notes that the sender has got the last answer: it sends another request, or ends the connection in good order.
    pub fn confirm(&mut self) {
        if let Some(upload) = self.answered.take() {
            self.cursors.lock().confirmed(&upload);
        }
    }
}

/// Answers a request; `None`: the sender has disconnected.
pub async fn answer(
    intake: &mut Intake<'_>,
    uploads: &mut Uploads,
    head: &Parts,
    mut body: Incoming,
) -> Option<Answer> {
    uploads.confirm();
    if let Some((status, name, why)) = refused(head) {
        intake.refuse_request(name, why.to_owned());
        return Some(Answer { status, text: format!("{why}\n") });
    }
    let sender = intake.peer().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut upload = uploads.cursors.lock().begin(sender);
    let (status, text) = match take(intake, &uploads.cursors, &mut upload, &mut body).await {
        Ok(()) => {
            uploads.cursors.lock().answered(&upload);
            uploads.answered = Some(upload);
            // The answer of systemd-journal-remote.
            (202, "OK.\n".to_owned())
        }
        Err(Why::Refused(refused)) => {
            intake.refuse_request(refused.name(), refused.to_string());
            (400, format!("{refused}\n"))
        }
        Err(Why::NotTaken(NotTaken::Busy)) => (503, "the spool takes nothing\n".to_owned()),
        Err(Why::NotTaken(NotTaken::Stopping)) => (503, "the relay stops\n".to_owned()),
        Err(Why::NotTaken(NotTaken::Lost)) => return None,
    };
    Some(Answer { status, text })
}

/// Why a head is refused: the status, the name for counters, and the text.
fn refused(head: &Parts) -> Option<(u16, &'static str, &'static str)> {
    if head.uri.path() != PATH {
        return Some((404, "path", "entries of a journal are posted to /upload, and nothing else is here"));
    }
    if head.method != Method::POST {
        return Some((405, "method", "/upload has POST alone"));
    }
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Some((415, "encoding", "it is compressed; take ForceCompression= out of journal-upload.conf"));
    }
    let kind = head.headers.get(CONTENT_TYPE)?;
    (kind != JOURNAL).then_some((415, "content-type", "its Content-Type is not that of a journal"))
}

/// Takes the entries of a request.
async fn take(
    intake: &mut Intake<'_>,
    cursors: &Arc<Mutex<Cursors>>,
    upload: &mut Upload,
    body: &mut Incoming,
) -> Result<(), Why<Refused>> {
    let mut reader = ExportReader::new(intake.rules.limits.max_frame);
    let mut outstanding = Outstanding { cursors: cursors.clone(), batches: VecDeque::new() };
    while let Some(piece) = intake.piece(body).await? {
        let _turn = intake.turn().await?;
        intake.begin(piece.len());
        reader.feed(&piece, &mut |entry| take_entry(intake, cursors, upload, entry)).map_err(Why::Refused)?;
        intake.reserve(reader.memory() + upload.memory())?;
        if intake.is_full() {
            outstanding.hand_over(intake, upload).await?;
        }
    }
    reader.finish().map_err(Why::Refused)?;
    outstanding.hand_over(intake, upload).await?;
    while !outstanding.batches.is_empty() {
        outstanding.settle_first(intake).await?;
    }
    Ok(())
}

fn take_entry(intake: &mut Intake<'_>, cursors: &Mutex<Cursors>, upload: &mut Upload, entry: Entry<'_>) {
    let cursor = entry.get("__CURSOR").and_then(Cursor::read);
    match cursors.lock().take(upload, cursor) {
        true => intake.take(&entry),
        false => {
            intake.metrics.repeated.inc();
        }
    }
}

/// Batches of a request that are on the way to the spool. Their entries are recorded when they arrive there, even if the request
/// breaks off.
struct Outstanding {
    cursors: Arc<Mutex<Cursors>>,
    batches: VecDeque<(Receipt, Taken)>,
}

impl Outstanding {
    async fn hand_over(&mut self, intake: &mut Intake<'_>, upload: &mut Upload) -> Result<(), NotTaken> {
        if let Some(receipt) = intake.hand_over().await? {
            self.batches.push_back((receipt, upload.batch()));
        }
        while self.batches.len() > MAX_UNANSWERED {
            self.settle_first(intake).await?;
        }
        Ok(())
    }

    /// Waits until the spool has the first batch.
    async fn settle_first(&mut self, intake: &Intake<'_>) -> Result<(), NotTaken> {
        let Some((receipt, _)) = self.batches.front_mut() else { return Ok(()) };
        intake.spooled(receipt).await?;
        if let Some((_, taken)) = self.batches.pop_front() {
            self.cursors.lock().spooled(&taken);
        }
        Ok(())
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        if self.batches.is_empty() {
            return;
        }
        let (cursors, batches) = (self.cursors.clone(), std::mem::take(&mut self.batches));
        let spooled = async move {
            for (receipt, taken) in batches {
                if receipt.await.is_err() {
                    return;
                }
                cursors.lock().spooled(&taken);
            }
        };
        spawn(async move { drop(timeout(LINGER, spooled).await) });
    }
}
