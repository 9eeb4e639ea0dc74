//! Settings: every key with its type, unit, default and limits. A [`Config`] that exists is valid.
//!
//! Each section declares its keys once (`settings!` in `settings`): the meaning of a key, how it is written (`kinds`), its
//! default, its flag, its old name, and whether it needs a restart. The declaration determines how a file is read
//! (`written`), which flags and variables override it (`overrides`), what `check` prints (`effective`), and which keys
//! docker/logferry.toml must contain (tests/it/tidy.rs). Problems are collected (`error`), so that one reading reports all of
//! them. Only the config file is read: no certificate, no socket, no name server.

mod address;
mod aws;
mod effective;
mod error;
mod expectations;
mod fields;
mod fluent;
mod forward;
mod http;
mod kinds;
mod listen;
mod multiline;
mod nats;
mod overrides;
mod peer;
pub mod properties;
mod proxy;
mod rules;
mod secret;
mod sections;
mod settings;
mod shape;
mod spool;
mod syslog;
mod written;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub use address::{
    Destination, ForwardAddress, ForwardProtocol, Host, HostPort, ListenAddress, ListenTransport, ReachedListener,
    Transport,
};
pub use aws::AwsSettings;
pub use effective::displayed_size;
pub use error::{ConfigError, ConfigErrors, known_names};
pub use expectations::{Expect, ExpectedLine, Outcome, Part, Test};
pub use forward::{ClientTls, DeliverySettings, FileSettings, Forward, Framing, GelfSettings, Target};
pub use http::{Api, HttpSettings};
pub use listen::{DEFAULT_LISTEN, DEFAULT_MAX_FRAME, DEFAULT_RECEIVE_BUFFER, Limits, Listen, ServerTls, listening};
pub use multiline::Multiline;
pub use nats::{NatsLogin, NatsTarget};
pub use overrides::Overrides;
pub use peer::{Fingerprint, PeerName};
pub use proxy::Proxy;
pub use rules::{MAX_RULES, Sample, intake_rules};
pub use secret::{Secret, SecretError};
pub use sections::{Admin, DEFAULT_ADMIN, Log, LogFormat, LogLevel, ReadyCheck, Resolve};
pub use spool::{DEFAULT_SPOOL_DIR, MIN_SPOOL_SIZE, Spool};
pub use syslog::{DEFAULT_SD_ID, Rate, Syslog};

use crate::files;
pub use crate::protocol::session::Protocol;
use crate::protocol::syslog::Settings;
use crate::record::Rule;
use crate::record::template::AddedField;
use crate::shape::Mask;
use error::Source;
use fields::AddedFields;
use kinds::{Special, Time};
use settings::settings;
use shape::{MaskAt, MaskSection, MaskSettings};

/// The config file that is read if it exists and `--config` names none.
pub const DEFAULT_FILE: &str = "/etc/logferry.toml";

/// The default of `grace`: below Docker's 10 s between SIGTERM and SIGKILL.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// The default of `latency`. A shorter one saves less, and one below half a millisecond nothing.
const DEFAULT_LATENCY: Duration = Duration::from_millis(2);
/// With more the kernel's buffers would have to hold much.
const MAX_LATENCY: Duration = Duration::from_millis(100);

settings! {
    /// The whole configuration. It is valid.
    pub struct Config, written as File {
        /// HOSTNAME for messages that carry none.
        hostname: String = own_hostname(), as Special { read: hostname, display: String::clone }, key "hostname".flag(
            "hostname", "LOGFERRY_HOSTNAME", "NAME", "Host name for messages that carry none [default: this machine's]",
        );
        /// Fields that are added to the lines of all forwards, unless a line has a field of the name.
        fields: Vec<AddedField> = Vec::new(), as AddedFields, key "fields".takes_table();
        /// How long a stopping relay continues to send spooled lines.
        grace: Duration = DEFAULT_GRACE, as Time, key "grace";
        /// What gathering messages adds to their way on average, while many come; zero: nobody waits for others.
        latency: Duration = DEFAULT_LATENCY, as Special { read: latency, display: display_latency }, key "latency";
    }
    derived {
        /// Warnings of settings that are accepted, but should be written in another way: one line for each, with its place.
        warnings: Vec<String> = |_: &File| Vec::new();
    }
    sections {
        syslog: Syslog, key "syslog";
        spool: Spool, key "spool";
        resolve: Resolve, key "resolve";
        admin: Admin, key "admin";
        log: Log, key "log";
    }
    lists {
        listen: Listen, key "listen", or_alone false;
        /// Lines that match one of these rules are dropped before the spool.
        drop: Rule, key "drop", or_alone false;
        /// Of the lines that match one of these rules, only one in `one-of` is kept.
        sample: Sample, key "sample", or_alone false;
        /// Masks for all lines.
        mask: MaskSection, key "mask", or_alone false;
        forward: Forward, key "forward", or_alone false;
    }
}

