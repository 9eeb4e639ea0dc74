//! The deployment files, as far as static checks can judge them: Kubernetes manifests against the published schemas, systemd units by
//! systemd's own tools. The compose files, `daemon.json` and the stack are run for real in `engine` and `swarm`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use logferry::internals::config::{Config, ListenAddress, Overrides};

use crate::support::relay::logferry;
use crate::support::{installed, skip};

/// In tenths of a point of systemd's exposure level, of which the maximum is ten points; systemd calls 15 "OK". The rest is access to the
/// network, which the relay needs.
const EXPOSURE: &str = "15";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files in a folder of the repository; fails if there are none.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(root().join(folder)).expect(folder).map(|e| e.expect(folder).path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{folder}: {files:?}");
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a command succeeded, and its output.
fn ran(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The schema checker from PyPI, which includes the schemas: this checkout's, or the machine's.
fn kubernetes_validate() -> Option<Command> {
    let ours = root().join(".ci/cache/kubernetes/bin/kubernetes-validate");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|place| place.join("kubernetes-validate"));
    let Some(found) = [ours].into_iter().chain(places).find(|file| file.is_file()) else {
        skip("kubernetes-validate", "kubernetes-validate is not installed (pip install kubernetes-validate)");
        return None;
    };
    let mut command = Command::new(found);
    command.arg("--strict");
    Some(command)
}

#[test]
fn kubernetes_manifests_are_what_the_schemas_say() {
    let Some(mut check) = kubernetes_validate() else { return };
    let manifests = files("docker/kubernetes");
    let (good, said) = ran(check.args(&manifests));
    assert!(good, "{said}");
    for kind in ["configmap", "daemonset", "deployment", "service", "persistentvolumeclaim"] {
        assert!(said.contains(&format!("passed for resource {kind}/")), "no {kind}: {said}");
    }
}

#[test]
fn a_misspelt_field_of_a_manifest_is_seen() {
    let Some(mut check) = kubernetes_validate() else { return };
    let manifest = read(&root().join("docker/kubernetes/relay.yaml"));
    let dir = tempfile::tempdir().expect("a directory");
    let misspelt = manifest.replacen("hostPort: 514", "hostport: 514", 1);
    assert_ne!(misspelt, manifest);
    std::fs::write(dir.path().join("relay.yaml"), misspelt).expect("a fresh directory");
    let (good, said) = ran(check.arg(dir.path().join("relay.yaml")));
    assert!(!good && said.contains("'hostport' was unexpected"), "{said}");
}

/// Every container is restricted to what it needs, including the container that only changes an owner.
#[test]
fn every_container_is_locked_down() {
    let count = |text: &str, what: &str| text.lines().filter(|line| line.contains(what)).count();
    let locked = |file: &str, image: &str, per_container: &[&str]| {
        let text = read(&root().join(file));
        let containers = count(&text, image);
        assert!(containers > 0, "{file} has no {image}");
        for what in per_container {
            assert_eq!(count(&text, what), containers, "{file}: {what}");
        }
        text
    };
    for manifest in ["docker/kubernetes/relay.yaml", "docker/kubernetes/aggregator.yaml"] {
        let per_container =
            ["allowPrivilegeEscalation: false", "readOnlyRootFilesystem: true", "capabilities: { drop: [\"ALL\"]"];
        let text = locked(manifest, "  image: ", &per_container);
        for of_the_pod in
            ["runAsNonRoot: true", "seccompProfile: { type: RuntimeDefault }", "automountServiceAccountToken: false"]
        {
            assert_eq!(count(&text, of_the_pod), 1, "{manifest}: {of_the_pod}");
        }
    }
    let of_a_service = ["read_only: true", "cap_drop: [ALL]", "security_opt: [\"no-new-privileges:true\"]"];
    for file in ["compose/relay.yaml", "compose/aggregator.yaml", "compose/rsyslog.yaml"] {
        locked(file, "    image: ", &of_a_service);
    }
    // Swarm does not support `security_opt`.
    for file in ["compose/swarm.yaml", "compose/swarm-plain.yaml"] {
        locked(file, "    image: ", &of_a_service[..2]);
    }
}

/// The stack without TLS is the stack that is run for real, without the lines for certificates and the lines indented below them.
#[test]
fn the_stack_without_tls_is_the_other_one_without_certificates() {
    let stack = |file: &str| {
        let text = read(&root().join("compose").join(file));
        text.split_once("version:").expect("a version").1.to_owned()
    };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut left, mut below) = (String::new(), None);
    for line in stack("swarm.yaml").split_inclusive('\n') {
        if below.is_some_and(|of| !line.trim().is_empty() && indent(line) > of) {
            continue;
        }
        below = line.trim_end().ends_with("# certificates").then(|| indent(line));
        if below.is_none() {
            left += line;
        }
    }
    assert_eq!(left.trim_end(), stack("swarm-plain.yaml").trim_end());
}

