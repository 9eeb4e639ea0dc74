//! The peers that replace logferry: rsyslog and syslog-ng, each in the configuration that loses least.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::row::{Make, Row, Senders, Transport};
use super::support::rsyslog::{self, Input};
use super::support::{SyslogNg, installed};
use super::under_test::{BESIDE, FORWARD, To, Ways};
use super::wire::Way;

pub struct PeerCommand {
    program: PeerProgram,
    dir: PathBuf,
    /// A `resolv.conf` visible to this process alone, because a peer can only use the system's name servers.
    resolver: Option<PathBuf>,
}

enum PeerProgram {
    Rsyslog(PathBuf),
    SyslogNg(SyslogNg),
}

impl PeerCommand {
    /// `None`: the peer is not installed here.
    pub fn new(peer: Make, row: &Row, ways: Ways, dir: &Path) -> Option<Self> {
        fs::create_dir(dir.join("spool")).expect("a directory");
        let (program, conf) = match peer {
            Make::Rsyslog => (PeerProgram::Rsyslog(rsyslog_for(row)?), rsyslog_conf(row.transport, ways, dir)),
            Make::SyslogNg => (PeerProgram::SyslogNg(SyslogNg::find()?), syslog_ng_conf(ways, dir)),
            Make::Logferry | Make::Files => unreachable!("no peer"),
        };
        fs::write(dir.join("conf"), conf).expect("written");
        let resolver = match ways.1 {
            To::At(_) | To::Files(_) => None,
            To::Named(names, _) => {
                installed("unshare", "util-linux")?;
                let file = dir.join("resolv.conf");
                let text = format!("nameserver {}\noptions timeout:1 attempts:2\n", names.address().ip());
                fs::write(&file, text).expect("written");
                Some(file)
            }
        };
        Some(Self { program, dir: dir.to_owned(), resolver })
    }

    pub fn build(&self) -> Command {
        let command = match &self.program {
            PeerProgram::Rsyslog(program) => rsyslog::command(program, &self.dir),
            PeerProgram::SyslogNg(syslog_ng) => syslog_ng.command(&self.dir),
        };
        let Some(resolver) = &self.resolver else { return command };
        // A mount namespace of its own. `exec` keeps the pid, so that signals reach the relay.
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(resolver);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped
    }
}

/// `None`: rsyslog is not installed, or lacks a module for the row's transports.
fn rsyslog_for(row: &Row) -> Option<PathBuf> {
    if row.senders() == Senders::Relp {
        rsyslog::find(Input::Relp)?;
    }
    rsyslog::find(if row.transport == Transport::File { Input::Tcp } else { row.transport.input() })
}

