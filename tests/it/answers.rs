//! Name servers that give every answer but the right one. Such an answer never ends an open connection, never keeps a relay from starting,
//! and is never final.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::dns::NAME;
use crate::support::script::{A, AAAA, NXDOMAIN, Question, REFUSED, Reply, SERVFAIL, addresses, aliases};
use crate::support::{Collector, Relay, ScriptedServer, Setup, all_arrived_once, eventually, has_ipv6, says};

const FIRST: &str = "127.0.0.2";
const SECOND: &str = "127.0.0.3";

fn collectors() -> [Collector; 2] {
    Collector::on_one_port(false, [2, 3].map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))))
}

fn relay_to(collector: &Collector, names: &ScriptedServer) -> Relay {
    let forward = format!("[[forward]]\nto = \"{}\"\nframing = \"octet-counting\"", collector.url_as(NAME));
    let quick = "connect-timeout = \"1s\"\nmax-backoff = \"200ms\"\nreplay-for = \"100ms\"";
    let setup = Setup::new().listen("tcp://127.0.0.1:0").section(&names.section());
    setup.section(&format!("{forward}\n{quick}")).start()
}

fn moves(relay: &Relay) -> u64 {
    relay.metrics().sum("forward_moves_total")
}

/// The name server gives this answer while a connection is open, while the connection breaks, and until the name gets a new address.
fn is_no_answer(reply: fn(&Question) -> Reply) {
    let names = ScriptedServer::with(&[FIRST]);
    let [mut first, mut second] = collectors();
    first.comes();
    second.comes();
    let relay = relay_to(&first, &names);
    says(&relay, 0..20);
    relay.has_delivered(20, 0);

    names.says(reply);
    names.is_asked(20);
    says(&relay, 20..40);
    relay.has_delivered(40, 0);
    assert_eq!((first.count(), first.accepted(), moves(&relay)), (40, 1, 0), "the connection that stood is left");

    // The relay connects to the last good answer.
    first.goes();
    relay.counts("forward_connected", 0);
    first.comes();
    says(&relay, 40..60);
    relay.has_delivered(60, 0);
    assert_eq!((first.count(), second.count()), (60, 0));

    names.points_to(&[SECOND]);
    eventually("the relay has moved", || (moves(&relay) == 1).then_some(()));
    says(&relay, 60..80);
    all_arrived_once(&[&first, &second], 80);
    relay.has_delivered(80, 0);
    // A library that logged a warning for each datagram would let any host fill the log.
    let (said, ours) = (relay.stops().stderr, ["spool: ", "listen: ", "admin: ", "forward central: ", "stopp"]);
    let is_ours = |line: &str| ours.iter().any(|start| line[27..].trim_start()[5..].trim_start().starts_with(start));
    assert!(said.lines().all(is_ours), "{said}");
}

/// The relay starts while the name server gives this answer, and delivers once the answer is right.
fn is_waited_out(reply: fn(&Question) -> Reply) {
    let names = ScriptedServer::start(reply);
    let [mut first, _] = collectors();
    first.comes();
    let relay = relay_to(&first, &names);
    says(&relay, 0..20);
    relay.has_spooled(20);
    relay.counts_up_to("forward_resolve_failures_total", 1);
    names.points_to(&[FIRST]);
    relay.has_delivered(20, 0);
    all_arrived_once(&[&first], 20);
    relay.stops();
}

/// An unusual but valid answer: the relay connects to the first collector, and later moves to the second.
fn is_an_answer(reply: fn(&Question) -> Reply) {
    let names = ScriptedServer::start(reply);
    let [mut first, mut second] = collectors();
    first.comes();
    second.comes();
    let relay = relay_to(&first, &names);
    says(&relay, 0..20);
    relay.has_delivered(20, 0);
    assert_eq!(first.count(), 20);
    // The same answer, many times, causes no move.
    names.is_asked(5);
    assert_eq!((first.accepted(), moves(&relay)), (1, 0));
    names.points_to(&[SECOND]);
    eventually("the relay has moved", || (moves(&relay) == 1).then_some(()));
    says(&relay, 20..40);
    all_arrived_once(&[&first, &second], 40);
    relay.has_delivered(40, 0);
    relay.stops();
}

