//! This machine's programs, free ports, directories, and waiting. Nothing here is specific to syslog.

use super::support::{installed, skip};
use super::{docker, support};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A requirement of a test.
#[derive(Clone, Copy)]
pub enum Need {
    Docker,
    Compose,
    Busybox,
    Rsyslog,
    Dnsmasq,
    Nats,
}

impl Need {
    /// Whether the requirement is met. Reports a missing one.
    fn is_met(self) -> bool {
        let (here, missing, why) = match self {
            Self::Rsyslog => return installed("rsyslogd", "rsyslog").is_some(),
            Self::Dnsmasq => return installed("dnsmasq", "dnsmasq-base").is_some(),
            Self::Nats => return installed("nats-server", "nats-server").is_some(),
            Self::Busybox => match installed("busybox", "busybox-static") {
                None => return false,
                Some(file) => (
                    is_static(&file),
                    "busybox-static",
                    "busybox needs libraries (Debian: apt-get install busybox-static)",
                ),
            },
            Self::Docker => (docker::engine_answers(), "docker", "no Docker engine answers"),
            Self::Compose => (
                docker::compose_command().is_some(),
                "docker-compose",
                "there is no docker-compose and no docker compose",
            ),
        };
        if !here {
            skip(missing, why);
        }
        here
    }
}

pub fn has(needs: &[Need]) -> bool {
    needs.iter().all(|need| need.is_met())
}

/// A dynamic program has its loader's name near its start.
fn is_static(file: &Path) -> bool {
    let bytes = std::fs::read(file).unwrap_or_default();
    let head = &bytes[..bytes.len().min(4096)];
    !head.windows(4).any(|window| window == b"/ld-")
}

/// A program that [`has`] has already found.
pub fn program(name: &str) -> PathBuf {
    installed(name, name).expect("asked for before")
}

/// Prints one line for a person who watches. Unlike `println!`, it shows when the test passes.
pub fn say(line: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("engine").to_owned();
    let _ = writeln!(std::io::stderr().lock(), "{name}: {line}");
}

/// [`support::eventually`] with a limit for the engine's work: containers start and stop in seconds, not milliseconds.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port that is free for TCP and UDP on each of these addresses. It is not reserved, so the caller must bind it at
/// once.
pub fn free_port(addresses: &[&str]) -> u16 {
    let [port] = free_ports(addresses);
    port
}

/// Several free ports, as [`free_port`] finds one.
pub fn free_ports<const N: usize>(addresses: &[&str]) -> [u16; N] {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().expect("an IP address")).collect();
    let mut ports = [0; N];
    for at in 0..N {
        ports[at] = support::eventually("a port that is free on all addresses", || {
            let port = TcpListener::bind((addresses[0], 0)).ok()?.local_addr().ok()?.port();
            // One address after the other: a socket on all addresses occupies each of them.
            let is_free = |ip: &IpAddr| TcpListener::bind((*ip, port)).is_ok() && UdpSocket::bind((*ip, port)).is_ok();
            (!ports[..at].contains(&port) && addresses.iter().all(is_free)).then_some(port)
        });
    }
    ports
}

/// The complete lines of a file after the first `taken` bytes. `taken` grows by their length. An unfinished last line
/// is left for the next call.
pub fn complete_lines(path: &Path, taken: &mut usize) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap_or_default().split_off(*taken);
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    *taken += bytes.len();
    bytes
}

/// A directory that other users may write to. The relay runs as nobody in its container.
pub fn open_directory() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("logferry-engine-").tempdir().expect("a temporary directory");
    open(dir.path());
    dir
}

/// Gives every user all permissions on the path.
pub fn open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("permissions of what we made");
}
