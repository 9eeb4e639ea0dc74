//! The body of a request to a log store is well-formed and holds each line, and no answer is too odd.

#![no_main]

use logferry::internals::protocol::api::properties::{any_answer, any_bytes};

libfuzzer_sys::fuzz_target!(|data: &[u8]| match data {
    // An answer has a status, and is about so many lines.
    [b'A', high, low, lines, body @ ..] => {
        any_answer(u16::from_be_bytes([*high, *low]), body, usize::from(*lines).max(1));
    }
    line => any_bytes(line),
});
