//! The compose files as a newcomer finds them, with nothing but images and addresses replaced by variables.

use super::docker::{Images, compose_command, docker, output, unique};
use super::host::{self, Need, say, within};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const UP: Duration = Duration::from_secs(60);
const NEEDS: [Need; 3] = [Need::Docker, Need::Compose, Need::Busybox];

/// One `docker compose` project; gone with its volumes when the test ends.
struct Project {
    name: String,
    files: &'static [&'static str],
    env: Vec<(&'static str, String)>,
}

impl Project {
    fn new(files: &'static [&'static str], images: &Images, certs: &Path) -> Self {
        let bridge = docker(["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
        let bridge = if bridge.is_empty() { "172.17.0.1".to_owned() } else { bridge };
        let port = host::free_port(&[&bridge]).to_string();
        let env = vec![
            ("LOGFERRY_IMAGE", images.relay.clone()),
            ("TALKER_IMAGE", images.talker.clone()),
            ("LOGFERRY_BIND", bridge.clone()),
            ("LOGFERRY_PORT", port),
            ("LOGFERRY_CERTS", certs.display().to_string()),
            ("AGGREGATOR_BIND", bridge.clone()),
            ("AGGREGATOR_PORT", host::free_port(&[&bridge]).to_string()),
            ("HOSTNAME", "dock-7".into()),
        ];
        Self { name: unique("compose"), files, env }
    }

    fn command(&self, args: &[&str]) -> Result<String, String> {
        let words = compose_command().expect("asked for before");
        let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose");
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["--project-name", &self.name]).current_dir(folder);
        command.args(self.files.iter().flat_map(|file| ["--file", file])).args(args);
        for name in ["LOGFERRY_FORWARD", "LOGFERRY_FORMAT", "LOGFERRY_CA", "LOGFERRY_TLS_CLIENT_CA"] {
            command.env_remove(name);
        }
        output(command.envs(self.env.iter().map(|(name, value)| (name, value))))
    }

    fn up(&self) {
        self.command(&["up", "--detach", "--no-build"]).unwrap_or_else(|error| panic!("{error}"));
    }

    /// ID and name of the talking container.
    fn talker(&self) -> (String, String) {
        let id = self.command(&["ps", "--quiet", "talker"]).unwrap_or_else(|error| panic!("{error}"));
        let name = docker(["inspect", "--format", "{{.Name}}", &id]);
        (id, name.trim_start_matches('/').to_owned())
    }

    fn logs(&self, service: &str) -> String {
        self.command(&["logs", "--no-color", service]).unwrap_or_default()
    }

    /// Where a named volume is on this host.
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
    if !host::has(&NEEDS) {
        return;
    }
    let images = Images::shared();
    let certs = host::open_directory();
    let project = Project::new(&["compose.yaml"], &images, certs.path());
    project.up();
    let (id, name) = project.talker();
    let image = &images.talker;
    let data = format!(r#"[docker@32473 image="{image}" name="{name}" id="{}"]"#, &id[..12]);
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
    host::open(&certs.path().join("server-key.pem"));
    let mut project = Project::new(&["compose.yaml", "aggregator.yaml"], &images, certs.path());
    project.env.push(("LOGFERRY_FORWARD", "relp+tls://aggregator:2514".into()));
    project.env.push(("LOGFERRY_CA", "/certs/ca.pem".into()));
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

    // The aggregator is made anew, with another address under the same name. The relay must find it, and lose nothing.
    project.command(&["rm", "--stop", "--force", "aggregator"]).unwrap_or_else(|error| panic!("{error}"));
    project.command(&["up", "--detach", "--no-build", "aggregator"]).unwrap_or_else(|error| panic!("{error}"));
    let text = heard(before + 5);
    let mut last = 0;
    for line in text.lines() {
        let number = line.split("hello ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        let number = number.unwrap_or_else(|| panic!("not the talker's: {line}"));
        // By RELP, and both stop in good order: nothing is missing, and nothing comes twice.
        assert_eq!(number, last + 1, "{text}");
        last = number;
    }
    say(&format!("{last} lines in {{host}}/{{name}}.log, none missing over a new aggregator"));
}