/// The configs inside the manifests are valid, and the published ports are the listeners' ports.
#[test]
fn configs_in_manifests_are_good_and_match_the_ports() {
    let relay = in_manifest("relay.yaml");
    assert_eq!(relay.0.hostname, "node-7");
    for (name, (config, manifest)) in [("relay.yaml", relay), ("aggregator.yaml", in_manifest("aggregator.yaml"))] {
        for listener in &config.listen {
            let at = listener.address.socket_address().unwrap_or_else(|| panic!("{name}: {}", listener.address));
            assert!(manifest.contains(&format!("containerPort: {}", at.port())), "{name}: {at} is not published");
        }
        let admin = config.admin.listen.expect("the probes ask it");
        assert!(admin.ip().is_unspecified(), "{name}: the kubelet asks from outside of the pod");
        assert!(manifest.contains(&format!("{{ name: admin, containerPort: {} }}", admin.port())), "{name}");
    }
}

/// The config in a manifest's ConfigMap, and the whole manifest.
fn in_manifest(name: &str) -> (Config, String) {
    let manifest = read(&root().join("docker/kubernetes").join(name));
    let lines = manifest.lines().skip_while(|line| line.trim() != "logferry.toml: |").skip(1);
    let toml: String =
        lines.take_while(|line| *line != "---").map(|line| line.trim_start().to_owned() + "\n").collect();
    assert!(toml.contains("[[forward]]"), "{name}: {toml}");
    let variable = |name: &str| (name == "NODE_NAME").then(|| "node-7".to_owned());
    let config = Config::parse(None, &toml, &Overrides::default(), &variable);
    let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(config.warnings, [""; 0], "{name}");
    (config, manifest)
}

/// The options of Docker's drivers that our files and docs use (docs/log-drivers.md).
const DRIVER_OPTIONS: [&str; 17] = [
    "tag",
    "labels",
    "labels-regex",
    "syslog-address",
    "syslog-format",
    "fluentd-address",
    "fluentd-async",
    "fluentd-sub-second-precision",
    "fluentd-max-retries",
    "gelf-address",
    "gelf-tcp-max-reconnect",
    "gelf-compression-type",
    "splunk-url",
    "splunk-token",
    "splunk-verify-connection",
    "max-size",
    "max-file",
];

/// The names of environment variables that the program knows.
fn variables() -> String {
    let output = logferry().args(["run", "--help"]).output().expect("it runs");
    String::from_utf8(output.stdout).expect("text")
}

/// Task definitions of ECS and a manifest of IoT Edge: their settings for the relay exist, and their log drivers send to the relay's
/// listeners.
#[test]
fn settings_in_examples_are_settings_that_there_are() {
    let known = variables();
    let (mut relays, mut senders) = (0, 0);
    // The other files are configs, and tests of configs: `expectations.rs`.
    for file in files("docs/examples").into_iter().filter(|file| file.extension().is_some_and(|end| end == "json")) {
        let name = file.display();
        let example: Value = serde_json::from_str(&read(&file)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut settings, mut options) = (BTreeMap::new(), Vec::new());
        collect(&example, &mut settings, &mut options);
        for key in settings.keys() {
            assert!(known.contains(&format!("[env: {key}=]")), "{name}: there is no {key}");
        }
        if !settings.is_empty() {
            relays += 1;
            let mut check = logferry();
            let (good, said) = ran(check.args(["check", "--syntax-only"]).envs(&settings));
            assert!(good && said.contains("good"), "{name}: {said}");
        }
        let listens = settings.get("LOGFERRY_LISTEN").map_or("fluent://127.0.0.1:24224", String::as_str);
        for options in options {
            senders += 1;
            if let Some(port) = options.get("Port") {
                assert_eq!(format!("fluent://{}:{port}", options["Host"]), listens, "{name}");
                continue;
            }
            if let Some(address) = options.get("fluentd-address") {
                assert_eq!(address.replace("tcp://", "fluent://"), listens, "{name}");
            }
            for key in options.keys().filter(|key| !key.starts_with("awslogs-")) {
                assert!(DRIVER_OPTIONS.contains(&key.as_str()), "{name}: {key}");
            }
        }
    }
    assert!(relays >= 3 && senders >= 5, "{relays} relays, {senders} senders");
}

