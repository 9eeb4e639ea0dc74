//! Admission decides which messages are let in. It refuses messages that a `[[drop]]` rule matches, messages of a container beyond
//! its rate limit, and, when the spool is nearly full, the least severe messages (RFC 5424 8.6). It also counts the messages of
//! each container.
//!
//! Admission examines the record: a message that is refused here is never rendered as a line. The facts about a container are
//! computed once for each header that the translator remembers. Checks that need the text of a message, or change it, are in
//! `gate`: they wait until the message is whole.

mod gate;
mod multiline;
mod pending;
mod rate;
mod reassembler;
mod repeat;
mod sample;
mod sweeps;

use std::net::IpAddr;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

pub use gate::{Gate, Moment, Pending, Quiet, Terms};
pub use multiline::Joins;
pub use pending::{CHECK_EVERY as PENDING_CHECK_EVERY, Joined, PendingMessages, key as multiline_key};
use rate::Bucket;
pub use rate::Buckets;
pub use reassembler::{Reassembler, Text};
pub use repeat::{Held, Repeats};
pub use sample::Samples;

use crate::config::{MAX_RULES, Rate, Sample};
use crate::metrics::{ContainerMetrics, Containers};
use crate::protocol::syslog::{HeaderId, MAX_HEADERS};
use crate::record::{HeaderField, Record, Rule, UnixMicros};
use crate::shape::Shape;
use crate::spool::Refused;

/// Severities (RFC 5424 6.2.1).
const WARNING: u8 = 4;
const INFORMATIONAL: u8 = 6;
pub const DEBUG: u8 = 7;

/// The policy of admission. It may change between two reads.
#[derive(Clone, Debug, Default)]
pub struct AdmissionPolicy {
    /// Messages that match one of these rules are dropped. At most [`MAX_RULES`].
    pub drop: Arc<[Rule]>,
    /// Of the messages that match one of these rules, one of N is kept. At most [`MAX_RULES`].
    pub sample: Arc<[Sample]>,
    /// `None`: no limit.
    pub rate: Option<Rate>,
    pub shedding: Shedding,
    /// Hides text that must never be on the disk; `None`: no masks.
    pub masks: Option<Arc<Shape>>,
    /// The SD-ID under which a line has a container's image, name and ID.
    pub sd_id: String,
}

/// Which severities are refused when the spool fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shedding {
    /// From this fullness of the spool on, in percent, debug messages are refused.
    pub debug_from: u8,
    /// From this percentage on, notices and informational messages are refused as well.
    pub info_from: u8,
}

/// No severity is refused.
impl Default for Shedding {
    fn default() -> Self {
        Self { debug_from: Self::NEVER, info_from: Self::NEVER }
    }
}

/// Decides which messages of one connection or thread are let in.
pub struct Admission {
    containers: Arc<Containers>,
    buckets: Arc<Buckets>,
    listener: Arc<str>,
    /// Whether `[[sample]]` rules are ignored.
    keeps_all: bool,
    known: Vec<(Identity, Container)>,
    /// The index in `known` of the last container that was found.
    last: usize,
    /// The index that the next new container replaces when there are `max`.
    next: usize,
    /// How many containers are remembered: as many as the translator remembers headers.
    max: usize,
    /// A buffer for the next identity.
    identity: Vec<u8>,
}

/// The key of a container.
enum Identity {
    Header(HeaderId),
    /// The constant parts of its records, concatenated.
    Record(Vec<u8>),
}

/// The sender of a message.
pub enum Sender {
    /// A container with a remembered header or identity: its index in `known`.
    Known(usize),
    /// A container whose header cannot be remembered.
    Unremembered(Container),
    /// No container: the rules are matched for each message.
    Other { rules: MatchingRules },
}

/// Rules that match a message except for conditions that are not checked yet: a bit for each rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchingRules {
    drop: u64,
    sample: u64,
}

/// The facts about a container.
pub struct Container {
    metrics: ContainerMetrics,
    /// Messages that are not counted yet.
    received: u64,
    /// Also counts these messages, if their tag fits no template.
    unmatched_tags: Option<Counter>,
    /// Rules that match its messages except for conditions about priority and content.
    rules: MatchingRules,
    /// `None`: no limit.
    limit: Option<Limit>,
}

