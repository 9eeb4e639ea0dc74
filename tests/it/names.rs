//! The collector is a name: it may not resolve, move, disappear, have many addresses, or lose its name server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::dns::NAME;
use crate::support::program::SIGSTOP;
use crate::support::script;
use crate::support::{
    Collector, Flow, Framing, NameServer, Relay, ScriptedServer, Setup, eventually, has_ipv6, says, says_at_length,
};

const fn local(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// A relay that resolves the collector's name with this name server.
fn relay_to(collector: &Collector, names: &NameServer) -> Relay {
    let forward = "framing = \"octet-counting\"\nconnect-timeout = \"1s\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&names.section());
    setup.forward_with(&collector.url_as(NAME), forward).start()
}

/// All numbers that have arrived, without duplicates.
fn numbers(collectors: &[Collector]) -> BTreeSet<usize> {
    collectors.iter().flat_map(Collector::numbers).collect()
}

/// Fails unless each of `0..count` has arrived exactly once, and at each collector in order.
#[track_caller]
fn all_arrived_once(collectors: &[Collector], count: usize) {
    let total = || collectors.iter().map(Collector::count).sum::<usize>();
    eventually(&format!("{count} messages at the collectors"), || (total() >= count).then_some(()));
    let mut all = BTreeSet::new();
    for (at, collector) in collectors.iter().enumerate() {
        let numbers: Vec<usize> = collector.messages().iter().map(|text| text.parse().expect("a number")).collect();
        assert!(numbers.is_sorted(), "out of order at {at}: {numbers:?}");
        for number in numbers {
            assert!(all.insert(number), "{number} came twice; the second time at {at}");
        }
    }
    assert_eq!(all, (0..count).collect());
}

/// Compose gives containers such names.
#[test]
fn a_name_with_an_underscore_resolves() {
    let names = ScriptedServer::start(|question| script::addresses(question, 0, &["127.0.0.2"]));
    let [mut collector] = Collector::on_one_port(false, [local(2)]);
    collector.comes();
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&names.section());
    let relay = setup.forward_with(&collector.url_as("proj_rsyslog_1.test"), "framing = \"octet-counting\"").start();
    says(&relay, 0..10);
    all_arrived_once(std::slice::from_ref(&collector), 10);
    relay.stops();
}

#[test]
fn a_name_that_does_not_resolve_yet_fills_the_spool() {
    let Some(names) = NameServer::start(&[]) else { return };
    let [mut collector] = Collector::on_one_port(false, [local(2)]);
    let relay = relay_to(&collector, &names);
    says(&relay, 0..100);
    relay.has_spooled(100);
    relay.counts_up_to("forward_resolve_failures_total", 1);
    let metrics = relay.metrics();
    assert_eq!((metrics.sum("forward_waiting"), metrics.sum("forward_connected")), (100, 0));
    collector.comes();
    names.points_to(&["127.0.0.2"]);
    all_arrived_once(std::slice::from_ref(&collector), 100);
    relay.has_delivered(100, 0);
    relay.stops();
}

#[test]
fn a_name_that_moves_is_followed_while_the_old_address_still_works() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = relay_to(&collectors[0], &names);
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    names.moves_to("127.0.0.3");
    // Make before break: the flow continues, without duplicates.
    collectors[1].frames(20);
    flow.goes_on(20);
    let sent = flow.ends();
    all_arrived_once(&collectors, sent);
    relay.has_delivered(sent, 0);
    let metrics = relay.metrics();
    assert_eq!(metrics.sum("forward_moves_total"), 1);
    assert_eq!((collectors[0].accepted(), collectors[1].accepted()), (1, 1));
    relay.stops();
}

/// The name moves back and forth repeatedly: an operator switches a failover pair by DNS.
#[test]
fn a_name_may_move_many_times() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = relay_to(&collectors[0], &names);
    let flow = Flow::into(relay.door());
    for (at, address) in ["127.0.0.3", "127.0.0.2", "127.0.0.3", "127.0.0.2"].iter().enumerate() {
        collectors[at % 2].frames(collectors[at % 2].count() + 1);
        names.moves_to(address);
        let there = &collectors[(at + 1) % 2];
        there.frames(there.count() + 1);
    }
    let sent = flow.ends();
    all_arrived_once(&collectors, sent);
    relay.has_delivered(sent, 0);
    assert_eq!(relay.metrics().sum("forward_moves_total"), 4);
    relay.stops();
}

