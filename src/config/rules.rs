//! Rules as they are written: `[[drop]]` and a forward's `match`.

use super::effective::Table;
use super::error::{ConfigError, Source};
use super::kinds::Together;
use super::settings::{Place, Settings, settings};
use super::written::{List, Written};
use crate::record::{Facilities, Patterns, Rule, Severities};

/// `[[drop]]` sections: the listeners keep a bit for each.
pub const MAX_RULES: usize = 64;

const PATTERNS: Together<Patterns> = Together { read: Patterns::new, display: Patterns::written };
const FACILITIES: Together<Facilities> =
    Together { read: Facilities::new, display: |facilities| facilities.written().to_vec() };
const SEVERITIES: Together<Severities> =
    Together { read: Severities::new, display: |severities| severities.written().to_vec() };

settings! {
    /// The keys of a [`Rule`].
    pub struct RuleKeys, written as WrittenRule {
        image: Patterns = Patterns::default(), as PATTERNS, key "image";
        name: Patterns = Patterns::default(), as PATTERNS, key "name";
        app: Patterns = Patterns::default(), as PATTERNS, key "app";
        host: Patterns = Patterns::default(), as PATTERNS, key "host";
        listener: Patterns = Patterns::default(), as PATTERNS, key "listener";
        facility: Facilities = Facilities::default(), as FACILITIES, key "facility";
        severity: Severities = Severities::default(), as SEVERITIES, key "severity";
    }
}

impl Settings for Rule {
    type Written = WrittenRule;

    fn read(written: &WrittenRule, place: &Place<'_>) -> Result<Self, ConfigError> {
        let RuleKeys { image, name, app, host, listener, facility, severity } = RuleKeys::read(written, place)?;
        Ok(Self { image, name, app, host, listener, facility, severity })
    }

    fn display(&self, table: &mut Table) {
        let Self { image, name, app, host, listener, facility, severity } = self.clone();
        RuleKeys { image, name, app, host, listener, facility, severity }.display(table);
    }
}

impl WrittenRule {
    fn is_empty(&self) -> bool {
        let mut is_empty = true;
        self.each(&mut |_, entry| is_empty &= !entry.is_written());
        is_empty
    }
}

/// Notes contradictions within `[[drop]]`. `listeners`: the names there are.
pub fn check_dropped(
    source: &Source<'_>,
    sections: &List<WrittenRule>,
    rules: &[Rule],
    listeners: &[&str],
) -> Result<(), ConfigError> {
    for (number, (span, section)) in sections.sections.iter().enumerate() {
        if section.is_empty() && !source.has_gaps.get() {
            let says = "it says nothing of what to drop; write image, name, app, host, listener, facility or severity";
            source.wrong("[[drop]]", span.clone(), says)?;
        }
        if number >= MAX_RULES {
            let says = format!("at most {MAX_RULES} rules are allowed; a key can have a list of patterns");
            source.wrong("[[drop]]", span.clone(), &says)?;
        }
    }
    check_listeners(source, "drop", sections, rules, listeners)
}

/// Notes contradictions within a forward's `match`.
pub fn check_matches(
    source: &Source<'_>,
    sections: &List<WrittenRule>,
    rules: &[Rule],
    listeners: &[&str],
) -> Result<(), ConfigError> {
    let is_empty = sections.sections.is_empty() || sections.sections.iter().any(|(_, section)| section.is_empty());
    if let Some(span) = sections.span.clone().filter(|_| is_empty && !source.has_gaps.get()) {
        source.wrong("forward.match", span, "it says nothing; leave it out for all messages")?;
    }
    check_listeners(source, "forward.match", sections, rules, listeners)
}

/// A rule must name a listener that is there.
fn check_listeners(
    source: &Source<'_>,
    path: &str,
    sections: &List<WrittenRule>,
    rules: &[Rule],
    listeners: &[&str],
) -> Result<(), ConfigError> {
    for ((_, section), rule) in sections.sections.iter().zip(rules) {
        let is_unknown = |name: &&String| !name.contains(['*', '?']) && !listeners.contains(&name.as_str());
        if let Some(name) = rule.listener.names().find(is_unknown) {
            let known = if listeners.is_empty() { "none has one".to_owned() } else { listeners.join(", ") };
            let says = format!("`{name}`: no [[listen]] has this `name`; there are: {known}");
            source.note(source.bad_among(&format!("{path}.listener"), &section.listener, &says), ())?;
        }
    }
    Ok(())
}
