//! The disk is full, failing, read-only, not writable, gone. The relay continues, reports it, and counts the lines that it could not keep.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use crate::support::disk::{Device, Disk};
use crate::support::http::{get, status};
use crate::support::{
    Collector, Framing, Program, Relay, RelpFrame, RelpPeer, Setup, eventually, relp, root_can, says_at_length,
};

/// The user ID of `nobody`.
const NOBODY: u32 = 65_534;

fn setup(collector: &Collector) -> Setup {
    Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), "framing = \"octet-counting\"")
}

/// Sends numbers in messages of about a kilobyte.
fn says(relay: &Relay, numbers: Range<usize>) {
    says_at_length(relay, numbers, 1000);
}

/// Waits until `messages` messages were received, and each was spooled or dropped.
#[track_caller]
fn has_received(relay: &Relay, messages: usize) {
    eventually("all is spooled or dropped", || {
        let metrics = relay.metrics();
        let settled = metrics.sum("spool_spooled_total") + metrics.sum("spool_dropped_total");
        (settled == messages as u64).then_some(())
    });
    relay.balances(0);
}

/// The disk is smaller than the spool's limit: lines that do not fit evict the oldest lines, and nothing else is lost.
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
    relay.balances(0);
    says(&relay, 4000..5000);
    eventually("and it goes on", || (collector.numbers().last() == Some(&4999)).then_some(()));
    relay.stops();
}

/// With a single segment there is nothing older to evict: new lines are dropped, counted and reported until the segment is delivered.
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
    // Lines may find no room until the rest is delivered.
    let mut sent = 4000;
    eventually("and it goes on", || {
        says(&relay, sent..sent + 400);
        sent += 400;
        has_received(&relay, sent);
        relay.counts("forward_waiting", 0);
        (relay.metrics().sum("spool_spooled_total") as usize > spooled + 400).then_some(())
    });
    assert!(collector.numbers().is_sorted());
    relay.balances(0);
    relay.stops();
}

/// A file size limit (`ulimit -f`) is an error like any other. Without a handler, SIGXFSZ would kill the process.
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
    relay.balances(0);
    says(&relay, 3000..3001);
    eventually("and it goes on", || (collector.numbers().last() == Some(&3000)).then_some(()));
    relay.stops();
}

/// Another program has filled the disk before the relay starts; that must not prevent the start.
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

/// The disk accepts writes, and fails when they are synced. Acknowledged lines are safe.
#[test]
fn a_disk_that_fails_takes_no_line_that_was_answered() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = Setup::new()
        .spool("sync = \"always\"")
        .listen("relp://127.0.0.1:0")
        .forward_with(&collector.url(), "framing = \"octet-counting\"");
    let Some(device) = Device::mount(&setup, "has_journal") else { return };
    let relay = setup.start();
    let mut peer = RelpPeer::opened(relay.door());
    let mut way = peer.stream().try_clone().expect("a descriptor");
    let sending = thread::spawn(move || {
        // The loop ends when the relay is killed. Before that the relay stops reading, because it cannot keep more lines.
        (0..20_000).take_while(|n| way.write_all(&numbered(*n)).is_ok()).count()
    });
    let hearing = thread::spawn(move || std::iter::from_fn(|| peer.frame()).take_while(RelpFrame::is_ok).count());
    relay.says("the disk does not take lines");
    relay.says("Input/output error");
    eventually("it goes on holding what it cannot keep", || (relay.metrics().sum("spool_held") > 0).then_some(()));
    relay.kill();
    let (sent, answered) = (sending.join().expect("sent"), hearing.join().expect("heard"));
    assert!(100 < answered && answered < sent, "{answered} of {sent} were answered");
    device.gets_room();
    collector.comes();
    let relay = setup.start();
    collector.frames(answered);
    relay.counts("forward_waiting", 0);
    let arrived = collector.count();
    assert!(collector.numbers().into_iter().eq(0..arrived));
    relay.has_delivered(0, arrived);
    relay.stops();
}

/// A RELP frame with a number in a message of about a kilobyte.
fn numbered(n: u32) -> Vec<u8> {
    relp::frame(n + 2, "syslog", format!("<14>1 - - - - - - {n:01000}").as_bytes())
}

