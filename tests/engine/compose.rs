//! The compose files as published. Variables replace only images and addresses.

use super::docker::{Container, Images, NatsImage, RsyslogImage, bridge, compose_command, docker, output, unique};
use super::host::{self, Need, say, within};
use super::support::pages::{Verb, blocks_in, marked_blocks, text};
use super::support::{Line, NatsClient, Program, rsyslog};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const UP: Duration = Duration::from_secs(60);
const NEEDS: [Need; 3] = [Need::Docker, Need::Compose, Need::Busybox];

/// Lines that each container prints without a pause, unless `LOGFERRY_FLOOD` sets the number. A receive buffer of 4 MiB
/// holds this many even if the relay gets no CPU time at all.
const FLOOD: usize = 5_000;

/// One `docker compose` project. Dropping it removes the project with its volumes.
struct Project {
    name: String,
    /// The address of Docker's own bridge, and the relay's port there.
    bridge: String,
    port: u16,
    /// The directory of its files.
    folder: PathBuf,
    files: &'static [&'static str],
    env: Vec<(&'static str, String)>,
}

impl Project {
    fn new(files: &'static [&'static str], images: &Images, certs: &Path) -> Self {
        let bridge = bridge();
        let port = host::free_port(&[&bridge]);
        let port_of = |variable: &'static str| (variable, host::free_port(&[&bridge]).to_string());
        let env = vec![
            port_of("FLUENT_PORT"),
            port_of("GELF_PORT"),
            port_of("HEC_PORT"),
            ("HEC_TOKEN", "0123-4567".into()),
            ("LOGFERRY_IMAGE", images.relay.clone()),
            ("TALKER_IMAGE", images.talker.clone()),
            ("LOGFERRY_BIND", bridge.clone()),
            ("LOGFERRY_PORT", port.to_string()),
            ("LOGFERRY_CERTS", certs.display().to_string()),
            ("AGGREGATOR_BIND", bridge.clone()),
            ("AGGREGATOR_PORT", host::free_port(&[&bridge]).to_string()),
            ("HOSTNAME", "dock-7".into()),
        ];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose");
        Self { name: unique("compose"), bridge, port, folder, files, env }
    }

    fn command(&self, args: &[&str]) -> Result<String, String> {
        let words = compose_command().expect("asked for before");
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["--project-name", &self.name]).current_dir(&self.folder);
        command.args(self.files.iter().flat_map(|file| ["--file", file])).args(args);
        let ours = ["FORWARD", "FORMAT", "CA", "CERT", "KEY", "TLS_CLIENT_CA"].map(|name| format!("LOGFERRY_{name}"));
        for name in ours.iter().map(String::as_str).chain(["AGGREGATOR"]) {
            command.env_remove(name);
        }
        output(command.envs(self.env.iter().map(|(name, value)| (name, value))))
    }

    fn up(&self) {
        self.command(&["up", "--detach", "--no-build"]).unwrap_or_else(|error| panic!("{error}"));
    }

    /// ID and name of the talking container.
    fn talker(&self) -> (String, String) {
        self.container("talker")
    }

    /// ID and name of a service's container.
    fn container(&self, service: &str) -> (String, String) {
        let id = self.command(&["ps", "--quiet", service]).unwrap_or_else(|error| panic!("{error}"));
        let name = docker(["inspect", "--format", "{{.Name}}", &id]);
        (id, name.trim_start_matches('/').to_owned())
    }

    fn logs(&self, service: &str) -> String {
        self.command(&["logs", "--no-color", service]).unwrap_or_default()
    }

    /// The path of a named volume on this host.
    fn volume(&self, name: &str) -> PathBuf {
        docker(["volume", "inspect", "--format", "{{.Mountpoint}}", &format!("{}_{name}", self.name)]).into()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&self.command(&["logs", "--no-color", "--tail", "20"]).unwrap_or_default());
        }
        if let Err(error) = self.command(&["down", "--volumes", "--timeout", "2"]) {
            say(&error);
        }
    }
}

#[test]
fn the_quick_start_shows_the_talker_on_the_relays_stdout() {
    shows_the_talker(&["compose.yaml"], 12);
}

#[test]
fn the_quick_start_with_the_fluentd_driver() {
    shows_the_talker(&["fluentd.yaml"], 64);
}

