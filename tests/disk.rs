//! The disk is full, read-only, not ours, gone. The relay goes on, says so, and counts what it could not keep.

mod support;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Collector, Framing, Program, Relay, Setup, eventually, says_at_length, skipped};

/// What a user gets who is nobody in particular.
const NOBODY: u32 = 65_534;

/// A file system of its own below a setup's directory.
struct Disk(PathBuf);

impl Disk {
    /// `None`: this takes root, and the test said that it was skipped.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped("only root can mount a small disk");
            return None;
        }
        fs::create_dir_all(at).expect("a place to mount at");
        let disk = Self(at.to_owned());
        disk.run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at));
        Some(disk)
    }

    fn becomes_read_only(&self) {
        self.run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0));
    }

    /// Fills it to the last byte with something that is not ours; returns what gives the room back.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("somebody-else");
        let mut file = fs::File::create(&path).expect("a file");
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        path
    }

    #[track_caller]
    fn run(&self, command: &mut Command) {
        let status = command.status().expect("mount and umount are everywhere");
        assert!(status.success(), "{command:?}: {status}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a relay of a test that failed may still be at it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn setup(collector: &Collector) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), "framing = \"octet-counting\"")
}

/// Numbers in messages of about a kilobyte.
fn says(relay: &Relay, numbers: Range<usize>) {
    says_at_length(relay, numbers, 1000);
}

/// Waits until so many were read off the socket and each was spooled or dropped.
#[track_caller]
fn has_received(relay: &Relay, messages: usize) {
    eventually("all is spooled or dropped", || {
        let metrics = relay.metrics();
        let settled = metrics.sum("spool_spooled_total") + metrics.sum("spool_dropped_total");
        (settled == messages as u64).then(|| metrics.balance(0))
    });
}

/// The disk is smaller than the spool may be: what does not fit costs the oldest lines, and nothing but lines.
#[test]
fn a_disk_that_is_full_costs_the_oldest_lines() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector).variable("LOGFERRY_SPOOL_MAX_SIZE", "4MiB");
    let Some(_disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    let relay = setup.start();
    says(&relay, 0..4000);
    has_received(&relay, 4000);
    assert!(relay.metrics().sum("forward_evicted_total") > 500);
    assert!(relay.metrics().sum("spool_bytes") <= 2 << 20);
    collector.comes();
    relay.counts("forward_waiting", 0);
    let got = collector.numbers();
    assert!(got.len() > 500 && got.is_sorted() && got.last() == Some(&3999), "{} lines", got.len());
    relay.metrics().balance(0);
    says(&relay, 4000..5000);
    eventually("and it goes on", || (collector.numbers().last() == Some(&4999)).then_some(()));
    relay.stops();
}

/// With one segment only there is nothing older to give up: new lines are dropped, counted and said, until it is delivered.
#[test]
fn a_disk_that_is_full_of_one_segment_takes_lines_again_when_it_is_delivered() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(_disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    let relay = setup.start();
    says(&relay, 0..4000);
    has_received(&relay, 4000);
    relay.says("the disk does not take lines");
    let spooled = relay.metrics().sum("spool_spooled_total") as usize;
    assert!(relay.metrics().with("spool_dropped_total", "reason=\"error\"") > 500);
    collector.comes();
    relay.counts("forward_waiting", 0);
    assert_eq!(collector.numbers().len(), spooled);
    // Lines that come before what is left is delivered may still find no room.
    let mut sent = 4000;
    eventually("and it goes on", || {
        says(&relay, sent..sent + 400);
        sent += 400;
        has_received(&relay, sent);
        relay.counts("forward_waiting", 0);
        (relay.metrics().sum("spool_spooled_total") as usize > spooled + 400).then_some(())
    });
    assert!(collector.numbers().is_sorted());
    relay.metrics().balance(0);
    relay.stops();
}

/// A limit for files (`ulimit -f`) is an error like others; without a word from us it would be the end of the process.
#[test]
fn a_limit_for_files_costs_lines_and_not_the_relay() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let command = setup.command();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 1024; exec \"$0\""]).arg(command.get_program()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let relay = setup.start_with(&mut limited);
    // More than 1024 blocks of 512 or 1024 bytes.
    says(&relay, 0..3000);
    has_received(&relay, 3000);
    assert!(relay.metrics().sum("spool_errors_total") > 0);
    collector.comes();
    relay.counts("forward_waiting", 0);
    let got = collector.numbers();
    assert!(got.len() > 100 && got.is_sorted(), "{} lines", got.len());
    relay.metrics().balance(0);
    says(&relay, 3000..3001);
    eventually("and it goes on", || (collector.numbers().last() == Some(&3000)).then_some(()));
    relay.stops();
}

