//! The engine through its command line, and guards that remove a test's resources when it ends, even by a panic.

use super::host;
use super::support::rsyslog;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// The talker image's reference as a user might write it: with a registry's port, folders and a tag.
const TALKER_REPOSITORY: &str = "registry.test:5000/dock";
/// The names that a talker's shell script uses. busybox selects the applet by the name of its program.
const APPLETS: [&str; 5] = ["busybox", "sh", "cat", "sleep", "yes"];

pub fn engine_answers() -> bool {
    try_docker(["version", "--format", "{{.Server.Os}}"]).is_ok_and(|os| os == "linux")
}

/// `docker-compose` (1.29) or the plugin of newer engines.
pub fn compose_command() -> Option<Vec<&'static str>> {
    let found = |words: &Vec<&str>| output(Command::new(words[0]).args(&words[1..]).arg("version")).is_ok();
    [vec!["docker-compose"], vec!["docker", "compose"]].into_iter().find(found)
}

/// Runs `docker`. A failure fails the test.
pub fn docker<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> String {
    try_docker(args).unwrap_or_else(|error| panic!("{error}"))
}

pub fn try_docker<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Result<String, String> {
    output(Command::new("docker").args(args))
}

/// The command's output, or the command and its error output.
pub fn output(command: &mut Command) -> Result<String, String> {
    let result = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).trim().to_owned());
    }
    let (out, err) = (String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    Err(format!("{command:?}: {}\n{out}{err}", result.status))
}

/// The address of Docker's own bridge. An engine that chose the address itself may not report it.
pub fn bridge() -> String {
    let bridge = docker(["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
    if bridge.is_empty() { "172.17.0.1".to_owned() } else { bridge }
}

/// A unique name, because several test runs may share one engine.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("lf{}-{}-{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The images that all tests share: the relay's, and the talker's with busybox alone.
pub struct Images {
    pub relay: String,
    pub talker: String,
    /// Whether `LOGFERRY_IMAGE` named the relay's image. Then it is an optimized release image, and the test must not
    /// remove it.
    given: bool,
}

impl Images {
    /// The first caller builds the images. Dropping the last reference removes them.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Images>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let images = Arc::new(Self::build());
            *shared = Arc::downgrade(&images);
            images
        })
    }

    fn build() -> Self {
        let run = unique("image");
        let talker = format!("{TALKER_REPOSITORY}/{run}:1.2.3");
        import_busybox(&talker);
        if let Ok(relay) = std::env::var("LOGFERRY_IMAGE") {
            return Self { relay, talker, given: true };
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = root.join("docker/build-prebuilt.sh");
        output(Command::new(script).arg(&run).env("LOGFERRY_PROFILE", "dev")).unwrap_or_else(|error| panic!("{error}"));
        Self { relay: run, talker, given: false }
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let _ = try_docker(["image", "rm", "--force", &self.talker]);
        if !self.given {
            let _ = try_docker(["image", "rm", "--force", &self.relay]);
        }
    }
}

/// An image FROM scratch with busybox under several names.
fn import_busybox(reference: &str) {
    let dir = host::open_directory();
    std::fs::create_dir(dir.path().join("bin")).expect("a fresh directory");
    let busybox = host::program("busybox");
    for applet in APPLETS {
        std::fs::copy(&busybox, dir.path().join("bin").join(applet)).expect("a copy of busybox");
    }
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir.path()).args(["-c", "bin"]).stdout(Stdio::piped());
    let mut tar = tar.spawn().expect("tar");
    let mut import = Command::new("docker");
    import.args(["import", "-", reference]).stdin(tar.stdout.take().expect("piped")).stdout(Stdio::null());
    assert!(import.status().expect("docker").success(), "docker import of {reference}");
    assert!(tar.wait().expect("tar").success(), "tar of busybox");
}

/// An image FROM scratch with these programs and modules, their libraries and some empty folders. `entry` is a line of
/// a Dockerfile. Links in the paths are followed. Files keep the paths of this machine, because rsyslogd looks there
/// for `imrelp`, and the loader for libraries.
fn import_programs(reference: &str, files: &[PathBuf], folders: &[&str], entry: &str) {
    let script = r#"set -e
        work=$1 entry=$2 image=$3; shift 3
        libraries=$(ldd "$@" 2>/dev/null | grep -o '/[^ ]*' | tr -d : | sort -u)
        for file in "$@" $libraries; do mkdir -p "$work/$(dirname "$file")"; cp -Lf "$file" "$work/$file"; done
        tar -C "$work" -c . | docker import --change "$entry" - "$image""#;
    let work = host::open_directory();
    for folder in folders {
        std::fs::create_dir_all(work.path().join(folder)).expect("a fresh directory");
    }
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(work.path()).args([entry, reference]).args(files);
    output(&mut command).unwrap_or_else(|error| panic!("{error}"));
}

