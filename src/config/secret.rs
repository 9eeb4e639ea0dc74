//! Secrets: tokens and passwords. A secret never prints. It does not stand in the config file either, which is shown, mailed
//! and kept in repositories: a key `token` takes it from a variable, a key `token-file` names the file that it is in.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::effective::Item;
use super::error::{ConfigError, Source};
use super::kinds::{Kind, Value};
use super::written::Entry;
use crate::files;

/// The text that is shown instead of a secret.
const HIDDEN: &str = "***";
/// The largest file with a secret in it, in bytes. Tokens have up to some thousand.
const MAX_FILE: u64 = 64 * 1024;

/// A token or a password. `Debug` and `Display` say `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Origin);

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Value(String),
    File(PathBuf),
}

/// Why there is no secret. A variable always has one.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{}: cannot read the secret in it: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: there is no secret in it", path.display())]
    Empty { path: PathBuf },
}

impl From<SecretError> for io::Error {
    fn from(error: SecretError) -> Self {
        match &error {
            SecretError::Unreadable { source, .. } => Self::new(source.kind(), error),
            SecretError::Empty { .. } => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

impl Secret {
    /// Makes one secret of what the keys `name` and `name-file` say.
    pub fn of(value: &Option<Self>, file: &Option<PathBuf>) -> Option<Self> {
        value.clone().or_else(|| file.clone().map(|path| Self(Origin::File(path))))
    }

    /// A secret that is known already, as a part of something larger.
    pub fn hidden(value: String) -> Self {
        Self(Origin::Value(value))
    }

    /// Notes that both keys are written. `section`: where they stand.
    pub fn check_keys(
        source: &Source<'_>,
        (section, name): (&str, &str),
        [value, file]: [&Entry; 2],
    ) -> Result<(), ConfigError> {
        if let (Some(_), Some(leaf)) = (value.first(), file.first()) {
            let says = format!("`{name}` is there too; take one of them out");
            source.note(source.bad(&format!("{section}.{name}-file"), leaf, &says), ())?;
        }
        Ok(())
    }

    /// The file that it is in, if it is in one.
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Origin::Value(_) => None,
            Origin::File(path) => Some(path),
        }
    }

    /// What a variable or a file has.
    fn reveal(&self) -> io::Result<String> {
        match &self.0 {
            Origin::Value(value) => Ok(value.clone()),
            Origin::File(path) => {
                let mut text = files::read_text(path, MAX_FILE)?;
                text.truncate(text.trim_end().len());
                Ok(text)
            }
        }
    }

    /// The secret itself, which is more than blanks. A file is read anew each time, so that one that was renewed counts at once; blanks
    /// and newlines at its end are the editor's.
    pub fn read(&self) -> Result<String, SecretError> {
        let path = || self.file().map(Path::to_owned).unwrap_or_default();
        let text = self.reveal().map_err(|source| SecretError::Unreadable { path: path(), source })?;
        if text.trim_ascii().is_empty() { Err(SecretError::Empty { path: path() }) } else { Ok(text) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A secret that is written as `"${VARIABLE}"` and in no other way. No error shows what was written.
pub struct FromVariable;

impl Kind<Secret> for FromVariable {
    fn read(&self, value: &Value<'_>) -> Result<Secret, ConfigError> {
        let Value { source, key, entry } = value;
        let leaf = entry.first().expect("what is read was written");
        let bad = |says: String| source.located(key, leaf, &says);
        let name = leaf.text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Some(name) = name.filter(is_name).filter(|_| !entry.is_list()) else {
            let file = key.rsplit('.').next().unwrap_or_default();
            let says = "a secret does not stand in this file; write \"${VARIABLE}\" and set that variable, or write";
            return Err(bad(format!("{says} {file}-file = \"/run/secrets/{file}\"")));
        };
        match (source.variable)(name) {
            Some(secret) if !secret.is_empty() => Ok(Secret(Origin::Value(secret))),
            Some(_) => Err(bad(format!("the variable {name} is empty"))),
            None => Err(bad(format!("the variable {name} is not set"))),
        }
    }

    fn display(&self, _: &Secret) -> Item {
        Item::Text(HIDDEN.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::effective::Table;
    use super::super::error::ConfigErrors;
    use super::super::kinds::{self, Optional};
    use super::super::settings::{Place, Settings, settings};
    use super::super::written;
    use super::*;

    settings! {
        /// As a destination that wants a token will say it.
        struct Trial, written as WrittenTrial {
            token: Option<Secret> = None, as Optional(FromVariable), key "token";
            token_file: Option<PathBuf> = None, as Optional(kinds::Path), key "token-file";
        }
    }

    const TOKEN: &str = "hunter2";

    fn read(text: &str) -> Result<(Trial, Option<Secret>), ConfigErrors> {
        let variable = |name: &str| match name {
            "TOKEN" => Some(TOKEN.to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let source = Source::new(Some(Path::new("/etc/x.toml")), text, &variable);
        let mut file = WrittenTrial::default();
        let place = Place { source: &source, path: "forward".to_owned(), span: 0..0 };
        let read = written::read(&source, &mut file).and_then(|()| {
            let trial = Trial::read(&file, &place)?;
            Secret::check_keys(&source, ("forward", "token"), [&file.token, &file.token_file])?;
            let secret = Secret::of(&trial.token, &trial.token_file);
            Ok((trial, secret))
        });
        source.finish(read).map(|(read, _)| read)
    }

    #[test]
    fn a_variable_is_a_secret_that_never_prints() {
        let (trial, secret) = read("token = \"${TOKEN}\"").expect("good");
        let secret = secret.expect("a secret");
        assert_eq!(secret.reveal().expect("no file"), TOKEN);
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "*** *** ***");
        let shown = Table::of(&trial).to_toml();
        assert_eq!(shown, "token = \"***\"\n");
        assert!(!format!("{trial:?}").contains(TOKEN) && format!("{trial:?}").contains("***"), "{trial:?}");
    }

    #[test]
    fn a_file_is_read_when_the_secret_is_needed() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let path = dir.path().join("token");
        let (trial, secret) = read(&format!("token-file = \"{}\"", path.display())).expect("good");
        let secret = secret.expect("a secret");
        assert!(secret.reveal().is_err(), "it is not there yet");
        for token in ["first", "second"] {
            std::fs::write(&path, format!("{token}\r\n")).expect("written");
            assert_eq!(secret.reveal().expect("a file"), token);
        }
        assert_eq!(Table::of(&trial).to_toml(), format!("token-file = \"{}\"\n", path.display()));
        assert_eq!(format!("{secret:?}"), "***");
    }

    /// Whatever is wrong with it, and wherever: what is said is logged, mailed and pasted.
    #[test]
    fn no_error_shows_a_secret() {
        for text in [
            "token = \"hunter2\"",
            "token = \"a ${TOKEN}\"",
            "token = \"${TOKEN}${TOKEN}\"",
            "token = \"hunter2${\"",
            "token = \"${hunter2 }\"",
            "token = [\"hunter2\"]",
            "token = [\"${TOKEN}\"]",
            "token = { hunter2 = 1 }",
            "token = hunter2",
            "token = \"hunter2",
            "token = \"\\hunter2\"",
            "token = \"hunter2\" hunter2",
            "tokn = \"hunter2\"",
            "something-else = \"hunter2\"",
            "token = \"${TOKEN}\"\ntoken-file = \"/a\"",
            "token = \"${EMPTY}\"",
            "token = \"${UNSET}\"",
            "token = 1.4142135",
            "token = 14142135",
        ] {
            let errors = read(text).expect_err(text);
            let said = format!("{errors} {errors:?}");
            assert!(!said.contains(TOKEN) && !said.contains("4142"), "{text}: {said}");
        }
        let refused = |text: &str, says: &str| assert_eq!(read(text).expect_err(text).to_string(), says);
        refused(
            "token = \"hunter2\"",
            "/etc/x.toml:1: forward.token: a secret does not stand in this file; write \"${VARIABLE}\" and set that \
             variable, or write token-file = \"/run/secrets/token\"",
        );
        refused("token = \"${EMPTY}\"", "/etc/x.toml:1: forward.token: the variable EMPTY is empty");
        refused(
            "token = \"${TOKEN}\"\ntoken-file = \"/a\"",
            "/etc/x.toml:2: forward.token-file: `/a`: `token` is there too; take one of them out",
        );
    }
}
