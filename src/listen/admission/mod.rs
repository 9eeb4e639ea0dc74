//! Which lines are let in: not those that a `[[drop]]` rule means, not those of a container that sends more than it may,
//! and, when the spool is nearly full, not those that matter least (RFC 5424 8.6). Here a container's messages are counted
//! too.
//!
//! Who a container is, is found out once for each header that the translator remembers.

mod rate;
mod reassembler;

use std::sync::Arc;

use rate::Bucket;
pub use rate::Buckets;
pub use reassembler::{LOOK_EVERY as LOOK_FOR_PIECES_EVERY, Pieces};

use crate::config::{MAX_RULES, Rate};
use crate::metrics::{ContainerMetrics, Containers};
use crate::protocol::syslog::{HeadId, MOST_HEADS, Shape, Translated};
use crate::record::{Line, Rule, UnixMicros, facility, severity};
use crate::spool::Refused;

/// RFC 5424 6.2.1.
const WARNING: u8 = 4;
const INFORMATIONAL: u8 = 6;
pub const DEBUG: u8 = 7;

/// What is let in; it may change between two reads.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Lines that one of these means are dropped. At most [`MAX_RULES`].
    pub drop: Arc<[Rule]>,
    /// `None`: no limit.
    pub rate: Option<Rate>,
    pub shedding: Shedding,
    /// The SD-ID under which image, name and id are found in a line.
    pub sd_id: Arc<str>,
}

/// Which severities are refused when the spool fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shedding {
    /// Fullness of the spool in percent from which on debug messages are refused; above 100: never.
    pub debug_from: u8,
    /// The same for notices and informational messages.
    pub info_from: u8,
}

/// One for each connection or thread.
pub struct Gate {
    containers: Arc<Containers>,
    buckets: Arc<Buckets>,
    listener: Arc<str>,
    known: Vec<(HeadId, Container)>,
    /// Where the last one was found.
    last: usize,
    /// Which one the next replaces when there are `most`.
    next: usize,
    /// As many as headers are.
    most: usize,
}

/// What has to be known of a container.
struct Container {
    metrics: ContainerMetrics,
    /// Messages that are not counted yet.
    received: u64,
    /// Which rules mean its lines, as far as they are not about the priority: a bit for each.
    rules: u64,
    /// `None`: no limit.
    bucket: Option<Bucket>,
}

/// A new one, which knows nobody yet.
impl Clone for Gate {
    fn clone(&self) -> Self {
        Self { most: self.most, ..Self::new(self.containers.clone(), self.buckets.clone(), self.listener.clone()) }
    }
}

impl Gate {
    /// `listener`: its address, as configured.
    pub fn new(containers: Arc<Containers>, buckets: Arc<Buckets>, listener: Arc<str>) -> Self {
        Self { containers, buckets, listener, known: Vec::new(), last: 0, next: 0, most: MOST_HEADS }
    }

    /// Remembers at most so many containers from now on.
    pub fn remember(&mut self, most: usize) {
        (self.most, self.next) = (most, 0);
        self.known.clear();
    }

    /// The terms or the translator are others now.
    pub fn forget(&mut self) {
        *self = self.clone();
    }

    /// Counts a message as its container's, and says whether a rule drops it.
    pub fn hear(
        &mut self,
        line: &[u8],
        translated: &Translated,
        terms: &Terms,
        now: UnixMicros,
    ) -> Result<(), Refused> {
        let is_dropped = if translated.shape == Shape::Docker {
            self.with_container(line, translated.head, terms, now, |container| {
                container.received += 1;
                container.is_dropped(line, terms)
            })
        } else if terms.drop.is_empty() {
            false
        } else {
            let line = Line::parse(line, &terms.sd_id);
            terms.drop.iter().any(|rule| rule.means(&line))
        };
        if is_dropped { Err(Refused::Rule) } else { Ok(()) }
    }

    /// Says why a line is refused that no rule drops, if it is. `least`: the least severe that is let in; `limited`:
    /// whether the rate limit applies.
    pub fn admit(
        &mut self,
        line: &[u8],
        translated: &Translated,
        terms: &Terms,
        (least, limited): (u8, bool),
        now: UnixMicros,
    ) -> Result<(), Refused> {
        let has_limit = limited && terms.rate.is_some() && translated.shape == Shape::Docker;
        if has_limit
            && self.with_container(line, translated.head, terms, now, |container| container.exceeds(terms, now))
        {
            return Err(Refused::Rate);
        }
        match least < DEBUG && severity(line) > least {
            true => Err(Refused::Severity),
            false => Ok(()),
        }
    }

    /// Adds what was received since the last time to the counters.
    pub fn count(&mut self) {
        self.known.iter_mut().for_each(|(_, container)| container.count());
    }

    /// Does something with what is known of a line's container.
    fn with_container<T>(
        &mut self,
        line: &[u8],
        head: Option<HeadId>,
        terms: &Terms,
        now: UnixMicros,
        act: impl FnOnce(&mut Container) -> T,
    ) -> T {
        match head {
            Some(head) => act(self.known(head, line, terms, now)),
            // Its header is too long to be remembered.
            None => act(&mut self.meet(line, terms, now)),
        }
    }

