//! Not a test: it reports what the other targets have skipped in this run of `cargo test`, and what was missing. Its
//! name sorts last, so that it runs last.

use std::collections::BTreeMap;
use std::fs;

#[path = "support/skip.rs"]
#[allow(dead_code)]
mod skip;

fn main() {
    // Asked only to list the tests.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let record = skip::record();
    let skipped = fs::read_to_string(&record).unwrap_or_default();
    // A later cargo process may get the same number, so the record is removed. A file named by the user is kept.
    if std::env::var_os(skip::FILE).is_none() {
        let _ = fs::remove_file(&record);
    }
    let mut by_missing: BTreeMap<&str, usize> = BTreeMap::new();
    for line in skipped.lines() {
        *by_missing.entry(line.split('\t').next().unwrap_or_default()).or_default() += 1;
    }
    let list: Vec<String> = by_missing.iter().map(|(missing, count)| format!("{missing} ({count})")).collect();
    match skipped.lines().count() {
        0 => println!("\nskipped: nothing\n"),
        all => println!("\nskipped: {all} times, for want of {}\n", list.join(", ")),
    }
}
