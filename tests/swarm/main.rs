//! The stack file with a real Swarm of one node, this machine. The test is separate from `engine`, because a Swarm adds
//! networks and firewall rules to the engine, and cargo runs one test program after the other.
//!
//! If the engine already belongs to a Swarm, that Swarm is in use. The test is then skipped, as it is without an
//! engine.

// `engine` uses all of these modules, this test only a part.
#[allow(dead_code)]
#[path = "../engine/docker.rs"]
mod docker;
#[allow(dead_code)]
#[path = "../engine/host.rs"]
mod host;
#[path = "../support/mod.rs"]
mod support;

use docker::{Container, Images, bridge, docker, output, try_docker, unique};
use host::{Need, say, within};
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::Line;

const UP: Duration = Duration::from_secs(90);
/// Lines before and after the update. How many are printed during the update depends on the engine.
const SOME: usize = 20;

/// Makes this engine the only node of a Swarm until it is dropped.
struct Swarm;

impl Swarm {
    fn start() -> Self {
        let swarm = Self;
        docker(["swarm", "init", "--advertise-addr", "127.0.0.1"]);
        swarm
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = try_docker(["swarm", "leave", "--force"]);
        // Swarm has created this network and does not remove it.
        let _ = try_docker(["network", "rm", "docker_gwbridge"]);
    }
}

/// `docker stack deploy` of swarm.yaml. Dropping it removes the containers, networks and volumes.
struct Stack {
    name: String,
    bridge: String,
    port: u16,
}

impl Stack {
    fn deploy(images: &Images, aggregator: &Aggregator) -> Self {
        let bridge = bridge();
        let stack = Self { name: unique("stack"), port: host::free_port(&["0.0.0.0", &bridge]), bridge };
        let mut command = Command::new("docker");
        command.args(["stack", "deploy", "--resolve-image", "never", "--compose-file", "swarm.yaml", &stack.name]);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose"));
        command.env("LOGFERRY_IMAGE", &images.relay).env("LOGFERRY_FORWARD", &aggregator.url);
        command.env("LOGFERRY_PORT", stack.port.to_string()).env("LOGFERRY_CERTS", aggregator.dir.path().join("certs"));
        output(&mut command).unwrap_or_else(|error| panic!("{error}"));
        stack
    }

    fn service(&self) -> String {
        format!("{}_relay", self.name)
    }

    /// The relay's container, once it is healthy.
    fn relay(&self) -> Option<String> {
        let service = format!("label=com.docker.swarm.service.name={}", self.service());
        let id = try_docker(["ps", "--quiet", "--filter", &service, "--filter", "health=healthy"]).ok()?;
        Some(id).filter(|id| !id.is_empty() && !id.contains('\n'))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&try_docker(["service", "ps", "--no-trunc", &self.service()]).unwrap_or_default());
            say(&try_docker(["service", "logs", "--tail", "30", &self.service()]).unwrap_or_else(|error| error));
        }
        let _ = try_docker(["stack", "rm", &self.name]);
        let of_stack = format!("label=com.docker.stack.namespace={}", self.name);
        let gone = |kind: &[&str]| {
            try_docker([kind, &["--quiet", "--filter", &of_stack]].concat()).is_ok_and(|ids| ids.is_empty())
        };
        support::within(UP, || (gone(&["ps", "--all"]) && gone(&["network", "ls"])).then_some(()));
        let _ = try_docker(["volume", "rm", "--force", &format!("{}_spool", self.name)]);
    }
}

/// A logferry on the host. It accepts RELP over TLS from clients with a certificate, and prints the lines.
struct Aggregator {
    program: support::Program,
    url: String,
    /// Its certificates and its spool. They are dropped after it.
    dir: tempfile::TempDir,
}

