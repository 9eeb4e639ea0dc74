//! Docker's drivers `fluentd`, `gelf` and `splunk`, in each configuration that docs/log-drivers.md recommends.
//! Containers log through the image, and the tests check every line and field of the output while the relay stops, dies
//! and moves.

mod fluentd;
mod gelf;
mod splunk;
mod stage;

use super::ARRIVE;
use super::docker::{self as engine, Network, docker};
use super::host::{Need, say};
use super::relay::Place;
use super::support::shown;
use stage::{Central, Files, Plain, Said, Stage, Way};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::mpsc;

/// The drivers for tests that stop the relay: each driver that notices, and `fluentd` in all its configurations.
fn all_that_notice() -> Vec<Way> {
    [&fluentd::WAYS[..], &[gelf::PATIENT, splunk::PLAIN]].concat()
}

fn every_line_and_field_arrives(ways: &[Way]) {
    let started = chrono::Utc::now();
    let Some(mut stage) = Stage::set(&[], Place::Host, || vec![Plain::start()], ways) else { return };
    stage.has_an_audience();
    let mut said = stage.have_said();
    stage.the_last_have_come(&said);
    stage.end(&mut said);
    stage.the_last_have_come(&said);
    stage.checks_fields(&(started..chrono::Utc::now()));
    only_datagrams_are_missing(&stage, &said, 0);
}

#[test]
fn a_real_rsyslog_and_files_have_every_line_and_field() {
    let started = chrono::Utc::now();
    let ways = [fluentd::UNIX_ASYNC, fluentd::TCP, gelf::TCP, gelf::UDP, splunk::PLAIN];
    let collectors = || vec![Central::start(), Files::start()];
    let Some(mut stage) = Stage::set(&[Need::Rsyslog], Place::Host, collectors, &ways) else { return };
    stage.has_an_audience();
    stage.relay.goes();
    stage.relay.comes();
    stage.has_an_audience();
    let said = stage.have_said();
    stage.the_last_have_come(&said);
    stage.checks_fields(&(started..chrono::Utc::now()));
    only_datagrams_are_missing(&stage, &said, 1);
}

/// The relay is stopped, once for some seconds, and finally killed. It closes connections with a reset, so a driver
/// sends again the lines that it could not write. Drivers with acknowledgements lose nothing at the kill either.
#[test]
fn a_relay_that_is_stopped_loses_nothing_and_one_that_is_killed_next_to_nothing() {
    let Some(mut stage) = Stage::set(&[], Place::Host, || vec![Plain::start()], &all_that_notice()) else { return };
    for is_away in [false, true, false] {
        stage.has_an_audience();
        stage.relay.goes();
        if is_away {
            stage.talks_to_nobody();
        }
        stage.relay.comes();
    }
    stage.has_an_audience();
    say("stopped three times: every container goes on");
    let before = [3, 6].map(|severity| (severity, stage.heard(severity)));
    stage.relay.crash();
    stage.has_an_audience();
    let said = stage.have_said();
    stage.the_last_have_come(&said);
    let compared = stage.compares(&said).remove(0);
    for (at, talker) in stage.talkers.iter().enumerate() {
        let (said, missing) = (&said[at], &compared.missing[at]);
        say(&format!("{}: {} lines, {} lost", talker.what, said.len(), missing.len()));
        assert!(!talker.way.is_answered() || missing.is_empty(), "{}: {}", talker.what, first(missing));
        // Lines lost at the kill form one gap in each stream, behind the lines that arrived before it.
        for (severity, heard) in &before {
            let gaps = gaps(said, missing, *severity);
            let is_one = gaps.len() <= 1 && gaps.iter().all(|gap| gap.start >= heard[at]);
            assert!(is_one, "{}: severity {severity}, {} heard: {gaps:?}", talker.what, heard[at]);
        }
    }
    let lost: usize = compared.missing.iter().map(Vec::len).sum();
    say(&format!(
        "{} lines, stopped three times and killed once: {lost} lost at the kill, {} doubled",
        count(&said),
        compared.doubled
    ));
}