/// Replaces the registry's `nats` image: this machine's nats-server.
pub struct NatsImage(pub String);

impl NatsImage {
    pub fn new() -> Self {
        let image = Self(unique("nats"));
        let program = host::program("nats-server");
        let entry = format!("ENTRYPOINT [\"{}\"]", program.display());
        import_programs(&image.0, &[program], &["tmp"], &entry);
        image
    }
}

impl Drop for NatsImage {
    fn drop(&mut self) {
        let _ = try_docker(["image", "rm", "--force", &self.0]);
    }
}

/// Replaces the image of compose/rsyslog/Dockerfile, whose base image only a registry has: this machine's rsyslog with
/// RELP and their libraries. The entry point is the Dockerfile's.
pub struct RsyslogImage(pub String);

impl RsyslogImage {
    /// Whether this machine's rsyslog supports RELP. Reports it if not.
    pub fn can_be_made() -> bool {
        rsyslog::find(rsyslog::Input::Relp).is_some()
    }

    pub fn new() -> Self {
        let image = Self(unique("rsyslog"));
        let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/rsyslog/Dockerfile");
        let dockerfile = std::fs::read_to_string(dockerfile).expect("it is shipped");
        let entry = dockerfile.lines().find(|line| line.starts_with("ENTRYPOINT")).expect("an entry point");
        let mut files = vec![host::program("rsyslogd")];
        let modules = rsyslog::modules().expect("asked for before");
        let modules = std::fs::read_dir(modules).expect("modules").map(|entry| entry.expect("a module").path());
        files.extend(modules.filter(|path| path.extension().is_some_and(|end| end == "so")));
        import_programs(&image.0, &files, &["etc", "run", "var/spool/rsyslog", "var/log/hosts"], entry);
        image
    }
}

impl Drop for RsyslogImage {
    fn drop(&mut self) {
        let _ = try_docker(["image", "rm", "--force", &self.0]);
    }
}

/// A container, running or not.
pub struct Container {
    pub name: String,
}

impl Container {
    /// `docker run --detach` with these arguments. This function chooses the name.
    pub fn run<S: AsRef<OsStr>>(what: &str, args: &[S]) -> Self {
        Self::made(&["run", "--detach"], what, args)
    }

    pub fn create<S: AsRef<OsStr>>(what: &str, args: &[S]) -> Self {
        Self::made(&["create"], what, args)
    }

    fn made<S: AsRef<OsStr>>(verb: &[&str], what: &str, args: &[S]) -> Self {
        let container = Self { name: unique(what) };
        let mut command = Command::new("docker");
        command.args(verb).args(["--name", &container.name]).args(args);
        output(&mut command).unwrap_or_else(|error| panic!("{error}"));
        container
    }

    pub fn inspect(&self, template: &str) -> String {
        docker(["inspect", "--format", template, &self.name])
    }

    /// The first twelve digits of the ID, as Docker shows them and tags carry them.
    pub fn id(&self) -> String {
        self.inspect("{{.Id}}")[..12].to_owned()
    }

    /// The output of the container, both streams.
    pub fn logs(&self) -> String {
        let logs = Command::new("docker").args(["logs", &self.name]).stdin(Stdio::null()).output().expect("docker");
        format!("{}{}", String::from_utf8_lossy(&logs.stdout), String::from_utf8_lossy(&logs.stderr))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = try_docker(["rm", "--force", "--volumes", &self.name]);
    }
}

/// A bridge network of Docker's.
pub struct Network(pub String);

impl Network {
    pub fn new(what: &str) -> Self {
        let network = Self(unique(what));
        docker(["network", "create", &network.0]);
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = try_docker(["network", "rm", &self.0]);
    }
}

/// A named volume.
pub struct Volume(pub String);

impl Volume {
    pub fn new(what: &str) -> Self {
        Self(docker(["volume", "create", &unique(what)]))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = try_docker(["volume", "rm", "--force", &self.0]);
    }
}
