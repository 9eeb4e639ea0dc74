//! What a message is asked when it is whole: when its pieces and its lines are joined. Rules that ask for its content come first, then
//! secrets are hidden, then the load counts.
//!
//! A message that waits for its next part carries its [`Terms`] along, so that whoever ends the wait asks the same as its listener does.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::{AdmissionPolicy, Limit, MatchingRules};
use crate::record::UnixMicros;
use crate::shape::{Shaped, Tally};
use crate::spool::{Batch, Inlet, Refused};

/// What one listener asks of whole messages. Its connections share it.
pub struct Gate {
    policy: AdmissionPolicy,
    /// Lines in which something was hidden.
    masked: Counter,
}

/// What is left to ask of a message.
#[derive(Clone)]
pub struct Terms {
    pub gate: Arc<Gate>,
    /// Rules that match the message, but for its content.
    pub rules: MatchingRules,
    pub severity: u8,
    /// `None`: its sender may send all it likes.
    pub limit: Option<Limit>,
}

/// A message, and what is left to ask of it.
pub struct Pending {
    pub line: Vec<u8>,
    pub terms: Terms,
}

/// When messages are let in, and where refused ones are counted.
#[derive(Clone, Copy)]
pub struct Moment<'i> {
    /// The least severe that is let in.
    pub least: u8,
    pub now: UnixMicros,
    pub spool: &'i Inlet,
}

impl Gate {
    pub fn new(policy: AdmissionPolicy, masked: Counter) -> Self {
        Self { policy, masked }
    }

    /// Must each message come here, whatever the rules say of its header?
    pub fn asks_all(&self) -> bool {
        self.policy.masks.is_some()
    }

    /// The least severe that is let in when the spool is so full, in percent.
    pub fn least(&self, fullness: u8) -> u8 {
        self.policy.shedding.least(fullness)
    }

    fn hide(&self, line: Vec<u8>) -> Vec<u8> {
        let Some(masks) = &self.policy.masks else { return line };
        let (mut hidden, mut tally) = (Vec::new(), Tally::default());
        match masks.apply_to_all(&line, &mut hidden, &mut tally) {
            Shaped::Changed => {
                self.masked.inc_by(tally.masked);
                hidden
            }
            Shaped::AsItIs | Shaped::Filtered => line,
        }
    }
}

impl Pending {
    /// Lets the message, which is whole now, into the batch. False: it is refused, and counted.
    pub fn end(self, batch: &mut Batch, moment: Moment<'_>) -> bool {
        let ended = self.try_end(batch, moment);
        ended.inspect_err(|why| moment.spool.count_refused(*why)).is_ok()
    }

    fn try_end(self, batch: &mut Batch, Moment { least, now, .. }: Moment<'_>) -> Result<(), Refused> {
        let Self { line, terms: Terms { gate, rules, severity, limit } } = self;
        rules.check_content(&line, &gate.policy)?;
        let line = gate.hide(line);
        if limit.is_some_and(|limit| limit.is_exceeded(now)) {
            return Err(Refused::Rate);
        }
        if severity > least {
            return Err(Refused::Severity);
        }
        batch.push(|out| out.extend_from_slice(&line));
        Ok(())
    }
}

#[cfg(test)]
impl Terms {
    /// Nothing is left to ask.
    pub fn none() -> Self {
        let gate = Gate::new(AdmissionPolicy::default(), Counter::default());
        Self { gate: Arc::new(gate), rules: MatchingRules::default(), severity: 6, limit: None }
    }
}