/// The rate limit of a container.
#[derive(Clone)]
pub struct Limit {
    bucket: Bucket,
    rate: Rate,
    /// Messages beyond the limit.
    limited: Counter,
}

/// A clone remembers no containers.
impl Clone for Admission {
    fn clone(&self) -> Self {
        let new = Self::new(self.containers.clone(), self.buckets.clone(), self.listener.clone());
        Self { max: self.max, keeps_all: self.keeps_all, ..new }
    }
}

impl Admission {
    /// `listener`: the listener's address, as configured.
    pub fn new(containers: Arc<Containers>, buckets: Arc<Buckets>, listener: Arc<str>) -> Self {
        Self {
            containers,
            buckets,
            listener,
            keeps_all: false,
            known: Vec::new(),
            last: 0,
            next: 0,
            max: MAX_HEADERS,
            identity: Vec::new(),
        }
    }

    /// Ignores `[[sample]]` rules from now on.
    pub fn keep_all(&mut self) {
        self.keeps_all = true;
    }

    /// Remembers at most `max` containers from now on.
    pub fn remember(&mut self, max: usize) {
        (self.max, self.next) = (max, 0);
        self.known.clear();
    }

    /// Forgets all containers, because the policy or the translator has changed.
    pub fn forget(&mut self) {
        *self = self.clone();
    }

    /// The sender with this header, if it is remembered.
    #[inline]
    pub fn find(&mut self, header: HeaderId) -> Option<Sender> {
        self.find_known(|id| matches!(id, Identity::Header(known) if *known == header))
    }

    #[inline]
    fn find_known(&mut self, is_it: impl Fn(&Identity) -> bool) -> Option<Sender> {
        if !self.known.get(self.last).is_some_and(|(id, _)| is_it(id)) {
            self.last = self.known.iter().position(|(id, _)| is_it(id))?;
        }
        Some(Sender::Known(self.last))
    }

    /// The message's sender.
    pub fn identify(
        &mut self,
        record: &Record<'_>,
        header: Option<HeaderId>,
        policy: &AdmissionPolicy,
        now: UnixMicros,
    ) -> Sender {
        if record.container.is_none() {
            return Sender::Other { rules: self.matching_origin(record, policy) };
        }
        match header {
            None => Sender::Unremembered(self.meet(record, policy, now)),
            Some(header) => self.find(header).unwrap_or_else(|| {
                let container = self.meet(record, policy, now);
                self.keep(Identity::Header(header), container)
            }),
        }
    }

    /// The sender of a message without a syslog header.
    pub fn identify_record(&mut self, record: &Record<'_>, policy: &AdmissionPolicy, now: UnixMicros) -> Sender {
        if record.container.is_none() {
            return self.identify(record, None, policy, now);
        }
        let mut identity = std::mem::take(&mut self.identity);
        write_identity(record, &mut identity);
        let known = self.find_known(|id| matches!(id, Identity::Record(known) if *known == identity));
        let sender = known.unwrap_or_else(|| {
            let container = self.meet(record, policy, now);
            self.keep(Identity::Record(identity.clone()), container)
        });
        self.identity = identity;
        sender
    }

    /// Counts a message as its sender's. An error: a `[[drop]]` rule without a condition about content matches. Otherwise, the
    /// rules that are left for the gate.
    #[inline]
    pub fn check_rules(
        &mut self,
        sender: &mut Sender,
        priority: (u8, u8),
        policy: &AdmissionPolicy,
    ) -> Result<MatchingRules, Refused> {
        let container = match sender {
            Sender::Known(place) => &mut self.known[*place].1,
            Sender::Unremembered(container) => container,
            Sender::Other { rules } if rules.is_empty() => return Ok(*rules),
            Sender::Other { rules } => return rules.check(priority, policy),
        };
        container.received += 1;
        match container.rules.is_empty() {
            true => Ok(MatchingRules::default()),
            false => container.rules.check(priority, policy),
        }
    }

