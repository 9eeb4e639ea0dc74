//! `logferry probe`: its report about a chain that works, and about a broken chain. The chains are real.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::collector::LOCAL;
use crate::support::program::SIGINT;
use crate::support::relay::logferry;
use crate::support::rsyslog::{self, Input};
use crate::support::{Certs, Collector, Door, Framing, Held, Program, Relay, Setup, eventually, root_can};

pub fn url(door: &Door) -> String {
    match door {
        Door::Udp(at) => format!("udp://{at}"),
        Door::Tcp(at) => format!("tcp://{at}"),
        Door::Tls(at) => format!("tcp+tls://{at}"),
        Door::Relp(at) | Door::RelpTls(at) => format!("relp://{at}"),
        Door::Unix(path) => format!("unix://{}", path.display()),
        Door::Unixgram(path) => format!("unixgram://{}", path.display()),
    }
}

fn file(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn probe(from: &Door, at: &str, count: u32) -> Command {
    let mut command = logferry();
    command.args(["probe", "--json", "--from", &url(from), "--at", at, "--count", &count.to_string()]);
    command
}

/// The exit code and the report of a probe.
#[track_caller]
pub fn outcome(probe: &mut Program) -> (Option<i32>, Value) {
    let status = probe.ends();
    let report = eventually("its report is read", || serde_json::from_slice(&probe.stdout()).ok());
    (status.code(), report)
}

#[track_caller]
pub fn has_passed(probe: &mut Program, count: u32) -> Value {
    let (code, report) = outcome(probe);
    assert_eq!(code, Some(0), "{report}");
    for (key, value) in [("sent", count), ("arrived", count), ("lost", 0), ("refused", 0), ("too_early", 0)] {
        assert_eq!(report[key], value, "{key}: {report}");
    }
    let latency = |key: &str| report["latency_ms"][key].as_f64().expect("a number");
    assert!(latency("p50") <= latency("p99") && latency("p99") <= latency("max") && latency("max") > 0.0, "{report}");
    report
}

/// Every input for containers, one by one, with the probe as the collector.
#[test]
fn a_chain_that_works_passes_by_every_way_in() {
    let port = Held::new(false, &[LOCAL]);
    let at = format!("tcp://127.0.0.1:{}", port.port());
    let certs = Certs::get();
    let (cert, key) = (certs.path("server.pem"), certs.path("server-key.pem"));
    let relay = Setup::new()
        .listen("udp://127.0.0.1:0")
        .listen("tcp://127.0.0.1:0")
        .listen_with("tcp+tls://127.0.0.1:0", &format!("cert = \"{cert}\"\nkey = \"{key}\""))
        .listen("unix://{dir}/stream.sock")
        .listen("unixgram://{dir}/datagrams.sock")
        .forward_with(&at, "framing = \"octet-counting\"")
        .start();
    for door in relay.doors() {
        let mut probe = Program::start(probe(door, &at, 200).args(["--ca", &certs.path("ca.pem"), "--rate", "2000"]));
        let report = has_passed(&mut probe, 200);
        assert_eq!(report["out_of_order"], 0, "{report}");
    }
    let shapes = relay.metrics();
    assert_eq!(shapes.with("syslog_messages_total", "docker"), 1000, "as a container's: {shapes:?}");
    relay.stops();
}

/// Messages as Docker's `fluentd` and `gelf` drivers send them, with their names for the container.
#[test]
fn a_chain_that_works_passes_by_the_ways_of_other_drivers() {
    let port = Held::new(false, &[LOCAL]);
    let at = format!("tcp://127.0.0.1:{}", port.port());
    let certs = Certs::get();
    let keys = certs.listen();
    let schemes = ["fluent", "fluent+tls", "fluent+unix", "gelf+udp", "gelf+tcp", "gelf+tls"];
    let mut setup = Setup::new();
    for scheme in schemes {
        setup = match scheme {
            "fluent+unix" => setup.listen("fluent+unix://{dir}/fluent.sock"),
            _ if scheme.ends_with("tls") => setup.listen_with(&format!("{scheme}://127.0.0.1:0"), &keys),
            _ => setup.listen(&format!("{scheme}://127.0.0.1:0")),
        };
    }
    let setup = setup
        .forward_with("file://{dir}/{name}.log", "name = \"files\"")
        .forward_with(&at, "framing = \"octet-counting\"\nname = \"probe\"");
    let arrived = setup.path("logferry-probe.log");
    let relay = setup.start();
    for (scheme, door) in schemes.iter().zip(relay.doors()) {
        let from = match door {
            Door::Unix(path) => format!("fluent+unix://{}", path.display()),
            // By UDP the probe would not notice that `localhost` resolves to another address first.
            Door::Udp(at) => format!("{scheme}://{at}"),
            door => format!("{scheme}://localhost:{}", door.port()),
        };
        let mut command = logferry();
        command.args(["probe", "--json", "--from", &from, "--at", &at, "--count", "200", "--rate", "2000"]);
        let mut probe = Program::start(command.args(["--ca", &certs.path("ca.pem")]));
        let report = has_passed(&mut probe, 200);
        assert_eq!(report["out_of_order"], 0, "{scheme}: {report}");
    }
    relay.stops();
    let written = fs::read_to_string(arrived).expect("a file by the container's name");
    assert_eq!(written.lines().count(), 200 * schemes.len());
    let said = |driver: &str| written.lines().filter(|line| line.contains(&format!(" driver=\"{driver}\""))).count();
    assert_eq!((said("fluent"), said("gelf")), (600, 600));
}

#[test]
fn datagrams_are_collected_too() {
    let port = Held::new(true, &[LOCAL]);
    let at = format!("udp://127.0.0.1:{}", port.port());
    let relay = Setup::new().listen("udp://127.0.0.1:0").forward(&at).start();
    has_passed(&mut Program::start(&mut probe(relay.door(), &at, 200)), 200);
}

/// The probe finds messages in every format of a collector's file.
#[test]
fn a_file_of_any_format_will_do() {
    for format in ["rfc5424", "rfc3164", "json"] {
        let setup = Setup::new().listen("tcp://127.0.0.1:0");
        let setup = setup.forward_with("file://{dir}/arrived", &format!("format = \"{format}\""));
        let relay = setup.start();
        let arrived = setup.path("arrived");
        // The first probe starts without a file, the second with the first probe's file.
        for count in [50, 60] {
            has_passed(&mut Program::start(&mut probe(relay.door(), &file(&arrived), count)), count);
        }
        relay.stops();
    }
}

/// The file is renamed while the probe reads it: the relay continues in a new file within a second.
#[test]
fn a_file_that_is_rotated_will_do() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward("file://{dir}/arrived");
    let relay = setup.start();
    let arrived = setup.path("arrived");
    let mut probe = Program::start(probe(relay.door(), &file(&arrived), 1500).args(["--rate", "500/s"]));
    relay.has_spooled_at_least(300);
    fs::rename(&arrived, setup.path("rotated")).expect("renamed");
    has_passed(&mut probe, 1500);
    assert!(arrived.exists(), "it was made again");
    relay.stops();
}

