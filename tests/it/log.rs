//! The relay's own log: as JSON, and in its own stream, where it must neither block the relay nor feed itself.

use std::collections::BTreeSet;
use std::time::Instant;

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::Value;

use crate::support::docker::RELAY;
use crate::support::http::status;
use crate::support::program::SIGHUP;
use crate::support::relay::logferry;
use crate::support::{Collector, Docker, Format, Framing, Relay, Setup, eventually, says, says_at_length};

/// Maximum log messages per minute in the stream: `src/log/stream.rs`. The queue is much shorter.
const MOST_A_MINUTE: u64 = 100;

fn setup(log: &str, collector: &Collector) -> Setup {
    let setup = Setup::new().section(&format!("[log]\n{log}")).listen("tcp://127.0.0.1:0");
    setup.forward_with(&collector.url(), "framing = \"octet-counting\"")
}

/// The relay's log messages at a collector: priority, time and text.
fn own_words(collector: &Collector) -> Vec<(String, DateTime<Utc>, String)> {
    let lines = collector.frames(0).into_iter().map(|frame| String::from_utf8(frame).expect("text"));
    let head = format!(" {RELAY} logferry - log - ");
    let own = lines.filter_map(|line| {
        let (front, text) = line.split_once(&head)?;
        let (pri, stamp) = front.split_once(">1 ").expect("RFC 5424");
        Some((format!("{pri}>"), stamp.parse().expect("RFC 3339"), text.to_owned()))
    });
    own.collect()
}

#[track_caller]
fn arrives(collector: &Collector, pri: &str, says: &str) {
    eventually(&format!("the collector has {pri} {says}"), || {
        own_words(collector).iter().any(|(p, _, text)| p == pri && text.contains(says)).then_some(())
    });
}

/// Reloads the configuration `times` times, which the relay logs each time.
fn is_made_to_speak(relay: &Relay, times: u64) {
    for _ in 0..times {
        let done = || relay.metrics().sum("config_reloads_total");
        let before = done();
        relay.signal(SIGHUP);
        eventually("it has been read again", || (done() > before).then_some(()));
    }
}

/// Sends messages of one length, one by one, until one finds no room.
fn fills_up(relay: &Relay, length: usize) {
    let dropped = || relay.metrics().sum("spool_dropped_total");
    let (before, mut wire) = (dropped(), relay.door().connect());
    let container = Docker::new(Format::Rfc5424Micro, "web");
    while dropped() == before {
        let settled = || relay.metrics().sum("spool_spooled_total") + dropped();
        let so_far = settled();
        wire.says(&container, &vec![b'x'; length]);
        eventually("it is in the spool, or not", || (settled() > so_far).then_some(()));
    }
}

/// How many lost messages for this reason the collector was told about.
fn told(collector: &Collector, reason: &str) -> u64 {
    let lines = collector.frames(0).into_iter().map(|frame| String::from_utf8(frame).expect("text"));
    let lost = lines.filter_map(|line| {
        let (_, gap) = line.split_once("logferry - gap [gap@32473 lines=\"")?;
        let (lines, rest) = gap.split_once("\" reason=\"").expect("a reason");
        rest.starts_with(&format!("{reason}\"")).then(|| lines.parse::<u64>().expect("a number"))
    });
    lost.sum()
}

fn balance(relay: &Relay) {
    eventually("the books balance", || {
        let metrics = relay.metrics();
        let [received, spooled, dropped, held] =
            ["listen_received_total", "spool_spooled_total", "spool_dropped_total", "spool_held"]
                .map(|name| metrics.sum(name));
        (received == spooled + dropped + held).then_some(())
    });
}

#[test]
fn json_is_one_object_a_line() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let setup = setup("format = \"json\"\nlevel = \"debug\"", &collector);
    let mut program = crate::support::Program::start(&mut setup.command());
    let is_said = |text: &str| eventually(text, || program.stderr().contains(text).then_some(()));
    is_said("forward central: connected to");
    program.signal(SIGHUP);
    is_said("config: read again, and in force");
    program.signal(crate::support::program::SIGTERM);
    assert!(program.ends().success());
    let said = program.stderr();
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for line in &lines {
        let at: DateTime<Utc> = line["timestamp"].as_str().expect("a stamp").parse().expect("RFC 3339");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && at.trunc_subsecs(0) <= Utc::now(), "{line}");
        assert!(["error", "warn", "info", "debug"].contains(&line["level"].as_str().expect("a level")), "{line}");
        assert!(!line["message"].as_str().expect("a message").is_empty(), "{line}");
    }
    let open = lines.iter().find(|line| line["message"] == "spool: open").expect("it says that");
    assert_eq!((open["level"].as_str(), open["segments"].is_u64()), (Some("info"), true), "{open}");
    assert!(open["dir"].as_str().unwrap().ends_with("/spool"), "{open}");
    let connected = lines.iter().find(|line| is_connected(line)).expect("it says that");
    assert_eq!(connected["forward"], "central", "{connected}");
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}

