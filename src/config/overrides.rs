//! Flags and variables that set values without a config file. Flags of settings are declared with their keys. The flags here
//! name sections. This module applies flags and variables to the config.
//!
//! Precedence: flag, then variable, then the config file, then the default. A list from a flag or variable replaces the
//! file's list.

use std::collections::BTreeMap;
use std::path::Path;

use clap::builder::ArgAction;
use clap::{Arg, ArgMatches, Command};

use super::error::{ConfigError, Source};
use super::settings::{Flag, Key};
use super::written::{Entry, Inside, Leaf, List, Written};
use super::{DEFAULT_FILE, DEFAULT_LISTEN, File, ForwardAddress, ListenAddress, forward, listen};

/// The values from the command line and from variables.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    config: Option<String>,
    listen: Vec<String>,
    forward: Vec<String>,
    /// The values of keys, by the names of their flags.
    values: BTreeMap<&'static str, String>,
}

impl Overrides {
    /// The config file: the named one, or the default one if it exists.
    pub fn file(&self) -> Option<&str> {
        // Compose passes an unset variable as an empty one.
        let named = self.config.as_deref().filter(|path| !path.is_empty());
        named.or_else(|| Path::new(DEFAULT_FILE).exists().then_some(DEFAULT_FILE))
    }

    /// The overrides for another reading of the config. If the config file has disappeared, that reading fails. It must not
    /// continue without a config file.
    pub fn again(self) -> Self {
        Self { config: self.file().map(str::to_owned), ..self }
    }

    /// Replaces the config file.
    pub fn with_file(self, config: Option<String>) -> Self {
        Self { config, ..self }
    }

    /// Takes the names of forwards out of `--forward`. A URL has a colon, a name has none.
    pub fn take_forward_names(&mut self) -> Vec<String> {
        let given_here = std::mem::take(&mut self.forward);
        let (urls, names): (Vec<_>, Vec<_>) = given_here.into_iter().partition(|item| item.contains(':'));
        self.forward = urls;
        given(&names).into_iter().map(str::to_owned).collect()
    }

    /// Adds the value of a flag. `flag`: its name without hyphens.
    pub fn with(mut self, flag: &str, value: Option<String>) -> Self {
        let flag = flags().into_iter().find(|known| known.name == flag);
        if let (Some(flag), Some(value)) = (flag, value) {
            self.values.insert(flag.name, value);
        }
        self
    }

    /// Applies the flags and variables to the sections of the file.
    pub(super) fn apply(&self, source: &Source<'_>, file: &mut File) -> Result<(), ConfigError> {
        let (urls, targets) = (given(&self.listen), given(&self.forward));
        if !urls.is_empty() {
            warn_of_replaced(source, &file.listen, "--listen or LOGFERRY_LISTEN takes the place of each [[listen]]");
            file.listen = listen::listeners("--listen / LOGFERRY_LISTEN", urls);
        } else if file.listen.sections.is_empty() {
            file.listen = listen::listeners("the default listeners", DEFAULT_LISTEN);
        }
        if !targets.is_empty() {
            warn_of_replaced(
                source,
                &file.forward,
                "--forward or LOGFERRY_FORWARD takes the place of each [[forward]]",
            );
            file.forward = forward::unwritten("--forward / LOGFERRY_FORWARD", None, &targets);
        } else if file.forward.sections.is_empty() {
            file.forward = forward::unwritten("the default forward", Some("stdout"), &["stdout:"]);
        }
        self.set_all(file);
        self.apply_to_listeners(source, file)?;
        self.apply_to_forwards(source, file)
    }

    /// The TLS files apply to every listener that can use a certificate.
    fn apply_to_listeners(&self, source: &Source<'_>, file: &mut File) -> Result<(), ConfigError> {
        let sections = file.listen.sections.iter_mut().map(|(_, section)| section);
        let mut on_tcp = sections.filter(|section| listen::section_takes_tls(source, section)).peekable();
        if on_tcp.peek().is_none() && self.names(&listen::WrittenServerTls::default()) {
            source.note(ConfigError::no_listener_for_tls(), ())?;
        }
        on_tcp.for_each(|section| self.set(&mut section.tls, &|_| true));
        Ok(())
    }

