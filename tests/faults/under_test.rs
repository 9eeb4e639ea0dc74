//! The relay between senders and collector: logferry or one of the peers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::collector::{pending, url};
use super::load::STREAMS;
use super::peers::PeerCommand;
use super::row::{Make, Row, Senders, Size, Transport};
use super::stage::Names;
use super::support::descriptors::with_files;
use super::support::disk::{Device, Frozen};
use super::support::program::SIGTERM;
use super::support::{Certs, Held, Metrics, Program, Relay, Setup, dns, eventually, installed};
use super::tally::Tally;
use super::wire::Way;

pub const FORWARD: &str = "central";
/// The name of the other forward.
pub const BESIDE: &str = "beside";
/// Size of a disk that can be frozen, in bytes.
const DISK: u64 = 1 << 30;

/// The target of the relay's forward.
pub enum To<'a> {
    At(SocketAddr),
    /// By [`dns::NAME`], which this name server resolves.
    Named(&'a Names, u16),
    /// Into a file for each container, in this directory.
    Files(PathBuf),
}

pub struct UnderTest {
    kind: Kind,
    way: Way,
    /// The limit of open files.
    files: Option<usize>,
    /// The device of its spool, if it is to be frozen. It is dropped after the relay.
    device: Option<Device>,
    /// Its directory is dropped last.
    _dir: Arc<TempDir>,
    /// Keeps the port that it listens on.
    _held: Held,
}

enum Kind {
    Logferry { setup: Setup, runs: Option<Relay>, before: u64 },
    Peer { command: PeerCommand, runs: Option<Program> },
}

impl UnderTest {
    /// Starts the relay. `None`: the program is not installed here.
    pub fn start(row: &Row, size: &Size, to: &To, beside: Option<SocketAddr>) -> Option<Self> {
        let udp = row.senders() == Senders::Udp;
        let held = Held::new(udp, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, held.port()));
        let way = |dir: &Path| match row.senders() {
            Senders::Udp => Way::Udp(from),
            Senders::Tcp => Way::Tcp(from),
            Senders::Relp => Way::Relp(from),
            Senders::Unix => Way::Unix(dir.join("in.sock")),
        };
        let (kind, dir, way) = match row.relay {
            Make::Logferry => {
                let setup = Setup::new();
                let (dir, way) = (setup.dir().clone(), way(setup.dir().path()));
                let setup = logferry(setup, row, size, (&way, to, beside));
                (Kind::Logferry { setup, runs: None, before: 0 }, dir, way)
            }
            peer => {
                assert!(!udp, "peers are told over TCP and RELP");
                let dir = TempDir::new().expect("a directory");
                let way = way(dir.path());
                let command = PeerCommand::new(peer, row, (&way, to, beside), dir.path())?;
                (Kind::Peer { command, runs: None }, Arc::new(dir), way)
            }
        };
        let device = if row.fault.needs_a_disk() {
            installed("fsfreeze", "util-linux")?;
            Some(Device::with_room_in(dir.path(), DISK)?)
        } else {
            None
        };
        let mut relay = Self { kind, way, files: row.fault.files(), device, _dir: dir, _held: held };
        relay.starts();
        Some(relay)
    }

    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Returns when the relay listens.
    pub fn starts(&mut self) {
        let limited = |command: Command| match self.files {
            Some(most) => with_files(most, &command),
            None => command,
        };
        match &mut self.kind {
            Kind::Logferry { setup, runs, before } => {
                *before = pending(setup, FORWARD);
                *runs = Some(setup.start_with(&mut limited(setup.command())));
            }
            Kind::Peer { command, runs } => {
                let mut program = Program::start(&mut limited(command.build()));
                eventually("the relay listens", || {
                    if let Some(status) = program.has_ended() {
                        panic!("it ended at once: {status}");
                    }
                    self.way.is_open().then_some(())
                });
                *runs = Some(program);
            }
        }
    }

    /// Freezes the disk of the spool: no process can write to it until the result is dropped.
    pub fn disk_freezes(&self) -> Frozen {
        self.device.as_ref().expect("a disk of its own").freeze()
    }

    /// Removes the path of the unix socket that senders connect to.
    pub fn loses_its_socket(&self) {
        let Way::Unix(path) = &self.way else { unreachable!("it listens on a unix socket") };
        fs::remove_file(path).expect("it is there");
    }

    /// `kill -9`.
    pub fn dies(&mut self) {
        match &mut self.kind {
            Kind::Logferry { runs, .. } => runs.take().expect("it runs").kill(),
            Kind::Peer { runs, .. } => runs.take().expect("it runs").kill(),
        }
    }

    /// SIGTERM, then waits for the end.
    pub fn stops(&mut self) {
        match &mut self.kind {
            Kind::Logferry { runs, .. } => {
                runs.take().expect("it runs").stops();
            }
            Kind::Peer { runs, .. } => {
                let mut program = runs.take().expect("it runs");
                program.signal(SIGTERM);
                program.ends();
            }
        }
    }

    /// The messages that an ended relay had taken, as far as its spool shows: the number after the highest one of each
    /// stream. A stream is spooled in order, so the relay had all messages before it, too. The spool of a peer cannot
    /// be read.
    pub fn had_taken(&self) -> Option<[usize; STREAMS]> {
        let Kind::Logferry { setup, .. } = &self.kind else { return None };
        let mut tally = Tally::default();
        setup.segments().iter().for_each(|file| tally.add_all(&fs::read(file).expect("a segment")));
        Some(tally.reached())
    }

    /// Whether the relay reports that no lines wait. Always false for a peer.
    pub fn has_nothing_waiting(&self) -> bool {
        match &self.kind {
            Kind::Logferry { runs: Some(relay), .. } => relay.metrics().sum("forward_waiting") == 0,
            _ => false,
        }
    }

    /// How many lines the relay reports as dropped because its disk took too long. Zero for a peer.
    pub fn has_dropped(&self) -> usize {
        self.says(|metrics| metrics.with("spool_dropped_total", "reason=\"stalled\""))
    }

    /// How often the relay reports that it has connected.
    pub fn has_connected(&self) -> usize {
        self.says(|metrics| metrics.with("forward_connects_total", ""))
    }

    fn says(&self, what: impl Fn(&Metrics) -> i64) -> usize {
        let Kind::Logferry { runs: Some(relay), .. } = &self.kind else { return 0 };
        usize::try_from(what(&relay.metrics())).expect("no counter is negative")
    }

    /// Checks the books of the relay's last life.
    pub fn balances(&self) {
        if let Kind::Logferry { runs: Some(relay), before, .. } = &self.kind {
            relay.balances(*before);
        }
    }
}