fn is_connected(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with("forward central: connected to"))
}

#[test]
fn json_by_variable_also_for_the_last_words() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let mut command = logferry();
    command.args(["run", "--listen", "udp://127.0.0.1:0", "--admin", "off", "--spool-dir"]).arg(file.join("spool"));
    let output = command.env("LOGFERRY_LOG_FORMAT", "json").output().expect("logferry starts");
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).expect("text");
    let last: Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert!(last["message"].as_str().unwrap().contains(file.to_str().unwrap()), "{last}");
}

#[test]
fn a_level_is_a_level() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = setup("to-spool = \"off\"", &collector).start();
    relay.says("refused");
    let stopped = relay.stops();
    assert!(stopped.stderr.contains("  INFO listen: ") && stopped.stderr.contains("  WARN forward central: "));
    let mut command = setup("level = \"error\"", &collector).command();
    let mut program = crate::support::Program::start(&mut command);
    program.signal(crate::support::program::SIGTERM);
    program.ends();
    assert_eq!(program.stderr(), "");
}

#[test]
fn what_it_says_arrives_as_its_own_message() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = setup("to-spool = \"info\"", &collector).start();
    relay.says("refused");
    says(&relay, 0..1);
    collector.comes();
    arrives(&collector, "<46>", "listen: listening on tcp://127.0.0.1:");
    arrives(&collector, "<46>", "spool: open dir=");
    arrives(&collector, "<44>", &format!("forward central: {}", collector.url()));
    arrives(&collector, "<46>", "forward central: connected to");
    // The stream has the same messages as stderr, with the same timestamps, and counts as received from the relay itself.
    let own = own_words(&collector);
    for (_, stamp, text) in &own {
        let stamp = stamp.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let is_said = |line: &str| line.starts_with(&stamp) && line.ends_with(text.as_str());
        eventually(&format!("stderr has: {stamp} {text}"), || relay.stderr().lines().any(is_said).then_some(()));
    }
    balance(&relay);
    let own_received = relay.metrics().with("listen_received_total", "listener=\"logferry\"");
    assert_eq!(own_received as usize, own.len());
    relay.has_delivered(own.len() + 1, 0);
    // A log message must not cause another one when it is delivered.
    relay.stops();
    arrives(&collector, "<46>", "stopping: ");
}

#[test]
fn only_what_is_asked_for_goes_into_the_stream() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = setup("to-spool = \"warn\"\nlevel = \"trace\"", &collector).start();
    relay.says("refused");
    collector.comes();
    arrives(&collector, "<44>", "forward central: ");
    is_made_to_speak(&relay, 1);
    says(&relay, 0..1);
    relay.says("config: read again");
    let is_last = |frame: &Vec<u8>| frame.ends_with(b"] 0");
    eventually("the message behind it", || collector.frames(0).iter().any(is_last).then_some(()));
    assert!(own_words(&collector).iter().all(|(pri, ..)| pri == "<44>"), "{:?}", own_words(&collector));
    relay.stops();
}

/// A full spool, and a relay that logs much about it.
#[test]
fn with_the_spool_full_nothing_waits_for_it() {
    let mut collector = Collector::tcp_away(Framing::OctetCounting);
    let full = "max-size = \"1MiB\"\nwhen-full = \"drop-newest\"\nshed-from = \"off\"";
    let relay = setup("to-spool = \"info\"", &collector).spool(full).start();
    says_at_length(&relay, 0..200, 4096);
    fills_up(&relay, 4096);
    fills_up(&relay, 1);
    relay.says("spool: full: new lines are dropped");
    // Each reload takes its usual time, although the log messages find no room.
    is_made_to_speak(&relay, MOST_A_MINUTE + 20);
    let dropped = |reason: &str| relay.metrics().with("log_dropped_total", &format!("reason=\"{reason}\"")) as u64;
    assert!(dropped("full") > 0 && dropped("rate") > 0, "{:?}", relay.metrics());
    // The relay logs nothing by itself now, so the status page has the same numbers.
    let losses = status(&relay)["losses"].as_array().expect("losses").clone();
    for reason in ["full", "rate"] {
        let shown = losses.iter().find(|loss| loss["reason"] == format!("log-{reason}")).expect("it is shown");
        assert_eq!(shown["count"], dropped(reason), "{shown}");
    }
    assert!(relay.stderr().matches("config: read again").count() as u64 > MOST_A_MINUTE, "stderr has them all");
    balance(&relay);
    let evicted = relay.metrics().sum("forward_evicted_total");
    assert_eq!(evicted, 0, "nothing is given up for them");

    collector.comes();
    arrives(&collector, "<44>", "spool: full");
    // Log messages that did not fit are reported with the other losses.
    eventually("the gap is told", || {
        let told = |reason: &str| told(&collector, &format!("log-{reason}"));
        (told("full") == dropped("full") && told("rate") == dropped("rate")).then_some(())
    });
    balance(&relay);
    assert!(own_words(&collector).len() as u64 <= MOST_A_MINUTE);
    relay.stops();
}