/// While containers print, a new container of the relay replaces the old one and takes over its spool.
#[test]
fn an_upgrade_loses_nothing() {
    let Some(mut stage) = Stage::set(&[], Place::Host, || vec![Plain::start()], &all_that_notice()) else { return };
    for _ in 0..2 {
        stage.has_an_audience();
        stage.relay.is_replaced();
    }
    stage.has_an_audience();
    let said = stage.have_said();
    stage.the_last_have_come(&said);
    only_datagrams_are_missing(&stage, &said, 0);
}

/// The relay's port is published at an address of the host. While containers print, the relay's container is removed,
/// and a container with another address takes the port: first with the old spool, then with a new one. Datagrams are
/// lost in between and arrive again afterwards.
#[test]
fn a_relay_that_moves_behind_its_port_loses_nothing_but_datagrams() {
    let ways = [fluentd::TCP, fluentd::TCP_ASYNC, gelf::PATIENT, gelf::UDP, splunk::PLAIN];
    let place = Place::Published(None);
    let Some(mut stage) = Stage::set(&[], place, || vec![Files::start()], &ways) else { return };
    stage.has_an_audience();
    stage.relay.moves_to(Some(Network::new("elsewhere")), true);
    stage.has_an_audience();
    stage.relay.moves_to(None, false);
    stage.has_an_audience();
    let said = stage.have_said();
    stage.the_last_have_come(&said);
    only_datagrams_are_missing(&stage, &said, 2);
    can_be_stopped(&stage);
}

/// While the relay reads, a container stops as with any other driver.
#[test]
fn containers_can_be_stopped() {
    let ways = [&all_that_notice()[..], &[gelf::UDP]].concat();
    let Some(mut stage) = Stage::set(&[], Place::Host, || vec![Plain::start()], &ways) else { return };
    stage.has_an_audience();
    can_be_stopped(&stage);
}

/// Stops all containers at once. A hanging engine hangs until a relay reads again, or for ever.
fn can_be_stopped(stage: &Stage) {
    let names: Vec<_> = stage.talkers.iter().map(|talker| talker.container.name.clone()).collect();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        docker(std::iter::once("stop").chain(names.iter().map(String::as_str)));
        tell.send(())
    });
    told.recv_timeout(ARRIVE).expect("containers that can be stopped");
    assert!(engine::engine_answers());
}

/// Only drivers that send datagrams have lost lines: one gap for each absence of the relay.
#[track_caller]
fn only_datagrams_are_missing(stage: &Stage, said: &[Vec<Said>], absences: usize) {
    for compared in stage.compares(said) {
        for ((talker, said), missing) in stage.talkers.iter().zip(said).zip(&compared.missing) {
            let gaps = [3, 6].map(|severity| gaps(said, missing, severity));
            let most = if talker.way.is_by_datagram() { absences } else { 0 };
            let (lost, in_gaps) = (missing.len(), gaps.iter().flatten().map(Range::len).sum::<usize>());
            let is_as_expected = lost == in_gaps && gaps.iter().all(|gaps| gaps.len() <= most);
            assert!(is_as_expected, "{}: {lost} missing, the first {}, {gaps:?}", talker.what, first(missing));
        }
        let lost: usize = compared.missing.iter().map(Vec::len).sum();
        say(&format!("{} lines, {lost} datagrams lost, {} doubled", count(said), compared.doubled));
    }
}

/// The gaps of a stream, as ranges of its lines.
fn gaps(said: &[Said], missing: &[Said], severity: u8) -> Vec<Range<usize>> {
    let missing: BTreeSet<&Said> = missing.iter().collect();
    let mut gaps: Vec<Range<usize>> = Vec::new();
    let stream = said.iter().filter(|(of, _)| *of == severity);
    for (at, _) in stream.enumerate().filter(|(_, said)| missing.contains(said)) {
        match gaps.last_mut().filter(|gap| gap.end == at) {
            Some(gap) => gap.end += 1,
            None => gaps.push(at..at + 1),
        }
    }
    gaps
}

fn first(said: &[Said]) -> String {
    said.first().map(|(_, text)| shown(text)).unwrap_or_default()
}

fn count(said: &[Vec<Said>]) -> usize {
    said.iter().map(Vec::len).sum()
}
