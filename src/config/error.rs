//! What is wrong with a config, in one line: file, line, key, what was written and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use super::file::{Leaf, Origin};

/// A config that cannot be used. Its text is one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self(format!("{}: cannot read the config file: {error}", path.display()))
    }

    pub(super) fn no_listener_for_tls() -> Self {
        Self("--tls-cert, --tls-key, --tls-client-ca / LOGFERRY_TLS_…: there is no tcp://, tcp+tls:// or relp+tls:// listener to use them".to_owned())
    }

    pub(super) fn no_forward_for_tls() -> Self {
        Self("--ca, --cert, --key, --server-name / LOGFERRY_CA, …: no forward speaks TLS; write tcp+tls:// or relp+tls://".to_owned())
    }
}

/// The text a config came from: finds the line of a value, and fills in its variables.
pub(super) struct Source<'a> {
    pub path: Option<&'a Path>,
    pub text: &'a str,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    /// A value that must be there.
    pub fn value<T>(&self, key: &str, leaf: &Leaf) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.text(key, leaf)?.parse().map_err(|error: T::Err| self.bad(key, leaf, &error.to_string()))
    }

    /// A value, or its default when it was not written.
    pub fn or<T>(&self, key: &str, leaf: &Option<Leaf>, default: T) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        leaf.as_ref().map_or(Ok(default), |leaf| self.value(key, leaf))
    }

    /// What was written, with `${VAR}` filled in from the environment.
    pub fn text(&self, key: &str, leaf: &Leaf) -> Result<String, ConfigError> {
        let written = leaf.text();
        let mut text = String::with_capacity(written.len());
        let mut rest = written.as_str();
        while let Some(start) = rest.find("${") {
            let after = &rest[start + 2..];
            let Some(end) = after.find('}') else {
                return Err(self.bad(key, leaf, "`${` has no `}`"));
            };
            let name = &after[..end];
            let Some(value) = (self.variable)(name) else {
                return Err(self.bad(key, leaf, &format!("the variable {name} is not set")));
            };
            text.push_str(&rest[..start]);
            text.push_str(&value);
            rest = &after[end + 1..];
        }
        text.push_str(rest);
        Ok(text)
    }

    /// A value that means nothing, and what would.
    pub fn bad(&self, key: &str, leaf: &Leaf, says: &str) -> ConfigError {
        let written = leaf.text();
        // Parsers that quote the value themselves need not have it said twice.
        let quoted = if says.contains(&format!("`{written}`")) { String::new() } else { format!("`{written}`: ") };
        match &leaf.origin {
            Origin::File(span) => ConfigError(format!("{}: {key}: {quoted}{says}", self.place(span.start))),
            Origin::Override(flag) => ConfigError(format!("{flag}: {quoted}{says}")),
        }
    }

    /// A key that must be written in a section.
    pub fn missing(&self, section: &str, at: Range<usize>, key: &str, example: &str) -> ConfigError {
        ConfigError(format!("{}: [[{section}]] has no `{key}`; write {example}", self.place(at.start)))
    }

    /// What the TOML parser found, in one line; for an unknown key the nearest one we know.
    pub fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        let place = error.span().map_or_else(|| self.file(), |span| self.place(span.start));
        let message = error.message();
        if message.contains("expected a sequence") {
            // serde says neither the key nor what a sequence looks like in TOML.
            let line = error.span().and_then(|span| self.line(span.start)).unwrap_or_default();
            let key = line.trim_start_matches('[').split(['=', ']', ' ']).next().unwrap_or_default();
            return ConfigError(format!("{place}: `{key}` may be there several times: write [[{key}]] for each"));
        }
        // serde: unknown field `adress`, expected one of `address`, `cert`, …
        let Some(list) = message.strip_prefix("unknown field ") else {
            let message: Vec<&str> = message.split_whitespace().collect();
            return ConfigError(format!("{place}: {}", message.join(" ")));
        };
        let mut names = list.split('`').skip(1).step_by(2);
        let written = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(name, written), *name)).min();
        let hint = match nearest {
            Some((distance, name)) if distance <= 1 + name.len() / 3 => format!("did you mean `{name}`?"),
            _ => format!("known here: {}", known.join(", ")),
        };
        ConfigError(format!("{place}: unknown key `{written}`; {hint}"))
    }

    fn file(&self) -> String {
        self.path.map_or_else(|| "config".to_owned(), |path| path.display().to_string())
    }

    /// The line of the file that an offset is in.
    fn line(&self, offset: usize) -> Option<&str> {
        let start = self.text.get(..offset)?.rfind('\n').map_or(0, |newline| newline + 1);
        self.text.get(start..)?.lines().next()
    }

    fn place(&self, offset: usize) -> String {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", self.file())
    }
}
