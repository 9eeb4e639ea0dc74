//! Requirements that this machine lacks: the test reports that it was skipped, and passes. `tests/what_was_skipped.rs` counts the skipped
//! tests of one `cargo test` at its end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// An environment variable with a file that replaces [`record`], for runs without cargo.
pub const FILE: &str = "LOGFERRY_SKIPPED";

/// Reports that this test cannot run here. `missing` is the key under which the skip is counted: a program's name, or "root", "IPv6", …;
/// `why` is a sentence for a person.
///
/// Fails in CI as root, where everything is installed: a skipped test must not pass silently there.
#[track_caller]
pub fn skip(missing: &str, why: &str) {
    let complete = std::env::var_os("CI").is_some() && nix::unistd::geteuid().is_root();
    assert!(!complete, "in CI nothing is skipped, and {why}");
    let thread = std::thread::current();
    let line = format!("{missing}\t{}\t{why}\n", thread.name().unwrap_or("?"));
    // Write to stderr directly: the test harness hides the output of passing tests.
    let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
    let file = record();
    let _ = fs::create_dir_all(file.parent().expect("it is in a folder"));
    // One write, so that lines of many processes do not mix. A user without write permission has seen the text on stderr.
    let _ =
        OpenOptions::new().append(true).create(true).open(file).and_then(|mut file| file.write_all(line.as_bytes()));
}

/// The list of tests that this run of cargo has skipped so far: lines of `missing`, the test and the reason, separated by tabs.
pub fn record() -> PathBuf {
    if let Some(file) = std::env::var_os(FILE) {
        return file.into();
    }
    // The program is target/debug/deps/NAME. Unit tests get no path of target/tmp from cargo.
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

/// Whether the tests run as root, which `what` requires.
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
