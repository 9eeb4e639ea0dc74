//! A `file://` forward that cannot write: a single path, the disk, or everything.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::private::after;
use crate::support::disk::Disk;
use crate::support::program::SIGHUP;
use crate::support::{Relay, Setup, Wire, as_nobody, eventually};

fn logs(template: &str) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward(&format!("file://{{dir}}/logs/{template}"))
}

/// Sends a message with this host, and the host as its text.
fn says(wire: &mut Wire, host: &str) {
    wire.send_counted(format!("<30>1 2026-11-20T22:27:31Z {host} web 1 - - {host}").as_bytes());
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.rsplit(' ').next().map(str::to_owned)).collect()
}

fn times_said(relay: &Relay, text: &str) -> usize {
    relay.stderr().matches(text).count()
}

/// The relay's command as a user who is not root.
fn as_somebody(setup: &Setup) -> Command {
    let command = setup.command();
    if !nix::unistd::geteuid().is_root() {
        return command;
    }
    let mut nobody = as_nobody(setup.dir()).expect("root can");
    fs::set_permissions(setup.dir().path(), fs::Permissions::from_mode(0o777)).expect("ours");
    fs::set_permissions(setup.path("logs"), fs::Permissions::from_mode(0o777)).expect("ours");
    nobody.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    nobody
}

/// As on every ext4: a directory of root (`lost+found`), and a host with that name.
#[test]
fn a_directory_that_is_not_ours_stops_nobody() {
    let setup = logs("{host}/{app}.log");
    let closed = setup.path("logs/lost+found");
    fs::create_dir_all(&closed).expect("made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("ours");
    let relay = setup.start_with(&mut as_somebody(&setup));
    let mut wire = relay.door().connect();
    for n in 0..4 {
        says(&mut wire, "lost+found");
        says(&mut wire, &format!("n{n}"));
        relay.counts("forward_delivered_total", 2 * n + 2);
    }
    relay.has_delivered(8, 0);
    (0..4).for_each(|n| assert_eq!(lines(&setup.path(&format!("logs/n{n}/web.log"))), [format!("n{n}")]));
    assert_eq!(lines(&setup.path("logs/_others/_others.log")), ["lost+found"; 4]);
    relay.counts("forward_diverted_total", 4);
    relay.fails_because("lost+found/web.log: Permission denied");
    assert_eq!(times_said(&relay, "lost+found"), 1, "{}", relay.stderr());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).expect("ours");
    relay.stops();
}

/// More files than the process may have descriptors.
#[test]
fn more_files_than_descriptors_are_written_all_the_same() {
    let setup = logs("{host}.log");
    let relay = setup.start_with(&mut after("ulimit -n 100", &setup.command()));
    let mut wire = relay.door().connect();
    (0..600).for_each(|n| says(&mut wire, &format!("n{}", n % 300)));
    relay.has_delivered(600, 0);
    (0..300)
        .for_each(|n| assert_eq!(lines(&setup.path(&format!("logs/n{n}.log"))), [format!("n{n}"), format!("n{n}")]));
    assert_eq!(relay.metrics().sum("forward_diverted_total"), 0);
    assert_eq!(times_said(&relay, "max-open-files = 256 is more than the process may have: 25 are used"), 1);
    relay.stops();
}

#[test]
fn a_full_disk_of_one_directory_stops_nobody() {
    let setup = logs("{host}/{app}.log");
    let Some(disk) = Disk::mount(&setup.path("logs/full"), "64k") else { return };
    fs::create_dir_all(setup.path("logs/full")).expect("made");
    let room = disk.fill();
    let relay = setup.start();
    let mut wire = relay.door().connect();
    ["full", "n1", "full", "n2"].iter().for_each(|host| says(&mut wire, host));
    relay.has_delivered(4, 0);
    assert_eq!(lines(&setup.path("logs/_others/_others.log")), ["full", "full"]);
    assert_eq!(
        (lines(&setup.path("logs/n1/web.log")), lines(&setup.path("logs/n2/web.log"))),
        (vec!["n1".into()], vec!["n2".into()])
    );
    relay.fails_because("full/web.log: No space left on device");
    fs::remove_file(room).expect("it is there");
    relay.stops();
}

