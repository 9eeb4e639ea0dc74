//! What this machine has, free ports, and waiting. Nothing here knows Docker or syslog.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Something a test needs from the machine, and how to see that it is there.
#[derive(Clone, Copy)]
pub enum Need {
    Docker,
    Compose,
    Busybox,
    Rsyslog,
    Dnsmasq,
}

impl Need {
    fn missing(self) -> Option<&'static str> {
        let (here, name) = match self {
            Self::Docker => (super::docker::engine_answers(), "a Docker engine"),
            Self::Compose => (super::docker::compose_command().is_some(), "docker-compose or docker compose"),
            Self::Busybox => (busybox().is_some(), "a static busybox (Debian: busybox-static)"),
            Self::Rsyslog => (program("rsyslogd").is_some(), "rsyslogd (Debian: rsyslog)"),
            Self::Dnsmasq => (program("dnsmasq").is_some(), "dnsmasq (Debian: dnsmasq-base)"),
        };
        (!here).then_some(name)
    }
}

/// Is everything here? If not, the test is over: with one line that says why, or as a failure where `CI` is set,
/// because a proof that quietly does not run is worse than none.
pub fn has(needs: &[Need]) -> bool {
    let missing: Vec<_> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let line = format!("skipped: no {}", missing.join(", no "));
    let ci = std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    assert!(!ci, "{line}, and this is CI");
    say(&line);
    false
}

/// One line for whoever watches. Unlike `println!` it is not swallowed when the test passes.
pub fn say(line: &str) {
    let name = std::thread::current().name().unwrap_or("engine").to_owned();
    let _ = writeln!(std::io::stderr().lock(), "{name}: {line}");
}

/// Where a program is. Daemons live in directories that are not in everybody's PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// A busybox that runs in an empty image. A dynamic one names its loader near the start of the file.
pub fn busybox() -> Option<PathBuf> {
    let file = program("busybox")?;
    let bytes = std::fs::read(&file).ok()?;
    let head = &bytes[..bytes.len().min(4096)];
    (!head.windows(4).any(|w| w == b"/ld-")).then_some(file)
}

/// Asks until there is an answer; never a fixed sleep that hopes. `state` is printed when time is up.
pub fn eventually<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that is free for TCP and UDP on every one of these addresses. It is not held: who needs it binds it at once.
pub fn free_port(addresses: &[&str]) -> u16 {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().expect("an IP address")).collect();
    let free = |port| {
        addresses.iter().all(|&ip| {
            let at = SocketAddr::new(ip, port);
            TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
        })
    };
    let any = || TcpListener::bind((addresses[0], 0)).and_then(|l| l.local_addr()).expect("a free port").port();
    std::iter::repeat_with(any).take(100).find(|&port| free(port)).expect("a port free on all addresses")
}

/// A directory that other users may look into (the relay in its container is nobody).
pub fn open_directory() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("logferry-engine-").tempdir().expect("a temporary directory");
    open(dir.path());
    dir
}

/// Lets every user read and write `dir`.
pub fn open(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).expect("permissions of a directory we made");
}