/// Each answer has two of eight addresses, in rotation.
#[test]
fn a_name_whose_answers_rotate_has_not_moved() {
    const ADDRESSES: [&str; 8] =
        ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.9"];
    let mut turn = 0;
    let names = ScriptedServer::start(move |question| {
        turn += usize::from(question.kind == script::A);
        let first = turn * 2 % ADDRESSES.len();
        script::addresses(question, 0, &ADDRESSES[first..first + 2])
    });
    let mut collectors = Collector::on_one_port(false, [2, 3, 4, 5, 6, 7, 8, 9].map(local));
    collectors.iter_mut().for_each(Collector::comes);
    collectors.iter().for_each(Collector::stays);
    let forward = "framing = \"octet-counting\"\nconnect-timeout = \"1s\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&names.section());
    let relay = setup.forward_with(&collectors[0].url_as(NAME), forward).start();
    let flow = Flow::into(relay.door());
    for _ in 0..5 {
        names.is_asked(10);
        flow.goes_on(5);
    }
    let sent = flow.ends();
    all_arrived_once(&collectors, sent);
    relay.has_delivered(sent, 0);
    assert_eq!((relay.metrics().sum("forward_moves_total"), relay.metrics().sum("forward_connects_total")), (0, 1));
    relay.stops();
}

/// More lines than the kernels buffer between a relay and a collector that does not read.
const BACKLOG: usize = 1500;

/// A relay with a backlog; its collector hangs when the name moves away.
fn moving_away_from_a_collector_that_hangs(names: &NameServer, collectors: &[Collector]) -> Relay {
    let relay = relay_to(&collectors[0], names);
    relay.counts("forward_connected", 1);
    collectors[0].hangs();
    says_at_length(&relay, 0..BACKLOG, 8192);
    relay.has_spooled(BACKLOG);
    names.moves_to("127.0.0.3");
    relay.counts("forward_moves_total", 1);
    relay
}

/// The line in flight is completed: no line is torn, and none is sent to both.
#[test]
fn a_name_that_moves_in_the_middle_of_a_backlog() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = moving_away_from_a_collector_that_hangs(&names, &collectors);
    collectors[0].goes_on();
    all_arrived_once(&collectors, BACKLOG);
    assert!(collectors.iter().all(|collector| collector.count() > 0));
    relay.has_delivered(BACKLOG, 0);
    relay.stops();
}

/// The old collector hangs for good: lines that it has not accepted go to the new one.
#[test]
fn a_name_that_moves_away_from_a_collector_that_hangs() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = moving_away_from_a_collector_that_hangs(&names, &collectors);
    relay.has_delivered(BACKLOG, 0);
    // Lines in the hanging collector's kernel count as delivered, and are delivered once it reads them.
    collectors[0].goes_on();
    eventually("everything, at either", || numbers(&collectors).into_iter().eq(0..BACKLOG).then_some(()));
    relay.stops();
}

/// The name points to the new address before a collector listens there: the relay keeps the old connection.
#[test]
fn the_old_address_serves_until_the_new_one_answers() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors[0].comes();
    let relay = relay_to(&collectors[0], &names);
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    names.moves_to("127.0.0.3");
    relay.counts_up_to("forward_connect_failures_total", 1);
    collectors[0].frames(collectors[0].count() + 20);
    collectors[1].comes();
    collectors[1].frames(20);
    let sent = flow.ends();
    all_arrived_once(&collectors, sent);
    relay.has_delivered(sent, 0);
    relay.stops();
}

#[test]
fn a_name_that_moves_after_the_collector_died_is_followed() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = relay_to(&collectors[0], &names);
    says(&relay, 0..50);
    relay.has_delivered(50, 0);
    collectors[0].frames(50);
    collectors[0].goes();
    relay.counts("forward_connected", 0);
    says(&relay, 50..100);
    relay.has_spooled(100);
    names.moves_to("127.0.0.3");
    all_arrived_once(&collectors, 100);
    assert_eq!(collectors[1].count(), 50);
    relay.has_delivered(100, 0);
    relay.stops();
}

