//! `logferry check`: checks a config. It reports all problems at once, reads the certificates, resolves the names and checks
//! the machine. With flags it prints the effective settings first, and tests whether the collectors can be reached.
//!
//! A problem keeps a relay from starting or from working. With a warning the relay starts, but its operator should know. Each
//! text names a remedy. The command binds and writes nothing, and connects only if a flag asks for it.

mod certificates;
mod connect;
mod names;
mod paths;
mod spool;

use std::fmt::Display;
use std::io::{self, Write};

use super::{Failure, exit, misspelt_variables, print};
use crate::config::{Config, Listen, Overrides, Protocol};
use crate::protocol::relp::NumberedStreams;
use crate::protocol::syslog::{Marks, Senders};
use crate::{admin, descriptors, listen, relay};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    overrides: Overrides,

    /// Check the settings alone: read no certificate, look no name up, look at no disk
    #[arg(long)]
    syntax_only: bool,

    /// Try also whether the collectors can be reached: by TCP, TLS and RELP's open, without sending a line
    #[arg(long, conflicts_with = "syntax_only")]
    connect: bool,

    /// Print the effective settings on stdout as a config, defaults filled in
    #[arg(long)]
    print: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut report = Report::default();
    match Config::load(&arguments.overrides) {
        Ok(config) => {
            // The settings come first, so that the findings are last on a terminal.
            if arguments.print {
                print(format!("# the effective settings, defaults filled in\n{}", config.to_toml()))?;
            }
            misspelt_variables().iter().for_each(|says| report.warning(says));
            config.warnings.iter().for_each(|says| report.warning(says));
            if !arguments.syntax_only {
                check_all(&config, &mut report)?;
            }
            if arguments.connect {
                connect::try_collectors(&config, &mut report)?;
            }
        }
        Err(errors) => {
            misspelt_variables().iter().for_each(|says| report.warning(says));
            errors.iter().for_each(|error| report.problem(error));
        }
    }
    report.end()
}

/// Checks everything that a config refers to, in the order of its sections.
fn check_all(config: &Config, report: &mut Report) -> Result<(), Failure> {
    if let Some(says) = relay::container_hostname(config) {
        report.warning(says);
    }
    for listener in &config.listen {
        check_listener(listener, report);
    }
    let (mut fitted, limit) = (config.clone(), descriptors::raised_limit());
    for lowered in descriptors::fit(&mut fitted, admin::max_connections(limit), limit) {
        report.warning(lowered);
    }
    certificates::secrets_of_admin(&config.admin, report);
    spool::check(&config.spool, report);
    let listeners: Vec<_> = config.listen.iter().map(|listener| listener.address.clone()).collect();
    for settings in &config.forward {
        certificates::of_forward(settings, report);
        certificates::secrets_of_forward(settings, report);
        paths::of_forward(settings, report);
        names::look_up(&config.resolve, settings, &listeners, report)?;
    }
    Ok(())
}

fn check_listener(listener: &Listen, report: &mut Report) {
    let address = &listener.address;
    certificates::of_listener(listener, report);
    certificates::secrets_of(listener, report);
    paths::of_listener(address, report);
    if address.is_udp() {
        match listen::grantable_receive_buffer(listener.receive_buffer) {
            Ok(granted) => match listen::small_receive_buffer(granted) {
                // A small buffer causes no warning if the config asks for it. The kernel doubles the requested size.
                Some(says) if granted < 2 * listener.receive_buffer => {
                    report.warning(format!("listen {address}: {says}"))
                }
                _ => report.note(format!("listen {address}: receive buffer {} KiB", granted / 1024)),
            },
            Err(error) => report.problem(format!("listen {address}: cannot open a socket: {error}")),
        }
    }
    if address.protocol() == Protocol::Relp && listener.limits.numbered == NumberedStreams::Any {
        report.warning(format!(
            "listen {address}: numbers of lines are believed that nobody has proved; once all relays that send here are of this \
             version or later, write numbered = \"proven\" (the default from logferry 1.0 on)"
        ));
    }
    if listener.limits.proxy_protocol && listener.limits.allow.is_empty() {
        report.warning(format!(
            "listen {address}: anyone who can reach it may claim any address with the PROXY protocol; write the proxy's \
             address as `allow`"
        ));
    }
    if listener.marks == Some(Marks::Replace) && listener.from == Senders::Anybody {
        report.note(format!(
            "listen {address}: who the container is and what another relay knows is not believed here (`marks`), because rules, \
             names or `peer` depend on it; only Docker's own tag counts"
        ));
    }
    if address.protocol() == Protocol::Splunk && listener.tokens().is_none() {
        report.note(format!("listen {address}: without `token` anyone who can reach this address may send"));
    }
    let is_open = address.socket_address().is_some_and(|at| at.ip().is_unspecified());
    if is_open && !address.is_tls() && listener.plaintext {
        report.note(format!(
            "listen {address}: plain text, on every address of this machine; no stranger should reach it"
        ));
    }
}

/// Prints problems, warnings and notes to stderr at once, and counts them.
#[derive(Default)]
struct Report {
    problems: usize,
    warnings: usize,
}

impl Report {
    fn problem(&mut self, says: impl Display) {
        self.problems += 1;
        tell(format_args!("problem: {says}"));
    }

    fn warning(&mut self, says: impl Display) {
        self.warnings += 1;
        tell(format_args!("warning: {says}"));
    }

    /// Prints a fact that is good, or that the reader must judge.
    fn note(&mut self, says: impl Display) {
        tell(says);
    }

    fn end(self) -> Result<(), Failure> {
        match (self.problems, self.warnings) {
            (0, 0) => tell("good"),
            (problems, warnings) => {
                tell(format_args!("{}, {}", counted(problems, "problem"), counted(warnings, "warning")))
            }
        }
        // All messages have been printed.
        if self.problems == 0 { Ok(()) } else { Err(Failure { code: exit::CONFIG, says: String::new() }) }
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Prints a line to stderr. `eprintln!` would panic when stderr is closed.
fn tell(says: impl Display) {
    let _ = writeln!(io::stderr(), "{says}");
}