    /// An error: the rate limit or the load refuses the message. `least`: the highest severity number that is let in; `is_limited`:
    /// whether the rate limit applies.
    #[inline]
    pub fn check_load(
        &self,
        sender: &Sender,
        severity: u8,
        policy: &AdmissionPolicy,
        (least, is_limited): (u8, bool),
        now: UnixMicros,
    ) -> Result<(), Refused> {
        if is_limited && policy.rate.is_some() && self.limit(sender).is_some_and(|limit| limit.is_exceeded(now)) {
            return Err(Refused::Rate);
        }
        match severity > least {
            true => Err(Refused::Severity),
            false => Ok(()),
        }
    }

    /// The sender's rate limit; `None`: no limit.
    pub fn limit<'a>(&'a self, sender: &'a Sender) -> Option<&'a Limit> {
        match sender {
            Sender::Known(place) => self.known[*place].1.limit.as_ref(),
            Sender::Unremembered(container) => container.limit.as_ref(),
            Sender::Other { .. } => None,
        }
    }

    /// Adds the messages since the last call to the counters.
    pub fn count(&mut self) {
        self.known.iter_mut().for_each(|(_, container)| container.count());
    }

    fn meet(&self, record: &Record<'_>, policy: &AdmissionPolicy, now: UnixMicros) -> Container {
        let (host, app_name) = (HeaderField::or_nil(record.hostname), HeaderField::or_nil(record.app_name));
        let name = record.container_name().or(record.container_id()).unwrap_or(&app_name);
        // Each listener has its own buckets: a sender that forges names at an open listener cannot use up a limit at a guarded one.
        let bucket = |rate| self.buckets.of(&[self.listener.as_bytes(), b" ", &host, b" ", name].concat(), rate, now);
        let metrics = self.containers.named(&String::from_utf8_lossy(name));
        let limit = |rate| Limit { bucket: bucket(rate), rate, limited: metrics.limited.clone() };
        Container {
            limit: policy.rate.map(limit),
            metrics,
            received: 0,
            unmatched_tags: record.has_unknown_container().then(|| self.containers.unmatched_tags.clone()),
            rules: self.matching_origin(record, policy),
        }
    }

    /// Rules whose conditions about the origin match a record.
    fn matching_origin(&self, record: &Record<'_>, policy: &AdmissionPolicy) -> MatchingRules {
        let samples = policy.sample.iter().filter(|_| !self.keeps_all).map(|sample| &sample.rule);
        MatchingRules { drop: bits_of(policy.drop.iter(), record), sample: bits_of(samples, record) }
    }

    fn keep(&mut self, identity: Identity, container: Container) -> Sender {
        let place = self.next;
        self.next = (place + 1) % self.max;
        match self.known.get_mut(place) {
            Some(known) => *known = (identity, container),
            None => self.known.push((identity, container)),
        }
        self.last = place;
        Sender::Known(place)
    }
}

/// Writes all parts of a container's record that rules, limits and counters use, each with its length.
fn write_identity(record: &Record<'_>, out: &mut Vec<u8>) {
    out.clear();
    let parts = [
        record.image_name(),
        record.container_name(),
        record.container_id(),
        record.listener.as_deref(),
        record.driver.as_deref(),
    ];
    let header = [record.hostname, record.app_name].map(|field| field.map(|field| field.said()));
    for part in parts.into_iter().chain(header) {
        let part = part.unwrap_or_default();
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
    match record.peer {
        Some(IpAddr::V4(peer)) => out.extend_from_slice(&peer.octets()),
        Some(IpAddr::V6(peer)) => out.extend_from_slice(&peer.octets()),
        None => {}
    }
}

fn bits_of<'r>(rules: impl Iterator<Item = &'r Rule>, record: &Record<'_>) -> u64 {
    let rules = rules.take(MAX_RULES).enumerate();
    rules.fold(0, |bits, (number, rule)| bits | u64::from(rule.matches_origin(record)) << number)
}

/// The items of a list whose bit is set, with their indexes.
fn with_bit<T>(all: &[T], bits: u64) -> impl Iterator<Item = (usize, &T)> {
    all.iter().enumerate().take(MAX_RULES).filter(move |(number, _)| bits >> number & 1 == 1)
}

