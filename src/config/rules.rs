//! Rules as they are written: `[[drop]]` and a forward's `match`.

use super::error::Source;
use super::file::{self, Leaf, Leaves, Section};
use super::{ConfigError, MOST_RULES};
use crate::syslog::{Facilities, Patterns, Rule, Severities};

/// `[[drop]]`: lines that are not wanted at all. `listeners`: the names there are.
pub fn dropped(
    source: &Source<'_>,
    sections: &[Section<file::Rule>],
    listeners: &[&str],
) -> Result<Vec<Rule>, ConfigError> {
    let mut rules = Vec::with_capacity(sections.len());
    for section in sections {
        let rule = rule(source, "drop", section.as_ref(), listeners)?;
        if rule.means_all() {
            return Err(source.missing("drop", section.span(), "name", "what to drop, such as name = \"noisy-*\""));
        }
        if rules.len() >= MOST_RULES {
            let says = format!("fewer: {MOST_RULES} rules are the most; a key can have a list of patterns");
            return Err(source.missing("drop", section.span(), "room for another rule", &says));
        }
        rules.push(rule);
    }
    Ok(rules)
}

/// The lines of a forward.
pub fn matches(source: &Source<'_>, rules: &file::Rules, listeners: &[&str]) -> Result<Vec<Rule>, ConfigError> {
    rules.0.iter().map(|written| rule(source, "forward.match", written, listeners)).collect()
}

fn rule(source: &Source<'_>, at: &str, written: &file::Rule, listeners: &[&str]) -> Result<Rule, ConfigError> {
    let patterns = |key: &str, leaves: &Leaves| {
        let texts = texts(source, &format!("{at}.{key}"), leaves)?;
        Patterns::new(texts).map_err(|error| bad(source, &format!("{at}.{key}"), leaves, &error.to_string()))
    };
    let listener = patterns("listener", &written.listener)?;
    let unknown = |pattern: &&String| !pattern.contains(['*', '?']) && !listeners.contains(&pattern.as_str());
    if let Some(name) = listener.any_of().iter().find(unknown) {
        let says = format!("no [[listen]] has `name = \"{name}\"`");
        return Err(bad(source, &format!("{at}.listener"), &written.listener, &says));
    }
    let (facility, severity) = (format!("{at}.facility"), format!("{at}.severity"));
    Ok(Rule {
        image: patterns("image", &written.image)?,
        name: patterns("name", &written.name)?,
        app: patterns("app", &written.app)?,
        host: patterns("host", &written.host)?,
        listener,
        facility: Facilities::new(texts(source, &facility, &written.facility)?)
            .map_err(|error| bad(source, &facility, &written.facility, &error.to_string()))?,
        severity: Severities::new(texts(source, &severity, &written.severity)?)
            .map_err(|error| bad(source, &severity, &written.severity, &error.to_string()))?,
    })
}

fn texts(source: &Source<'_>, key: &str, leaves: &Leaves) -> Result<Vec<String>, ConfigError> {
    leaves.0.iter().map(|leaf| source.text(key, leaf)).collect()
}

/// Of a list, the value that is spoken of, or the one that is empty.
fn bad(source: &Source<'_>, key: &str, leaves: &Leaves, says: &str) -> ConfigError {
    let meant = |leaf: &&Leaf| says.contains(&format!("`{}`", leaf.text())) || leaf.text().is_empty();
    let leaf = leaves.0.iter().find(meant).or(leaves.0.first()).expect("an empty list has nothing wrong in it");
    source.bad(key, leaf, says)
}
