//! The soak test: a relay runs under load for a long time. Meanwhile collectors die and restart or read slowly,
//! certificates are renewed, the config is reloaded, the spool's disk is frozen, and names move or rotate. At the end,
//! all messages have arrived, and the relay's resources have not grown.
//!
//! At the small size, for every day: `cargo test --test soak`. At full size, for an hour:
//!
//! ```text
//! LOGFERRY_SOAK=full cargo test --release --test soak -- --nocapture
//! ```
//!
//! The full run writes its samples to `docs/design/soak.tsv` and draws them in `docs/design/soak.svg`.
//! `docs/design/soak.md` explains them.
//!
//! The modules: `world`: the relay and the collectors; `names`: the name server; `senders`, `guests`: the connections;
//! `happens`: the events; `tally`: counting; `samples`: the measurements and their limits; `graph`: the drawing.

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

/// Time limit for all messages to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// Durations are counted in messages sent: a soak follows its load, not the clock.
pub struct Size {
    /// Messages per second, of all senders that stay.
    rate: usize,
    /// Total messages.
    messages: usize,
    /// Short connections per second.
    guests: usize,
    /// The number of short connections that stay open in the middle of a handshake.
    half_open: usize,
    /// The time from the end of one event to the next.
    between: usize,
    /// How long a collector is away, in messages.
    away: usize,
    /// How long a collector reads slowly, at least. The event goes on until many lines wait for it.
    slow: usize,
    /// How long the disk is frozen, at least. Only messages of senders that can still send count. The event goes on
    /// until the relay is not ready.
    frozen: usize,
    sample_every: usize,
    /// Whether the relay runs with its defaults. If not, its timeouts are shorter than in practice.
    defaults: bool,
    /// The allowed growth of the median from the second quarter to the last one: resident memory…
    memory_kib: u64,
    /// …of descriptors…
    descriptors: u64,
    /// …and of threads.
    threads: u64,
}

impl Size {
    /// The size for every day: each event happens once or twice. Most of so short a run is warm-up.
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

    /// The size of an hour.
    const FULL: Self = Self {
        rate: 2000,
        messages: 7_200_000,
        guests: 20,
        // Each connection stays for 16 s, and the relay's handshake timeout is 10 s.
        half_open: 40,
        between: 80_000,
        away: 20_000,
        // 20 s: twice `dead-after`.
        slow: 40_000,
        // 2.7 s, because some senders wait for the disk. Memory holds these messages; afterwards the relay blocks
        // senders for up to 5 s.
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

/// The published graph is drawn from the published samples.
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

/// The criterion detects a growth of 18 kB a minute, of a descriptor in five minutes or of a thread in 25, and ignores
/// a warm-up.
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

/// A short load in which all kinds of connections reach the relay once. Returns the numbers sent.
fn warmed_up(world: &World) -> Sent {
    let doors = world.doors.clone();
    let load = Load::start(&world.doors, 1000, Sent::default(), move |shared| guests::come(&doors, &shared, 20, 4));
    load.goes_on(500);
    load.ends()
}

/// Runs the load and the events, and waits until all messages have arrived. Returns the numbers sent.
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
        // Every event has happened at least once.
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

/// Every received message and every sent datagram is accounted for.
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