trait HasSpooled {
    fn has_spooled_at_least(&self, lines: u64);
}

impl HasSpooled for Relay {
    #[track_caller]
    fn has_spooled_at_least(&self, lines: u64) {
        let spooled = || self.metrics().sum("spool_spooled_total");
        eventually(&format!("{lines} lines are spooled"), || (spooled() >= lines).then_some(()));
    }
}

#[test]
fn a_file_of_rsyslog_will_do() {
    let Some(program) = rsyslog::find(Input::Tcp) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let port = Held::new(false, &[LOCAL]);
    let conf = rsyslog::conf(Input::Tcp, SocketAddr::new(LOCAL, port.port()), dir.path(), &[]);
    fs::write(dir.path().join("conf"), conf).expect("written");
    let _rsyslog = Program::start(&mut rsyslog::command(&program, dir.path()));
    let to = format!("tcp://127.0.0.1:{}", port.port());
    let relay = Setup::new().listen("udp://127.0.0.1:0").forward_with(&to, "framing = \"octet-counting\"").start();
    has_passed(&mut Program::start(&mut probe(relay.door(), &file(&dir.path().join(rsyslog::ARRIVED)), 500)), 500);
    relay.stops();
}

#[test]
fn what_waits_for_a_collector_that_is_away_is_named() {
    let collector = Collector::tcp_away(Framing::Newline);
    let setup = Setup::new().listen("udp://127.0.0.1:0").forward(&collector.url());
    let relay = setup.start();
    let nothing = setup.path("nothing");
    let (door, at) = (url(relay.door()), file(&nothing));
    let mut command = logferry();
    let command = command.args(["probe", "--from", &door, "--at", &at, "--count", "30", "--wait", "100ms"]);
    let mut probe = Program::start(command);
    assert_eq!(probe.ends().code(), Some(1));
    eventually("it says so", || probe.stderr().contains("probe: 30 of 30 messages were lost").then_some(()));
    // A thread reads the probe's output meanwhile.
    let table = || String::from_utf8(probe.stdout()).expect("text");
    let table = eventually("the table", || Some(table()).filter(|table| table.contains("\nlost        30: 1-30\n")));
    let metrics = ["listen_kernel_drops_total", "spool_dropped_total", "forward_pending"];
    for name in metrics {
        assert!(table.contains(&format!("logferry_{name} ")), "{table}");
        relay.metrics().sum(name);
    }
}

