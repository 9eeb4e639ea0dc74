//! `logferry spool ls|cat|verify|resend`: inspects a spool. The spool may be in use by a relay, a copy, or the remains of a
//! crash or a bad disk. Only `resend` changes the spool: it renames a file.

mod cat;
mod filter;
mod ls;
mod resend;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use super::{Failure, load, print, variables};
use crate::config::DEFAULT_SD_ID;
use crate::spool::{InspectError, Inspection};
use filter::Filter;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Subcommand)]
enum SpoolCommand {
    /// Show the segments, and how far each forward is
    Ls(ls::Arguments),
    /// Print the lines, oldest first
    Cat(cat::Arguments),
    /// Check every record, header and cursor; exit code 1 when something is damaged
    Verify(SpoolArguments),
    /// Have the relay send a forward's dead letters again
    Resend(resend::Arguments),
}

/// The arguments that name a spool.
#[derive(clap::Args)]
struct SpoolArguments {
    /// The spool's directory; a copy will do [default: the configured one]
    dir: Option<PathBuf>,

    /// Config file that says where the spool is; without it and DIR /etc/logferry.toml is read if it is there
    #[arg(long, short, env = "LOGFERRY_CONFIG", value_name = "FILE")]
    config: Option<String>,

    /// As for `run`
    #[arg(long, env = "LOGFERRY_SPOOL_DIR", value_name = "DIR", hide = true)]
    spool_dir: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        SpoolCommand::Ls(arguments) => ls::run(arguments),
        SpoolCommand::Cat(arguments) => cat::run(arguments),
        SpoolCommand::Verify(spool) => verify::run(spool),
        SpoolCommand::Resend(arguments) => resend::run(arguments),
    }
}

impl SpoolArguments {
    /// Returns the directory, and the SD-ID of the element with image, name and ID in the spool's lines. With DIR the default
    /// config is not read, because the spool may be a copy from another host.
    fn find(&self) -> Result<(PathBuf, String), Failure> {
        let named = self.config.as_ref().is_some_and(|config| !config.is_empty());
        match &self.dir {
            Some(dir) if !named => Ok((dir.clone(), DEFAULT_SD_ID.to_owned())),
            dir => {
                let (config, spool_dir) = (self.config.clone(), self.spool_dir.clone());
                // A config may be incomplete without the relay's variables.
                let config = load(&variables()?.with_file(config).with("spool-dir", spool_dir))?;
                Ok((dir.clone().unwrap_or(config.spool.dir), config.syslog.sd_id))
            }
        }
    }

    fn inspect(&self) -> Result<(Inspection, String), Failure> {
        let (dir, sd_id) = self.find()?;
        let inspection = Inspection::of(&dir).map_err(failure)?;
        if inspection.segments.is_empty() && inspection.kept.is_empty() && inspection.cursors.is_empty() {
            let dir = dir.display();
            return Err(Failure::config(&format!(
                "spool: {dir} is no spool: there is no segment (*.seg) and no cursor"
            )));
        }
        Ok((inspection, sd_id))
    }
}

fn failure(error: InspectError) -> Failure {
    Failure::config(&error)
}
