//! Faults of a real network between relay and collector: a cut wire, a black hole, packet loss.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::support::dns::NAME;
use crate::support::network::THERE;
use crate::support::{Collector, Flow, NameServer, Network, Relay, RelpCollector, Setup, eventually, says_at_length};

/// Two collectors on the other machine, on one port.
fn collectors(network: &Network) -> [Collector; 2] {
    let addresses = THERE.map(|address| address.parse::<IpAddr>().expect("an address"));
    network.there(|| {
        let mut collectors = Collector::on_one_port(false, addresses);
        collectors.iter_mut().for_each(Collector::comes);
        collectors
    })
}

fn relay_to(collector: &Collector, names: &NameServer, dead_after: &str) -> Relay {
    let forward = format!("framing = \"octet-counting\"\nconnect-timeout = \"500ms\"\ndead-after = \"{dead_after}\"");
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&names.section());
    setup.forward_with(&collector.url_as(NAME), &forward).start()
}

/// Fails unless each of `0..count` has arrived. Lines in flight when the wire was cut may come twice.
#[track_caller]
fn all_arrived(collectors: &[Collector], count: usize) {
    let numbers = || -> BTreeSet<usize> {
        let messages = collectors.iter().flat_map(Collector::messages);
        messages.map(|text| text.parse().expect("a number")).collect()
    };
    eventually(&format!("{count} messages at the collectors"), || numbers().into_iter().eq(0..count).then_some(()));
}

fn counts(relay: &Relay, name: &str) -> u64 {
    relay.metrics().sum(name)
}

#[test]
fn a_wire_that_is_cut_until_the_connection_is_dead_loses_nothing() {
    let Some(network) = Network::new() else { return };
    let Some(names) = NameServer::start(&[THERE[0]]) else { return };
    let collectors = collectors(&network);
    let relay = relay_to(&collectors[0], &names, "1s");
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    network.is_cut();
    eventually("the relay has noticed", || (counts(&relay, "forward_connected") == 0).then_some(()));
    eventually("it tries in vain", || (counts(&relay, "forward_connect_failures_total") > 0).then_some(()));
    flow.goes_on(20);
    network.is_mended();
    eventually("it is connected again", || (counts(&relay, "forward_connected") == 1).then_some(()));
    flow.goes_on(20);
    let sent = flow.ends();
    all_arrived(&collectors, sent);
    relay.has_delivered(sent, 0);
    assert_eq!(counts(&relay, "forward_moves_total"), 0);
    relay.stops();
}

/// TCP's retransmission handles this; the relay notices nothing.
#[test]
fn a_wire_that_is_mended_in_time_costs_nothing() {
    let Some(network) = Network::new() else { return };
    let Some(names) = NameServer::start(&[THERE[0]]) else { return };
    let collectors = collectors(&network);
    let relay = relay_to(&collectors[0], &names, "1m");
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    network.is_cut();
    flow.goes_on(200);
    network.is_mended();
    let sent = flow.ends();
    all_arrived(&collectors, sent);
    relay.has_delivered(sent, 0);
    assert_eq!((collectors[0].accepted(), collectors[0].count()), (1, sent), "nothing comes twice");
    relay.stops();
}

/// Packets to the old address vanish, and then the name moves: no connection is closed in good order.
#[test]
fn a_name_that_moves_away_from_a_black_hole() {
    let Some(network) = Network::new() else { return };
    let Some(names) = NameServer::start(&[THERE[0]]) else { return };
    let collectors = collectors(&network);
    // With this timeout the old connection would outlive the test, unless the relay leaves it.
    let relay = relay_to(&collectors[0], &names, "10m");
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    network.swallows(THERE[0]);
    let heard = collectors[0].count();
    flow.goes_on(200);
    assert!(collectors[0].count() < heard + 100, "nothing is swallowed");
    names.moves_to(THERE[1]);
    collectors[1].frames(20);
    let sent = flow.ends();
    all_arrived(&collectors, sent);
    relay.has_delivered(sent, 0);
    assert_eq!(counts(&relay, "forward_moves_total"), 1);
    assert_eq!((collectors[0].accepted(), collectors[1].accepted()), (1, 1));
    relay.stops();
}