#[test]
fn a_datagram_forward_follows_the_name_too() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(true, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = relay_to(&collectors[0], &names);
    let flow = Flow::into(relay.door());
    collectors[0].frames(20);
    names.moves_to("127.0.0.3");
    collectors[1].frames(20);
    let sent = flow.ends();
    all_arrived_once(&collectors, sent);
    relay.has_delivered(sent, 0);
    relay.stops();
}

#[test]
fn dead_addresses_of_a_name_are_passed_over() {
    // Only one address is alive, so that in any order dead addresses are usually tried first.
    let dead = ["127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7"];
    let Some(names) = NameServer::start(&[&dead[..], &["127.0.0.2"]].concat()) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(4), local(5), local(6), local(7)]);
    collectors[0].comes();
    let relay = relay_to(&collectors[0], &names);
    says(&relay, 0..50);
    collectors[0].frames(50);
    // The relay has to reconnect each time.
    for round in 1..=5 {
        relay.has_delivered(49 + round, 0);
        collectors[0].hangs_up();
        eventually("the relay has noticed", || (relay.metrics().sum("forward_connected") == 0).then_some(()));
        says(&relay, 49 + round..50 + round);
        collectors[0].frames(50 + round);
        assert_eq!(collectors[0].accepted(), round + 1);
    }
    all_arrived_once(&collectors, 55);
    relay.has_delivered(55, 0);
    assert!(relay.metrics().sum("forward_connect_failures_total") > 0);
    relay.stops();
}

#[test]
fn without_a_name_server_the_last_good_answer_serves() {
    let Some(mut names) = NameServer::start(&["127.0.0.2"]) else { return };
    let [mut collector] = Collector::on_one_port(false, [local(2)]);
    collector.comes();
    let relay = relay_to(&collector, &names);
    says(&relay, 0..50);
    collector.frames(50);
    relay.has_delivered(50, 0);
    names.dies();
    eventually("the relay has asked in vain", || {
        (relay.metrics().sum("forward_resolve_failures_total") > 0).then_some(())
    });
    // The open connection continues, and the next connection uses the last known address.
    says(&relay, 50..60);
    collector.frames(60);
    relay.has_delivered(60, 0);
    collector.goes();
    relay.counts("forward_connected", 0);
    says(&relay, 60..100);
    relay.has_spooled(100);
    collector.comes();
    all_arrived_once(std::slice::from_ref(&collector), 100);
    relay.has_delivered(100, 0);
    relay.stops();
}

/// NXDOMAIN is not final: during an edit of a zone a name can be missing for a moment.
#[test]
fn a_name_that_vanishes_keeps_its_connection() {
    let Some(names) = NameServer::start(&["127.0.0.2"]) else { return };
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = relay_to(&collectors[0], &names);
    says(&relay, 0..50);
    collectors[0].frames(50);
    names.points_to(&[]);
    eventually("the relay has asked in vain", || {
        (relay.metrics().sum("forward_resolve_failures_total") > 0).then_some(())
    });
    says(&relay, 50..60);
    collectors[0].frames(60);
    names.moves_to("127.0.0.3");
    eventually("the relay has moved", || (relay.metrics().sum("forward_moves_total") == 1).then_some(()));
    says(&relay, 60..100);
    all_arrived_once(&collectors, 100);
    relay.has_delivered(100, 0);
    relay.stops();
}

