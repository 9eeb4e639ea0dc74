//! A real name server: dnsmasq on a port of loopback, which answers from a file that a test can change.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::program::{Program, SIGHUP};
use super::{eventually, installed};

/// The name of all collectors. `.test` never exists outside (RFC 6761).
pub const NAME: &str = "collector.test";

pub struct NameServer {
    program: Program,
    address: SocketAddr,
    /// Kept as long as the server runs.
    dir: TempDir,
}

impl NameServer {
    /// A server that resolves [`NAME`] to these addresses. Without addresses the name does not exist. `None`: dnsmasq is not installed.
    pub fn start(addresses: &[&str]) -> Option<Self> {
        Self::start_on(addresses, || UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok())
    }

    /// A server on port 53 of a separate loopback address, for programs that cannot use another port. Needs root.
    pub fn start_for_libc(addresses: &[&str]) -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        Self::start_on(addresses, || {
            let at = SocketAddr::from(([127, 53, std::process::id() as u8, NEXT.fetch_add(1, Ordering::Relaxed)], 53));
            UdpSocket::bind(at).is_ok().then_some(at)
        })
    }

    fn start_on(addresses: &[&str], mut free: impl FnMut() -> Option<SocketAddr>) -> Option<Self> {
        let dnsmasq = installed("dnsmasq", "dnsmasq-base")?;
        let dir = TempDir::new().expect("a directory");
        write_hosts(&dir.path().join("hosts"), addresses);
        // Another process may take the port between the check and the bind.
        let (program, address) = eventually("dnsmasq is up", || {
            let address = free()?;
            let mut program = Program::start(&mut command(&dnsmasq, address, &dir.path().join("hosts")));
            eventually("dnsmasq answers or ends", || {
                (ask(address).is_some() || program.has_ended().is_some()).then_some(())
            });
            program.has_ended().is_none().then_some((program, address))
        });
        Some(Self { program, address, dir })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A relay's config section that uses this server, with short TTLs for impatient tests.
    pub fn section(&self) -> String {
        format!("[resolve]\nnameservers = \"{}\"\nmin-ttl = \"100ms\"\nmax-ttl = \"100ms\"", self.address)
    }

    /// Changes the addresses of the name. Returns when the server answers with them.
    pub fn points_to(&self, addresses: &[&str]) {
        write_hosts(&self.dir.path().join("hosts"), addresses);
        self.program.signal(SIGHUP);
        eventually("the name server has read the new addresses", || {
            (ask(self.address) == Some(u16::try_from(addresses.len()).expect("few"))).then_some(())
        });
    }

    /// Changes the name to exactly one other IPv4 address.
    pub fn moves_to(&self, address: &str) {
        let bytes: std::net::Ipv4Addr = address.parse().expect("an IPv4 address");
        write_hosts(&self.dir.path().join("hosts"), &[address]);
        self.program.signal(SIGHUP);
        eventually("the name server has read the new address", || {
            query(self.address, 1)?.ends_with(&bytes.octets()).then_some(())
        });
    }

    /// Kills the server.
    pub fn dies(&mut self) {
        self.program.kill();
    }
}

fn write_hosts(path: &Path, addresses: &[&str]) {
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    std::fs::write(path, lines).expect("the hosts file is written");
}

fn command(dnsmasq: &PathBuf, address: SocketAddr, hosts: &Path) -> Command {
    let mut command = Command::new(dnsmasq);
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--log-facility=-"]);
    command.args(["--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.arg(format!("--listen-address={}", address.ip()));
    command.args(["--local=/test/", "--local-ttl=1", "--cache-size=0"]);
    command.arg(format!("--port={}", address.port())).arg(format!("--addn-hosts={}", hosts.display()));
    if nix::unistd::geteuid().is_root() {
        // By default dnsmasq changes to `nobody`, which cannot read the hosts file again.
        command.arg("--user=root").arg("--group=root");
    }
    command
}

/// The number of addresses of the name, of both families; `None` if the server does not answer.
fn ask(server: SocketAddr) -> Option<u16> {
    let answers = |kind| Some(u16::from_be_bytes(query(server, kind)?.get(6..8)?.try_into().ok()?));
    Some(answers(1)? + answers(28)?)
}

/// RFC 1035, just enough: the answer to a question about [`NAME`].
fn query(server: SocketAddr, kind: u8) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, kind, 0, 1]);
    socket.send(&question).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    Some(answer[..length].to_vec())
}