impl MatchingRules {
    /// The rules that also match the priority, and are left for the gate. An error: a `[[drop]]` rule without a condition about
    /// content matches.
    fn check(self, (facility, severity): (u8, u8), policy: &AdmissionPolicy) -> Result<Self, Refused> {
        let mut left = Self::default();
        for (number, rule) in
            with_bit(&policy.drop, self.drop).filter(|(_, rule)| rule.matches_priority(facility, severity))
        {
            if !rule.asks_content() {
                return Err(Refused::Rule);
            }
            left.drop |= 1 << number;
        }
        for (number, _) in
            with_bit(&policy.sample, self.sample).filter(|(_, sample)| sample.rule.matches_priority(facility, severity))
        {
            left.sample |= 1 << number;
        }
        Ok(left)
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.drop | self.sample == 0
    }

    /// Checks the content conditions. An error: a `[[drop]]` rule matches the whole line.
    pub fn check_content(self, line: &[u8], policy: &AdmissionPolicy) -> Result<(), Refused> {
        if self.drop == 0 {
            return Ok(());
        }
        // The SD-ID of containers does not matter: text and fields are parsed the same way with any.
        let record = Record::from_line(line, "");
        match with_bit(&policy.drop, self.drop).any(|(_, rule)| rule.matches_content(&record)) {
            true => Err(Refused::Rule),
            false => Ok(()),
        }
    }

    /// The first `[[sample]]` rule that matches the whole line, with its index.
    pub fn sampled_by<'p>(self, line: &[u8], policy: &'p AdmissionPolicy) -> Option<(usize, &'p Sample)> {
        let mut samples = with_bit(&policy.sample, self.sample).peekable();
        samples.peek()?;
        let record = Record::from_line(line, "");
        samples.find(|(_, sample)| sample.rule.matches_content(&record))
    }
}

impl Limit {
    /// Takes one message from the bucket. True: the bucket was empty, and the message is counted as limited.
    pub fn is_exceeded(&self, now: UnixMicros) -> bool {
        let is_exceeded = !self.bucket.take(self.rate, now);
        if is_exceeded {
            self.limited.inc();
        }
        is_exceeded
    }
}

impl Container {
    fn count(&mut self) {
        let received = std::mem::take(&mut self.received);
        if received > 0 {
            self.metrics.received.inc_by(received);
            if let Some(unmatched_tags) = &self.unmatched_tags {
                unmatched_tags.inc_by(received);
            }
        }
    }
}

/// Counts the messages that are not counted yet.
impl Drop for Container {
    fn drop(&mut self) {
        self.count();
    }
}

impl Shedding {
    /// A fullness that the spool never has, in percent.
    pub const NEVER: u8 = 101;