    fn known(&mut self, head: HeadId, line: &[u8], terms: &Terms, now: UnixMicros) -> &mut Container {
        let is_it = |(id, _): &(HeadId, Container)| *id == head;
        if !self.known.get(self.last).is_some_and(is_it) {
            self.last = self.known.iter().position(is_it).unwrap_or_else(|| {
                let container = self.meet(line, terms, now);
                self.keep(head, container)
            });
        }
        &mut self.known[self.last].1
    }

    fn meet(&self, line: &[u8], terms: &Terms, now: UnixMicros) -> Container {
        let line = Line::parse(line, &terms.sd_id);
        let name = line.container_name.as_deref().or(line.container_id.as_deref()).unwrap_or(line.app_name);
        // A bucket for each listener: who forges a name at an open one takes nothing from whom a guarded one lets in.
        let bucket =
            |rate| self.buckets.of(&[self.listener.as_bytes(), b" ", line.hostname, b" ", name].concat(), rate, now);
        let rules = terms.drop.iter().take(MAX_RULES).enumerate();
        Container {
            metrics: self.containers.named(&String::from_utf8_lossy(name)),
            received: 0,
            rules: rules.fold(0, |bits, (number, rule)| bits | u64::from(rule.means_header(&line)) << number),
            bucket: terms.rate.map(bucket),
        }
    }

    fn keep(&mut self, head: HeadId, container: Container) -> usize {
        let place = self.next;
        self.next = (place + 1) % self.most;
        match self.known.get_mut(place) {
            Some(known) => *known = (head, container),
            None => self.known.push((head, container)),
        }
        place
    }
}

impl Container {
    fn is_dropped(&self, line: &[u8], terms: &Terms) -> bool {
        if self.rules == 0 {
            return false;
        }
        let (facility, severity) = (facility(line), severity(line));
        let mut rules = terms.drop.iter().enumerate().filter(|(number, _)| self.rules >> number & 1 == 1);
        rules.any(|(_, rule)| rule.means_pri(facility, severity))
    }

    fn exceeds(&self, terms: &Terms, now: UnixMicros) -> bool {
        let exceeds = matches!((&self.bucket, terms.rate), (Some(bucket), Some(rate)) if !bucket.take(rate, now));
        if exceeds {
            self.metrics.limited.inc();
        }
        exceeds
    }

    fn count(&mut self) {
        if self.received > 0 {
            self.metrics.received.inc_by(std::mem::take(&mut self.received));
        }
    }
}

/// What was not counted yet, is.
impl Drop for Container {
    fn drop(&mut self) {
        self.count();
    }
}

impl Shedding {
    /// The least severe that is taken.
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
        gate: Gate,
        terms: Terms,
        containers: Arc<Containers>,
    }

    fn rig(drop: Vec<Rule>, rate: Option<Rate>) -> Rig {
        let containers = Arc::new(Containers::default());
        let shedding = Shedding { debug_from: 90, info_from: 95 };
        Rig {
            translator: Translator::new(Arc::new(Settings::default())),
            gate: Gate::new(containers.clone(), Arc::default(), "udp://[::]:514".into()),
            terms: Terms { drop: drop.into(), rate, shedding, sd_id: "docker@32473".into() },
            containers,
        }
    }

    impl Rig {
        fn says(&mut self, pri: u8, image: &str, name: &str) -> Result<(), Refused> {
            let frame = format!("<{pri}>Nov 20 17:28:47 {image}/{name}/2a9052a5c36e[23223]: hello");
            let mut line = Vec::new();
            let frame = Frame { bytes: frame.as_bytes(), cut: false, received: NOW };
            let translated = self.translator.translate(&frame, &mut line);
            self.gate.hear(&line, &translated, &self.terms, NOW)?;
            self.gate.admit(&line, &translated, &self.terms, (DEBUG, true), NOW)
        }
    }

    #[test]
    fn each_container_is_counted_however_many_there_are() {
        let mut rig = rig(Vec::new(), None);
        let long = "x".repeat(300);
        for round in 0..3 {
            for number in 0..2 * MOST_HEADS {
                assert_eq!(rig.says(30, "nginx", &format!("web-{number}")), Ok(()));
                assert_eq!(rig.says(27, &long, "long"), Ok(()));
            }
            rig.gate.count();
            let busiest = rig.containers.busiest(usize::MAX);
            assert_eq!(busiest.len(), 2 * MOST_HEADS + 1);
            assert_eq!((&*busiest[0].name, busiest[0].received), ("long", (round + 1) * 2 * MOST_HEADS as u64));
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
        // What was dropped took nothing out of the bucket.
        assert_eq!(rig.says(30, "nginx", "no-err"), Err(Refused::Rate));
        assert_eq!(rig.says(30, "nginx", "quiet"), Ok(()));
        assert_eq!(rig.containers.named("no-err").limited.get(), 1);
        rig.gate.forget();
        assert_eq!(rig.says(30, "nginx", "no-err"), Err(Refused::Rate), "the bucket is not forgotten");
    }

    #[test]
    fn the_least_severe_goes_first() {
        let shedding = Shedding { debug_from: 90, info_from: 95 };
        assert_eq!([0, 89, 90, 94, 95, 100].map(|full| shedding.least(full)), [7, 7, 6, 6, 4, 4]);
        let never = Shedding { debug_from: 101, info_from: 101 };
        assert_eq!(never.least(100), 7);
    }
}
