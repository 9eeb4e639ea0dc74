//! Creates missing groups and streams of CloudWatch.

use super::HttpLink;
use super::batch::Batch;
use crate::forward::delivery::DeliveryError;
use crate::forward::link::{Ended, Events};
use crate::forward::source::Source;
use crate::protocol::api::Verdict;
use crate::protocol::api::cloudwatch::Creation;

impl HttpLink {
    /// Creates the stream for a line, and its group if that is missing too. `why`: what is missing, in the server's words.
    pub(super) async fn create(
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
                // The group is missing too, and comes next.
                (None, Verdict::Missing(_)) => {}
                (None, _) if what == Creation::Stream => return Ok(()),
                (None, _) => {}
            }
        }
        self.wait(None, why, source, events).await
    }
}