    /// The highest severity number that is let in at this fullness, in percent.
    pub fn least(self, fullness: u8) -> u8 {
        match fullness {
            full if full >= self.info_from => WARNING,
            full if full >= self.debug_from => INFORMATIONAL,
            _ => DEBUG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::syslog::{Frame, Settings, Translator};
    use crate::record::{Patterns, Severities};

    const NOW: UnixMicros = UnixMicros(1_795_213_727_500_000);

    struct Rig {
        translator: Translator,
        admission: Admission,
        policy: AdmissionPolicy,
        containers: Arc<Containers>,
    }

    fn rig(drop: Vec<Rule>, rate: Option<Rate>) -> Rig {
        let containers = Arc::new(Containers::default());
        let shedding = Shedding { debug_from: 90, info_from: 95 };
        Rig {
            translator: Translator::new(Arc::new(Settings::default())),
            admission: Admission::new(containers.clone(), Arc::default(), "udp://[::]:514".into()),
            policy: AdmissionPolicy { drop: drop.into(), rate, shedding, ..AdmissionPolicy::default() },
            containers,
        }
    }

    impl Rig {
        fn says(&mut self, pri: u8, image: &str, name: &str) -> Result<(), Refused> {
            self.takes(&format!("<{pri}>Nov 20 17:28:47 {image}/{name}/2a9052a5c36e[23223]: hello"))
        }

        fn takes(&mut self, frame: &str) -> Result<(), Refused> {
            let frame = Frame { bytes: frame.as_bytes(), cut: false, received: NOW };
            let Self { translator, admission, policy, .. } = self;
            let known = translator.find(&frame).and_then(|known| {
                let sender = admission.find(known.header)?;
                Some((sender, (known.facility(), known.severity())))
            });
            let (mut sender, priority) = known.unwrap_or_else(|| {
                let (message, _) = translator.read(&frame);
                let sender = admission.identify(&message.record, message.header, policy, NOW);
                (sender, (message.record.facility, message.record.severity))
            });
            admission.check_rules(&mut sender, priority, policy)?;
            admission.check_load(&sender, priority.1, policy, (DEBUG, true), NOW)
        }
    }

    #[test]
    fn each_container_is_counted_however_many_there_are() {
        let mut rig = rig(Vec::new(), None);
        let long = "x".repeat(300);
        for round in 0..3 {
            for number in 0..2 * MAX_HEADERS {
                assert_eq!(rig.says(30, "nginx", &format!("web-{number}")), Ok(()));
                assert_eq!(rig.says(27, &long, "long"), Ok(()));
            }
            rig.admission.count();
            let busiest = rig.containers.busiest(usize::MAX);
            assert_eq!(busiest.len(), 2 * MAX_HEADERS + 1);
            assert_eq!((&*busiest[0].name, busiest[0].received), ("long", (round + 1) * 2 * MAX_HEADERS as u64));
            assert!(busiest[1..].iter().all(|busy| busy.received == round + 1), "{busiest:?}");
        }
    }

    #[test]
    fn a_rule_and_a_rate_hold_for_headers_that_come_again() {
        let rules = ["err", "info"].map(|severity| Rule {
            name: Patterns::new(vec![format!("no-{severity}")]).expect("a pattern"),
            severity: Severities::new(vec![severity.to_owned()]).expect("a severity"),
            ..Rule::default()
        });
        let mut rig = rig(rules.into(), Some(Rate { per_second: 1, burst: 3 }));
        for _ in 0..3 {
            assert_eq!(rig.says(30, "nginx", "no-info"), Err(Refused::Rule));
            assert_eq!(rig.says(27, "nginx", "no-info"), Ok(()));
            assert_eq!(rig.says(27, "nginx", "no-err"), Err(Refused::Rule));
            assert_eq!(rig.says(30, "nginx", "no-err"), Ok(()));
        }
        // Dropped messages have taken nothing from the bucket.
        assert_eq!(rig.says(30, "nginx", "no-err"), Err(Refused::Rate));
        assert_eq!(rig.says(30, "nginx", "quiet"), Ok(()));
        assert_eq!(rig.containers.named("no-err").limited.get(), 1);
        rig.admission.forget();
        assert_eq!(rig.says(30, "nginx", "no-err"), Err(Refused::Rate), "the bucket is not forgotten");
    }

    /// Another relay has named the container in structured data. The container is found once, and remembered.
    #[test]
    fn a_container_is_one_whatever_brought_it() {
        let name = |name: &str| Patterns::new(vec![name.to_owned()]).expect("a pattern");
        let mut rig =
            rig(vec![Rule { name: name("noise"), ..Rule::default() }], Some(Rate { per_second: 1, burst: 2 }));
        let line = |name: &str, text: &str| {
            format!("<30>1 2026-11-20T17:28:47Z n7 {name} - - [docker@32473 image=\"nginx\" name=\"{name}\"] {text}")
        };
        let results = [1, 2, 3].map(|n| rig.takes(&line("web", &format!("message {n}"))));
        assert_eq!(results, [Ok(()), Ok(()), Err(Refused::Rate)]);
        assert_eq!(rig.takes(&line("noise", "x")), Err(Refused::Rule));
        assert_eq!(rig.takes("<30>1 2026-11-20T17:28:47Z n7 web - - - no container"), Ok(()));
        rig.admission.count();
        let counted: Vec<_> = rig
            .containers
            .busiest(usize::MAX)
            .into_iter()
            .map(|busy| (busy.name, busy.received, busy.limited))
            .collect();
        assert_eq!(counted, [("web".to_owned(), 3, 1), ("noise".to_owned(), 1, 0)]);
        assert_eq!(rig.admission.known.len(), 2);
    }

    #[test]
    fn the_least_severe_goes_first() {
        let shedding = Shedding { debug_from: 90, info_from: 95 };
        assert_eq!([0, 89, 90, 94, 95, 100].map(|full| shedding.least(full)), [7, 7, 6, 6, 4, 4]);
        let never = Shedding { debug_from: 101, info_from: 101 };
        assert_eq!(never.least(100), 7);
    }
}