#[test]
fn the_quick_start_with_the_gelf_driver() {
    shows_the_talker(&["gelf.yaml"], 64);
}

#[test]
fn the_quick_start_with_the_splunk_driver() {
    shows_the_talker(&["splunk.yaml"], 12);
}

/// `digits`: how many digits of the container's ID the driver sends.
fn shows_the_talker(files: &'static [&'static str], digits: usize) {
    if !host::has(&NEEDS) {
        return;
    }
    let images = Images::shared();
    let certs = host::open_directory();
    let project = Project::new(files, &images, certs.path());
    project.up();
    let (id, name) = project.talker();
    let image = &images.talker;
    let data = format!(r#"[docker@32473 image="{image}" name="{name}" id="{}"]"#, &id[..digits]);
    let lines = within(UP, "three lines of the talker", || {
        let logs = project.logs("relay");
        let lines: Vec<_> = logs.lines().filter(|line| line.contains("from the dock")).map(String::from).collect();
        (lines.len() >= 3).then_some(lines)
    });
    for (n, line) in lines.iter().take(3).enumerate() {
        assert!(line.contains(&data), "{line}\nlacks {data}");
        assert!(line.contains(&format!("hello {} from the dock", n + 1)), "from the first line on: {lines:#?}");
    }
    say(&lines[0]);
}

/// The recommended setup: UDP and TCP, published at the bridge's address.
#[test]
fn containers_that_print_flat_out_lose_nothing() {
    if !host::has(&NEEDS) {
        return;
    }
    let lines: usize = std::env::var("LOGFERRY_FLOOD").map_or(FLOOD, |lines| lines.parse().expect("a number"));
    let images = Images::shared();
    let certs = host::open_directory();
    let mut project = Project::new(&["compose.yaml"], &images, certs.path());
    let central = TcpListener::bind((project.bridge.as_str(), 0)).expect("the bridge's address is this host's");
    project.env.push(("LOGFERRY_FORWARD", format!("tcp://{}", central.local_addr().expect("bound"))));
    let arrived = Arc::new(Mutex::new(BTreeSet::new()));
    let theirs = arrived.clone();
    // The thread ends when the relay closes its connection.
    std::thread::spawn(move || {
        while let Ok((stream, _)) = central.accept() {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let said = line.rsplit_once("flat out: ").map(|(_, said)| said.to_owned());
                theirs.lock().expect("nobody panics").extend(said.or_else(|| line.contains("hello").then_some(line)));
            }
        }
    });
    project.up();
    within(UP, "the relay at work", || (!arrived.lock().expect("nobody panics").is_empty()).then_some(()));

    let floods = ["udp", "tcp"].map(|transport| {
        let address = format!("syslog-address={transport}://{}:{}", project.bridge, project.port);
        let script = format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo \"flat out: {transport} $i\"; done");
        let options = ["--log-opt", &address, "--log-opt", "syslog-format=rfc5424micro", "--log-driver", "syslog"];
        let run = [images.talker.as_str(), "/bin/sh", "-c", &script];
        Container::run(transport, &[["--network", "none"].as_slice(), &options, &run].concat())
    });
    floods.iter().for_each(|flood| drop(docker(["wait", &flood.name])));
    let count = |transport: &str| {
        let said = (1..=lines).map(|n| format!("{transport} {n}"));
        let arrived = arrived.lock().expect("nobody panics");
        said.filter(|said| arrived.contains(said)).count()
    };
    let since = Instant::now();
    let (udp, tcp) = within(2 * UP, "everything, or the end of our patience", || {
        let counts = (count("udp"), count("tcp"));
        (counts == (lines, lines) || since.elapsed() > UP).then_some(counts)
    });
    say(&format!("flat out: {lines} lines by UDP, {} lost; {lines} by TCP, {} lost", lines - udp, lines - tcp));
    assert_eq!((udp, tcp), (lines, lines), "by UDP, by TCP");
}

