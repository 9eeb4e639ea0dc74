//! What is wrong with a config, each thing in one line: file, line, key, what was written and what would be right.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use super::file::{Leaf, Origin};
use crate::record::append_escaped;

/// Problems of one config that are named. Who has more has another file in hand.
const MOST_PROBLEMS: usize = 100;

/// Said instead of the value, which may be a key: what is wrong with a config is logged, and mailed, and pasted.
const GIVEN_FOR_ITS_PATH: &str = "this is what is in a PEM file; write the file's name";

/// One thing that is wrong. Its text is one line for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{says}")]
pub struct ConfigError {
    says: String,
    /// Where in the file's text; what was not written there comes behind.
    at: usize,
}

/// A config that cannot be used: everything that could be found, at least one, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.joined())]
pub struct ConfigErrors(Vec<ConfigError>);

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl ConfigErrors {
    fn joined(&self) -> String {
        let says: Vec<&str> = self.0.iter().map(|error| error.says.as_str()).collect();
        says.join("; and ")
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl ConfigError {
    /// What was written is shown in it, and may hold anything: a line stays one, and a terminal is told nothing.
    fn at(at: usize, text: String) -> Self {
        let mut says = String::with_capacity(text.len());
        append_escaped(&text, &mut says);
        Self { says, at }
    }

    fn unwritten(says: String) -> Self {
        Self::at(usize::MAX, says)
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        if is_pem(&path.to_string_lossy()) {
            return Self::unwritten(format!("--config / LOGFERRY_CONFIG: {GIVEN_FOR_ITS_PATH}"));
        }
        Self::unwritten(format!(
            "{}: cannot read the config file: {error}; name another with --config or LOGFERRY_CONFIG",
            path.display()
        ))
    }

    pub(super) fn no_listener_for_tls() -> Self {
        Self::unwritten("--tls-cert, --tls-key, --tls-client-ca / LOGFERRY_TLS_…: there is no tcp://, tcp+tls:// or relp+tls:// listener to use them".to_owned())
    }

    pub(super) fn no_forward_for_tls() -> Self {
        Self::unwritten("--ca, --cert, --key, --server-name / LOGFERRY_CA, …: no forward speaks TLS; write tcp+tls:// or relp+tls://".to_owned())
    }
}

/// The text a config came from: finds the line of a value, and fills in its variables. It gathers what is wrong.
pub(super) struct Source<'a> {
    pub path: Option<&'a Path>,
    pub text: &'a str,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<ConfigError>>,
    /// Was something taken out of the file that may have been what is missing in it now?
    pub has_gaps: Cell<bool>,
}

impl<'a> Source<'a> {
    pub fn new(path: Option<&'a Path>, text: &'a str, variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { path, text, variable, problems: RefCell::default(), has_gaps: Cell::default() }
    }

    /// Notes a problem and goes on with what stands in for the value, to find what else is wrong; an error when that is
    /// enough of them.
    pub fn noted<T>(&self, problem: ConfigError, stand_in: T) -> Result<T, ConfigError> {
        let mut problems = self.problems.borrow_mut();
        if problems.len() + 1 >= MOST_PROBLEMS {
            return Err(problem);
        }
        problems.push(problem);
        Ok(stand_in)
    }

    /// What was read, if nothing was wrong with it.
    pub fn judged<T>(self, read: Result<T, ConfigError>) -> Result<T, ConfigErrors> {
        let mut problems = self.problems.into_inner();
        let read = read.map_err(|last| problems.push(last));
        problems.sort_by_key(|problem| problem.at);
        problems.dedup();
        match read {
            Ok(read) if problems.is_empty() => Ok(read),
            _ => Err(ConfigErrors(problems)),
        }
    }

    /// A value that must be there.
    pub fn value<T>(&self, key: &str, leaf: &Leaf) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.text(key, leaf)?.parse().map_err(|error: T::Err| self.bad(key, leaf, &error.to_string()))
    }

    /// A value, or its default when it was not written; also when it means nothing, which is noted.
    pub fn or<T>(&self, key: &str, leaf: &Option<Leaf>, default: T) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.or_by(leaf, default, |leaf| self.value(key, leaf))
    }

    /// The same, read in another way than by its type.
    pub fn or_by<T>(
        &self,
        leaf: &Option<Leaf>,
        default: T,
        read: impl FnOnce(&Leaf) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        match leaf.as_ref().map(read) {
            None => Ok(default),
            Some(Ok(value)) => Ok(value),
            Some(Err(problem)) => self.noted(problem, default),
        }
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
        if is_pem(&text) { Err(self.located(key, leaf, GIVEN_FOR_ITS_PATH)) } else { Ok(text) }
    }

    /// A value that means nothing, and what would.
    pub fn bad(&self, key: &str, leaf: &Leaf, says: &str) -> ConfigError {
        let written = leaf.text();
        // Parsers that quote the value themselves need not have it said twice.
        let quoted = if says.contains(&format!("`{written}`")) { String::new() } else { format!("`{written}`: ") };
        self.located(key, leaf, &format!("{quoted}{says}"))
    }

    fn located(&self, key: &str, leaf: &Leaf, says: &str) -> ConfigError {
        match &leaf.origin {
            Origin::File(span) => ConfigError::at(span.start, format!("{}: {key}: {says}", self.place(span.start))),
            Origin::Override(flag) => ConfigError::unwritten(format!("{flag}: {says}")),
        }
    }

    /// Notes what is wrong with something that has more than one value.
    pub fn wrong(&self, key: &str, at: Range<usize>, says: &str) -> Result<(), ConfigError> {
        self.noted(ConfigError::at(at.start, format!("{}: {key}: {says}", self.place(at.start))), ())
    }

    /// Notes a key that must be written in a section and is not.
    pub fn missing(&self, section: &str, at: Range<usize>, key: &str, example: &str) -> Result<(), ConfigError> {
        if self.has_gaps.get() {
            return Ok(());
        }
        let says = format!("{}: [[{section}]] has no `{key}`; write {example}", self.place(at.start));
        self.noted(ConfigError::at(at.start, says), ())
    }

    /// What the TOML parser found, in one line; for an unknown key the nearest one we know.
    pub fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        let place = error.span().map_or_else(|| self.file(), |span| self.place(span.start));
        let says =
            |says: String| ConfigError::at(error.span().map_or(0, |span| span.start), format!("{place}: {says}"));
        let message = error.message();
        if message.contains("expected a sequence") {
            // serde says neither the key nor what a sequence looks like in TOML.
            let line = error.span().and_then(|span| self.line(span.start)).unwrap_or_default();
            let key = line.trim_start_matches('[').split(['=', ']', ' ']).next().unwrap_or_default();
            return says(format!("`{key}` may be there several times: write [[{key}]] for each"));
        }
        let Some((written, known)) = unknown_key(message) else {
            let message: Vec<&str> = message.split_whitespace().collect();
            return says(message.join(" "));
        };
        let hint = match nearest(written, &known) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        says(format!("unknown key `{written}`; {hint}"))
    }

    /// The key that an unknown one was meant to be, if one is near.
    pub fn meant<'e>(&self, error: &'e toml::de::Error) -> Option<&'e str> {
        let (written, known) = unknown_key(error.message())?;
        nearest(written, &known)
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

/// Has somebody given a certificate or a key for the name of its file?
fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN")
}

/// serde's "unknown field `adress`, expected one of `address`, `cert`, …": what was written, and what is known.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut names = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((names.next().unwrap_or_default(), names.collect()))
}

fn nearest<'n>(written: &str, known: &[&'n str]) -> Option<&'n str> {
    let (distance, name) = known.iter().map(|name| (strsim::damerau_levenshtein(name, written), *name)).min()?;
    (distance <= 1 + name.len() / 3).then_some(name)
}
