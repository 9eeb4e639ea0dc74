//! The relay between senders and collector: ours, or one of the peers in the configuration that loses least.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::collector::{pending, url};
use super::load::{STREAMS, Way};
use super::row::{Make, Row, Size, Transport};
use super::support::Held;
use super::support::program::SIGTERM;
use super::support::rsyslog::{self, Input};
use super::support::{Certs, NameServer, Program, Relay, Setup, SyslogNg, dns, eventually, installed};
use super::tally::Tally;

const FORWARD: &str = "central";

/// The way to the collector.
pub enum To<'a> {
    At(SocketAddr),
    /// By [`dns::NAME`], which this server knows.
    Named(&'a NameServer, u16),
}

pub struct UnderTest {
    kind: Kind,
    way: Way,
    /// The port it listens on.
    _held: Held,
}

enum Kind {
    Logferry { setup: Setup, runs: Option<Relay>, before: u64 },
    Peer { command: PeerCommand, runs: Option<Program>, _dir: TempDir },
}

struct PeerCommand {
    program: PeerProgram,
    dir: PathBuf,
    /// It can only ask the system's name servers: a `resolv.conf` that it alone will see.
    resolver: Option<PathBuf>,
}

enum PeerProgram {
    Rsyslog(PathBuf),
    SyslogNg(SyslogNg),
}

impl UnderTest {
    /// Starts it. `None`: it is not installed here.
    pub fn start(row: &Row, size: &Size, to: &To) -> Option<Self> {
        let udp = row.transport == Transport::Udp;
        let held = Held::new(udp, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, held.port()));
        let kind = match row.relay {
            Make::Logferry => {
                let setup = logferry(row, size, to, from);
                Kind::Logferry { setup, runs: None, before: 0 }
            }
            peer => {
                assert!(!udp, "peers are told over TCP and RELP");
                let dir = TempDir::new().expect("a directory");
                let (program, conf) = match peer {
                    Make::Rsyslog => {
                        let program = rsyslog::find(row.transport.input())?;
                        (PeerProgram::Rsyslog(program), rsyslog_conf(row.transport, to, from, dir.path()))
                    }
                    _ => (PeerProgram::SyslogNg(SyslogNg::find()?), syslog_ng_conf(to, from, dir.path())),
                };
                fs::write(dir.path().join("conf"), conf).expect("written");
                let resolver = match to {
                    To::At(_) => None,
                    To::Named(names, _) => {
                        installed("unshare", "util-linux")?;
                        let file = dir.path().join("resolv.conf");
                        let text = format!("nameserver {}\noptions timeout:1 attempts:2\n", names.address().ip());
                        fs::write(&file, text).expect("written");
                        Some(file)
                    }
                };
                let command = PeerCommand { program, dir: dir.path().to_owned(), resolver };
                Kind::Peer { command, runs: None, _dir: dir }
            }
        };
        let way = if udp { Way::Udp(from) } else { Way::Tcp(from) };
        let mut relay = Self { kind, way, _held: held };
        relay.starts();
        Some(relay)
    }

    pub fn way(&self) -> Way {
        self.way
    }

    /// Returns when it listens.
    pub fn starts(&mut self) {
        match &mut self.kind {
            Kind::Logferry { setup, runs, before } => {
                *before = pending(setup, FORWARD);
                *runs = Some(setup.start());
            }
            Kind::Peer { command, runs, .. } => {
                let Way::Tcp(at) = self.way else { unreachable!("checked at the start") };
                let mut program = Program::start(&mut command.build());
                eventually("the relay listens", || {
                    if let Some(status) = program.has_ended() {
                        panic!("it ended at once: {status}");
                    }
                    TcpStream::connect(at).is_ok().then_some(())
                });
                *runs = Some(program);
            }
        }
    }

    /// `kill -9`.
    pub fn dies(&mut self) {
        match &mut self.kind {
            Kind::Logferry { runs, .. } => runs.take().expect("it runs").kill(),
            Kind::Peer { runs, .. } => runs.take().expect("it runs").kill(),
        }
    }

    /// SIGTERM, and it ends.
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

    /// What a relay that has ended had taken, as far as its spool still shows it: the number behind the highest one of
    /// each stream. A stream is spooled in order, so that it had all before it, too. Of a peer's spool nothing is known.
    pub fn had_taken(&self) -> Option<[usize; STREAMS]> {
        let Kind::Logferry { setup, .. } = &self.kind else { return None };
        let mut tally = Tally::default();
        setup.segments().iter().for_each(|file| tally.add_all(&fs::read(file).expect("a segment")));
        Some(tally.reached())
    }

    /// Whether it says that nothing waits any more. Of a peer, nobody knows.
    pub fn has_nothing_waiting(&self) -> bool {
        match &self.kind {
            Kind::Logferry { runs: Some(relay), .. } => relay.metrics().sum("forward_waiting") == 0,
            _ => false,
        }
    }

    /// Checks the books of its last life.
    pub fn balances(&self) {
        if let Kind::Logferry { runs: Some(relay), before, .. } = &self.kind {
            relay.balances(*before);
        }
    }
}

