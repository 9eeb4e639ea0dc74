//! The passage of one message into the batch: the checks of admission, and the joining of pieces and lines.

use std::sync::Arc;

use super::admission::{
    Admission, AdmissionPolicy, Gate, Joined, Joins, MatchingRules, Moment, Pending, Reassembler, Sender, Terms, Text,
};
use crate::protocol::syslog::Message;
use crate::protocol::{gelf, splunk};
use crate::record::{Record, UnixMicros};
use crate::spool::{Batch, Inlet, Refused};

/// The passage of one message into the batch.
pub struct Passage<'i> {
    pub admission: &'i mut Admission,
    pub policy: &'i AdmissionPolicy,
    pub gate: &'i Arc<Gate>,
    /// Whether every message must pass the gate.
    pub gate_asks_all: bool,
    /// Joins pieces into lines; the listener's address; and the longest line in bytes.
    pub rejoin: Option<(&'i Reassembler, &'i str, usize)>,
    /// Joins lines into messages.
    pub joins: Option<Joins<'i>>,
    /// See [`Admission::check_load`].
    pub load: (u8, bool),
    pub spool: &'i Inlet,
    pub now: UnixMicros,
}

/// The facts about a message that the checks need.
pub struct Facts {
    pub sender: Sender,
    /// Facility and severity.
    pub priority: (u8, u8),
    pub text: Text,
}

impl Passage<'_> {
    /// Takes a message. False: see [`take`](Self::take).
    pub fn take_message(&mut self, sender: Sender, message: Message<'_>, batch: &mut Batch) -> Result<bool, Refused> {
        let Record { facility, severity, message: text, .. } = message.record;
        let text = text.unwrap_or_default();
        let text = match message.record.driver.as_deref() {
            Some(gelf::DRIVER | splunk::DRIVER) if self.rejoin.is_some() => Text::of_gelf(text),
            _ => Text::of_syslog(text.len()),
        };
        let facts = Facts { sender, priority: (facility, severity), text };
        self.take(facts, batch, |out| message.write(out))
    }

    /// Makes the checks, and adds the message to the batch. `write` writes its line. False: the message waits for its next part, or
    /// was refused and counted.
    #[inline]
    pub fn take(&mut self, facts: Facts, batch: &mut Batch, write: impl FnOnce(&mut Vec<u8>)) -> Result<bool, Refused> {
        let Facts { mut sender, priority, text } = facts;
        let Self { admission, policy, load, now, .. } = self;
        let rules = admission.check_rules(&mut sender, priority, policy)?;
        if self.rejoin.is_none() && self.joins.is_none() && rules.is_empty() && !self.gate_asks_all {
            admission.check_load(&sender, priority.1, policy, *load, *now)?;
            batch.push(write);
            return Ok(true);
        }
        self.assemble(Facts { sender, priority, text }, rules, batch, write)
    }

    /// The slow path of [`take`](Self::take), for messages that may be a piece of a line or a line of a message, or that must pass
    /// the gate.
    fn assemble(
        &mut self,
        facts: Facts,
        rules: MatchingRules,
        batch: &mut Batch,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<bool, Refused> {
        let Facts { sender, priority: (_, severity), text } = facts;
        let Self { admission, policy, load, spool, now, joins, gate, .. } = self;
        let is_container_s = !matches!(sender, Sender::Other { .. });
        // Lines are joined if they come over a connection. In datagrams, only lines of containers are known to belong together.
        let mut joins = joins.as_mut().filter(|joins| is_container_s || joins.from.1 > 0);
        let rejoins = self.rejoin.filter(|(reassembler, ..)| is_container_s && reassembler.concerns(text));
        if rejoins.is_none() && joins.is_none() && rules.is_empty() && !self.gate_asks_all {
            admission.check_load(&sender, severity, policy, *load, *now)?;
            batch.push(write);
            return Ok(true);
        }
        let mut line = Vec::new();
        write(&mut line);
        let (least, is_limited) = *load;
        let limit = admission.limit(&sender).filter(|_| is_limited).cloned();
        let message =
            Pending { line, terms: Terms { gate: gate.clone(), rules, severity, may_be_held: is_limited, limit } };
        let Joined { before, line } = match rejoins {
            Some((reassembler, address, max)) => reassembler.join(address, message, text, max, *now),
            None => Joined::alone(message),
        };
        let moment = Moment { least, now: *now, spool };
        let mut join = |message: Pending| {
            let Joined { before, line } = match &mut joins {
                Some(joins) => {
                    // The line of joined pieces may have a timestamp of another length than this piece's.
                    let text = Record::from_line(&message.line, "").message.map_or(0, <[u8]>::len);
                    joins.take(message, text, *now)
                }
                None => Joined::alone(message),
            };
            before.map(|before| before.end(batch, moment));
            line.is_some_and(|line| line.end(batch, moment))
        };
        before.map(&mut join);
        Ok(line.is_some_and(join))
    }
}