#[test]
fn the_aggregator_takes_relp_and_writes_files_per_host_and_container() {
    if !host::has(&NEEDS) {
        return;
    }
    let images = Images::shared();
    let certs = host::open_directory();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
    output(command.args(["certs", "--name", "aggregator", "--out"]).arg(certs.path()))
        .unwrap_or_else(|e| panic!("{e}"));
    // These files have no owner to change, so open permissions replace `chown 65534`.
    for key in ["server-key.pem", "client-key.pem"] {
        host::open(&certs.path().join(key));
    }
    let files = &["compose.yaml", "to-aggregator.yaml", "aggregator.yaml"];
    let project = Project::new(files, &images, certs.path());
    project.up();
    let (_, name) = project.talker();
    let host = output(&mut Command::new("hostname")).expect("a host name");
    let file = project.volume("logs").join(host).join(format!("{name}.log"));
    let count = |text: &str| text.lines().filter(|line| line.contains("from the dock")).count();
    let heard = |least: usize| {
        within(UP, &format!("{least} lines in {}", file.display()), || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            (count(&text) >= least).then_some(text)
        })
    };
    let before = count(&heard(3));
    refuses_a_relay_without_a_certificate(&project, certs.path());

    // The aggregator is recreated with another address under the same name. The relay must find it and lose nothing.
    project.command(&["rm", "--stop", "--force", "aggregator"]).unwrap_or_else(|error| panic!("{error}"));
    project.command(&["up", "--detach", "--no-build", "aggregator"]).unwrap_or_else(|error| panic!("{error}"));
    let text = heard(before + 5);
    let mut last = 0;
    for line in text.lines() {
        let number = line.split("hello ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        let number = number.unwrap_or_else(|| panic!("not the talker's: {line}"));
        // With RELP and two orderly stops, no line is lost and none arrives twice.
        assert_eq!(number, last + 1, "{text}");
        last = number;
    }
    say(&format!("{last} lines in {{host}}/{{name}}.log, none missing over a new aggregator"));
}

/// With TLS 1.3, a client learns of the refusal only after its own handshake is complete, with its first read.
fn refuses_a_relay_without_a_certificate(project: &Project, certs: &Path) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certs.join("ca.pem")).expect("a PEM file")).expect("a CA");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions that exist");
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("aggregator").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let (_, port) = project.env.iter().find(|(name, _)| *name == "AGGREGATOR_PORT").expect("set by us");
    let socket = TcpStream::connect((project.bridge.as_str(), port.parse().expect("a port"))).expect("it listens");
    let mut wire = StreamOwned::new(connection, socket);
    let _ = wire.write_all(b"1 open 0\n");
    let answer = wire.read(&mut [0; 100]);
    assert!(answer.as_ref().is_err_and(|e| e.to_string().contains("CertificateRequired")), "{answer:?}");
}

