//! The relay under test, in its container, on the host's network: DNS and collectors are on loopback there.

use super::docker::{Container, Images, Volume, docker};
use super::host::{self, within};
use super::support::{Certs, NameServer, dns};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// From `docker run` to open sockets, on a machine that is busy with something else.
const START: Duration = Duration::from_secs(20);
/// The host name for messages that carry none. Not this machine's, so that both can be told apart.
pub const HOSTNAME: &str = "dock-7.test";

/// Only the system calls that docs/hardening.md promises.
pub const SECCOMP: &str = concat!("seccomp=", env!("CARGO_MANIFEST_DIR"), "/docker/seccomp.json");

/// How much of the root, and of the kernel, is taken away. All but the last the compose files ask for too.
pub const LOCKED: [&str; 7] =
    ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", SECCOMP];

pub struct Relay {
    pub container: Container,
    port: u16,
    admin: u16,
    /// Config, certificates and sockets: mounted into the container at /shared.
    shared: tempfile::TempDir,
    _spool: Volume,
}

impl Relay {
    /// Listens on every transport of Docker's driver and forwards to where `names` says the central server is.
    pub fn start(images: &Images, names: &NameServer, central_port: u16) -> Self {
        let shared = host::open_directory();
        let sockets = shared.path().join("sockets");
        std::fs::create_dir(&sockets).expect("a fresh directory");
        host::open(&sockets);
        for name in ["ca.pem", "server.pem", "server-key.pem"] {
            std::fs::copy(Certs::get().path(name), shared.path().join(name)).expect("a file of ours");
            host::open(&shared.path().join(name));
        }
        let (port, admin) = (host::free_port(&["127.0.0.1"]), host::free_port(&["127.0.0.1"]));
        let config = config(port, admin, names, central_port);
        std::fs::write(shared.path().join("logferry.toml"), config).expect("a file in our directory");

        let spool = Volume::new("spool");
        let mut args = vec!["--network".to_owned(), "host".into()];
        args.extend(LOCKED.map(String::from));
        args.extend(["--volume".into(), format!("{}:/shared", shared.path().display())]);
        args.extend(["--volume".into(), format!("{}:/var/spool/logferry", spool.0)]);
        // By variable, not by `--config`: the image's health check reads the same config then.
        args.extend(["--env".into(), "LOGFERRY_CONFIG=/shared/logferry.toml".into()]);
        args.extend(["--health-interval=500ms".into(), images.relay.clone()]);
        let container = Container::run("relay", &args);
        let relay = Self { container, port, admin, shared, _spool: spool };
        relay.wait_until_open();
        relay
    }

    /// All sockets are there. Docker's driver does not wait for them: a container would not start, or lose its lines.
    fn wait_until_open(&self) {
        within(START, "a relay whose sockets are open", || {
            let sockets = ["log.sock", "datagrams.sock"].iter().all(|name| self.socket(name).exists());
            (sockets && TcpStream::connect(("127.0.0.1", self.port)).is_ok()).then_some(())
        });
    }

    /// kill -9 and a new start of the same container, with the same spool.
    pub fn crash(&self) {
        docker(["kill", "--signal", "KILL", &self.container.name]);
        for name in ["log.sock", "datagrams.sock"] {
            let _ = std::fs::remove_file(self.socket(name));
        }
        docker(["start", &self.container.name]);
        self.wait_until_open();
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.shared.path().join("sockets").join(name)
    }

    /// Options of Docker's driver that lead here by this transport.
    pub fn driver_options(&self, transport: &str) -> Vec<String> {
        let address = match transport {
            "unix" => format!("unix://{}", self.socket("log.sock").display()),
            "unixgram" => format!("unixgram://{}", self.socket("datagrams.sock").display()),
            network => format!("{network}://127.0.0.1:{}", self.port),
        };
        let mut options = vec![format!("syslog-address={address}")];
        if transport == "tcp+tls" {
            options.push(format!("syslog-tls-ca-cert={}", self.shared.path().join("ca.pem").display()));
        }
        options
    }

    /// The sum over all series of a counter, as `/metrics` shows it now. `None` while nobody answers.
    pub fn counter(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let series = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = page.lines().filter(series).map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.collect::<Option<Vec<_>>>().filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() as u64)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.container.logs();
            let last: Vec<_> =
                logs.lines().rev().take(30).map(|line| line.chars().take(300).collect::<String>()).collect();
            host::say(&format!("the relay's last words, newest first:\n{}", last.join("\n")));
        }
    }
}

/// One port for UDP, TCP and TLS.
fn config(port: u16, admin: u16, names: &NameServer, central: u16) -> String {
    format!(
        r#"hostname = "{HOSTNAME}"

[[listen]]
address = "udp://127.0.0.1:{port}"

[[listen]]
address = "tcp://127.0.0.1:{port}"
cert = "/shared/server.pem"
key = "/shared/server-key.pem"

[[listen]]
address = "unix:///shared/sockets/log.sock"

[[listen]]
address = "unixgram:///shared/sockets/datagrams.sock"

[[forward]]
name = "central"
to = ["tcp://{name}:{central}"]
format = "rfc5424"
framing = "octet-counting"

{resolve}

[admin]
listen = "127.0.0.1:{admin}"
"#,
        name = dns::NAME,
        resolve = names.section(),
    )
}

/// How long `docker stop` takes.
pub fn time_to_stop(container: &Container) -> Duration {
    let start = Instant::now();
    docker(["stop", &container.name]);
    start.elapsed()
}
