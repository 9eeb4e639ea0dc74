//! The collectors: a real rsyslog that writes lines to a file, or a second relay. The second relay forwards to an
//! address where no server listens, so its spool keeps all lines. Both are processes that can be killed, stopped and
//! started again. For a file forward, the collector is the relay's own files.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use logferry::internals::metrics::Metrics;
use logferry::internals::spool::{self, Reader, Spool};
use tempfile::TempDir;

use super::load::container;
use super::row::{Make, Transport};
use super::support::Held;
use super::support::program::{SIGKILL, SIGTERM};
use super::support::rsyslog::{self, ARRIVED};
use super::support::{Certs, Program, Relay, Setup, eventually};
use super::tally::{Place, Tally, Watch, files};

/// The forward of a relay that serves as a collector.
const NOBODY: &str = "nobody";
/// The stream whose file cannot be written at first.
const REFUSED: usize = 1;
const NO_PROGRAM: &str = "files are no program";

pub struct Collector {
    /// Its address. Files have none.
    at: Option<SocketAddr>,
    transport: Transport,
    kind: Kind,
    pub watch: Watch,
}

enum Kind {
    Rsyslog {
        program: PathBuf,
        dir: TempDir,
        runs: Option<Program>,
    },
    Logferry {
        setup: Setup,
        runs: Option<Relay>,
        /// Lines in its spool at its last start.
        before: u64,
        _nobody: Held,
    },
    /// A file for each container.
    Files(TempDir),
}