/// Somebody else has filled the disk before we start; it must not keep the relay from starting.
#[test]
fn a_relay_starts_on_a_full_disk_and_delivers_what_it_had() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    let relay = setup.start();
    says(&relay, 0..500);
    relay.has_spooled(500);
    relay.kill();
    let other = disk.fill();
    collector.comes();
    let relay = setup.start();
    relay.has_delivered(0, 500);
    says(&relay, 500..600);
    eventually("new lines are dropped and counted", || {
        (relay.metrics().with("spool_dropped_total", "reason=\"error\"") == 100).then_some(())
    });
    relay.says("the disk does not take lines");
    fs::remove_file(other).expect("there is room again");
    says(&relay, 600..700);
    relay.has_spooled(100);
    collector.frames(600);
    assert!(collector.numbers().into_iter().eq((0..500).chain(600..700)));
    relay.stops();
}

/// Damage is repaired with what room there is: without any, what is behind it is read where it lies.
#[test]
fn damage_on_a_full_disk_costs_the_line_it_hit() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    let relay = setup.start();
    says(&relay, 0..500);
    relay.has_spooled(500);
    relay.kill();
    let files = fs::read_dir(setup.path("spool")).expect("a spool").map(|entry| entry.expect("an entry").path());
    let segment = files.filter(|path| path.extension().is_some_and(|end| end == "seg")).max().expect("a segment");
    let mut bytes = fs::read(&segment).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).expect("written");
    disk.fill();
    collector.comes();
    let relay = setup.start();
    relay.says("no room to move lines out of a damaged segment");
    relay.counts("forward_damaged_total", 1);
    relay.counts("forward_delivered_total", 499);
    assert!(collector.numbers().is_sorted());
    relay.metrics().balance(500);
    relay.stops();
}

#[test]
fn a_spool_on_a_read_only_disk_is_one_clear_line() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    disk.becomes_read_only();
    let mut relay = Program::start(&mut setup.command());
    assert_eq!(relay.ends().code(), Some(78));
    let said = eventually("it says why", || relay.stderr().lines().last().map(str::to_owned));
    let lock = setup.path("spool").join("lock");
    assert_eq!(said, format!("logferry: spool: cannot open {}: Read-only file system (os error 30)", lock.display()));
}

/// A volume made by root, and a relay that runs as somebody else.
#[test]
fn a_spool_that_belongs_to_somebody_else_is_one_clear_line() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can start a relay as somebody else");
    }
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let mut command = setup.command();
    for path in [setup.path(""), setup.path("logferry.toml")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("others may read it");
    }
    let mut relay = Program::start(command.uid(NOBODY));
    assert_eq!(relay.ends().code(), Some(78));
    let said = eventually("it says why", || relay.stderr().lines().last().map(str::to_owned));
    let spool = setup.path("spool");
    assert_eq!(
        said,
        format!(
            "logferry: spool: cannot create {}: Permission denied (os error 13); it must belong to uid {NOBODY} \
             (chown -R {NOBODY} DIRECTORY)",
            spool.display()
        )
    );
}

/// Somebody has removed the directory under a relay at work: it goes on with what it has open, and makes it again.
#[test]
fn a_spool_that_vanishes_keeps_no_line_from_being_delivered() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector).variable("LOGFERRY_SPOOL_MAX_SIZE", "1MiB");
    let relay = setup.start();
    says(&relay, 0..50);
    relay.has_delivered(50, 0);
    fs::remove_dir_all(setup.path("spool")).expect("removed");
    // In pieces that fit into the spool: what was in the directory when it went is not what this is about.
    for start in (50..2050).step_by(400) {
        says(&relay, start..start + 400);
        relay.has_delivered(start + 400, 0);
    }
    relay.says("the directory was gone and is made again");
    assert!(collector.numbers().into_iter().eq(0..2050));
    assert!(setup.path("spool").is_dir());
    relay.stops();
}
