//! The central side: a real rsyslog that writes what it understood.

use super::host;
use super::support::program::SIGTERM;
use super::support::{Program, eventually, shown};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

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
    program: Program,
    dir: tempfile::TempDir,
}

impl Collector {
    pub fn start(address: &str, port: u16) -> Self {
        let dir = host::open_directory();
        let at = dir.path();
        let config = at.join("rsyslog.conf");
        std::fs::write(&config, rsyslog_conf(address, port, at)).expect("a file in our directory");
        let mut command = Command::new(host::program("rsyslogd"));
        command.args(["-n", "-f"]).arg(&config).arg("-i").arg(at.join("pid"));
        let program = Program::start(&mut command);
        eventually("an rsyslog that listens", || TcpStream::connect((address, port)).ok());
        Self { program, dir }
    }

    pub fn stop(&mut self) {
        self.program.signal(SIGTERM);
        self.program.ends();
    }

    /// Everything that has arrived until now, in order. A last line that is still being written is left for later.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let bytes = std::fs::read(self.dir.path().join("arrived")).unwrap_or_default();
        let complete = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        bytes[..complete].split_inclusive(|&b| b == b'\n').map(|line| arrival(&line[..line.len() - 1])).collect()
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
    assert_eq!(fields.len(), 9, "what our template writes: {}", shown(line));
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
