//! What is wrong with a config, each thing in one line: file, line, key, what was written and what would be right.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::Path;

use super::written::{Entry, Leaf, Origin};
use crate::record::escaped;
use crate::sorted::sort_by_key;

/// Headers of HTTP that have a secret for their value.
pub const SECRET_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// Problems of one config that are named; a file with more of them is no config.
const MAX_PROBLEMS: usize = 100;

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
    /// The text quotes what was written, which may hold any byte: it stays one line and drives no terminal.
    fn at(at: usize, text: String) -> Self {
        Self { says: escaped(&text), at }
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

    pub(super) fn unreadable_tests(path: &Path, error: &std::io::Error) -> Self {
        Self::unwritten(format!("{}: cannot read the file of tests: {error}", path.display()))
    }

    pub(super) fn no_listener_for_tls() -> Self {
        Self::unwritten("--tls-cert, --tls-key, --tls-client-ca / LOGFERRY_TLS_…: there is no tcp://, tcp+tls://, relp+tls://, fluent+tls://, gelf+tls://, splunk+https:// or journal+https:// listener to use them".to_owned())
    }

    pub(super) fn no_forward_for_tls() -> Self {
        Self::unwritten("--ca, --cert, --key, --server-name / LOGFERRY_CA, …: no forward speaks TLS; write tcp+tls://, relp+tls://, https://, s3://, nats+tls://, fluent+tls:// or gelf+tls://".to_owned())
    }
}

/// The text a config came from: finds the line of a value, and fills in its variables. It gathers what is wrong.
pub struct Source<'a> {
    pub path: Option<&'a Path>,
    pub text: &'a str,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<ConfigError>>,
    /// Was something taken out of the file that may have been what is missing in it now?
    pub has_gaps: Cell<bool>,
}