/// A full disk causes neither loss nor duplicates.
#[test]
fn a_full_disk_of_all_is_waited_for() {
    let setup = logs("{host}/{app}.log");
    let Some(disk) = Disk::mount(&setup.path("logs"), "64k") else { return };
    let room = disk.fill();
    let relay = setup.start();
    let mut wire = relay.door().connect();
    let hosts: Vec<String> = (0..9).map(|n| format!("n{n}")).collect();
    hosts.iter().for_each(|host| says(&mut wire, host));
    relay.says("No space left on device");
    assert_eq!(relay.metrics().sum("forward_delivered_total"), 0);
    fs::remove_file(room).expect("it is there");
    relay.has_delivered(9, 0);
    let metrics = relay.metrics();
    assert_eq!((metrics.sum("forward_diverted_total"), metrics.sum("forward_rejected_total")), (0, 0));
    hosts
        .iter()
        .for_each(|host| assert_eq!(lines(&setup.path(&format!("logs/{host}/web.log"))), std::slice::from_ref(host)));
    relay.stops();
}

/// A pipe as the fixed path for all lines: the relay waits for a reader and reports it. A stop does not wait.
#[test]
fn a_pipe_is_waited_for_and_told_of() {
    let setup = logs("pipe").top("grace = \"1s\"");
    fs::create_dir(setup.path("logs")).expect("made");
    mkfifo(&setup.path("logs/pipe"), Mode::S_IRWXU).expect("a pipe");
    let relay = setup.start();
    let mut wire = relay.door().connect();
    says(&mut wire, "n1");
    relay.fails_because("logs/pipe: No such device or address");
    let path = setup.path("logs/pipe");
    let reader = std::thread::spawn(move || fs::File::open(path).expect("a reader"));
    relay.has_delivered(1, 0);
    let pipe = reader.join().expect("it is opened");
    // The pipe has no reader any more, and this is more than it holds.
    (0..4_000).for_each(|_| says(&mut wire, "n2"));
    relay.has_spooled(4_001);
    relay.stops();
    drop(pipe);
}

#[test]
fn a_file_of_the_others_that_cannot_be_written_is_waited_for() {
    let setup = logs("{host}/{app}.log");
    for path in ["logs/n1/web.log", "logs/_others/_others.log"] {
        fs::create_dir_all(setup.path(path)).expect("made");
    }
    let relay = setup.start();
    let mut wire = relay.door().connect();
    says(&mut wire, "n1");
    relay.fails_because("_others/_others.log: Is a directory");
    relay.counts("forward_delivered_total", 0);
    fs::remove_dir(setup.path("logs/_others/_others.log")).expect("it is empty");
    relay.has_delivered(1, 0);
    eventually("the line is there", || (lines(&setup.path("logs/_others/_others.log")) == ["n1"]).then_some(()));
    relay.stops();
}

/// A reload changes the forward while its pipe is full: the old forward must not write its pending line after the new one's lines.
#[test]
fn a_reload_leaves_nobody_behind_who_writes() {
    let setup = |backoff: &str| {
        let forward = format!("[[forward]]\nto = \"file://{{dir}}/logs/pipe\"\nmax-backoff = \"{backoff}\"");
        Setup::new().listen("tcp://127.0.0.1:0").section(&forward)
    };
    let old = setup("1s");
    fs::create_dir(old.path("logs")).expect("made");
    mkfifo(&old.path("logs/pipe"), Mode::S_IRWXU).expect("a pipe");
    let mut pipe = fs::OpenOptions::new().read(true).write(true).open(old.path("logs/pipe")).expect("a pipe");
    let relay = old.start();
    let mut wire = relay.door().connect();
    (0..4_000).for_each(|number| says(&mut wire, &format!("n{number:05}")));
    relay.has_spooled(4_000);
    relay.says("writing takes longer than 5 s");
    let before = relay.metrics().sum("config_reloads_total");
    let new = setup("2s");
    new.replaces(&old);
    relay.signal(SIGHUP);
    eventually("a reload", || (relay.metrics().sum("config_reloads_total") > before).then_some(()));
    let mut read = BufReader::new(&mut pipe).lines().map(|line| line.expect("text"));
    let (mut last, mut restarts) = (None, 0);
    for line in &mut read {
        assert_eq!(line.matches("<30>").count(), 1, "half a line stays in the pipe: {line}");
        let number: usize =
            line.rsplit(" n").next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let is_next = last.is_none_or(|last| number == last + 1);
        restarts += usize::from(!is_next);
        assert!(is_next || number == 0 || restarts == 1, "{number} behind {last:?}");
        last = Some(number);
        if number == 3_999 {
            break;
        }
    }
    assert!(restarts <= 1, "{restarts}");
    drop(read);
    relay.has_delivered(4_000, 0);
    relay.stops();
}
