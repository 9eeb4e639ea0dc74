//! Lines that the collector has not received, and delivered lines that may have to be sent again: separate numbers in `/status` and in
//! `spool ls`, also after a restart. `replay-for` has its default of 30 s here, so no line is retired during a test.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::http::status;
use crate::support::relay::logferry;
use crate::support::rsyslog::{self, Input};
use crate::support::{Collector, Framing, Relay, Setup, eventually, says};

const COUNTED: &str = "framing = \"octet-counting\"";

/// Sends lines one by one; each is delivered before the next, and then nothing is pending.
#[track_caller]
fn one_by_one(relay: &Relay, lines: usize) {
    for number in 0..lines {
        says(relay, number..number + 1);
        eventually("it is delivered and nothing is pending", || {
            let metrics = relay.metrics();
            let delivered = metrics.sum("forward_delivered_total");
            (delivered == number as u64 + 1 && metrics.sum("forward_pending") == 0).then_some(())
        });
    }
    relay.balances(0);
}

/// The forward `central` as `spool ls` shows it.
fn listed(setup: &Setup) -> Value {
    let output = logferry().args(["spool", "ls", "--json"]).arg(setup.path("spool")).output().expect("it runs");
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["forwards"][0].clone()
}

#[test]
fn a_healthy_collector_has_nothing_pending() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_in_order(&[collector.url()], COUNTED).start();
    one_by_one(&relay, 5);
    assert_eq!(relay.metrics().sum("forward_replayable"), 5);
    let shown = &status(&relay)["forwards"][0];
    let count = |key: &str| shown[key].as_u64().unwrap_or_else(|| panic!("no {key} in {shown}"));
    assert_eq!(["pending", "replayable", "delivered", "filtered", "failbacks"].map(count), [0, 5, 5, 0, 0]);
    assert_eq!(["waiting", "unwanted"].map(count), [5, 0], "under their old names");
    assert!(shown["oldest_pending_seconds"].is_null() && shown["oldest_waiting_seconds"].is_null());
    relay.stops();
}

#[test]
fn a_healthy_rsyslog_has_nothing_pending() {
    let Some(program) = rsyslog::find(Input::Tcp) else { return };
    let dir = TempDir::new().expect("a directory");
    let (_daemon, at) = rsyslog::start(&program, Input::Tcp, dir.path(), &[]);
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_in_order(&[format!("tcp://{at}")], COUNTED).start();
    one_by_one(&relay, 5);
    eventually("rsyslog has written them", || {
        let arrived = fs::read_to_string(dir.path().join(rsyslog::ARRIVED)).unwrap_or_default();
        (arrived.lines().count() == 5).then_some(())
    });
    relay.stops();
}

/// Lines that an earlier relay had delivered and not retired are sent again. They count as resent, and not as delivered again.
#[test]
fn what_a_killed_relay_had_delivered_is_replayed_and_not_counted_again() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = Setup::new().listen("tcp://127.0.0.1:0").forward_in_order(&[collector.url()], COUNTED);
    let relay = setup.start();
    one_by_one(&relay, 5);
    eventually("the cursor's file follows", || (listed(&setup)["replayable"] == 5).then_some(()));
    assert_eq!((&listed(&setup)["pending"], &listed(&setup)["waiting"]), (&0.into(), &5.into()));
    relay.kill();
    let relay = setup.start();
    relay.counts("forward_resent_total", 5);
    says(&relay, 5..7);
    relay.counts("forward_delivered_total", 2);
    relay.counts("forward_pending", 0);
    relay.balances(0);
    collector.frames(12);
    assert!(collector.numbers().into_iter().eq((0..5).chain(0..7)), "{:?}", collector.numbers());
    relay.stops();
}

/// The old metric names keep the old sums for one version.
#[test]
fn what_was_renamed_is_exported_under_both_names() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let away = Collector::tcp_away(Framing::OctetCounting);
    let relay = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward_in_order(&[collector.url()], &format!("{COUNTED}\nname = \"all\""))
        .forward_with(&away.url(), "name = \"away\"")
        .forward_with(&collector.url(), &format!("{COUNTED}\nname = \"none\"\nmatch = {{ name = \"nobody\" }}"))
        .start();
    says(&relay, 0..10);
    let metrics = eventually("each forward is as far as it can get", || {
        let metrics = relay.metrics();
        let replayable = metrics.with("forward_replayable", "forward=\"all\"");
        let filtered = metrics.sum("forward_filtered_total");
        (replayable == 10 && filtered == 10).then_some(metrics)
    });
    let of = |name: &str| ["all", "away", "none"].map(|forward| metrics.with(name, &format!("forward=\"{forward}\"")));
    assert_eq!(of("forward_pending"), [0, 10, 0]);
    assert_eq!((of("forward_replayable"), of("forward_waiting")), ([10, 0, 0], [10, 10, 0]));
    assert_eq!((of("forward_filtered_total"), of("forward_unwanted_total")), ([0, 0, 10], [0, 0, 10]));
    for [new, old] in
        [["forward_failbacks_total", "forward_returns_total"], ["syslog_reassembly_pending", "syslog_pieces_waiting"]]
    {
        assert_eq!(metrics.sum(new), metrics.sum(old), "{new}");
    }
    relay.balances(0);
}
