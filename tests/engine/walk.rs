//! The walkthrough of certs/README.md, command for command: from Docker's driver to rsyslog with mutual TLS.

use super::docker::{Images, output, try_docker, unique};
use super::host::{self, Need, within};
use super::support::rsyslog;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Time limit for a line over three hops.
const ARRIVE: Duration = Duration::from_secs(60);
const SECTION: &str = "## The whole way, with mutual TLS";
const SAYS: &str = "hello, over three hops";
const END: &str = "\n# The end.\n";
const CONTAINERS: [&str; 3] = ["aggregator", "relay", "talker"];

/// The walkthrough. Dropping it ends and removes everything that it started.
struct Walk {
    dir: tempfile::TempDir,
    script: String,
    /// The README's commands that end the setup.
    end: String,
    containers: [String; 3],
    network: String,
}

impl Walk {
    /// Reads the README's commands, with unique names and ports.
    fn read(images: &Images) -> Self {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/README.md");
        let text = std::fs::read_to_string(readme).expect("a file of ours");
        let section = text.split_once(SECTION).expect("its section").1;
        let blocks = section.split("```sh\n").skip(1).map(|block| block.split_once("```").expect("an end").0);
        let end = section.split_once("To end it").expect("an end").1;
        let end = end.split('`').nth(1).expect("commands");
        // Both parts stay one text until names and ports are replaced in both.
        let mut script = format!("{}{END}{end}", blocks.collect::<String>());
        let (containers, network) = (CONTAINERS.map(unique), unique("walk"));
        let (driver, central) = (host::free_port(&["127.0.0.1"]), host::free_port(&["0.0.0.0"]));
        let mut stands_for = |written: &str, here: &str| {
            assert!(script.contains(written), "certs/README.md does not say `{written}` any more");
            script = script.replace(written, here);
        };
        for (name, unique) in CONTAINERS.iter().zip(&containers) {
            stands_for(&format!("--name {name} "), &format!("--name {unique} "));
        }
        stands_for("--volumes relay aggregator", &format!("--volumes {} {}", containers[1], containers[0]));
        stands_for("network rm walk", &format!("network rm {network}"));
        stands_for("docker logs relay ", &format!("docker logs {} ", containers[1]));
        stands_for("network create walk", &format!("network create {network}"));
        stands_for("network inspect walk", &format!("network inspect {network}"));
        stands_for("--network walk ", &format!("--network {network} "));
        stands_for("127.0.0.1:6514", &format!("127.0.0.1:{driver}"));
        stands_for("6515", &central.to_string());
        stands_for("image=logferry", &format!("image={}", images.relay));
        stands_for(" busybox sh ", &format!(" {} /bin/sh ", images.talker));
        // Tests with an engine run as root, perhaps without sudo.
        stands_for("sudo ", "");
        stands_for("rsyslogd", host::program("rsyslogd").to_str().expect("a path in UTF-8"));
        let (script, end) = script.split_once(END).expect("both");
        Self { dir: host::open_directory(), script: script.to_owned(), end: end.to_owned(), containers, network }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs commands in the walkthrough's directory. They stop at the first failure.
    fn run(&self, script: &str) -> Result<String, String> {
        let mut command = Command::new("timeout");
        command.args([&ARRIVE.as_secs().to_string(), "sh", "-eu", "-c", script]).current_dir(self.dir.path());
        output(&mut command)
    }

    /// The anonymous volumes that Docker created for its containers.
    fn volumes(&self) -> Vec<String> {
        let format = "{{range .Mounts}}{{if eq .Type \"volume\"}}{{println .Name}}{{end}}{{end}}";
        let containers = &self.containers[..2];
        let of_each =
            containers.iter().map(|name| try_docker(["inspect", "--format", format, name]).unwrap_or_default());
        of_each.collect::<Vec<_>>().join("\n").split_whitespace().map(str::to_owned).collect()
    }

    fn arrived(&self) -> String {
        std::fs::read_to_string(self.path("central/arrived")).unwrap_or_default()
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        for name in &self.containers {
            if std::thread::panicking() {
                let logs = output(Command::new("sh").args(["-c", &format!("docker logs {name} 2>&1 | tail -20")]));
                host::say(&format!("{name}: {}", logs.unwrap_or_default()));
            }
            let _ = try_docker(["rm", "--force", "--volumes", name]);
        }
        let _ = try_docker(["network", "rm", &self.network]);
        if let Ok(pid) = std::fs::read_to_string(self.path("central/pid")) {
            let _ = output(Command::new("kill").arg(pid.trim()));
        }
    }
}

#[test]
fn the_walk_of_the_readme_leads_from_dockers_driver_to_rsyslog() {
    if !host::has(&[Need::Docker, Need::Busybox, Need::Rsyslog]) || rsyslog::find(rsyslog::Input::Tls).is_none() {
        return;
    }
    let images = Images::shared();
    let walk = Walk::read(&images);
    walk.run(&walk.script).unwrap_or_else(|error| panic!("{error}"));
    let lines = walk.arrived();
    assert_eq!(lines.matches(SAYS).count(), 1, "{lines}");

    // A client whose certificate is from the CA but does not name the engine is refused: here the relay's own.
    let (_, talker) = walk.script.rsplit_once("docker run --rm ").expect("the talker");
    let (talker, _) = talker.split_once("until ").expect("its end");
    let talk = |as_whom: &str, says: &str| {
        let talker = talker.replace("engine/engine", as_whom).replace(SAYS, says);
        walk.run(&format!("docker run --rm {talker}")).unwrap_or_else(|error| panic!("{error}"));
    };
    talk("relay/node-7.hosts.example.com", "a stranger");
    talk("engine/engine", "the engine again");
    within(ARRIVE, "the engine's second line", || walk.arrived().contains("the engine again").then_some(()));
    assert!(!walk.arrived().contains("a stranger"), "{}", walk.arrived());

    // The README's last commands leave no volume.
    let volumes = walk.volumes();
    assert!(volumes.len() >= 2, "the image has a volume: {volumes:?}");
    walk.run(&walk.end).unwrap_or_else(|error| panic!("{error}"));
    let left = try_docker(["volume", "ls", "--quiet"]).expect("an answer");
    assert!(!volumes.iter().any(|volume| left.contains(volume)), "{volumes:?} are left: {left}");
}
