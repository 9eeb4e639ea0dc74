//! `docs/reference.md` lists every key, flag and variable. It is written from their declarations:
//!
//!     LOGFERRY_WRITE_REFERENCE=1 cargo test --test it reference::

use std::fmt::Write;
use std::fs;
use std::path::Path;

use logferry::internals::config::{Config, Overrides};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");

const HEAD: &str = "# Reference

Every key of the config, and every flag and variable of `logferry run`. [docker/logferry.toml](../docker/logferry.toml) explains each
key, and [configuration](configuration.md) says how to set one. `logferry check --print` prints the values that are in force.

A test writes this page from the declarations of the settings. A key without a default is optional, or has a default that depends on
other keys.
";

/// The sections, in the order of the page.
const SECTIONS: [&str; 11] = [
    "",
    "[syslog]",
    "[spool]",
    "[resolve]",
    "[admin]",
    "[log]",
    "[[listen]]",
    "[[drop]]",
    "[[sample]]",
    "[[mask]]",
    "[[forward]]",
];

/// A config with each section whose keys have defaults, and each kind of target.
const DEFAULTS: &str = "hostname = \"x\"\n[[forward]]\nto = [\"relp://a\", \"tcp://b\", \"file:///c\"]";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(None, text, &Overrides::default(), &|_| None).map_err(|error| error.to_string())
}

/// The keys of a section, as the error for an unknown key lists them.
fn known_keys(section: &str) -> Vec<String> {
    let error = parse(&format!("{section}\nno-key-is-called-so = 1")).expect_err("no key is called so");
    let known = error.lines().find_map(|line| line.split_once("known here: ")).expect("the known keys").1;
    known.split(", ").map(str::to_owned).collect()
}

fn is_section(key: &str) -> bool {
    SECTIONS.iter().any(|section| section.trim_matches(['[', ']']) == key)
}

fn written() -> String {
    let defaults: toml::Table = parse(DEFAULTS).expect("a config").to_toml().parse().expect("TOML");
    let default = |section: &str, key: &str| {
        let place = match section {
            "" => Some(&defaults),
            _ => match defaults.get(section)? {
                toml::Value::Array(sections) => sections.first()?.as_table(),
                section => section.as_table(),
            },
        };
        // What the config above had to say is no default.
        place?.get(key).filter(|_| !["hostname", "to", "address"].contains(&key)).map(ToString::to_string)
    };
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        let name = section.trim_matches(['[', ']']);
        let title = if section.is_empty() { "Top level".to_owned() } else { format!("`{section}`") };
        write!(page, "\n## {title}\n\n| key | default |\n|---|---|\n").expect("in memory");
        for key in known_keys(section).iter().filter(|key| !section.is_empty() || !is_section(key)) {
            let default =
                default(name, key).map_or(String::new(), |default| format!("`{}`", default.replace('|', "\\|")));
            writeln!(page, "| `{key}` | {default} |").expect("in memory");
        }
    }
    page.push_str("\n## Flags and variables\n\n| flag | variable | |\n|---|---|---|\n");
    let command = logferry::internals::cli::command();
    let run = command.find_subcommand("run").expect("the command");
    for argument in run.get_arguments() {
        let Some(flag) = argument.get_long().filter(|flag| !["help", "version"].contains(flag)) else { continue };
        let variable = argument.get_env().map_or(String::new(), |name| format!("`{}`", name.to_string_lossy()));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default().replace('|', "\\|");
        writeln!(page, "| `--{flag}` | {variable} | {help} |").expect("in memory");
    }
    page
}

#[test]
fn the_reference_is_what_the_settings_declare() {
    let written = written();
    assert!(written.matches("\n| `").count() > 150, "few keys:\n{written}");
    if std::env::var_os("LOGFERRY_WRITE_REFERENCE").is_some() {
        fs::write(PAGE, &written).expect("written");
    }
    let page = fs::read_to_string(Path::new(PAGE)).expect("docs/reference.md");
    assert!(
        page == written,
        "docs/reference.md is out of date; LOGFERRY_WRITE_REFERENCE=1 cargo test --test it reference:: writes it"
    );
}