#[test]
fn a_name_with_only_an_ipv6_address() {
    if !has_ipv6() {
        return;
    }
    let Some(names) = NameServer::start(&["::1"]) else { return };
    let [mut collector] = Collector::on_one_port(false, [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    collector.comes();
    let relay = relay_to(&collector, &names);
    says(&relay, 0..50);
    all_arrived_once(std::slice::from_ref(&collector), 50);
    relay.has_delivered(50, 0);
    relay.stops();
}

/// A relay that caches an answer for longer than any test waits.
fn slow_relay_to(url: &str, names: &ScriptedServer, keys: &str) -> Relay {
    let forward = format!("framing = \"octet-counting\"\nconnect-timeout = \"1s\"\n{keys}");
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let setup = setup.section(&names.section_with("min-ttl = \"1h\"\nmax-ttl = \"1h\""));
    setup.forward_with(url, &forward).start()
}

/// The collector acknowledges nothing: the relay resolves the name at once, before the TTL has passed, and before the kernel gives up.
#[test]
fn a_collector_that_stands_still_is_left_as_soon_as_the_name_has_moved() {
    let names = ScriptedServer::with(&["127.0.0.2"]);
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = slow_relay_to(&collectors[0].url_as(NAME), &names, "dead-after = \"10s\"");
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    collectors[0].hangs();
    says_at_length(&relay, 10..BACKLOG, 8192);
    relay.has_spooled(BACKLOG);
    // The first query returns the old address.
    names.is_asked(2);
    names.points_to(&["127.0.0.3"]);
    relay.has_delivered(BACKLOG, 0);
    assert_eq!(relay.metrics().sum("forward_moves_total"), 1);
    // When the collector continues, it gets only whole lines, although the connection was closed in the middle of a line.
    collectors[0].goes_on();
    eventually("everything, at either", || numbers(&collectors).into_iter().eq(0..BACKLOG).then_some(()));
    relay.stops();
}

/// An idle connection is no reason to query the name.
#[test]
fn a_quiet_connection_does_not_stand_still() {
    let names = ScriptedServer::with(&["127.0.0.2"]);
    let mut collectors = Collector::on_one_port(false, [local(2), local(3)]);
    collectors.iter_mut().for_each(Collector::comes);
    let relay = slow_relay_to(&collectors[0].url_as(NAME), &names, "dead-after = \"1s\"");
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    let asked = names.asked();
    // Each pause is longer than the limit for a stall.
    for number in 10..13 {
        says(&relay, number..number + 1);
        relay.has_delivered(number + 1, 0);
    }
    assert_eq!((names.asked(), collectors[0].accepted()), (asked, 1));
    all_arrived_once(&collectors, 13);
    relay.stops();
}

/// Two relays on one port, as collectors that can be stopped; each forwards to a recording collector.
fn aggregators(scheme: &str, behind: &[Collector; 2]) -> [Relay; 2] {
    let start = |address: &str, port: u16, to: &Collector| {
        let listening = Setup::new().listen(&format!("{scheme}://{address}:{port}"));
        listening.forward_with(&to.url(), "framing = \"octet-counting\"")
    };
    let first = start("127.0.0.2", 0, &behind[0]).start();
    let port = first.door().port();
    [first, start("127.0.0.3", port, &behind[1]).start()]
}

/// `kill -STOP`: the process's kernel still accepts connections and data.
#[track_caller]
fn a_stopped_process_is_left(scheme: &str) {
    let names = ScriptedServer::with(&["127.0.0.2"]);
    let behind = [(); 2].map(|()| Collector::tcp(Framing::OctetCounting));
    let aggregators = aggregators(scheme, &behind);
    let url = format!("{scheme}://{NAME}:{}", aggregators[0].door().port());
    let relay = slow_relay_to(&url, &names, "dead-after = \"10s\"");
    says(&relay, 0..10);
    relay.has_delivered(10, 0);
    aggregators[0].signal(SIGSTOP);
    says_at_length(&relay, 10..BACKLOG, 8192);
    relay.has_spooled(BACKLOG);
    names.is_asked(2);
    names.points_to(&["127.0.0.3"]);
    eventually("the relay has moved", || (relay.metrics().sum("forward_moves_total") == 1).then_some(()));
    // Lines in the stopped process's kernel are sent again, because it may never continue.
    eventually("the backlog, at the second", || numbers(&behind[1..]).into_iter().eq(10..BACKLOG).then_some(()));
    relay.has_delivered(BACKLOG, 0);
    assert_eq!(numbers(&behind[..1]), (0..10).collect());
    relay.stops();
}

#[test]
fn a_stopped_process_is_left_for_where_its_name_has_moved() {
    a_stopped_process_is_left("tcp");
}

#[test]
fn a_stopped_process_is_left_for_where_its_name_has_moved_by_relp() {
    a_stopped_process_is_left("relp");
}
