//! What a test needs and this machine has not got: then the test says so and passes. All that was skipped in one run of
//! `cargo test` is counted at its end, by `tests/what_was_skipped.rs`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// A file to write into instead of [`record`], for who runs the tests without cargo.
pub const FILE: &str = "LOGFERRY_SKIPPED";

/// Says that this test cannot be made here. `missing` is what it lacks, in a word under which it is counted: the name of a
/// program, or "root", "IPv6", …; `why` is a sentence for a person.
///
/// Where everything is at hand, as in CI, a proof that quietly does not run is worse than none.
#[track_caller]
pub fn skip(missing: &str, why: &str) {
    let complete = std::env::var_os("CI").is_some() && nix::unistd::geteuid().is_root();
    assert!(!complete, "in CI nothing is skipped, and {why}");
    let thread = std::thread::current();
    let line = format!("{missing}\t{}\t{why}\n", thread.name().unwrap_or("?"));
    // Past the test harness, which keeps the output of tests that pass to itself.
    let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
    let file = record();
    let _ = fs::create_dir_all(file.parent().expect("it is in a folder"));
    // One write, so that lines of many processes do not mix. A user who may not write there has seen it on stderr.
    let _ =
        OpenOptions::new().append(true).create(true).open(file).and_then(|mut file| file.write_all(line.as_bytes()));
}

/// What was skipped so far by the tests that the same cargo runs: a line for each, `missing`, the test and why, with tabs.
pub fn record() -> PathBuf {
    if let Some(file) = std::env::var_os(FILE) {
        return file.into();
    }
    // target/debug/deps/this: unit tests are not told by cargo where target/tmp is.
    let program = std::env::current_exe().expect("a program has a path");
    let target = program.ancestors().nth(3).expect("three folders above it");
    target.join("tmp/skipped").join(std::os::unix::process::parent_id().to_string())
}

/// The path of a program, if it is installed.
#[track_caller]
pub fn installed(program: &str, packages: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/lib/systemd"].map(PathBuf::from));
    let found = places.map(|place| place.join(program)).find(|path| path.is_file());
    if found.is_none() {
        skip(program, &format!("{program} is not installed (Debian: apt-get install {packages})"));
    }
    found
}

/// Whether root runs this, who alone can do `what`.
#[track_caller]
pub fn root_can(what: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("root", &format!("only root can {what}"));
    }
    is_root
}

/// Whether `[::1]` can be bound.
#[track_caller]
pub fn has_ipv6() -> bool {
    let is_there = std::net::UdpSocket::bind("[::1]:0").is_ok();
    if !is_there {
        skip("IPv6", "this machine has no IPv6");
    }
    is_there
}
