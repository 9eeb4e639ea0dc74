//! Docker's driver `fluentd`, in each configuration that docs/log-drivers.md recommends.

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

/// An engine that requests acknowledgements without `fluentd-async` crashes.
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

/// Whether the driver is asynchronous. Then a container's last lines may be lost.
pub fn is_async(way: Way) -> bool {
    way.options.contains(&ASYNC)
}

/// Whether the driver requests an acknowledgement of each message. The relay sends it once the message is in the spool.
pub fn asks(way: Way) -> bool {
    way.options.contains(&ACK)
}

/// Checks the driver's fields beside image, name and ID: labels, variables, and the marks of pieces.
pub fn check(line: &Line, talker: &Talker) {
    let (parts, fields): (Vec<_>, Vec<_>) =
        talker.fields(line).into_iter().partition(|(name, _)| name.starts_with("partial_"));
    let mut expected = FIELDS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    expected.sort();
    assert_eq!(fields, expected, "{line:?}");
    if !parts.is_empty() {
        let names: Vec<_> = parts.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["partial_id", "partial_last", "partial_message", "partial_ordinal"], "{line:?}");
        // Without acknowledgements, messages are whole. The exception is a last line without an LF.
        let is_last = LAST_WORDS.iter().any(|(_, text)| *text == line.message);
        assert!(asks(talker.way) && line.message.len() <= PIECE || is_last, "{}: {line:?}", talker.what);
    }
    let nanoseconds = stamp(line).timestamp_subsec_nanos();
    assert!(talker.way.options.contains(&EXACT) || nanoseconds == 0, "{}: {line:?}", talker.what);
}

/// Without acknowledgements, a long line arrives as one message. With them its pieces stay separate and are marked.
#[test]
fn every_line_and_field_arrives() {
    super::every_line_and_field_arrives(&WAYS);
}
