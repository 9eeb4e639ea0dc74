//! The relays that are measured: each one's program, its config for a row, and the kernel's figures for its process.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::load::{RECEIVE_BUFFER, Way};
use super::support::rsyslog::{self, Input};
use super::support::syslog_ng::SyslogNg;
use super::support::{Certs, Held, Program};
use super::wire;

/// The listen backlog of both relays. rsyslog's default is 5, and then some of 50 connections are reset.
const BACKLOG: i32 = logferry::internals::listen::BACKLOG;
/// Only a relay that fails to start takes this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two attempts to connect to a starting relay.
const KNOCK_AGAIN: Duration = Duration::from_micros(200);

#[derive(Clone, Copy, PartialEq)]
pub enum System {
    Wire,
    Logferry,
    /// With its default main queue.
    Rsyslog,
    /// With its main queue on disk, which corresponds to a spool.
    RsyslogDisk,
    /// With its queue in memory.
    SyslogNg,
}

/// A running relay. Dropping it kills it.
pub struct Relay {
    program: Program,
    address: SocketAddr,
    /// Time from its start until it has accepted a connection. With UDP alone: until its process has started.
    pub accepted_after: Duration,
    _held: Held,
    /// The relay's spool and config.
    _dir: TempDir,
}

/// The CPUs: one for the relay, the others, if there are any, for senders and sinks.
pub struct Cpus {
    all: Vec<usize>,
}

impl System {
    pub const ALL: [Self; 5] = [Self::Wire, Self::Logferry, Self::Rsyslog, Self::RsyslogDisk, Self::SyslogNg];

    pub fn is_peer(self) -> bool {
        !matches!(self, Self::Wire | Self::Logferry)
    }

    /// Whether the program is installed. Reports a missing program.
    pub fn is_here(&self) -> bool {
        match self {
            Self::Wire | Self::Logferry => true,
            Self::Rsyslog | Self::RsyslogDisk => rsyslog::find(Input::Tcp).is_some(),
            Self::SyslogNg => SyslogNg::find().is_some(),
        }
    }

    /// Whether the program supports this transport. Reports a missing package.
    pub fn can(self, way: Way) -> bool {
        match self {
            Self::Wire | Self::SyslogNg => way != Way::Tls,
            Self::Logferry => true,
            Self::Rsyslog | Self::RsyslogDisk => way != Way::Tls || rsyslog::find(Input::Tls).is_some(),
        }
    }

    /// The program's path and the version that it prints.
    pub fn version(self) -> Option<String> {
        let (mut command, flag) = match self {
            Self::Logferry => (Command::new(ours()), "--version"),
            Self::Rsyslog => (Command::new(rsyslogd()), "-v"),
            Self::SyslogNg => (SyslogNg::find().expect("it was looked for").command(Path::new("/")), "--version"),
            Self::Wire | Self::RsyslogDisk => return None,
        };
        let said = command.arg(flag).output().expect("it starts").stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        Some(format!(
            "{}: {}",
            command.get_program().display(),
            said.lines().next()?.trim_end_matches(" compiled with:")
        ))
    }

    fn command(self, way: Way, from: SocketAddr, to: &[SocketAddr], dir: &Path) -> Command {
        match self {
            Self::Wire => wire::command(way, from, to),
            Self::Logferry => {
                let config = dir.join("logferry.toml");
                fs::write(&config, logferry_toml(way, from, to, dir)).expect("written");
                let mut command = Command::new(ours());
                command.env_clear().arg("run").arg("--config").arg(config);
                command
            }
            Self::Rsyslog | Self::RsyslogDisk => {
                fs::write(dir.join("conf"), rsyslog_conf(way, from, to, dir, self == Self::RsyslogDisk))
                    .expect("written");
                rsyslog::command(&rsyslogd(), dir)
            }
            Self::SyslogNg => {
                fs::write(dir.join("conf"), syslog_ng_conf(way, from, to)).expect("written");
                SyslogNg::find().expect("it was looked for").command(dir)
            }
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wire => "wire",
            Self::Logferry => "logferry",
            Self::Rsyslog => "rsyslog, memory",
            Self::RsyslogDisk => "rsyslog, disk",
            Self::SyslogNg => "syslog-ng, memory",
        })
    }
}

