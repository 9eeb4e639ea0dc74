//! The keys of a `[[forward]]` that speaks the Forward protocol.

use std::path::PathBuf;

use super::ForwardAddress;
use super::error::ConfigError;
use super::http::{HttpSettings, WrittenHttp};
use super::kinds::{Optional, Path, Text};
use super::secret::{FromVariable, Secret, SecretError};
use super::settings::{OnlyFor, Place, settings};
use crate::protocol::fluent::{Credentials, TagTemplate};

pub const FLUENT: OnlyFor = OnlyFor { schemes: "fluent:// or fluent+tls://", uses: ForwardAddress::is_fluent };

settings! {
    pub struct FluentKeys, written as WrittenFluent {
        /// The tag of lines.
        tag: TagTemplate = TagTemplate::default(), as Text, key "tag".only_for(FLUENT);
        /// The secret that the collector asks for, or the file with it.
        shared_key: Option<Secret> = None, as Optional(FromVariable), key "shared-key".only_for(FLUENT);
        shared_key_file: Option<PathBuf> = None, as Optional(Path), key "shared-key-file".only_for(FLUENT);
    }
}

/// The settings of a target that speaks the Forward protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluentSettings {
    pub tag: TagTemplate,
    /// Bytes of lines that are acknowledged together.
    pub batch: usize,
    pub shared_key: Option<Secret>,
    user: Option<String>,
    password: Option<Secret>,
}

impl FluentSettings {
    pub fn new(keys: &FluentKeys, shared: &HttpSettings) -> Self {
        Self {
            tag: keys.tag.clone(),
            batch: shared.batch,
            shared_key: Secret::of(&keys.shared_key, &keys.shared_key_file),
            user: shared.user.clone(),
            password: shared.password(),
        }
    }

    pub fn secrets(&self) -> [Option<Secret>; 2] {
        [self.shared_key.clone(), self.password.clone()]
    }

    /// The credentials for a collector that asks for a key. Reads files.
    pub fn credentials(&self) -> Result<Option<Credentials>, SecretError> {
        let Some(key) = &self.shared_key else { return Ok(None) };
        let password = self.password.as_ref().map(Secret::read).transpose()?;
        Ok(Some(Credentials::new(key.read()?, self.user.clone().zip(password))))
    }
}

/// Notes contradictions. `to`: the targets of the section.
pub fn check(
    fluent: &WrittenFluent,
    shared: &WrittenHttp,
    to: &[ForwardAddress],
    place: &Place<'_>,
) -> Result<(), ConfigError> {
    if !to.iter().any(ForwardAddress::is_fluent) {
        return Ok(());
    }
    let source = place.source;
    Secret::check_keys(source, (&place.path, "shared-key"), [&fluent.shared_key, &fluent.shared_key_file])?;
    Secret::check_keys(source, (&place.path, "password"), [&shared.password, &shared.password_file])?;
    let password = shared.password.first().or(shared.password_file.first());
    let has_key = fluent.shared_key.is_written() || fluent.shared_key_file.is_written();
    match (shared.user.first(), password) {
        (Some(leaf), None) => source.note(source.bad(&place.key("user"), leaf, "`user` needs `password-file`"), ()),
        (None, Some(leaf)) => source.note(source.bad(&place.key("password"), leaf, "a password needs `user`"), ()),
        (Some(leaf), _) if !has_key => {
            let says = "the Forward protocol asks for a user only where it asks for a key; write `shared-key-file`";
            source.note(source.bad(&place.key("user"), leaf, says), ())
        }
        _ => Ok(()),
    }
}
