//! A relay: its config, its process, its counters.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use tempfile::TempDir;

use super::http::status;
use super::program::{Program, SIGTERM};
use super::{Descriptors, Door, PATIENCE, Process, docker, eventually, within};

/// The file in a setup's directory to which the relay writes its admin address.
const ADMIN: &str = "admin";

/// A directory with a config and a spool, in which a relay can be started repeatedly. `{dir}` in config text stands for that directory.
pub struct Setup {
    dir: Arc<TempDir>,
    top: String,
    spool: String,
    sections: String,
    listeners: usize,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// A config without listeners and forwards, with a spool and an admin port.
    pub fn new() -> Self {
        let dir = Arc::new(TempDir::new().expect("a directory"));
        let top = format!("hostname = \"{}\"\n", docker::RELAY);
        let spool = "[spool]\ndir = \"{dir}/spool\"\n".to_owned();
        let sections = format!("[admin]\nlisten = \"127.0.0.1:0\"\naddress-file = \"{{dir}}/{ADMIN}\"\n");
        Self { dir, top, spool, sections, listeners: 0, variables: Vec::new() }
    }

    /// Keys outside all sections.
    pub fn top(mut self, keys: &str) -> Self {
        self.top += &format!("{keys}\n");
        self
    }

    /// Keys of `[spool]`, which already has its `dir`.
    pub fn spool(mut self, keys: &str) -> Self {
        self.spool += &format!("{keys}\n");
        self
    }

    /// Keys of `[admin]`, which already has an address. Call this before you add any other section.
    pub fn admin(self, keys: &str) -> Self {
        self.section(keys)
    }

    pub fn section(mut self, toml: &str) -> Self {
        self.sections += &format!("{toml}\n");
        self
    }

    pub fn listen(self, url: &str) -> Self {
        self.listen_with(url, "")
    }

    pub fn listen_with(mut self, url: &str, keys: &str) -> Self {
        self.listeners += 1;
        self.section(&format!("[[listen]]\naddress = \"{url}\"\n{keys}"))
    }

    pub fn forward(self, to: &str) -> Self {
        self.forward_with(to, "")
    }

    pub fn forward_with(self, to: &str, keys: &str) -> Self {
        let quick = "max-backoff = \"200ms\"\nreplay-for = \"1s\"";
        self.section(&format!("[[forward]]\nto = \"{to}\"\n{quick}\n{keys}"))
    }

    /// A forward with several targets: the first target that accepts lines gets them. It has only these `keys`.
    pub fn forward_in_order(self, to: &[String], keys: &str) -> Self {
        let to: Vec<String> = to.iter().map(|target| format!("\"{target}\"")).collect();
        self.section(&format!("[[forward]]\nto = [{}]\n{keys}", to.join(", ")))
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The spool's segment files, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        segments(&self.path("spool"))
    }

    pub fn dir(&self) -> &Arc<TempDir> {
        &self.dir
    }

