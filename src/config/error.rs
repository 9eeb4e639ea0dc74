//! The problems of a config, each on one line: file, line, key, the written value, and what would be right.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::Path;

use super::written::{Entry, Leaf, Origin};
use crate::record::escaped;
use crate::sorted::sort_by_key;

/// HTTP headers whose value is a secret.
pub const SECRET_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// The maximum number of problems that are reported. Reading ends with the last of them.
const MAX_PROBLEMS: usize = 100;

/// Used in place of the value, which may be a private key: error messages are logged, mailed and pasted.
const GIVEN_FOR_ITS_PATH: &str = "this is what is in a PEM file; write the file's name";

/// One problem. Its text is one line for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{says}")]
pub struct ConfigError {
    says: String,
    /// The offset in the file's text. Problems that are not in the file come last.
    at: usize,
}

/// All problems that were found in an unusable config, at least one, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.joined())]
pub struct ConfigErrors(Vec<ConfigError>);

/// The names that exist, for an error about a name that does not.
pub fn known_names(names: &[&str]) -> String {
    if names.is_empty() { "none has one".to_owned() } else { names.join(", ") }
}

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
    /// The text may quote any bytes of the config. They are escaped, so that the text stays one line and cannot drive a terminal.
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

/// The text of a config. It finds the line of a value, fills in variables, and collects problems.
pub struct Source<'a> {
    pub path: Option<&'a Path>,
    pub text: &'a str,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<ConfigError>>,
    /// Was a part of the file skipped? A key that seems to be missing may be in that part.
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

    /// Notes a problem, and goes on with a stand-in for the value, in order to find further problems. An error: there are too
    /// many problems.
    pub fn note<T>(&self, problem: ConfigError, stand_in: T) -> Result<T, ConfigError> {
        let mut problems = self.problems.borrow_mut();
        if problems.len() + 1 >= MAX_PROBLEMS {
            return Err(problem);
        }
        problems.push(problem);
        Ok(stand_in)
    }

    /// The result and its warnings, or the problems if there are any.
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

    /// The written text, with `${VAR}` filled in from the environment.
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

    /// A problem with a value that cannot be used. `says`: what would be right.
    pub fn bad(&self, key: &str, leaf: &Leaf, says: &str) -> ConfigError {
        let written = &without_secret(&leaf.text);
        let says = &says.replace(&leaf.text, written);
        // Some parsers quote the value themselves, so that it need not be quoted again.
        let quoted = if says.contains(&format!("`{written}`")) { String::new() } else { format!("`{written}`: ") };
        self.located(key, leaf, &format!("{quoted}{says}"))
    }

    /// A problem with a list. It quotes the value that `says` quotes or that is empty, or else the first.
    pub fn bad_among(&self, key: &str, entry: &Entry, says: &str) -> ConfigError {
        let is_meant = |leaf: &&Leaf| says.contains(&format!("`{}`", leaf.text)) || leaf.text.is_empty();
        let leaf = entry.leaves().iter().find(is_meant).or(entry.first());
        self.bad(key, leaf.expect("a list of nothing has nothing wrong in it"), says)
    }

    /// A problem with a value that must not be quoted.
    pub fn located(&self, key: &str, leaf: &Leaf, says: &str) -> ConfigError {
        match &leaf.origin {
            Origin::File(span) => ConfigError::at(span.start, format!("{}: {key}: {says}", self.place(span.start))),
            Origin::Override(flag) => ConfigError::unwritten(format!("{flag}: {says}")),
        }
    }

    /// Notes a problem that has no single value.
    pub fn wrong(&self, key: &str, at: Range<usize>, says: &str) -> Result<(), ConfigError> {
        self.note(ConfigError::at(at.start, format!("{}: {key}: {says}", self.place(at.start))), ())
    }

    /// Notes that a section lacks a required key.
    pub fn missing(&self, section: &str, at: Range<usize>, key: &str, example: &str) -> Result<(), ConfigError> {
        if self.has_gaps.get() {
            return Ok(());
        }
        let says = format!("{}: [[{section}]] has no `{key}`; write {example}", self.place(at.start));
        self.note(ConfigError::at(at.start, says), ())
    }

    /// The error of the TOML parser on one line, with a hint for usual mistakes.
    pub fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        if let Some(at) = yaml_starts(self.text) {
            let says = "this is YAML, and the config is TOML: write `[[listen]]` on a line of its own, and below it `address = \
                        \"udp://0.0.0.0:514\"`; docker/logferry.toml shows each key";
            return self.problem(at, says);
        }
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        let hint = match &*message {
            _ if self.text.trim_start().starts_with('{') => {
                "; this is JSON, and the config is TOML: docker/logferry.toml shows each key"
            }
            text if text.contains("duplicate key") => "; write [[listen]] and [[forward]] for each of several",
            text if text.contains("must be quoted") => "; write the value in quotes",
            text if text.contains("escape") => "; write a pattern in single quotes, which leave backslashes alone",
            _ => "",
        };
        self.problem(error.span().unwrap_or_default(), &(message + hint))
    }

    /// Notes an unknown key. Returns the nearest of the keys that are `known`, if one is near.
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

    /// A problem at a place in the text.
    pub fn problem(&self, at: Range<usize>, says: &str) -> ConfigError {
        ConfigError::at(at.start, format!("{}: {says}", self.place(at.start)))
    }

    /// Warns of something that is accepted, but should be written in another way.
    pub fn warn(&self, at: Range<usize>, says: &str) {
        self.note_warning(self.problem(at, says));
    }

    /// Warns of a value that is accepted, but has no effect.
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

    /// File and line of an offset in the text.
    pub fn place(&self, offset: usize) -> String {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", self.file())
    }
}

/// The offset of the first line with content, if that line is YAML and cannot be TOML: `---`, `key:`, `key: value` or `- item`.
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

/// Is this the content of a PEM file, given in place of its name?
fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN")
}

fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let (distance, name) = known.iter().map(|name| (strsim::damerau_levenshtein(name, written), *name)).min()?;
    // Of a short key more is needed than letters that are all different.
    (distance <= 1 + name.len() / 4 && distance < written.len().min(name.len())).then_some(name)
}

/// The text without secrets, for an error message: without the password of an address, and without the value of a secret HTTP
/// header.
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
