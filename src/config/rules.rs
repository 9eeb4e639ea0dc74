//! Rules in the config: `[[drop]]`, `[[sample]]` and the `match` of a forward.

use super::Listen;
use super::effective::Table;
use super::error::{ConfigError, Source, known_names};
use super::kinds::{Count, Optional, Together};
use super::settings::{Place, Settings, settings};
use super::written::{List, Written};
use crate::record::{Expressions, Facilities, FieldConditions, Patterns, Ranges, Rule, Severities};

/// The maximum number of `[[drop]]` sections, and of `[[sample]]` sections: listeners keep a bit for each.
pub const MAX_RULES: usize = 64;

pub const PATTERNS: Together<Patterns> = Together { read: Patterns::new, display: Patterns::written };
const RANGES: Together<Ranges> = Together { read: Ranges::new, display: Ranges::written };
const FACILITIES: Together<Facilities> =
    Together { read: Facilities::new, display: |facilities| facilities.written().to_vec() };
const SEVERITIES: Together<Severities> =
    Together { read: Severities::new, display: |severities| severities.written().to_vec() };
const EXPRESSIONS: Together<Expressions> = Together { read: Expressions::new, display: Expressions::written };
const FIELDS: Together<FieldConditions> =
    Together { read: FieldConditions::new, display: |conditions| conditions.written().to_vec() };

settings! {
    /// The keys of a [`Rule`].
    pub struct RuleKeys, written as WrittenRule {
        image: Patterns = Patterns::default(), as PATTERNS, key "image";
        name: Patterns = Patterns::default(), as PATTERNS, key "name";
        app: Patterns = Patterns::default(), as PATTERNS, key "app";
        host: Patterns = Patterns::default(), as PATTERNS, key "host";
        peer: Ranges = Ranges::default(), as RANGES, key "peer";
        listener: Patterns = Patterns::default(), as PATTERNS, key "listener";
        driver: Patterns = Patterns::default(), as PATTERNS, key "driver";
        facility: Facilities = Facilities::default(), as FACILITIES, key "facility";
        severity: Severities = Severities::default(), as SEVERITIES, key "severity";
        message: Patterns = Patterns::default(), as PATTERNS, key "message";
        message_regex: Expressions = Expressions::default(), as EXPRESSIONS, key "message-regex";
        field: FieldConditions = FieldConditions::default(), as FIELDS, key "field".takes_table();
    }
}

impl Settings for Rule {
    type Written = WrittenRule;

    fn read(written: &WrittenRule, place: &Place<'_>) -> Result<Self, ConfigError> {
        let RuleKeys {
            image,
            name,
            app,
            host,
            peer,
            listener,
            driver,
            facility,
            severity,
            message,
            message_regex,
            field,
        } = RuleKeys::read(written, place)?;
        Ok(Self { image, name, app, host, peer, listener, driver, facility, severity, message, message_regex, field })
    }

    fn display(&self, table: &mut Table) {
        let Self { image, name, app, host, peer, listener, driver, facility, severity, message, message_regex, field } =
            self.clone();
        RuleKeys { image, name, app, host, peer, listener, driver, facility, severity, message, message_regex, field }
            .display(table);
    }
}

impl WrittenRule {
    fn is_empty(&self) -> bool {
        let mut is_empty = true;
        self.each(&mut |_, entry| is_empty &= !entry.is_written());
        is_empty
    }
}

settings! {
    /// The keys of a [`Sample`].
    pub struct SampleKeys, written as WrittenSample {
        one_of: Option<usize> = None, as Optional(Count), key "one-of";
    }
    groups {
        rule: Rule;
    }
}

/// `[[sample]]`: only one in `one_of` messages that match the rule is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub rule: Rule,
    /// At least 1.
    pub one_of: usize,
}

/// The rules that are applied before a line is spooled.
pub fn intake_rules<'r>(drop: &'r [Rule], sample: &'r [Sample]) -> impl Iterator<Item = &'r Rule> {
    drop.iter().chain(sample.iter().map(|sample| &sample.rule))
}

impl Settings for Sample {
    type Written = WrittenSample;

