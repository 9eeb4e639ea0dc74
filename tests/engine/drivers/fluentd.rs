//! Docker's driver `fluentd`, in each way that docs/log-drivers.md recommends.

use super::super::support::Line;
use super::super::talker::PIECE;
use super::stage::{Driver, FIELDS, LAST_WORDS, Talker, Way, stamp};

const EXACT: &str = "fluentd-sub-second-precision=true";
const ASYNC: &str = "fluentd-async=true";
const RETRIES: &str = "fluentd-max-retries=80";
const ACK: &str = "fluentd-request-ack=true";

pub const UNIX: Way = way("unix", "unix", &[EXACT]);
pub const TCP: Way = way("tcp", "tcp", &[EXACT]);
pub const UNIX_ASYNC: Way = way("unix-async", "unix", &[EXACT, ASYNC, RETRIES]);
pub const TCP_ASYNC: Way = way("tcp-async", "tcp", &[EXACT, ASYNC, RETRIES]);

/// Without `fluentd-async` an engine that asks for answers crashes.
pub const WAYS: [Way; 7] = [
    UNIX,
    UNIX_ASYNC,
    way("unix-ack", "unix", &[EXACT, ASYNC, RETRIES, ACK]),
    TCP,
    TCP_ASYNC,
    way("tcp-ack", "tcp", &[EXACT, ASYNC, RETRIES, ACK]),
    way("tcp-seconds", "tcp", &[]),
];

const fn way(name: &'static str, transport: &'static str, options: &'static [&'static str]) -> Way {
    Way { driver: Driver::Fluentd, name, transport, options }
}

/// What a container prints at its end may be lost.
pub fn is_async(way: Way) -> bool {
    way.options.contains(&ASYNC)
}

/// Whether each message is answered once it is in the spool.
pub fn asks(way: Way) -> bool {
    way.options.contains(&ACK)
}

/// What it says of its container beside image, name and ID: labels and variables, and whether a line is a piece.
pub fn check(line: &Line, talker: &Talker) {
    let (parts, fields): (Vec<_>, Vec<_>) =
        talker.fields(line).into_iter().partition(|(name, _)| name.starts_with("partial_"));
    let mut expected = FIELDS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    expected.sort();
    assert_eq!(fields, expected, "{line:?}");
    if !parts.is_empty() {
        let names: Vec<_> = parts.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["partial_id", "partial_last", "partial_message", "partial_ordinal"], "{line:?}");
        // And whoever asks for nothing has whole messages, but for a last word that does not end.
        let is_last = LAST_WORDS.iter().any(|(_, text)| *text == line.message);
        assert!(asks(talker.way) && line.message.len() <= PIECE || is_last, "{}: {line:?}", talker.what);
    }
    let nanoseconds = stamp(line).timestamp_subsec_nanos();
    assert!(talker.way.options.contains(&EXACT) || nanoseconds == 0, "{}: {line:?}", talker.what);
}

/// Where nobody asks for answers a long line is one; where somebody does its pieces stay pieces, and say so.
#[test]
fn every_line_and_field_arrives() {
    super::every_line_and_field_arrives(&WAYS);
}