impl<'a> Source<'a> {
    pub fn new(path: Option<&'a Path>, text: &'a str, variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            path,
            text,
            variable,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            has_gaps: Cell::default(),
        }
    }

    /// Notes a problem and goes on with what stands in for the value, to find what else is wrong; an error when that is
    /// enough of them.
    pub fn note<T>(&self, problem: ConfigError, stand_in: T) -> Result<T, ConfigError> {
        let mut problems = self.problems.borrow_mut();
        if problems.len() + 1 >= MAX_PROBLEMS {
            return Err(problem);
        }
        problems.push(problem);
        Ok(stand_in)
    }

    /// What was read, if nothing was wrong with it, and what to warn of.
    pub fn finish<T>(self, read: Result<T, ConfigError>) -> Result<(T, Vec<String>), ConfigErrors> {
        let mut problems = self.problems.into_inner();
        let read = read.map_err(|last| problems.push(last));
        sort_by_key(&mut problems, |problem| problem.at);
        problems.dedup();
        match read {
            Ok(read) if problems.is_empty() => {
                let mut warnings = self.warnings.into_inner();
                sort_by_key(&mut warnings, |warning| warning.at);
                Ok((read, warnings.iter().map(ToString::to_string).collect()))
            }
            _ => Err(ConfigErrors(problems)),
        }
    }

    /// What was written, with `${VAR}` filled in from the environment.
    pub fn text(&self, key: &str, leaf: &Leaf) -> Result<String, ConfigError> {
        let mut text = String::with_capacity(leaf.text.len());
        let mut rest = leaf.text.as_str();
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
        let written = &without_secret(&leaf.text);
        let says = &says.replace(&leaf.text, written);
        // Parsers that quote the value themselves need not have it said twice.
        let quoted = if says.contains(&format!("`{written}`")) { String::new() } else { format!("`{written}`: ") };
        self.located(key, leaf, &format!("{quoted}{says}"))
    }

    /// The value of a list that is spoken of is named, or the one that is empty.
    pub fn bad_among(&self, key: &str, entry: &Entry, says: &str) -> ConfigError {
        let is_meant = |leaf: &&Leaf| says.contains(&format!("`{}`", leaf.text)) || leaf.text.is_empty();
        let leaf = entry.leaves().iter().find(is_meant).or(entry.first());
        self.bad(key, leaf.expect("a list of nothing has nothing wrong in it"), says)
    }

    /// A value that is wrong, without quoting it.
    pub fn located(&self, key: &str, leaf: &Leaf, says: &str) -> ConfigError {
        match &leaf.origin {
            Origin::File(span) => ConfigError::at(span.start, format!("{}: {key}: {says}", self.place(span.start))),
            Origin::Override(flag) => ConfigError::unwritten(format!("{flag}: {says}")),
        }
    }

    /// Notes what is wrong with something that has more than one value.
    pub fn wrong(&self, key: &str, at: Range<usize>, says: &str) -> Result<(), ConfigError> {
        self.note(ConfigError::at(at.start, format!("{}: {key}: {says}", self.place(at.start))), ())
    }

    /// Notes a key that must be written in a section and is not.
    pub fn missing(&self, section: &str, at: Range<usize>, key: &str, example: &str) -> Result<(), ConfigError> {
        if self.has_gaps.get() {
            return Ok(());
        }
        let says = format!("{}: [[{section}]] has no `{key}`; write {example}", self.place(at.start));
        self.note(ConfigError::at(at.start, says), ())
    }

    /// What the TOML parser found, in one line; or that this is no TOML at all.
    pub fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        if let Some(at) = yaml_starts(self.text) {
            let says = "this is YAML, and the config is TOML: write `[[listen]]` on a line of its own, and below it `address = \
                        \"udp://0.0.0.0:514\"`; docker/logferry.toml shows each key";
            return self.problem(at, says);
        }
        let message: Vec<&str> = error.message().split_whitespace().collect();
        self.problem(error.span().unwrap_or_default(), &message.join(" "))
    }

    /// Notes a key that is not among those `known`. Returns the one that it was meant to be, if one is near.
    pub fn unknown_key(
        &self,
        written: &str,
        at: Range<usize>,
        known: &[&'static str],
    ) -> Result<Option<&'static str>, ConfigError> {
        let nearest = nearest(written, known);
        let hint = match nearest {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        self.note(self.problem(at, &format!("unknown key `{written}`; {hint}")), nearest)
    }

    /// Something that is wrong at this place.
    pub fn problem(&self, at: Range<usize>, says: &str) -> ConfigError {
        ConfigError::at(at.start, format!("{}: {says}", self.place(at.start)))
    }

    /// Notes something that is accepted and should be written otherwise.
    pub fn warn(&self, at: Range<usize>, says: &str) {
        self.note_warning(self.problem(at, says));
    }

    /// Notes a value that is accepted and means nothing.
    pub fn warn_of(&self, key: &str, leaf: &Leaf, says: &str) {
        self.note_warning(self.located(key, leaf, says));
    }

    fn note_warning(&self, warning: ConfigError) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MAX_PROBLEMS {
            warnings.push(warning);
        }
    }

    fn file(&self) -> String {
        self.path.map_or_else(|| "config".to_owned(), |path| path.display().to_string())
    }

    /// File and line of a place in the text.
    pub fn place(&self, offset: usize) -> String {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", self.file())
    }
}

/// Where the first line with content stands, if it is YAML's and never TOML's: `---`, `key:`, `key: value` or `- item`.
fn yaml_starts(text: &str) -> Option<Range<usize>> {
    let is_content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with(['#', '%']);
    let line = text.lines().find(is_content)?;
    let at = line.as_ptr() as usize - text.as_ptr() as usize;
    let content = line.trim();
    let key =
        |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let has_key =
        content.split_once(':').is_some_and(|(name, rest)| key(name) && (rest.is_empty() || rest.starts_with(' ')));
    (has_key || content == "---" || content.starts_with("- ")).then_some(at..at)
}

/// Has somebody given a certificate or a key for the name of its file?
fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN")
}

fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let (distance, name) = known.iter().map(|name| (strsim::damerau_levenshtein(name, written), *name)).min()?;
    (distance <= 1 + name.len() / 3).then_some(name)
}

/// A text as an error may show it: without the password of an address, and without what a header of HTTP has for a secret.
fn without_secret(text: &str) -> String {
    let header = text.split_once(':').map(|(name, _)| name.trim());
    if let Some(name) = header.filter(|name| SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))) {
        return format!("{name}: ***");
    }
    match text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://***@{rest}"),
        None => text.to_owned(),
    }
}
