//! The central server: a real rsyslog that writes each message as it has parsed it.

use super::host;
use super::support::program::SIGTERM;
use super::support::rsyslog::{self, Input};
use super::support::{Program, eventually, shown};
use std::net::{SocketAddr, TcpStream};

/// One message as rsyslog parsed it: the fields of its own parser, and `[docker@32473 …]` as mmpstrucdata splits it.
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
    /// All structured data as received.
    pub data: String,
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
        let at = SocketAddr::new(address.parse().expect("an IP address"), port);
        let properties = ["pri", "timereported", "hostname", "app-name", "procid", "structured-data"];
        let conf = rsyslog::conf(Input::Tcp, at, dir.path(), &properties);
        std::fs::write(dir.path().join("conf"), conf).expect("a file in our directory");
        let program = Program::start(&mut rsyslog::command(&host::program("rsyslogd"), dir.path()));
        eventually("an rsyslog that listens", || TcpStream::connect(at).ok());
        Self { program, dir }
    }

    pub fn stop(&mut self) {
        self.program.signal(SIGTERM);
        self.program.ends();
    }

    /// All messages received so far, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals_from(&mut 0)
    }

    /// Like `arrivals`, but skips the first `taken` bytes. `taken` grows by the bytes returned.
    pub fn arrivals_from(&self, taken: &mut usize) -> Vec<Arrival> {
        let bytes = host::complete_lines(&self.dir.path().join(rsyslog::ARRIVED), taken);
        bytes.split_inclusive(|&b| b == b'\n').map(|line| arrival(&line[..line.len() - 1])).collect()
    }
}

fn arrival(line: &[u8]) -> Arrival {
    let fields: Vec<&[u8]> = line.splitn(10, |&b| b == b'\t').collect();
    assert_eq!(fields.len(), 10, "what our template writes: {}", shown(line));
    let text = |i: usize| String::from_utf8_lossy(fields[i]).into_owned();
    let pri: u8 = text(0).parse().expect("a PRI");
    Arrival {
        severity: pri & 7,
        facility: pri >> 3,
        stamp: text(1),
        host: text(2),
        app: text(3),
        proc: text(4),
        data: text(5),
        image: text(6),
        name: text(7),
        id: text(8),
        message: fields[9].to_vec(),
    }
}
