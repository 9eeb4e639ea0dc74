//! Compares whole relays on one machine: logferry, Debian's rsyslog with its queue in memory and on disk, Debian's
//! syslog-ng, and `wire`, which only copies bytes, so that results can be quoted as ratios. `parts` measures the parts.
//!
//! `cargo bench --bench compare` prints markdown tables; `-- --help` lists the options. This file has the rows and the
//! tables, `systems` the relays, `load` the senders and sinks, `wire` the copier. A new row is a line in `ROWS`.
//!
//! At the end, the bench asserts which lines must have arrived. It asserts no times, so a slow machine never fails.
//! Lines lost by a peer fail only with `--small`, where no buffer can overflow. Lines lost by UDP never fail.

mod load;
#[path = "../../tests/support/mod.rs"]
mod support;
mod systems;
mod wire;

use std::fs;
use std::num::NonZero;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use load::{Load, Sink, Way};
use systems::{Cpus, Relay, System};

/// Messages sent over TCP at full speed. Rows with a rate send a fraction of them.
const MESSAGES: u64 = 500_000;
const SMALL: u64 = 3_000;
/// When no line arrives for this long, the missing lines count as lost.
const QUIET: Duration = Duration::from_secs(10);
/// A relay that does nothing for this long counts as idle.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Options {
    /// How often each is measured; figures are medians, what is lost or comes twice is summed
    #[arg(long, value_name = "N", default_value = "3")]
    runs: NonZero<usize>,

    /// Messages of a run at full speed; the spool has room for 3 million
    #[arg(long, value_name = "N", default_value_t = MESSAGES, value_parser = clap::value_parser!(u64).range(1000..=3_000_000))]
    messages: u64,

    /// One run of a few thousand messages: whether all arrive, not how fast
    #[arg(long)]
    small: bool,

    /// Only rows whose name starts so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    only: String,

    /// What cargo bench hands over, and cargo test does not
    #[arg(long, hide = true)]
    bench: bool,
}

struct Row {
    name: &'static str,
    way: Way,
    senders: u64,
    /// Messages per second, of all senders. `None`: as fast as the relay takes them.
    rate: Option<u64>,
    /// Divisor of the number of messages: the row sends one in this many.
    one_in: u64,
    forwards: usize,
    /// Whether the latency of messages is reported.
    latency: bool,
}

const FLAT_OUT: Row =
    Row { name: "tcp-1", way: Way::Tcp, senders: 1, rate: None, one_in: 1, forwards: 1, latency: false };
/// What a host's containers send on most days: each message by itself, from ten senders.
const EVERYDAY: Row = Row { senders: 10, latency: true, ..FLAT_OUT };

const ROWS: [Row; 15] = [
    FLAT_OUT,
    Row { name: "tcp-50", senders: 50, ..FLAT_OUT },
    Row { name: "tls-1", way: Way::Tls, ..FLAT_OUT },
    Row { name: "everyday-tcp-10000/s", rate: Some(10_000), one_in: 10, ..EVERYDAY },
    Row { name: "everyday-tcp-1000/s", rate: Some(1000), one_in: 100, ..EVERYDAY },
    Row { name: "everyday-tcp-100/s", rate: Some(100), one_in: 1000, ..EVERYDAY },
    Row { name: "everyday-tls-10000/s", way: Way::Tls, rate: Some(10_000), one_in: 10, ..EVERYDAY },
    Row { name: "everyday-udp-10000/s", way: Way::Udp, rate: Some(10_000), one_in: 10, ..EVERYDAY },
    Row { name: "everyday-udp-1000/s", way: Way::Udp, rate: Some(1000), one_in: 100, ..EVERYDAY },
    Row { name: "everyday-udp-100/s", way: Way::Udp, rate: Some(100), one_in: 1000, ..EVERYDAY },
    Row { name: "everyday-tcp-alone-10000/s", senders: 1, rate: Some(10_000), one_in: 10, ..EVERYDAY },
    Row { name: "udp-20000/s", way: Way::Udp, rate: Some(20_000), one_in: 5, ..FLAT_OUT },
    Row { name: "udp-50-20000/s", way: Way::Udp, senders: 50, rate: Some(20_000), one_in: 5, ..FLAT_OUT },
    Row { name: "forwards-2", forwards: 2, ..FLAT_OUT },
    Row { name: "forwards-3", forwards: 3, ..FLAT_OUT },
];

/// The figures of one run, or of all runs of a row.
struct Figures {
    /// Lines delivered per second, by the slowest forward.
    rate: f64,
    /// CPU seconds per million messages received.
    cpu: f64,
    /// How often a thread of the relay waited, per second.
    wakeups: f64,
    peak_mib: f64,
    p50_ms: f64,
    p99_ms: f64,
    lost: u64,
    twice: u64,
}

fn main() -> ExitCode {
    if let Some(copying) = wire::asked_for() {
        return copying;
    }
    let mut options = Options::parse();
    options.small |= !options.bench;
    if options.small {
        (options.messages, options.runs) = (SMALL, NonZero::<usize>::MIN);
    }
    let cpus = Cpus::shared_out();
    let systems: Vec<_> = System::ALL.into_iter().filter(System::is_here).collect();
    println!("- {}", machine(&cpus));
    systems.iter().filter_map(|system| system.version()).for_each(|version| println!("- {version}"));
    println!();
    let broken = loads(&options, &systems, &cpus);
    if "idle".starts_with(&options.only) {
        idle(&options, &systems, &cpus);
    }
    broken.iter().for_each(|what| eprintln!("{what}"));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn machine(cpus: &Cpus) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown CPU");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {} CPUs, Linux {}; {cpus}", cpus.count(), kernel.trim_end())
}

