//! End-to-end tests with a real engine. Containers log through Docker's own drivers to the relay's image, and every
//! line must arrive at the collector. For the `syslog` driver, that is a real rsyslog.
//!
//! Where to find a test, and where to add one:
//! - here: the tests of the `syslog` driver; `drivers`: the tests of `fluentd`, `gelf` and `splunk`;
//! - `talker`: the lines that containers print, and the messages that must arrive;
//! - `sandbox`: the calls that the image may not make;
//! - `relay`: the relay's container; `collector`: rsyslog;
//! - `walk`: the commands of certs/README.md;
//! - `docker`: the engine, and guards that clean up; `host`: the machine's programs, ports, waiting.
//!
//! Without an engine, rsyslog, dnsmasq or busybox, a test prints `skipped:` and passes. In CI it fails.
//! `LOGFERRY_IMAGE` names a ready image to test. Without it, the tests build a static dev build of this tree.

mod collector;
mod compose;
mod docker;
mod drivers;
mod host;
mod image;
mod relay;
mod sandbox;
#[path = "../support/mod.rs"]
mod support;
mod talker;
mod walk;

use collector::{Arrival, Collector};
use docker::Images;
use host::{Need, say, within};
use relay::Relay;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use support::NameServer;
use talker::{FORMATS, Said, TRANSPORTS, Talker};

/// Time limit for a line through the whole chain. An idle machine needs a second or two.
const ARRIVE: Duration = Duration::from_secs(60);
const FIRST: &str = "127.0.0.2";
const SECOND: &str = "127.0.0.3";
/// Lines of each talker that must arrive before the test goes on: the odd ones and some ordinary ones.
const AUDIENCE: usize = 60;

const EVERYTHING: [Need; 4] = [Need::Docker, Need::Busybox, Need::Rsyslog, Need::Dnsmasq];

#[test]
fn every_line_arrives_though_the_server_moves() {
    if !host::has(&EVERYTHING) {
        return;
    }
    let images = Images::shared();
    let port = host::free_port(&[FIRST, SECOND]);
    let (mut first, second) = (Collector::start(FIRST, port), Collector::start(SECOND, port));
    let names = NameServer::start(&[FIRST]).expect("asked for before");
    let relay = Relay::start(&images, &names, port);

    let talk = host::open_directory();
    talker::prepare(talk.path());
    let pairs = TRANSPORTS.iter().flat_map(|&transport| FORMATS.map(|format| (transport, format)));
    let started = chrono::Utc::now();
    let talkers: Vec<_> =
        pairs.map(|(transport, format)| Talker::start(&images, &relay, talk.path(), transport, format)).collect();
    wait_for_audience(&first, &talkers);

    let moved = Instant::now();
    names.moves_to(SECOND);
    first.stop();
    within(ARRIVE, "a line at the new address", || second.arrivals().first().cloned());
    let silence = moved.elapsed();
    wait_for_audience(&second, &talkers);

    talker::enough(talk.path());
    let said: Vec<_> = talkers.iter().map(|talker| talker.said(talk.path())).collect();
    let arrived = || [first.arrivals(), second.arrivals()].concat();
    wait_for_all(&said, arrived);

    let ended = chrono::Utc::now();
    let mut doubled = 0;
    let mut by_id = group(arrived());
    for (talker, said) in talkers.iter().zip(&said) {
        let arrivals = by_id.remove(&talker.id).unwrap_or_default();
        for arrival in &arrivals {
            check_fields(arrival, talker, &images.talker, started..ended);
        }
        doubled += compare(&talker.what, said, &arrivals);
    }
    assert_eq!(relay.container.inspect("{{.State.Health.Status}}"), "healthy");
    assert!(by_id.is_empty(), "from nobody we know: {:?}", by_id.values().flatten().take(3).collect::<Vec<_>>());
    let sent: usize = said.iter().map(Vec::len).sum();
    say(&format!(
        "{} containers, {sent} lines sent, {sent} arrived, 0 lost, {doubled} doubled; first line at the new address {silence:?} after the move",
        talkers.len()
    ));
}