macro_rules! stories {
    ($story:ident: $($name:ident = $reply:expr;)+) => {
        mod $story {
            use super::*;
            $(#[test] fn $name() { super::$story($reply); })+
        }
    };
}

stories! { is_no_answer:
    servfail = |_| Reply::Code(SERVFAIL);
    nxdomain = |_| Reply::Code(NXDOMAIN);
    refused = |_| Reply::Code(REFUSED);
    nothing_of_either_family = |_| Reply::Records(Vec::new());
    silence = |_| Reply::Silence;
    too_late = |question| Reply::Late(Box::new(addresses(question, 1, &[SECOND])));
    to_another_question = |question| Reply::WrongId(Box::new(addresses(question, 1, &[SECOND])));
    garbage = |_| Reply::Garbage;
    cut_and_silent_over_tcp = |_| Reply::Cut(Box::new(Reply::Silence));
    cut_and_garbage_over_tcp = |_| Reply::Cut(Box::new(Reply::Garbage));
    aliases_that_lead_nowhere = |_| aliases(&Question { name: NAME.to_owned(), kind: AAAA, tcp: false }, 3, FIRST);
    // The query for the family in use fails. Addresses of the other family are no reason to move.
    a_fails_and_aaaa_does_not = |question| match question.kind {
        A => Reply::Code(SERVFAIL),
        _ => addresses(question, 1, &["::1"]),
    };
    a_is_silent_and_aaaa_does_not_exist = |question| match question.kind {
        A => Reply::Silence,
        _ => Reply::Code(NXDOMAIN),
    };
}

stories! { is_waited_out:
    servfail = |_| Reply::Code(SERVFAIL);
    nxdomain = |_| Reply::Code(NXDOMAIN);
    refused = |_| Reply::Code(REFUSED);
    nothing_of_either_family = |_| Reply::Records(Vec::new());
    silence = |_| Reply::Silence;
    garbage = |_| Reply::Garbage;
    to_another_question = |question| Reply::WrongId(Box::new(addresses(question, 1, &[SECOND])));
    cut_and_silent_over_tcp = |_| Reply::Cut(Box::new(Reply::Silence));
}

stories! { is_an_answer:
    one_family = |question| addresses(question, 1, &[FIRST]);
    aaaa_is_dropped = |question| match question.kind {
        A => addresses(question, 1, &[FIRST]),
        _ => Reply::Silence,
    };
    aaaa_is_refused = |question| match question.kind {
        A => addresses(question, 1, &[FIRST]),
        _ => Reply::Code(REFUSED),
    };
    aaaa_does_not_exist = |question| match question.kind {
        A => addresses(question, 1, &[FIRST]),
        _ => Reply::Code(NXDOMAIN),
    };
    cut_and_whole_over_tcp = |question| Reply::Cut(Box::new(addresses(question, 1, &[FIRST])));
    three_aliases = |question| aliases(question, 3, FIRST);
    // The TTL is clamped: the relay neither asks again at once, nor caches the answer for 68 years.
    a_ttl_of_nothing = |question| addresses(question, 0, &[FIRST]);
    a_ttl_of_ages = |question| addresses(question, i32::MAX as u32, &[FIRST]);
    thirty_addresses = |question| {
        let dead: Vec<String> = (100..129).map(|last| format!("127.0.0.{last}")).collect();
        let all: Vec<&str> = dead.iter().map(String::as_str).chain([FIRST]).collect();
        addresses(question, 1, &all)
    };
}

/// The queries for IPv4 stay unanswered.
#[test]
fn only_ipv6() {
    if !has_ipv6() {
        return;
    }
    let names = ScriptedServer::start(|question| match question.kind {
        A => Reply::Silence,
        _ => addresses(question, 1, &["::1"]),
    });
    let [mut collector] = Collector::on_one_port(false, [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    collector.comes();
    let relay = relay_to(&collector, &names);
    says(&relay, 0..20);
    relay.has_delivered(20, 0);
    names.says(|_| Reply::Silence);
    names.is_asked(4);
    says(&relay, 20..40);
    relay.has_delivered(40, 0);
    assert_eq!((collector.accepted(), moves(&relay)), (1, 0));
    all_arrived_once(&[&collector], 40);
    relay.stops();
}
