//! No test: the last of the targets, by its name, says what those before it have skipped in this run of `cargo test`, and
//! for want of what.

use std::collections::BTreeMap;
use std::fs;

#[path = "support/skip.rs"]
#[allow(dead_code)]
mod skip;

fn main() {
    // Asked only for the names of tests.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let record = skip::record();
    let skipped = fs::read_to_string(&record).unwrap_or_default();
    // The next process of that number is another cargo. A file that was asked for is kept.
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