#[test]
fn a_killed_relay_delivers_what_it_had_spooled() {
    if !host::has(&EVERYTHING) {
        return;
    }
    let images = Images::shared();
    let port = host::free_port(&[FIRST]);
    // There is no central server, and its name does not resolve.
    let names = NameServer::start(&[]).expect("asked for before");
    let relay = Relay::start(&images, &names, port);

    let talk = host::open_directory();
    talker::prepare(talk.path());
    talker::enough(talk.path());
    let talkers =
        ["udp", "tcp"].map(|transport| Talker::start(&images, &relay, talk.path(), transport, "rfc5424micro"));
    let said = talkers.each_ref().map(|talker| talker.said(talk.path()));
    let sent: usize = said.iter().map(Vec::len).sum();
    within(ARRIVE, "a spool that holds every line", || {
        (relay.counter("logferry_spool_spooled_total")? >= sent as u64).then_some(())
    });

    relay.crash();
    let collector = Collector::start(FIRST, port);
    names.moves_to(FIRST);
    wait_for_all(&said, || collector.arrivals());
    let by_id = group(collector.arrivals());
    let doubled: usize = talkers.iter().zip(&said).map(|(t, said)| compare(&t.what, said, &by_id[&t.id])).sum();
    say(&format!("{sent} lines sent, {sent} arrived after kill -9, {doubled} doubled"));
}

fn group(arrivals: Vec<Arrival>) -> BTreeMap<String, Vec<Arrival>> {
    let mut by_id: BTreeMap<String, Vec<Arrival>> = BTreeMap::new();
    for arrival in arrivals {
        by_id.entry(arrival.id.clone()).or_default().push(arrival);
    }
    by_id
}

fn wait_for_audience(collector: &Collector, talkers: &[Talker]) {
    within(ARRIVE, "every talker heard", || {
        let by_id = group(collector.arrivals());
        let heard = |talker: &Talker| by_id.get(&talker.id).is_some_and(|lines| lines.len() >= AUDIENCE);
        talkers.iter().all(heard).then_some(())
    });
}

/// Waits until as many different messages have arrived as were printed, or until the limit. The comparison then names
/// the missing ones.
fn wait_for_all(said: &[Vec<Said>], arrived: impl Fn() -> Vec<Arrival>) {
    let expected: usize = said.iter().map(Vec::len).sum();
    let start = Instant::now();
    within(2 * ARRIVE, "everything, or the end of our patience", || {
        let all = arrived();
        let different: BTreeSet<_> = all.iter().map(|a| (&a.id, a.severity, &a.message)).collect();
        (different.len() >= expected || start.elapsed() > ARRIVE).then_some(())
    });
}

/// Checks every field but the message: rsyslog must see the container, its host and the time.
fn check_fields(
    arrival: &Arrival,
    talker: &Talker,
    image: &str,
    during: std::ops::Range<chrono::DateTime<chrono::Utc>>,
) {
    let host = if talker.format.is_empty() { relay::HOSTNAME.to_owned() } else { engine_host() };
    let name = &talker.container.name;
    let seen = [&arrival.host, &arrival.image, &arrival.name, &arrival.id, &arrival.app, &arrival.proc];
    assert_eq!(seen, [&host, &image.to_owned(), name, &talker.id, name, &talker.id], "{}: {arrival:?}", talker.what);
    assert_eq!(arrival.facility, 3, "daemon: {arrival:?}");
    let stamp = chrono::DateTime::parse_from_rfc3339(&arrival.stamp).expect("an RFC 3339 stamp").to_utc();
    let second = chrono::TimeDelta::seconds(1);
    assert!(during.start - second <= stamp && stamp <= during.end + second, "{}: {arrival:?}", talker.what);
}

/// The engine's host name. The engine writes it in every format but the default.
fn engine_host() -> String {
    docker::output(&mut std::process::Command::new("hostname")).expect("a host name")
}

/// Checks that the printed lines have arrived byte for byte, in the order of each stream. Returns the number of
/// duplicates.
fn compare(what: &str, said: &[Said], arrivals: &[Arrival]) -> usize {
    let mut seen = BTreeSet::new();
    let arrived: Vec<_> = arrivals.iter().map(|a| Said { severity: a.severity, message: a.message.clone() }).collect();
    let once: Vec<_> = arrived.iter().filter(|said| seen.insert((*said).clone())).cloned().collect();
    let expected: BTreeSet<_> = said.iter().cloned().collect();
    assert_eq!(expected.len(), said.len(), "{what}: the talker repeats itself");
    let show = |said: Vec<&Said>| {
        said.iter().take(5).map(|s| format!("{} {:.200}", s.severity, s.message.escape_ascii())).collect::<Vec<_>>()
    };
    let (missing, strange) = (show(expected.difference(&seen).collect()), show(seen.difference(&expected).collect()));
    let (lost, more) = (expected.difference(&seen).count(), seen.difference(&expected).count());
    assert!(
        lost + more == 0,
        "{what}: {lost} of {} missing: {missing:#?}\n{more} nobody said: {strange:#?}",
        said.len()
    );
    let stream = |all: &[Said], severity| all.iter().filter(|s| s.severity == severity).cloned().collect::<Vec<_>>();
    for severity in [3, 6] {
        assert!(stream(said, severity) == stream(&once, severity), "{what}: severity {severity} is out of order");
    }
    arrived.len() - once.len()
}