fn ours() -> PathBuf {
    std::env::var_os("LOGFERRY_BINARY").unwrap_or(env!("CARGO_BIN_EXE_logferry").into()).into()
}

fn rsyslogd() -> PathBuf {
    rsyslog::find(Input::Tcp).expect("it was looked for")
}

/// The default config, with a directory for the spool.
fn logferry_toml(way: Way, from: SocketAddr, to: &[SocketAddr], dir: &Path) -> String {
    let certs = if way == Way::Tls { Certs::get().listen() } else { String::new() };
    let (scheme, out) = match way {
        Way::Udp => ("udp", "tcp"),
        Way::Tcp => ("tcp", "tcp"),
        Way::Tls => ("tcp+tls", "tcp+tls"),
    };
    let mut config = format!(
        "[spool]\ndir = \"{}/spool\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listen]]\naddress = \"{scheme}://{from}\"\n{certs}",
        dir.display(),
    );
    for (number, to) in to.iter().enumerate() {
        let url = format!("{out}://{to}");
        config += &format!("[[forward]]\nname = \"sink-{number}\"\nto = \"{url}\"\nframing = \"newline\"\n");
        config += &Certs::trusted(&url);
    }
    config
}

/// rsyslog has two modules for TCP. This config uses the one that rsyslog's documentation calls faster; TLS needs the
/// other one. rsyslog also parses the messages and writes RFC 5424.
fn rsyslog_conf(way: Way, from: SocketAddr, to: &[SocketAddr], dir: &Path, disk: bool) -> String {
    let (dir, ip, port) = (dir.display(), from.ip(), from.port());
    let input = match way {
        Way::Udp => format!("module(load=\"imudp\")\ninput(type=\"imudp\" rcvbufSize=\"{RECEIVE_BUFFER}\""),
        Way::Tcp => format!("module(load=\"imptcp\")\ninput(type=\"imptcp\" socketBacklog=\"{BACKLOG}\""),
        Way::Tls => format!("{}\ninput(type=\"imtcp\"", rsyslog::tls()),
    };
    let tls = match way {
        Way::Tls => "streamDriver=\"ossl\" streamDriverMode=\"1\" streamDriverAuthMode=\"x509/certvalid\"",
        Way::Udp | Way::Tcp => "",
    };
    let queue = if disk { "main_queue(queue.type=\"Disk\" queue.filename=\"main\")" } else { "" };
    let mut conf = format!(
        "global(workDirectory=\"{dir}\" net.enableDNS=\"off\")\n{queue}\n{input} address=\"{ip}\" port=\"{port}\")\n"
    );
    for to in to {
        conf += &format!(
            "action(type=\"omfwd\" protocol=\"tcp\" target=\"{}\" port=\"{}\" template=\"RSYSLOG_SyslogProtocol23Format\" \
             action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\" {tls})\n",
            to.ip(),
            to.port(),
        );
    }
    conf
}