/// The relay alone, and a container with the log options of docker/daemon.json except for the address.
#[test]
fn the_relay_alone_takes_what_daemon_json_sends() {
    if !host::has(&NEEDS) {
        return;
    }
    let images = Images::shared();
    let certs = host::open_directory();
    let project = Project::new(&["relay.yaml"], &images, certs.path());
    project.up();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let daemon = std::fs::read_to_string(root.join("docker/daemon.json")).expect("it is shipped");
    let daemon: serde_json::Value = serde_json::from_str(&daemon).expect("JSON");
    let mut args = vec!["--log-driver".to_owned(), daemon["log-driver"].as_str().expect("a driver").to_owned()];
    let mut address = None;
    for (name, value) in daemon["log-opts"].as_object().expect("options") {
        let mut value = value.as_str().expect("the engine takes strings only").to_owned();
        if name == "syslog-address" {
            let (_, shipped) = value.split_once("//").expect("a URL");
            address = Some(shipped.to_owned());
            value = value.replace(shipped, &format!("{}:{}", project.bridge, project.port));
        }
        args.extend(["--log-opt".to_owned(), format!("{name}={value}")]);
    }
    assert_eq!(address.as_deref(), Some("172.17.0.1:514"), "where relay.yaml listens");
    args.extend([images.talker.as_str(), "/bin/sh", "-c", "echo by daemon.json"].map(String::from));
    let talker = Container::run("default", &args);
    let line = within(UP, "the line", || {
        let logs = project.logs("relay");
        logs.lines().find(|line| line.contains("by daemon.json")).map(String::from)
    });
    let data = format!(r#"image="{}" name="{}" id="{}""#, images.talker, talker.name, talker.id());
    assert!(line.contains(&data), "{line}\nlacks {data}");
}

#[test]
fn a_central_rsyslog_writes_files_per_host_and_container() {
    if !host::has(&[NEEDS.as_slice(), &[Need::Rsyslog]].concat()) || !RsyslogImage::can_be_made() {
        return;
    }
    let images = Images::shared();
    let rsyslog = RsyslogImage::new();
    let certs = host::open_directory();
    let mut project = Project::new(&["compose.yaml", "rsyslog.yaml"], &images, certs.path());
    project.env.push(("RSYSLOG_IMAGE", rsyslog.0.clone()));
    project.up();
    let (id, name) = project.talker();
    let host = output(&mut Command::new("hostname")).expect("a host name");
    let file = project.volume("logs").join(&host).join(format!("{name}.log"));
    let text = within(UP, &format!("three lines in {}", file.display()), || {
        let text = std::fs::read_to_string(&file).ok()?;
        (text.lines().count() >= 3).then_some(text)
    });
    for (n, line) in text.lines().take(3).enumerate() {
        let line = Line::read(line.as_bytes());
        assert_eq!(line.container(), [&*images.talker, &*name, &id[..12]], "{text}");
        assert_eq!(line.message, format!("hello {} from the dock", n + 1).as_bytes(), "{text}");
    }
}

/// Writes the compose file of a page of docs/destinations, and its secrets, into a directory.
fn of_page(file: &str, folder: &Path) {
    std::fs::write(folder.join("compose.yaml"), file).expect("a fresh directory");
    for secret in file.split("file: ./").skip(1).filter_map(|rest| rest.split('}').next()) {
        std::fs::write(folder.join(secret), "secret").expect("a fresh directory");
    }
}

#[test]
fn the_files_of_docs_destinations_are_files_of_compose() {
    if !host::has(&[Need::Compose]) {
        return;
    }
    let words = compose_command().expect("asked for before");
    let blocks = blocks_in("docs/destinations", 13);
    let files: Vec<_> = blocks.iter().filter(|block| block.verb == Verb::Compose).collect();
    assert!(files.len() >= 12, "only {} files", files.len());
    for file in files {
        let folder = host::open_directory();
        of_page(&file.text, folder.path());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["--file", "compose.yaml", "config", "--quiet"]).current_dir(folder.path());
        output(&mut command).unwrap_or_else(|error| panic!("{}: {error}", file.at));
    }
}

/// Replaces each documented value in a text with the test's value.
fn filled_in(text: String, places: &[(&str, String)]) -> String {
    places.iter().fold(text, |text, (there, here)| {
        assert!(text.contains(there), "{text}\nlacks {there}");
        text.replace(there, here)
    })
}

/// The quick start of README.md as published, except for images, ports, the server's name and its file. Then the
/// commands of docs/missing-line.md look for the line.
#[test]
fn the_quick_start_of_the_readme_brings_a_line_to_rsyslog() {
    if !host::has(&[NEEDS.as_slice(), &[Need::Rsyslog]].concat()) {
        return;
    }
    let Some(rsyslogd) = rsyslog::find(rsyslog::Input::Relp) else { return };
    let images = Images::shared();
    let folder = host::open_directory();
    let mut project = Project::new(&["compose.yaml"], &images, folder.path());
    project.folder = folder.path().to_owned();
    let blocks = marked_blocks("README.md");

    let (port, arrived) = (host::free_port(&["0.0.0.0"]), folder.path().join("docker.log"));
    let places = [("2514", port.to_string()), ("/var/log/docker.log", arrived.display().to_string())];
    let conf = filled_in(text(&blocks, "readme", Verb::Run, "rsyslog"), &places);
    std::fs::write(folder.path().join("conf"), conf).expect("a fresh directory");
    let _rsyslog = Program::start(&mut rsyslog::command(&rsyslogd, folder.path()));

    let (bridge, admin) = (project.bridge.clone(), host::free_port(&["127.0.0.1"]));
    let file = filled_in(
        text(&blocks, "readme", Verb::Compose, "yaml"),
        &[
            ("logs.example.com:2514", format!("{bridge}:{port}")),
            ("172.17.0.1:514", format!("{bridge}:{}", project.port)),
            ("127.0.0.1:9514:", format!("127.0.0.1:{admin}:")),
            ("image: logferry", format!("image: {}", images.relay)),
            ("image: busybox", format!("image: {}", images.talker)),
        ],
    );
    of_page(&file, folder.path());
    project.up();
    let (id, name) = project.container("web");
    let first = within(UP, "a line in the server's file", || {
        std::fs::read_to_string(&arrived).ok()?.lines().find(|line| line.ends_with("hello 1")).map(String::from)
    });
    assert_eq!(Line::read(first.as_bytes()).container(), [&*images.talker, &*name, &id[..12]], "{first}");
    finds_a_missing_line(&project, &images);
}