/// With `drop-oldest` a container's new line evicts an old line; a log message evicts nothing.
#[test]
fn nothing_is_given_up_for_its_words() {
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let relay = setup("to-spool = \"info\"", &collector).spool("max-size = \"1MiB\"\nshed-from = \"off\"").start();
    says_at_length(&relay, 0..200, 4096);
    let room = || relay.metrics().sum("spool_max_bytes") - relay.metrics().sum("spool_bytes");
    let (container, mut wire) = (Docker::new(Format::Rfc5424Micro, "web"), relay.door().connect());
    for (length, left) in [(4096, 5000), (1, 500)] {
        while room() > left {
            let before = relay.metrics().sum("spool_spooled_total");
            wire.says(&container, &vec![b'x'; length]);
            eventually("it is spooled", || (relay.metrics().sum("spool_spooled_total") > before).then_some(()));
        }
    }
    assert_eq!(relay.metrics().sum("forward_evicted_total"), 0, "the next line is the first to be too much");
    is_made_to_speak(&relay, 10);
    eventually("they wait", || (relay.metrics().sum("spool_held") > 0).then_some(()));
    balance(&relay);
    assert_eq!(relay.metrics().sum("forward_evicted_total"), 0);
    relay.stops();
}

/// Two relays that forward everything to each other, including their own log: the loop is logged once, and that message enters the loop,
/// too. After that nothing circulates.
#[test]
fn two_that_feed_each_other_say_no_more_than_one() {
    let ports = [(), ()].map(|()| crate::support::Held::on(&[crate::support::collector::LOCAL]).port());
    let [one, two] = [(0, 1), (1, 0)].map(|(own, other): (usize, usize)| {
        let setup = Setup::new().section("[log]\nto-spool = \"info\"");
        setup.listen(&format!("tcp://127.0.0.1:{}", ports[own])).forward(&format!("tcp://127.0.0.1:{}", ports[other]))
    });
    let (one, two) = (one.start(), two.start());
    let both_connected = || [&one, &two].iter().all(|relay| relay.stderr().contains("connected to"));
    eventually("they have found each other", || both_connected().then_some(()));
    let times_said = |relay: &Relay| relay.stderr().matches("forward central: it leads back to this relay").count();
    eventually("it is said", || (times_said(&one) + times_said(&two) > 0).then_some(()));
    // Circulating lines get the mark of one of the relays after a while, and end there.
    let dropped =
        || [&one, &two].map(|relay| relay.metrics().with("spool_dropped_total", "reason=\"loop\"")).iter().sum::<i64>();
    eventually("it is dropped", || (dropped() > 0).then_some(()));
    let own = |relay: &Relay| relay.metrics().with("listen_received_total", "listener=\"logferry\"") as usize;
    let lines = |relay: &Relay| relay.stderr().lines().collect::<BTreeSet<_>>().len();
    for relay in [&one, &two] {
        assert!(times_said(relay) <= 1, "{}", relay.stderr());
        eventually("its words are in the spool, each once", || (own(relay) == lines(relay)).then_some(()));
    }
}

/// The end of the first outage is logged too, even if nothing was delivered before.
#[test]
fn the_end_of_an_outage_is_said() {
    let mut collector = Collector::tcp(Framing::OctetCounting);
    let relay = setup("level = \"info\"", &collector).start();
    let said = |count: usize| {
        let connected = || relay.stderr().matches("forward central: connected to").count();
        eventually("it says that it is connected", || (connected() == count).then_some(()));
    };
    said(1);
    collector.goes();
    relay.says("trying again");
    collector.comes();
    said(2);
    relay.stops();
}

/// Each connection carries the log message that the previous one broke, so that one message could cause the next.
#[test]
fn a_collector_that_comes_and_goes_is_a_few_lines_a_minute() {
    const CONNECTIONS: usize = 12;
    /// Per forward: `src/forward/log_limiter.rs`, and a final message about the limit.
    const MOST: usize = 17;
    let collector = Collector::tcp(Framing::OctetCounting);
    let start = Instant::now();
    let relay = setup("to-spool = \"info\"", &collector).start();
    for connection in 1..=CONNECTIONS {
        eventually("it connects again", || (collector.accepted() >= connection).then_some(()));
        let delivered = || relay.metrics().sum("forward_delivered_total");
        let before = delivered();
        says(&relay, 0..1);
        eventually("something is delivered", || (delivered() > before).then_some(()));
        collector.hangs_up();
    }
    relay.says("forward central: it comes and goes");
    let minutes = start.elapsed().as_secs() as usize / 60 + 1;
    let said = relay.stderr().lines().filter(|line| line.contains("forward central: ")).count();
    assert!(said <= MOST * minutes, "{said} lines in {minutes} minutes");
    relay.stops();
}