/// Lines without acknowledgements: the page cache still has what the disk has lost, and the relay delivers it from there.
#[test]
fn a_disk_that_fails_costs_what_it_did_not_take() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector).spool("sync = \"1ms\"");
    let Some(_device) = Device::mount(&setup, "has_journal") else { return };
    let relay = setup.start();
    let refused = |relay: &Relay| relay.metrics().with("spool_dropped_total", "reason=\"error\"") > 0;
    let mut sent = 0;
    while !refused(&relay) {
        assert!(sent < 40_000, "the device has no room for so many");
        let synced = relay.metrics().sum("spool_syncs_total");
        says(&relay, sent..sent + 400);
        sent += 400;
        has_received(&relay, sent);
        // Otherwise the whole room that the file system promises would be written before the first sync.
        eventually("it is synced, or refused", || {
            (relay.metrics().sum("spool_syncs_total") > synced || refused(&relay)).then_some(())
        });
    }
    relay.says("the disk does not take lines");
    let spooled = relay.metrics().sum("spool_spooled_total") as usize;
    collector.comes();
    relay.counts("forward_waiting", 0);
    assert_eq!(collector.numbers(), Vec::from_iter(0..spooled));
    relay.balances(0);
    relay.stops();
}

/// `/ready` tests the disk even when no lines come: it reports that the relay cannot spool.
#[test]
fn a_relay_that_cannot_write_its_spool_is_not_ready() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    let relay = setup.start();
    let ready = || get(&relay, "/ready");
    assert_eq!(ready().status, 200);
    let other = disk.fill();
    let answer = eventually("it is not ready", || Some(ready()).filter(|answer| answer.status == 503));
    assert!(answer.body.contains("No space left on device"), "{}", answer.body);
    let now = status(&relay);
    assert_eq!((&now["ready"], &now["spool"]["writable"]), (&false.into(), &false.into()));
    let page = get(&relay, "/").body;
    assert!(page.contains("Not ready") && page.contains("No space left on device"), "{page}");
    let mut health = setup.command();
    let health = health.args(["health", "--admin", &relay.admin().to_string()]).output().expect("it runs");
    assert_eq!(health.status.code(), Some(1));
    let said = String::from_utf8_lossy(&health.stderr).into_owned();
    assert!(said.contains("503") && said.contains("No space left on device"), "{said}");
    // Repeated checks leave no file behind.
    assert!(!setup.path("spool").join("probe").exists());
    fs::remove_file(other).expect("there is room again");
    eventually("it is ready again", || (ready().status == 200).then_some(()));
    assert_eq!(status(&relay)["spool"]["trouble"], serde_json::Value::Null);
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    relay.stops();
}

/// A full disk with lines that can be evicted is still writable.
#[test]
fn a_relay_that_can_make_room_is_ready() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector).variable("LOGFERRY_SPOOL_MAX_SIZE", "4MiB");
    let Some(disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    let relay = setup.start();
    says(&relay, 0..1200);
    relay.has_spooled(1200);
    assert!(setup.segments().len() > 1);
    disk.fill();
    assert_eq!(get(&relay, "/ready").status, 200);
    says(&relay, 1200..1300);
    relay.has_spooled(1300);
    assert!(relay.metrics().sum("forward_evicted_total") > 0);
    relay.stops();
}

/// The file system becomes read-only while the relay runs.
#[test]
fn a_spool_that_becomes_read_only_is_not_ready() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector).spool("sync = \"1ms\"");
    let Some(_device) = Device::mount(&setup, "has_journal") else { return };
    let relay = setup.start();
    assert_eq!(get(&relay, "/ready").status, 200);
    // More than fits on the real device.
    let mut sent = 0;
    eventually("the disk fails", || {
        says(&relay, sent..sent + 400);
        sent += 400;
        has_received(&relay, sent);
        (get(&relay, "/ready").status == 503).then_some(())
    });
    collector.comes();
    relay.counts("forward_waiting", 0);
    assert_eq!(get(&relay, "/ready").status, 503, "delivering is not spooling");
    relay.stops();
}

/// Bad blocks in the part that the relay reads at its start.
#[test]
fn a_disk_that_cannot_be_read_costs_what_lies_there() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(device) = Device::mount(&setup, "^has_journal") else { return };
    let relay = setup.start();
    says(&relay, 0..2000);
    relay.has_spooled(2000);
    relay.kill();
    device.loses_the_end_of(&setup.segments()[0]);
    collector.comes();
    let relay = setup.start();
    relay.says("cannot be read everywhere");
    says(&relay, 2000..2100);
    relay.counts("forward_waiting", 0);
    let numbers = collector.numbers();
    let (old, new) = numbers.split_at(numbers.len() - 100);
    assert!(old.len() > 900 && old.iter().copied().eq(0..old.len()), "{} lines", old.len());
    assert!(new.iter().copied().eq(2000..2100));
    // The number of lost lines is unknown: they were the newest.
    relay.counts("forward_damaged_total", 1);
    relay.stops();
}