    fn read(written: &WrittenSample, place: &Place<'_>) -> Result<Self, ConfigError> {
        if !written.one_of.is_written() {
            place.source.missing("sample", place.span.clone(), "one-of", "one-of = 10")?;
        }
        let SampleKeys { one_of, rule } = SampleKeys::read(written, place)?;
        Ok(Self { rule, one_of: one_of.unwrap_or(1) })
    }

    fn display(&self, table: &mut Table) {
        SampleKeys { one_of: Some(self.one_of), rule: self.rule.clone() }.display(table);
    }
}

/// Notes contradictions within `[[sample]]`.
pub fn check_samples(
    source: &Source<'_>,
    sections: &List<WrittenSample>,
    samples: &[Sample],
    listeners: &[Listen],
) -> Result<(), ConfigError> {
    for (span, _) in sections.sections.iter().skip(MAX_RULES) {
        source.wrong("[[sample]]", span.clone(), &format!("at most {MAX_RULES} rules are allowed"))?;
    }
    let rules = sections.sections.iter().map(|(_, section)| &section.rule);
    check_listeners(source, "sample", rules, samples.iter().map(|sample| &sample.rule), listeners)
}

/// Notes contradictions within `[[drop]]`. `listeners`: all listeners.
pub fn check_dropped(
    source: &Source<'_>,
    sections: &List<WrittenRule>,
    rules: &[Rule],
    listeners: &[Listen],
) -> Result<(), ConfigError> {
    for (number, (span, section)) in sections.sections.iter().enumerate() {
        if section.is_empty() && !source.has_gaps.get() {
            let says = "it says nothing of what to drop; write image, name, app, host, peer, listener, driver, facility, severity, message, message-regex or field";
            source.wrong("[[drop]]", span.clone(), says)?;
        }
        if number >= MAX_RULES {
            let says = format!("at most {MAX_RULES} rules are allowed; a key can have a list of patterns");
            source.wrong("[[drop]]", span.clone(), &says)?;
        }
    }
    check_listeners(source, "drop", sections.sections.iter().map(|(_, rule)| rule), rules.iter(), listeners)
}

/// Notes contradictions within a forward's `match`.
pub fn check_matches(
    source: &Source<'_>,
    sections: &List<WrittenRule>,
    rules: &[Rule],
    listeners: &[Listen],
) -> Result<(), ConfigError> {
    let is_empty = sections.sections.is_empty() || sections.sections.iter().any(|(_, section)| section.is_empty());
    if let Some(span) = sections.span.clone().filter(|_| is_empty && !source.has_gaps.get()) {
        source.wrong("forward.match", span, "it says nothing; leave it out for all messages")?;
    }
    check_peers(source, sections, rules, listeners)?;
    check_listeners(source, "forward.match", sections.sections.iter().map(|(_, rule)| rule), rules.iter(), listeners)
}

/// Notes conditions on the peer if no listener writes it: a forward knows only what is in the line.
fn check_peers(
    source: &Source<'_>,
    sections: &List<WrittenRule>,
    rules: &[Rule],
    listeners: &[Listen],
) -> Result<(), ConfigError> {
    if listeners.iter().any(|listener| listener.peer) {
        return Ok(());
    }
    for ((_, section), _) in sections.sections.iter().zip(rules).filter(|(_, rule)| !rule.peer.is_empty()) {
        let says = "no [[listen]] has `peer = true`, so that most lines do not say who has sent them; write it at the \
                    listener that they come in by";
        source.note(source.bad_among("forward.match.peer", &section.peer, says), ())?;
    }
    Ok(())
}

/// Notes rules for listeners that do not exist.
fn check_listeners<'r>(
    source: &Source<'_>,
    path: &str,
    sections: impl Iterator<Item = &'r WrittenRule>,
    rules: impl Iterator<Item = &'r Rule>,
    listeners: &[Listen],
) -> Result<(), ConfigError> {
    let listeners: Vec<&str> = listeners.iter().filter_map(|listener| listener.name.as_deref()).collect();
    for (section, rule) in sections.zip(rules) {
        let is_unknown = |name: &&String| !name.contains(['*', '?']) && !listeners.contains(&name.as_str());
        if let Some(name) = rule.listener.names().find(is_unknown) {
            let known = known_names(&listeners);
            let says = format!("`{name}`: no [[listen]] has this `name`; there are: {known}");
            source.note(source.bad_among(&format!("{path}.listener"), &section.listener, &says), ())?;
        }
    }
    Ok(())
}