#[test]
fn a_relay_that_dies_in_the_middle_fails() {
    let port = Held::new(false, &[LOCAL]);
    let at = format!("tcp://127.0.0.1:{}", port.port());
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward(&at).start();
    let mut probe = Program::start(probe(relay.door(), &at, 1000).args(["--rate", "500", "--wait", "100ms"]));
    relay.has_spooled_at_least(100);
    relay.kill();
    let (code, report) = outcome(&mut probe);
    assert_eq!((code, &report["sent"]), (Some(1), &1000.into()), "{report}");
    let (arrived, lost) = (report["arrived"].as_u64().expect("a number"), report["lost"].as_u64().expect("a number"));
    assert!(arrived > 0 && lost > 0 && arrived + lost == 1000, "{report}");
    let last = report["missing"].as_array().and_then(|runs| runs.last()).expect("a run");
    assert_eq!(last[1], 1000, "{report}");
    assert!(report["refused"].as_u64().is_some_and(|refused| refused > 0 && refused <= lost), "{report}");
    assert!(report["refused_why"].is_string(), "{report}");
}

/// A connection breaks, and lines without a certain acknowledgement are sent again.
#[test]
fn what_comes_twice_is_counted_and_no_failure() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let setup = setup.forward_with(&collector.url(), "framing = \"octet-counting\"");
    let relay = setup.start();
    let arrived = setup.path("arrived");
    let mut written = OpenOptions::new().create(true).append(true).open(&arrived).expect("a file");
    let mut probe = Program::start(probe(relay.door(), &file(&arrived), 800).args(["--rate", "800"]));
    let (mut lines, mut is_cut) = (0, false);
    let status = eventually("the probe has ended", || {
        let frames = collector.frames(0);
        frames[lines..].iter().for_each(|frame| written.write_all(&[frame, &b"\n"[..]].concat()).expect("written"));
        lines = frames.len();
        if lines >= 200 && !is_cut {
            collector.hangs_up();
            is_cut = true;
        }
        probe.has_ended()
    });
    let report: Value = eventually("its report is read", || serde_json::from_slice(&probe.stdout()).ok());
    assert_eq!((status.code(), &report["lost"]), (Some(0), &0.into()), "{report}");
    let twice = report["duplicates"].as_u64().expect("a number");
    assert!(twice > 0 && twice <= lines as u64 - 800, "{lines} lines: {report}");
}

#[test]
fn who_interrupts_it_is_told_what_is_known() {
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward("file://{dir}/arrived");
    let relay = setup.start();
    let mut probe = Program::start(probe(relay.door(), &file(&setup.path("arrived")), 100_000).args(["--rate", "100"]));
    relay.has_spooled_at_least(20);
    probe.signal(SIGINT);
    let (code, report) = outcome(&mut probe);
    assert_eq!((code, &report["interrupted"]), (Some(1), &true.into()), "{report}");
    let number = |key: &str| report[key].as_u64().expect("a number");
    assert!(number("arrived") > 0 && number("sent") >= 20 && number("sent") < 100_000, "{report}");
}

#[test]
fn what_makes_no_sense_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = file(dir.path());
    for (from, at, more, code, says) in [
        ("udp://127.0.0.1", "relp://127.0.0.1:1", "--json", 64, "the probe itself listens on tcp:// and udp://"),
        ("relp://127.0.0.1", "tcp://127.0.0.1:0", "--json", 64, "a container sends by udp://"),
        ("splunk+http://127.0.0.1", "tcp://127.0.0.1:0", "--json", 64, "the probe does not speak Splunk"),
        ("journal+http://127.0.0.1", "tcp://127.0.0.1:0", "--json", 64, "the probe does not speak the journal"),
        ("127.0.0.1", "tcp://127.0.0.1:0", "--json", 64, "--from: `127.0.0.1` is no address"),
        ("udp://127.0.0.1", "nowhere:1", "--json", 64, "--at: `nowhere:1` is no address"),
        ("udp://127.0.0.1", "tcp://127.0.0.1:0", "--count=0", 64, "--count between 1 and 10000000"),
        ("udp://127.0.0.1", "tcp://127.0.0.1:0", "--rate=fast", 64, "write 1000/s"),
        ("udp://127.0.0.1", "tcp://192.0.2.1:5514", "--json", 78, "cannot listen on tcp://192.0.2.1:5514"),
        ("udp://127.0.0.1", &directory, "--json", 78, "it is a directory"),
    ] {
        let output = logferry().args(["probe", "--from", from, "--at", at, more]).output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.contains(says), "{said}");
    }
    if !root_can("run a command as somebody else") {
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("others may get there");
    let secret = dir.path().join("central.log");
    fs::write(&secret, "").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("and no further");
    let mut command = logferry();
    command.args(["probe", "--from", "udp://127.0.0.1", "--at", &file(&secret)]).uid(65_534).gid(65_534);
    let output = command.output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(78));
    assert!(said.contains("Permission denied") && said.contains("as the user that may, or as root"), "{said}");
}
