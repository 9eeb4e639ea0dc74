//! `logferry demo`: a real relay between senders and two collectors, all on loopback. The collector's name moves from one
//! collector to the other while messages flow. At the end the demo compares the messages that arrived with the messages that
//! were sent.

mod collector;
mod name_server;
mod sender;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::log_driver::RelayAddress;
use super::progress::Progress;
use super::{Failure, certs, print, relay_runtime};
use crate::config::{Config, DEFAULT_SPOOL_DIR, Log, LogFormat, LogLevel, Overrides};
use crate::log;
use crate::metrics::Metrics;
use crate::relay::{Relay, StartError};
use collector::{ArrivalCounts, Collector};
use name_server::NameServer;
use sender::Senders;

/// The name that the relay forwards to. `.test` does not exist in public DNS (RFC 6761).
const NAME: &str = "collector.test";
const OLD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const NEW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// If no message arrives for this long after the last one was sent, missing messages count as lost.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Arguments {
    /// Messages to send in all, a third of them by each of UDP, TCP and TLS
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    messages: u32,

    /// Messages a second, over the three together
    #[arg(long, value_name = "N", default_value_t = 15_000)]
    rate: u32,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.messages == 0 || arguments.rate == 0 {
        return Err(Failure::usage("demo: --messages and --rate must be above zero"));
    }
    let settings = Log { level: LogLevel::Warn, format: LogFormat::Text, to_spool: None };
    let (_logging, _) = log::start(&settings, Metrics::new().log());
    let dir = ScratchDir::new().map_err(|error| Failure::failed(format!("demo: {error}")))?;
    let outcome = run_scenario(arguments, &dir.0).map_err(|error| Failure::failed(format!("demo: {error}")))?;
    print(outcome.report())?;
    if outcome.lost() == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!("demo: {} messages were lost", outcome.lost())))
    }
}

type DemoError = Box<dyn std::error::Error>;

fn run_scenario(arguments: &Arguments, dir: &Path) -> Result<Outcome, DemoError> {
    for file in certs::make(&["127.0.0.1".to_owned()])? {
        std::fs::write(dir.join(file.name), file.content)?;
    }
    let mut progress = Progress::new();
    let names = NameServer::start(NAME, OLD)?;
    let arrivals = Arc::new(ArrivalCounts::new(arguments.messages as usize));
    let old = Collector::start(OLD, 0, arrivals.clone())?;
    let new = Collector::start(NEW, old.port(), arrivals.clone())?;
    let relay = RelayThread::start(config(dir, names.address(), old.port())?)?;
    progress.line(format_args!(
        "relay:      {}",
        relay.relay_addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("  ")
    ));
    progress.line(format_args!(
        "collectors: {}:{port} and {}:{port}; the name {NAME} points to {OLD}",
        OLD,
        NEW,
        port = old.port()
    ));

    let senders = Senders::start(&relay.relay_addresses, &dir.join("ca.pem"), arguments.messages, arguments.rate)?;
    let mut moved: Option<Instant> = None;
    let mut quiet_since = (Instant::now(), 0);
    loop {
        thread::sleep(PROGRESS_INTERVAL);
        let (sent, arrived) = (senders.sent(), arrivals.distinct());
        let (there, moved_there) = (old.received(), new.received());
        progress.show(
            arrived as u64,
            arguments.messages.into(),
            format_args!("sent {sent}, arrived {arrived} ({there} at the old address, {moved_there} at the new)"),
        );
        if moved.is_none() && sent >= arguments.messages as usize / 3 {
            names.point_to(NEW);
            moved = Some(Instant::now());
            progress.line(format_args!("{NAME} now points to {NEW}, while messages flow"));
        }
        if quiet_since.1 != arrived {
            quiet_since = (Instant::now(), arrived);
        }
        let done = senders.finished() && (arrived >= sent || quiet_since.0.elapsed() > QUIET_TIMEOUT);
        if done {
            break;
        }
    }
    let sent = senders.join()?;
    relay.stop()?;
    Ok(Outcome {
        sent,
        arrived: arrivals.distinct(),
        damaged: arrivals.damaged(),
        duplicated: arrivals.duplicated(),
        old: old.received(),
        new: new.received(),
        move_took: moved.and_then(|moved| new.first_received().map(|first| first.saturating_duration_since(moved))),
    })
}

fn config(dir: &Path, nameserver: SocketAddr, port: u16) -> Result<Config, DemoError> {
    let text = format!(
        r#"
        hostname = "demo-host"
        [[listen]]
        address = "udp://127.0.0.1:0"
        [[listen]]
        address = "tcp://127.0.0.1:0"
        max-connections = 10
        [[listen]]
        address = "tcp+tls://127.0.0.1:0"
        max-connections = 10
        cert = "{dir}/server.pem"
        key = "{dir}/server-key.pem"
        [spool]
        dir = "{dir}/spool"
        [[forward]]
        name = "collector"
        to = ["tcp://{NAME}:{port}"]
        framing = "octet-counting"
        [resolve]
        nameservers = ["{nameserver}"]
        [admin]
        listen = "off"
        "#,
        dir = dir.display()
    );
    Ok(Config::parse(None, &text, &Overrides::default(), &|_| None)?)
}