impl PeerCommand {
    fn build(&self) -> Command {
        let command = match &self.program {
            PeerProgram::Rsyslog(program) => rsyslog::command(program, &self.dir),
            PeerProgram::SyslogNg(syslog_ng) => syslog_ng.command(&self.dir),
        };
        let Some(resolver) = &self.resolver else { return command };
        // A mount namespace of its own; `exec` keeps the pid, so that signals reach the relay.
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(resolver);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped
    }
}

impl To<'_> {
    /// Host and port.
    fn host(&self) -> (String, u16) {
        match self {
            Self::At(at) => (at.ip().to_string(), at.port()),
            Self::Named(_, port) => (dns::NAME.to_owned(), *port),
        }
    }
}

fn logferry(row: &Row, size: &Size, to: &To, from: SocketAddr) -> Setup {
    let listen = if row.transport == Transport::Udp { url(Transport::Udp, from) } else { url(Transport::Tcp, from) };
    let mut setup = Setup::new().listen(&listen);
    let (host, port) = to.host();
    let mut keys = format!("name = \"{FORWARD}\"\n");
    if row.transport == Transport::Tls {
        keys += &format!("ca = \"{}\"\n", Certs::get().path("ca.pem"));
    }
    if !size.defaults {
        keys += "dead-after = \"1s\"\nmax-backoff = \"200ms\"\n";
    }
    let to_url = url(row.transport, format!("{host}:{port}"));
    setup = setup.section(&format!("[[forward]]\nto = \"{to_url}\"\n{keys}"));
    match to {
        To::At(_) => setup,
        To::Named(names, _) if size.defaults => {
            setup.section(&format!("[resolve]\nnameservers = \"{}\"", names.address()))
        }
        To::Named(names, _) => setup.section(&names.section()),
    }
}

/// What a message passes unparsed, on disk as soon as memory alone would have it; for ever patient with the collector.
fn rsyslog_conf(transport: Transport, to: &To, from: SocketAddr, dir: &Path) -> String {
    let (host, port) = to.host();
    let (dir, in_ip, in_port) = (dir.display(), from.ip(), from.port());
    let (module, action) = match transport.input() {
        Input::Tcp => ("", "type=\"omfwd\" protocol=\"tcp\" keepAlive=\"on\" keepAlive.time=\"5\" keepAlive.interval=\"2\" keepAlive.probes=\"3\"".to_owned()),
        Input::Relp => ("module(load=\"omrelp\")", "type=\"omrelp\" windowSize=\"200\"".to_owned()),
        other => unreachable!("no row has rsyslog forward by {other:?}"),
    };
    format!(
        "global(workDirectory=\"{dir}\" maxMessageSize=\"128k\" net.enableDNS=\"on\" \
         parser.escapeControlCharactersOnReceive=\"off\")\n\
         module(load=\"imptcp\")\n{module}\n\
         template(name=\"same\" type=\"string\" string=\"%rawmsg%\\n\")\n\
         template(name=\"same-counted\" type=\"string\" string=\"%rawmsg%\")\n\
         ruleset(name=\"relay\" queue.type=\"Direct\") {{\n\
         action({action} target=\"{host}\" port=\"{port}\" template=\"{}\" action.resumeRetryCount=\"-1\" \
         action.resumeInterval=\"1\" queue.type=\"LinkedList\" queue.size=\"200000\" queue.filename=\"relay\" \
         queue.maxDiskSpace=\"2g\" queue.saveOnShutdown=\"on\" queue.dequeueBatchSize=\"1024\")\n\
         }}\n\
         input(type=\"imptcp\" address=\"{in_ip}\" port=\"{in_port}\" ruleset=\"relay\")\n",
        if transport == Transport::Relp { "same-counted" } else { "same" },
    )
}

/// The reliable kind of disk buffer, and senders that are held when it is full.
fn syslog_ng_conf(to: &To, from: SocketAddr, dir: &Path) -> String {
    let (host, port) = to.host();
    let (dir, in_ip, in_port) = (dir.display(), from.ip(), from.port());
    format!(
        "@version: 3.35\n\
         options {{ keep-hostname(yes); log-msg-size(131072); use-dns(no); dns-cache(no); stats-freq(0); time-reopen(1); }};\n\
         source senders {{ network(ip({in_ip}) port({in_port}) transport(\"tcp\") flags(no-parse) \
         log-fetch-limit(1000) log-iw-size(100000) max-connections(100)); }};\n\
         destination central {{ network(\"{host}\" port({port}) transport(\"tcp\") template(\"$MSG\\n\") \
         so-keepalive(yes) tcp-keepalive-time(5) tcp-keepalive-intvl(2) tcp-keepalive-probes(3) \
         disk-buffer(reliable(yes) dir(\"{dir}\") disk-buf-size(2147483648) mem-buf-size(67108864))); }};\n\
         log {{ source(senders); destination(central); flags(flow-control); }};\n"
    )
}
