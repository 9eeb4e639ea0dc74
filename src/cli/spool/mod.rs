//! `logferry spool ls|cat|verify`: looks into a spool, also while a relay is at work on it, on a copy, and on what a crash
//! or a bad disk has left. Nothing is ever changed.

mod cat;
mod filter;
mod ls;
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
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show the segments, and how far each forward is
    Ls(ls::Arguments),
    /// Print the lines, oldest first
    Cat(cat::Arguments),
    /// Check every record, header and cursor; exit code 1 when something is damaged
    Verify(Place),
}

/// Which spool.
#[derive(clap::Args)]
struct Place {
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
    match &arguments.what {
        What::Ls(arguments) => ls::run(arguments),
        What::Cat(arguments) => cat::run(arguments),
        What::Verify(place) => verify::run(place),
    }
}

impl Place {
    /// The directory, and the SD-ID that carries image, name and ID in its lines. With DIR no config is read that nobody
    /// named: the spool may be a copy from elsewhere.
    fn find(&self) -> Result<(PathBuf, String), Failure> {
        let named = self.config.as_ref().is_some_and(|config| !config.is_empty());
        match &self.dir {
            Some(dir) if !named => Ok((dir.clone(), DEFAULT_SD_ID.to_owned())),
            dir => {
                let (config, spool_dir) = (self.config.clone(), self.spool_dir.clone());
                // A config may be whole only with the variables that the relay has.
                let config = load(&variables()?.with_file(config).with("spool-dir", spool_dir))?;
                Ok((dir.clone().unwrap_or(config.spool.dir), config.syslog.sd_id))
            }
        }
    }

    fn look(&self) -> Result<(Inspection, String), Failure> {
        let (dir, sd_id) = self.find()?;
        let look = Inspection::of(&dir).map_err(failure)?;
        if look.segments.is_empty() && look.kept.is_empty() && look.cursors.is_empty() {
            let dir = dir.display();
            return Err(Failure::config(&format!(
                "spool: {dir} is no spool: there is no segment (*.seg) and no cursor"
            )));
        }
        Ok((look, sd_id))
    }
}

fn failure(error: InspectError) -> Failure {
    Failure::config(&error)
}