impl Collector {
    /// `None`: the program is not installed here. The collector is not started yet.
    pub fn new(make: Make, transport: Transport, at: SocketAddr) -> Option<Self> {
        let at = (make != Make::Files).then_some(at);
        let (kind, place) = match make {
            Make::Rsyslog => {
                let program = rsyslog::find(transport.input())?;
                let dir = TempDir::new().expect("a directory");
                let conf = rsyslog::conf(transport.input(), at?, dir.path(), &[]);
                fs::write(dir.path().join("conf"), conf).expect("written");
                let place = Place::File(dir.path().join(ARRIVED));
                (Kind::Rsyslog { program, dir, runs: None }, place)
            }
            Make::Logferry => {
                let nobody = Held::on(&[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
                let keys = if transport == Transport::Tls { Certs::get().listen() } else { String::new() };
                let setup = Setup::new().top("grace = \"100ms\"").listen_with(&url(transport, at?), &keys);
                let to = format!("tcp://127.0.0.1:{}", nobody.port());
                let setup = setup.forward_with(&to, &format!("name = \"{NOBODY}\""));
                let place = Place::Spool(setup.path("spool"));
                (Kind::Logferry { setup, runs: None, before: 0, _nobody: nobody }, place)
            }
            Make::Files => {
                let dir = TempDir::new().expect("a directory");
                fs::create_dir(refused(dir.path())).expect("a directory");
                let place = Place::Files(dir.path().to_owned());
                (Kind::Files(dir), place)
            }
            Make::SyslogNg => unreachable!("it is no collector here"),
        };
        Some(Self { at, transport, kind, watch: Watch::new(place) })
    }

    pub fn at(&self) -> SocketAddr {
        self.at.expect("it listens")
    }

    /// The directory of the files that the relay writes itself.
    pub fn dir_of_files(&self) -> Option<&Path> {
        let Kind::Files(dir) = &self.kind else { return None };
        Some(dir.path())
    }

    /// Removes the directory that blocks one container's file. From then on the relay can write the file.
    pub fn refuses_no_file(&self) {
        fs::remove_dir(refused(self.dir_of_files().expect("files"))).expect("nothing is in it");
    }

    /// Starts the program. Returns when it listens.
    pub fn starts(&mut self) {
        match &mut self.kind {
            Kind::Rsyslog { program, dir, runs } => {
                let mut child = Program::start(&mut rsyslog::command(program, dir.path()));
                let (at, udp) = (self.at.expect("it listens"), self.transport == Transport::Udp);
                eventually("rsyslog listens", || {
                    if let Some(status) = child.has_ended() {
                        panic!("rsyslog ended at once: {status}");
                    }
                    // A UDP port is in use once the daemon has bound it.
                    let listens = if udp { UdpSocket::bind(at).is_err() } else { TcpStream::connect(at).is_ok() };
                    listens.then_some(())
                });
                *runs = Some(child);
            }
            Kind::Logferry { setup, runs, before, .. } => {
                *before = pending(setup, NOBODY);
                *runs = Some(setup.start());
            }
            Kind::Files(_) => {}
        }
    }

    /// `kill -9`.
    pub fn dies(&mut self) {
        match &mut self.kind {
            Kind::Rsyslog { runs, .. } => runs.take().expect("it runs").kill(),
            Kind::Logferry { runs, .. } => runs.take().expect("it runs").kill(),
            Kind::Files(_) => unreachable!("{NO_PROGRAM}"),
        }
    }

    /// SIGTERM, then waits for the end.
    pub fn stops(&mut self) {
        match &mut self.kind {
            Kind::Rsyslog { runs, .. } => {
                let mut program = runs.take().expect("it runs");
                program.signal(SIGTERM);
                program.ends();
            }
            Kind::Logferry { runs, .. } => {
                runs.take().expect("it runs").stops();
            }
            Kind::Files(_) => unreachable!("{NO_PROGRAM}"),
        }
    }

    pub fn signal(&self, signal: i32) {
        debug_assert_ne!(signal, SIGKILL);
        match &self.kind {
            Kind::Rsyslog { runs, .. } => runs.as_ref().expect("it runs").signal(signal),
            Kind::Logferry { runs, .. } => runs.as_ref().expect("it runs").signal(signal),
            Kind::Files(_) => unreachable!("{NO_PROGRAM}"),
        }
    }

    /// Ends it, checks its books, and counts all its lines.
    pub fn counts(mut self) -> Tally {
        let mut tally = Tally::default();
        if let Kind::Logferry { runs: Some(relay), before, .. } = &self.kind {
            relay.balances(*before);
        }
        let runs = match &self.kind {
            Kind::Rsyslog { runs, .. } => runs.is_some(),
            Kind::Logferry { runs, .. } => runs.is_some(),
            Kind::Files(_) => false,
        };
        if runs {
            self.stops();
        }
        match &self.kind {
            Kind::Rsyslog { dir, .. } => tally.add_all(&fs::read(dir.path().join(ARRIVED)).unwrap_or_default()),
            Kind::Logferry { setup, .. } => lines(setup, NOBODY).iter().for_each(|line| tally.add_all(line)),
            Kind::Files(dir) => tally = of_files(dir.path()),
        }
        tally
    }
}

/// The file that cannot be written, because a directory has its name.
fn refused(dir: &Path) -> PathBuf {
    dir.join(format!("{}.log", container(REFUSED)))
}

/// Counts all files. The order of each file is independent.
fn of_files(dir: &Path) -> Tally {
    let of_one = |file: &PathBuf| {
        let mut tally = Tally::default();
        tally.add_all(&fs::read(file).unwrap_or_default());
        tally
    };
    let others = of_one(&dir.join("_others.log")).reached();
    let strays = others.iter().enumerate().filter(|(stream, reached)| *stream != REFUSED && **reached > 0).count();
    assert_eq!(strays, 0, "lines are with the others whose own file can be written");
    files(dir).iter().map(of_one).reduce(|all, more| all.and(&more)).unwrap_or_default()
}

pub fn url(transport: Transport, at: impl std::fmt::Display) -> String {
    let scheme = match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tcp+tls",
        Transport::Relp => "relp",
        Transport::File => unreachable!("a file has no address"),
    };
    format!("{scheme}://{at}")
}

/// The lines spooled for this forward of a stopped relay, in order. They are read from a copy, because opening a spool
/// repairs it, and only the relay may repair its spool.
fn lines(setup: &Setup, forward: &str) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    with_copy(setup, forward, |reader| {
        while let Some(chunk) = reader.next(1 << 20).expect("a disk that works") {
            lines.extend(chunk.run.lines().map(<[u8]>::to_vec));
        }
    });
    lines
}

/// How many lines are pending for this forward of a stopped relay.
pub fn pending(setup: &Setup, forward: &str) -> u64 {
    let mut pending = 0;
    with_copy(setup, forward, |reader| pending = reader.pending());
    pending
}

fn with_copy(setup: &Setup, forward: &str, look: impl FnOnce(&mut Reader)) {
    let copy = TempDir::new().expect("a directory");
    let Ok(files) = fs::read_dir(setup.path("spool")) else { return };
    for file in files.map(|file| file.expect("an entry")) {
        // The `lost+found` directory of a file system.
        if file.path().is_dir() {
            continue;
        }
        fs::copy(file.path(), copy.path().join(file.file_name())).expect("copied");
    }
    let options = spool::Options::new(copy.path(), 1 << 30, vec![forward.to_owned()]);
    let mut spool = Spool::open(options, &Metrics::new()).expect("a spool opens in whatever state it is");
    look(&mut spool.readers[0]);
}