/// A relay on a thread of its own, in place of a process.
struct RelayThread {
    relay_addresses: Vec<RelayAddress>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), StartError>>,
}

impl RelayThread {
    fn start(config: Config) -> Result<Self, DemoError> {
        let relay = Relay::bind(config)?;
        let relay_addresses = relay.addresses().iter().filter_map(RelayAddress::from_address).collect();
        let (stop, stopped) = oneshot::channel();
        let runtime = relay_runtime(&relay).map_err(|failure| failure.says)?;
        let thread = thread::Builder::new().name("relay".to_owned()).spawn(move || {
            runtime.block_on(relay.run(
                Box::pin(async {
                    let _ = stopped.await;
                }),
                tokio::sync::mpsc::channel(1).1,
            ))
        })?;
        Ok(Self { relay_addresses, stop, thread })
    }

    fn stop(self) -> Result<(), DemoError> {
        let _ = self.stop.send(());
        Ok(self.thread.join().map_err(|_| "the relay's thread panicked")??)
    }
}

struct Outcome {
    sent: usize,
    arrived: usize,
    damaged: usize,
    duplicated: usize,
    old: usize,
    new: usize,
    move_took: Option<Duration>,
}

impl Outcome {
    fn lost(&self) -> usize {
        self.sent.saturating_sub(self.arrived)
    }

    fn report(&self) -> String {
        let took = self
            .move_took
            .map_or("not seen: nothing came to the new address (too few --messages?)".to_owned(), |took| {
                format!("{} ms", took.as_millis())
            });
        format!(
            "\nsent        {}\narrived     {} ({} at the old address, {} at the new)\nlost        {}\nduplicated  {}\ndamaged     {}\nmove took   {took}\n",
            self.sent,
            self.arrived,
            self.old,
            self.new,
            self.lost(),
            self.duplicated,
            self.damaged
        )
    }
}

/// A directory for the demo's spool and certificates. Dropping the value removes the directory.
struct ScratchDir(PathBuf);

impl ScratchDir {
    /// Logferry's image has no /tmp. Its spool is a volume that its user can write to.
    fn new() -> Result<Self, String> {
        Self::in_first_of(&[&std::env::temp_dir(), Path::new(DEFAULT_SPOOL_DIR)])
    }

    /// Creates the directory in the first of `parents` that allows it.
    fn in_first_of(parents: &[&Path]) -> Result<Self, String> {
        // A process ID is no unique name: in containers it is always the same, and an interrupted demo leaves its directory
        // behind.
        let number = RandomState::new().build_hasher().finish();
        let name = format!("logferry-demo-{number:016x}");
        let mut failures = Vec::new();
        for parent in parents {
            match Self::at(parent.join(&name)) {
                Ok(made) => return Ok(made),
                Err(failure) => failures.push(failure),
            }
        }
        Err(format!("no directory for its files (set TMPDIR to one that can be written): {}", failures.join("; ")))
    }

    /// Creates the directory. An existing directory or link is refused, because other users may be able to write to the
    /// parent, and it may be theirs.
    fn at(dir: PathBuf) -> Result<Self, String> {
        std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|error| cannot_make(&dir, &error))?;
        Ok(Self(dir))
    }
}

fn cannot_make(dir: &Path, error: &std::io::Error) -> String {
    format!("cannot make {}: {error}", dir.display())
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn without_a_tmp_the_volume_of_the_spool_has_the_files() {
        let volume = tempfile::tempdir().expect("a directory");
        let tmp = volume.path().join("no-tmp");
        let made = ScratchDir::in_first_of(&[&tmp, volume.path()]).expect("made");
        assert_eq!(made.0.parent(), Some(volume.path()));
        let Err(said) = ScratchDir::in_first_of(&[&tmp]) else { panic!("made in {}", tmp.display()) };
        assert!(said.contains("no-tmp/logferry-demo-") && said.contains("TMPDIR"), "{said}");
    }

    #[test]
    fn the_scratch_directory_is_new_and_private() {
        let parent = tempfile::tempdir().expect("a directory");
        let at = |name: &str| parent.path().join(name);
        let made = ScratchDir::at(at("new")).expect("made");
        assert_eq!(fs::metadata(&made.0).expect("there").mode() & 0o077, 0);
        drop(made);
        assert!(!at("new").exists());
        fs::create_dir(at("theirs")).expect("made");
        symlink(at("theirs"), at("link")).expect("linked");
        for theirs in ["theirs", "link"] {
            let Err(said) = ScratchDir::at(at(theirs)) else { panic!("{theirs} was taken") };
            assert!(said.contains("File exists"), "{said}");
            assert!(at(theirs).exists(), "and left alone");
        }
    }
}
