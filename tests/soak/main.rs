//! The soak: a relay under load for a long time, while collectors die and come back or read slowly, certificates are renewed, the
//! config is read again, the spool's disk is frozen and names move or only rotate. In the end all has arrived, and nothing has grown.
//!
//! Small for every day: `cargo test --test soak`. At full size, an hour:
//!
//! ```text
//! LOGFERRY_SOAK=full cargo test --release --test soak -- --nocapture
//! ```
//!
//! which writes what it saw to `docs/design/soak.tsv` and draws it, `docs/design/soak.svg`; `docs/design/soak.md` says what it means.
//!
//! Where to look: `world`: what runs; `names`: what names it goes by; `senders`, `guests`: who connects; `happens`: what
//! happens; `tally`: counting; `samples`: what was seen, and when that is too much; `graph`: drawing it.

mod graph;
mod guests;
mod happens;
mod names;
mod samples;
mod senders;
#[path = "../support/mod.rs"]
mod support;
mod tally;
mod world;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use happens::Event;
use samples::{Column, Record, Sampler};
use senders::Load;
use support::within;
use tally::{Sent, Stream};
use world::World;

/// Until everything has arrived, in a soak that fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lengths of time are counted in messages that were sent: a soak waits for its load, not for the clock.
pub struct Size {
    /// Messages a second, of all senders that stay.
    rate: usize,
    /// Messages in all.
    messages: usize,
    /// Connections that come and go, a second.
    guests: usize,
    /// Of them, those in the middle of a handshake that stay at a time.
    half_open: usize,
    /// From the end of one event to the next.
    between: usize,
    /// For how long a collector is away…
    away: usize,
    /// …or reads slowly, and more until it is felt…
    slow: usize,
    /// …or the disk is frozen, and more until the relay is not ready. Of all that can be sent then.
    frozen: usize,
    sample_every: usize,
    /// Whether the relay runs on its defaults, or with shorter waits than anybody would set.
    defaults: bool,
    /// What the last quarter's median may have more than the second's, of resident memory…
    memory_kib: u64,
    /// …of descriptors…
    descriptors: u64,
    /// …and of threads.
    threads: u64,
}

impl Size {
    /// For every day: each event once, or twice. So short a life is mostly warming up.
    const SMALL: Self = Self {
        rate: 2000,
        messages: 32_000,
        guests: 40,
        half_open: 8,
        between: 1000,
        away: 600,
        slow: 600,
        frozen: 600,
        sample_every: 200,
        defaults: false,
        memory_kib: 4096,
        descriptors: 16,
        threads: 2,
    };

    /// An hour.
    const FULL: Self = Self {
        rate: 2000,
        messages: 7_200_000,
        guests: 20,
        // Each for 16 s, and the relay has enough of them after 10.
        half_open: 40,
        between: 80_000,
        away: 20_000,
        // 20 s: twice `dead-after`.
        slow: 40_000,
        // 2.7 s: so much has room in memory, and a sender is held for 5 s more.
        frozen: 4000,
        sample_every: 20_000,
        defaults: true,
        memory_kib: 512,
        descriptors: 4,
        threads: 0,
    };
}

#[test]
fn nothing_grows_and_all_arrives() {
    let size = match std::env::var("LOGFERRY_SOAK").as_deref() {
        Ok("full") => Size::FULL,
        Ok(other) => panic!("LOGFERRY_SOAK is \"full\" or not set, not {other:?}"),
        Err(_) => Size::SMALL,
    };
    let mut world = World::begins(&size);
    let warm = warmed_up(&world);
    let before = world.quiet_descriptors();
    let mut record = Record::default();
    let sent = soaked(&mut world, &size, warm, &mut record);
    let said = summary(&record, &sent, &world);
    println!("{said}");
    if size.defaults {
        std::fs::write(docs("soak.tsv"), record.write()).expect("written");
        std::fs::write(docs("soak.svg"), graph::drawn(&record)).expect("written");
    }
    world.is_as_it_was();
    before.are_all_of(&world.quiet_descriptors());
    balances(&world, &sent);
    let grown = record.grown(&size);
    assert!(grown.is_empty(), "{}\n{said}", grown.join("; "));
    world.relay.stops();
}

/// What is drawn is what was seen.
#[test]
fn the_graph_shows_the_samples() {
    let record = Record::read(&std::fs::read_to_string(docs("soak.tsv")).expect("it is there"));
    let drawn = graph::drawn(&record);
    if std::env::var_os("LOGFERRY_SOAK_DRAW").is_some() {
        std::fs::write(docs("soak.svg"), &drawn).expect("written");
    }
    assert!(record.samples.len() > 300, "only {} samples", record.samples.len());
    assert_eq!(record.grown(&Size::FULL), Vec::<String>::new());
    let kept = std::fs::read_to_string(docs("soak.svg")).expect("it is there");
    assert!(kept == drawn, "docs/design/soak.svg is not what LOGFERRY_SOAK_DRAW=1 cargo test --test soak draws");
}

