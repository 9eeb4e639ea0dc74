//! The relay under test in its container. It runs either on the host's network, where DNS and collectors are on
//! loopback, or with an address of its own behind published ports.

use super::docker::{Container, Images, Network, Volume, bridge, docker};
use super::host::{self, within};
use super::support::{Certs, NameServer, dns};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time limit from `docker run` to open sockets, on a machine busy with other work.
const START: Duration = Duration::from_secs(20);
/// The host name for messages without one. It differs from this machine's name, so that tests can tell them apart.
pub const HOSTNAME: &str = "dock-7.test";

/// The seccomp profile: it allows only the system calls that docs/design/hardening.md lists.
pub const SECCOMP: &str = concat!("seccomp=", env!("CARGO_MANIFEST_DIR"), "/docker/seccomp.json");

/// Options that remove privileges. The compose files have all but the last.
pub const LOCKED: [&str; 7] =
    ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", SECCOMP];

const SOCKETS: [&str; 3] = ["log.sock", "datagrams.sock", "fluent.sock"];

/// The ports it listens at.
struct Ports {
    syslog: u16,
    fluent: u16,
    gelf: u16,
    splunk: u16,
    admin: u16,
}

/// The relay's network.
pub enum Place {
    /// On the host's network.
    Host,
    /// On this network of Docker's, or on Docker's own bridge. The ports are published at that bridge's address.
    Published(Option<Network>),
}

impl Place {
    /// The address that the engine's log drivers connect to.
    fn address(&self) -> String {
        match self {
            Self::Host => "127.0.0.1".to_owned(),
            Self::Published(_) => bridge(),
        }
    }

    /// The options of `docker run` for this network.
    fn args(&self, ports: &Ports) -> Vec<String> {
        let Self::Published(network) = self else { return ["--network", "host"].map(String::from).into() };
        let Ports { syslog, fluent, gelf, splunk, .. } = ports;
        let (udp, tcp) = ([syslog, gelf], [syslog, fluent, gelf, splunk]);
        let published = udp.map(|port| (port, "udp")).into_iter().chain(tcp.map(|port| (port, "tcp")));
        let address = self.address();
        let publish =
            published.flat_map(|(port, by)| ["--publish".to_owned(), format!("{address}:{port}:{port}/{by}")]);
        let network = network.as_ref().map_or("bridge", |network| &network.0);
        ["--network".to_owned(), network.to_owned()].into_iter().chain(publish).collect()
    }
}

pub struct Relay {
    pub container: Container,
    /// The arguments of its `docker run`, without network and spool.
    args: Vec<String>,
    place: Place,
    ports: Ports,
    /// Config, certificates and sockets. The container has them at /shared.
    shared: tempfile::TempDir,
    spool: Volume,
}

impl Relay {
    /// Listens on every transport of Docker's drivers and forwards to the central server's name in `names`.
    pub fn start(images: &Images, names: &NameServer, central_port: u16) -> Self {
        let to = format!("tcp://{}:{central_port}", dns::NAME);
        Self::start_at(images, Place::Host, &[to], &[], &names.section())
    }

    /// Forwards to each of `to`. `resolve` is the config section for DNS. Directories have the same paths in the
    /// container.
    pub fn start_at(images: &Images, place: Place, to: &[String], directories: &[&Path], resolve: &str) -> Self {
        let shared = host::open_directory();
        let sockets = shared.path().join("sockets");
        std::fs::create_dir(&sockets).expect("a fresh directory");
        host::open(&sockets);
        for name in ["ca.pem", "server.pem", "server-key.pem"] {
            std::fs::copy(Certs::get().path(name), shared.path().join(name)).expect("a file of ours");
            host::open(&shared.path().join(name));
        }
        let address = place.address();
        let [syslog, fluent, gelf, splunk, admin] = host::free_ports(&[&address]);
        let ports = Ports { syslog, fluent, gelf, splunk, admin };
        std::fs::write(shared.path().join("logferry.toml"), config(&place, &ports, to, resolve))
            .expect("a file in our directory");

        let spool = Volume::new("spool");
        let mut args: Vec<String> = LOCKED.map(String::from).into();
        args.extend(["--volume".into(), format!("{}:/shared", shared.path().display())]);
        for directory in directories {
            args.extend(["--volume".into(), format!("{0}:{0}", directory.display())]);
        }
        // A variable instead of `--config`, so that the image's health check reads the same config.
        args.extend(["--env".into(), "LOGFERRY_CONFIG=/shared/logferry.toml".into()]);
        args.extend(["--health-interval=500ms".into(), images.relay.clone()]);
        let container = run(&place, &ports, &spool, &args);
        let relay = Self { container, args, place, ports, shared, spool };
        relay.wait_until_open();
        relay
    }

    /// Waits for all sockets. Docker's driver does not wait: a container would fail to start, or lose its lines.
    fn wait_until_open(&self) {
        within(START, "a relay whose sockets are open", || {
            let sockets = SOCKETS.iter().all(|name| self.socket(name).exists());
            let Ports { syslog, fluent, gelf, splunk, .. } = self.ports;
            let is_open = |port| TcpStream::connect((&*self.place.address(), port)).is_ok();
            (sockets && [syslog, fluent, gelf, splunk].into_iter().all(is_open)).then_some(())
        });
    }

