//! Secrets: tokens and passwords. A secret never prints. It must not be in the config file, which is shown, mailed and kept
//! in repositories: a key `token` takes it from a variable, a key `token-file` names the file with it.

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
/// The maximum size of a file with a secret, in bytes. Tokens have up to a few thousand.
const MAX_FILE: u64 = 64 * 1024;

/// A token or a password. `Debug` and `Display` say `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Origin);

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Value(String),
    File(PathBuf),
}

/// Why a secret cannot be read. Only files cause errors: a variable is read with the config.
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
    /// The secret of the keys `name` and `name-file`.
    pub fn of(value: &Option<Self>, file: &Option<PathBuf>) -> Option<Self> {
        value.clone().or_else(|| file.clone().map(|path| Self(Origin::File(path))))
    }

    /// A secret whose value is known already, for example as part of a larger value.
    pub fn hidden(value: String) -> Self {
        Self(Origin::Value(value))
    }

    /// Notes that both keys are set. `section`: the section of the keys.
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

    /// The file with the secret, if there is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Origin::Value(_) => None,
            Origin::File(path) => Some(path),
        }
    }

    /// The content of the variable or file.
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

    /// The secret. It is never blank. A file is read each time, so that a new secret is used at once. Blanks and newlines at
    /// its end are removed, because editors add them.
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

/// A secret that must be written as `"${VARIABLE}"`. Errors do not quote the written value.
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
        /// The declaration of a token, as a destination has it.
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

    /// Error messages are logged, mailed and pasted, so that no problem with a secret may quote it.
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
