//! An object in S3 that exists already: it was put before, and the answer was lost.

use std::sync::Arc;
use std::time::Duration;

use super::HttpLink;
use super::batch::Batch;
use crate::forward::delivery::{DeliveryError, Progress};
use crate::forward::link::{Ended, Events};
use crate::forward::source::Source;
use crate::protocol::api::s3::{LAST, has};
use crate::protocol::api::{LineId, Verdict};
use crate::spool::Position;

impl HttpLink {
    /// The object that begins with a line exists. The cursor passes the object's lines, and the lines behind them are read anew.
    pub(super) async fn pass_object(
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
            // The object was deleted in between, so the next attempt puts it.
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
        // The object may end behind the gathered lines. The cursor must not stop inside it: the next start would begin an object there.
        while !is_passed {
            if let Some(chunk) = source.next_of(self.requests.batch().0).await {
                let mut more = Batch::new();
                more.push(chunk);
                is_passed = pass(more.lines(), last, &mut progress);
                continue;
            }
            tokio::select! {
                // The next start finds the object again.
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

    /// Waits. Then all lines without a verdict are read and sent again.
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
}

/// Notes how far lines are in an object that ends with `last`. True: its end is found.
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
