//! The command line: a file or folder for each command, and shared code for arguments, exit codes and printing. `log_driver`
//! and `frame_receiver` are the two ends of a chain of relays, for `demo` and `probe`.

mod certs;
mod check;
mod demo;
mod explain;
mod frame_receiver;
mod health;
mod log_driver;
mod memory;
mod probe;
mod progress;
mod run;
mod spool;
mod test;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Config, Overrides};
use crate::log::last_words as complain;
use crate::relay::Relay;

/// For the fuzz target.
pub use explain::properties::{any_bytes as any_message, any_bytes_of_others as any_message_of_others};

/// Exit codes, with their names in sysexits.h.
mod exit {
    /// A check failed: `demo` lost a message, or `health` found that the relay is not ready.
    pub const FAILED: u8 = 1;
    /// EX_USAGE: the command line cannot be understood.
    pub const USAGE: u8 = 64;
    /// EX_CONFIG: a config, certificate, address or spool cannot be used.
    pub const CONFIG: u8 = 78;
}

#[derive(Parser)]
#[command(name = "logferry", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Relay messages (the default command)
    Run(Overrides),
    /// Say whether a config is good: read its certificates, resolve its names, try its collectors, print its settings
    Check(check::Arguments),
    /// Read messages on stdin and show how each is framed and understood, and the bytes each forward would send
    Explain(explain::Arguments),
    /// Give messages to a config and compare what comes out with what is expected, for a config that is kept in git
    Test(test::Arguments),
    /// Show the whole story on loopback: a relay, two collectors and a name that moves; count what arrives
    Demo(demo::Arguments),
    /// Send numbered messages through a running relay and report what was lost, came twice, or late
    Probe(probe::Arguments),
    /// Ask a running relay whether it is well (for a container's HEALTHCHECK)
    Health(Overrides),
    /// Look into a spool, also of a running relay: list it, print its lines, check it
    Spool(spool::Arguments),
    /// Make a CA, a server and a client certificate for a trial or a small site
    Certs(certs::Arguments),
}

/// The failure of a command: the lines to print, and the exit code.
struct Failure {
    code: u8,
    says: String,
}

impl Failure {
    fn config(error: &dyn fmt::Display) -> Self {
        Self { code: exit::CONFIG, says: error.to_string() }
    }

    fn usage(says: impl Into<String>) -> Self {
        Self { code: exit::USAGE, says: says.into() }
    }

    fn failed(says: impl Into<String>) -> Self {
        Self { code: exit::FAILED, says: says.into() }
    }
}

/// The command line, for manuals and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command that is given in the arguments.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    memory::keep_private();
    let arguments = match Arguments::try_parse_from(with_default_command(arguments)) {
        Ok(arguments) => arguments,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            complain(&in_one_line(&error.render().to_string()));
            return ExitCode::from(exit::USAGE);
        }
    };
    let done = match arguments.command {
        Command::Run(overrides) => run::run(&overrides),
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Health(overrides) => health::run(&overrides),
        Command::Spool(arguments) => spool::run(&arguments),
        Command::Certs(arguments) => certs::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.says);
            ExitCode::from(failure.code)
        }
    }
}

/// Adds the default command: `logferry --listen …` means `logferry run --listen …`.
fn with_default_command(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let names_command = match arguments.get(1).and_then(|first| first.to_str()) {
        Some("-h" | "--help" | "-V" | "--version") => true,
        Some(first) => !first.starts_with('-'),
        None => false,
    };
    if !names_command {
        arguments.insert(1.min(arguments.len()), OsString::from("run"));
    }
    arguments
}

/// Puts clap's error and tip on one line, without the usage.
fn in_one_line(complaint: &str) -> String {
    let told = complaint
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<&str> = told.flat_map(str::split_whitespace).collect();
    let told = words.join(" ").replace(" tip: ", "; tip: ");
    format!("{}; try --help", told.trim_start_matches("error: "))
}

fn load(overrides: &Overrides) -> Result<Config, Failure> {
    Config::load(overrides).map_err(|errors| {
        let says: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::config(&says.join("\n"))
    })
}

/// Reads the overrides from the environment, for a command without their flags.
fn variables() -> Result<Overrides, Failure> {
    let command = Overrides::augment_args(clap::Command::new("logferry"));
    let found = command.try_get_matches_from(["logferry"]).and_then(|found| Overrides::from_arg_matches(&found));
    found.map_err(|error| Failure::usage(in_one_line(&error.render().to_string())))
}

/// Warnings of variables with nearly the name of an override. Other names with our prefix are ignored, because orchestrators
/// set such variables for a service called `logferry`.
fn misspelt_variables() -> Vec<String> {
    let command = Overrides::augment_args(clap::Command::new("logferry"));
    let known: Vec<&str> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = set.filter(|name| name.starts_with("LOGFERRY_") && !known.contains(&name.as_str()));
    let meant = |name: &str| known.iter().find(|known| strsim::damerau_levenshtein(known, name) == 1);
    unknown
        .filter_map(|name| {
            Some(format!("{name} is set, but no setting has this name; did you mean {}?", meant(&name)?))
        })
        .collect()
}

/// Prints to stdout. A closed pipe (`| head`) is not an error.
fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_ref()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

fn runtime() -> Result<Runtime, Failure> {
    built(&mut Builder::new_current_thread())
}

/// The runtime of a relay.
fn relay_runtime(relay: &Relay) -> Result<Runtime, Failure> {
    // One thread for everything except datagrams and the disk. A second thread would cost memory, and bring nothing at these
    // rates.
    let coalescing = relay.coalescing();
    built(Builder::new_current_thread().on_thread_park(move || coalescing.before_waiting()))
}

fn built(builder: &mut Builder) -> Result<Runtime, Failure> {
    builder.enable_all().build().map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: &[&str]) {
        let given = arguments.iter().map(|argument| OsString::from(*argument));
        assert_eq!(with_default_command(given), expected, "{arguments:?}");
    }

    #[test]
    fn run_is_the_default_command() {
        check(&["logferry"], &["logferry", "run"]);
        check(&["logferry", "--listen", "udp://127.0.0.1:1"], &["logferry", "run", "--listen", "udp://127.0.0.1:1"]);
        check(&["logferry", "check"], &["logferry", "check"]);
        check(&["logferry", "--version"], &["logferry", "--version"]);
    }

    #[test]
    fn a_complaint_is_one_line() {
        let complaint = "error: unexpected argument '--lisen' found\n\n  tip: a similar argument exists: '--listen'\n\nUsage: logferry run --listen <URL>\n\nFor more information, try '--help'.\n";
        let line = "unexpected argument '--lisen' found; tip: a similar argument exists: '--listen'; try --help";
        assert_eq!(in_one_line(complaint), line);
    }

    #[test]
    fn arguments_are_consistent() {
        command().debug_assert();
    }
}
