//! docs/senders.md: the fields that logferry, rsyslog and syslog-ng parse from each message.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::reference::Reference;
use crate::sent::{Aspect, Kind, Read, Sent};

/// The host in rsyslog and syslog-ng for a message without one: the datagram's source address.
const ADDRESS: &str = "127.0.0.1";
/// How many characters of a message a row shows.
const SHOWN: usize = 72;

/// The aspects of a message that each of the three programs parses wrong.
struct Row<'k> {
    kind: &'k Kind,
    sent: &'k Sent,
    wrong: [Vec<Aspect>; 3],
}

/// Writes the page if requested. Otherwise compares it.
pub fn check(kinds: &[Kind], mut rsyslog: Reference, mut syslog_ng: Reference) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/senders.md");
    let written = fs::read_to_string(&path).unwrap_or_default();
    let is_asked = std::env::var_os("LOGFERRY_SENDERS").is_some_and(|value| value == "write");
    let versions = format!("{} and {}", rsyslog.name, syslog_ng.name);
    // Other versions may parse messages differently, which says nothing about logferry.
    if !is_asked && !written.contains(&versions) {
        return;
    }
    let mut rows = Vec::new();
    for (kind, sent) in kinds.iter().flat_map(|kind| kind.message.iter().map(move |sent| (kind, sent))) {
        let wrong = |read: &Read| {
            // Both programs sometimes leave the blank after a header in the message.
            let message = read.message.strip_prefix(b" ").filter(|rest| *rest == sent.encoded(&sent.message));
            let message = message.unwrap_or(&read.message).to_vec();
            let read = Read {
                host: read.host.clone(),
                app: read.app.clone(),
                pid: read.pid.clone(),
                time: read.time.clone(),
                message,
            };
            sent.wrong_in(&read, ADDRESS, chrono::Utc::now().timestamp_micros())
        };
        let datagram = sent.datagram();
        let (theirs, others) = (rsyslog.read(&datagram), syslog_ng.read(&datagram));
        rows.push(Row { kind, sent, wrong: [sent.wrong.clone(), wrong(&theirs), wrong(&others)] });
    }
    let page = page(&rows, &versions);
    if is_asked {
        fs::write(&path, page).expect("written");
        return;
    }
    let differs = page.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert!(
        page == written,
        "docs/senders.md is not what they say; LOGFERRY_SENDERS=write makes it again: {differs:?}"
    );
}

fn page(rows: &[Row<'_>], versions: &str) -> String {
    let right = |program: usize| rows.iter().filter(|row| row.wrong[program].is_empty()).count();
    let mut page = format!(
        "# What is read of what devices and libraries send\n\n\
         Of {} messages of {} kinds of senders, logferry reads {} right, rsyslog {} and syslog-ng {}. A message counts as right if host, \
         app, process, time and text are all right.\n\n\
         {versions} ran on the same datagrams, without parsers or settings of their own. The messages and the right values are in \
         `tests/senders/*.toml`, re-typed from vendors' manuals and public tests. `LOGFERRY_SENDERS=write cargo test --test senders` \
         makes this page again.\n\n\
         If a message names no host, the right host is the address of its sender. For logferry it is the configured `hostname` if that \
         address is its own. If a message tells no year or no zone, the year or the zone is not judged.\n\n",
        rows.len(),
        by_kind(rows).len(),
        right(0),
        right(1),
        right(2),
    );
    summary(rows, &mut page);
    worse(rows, &mut page);
    page += "\n## Each message\n\nThe cells name what a program reads wrong. An empty cell is right.\n\n\
             | sender | message | logferry | rsyslog | syslog-ng |\n|---|---|---|---|---|\n";
    for Row { kind, sent, wrong: [ours, rsyslog, syslog_ng] } in rows {
        let cells = [ours, rsyslog, syslog_ng].map(|wrong| names(wrong)).join(" | ");
        let _ = writeln!(page, "| {} | {} | {cells} |", kind.sender, shown(&sent.bytes));
    }
    page
}

/// Counts the messages of a kind that each program parses right in all five aspects.
fn summary(rows: &[Row<'_>], page: &mut String) {
    *page += "| sender | messages | logferry | rsyslog | syslog-ng |\n|---|--:|--:|--:|--:|\n";
    let line = |name: &str, rows: &[&Row<'_>]| {
        let right = |program: usize| rows.iter().filter(|row| row.wrong[program].is_empty()).count();
        format!("| {name} | {} | {} | {} | {} |\n", rows.len(), right(0), right(1), right(2))
    };
    for (kind, rows) in by_kind(rows) {
        *page += &line(kind, &rows);
    }
    *page += &line("**all**", &rows.iter().collect::<Vec<_>>());
}

/// Messages that another program parses right and logferry does not.
fn worse(rows: &[Row<'_>], page: &mut String) {
    *page += "\n## Where another one is right and logferry is not\n\n";
    let mut none = true;
    for Row { kind, sent, wrong: [ours, others @ ..] } in rows {
        let better: Vec<Aspect> =
            ours.iter().filter(|aspect| others.iter().any(|wrong| !wrong.contains(aspect))).copied().collect();
        if !better.is_empty() {
            none = false;
            let _ = writeln!(page, "- {}, {}: {}", kind.sender, names(&better), shown(&sent.bytes));
        }
    }
    if none {
        *page += "Nowhere among these messages.\n";
    }
}

fn by_kind<'r>(rows: &'r [Row<'r>]) -> BTreeMap<&'r str, Vec<&'r Row<'r>>> {
    let mut kinds: BTreeMap<&str, Vec<&Row<'_>>> = BTreeMap::new();
    rows.iter().for_each(|row| kinds.entry(&row.kind.sender).or_default().push(row));
    kinds
}

fn names(wrong: &[Aspect]) -> String {
    Aspect::ALL
        .iter()
        .filter(|aspect| wrong.contains(aspect))
        .map(|aspect| aspect.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The beginning of a message, as code in a table cell.
fn shown(bytes: &str) -> String {
    let text: String = bytes.chars().take(SHOWN).map(|char| if char.is_control() { '·' } else { char }).collect();
    let end = if bytes.chars().count() > SHOWN { "…" } else { "" };
    format!("`` {}{end} ``", text.replace('|', "\\|"))
}