/// Runs the commands of docs/missing-line.md. The output of each must contain the words in its marker.
fn finds_a_missing_line(project: &Project, images: &Images) {
    let compose = format!("{} --project-name {}", compose_command().expect("asked for before").join(" "), project.name);
    let folder = project.folder.display().to_string();
    let mut run = 0;
    for block in marked_blocks("docs/missing-line.md").iter().filter(|block| block.verb == Verb::Run) {
        let script = block
            .text
            .replace("docker compose exec -T", "docker compose exec")
            .replace("docker compose exec", &format!("{compose} exec -T"))
            .replace("docker compose", &compose)
            .replace("172.17.0.1:514", &format!("{}:{}", project.bridge, project.port))
            .replace("172.17.0.1 --port 514", &format!("{} --port {}", project.bridge, project.port))
            .replace("/var/log", &folder)
            .replace(" logferry probe", &format!(" {} probe", images.relay));
        let said = output(Command::new("sh").args(["-eu", "-c", &script]).current_dir(&project.folder))
            .unwrap_or_else(|error| panic!("{}: {error}", block.at));
        assert!(said.contains(&block.file), "{}: {script}says, without {:?}: {said}", block.at, block.file);
        run += 1;
    }
    assert!(run >= 8, "only {run} blocks of docs/missing-line.md");
}

/// docs/destinations/nats.md as published, except for images, ports and the container's name. Its query must show the
/// line.
#[test]
fn ten_lines_of_compose_bring_a_line_to_nats() {
    if !host::has(&[NEEDS.as_slice(), &[Need::Nats]].concat()) {
        return;
    }
    let (images, nats) = (Images::shared(), NatsImage::new());
    let folder = host::open_directory();
    let mut project = Project::new(&["compose.yaml"], &images, folder.path());
    project.folder = folder.path().to_owned();
    let (port, web) = (host::free_port(&["127.0.0.1"]), unique("web"));
    let talks =
        format!("image: {}\n    command: [sh, -c, \"while :; do echo GET / 200; sleep 1; done\"]", images.talker);
    let here = format!("{}:{}", project.bridge, project.port);
    let blocks = blocks_in("docs/destinations", 13);
    let file = filled_in(
        text(&blocks, "nats", Verb::Compose, "yaml"),
        &[
            ("image: nats:2", format!("image: {}", nats.0)),
            ("image: logferry", format!("image: {}", images.relay)),
            ("image: nginx", talks),
            ("127.0.0.1:4222:", format!("127.0.0.1:{port}:")),
            ("172.17.0.1:514", here),
            ("container_name: web", format!("container_name: {web}")),
        ],
    );
    of_page(&file, folder.path());
    project.up();
    // docker-proxy accepts connections before the server does.
    within(UP, "the server's first word", || {
        TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| stream.read_exact(&mut [0])).ok()
    });
    let mut client = NatsClient::new(SocketAddr::from(([127, 0, 0, 1], port)), |_| json!({}));
    let query = text(&blocks, "nats", Verb::Run, "sh");
    let subjects = query.split('"').nth(1).expect("subjects between quotes");
    client.makes_stream(subjects, json!({}));
    within(UP, "a line in the stream", || (client.count() > 0).then_some(()));
    let stored = client.stored().swap_remove(0);
    assert_eq!(
        (&stored.record["message"], &stored.record["container_name"]),
        (&"GET / 200".into(), &web.clone().into())
    );
    assert!(stored.subject.starts_with("logs.") && stored.subject.ends_with(&format!(".{web}")), "{}", stored.subject);
}