    /// `logferry`, with the config file written and its path in an environment variable.
    pub fn command(&self) -> Command {
        self.replaces(self);
        let mut command = logferry();
        command.env("LOGFERRY_CONFIG", self.path("logferry.toml"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Writes this config over the file that the relay of `old` reloads.
    pub fn replaces(&self, old: &Setup) {
        let dir = old.dir.path().to_str().expect("a path in UTF-8");
        let text = format!("{}{}{}", self.top, self.spool, self.sections).replace("{dir}", dir);
        std::fs::write(old.path("logferry.toml"), text).expect("the config is written");
    }

    /// Starts a relay and waits until it listens.
    #[track_caller]
    pub fn start(&self) -> Relay {
        self.start_with(&mut self.command())
    }

    #[track_caller]
    pub fn start_with(&self, command: &mut Command) -> Relay {
        // A killed relay has left its address file behind.
        let _ = std::fs::remove_file(self.path(ADMIN));
        let mut program = Program::start(command);
        let admin = eventually("the relay is up", || {
            if let Some(status) = program.has_ended() {
                panic!("the relay ended at once: {status}");
            }
            std::fs::read_to_string(self.path(ADMIN)).ok()?.trim_end().parse().ok()
        });
        let mut relay = Relay { program, doors: Vec::new(), admin, _dir: self.dir.clone() };
        let now = status(&relay);
        let addresses = now["listeners"].as_array().expect("a list").iter();
        relay.doors = addresses.map(|listener| Door::parse(listener["address"].as_str().expect("a URL"))).collect();
        assert_eq!(relay.doors.len(), self.listeners, "{now}");
        relay
    }
}

/// Segments of the spool in a directory, oldest first.
pub fn segments(spool: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(spool).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut segments: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    segments.sort();
    segments
}

/// `logferry` without the environment variables of the person who runs the tests.
pub fn logferry() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
    command.env_clear();
    command
}

/// A running relay. Dropping it kills it; if the test failed, the relay's output is printed.
pub struct Relay {
    program: Program,
    doors: Vec<Door>,
    admin: SocketAddr,
    /// Keeps the directory with the spool as long as the relay runs, even if its setup is dropped.
    _dir: Arc<TempDir>,
}

impl Relay {
    /// The listeners, in the order of the config.
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// The only listener, or the first listener.
    pub fn door(&self) -> &Door {
        &self.doors[0]
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// The relay's process.
    pub fn process(&self) -> Process {
        Process(self.program.id())
    }

    /// The relay's open descriptors while it is idle.
    #[track_caller]
    pub fn descriptors(&self) -> Descriptors {
        Descriptors::of(self)
    }

    pub fn stdout(&self) -> Vec<u8> {
        self.program.stdout()
    }

    pub fn stderr(&self) -> String {
        self.program.stderr()
    }

    /// Waits until the relay has logged this text.
    #[track_caller]
    pub fn says(&self, text: &str) {
        eventually(&format!("the relay says: {text}"), || self.stderr().contains(text).then_some(()));
    }

    /// How many peers its listeners have refused for this reason.
    pub fn refused(&self, reason: &str) -> i64 {
        self.metrics().with("listen_refused_total", &format!("reason=\"{reason}\""))
    }

    pub fn metrics(&self) -> Metrics {
        let mut stream = TcpStream::connect(self.admin).expect("the admin port accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)
            .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Metrics::read(body)
    }

    /// Waits until a series, summed over its labels, has this value.
    #[track_caller]
    pub fn counts(&self, name: &str, value: u64) {
        eventually(&format!("{name} is {value}"), || {
            let now = self.metrics().sum(name);
            assert!(now <= value || !name.ends_with("_total"), "{name} is {now}, more than {value}");
            (now == value).then_some(())
        });
    }

    /// Waits until a counter, summed over its labels, has at least this value.
    #[track_caller]
    pub fn counts_up_to(&self, name: &str, value: u64) {
        eventually(&format!("{name} is at least {value}"), || (self.metrics().sum(name) >= value).then_some(()));
    }

    /// Waits until `/status` shows this as a forward's last error.
    #[track_caller]
    pub fn fails_because(&self, text: &str) {
        eventually(&format!("a forward fails: {text}"), || {
            let now = status(self);
            let mut forwards = now["forwards"].as_array().expect("a list").iter();
            let is_it = |why: &serde_json::Value| why.as_str().is_some_and(|why| why.contains(text));
            forwards.any(|forward| is_it(&forward["last_error"]["text"])).then_some(())
        });
    }

    /// Waits until the counters balance ([`Metrics::imbalance`]), which is certain only while the relay is idle: a scrape reads counters
    /// one by one, and another thread may change them in between. `before`: lines pending at start.
    #[track_caller]
    pub fn balances(&self, before: u64) {
        let mut why = None;
        let balanced = within(PATIENCE, || {
            why = self.metrics().imbalance(before);
            why.is_none().then_some(())
        });
        assert!(
            balanced.is_some(),
            "waited {PATIENCE:?} in vain, the books do not balance: {}",
            why.unwrap_or_default()
        );
    }

    #[track_caller]
    pub fn has_spooled(&self, lines: usize) {
        self.counts("spool_spooled_total", lines as u64);
    }

    /// Waits until everything is delivered and no line can be sent again, and checks the counters: each of `received` messages was spooled,
    /// and each forward has delivered them and the `before` lines that an earlier relay had left pending.
    #[track_caller]
    pub fn has_delivered(&self, received: usize, before: usize) {
        let due = (received + before) as u64;
        let metrics = eventually(&format!("{due} lines are delivered by each forward"), || {
            let metrics = self.metrics();
            let done = metrics.each_forward("forward_delivered_total").all(|delivered| delivered >= due);
            let done = done && metrics.sum("forward_replayable") == 0;
            (done && metrics.sum("listen_received_total") >= received as u64).then_some(metrics)
        });
        self.balances(before as u64);
        assert_eq!(metrics.sum("listen_received_total"), received as u64);
        assert_eq!(metrics.sum("spool_dropped_total"), 0);
        assert_eq!(metrics.sum("forward_evicted_total") + metrics.sum("forward_damaged_total"), 0);
        assert_eq!(metrics.sum("forward_rejected_total"), 0);
        assert!(metrics.each_forward("forward_delivered_total").all(|delivered| delivered == due));
    }

    pub fn signal(&self, signal: i32) {
        self.program.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.program.kill();
    }

    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        self.program.ends()
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.program.has_ended()
    }

    /// Sends SIGTERM, as `docker stop` does, and expects a clean exit.
    #[track_caller]
    pub fn stops(mut self) -> Stopped {
        self.signal(SIGTERM);
        let status = self.ends();
        assert_eq!(status.code(), Some(0), "{status}");
        Stopped { stdout: self.stdout(), stderr: self.stderr() }
    }
}

/// The complete output of a relay that has ended.
pub struct Stopped {
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// The parsed samples of `/metrics`.
#[derive(Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    labels: String,
    value: i64,
}

impl Metrics {
    fn read(text: &str) -> Self {
        assert!(text.ends_with("# EOF\n"), "cut short: {text}");
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            // The standard process metrics have fractions of a second; whole seconds are enough for tests.
            let name = name.strip_prefix("logferry_").or(name.starts_with("process_").then_some(name));
            let value = value.parse().or_else(|_| value.parse().map(|seconds: f64| seconds as i64));
            let name = name.expect("our own, or every program's").to_owned();
            Sample { name, labels: labels.to_owned(), value: value.expect("a number") }
        });
        Self(samples.collect())
    }

    /// The sum over all labels. A missing series is a mistake in the test.
    #[track_caller]
    pub fn sum(&self, name: &str) -> u64 {
        let of_name: Vec<_> = self.0.iter().filter(|sample| sample.name == name).collect();
        assert!(!of_name.is_empty(), "there is no {name}: {self:?}");
        let sum: i64 = of_name.iter().map(|sample| sample.value).sum();
        u64::try_from(sum).unwrap_or_else(|_| panic!("{name} is {sum}"))
    }

    /// The sum of the series that have this label, for example `shape="docker"`.
    pub fn with(&self, name: &str, label: &str) -> i64 {
        self.0.iter().filter(|sample| sample.name == name && sample.labels.contains(label)).map(|s| s.value).sum()
    }

    /// Refused peers, except HTTP clients: a relay of another test may try the former port of its store.
    #[track_caller]
    pub fn refused(&self) -> i64 {
        self.sum("listen_refused_total") as i64 - self.with("listen_refused_total", "reason=\"http\"")
    }

    /// The values of all forwards; fails if there are none.
    #[track_caller]
    fn each_forward(&self, name: &str) -> impl Iterator<Item = u64> {
        let of_name: Vec<_> = self.0.iter().filter(|sample| sample.name == name).collect();
        assert!(!of_name.is_empty(), "there is no {name}: {self:?}");
        of_name.into_iter().map(|sample| u64::try_from(sample.value).expect("no counter is negative"))
    }

    /// Invariant 6: received = spooled + dropped + joined + held + repeat pending; spooled + pending at start = delivered + filtered +
    /// rejected + evicted + damaged + pending. `None`: the counters balance. `before`: lines pending at start.
    pub fn imbalance(&self, before: u64) -> Option<String> {
        let spooled = self.sum("spool_spooled_total");
        let waits = self.sum("spool_held") + self.sum("listen_repeat_pending");
        let ended = self.sum("spool_dropped_total") + self.sum("syslog_joined_total") + waits;
        if self.sum("listen_received_total") != spooled + ended {
            return Some(format!("{self:?}"));
        }
        let mut forwards: BTreeMap<&str, i64> = BTreeMap::new();
        for sample in &self.0 {
            let counts =
                ["delivered_total", "filtered_total", "rejected_total", "pending", "evicted_total", "damaged_total"];
            if sample.name.strip_prefix("forward_").is_some_and(|count| counts.contains(&count)) {
                *forwards.entry(&sample.labels).or_default() += sample.value;
            }
        }
        let balance = forwards.values().all(|sum| *sum == (spooled + before) as i64);
        (!balance).then(|| format!("{spooled} + {before}: {forwards:?}"))
    }
}
