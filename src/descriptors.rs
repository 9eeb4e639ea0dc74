//! The budget of file descriptors. Senders that open connections must not take the descriptors that the relay needs to dial a
//! collector, open a segment or answer `/ready`.
//!
//! The relay's own needs are reserved. Connections of senders get the rest. If the rest is less than the sum of all
//! `max-connections`, those limits are lowered, the highest first.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, DeliverySettings, Listen};

/// Reserved for standard streams, the runtime, signals, the log, the spool's files, and files that are read for a moment.
const OWN: usize = 64;
/// Reserved for a listener's socket, and the connection that the listener is just refusing.
const FOR_EACH_LISTENER: usize = 2;
/// Reserved for a forward's connection and its successor, name look-ups, the segment that is being read, the cursor and dead
/// letters; and for at most 16 connections that the forward has left and the collector has not closed.
const FOR_EACH_FORWARD: usize = 32;
/// The admin port gets this part of the limit at most.
const ADMIN_PART: usize = 8;
/// The files of a forward to `file://` get this part of the limit at most.
const FILES_PART: usize = 4;
/// Connections get this part of the limit at least, even if that is more than the rest.
const LEAST_PART: usize = 4;
/// An address gets this part of a lowered `max-connections` at most, as it does by default.
const ADDRESS_PART: usize = 4;

/// A limit on connections that was lowered.
#[derive(Debug, PartialEq, Eq)]
pub struct Lowered {
    /// The address of the listener.
    listener: String,
    from: usize,
    to: usize,
    limit: usize,
}

impl std::fmt::Display for Lowered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { listener, from, to, limit } = self;
        write!(
            f,
            "listen {listener}: max-connections is {to} and not {from}, because this process may open only {limit} files; raise \
             that limit (`docker run --ulimit nofile=65536`, systemd `LimitNOFILE=65536`, ulimit -n), or lower max-connections"
        )
    }
}

/// Raises the soft limit of open files to the hard one. Only old programs, which use select(2), need a lower one.
pub fn raise_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// How many files the process may open.
pub fn limit() -> usize {
    soft_and_hard().0
}

/// How many files the process may open once it has raised its limit.
pub fn raised_limit() -> usize {
    soft_and_hard().1
}

fn soft_and_hard() -> (usize, usize) {
    let number = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
    getrlimit(Resource::RLIMIT_NOFILE).map_or((usize::MAX, usize::MAX), |(soft, hard)| (number(soft), number(hard)))
}

/// Connections that the admin port may have open: `max`, or fewer where the process may not open many files.
pub fn admin_connections(max: usize, limit: usize) -> usize {
    max.min(limit / ADMIN_PART).max(1)
}

/// Files that a forward to `file://` may have open: `max`, or fewer where the process may not open many files.
pub fn forward_files(max: usize, limit: usize) -> usize {
    max.min(limit / FILES_PART).max(1)
}

/// Lowers the connection limits in `config` so that they fit into a process that may open `limit` files, of which `admin` are for
/// connections to the admin port. Returns the limits that were lowered.
pub fn fit(config: &mut Config, admin: usize, limit: usize) -> Vec<Lowered> {
    let left = limit.saturating_sub(reserved(config, admin, limit)).max(limit / LEAST_PART);
    let mut streams: Vec<&mut Listen> =
        config.listen.iter_mut().filter(|listener| !listener.address.is_datagram()).collect();
    let wanted = streams.iter().map(|listener| listener.limits.max_connections).collect();
    let level = level(wanted, left).max(1);
    let mut lowered = Vec::new();
    for listener in &mut streams {
        let limits = &mut listener.limits;
        let from = limits.max_connections;
        if from > level {
            lowered.push(Lowered { listener: listener.address.to_string(), from, to: level, limit });
            let of_address = &mut limits.max_connections_per_address;
            let part = if *of_address < from { (level / ADDRESS_PART).max(1) } else { level };
            *of_address = part.min(*of_address);
            limits.max_connections = level;
        }
    }
    lowered
}

