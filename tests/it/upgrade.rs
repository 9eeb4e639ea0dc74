//! Upgrades: a spool of an earlier version is read and continued without loss.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::relay::logferry;
use crate::support::{Collector, Framing, Setup, eventually, says};

/// A spool of the version without the position *acknowledged*: three relays were killed on it, each after 40 lines with their numbers. The
/// forward `away` had delivered none of them. The forward `central` had delivered 50, so its cursor is in the middle of the second segment.
fn spool_of_before() -> impl Iterator<Item = PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/spool-of-before");
    fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("an entry").path())
}

fn left(spool: &Path) -> Vec<[Value; 4]> {
    let output = logferry().args(["spool", "ls", "--json"]).arg(spool).output().expect("it runs");
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let forwards = listed["forwards"].as_array().expect("a list").clone();
    let of = |forward: &Value| ["name", "line", "pending", "replayable"].map(|key| forward[key].clone());
    forwards.iter().map(of).collect()
}

#[test]
fn a_spool_of_the_version_before_is_delivered_whole() {
    let [central, away] = [(); 2].map(|()| Collector::tcp(Framing::OctetCounting));
    let keys = |name: &str| format!("name = \"{name}\"\nframing = \"octet-counting\"");
    let setup = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_with(&central.url(), &keys("central"))
        .forward_with(&away.url(), &keys("away"));
    let spool = setup.path("spool");
    fs::create_dir_all(&spool).expect("a directory");
    for file in spool_of_before() {
        fs::copy(&file, spool.join(file.file_name().expect("a name"))).expect("copied");
    }
    let expected = [("away", 0, 120), ("central", 50, 70)];
    let expected = expected.map(|(name, line, pending): (&str, u64, u64)| {
        [Value::from(name), Value::from(line), Value::from(pending), Value::from(0)]
    });
    assert_eq!(left(&spool), expected);

    let relay = setup.start();
    central.frames(70);
    away.frames(120);
    says(&relay, 120..130);
    central.frames(80);
    away.frames(130);
    assert!(central.numbers().into_iter().eq(50..130), "{:?}", central.numbers());
    assert!(away.numbers().into_iter().eq(0..130), "{:?}", away.numbers());
    let metrics = eventually("nothing is pending or replayable", || {
        let metrics = relay.metrics();
        let left = metrics.sum("forward_pending") + metrics.sum("forward_replayable");
        (left == 0).then_some(metrics)
    });
    let delivered = ["central", "away"].map(|name| metrics.with("forward_delivered_total", name));
    assert_eq!(delivered, [80, 130]);
    let lost = ["forward_evicted_total", "forward_damaged_total", "forward_resent_total"];
    assert_eq!(lost.map(|name| metrics.sum(name)), [0; 3]);
    relay.stops();
    assert!(left(&spool).iter().all(|forward| forward[1] == 130 && forward[2] == 0), "{:?}", left(&spool));
}