impl To<'_> {
    /// Host and port.
    pub fn host(&self) -> (String, u16) {
        match self {
            Self::At(at) => (at.ip().to_string(), at.port()),
            Self::Named(_, port) => (dns::NAME.to_owned(), *port),
            Self::Files(_) => unreachable!("files have no address"),
        }
    }

    /// The URL in our relay's config.
    fn url(&self, transport: Transport) -> String {
        match self {
            Self::Files(dir) => format!("file://{}/{{app}}.log", dir.display()),
            _ => {
                let (host, port) = self.host();
                url(transport, format!("{host}:{port}"))
            }
        }
    }
}

/// From the senders, to the collector, and to the other forward's collector.
pub type Ways<'a> = (&'a Way, &'a To<'a>, Option<SocketAddr>);

fn logferry(setup: Setup, row: &Row, size: &Size, (from, to, beside): Ways) -> Setup {
    let mut setup = setup.listen(&match from {
        Way::Udp(at) => url(Transport::Udp, at),
        Way::Tcp(at) => url(Transport::Tcp, at),
        Way::Relp(at) => url(Transport::Relp, at),
        Way::Unix(path) => format!("unix://{}", path.display()),
    });
    let mut keys = String::new();
    if row.transport == Transport::Tls {
        keys += &format!("ca = \"{}\"\n", Certs::get().path("ca.pem"));
    }
    if !size.defaults {
        keys += "max-backoff = \"200ms\"\n";
        keys += if row.transport == Transport::File { "" } else { "dead-after = \"1s\"\n" };
    }
    let forward = |name: &str, to: &str| format!("[[forward]]\nto = \"{to}\"\nname = \"{name}\"\n{keys}");
    setup = setup.section(&forward(FORWARD, &to.url(row.transport)));
    if let Some(beside) = beside {
        setup = setup.section(&forward(BESIDE, &url(row.transport, beside)));
    }
    match to {
        To::At(_) | To::Files(_) => setup,
        To::Named(names, _) if size.defaults => {
            setup.section(&format!("[resolve]\nnameservers = \"{}\"", names.address()))
        }
        To::Named(names, _) => setup.section(&names.section()),
    }
}