/// Collects environment variables for the relay and options of log drivers, also from JSON inside a string.
fn collect(value: &Value, settings: &mut BTreeMap<String, String>, options: &mut Vec<BTreeMap<String, String>>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Object(object) => {
            if let (Some(name), Some(value)) = (object.get("name").and_then(text), object.get("value").and_then(text)) {
                settings.insert(name, value);
            }
            for (key, value) in object {
                match key.as_str() {
                    _ if key.starts_with("LOGFERRY_") => {
                        settings.insert(key.clone(), text(&value["value"]).expect("a text"));
                    }
                    "logConfiguration" | "LogConfig" => {
                        let of_driver = value.get("options").or_else(|| value.get("Config")).expect("options");
                        let of_driver = of_driver.as_object().expect("an object").iter();
                        options
                            .push(of_driver.map(|(key, value)| (key.clone(), text(value).expect("a text"))).collect());
                    }
                    "createOptions" => {
                        let inner = serde_json::from_str(value.as_str().expect("JSON as text")).expect("JSON");
                        collect(&inner, settings, options);
                    }
                    _ => collect(value, settings, options),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, settings, options)),
        _ => {}
    }
}

/// The settings in a compose file exist, and the listeners' ports are published.
#[test]
fn settings_in_compose_files_are_settings_that_there_are() {
    let known = variables();
    let composes = files("compose").into_iter().filter(|file| file.extension().is_some_and(|end| end == "yaml"));
    let shared = read(&root().join("compose/relay.yaml"));
    let mut listeners = 0;
    for file in composes {
        let (name, text) = (file.display(), read(&file));
        let settings = text.lines().filter_map(|line| line.trim().split_once(':'));
        for (key, value) in settings.filter(|(key, _)| key.starts_with("LOGFERRY_")) {
            assert!(known.contains(&format!("[env: {key}=]")), "{name}: there is no {key}");
            if key != "LOGFERRY_LISTEN" {
                continue;
            }
            for address in value.trim().trim_matches('"').split(',') {
                let address: ListenAddress = address.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
                let port = address.socket_address().expect("a port").port();
                let published = format!(":{port}/{}\"", if address.is_udp() { "udp" } else { "tcp" });
                assert!(text.contains(&published) || shared.contains(&published), "{name}: {address} is not published");
                listeners += 1;
            }
        }
        let options = text.lines().skip_while(|line| *line != "  options:").skip(1);
        for option in
            options.take_while(|line| line.starts_with("    ")).filter_map(|line| line.trim().split_once(": "))
        {
            assert!(option.0.starts_with('#') || DRIVER_OPTIONS.contains(&option.0), "{name}: {option:?}");
        }
    }
    assert!(listeners >= 10, "{listeners}");
}

/// The config for compose/splunk.yaml.
#[test]
fn the_config_of_the_splunk_driver_is_good_and_matches_the_port() {
    let (toml, compose) =
        (read(&root().join("compose/splunk/logferry.toml")), read(&root().join("compose/splunk.yaml")));
    let variable = |name: &str| (name == "HEC_TOKEN").then(|| "0000-1111".to_owned());
    let config = Config::parse(None, &toml, &Overrides::default(), &variable).expect("a good config");
    assert_eq!(config.warnings, [""; 0]);
    let [listener] = &config.listen[..] else { panic!("one listener") };
    let port = listener.address.socket_address().expect("a port").port();
    assert!(compose.contains(&format!(":{port}/tcp\"")) && compose.contains("HEC_TOKEN:\n"), "{compose}");
}

/// The image has no dynamic loader: a dynamically linked binary would only print `no such file or directory` when the container starts.
#[test]
fn a_binary_that_is_not_static_is_not_packed() {
    let check = |binary: &str, says: &str| {
        let mut script = Command::new(root().join("docker/build-prebuilt.sh"));
        let output = script.arg("logferry:never").env("LOGFERRY_BINARY", binary).output().expect("bash");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{binary}: {said}");
        assert!(said.contains(says) && said.contains("docker/build-binary.sh"), "{binary}: {said}");
    };
    // The test build is dynamically linked.
    check(env!("CARGO_BIN_EXE_logferry"), "is not static: it needs the loader /lib");
    check("Cargo.toml", "Cargo.toml is not a 64-bit program for Linux");
    check("target/nothing", "target/nothing is not there");
}

/// Copies of the units, changed so that they start this build's program.
fn units() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for unit in files("docker/systemd") {
        let text = read(&unit).replace("/usr/local/bin/logferry", env!("CARGO_BIN_EXE_logferry"));
        std::fs::write(dir.path().join(unit.file_name().expect("a file")), text).expect("a fresh directory");
    }
    dir
}

