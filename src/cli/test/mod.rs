//! `logferry test`: processes messages with the config, as `explain` does, and compares the results with expectations. The
//! expectations are in files beside the config (`config::expectations`), so that CI can check the config against them. The
//! command opens no socket and writes no file.

mod compare;
mod report;

use std::path::PathBuf;

use clap::ValueEnum as _;

use super::explain::{Explanation, Finding, InputContext, ReadAs, read, read_as, wants_colour};
use super::{Failure, exit, load, print};
use crate::config::{Config, Expect, Overrides, Test};
use crate::listen::{ingest, local_addresses};
use compare::Difference;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    overrides: Overrides,

    /// Files of tests (TOML; docs/commands.md names the keys)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = load(&arguments.overrides)?;
    let tests = load_tests(&config, &arguments.files)?;
    let coloured = wants_colour();
    let mut failed = 0;
    for test in &tests {
        let differences = differences(test, &config);
        if !differences.is_empty() {
            failed += 1;
            print(report::failed(test, &differences, coloured))?;
        }
    }
    print(report::summary(tests.len(), failed, coloured))?;
    // All differences have been printed.
    if failed == 0 { Ok(()) } else { Err(Failure { code: exit::FAILED, says: String::new() }) }
}

/// Reads the tests of all files. The failure reports all problems in them.
fn load_tests(config: &Config, files: &[PathBuf]) -> Result<Vec<Test>, Failure> {
    let protocols: Vec<&str> = ReadAs::value_variants().iter().map(|protocol| protocol.keyword()).collect();
    let (mut tests, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        match config.load_tests(file, &protocols) {
            Ok(found) => tests.extend(found),
            Err(errors) => wrong.extend(errors.iter().map(ToString::to_string)),
        }
    }
    if wrong.is_empty() { Ok(tests) } else { Err(Failure::config(&wrong.join("\n"))) }
}

/// The differences of a test.
fn differences(test: &Test, config: &Config) -> Vec<Difference> {
    let said = test.read_as.as_deref().and_then(|word| ReadAs::from_str(word, false).ok());
    let listener = test.listener.as_deref();
    let read_as = read_as(config, said, listener);
    let sender = test.peer.map(|peer| (peer, local_addresses()));
    let received = test.received.unwrap_or_else(ingest::now);
    let context = InputContext { read_as, listener, sender, received };
    let mut found = Vec::new();
    let explainer = read(&bytes(&test.input, read_as), config, &context, |finding| found.push(finding));
    let mut messages: Vec<&Explanation> = Vec::new();
    for finding in &found {
        match finding {
            Finding::Message(message) => messages.push(message),
            Finding::Refused(_) if test.expect == Expect::Refused => return Vec::new(),
            Finding::Refused(refused) => {
                return vec![Difference::of_all(&test.expect, format!("refused: {}", refused.because))];
            }
        }
    }
    match messages.as_slice() {
        [first, further @ ..] if further.iter().all(|message| message.joined_to == Some(first.number)) => {
            compare::all(&test.expect, &explainer.destiny_of_joined(first, further), &config.syslog.sd_id)
        }
        [] => vec![Difference::of_all(&test.expect, "no message".to_owned())],
        several => {
            let says = format!("{} messages; a test has one, or several that `multiline` joins", several.len());
            vec![Difference::of_all(&test.expect, says)]
        }
    }
}

/// The bytes of the messages, as one sender sends them, one after the other.
fn bytes(input: &[String], read_as: ReadAs) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in input {
        match read_as {
            // A message may contain newlines, as in a datagram. Then it needs an octet count.
            ReadAs::Syslog => {
                let message = message.strip_suffix('\n').unwrap_or(message);
                if message.contains('\n') {
                    bytes.extend_from_slice(format!("{} {message}", message.len()).as_bytes());
                } else {
                    bytes.extend_from_slice(format!("{message}\n").as_bytes());
                }
            }
            ReadAs::Gelf => bytes.extend_from_slice(format!("{message}\0").as_bytes()),
            ReadAs::Splunk | ReadAs::Journal => bytes.extend_from_slice(format!("{message}\n").as_bytes()),
            ReadAs::Fluent => bytes.extend_from_slice(message.as_bytes()),
        }
    }
    bytes
}
