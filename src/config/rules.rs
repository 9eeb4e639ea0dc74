//! Rules as they are written: `[[drop]]` and a forward's `match`.

use super::error::Source;
use super::file::{self, Leaf, Leaves, Section};
use super::{ConfigError, MOST_RULES};
use crate::record::{BadSetting, Facilities, Patterns, Rule, Severities};

/// `[[drop]]`: lines that are not wanted at all. `listeners`: the names there are.
pub fn dropped(
    source: &Source<'_>,
    sections: &[Section<file::Rule>],
    listeners: &[&str],
) -> Result<Vec<Rule>, ConfigError> {
    let mut rules = Vec::with_capacity(sections.len());
    for section in sections {
        if section.as_ref().is_empty() && !source.has_gaps.get() {
            let says = "it says nothing of what to drop; write image, name, app, host, listener, facility or severity";
            source.wrong("[[drop]]", section.span(), says)?;
        }
        if rules.len() == MOST_RULES {
            let says = format!("{MOST_RULES} rules are the most; a key can have a list of patterns");
            source.wrong("[[drop]]", section.span(), &says)?;
        }
        rules.push(rule(source, "drop", section.as_ref(), listeners)?);
    }
    Ok(rules)
}

/// The lines of a forward.
pub fn matches(source: &Source<'_>, rules: &file::Rules, listeners: &[&str]) -> Result<Vec<Rule>, ConfigError> {
    let file::Rules { rules, written } = rules;
    let is_empty = rules.is_empty() || rules.iter().any(file::Rule::is_empty);
    if let Some(place) = written.clone().filter(|_| is_empty && !source.has_gaps.get()) {
        source.wrong("forward.match", place, "it says nothing; leave it out for all messages")?;
    }
    rules.iter().map(|written| rule(source, "forward.match", written, listeners)).collect()
}

fn rule(source: &Source<'_>, at: &str, written: &file::Rule, listeners: &[&str]) -> Result<Rule, ConfigError> {
    let patterns = |key, leaves| read(source, &format!("{at}.{key}"), leaves, Patterns::new);
    let of_listeners = |written: Vec<String>| {
        let patterns = Patterns::new(written)?;
        let unknown = |name: &&String| !name.contains(['*', '?']) && !listeners.contains(&name.as_str());
        if let Some(name) = patterns.names().find(unknown) {
            let known = if listeners.is_empty() { "none has one".to_owned() } else { listeners.join(", ") };
            return Err(BadSetting::new(format!("`{name}`: no [[listen]] has this `name`; there are: {known}")));
        }
        Ok(patterns)
    };
    Ok(Rule {
        image: patterns("image", &written.image)?,
        name: patterns("name", &written.name)?,
        app: patterns("app", &written.app)?,
        host: patterns("host", &written.host)?,
        listener: read(source, &format!("{at}.listener"), &written.listener, of_listeners)?,
        facility: read(source, &format!("{at}.facility"), &written.facility, Facilities::new)?,
        severity: read(source, &format!("{at}.severity"), &written.severity, Severities::new)?,
    })
}

/// What a key's values mean together.
fn read<T: Default>(
    source: &Source<'_>,
    key: &str,
    leaves: &Leaves,
    meaning: impl FnOnce(Vec<String>) -> Result<T, BadSetting>,
) -> Result<T, ConfigError> {
    let texts = leaves.0.iter().map(|leaf| source.text(key, leaf)).collect::<Result<Vec<_>, _>>();
    let read = texts.and_then(|texts| {
        meaning(texts).map_err(|bad| {
            let says = bad.to_string();
            // Of a list, the value that is spoken of, or the one that is empty.
            let meant = |leaf: &&Leaf| says.contains(&format!("`{}`", leaf.text())) || leaf.text().is_empty();
            let leaf = leaves.0.iter().find(meant).or(leaves.0.first());
            source.bad(key, leaf.expect("an empty list has nothing wrong in it"), &says)
        })
    });
    read.or_else(|problem| source.noted(problem, T::default()))
}
