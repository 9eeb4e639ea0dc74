//! `logferry check`: is this config good? Reads what it names, looks its names up, prints the effective settings.

use super::{Failure, load, print, runtime};
use crate::config::{Config, Host, Overrides};
use crate::forward::{self, Patience, Resolver};
use crate::tls;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    overrides: Overrides,

    /// Check the settings alone: read no certificate, look no name up
    #[arg(long)]
    syntax_only: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = load(&arguments.overrides)?;
    if !arguments.syntax_only {
        read_certificates(&config)?;
        look_up_names(&config)?;
    }
    print(format!("# the effective settings, defaults filled in\n{}", config.to_toml()))
}

fn read_certificates(config: &Config) -> Result<(), Failure> {
    for listener in &config.listen {
        if let Some(files) = &listener.tls {
            tls::acceptor(files).map_err(|error| Failure::config(&format!("listen {}: {error}", listener.address)))?;
            eprintln!("listen {}: certificate {} and its key can be used", listener.address, files.cert.display());
        }
    }
    for settings in &config.forward {
        let tls = forward::connector(settings);
        if tls.map_err(|error| Failure::config(&format!("forward {}: {error}", settings.name)))?.is_some() {
            eprintln!("forward {}: certificates can be used", settings.name);
        }
    }
    Ok(())
}

/// A name that does not resolve is no fault of the config: the relay would start and wait for it.
fn look_up_names(config: &Config) -> Result<(), Failure> {
    let resolver = Resolver::new(config.resolve.clone());
    let runtime = runtime()?;
    for settings in &config.forward {
        for target in &settings.to {
            let Some(to) = target.remote() else {
                continue;
            };
            let Host::Name(name) = &to.host else { continue };
            match runtime.block_on(resolver.resolve(name, Patience::BothFamilies)) {
                Ok(answer) => {
                    let addresses: Vec<String> = answer.addresses.iter().map(ToString::to_string).collect();
                    eprintln!("forward {}: {name} is {} (for {:?})", settings.name, addresses.join(", "), answer.ttl);
                }
                Err(error) => eprintln!(
                    "warning: forward {}: {name} does not resolve now: {error}; a relay would spool and keep asking",
                    settings.name
                ),
            }
        }
    }
    Ok(())
}
