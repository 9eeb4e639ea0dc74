//! The checks on a whole message, after its pieces and lines are joined. In this order: `[[drop]]` rules about its content,
//! `[[sample]]`, repeats, masks, and the load.
//!
//! A message that waits for its next part carries its [`Terms`] along. So the task that ends the wait makes the same checks as the
//! message's listener.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::repeat::{Held, Repeat, Repeats};
use super::sample::Samples;
use super::{AdmissionPolicy, Limit, MatchingRules};
use crate::record::{LineOptions, Record, StructuredData, UnixMicros, Value};
use crate::shape::{Shaped, Tally};
use crate::spool::{Batch, Inlet, Refused};

/// The field with N, in a line that `[[sample]]` keeps as one of N.
const SAMPLE_RATE: &str = "sample_rate";
/// The field with the count, in a line that stands for equal ones.
const REPEATED: &str = "repeated";

/// The checks of one listener. Its connections share it.
pub struct Gate {
    pub policy: AdmissionPolicy,
    /// The listener's address.
    pub listener: Arc<str>,
    /// How long a run of equal messages of one sender lasts; `None`: equal messages are not combined.
    pub repeat: Option<Duration>,
    /// Lines in which a mask has hidden something.
    pub masked: Counter,
    pub quiet: Quiet,
}

/// The state of `[[sample]]` and `repeat`, shared by all listeners.
#[derive(Clone)]
pub struct Quiet {
    pub samples: Arc<Samples>,
    pub repeats: Arc<Repeats>,
}

/// The checks that are left for a message.
#[derive(Clone)]
pub struct Terms {
    pub gate: Arc<Gate>,
    /// Rules that match the message except for their conditions about its content, which are not checked yet.
    pub rules: MatchingRules,
    pub severity: u8,
    /// Whether the message may be held as one of a run. It may not if its sender waits for an answer.
    pub may_be_held: bool,
    /// `None`: the sender has no limit.
    pub limit: Option<Limit>,
}

/// A message, and the checks that are left.
pub struct Pending {
    pub line: Vec<u8>,
    pub terms: Terms,
}

/// The state of the relay when messages are let in: the load, the time, and the spool, which counts refused messages.
#[derive(Clone, Copy)]
pub struct Moment<'i> {
    /// The highest severity number that is let in.
    pub least: u8,
    pub now: UnixMicros,
    pub spool: &'i Inlet,
}

/// The parts of a line that is `<PRI>1 STAMP HOST APP PROCID MSGID …`.
struct Parts<'l> {
    pri: &'l [u8],
    host_and_app: &'l [u8],
    proc_id: &'l [u8],
    rest: &'l [u8],
}

impl<'l> Parts<'l> {
    fn of(line: &'l [u8]) -> Option<Self> {
        let mut blanks = memchr::memchr_iter(b' ', line);
        let (version, stamp) = (blanks.next()?, blanks.next()?);
        let (_, app, proc_id) = (blanks.next()?, blanks.next()?, blanks.next()?);
        Some(Self {
            pri: &line[..version],
            host_and_app: &line[stamp + 1..app],
            proc_id: &line[app + 1..proc_id],
            rest: &line[proc_id..],
        })
    }
}

impl Gate {
    /// Whether every message must pass the gate, even if no rule matches its header.
    pub fn asks_all(&self) -> bool {
        self.policy.masks.is_some() || self.repeat.is_some()
    }

    fn options(&self) -> LineOptions {
        // The line already has the sender's address, if it should have it.
        LineOptions { sd_id: self.policy.sd_id.clone(), peer: false }
    }

    /// The line with a number in a field. `None`: the line has no place for a field.
    fn with_number(&self, line: &[u8], name: &str, number: u64) -> Option<Vec<u8>> {
        let mut record = Record::from_line(line, &self.policy.sd_id);
        if record.structured_data == StructuredData::Malformed {
            return None;
        }
        record.fields.set(name.to_owned(), Value::from_json(&number.to_string())?);
        let mut out = Vec::with_capacity(line.len() + 64);
        record.write_line(&self.options(), &mut out);
        Some(out)
    }

    /// The line, if `[[sample]]` keeps it. The first rule that matches decides.
    fn sample(&self, rules: MatchingRules, line: Vec<u8>, now: UnixMicros) -> Result<Vec<u8>, Refused> {
        let Some((number, sample)) = rules.sampled_by(&line, &self.policy) else { return Ok(line) };
        let Some(parts) = Parts::of(&line) else { return Ok(line) };
        let Some(stated) = self.with_number(&line, SAMPLE_RATE, sample.one_of as u64) else { return Ok(line) };
        match self.quiet.samples.keeps(number, &[self.listener.as_bytes(), parts.host_and_app], sample.one_of, now) {
            true => Ok(stated),
            false => Err(Refused::Sample),
        }
    }

    /// The hash of a message's sender, and the hash of its content: everything except the time.
    fn repeat_key(&self, line: &[u8]) -> Option<(u64, u64)> {
        let record = Record::from_line(line, &self.policy.sd_id);
        if record.structured_data == StructuredData::Malformed {
            return None;
        }
        let line = match record.nanoseconds > 0 || record.unread_stamp.is_some() {
            true => {
                let mut timeless = Vec::new();
                Record { nanoseconds: 0, unread_stamp: None, ..record }.write_line(&self.options(), &mut timeless);
                Cow::Owned(timeless)
            }
            false => Cow::Borrowed(line),
        };
        let Parts { pri, host_and_app, proc_id, rest } = Parts::of(&line)?;
        Some(self.quiet.repeats.key(&[self.listener.as_bytes(), host_and_app, proc_id], &[pri, rest]))
    }