/// The answer has both addresses of the name, and one is a black hole.
#[test]
fn an_address_in_a_black_hole_is_left_for_another() {
    let Some(network) = Network::new() else { return };
    let Some(names) = NameServer::start(&[THERE[0]]) else { return };
    let collectors = collectors(&network);
    let relay = relay_to(&collectors[0], &names, "1s");
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    names.points_to(&THERE);
    network.swallows(THERE[0]);
    collectors[1].frames(20);
    let sent = flow.ends();
    all_arrived(&collectors, sent);
    relay.has_delivered(sent, 0);
    assert_eq!(counts(&relay, "forward_moves_total"), 0, "the name has not moved");
    relay.stops();
}

/// The machine's receive window is closed, so TCP sends only a probe now and then.
#[test]
fn a_machine_that_vanishes_while_its_program_hangs_is_noticed() {
    const MESSAGES: usize = 1000;
    let Some(network) = Network::new() else { return };
    let collectors = collectors(&network);
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let keys = "framing = \"octet-counting\"\nconnect-timeout = \"500ms\"\ndead-after = \"1s\"";
    let relay = setup.forward_with(&collectors[0].url(), keys).start();
    relay.counts("forward_connected", 1);
    collectors[0].hangs();
    says_at_length(&relay, 0..MESSAGES, 8192);
    relay.has_spooled(MESSAGES);
    network.is_cut();
    relay.fails_because("and the collector's machine does not answer");
    network.is_mended();
    collectors[0].goes_on();
    all_arrived(&collectors, MESSAGES);
    relay.has_delivered(MESSAGES, 0);
    relay.stops();
}

/// The new address is a black hole: the old address is used as long as necessary.
#[test]
fn a_name_that_moves_into_a_black_hole_is_not_followed() {
    let Some(network) = Network::new() else { return };
    let Some(names) = NameServer::start(&[THERE[0]]) else { return };
    let collectors = collectors(&network);
    let relay = relay_to(&collectors[0], &names, "1m");
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    network.swallows(THERE[1]);
    names.moves_to(THERE[1]);
    relay.fails_because("no longer points to");
    collectors[0].frames(collectors[0].count() + 50);
    let sent = flow.ends();
    all_arrived(&collectors, sent);
    relay.has_delivered(sent, 0);
    assert_eq!((collectors[0].accepted(), collectors[1].accepted()), (1, 0));
    relay.stops();
}

#[test]
fn a_wire_that_loses_packets_loses_no_line() {
    const MESSAGES: usize = 300;
    let Some(network) = Network::new() else { return };
    let Some(names) = NameServer::start(&[THERE[0]]) else { return };
    let collectors = collectors(&network);
    network.loses_one_in(10);
    let relay = relay_to(&collectors[0], &names, "1m");
    says_at_length(&relay, 0..MESSAGES, 8192);
    all_arrived(&collectors, MESSAGES);
    relay.has_delivered(MESSAGES, 0);
    assert_eq!((collectors[0].accepted(), collectors[0].count()), (1, MESSAGES), "nothing comes twice");
    relay.stops();
}

/// A regression: a batch took longer than `dead-after`, and the next session started again with the first line.
#[test]
fn a_slow_link_is_no_dead_collector_by_relp() {
    const MESSAGES: usize = 400;
    let Some(network) = Network::new() else { return };
    let collector = network.there(|| RelpCollector::on(THERE[0].parse().expect("an address")));
    // A batch of 64 KiB takes eight seconds.
    if !network.is_slow("64kbit") {
        return;
    }
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.forward_with(&collector.url(), "dead-after = \"4s\"").start();
    says_at_length(&relay, 0..MESSAGES, 100);
    relay.has_spooled(MESSAGES);
    let mut peer = collector.opens_numbered();
    let mut lines = 0;
    while lines < MESSAGES {
        let asked = peer.frame().expect("the relay goes on");
        lines += String::from_utf8_lossy(&asked.data).matches("<30>1 ").count();
        peer.answers(asked.txnr, "200 OK");
    }
    relay.has_delivered(MESSAGES, 0);
    assert_eq!((counts(&relay, "forward_connects_total"), counts(&relay, "forward_resent_total")), (1, 0));
    relay.stops();
}
