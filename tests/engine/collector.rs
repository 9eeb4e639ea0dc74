//! The central side: a real rsyslog that writes what it understood, and the DNS server that says where it is.

use super::host::{self, eventually};
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Both are there after this long, or something is wrong with the machine.
const START: Duration = Duration::from_secs(10);

/// A child process that does not outlive its test.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).expect("a log file in our directory");
        let both = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(log).stderr(both);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} to a child of ours");
    }

    /// SIGTERM, and waits until it has gone.
    fn stop(&mut self) {
        self.signal("TERM");
        eventually(START, "a daemon that ends on SIGTERM", || self.0.try_wait().expect("our child"));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What rsyslog made of one message: its own parser's fields, and `[docker@32473 …]` taken apart by mmpstrucdata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub severity: u8,
    pub facility: u8,
    pub stamp: String,
    pub host: String,
    pub app: String,
    pub proc: String,
    pub image: String,
    pub name: String,
    pub id: String,
    pub message: Vec<u8>,
}

/// An rsyslog that listens for RFC 5424 over TCP.
pub struct Collector {
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl Collector {
    pub fn start(address: &str, port: u16) -> Self {
        let dir = host::open_directory();
        let at = dir.path();
        let config = at.join("rsyslog.conf");
        std::fs::write(&config, rsyslog_conf(address, port, at)).expect("a file in our directory");
        let mut command = Command::new(host::program("rsyslogd").expect("asked for before"));
        command.args(["-n", "-f"]).arg(&config).arg("-i").arg(at.join("pid"));
        let daemon = Daemon::start(&mut command, &at.join("log"));
        let collector = Self { daemon, dir };
        eventually(START, "an rsyslog that listens", || TcpStream::connect((address, port)).ok());
        collector
    }

    pub fn stop(&mut self) {
        self.daemon.stop();
    }

    /// Everything that has arrived until now, in order. A last line that is still being written is left for later.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let bytes = std::fs::read(self.file()).unwrap_or_default();
        let complete = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        bytes[..complete].split_inclusive(|&b| b == b'\n').map(|line| arrival(&line[..line.len() - 1])).collect()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("arrived")
    }
}

/// Fields with a tab between them, the message last: it is the only one that may hold a tab itself.
fn rsyslog_conf(address: &str, port: u16, dir: &Path) -> String {
    let fields = ["pri", "timereported", "hostname", "app-name", "procid"].map(|name| {
        format!(r#"property(name="{name}"{})"#, if name == "timereported" { r#" dateFormat="rfc3339""# } else { "" })
    });
    let data = ["image", "name", "id"].map(|name| format!(r#"property(name="$!rfc5424-sd!docker@32473!{name}")"#));
    let tab = r#" constant(value="\t") "#;
    let dir = dir.display();
    format!(
        r#"global(workDirectory="{dir}" maxMessageSize="128k" net.enableDNS="off" parser.escapeControlCharactersOnReceive="off")
module(load="imtcp" maxFrameSize="131072")
module(load="mmpstrucdata")
input(type="imtcp" address="{address}" port="{port}")
template(name="fields" type="list") {{ {fields}{tab}{data}{tab}property(name="msg") constant(value="\n") }}
action(type="mmpstrucdata")
action(type="omfile" file="{dir}/arrived" template="fields")
"#,
        fields = fields.join(tab),
        data = data.join(tab),
    )
}

fn arrival(line: &[u8]) -> Arrival {
    let fields: Vec<&[u8]> = line.splitn(9, |&b| b == b'\t').collect();
    assert_eq!(fields.len(), 9, "what our template writes: {}", String::from_utf8_lossy(line));
    let text = |i: usize| String::from_utf8_lossy(fields[i]).into_owned();
    let pri: u8 = text(0).parse().expect("a PRI");
    Arrival {
        severity: pri & 7,
        facility: pri >> 3,
        stamp: text(1),
        host: text(2),
        app: text(3),
        proc: text(4),
        image: text(5),
        name: text(6),
        id: text(7),
        message: fields[8].to_vec(),
    }
}

/// A dnsmasq that knows one name, and can be told that it has moved.
pub struct Names {
    daemon: Daemon,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl Names {
    /// The name of the central server. `.test` is reserved: nobody else answers for it.
    pub const CENTRAL: &'static str = "central.logs.test";

    /// `address` is where the name points to; `None`: there is no such name yet.
    pub fn start(address: Option<&str>) -> Self {
        let dir = host::open_directory();
        let port = host::free_port(&["127.0.0.1"]);
        let hosts = dir.path().join("hosts");
        write_hosts(&hosts, address);
        let mut command = Command::new(host::program("dnsmasq").expect("asked for before"));
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--log-facility=-",
            "--user=root",
        ]);
        command.args([
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            "--local=/test/",
        ]);
        command.arg("--local-ttl=1").arg(format!("--port={port}")).arg(format!("--addn-hosts={}", hosts.display()));
        let names = Self { daemon: Daemon::start(&mut command, &dir.path().join("log")), dir, port };
        names.wait_for_readings(1);
        names
    }

    /// From now on the name points there. Back when dnsmasq says so; who asked before keeps the old answer for a second.
    pub fn point_to(&self, address: &str) {
        let before = self.readings();
        write_hosts(&self.dir.path().join("hosts"), Some(address));
        self.daemon.signal("HUP");
        self.wait_for_readings(before + 1);
    }

    fn wait_for_readings(&self, count: usize) {
        eventually(START, "a dnsmasq that has read its names", || (self.readings() >= count).then_some(()));
    }

    fn readings(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("hosts - ")).count()
    }
}

fn write_hosts(file: &Path, address: Option<&str>) {
    let line = address.map(|ip| format!("{ip} {}\n", Names::CENTRAL)).unwrap_or_default();
    std::fs::write(file, line).expect("a file in our directory");
}
