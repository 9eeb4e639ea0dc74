//! Lost lines: which lines are dropped first, and how the collector is told.

use std::collections::BTreeMap;

use crate::support::{Collector, Docker, Format, Framing, Relay, Setup, eventually};

const MESSAGE: usize = 4096;

/// A relay with a spool of 1 MiB and these further `keys`, and a collector that is away.
fn relay(keys: &str) -> (Collector, Relay) {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let setup = Setup::new().spool(&format!("max-size = \"1MiB\"\n{keys}")).listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start();
    (collector, relay)
}

/// Sends `count` messages of one severity, each `MESSAGE` bytes long, with only a few in flight at a time.
fn says(relay: &Relay, severity: u8, count: usize) {
    let container = Docker::new(Format::Rfc5424Micro, "web").severity(severity);
    let mut wire = relay.door().connect();
    let settled = || relay.metrics().sum("spool_spooled_total") + relay.metrics().sum("spool_dropped_total");
    let before = settled();
    for said in 1..=count {
        wire.says(&container, &vec![b'x'; MESSAGE]);
        if said % 5 == 0 || said == count {
            eventually("it is in the spool, or not", || (settled() >= before + said as u64).then_some(()));
        }
    }
}

/// Waits until the collector has been told about every lost line; returns the numbers by reason.
#[track_caller]
fn told(collector: &Collector, relay: &Relay) -> BTreeMap<String, u64> {
    eventually("all losses are told", || {
        let metrics = relay.metrics();
        let lost = metrics.sum("spool_dropped_total") + metrics.sum("forward_evicted_total");
        let mut told = BTreeMap::new();
        for line in collector.frames(0).iter().map(|frame| String::from_utf8_lossy(frame).into_owned()) {
            let Some((_, gap)) = line.split_once("logferry - gap [gap@32473 lines=\"") else { continue };
            let (lines, rest) = gap.split_once("\" reason=\"").expect("a reason");
            let (reason, _) = rest.split_once('"').expect("an end");
            *told.entry(reason.to_owned()).or_default() += lines.parse::<u64>().expect("a number");
        }
        (lost > 0 && told.values().sum::<u64>() == lost).then_some(told)
    })
}

#[test]
fn with_drop_newest_the_least_severe_are_refused_first() {
    let (mut collector, relay) = relay("when-full = \"drop-newest\"");
    let dropped = |reason: &str| relay.metrics().with("spool_dropped_total", reason);
    // Info until it is rejected; then errors; and at last even errors find no room.
    says(&relay, 6, 400);
    assert!(dropped("severity") > 0 && dropped("full") == 0, "{:?}", relay.metrics());
    let refused = dropped("severity");
    says(&relay, 3, 4);
    assert_eq!((dropped("severity"), dropped("full")), (refused, 0), "there is room left for errors");
    says(&relay, 3, 100);
    assert!(dropped("full") > 0);
    collector.comes();
    let told = told(&collector, &relay);
    assert_eq!(told.keys().collect::<Vec<_>>(), ["full", "severity"]);
    relay.stops();
}

#[test]
fn with_drop_oldest_a_new_line_is_worth_more_than_an_old_one() {
    let (mut collector, relay) = relay("");
    says(&relay, 6, 220);
    says(&relay, 7, 10);
    let refused = relay.metrics().with("spool_dropped_total", "severity");
    assert!(refused > 0, "debug messages are refused: {:?}", relay.metrics());
    says(&relay, 6, 200);
    assert_eq!(relay.metrics().sum("spool_dropped_total") as i64, refused);
    assert!(relay.metrics().sum("forward_evicted_total") > 0);
    relay.says("spool: full: the oldest lines are given up, and counted,");
    collector.comes();
    assert_eq!(told(&collector, &relay).keys().collect::<Vec<_>>(), ["evicted", "severity"]);
    relay.stops();
}

#[test]
fn shedding_can_be_turned_off() {
    let (_collector, relay) = relay("when-full = \"drop-newest\"\nshed-from = \"off\"");
    says(&relay, 7, 400);
    let metrics = relay.metrics();
    assert!(metrics.with("spool_dropped_total", "full") > 0 && metrics.with("spool_dropped_total", "severity") == 0);
    relay.stops();
}