    /// `kill -9`, and a restart of the same container with the same spool.
    pub fn crash(&self) {
        docker(["kill", "--signal", "KILL", &self.container.name]);
        for name in SOCKETS {
            let _ = std::fs::remove_file(self.socket(name));
        }
        self.comes();
    }

    /// SIGTERM, and time to stop.
    pub fn goes(&self) {
        docker(["stop", &self.container.name]);
        assert_eq!(self.container.inspect("{{.State.ExitCode}}"), "0", "{}", self.container.logs());
    }

    /// Starts the same container again with the same spool.
    pub fn comes(&self) {
        docker(["start", &self.container.name]);
        self.wait_until_open();
    }

    /// Replaces the container by a new one with the same config and spool, as an upgrade does.
    pub fn is_replaced(&mut self) {
        self.goes();
        self.container = run(&self.place, &self.ports, &self.spool, &self.args);
        self.wait_until_open();
    }

    /// Removes the container. A container on another network, with another address, takes its ports, with the old spool
    /// or a new one.
    pub fn moves_to(&mut self, network: Option<Network>, keeps_spool: bool) {
        let before = self.addresses();
        self.goes();
        docker(["rm", &self.container.name]);
        if !keeps_spool {
            self.spool = Volume::new("spool");
        }
        self.place = Place::Published(network);
        self.container = run(&self.place, &self.ports, &self.spool, &self.args);
        self.wait_until_open();
        assert_ne!(self.addresses(), before);
    }

    /// The addresses of the container.
    fn addresses(&self) -> String {
        self.container.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}")
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.shared.path().join("sockets").join(name)
    }

    /// The options of one of Docker's drivers for logging to this relay over a transport.
    pub fn log_options(&self, driver: &str, transport: &str) -> Vec<String> {
        let address = |port| format!("{transport}://{}:{port}", self.place.address());
        let socket = |name| format!("{transport}://{}", self.socket(name).display());
        let mut options = vec![match (driver, transport) {
            ("fluentd", "unix") => format!("fluentd-address={}", socket("fluent.sock")),
            ("fluentd", _) => format!("fluentd-address={}", address(self.ports.fluent)),
            ("gelf", _) => format!("gelf-address={}", address(self.ports.gelf)),
            ("splunk", _) => format!("splunk-url={}", address(self.ports.splunk)),
            (_, "unix") => format!("syslog-address={}", socket("log.sock")),
            (_, "unixgram") => format!("syslog-address={}", socket("datagrams.sock")),
            _ => format!("syslog-address={}", address(self.ports.syslog)),
        }];
        match (driver, transport) {
            ("splunk", _) => options.push("splunk-token=anything".into()),
            (_, "tcp+tls") => {
                options.push(format!("syslog-tls-ca-cert={}", self.shared.path().join("ca.pem").display()));
            }
            _ => {}
        }
        options
    }

    /// The sum of a counter over all series of `/metrics`. `None` if the relay does not answer.
    pub fn counter(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.admin)).ok()?;
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

fn run(place: &Place, ports: &Ports, spool: &Volume, args: &[String]) -> Container {
    let spool = ["--volume".to_owned(), format!("{}:/var/spool/logferry", spool.0)];
    Container::run("relay", &[&*place.args(ports), &spool, args].concat())
}

/// The relay's config: one port for UDP, TCP and TLS, one for each other driver, one for the status page.
fn config(place: &Place, ports: &Ports, to: &[String], resolve: &str) -> String {
    let Ports { syslog, fluent, gelf, splunk, admin } = ports;
    let ip = if matches!(place, Place::Host) { "127.0.0.1" } else { "0.0.0.0" };
    let forward = |(n, to): (usize, &String)| {
        let framing =
            if to.starts_with("tcp") { "framing = \"octet-counting\"\nmax-backoff = \"200ms\"\n" } else { "" };
        format!("[[forward]]\nname = \"to-{n}\"\nto = \"{to}\"\nformat = \"rfc5424\"\n{framing}\n")
    };
    let forwards: String = to.iter().enumerate().map(forward).collect();
    format!(
        r#"hostname = "{HOSTNAME}"

[[listen]]
address = "udp://{ip}:{syslog}"

[[listen]]
address = "tcp://{ip}:{syslog}"
cert = "/shared/server.pem"
key = "/shared/server-key.pem"

[[listen]]
address = "unix:///shared/sockets/log.sock"

[[listen]]
address = "unixgram:///shared/sockets/datagrams.sock"

[[listen]]
address = "fluent://{ip}:{fluent}"

[[listen]]
address = "fluent+unix:///shared/sockets/fluent.sock"

[[listen]]
address = "gelf+tcp://{ip}:{gelf}"

[[listen]]
address = "gelf+udp://{ip}:{gelf}"

[[listen]]
address = "splunk+http://{ip}:{splunk}"

{forwards}
{resolve}

[admin]
listen = "127.0.0.1:{admin}"
"#
    )
}

/// Stops a container and returns how long `docker stop` took.
pub fn time_to_stop(container: &Container) -> Duration {
    let start = Instant::now();
    docker(["stop", &container.name]);
    start.elapsed()
}