    /// The highest severity number that is let in at this fullness of the spool, in percent.
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
    /// Makes the checks on a whole message, and adds it to the batch. False: it is held, or it is refused and counted.
    pub fn end(self, batch: &mut Batch, moment: Moment<'_>) -> bool {
        let ended = self.try_end(batch, moment);
        ended.unwrap_or_else(|why| {
            moment.spool.count_refused(why);
            false
        })
    }

    fn try_end(self, batch: &mut Batch, moment: Moment<'_>) -> Result<bool, Refused> {
        let Self { line, terms } = self;
        terms.rules.check_content(&line, &terms.gate.policy)?;
        let line = terms.gate.sample(terms.rules, line, moment.now)?;
        let gate = terms.gate.clone();
        let message = Self { line, terms };
        let within = gate.repeat.filter(|_| message.terms.may_be_held);
        let Some((within, key)) = within.and_then(|within| Some((within, gate.repeat_key(&message.line)?))) else {
            return message.go_on(batch, moment);
        };
        match gate.quiet.repeats.take(key, message, within, moment.now) {
            Repeat::Passes(message, ended) => {
                if let Some(held) = ended {
                    held.end(batch, moment);
                }
                message.go_on(batch, moment)
            }
            Repeat::TakesPlace => Err(Refused::Repeat),
            Repeat::Held => Ok(false),
        }
    }

    /// Makes the checks after rules and repeats: masks, rate and load.
    fn go_on(self, batch: &mut Batch, Moment { least, now, .. }: Moment<'_>) -> Result<bool, Refused> {
        let Self { line, terms: Terms { gate, severity, limit, .. } } = self;
        let line = gate.hide(line);
        if limit.is_some_and(|limit| limit.is_exceeded(now)) {
            return Err(Refused::Rate);
        }
        if severity > least {
            return Err(Refused::Severity);
        }
        batch.push(|out| out.extend_from_slice(&line));
        Ok(true)
    }
}

impl Held {
    /// Adds the message that ends a run to the batch, with the count. A message that stands for itself alone is added as it came.
    pub fn end(self, batch: &mut Batch, moment: Moment<'_>) {
        let Self { mut message, count } = self;
        if count > 1
            && let Some(stated) = message.terms.gate.with_number(&message.line, REPEATED, count)
        {
            message.line = stated;
        }
        let ended = message.go_on(batch, moment);
        let _ = ended.inspect_err(|why| moment.spool.count_refused(*why));
    }
}

#[cfg(test)]
impl Terms {
    /// No checks are left.
    pub fn none() -> Self {
        let repeats = Arc::new(Repeats::new(prometheus_client::metrics::gauge::Gauge::default()));
        let gate = Gate {
            policy: AdmissionPolicy::default(),
            listener: "udp://[::]:514".into(),
            repeat: None,
            masked: Counter::default(),
            quiet: Quiet { samples: Arc::default(), repeats },
        };
        Self { gate: Arc::new(gate), rules: MatchingRules::default(), severity: 6, may_be_held: true, limit: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_messages_differ_in_their_time_alone() {
        let gate = Terms::none().gate;
        let key = |pri: u8, stamp: &str, sd: &str, text: &str| {
            gate.repeat_key(format!("<{pri}>1 {stamp} h web 7 - {sd} {text}").as_bytes()).expect("a key")
        };
        let one = key(14, "2026-11-20T22:27:28Z", "-", "text");
        assert_eq!(key(14, "2026-11-20T22:27:29.5Z", "-", "text"), one);
        assert_ne!(key(13, "2026-11-20T22:27:28Z", "-", "text"), one);
        assert_ne!(key(14, "2026-11-20T22:27:28Z", "-", "other"), one);
        assert_ne!(key(14, "2026-11-20T22:27:28Z", "[fields@32473 a=\"b\"]", "text"), one);
        let nanoseconds = |nanoseconds: u16| {
            key(14, "2026-11-20T22:27:28Z", &format!("[logferry@32473 nanoseconds=\"{nanoseconds}\"]"), "text")
        };
        assert_eq!(nanoseconds(1), nanoseconds(999));
        assert_eq!(gate.repeat_key(b"<14>1 - h web 7 - [malformed text"), None);
    }

    #[test]
    fn a_number_is_a_field_of_its_line() {
        let gate = Terms::none().gate;
        let line = b"<14>1 2026-11-20T22:27:28Z h web - - [a@1 b=\"c\"] text";
        let stated = gate.with_number(line, REPEATED, 7).expect("a line");
        let record = Record::from_line(&stated, "");
        let fields: Vec<_> = record.fields.iter().map(|field| (&*field.name, field.value.clone())).collect();
        assert_eq!(fields, [(REPEATED, Value::from_json("7").expect("a number"))]);
        assert_eq!((record.message, record.app_name.is_some()), (Some(&b"text"[..]), true));
        assert!(String::from_utf8_lossy(&stated).contains("[a@1 b=\"c\"]"));
    }
}
