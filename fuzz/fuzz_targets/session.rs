//! The messages and answers of a session depend neither on where its bytes are cut nor on when the messages are in the
//! spool.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logferry::internals::protocol::properties::any_bytes(
    data,
    std::time::Instant::now()
));