/// Our drop-ins for the journal's uploader, and for a relay on journald's syslog socket.
#[test]
fn systemd_takes_the_drop_ins() {
    let Some(analyze) = installed("systemd-analyze", "systemd") else { return };
    let dir = units();
    let upload = read(&root().join("compose/journald/systemd-journal-upload.service.conf"));
    let docs = read(&root().join("docs/log-drivers.md"));
    let of_service = docs.split("```").find(|block| block.contains("/logferry.service.d/")).expect("it is in the docs");
    let of_service = of_service.split_once('\n').expect("a block").1;
    let verify = |upload: &str, of_service: &str| {
        let drop_ins = [("systemd-journal-upload.service", upload), ("logferry.service", of_service)];
        for (unit, text) in drop_ins {
            let folder = dir.path().join(format!("{unit}.d"));
            std::fs::create_dir_all(&folder).expect("a fresh directory");
            std::fs::write(folder.join("logferry.conf"), text).expect("a file of ours");
        }
        // Minimal versions of the units that systemd ships.
        let socket = "[Unit]\nDefaultDependencies=no\n[Socket]\nListenDatagram=/run/systemd/journal/syslog\n";
        let uploader = "[Service]\nExecStart=/bin/true\nRestart=on-failure\n";
        for (unit, text) in [("syslog.socket", socket), ("systemd-journal-upload.service", uploader)] {
            std::fs::write(dir.path().join(unit), text).expect("a file of ours");
        }
        let _ = std::os::unix::fs::symlink("logferry.service", dir.path().join("syslog.service"));
        let units =
            ["logferry.service", "syslog.socket", "systemd-journal-upload.service"].map(|unit| dir.path().join(unit));
        ran(Command::new(&analyze).args(["verify", "--man=no"]).args(units)).1
    };
    assert_eq!(verify(&upload, of_service).trim(), "");
    let misspelt = upload.replace("StartLimitIntervalSec", "StartLimitInterval5ec");
    assert!(verify(&misspelt, of_service).contains("StartLimitInterval5ec"));
    let misspelt = of_service.replace("Sockets=", "Socket5=");
    assert!(verify(&upload, &misspelt).contains("Socket5"));
    let listens =
        of_service.lines().find_map(|line| line.strip_prefix("Environment=LOGFERRY_LISTEN=")).expect("it listens");
    assert!(listens.split(',').all(|url| url.parse::<ListenAddress>().is_ok()), "{listens}");
    // Settings that appear in two places agree.
    for said in ["StartLimitIntervalSec=0", "RestartSec=5", "URL=http://"] {
        let conf = read(&root().join("compose/journald/journal-upload.conf"));
        assert!((upload.contains(said) || conf.contains(said)) && docs.contains(said), "{said}");
    }
}

#[test]
fn systemd_takes_the_units_and_finds_them_locked_down() {
    let Some(analyze) = installed("systemd-analyze", "systemd") else { return };
    let dir = units();
    let (socket, service) = (dir.path().join("logferry.socket"), dir.path().join("logferry.service"));
    let (good, said) = ran(Command::new(&analyze).args(["verify", "--man=no"]).args([&socket, &service]));
    assert!(good && said.trim().is_empty(), "{said}");
    let offline = ["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE}")];
    let (good, said) = ran(Command::new(&analyze).args(offline).arg(&service));
    assert!(good, "{said}");

    let misspelt = read(&service).replacen("ProtectSystem=", "ProtectSytem=", 1);
    std::fs::write(&service, misspelt).expect("a file of ours");
    let (_, said) = ran(Command::new(&analyze).args(["verify", "--man=no"]).args([&socket, &service]));
    assert!(said.contains("ProtectSytem"), "{said}");
}

/// The service listens on every socket of the socket unit, or it would not start.
#[test]
fn the_service_listens_on_the_units_sockets() {
    let values = |unit: &str, key: &str| -> Vec<String> {
        let text = read(&root().join("docker/systemd").join(unit));
        text.lines().filter_map(|line| line.strip_prefix(key)).map(String::from).collect()
    };
    let as_url = |scheme: [&str; 2], at: String| match at.starts_with('/') {
        true => format!("{}://{at}", scheme[1]),
        false => format!("{}://{at}", scheme[0]),
    };
    let datagrams = values("logferry.socket", "ListenDatagram=").into_iter().map(|at| as_url(["udp", "unixgram"], at));
    let streams = values("logferry.socket", "ListenStream=").into_iter().map(|at| as_url(["tcp", "unix"], at));
    let opened: BTreeSet<String> = datagrams.chain(streams).collect();
    let listened = values("logferry.service", "Environment=LOGFERRY_LISTEN=");
    let listened: BTreeSet<String> = listened[0].split(',').map(String::from).collect();
    assert_eq!(opened, listened);
    assert!(opened.len() >= 2, "{opened:?}");
    assert!(listened.iter().all(|url| url.parse::<ListenAddress>().is_ok()), "{listened:?}");
}
