//! Samples of the resources that the relay uses, and the check for growth.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Size;
use super::happens::Event;
use super::senders::Shared;
use super::support::http::get_by;
use super::support::{Process, Relay};

/// Time between two checks of the load's progress.
const TICK: Duration = Duration::from_millis(5);

/// A column of the samples, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Milliseconds,
    /// Messages sent so far.
    Sent,
    Rss,
    Anon,
    Descriptors,
    Threads,
    /// Open connections of senders.
    Connections,
    Spool,
    /// Lines that wait in the spool.
    Waiting,
    /// Processor time so far, in milliseconds.
    Cpu,
}

pub const COLUMNS: [(Column, &str); 10] = [
    (Column::Milliseconds, "ms"),
    (Column::Sent, "sent"),
    (Column::Rss, "VmRSS kB"),
    (Column::Anon, "RssAnon kB"),
    (Column::Descriptors, "descriptors"),
    (Column::Threads, "threads"),
    (Column::Connections, "connections"),
    (Column::Spool, "spool bytes"),
    (Column::Waiting, "waiting"),
    (Column::Cpu, "cpu ms"),
];

pub type Sample = [u64; COLUMNS.len()];

/// The samples and events of a run.
#[derive(Default)]
pub struct Record {
    pub samples: Vec<Sample>,
    /// Each event with its time in milliseconds.
    pub events: Vec<(u64, Event)>,
}

/// Takes a sample after every `every` messages until the load is over.
pub struct Sampler(JoinHandle<Vec<Sample>>);

impl Sampler {
    pub fn start(relay: &Relay, load: &Arc<Shared>, every: usize, start: Instant) -> Self {
        let (process, admin, load) = (relay.process(), relay.admin(), load.clone());
        Self(std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !load.is_over() {
                let sent = load.total();
                if sent >= (samples.len() + 1) * every {
                    let metrics = get_by(admin, &admin.to_string(), "/metrics").body;
                    let sample = sample(process, &metrics, start, sent as u64);
                    println!("{}", written(&sample));
                    samples.push(sample);
                }
                std::thread::sleep(TICK);
            }
            samples
        }))
    }

    pub fn ends(self) -> Vec<Sample> {
        self.0.join().expect("the relay answers")
    }
}

fn sample(process: Process, metrics: &str, start: Instant, sent: u64) -> Sample {
    let sum = |name: &str| -> u64 {
        let of_name = metrics.lines().filter(|line| line.split([' ', '{']).next() == Some(name));
        of_name.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    COLUMNS.map(|(column, _)| match column {
        Column::Milliseconds => start.elapsed().as_millis() as u64,
        Column::Sent => sent,
        Column::Rss => process.kib("VmRSS"),
        Column::Anon => process.kib("RssAnon"),
        Column::Descriptors => sum("process_open_fds"),
        Column::Threads => process.threads(),
        Column::Connections => sum("logferry_listen_connections"),
        Column::Spool => sum("logferry_spool_bytes"),
        Column::Waiting => sum("logferry_forward_pending"),
        Column::Cpu => process.cpu().as_millis() as u64,
    })
}

fn written(sample: &Sample) -> String {
    sample.map(|value| value.to_string()).join("\t")
}

impl Record {
    /// A table with tabs as separators. Each event has a line of its own.
    pub fn write(&self) -> String {
        let mut text = COLUMNS.map(|(_, name)| name).join("\t") + "\n";
        let mut events = self.events.iter().peekable();
        for sample in &self.samples {
            while let Some((at, event)) = events.next_if(|(at, _)| *at <= sample[0]) {
                text += &format!("{at}\t{event}\n");
            }
            text += &format!("{}\n", written(sample));
        }
        text
    }

    pub fn read(text: &str) -> Self {
        let mut record = Self::default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let number = |text: &str| text.parse::<u64>().expect("a number");
            match fields[..] {
                [at, event] => record.events.push((number(at), Event::named(event).expect("a name"))),
                _ => {
                    let sample: Vec<u64> = fields.into_iter().map(number).collect();
                    record.samples.push(sample.try_into().expect("all columns"));
                }
            }
        }
        record
    }

    pub fn column(&self, column: Column) -> impl Iterator<Item = u64> + Clone {
        self.samples.iter().map(move |sample| sample[column as usize])
    }

    /// The medians of the second quarter and of the last one. The first quarter is warm-up.
    pub fn medians(&self, column: Column) -> [u64; 2] {
        let quarter = self.samples.len() / 4;
        assert!(quarter >= 5, "only {} samples", self.samples.len());
        [quarter, self.samples.len() - quarter].map(|from| {
            let mut values: Vec<u64> = self.column(column).skip(from).take(quarter).collect();
            values.sort_unstable();
            values[quarter / 2]
        })
    }

    /// The columns that have grown by more than the allowed amount: the criterion of the soak.
    pub fn grown(&self, size: &Size) -> Vec<String> {
        let allowed = [
            (Column::Rss, size.memory_kib),
            (Column::Anon, size.memory_kib),
            (Column::Descriptors, size.descriptors),
            (Column::Threads, size.threads),
        ];
        let grown = allowed.into_iter().filter_map(|(column, more)| {
            let [second, last] = self.medians(column);
            (last > second + more).then(|| format!("{}: {second}, then {last}", COLUMNS[column as usize].1))
        });
        grown.collect()
    }
}