impl Aggregator {
    fn start() -> Self {
        let (bridge, dir) = (bridge(), host::open_directory());
        let port = host::free_port(&[&bridge]);
        let url = format!("relp+tls://{bridge}:{port}");
        let certs = |name: &str| dir.path().join("certs").join(name);
        output(support::relay::logferry().args(["certs", "--name", &bridge, "--out"]).arg(certs("")))
            .unwrap_or_else(|error| panic!("{error}"));
        let mut command = support::relay::logferry();
        command.env("LOGFERRY_LISTEN", &url).env("LOGFERRY_ADMIN", "off");
        command.env("LOGFERRY_TLS_CERT", certs("server.pem")).env("LOGFERRY_TLS_KEY", certs("server-key.pem"));
        command.env("LOGFERRY_TLS_CLIENT_CA", certs("ca.pem")).env("LOGFERRY_SPOOL_DIR", dir.path().join("spool"));
        let program = support::Program::start(&mut command);
        within(UP, "an aggregator", || TcpStream::connect((bridge.as_str(), port)).ok());
        Self { program, url, dir }
    }

    /// The numbers received from the container `name`, with the node's name as the host.
    fn numbers(&self, node: &str, name: &str) -> BTreeSet<usize> {
        let printed = self.program.stdout();
        let lines = printed.split_inclusive(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        let ours = lines.map(Line::read).filter(|line| line.host == node && line.container()[1] == name);
        let number = |message: &[u8]| String::from_utf8_lossy(message).split(' ').nth(1)?.parse().ok();
        ours.filter_map(|line| number(&line.message)).collect()
    }
}

#[test]
fn a_global_service_takes_what_services_log_and_names_the_node() {
    if !host::has(&[Need::Docker, Need::Busybox]) {
        return;
    }
    if docker(["info", "--format", "{{.Swarm.LocalNodeState}}"]) != "inactive" {
        return support::skip("a free Swarm", "this engine is in a Swarm already");
    }
    let images = Images::shared();
    let _swarm = Swarm::start();
    let aggregator = Aggregator::start();
    let stack = Stack::deploy(&images, &aggregator);
    let first = within(UP, "a relay that is healthy", || stack.relay());

    // The default format has no host name, so the lines have the relay's: the node's name.
    let node = docker(["node", "ls", "--format", "{{.Hostname}}"]);
    let talker = talk(&stack, &images);
    let numbers = || aggregator.numbers(&node, &talker.name);
    within(UP, "lines with the node's name", || (numbers().len() >= SOME).then_some(()));

    docker(["service", "update", "--force", "--detach", "--quiet", &stack.service()]);
    within(UP, "another relay", || stack.relay().filter(|id| *id != first));
    let before = numbers().last().copied().expect("there are some");
    within(UP, "lines after the update", || (numbers().range(before..).count() > SOME).then_some(()));
    docker(["stop", "--time", "1", &talker.name]);

    let arrived = numbers();
    let last = arrived.last().copied().expect("there are some");
    let lost: Vec<usize> = (1..last).filter(|number| !arrived.contains(number)).collect();
    say(&format!("{last} lines by UDP, 10 a second, over a forced update; {} lost: {lost:?}", lost.len()));
    // Only the lines sent while no relay listened are lost, in one gap. Lines that the relay had taken survive in its
    // spool.
    assert!(lost.windows(2).all(|pair| pair[1] == pair[0] + 1), "{lost:?}");
}

/// A container that prints ten numbered lines a second, logged in Docker's default format.
fn talk(stack: &Stack, images: &Images) -> Container {
    let address = format!("syslog-address=udp://{}:{}", stack.bridge, stack.port);
    let options =
        ["--log-driver", "syslog", "--log-opt", &address, "--log-opt", "tag={{.ImageName}}/{{.Name}}/{{.ID}}"];
    let script = "n=0; while :; do n=$((n+1)); echo \"hello $n from the swarm\"; sleep 0.1; done";
    let run = [images.talker.as_str(), "/bin/sh", "-c", script];
    Container::run("talker", &[options.as_slice(), &run].concat())
}
