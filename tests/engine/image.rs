//! The image itself: locked down, healthy, and quick to start and stop. `.ci/run` checks its size.

use super::docker::{Container, Images, Volume, docker};
use super::host::{self, Need, say, within};
use super::relay::{LOCKED, time_to_stop};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const HEALTHY: Duration = Duration::from_secs(30);
/// Docker kills a container 10 s after SIGTERM.
const STOP: Duration = Duration::from_secs(8);
const NOBODY: &str = "65534";

#[test]
fn runs_as_nobody_without_a_capability_and_leaves_in_time() {
    if !host::has(&[Need::Docker, Need::Busybox]) {
        return;
    }
    let images = Images::shared();
    let spool = Volume::new("spool");
    let mounted = format!("{}:/var/spool/logferry", spool.0);
    let mut args = LOCKED.to_vec();
    args.extend(["--volume", &mounted, "--health-interval", "500ms", &images.relay]);
    let container = Container::run("locked", &args);
    let log = || format!("{}: {}", container.inspect("{{.State.Status}}"), container.logs());

    let start = Instant::now();
    let health = || container.inspect("{{.State.Health.Status}}") == "healthy";
    while !health() {
        assert!(start.elapsed() < HEALTHY, "not healthy: {}\n{}", container.inspect("{{json .State.Health}}"), log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let pid = container.inspect("{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the engine is on this host");
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!(field("Uid:").split_whitespace().next(), Some(NOBODY));
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    say(&format!("idle: VmRSS {}, RssAnon {}", field("VmRSS:"), field("RssAnon:")));

    // A line sent to port 514, which only root may bind outside a container, arrives on stdout.
    let address = container.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let line = "<30>1 2026-11-20T22:27:42Z host busybox/web/0123456789ab 1 busybox/web/0123456789ab - over port 514\n";
    socket.send_to(line.as_bytes(), (address.as_str(), 514)).expect("a datagram to the bridge");
    within(HEALTHY, "the line on stdout", || container.logs().contains("over port 514").then_some(()));

    docker(["kill", "--signal", "HUP", &container.name]);
    within(HEALTHY, "its config read again", || container.logs().contains("read again, and in force").then_some(()));
    let took = time_to_stop(&container);
    let code = container.inspect("{{.State.ExitCode}}");
    say(&format!("docker stop took {took:?}, exit code {code}"));
    assert!(took < STOP, "docker stop took {took:?}: {}", log());
    assert_eq!(code, "0", "{}", log());
}

/// Only prints the time: it depends mostly on how fast the machine starts a container.
#[test]
fn accepts_soon_after_its_start() {
    if !host::has(&[Need::Docker, Need::Busybox]) {
        return;
    }
    let images = Images::shared();
    let port = host::free_port(&["127.0.0.1"]);
    let listen = format!("LOGFERRY_LISTEN=udp://127.0.0.1:{port},tcp://127.0.0.1:{port}");
    let mut args = vec!["--network", "host"];
    args.extend(LOCKED);
    args.extend(["--env", &listen, "--env", "LOGFERRY_ADMIN=off", &images.relay]);
    let container = Container::create("start", &args);
    let waiter = std::thread::spawn(move || {
        let open = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let start = Instant::now();
        while !open() {
            assert!(start.elapsed() < HEALTHY, "nobody listens");
            std::thread::sleep(Duration::from_micros(200));
        }
        chrono::Utc::now()
    });
    docker(["start", &container.name]);
    let opened = waiter.join().expect("a relay that listens");
    let text = container.inspect("{{.State.StartedAt}}");
    let started = chrono::DateTime::parse_from_rfc3339(&text).expect("Docker's stamp").to_utc();
    say(&format!("sockets open {} ms after Docker's StartedAt", (opened - started).num_milliseconds()));
}