/// Prints the table of all rows with a load. Returns a message for each loss that must not happen.
fn loads(options: &Options, systems: &[System], cpus: &Cpus) -> Vec<String> {
    let mut broken = Vec::new();
    let mut rows = ROWS.iter().filter(|row| row.name.starts_with(&options.only)).peekable();
    if rows.peek().is_some() {
        println!(
            "| row | relay | messages/s | CPU s/million | wake-ups/s | peak MiB | p50 ms | p99 ms | lost | twice |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
    }
    for row in rows {
        for &system in systems.iter().filter(|system| system.can(row.way)) {
            let messages = (options.messages / row.one_in).max(row.senders);
            let runs: Vec<_> = (0..options.runs.get()).map(|_| row.run(system, messages, cpus)).collect();
            let Figures { rate, cpu, wakeups, peak_mib, p50_ms, p99_ms, lost, twice } = Figures::of(&runs);
            let rate = if row.rate.is_none() { format!("{rate:.0}") } else { String::new() };
            let times = if row.latency { format!("{p50_ms:.2} | {p99_ms:.2}") } else { " | ".to_owned() };
            let name = row.name;
            println!(
                "| {name} | {system} | {rate} | {cpu:.2} | {wakeups:.0} | {peak_mib:.1} | {times} | {lost} | {twice} |"
            );
            if lost > 0 && row.way != Way::Udp && (options.small || !system.is_peer()) {
                broken.push(format!("{}: {system} lost {lost} messages", row.name));
            }
        }
    }
    broken
}

impl Row {
    fn run(&self, system: System, messages: u64, cpus: &Cpus) -> Figures {
        let load = Load::new(self.way, self.senders, messages, self.rate);
        let sinks: Vec<_> = (0..self.forwards).map(|_| Sink::new(&load)).collect();
        let addresses: Vec<_> = sinks.iter().map(Sink::address).collect();
        // Declared after the sinks, so that it is dropped before them.
        let mut relay = Relay::start(system, self.way, &addresses, cpus);
        load.warms_up(relay.address(), &sinks, || relay.is_up());
        let (before, waited, start) = (relay.cpu(), relay.waits(), Instant::now());
        let senders = load.is_sent(relay.address());
        load::arrives(&sinks, QUIET);
        relay.is_up();
        let (cpu, waits) = (relay.cpu() - before, relay.waits().saturating_sub(waited));
        let wakeups = waits as f64 / start.elapsed().as_secs_f64();
        let peak_mib = relay.mib("VmHWM");
        drop(senders);
        let (mut lost, mut twice, mut end, mut micros) = (0, 0, start, Vec::new());
        for sink in &sinks {
            let tally = sink.tally();
            lost += load.messages() - tally.unique;
            twice += tally.twice;
            end = end.max(tally.last);
            micros.extend_from_slice(&tally.micros);
        }
        micros.sort_unstable();
        let ms = |percent| micros.get(micros.len() * percent / 100).map_or(f64::NAN, |&micros| f64::from(micros) / 1e3);
        let per_second = (load.messages() * self.forwards as u64 - lost) as f64 / self.forwards as f64;
        Figures {
            rate: per_second / (end - start).as_secs_f64(),
            cpu: cpu / load.messages() as f64 * 1e6,
            wakeups,
            peak_mib,
            p50_ms: ms(50),
            p99_ms: ms(99),
            lost,
            twice,
        }
    }
}

impl Figures {
    /// Medians of the figures. Losses and duplicates are summed.
    fn of(runs: &[Self]) -> Self {
        let median = |figure: fn(&Self) -> f64| median(runs.iter().map(figure).collect());
        Self {
            rate: median(|run| run.rate),
            cpu: median(|run| run.cpu),
            wakeups: median(|run| run.wakeups),
            peak_mib: median(|run| run.peak_mib),
            p50_ms: median(|run| run.p50_ms),
            p99_ms: median(|run| run.p99_ms),
            lost: runs.iter().map(|run| run.lost).sum(),
            twice: runs.iter().map(|run| run.twice).sum(),
        }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Prints the memory of an idle relay and the time until it accepts a connection.
fn idle(options: &Options, systems: &[System], cpus: &Cpus) {
    println!("\n| idle | resident MiB | first connection after ms |\n|---|---|---|");
    for &system in systems {
        let (mut resident, mut after) = (Vec::new(), Vec::new());
        for _ in 0..options.runs.get() {
            let sink = Sink::new(&Load::new(Way::Tcp, 1, 0, None));
            let relay = Relay::start(system, Way::Tcp, &[sink.address()], cpus);
            thread::sleep(IDLE);
            resident.push(relay.mib("VmRSS"));
            after.push(relay.accepted_after.as_secs_f64() * 1e3);
        }
        println!("| {system} | {:.1} | {:.1} |", median(resident), median(after));
    }
}
