//! The body of a request to a log store is well-formed and holds each line. No answer causes a panic.

#![no_main]

use logferry::internals::protocol::api::properties::{any_answer, any_bytes};

libfuzzer_sys::fuzz_target!(|data: &[u8]| match data {
    // The first bytes are the status of an answer and the number of lines that it answers.
    [b'A', high, low, lines, body @ ..] => {
        any_answer(u16::from_be_bytes([*high, *low]), body, usize::from(*lines).max(1));
    }
    line => any_bytes(line),
});