    /// Each key applies to every forward that uses it.
    fn apply_to_forwards(&self, source: &Source<'_>, file: &mut File) -> Result<(), ConfigError> {
        let mut speaks_tls = false;
        for (_, section) in &mut file.forward.sections {
            let mut used = Vec::new();
            section.each(&mut |key, _| {
                if forward::section_uses(source, section, key.only_for) {
                    used.push(key.name);
                }
            });
            speaks_tls |= used.contains(&"ca");
            self.set(section, &|key| used.contains(&key.name));
        }
        if !speaks_tls && self.names(&forward::WrittenClientTls::default()) {
            source.note(ConfigError::no_forward_for_tls(), ())?;
        }
        Ok(())
    }

    /// Whether a flag or a variable sets one of these keys.
    fn names(&self, keys: &dyn Written) -> bool {
        let mut names = false;
        keys.each(&mut |key, _| names |= self.value(key).is_some());
        names
    }

    /// The flag of a key, and its value. An empty value counts as not given, because Compose passes an unset `${X}` as an
    /// empty variable.
    fn value(&self, key: &'static Key) -> Option<(&'static Flag, &str)> {
        let flag = key.flag.as_ref()?;
        self.values.get(flag.name).filter(|value| !value.is_empty()).map(|value| (flag, value.trim()))
    }

    fn set(&self, section: &mut dyn Written, is_wanted: &dyn Fn(&Key) -> bool) {
        section.each_mut(&mut |key, entry| {
            if let Some((Flag { name, variable, .. }, value)) = self.value(key)
                && is_wanted(key)
            {
                *entry = Entry::one(Leaf::from_override(&format!("--{name} / {variable}"), value));
            }
        });
    }

    /// Sets the keys of all sections, except for sections that may be repeated.
    fn set_all(&self, section: &mut dyn Written) {
        self.set(section, &|_| true);
        section.each_inside(&mut |_, inside| {
            if let Inside::Section(section) = inside {
                self.set_all(section);
            }
        });
    }
}

/// Warns of sections of the file that a flag or a variable replaces.
fn warn_of_replaced<S>(source: &Source<'_>, sections: &List<S>, says: &str) {
    if let Some((at, _)) = sections.sections.first() {
        source.warn(at.clone(), says);
    }
}

fn given(list: &[String]) -> Vec<&str> {
    list.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).collect()
}

/// The flags of all keys.
fn flags() -> Vec<&'static Flag> {
    fn gather(section: &mut dyn Written, flags: &mut Vec<&'static Flag>) {
        section.each(&mut |key, _| flags.extend(&key.flag));
        section.each_inside(&mut |_, inside| match inside {
            Inside::Section(section) => gather(section, flags),
            Inside::List { list, .. } => gather(&mut *list.empty(), flags),
        });
    }
    let mut flags = Vec::new();
    gather(&mut File::default(), &mut flags);
    flags
}

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .short('c')
            .env("LOGFERRY_CONFIG")
            .value_name("FILE")
            .help("Config file (TOML); without it /etc/logferry.toml is read if it is there");
        let urls = |name: &'static str, variable: &'static str, help: String| {
            let list = Arg::new(name).long(name).env(variable).value_name("URL").value_delimiter(',');
            list.action(ArgAction::Append).help(help)
        };
        let listen = urls(
            "listen",
            "LOGFERRY_LISTEN",
            format!(
                "Where to listen: {}; several with commas [default: udp and tcp on port 514]",
                ListenAddress::schemes()
            ),
        );
        let forward = urls(
            "forward",
            "LOGFERRY_FORWARD",
            format!("Collector: {}; several with commas: the first that answers", ForwardAddress::schemes()),
        );
        let flag = |flag: &'static Flag| {
            Arg::new(flag.name).long(flag.name).env(flag.variable).value_name(flag.value_name).help(flag.help)
        };
        command.args([file, listen, forward]).args(flags().into_iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Overrides {
    fn from_arg_matches(found: &ArgMatches) -> Result<Self, clap::Error> {
        let one = |name: &str| found.get_one::<String>(name).cloned();
        let list = |name: &str| found.get_many::<String>(name).into_iter().flatten().cloned().collect();
        let values = flags().into_iter().filter_map(|flag| Some((flag.name, one(flag.name)?))).collect();
        Ok(Self { config: one("config"), listen: list("listen"), forward: list("forward"), values })
    }

    fn update_from_arg_matches(&mut self, found: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(found)?;
        Ok(())
    }
}