/// Forwards the raw messages through disk-assisted queues, which use the disk when the queue in memory fills, and retries
/// the collector for ever. Files have a queue in memory alone.
fn rsyslog_conf(transport: Transport, (from, to, beside): Ways, dir: &Path) -> String {
    let spool = dir.join("spool");
    let bound = |at: &SocketAddr| format!("address=\"{}\" port=\"{}\" ruleset=\"relay\"", at.ip(), at.port());
    let input = match from {
        Way::Tcp(at) => format!("module(load=\"imptcp\")\ninput(type=\"imptcp\" {})", bound(at)),
        Way::Unix(path) => {
            let path = path.display();
            format!("module(load=\"imptcp\")\ninput(type=\"imptcp\" path=\"{path}\" ruleset=\"relay\")")
        }
        Way::Relp(at) => format!("module(load=\"imrelp\")\ninput(type=\"imrelp\" maxDataSize=\"128k\" {})", bound(at)),
        Way::Udp(_) => unreachable!("no row has rsyslog receive by UDP"),
    };
    let send = |host: &str, port: u16, queue: &str| {
        let how = match transport.input() {
            Input::Tcp => {
                "type=\"omfwd\" protocol=\"tcp\" template=\"same\" keepAlive=\"on\" keepAlive.time=\"5\" keepAlive.interval=\"2\" keepAlive.probes=\"3\""
            }
            Input::Relp => "type=\"omrelp\" windowSize=\"200\" template=\"same-counted\"",
            other => unreachable!("no row has rsyslog forward by {other:?}"),
        };
        format!(
            "action({how} target=\"{host}\" port=\"{port}\" action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\" \
             queue.type=\"LinkedList\" queue.size=\"200000\" queue.filename=\"{queue}\" queue.maxDiskSpace=\"2g\" \
             queue.saveOnShutdown=\"on\" queue.dequeueBatchSize=\"1024\")\n"
        )
    };
    // The name in Docker's tag.
    let (file, mut actions) = match to {
        To::Files(dir) => (
            format!("template(name=\"file\" type=\"string\" string=\"{}/%app-name:F,47:4%.log\")\n", dir.display()),
            "action(type=\"omfile\" dynaFile=\"file\" template=\"same\" action.resumeRetryCount=\"-1\" \
             action.resumeInterval=\"1\" queue.type=\"LinkedList\" queue.size=\"200000\")\n"
                .to_owned(),
        ),
        _ => {
            let (host, port) = to.host();
            (String::new(), send(&host, port, "relay"))
        }
    };
    if let Some(beside) = beside {
        actions += &send(&beside.ip().to_string(), beside.port(), BESIDE);
    }
    let sender = if transport == Transport::Relp { "module(load=\"omrelp\")\n" } else { "" };
    format!(
        "global(workDirectory=\"{}\" maxMessageSize=\"128k\" net.enableDNS=\"on\" \
         parser.escapeControlCharactersOnReceive=\"off\")\n{sender}{file}\
         template(name=\"same\" type=\"string\" string=\"%rawmsg%\\n\")\n\
         template(name=\"same-counted\" type=\"string\" string=\"%rawmsg%\")\n\
         ruleset(name=\"relay\" queue.type=\"Direct\") {{\n{actions}}}\n{input}\n",
        spool.display(),
    )
}

/// The reliable disk buffer, and flow control, which blocks senders when the buffer is full.
fn syslog_ng_conf((from, to, beside): Ways, dir: &Path) -> String {
    let source = match from {
        Way::Tcp(at) => format!("network(ip({}) port({}) transport(\"tcp\")", at.ip(), at.port()),
        Way::Unix(path) => format!("unix-stream(\"{}\"", path.display()),
        Way::Udp(_) | Way::Relp(_) => unreachable!("it does not speak that here"),
    };
    let spool = dir.join("spool");
    let send = |host: &str, port: u16| {
        format!(
            "network(\"{host}\" port({port}) transport(\"tcp\") template(\"$MSG\\n\") \
             so-keepalive(yes) tcp-keepalive-time(5) tcp-keepalive-intvl(2) tcp-keepalive-probes(3) \
             disk-buffer(reliable(yes) dir(\"{}\") disk-buf-size(2147483648) mem-buf-size(67108864)))",
            spool.display()
        )
    };
    // Forwards messages unparsed, except when the container selects the file: that needs the name in Docker's tag.
    let (central, parse) = match to {
        To::Files(dir) => (
            format!("file(\"{}/$(list-nth 3 $(explode / $PROGRAM)).log\" template(\"$MSG\\n\"))", dir.display()),
            "syslog-protocol",
        ),
        _ => {
            let (host, port) = to.host();
            (send(&host, port), "no-parse")
        }
    };
    let another = beside.map(|at| send(&at.ip().to_string(), at.port()));
    let destinations = |of: &str, name: &str| format!("destination {name} {{ {of}; }};\n");
    let mut all = destinations(&central, FORWARD);
    all += &another.as_ref().map(|of| destinations(of, BESIDE)).unwrap_or_default();
    let to_it = another.map(|_| format!("destination({BESIDE}); ")).unwrap_or_default();
    format!(
        "@version: 3.35\n\
         options {{ keep-hostname(yes); log-msg-size(131072); use-dns(no); dns-cache(no); stats-freq(0); time-reopen(1); }};\n\
         source senders {{ {source} flags({parse}) \
         log-fetch-limit(1000) log-iw-size(100000) max-connections(100)); }};\n{all}\
         log {{ source(senders); destination({FORWARD}); {to_it}flags(flow-control); }};\n"
    )
}
