//! The collector hangs, dies and comes back, always at the same address.

use std::collections::BTreeSet;

use crate::support::{Collector, Framing, Relay, Setup, eventually, says_at_length};

fn relay_to(collector: &Collector) -> Relay {
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    setup.forward_with(&collector.url(), "framing = \"octet-counting\"").start()
}

/// The numbers that have arrived, without duplicates.
fn numbers(collector: &Collector) -> BTreeSet<usize> {
    collector.numbers().into_iter().collect()
}

/// The kernel acknowledges data for an application that is about to die: lines that it had not read are sent again.
#[track_caller]
fn dies_with_lines_unread(mut collector: Collector) {
    let keys = format!("framing = \"octet-counting\"\n{}", crate::support::Certs::trusted(&collector.url()));
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), &keys).start();
    says_at_length(&relay, 0..50, 1);
    collector.frames(50);
    collector.hangs();
    // The collector's thread is blocked in read already; this line completes that call.
    says_at_length(&relay, 50..51, 1);
    collector.frames(51);
    says_at_length(&relay, 51..100, 1);
    relay.has_spooled(100);
    collector.goes_unread();
    collector.comes();
    // This line makes the relay connect again.
    says_at_length(&relay, 100..101, 1);
    eventually("the last one", || numbers(&collector).contains(&100).then_some(()));
    let missing: Vec<_> = (0..=100).filter(|number| !numbers(&collector).contains(number)).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    relay.stops();
}

#[test]
fn what_a_dead_collector_had_not_read_comes_again() {
    dies_with_lines_unread(Collector::tcp(Framing::OctetCounting));
}

#[test]
fn what_a_dead_collector_had_not_read_comes_again_by_tls() {
    dies_with_lines_unread(Collector::tls(Framing::OctetCounting, false));
}

/// Containers must not notice: a relay that stops reading blocks even `docker stop`.
#[test]
fn a_collector_that_hangs_holds_no_sender() {
    const MESSAGES: usize = 1500;
    let collector = Collector::tcp(Framing::OctetCounting);
    let relay = relay_to(&collector);
    relay.counts("forward_connected", 1);
    collector.hangs();
    // More than the kernels buffer.
    says_at_length(&relay, 0..MESSAGES, 8192);
    relay.has_spooled(MESSAGES);
    collector.goes_on();
    collector.frames(MESSAGES);
    assert!(collector.messages().iter().map(|text| text.parse::<usize>().expect("a number")).eq(0..MESSAGES));
    relay.has_delivered(MESSAGES, 0);
    relay.stops();
}

/// The kernel buffers far more for a hanging program than the default replay window.
#[test]
fn what_a_hanging_collector_never_read_comes_again() {
    const MESSAGES: usize = 2000;
    let (mut collector, healthy) = (Collector::tcp(Framing::OctetCounting), Collector::tcp(Framing::OctetCounting));
    let keys = "framing = \"octet-counting\"\nreplay = \"1KiB\"\nreplay-for = \"1s\"";
    let forward = |name: &str, to: &Collector| format!("[[forward]]\nname = \"{name}\"\nto = \"{}\"\n{keys}", to.url());
    let setup = Setup::new().listen("tcp://127.0.0.1:0");
    let relay = setup.section(&forward("hangs", &collector)).section(&forward("healthy", &healthy)).start();
    relay.counts("forward_connected", 2);
    collector.hangs();
    // Part of it is in the collector's kernel, and part in the relay's kernel.
    says_at_length(&relay, 0..MESSAGES, 8192);
    // By then acknowledged lines would have exceeded the time for which they are kept.
    eventually("a forward delivers", || {
        (relay.metrics().with("forward_delivered_total", "forward=\"healthy\"") == MESSAGES as i64).then_some(())
    });
    collector.goes_unread();
    collector.comes();
    eventually("every line", || (numbers(&collector).len() == MESSAGES).then_some(()));
    relay.stops();
}

/// The receive window opens only after a large part of the buffer is read, which takes longer than `dead-after`.
#[test]
fn a_collector_that_reads_slowly_is_not_dead() {
    const MESSAGES: usize = 1000;
    let collector = Collector::tcp(Framing::OctetCounting);
    collector.reads_slowly(4096);
    let keys = "framing = \"octet-counting\"\ndead-after = \"2s\"";
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), keys).start();
    // More than the kernels buffer.
    says_at_length(&relay, 0..MESSAGES, 8192);
    relay.has_spooled(MESSAGES);
    // Several full buffers: 400 kB at 40 kB/s.
    collector.frames(50);
    assert_eq!((collector.accepted(), relay.metrics().sum("forward_connects_total")), (1, 1));
    collector.goes_on();
    collector.frames(MESSAGES);
    relay.has_delivered(MESSAGES, 0);
    assert!(collector.numbers().into_iter().eq(0..MESSAGES), "nothing comes twice");
    assert_eq!(relay.metrics().sum("forward_resent_total"), 0);
    relay.stops();
}

/// The collector's kernel answers, so the collector may only be slow; but the relay does not wait for ever.
#[test]
fn a_collector_that_hangs_for_long_is_connected_anew() {
    const MESSAGES: usize = 1000;
    let collector = Collector::tcp(Framing::OctetCounting);
    let keys = "framing = \"octet-counting\"\ndead-after = \"100ms\"";
    let relay = Setup::new().listen("tcp://127.0.0.1:0").forward_with(&collector.url(), keys).start();
    relay.counts("forward_connected", 1);
    collector.hangs();
    // More than the kernels buffer.
    says_at_length(&relay, 0..MESSAGES, 8192);
    relay.fails_because("the collector has read nothing for 3.2s");
    collector.goes_on();
    eventually("every line", || (numbers(&collector).len() == MESSAGES).then_some(()));
    relay.has_delivered(MESSAGES, 0);
    relay.stops();
}
