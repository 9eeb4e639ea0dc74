//! A real rsyslog and a real syslog-ng with default settings, and the fields that they parse from a datagram.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::sent::{Read, text};
use crate::support::rsyslog::{self, ARRIVED, Input};
use crate::support::{Program, SyslogNg, eventually, run};

/// Separates the fields in the programs' output. No message contains it.
const SEPARATOR: &str = "<|>";

pub struct Reference {
    /// For example `rsyslog 8.2302.0`.
    pub name: String,
    _program: Program,
    at: SocketAddr,
    sender: UdpSocket,
    dir: TempDir,
    /// Sentinels sent so far, and output lines read.
    sentinels: usize,
    lines: usize,
}

impl Reference {
    pub fn rsyslog() -> Option<Self> {
        let program = rsyslog::find(Input::Udp)?;
        let version = version(Command::new(&program).arg("-v"))?;
        Some(Self::start(format!("rsyslog {version}"), |at, dir| {
            fs::write(dir.join("conf"), rsyslog_conf(at, dir)).expect("written");
            rsyslog::command(&program, dir)
        }))
    }

    pub fn syslog_ng() -> Option<Self> {
        let syslog_ng = SyslogNg::find()?;
        let dir = TempDir::new().expect("a directory");
        let version = version(syslog_ng.command(dir.path()).arg("--version"))?;
        Some(Self::start(format!("syslog-ng {version}"), |at, dir| {
            fs::write(dir.join("conf"), syslog_ng_conf(at, dir)).expect("written");
            syslog_ng.command(dir)
        }))
    }

    fn start(name: String, command: impl Fn(SocketAddr, &Path) -> Command) -> Self {
        let dir = TempDir::new().expect("a directory");
        // Another process may take the port before the program does, so this retries.
        let (program, at) = eventually("a reference that listens", || {
            let at = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
            let mut program = Program::start(command(at, dir.path()).env("TZ", "UTC"));
            eventually("it listens or ends", || {
                (UdpSocket::bind(at).is_err() || program.has_ended().is_some()).then_some(())
            });
            program.has_ended().is_none().then_some((program, at))
        });
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        Self { name, _program: program, at, sender, dir, sentinels: 0, lines: 0 }
    }

    /// Sends a datagram and returns the parsed fields. They are empty if the program drops the datagram.
    pub fn read(&mut self, datagram: &[u8]) -> Read {
        self.sentinels += 1;
        let sentinel = format!("<13>1 2026-11-20T22:28:47Z sentinel app {} - - x", self.sentinels);
        for bytes in [datagram, sentinel.as_bytes()] {
            self.sender.send_to(bytes, self.at).expect("sent");
        }
        let (host, pid) = ("sentinel", self.sentinels.to_string());
        let lines = eventually("the sentinel arrives", || {
            let bytes = fs::read(self.dir.path().join(ARRIVED)).ok()?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n')?;
            let lines = bytes[..whole].split(|byte| *byte == b'\n').map(parse).skip(self.lines);
            let lines: Vec<Read> = lines.collect();
            lines.last().is_some_and(|last| last.host == host && last.pid == pid).then_some(lines)
        });
        self.lines += lines.len();
        lines.into_iter().next().filter(|read| read.host != host).unwrap_or_default()
    }
}

/// A line of the output: host, app, process, time, message.
fn parse(line: &[u8]) -> Read {
    let mut rest = line;
    let mut next = || {
        let end = rest.windows(SEPARATOR.len()).position(|bytes| bytes == SEPARATOR.as_bytes()).unwrap_or(rest.len());
        let (field, behind) = rest.split_at(end);
        rest = behind.get(SEPARATOR.len()..).unwrap_or_default();
        text(field)
    };
    // Both write `-` for a missing value. One of them may also write nothing.
    let [host, app, pid, time] =
        [next(), next(), next(), next()].map(|field| if field == "-" { String::new() } else { field });
    Read { host, app, pid, time, message: rest.to_vec() }
}

/// The first number with a dot in the program's version output.
fn version(command: &mut Command) -> Option<String> {
    let output = run(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split([' ', '(', ')', ',', '\n']);
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    words.into_iter().find(is_version).map(str::to_owned)
}

fn rsyslog_conf(at: SocketAddr, dir: &Path) -> String {
    let (ip, port, dir) = (at.ip(), at.port(), dir.display());
    let field = |name: &str| format!("property(name=\"{name}\") constant(value=\"{SEPARATOR}\") ");
    let time = format!("property(name=\"timereported\" dateFormat=\"rfc3339\") constant(value=\"{SEPARATOR}\")");
    format!(
        "global(workDirectory=\"{dir}\" net.enableDNS=\"off\" parser.escapeControlCharactersOnReceive=\"off\")\n\
         module(load=\"imudp\")\n\
         template(name=\"line\" type=\"list\") {{ {}{}{}{time} property(name=\"msg\") constant(value=\"\\n\") }}\n\
         ruleset(name=\"arrived\" queue.type=\"Direct\") {{\n\
         action(type=\"omfile\" file=\"{dir}/{ARRIVED}\" template=\"line\" queue.type=\"Direct\")\n\
         }}\n\
         input(type=\"imudp\" address=\"{ip}\" port=\"{port}\" ruleset=\"arrived\")\n",
        field("hostname"),
        field("app-name"),
        field("procid"),
    )
}

fn syslog_ng_conf(at: SocketAddr, dir: &Path) -> String {
    let (ip, port, dir) = (at.ip(), at.port(), dir.display());
    format!(
        "@version: 3.35\n\
         options {{ keep-hostname(yes); use-dns(no); stats-freq(0); frac-digits(6); }};\n\
         source datagrams {{ syslog(ip({ip}) port({port}) transport(\"udp\")); }};\n\
         destination arrived {{ file(\"{dir}/{ARRIVED}\" \
         template(\"${{HOST}}{SEPARATOR}${{PROGRAM}}{SEPARATOR}${{PID}}{SEPARATOR}${{ISODATE}}{SEPARATOR}${{MESSAGE}}\\n\")); }};\n\
         log {{ source(datagrams); destination(arrived); }};\n"
    )
}
