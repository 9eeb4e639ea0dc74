//! RELP: every message has an answer, and between two logferries every line a number.

mod support;

use support::{Collector, Docker, Door, Format, Framing, Relay, Setup};

fn says(relay: &Relay, numbers: std::ops::Range<usize>) {
    let container = Docker::new(Format::Rfc5424Micro, "web");
    let mut wire = relay.door().connect();
    numbers.for_each(|number| wire.says(&container, format!("{number}").as_bytes()));
}

fn numbers(collector: &Collector) -> Vec<usize> {
    collector.messages().iter().map(|text| text.parse().expect("a number")).collect()
}

/// A relay that takes RELP and writes down what it gets.
fn receiver(collector: &Collector) -> Setup {
    let setup = Setup::new().listen("relp://127.0.0.1:0");
    setup.forward_with(&collector.url(), "framing = \"octet-counting\"")
}

#[test]
fn lines_go_from_relay_to_relay_with_their_numbers() {
    let collector = Collector::tcp(Framing::OctetCounting);
    let receiver = receiver(&collector).start();
    let Door::Relp(at) = receiver.door() else { panic!("it listens for RELP") };
    let sender = Setup::new().listen("tcp://127.0.0.1:0").forward(&format!("relp://{at}")).start();
    says(&sender, 0..500);
    collector.frames(500);
    assert!(numbers(&collector).into_iter().eq(0..500));
    sender.has_delivered(500, 0);
    receiver.has_delivered(500, 0);
    sender.stops();
    receiver.stops();
}

/// With `sync = "always"` an answer is a promise that outlives a power cut, and one sync serves many messages.
#[test]
fn an_answer_after_a_sync_does_not_take_a_sync_each() {
    const MESSAGES: usize = 20_000;
    let collector = Collector::tcp_away(Framing::OctetCounting);
    let receiver =
        Setup::new().spool("sync = \"always\"").listen("relp://127.0.0.1:0").forward(&collector.url()).start();
    let Door::Relp(at) = receiver.door() else { panic!("it listens for RELP") };
    let sender = Setup::new().listen("tcp://127.0.0.1:0").forward(&format!("relp://{at}")).start();
    let start = std::time::Instant::now();
    says(&sender, 0..MESSAGES);
    sender.has_delivered(MESSAGES, 0);
    let syncs = receiver.metrics().sum("spool_syncs_total");
    println!("{MESSAGES} messages, {syncs} syncs, {:?}", start.elapsed());
    assert!((1..=MESSAGES as u64 / 10).contains(&syncs), "{syncs} syncs for {MESSAGES} messages");
    sender.stops();
    receiver.stops();
}
