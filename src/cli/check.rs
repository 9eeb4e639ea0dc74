//! `logferry check`: is this config good? Reads what it names, looks its names up, prints the effective settings.

use super::{Failure, load, misspelt_variables, print, runtime};
use crate::config::{Config, Destination, Host, HostPort, Overrides};
use crate::forward::{self, Endpoint, Patience, Resolver};
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
    misspelt_variables().iter().for_each(|says| eprintln!("warning: {says}"));
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
            let Some(to) = target.remote() else { continue };
            if let Destination::Host(HostPort { host: Host::Address(_), .. }) = to {
                continue;
            }
            match runtime.block_on(resolver.resolve(to, Patience::BothFamilies)) {
                Ok(answer) => {
                    let shown: Vec<String> = answer.endpoints.iter().map(|endpoint| shown(endpoint, to)).collect();
                    eprintln!("forward {}: {to} is {} (for {:?})", settings.name, shown.join(", "), answer.ttl);
                }
                Err(error) => eprintln!(
                    "warning: forward {}: {to} does not resolve now: {error}; a relay would spool and keep asking",
                    settings.name
                ),
            }
        }
    }
    Ok(())
}

/// A service's hosts and ports are news, a host's are not.
fn shown(endpoint: &Endpoint, to: &Destination) -> String {
    match to {
        Destination::Host(_) => endpoint.peer.ip().to_string(),
        Destination::Service(_) => {
            format!("{} ({}, priority {})", endpoint.peer, endpoint.host, endpoint.priority)
        }
    }
}