/// Bad blocks in the middle of the lines that are being delivered.
#[test]
fn a_disk_that_cannot_be_read_holds_up_nothing_behind() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector).variable("LOGFERRY_SPOOL_MAX_SIZE", "4MiB");
    let Some(device) = Device::mount(&setup, "^has_journal") else { return };
    let relay = setup.start();
    says(&relay, 0..3000);
    relay.has_spooled(3000);
    relay.kill();
    // Write everything to the disk now, so that the other segments lie before the part that is cut off.
    let all = setup.segments();
    all.iter().for_each(|segment| fs::File::open(segment).and_then(|file| file.sync_all()).expect("it has a place"));
    let oldest = &all[0];
    let copy = oldest.with_extension("copy");
    fs::copy(oldest, &copy).expect("room for another one");
    fs::rename(copy, oldest).expect("renamed");
    device.loses_the_end_of(oldest);
    collector.comes();
    let relay = setup.start();
    relay.says("a part of a segment cannot be read and is skipped");
    relay.counts("forward_waiting", 0);
    let got = collector.numbers();
    let gap = got.windows(2).position(|pair| pair[1] != pair[0] + 1).expect("something is missing");
    let (before, behind) = (got[gap] + 1, got[gap + 1]);
    assert!(before > 50 && got.into_iter().eq((0..before).chain(behind..3000)));
    relay.counts("forward_damaged_total", (behind - before) as u64);
    relay.balances(3000);
    relay.stops();
}

/// The relay repairs damage in the room that is left. Without any room, it reads the lines after the damage in place.
#[test]
fn damage_on_a_full_disk_costs_the_line_it_hit() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = setup(&collector);
    let Some(disk) = Disk::mount(&setup.path("spool"), "2m") else { return };
    let relay = setup.start();
    says(&relay, 0..500);
    relay.has_spooled(500);
    relay.kill();
    let segment = &setup.segments()[0];
    let mut bytes = fs::read(segment).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(segment, bytes).expect("written");
    disk.fill();
    collector.comes();
    let relay = setup.start();
    relay.says("no room to move lines out of a damaged segment");
    relay.counts("forward_damaged_total", 1);
    relay.counts("forward_delivered_total", 499);
    assert!(collector.numbers().is_sorted());
    relay.balances(500);
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

/// A volume that root has created, and a relay that runs as another user.
#[test]
fn a_spool_that_belongs_to_somebody_else_is_one_clear_line() {
    if !root_can("start a relay as somebody else") {
        return;
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
            "logferry: spool: cannot create {}: Permission denied (os error 13); uid {NOBODY} must be able to make it; \
             make it first (install -d -o {NOBODY} -m 750 {})",
            spool.display(),
            spool.display()
        )
    );
}

/// The directory is removed while the relay runs: the relay recreates it and continues there.
#[test]
fn a_spool_that_vanishes_keeps_no_line_from_being_delivered() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector).variable("LOGFERRY_SPOOL_MAX_SIZE", "1MiB");
    let relay = setup.start();
    says(&relay, 0..50);
    relay.has_delivered(50, 0);
    fs::remove_dir_all(setup.path("spool")).expect("removed");
    // In batches that fit into the spool, so that no line is evicted: this test is not about lines in the removed directory.
    for start in (50..2050).step_by(400) {
        says(&relay, start..start + 400);
        relay.has_delivered(start + 400, 0);
    }
    relay.says("the directory was removed while it was in use, and is taken again");
    assert!(collector.numbers().into_iter().eq(0..2050));
    assert!(setup.path("spool").is_dir());
    relay.stops();
}

/// If another relay has its spool in that place by then, nothing of it is touched, and the error names the directory.
#[test]
fn a_spool_that_another_relay_has_taken_is_left_to_it() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup(&collector);
    let relay = setup.start();
    says(&relay, 0..50);
    relay.has_delivered(50, 0);
    let spool = setup.path("spool");
    fs::remove_dir_all(&spool).expect("removed");
    let another = Setup::new().listen("tcp://127.0.0.1:0").forward(&collector.url());
    let another = another.variable("LOGFERRY_SPOOL_DIR", spool.to_str().expect("UTF-8"));
    let second = another.start();
    let names = || -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(&spool).expect("it is there").map(|entry| entry.expect("a file").file_name()).collect();
        names.retain(|name| name != "probe");
        names
    };
    says(&second, 50..100);
    second.has_delivered(50, 0);
    let answer = eventually("it is not ready", || Some(get(&relay, "/ready")).filter(|answer| answer.status == 503));
    let is_named = answer.body.contains(spool.to_str().expect("UTF-8"));
    assert!(is_named && answer.body.contains("another relay has its spool there now"), "{}", answer.body);
    relay.says("the directory was removed or replaced while it was in use");
    let before = names();
    says(&relay, 100..110);
    eventually("what cannot be kept is counted", || (relay.metrics().sum("spool_dropped_total") >= 10).then_some(()));
    assert_eq!(names(), before);
    assert_eq!(get(&second, "/ready").status, 200);
    second.stops();
}