impl Config {
    /// Reads the config file that the overrides name, or [`DEFAULT_FILE`] if it exists, and applies the overrides.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let Some(path) = overrides.file().map(Path::new) else {
            return Self::parse(None, "", overrides, &env_variable);
        };
        let text = files::read_text(path, files::MAX_BYTES).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(Some(path), &text, overrides, &env_variable)
    }

    /// Reads a file of tests for this configuration. `protocols`: the legal words for `as`.
    pub fn load_tests(&self, path: &Path, protocols: &[&'static str]) -> Result<Vec<Test>, ConfigErrors> {
        let text = files::read_text(path, files::MAX_BYTES);
        let text = text.map_err(|error| ConfigError::unreadable_tests(path, &error))?;
        expectations::parse_tests(path, &text, self, protocols)
    }

    /// Reads only `[admin] listen`, for commands that ask a running relay. The relay keeps its config when the file becomes
    /// invalid, so that valid parts of an invalid file are used. If there are none, the default is used.
    pub fn admin_address(overrides: &Overrides) -> Option<SocketAddr> {
        let text = overrides
            .file()
            .and_then(|path| files::read_text(Path::new(path), files::MAX_BYTES).ok())
            .unwrap_or_default();
        let read = |text: &str| Self::from_source(&Source::new(None, text, &env_variable), overrides);
        let read = read(&text).or_else(|_| read(""));
        read.map_or_else(|_| DEFAULT_ADMIN.parse().ok(), |config| config.admin.listen)
    }

    /// Parses the text of a config file. `variable` returns the values of `${VAR}`. The error reports all problems.
    pub fn parse(
        path: Option<&Path>,
        text: &str,
        overrides: &Overrides,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let source = Source::new(path, text, variable);
        let read = Self::from_source(&source, overrides);
        source.finish(read).map(|(config, warnings)| Self { warnings, ..config })
    }

    fn from_source(source: &Source<'_>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut file = File::default();
        written::read(source, &mut file)?;
        overrides.apply(source, &mut file)?;
        let place = settings::Place { source, path: String::new(), span: 0..0 };
        let mut config = <Self as settings::Settings>::read(&file, &place)?;
        listen::check(source, &file.listen, &config.listen)?;
        rules::check_dropped(source, &file.drop, &config.drop, &config.listen)?;
        rules::check_samples(source, &file.sample, &config.sample, &config.listen)?;
        shape::check_mask_sections(&file.mask, source)?;
        sections::check_resolve(source, &file.resolve, &config.resolve)?;
        sections::check_admin(source, &file.admin, &config.admin)?;
        forward::check(source, &file.forward, &config.forward)?;
        for ((_, section), forward) in file.forward.sections.iter().zip(&config.forward) {
            rules::check_matches(source, &section.matches, &forward.matches, &config.listen)?;
        }
        let Self { fields, listen, drop, sample, mask, forward, .. } = &mut config;
        let shared: Vec<MaskSettings> = of_place(mask, MaskAt::Forward).cloned().collect();
        for forward in forward.iter_mut() {
            forward.shared_masks.clone_from(&shared);
            forward.global_fields.clone_from(fields);
        }
        listen::decide_marks(
            listen,
            intake_rules(drop, sample).chain(forward.iter().flat_map(|forward| &forward.matches)),
        );
        Ok(config)
    }

    /// Whether a relay with this configuration can change to `new` without a restart. The error names a key that needs one.
    pub fn needs_no_restart(&self, new: &Self) -> Result<(), String> {
        let mut changed = Vec::new();
        settings::Settings::need_restart(self, new, "", &mut changed);
        match changed.first() {
            Some(key) => Err(format!("{key} has changed, and that needs a restart")),
            None => Ok(()),
        }
    }

    /// The settings for reading and rendering messages.
    pub fn syslog_settings(&self) -> Settings {
        Settings {
            hostname: self.hostname.clone(),
            tag_templates: self.syslog.tag_templates.clone(),
            sd_id: self.syslog.sd_id.clone(),
            time_zone: self.syslog.time_zone.clone(),
        }
    }

    /// The masks that are applied before a line is spooled.
    pub fn intake_masks(&self) -> Vec<Mask> {
        of_place(&self.mask, MaskAt::Intake).flat_map(MaskSettings::masks).collect()
    }

    /// The effective settings as a config file, with defaults filled in.
    pub fn to_toml(&self) -> String {
        effective::Table::of(self).to_toml()
    }
}

fn of_place(sections: &[MaskSection], at: MaskAt) -> impl Iterator<Item = &MaskSettings> {
    sections.iter().filter(move |section| section.at == at).map(|section| &section.mask)
}

fn env_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads a host name: at most 255 printable ASCII characters, no blanks (RFC 5424 6.2.4).
fn hostname(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a host name is 1 to 255 printable ASCII characters without blanks".to_owned())
    }
}

/// Reads what gathering messages may add to their way.
fn latency(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(latency) if latency <= MAX_LATENCY => Ok(latency),
        _ => Err("write a time up to 100ms, with its unit: \"2ms\"; \"0\" for none".to_owned()),
    }
}

fn display_latency(latency: &Duration) -> String {
    match latency.is_zero() {
        true => "0".to_owned(),
        false => humantime::format_duration(*latency).to_string(),
    }
}

fn own_hostname() -> String {
    let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    own.and_then(|name| hostname(&name).ok()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests;