/// 18 kB a minute, a descriptor in five minutes or a thread in 25 are seen; a warm-up is none.
#[test]
fn what_grows_is_said_to_have_grown() {
    let of = |sample: &dyn Fn(u64) -> [u64; 4]| {
        let sample = |number| {
            let [rss, anon, descriptors, threads] = sample(number);
            [number * 10_000, number * 20_000, rss, anon, descriptors, threads, 28, 0, 0, 0]
        };
        let record = Record { samples: (0..360).map(sample).collect(), events: Vec::new() };
        assert_eq!(Record::read(&record.write()).samples, record.samples);
        record.grown(&Size::FULL).len()
    };
    assert_eq!(of(&|_| [14_000, 5000, 48, 6]), 0);
    assert_eq!(of(&|number| if number < 80 { [8000, 1000, 20, 4] } else { [14_000, 5000, 48, 6] }), 0);
    assert_eq!(of(&|number| [14_000 + 3 * number, 5000 + 3 * number, 48, 6]), 2);
    assert_eq!(of(&|number| [14_000, 5000, 48 + number / 30, 6 + number / 150]), 2);
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/design").join(name)
}

/// Everybody has spoken to the relay once, and nobody does any more. Returns what was sent.
fn warmed_up(world: &World) -> Sent {
    let doors = world.doors.clone();
    let load = Load::start(&world.doors, 1000, Sent::default(), move |shared| guests::come(&doors, &shared, 20, 4));
    load.goes_on(500);
    load.ends()
}

/// The load, what happens meanwhile, and the end: all that was sent has arrived.
fn soaked(world: &mut World, size: &Size, warm: Sent, record: &mut Record) -> Sent {
    let (start, doors) = (Instant::now(), world.doors.clone());
    let (rate, half_open) = (size.guests, size.half_open);
    let load = Load::start(&world.doors, size.rate, warm, move |shared| {
        guests::come(&doors, &shared, rate, half_open);
    });
    let sampler = Sampler::start(&world.relay, load.shared(), size.sample_every, start);
    let events = world.events();
    for event in events.iter().copied().cycle() {
        load.goes_on(size.between);
        // Each has happened.
        if load.shared().total() >= size.messages && record.events.len() >= events.len() {
            break;
        }
        record.events.push((start.elapsed().as_millis() as u64, event));
        println!("{:?}: {event}", start.elapsed());
        let meanwhile = match event {
            Event::CollectorSlow => size.slow,
            Event::DiskFrozen => size.frozen,
            _ => size.away,
        };
        world.lives_through(event, || load.goes_on(meanwhile));
    }
    let sent = load.ends();
    record.samples = sampler.ends();
    for (name, sink) in [("collectors", &world.sink), ("collector with many addresses", &world.many)] {
        let arrived = within(PATIENCE, || tally::all_came(&sink.tally(), &sent).then_some(()));
        let missing = || tally::missing(&sink.tally(), &sent);
        assert!(arrived.is_some(), "not all has arrived at the {name}: {:?}", missing());
    }
    sent
}

/// Every message that was read is accounted for, and every datagram that was sent.
fn balances(world: &World, sent: &Sent) {
    let metrics = world.relay.metrics();
    world.relay.balances(0);
    world.has_one_connection_to_many();
    let nothing = ["spool_dropped_total", "forward_evicted_total", "forward_damaged_total", "spool_errors_total"];
    assert_eq!(nothing.map(|name| metrics.sum(name)), [0; 4], "{metrics:?}");
    let of_udp = |name| metrics.with(name, "listener=\"udp:") as usize;
    let came = of_udp("listen_received_total") + of_udp("listen_kernel_drops_total");
    assert_eq!(came, sent[Stream::Udp as usize], "{metrics:?}");
}

fn summary(record: &Record, sent: &Sent, world: &World) -> String {
    let [two, many] = [&world.sink, &world.many].map(|sink| sink.tally().clone());
    let mut text = "| | sent | arrived at the two | at many |\n|---|---|---|---|\n".to_owned();
    for stream in Stream::ALL {
        let [two, many] = [&two, &many].map(|tally| tally.arrived(stream as usize));
        text += &format!("| {stream:?} | {} | {two} | {many} |\n", sent[stream as usize]);
    }
    text += &format!("\nrepeated: {} and {}\n\n", two.repeated, many.repeated);
    text += "| | second quarter | last quarter | most |\n|---|---|---|---|\n";
    for column in [Column::Rss, Column::Anon, Column::Descriptors, Column::Threads] {
        let [second, last] = record.medians(column);
        let most = record.column(column).max().unwrap_or_default();
        text += &format!("| {} | {second} | {last} | {most} |\n", samples::COLUMNS[column as usize].1);
    }
    let metrics = world.relay.metrics();
    for name in [
        "listen_accepted_total",
        "listen_unfinished_total",
        "listen_handshake_failures_total",
        "forward_connects_total",
    ] {
        text += &format!("{name}: {}\n", metrics.sum(name));
    }
    text
}
