//! Applies an answer to the lines of a request: they are delivered, sent again or given up; or the link carries no more.

use std::time::{Duration, Instant};

use super::HttpLink;
use super::batch::{Poison, Verdicts};
use super::request::{TooLarge, Unfit};
use crate::forward::delivery::{DeliveryError, Reason, Refusals};
use crate::forward::driver::Failure;
use crate::protocol::api::{Answer, Fate, Verdict};

/// Lines of a request that have to be sent again.
pub struct Again {
    pub after: Option<Duration>,
    pub why: String,
}

impl HttpLink {
    /// Interprets the answer to a request with this many lines. Counts the answer, and shows it in the status.
    pub(super) fn verdict(&self, answer: &Answer<'_>, lines: usize) -> Verdict {
        self.dialer.state.answered(&answer.words());
        let verdict = self.requests.api().verdict(answer, lines);
        self.dialer.metrics.requests.count(verdict.word());
        verdict
    }

    /// Applies an answer to the lines of a request. `size`: bytes of the lines. `Err`: the link carries no more.
    pub(super) fn take_note(
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
                // Another server may be able to take the lines.
                let is_alone = self.dialer.settings.to.len() == 1 || after.is_some();
                if is_alone { Ok(Some(Again { after, why })) } else { Err(busy(why)) }
            }
            // `deliver` handles the objects of S3 before.
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
}

/// Gives up lines of the next request that cannot be sent. `Err`: see [`gives_up`].
pub(super) fn give_up_unfit(unfit: Unfit, verdicts: &mut Verdicts, refusals: &mut Refusals) -> Result<(), Failure> {
    match unfit {
        Unfit::TooLarge(TooLarge { why, .. }) => {
            give_up_next(Poison { reason: Reason::TooLarge, why }, verdicts, refusals)
        }
        // The config makes these lines dead letters, which says nothing about the server.
        Unfit::TooOld(lines) => {
            for (place, why) in lines {
                verdicts.settle(place, Some(Poison { reason: Reason::TooOld, why }));
            }
            verdicts.keep_rest();
            Ok(())
        }
    }
}

/// Gives up the only line of the next request, which will never be taken. `Err`: see [`gives_up`].
fn give_up_next(poison: Poison, verdicts: &mut Verdicts, refusals: &mut Refusals) -> Result<(), Failure> {
    gives_up(refusals, &poison.why)?;
    if let Some(place) = verdicts.next().and_then(|places| places.first().copied()) {
        verdicts.settle(place, Some(poison));
    }
    verdicts.keep_rest();
    Ok(())
}

/// Gives up a line that will never be taken. `Err`: the server takes no line, so none is given up.
fn gives_up(refusals: &mut Refusals, why: &str) -> Result<(), Failure> {
    match refusals.gives_up(Instant::now()) {
        true => Ok(()),
        false => Err(DeliveryError::Stop(why.to_owned()).into()),
    }
}

/// Applies an answer that has a verdict for each line.
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
    // All refusals are counted first. If they show that the server takes nothing, no line is given up.
    for (_, poison) in &poison {
        gives_up(refusals, &poison.why)?;
    }
    poison.into_iter().chain(out_of_time).for_each(|(place, poison)| verdicts.settle(place, Some(poison)));
    verdicts.keep_rest();
    Ok(again)
}