/// Descriptors that are reserved: connections of senders do not get them.
fn reserved(config: &Config, admin: usize, limit: usize) -> usize {
    let targets = config.forward.iter().flat_map(|forward| &forward.to);
    let files = targets.map(|target| match &target.delivery {
        DeliverySettings::File(settings) => forward_files(settings.max_open_files, limit),
        _ => 0,
    });
    OWN + FOR_EACH_LISTENER * config.listen.len()
        + FOR_EACH_FORWARD * config.forward.len()
        + files.sum::<usize>()
        + admin
}

/// The highest level such that the sum of `wanted`, each lowered to this level, is at most `left`.
fn level(mut wanted: Vec<usize>, mut left: usize) -> usize {
    wanted.sort_unstable();
    for (at, want) in wanted.iter().enumerate() {
        let share = left / (wanted.len() - at);
        if *want > share {
            return share;
        }
        left -= want;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const ADMIN: usize = 512;

    fn config(listeners: &str) -> Config {
        let text = format!("{listeners}\n[[forward]]\nto = \"tcp://logs\"");
        Config::parse(None, &text, &Overrides::default(), &|_| None).unwrap()
    }

    fn listener(address: &str, limits: &str) -> String {
        format!("[[listen]]\naddress = \"{address}\"\n{limits}\n")
    }

    /// Lowers the limits, and returns those of each listener.
    fn fitted(config: &mut Config, limit: usize) -> Vec<(usize, usize)> {
        fit(config, admin_connections(ADMIN, limit), limit);
        let limits = config.listen.iter().map(|listener| &listener.limits);
        limits.map(|limits| (limits.max_connections, limits.max_connections_per_address)).collect()
    }

    #[test]
    fn what_fits_stays() {
        let mut plenty = config(&(listener("udp://127.0.0.1:514", "") + &listener("tcp://127.0.0.1:514", "")));
        assert_eq!(fit(&mut plenty, ADMIN, 20_000), []);
        assert_eq!(fitted(&mut plenty, usize::MAX), [(10_000, 2_500); 2]);
    }

    #[test]
    fn the_highest_limits_are_lowered_and_what_is_reserved_is_left() {
        let few = "max-connections = 20\nmax-connections-per-address = 10";
        let mut config = config(&(listener("tcp://127.0.0.1:514", "") + &listener("unix:///run/a", few)));
        for limit in [256, 1024, 4096] {
            let mut config = config.clone();
            let limits = fitted(&mut config, limit);
            let left = limit - reserved(&config, admin_connections(ADMIN, limit), limit);
            assert_eq!(limits, [(left - 20, (left - 20) / 4), (20, 10)]);
        }
        let lowered = fit(&mut config, admin_connections(ADMIN, 256), 256);
        assert_eq!(lowered.len(), 1);
        let says = lowered[0].to_string();
        assert!(says.starts_with("listen tcp://127.0.0.1:514: max-connections is 104 and not 10000"), "{says}");
    }

    #[test]
    fn files_are_reserved_too() {
        let mut config = config(&listener("tcp://127.0.0.1:514", ""));
        let without = fitted(&mut config.clone(), 1024)[0].0;
        let more = "[[listen]]\naddress = \"tcp://127.0.0.1:514\"\n[[forward]]\nto = \"file:///logs\"";
        config = Config::parse(None, more, &Overrides::default(), &|_| None).unwrap();
        assert_eq!(fitted(&mut config, 1024)[0].0, without - 256);
    }

    #[test]
    fn a_process_that_may_open_next_to_nothing_still_takes_connections() {
        let mut config = config(&listener("tcp://127.0.0.1:514", ""));
        assert_eq!(fitted(&mut config, 64), [(16, 4)]);
        assert_eq!(fitted(&mut config, 0), [(1, 1)]);
    }

    /// If one address may have all connections, it may have all that are left after lowering.
    #[test]
    fn an_address_keeps_what_it_was_given() {
        let all = "max-connections = 5000\nmax-connections-per-address = 5000";
        let mut config = config(&listener("tcp://127.0.0.1:514", all));
        let [(max, of_address)] = fitted(&mut config, 1024)[..] else { panic!("one listener") };
        assert!(max < 1024 && of_address == max);
    }
}
