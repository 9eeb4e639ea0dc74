//! The table: every row at full size, also with the peers in the relay's place if they are installed.
//!
//! `LOGFERRY_FAULTS_ROWS` selects rows by comma-separated words. Each word is a part of a row's name,
//! `relay/transport/collector/fault`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fault::Fault;
use super::row::{Make, Row, Size, Transport};
use super::story::{Outcome, Story};

/// Stories that run at the same time.
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
    use Make::{Files, Logferry, Rsyslog, SyslogNg};
    use Transport::{File, Relp, Tcp, Tls, Udp};
    const WAYS: [(Transport, Make); 9] = [
        (Tcp, Rsyslog),
        (Tcp, Logferry),
        (Tls, Rsyslog),
        (Tls, Logferry),
        (Relp, Rsyslog),
        (Relp, Logferry),
        (Udp, Rsyslog),
        (Udp, Logferry),
        (File, Files),
    ];
    let mut rows = Vec::new();
    for fault in Fault::ALL {
        for (transport, collector) in WAYS {
            let relays: &[Make] = match (transport, collector) {
                (Tcp, Rsyslog) | (File, _) => &[Logferry, Rsyslog, SyslogNg],
                (Relp, Rsyslog) => &[Logferry, Rsyslog],
                _ => &[Logferry],
            };
            let each = relays.iter().map(|&relay| Row { relay, transport, collector, fault });
            rows.extend(each.filter(Row::is_one));
        }
    }
    rows
}

/// Runs all stories, several at a time. Returns the results in the order of the rows.
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

/// A story that fails does not stop the others.
fn tell_one(row: &Row, size: Size) -> Told {
    // Each story has its own thread, because it may change the thread's network namespace.
    let told = std::thread::scope(|scope| scope.spawn(|| Story::begins(row, size).map(|story| story.tell(row))).join());
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

/// Two tables: the faults that affect everything, and those that affect some lines or senders, with more columns.
fn written(rows: &[Row], told: &[Told], size: Size) -> String {
    let mut text = format!("{} messages or more at {}/s.\n", size.messages, size.rate);
    for of_some in [false, true] {
        let own =
            if of_some { "stalled | twice | late | s | beside | crawled | held" } else { "twice | late | s | held" };
        let peers = "rsyslog: lost, twice, s, held | syslog-ng: lost, twice, s, held";
        text += &format!("\n| what happens | by | to | sent | lost | unread | {own} | {peers} |\n");
        text += &format!("{}|\n", "|---".repeat(8 + own.split('|').count()));
        for (row, one) in rows.iter().zip(told) {
            if row.relay == Make::Logferry && row.fault.has_others() == of_some {
                text += &line(row, one, (rows, told), of_some);
            }
        }
    }
    text
}

fn line(row: &Row, one: &Told, (rows, told): (&[Row], &[Told]), of_some: bool) -> String {
    let peer = |relay| {
        let place = rows.iter().position(|other| *other == Row { relay, ..*row });
        place.map_or_else(String::new, |at| short(&told[at]))
    };
    let ours = match one {
        Told::Outcome(o) => {
            let Outcome { sent, lost, unread, stalled, repeated, late, .. } = o;
            let (seconds, held) = (seconds(o.recovery), o.held.as_secs_f64());
            let (beside, crawled) = (o.beside.map(self::seconds), o.crawled.map(|lines| lines.to_string()));
            let (beside, crawled) = (beside.unwrap_or_default(), crawled.unwrap_or_default());
            match of_some {
                false => format!("{sent} | {lost} | {unread} | {repeated} | {late} | {seconds} | {held:.1}"),
                true => format!(
                    "{sent} | {lost} | {unread} | {stalled} | {repeated} | {late} | {seconds} | {beside} | {crawled} | {held:.1}"
                ),
            }
        }
        Told::NotHere => format!("not installed here{}", " | ".repeat(if of_some { 9 } else { 6 })),
        Told::Failed => format!("failed{}", " | ".repeat(if of_some { 9 } else { 6 })),
    };
    let (fault, by, to) = (row.fault.title(), row.transport.name(), row.collector.name());
    format!("| {fault} | {by} | {to} | {ours} | {} | {} |\n", peer(Make::Rsyslog), peer(Make::SyslogNg))
}

/// For a peer, lost and unread messages cannot be told apart.
fn short(told: &Told) -> String {
    match told {
        Told::Outcome(o) => {
            let held = o.held.as_secs_f64();
            format!("{}, {}, {}, {held:.1}", o.lost + o.unread, o.repeated, seconds(o.recovery))
        }
        Told::NotHere => "not installed".to_owned(),
        Told::Failed => "failed".to_owned(),
    }
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{:.1}", time.as_secs_f64()))
}
