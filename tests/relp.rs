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
