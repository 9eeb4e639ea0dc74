//! The table: every row at full size, and the peers in the relay's place where they are installed.
//!
//! `LOGFERRY_FAULTS_ROWS` picks rows: words with commas between them, each a part of a row's name, which is
//! `relay/transport/collector/fault`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fault::Fault;
use super::row::{Make, Row, Size, Transport};
use super::story::{Outcome, Story};

/// Stories told at a time.
const AT_ONCE: usize = 4;

enum Told {
    Outcome(Outcome),
    NotHere,
    Failed,
}

pub fn print(size: Size) {
    let picked = std::env::var("LOGFERRY_FAULTS_ROWS").unwrap_or_default();
    let words: Vec<&str> = picked.split(',').filter(|word| !word.is_empty()).collect();
    let is_picked = |row: &Row| words.is_empty() || words.iter().any(|word| row.to_string().contains(word));
    let rows: Vec<Row> = rows().into_iter().filter(is_picked).collect();
    assert!(!rows.is_empty(), "no row is called like {words:?}");
    let told = tell(&rows, size);
    println!("\n{}", written(&rows, &told, size));
    let ours = rows.iter().zip(&told).filter(|(row, _)| row.relay == Make::Logferry);
    let broken: Vec<_> = ours.filter_map(|(row, told)| told.broken_promise(row, &size)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for fault in Fault::ALL {
        for transport in [Transport::Tcp, Transport::Tls, Transport::Relp, Transport::Udp] {
            for collector in [Make::Rsyslog, Make::Logferry] {
                let relays: &[Make] = match (transport, collector) {
                    (Transport::Tcp, Make::Rsyslog) => &[Make::Logferry, Make::Rsyslog, Make::SyslogNg],
                    (Transport::Relp, Make::Rsyslog) => &[Make::Logferry, Make::Rsyslog],
                    _ => &[Make::Logferry],
                };
                if fault.applies(transport, collector) {
                    rows.extend(relays.iter().map(|&relay| Row { relay, transport, collector, fault }));
                }
            }
        }
    }
    rows
}

/// All of them, in the order of the rows, some at a time.
fn tell(rows: &[Row], size: Size) -> Vec<Told> {
    let (next, told) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((at, row)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, rows.get(at)?)))
                {
                    let one = tell_one(row, size);
                    told.lock().expect("nobody panics with it").insert(at, one);
                }
            });
        }
    });
    told.into_inner().expect("nobody panics with it").into_values().collect()
}

/// A story that fails does not end the others.
fn tell_one(row: &Row, size: Size) -> Told {
    let told = catch_unwind(AssertUnwindSafe(|| Story::begins(row, size).map(|story| story.tell(row))));
    match told {
        Ok(Some(outcome)) => {
            println!("{row}: {outcome:?}");
            Told::Outcome(outcome)
        }
        Ok(None) => Told::NotHere,
        Err(_) => {
            println!("{row}: failed");
            Told::Failed
        }
    }
}

impl Told {
    fn broken_promise(&self, row: &Row, size: &Size) -> Option<String> {
        match self {
            Self::Outcome(outcome) => outcome.broken_promise(row, size),
            Self::NotHere => None,
            Self::Failed => Some(format!("{row}: failed, see above")),
        }
    }
}

fn written(rows: &[Row], told: &[Told], size: Size) -> String {
    let mut text = format!("{} messages or more at {}/s.\n\n", size.messages, size.rate);
    text += "| what happens | by | to | sent | lost | unread | twice | late | s | rsyslog: lost, twice, s | syslog-ng: lost, twice, s |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    for (row, one) in rows.iter().zip(told).filter(|(row, _)| row.relay == Make::Logferry) {
        let peer = |relay| {
            let place = rows.iter().position(|other| *other == Row { relay, ..*row });
            place.map_or_else(String::new, |at| short(&told[at]))
        };
        let ours = match one {
            Told::Outcome(o) => {
                let seconds = seconds(o);
                format!("{} | {} | {} | {} | {} | {seconds}", o.sent, o.lost, o.unread, o.repeated, o.late)
            }
            Told::NotHere => "| not installed here | | | |".to_owned(),
            Told::Failed => "| failed | | | |".to_owned(),
        };
        let (fault, by, to) = (row.fault.title(), row.transport.name(), row.collector.name());
        text += &format!("| {fault} | {by} | {to} | {ours} | {} | {} |\n", peer(Make::Rsyslog), peer(Make::SyslogNg));
    }
    text
}

/// Of a peer, what was lost in its hands and what it never had cannot be told apart.
fn short(told: &Told) -> String {
    match told {
        Told::Outcome(o) => format!("{}, {}, {}", o.lost + o.unread, o.repeated, seconds(o)),
        Told::NotHere => "not installed".to_owned(),
        Told::Failed => "failed".to_owned(),
    }
}

fn seconds(outcome: &Outcome) -> String {
    outcome.recovery.map_or_else(|| "never".to_owned(), |time| format!("{:.1}", time.as_secs_f64()))
}