/// syslog-ng's defaults, with buffers that do not stop a sender. syslog-ng also parses the messages and writes RFC 5424.
fn syslog_ng_conf(way: Way, from: SocketAddr, to: &[SocketAddr]) -> String {
    let (ip, port) = (from.ip(), from.port());
    let input = match way {
        Way::Udp => format!("network(ip({ip}) port({port}) transport(udp) so-rcvbuf({RECEIVE_BUFFER}))"),
        Way::Tcp | Way::Tls => format!(
            "network(ip({ip}) port({port}) transport(tcp) max-connections(1000) listen-backlog({BACKLOG}) \
             log-iw-size(1000000))"
        ),
    };
    let mut conf = format!(
        "@version: 3.38\noptions {{ use-dns(no); keep-hostname(yes); stats-freq(0); }};\nsource in {{ {input}; }};\n"
    );
    for (number, to) in to.iter().enumerate() {
        let (ip, port) = (to.ip(), to.port());
        conf += &format!(
            "destination out{number} {{ syslog(\"{ip}\" port({port}) transport(tcp) log-fifo-size(4000000) \
             template(\"${{MSGHDR}}${{MESSAGE}}\\n\")); }};\nlog {{ source(in); destination(out{number}); flags(flow-control); }};\n"
        );
    }
    conf
}

impl Relay {
    /// Starts the relay. Returns when the relay has accepted a connection, or at once when it has only UDP.
    pub fn start(system: System, way: Way, to: &[SocketAddr], cpus: &Cpus) -> Self {
        let dir = TempDir::new().expect("a directory");
        let held = Held::new(way == Way::Udp, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, held.port()));
        let mut command = system.command(way, address, to, dir.path());
        let start = Instant::now();
        let program = cpus.start(&mut command);
        let mut relay = Self { program, address, accepted_after: Duration::ZERO, _held: held, _dir: dir };
        while way != Way::Udp && TcpStream::connect(address).is_err() {
            relay.is_up();
            assert!(start.elapsed() < PATIENCE, "{system} does not listen");
            thread::sleep(KNOCK_AGAIN);
        }
        relay.accepted_after = start.elapsed();
        relay
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[track_caller]
    pub fn is_up(&mut self) {
        assert!(self.program.has_ended().is_none(), "the relay has ended");
    }

    /// CPU time of all its threads so far, in seconds. It is exact: /proc/PID/stat counts in steps of 10 ms.
    pub fn cpu(&self) -> f64 {
        let clock = clock_getcpuclockid(Pid::from_raw(self.program.id() as i32)).expect("it runs");
        Duration::from(clock.now().expect("it runs")).as_secs_f64()
    }

    /// How often its threads have waited so far. Each wait ends with a wake-up.
    pub fn waits(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.program.id())).expect("it runs");
        let status = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
        let waits = status.filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        });
        waits.sum()
    }

    /// The value of a line of /proc/PID/status, converted from kB to MiB.
    pub fn mib(&self, name: &str) -> f64 {
        let status = self.proc("status");
        let kb = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":")?.strip_suffix("kB"));
        kb.expect("the kernel has it").trim().parse::<f64>().expect("a number") / 1024.0
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.program.id())).expect("it runs")
    }
}

impl Cpus {
    /// Moves this thread, and every thread and process that it starts, to all CPUs but one. That CPU is left to the
    /// relay.
    pub fn shared_out() -> Self {
        let may = sched_getaffinity(Pid::from_raw(0)).expect("Linux tells");
        let all = (0..CpuSet::count()).filter(|cpu| may.is_set(*cpu) == Ok(true)).collect();
        let cpus = Self { all };
        cpus.go_to(cpus.tools());
        cpus
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    fn tools(&self) -> &[usize] {
        &self.all[..self.all.len() - 1]
    }

    /// A child inherits the CPU affinity of the thread that starts it, so all threads of the relay stay on its CPU.
    fn start(&self, command: &mut Command) -> Program {
        self.go_to(&self.all[self.all.len() - 1..]);
        let program = Program::start(command);
        self.go_to(self.tools());
        program
    }

    fn go_to(&self, cpus: &[usize]) {
        if self.all.len() > 1 {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|cpu| set.set(*cpu).expect("one of those we have"));
            sched_setaffinity(Pid::from_raw(0), &set).expect("we may use what we have");
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.all {
            [.., _, relay] => write!(f, "the relay alone on CPU {relay}"),
            _ => f.write_str("not pinned: there is only one CPU"),
        }
    }
}
